package orchestrator

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
	"github.com/weir-dev/weir/internal/telemetry"
)

const scope = "github.com/weir-dev/weir/internal/orchestrator"

const (
	// maxMeasured bounds the state machines that metrics tell apart, for as long as the process runs. Those past it are
	// otherMachines together.
	maxMeasured   = 1000
	otherMachines = "other"
)

// outcome is what became of an attempt at a task: weir.outcome.
type outcome string

const (
	succeeded outcome = "succeeded"
	failing   outcome = "failed"
	timedOut  outcome = "timed_out"
	submitted outcome = "submitted" // somebody will report
	cut       outcome = "cut"       // the task was over, or the partition's owner changed
)

// outcomeOf is the outcome of an attempt at e by the last that was heard of it; its Kind is empty if nothing was.
func outcomeOf(e statelang.Effect, last statelang.Event) outcome {
	switch {
	case last.Kind == statelang.Succeeded:
		return succeeded
	case last.Kind == statelang.Failed && last.Failure.Name() == statelang.ErrTimeout:
		return timedOut
	case last.Kind == statelang.Failed:
		return failing
	case last.Kind == statelang.Submitted && (e.Resource.Pattern == statelang.WaitForTaskToken || e.Resource.Kind == statelang.Activity):
		return submitted
	}
	return cut
}

// resourceOf is weir.resource: what a call is of. Definitions with integrations that are not served are refused, so it has few
// values.
func resourceOf(e statelang.Effect) string {
	switch {
	case e.Kind == statelang.CallReader:
		return "reader"
	case e.Kind == statelang.CallWriter:
		return "writer"
	case e.Resource.Kind == statelang.Integration:
		return e.Resource.Service + ":" + e.Resource.Action
	}
	return string(e.Resource.Kind)
}

// metrics are the orchestrator's rows of docs/metrics.md.
type metrics struct {
	off bool // nobody reads them: nothing is measured

	started, redriven, ended, events, refused, attempts, throttled metric.Int64Counter
	duration, write, late, took, recovery                          metric.Float64Histogram
	active, waiting, inFlight, calls, owned                        metric.Int64ObservableGauge

	tasks atomic.Int64 // in flight
	slots func() int   // calls of functions in flight

	mu         sync.RWMutex
	machines   map[catalog.Key]*tally
	other      *tally
	partitions map[*partition]struct{}
}

