// Package gateway is the HTTP front: it matches a request to a route, throttles and validates it, and
// either stores it as a record, answering 202 once that is durable, or passes it to a function.
//
// Invariants: a 202 is given only for what is durable; every error is a problem (RFC 9457); bodies held
// in memory are bounded together; a new catalog replaces the old one between two requests.
//
// The data flows through the files in this order: gateway.go (catalog and server), route.go (throttle and
// body), schema.go, buffered.go, job.go or synchronous.go, problem.go. What clients ask
// about jobs is jobs.go and realtime.go, what functions say of them callbacks.go, large inputs and results objects.go.
//
// May import: record, throttle, catalog, sign, telemetry, stream, invoke, blob, job.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
)

// Config is what a gateway needs.
type Config struct {
	Listener net.Listener
	Conn     *stream.Conn
	Client   *invoke.Client
	Objects  blob.Store   // large results and uploaded inputs of jobs
	Codec    record.Codec // of blocks
	// Realtime is the address of the service that pushes the states of jobs. nil: there is none.
	Realtime *url.URL
	// Sync is the sync_interval that NATS was configured with, as the operator says: it can't be asked for. Anything
	// but SyncAlways is warned of and shown by /readyz. Empty: SyncAlways.
	Sync string
	// DrainTimeout bounds how long requests in flight may go on after Run's context was cancelled.
	// 0: DefaultDrainTimeout, which is longer than the default timeout of synchronous routes.
	DrainTimeout time.Duration
	Log          *slog.Logger
}

// SyncAlways means that NATS syncs every write before it acknowledges it: then a 202 outlives a power cut.
const SyncAlways = "always"

// Bounds of the HTTP server.
const (
	DefaultDrainTimeout = 35 * time.Second
	// noticeTimeout is how long clients with open connections are told to close them, each by its next answer, before
	// idle ones are closed under them: a request that is on its way to a connection that closes is lost to its client.
	noticeTimeout     = time.Second
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 60 * time.Second // of a whole request: a slow client must not hold its body for ever
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 64 << 10
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
	case c.Objects == nil:
		return errors.New("gateway: Objects is missing")
	case c.Log == nil:
		return errors.New("gateway: Log is missing")
	}
	return nil
}

// Gateway serves the APIs of the present catalog.
type Gateway struct {
	cfg        Config
	table      atomic.Pointer[table]
	keys       atomic.Pointer[sign.Ring]
	hub        *job.Hub
	own        *http.ServeMux  // of what no API can have: below /jobs/, /callbacks/ and /objects/, and /uploads
	drain      context.Context // ends when the gateway begins to stop
	startDrain context.CancelFunc
	bodies     atomic.Int64 // bytes
	transfers  atomic.Int64 // of objects, by clients
	reports    atomic.Int64 // the same, of results that functions report

	mu      sync.Mutex
	writers map[catalog.Key]*writer
	ended   bool           // no writer is started any more
	wg      sync.WaitGroup // of the writers, of transfers, and of what is passed on to realtime
}

// writer is the running group commit of one queue.
type writer struct {
	*stream.Writer
	stop context.CancelFunc
	late int // requests of a former catalog that write to it
}

// New returns a gateway. It serves nothing before Use and Run.
func New(cfg Config) (*Gateway, error) {
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = DefaultDrainTimeout
	}
	if cfg.Sync == "" {
		cfg.Sync = SyncAlways
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, writers: map[catalog.Key]*writer{}, hub: job.NewHub(cfg.Conn, cfg.Log)}
	g.drain, g.startDrain = context.WithCancel(context.Background())
	g.own = g.ownMux()
	return g, nil
}

// UseKeys makes ring the signing keys.
func (g *Gateway) UseKeys(ring sign.Ring) { g.keys.Store(&ring) }

// Use makes cat the catalog to serve. Requests that are matched already go by the former one. Throttles that did
// not change keep their tokens, one that did keeps the fraction. On an error the former catalog stays.
func (g *Gateway) Use(cat *catalog.Catalog) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.drain.Err() != nil {
		return nil
	}
	former := g.table.Load()
	if former != nil && former.revision == cat.Revision() {
		return nil
	}
	defer g.retire()
	t, err := g.newTable(cat, former)
	if err != nil {
		return fmt.Errorf("catalog %s is not used: %w", cat.Revision(), err)
	}
	g.table.Store(t)
	g.hub.Use(cat.JobQueues())
	g.cfg.Log.Info("serving catalog", "revision", t.revision, "routes", t.routes)
	return nil
}

// retire stops the writers that no route leads to; they write what waits. Requests that were matched before and
// have not come to writing find their way by appendLate. The caller holds mu.
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
	w := &writer{Writer: stream.NewWriter(g.cfg.Conn, k, g.cfg.Codec), stop: cancel}
	g.writers[k] = w
	g.wg.Go(func() { w.Run(ctx) })
	return w
}

// Run serves until ctx is cancelled, then drains: readiness turns false, clients are told to close their
// connections, requests in flight are answered, and what waits to be written is written.
func (g *Gateway) Run(ctx context.Context, ready func()) error {
	if g.cfg.Sync != SyncAlways {
		g.cfg.Log.Warn("NATS syncs lazily: a power cut loses writes that were answered with 202, as far back as the interval",
			"sync", g.cfg.Sync, "fix", "configure NATS with sync_interval: always")
	}
	conns := newConnections()
	srv := &http.Server{
		Handler: g, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
		ConnState: conns.observe,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(g.cfg.Listener) }()
	ready()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		g.startDrain()
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.DrainTimeout)
		conns.waitGone(sctx, noticeTimeout)
		if err = srv.Shutdown(sctx); err != nil {
			err = fmt.Errorf("requests were still running after %s: %w", g.cfg.DrainTimeout, errors.Join(err, srv.Close()))
		}
		cancel()
		if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
	}
	g.mu.Lock()
	g.startDrain() // also when the server has failed: what is passed on to realtime would stay
	g.ended = true
	for _, w := range g.writers {
		w.stop()
	}
	g.mu.Unlock()
	g.wg.Wait()
	g.hub.Close()
	return err
}

// ServeHTTP gives the request its id, finds its route and serves it.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := g.table.Load()
	if g.drain.Err() != nil {
		w.Header().Set("Connection", "close") // net/http keeps to it: the client's next request goes elsewhere
	}
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
	if reserved(r.URL.Path) {
		if h, pattern := g.own.Handler(r); pattern == "" {
			writeProblem(w, r, noRoute(h, r))
		} else {
			g.own.ServeHTTP(w, r) // sets what the pattern's wildcards match
		}
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
	case g.drain.Err() != nil:
		writeProblem(w, r, problem{Status: http.StatusServiceUnavailable, Type: typeUnavailable, Title: "Draining", Detail: "This gateway is stopping.", retryAfter: 1})
	case t == nil:
		writeProblem(w, r, problemStarting())
	case g.cfg.Conn.Ready() != nil:
		writeProblem(w, r, problemOf(stream.ErrUnavailable))
	default:
		lazy := ""
		if g.cfg.Sync != SyncAlways {
			lazy = fmt.Sprintf(`,"sync":%q`, g.cfg.Sync)
		}
		if n := g.cfg.Conn.MaxPayload(); n < stream.DefaultMaxPayload {
			lazy += fmt.Sprintf(`,"maxPayload":%d`, n)
		}
		writeJSON(w, http.StatusOK, fmt.Sprintf(`{"status":"ready","catalog":%q,"nats":%q%s}`, t.revision, g.cfg.Conn.Address(), lazy))
	}
}
