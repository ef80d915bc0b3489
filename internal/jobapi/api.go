// Package jobapi is what clients ask about jobs over HTTP, and what functions report of them: states and results,
// feeds, objects, callbacks, and the way to realtime. The gateway serves its routes through the steps that
// all requests go through; realtime uses its documents and events too.
//
// Invariants: every id and address that is accepted was signed by Weir; what is answered with 204 is durable; nothing
// begins once Close was called.
//
// The data flows through the files in this order: api.go (routes, catalog, end), then one of jobs.go, feeds.go,
// callbacks.go, objects.go (with transfer.go) and relay.go. document.go and events.go are what clients see.
//
// May import: ownpath, problem, record, catalog, lifecycle, telemetry, sign, stream, blob, job.
package jobapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
)

// Streams is what the API does with NATS.
type Streams interface {
	stream.Jobs
	stream.JobEvents
}

// Config is what the API needs.
type Config struct {
	Conn    Streams
	Objects blob.Store // large results and uploaded inputs of jobs
	// Realtime serves those who listen to the states of jobs: a Relay, or the service itself if it is in this process. nil
	// if disabled.
	Realtime Listeners
	Base     ownpath.Base // of the addresses that clients are given
	Log      *slog.Logger
}

// Listeners serve those who listen to the states of jobs.
type Listeners interface {
	http.Handler
	// Drain begins to disconnect them, and doesn't block.
	Drain()
}

// API answers about the jobs of the current catalog.
type API struct {
	cfg    Config
	hub    *job.Hub
	keys   atomic.Pointer[sign.Ring]
	queues atomic.Pointer[queues]

	drain      context.Context // cancelled when the drain begins
	startDrain context.CancelFunc
	work       lifecycle.Work // transfers
	transfers  atomic.Int64   // of objects, by clients
	reports    atomic.Int64   // the same, of results that functions report
}

// queues are those of the current catalog.
type queues struct {
	keys    []catalog.Key // of all queues, also of those whose last job route is gone
	maxAges map[catalog.Key]time.Duration
	objects map[catalog.Key]int64 // bytes of one object at most
}

// New returns an API that knows no queue before Use. Close must be called.
func New(cfg Config) *API {
	a := &API{cfg: cfg, hub: job.NewHub(cfg.Conn, cfg.Log)}
	a.drain, a.startDrain = context.WithCancel(context.Background())
	a.queues.Store(&queues{})
	return a
}

// Use makes cat the catalog whose jobs may be asked for.
func (a *API) Use(cat *catalog.Catalog) {
	q := &queues{maxAges: map[catalog.Key]time.Duration{}, objects: map[catalog.Key]int64{}}
	for _, spec := range cat.Queues {
		q.keys = append(q.keys, spec.Key)
		q.maxAges[spec.Key], q.objects[spec.Key] = spec.MaxAge, spec.Objects.MaxObject()
	}
	a.queues.Store(q)
}

// UseKeys makes ring the signing keys.
func (a *API) UseKeys(ring sign.Ring) { a.keys.Store(&ring) }

// Ring returns the signing keys, an empty ring before UseKeys.
func (a *API) Ring() sign.Ring {
	if ring := a.keys.Load(); ring != nil {
		return *ring
	}
	return sign.Ring{}
}

// Drain ends all waits at once, and has those who listen disconnected. It doesn't block.
func (a *API) Drain() {
	a.startDrain()
	if a.cfg.Realtime != nil {
		a.cfg.Realtime.Drain()
	}
}

// Close drains, and returns once nothing is in flight any more.
func (a *API) Close() {
	a.startDrain()
	a.work.Wait()
	a.hub.Close()
}

// Stream as a route's MaxBody means that its handler reads the body itself.
const Stream = -1

// Route is one of the API's.
type Route struct {
	Pattern string // of net/http.ServeMux
	Class   string // routes of the same class share a throttle
	// MaxBody bounds the body, which the handler gets whole; zero means none, Stream that the handler reads it.
	MaxBody func(*http.Request) int64
	Serve   func(w http.ResponseWriter, req *http.Request, body []byte)
}

