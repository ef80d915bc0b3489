// Package realtime pushes the states of jobs to clients that listen: by Server-Sent Events and by WebSocket, of one job
// or of many over one connection.
//
// Invariants: a client gets the current state first and then every later one, each once, whether the work ends before,
// while or after it connects; what is pending for one client is bounded, and a client that is too slow is disconnected
// and resumes; an idle connection costs one goroutine.
//
// The data flows through the files in this order: server.go (routes and drain), events.go or socket.go (what client and
// server say to each other, over paced.go), listener.go (one connection) and senders.go (who tells it), metrics.go (what is counted of it), subscription.go (states of jobs that are named) or client.go (of all jobs of a client).
//
// May import: ownpath, problem, catalog, lifecycle, sign, stream, job, jobapi, telemetry.
package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Streams is what a server does with NATS.
type Streams interface {
	stream.Link
	stream.Jobs
	stream.JobEvents
}

// Config is what a server needs.
type Config struct {
	// Listener is where clients connect; nil if another server of this process hands them over, by ServeHTTP.
	Listener net.Listener
	Conn     Streams
	Base     ownpath.Base // of the addresses that clients are given
	// MaxConnections bounds the concurrent clients; more get 503. Zero means DefaultMaxConnections.
	MaxConnections int
	// DrainTimeout bounds the drain; clients are disconnected over its first DrainSpread, so that they don't all
	// reconnect at once. Zero means the defaults.
	DrainTimeout, DrainSpread time.Duration
	// Telemetry makes its instruments; the zero value makes none.
	Telemetry telemetry.Providers
	Log       *slog.Logger
}

// Defaults and bounds.
const (
	DefaultMaxConnections = 100_000
	DefaultDrainTimeout   = 20 * time.Second
	DefaultDrainSpread    = 5 * time.Second

	// maxFeeds bounds the concurrent feeds of clients: each costs NATS a consumer a queue. More get 503.
	maxFeeds = 10_000

	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 120 * time.Second // between requests
	maxHeaderBytes    = 64 << 10
	writeTimeout      = 10 * time.Second // of one event: a client that reads nothing for as long is gone
	pingEvery         = 25 * time.Second // shorter than the idle timeouts of proxies and NATs on the way
	lookEvery         = 5 * time.Minute  // the states are read again, where NATS is several servers
	// maxLife bounds a connection, so that clients spread over new instances. Each lasts between half of it and all.
	maxLife = 2 * time.Hour
)

// Validate names the first field that is missing.
func (c *Config) Validate() error {
	switch {
	case c.Conn == nil:
		return errors.New("realtime: Conn is missing")
	case c.Log == nil:
		return errors.New("realtime: Log is missing")
	}
	return nil
}

// Server serves the clients.
type Server struct {
	cfg     Config
	mux     *http.ServeMux
	hub     *job.Hub
	queues  atomic.Pointer[queues]
	keys    atomic.Pointer[sign.Ring]
	shown   shown
	senders senders
	metrics *metrics
	open    atomic.Int64 // connections
	feeds   atomic.Int64 // of them those for clients' feeds

	// drain is cancelled when the server is to stop. New connections are refused then, and each open one ends within
	// DrainSpread.
	drain context.Context
	stop  context.CancelFunc

	work lifecycle.Work // connections: each ends within its own bounds
}

// queues are those of the current catalog.
type queues struct {
	revision string
	keys     []catalog.Key
	maxAges  map[catalog.Key]time.Duration
	jobs     []catalog.Key // those of keys that have jobs
}

// New returns a server. It serves nothing before Use, UseKeys and Run.
func New(cfg Config) (*Server, error) {
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = DefaultMaxConnections
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = DefaultDrainTimeout
	}
	if cfg.DrainSpread == 0 {
		cfg.DrainSpread = min(DefaultDrainSpread, cfg.DrainTimeout/2)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Telemetry.Meter("github.com/weir-dev/weir/internal/realtime"))
	if err != nil {
		return nil, fmt.Errorf("realtime: metrics: %w", err)
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux(), hub: job.NewHub(cfg.Conn, cfg.Log), metrics: m}
	s.shown.s, s.shown.docs = s, make(map[shownKey]*shownDoc, maxDocuments)
	s.drain, s.stop = context.WithCancel(context.Background())
	s.mux.HandleFunc("GET "+ownpath.Jobs+"{id}/events", s.events)
	s.mux.HandleFunc("GET "+ownpath.Jobs+"events", s.events)
	s.mux.HandleFunc("GET "+ownpath.Jobs+"{id}/socket", s.socket)
	s.mux.HandleFunc("GET "+ownpath.Jobs+"socket", s.socket)
	s.mux.HandleFunc("GET "+ownpath.Feeds+"{id}/events", s.feedEvents)
	s.mux.HandleFunc("GET "+ownpath.Feeds+"{id}/socket", s.feedSocket)
	return s, nil
}

