// Package gateway is the HTTP front: it matches a request to a route, throttles and validates it, and
// either stores it as a record, answering 202 once that is durable, or passes it to a function.
//
// Invariants: a 202 is given only for what is durable; every error is a problem (RFC 9457); bodies held
// in memory are bounded together; a new catalog replaces the old one between two requests.
//
// The data flows through the files in this order: gateway.go (catalog and server), route.go (which route), then the
// steps that chain.go lists; own.go has Weir's own paths. observation.go sees each request to its end, for metrics.go,
// trace.go and accesslog.go.
//
// May import: ownpath, mediatype, problem, record, throttle, catalog, lifecycle, telemetry, schema, value, stream, invoke, blob, job, jobapi, taskapi.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	attr "go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Streams is what a gateway does with NATS.
type Streams interface {
	stream.Link
	stream.Limits
	stream.Writers
	stream.Jobs
	stream.JobEvents
	stream.Asks
}

// Config is what a gateway needs.
type Config struct {
	Listener net.Listener
	Conn     Streams
	Caller   *invoke.Caller
	Objects  blob.Store   // large results and uploaded inputs of jobs
	Codec    record.Codec // of blocks
	// Realtime serves those who listen to the states of jobs (jobapi.Config); nil if disabled.
	Realtime jobapi.Listeners
	// Base is that of the addresses that clients are given.
	Base ownpath.Base
	// OwnThrottles are the throttles of Weir's own paths, by class (ParseOwnThrottles); nil means the defaults.
	OwnThrottles map[string]catalog.Throttle
	// TrustedProxies are the addresses of the proxies in front whose X-Forwarded-* and Forwarded headers are kept; all
	// others' are dropped.
	TrustedProxies []netip.Prefix
	// H2C makes it serve HTTP/2 by prior knowledge beside HTTP/1.1.
	H2C bool
	// Sync is the sync_interval of NATS as the operator states it: NATS doesn't report it. Anything but SyncAlways is
	// logged as a warning and shown by /readyz. Empty means SyncAlways.
	Sync string
	// DrainTimeout bounds how long requests in flight may go on after Run's context was cancelled. Zero means
	// DefaultDrainTimeout, which is longer than the default timeout of synchronous routes.
	DrainTimeout time.Duration
	// NoticeTimeout is how long, at the beginning of the drain, answers ask clients to close their connections before
	// the server closes the idle ones: a request that reaches a connection as it closes is lost to its client. Zero means
	// defaultNotice.
	NoticeTimeout time.Duration
	// Telemetry makes its instruments and spans; the zero value makes none.
	Telemetry telemetry.Providers
	// AccessShare is the share of the requests of which AccessLog gets a line (ParseAccessLog). Zero means none.
	AccessShare float64
	AccessLog   *slog.Logger // nil if disabled
	Log         *slog.Logger
}

// SyncAlways means that NATS syncs every write before it acknowledges it: then a 202 outlives a power cut.
const SyncAlways = "always"

// Bounds of the HTTP server.
const (
	DefaultDrainTimeout = 35 * time.Second
	defaultNotice       = time.Second
	readTimeout         = bodyGrace // of a request's head and the beginning of its body; the rest must keep pace
	idleTimeout         = 120 * time.Second
	maxHeaderBytes      = 64 << 10
)

// Validate names the first field that is missing.
func (c *Config) Validate() error {
	switch {
	case c.Listener == nil:
		return errors.New("gateway: Listener is missing")
	case c.Conn == nil:
		return errors.New("gateway: Conn is missing")
	case c.Caller == nil:
		return errors.New("gateway: Caller is missing")
	case c.Objects == nil:
		return errors.New("gateway: Objects is missing")
	case c.Log == nil:
		return errors.New("gateway: Log is missing")
	}
	return nil
}

// Gateway serves the APIs of the current catalog.
type Gateway struct {
	cfg        Config
	table      atomic.Pointer[table]
	jobs       *jobapi.API
	tasks      *taskapi.API
	own        *http.ServeMux  // Weir's own paths (package ownpath)
	drain      context.Context // cancelled when the drain begins
	startDrain context.CancelFunc
	bodies     atomic.Int64 // bytes charged
	guarded    http.Handler // serve
	metrics    *metrics
	tracer     trace.Tracer // nil if disabled
	attrs      sync.Pool    // of *[]attr.KeyValue: a span's, until it has its copy
	access     accessLog

	mu      sync.Mutex
	writers map[catalog.Key]*writer
	ended   bool           // no writer is started once it is set
	wg      sync.WaitGroup // of the writers
}

