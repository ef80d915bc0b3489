package statelang

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
)

// exit is how a state is left.
type exit struct {
	input  any // after InputPath
	result any
	output expr // of JSONata
	assign []assignment
	next   *State
	way    Way
}

// complete leaves a state with its result: what it assigns, its output, and on to the next.
func (r *Run) complete(t *thread, input, result any) {
	way := Way{Kind: WayNext}
	if t.state.Next == nil {
		way.Kind = WayEnd
	}
	r.leave(t, exit{input: input, result: result, output: t.state.output, assign: t.state.assign, next: t.state.Next, way: way})
}

func (r *Run) leave(t *thread, x exit) {
	s := t.state
	output, vars, err := r.outcome(t, x)
	if err == nil && jsontree.Size(output) > MaxDataBytes {
		err = NewFailure(ErrDataLimit, fmt.Sprintf("The state/task '%s' returned a result with a size exceeding the maximum number of bytes service limit.", s.Name)).asError()
	}
	if err != nil {
		r.fail(t, failureOf(err))
		return
	}
	r.depart(t, output, vars, x.next, x.way)
}

// depart leaves the state for the next one, or ends the thread.
func (r *Run) depart(t *thread, output any, vars *jsontree.Object, next *State, way Way) {
	r.record(t, HistoryEvent{Type: string(t.state.Kind) + "StateExited", Name: t.state.Name, Output: output})
	if vars != nil {
		t.scope.vars = vars
	}
	r.observe(t, Observation{Stage: StageLeft, Value: output, Way: way})
	t.work = nil
	if next == nil {
		r.finish(t, output)
		return
	}
	r.goTo(t, next, output)
}

// outcome is the state's output, and its variables if it assigns any.
func (r *Run) outcome(t *thread, x exit) (output any, vars *jsontree.Object, err error) {
	s := t.state
	if s.Language == JSONata {
		var more []any
		output = x.result
		switch s.Kind {
		case Task, Parallel, Map:
			more = []any{"result", x.result}
		}
		e := r.env(t, t.input, more...)
		if x.output != nil {
			if output, err = x.output.eval(e); err != nil {
				return nil, nil, err
			}
			r.seen(t, StageOutput, output)
		}
		vars, err = r.assigned(t, e, x.assign)
		return output, vars, err
	}
	if vars, err = r.assigned(t, r.env(t, x.result), x.assign); err != nil {
		return nil, nil, err
	}
	output = x.result
	switch s.Kind {
	case Pass, Task, Parallel, Map:
		if s.resultSelector != nil {
			if output, err = s.resultSelector.eval(r.env(t, x.result)); err != nil {
				return nil, nil, err
			}
		}
		r.seen(t, StageResultSelector, output)
		if output, err = s.resultPath.put(t.input, output); err != nil {
			return nil, nil, err
		}
		r.seen(t, StageResultPath, output)
	}
	if output, err = r.through(t, s.outputPath, "OutputPath", output); err == nil && (s.outputPath.none || s.outputPath.path != nil) {
		r.seen(t, StageOutput, output)
	}
	return output, vars, err
}

// put places a result into the state's input.
func (p place) put(input, result any) (any, error) {
	switch {
	case p.none:
		return input, nil
	case p.path == nil:
		return result, nil
	}
	v, err := p.path.Set(input, result)
	if err != nil {
		return nil, NewFailure(ErrResultPath, fmt.Sprintf("Unable to apply ResultPath '%s': %v", p.path, err)).asError()
	}
	return v, nil
}

// assigned is the thread's variables with those that are assigned; nil if none are.
func (r *Run) assigned(t *thread, e *env, list []assignment) (*jsontree.Object, error) {
	if len(list) == 0 {
		return nil, nil
	}
	vars := &jsontree.Object{}
	if t.scope.vars != nil {
		vars = t.scope.vars.Clone()
	}
	var now *jsontree.Object // what is assigned here, for the observer
	if r.start.Observe != nil {
		now = jsontree.NewObject(len(list))
	}
	for _, a := range list {
		v, err := a.value.eval(e)
		if err != nil {
			return nil, err
		}
		vars.Set(a.name, v)
		if now != nil {
			now.Set(a.name, v)
		}
	}
	r.seen(t, StageAssign, now)
	if jsontree.Size(vars) > MaxVariablesBytes {
		return nil, NewFailure(ErrDataLimit, fmt.Sprintf("The variables have more than %d bytes after the state '%s'.", MaxVariablesBytes, t.state.Name)).asError()
	}
	return vars, nil
}

// fail is told that the thread's state has failed: it is retried, or caught, here or further out; otherwise the execution has
// failed.
func (r *Run) fail(t *thread, failure *Failure) {
	if failure.Name() == ErrQuery && t.state != nil {
		r.record(t, HistoryEvent{Type: "EvaluationFailed", Name: t.state.Name, Failure: failure})
	}
	for {
		r.observe(t, Observation{Stage: StageFailed, Failure: failure})
		if t.state != nil && (r.retried(t, failure) || r.caught(t, failure)) {
			return
		}
		r.stateFailed(t, failure)
		p := t.parent
		if p == nil {
			r.end(StatusFailed, nil, failure)
			return
		}
		p.lastEvent = t.lastEvent
		if p.state.Kind == Map {
			var goesOn bool
			if failure, goesOn = r.iterationFailed(p, t, failure); goesOn {
				return
			}
		}
		t = p
	}
}

