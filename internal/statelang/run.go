package statelang

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
)

// maxTransitions is how many states an execution goes through before it asks to be continued: an endless loop can be stopped.
const maxTransitions = 1000

// timeFormat is how the context object writes times.
const timeFormat = "2006-01-02T15:04:05.000Z"

// Run is one execution. It is used by one goroutine at a time.
type Run struct {
	machine  *Machine
	start    Start
	root     *thread
	status   Status
	output   any
	failure  *Failure
	now      time.Time
	ended    time.Time
	calls    map[uint32]*thread // who waits for a call or a time
	lastCall uint32
	events   uint32
	draws    uint64 // of randomness
	redrives int
	ready    []*thread
	effects  []Effect
}

// deadlineCall is the WakeAt of the execution's own timeout.
const deadlineCall = 0

// New starts an execution, and returns what is to be done.
func New(m *Machine, s Start) (*Run, []Effect) {
	r := &Run{machine: m, start: s, status: StatusRunning, now: s.At, calls: map[uint32]*thread{}}
	r.root = &thread{machine: m, scope: &scope{}}
	r.record(r.root, HistoryEvent{Type: "ExecutionStarted", Input: s.Input})
	r.effect(Effect{Kind: WakeAt, Call: deadlineCall, At: s.At.Add(r.age())})
	if jsontree.Size(s.Input) > MaxDataBytes {
		r.fail(r.root, dataLimit("input of the execution"))
		return r, r.take()
	}
	r.goTo(r.root, m.Start, s.Input)
	r.work()
	return r, r.take()
}

// age is how long the execution may run, from its start or its redrive.
func (r *Run) age() time.Duration {
	if most := r.mostAge(); r.machine.Timeout == 0 || r.machine.Timeout > most {
		return most
	}
	return r.machine.Timeout
}

func (r *Run) mostAge() time.Duration {
	if r.machine.Type == Express {
		return MaxExpressAge
	}
	return MaxExecutionAge
}

// Apply tells the execution what has happened, and returns what is to be done.
func (r *Run) Apply(e Event) []Effect {
	if e.At.After(r.now) {
		r.now = e.At // clocks of owners differ: its time doesn't go back
	}
	switch e.Kind {
	case Redriven:
		r.redrive()
	case Stopped:
		if r.status == StatusRunning {
			r.end(StatusAborted, nil, e.Failure.Cut())
		}
	case Continued:
	default:
		r.heard(e)
	}
	r.work()
	return r.take()
}

// heard is an event of a call or a time.
func (r *Run) heard(e Event) {
	if r.status != StatusRunning {
		return
	}
	if e.Call == deadlineCall && e.Kind == Woke {
		if r.machine.Timeout == 0 {
			r.end(StatusFailed, nil, NewFailure(ErrRuntime, fmt.Sprintf("the execution has run for %v, as long as one may", r.mostAge())))
			return
		}
		r.end(StatusTimedOut, nil, &Failure{Error: new(ErrTimeout)})
		return
	}
	t := r.calls[e.Call]
	if t == nil {
		return
	}
	switch e.Kind {
	case Woke:
		r.woke(t, e.Call)
	case Beat:
		r.beat(t)
	case Taken:
		r.taken(t, e.Worker)
	case Submitted:
		r.record(t, t.taskEvent("Submitted", HistoryEvent{Output: e.Output}))
	case Succeeded:
		r.over(t)
		r.succeeded(t, e.Output)
	case Failed:
		r.over(t)
		failure := e.Failure.Cut()
		if failure == nil {
			failure = &Failure{}
		}
		r.callFailed(t, failure)
	}
}

// over forgets the call, and the time that it had.
func (r *Run) over(t *thread) {
	delete(r.calls, t.call)
	if t.wakes {
		r.effect(Effect{Kind: Cancel, Call: t.call})
	}
	t.call, t.wakes = 0, false
}

// work goes on with all threads that can.
func (r *Run) work() {
	for n := 0; len(r.ready) > 0 && r.status == StatusRunning; n++ {
		if n == maxTransitions {
			r.effect(Effect{Kind: Continue})
			return
		}
		t := r.ready[0]
		r.ready = r.ready[1:]
		if t.gone {
			continue
		}
		if r.tooLong() {
			return
		}
		r.enter(t)
	}
	if r.status != StatusRunning {
		r.ready = nil
	}
}

// tooLong ends an execution whose history has become too long, and reports whether it has.
func (r *Run) tooLong() bool {
	if r.machine.Type != Standard || r.events < MaxEvents-2 { // room for what the last state tells
		return false
	}
	r.end(StatusFailed, nil, NewFailure(ErrRuntime, fmt.Sprintf("The execution reached the maximum number of history events (%d).", MaxEvents)))
	return true
}

// goTo has a thread enter a state, in its turn.
func (r *Run) goTo(t *thread, s *State, input any) {
	t.state, t.input = s, input
	t.retries, t.retryCount = nil, 0
	r.ready = append(r.ready, t)
}

// end ends the execution. What failed stays as it is, for a redrive.
func (r *Run) end(status Status, output any, failure *Failure) {
	r.status, r.output, r.failure, r.ended = status, output, failure, r.now
	r.stop(r.root)
	r.ready = nil
	r.effect(Effect{Kind: Cancel, Call: deadlineCall})
	event := HistoryEvent{Output: output, Failure: failure}
	switch status {
	case StatusSucceeded:
		event.Type = "ExecutionSucceeded"
	case StatusFailed:
		event.Type = "ExecutionFailed"
	case StatusTimedOut:
		event.Type = "ExecutionTimedOut"
	default:
		event.Type = "ExecutionAborted"
	}
	r.record(r.root, event)
}

