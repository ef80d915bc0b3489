package statelang

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
)

// StateTest says which state is to be tested, and with what (API reference, TestState).
type StateTest struct {
	State     string // its name, or its path in the definition
	Input     any
	Context   *jsontree.Object // its members take the place of those of the context object; nil: none
	Variables *jsontree.Object // that are assigned when the state is entered; nil: none
	Mock      *StateMock       // of a Task, Parallel or Map; nil if the state has nothing to be mocked
	At        time.Time

	// RetryCount is how many retries there were of the retrier that matches.
	RetryCount int
	// MapIndex is the place of the item that the state works on, if it is inside of a Map; MapItem is the item, by default Input.
	MapIndex int
	MapItem  any
	HasItem  bool
	// MapFailures is how many iterations of the Map have failed.
	MapFailures int
	// ItemReaderData is the object that the ItemReader finds; nil: it is not asked.
	ItemReaderData []byte
	// ErrorCausedBy names the state inside of the Parallel or Map that the mock's error comes from; empty: it isn't said.
	ErrorCausedBy string
}

// StateMock is what a Task's call, or the machines in a Parallel or Map, give.
type StateMock struct {
	Result  any
	Failure *Failure // nil: Result is it
}

// TestStatus is how a tested state is left.
type TestStatus string

// Statuses of a tested state.
const (
	TestSucceeded TestStatus = "SUCCEEDED"
	TestFailed    TestStatus = "FAILED"
	TestRetriable TestStatus = "RETRIABLE"    // a retrier tries it once more
	TestCaught    TestStatus = "CAUGHT_ERROR" // a catcher goes on
)

// StateResult is what became of a tested state.
type StateResult struct {
	Status  TestStatus
	Output  any      // if it succeeded or was caught
	Failure *Failure // of all but a success
	Next    string   // the next state; empty at the end
	// Inspection is what each path, selector and Assign made of the data, by AWS's names (API reference, InspectionData).
	Inspection *jsontree.Object
	// Stages is the same in the order in which it was made.
	Stages []Observation
}

// Errors of Test.
var (
	errNoMock = errors.New("it needs a mock")
	errMock   = errors.New("it takes no mock")
)

// Test runs one state as an execution does, with what a mock gives in the place of calls, branches and iterations. Its error
// is that of a test that can't be made; a state that fails is a result.
func Test(m *Machine, x StateTest) (StateResult, error) {
	s, within, err := m.tested(x.State)
	if err != nil {
		return StateResult{}, err
	}
	if err := x.check(s); err != nil {
		return StateResult{}, fmt.Errorf("the %s state %q: %w", s.Kind, s.Name, err)
	}
	b := &bench{test: x, inspection: &jsontree.Object{}}
	b.run = &Run{machine: m, status: StatusRunning, now: x.At, calls: map[uint32]*thread{}, start: Start{
		ID: "arn:aws:states:local:000000000000:execution:test:test", Name: "test", Input: x.Input, At: x.At,
		MachineID: "arn:aws:states:local:000000000000:stateMachine:test", MachineName: "test",
		Observe: b.observe, context: x.Context,
	}}
	t := &thread{machine: within, scope: &scope{vars: x.Variables}, state: s, input: x.Input, retryCount: x.RetryCount}
	t.retries = make([]int, len(s.retry))
	for i := range t.retries {
		t.retries[i] = x.RetryCount
	}
	if within != m && m.inMap(s) {
		t.item = &mapItem{x.MapIndex, x.Input}
		if x.HasItem {
			t.item.value = x.MapItem
		}
	}
	t.held = s.Kind == Parallel || s.Kind == Map
	b.run.root, b.thread = t, t
	b.run.enter(t)
	b.answer()
	return b.result(), nil
}

// tested finds the state, and the machine that it is in.
func (m *Machine) tested(nameOrPath string) (*State, *Machine, error) {
	found := m.Find(nameOrPath)
	switch len(found) {
	case 0:
		return nil, nil, fmt.Errorf("there is no state %q%s", nameOrPath, m.NamesLike(nameOrPath))
	case 1:
		return found[0], m.around(found[0]), nil
	}
	paths := make([]string, len(found))
	for i, s := range found {
		paths[i] = s.path
	}
	return nil, nil, fmt.Errorf("%d states are named %q: give the path of one, %s", len(found), nameOrPath, strings.Join(paths, " or "))
}

