package statelang

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
)

// thread is one line of an execution: the machine itself, a branch, or an iteration of a map.
type thread struct {
	machine *Machine
	parent  *thread
	slot    int // among the parent's
	scope   *scope
	item    *mapItem // of an iteration

	state      *State
	input      any // of the state
	entered    time.Time
	lastEvent  uint32
	retries    []int // of each retrier
	retryCount int

	call    uint32 // or time that it waits for; 0: none
	wakes   bool   // a time was asked for with the call
	tokenOf uint32 // the call that the context's token is of
	waits   waiting
	expires time.Time // of a call
	beatBy  time.Time // zero without a heartbeat, and as long as no worker has the task
	beats   time.Duration
	taken   bool // by a worker, of an activity

	kids    []*thread // of a Parallel or Map state
	results []any
	work    *mapWork
	done    bool // it has an output
	gone    bool // nobody waits for it
	hidden  bool // its history is a child execution's
	held    bool // a test gives the result of its Parallel or Map state: nothing is started below it
}

// waiting is what a thread's call is.
type waiting int

const (
	forTask waiting = iota
	forTime
	forRetry
	forItems  // of a map's reader
	forWriter // of a map's results
)

// mapItem is an iteration's item.
type mapItem struct {
	index int
	value any
}

func (t *thread) mapItem() *mapItem {
	for ; t != nil; t = t.parent {
		if t.item != nil {
			return t.item
		}
	}
	return nil
}

// enter begins with the thread's state.
func (r *Run) enter(t *thread) {
	t.entered, t.tokenOf = r.now, 0
	r.record(t, HistoryEvent{Type: string(t.state.Kind) + "StateEntered", Name: t.state.Name, Input: t.input})
	r.seen(t, StageEntered, t.input)
	r.execute(t)
}

// execute does what the state is for; after a failure that is retried, once more.
func (r *Run) execute(t *thread) {
	s := t.state
	input, err := r.effective(t)
	if err != nil {
		r.fail(t, failureOf(err))
		return
	}
	if s.Language == JSONPath {
		r.seen(t, StageInputPath, input)
	}
	switch s.Kind {
	case Pass:
		r.pass(t, input)
	case Task:
		r.task(t, input)
	case Choice:
		r.choose(t, input)
	case Wait:
		r.delay(t, input)
	case Succeed:
		r.complete(t, input, input)
	case Fail:
		r.failState(t, input)
	case Parallel:
		r.parallel(t, input)
	case Map:
		r.iterate(t, input)
	}
}

// effective is the state's input after InputPath.
func (r *Run) effective(t *thread) (any, error) {
	return r.through(t, t.state.inputPath, "InputPath", t.input)
}

func (r *Run) through(t *thread, f flow, field string, v any) (any, error) {
	switch {
	case f.none:
		return &jsontree.Object{}, nil
	case f.path == nil:
		return v, nil
	}
	found, err := f.path.find(r.env(t, v))
	if err != nil {
		return nil, runtimeError("Invalid path '%s' of %s: nothing is there", f.path.path, field)
	}
	return found, nil
}

func (r *Run) pass(t *thread, input any) {
	s := t.state
	result := input
	if s.arguments != nil {
		var err error
		if result, err = s.arguments.eval(r.env(t, input)); err != nil {
			r.fail(t, failureOf(err))
			return
		}
	}
	switch {
	case s.pass.given:
		result = s.pass.result
		r.seen(t, StageResult, result)
	case s.Language == JSONPath:
		r.seen(t, StageParameters, result)
	}
	r.complete(t, input, result)
}

func (r *Run) task(t *thread, input any) {
	s := t.state
	call := r.wait(t)
	t.tokenOf = call // as AWS has it with .sync, too; it is of use only where somebody is to report
	e := r.env(t, input)
	effect := Effect{Kind: CallTask, Call: call, State: s.Name, Resource: s.task.Resource, Input: input, At: r.now}
	var err error
	if s.arguments != nil {
		effect.Input, err = s.arguments.eval(e)
	}
	if err == nil {
		r.sees(t, effect.Input)
	}
	if err == nil && s.task.credentials != nil {
		effect.Credentials, err = s.task.credentials.eval(e)
	}
	if err == nil {
		effect.Timeout, err = seconds(e, s.task.timeout, "TimeoutSeconds", 1)
	}
	if err == nil {
		effect.Heartbeat, err = seconds(e, s.task.heartbeat, "HeartbeatSeconds", 1)
	}
	if err == nil && jsontree.Size(effect.Input) > MaxDataBytes {
		err = dataLimit(fmt.Sprintf("payload of the task '%s'", s.Name)).asError()
	}
	if err != nil {
		delete(r.calls, call)
		t.call = 0
		r.fail(t, failureOf(err))
		return
	}
	if s.task.Resource.Waits() {
		effect.Token = r.token(call)
	}
	t.waits, t.expires, t.beatBy, t.beats, t.taken = forTask, time.Time{}, time.Time{}, effect.Heartbeat, false
	if effect.Timeout > 0 {
		t.expires = r.now.Add(effect.Timeout)
	}
	activity := s.task.Resource.Kind == Activity // its heartbeats count from when a worker has it (user guide, "Task workflow state")
	if effect.Heartbeat > 0 && !activity {
		t.beatBy = r.now.Add(effect.Heartbeat)
	}
	r.record(t, t.taskEvent("Scheduled", HistoryEvent{Input: effect.Input, Resource: s.task.Resource}))
	if !activity {
		r.record(t, t.taskEvent("Started", HistoryEvent{}))
	}
	r.observe(t, Observation{Stage: StageCall, Call: call, Value: effect.Input})
	r.effect(effect)
	if at := t.nextWake(); !at.IsZero() {
		t.wakes = true
		r.effect(Effect{Kind: WakeAt, Call: call, At: at})
	}
}

