package dispatcher

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/sharing"
	"github.com/weir-dev/weir/internal/stream"
)

const (
	// sessionRetry is the wait after a session could not be opened.
	sessionRetry = time.Second
	// complainEvery is how often it is logged that the function can't be reached, or that there is no room for states.
	complainEvery = 30 * time.Second
	// purgeEvery is how often settled blocks are removed from the stream.
	purgeEvery = time.Second
	// handoffPause is how long a lease handoff holds back new calls while those in flight end. When they take longer, the
	// queue is kept: spreading the load is not worth cutting a call, nor letting the others wait.
	handoffPause = 5 * time.Second
)

var (
	errStopping = errors.New("dispatcher: stopping")
	errHandoff  = errors.New("dispatcher: another takes the queue over")
	errTooLong  = errors.New("dispatcher: the calls in flight take too long")
)

// mapping works for one event source mapping whenever it holds the queue's lease.
type mapping struct {
	cfg       Config
	callback  func(job.Callback) string // returns empty if callbacks are disabled
	queue     catalog.Key
	log       *slog.Logger
	limiter   *invoke.Limiter
	transfers *transfers
	memory    *share
	sharing   *sharing.Sharing
	books     *books // of the blocks in the queue's stream
	metrics   *metrics
	tally     *tally       // the queue's
	tracer    trace.Tracer // nil if disabled

	// The spec may change while calls are in flight: they keep the one they began with, new calls take the
	// current one. TestMappingChangesLive guards it.
	present atomic.Pointer[catalog.Mapping]
	changed chan struct{} // capacity 1: the session has not seen the current spec

	age atomic.Int64 // the queue's maxAge; zero means none

	life context.Context // ends with stop
	stop func()
	done chan struct{} // closed by the owner of the goroutine that runs run

	// While the lease is held; set by own before anything reads them.
	ctx   context.Context // intake: cancelled means drain. It ends with life too.
	holds func() bool     // whether the lease holds by the clock

	mu          sync.Mutex
	count       Stats
	unreachable time.Time // when it was last logged that the function can't be reached
	noRoom      time.Time // when it was last logged that there is no room for the states of jobs
}

func newMapping(ctx context.Context, d *Dispatcher, spec catalog.Mapping) *mapping {
	m := &mapping{
		cfg: d.cfg, callback: d.callback, queue: spec.Queue, log: d.cfg.Log.With("mapping", spec.Key.String()),
		limiter: invoke.NewLimiter(spec.MaxConcurrency), transfers: d.transfers, memory: &share{of: d.memory}, sharing: d.sharing, books: newBooks(), changed: make(chan struct{}, 1), done: make(chan struct{}),
		metrics: d.metrics, tally: d.metrics.of(spec.Queue), tracer: d.cfg.Telemetry.Tracer(scope),
	}
	m.present.Store(&spec)
	life, cancel := context.WithCancelCause(ctx)
	m.life, m.stop = life, func() { cancel(errStopping) }
	return m
}

// spec is the current spec. It is immutable.
func (m *mapping) spec() *catalog.Mapping { return m.present.Load() }

// maxAge is the queue's.
func (m *mapping) maxAge() time.Duration { return time.Duration(m.age.Load()) }

// change makes spec, of the same queue, the current one, without interrupting anything.
func (m *mapping) change(spec catalog.Mapping) {
	former := m.spec()
	if reflect.DeepEqual(*former, spec) {
		return
	}
	m.present.Store(&spec)
	m.limiter.SetMax(spec.MaxConcurrency)
	if spec.Function.URL != former.Function.URL || spec.Function.H2C != former.Function.H2C {
		m.limiter.Forget()
	}
	select {
	case m.changed <- struct{}{}:
	default: // the session has yet to see the previous change
	}
	m.log.Info("the mapping changed", "maxConcurrency", spec.MaxConcurrency, "function", spec.Function.Name)
}

// run takes the lease when it is this process's turn, works, and starts over when the lease is lost or was handed over.
func (m *mapping) run() {
	c := m.sharing.Add(m.queue, func() int { _, inFlight, _ := m.limiter.State(); return inFlight })
	defer m.sharing.Remove(c)
	for m.life.Err() == nil {
		lease, err := m.sharing.Acquire(m.life, c)
		if err != nil {
			return // stopping
		}
		m.log.Info("working for this mapping", "maxConcurrency", m.spec().MaxConcurrency)
		m.tally.take(m)
		m.own(lease, c)
		m.tally.leave(m, howLeft(m.ctx, lease))
		lease.Release()
		m.sharing.Left(c)
	}
}

// own runs one session after the other while the lease holds. A session ends with the connection.
func (m *mapping) own(lease *stream.Lease, c *sharing.Claim) {
	intake, leave := context.WithCancelCause(m.life)
	defer leave(nil)
	m.ctx, m.holds = intake, lease.Holds
	// The context of calls in flight ends with the lease, or DrainTimeout after the intake's.
	work, cancel := context.WithCancelCause(lease.Context())
	var wg sync.WaitGroup
	defer m.limiter.Resume() // the next time begins without a handoff's pause
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { m.purge(work) })
	wg.Go(func() { m.handOff(work, c, leave) })
	wg.Go(func() {
		select {
		case <-intake.Done():
		case <-work.Done():
			return
		}
		select {
		case <-time.After(m.cfg.DrainTimeout):
			cancel(errStopping)
		case <-work.Done():
		}
	})
	for m.ctx.Err() == nil && work.Err() == nil {
		err := m.session(work)
		if m.ctx.Err() != nil || work.Err() != nil {
			return
		}
		m.log.Warn("the session ended; opening the next", "in", sessionRetry, "error", err)
		select {
		case <-time.After(sessionRetry):
		case <-m.ctx.Done():
		case <-work.Done():
		}
	}
}

