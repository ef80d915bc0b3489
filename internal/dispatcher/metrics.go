package dispatcher

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// reasonOf is why it is a dead letter, as the place has said that decided it.
func reasonOf(it *item) stream.Reason {
	if it.reason == "" {
		return stream.Unknown
	}
	return it.reason
}

// deaths are the reasons of those of items that are dead letters now; nil if none is.
func deaths(items []*item) (why []stream.Reason) {
	for _, it := range items {
		if it.disposition == dead {
			why = append(why, reasonOf(it))
		}
	}
	return why
}

// ownership is a change of a queue's owner: weir.change.
type ownership string

const (
	taken      ownership = "taken"
	handedOver ownership = "handed_over"
	released   ownership = "released"
	lost       ownership = "lost"
)

func ownerships() []ownership { return []ownership{taken, handedOver, released, lost} }

// howLeft is how a mapping lost a lease that it has not released yet. intake is its ended intake.
func howLeft(intake context.Context, lease *stream.Lease) ownership {
	switch {
	case lease.Context().Err() != nil, !lease.Holds():
		return lost
	case errors.Is(context.Cause(intake), errHandoff):
		return handedOver
	}
	return released
}

// ends are the statuses in which jobs end.
func ends() []job.Status { return []job.Status{job.Succeeded, job.Failed, job.Cancelled, job.Expired} }

// metrics are the dispatcher's rows of docs/metrics.md. But for the histograms they are read when they are collected, from
// the queues' tallies.
type metrics struct {
	consumed, settled, dead, throttled, lease, ended, attempts metric.Int64ObservableCounter
	held, memory, inFlight, limit, max                         metric.Int64ObservableGauge
	shortFor                                                   metric.Float64ObservableCounter

	batchSize metric.Int64Histogram
	wait      metric.Float64Histogram

	mu     sync.Mutex
	queues map[catalog.Key]*tally
}

// newMetrics registers them for as long as the provider is there: what the last mappings have counted at the end of Run is
// part of the process's last export.
func newMetrics(meter metric.Meter) (*metrics, error) {
	var errs []error
	var all []metric.Observable
	note := func(err error) { errs = append(errs, err) }
	counter := func(name, unit, says string) metric.Int64ObservableCounter {
		i, err := meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(says))
		note(err)
		all = append(all, i)
		return i
	}
	gauge := func(name, unit, says string) metric.Int64ObservableGauge {
		i, err := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(says))
		note(err)
		all = append(all, i)
		return i
	}
	x := &metrics{
		queues:    map[catalog.Key]*tally{},
		consumed:  counter("messaging.client.consumed.messages", "{message}", "Records taken from the queue, retries too."),
		settled:   counter("weir.mapping.settled", "{record}", "What became of records."),
		dead:      counter("weir.mapping.dead", "{record}", "Records that became dead letters."),
		throttled: counter("weir.mapping.throttled", "{call}", "Calls that the function did not take now."),
		lease:     counter("weir.mapping.lease", "{change}", "Changes of a queue's owner."),
		ended:     counter("weir.jobs.ended", "{job}", "Jobs that have ended."),
		attempts:  counter("weir.jobs.attempts", "{attempt}", "Attempts at jobs that began."),
		held:      gauge("weir.mapping.held", "{record}", "Records in hand: waiting for a batch, for a free call, or in one."),
		memory:    gauge("weir.mapping.memory", "By", "Memory of what is in hand, as it is charged to the process's budget."),
		inFlight:  gauge("weir.mapping.in_flight", "{call}", "Calls in flight."),
		limit:     gauge("weir.mapping.limit", "{call}", "How many calls there may be in flight now."),
		max:       gauge("weir.mapping.cap", "{call}", "maxConcurrency."),
	}
	var err error
	x.shortFor, err = meter.Float64ObservableCounter("weir.mapping.memory.wait", metric.WithUnit("s"),
		metric.WithDescription("Time in which blocks or calls waited for memory."))
	note(err)
	all = append(all, x.shortFor)
	x.batchSize, err = meter.Int64Histogram("weir.mapping.batch.size", metric.WithUnit("{record}"),
		metric.WithDescription("Records of a call."), metric.WithExplicitBucketBoundaries(1, 2, 5, 10, 20, 50, 100, 200, 500))
	note(err)
	x.wait, err = meter.Float64Histogram("weir.mapping.wait", metric.WithUnit("s"),
		metric.WithDescription("Time from a record's acceptance to its call, of each batch's oldest record."),
		metric.WithExplicitBucketBoundaries(0.01, 0.1, 1, 10, 60, 600, 3600, 21600, 86400))
	note(err)
	_, err = meter.RegisterCallback(x.observe, all...)
	note(err)
	return x, errors.Join(errs...)
}

