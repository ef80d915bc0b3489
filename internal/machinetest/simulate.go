package machinetest

import (
	"container/heap"
	"fmt"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/statelang"
)

// Bounds of a run: an endless loop ends with an error that says so.
const (
	DefaultSteps  = 100_000 // events that the execution is told
	maxEntered    = 100_000 // states
	anyMachine    = "machine"
	arnPrefix     = "arn:aws:states:local:000000000000:"
	executionName = "test"
)

// Config is what a run needs.
type Config struct {
	Machine *statelang.Machine
	Name    string // of the machine, in the context object
	Input   any
	Mocks   Mocks
	Shared  Mocks // for the states that Mocks doesn't name; they need not be used
	Start   time.Time
	Steps   int // 0: DefaultSteps
}

// DefaultStart is when a run begins that doesn't say so.
func DefaultStart() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// Outcome is what became of a run.
type Outcome struct {
	Status  statelang.Status
	Output  any
	Failure *statelang.Failure
	Began   time.Time
	Ended   time.Time // on the simulated clock
	Entries []*Entry  // the machine's own states, as they were entered
	Calls   []Call
	Path    []string // the names of the states, as they were entered
	Events  int      // in the history
	Err     error    // of the run itself, such as a call without a mock; the execution was left as it was

	mocks      []mockSet
	mismatches []mismatch
	reached    *reached
}

// Call is what was sent.
type Call struct {
	State   *statelang.State
	At      time.Time
	Request any
}

// Takes is how long the execution took on the simulated clock.
func (o *Outcome) Takes() time.Duration { return o.Ended.Sub(o.Began) }

// Unused are the mocks that were not used.
func (o *Outcome) Unused() []Problem { return unused(o.mocks) }

// Simulate runs an execution to its end. Waits cost nothing: the clock goes on when nothing else is to be done.
func Simulate(c Config) *Outcome {
	if c.Steps == 0 {
		c.Steps = DefaultSteps
	}
	if c.Start.IsZero() {
		c.Start = DefaultStart()
	}
	if c.Name == "" {
		c.Name = anyMachine
	}
	x := &execution{mocks: c.Mocks.over(c.Shared), now: c.Start, wakes: map[uint32]int{}, answers: map[uint32]int{}, tree: newTree(), reached: newReached()}
	run, effects := statelang.New(c.Machine, statelang.Start{
		ID: arnPrefix + "execution:" + c.Name + ":" + executionName, Name: executionName, MachineID: arnPrefix + "stateMachine:" + c.Name,
		MachineName: c.Name, Input: c.Input, At: c.Start, Observe: x.observe,
	})
	x.run = run
	x.take(effects)
	x.drive(c.Steps)
	return &Outcome{
		Status: run.Status(), Output: run.Output(), Failure: run.Failure(), Began: c.Start, Ended: x.now, Entries: x.tree.root(), Calls: x.calls,
		Path: x.path, Events: run.Events(), Err: x.err, mocks: x.mocks, mismatches: x.mismatches, reached: x.reached,
	}
}

// execution is a run under way.
type execution struct {
	run        *statelang.Run
	mocks      []mockSet
	mismatches []mismatch
	now        time.Time
	agenda     agenda
	seq        int
	wakes      map[uint32]int // the appointment that counts of a call's times
	answers    map[uint32]int // the same of its answer
	tree       *tree
	reached    *reached
	calls      []Call
	path       []string
	err        error
}

// appointment is something that will happen.
type appointment struct {
	at    time.Time
	seq   int
	event statelang.Event
}

// agenda is a heap of appointments.
type agenda []appointment

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	if !a[i].at.Equal(a[j].at) {
		return a[i].at.Before(a[j].at)
	}
	return a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }

// Push and Pop are container/heap's.
func (a *agenda) Push(v any) { *a = append(*a, v.(appointment)) } //nolint:forcetypeassert // only appointments are pushed

func (a *agenda) Pop() any {
	old := *a
	last := old[len(old)-1]
	*a = old[:len(old)-1]
	return last
}

func (x *execution) observe(o statelang.Observation) {
	x.tree.observe(o)
	x.reached.observe(o)
	if o.Stage == statelang.StageEntered {
		x.path = append(x.path, o.State.Name)
	}
}

// drive tells the execution what happens, in the order of the simulated clock.
func (x *execution) drive(steps int) {
	for n := 0; x.err == nil && x.run.Status() == statelang.StatusRunning; n++ {
		switch {
		case len(x.agenda) == 0:
			x.err = fmt.Errorf("the execution waits for nothing that could happen")
			return
		case n >= steps:
			x.err = fmt.Errorf("the execution has not ended after %d steps: does it go in circles? it came through %s", steps, lastOf(x.path))
			return
		case len(x.path) >= maxEntered:
			x.err = fmt.Errorf("the execution has not ended after %d states: does it go in circles? it came through %s", maxEntered, lastOf(x.path))
			return
		}
		next, _ := heap.Pop(&x.agenda).(appointment)
		e := next.event
		waiting := x.answers
		if e.Kind == statelang.Woke {
			waiting = x.wakes
		}
		if e.Kind != statelang.Continued {
			if waiting[e.Call] != next.seq {
				n--
				continue // it was put off, or nobody waits for it any more
			}
			delete(waiting, e.Call)
		}
		if next.at.After(x.now) {
			x.now = next.at
		}
		e.At = x.now
		x.take(x.run.Apply(e))
	}
}

// lastOf is the end of a path, for people.
func lastOf(path []string) string {
	const most = 6
	if len(path) > most {
		return "… → " + strings.Join(path[len(path)-most:], " → ")
	}
	return strings.Join(path, " → ")
}

func (x *execution) at(at time.Time, e statelang.Event) int {
	x.seq++
	heap.Push(&x.agenda, appointment{at, x.seq, e})
	return x.seq
}

// take does what the execution wants done.
func (x *execution) take(effects []statelang.Effect) {
	for _, e := range effects {
		switch e.Kind {
		case statelang.WakeAt:
			x.wakes[e.Call] = x.at(e.At, statelang.Event{Kind: statelang.Woke, Call: e.Call})
		case statelang.Cancel:
			delete(x.wakes, e.Call)
			delete(x.answers, e.Call)
		case statelang.Continue:
			x.at(x.now, statelang.Event{Kind: statelang.Continued})
		default:
			if x.err == nil {
				x.call(e)
			}
		}
	}
}

func (x *execution) call(e statelang.Effect) {
	s := x.tree.calls[e.Call].State
	x.calls = append(x.calls, Call{s, x.now, e.Input})
	a, err := x.answer(s, e.Input)
	if err != nil {
		x.err = err
		return
	}
	if e.Resource.Kind == statelang.Activity {
		x.at(x.now, statelang.Event{Kind: statelang.Taken, Call: e.Call}) // from then on its heartbeats count
	}
	if a.Timeout || a.Hang {
		return
	}
	event := statelang.Event{Kind: statelang.Succeeded, Call: e.Call, Output: a.Result}
	switch {
	case a.Failure != nil:
		event = failed(e.Call, a.Failure)
	case a.Object != nil && e.Reader != nil:
		items, err := statelang.Items(strings.NewReader(*a.Object), "", *e.Reader)
		if event.Output = items; err != nil {
			event = failed(e.Call, statelang.NewFailure(statelang.ErrItemReader, err.Error()))
		}
	}
	x.answers[e.Call] = x.at(x.now.Add(a.After), event)
}

func failed(call uint32, f *statelang.Failure) statelang.Event {
	return statelang.Event{Kind: statelang.Failed, Call: call, Failure: f}
}
