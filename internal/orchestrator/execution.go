package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/ledger"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
)

const (
	// sealAt is the size from which on the lines of an execution are put into states of their own, which don't change any more:
	// so what a step writes doesn't grow with the steps before it.
	sealAt = 64 << 10
	// maxChunk bounds one of those: it must fit into a message of NATS. What came at one moment may take several.
	maxChunk = 512 << 10
)

// execution is one execution in the memory of its partition's owner. It is there while something is under way.
//
// What it is told joins its inbox. One goroutine at a time takes all that is there, steps the run, has the events written, and
// then, once they are durable, does what the run asks for. Everything below inbox is this goroutine's.
type execution struct {
	p    *partition
	id   ID
	cell *ledger.Cell

	mu      sync.Mutex
	inbox   []item
	working bool
	gone    bool // not in the partition any more: what it is told is lost

	began  beginning
	start  statelang.Start
	run    *statelang.Run
	lines  []byte // that are not sealed
	sealed int
	calls  map[uint32]*call
	cut    []statelang.Effect // calls whose work goes on elsewhere, and is to be ended
	wakes  map[uint32]time.Time
	wake   time.Time // that the partition's timer knows

	callback  string // as summary has it
	reporting bool   // the end is being reported
	tally     *tally
	redriven  bool // that is not counted yet
	counted   bool // its end is: it was there, or was measured
	stale     bool // what workers know of its tasks is not as it is
}

// item is one of: an event, a look at the timer, a worker that takes a task, a look at the execution, which may change its callback.
// done, if not nil, is told what became of it, and has room.
type item struct {
	event statelang.Event
	began int64 // of an event: when the execution must have begun (taskapi.Task); zero if any
	tick  bool
	take  *taking
	look  func(*execution) error
	done  chan<- error
}

// call is one call under way.
type call struct {
	effect    statelang.Effect
	submitted bool               // the first answer has come
	of        catalog.Key        // the activity that it is a task of; zero if it is none
	taken     bool               // by a worker
	cancel    context.CancelFunc // nil before it has begun
}

// parked reports whether nothing is to be done for the call: somebody will report, or a worker take it.
func (c *call) parked() bool {
	return c.activity() || c.submitted && c.effect.Resource.Pattern == statelang.WaitForTaskToken
}

// outlives reports whether the call has started what goes on without it. (A call that is not to wait for the end leaves it alone.)
func (c *call) outlives() bool {
	if c.effect.Kind != statelang.CallTask || c.effect.Resource.Pattern != statelang.RunToEnd {
		return false
	}
	known, _ := callerOf(c.effect.Resource.Service, c.effect.Resource.Action)
	return known.end != nil
}

// continueCall stands for the run's wish to go on at once, among its calls. Calls count from 1.
const continueCall = 0

func newExecution(p *partition, id ID, cell *ledger.Cell) *execution {
	return &execution{p: p, id: id, cell: cell, working: true, calls: map[uint32]*call{}, wakes: map[uint32]time.Time{}, tally: p.o.metrics.of(id.Machine)}
}

// create begins an execution. It returns once that is durable. One that is there already is the same if its input is; its end is
// reported to the callback that comes last.
func (p *partition) create(ctx context.Context, id ID, m *machine, input any, callback string) error {
	text, err := jsontree.Append(nil, input)
	if err != nil {
		return err
	}
	cell, err := p.owner.Hold(ctx, id.Key())
	if err != nil {
		return p.failed(err)
	}
	version := p.owner.Version(cell)
	if p.owner.Value(cell).Header != "" {
		err := p.sameInput(ctx, id, input, callback)
		if refused, ok := errors.AsType[*stream.RefusedError](err); !ok || refused.Code != taskapi.CodeNoExecution { // it was there, and is no more
			p.owner.Release(cell)
			return err
		}
	}
	if p.owner.Room() != nil {
		p.owner.Release(cell)
		return p.failed(ledger.ErrFull)
	}
	if p.crowded() {
		p.owner.Release(cell)
		return errCrowded()
	}
	x := newExecution(p, id, cell)
	x.callback = callback
	x.began = beginning{Definition: m.hash, Type: m.parsed.Type, At: p.o.cfg.Conn.Now().UnixMilli(), Input: text}
	x.began.TraceParent, x.began.TraceState = p.o.carried(ctx)
	if x.lines, err = appendBeginning(nil, x.began); err == nil {
		err = p.keepDefinition(ctx, m)
	}
	if err != nil {
		p.owner.Release(cell)
		return p.failed(err)
	}
	if !p.enter(x, version) { // somebody was quicker
		p.owner.Release(cell)
		return p.sameInput(ctx, id, input, callback)
	}
	done := make(chan error, 1)
	p.wg.Go(func() { //nolint:contextcheck // its calls are the partition's, not of who asked
		effects := x.make(m.parsed)
		err := x.write(effects)
		if err == nil {
			x.tally.started(x.began.Type)
		}
		done <- err
		x.work(effects, err)
	})
	return p.await(ctx, done)
}