// around is the machine that a state is in.
func (m *Machine) around(s *State) *Machine {
	for _, other := range m.States {
		if other == s {
			return m
		}
		for _, inner := range other.Machines() {
			if found := inner.around(s); found != nil {
				return found
			}
		}
	}
	return nil
}

// inMap reports whether the state is inside of a Map.
func (m *Machine) inMap(s *State) bool {
	for _, other := range m.States {
		for _, inner := range other.Machines() {
			if inner.around(s) != nil {
				return other.Kind == Map || inner.inMap(s)
			}
		}
	}
	return false
}

func (x *StateTest) check(s *State) error {
	mocked := s.Kind == Task || s.Kind == Parallel || s.Kind == Map
	switch {
	case !mocked && x.Mock != nil:
		return errMock
	case mocked && x.Mock == nil && s.Kind == Task:
		return fmt.Errorf("%w: the result, or the error, of %s", errNoMock, s.task.Resource.Text)
	case mocked && x.Mock == nil:
		return fmt.Errorf("%w: the result, or the error, of what is in it", errNoMock)
	case x.RetryCount < 0 || x.MapFailures < 0 || x.MapIndex < 0:
		return errors.New("a count or an index must not be negative")
	case s.Kind != Map && x.MapFailures > 0:
		return errors.New("a number of failed iterations is for a Map only")
	case !s.Reads() && x.ItemReaderData != nil:
		return errors.New("what an ItemReader finds is for a Map that has one")
	}
	if _, isList := mockResult(x.Mock).([]any); mocked && x.Mock.Failure == nil && s.Kind != Task && !isList && !s.Writes() {
		return fmt.Errorf("the mock's result must be an array, of what each branch or iteration gives, and is %s", kindOf(x.Mock.Result))
	}
	if x.ErrorCausedBy == "" {
		return nil
	}
	for _, inner := range s.Machines() {
		if len(inner.Find(x.ErrorCausedBy)) > 0 {
			return nil
		}
	}
	return fmt.Errorf("there is no state %q in it that the error could come from", x.ErrorCausedBy)
}

func mockResult(m *StateMock) any {
	if m == nil {
		return nil
	}
	return m.Result
}

// bench holds a state that is tested.
type bench struct {
	test       StateTest
	run        *Run
	thread     *thread
	stages     []Observation
	inspection *jsontree.Object
	selected   []any
}

// observe keeps a stage, by AWS's name.
func (b *bench) observe(o Observation) {
	b.stages = append(b.stages, o)
	switch o.Stage {
	case StageEntered:
		b.inspection.Set("input", o.Value)
	case StageItems:
		if b.thread.state.Language == JSONata {
			b.inspection.Set("afterItems", o.Value) // AWS has no name for it
			return
		}
		b.inspection.Set(string(o.Stage), o.Value)
	case StageItemSelector:
		b.selected = append(b.selected, o.Value)
		b.inspection.Set(string(o.Stage), b.selected)
	case StageInputPath, StageParameters, StageArguments, StageItemBatcher, StageMaxConcurrency, StageToleratedCount, StageToleratedShare,
		StageResult, StageResultSelector, StageResultPath:
		b.inspection.Set(string(o.Stage), o.Value)
	}
}

// answer goes on with what the state waits for.
func (b *bench) answer() {
	r, t := b.run, b.thread
	for n := 0; n < 2 && t.call != 0 && t.waits != forRetry; n++ {
		switch t.waits {
		case forTime:
			r.heard(Event{Kind: Woke, Call: t.call})
			return
		case forItems:
			if !b.read() {
				return
			}
		default:
			b.mocked(t.call)
			return
		}
	}
	if t.held && r.status == StatusRunning && t.call == 0 && !b.left() {
		b.ended()
	}
}

