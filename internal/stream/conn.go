// Package stream keeps records in NATS JetStream: topology, group commit, deliveries, retries at a
// later time, dead letters, leases and the published catalog. It is the only importer of nats.go.
//
// Invariants: a write is reported done only after the stream's leader acknowledged it, which with
// sync_interval "always" means that it was synced to disk; whatever the connection does, nothing here
// waits longer than its documented bound; the memory of writes in flight is bounded.
//
// May import: record, catalog, sign, secret, telemetry.
package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/telemetry"
)

// Liveness of a connection. A server that hangs without closing its sockets is noticed after about
// PingInterval × (maxPingsOut + 1): a gateway must answer 503 within a second.
const (
	DefaultPingInterval = 250 * time.Millisecond
	maxPingsOut         = 2
	reconnectWait       = 100 * time.Millisecond
	dialTimeout         = 2 * time.Second
)

// ErrUnavailable means that NATS is away or did not confirm in time. Whether the write took place is
// unknown: the same record may be written again under the same id.
var ErrUnavailable = errors.New("stream: NATS is not available")

// Config says how to reach NATS.
type Config struct {
	URL          string // nats://… or tls://…, several separated by commas; may hold credentials
	User         string // with PasswordFile: instead of credentials in URL
	PasswordFile string
	CAFile       string                                         // PEM: turns TLS on; the only CAs that are trusted
	InProcess    interface{ InProcessConn() (net.Conn, error) } // nil unless the server is in this process: then of URL only the credentials count
	Name         string                                         // of this client, seen in the server's monitoring
	PingInterval time.Duration                                  // zero means DefaultPingInterval
	// Telemetry makes its instruments and spans; the zero value makes none.
	Telemetry telemetry.Providers
	// Beside is another connection of this process that has the same Telemetry: one series of weir.nats.connected speaks
	// for both. nil if there is none.
	Beside *Conn
	Log    *slog.Logger
}

// plainUser matches the user names that are a single subject token.
var plainUser = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

// Conn is one connection to NATS. It reconnects by itself, for ever, until Close. Its methods are grouped into one
// interface for each concern, in the concern's file, so that a package takes those that it needs.
type Conn struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	log     *slog.Logger
	trouble troubles
	life    context.Context // ends with Close
	end     context.CancelFunc
	wg      sync.WaitGroup

	metrics  *writeMetrics
	together *together

	creating chan struct{} // a slot for each consumer that is being created (jobevents.go)

	isUp       atomic.Bool // read on every write
	epochs     epochs
	scans      chan struct{} // slots
	whole      whole
	former     formerStreams
	maxPayload atomic.Int64 // of the latest connection's server (payload.go); zero before the first
	clock      clock

	mu     sync.Mutex
	live   context.Context // of the present connected period; cancelled with ErrUnavailable at its end
	cancel context.CancelCauseFunc
	up     chan struct{} // closed while connected
}

// Link is the connection itself.
type Link interface {
	Ready() error
	Live() context.Context
	WaitUp(ctx context.Context) error
	WaitUpFor(ctx context.Context, d time.Duration) error
}

var _ interface {
	Link
	Clock
	Limits
	Writers
	Readers
	Output
	DeadLetterQueues
	Queues
	Depths
	Tallies
	Jobs
	JobEvents
	Ledgers
	Objects
	Leases
	Catalogs
	Keys
} = (*Conn)(nil)