func (p *partition) sameInput(ctx context.Context, id ID, input any, callback string) error {
	return p.look(ctx, id, func(x *execution) error {
		if jsontree.Equal(x.start.Input, input) {
			if callback != "" && callback != x.callback && !p.o.later(x.callback, callback) {
				x.callback, x.reporting = callback, false
			}
			return nil
		}
		return &stream.RefusedError{Code: CodeExists, Message: fmt.Sprintf("there is an execution %s already, with another input", id)}
	})
}

// make starts the run.
func (x *execution) make(m *statelang.Machine) (effects []statelang.Effect) {
	input, err := jsontree.Parse(x.began.Input)
	if err != nil {
		input = nil // never: it was written by Append
	}
	x.start = statelang.Start{
		ID: x.id.ARN(), Name: x.id.Name, MachineID: taskapi.MachineARN(x.id.Machine), MachineName: x.id.Machine.Name, Input: input,
		At: time.UnixMilli(x.began.At).UTC(), Token: x.token,
	}
	x.run, effects = statelang.New(m, x.start)
	return effects
}

func (x *execution) token(call uint32) string {
	return taskapi.Token(x.p.o.tasks.Ring(), taskapi.Task{ID: x.id, Began: x.began.At, Call: call})
}

// restore makes an execution again of its state.
func (p *partition) restore(ctx context.Context, id ID, cell *ledger.Cell) (*execution, error) {
	v, err := p.valueOf(ctx, cell, id.Key())
	if err != nil {
		return nil, err
	}
	if v.Header == "" {
		return nil, noExecution(id)
	}
	s, err := decodeSummary(v.Header)
	if err != nil {
		return nil, err
	}
	if s.Ended != 0 && p.o.cfg.Conn.Now().After(time.UnixMilli(s.Ended).Add(p.o.cfg.Keep)) { // NATS removes it, and has not yet, or the owner has not heard
		return nil, noExecution(id)
	}
	x := newExecution(p, id, cell)
	x.lines, x.sealed, x.callback = v.Body, s.Sealed, s.Callback
	body, err := p.sealedLines(ctx, id, s.Sealed)
	if err != nil {
		return nil, err
	}
	var events []statelang.Event
	if x.began, events, err = decode(append(body, v.Body...)); err != nil {
		return nil, err
	}
	m, err := p.definition(ctx, x.began.Definition, x.began.Type)
	if err != nil {
		return nil, err
	}
	x.note(x.make(m))
	for _, e := range events {
		x.over(e)
		x.note(x.run.Apply(e))
	}
	x.cut = nil // the owner who heard of it has ended it
	x.counted = x.run.Status() != statelang.StatusRunning
	x.stale = len(x.untaken()) > maxUntaken // else it is as its summary says
	return x, nil
}

func noExecution(id ID) error {
	return &stream.RefusedError{Code: taskapi.CodeNoExecution, Message: fmt.Sprintf("there is no execution %s", id)}
}

func (p *partition) sealedLines(ctx context.Context, id ID, chunks int) (body []byte, err error) {
	for n := range chunks {
		cell, err := p.owner.Hold(ctx, chunkKey(id, n))
		if err != nil {
			return nil, err
		}
		v, err := p.valueOf(ctx, cell, chunkKey(id, n))
		p.owner.Release(cell)
		if err != nil {
			return nil, err
		}
		body = append(body, v.Body...)
	}
	return body, nil
}

// note keeps what the run waits for.
func (x *execution) note(effects []statelang.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case statelang.WakeAt:
			x.wakes[e.Call] = e.At
		case statelang.Cancel:
			delete(x.wakes, e.Call)
			if c := x.calls[e.Call]; c != nil && c.outlives() {
				x.cut = append(x.cut, c.effect)
			}
			x.forget(e.Call)
		case statelang.Continue:
			x.calls[continueCall] = &call{effect: e}
		default:
			x.calls[e.Call] = x.newCall(e)
		}
	}
}

