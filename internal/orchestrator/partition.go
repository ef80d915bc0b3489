package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/ledger"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
)

// recentStates is ledger.Recent of a partition: all of them together keep as many as a queue does.
const recentStates = ledger.DefaultRecent / stream.MachinePartitions

// maxRunning bounds the executions of a partition that are in memory at a time. Those that wait for a time are not.
const maxRunning = 10_000

// partition is one partition's executions, in the hands of this process as their owner.
type partition struct {
	o     *Orchestrator
	key   catalog.Key
	owner *ledger.Owner
	holds func() bool // the lease does
	log   *slog.Logger

	ctx    context.Context //nolint:containedctx // ends with the ownership
	cancel context.CancelCauseFunc
	awaits context.Context //nolint:containedctx // ends with the drain's beginning: what waits for what goes on elsewhere need not go on here
	leave  context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	running map[string]*execution
	items   chan struct{} // capacity 1: an item of a table is being read and changed
	timers  *timers
	planned chan struct{} // capacity 1: the first timer has changed
	offers  offers

	busy     *atomic.Int64 // calls in flight
	draining atomic.Bool
	quiet    chan struct{} // capacity 1: the last call in flight has ended
}

// turn is this process's at a partition.
type turn struct {
	partition int
	lease     *stream.Lease
	leave     <-chan struct{} // closed when it is asked for
	busy      *atomic.Int64   // counts the partition's calls in flight
	served    func()          // called once the partition can be asked
}

// serve is the owner of a partition until ctx ends, the lease is lost or asked for, or NATS is away.
func (o *Orchestrator) serve(ctx context.Context, at turn) error {
	key := stream.MachinePartition(at.partition)
	p := &partition{
		o: o, key: key, holds: at.lease.Holds, log: o.cfg.Log.With("partition", at.partition), running: map[string]*execution{}, planned: make(chan struct{}, 1),
		timers: newTimers(), offers: newOffers(), items: make(chan struct{}, 1), busy: at.busy, quiet: make(chan struct{}, 1),
	}
	began := time.Now()
	live := o.cfg.Conn.Live()
	var err error
	if p.owner, err = ledger.Open(ctx, o.cfg.Conn, key, o.cfg.Log, ledger.Recent(recentStates)); err != nil {
		return err
	}
	p.ctx, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx)) // drain decides when calls end
	p.awaits, p.leave = context.WithCancel(p.ctx)
	defer p.leave()
	stopLease := context.AfterFunc(at.lease.Context(), func() { p.cancel(stream.ErrLeaseLost) }) //nolint:contextcheck // the lease's
	stopLive := context.AfterFunc(live, func() { p.cancel(stream.ErrUnavailable) })              //nolint:contextcheck // the connection's
	ended := make(chan struct{})
	p.wg.Go(func() {
		select {
		case <-p.owner.Done():
			p.cancel(p.owner.Err())
		case <-ended:
		}
	})
	p.wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-at.leave:
			p.log.Info("handing the partition over")
		case <-ended:
			return
		}
		p.drain()
	})
	defer func() {
		stopLease()
		stopLive()
		close(ended)
		p.cancel(stream.ErrClosed)
		p.close(ctx)
		o.metrics.leaves(p) // whoever noted it has ended
		p.o.waits.add(-int64(p.timers.len()))
	}()
	p.wg.Go(func() { //nolint:contextcheck // a count belongs to no context
		if err := p.recover(); err != nil {
			p.cancel(err)
			return
		}
		o.metrics.serves(p, began)
		p.hintAll()
	})
	stopAsks, err := o.cfg.Conn.ServeAsks(key, p.answer)
	if err != nil {
		return err
	}
	defer stopAsks()
	at.served()
	p.tick()
	return p.end(context.Cause(p.ctx)) //nolint:contextcheck // the ownership's
}

// close waits for what is to be written, and ends the owner. What can't be written within closeTimeout ends with it.
func (p *partition) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.wg.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	p.owner.Close(ctx)
	<-done
}

var errDrained = errors.New("orchestrator: the partition was given up")

func (p *partition) end(err error) error {
	if errors.Is(err, errDrained) {
		return nil
	}
	return err
}

// drain gives the partition up: no call begins any more, and those in flight have Config.DrainTimeout to end. What they return is
// still written. Calls that have not begun, and those that are cut, are the next owner's.
func (p *partition) drain() {
	p.draining.Store(true)
	p.leave()
	timeout := time.NewTimer(p.o.cfg.DrainTimeout)
	defer timeout.Stop()
	for p.busy.Load() > 0 {
		select {
		case <-p.quiet:
		case <-timeout.C:
			p.cancel(errDrained)
			return
		case <-p.ctx.Done():
			return
		}
	}
	p.cancel(errDrained)
}