// of is the tally of queue k.
func (x *metrics) of(k catalog.Key) *tally {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.queues[k]
	if t == nil {
		t = newTally(k)
		x.queues[k] = t
	}
	return t
}

// keep drops the queues that are gone for good.
func (x *metrics) keep(there func(catalog.Key) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k := range x.queues {
		if !there(k) {
			delete(x.queues, k)
		}
	}
}

func (x *metrics) observe(_ context.Context, o metric.Observer) error {
	x.mu.Lock()
	all := make([]*tally, 0, len(x.queues))
	for _, t := range x.queues {
		all = append(all, t)
	}
	x.mu.Unlock()
	for _, t := range all {
		t.observe(x, o)
	}
	return nil
}

// tally is what was counted here for a queue. It outlives the queue's mappings and leases, so that no counter falls.
type tally struct {
	holder atomic.Pointer[mapping] // that has the queue's lease; nil if none has

	mu       sync.Mutex
	used     bool
	records  Stats
	dead     map[stream.Reason]int
	lease    map[ownership]int
	attempts int // at jobs
	shortFor time.Duration
	since    time.Time // when memory began to be missing; zero while none is
	ended    map[job.Status]int

	// The attributes, made once.
	queue, destination            metric.MeasurementOption
	done, retried, died, returned metric.MeasurementOption
	byReason                      map[stream.Reason]metric.MeasurementOption
	byOwnership                   map[ownership]metric.MeasurementOption
	byStatus                      map[job.Status]metric.MeasurementOption
	ofQueue                       []metric.RecordOption
}

func newTally(k catalog.Key) *tally {
	queue := attribute.String("weir.queue", k.String())
	with := func(more ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(more, queue)...))
	}
	as := func(disposition string) metric.MeasurementOption {
		return with(attribute.String("weir.disposition", disposition))
	}
	t := &tally{
		dead: map[stream.Reason]int{}, lease: map[ownership]int{}, ended: map[job.Status]int{},
		queue: with(),
		destination: metric.WithAttributeSet(attribute.NewSet(
			semconv.MessagingSystemKey.String(system), semconv.MessagingOperationName("receive"), semconv.MessagingDestinationName(k.String()))),
		done: as("done"), retried: as("retried"), died: as("dead"), returned: as("returned"),
		byReason: map[stream.Reason]metric.MeasurementOption{}, byOwnership: map[ownership]metric.MeasurementOption{}, byStatus: map[job.Status]metric.MeasurementOption{},
	}
	t.ofQueue = []metric.RecordOption{t.queue}
	for _, r := range stream.Reasons() {
		t.byReason[r] = with(attribute.String("weir.reason", string(r)))
	}
	for _, c := range ownerships() {
		t.byOwnership[c] = with(attribute.String("weir.change", string(c)))
	}
	for _, s := range ends() {
		t.byStatus[s] = with(attribute.String("weir.job.status", string(s)))
	}
	return t
}

// add counts records, and why those died that did.
func (t *tally) add(delta Stats, why []stream.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.used = true
	t.records.add(delta)
	for _, r := range why {
		t.dead[r]++
	}
}