func (x *execution) forget(n uint32) {
	if c := x.calls[n]; c != nil && n != continueCall {
		if c.cancel != nil {
			c.cancel()
		}
		x.stale = x.stale || c.activity() && !c.taken
		delete(x.calls, n)
	}
}

// over forgets what an event has ended.
func (x *execution) over(e statelang.Event) {
	switch e.Kind {
	case statelang.Succeeded, statelang.Failed:
		x.forget(e.Call)
	case statelang.Woke:
		delete(x.wakes, e.Call)
	case statelang.Submitted:
		if c := x.calls[e.Call]; c != nil {
			c.submitted = true
		}
	case statelang.Taken:
		if c := x.calls[e.Call]; c != nil {
			c.taken = true
		}
	case statelang.Continued:
		delete(x.calls, continueCall)
	}
}

// quiet reports whether nothing is under way: the run waits for times and for reports.
func (x *execution) quiet() bool {
	running := x.run.Status() == statelang.StatusRunning
	if x.began.Type == statelang.Express && running {
		return false // what it was told is in memory alone
	}
	if x.callback != "" && !running {
		return false
	}
	for _, c := range x.calls {
		if !c.parked() {
			return false
		}
	}
	return len(x.untaken()) <= maxUntaken // else its summary doesn't say all
}

// resume does what the run waits for, after it was made again.
func (x *execution) resume() {
	for n, c := range x.calls {
		if n == continueCall {
			x.add(item{event: statelang.Event{Kind: statelang.Continued}})
		} else if !c.parked() {
			x.begin(c)
		}
	}
	x.plan()
	x.report()
}

// add puts an item into the inbox of an execution that works.
func (x *execution) add(i item) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.inbox = append(x.inbox, i)
}

// tell has the execution hear something. It reports whether it is still here.
func (x *execution) tell(i item) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.gone {
		return false
	}
	x.inbox = append(x.inbox, i)
	if !x.working {
		x.working = true
		x.p.wg.Go(func() { x.work(nil, nil) })
	}
	return true
}

// work does what is to be done now, and then hears what is in the inbox, until there is nothing.
func (x *execution) work(effects []statelang.Effect, err error) {
	for {
		if err != nil {
			x.lose(err)
			return
		}
		x.do(effects)
		heard, rest := x.p.rest(x, x.quiet())
		if rest {
			return
		}
		var results []error
		effects, results, err = x.hear(heard)
		for n, i := range heard {
			if i.done != nil {
				i.done <- errors.Join(err, results[n])
			}
		}
	}
}

// hear steps the run and writes it. What it returns may be done: it is durable.
func (x *execution) hear(heard []item) (effects []statelang.Effect, results []error, err error) {
	now := x.p.o.cfg.Conn.Now().UTC().Truncate(time.Millisecond)
	results = make([]error, len(heard))
	told, adopted := 0, false
	step := func(e statelang.Event) bool {
		if !x.concerns(e) {
			return false
		}
		e.At, e.Failure = now, e.Failure.Cut()
		x.over(e)
		some := x.run.Apply(e)
		x.note(some)
		effects = append(effects, some...)
		if x.lines, err = appendEvent(x.lines, e, x.start.At); err == nil {
			told++
			x.redriven = x.redriven || e.Kind == statelang.Redriven
		}
		return true
	}
	for n, i := range heard {
		switch {
		case i.look != nil:
			before := x.callback
			results[n] = i.look(x)
			adopted = adopted || x.callback != before
		case i.take != nil:
			x.stale = true // it was claimed
			if c := x.oldest(i.take); c != nil && step(statelang.Event{Kind: statelang.Taken, Call: c.effect.Call, Worker: i.take.worker}) {
				i.take.given = &c.effect
			}
		case i.tick:
			x.wake = time.Time{} // the timer has forgotten it
			for _, n := range x.due(now) {
				x.tally.woke(now.Sub(x.wakes[n]))
				step(statelang.Event{Kind: statelang.Woke, Call: n})
			}
		default:
			if i.began != 0 && i.began != x.began.At || !step(i.event) {
				results[n] = x.refusal(i.event)
			}
		}
		if err != nil {
			return nil, results, err
		}
	}
	if adopted || told > 0 && (x.began.Type == statelang.Standard || x.run.Status() != statelang.StatusRunning) {
		err = x.write(nil) // of an EXPRESS execution nothing is stored between its start and its end: it begins anew with the next owner
	}
	if err == nil {
		x.tally.heard(told)
	}
	return effects, results, err
}

