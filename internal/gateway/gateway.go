// Package gateway is the HTTP front: it matches a request to a route, throttles and validates it, and
// either stores it as a record, answering 202 once that is durable, or passes it to a function.
//
// Invariants: a 202 is given only for what is durable; every error is a problem (RFC 9457); bodies held
// in memory are bounded together; a new catalog replaces the old one between two requests.
//
// The data flows through the files in this order: gateway.go (catalog and server), route.go (throttle and
// body), schema.go, buffered.go or synchronous.go, problem.go.
//
// May import: record, throttle, catalog, telemetry, stream, invoke.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// Config is what a gateway needs.
type Config struct {
	Listener net.Listener
	Conn     *stream.Conn
	Client   *invoke.Client
	Codec    record.Codec // of blocks
	// DrainTimeout bounds how long requests in flight may go on after Run's context was cancelled.
	// 0: DefaultDrainTimeout, which is longer than the default timeout of synchronous routes.
	DrainTimeout time.Duration
	Log          *slog.Logger
}

// Bounds of the HTTP server.
const (
	DefaultDrainTimeout = 35 * time.Second
	readHeaderTimeout   = 10 * time.Second
	readTimeout         = 60 * time.Second // of a whole request: a slow client must not hold its body for ever
	idleTimeout         = 120 * time.Second
	maxHeaderBytes      = 64 << 10
	// maxBodiesBytes bounds the bodies in memory together; past it requests get 503.
	maxBodiesBytes = 128 << 20
)

// Validate names the first field that is missing.
func (c *Config) Validate() error {
	switch {
	case c.Listener == nil:
		return errors.New("gateway: Listener is missing")
	case c.Conn == nil:
		return errors.New("gateway: Conn is missing")
	case c.Client == nil:
		return errors.New("gateway: Client is missing")
	case c.Log == nil:
		return errors.New("gateway: Log is missing")
	}
	return nil
}

// Gateway serves the APIs of the present catalog.
type Gateway struct {
	cfg      Config
	table    atomic.Pointer[table]
	draining atomic.Bool
	bodies   atomic.Int64 // bytes

	mu      sync.Mutex
	writers map[catalog.Key]*writer
	wg      sync.WaitGroup // of the writers
}

// writer is the running group commit of one queue.
type writer struct {
	*stream.Writer
	stop context.CancelFunc
}

// New returns a gateway. It serves nothing before Use and Run.
func New(cfg Config) (*Gateway, error) {
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = DefaultDrainTimeout
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Gateway{cfg: cfg, writers: map[catalog.Key]*writer{}}, nil
}

// Use makes cat the catalog to serve. Throttles of routes that did not change keep their state. On an
// error the former catalog stays.
func (g *Gateway) Use(cat *catalog.Catalog) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining.Load() {
		return nil
	}
	former := g.table.Load()
	if former != nil && former.revision == cat.Revision() {
		return nil
	}
	t, err := g.newTable(cat, former)
	if err != nil {
		return fmt.Errorf("catalog %s is not used: %w", cat.Revision(), err)
	}
	g.table.Store(t)
	for k, w := range g.writers {
		if _, ok := t.queues[k]; !ok {
			w.stop() // it writes what waits; later requests have no route to it
			delete(g.writers, k)
		}
	}
	g.cfg.Log.Info("serving catalog", "revision", t.revision, "routes", t.routes)
	return nil
}

// writer returns the running writer of queue k. The caller holds mu.
func (g *Gateway) writer(k catalog.Key) *stream.Writer {
	if w, ok := g.writers[k]; ok {
		return w.Writer
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{Writer: stream.NewWriter(g.cfg.Conn, k, g.cfg.Codec), stop: cancel}
	g.writers[k] = w
	g.wg.Go(func() { w.Run(ctx) })
	return w.Writer
}

// Run serves until ctx is cancelled, then drains: readiness turns false, requests in flight are
// answered, and what waits to be written is written.
func (g *Gateway) Run(ctx context.Context, ready func()) error {
	srv := &http.Server{
		Handler: g, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(g.cfg.Listener) }()
	ready()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		g.draining.Store(true)
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.DrainTimeout)
		if err = srv.Shutdown(sctx); err != nil {
			err = fmt.Errorf("requests were still running after %s: %w", g.cfg.DrainTimeout, errors.Join(err, srv.Close()))
		}
		cancel()
		if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
	}
	g.mu.Lock()
	g.draining.Store(true)
	for _, w := range g.writers {
		w.stop()
	}
	g.mu.Unlock()
	g.wg.Wait()
	return err
}

// ServeHTTP gives the request its id, finds its route and serves it.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := g.table.Load()
	switch r.URL.Path {
	case "/healthz":
		writeJSON(w, http.StatusOK, `{"status":"ok"}`)
		return
	case "/readyz":
		g.readyz(w, r, t)
		return
	}
	if t == nil {
		writeProblem(w, r, problemStarting())
		return
	}
	h, pattern := t.mux.Handler(r)
	if route, ok := h.(*route); ok {
		route.ServeHTTP(w, r)
		return
	}
	if pattern != "" { // the mux redirects to the clean form of the path
		h.ServeHTTP(w, r)
		return
	}
	writeProblem(w, r, noRoute(h, r))
}

func (g *Gateway) readyz(w http.ResponseWriter, r *http.Request, t *table) {
	switch {
	case g.draining.Load():
		writeProblem(w, r, problem{Status: http.StatusServiceUnavailable, Type: typeUnavailable, Title: "Draining", Detail: "This gateway is stopping.", retryAfter: 1})
	case t == nil:
		writeProblem(w, r, problemStarting())
	case g.cfg.Conn.Ready() != nil:
		writeProblem(w, r, problemOf(stream.ErrUnavailable))
	default:
		writeJSON(w, http.StatusOK, fmt.Sprintf(`{"status":"ready","catalog":%q,"nats":%q}`, t.revision, g.cfg.Conn.Address()))
	}
}