// stop gives up what the thread and those below it wait for; their states stay.
func (r *Run) stop(t *thread) {
	if t.call != 0 {
		delete(r.calls, t.call)
		r.effect(Effect{Kind: Cancel, Call: t.call})
		t.call, t.wakes = 0, false
	}
	for _, kid := range t.kids {
		if kid != nil {
			r.stop(kid)
		}
	}
}

// redrive enters once more the states that failed or were aborted.
func (r *Run) redrive() {
	if r.status == StatusRunning || r.status == StatusSucceeded {
		return
	}
	r.status, r.output, r.failure, r.ended = StatusRunning, nil, nil, time.Time{}
	r.redrives++
	r.record(r.root, HistoryEvent{Type: "ExecutionRedriven"})
	r.effect(Effect{Kind: WakeAt, Call: deadlineCall, At: r.now.Add(r.age())})
	r.again(r.root)
}

func (r *Run) again(t *thread) {
	if t.state == nil || t.done {
		return
	}
	below := false
	for _, kid := range t.kids {
		if kid != nil && !kid.done && !kid.gone {
			below = true
			r.again(kid)
		}
	}
	if !below {
		t.kids = nil
		r.goTo(t, t.state, t.input)
	}
}

func (r *Run) effect(e Effect) { r.effects = append(r.effects, e) }

func (r *Run) take() []Effect {
	taken := r.effects
	r.effects = nil
	return taken
}

// wait has a thread wait for a new call or time.
func (r *Run) wait(t *thread) uint32 {
	r.lastCall++
	t.call = r.lastCall
	r.calls[t.call] = t
	return t.call
}

// record adds to the history, unless the thread is in a map's child execution.
func (r *Run) record(t *thread, e HistoryEvent) {
	if t.hidden {
		return
	}
	r.events++
	e.ID, e.Previous, e.At = r.events, t.lastEvent, r.now
	t.lastEvent = e.ID
	if r.start.Record != nil {
		r.start.Record(e)
	}
}

// random returns a source that is the same whenever the execution is made again.
func (r *Run) random() *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(r.start.ID)) // a hash takes all
	r.draws++
	return rand.New(rand.NewPCG(h.Sum64(), r.draws)) // not for secrets, as documented of States.MathRandom
}

func (r *Run) token(call uint32) string {
	if r.start.Token == nil {
		return strconv.FormatUint(uint64(call), 10)
	}
	return r.start.Token(call)
}

// contextObject is "$$" of a thread.
func (r *Run) contextObject(t *thread) *jsontree.Object {
	execution := jsontree.Of(
		"Id", r.start.ID, "Input", r.start.Input, "Name", r.start.Name, "RoleArn", r.start.RoleARN,
		"StartTime", r.start.At.UTC().Format(timeFormat), "RedriveCount", json.Number(strconv.Itoa(r.redrives)),
	)
	c := jsontree.Of("Execution", execution, "StateMachine", jsontree.Of("Id", r.start.MachineID, "Name", r.start.MachineName))
	if t.state != nil {
		state := jsontree.Of("Name", t.state.Name, "EnteredTime", t.entered.UTC().Format(timeFormat))
		if t.state.Kind == Task || t.retryCount > 0 {
			state.Set("RetryCount", json.Number(strconv.Itoa(t.retryCount)))
		}
		c.Set("State", state)
	}
	if t.tokenOf != 0 {
		c.Set("Task", jsontree.Of("Token", r.token(t.tokenOf)))
	}
	if item := t.mapItem(); item != nil {
		c.Set("Map", jsontree.Of("Item", jsontree.Of("Index", json.Number(strconv.Itoa(item.index)), "Value", item.value)))
	}
	if r.start.context != nil {
		overlay(c, r.start.context)
	}
	return c
}

// env is what expressions see in the thread's state. result and failure are nil for what there is not.
func (r *Run) env(t *thread, input any, more ...any) *env {
	e := &env{ctx: context.Background(), input: input, vars: t.scope, now: r.now, random: r.random}
	var made *jsontree.Object
	e.context = func() *jsontree.Object {
		if made == nil {
			made = r.contextObject(t)
		}
		return made
	}
	e.states = func() *jsontree.Object {
		return jsontree.Of(append([]any{"input", t.input, "context", e.context()}, more...)...)
	}
	return e
}

// Status is how the execution is.
func (r *Run) Status() Status { return r.status }

// Output is the output of an execution that succeeded.
func (r *Run) Output() any { return r.output }

// Failure is why an execution failed, timed out or was aborted; nil otherwise.
func (r *Run) Failure() *Failure { return r.failure }

// Ended is when it ended; zero while it runs.
func (r *Run) Ended() time.Time { return r.ended }

// Events is the length of the history.
func (r *Run) Events() int { return int(r.events) }

func dataLimit(what string) *Failure {
	return NewFailure(ErrDataLimit, fmt.Sprintf("The %s has a size exceeding the maximum number of bytes service limit (%d).", what, MaxDataBytes))
}