// refusal is why an event does not concern the execution.
func (x *execution) refusal(e statelang.Event) error {
	switch e.Kind {
	case statelang.Stopped:
		return &stream.RefusedError{Code: CodeEnded, Message: fmt.Sprintf("execution %s has ended: %s", x.id, x.run.Status())}
	case statelang.Redriven:
		return &stream.RefusedError{Code: CodeNotFailed, Message: fmt.Sprintf(
			"execution %s is %s: only what failed, timed out or was stopped goes on, and no EXPRESS execution", x.id, x.run.Status())}
	default:
		return &stream.RefusedError{Code: taskapi.CodeOver, Message: "the task is over: it has ended, has timed out, or its execution has ended"}
	}
}

// due are the times that have come, the earliest first.
func (x *execution) due(now time.Time) []uint32 {
	var due []uint32
	for n, at := range x.wakes {
		if !at.After(now) {
			due = append(due, n)
		}
	}
	slices.SortFunc(due, func(a, b uint32) int { return cmp.Or(x.wakes[a].Compare(x.wakes[b]), cmp.Compare(a, b)) })
	return due
}

// concerns reports whether the run waits for such an event: others need not be stored.
func (x *execution) concerns(e statelang.Event) bool {
	running := x.run.Status() == statelang.StatusRunning
	switch e.Kind {
	case statelang.Stopped:
		return running
	case statelang.Redriven:
		return !running && x.run.Status() != statelang.StatusSucceeded && x.began.Type == statelang.Standard
	case statelang.Continued:
		return x.calls[continueCall] != nil
	case statelang.Woke:
		_, waits := x.wakes[e.Call]
		return waits
	}
	c := x.calls[e.Call]
	if e.Kind == statelang.Taken {
		return c != nil && c.activity() && !c.taken
	}
	return c != nil && (e.Kind != statelang.Submitted || !c.submitted)
}

// write makes what was heard durable, and what it waits for from now on.
func (x *execution) write(effects []statelang.Effect) error {
	x.note(effects)
	owner := x.p.owner
	for len(x.lines) >= sealAt {
		n := min(len(x.lines), maxChunk)
		if err := x.seal(x.lines[:n:n]); err != nil {
			return err
		}
		x.lines = x.lines[n:]
	}
	header, err := x.summary().encode()
	if err != nil {
		return err
	}
	state := ledger.Value{Header: header, Body: append([]byte{}, x.lines...)} // not nil: that would be one that can be looked up
	if x.run.Status() != statelang.StatusRunning {
		state.TTL = x.p.o.cfg.Keep
	}
	end := x.tally.writing()
	err = owner.Change(x.cell, func(ledger.Value) (ledger.Value, error) { return state, nil }).Wait()
	end(err)
	if err == nil {
		x.count()
	}
	return err
}

// count counts that the execution has ended, or goes on from there, once that is durable.
func (x *execution) count() {
	if x.redriven { // it may have ended again at once
		x.tally.redriven(x.began.Type)
		x.redriven, x.counted = false, false
	}
	if x.run.Status() != statelang.StatusRunning && !x.counted {
		x.tally.ended(x.began.Type, x.run.Status(), x.run.Ended().Sub(x.start.At))
		x.counted = true
	}
}

// seal stores the next chunk. It lives for longer than the execution can, and is kept after its end.
func (x *execution) seal(lines []byte) error {
	owner := x.p.owner
	cell, err := owner.Hold(context.WithoutCancel(x.p.ctx), chunkKey(x.id, x.sealed)) // what was heard while it drains is written, too
	if err != nil {
		return err
	}
	defer owner.Release(cell)
	chunk := ledger.Value{Header: sealedHeader, Body: lines, TTL: statelang.MaxExecutionAge + x.p.o.cfg.Keep}
	if err := owner.Change(cell, func(ledger.Value) (ledger.Value, error) { return chunk, nil }).Wait(); err != nil {
		return err
	}
	x.sealed++
	return nil
}

const sealedHeader = "{}"

func (x *execution) summary() summary {
	s := summary{Status: x.run.Status(), Type: x.began.Type, Began: x.began.At, Busy: !x.quiet() || x.began.Type == statelang.Express, Sealed: x.sealed, Callback: x.callback}
	if f := x.run.Failure(); f != nil {
		s.Error = f.Name()
	}
	if untaken := x.untaken(); len(untaken) <= maxUntaken {
		for activity, tasks := range untaken {
			s.waits(activity, tasks.since)
		}
	}
	if !x.run.Ended().IsZero() {
		s.Ended = x.run.Ended().UnixMilli()
	} else if at := x.firstWake(); !at.IsZero() {
		s.Wake = at.UnixMilli()
	}
	return s
}

