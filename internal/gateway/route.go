package gateway

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/schema"
	"github.com/weir-dev/weir/internal/throttle"
)

// table is a catalog made ready for serving. It is immutable.
type table struct {
	revision string
	mux      *http.ServeMux
	routes   int
	buckets  map[string]*bucket       // by scope
	queues   map[catalog.Key]struct{} // that routes write to
	maxAges  map[catalog.Key]time.Duration
	objects  map[catalog.Key]int64 // bytes of one at most
	jobs     []catalog.Key         // queues whose jobs may be asked for
}

// bucket is a throttle with what it was made from, so that an unchanged one is kept and a changed one is as full
// as it was.
type bucket struct {
	*throttle.Bucket
	spec catalog.Throttle
	name string // in the RateLimit fields
}

// route serves the requests of one route.
type route struct {
	g          *Gateway
	spec       catalog.Route
	source     string         // /apis/NAMESPACE/API/ROUTE: scope of idempotency keys and CloudEvents source
	api        *bucket        // nil: none
	own        *bucket        // nil: none
	schema     *schema.Schema // nil: none
	attributes []attribute
	wildcards  bool          // attributes need what the path's wildcards match
	queue      catalog.Key   // of writer
	maxAge     time.Duration // of queue
	writer     appender      // nil: the queue is closed, or forward is set
	forward    http.Handler
}

// newTable compiles cat, keeping the state of what did not change. The caller holds mu.
func (g *Gateway) newTable(cat *catalog.Catalog, former *table) (t *table, err error) {
	t = &table{
		revision: cat.Revision(), mux: http.NewServeMux(),
		buckets: map[string]*bucket{}, queues: map[catalog.Key]struct{}{}, maxAges: map[catalog.Key]time.Duration{}, objects: map[catalog.Key]int64{},
	}
	defer func() { // the mux panics on patterns that collide
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("%v", p)
		}
	}()
	closed := map[catalog.Key]bool{}
	for _, q := range cat.Queues {
		closed[q.Key] = q.Closed
		t.maxAges[q.Key], t.objects[q.Key] = q.MaxAge, q.Objects.MaxObject()
		t.jobs = append(t.jobs, q.Key) // also of those whose last job route has gone
	}
	for _, a := range cat.APIs {
		scope := "/apis/" + a.Namespace + "/" + a.Name
		api := t.bucket(former, scope, a.Name, a.Throttle)
		for _, spec := range a.Routes {
			r := &route{g: g, spec: spec, source: scope + "/" + spec.Name, api: api}
			r.own = t.bucket(former, r.source, spec.Name, spec.Throttle)
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
			case target != nil:
				r.queue, r.maxAge, r.writer = target.Queue, t.maxAges[target.Queue], g.writer(target.Queue)
				t.queues[target.Queue] = struct{}{}
			case spec.Function != nil:
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
	b := &bucket{spec: *spec, name: name}
	var f *bucket
	if former != nil {
		f = former.buckets[scope]
	}
	switch {
	case f == nil:
		b.Bucket = throttle.New(spec.Rate, spec.Burst, time.Now())
	case f.spec == *spec:
		b = f
	default:
		b.Bucket = f.Changed(spec.Rate, spec.Burst, time.Now())
	}
	t.buckets[scope] = b
	return b
}

// ServeHTTP throttles, bounds and reads the body, validates it, and hands over.
func (r *route) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	now := time.Now()
	if b, wait := r.throttle(now); b != nil {
		writeThrottled(w, req, b, wait)
		return
	}
	if r.writer == nil && r.forward == nil {
		writeProblem(w, req, problemQueueClosed())
		return
	}
	if req.ContentLength > r.spec.MaxBodyBytes {
		writeProblem(w, req, problemTooLarge(r.spec.MaxBodyBytes))
		return
	}
	if r.forward != nil && r.schema == nil {
		r.synchronous(w, req)
		return
	}
	if id := req.Header.Get(headerInput); id != "" && r.forward == nil {
		r.jobOfUpload(w, req, id, now)
		return
	}
	if r.schema != nil && !jsonMedia(req.Header) {
		writeProblem(w, req, problem{
			Status: http.StatusUnsupportedMediaType, Type: typeMediaType, Title: "Unsupported media type",
			Detail: "This route takes JSON: send Content-Type: application/json.",
		})
		return
	}
	body, release, err := r.readBody(req)
	if err != nil {
		writeProblem(w, req, problemOfBody(err, r.spec.MaxBodyBytes))
		return
	}
	defer release()
	if r.schema != nil {
		if err := r.schema.Validate(body); err != nil {
			writeProblem(w, req, problemOfSchema(err))
			return
		}
	}
	if r.forward != nil {
		withBody(req, body)
		r.synchronous(w, req)
		return
	}
	if r.spec.Job != nil {
		r.job(w, req, body, nil, now)
		return
	}
	r.buffered(w, req, body, now)
}

