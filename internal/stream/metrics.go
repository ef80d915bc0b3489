package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
)

const scope = "github.com/weir-dev/weir/internal/stream"

// writeMetrics are of the writing side of a connection: what its writers have written, and what waits.
type writeMetrics struct {
	off      bool // nobody reads them: nothing is measured
	size     metric.Int64Histogram
	duration metric.Float64Histogram
	sent     metric.Int64Counter
	waiting  metric.Int64ObservableGauge
	tracer   trace.Tracer // nil if disabled

	watch metric.Registration // of waiting; nil if off

	mu      sync.Mutex
	running map[*Writer]struct{}
}

func newWriteMetrics(p telemetry.Providers) (*writeMetrics, error) {
	m := &writeMetrics{off: p.Meters == nil, tracer: p.Tracer(scope), running: map[*Writer]struct{}{}}
	meter := p.Meter(scope)
	var errs [5]error
	m.size, errs[0] = meter.Int64Histogram("weir.gateway.commit.size", metric.WithUnit("{record}"),
		metric.WithDescription("Records of a group"), metric.WithExplicitBucketBoundaries(1, 2, 5, 10, 20, 50, 100, 200, 500))
	m.duration, errs[1] = meter.Float64Histogram("messaging.client.operation.duration", metric.WithUnit("s"),
		metric.WithDescription("Synced writes to queues"),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10))
	m.sent, errs[2] = meter.Int64Counter("messaging.client.sent.messages", metric.WithUnit("{message}"),
		metric.WithDescription("Records that were stored, or with error.type were not"))
	m.waiting, errs[3] = meter.Int64ObservableGauge("weir.gateway.commit.waiting", metric.WithUnit("By"),
		metric.WithDescription("Records that wait for their write"))
	if !m.off {
		m.watch, errs[4] = meter.RegisterCallback(m.observe, m.waiting)
	}
	return m, errors.Join(errs[:]...)
}

// close ends what is observed.
func (m *writeMetrics) close() {
	if m.watch != nil {
		_ = m.watch.Unregister()
	}
}

func (m *writeMetrics) add(w *Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running[w] = struct{}{}
}

func (m *writeMetrics) remove(w *Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.running, w)
}

// observe sums up what waits for each queue: a queue has two writers while the former one's last write goes on. Queues that
// nothing was ever written to have no series.
func (m *writeMetrics) observe(_ context.Context, o metric.Observer) error {
	bytes := map[catalog.Key]int{}
	m.mu.Lock()
	for w := range m.running {
		w.mu.Lock()
		if w.used {
			bytes[w.queue] += w.bytes
		}
		w.mu.Unlock()
	}
	m.mu.Unlock()
	for k, n := range bytes {
		o.ObserveInt64(m.waiting, int64(n), metric.WithAttributeSet(attribute.NewSet(attribute.String("weir.queue", k.String()))))
	}
	return nil
}

// outcome is what became of records that were to be written.
type outcome uint8

const (
	sent outcome = iota
	failedBusy
	failedClosed
	failedFull
	failedNoQueue
	failedTooLarge
	failedUnavailable
	outcomes
)

// outcomeOf reads the errors of writes.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return sent
	case errors.Is(err, ErrBusy):
		return failedBusy
	case errors.Is(err, ErrQueueClosed), errors.Is(err, ErrClosed):
		return failedClosed
	case errors.Is(err, ErrQueueFull):
		return failedFull
	case errors.Is(err, ErrNoQueue):
		return failedNoQueue
	case errors.Is(err, record.ErrTooLarge), errors.Is(err, ErrTooLargeForServer):
		return failedTooLarge
	}
	return failedUnavailable
}

// errorType is the outcome as an attribute.
func (o outcome) errorType() string {
	return [outcomes]string{"", "busy", "closed", "full", "no_queue", "too_large", "unavailable"}[o]
}

// writeOptions are the attributes of writes to one queue with one outcome.
type writeOptions struct {
	duration []metric.RecordOption
	sent     []metric.AddOption
}

