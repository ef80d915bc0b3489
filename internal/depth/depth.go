// Package depth watches what the queues hold: for the metrics, for the statuses of Queues and for whoever asks. One process
// in a cluster does, the controller that leads, so that each number is there once, with and without dispatchers.
//
// Invariants: each queue is asked at most twice in Every; the servers are asked about maxAtOnce queues at a time.
//
// May import: catalog, telemetry, stream.
package depth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

const (
	// Every is how often each queue is looked at.
	Every     = 10 * time.Second
	maxAtOnce = 8
	// window is over about how long rates are averaged.
	window = time.Minute
	// keepFor is how long a reading counts: metrics of queues that can't be read must not look alive.
	keepFor = time.Minute
)

// Streams is what a Watch does with NATS.
type Streams interface {
	stream.Link
	stream.Depths
	PurgeSettled(ctx context.Context, k catalog.Key) (floor uint64, err error)
}

// Reading is what a queue held at a time.
type Reading struct {
	stream.Depth
	At    time.Time
	In    float64       // records a second, over about the last minute; NaN before the second reading
	Out   float64       // alike: settled
	Drain time.Duration // until it is empty, as it goes now; negative if it doesn't get there
	limit int64         // maxBytes of the queue
}

// Watch looks at queues while it runs.
type Watch struct {
	conn  Streams
	log   *slog.Logger
	every time.Duration
	// told gets each reading, and may take its time; nil if nobody.
	told func(context.Context, catalog.Key, Reading)

	mu     sync.Mutex
	queues map[catalog.Key]watched
	last   map[catalog.Key]*Reading
	runs   time.Time     // since when; zero if it doesn't
	fresh  chan struct{} // capacity 1: the queues have changed
}

// watched is a queue that is to be looked at.
type watched struct {
	maxBytes int64
	since    time.Time
	asked    time.Time
}

// New returns a watch, whose metrics are tel's. told, unless it is nil, gets each reading.
func New(conn Streams, tel telemetry.Providers, log *slog.Logger, told func(context.Context, catalog.Key, Reading)) (*Watch, error) {
	w := &Watch{
		conn: conn, log: log, every: Every, told: told,
		queues: map[catalog.Key]watched{}, last: map[catalog.Key]*Reading{}, fresh: make(chan struct{}, 1),
	}
	return w, w.measure(tel)
}

// Use makes qs the queues that are watched.
func (w *Watch) Use(qs []catalog.Queue) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, now := w.queues, time.Now()
	w.queues = make(map[catalog.Key]watched, len(qs))
	for _, q := range qs {
		of := watched{maxBytes: q.MaxBytes, since: now}
		if was, there := before[q.Key]; there {
			of.since, of.asked = was.since, was.asked
		}
		w.queues[q.Key] = of
	}
	for k := range w.last {
		if _, there := w.queues[k]; !there {
			delete(w.last, k)
		}
	}
	select {
	case w.fresh <- struct{}{}:
	default:
	}
}

// Of returns the last reading of queue k.
func (w *Watch) Of(k catalog.Key) (Reading, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.last[k]; r != nil {
		return *r, true
	}
	return Reading{}, false
}

// Run watches until ctx ends; then no reading is left.
func (w *Watch) Run(ctx context.Context) error {
	w.mu.Lock()
	w.runs = time.Now()
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		clear(w.last)
		w.runs = time.Time{}
	}()
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		w.round(ctx)
		select {
		case <-tick.C:
		case <-w.fresh:
		case <-ctx.Done():
			return nil
		}
	}
}

// round looks at all queues that were not looked at just now.
func (w *Watch) round(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxAtOnce)
	for _, k := range w.due(time.Now()) {
		if ctx.Err() != nil || w.conn.Ready() != nil {
			return
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := w.look(ctx, k); err != nil && ctx.Err() == nil && !errors.Is(err, stream.ErrNoQueue) {
				w.log.Warn("what a queue holds can't be read; trying again", "queue", k.String(), "error", err)
			}
		})
	}
}

func (w *Watch) due(now time.Time) []catalog.Key {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []catalog.Key
	for k, of := range w.queues {
		if now.Sub(of.asked) >= w.every/2 {
			of.asked = now
			w.queues[k] = of
			out = append(out, k)
		}
	}
	return out
}

// look reads one queue.
func (w *Watch) look(ctx context.Context, k catalog.Key) error {
	d, err := w.conn.Depth(ctx, k)
	if err == nil && d.Uncertainty > 0 && !d.Owned {
		// An owner has ended and could not remove what it had settled.
		if _, perr := w.conn.PurgeSettled(ctx, k); perr == nil {
			d, err = w.conn.Depth(ctx, k)
		}
	}
	if err != nil {
		return err
	}
	r := Reading{Depth: d, At: time.Now(), In: math.NaN(), Out: math.NaN(), Drain: -1}
	w.mu.Lock()
	of, there := w.queues[k]
	if r.limit = of.maxBytes; there {
		r.rates(w.last[k])
		w.last[k] = &r
	}
	w.mu.Unlock()
	if there && w.told != nil {
		w.told(ctx, k, r)
	}
	return nil
}