// writer is the running group commit of one queue.
type writer struct {
	*stream.Writer
	stop context.CancelFunc
	late int // requests in flight, matched by a former catalog, that write to it

	submitted counted
}

// New returns a gateway. It serves nothing before Use and Run.
func New(cfg Config) (*Gateway, error) {
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = DefaultDrainTimeout
	}
	if cfg.NoticeTimeout == 0 {
		cfg.NoticeTimeout = defaultNotice
	}
	if cfg.Sync == "" {
		cfg.Sync = SyncAlways
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.OwnThrottles == nil {
		cfg.OwnThrottles = defaultOwnThrottles()
	}
	g := &Gateway{
		cfg: cfg, writers: map[catalog.Key]*writer{},
		jobs:  jobapi.New(jobapi.Config{Conn: cfg.Conn, Objects: cfg.Objects, Realtime: cfg.Realtime, Base: cfg.Base, Log: cfg.Log}),
		tasks: taskapi.New(taskapi.Config{Conn: cfg.Conn, Tasks: cfg.Base.Of(ownpath.Tasks)}),
	}
	g.drain, g.startDrain = context.WithCancel(context.Background())
	g.guarded = problem.Guard(http.HandlerFunc(g.serve), cfg.Log)
	g.tracer = cfg.Telemetry.Tracer(scope)
	g.attrs.New = func() any { return new([]attr.KeyValue) }
	g.access.use(cfg.AccessShare, cfg.AccessLog)
	var err error
	if g.metrics, err = newMetrics(g, cfg.Telemetry); err != nil {
		return nil, fmt.Errorf("gateway: metrics: %w", err)
	}
	g.own = g.ownMux()
	return g, nil
}

// UseKeys makes ring the signing keys.
func (g *Gateway) UseKeys(ring sign.Ring) {
	g.jobs.UseKeys(ring)
	g.tasks.UseKeys(ring)
}

// Use makes cat the catalog to serve. Requests that are matched already go by the former one. Unchanged throttles keep
// their tokens, a changed one keeps its fill level. Routes of it that this process can't serve answer 503.
func (g *Gateway) Use(cat *catalog.Catalog) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.drain.Err() != nil {
		return
	}
	former := g.table.Load()
	if former != nil && former.revision == cat.Revision() {
		return
	}
	defer g.retire()
	t := g.newTable(cat, former)
	g.table.Store(t)
	g.jobs.Use(cat)
	g.cfg.Log.Info("serving catalog", "revision", t.revision, "routes", len(t.routes))
}

// retire stops the writers of queues that no route leads to, after they have written what is pending. Requests that
// were matched before and have yet to write use appendLate. The caller holds mu.
func (g *Gateway) retire() {
	t := g.table.Load()
	for k, w := range g.writers {
		if t != nil {
			if _, routed := t.queues[k]; routed {
				continue
			}
		}
		if w.late == 0 {
			w.stop()
			delete(g.writers, k)
		}
	}
}