// throttle takes a token of the route's and of the API's bucket, or of neither: then it returns the
// bucket that refused and how long until it has a token.
func (r *route) throttle(now time.Time) (*bucket, time.Duration) {
	if r.own != nil {
		if ok, wait := r.own.Take(now); !ok {
			return r.own, wait
		}
	}
	if r.api != nil {
		if ok, wait := r.api.Take(now); !ok {
			if r.own != nil {
				r.own.Return()
			}
			return r.api, wait
		}
	}
	return nil, 0
}

// The ways in which a body can't be had.
var (
	errBodyTooLarge = errors.New("gateway: body too large")
	errNoMemory     = errors.New("gateway: too many bodies in memory")
)

// buffers recycles the memory of bodies up to maxPooled bytes.
type buffers struct{ pool sync.Pool }

const maxPooled = 64 << 10

func (b *buffers) get(n int) *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok && cap(*p) >= n {
		return p
	}
	p := make([]byte, 0, max(n, 2<<10))
	return &p
}

func (b *buffers) put(p *[]byte) {
	if cap(*p) <= maxPooled {
		*p = (*p)[:0]
		b.pool.Put(p)
	}
}

var bodyBuffers buffers //nolint:gochecknoglobals // a pool of plain memory

// readBody returns the whole body and a function that gives its memory back.
func (r *route) readBody(req *http.Request) (body []byte, release func(), err error) {
	size := req.ContentLength
	if size == 0 {
		return nil, func() {}, nil
	}
	reserve := size
	if size < 0 {
		reserve = r.spec.MaxBodyBytes
	}
	if r.g.bodies.Add(reserve) > maxBodiesBytes {
		r.g.bodies.Add(-reserve)
		return nil, nil, errNoMemory
	}
	p := bodyBuffers.get(int(max(size, 0)))
	release = func() {
		if r.forward == nil { // a transport may still be reading a body that it was given
			bodyBuffers.put(p)
		}
		r.g.bodies.Add(-reserve)
	}
	if size > 0 {
		*p = (*p)[:size]
		_, err = io.ReadFull(req.Body, *p)
	} else {
		*p, err = appendAll((*p)[:0], req.Body, r.spec.MaxBodyBytes)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return *p, release, nil
}

// appendAll reads src to its end, at most limit bytes.
func appendAll(p []byte, src io.Reader, limit int64) ([]byte, error) {
	for {
		if len(p) == cap(p) {
			p = append(p, 0)[:len(p)]
		}
		n, err := src.Read(p[len(p):cap(p)])
		p = p[:len(p)+n]
		switch {
		case int64(len(p)) > limit:
			return p, errBodyTooLarge
		case errors.Is(err, io.EOF):
			return p, nil
		case err != nil:
			return p, err
		}
	}
}

// jsonMedia reports whether the Content-Type is JSON, or missing.
func jsonMedia(h http.Header) bool {
	ct := h.Get("Content-Type")
	if ct == "" || ct == "application/json" {
		return true
	}
	media, _, err := mime.ParseMediaType(ct)
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}

// requestID returns the client's X-Request-Id if it is fit to be logged and repeated, else fallback.
func requestID(h http.Header, fallback func() string) string {
	id := h.Get(headerRequestID)
	if id == "" || len(id) > maxRequestID {
		return fallback()
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] >= 0x7f {
			return fallback()
		}
	}
	return id
}

const (
	headerRequestID = "X-Request-Id"
	maxRequestID    = 128
)

func newRequestID() string {
	id, err := record.NewID()
	if err != nil {
		return "" // no randomness: the request is still served
	}
	return id.String()
}