// called is told that a call has ended.
func (p *partition) called() {
	if p.busy.Add(-1) == 0 {
		select {
		case p.quiet <- struct{}{}:
		default: // it knows already
		}
	}
}

// closeTimeout is how long an owner that stops has for what waits to be written.
const closeTimeout = 5 * time.Second

// recover finds what the owner before has left: times are planned, calls are made once more. Asks and times are served
// meanwhile: with a million executions it takes long, and those that were put first, of which most is due, are found first.
func (p *partition) recover() error {
	running, busy := 0, 0
	err := p.o.cfg.Conn.ScanStates(p.ctx, p.key, stream.AllKeys, func(key string, s stream.StoredState) error {
		id, ok := taskapi.IDOf(key)
		if !ok {
			return nil
		}
		sum, err := decodeSummary(s.Header)
		switch {
		case id.Key() != key:
			p.log.Error("an execution was stored by another version; it stands still", "execution", id.String())
		case err != nil:
			p.log.Error("an execution can't be read; it stands still", "execution", id.String(), "error", err)
		case sum.Status != statelang.StatusRunning && sum.Callback != "":
			p.planFound(key, p.o.cfg.Conn.Now()) // its end is reported by its being in memory
		case sum.Status != statelang.StatusRunning:
		case sum.Busy:
			p.offerOf(key, sum)
			running, busy = running+1, busy+1
			p.planFound(key, p.o.cfg.Conn.Now()) // it goes on by being in memory
		default:
			p.offerOf(key, sum)
			running++
			p.planFound(key, time.UnixMilli(sum.Wake))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if running > 0 {
		p.log.Info("executions go on", "running", running, "with calls", busy)
	}
	return context.Cause(p.ctx)
}

// enter puts an execution into memory, as it was at a version of its cell. It reports whether that is how it is: another may have
// been in memory, now or meanwhile.
func (p *partition) enter(x *execution, version uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running[x.id.Key()] != nil || p.owner.Version(x.cell) != version {
		return false
	}
	p.running[x.id.Key()] = x
	return true
}

// rest returns what is in the execution's inbox. If nothing is, its work rests, and if nothing is under way it leaves the memory.
func (p *partition) rest(x *execution, quiet bool) (heard []item, rests bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	if heard, x.inbox = x.inbox, nil; len(heard) > 0 {
		return heard, false
	}
	x.working = false
	if quiet {
		x.gone = true
		delete(p.running, x.id.Key())
		p.owner.Release(x.cell)
	}
	return nil, true
}

// drop takes an execution out of memory whatever it does.
func (p *partition) drop(x *execution) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, x.id.Key())
	p.owner.Release(x.cell)
}

// crowded reports whether no further execution may come into memory.
func (p *partition) crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.running) >= maxRunning
}

func errCrowded() error {
	return &stream.RefusedError{Code: taskapi.CodeBusy, Message: "too many executions are under way at this moment"}
}

// tell has an execution hear something, which brings it into memory if it is not there.
func (p *partition) tell(ctx context.Context, id ID, i item) error {
	for {
		p.mu.Lock()
		x := p.running[id.Key()]
		p.mu.Unlock()
		if x != nil {
			if x.tell(i) {
				return nil
			}
			continue
		}
		if p.crowded() {
			return errCrowded()
		}
		cell, err := p.owner.Hold(ctx, id.Key())
		if err != nil {
			return p.failed(err)
		}
		version := p.owner.Version(cell)
		if x, err = p.restore(ctx, id, cell); err != nil {
			p.owner.Release(cell)
			return p.failed(err)
		}
		x.inbox = []item{i}
		if !p.enter(x, version) {
			p.owner.Release(cell)
			continue
		}
		p.wg.Go(func() { //nolint:contextcheck // the same
			x.resume()
			x.work(nil, nil)
		})
		return nil
	}
}

// event tells an execution an event, and returns once it is durable.
func (p *partition) event(ctx context.Context, id ID, e statelang.Event) error {
	done := make(chan error, 1)
	if err := p.tell(ctx, id, item{event: e, done: done}); err != nil {
		return err
	}
	return p.await(ctx, done)
}

// look calls f with an execution that stands still meanwhile. f must be quick.
func (p *partition) look(ctx context.Context, id ID, f func(*execution) error) error {
	done := make(chan error, 1)
	if err := p.tell(ctx, id, item{look: f, done: done}); err != nil {
		return err
	}
	return p.await(ctx, done)
}