// Connect opens a connection. NATS being away is no error, nor is one that refuses the password or has a
// certificate of another CA: the connection is made as soon as possible, and the log says what prevents it.
func Connect(cfg Config) (*Conn, error) {
	if cfg.PingInterval == 0 {
		cfg.PingInterval = DefaultPingInterval
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Conn{log: cfg.Log, trouble: troubles{log: cfg.Log}, creating: make(chan struct{}, maxCreating), scans: make(chan struct{}, maxScans), up: make(chan struct{})}
	c.life, c.end = context.WithCancel(context.Background())
	c.live, c.cancel = context.WithCancelCause(context.Background())
	c.cancel(ErrUnavailable)
	opts := []nats.Option{
		nats.Name(cfg.Name),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // credentials that are being rotated are right again later
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectWait, reconnectWait),
		nats.ReconnectBufSize(-1), // a write while away must fail at once, not sit in memory
		nats.Timeout(dialTimeout),
		nats.PingInterval(cfg.PingInterval), nats.MaxPingsOutstanding(maxPingsOut),
		// A write that blocks in the socket holds the client's lock: without a bound no ping is missed.
		nats.FlusherTimeout(cfg.PingInterval * (maxPingsOut + 1)),
		nats.ConnectHandler(c.connected), nats.ReconnectHandler(c.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.trouble.Warn("NATS can't be reached", err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if !errors.Is(err, nats.ErrSlowConsumer) { // watchers notice by themselves what they missed
				c.trouble.Warn("NATS reported an error", err)
			}
		}),
	}
	credentials, err := c.credentials(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	opts = append(opts, credentials...)
	if plainUser.MatchString(cfg.User) {
		// Replies, and what a push consumer delivers, come under an inbox prefix of the user's own, so that NATS'
		// permissions can keep users from reading each other's. The chart's do.
		opts = append(opts, nats.CustomInboxPrefix("_INBOX_"+cfg.User))
	}
	if cfg.InProcess != nil {
		opts = append(opts, nats.InProcessServer(cfg.InProcess))
	}
	if c.metrics, err = newWriteMetrics(cfg.Telemetry); err != nil {
		return nil, fmt.Errorf("metrics of NATS: %w", err)
	}
	nc, err := nats.Connect(cfg.URL, opts...)
	if err != nil {
		c.metrics.close()
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	c.nc = nc
	if c.js, err = jetstream.New(nc, jetstream.WithPublishAsyncTimeout(commitTimeout)); err == nil {
		err = c.tell(cfg)
	}
	if err != nil {
		nc.Close()
		c.metrics.close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	attempts := nc.StatusChanged(nats.RECONNECTING)
	c.wg.Go(func() { c.watch(attempts) })
	return c, nil
}

// tell makes the connection one of those that weir.nats.connected speaks for.
func (c *Conn) tell(cfg Config) (err error) {
	if cfg.Beside != nil {
		c.together = cfg.Beside.together
	} else if c.together, err = newTogether(cfg.Telemetry); err != nil {
		return err
	}
	c.together.join(c)
	return nil
}

// watch reports why a connection was refused after the socket was open: a certificate that is not trusted, a
// wrong password. The client has no callback for it, only this change of its status.
func (c *Conn) watch(attempts <-chan nats.Status) {
	for {
		select {
		case <-attempts:
			c.trouble.Warn("NATS can't be reached", c.nc.LastError())
		case <-c.life.Done():
			return
		}
	}
}

// Close ends the connection and everything that waits on it. It is idempotent.
func (c *Conn) Close() {
	c.end()
	c.nc.Close()
	c.wg.Wait()
	c.together.leave(c)
	c.metrics.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isUp.Store(false)
	c.cancel(ErrUnavailable)
}

// Live returns a context for the present connected period: it is cancelled with ErrUnavailable the
// moment the connection is lost, and already cancelled while NATS is away.
func (c *Conn) Live() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live
}

// WaitUp blocks until the connection is there or ctx ends.
func (c *Conn) WaitUp(ctx context.Context) error {
	c.mu.Lock()
	up := c.up
	c.mu.Unlock()
	select {
	case <-up:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// WaitUpFor is WaitUp for at most d; then it returns ErrUnavailable, with the last known reason.
func (c *Conn) WaitUpFor(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d, ErrUnavailable)
	defer cancel()
	err := c.WaitUp(ctx)
	if why := c.trouble.newest(); errors.Is(err, ErrUnavailable) && why != nil {
		return fmt.Errorf("%w: %w", err, why)
	}
	return err
}

// Ready reports whether NATS can be used now.
func (c *Conn) Ready() error {
	if !c.isUp.Load() {
		return ErrUnavailable
	}
	return nil
}

func (c *Conn) connected(nc *nats.Conn) {
	c.learn(nc)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live.Err() == nil {
		return
	}
	c.live, c.cancel = context.WithCancelCause(context.Background())
	close(c.up)
	c.isUp.Store(true)
	c.trouble.over()
	c.log.Info("connected to NATS")
}

func (c *Conn) disconnected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live.Err() != nil {
		return
	}
	c.isUp.Store(false)
	c.cancel(ErrUnavailable)
	c.up = make(chan struct{})
	c.log.Warn("disconnected from NATS", "error", err)
}

// bound returns ctx limited to d and to the present connected period. The cause says which ended it.
func (c *Conn) bound(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancelTimeout := context.WithTimeoutCause(ctx, d, ErrUnavailable)
	ctx, cancel := c.whileUp(ctx)
	return ctx, func() {
		cancel()
		cancelTimeout()
	}
}

// whileUp returns ctx limited to the present connected period, whose end has the cause ErrUnavailable.
func (c *Conn) whileUp(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.Live(), func() { cancel(ErrUnavailable) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// publish writes one message and waits for its acknowledgement, at most commitTimeout. The id makes a repeated
// publish of the same message harmless within the stream's duplicate window.
func (c *Conn) publish(ctx context.Context, m *nats.Msg, id string, opts ...jetstream.PublishOpt) error {
	ctx, cancel := c.bound(ctx, commitTimeout)
	defer cancel()
	if id != "" {
		opts = append(opts, jetstream.WithMsgID(id))
	}
	if _, err := c.js.PublishMsg(ctx, m, opts...); err != nil {
		if errors.Is(err, nats.ErrMaxPayload) {
			c.learn(c.nc) // the server may have changed it during the connection
		}
		return publishError(ctx, err)
	}
	return nil
}