func (r *Run) stateFailed(t *thread, failure *Failure) {
	if t.state == nil {
		return
	}
	switch t.state.Kind {
	case Parallel, Map:
		if t.kids != nil || t.work != nil && t.work.began || failure.Name() == ErrQuery { // else it has not begun
			r.record(t, HistoryEvent{Type: string(t.state.Kind) + "StateFailed", Failure: failure})
		}
	}
}

// retried reports whether the state will be tried once more. The first retrier that matches decides.
func (r *Run) retried(t *thread, failure *Failure) bool {
	for i := range t.state.retry {
		rule := &t.state.retry[i]
		if !matchesError(rule.errors, failure) {
			continue
		}
		if t.retries == nil {
			t.retries = make([]int, len(t.state.retry))
		}
		if t.retries[i] >= rule.attempts {
			return false
		}
		delay := rule.delay(t.retries[i])
		if rule.jitter {
			delay = time.Duration(r.random().Int64N(int64(delay) + 1))
		}
		t.retries[i]++
		t.retryCount++
		r.observe(t, Observation{Stage: StageRetry, Index: i, Failure: failure, Delay: delay, Way: Way{WayRetry, i}})
		r.abandon(t)
		t.waits, t.wakes = forRetry, true
		r.effect(Effect{Kind: WakeAt, Call: r.wait(t), At: r.now.Add(delay)})
		return true
	}
	return false
}

// delay is how long a retrier waits after so many retries.
func (r *retrier) delay(retries int) time.Duration {
	d := float64(r.interval) * math.Pow(r.backoff, float64(retries))
	most := float64(MaxExecutionAge)
	if r.maxDelay > 0 {
		most = float64(r.maxDelay)
	}
	return time.Duration(min(d, most))
}

// caught reports whether a catcher goes on after the failure.
func (r *Run) caught(t *thread, failure *Failure) bool {
	for i := range t.state.catch {
		rule := &t.state.catch[i]
		if !matchesError(rule.errors, failure) {
			continue
		}
		r.stateFailed(t, failure)
		r.abandon(t)
		output, vars, err := r.caughtOutcome(t, rule, failure.value())
		if err != nil {
			failure = failureOf(err)
			if failure.Name() == ErrQuery {
				r.record(t, HistoryEvent{Type: "EvaluationFailed", Name: t.state.Name, Failure: failure})
			}
			continue // it fails in the catcher; the next ones may catch that
		}
		r.depart(t, output, vars, rule.next, Way{WayCatch, i})
		return true
	}
	return false
}

func (r *Run) caughtOutcome(t *thread, rule *catcher, errorOutput any) (output any, vars *jsontree.Object, err error) {
	output = errorOutput
	e := r.env(t, errorOutput, "errorOutput", errorOutput)
	if t.state.Language == JSONata {
		if rule.output != nil {
			if output, err = rule.output.eval(e); err != nil {
				return nil, nil, err
			}
		}
	} else if output, err = rule.resultPath.put(t.input, errorOutput); err != nil {
		return nil, nil, err
	}
	vars, err = r.assigned(t, e, rule.assign)
	return output, vars, err
}

// value is the failure as data: an absent name or cause is null.
func (f *Failure) value() any {
	o := jsontree.Of("Error", nil, "Cause", nil)
	if f.Error != nil {
		o.Set("Error", *f.Error)
	}
	if f.Cause != nil {
		o.Set("Cause", *f.Cause)
	}
	return o
}

// abandon gives up the threads below a state that has failed.
func (r *Run) abandon(t *thread) {
	r.stop(t)
	for _, kid := range t.kids {
		r.abort(kid)
	}
	t.kids, t.results, t.work = nil, nil, nil
}

func (r *Run) abort(t *thread) {
	if t == nil || t.gone {
		return
	}
	t.gone = true
	for _, kid := range t.kids {
		r.abort(kid)
	}
	if t.state != nil && !t.done {
		switch t.state.Kind {
		case Task, Wait, Parallel, Map:
			r.record(t, HistoryEvent{Type: string(t.state.Kind) + "StateAborted", Name: t.state.Name})
			r.seen(t, StageAborted, nil)
		}
	}
}

// matchesError reports whether one of the names stands for the failure (states-language.net, "Errors"; the user guide's
// "Error names").
func matchesError(names []string, failure *Failure) bool {
	name := failure.Name()
	return slices.ContainsFunc(names, func(n string) bool {
		switch {
		case name == ErrRuntime:
			return false // it always fails the execution
		case failure.Error != nil && n == name:
			return true
		case n == ErrAll:
			return name != ErrDataLimit
		case n == ErrTaskFailed:
			return name != ErrTimeout && name != ErrHeartbeatTimeout && name != ErrDataLimit
		case n == ErrHeartbeatTimeout:
			return failure.heartbeat
		}
		return false
	})
}