// handOff ends the intake for a lease handoff, at a moment without calls in flight: until there is one, for at most
// handoffPause, it holds back new calls. So the drain that follows has nothing to wait for.
func (m *mapping) handOff(work context.Context, c *sharing.Claim, leave context.CancelCauseFunc) {
	for {
		select {
		case <-c.Leave():
		case <-m.ctx.Done():
			return
		case <-work.Done():
			return
		}
		ctx, cancel := context.WithTimeoutCause(m.ctx, handoffPause, errTooLong)
		err := m.limiter.Quiesce(ctx)
		cancel()
		if err == nil {
			m.log.Info("handing the queue over")
			leave(errHandoff)
			return
		}
		if errors.Is(err, errTooLong) {
			m.limiter.Resume()
			m.log.Info("the queue is kept for now: its calls take too long to hand it over")
			m.sharing.Keep(c)
		}
	}
}

func (m *mapping) session(work context.Context) error {
	if err := m.cfg.Conn.WaitUp(m.ctx); err != nil {
		return err
	}
	reader, err := m.cfg.Conn.OpenReader(m.ctx, m.queue)
	if err != nil {
		return err
	}
	defer reader.Close()
	// What was settled before must be gone: the books count what is settled from here on.
	floor, err := m.cfg.Conn.PurgeSettled(m.ctx, m.queue)
	if err != nil {
		return err
	}
	m.books.begin(floor)
	defer m.books.end()
	stop, err := m.cfg.Conn.ServeTally(m.queue, m.told)
	if err != nil {
		return err
	}
	defer stop()
	states, err := m.openStates()
	if err != nil {
		return err
	}
	defer states.close()
	return newSession(m, reader, states).run(work)
}

// purge removes settled blocks from the stream periodically, and once at its start: the blocks that the last
// owner settled at the end of its drain may be what keeps the queue full.
func (m *mapping) purge(ctx context.Context) {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	last, again := 0, true
	for {
		s := m.stats()
		settled := s.Done + s.Retried + s.Dead
		// Once more after the last change: acks are in flight for a moment.
		if changed := settled != last; (changed || again) && m.cfg.Conn.Ready() == nil {
			nth := m.books.session()
			if floor, err := m.cfg.Conn.PurgeSettled(ctx, m.queue); err != nil && ctx.Err() == nil {
				m.log.Warn("settled blocks could not be removed; trying again", "error", err)
			} else {
				m.books.purge(nth, floor)
				last, again = settled, changed
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// release ends a call for items at the limiter, which may change its class, and counts it.
func (m *mapping) release(ctx context.Context, o invoke.Outcome, items []*item) invoke.Outcome {
	o = m.limiter.Release(o)
	m.measure(ctx, o, len(items))
	count := Stats{Calls: 1}
	switch {
	case o.Class == invoke.NotNow:
		count.Throttled = 1
		if o.Status == 0 {
			// A function that is away for a moment doesn't concern an operator, one whose name is wrong does.
			if m.complain(&m.unreachable) {
				m.log.WarnContext(ctx, "the function can't be reached", "reason", o.Reason)
			}
		}
		limit, _, pause := m.limiter.State()
		m.log.DebugContext(ctx, "the function can't take the call now", which(items), slog.String("reason", o.Reason), slog.Int("concurrency", limit), slog.Duration("pause", pause))
	case o.Class != invoke.Done || o.FailedIDs != nil:
		count.Failed = 1
		m.log.InfoContext(ctx, "a call failed", which(items), slog.String("class", o.Class.String()), slog.String("reason", o.Reason))
	}
	m.add(count)
	return o
}

// complain reports whether a message that was last logged at *last is due again, and sets *last to now then.
func (m *mapping) complain(last *time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Sub(*last) < complainEvery {
		return false
	}
	*last = now
	return true
}

func (m *mapping) stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// told is what who asks about the queue is told.
func (m *mapping) told() stream.Tally {
	s := m.stats()
	limit, calls, _ := m.limiter.State()
	t := m.books.state(s.unaccounted())
	t.Work = &stream.Work{Records: s.InHand, Calls: calls, Limit: limit}
	return t
}

// add counts, for the mapping and for its queue. why are the reasons of the records that died.
func (m *mapping) add(delta Stats, why ...stream.Reason) {
	m.tally.add(delta, why)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count.add(delta)
}

func (c *Stats) add(delta Stats) {
	c.Taken += delta.Taken
	c.Done += delta.Done
	c.Retried += delta.Retried
	c.Dead += delta.Dead
	c.InHand += delta.InHand
	c.Returned += delta.Returned
	c.Calls += delta.Calls
	c.Throttled += delta.Throttled
	c.Failed += delta.Failed
}