func (x *execution) firstWake() (first time.Time) {
	for _, at := range x.wakes {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// do does what a durable step asks for.
func (x *execution) do(effects []statelang.Effect) {
	for _, e := range effects {
		switch c := x.calls[e.Call]; e.Kind {
		case statelang.CallTask, statelang.CallReader, statelang.CallWriter:
			if c != nil && c.cancel == nil && !c.parked() { // else a later event has ended it already
				x.begin(c)
			}
		case statelang.Continue:
			x.add(item{event: statelang.Event{Kind: statelang.Continued}})
		}
	}
	x.endCut()
	x.plan()
	x.offer()
	x.report()
}

// endTimeout is how long it is tried to end what a call has started. After it, or after a crash, that goes on to its own end.
const endTimeout = 10 * time.Second

// endCut ends what was cut: because its task timed out, its execution ended, or another branch failed. That this owner gives the
// execution up cuts nothing: the next one goes on awaiting. It comes after the write: else the next owner could await what was ended.
func (x *execution) endCut() {
	cut, made := x.cut, work{x.began.At, x.callback}
	x.cut = nil
	for _, e := range cut {
		x.p.busy.Add(1)
		x.p.wg.Go(func() {
			defer x.p.called()
			ctx, cancel := context.WithTimeout(made.in(context.WithoutCancel(x.p.ctx)), endTimeout) // also when the partition was just given up
			defer cancel()
			known, _ := callerOf(e.Resource.Service, e.Resource.Action)
			known.end(x.p.o, ctx, x.id, e)
		})
	}
}

// report has the job whose work this is told how it ended; once it knows, the callback is forgotten.
func (x *execution) report() {
	if x.callback == "" || x.reporting || x.run.Status() == statelang.StatusRunning || x.p.draining.Load() {
		return
	}
	x.reporting = true
	x.p.busy.Add(1)
	callback := x.callback
	var d Description
	d.outcome(x.run)
	x.p.wg.Go(func() {
		defer x.p.called()
		if x.p.o.reportJob(x.p.ctx, x.id, callback, d) != nil {
			return // the next owner does it
		}
		x.tell(item{look: func(x *execution) error {
			if x.callback == callback { // else another attempt has come
				x.callback, x.reporting = "", false
			}
			return nil
		}})
	})
}

// begin makes a call, unless the partition is given up: then it is the next owner's.
func (x *execution) begin(c *call) {
	if x.p.draining.Load() {
		return
	}
	x.p.busy.Add(1)
	submitted, made := c.submitted, work{x.began.At, x.callback}
	ctx, cancel := context.WithCancel(x.p.o.under(x.p.ctx, x.began.TraceParent, x.began.TraceState))
	c.cancel = cancel
	x.p.wg.Go(func() {
		defer x.p.called() // what it returned is in the inbox, which is heard before the ownership ends
		defer cancel()
		if !submitted && x.p.o.cancelled(ctx, made.callback) {
			x.tell(item{event: statelang.Event{Kind: statelang.Stopped, Failure: statelang.NewFailure(errEnded, "the job was cancelled")}})
			return
		}
		awaits := func() (stop func() bool) { return context.AfterFunc(x.p.awaits, cancel) }
		if submitted {
			defer awaits()()
		}
		for e := range x.p.o.watched(made.in(ctx), x.id, c.effect, submitted) {
			e.Call = c.effect.Call
			if ctx.Err() != nil || !x.tell(item{event: e}) {
				return
			}
			if e.Kind == statelang.Submitted {
				defer awaits()()
			}
		}
	})
}

// plan has the partition's timer know when the execution waits for a time.
func (x *execution) plan() {
	if at := x.firstWake(); !at.Equal(x.wake) {
		x.wake = at
		x.p.plan(x.id.Key(), at)
	}
}

// lose ends it here: what is in memory may not be what is stored. The next owner goes on with it.
func (x *execution) lose(err error) {
	x.mu.Lock()
	x.gone = true
	heard := x.inbox
	x.inbox = nil
	x.mu.Unlock()
	for _, i := range heard {
		if i.done != nil {
			i.done <- err
		}
	}
	x.p.drop(x)
	x.p.cancel(err)
}