func (b *bench) mocked(call uint32) {
	e := Event{Kind: Succeeded, Call: call, Output: b.test.Mock.Result}
	if f := b.test.Mock.Failure; f != nil {
		e = Event{Kind: Failed, Call: call, Failure: f}
	}
	b.run.heard(e)
}

// read gives a map its items. It reports whether they could be read; a reader that is not asked gives none.
func (b *bench) read() bool {
	r, t := b.run, b.thread
	if b.test.ItemReaderData == nil {
		r.over(t)
		return true
	}
	var config ReaderConfig
	for _, e := range r.effects {
		if e.Kind == CallReader {
			config = *e.Reader
		}
	}
	items, err := Items(bytes.NewReader(b.test.ItemReaderData), "", config)
	if err != nil {
		r.heard(Event{Kind: Failed, Call: t.call, Failure: NewFailure(ErrItemReader, err.Error())})
		return false
	}
	r.heard(Event{Kind: Succeeded, Call: t.call, Output: items})
	return true
}

// ended gives a Parallel or Map the mock's outcome.
func (b *bench) ended() {
	r, t := b.run, b.thread
	if t.state.Kind == Map && t.state.iterate.selector != nil && t.work != nil && !t.work.batched {
		for i, item := range t.work.items {
			if _, err := r.selected(t, &mapItem{i, item}); err != nil {
				r.fail(t, failureOf(err))
				return
			}
		}
	}
	failure := b.test.Mock.Failure
	if w := t.work; failure == nil && w != nil && w.tolerated >= 0 && b.test.MapFailures > w.tolerated {
		failure = NewFailure(ErrTolerated, toleratedExceeded)
	}
	if failure != nil {
		r.fail(t, failure)
		return
	}
	r.seen(t, StageResult, b.test.Mock.Result)
	input, err := r.effective(t)
	if err != nil {
		r.fail(t, failureOf(err))
		return
	}
	r.complete(t, input, b.test.Mock.Result)
}

// left reports whether the state has an outcome already.
func (b *bench) left() bool {
	for _, o := range b.stages {
		if o.Stage == StageLeft || o.Stage == StageFailed {
			return true
		}
	}
	return false
}

// result sums up what was observed.
func (b *bench) result() StateResult {
	x := StateResult{Status: TestFailed, Failure: b.run.failure, Inspection: b.inspection, Stages: b.stages}
	details := &jsontree.Object{}
	for _, o := range b.stages {
		switch o.Stage {
		case StageFailed:
			x.Failure = o.Failure
		case StageRetry:
			x.Status = TestRetriable
			delay := b.thread.state.retry[o.Index].delay(b.test.RetryCount) // without jitter
			details = jsontree.Of("retryIndex", number10(o.Index), "retryBackoffIntervalSeconds", number10(int(delay/time.Second)))
		case StageLeft:
			x.Status, x.Output = TestSucceeded, o.Value
			if o.Way.Kind == WayCatch {
				x.Status = TestCaught
				details = jsontree.Of("catchIndex", number10(o.Way.Index))
			}
		}
	}
	if x.Status == TestSucceeded {
		x.Failure = nil
	}
	if details.Len() > 0 {
		b.inspection.Set("errorDetails", details)
	}
	if x.Status == TestSucceeded || x.Status == TestCaught {
		if b.run.status == StatusRunning && b.thread.state != nil && len(b.run.ready) > 0 {
			x.Next = b.thread.state.Name
		}
	}
	if vars := b.thread.scope.vars; vars != nil {
		b.inspection.Set("variables", vars)
	}
	return x
}

func number10(n int) json.Number { return json.Number(strconv.Itoa(n)) }

// overlay puts the members of another object into one that is not shared yet; objects in it are put together.
func overlay(into, from *jsontree.Object) {
	for key, v := range from.All() {
		inner, isObject := v.(*jsontree.Object)
		if there, ok := into.Get(key); ok && isObject {
			if o, both := there.(*jsontree.Object); both {
				c := o.Clone() // the execution's input is shared
				overlay(c, inner)
				into.Set(key, c)
				continue
			}
		}
		into.Set(key, v)
	}
}