// sees tells the observer what Parameters or Arguments have given.
func (r *Run) sees(t *thread, payload any) {
	switch {
	case t.state.Language == JSONPath:
		r.seen(t, StageParameters, payload)
	case t.state.arguments != nil:
		r.seen(t, StageArguments, payload)
	}
}

// nextWake is when the task has failed unless it ends or gives a sign of life.
func (t *thread) nextWake() time.Time {
	if t.expires.IsZero() || !t.beatBy.IsZero() && t.beatBy.Before(t.expires) {
		return t.beatBy
	}
	return t.expires
}

// taskEvent names an event of the task after the kind of its resource.
func (t *thread) taskEvent(what string, e HistoryEvent) HistoryEvent {
	prefix := "Task"
	if t.state.task != nil {
		switch t.state.task.Resource.Kind {
		case Function:
			prefix = "LambdaFunction"
		case Activity:
			prefix = "Activity"
		}
	}
	e.Type = prefix + what
	return e
}

// seconds evaluates a number of seconds; 0 if there is none.
func seconds(e *env, x expr, field string, least float64) (time.Duration, error) {
	if x == nil {
		return 0, nil
	}
	v, err := x.eval(e)
	if err != nil {
		return 0, err
	}
	n, ok := jsontree.Float(v)
	if !ok || n != math.Trunc(n) || n < least || n > maxSeconds {
		return 0, wrongValue(x, "%s must be a whole number of seconds from %v to %d, not %s", field, least, maxSeconds, shown(v))
	}
	return time.Duration(n) * time.Second, nil
}

// wrongValue is the failure of a value that is not what its field needs.
func wrongValue(x expr, format string, args ...any) error {
	if _, ok := x.(*queryExpr); ok {
		return queryError(format, args...)
	}
	return runtimeError(format, args...)
}

// taken is told that a worker has the task of an activity.
func (r *Run) taken(t *thread, worker string) {
	if t.waits != forTask || t.taken || t.state.task.Resource.Kind != Activity {
		return
	}
	t.taken = true
	r.record(t, t.taskEvent("Started", HistoryEvent{Worker: worker}))
	if t.beats > 0 {
		t.beatBy, t.wakes = r.now.Add(t.beats), true
		r.effect(Effect{Kind: WakeAt, Call: t.call, At: t.nextWake()})
	}
}

func (r *Run) beat(t *thread) {
	if t.waits != forTask || t.beatBy.IsZero() {
		return
	}
	t.beatBy = r.now.Add(t.beats)
	r.effect(Effect{Kind: WakeAt, Call: t.call, At: t.nextWake()})
}

// woke is told that a time has come.
func (r *Run) woke(t *thread, call uint32) {
	switch t.waits {
	case forTime:
		t.wakes = false
		r.over(t)
		input, err := r.effective(t)
		if err != nil {
			r.fail(t, failureOf(err))
			return
		}
		r.complete(t, input, input)
	case forRetry:
		t.wakes = false
		r.over(t)
		if !r.tooLong() {
			r.execute(t)
		}
	case forTask:
		if at := t.nextWake(); r.now.Before(at) {
			r.effect(Effect{Kind: WakeAt, Call: call, At: at}) // it was heard of meanwhile
			return
		}
		t.wakes = false
		r.effect(Effect{Kind: Cancel, Call: call})
		r.over(t)
		failure := NewFailure(ErrTimeout, "")
		failure.heartbeat = !t.beatBy.IsZero() && !r.now.Before(t.beatBy)
		r.record(t, t.taskEvent("TimedOut", HistoryEvent{Failure: failure}))
		r.fail(t, failure)
	}
}

// succeeded is told the result of the thread's call.
func (r *Run) succeeded(t *thread, result any) {
	switch t.waits {
	case forItems:
		r.itemsRead(t, result)
		return
	case forWriter:
		r.endMap(t, result)
		return
	}
	if jsontree.Size(result) > MaxDataBytes {
		failure := NewFailure(ErrDataLimit, fmt.Sprintf("The state/task '%s' returned a result with a size exceeding the maximum number of bytes service limit.", t.state.Name))
		r.record(t, t.taskEvent("Failed", HistoryEvent{Failure: failure}))
		r.fail(t, failure)
		return
	}
	r.record(t, t.taskEvent("Succeeded", HistoryEvent{Output: result}))
	r.seen(t, StageResult, result)
	input, err := r.effective(t)
	if err != nil {
		r.fail(t, failureOf(err))
		return
	}
	r.complete(t, input, result)
}