func (p *partition) await(ctx context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return p.failed(err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// failed is an error as who asked is to see it.
func (p *partition) failed(err error) error {
	switch {
	case errors.Is(err, ledger.ErrFull):
		return &stream.RefusedError{Code: taskapi.CodeFull, Message: "there is no room for further executions"}
	case errors.Is(err, ledger.ErrLost):
		return fmt.Errorf("%w: %w", stream.ErrLeaseLost, err)
	}
	return err
}

// valueOf is a held cell's state with its body.
func (p *partition) valueOf(ctx context.Context, cell *ledger.Cell, key string) (ledger.Value, error) {
	v := p.owner.Value(cell)
	if v.Header == "" || v.Body != nil {
		return v, nil
	}
	s, err := p.o.cfg.Conn.LoadState(ctx, p.key, key)
	return ledger.Value{Header: s.Header, Body: s.Body}, err
}

// keepDefinition stores a definition beside the executions that begin with it, unless it is there. It is durable before what
// changes later.
func (p *partition) keepDefinition(ctx context.Context, m *machine) error {
	cell, err := p.owner.Hold(ctx, m.hash)
	if err != nil {
		return err
	}
	defer p.owner.Release(cell)
	if p.owner.Value(cell).Header == "" {
		p.owner.Change(cell, func(ledger.Value) (ledger.Value, error) { return ledger.Value{Header: sealedHeader, Body: m.text}, nil })
	}
	return nil
}

// definition is the machine that executions have begun with.
func (p *partition) definition(ctx context.Context, hash string, kind statelang.Type) (*statelang.Machine, error) {
	if m := p.o.machines.parsed(hash, kind); m != nil {
		return m, nil
	}
	cell, err := p.owner.Hold(ctx, hash)
	if err != nil {
		return nil, err
	}
	defer p.owner.Release(cell)
	v, err := p.valueOf(ctx, cell, hash)
	if err != nil {
		return nil, err
	}
	m, err := p.o.machines.parse(v.Body, kind)
	if err != nil {
		return nil, fmt.Errorf("%w: its definition: %w", errUnknown, err)
	}
	return m.parsed, nil
}

// plan has the execution looked at when a time has come; never if it is zero.
func (p *partition) plan(key string, at time.Time) {
	p.mu.Lock()
	p.planLocked(key, at)
}

// planFound is plan for an execution whose state was found, maybe not the newest: one that is in memory, or was since and has
// planned its time, knows better. One that has ended since looks in vain.
func (p *partition) planFound(key string, at time.Time) {
	p.mu.Lock()
	if p.running[key] != nil || p.timers.has(key) {
		p.mu.Unlock()
		return
	}
	p.planLocked(key, at)
}

// planLocked is plan for who holds mu, which it gives back.
func (p *partition) planLocked(key string, at time.Time) {
	before := p.timers.len()
	first := p.timers.set(key, at)
	more := p.timers.len() - before
	p.mu.Unlock()
	p.o.waits.add(int64(more))
	if first {
		select {
		case p.planned <- struct{}{}:
		default: // it is known already
		}
	}
}

// tick wakes executions at their times, until the ownership ends.
func (p *partition) tick() {
	clock := time.NewTimer(time.Hour)
	defer clock.Stop()
	for p.ctx.Err() == nil {
		now := p.o.cfg.Conn.Now()
		p.mu.Lock()
		keys, next := p.timers.due(now, maxDue)
		p.mu.Unlock()
		p.o.waits.add(-int64(len(keys)))
		for _, key := range keys {
			id, _ := taskapi.IDOf(key)
			p.wg.Go(func() { p.wake(id) })
		}
		if len(keys) == maxDue {
			next = now
		}
		clock.Reset(min(max(next.Sub(now), 0), time.Hour))
		select {
		case <-clock.C:
		case <-p.planned:
		case <-p.ctx.Done():
		}
	}
}

// maxDue is how many executions are woken at once.
const maxDue = 256

// wake has an execution look at its times. If that fails it is tried again.
func (p *partition) wake(id ID) {
	err := p.tell(p.ctx, id, item{tick: true})
	if refused, ok := errors.AsType[*stream.RefusedError](err); err == nil || p.ctx.Err() != nil || ok && refused.Code == taskapi.CodeNoExecution {
		return
	}
	p.log.Warn("an execution could not be woken; it is tried again", "execution", id.String(), "error", err)
	p.plan(id.Key(), p.o.cfg.Conn.Now().Add(wakeAgain))
}

const wakeAgain = time.Second
