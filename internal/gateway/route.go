package gateway

import (
	"fmt"
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/schema"
)

// table is a catalog made ready for serving. It is immutable.
type table struct {
	revision string
	mux      *http.ServeMux
	routes   int
	buckets  map[string]*bucket       // by scope
	queues   map[catalog.Key]struct{} // that routes write to
}

// kind is what becomes of a route's requests.
type kind int

const (
	toQueue    kind = iota + 1 // buffered writes, and jobs
	toFunction                 // synchronous calls
	toOwn                      // Weir's own paths
)

// route serves the requests of one route, or of one of Weir's own paths.
type route struct {
	g          *Gateway
	kind       kind
	spec       catalog.Route // not of own paths
	source     string        // /apis/NAMESPACE/API/ROUTE: scope of idempotency keys and CloudEvents source
	api        *bucket       // nil if not throttled
	bucket     *bucket       // the route's own; nil if not throttled
	maxBody    func(*http.Request) int64
	schema     *schema.Schema // nil if there is none
	attributes []attribute
	wildcards  bool // attributes need what the path's wildcards match

	queue  catalog.Key   // toQueue
	maxAge time.Duration // of queue
	writer appender      // of queue; nil: it is closed

	forward http.Handler // toFunction
	own     jobapi.Route // toOwn
}

// newTable compiles cat, keeping the state of what did not change. The caller holds mu.
func (g *Gateway) newTable(cat *catalog.Catalog, former *table) (t *table, err error) {
	t = &table{
		revision: cat.Revision(), mux: http.NewServeMux(),
		buckets: map[string]*bucket{}, queues: map[catalog.Key]struct{}{},
	}
	defer func() { // the mux panics on patterns that collide
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("%v", p)
		}
	}()
	closed, maxAges := map[catalog.Key]bool{}, map[catalog.Key]time.Duration{}
	for _, q := range cat.Queues {
		closed[q.Key], maxAges[q.Key] = q.Closed, q.MaxAge
	}
	for _, a := range cat.APIs {
		scope := "/apis/" + a.Namespace + "/" + a.Name
		api := t.bucket(former, scope, a.Name, a.Throttle)
		for _, spec := range a.Routes {
			r := &route{g: g, spec: spec, source: scope + "/" + spec.Name, api: api, maxBody: func(*http.Request) int64 { return spec.MaxBodyBytes }}
			r.bucket = t.bucket(former, r.source, spec.Name, spec.Throttle)
			if r.schema, err = compileSchema(spec.Schema); err != nil {
				return nil, fmt.Errorf("route %s: %w", r.source, err)
			}
			if r.attributes, err = compileAttributes(spec.Attributes); err != nil {
				return nil, fmt.Errorf("route %s: %w", r.source, err)
			}
			for i := range r.attributes {
				_, needed := r.attributes[i].value.Wildcard()
				r.wildcards = r.wildcards || needed
			}
			target := spec.Queue
			if spec.Job != nil {
				target = spec.Job
			}
			switch {
			case target != nil && closed[target.Queue]:
				r.kind = toQueue
			case target != nil:
				r.kind = toQueue
				r.queue, r.maxAge, r.writer = target.Queue, maxAges[target.Queue], g.writer(target.Queue)
				t.queues[target.Queue] = struct{}{}
			case spec.Function != nil:
				r.kind = toFunction
				if r.forward, err = g.cfg.Client.Forward(spec.Function.Function.URL, g.forwardFailed); err != nil {
					return nil, fmt.Errorf("route %s: %w", r.source, err)
				}
			default:
				return nil, fmt.Errorf("route %s: has neither queue, job nor function", r.source)
			}
			t.mux.Handle(spec.Method+" "+spec.Path, r)
			t.routes++
		}
	}
	return t, nil
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

// ServeHTTP is for the table's mux.
func (r *route) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.serve(w, req) }