// newMetrics registers them for as long as the provider is there. slots is how many calls of functions are in flight.
func newMetrics(p telemetry.Providers, slots func() int) (*metrics, error) {
	x := &metrics{off: p.Meters == nil, slots: slots, machines: map[catalog.Key]*tally{}, partitions: map[*partition]struct{}{}}
	if x.off {
		return x, nil
	}
	meter := p.Meter(scope)
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	counter := func(name, unit, says string) metric.Int64Counter {
		i, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(says))
		note(err)
		return i
	}
	histogram := func(name, says string, bounds ...float64) metric.Float64Histogram {
		i, err := meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(says), metric.WithExplicitBucketBoundaries(bounds...))
		note(err)
		return i
	}
	var observed []metric.Observable
	gauge := func(name, unit, says string) metric.Int64ObservableGauge {
		i, err := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(says))
		note(err)
		observed = append(observed, i)
		return i
	}
	x.started = counter("weir.executions.started", "{execution}", "Executions that have begun.")
	x.redriven = counter("weir.executions.redriven", "{execution}", "Executions that go on from where they failed.")
	x.ended = counter("weir.executions.ended", "{execution}", "Executions that have ended.")
	x.refused = counter("weir.executions.refused", "{execution}", "Starts that were not taken now.")
	x.events = counter("weir.executions.events", "{event}", "Events that executions were told.")
	x.attempts = counter("weir.tasks.attempts", "{attempt}", "Attempts at tasks that have ended.")
	x.throttled = counter("weir.tasks.throttled", "{call}", "Calls that the function did not take now.")
	x.duration = histogram("weir.executions.duration", "Time from the start of executions to their end.", 0.01, 0.1, 1, 10, 60, 600, 3600, 21600, 86400)
	x.write = histogram("weir.executions.write.duration", "Time until a step is durable.", 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
	x.late = histogram("weir.executions.wake.delay", "How late executions were told that a time had come.", 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600)
	x.took = histogram("weir.tasks.duration", "Attempts at tasks, from their begin to their end.", 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600, 3600)
	x.recovery = histogram("weir.partitions.recovery.duration", "Time until a new owner serves a partition.", 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
	x.active = gauge("weir.executions.active", "{execution}", "Executions in memory.")
	x.waiting = gauge("weir.executions.waiting", "{execution}", "Executions that wait for a time or a report.")
	x.inFlight = gauge("weir.tasks.in_flight", "{task}", "Tasks under way.")
	x.calls = gauge("weir.tasks.calls", "{call}", "Calls of functions in flight.")
	x.owned = gauge("weir.partitions.owned", "{partition}", "Partitions that this process serves.")
	_, err := meter.RegisterCallback(x.observe, observed...)
	note(err)
	x.other = x.newTally(otherMachines)
	return x, errors.Join(errs...)
}

func (x *metrics) observe(_ context.Context, o metric.Observer) error {
	x.mu.RLock()
	all := make([]*partition, 0, len(x.partitions))
	for p := range x.partitions {
		all = append(all, p)
	}
	x.mu.RUnlock()
	var active, waiting int
	for _, p := range all {
		a, w := p.open()
		active, waiting = active+a, waiting+w
	}
	o.ObserveInt64(x.active, int64(active))
	o.ObserveInt64(x.waiting, int64(waiting))
	o.ObserveInt64(x.owned, int64(len(all)))
	o.ObserveInt64(x.inFlight, x.tasks.Load())
	o.ObserveInt64(x.calls, int64(x.slots()))
	return nil
}

// open is how many executions are in memory, and how many others wait. Each that runs has a time that it waits for: at the
// latest that at which it is too old. It looks at no more than maxRunning under the lock, when metrics are collected.
func (p *partition) open() (active, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting = p.timers.len()
	for key := range p.running {
		if p.timers.has(key) {
			waiting--
		}
	}
	return len(p.running), waiting
}

// serves notes that p is served from now on, with what it took since its new owner began; leaves, that it is no longer.
func (x *metrics) serves(p *partition, began time.Time) {
	if x.off {
		return
	}
	x.recovery.Record(context.Background(), time.Since(began).Seconds())
	x.mu.Lock()
	defer x.mu.Unlock()
	x.partitions[p] = struct{}{}
}

func (x *metrics) leaves(p *partition) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.partitions, p)
}

// answered counts a start that err refuses for now.
func (x *metrics) answered(what string, err error) {
	if x.off || what != askStart {
		return
	}
	refused, ok := errors.AsType[*stream.RefusedError](err)
	if !ok {
		return
	}
	reason := map[string]string{taskapi.CodeBusy: "busy", taskapi.CodeFull: "full"}[refused.Code]
	if reason != "" {
		x.refused.Add(context.Background(), 1, metric.WithAttributeSet(attribute.NewSet(attribute.String("weir.reason", reason))))
	}
}

// tally is a state machine's, with the attributes of what is measured of it, made once.
type tally struct {
	x       *metrics
	machine attribute.KeyValue

	mu    sync.RWMutex
	kinds map[tallied]measured
}

// tallied is what is told apart of a state machine: the type of its executions, and a status if they have ended; or a resource
// that its tasks call, and an outcome if one has ended.
type tallied struct {
	kind     statelang.Type
	status   statelang.Status
	resource string
	outcome  outcome
}

type measured struct {
	count []metric.AddOption
	took  []metric.RecordOption
}

func (x *metrics) newTally(name string) *tally {
	return &tally{x: x, machine: attribute.String("weir.state_machine", name), kinds: map[tallied]measured{}}
}