func (r *Run) callFailed(t *thread, failure *Failure) {
	switch t.waits {
	case forItems:
		r.record(t, HistoryEvent{Type: "MapRunFailed", Failure: failure})
	case forWriter:
	default:
		what := "Failed"
		if failure.Name() == ErrTimeout {
			what = "TimedOut"
		}
		r.record(t, t.taskEvent(what, HistoryEvent{Failure: failure}))
	}
	r.fail(t, failure)
}

func (r *Run) choose(t *thread, input any) {
	s := t.state
	for i := range s.choice.rules {
		rule := &s.choice.rules[i]
		ok, err := r.ruleHolds(t, rule, input)
		if err != nil {
			r.fail(t, failureOf(err))
			return
		}
		r.observe(t, Observation{Stage: StageCondition, Index: i, Value: ok})
		if ok {
			r.leave(t, exit{input: input, result: input, output: rule.output, assign: rule.assign, next: rule.next, way: Way{WayRule, i}})
			return
		}
	}
	if s.choice.other == nil {
		r.fail(t, NewFailure(ErrNoChoice, fmt.Sprintf("No rule of the Choice state '%s' holds, and it has no Default.", s.Name)))
		return
	}
	r.leave(t, exit{input: input, result: input, output: s.output, assign: s.assign, next: s.choice.other, way: Way{Kind: WayDefault}})
}

func (r *Run) ruleHolds(t *thread, rule *rule, input any) (bool, error) {
	e := r.env(t, input)
	if rule.query == nil {
		return rule.test.holds(e)
	}
	v, err := rule.query.eval(e)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, queryError("The Condition of a rule of the state '%s' must be true or false, and is %s.", t.state.Name, shown(v))
	}
	return b, nil
}

func (r *Run) delay(t *thread, input any) {
	w := t.state.wait
	e := r.env(t, input)
	var at time.Time
	if w.seconds != nil {
		d, err := seconds(e, w.seconds, w.field, 0)
		if err != nil {
			r.fail(t, failureOf(err))
			return
		}
		at = t.entered.Add(d)
	} else {
		v, err := w.until.eval(e)
		if err != nil {
			r.fail(t, failureOf(err))
			return
		}
		until, ok := timestamp(v)
		if !ok {
			r.fail(t, failureOf(wrongValue(w.until, "The %s parameter does not reference a valid ISO-8601 extended offset date-time format string: %s", w.field, shown(v))))
			return
		}
		at = until
	}
	if !at.After(r.now) {
		r.complete(t, input, input)
		return
	}
	if limit := t.entered.Add(MaxExecutionAge); at.After(limit) {
		at = limit
	}
	t.waits, t.wakes = forTime, true
	r.effect(Effect{Kind: WakeAt, Call: r.wait(t), At: at})
}

func (r *Run) failState(t *thread, input any) {
	e := r.env(t, input)
	failure := &Failure{}
	var err error
	if failure.Error, err = failText(e, t.state.fail.err, "Error"); err == nil {
		failure.Cause, err = failText(e, t.state.fail.cause, "Cause")
	}
	if err != nil {
		failure = failureOf(err)
	}
	r.fail(t, failure)
}

func failText(e *env, x expr, field string) (*string, error) {
	if x == nil {
		return nil, nil
	}
	v, err := x.eval(e)
	if err != nil {
		return nil, err
	}
	text, ok := v.(string)
	if !ok {
		return nil, wrongValue(x, "%s of a Fail state must be a text, and is %s", field, shown(v))
	}
	return &text, nil
}

func (r *Run) parallel(t *thread, input any) {
	s := t.state
	payload := input
	if s.arguments != nil {
		var err error
		if payload, err = s.arguments.eval(r.env(t, input)); err != nil {
			r.fail(t, failureOf(err))
			return
		}
	}
	r.sees(t, payload)
	r.record(t, HistoryEvent{Type: "ParallelStateStarted"})
	if t.held {
		return
	}
	t.kids, t.results = make([]*thread, len(s.branches)), make([]any, len(s.branches))
	for i, branch := range s.branches {
		kid := &thread{machine: branch, parent: t, slot: i, scope: &scope{outer: t.scope}, hidden: t.hidden, lastEvent: t.lastEvent}
		t.kids[i] = kid
		r.goTo(kid, branch.Start, payload)
	}
}

// finish is told that a thread has come to its end.
func (r *Run) finish(t *thread, output any) {
	t.done = true
	if t.parent == nil {
		r.end(StatusSucceeded, output, nil)
		return
	}
	p := t.parent
	p.lastEvent = t.lastEvent
	if p.state.Kind == Map {
		r.iterated(p, t, output, nil)
		return
	}
	p.results[t.slot] = output
	if slices.ContainsFunc(p.kids, func(kid *thread) bool { return !kid.done }) {
		return
	}
	results := p.results
	p.kids, p.results = nil, nil
	r.seen(p, StageResult, results)
	input, err := r.effective(p)
	if err != nil {
		r.fail(p, failureOf(err))
		return
	}
	r.complete(p, input, results)
}