func newWriteOptions(k catalog.Key, o outcome) *writeOptions {
	attrs := append(messaging(k), semconv.MessagingOperationName("send"))
	if o != sent {
		attrs = append(attrs, semconv.ErrorTypeKey.String(o.errorType()))
	}
	return &writeOptions{
		sent:     []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attrs...))},
		duration: []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(append(attrs, semconv.MessagingOperationTypeSend)...))},
	}
}

func messaging(k catalog.Key) []attribute.KeyValue {
	return []attribute.KeyValue{semconv.MessagingSystemKey.String("weir"), semconv.MessagingDestinationName(k.String())}
}

// options returns those of an outcome, made when it is first met: most queues of many are idle.
func (w *Writer) options(o outcome) *writeOptions {
	opts := w.kept[o].Load()
	if opts == nil {
		opts = newWriteOptions(w.queue, o)
		w.kept[o].Store(opts)
	}
	return opts
}

// refused counts a record that is in no group because of err. After ErrClosed the caller turns to another writer, which
// counts it.
func (w *Writer) refused(err error) {
	if m := w.conn.metrics; !m.off && !errors.Is(err, ErrClosed) {
		m.sent.Add(context.Background(), 1, w.options(outcomeOf(err)).sent...)
	}
}

// written counts the n records of g, whose outcome is set, and its write if there was one.
func (w *Writer) written(g *group, n int, took time.Duration, tried bool) {
	m, ctx := w.conn.metrics, context.Background()
	if m.off {
		return
	}
	of := [outcomes]int64{}
	if g.errs == nil {
		of[outcomeOf(g.err)] = int64(n)
	}
	for _, err := range g.errs {
		of[outcomeOf(err)]++
	}
	for o, n := range of {
		if n > 0 {
			m.sent.Add(ctx, n, w.options(outcome(o)).sent...)
		}
	}
	if !tried {
		return
	}
	if w.sized == nil {
		w.sized = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attribute.String("weir.queue", w.queue.String())))}
	}
	m.size.Record(ctx, int64(n), w.sized...)
	m.duration.Record(ctx, took.Seconds(), w.options(outcomeOf(g.worst())).duration...)
}

// writtenAlone counts a record that was, or was to be, stored by itself. What makes each costs less than such a write.
func (m *writeMetrics) writtenAlone(k catalog.Key, took time.Duration, err error) {
	if m.off {
		return
	}
	ctx, opts := context.Background(), newWriteOptions(k, outcomeOf(err))
	m.sent.Add(ctx, 1, opts.sent...)
	m.duration.Record(ctx, took.Seconds(), opts.duration...)
}

// together are the connections of one process that weir.nats.connected speaks for, in one series: nil is valid, and holds
// none.
type together struct {
	gauge metric.Int64ObservableGauge
	watch metric.Registration

	mu    sync.Mutex
	conns map[*Conn]struct{}
}

func newTogether(p telemetry.Providers) (*together, error) {
	if p.Meters == nil {
		return nil, nil //nolint:nilnil // documented
	}
	t := &together{conns: map[*Conn]struct{}{}}
	meter := p.Meter(scope)
	var err error
	if t.gauge, err = meter.Int64ObservableGauge("weir.nats.connected", metric.WithUnit("1"),
		metric.WithDescription("1 while NATS is connected, else 0")); err != nil {
		return nil, err
	}
	if t.watch, err = meter.RegisterCallback(t.observe, t.gauge); err != nil {
		return nil, fmt.Errorf("weir.nats.connected: %w", err)
	}
	return t, nil
}

func (t *together) observe(_ context.Context, o metric.Observer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	up := int64(1)
	for c := range t.conns {
		if !c.isUp.Load() {
			up = 0
		}
	}
	o.ObserveInt64(t.gauge, up)
	return nil
}

func (t *together) join(c *Conn) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns[c] = struct{}{}
}

// leave takes c out; with the last one the series ends.
func (t *together) leave(c *Conn) {
	if t == nil {
		return
	}
	t.mu.Lock()
	delete(t.conns, c)
	last := len(t.conns) == 0
	t.mu.Unlock()
	if last {
		_ = t.watch.Unregister() // not under mu: it waits for a collection that observes
	}
}
