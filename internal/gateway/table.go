package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
)

// table is a catalog made ready for serving. It is immutable.
type table struct {
	revision string
	matcher  *matcher
	places   []*route                 // by place in the matcher
	routes   map[string]*route        // by source
	buckets  map[string]*bucket       // by scope
	queues   map[catalog.Key]struct{} // that routes write to
	cors     []*crossOrigin           // of the APIs that have one
}

// newTable compiles cat, reusing what did not change. A route that this process can't serve, because a later version
// published it or because it doesn't compile here, answers 503 and blocks no other: TestARouteFailsAlone guards it.
// The caller holds mu.
func (g *Gateway) newTable(cat *catalog.Catalog, former *table) *table {
	t := &table{
		revision: cat.Revision(),
		routes:   map[string]*route{}, buckets: map[string]*bucket{}, queues: map[catalog.Key]struct{}{},
	}
	queues := make(map[catalog.Key]*catalog.Queue, len(cat.Queues))
	for i := range cat.Queues {
		queues[cat.Queues[i].Key] = &cat.Queues[i]
	}
	if former == nil {
		former = &table{}
	}
	var patterns []string
	for _, a := range cat.APIs {
		scope := "/apis/" + a.Namespace + "/" + a.Name
		name := a.Key.String()
		api := t.bucket(former, scope, bucketID{"api", name, a.Name}, a.Throttle)
		cross := newCrossOrigin(a.CORS)
		if cross != nil {
			t.cors = append(t.cors, cross)
		}
		for i := range a.Routes {
			spec := &a.Routes[i]
			source := scope + "/" + spec.Name
			r := g.newRoute(source, spec, former)
			r.cors = cross
			r.method, r.pattern, r.spanName, r.apiName = spec.Method, spec.Path, spec.Method+" "+spec.Path, name
			r.api, r.bucket = api, t.bucket(former, source, bucketID{"route", name, spec.Name}, spec.Throttle)
			r.aim(t, queues)
			t.routes[source] = r
			t.places = append(t.places, r)
			patterns = append(patterns, spec.Pattern())
		}
	}
	if t.matcher = former.matcher; t.matcher == nil || !slices.Equal(t.matcher.patterns, patterns) {
		t.matcher = newMatcher(patterns, func(at int, err error) {
			g.cfg.Log.Error("a route can't be served: its path conflicts with another's, or is invalid", "route", t.places[at].source, "error", err)
		})
	}
	return t
}

// newRoute compiles a route, or reuses what was compiled for the same spec before.
func (g *Gateway) newRoute(source string, spec *catalog.Route, former *table) *route {
	f := former.routes[source]
	if f != nil && reflect.DeepEqual(f.spec, *spec) && f.kind != toNothing {
		r := *f
		r.queue, r.maxAge, r.writer = catalog.Key{}, 0, nil
		return &r
	}
	limit := spec.MaxBodyBytes
	r := &route{g: g, spec: *spec, source: source, maxBody: func(*http.Request) int64 { return limit }, held: new(atomic.Int64), answers: new(answers)}
	if f != nil {
		r.held = f.held
	}
	if err := r.compile(); err != nil {
		r.kind, r.unserved = toNothing, err.Error()
		if f == nil || f.unserved != r.unserved { // else it is logged already
			g.cfg.Log.Error("a route can't be served", "route", source, "reason", r.unserved)
		}
	}
	return r
}

func (r *route) compile() (err error) {
	log, source := r.g.cfg.Log, r.source // not r: the compiled schema outlives it
	r.schema = newLazySchema(r.spec.Schema, func(err error) {
		log.Error("a route can't be served", "route", source, "reason", err.Error())
	})
	if r.media, err = compileMedia(r.spec.ContentTypes); err != nil {
		return err
	}
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
		f := &r.spec.Function.Function
		r.forward, err = r.g.cfg.Caller.Forward(invoke.Hop{Function: invoke.FunctionName(namespaceOf(r.source), *f), Base: f.URL, H2C: f.H2C, Failed: r.g.forwardFailed})
	default:
		err = errors.New("this version doesn't know its target: update this gateway")
	}
	return err
}

// namespaceOf is that of a source, /apis/NAMESPACE/API/ROUTE.
func namespaceOf(source string) string {
	namespace, _, _ := strings.Cut(strings.TrimPrefix(source, "/apis/"), "/")
	return namespace
}

// aim sets a route's queue and writer as they are now. The caller holds the gateway's mu.
func (r *route) aim(t *table, queues map[catalog.Key]*catalog.Queue) {
	if r.kind != toQueue {
		return
	}
	target := r.spec.Queue
	if r.spec.Job != nil {
		target = r.spec.Job
	}
	r.queue = target.Queue
	if q, ok := queues[r.queue]; ok { // else NATS answers that there is no such queue
		r.maxAge = q.MaxAge
		if q.Closed {
			return
		}
	}
	r.writer = r.g.writer(r.queue)
	t.queues[r.queue] = struct{}{}
}

// matcher finds the place of the route that a request matches. It doesn't hold the routes themselves, so that it is
// reused as long as their patterns are the same: building one of ten thousand takes a tenth of a second, or some
// seconds if all end with "{rest...}".
type matcher struct {
	mux      *http.ServeMux
	patterns []string
}

// place is the index of a route in its table. As a handler it only marks what the mux has found.
type place int

// ServeHTTP does nothing: the mux has set the request's path values.
func (place) ServeHTTP(http.ResponseWriter, *http.Request) {}

// newMatcher leaves out a pattern that conflicts with one before it, or is invalid, and calls left for it.
func newMatcher(patterns []string, left func(at int, err error)) *matcher {
	m := &matcher{mux: http.NewServeMux(), patterns: patterns}
	for i, pattern := range patterns {
		if err := handle(m.mux, pattern, place(i)); err != nil {
			left(i, err)
		}
	}
	return m
}

// plainHost is host, which may end with a port, as patterns have it: in lower case and without the root's dot.
func plainHost(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if name, port, ok := strings.Cut(host, ".:"); ok {
		return name + ":" + port
	}
	return host
}

// match returns the route of r, nil if there is none: then h answers, with a redirect if pattern is not empty.
func (t *table) match(r *http.Request) (route *route, h http.Handler, pattern string) {
	h, pattern = t.matcher.mux.Handler(r)
	if p, ok := h.(place); ok {
		return t.places[p], h, pattern
	}
	return nil, h, pattern
}

// handle registers a pattern. The mux panics on one that conflicts with another or is invalid.
func handle(mux *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	mux.Handle(pattern, h)
	return nil
}

func (t *table) bucket(former *table, scope string, id bucketID, spec *catalog.Throttle) *bucket {
	if spec == nil {
		return nil
	}
	f := former.buckets[scope]
	b := f
	switch {
	case f == nil:
		b = newBucket(id, *spec)
	case f.spec != *spec:
		b = &bucket{Bucket: f.Changed(spec.Rate, spec.Burst, time.Now()), spec: *spec, bucketID: id}
	}
	t.buckets[scope] = b
	return b
}