// rates sets the rates by what has changed since before.
func (r *Reading) rates(before *Reading) {
	if r.Waiting == 0 {
		r.Drain = 0
	}
	if before == nil {
		return
	}
	dt := r.At.Sub(before.At).Seconds()
	if dt <= 0 {
		return
	}
	r.In, r.Out = before.In, before.Out
	if r.Epoch != before.Epoch {
		return // another owner, which counts from 0, or none: what the former one had settled and not removed waits again
	}
	out := 0.0
	if r.Owned {
		out = float64(r.Settled-before.Settled) / dt
	}
	in := max(0, float64(r.Waiting-before.Waiting)/dt+out)
	share := 1 - math.Exp(-dt/window.Seconds())
	average := func(v *float64, now float64) {
		if math.IsNaN(*v) {
			*v = now
		} else {
			*v += share * (now - *v)
		}
	}
	average(&r.In, in)
	average(&r.Out, out)
	if falls := r.Out - r.In; r.Waiting > 0 && falls > 0 {
		if s := float64(r.Waiting) / falls; s < math.MaxInt32 {
			r.Drain = time.Duration(s * float64(time.Second))
		}
	}
}

// age is how long ago queue k was read; if it never was, for how long it should have been. Under mu.
func (w *Watch) age(k catalog.Key, of watched) time.Duration {
	at := of.since
	if w.runs.After(at) {
		at = w.runs
	}
	if r := w.last[k]; r != nil {
		at = r.At
	}
	return max(0, time.Since(at))
}

// measure makes the metrics.
func (w *Watch) measure(tel telemetry.Providers) error {
	m := tel.Meter("github.com/weir-dev/weir/internal/depth")
	var errs []error
	count := func(name, unit, what string) metric.Int64ObservableGauge {
		g, err := m.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what))
		errs = append(errs, err)
		return g
	}
	measure := func(name, unit, what string) metric.Float64ObservableGauge {
		g, err := m.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what))
		errs = append(errs, err)
		return g
	}
	waiting := count("weir.queue.depth", "{record}", "Records that wait for their first attempt or are in it.")
	uncertain := count("weir.queue.depth.uncertainty", "{record}", "How far weir.queue.depth may be off.")
	retrying := count("weir.queue.retrying", "{record}", "Records that wait for a later attempt or are in it.")
	dead := count("weir.queue.dead", "{record}", "Dead letters.")
	bytes := count("weir.queue.bytes", "By", "Bytes at NATS.")
	limit := count("weir.queue.limit", "By", "maxBytes of the queue.")
	oldest := measure("weir.queue.oldest.age", "s", "Age of the block of the oldest record that isn't settled.")
	in := measure("weir.queue.rate.in", "{record}/s", "Records accepted, over about the last minute.")
	out := measure("weir.queue.rate.out", "{record}/s", "Records settled, over about the last minute.")
	drain := measure("weir.queue.drain.time", "s", "How long until the queue is empty, as it goes now.")
	owned := count("weir.queue.owned", "1", "Whether a dispatcher works on the queue.")
	readAge := measure("weir.queue.read.age", "s", "How old the other numbers of the queue are.")
	unaccounted := count("weir.queue.unaccounted", "{record}", "Records that were accepted and are nowhere: 0.")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("depth: %w", err)
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.runs.IsZero() {
			return nil // who doesn't lead doesn't read
		}
		for k, q := range w.queues {
			queue := attribute.String("weir.queue", k.String())
			of := metric.WithAttributeSet(attribute.NewSet(queue))
			o.ObserveFloat64(readAge, w.age(k, q).Seconds(), of)
			r := w.last[k]
			if r == nil || time.Since(r.At) > keepFor {
				continue
			}
			o.ObserveInt64(waiting, r.Waiting, of)
			o.ObserveInt64(uncertain, r.Uncertainty, of)
			o.ObserveInt64(retrying, r.Retrying, of)
			for _, why := range stream.Reasons() {
				o.ObserveInt64(dead, r.Dead[why], metric.WithAttributes(queue, attribute.String("weir.reason", string(why))))
			}
			for part, n := range map[string]uint64{"waiting": r.WaitingBytes, "retrying": r.RetryingBytes, "dead": r.DeadBytes} {
				o.ObserveInt64(bytes, int64(n), metric.WithAttributes(queue, attribute.String("weir.part", part)))
			}
			o.ObserveInt64(limit, r.limit, of)
			o.ObserveFloat64(oldest, r.Oldest.Seconds(), of)
			if !math.IsNaN(r.In) {
				o.ObserveFloat64(in, r.In, of)
				o.ObserveFloat64(out, r.Out, of)
			}
			if r.Drain >= 0 {
				o.ObserveFloat64(drain, r.Drain.Seconds(), of)
			}
			o.ObserveInt64(owned, map[bool]int64{true: 1}[r.Owned], of)
			o.ObserveInt64(unaccounted, r.Unaccounted, of)
		}
		return nil
	}, waiting, uncertain, retrying, dead, bytes, limit, oldest, in, out, drain, owned, readAge, unaccounted)
	return err
}