// writer returns the running writer of queue k. The caller holds mu.
func (g *Gateway) writer(k catalog.Key) *writer {
	if w, ok := g.writers[k]; ok {
		return w
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{Writer: g.cfg.Conn.NewWriter(k, g.cfg.Codec), stop: cancel}
	g.writers[k] = w
	g.wg.Go(func() { w.Run(ctx) })
	return w
}

// Run serves until ctx is cancelled, then drains: readiness turns false, clients are told to close their connections,
// requests in flight are answered, and pending writes are completed.
func (g *Gateway) Run(ctx context.Context, ready func()) error {
	if g.cfg.Sync != SyncAlways {
		g.cfg.Log.Warn("NATS syncs lazily: a power cut loses writes that were answered with 202, as far back as the interval",
			"sync", g.cfg.Sync, "fix", "configure NATS with sync_interval: always")
	}
	conns := newConnections()
	srv := &http.Server{
		Handler: g, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
		ConnState: conns.observe,
	}
	if g.cfg.H2C {
		speakHTTP2(srv)
	}
	err := lifecycle.Server{
		Listener: g.cfg.Listener, Drain: g.cfg.DrainTimeout, HTTP: srv,
		Stopping: func(ctx context.Context) {
			g.stop()
			conns.waitGone(ctx, g.cfg.NoticeTimeout)
		},
	}.Run(ctx, ready)
	g.stop() // also when the server has failed
	g.mu.Lock()
	g.ended = true
	for _, w := range g.writers {
		w.stop()
	}
	g.mu.Unlock()
	g.wg.Wait()
	g.jobs.Close()
	g.metrics.close() //nolint:contextcheck // a duration belongs to no context
	return err
}

// stop begins the drain.
func (g *Gateway) stop() {
	g.mu.Lock() // Use checks drain under mu
	defer g.mu.Unlock()
	g.startDrain()
	g.jobs.Drain()
	g.tasks.Drain()
}

// Ready returns what /readyz shows, or why the gateway can't serve.
func (g *Gateway) Ready() (map[string]string, error) {
	t := g.table.Load()
	switch {
	case g.drain.Err() != nil:
		return nil, errors.New("the gateway is stopping")
	case t == nil:
		return nil, errors.New("no catalog has come yet: the controller publishes it")
	case g.cfg.Conn.Ready() != nil:
		return nil, errors.New("NATS can't be reached; the log says why")
	case len(g.jobs.Ring().Keys) == 0:
		return nil, errors.New("no signing keys have come yet: the controller makes them")
	}
	shown := map[string]string{"catalog": t.revision}
	if g.cfg.Sync != SyncAlways {
		shown["sync"] = g.cfg.Sync
	}
	if n := g.cfg.Conn.MaxPayload(); n < stream.DefaultMaxPayload {
		shown["maxPayload"] = strconv.FormatInt(n, 10)
	}
	return shown, nil
}

// ServeHTTP serves a request, and observes how.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.distrust(r)
	o := g.observe(w, r)
	defer o.end() //nolint:contextcheck // metrics need none, and the line of the access log has one of its own
	g.guarded.ServeHTTP(o, r)
	o.whole = true
}

// serve finds the request's route, of Weir's own paths or of an API, and serves it.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	t := g.table.Load()
	if streams(r) { // by HTTP/1.1 small answers need no reader: the system takes them
		a := newAnswer(w)
		defer a.end()
		w = a
	}
	if g.drain.Err() != nil {
		w.Header().Set("Connection", "close") // net/http then closes it: the client's next request goes elsewhere
	}
	if t == nil {
		refuse(w, r, problemStarting())
		return
	}
	r.Host = plainHost(r.Host)
	if len(t.cors) > 0 && t.allow(g, w, r) {
		return
	}
	if ownpath.Reserved(r.URL.Path) {
		h, pattern := g.own.Handler(r)
		_, route := h.(http.HandlerFunc)
		switch {
		case pattern == "":
			refuse(w, r, noRoute(h, r))
		case route:
			g.own.ServeHTTP(w, r) // sets the request's path values
		default:
			g.redirect(w, r, h)
		}
		return
	}
	switch route, h, pattern := t.match(r); {
	case route != nil:
		if route.wildcards {
			t.matcher.mux.ServeHTTP(w, r) // sets r's path values
		}
		route.serve(w, r)
	case pattern != "": // a redirect to the clean form of the path
		g.redirect(w, r, h)
	default:
		refuse(w, r, noRoute(h, r))
	}
}

// redirect answers with the redirect to the clean form of the path that a mux has found, as clients reach it.
func (g *Gateway) redirect(w http.ResponseWriter, r *http.Request, h http.Handler) {
	found := &headerProbe{header: http.Header{}}
	h.ServeHTTP(found, r)
	observationOf(w).begin(remoteOf(r))
	w.Header().Set("Location", g.cfg.Base.Of(found.header.Get("Location")))
	w.WriteHeader(found.status)
}

// refuse answers a request that has no route.
func refuse(w http.ResponseWriter, r *http.Request, p problem.Problem) {
	x := exchange{w: w, req: r, seen: observationOf(w)}
	x.seen.begin(remoteOf(r))
	x.identify()
	x.refuse(p)
}