// UseKeys makes ring the signing keys.
func (s *Server) UseKeys(ring sign.Ring) { s.keys.Store(&ring) }

// Use makes cat the catalog whose jobs are served.
func (s *Server) Use(cat *catalog.Catalog) {
	q := &queues{revision: cat.Revision(), maxAges: map[catalog.Key]time.Duration{}, jobs: cat.JobQueues()}
	for _, spec := range cat.Queues {
		q.keys = append(q.keys, spec.Key)
		q.maxAges[spec.Key] = spec.MaxAge
	}
	s.queues.Store(q)
}

// Ready reports the revision of the catalog, or why clients can't be served now.
func (s *Server) Ready() (revision string, err error) {
	q, ring := s.queues.Load(), s.keys.Load()
	switch {
	case s.cfg.Conn.Ready() != nil:
		return "", errors.New("NATS can't be reached; the log says why")
	case q == nil:
		return "", errors.New("no catalog has come yet: the controller publishes it")
	case ring == nil || len(ring.Keys) == 0:
		return "", errors.New("no signing keys have come yet: the controller makes them")
	}
	return q.revision, nil
}

// Run serves until ctx is cancelled, then disconnects the clients and returns once the last has gone.
func (s *Server) Run(ctx context.Context, ready func()) error {
	var err error
	if s.cfg.Listener != nil {
		err = lifecycle.Server{
			Listener: s.cfg.Listener, Drain: s.cfg.DrainTimeout,
			HTTP: &http.Server{
				Handler: problem.Guard(s, s.cfg.Log), ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
				ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
			},
			Stopping: func(context.Context) { s.Drain() },
		}.Run(ctx, ready)
	} else {
		ready()
		<-ctx.Done()
	}
	s.Drain() // also when the server has failed
	s.work.Wait()
	s.hub.Close()
	s.shown.wg.Wait()
	s.senders.wg.Wait()
	return errors.Join(err, s.metrics.close())
}

// Drain begins to disconnect the clients, and doesn't block.
func (s *Server) Drain() { s.stop() }

// ServeHTTP implements http.Handler. It answers under the request id that the gateway, or a client, has given.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if id := req.Header.Get(problem.HeaderRequestID); problem.ValidRequestID(id) {
		w.Header().Set(problem.HeaderRequestID, id)
	}
	s.mux.ServeHTTP(w, req)
}

// begin counts a connection, or answers why there can't be another. The listener has neither wire nor updates yet; its
// owner has it serve, or ends it by refused.
func (s *Server) begin(w http.ResponseWriter, by transport) (l *listener, ok bool) {
	var p problem.Problem
	done, ok := s.work.Begin()
	switch _, err := s.Ready(); {
	case !ok, s.drain.Err() != nil:
		p = unavailable("Draining", "This instance is stopping. Try again: another one takes it.")
	case err != nil:
		p = unavailable("Not ready", err.Error())
	case s.open.Add(1) > int64(s.cfg.MaxConnections):
		s.open.Add(-1)
		p = unavailable("Too many connections", "Try again later, or poll the job.")
	default:
		l = &listener{s: s, by: by, until: time.Now().Add(lifetime())}
		l.done = func() {
			s.open.Add(-1)
			done()
		}
		l.ctx, l.end = context.WithCancel(context.Background())
		return l, true
	}
	if ok {
		done()
	}
	refuse(w, by == byEvents, p)
	return nil, false
}

// refuse answers with p, or so that an EventSource reconnects.
func refuse(w http.ResponseWriter, events bool, p problem.Problem) {
	if events {
		jobapi.RefuseEvents(w, p.RetryAfter, p.Title)
		return
	}
	p.Write(w)
}

// refuseFeed answers why there is no feed: an error of newClientFeed.
func refuseFeed(w http.ResponseWriter, events bool, err error) {
	if errors.Is(err, job.ErrNoFeed) {
		problem.UnknownFeed().Write(w)
		return
	}
	refuse(w, events, unavailable("Too many feeds", "Try again later, or follow the jobs by their ids."))
}

// unavailable is a temporary problem. Each client gets another Retry-After, so that they don't all come back at once.
func unavailable(title, detail string) problem.Problem {
	return problem.NotNow(title, detail, jobapi.ComeBack())
}

// parse reads an id. The server is ready.
func (s *Server) parse(text string) (id job.ID, maxAge time.Duration, err error) {
	q := s.queues.Load()
	id, err = job.ParseID(text, *s.keys.Load(), q.keys)
	return id, q.maxAges[id.Queue], err
}