// swept counts records that expired in the queue while it had no mapping.
func (t *tally) swept(rs []record.Record, became []disposition) {
	delta := Stats{Taken: len(rs)}
	var why []stream.Reason
	for i, f := range became {
		switch f {
		case dead:
			delta.Dead++
			why = append(why, stream.Expired)
			if rs[i].Job {
				t.over(job.Expired)
			}
		case retried:
			delta.Retried++
		default:
			delta.Done++
		}
	}
	t.add(delta, why)
}

// take notes that m has the queue's lease.
func (t *tally) take(m *mapping) {
	t.change(taken)
	t.holder.Store(m)
}

// leave notes that m has it no longer.
func (t *tally) leave(m *mapping, how ownership) {
	t.holder.CompareAndSwap(m, nil)
	t.change(how)
}

func (t *tally) change(c ownership) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.used = true
	t.lease[c]++
}

// short notes whether the mapping waits for memory.
func (t *tally) short(is bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case is && t.since.IsZero():
		t.since = time.Now()
	case !is && !t.since.IsZero():
		t.shortFor += time.Since(t.since)
		t.since = time.Time{}
	}
}

// began counts an attempt at a job.
func (t *tally) began() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts++
}

// over counts the end of a job.
func (t *tally) over(s job.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended[s]++
}

func (t *tally) observe(x *metrics, o metric.Observer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.used {
		return
	}
	count := func(i metric.Int64Observable, n int, opt metric.MeasurementOption) { o.ObserveInt64(i, int64(n), opt) }
	s := &t.records
	count(x.consumed, s.Taken, t.destination)
	count(x.settled, s.Done, t.done)
	count(x.settled, s.Retried, t.retried)
	count(x.settled, s.Dead, t.died)
	count(x.settled, s.Returned, t.returned)
	count(x.held, s.InHand, t.queue)
	count(x.throttled, s.Throttled, t.queue)
	short := t.shortFor
	if !t.since.IsZero() {
		short += time.Since(t.since)
	}
	o.ObserveFloat64(x.shortFor, short.Seconds(), t.queue)
	for r, opt := range t.byReason {
		if r != stream.Unknown && r != stream.Unreadable || t.dead[r] > 0 { // the reader buries what can't be read
			count(x.dead, t.dead[r], opt)
		}
	}
	for c, opt := range t.byOwnership {
		count(x.lease, t.lease[c], opt)
	}
	if t.attempts > 0 || len(t.ended) > 0 {
		count(x.attempts, t.attempts, t.queue)
		for status, opt := range t.byStatus {
			count(x.ended, t.ended[status], opt)
		}
	}
	if m := t.holder.Load(); m != nil {
		limit, inFlight, _ := m.limiter.State()
		count(x.memory, int(m.memory.holds()), t.queue)
		count(x.inFlight, inFlight, t.queue)
		count(x.limit, limit, t.queue)
		count(x.max, m.spec().MaxConcurrency, t.queue)
	}
}

// function is faas.invoked_name of the mapping's present function.
func (m *mapping) function() string {
	spec := m.spec()
	return invoke.FunctionName(spec.Namespace, spec.Function)
}

// cut ends a call that we cut ourselves: it says nothing about the function.
func (m *mapping) cut(ctx context.Context, o invoke.Outcome) {
	m.limiter.Cancel()
	m.cfg.Caller.Measure(ctx, o, true)
}

// measure measures a call of n records that has ended.
func (m *mapping) measure(ctx context.Context, o invoke.Outcome, n int) {
	m.cfg.Caller.Measure(ctx, o, false)
	m.metrics.batchSize.Record(ctx, int64(n), m.tally.ofQueue...)
}

// waited measures how long the oldest record has waited when it is called for the first time in this batch run.
func (e *batchRun) waited(ctx context.Context) {
	if e.called {
		return
	}
	e.called = true
	oldest := e.items[0].born()
	for _, it := range e.items[1:] {
		if at := it.born(); at.Before(oldest) {
			oldest = at
		}
	}
	wait := max(0, e.m.cfg.Conn.Now().Sub(oldest))
	e.m.metrics.wait.Record(ctx, wait.Seconds(), e.m.tally.ofQueue...)
	e.traceWait(wait)
}
