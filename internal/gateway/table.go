package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
)

// table is a catalog made ready for serving. It is immutable.
type table struct {
	revision string
	mux      *http.ServeMux
	routes   map[string]*route        // by source
	buckets  map[string]*bucket       // by scope
	queues   map[catalog.Key]struct{} // that routes write to
}

// newTable makes cat ready, keeping what did not change. What this process can't serve, because a later version has
// published it or because it doesn't compile here, answers 503 and holds up nothing else: TestARouteFailsAlone guards it.
// The caller holds mu.
func (g *Gateway) newTable(cat *catalog.Catalog, former *table) *table {
	t := &table{
		revision: cat.Revision(), mux: http.NewServeMux(),
		routes: map[string]*route{}, buckets: map[string]*bucket{}, queues: map[catalog.Key]struct{}{},
	}
	queues := make(map[catalog.Key]*catalog.Queue, len(cat.Queues))
	for i := range cat.Queues {
		queues[cat.Queues[i].Key] = &cat.Queues[i]
	}
	for _, a := range cat.APIs {
		scope := "/apis/" + a.Namespace + "/" + a.Name
		api := t.bucket(former, scope, a.Name, a.Throttle)
		for i := range a.Routes {
			spec := &a.Routes[i]
			source := scope + "/" + spec.Name
			r := g.newRoute(source, spec, former)
			r.api, r.bucket = api, t.bucket(former, source, spec.Name, spec.Throttle)
			r.aim(t, queues)
			if r.kind == toNothing {
				g.cfg.Log.Error("a route can't be served", "route", source, "reason", r.unserved)
			}
			t.routes[source] = r
			if err := handle(t.mux, spec.Method+" "+spec.Path, r); err != nil {
				g.cfg.Log.Error("a route can't be served: its path is another's, or none", "route", source, "error", err)
			}
		}
	}
	return t
}

// newRoute compiles a route, or takes over what was compiled of the same one before.
func (g *Gateway) newRoute(source string, spec *catalog.Route, former *table) *route {
	if former != nil {
		if f := former.routes[source]; f != nil && reflect.DeepEqual(f.spec, *spec) && f.kind != toNothing {
			r := *f
			r.queue, r.maxAge, r.writer = catalog.Key{}, 0, nil
			return &r
		}
	}
	limit := spec.MaxBodyBytes
	r := &route{g: g, spec: *spec, source: source, maxBody: func(*http.Request) int64 { return limit }}
	if err := r.compile(); err != nil {
		r.kind, r.unserved = toNothing, err.Error()
	}
	return r
}

func (r *route) compile() (err error) {
	log, source := r.g.cfg.Log, r.source // not r: what is compiled outlives it
	r.schema = newLazySchema(r.spec.Schema, func(err error) {
		log.Error("a route can't be served", "route", source, "reason", err.Error())
	})
	if r.attributes, err = compileAttributes(r.spec.Attributes); err != nil {
		return err
	}
	for i := range r.attributes {
		_, needed := r.attributes[i].value.Wildcard()
		r.wildcards = r.wildcards || needed
	}
	switch {
	case r.spec.Queue != nil || r.spec.Job != nil:
		r.kind = toQueue
	case r.spec.Function != nil:
		r.kind = toFunction
		r.forward, err = r.g.cfg.Client.Forward(r.spec.Function.Function.URL, r.g.forwardFailed)
	default:
		err = errors.New("its target is none that this version knows: update this gateway")
	}
	return err
}

// aim points a route at its queue as it is now. The caller holds the gateway's mu.
func (r *route) aim(t *table, queues map[catalog.Key]*catalog.Queue) {
	if r.kind != toQueue {
		return
	}
	target := r.spec.Queue
	if r.spec.Job != nil {
		target = r.spec.Job
	}
	r.queue = target.Queue
	if q, ok := queues[r.queue]; ok { // else NATS says that there is none
		r.maxAge = q.MaxAge
		if q.Closed {
			return
		}
	}
	r.writer = r.g.writer(r.queue)
	t.queues[r.queue] = struct{}{}
}

// handle registers a pattern. The mux panics on one that collides with another, or is none.
func handle(mux *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	mux.Handle(pattern, h)
	return nil
}

func (t *table) bucket(former *table, scope, name string, spec *catalog.Throttle) *bucket {
	if spec == nil {
		return nil
	}
	var f *bucket
	if former != nil {
		f = former.buckets[scope]
	}
	b := f
	switch {
	case f == nil:
		b = newBucket(name, *spec)
	case f.spec != *spec:
		b = &bucket{Bucket: f.Changed(spec.Rate, spec.Burst, time.Now()), spec: *spec, name: name}
	}
	t.buckets[scope] = b
	return b
}