// The classes of routes.
const (
	ClassJobs      = "jobs"
	ClassFeeds     = "feeds"
	ClassListen    = "listen"
	ClassObjects   = "objects"
	ClassCallbacks = "callbacks"
)

// Routes returns the routes to serve.
func (a *API) Routes() []Route {
	none := func(*http.Request) int64 { return 0 }
	whole := func(*http.Request) int64 { return Stream }
	routes := []Route{
		{"GET " + ownpath.Jobs + "{id}", ClassJobs, none, a.job((*Request).get)},
		{"DELETE " + ownpath.Jobs + "{id}", ClassJobs, none, a.job((*Request).cancel)},
		{"GET " + ownpath.Jobs + "{id}/result", ClassJobs, none, a.job((*Request).result)},
		{"POST " + ownpath.NewFeed, ClassFeeds, none, a.newFeed},
		{"POST " + ownpath.Callbacks + "{callback}", ClassCallbacks, maxReport, a.callback},
		{"GET " + ownpath.Objects + "{permit}", ClassObjects, none, a.getObject},
		{"PUT " + ownpath.Objects + "{permit}", ClassObjects, whole, a.putObject},
	}
	if a.cfg.Realtime != nil {
		for _, path := range []string{ownpath.Jobs, ownpath.Jobs + "{id}/", ownpath.Feeds + "{id}/"} {
			routes = append(routes, Route{"GET " + path + "events", ClassListen, none, a.listen}, Route{"GET " + path + "socket", ClassListen, none, a.listen})
		}
	}
	return routes
}

// listen hands a client that listens over.
func (a *API) listen(w http.ResponseWriter, req *http.Request, _ []byte) {
	// The server's read timeout would end the answer.
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		a.cfg.Log.DebugContext(req.Context(), "a connection's read deadline stays", "error", err)
	}
	req.Header.Set(problem.HeaderRequestID, w.Header().Get(problem.HeaderRequestID)) // realtime answers under the same id
	a.cfg.Realtime.ServeHTTP(w, req)
}

// ProblemOf maps the error of a failed submission, report or look-up to a problem; ok is false for an error that is
// not about jobs.
func ProblemOf(err error) (p problem.Problem, ok bool) {
	switch {
	case errors.Is(err, job.ErrNoKeys):
		return problem.NotNow("Starting", "This gateway has no signing keys yet. Try again.", time.Second), true
	case errors.Is(err, job.ErrNoID):
		return problem.UnknownJob(), true
	case errors.Is(err, job.ErrNoFeed):
		return problem.UnknownFeed(), true
	case errors.Is(err, job.ErrNoCallback):
		return problem.Problem{Status: http.StatusNotFound, Type: problem.NoCallback, Title: "No such callback", Detail: "No attempt at a job was ever given this address, or its queue was deleted."}, true
	case errors.Is(err, blob.ErrFull):
		return problem.Problem{
			Status: http.StatusServiceUnavailable, Type: problem.ObjectsFull, Title: "No room for objects", RetryAfter: 5 * time.Second,
			Detail: "Nothing was stored. Try again when objects have expired, or raise objects.maxBytes of the queue.",
		}, true
	case errors.Is(err, blob.ErrTooLarge):
		return problem.Problem{
			Status: http.StatusRequestEntityTooLarge, Type: problem.TooLarge, Title: "Body too large", Detail: "It is larger than half of objects.maxBytes of the queue.",
		}, true
	case errors.Is(err, job.ErrOver):
		return problem.Problem{
			Status: http.StatusConflict, Type: problem.AttemptOver, Title: "The attempt is over",
			Detail: "The job has ended or was cancelled, or another attempt is made because this one was silent for too long. Stop working at it.",
		}, true
	}
	return problem.Problem{}, false
}

// problemOf is ProblemOf; any other error is an outage, with detail.
func problemOf(err error, detail string) problem.Problem {
	if p, ok := ProblemOf(err); ok {
		return p
	}
	return problem.NotNow("Storage is not available", detail, time.Second)
}

// BadBody is the problem of a body that could not be read.
func BadBody() problem.Problem {
	return problem.Problem{Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "The body can't be read", Detail: "It ended early, came too slowly, or is malformed."}
}