// of is the tally of state machine k; nil if nothing is measured.
func (x *metrics) of(k catalog.Key) *tally {
	if x.off {
		return nil
	}
	x.mu.RLock()
	t := x.machines[k]
	x.mu.RUnlock()
	if t != nil {
		return t
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch t = x.machines[k]; {
	case t != nil:
		return t
	case len(x.machines) >= maxMeasured:
		return x.other
	}
	t = x.newTally(k.String())
	x.machines[k] = t
	return t
}

// as is the options of what is measured.
func (t *tally) as(k tallied) measured {
	t.mu.RLock()
	m, ok := t.kinds[k]
	t.mu.RUnlock()
	if ok {
		return m
	}
	var attrs []attribute.KeyValue
	if k.kind != "" {
		attrs = append(attrs, attribute.String("weir.execution.type", strings.ToLower(string(k.kind))))
	}
	if k.status != "" {
		attrs = append(attrs, attribute.String("weir.execution.status", strings.ToLower(string(k.status))))
	}
	if k.resource != "" {
		attrs = append(attrs, attribute.String("weir.resource", k.resource))
	}
	if k.outcome != "" {
		attrs = append(attrs, attribute.String("weir.outcome", string(k.outcome)))
	}
	of := attribute.NewSet(append([]attribute.KeyValue{t.machine}, attrs...)...)
	m.count, m.took = []metric.AddOption{metric.WithAttributeSet(of)}, []metric.RecordOption{metric.WithAttributeSet(of)}
	if k.resource != "" { // by its machine too, a histogram would have too many series
		m.took = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attrs...))}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kinds[k] = m
	return m
}

// started counts an execution that has begun, durably if it is stored at all.
func (t *tally) started(kind statelang.Type) {
	if t != nil {
		t.x.started.Add(context.Background(), 1, t.as(tallied{kind: kind}).count...)
	}
}

// redriven counts an execution that goes on from where it failed.
func (t *tally) redriven(kind statelang.Type) {
	if t != nil {
		t.x.redriven.Add(context.Background(), 1, t.as(tallied{kind: kind}).count...)
	}
}

// ended counts an execution that has ended.
func (t *tally) ended(kind statelang.Type, status statelang.Status, took time.Duration) {
	if t == nil {
		return
	}
	as := t.as(tallied{kind: kind, status: status})
	t.x.ended.Add(context.Background(), 1, as.count...)
	t.x.duration.Record(context.Background(), max(0, took).Seconds(), as.took...)
}

// synchronous measures an execution in a request, of which nothing is stored: until the returned function is called. One that
// took too long for the request, or whose client went away, has no end of its own.
func (t *tally) synchronous() func(*statelang.Run, error) {
	if t == nil {
		return func(*statelang.Run, error) {}
	}
	began := time.Now()
	t.started(statelang.Express)
	return func(run *statelang.Run, err error) {
		status := statelang.StatusAborted
		switch {
		case err == nil:
			status = run.Status()
		case errors.Is(err, context.DeadlineExceeded):
			status = statelang.StatusTimedOut
		}
		t.ended(statelang.Express, status, time.Since(began))
	}
}

// heard counts events.
func (t *tally) heard(n int) {
	if t != nil && n > 0 {
		t.x.events.Add(context.Background(), int64(n))
	}
}

// woke measures how late an execution was told of a time.
func (t *tally) woke(late time.Duration) {
	if t != nil {
		t.x.late.Record(context.Background(), max(0, late).Seconds())
	}
}

// writing measures how long a step takes until it is durable: until the returned function is called.
func (t *tally) writing() func(error) {
	if t == nil {
		return func(error) {}
	}
	began := time.Now()
	return func(err error) {
		if err == nil {
			t.x.write.Record(context.Background(), time.Since(began).Seconds())
		}
	}
}

// notNow counts an answer by which a function takes no call now.
func (t *tally) notNow(resource string) {
	if t != nil {
		t.x.throttled.Add(context.Background(), 1, t.as(tallied{resource: resource}).count...)
	}
}

// attempt measures an attempt at a task: until the returned function is called with its outcome.
func (t *tally) attempt(resource string) func(outcome) {
	if t == nil {
		return func(outcome) {}
	}
	began := time.Now()
	t.x.tasks.Add(1)
	return func(o outcome) {
		t.x.tasks.Add(-1)
		as := t.as(tallied{resource: resource, outcome: o})
		t.x.attempts.Add(context.Background(), 1, as.count...)
		t.x.took.Record(context.Background(), time.Since(began).Seconds(), as.took...)
	}
}
