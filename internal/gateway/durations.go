package gateway

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// maxHeld bounds the durations that wait to be recorded. It is small as the request that is the last of a batch records it:
// 64 take some 15 µs.
const maxHeld = 64

// durations is http.server.request.duration. They are recorded in batches: one by one, each between the work of two requests,
// they cost twice as much.
type durations struct {
	histogram metric.Float64Histogram

	mu     sync.Mutex
	held   []answered // at most maxHeld
	spare  []answered // empty, for the next batch; nil while one is recorded
	closed bool       // nothing is held any more
}

// answered is the duration of one answer.
type answered struct {
	kind *answerOf
	took time.Duration
}

func (d *durations) add(kind *answerOf, took time.Duration) {
	d.mu.Lock()
	d.held = append(d.held, answered{kind, took})
	if len(d.held) < maxHeld && !d.closed {
		d.mu.Unlock()
		return
	}
	d.flushLocked()
}

// flush records what is held. What another goroutine is recording at the moment may be in the next reading only.
func (d *durations) flush() {
	d.mu.Lock()
	d.flushLocked()
}

// flushLocked is flush with the lock held, which it gives back.
func (d *durations) flushLocked() {
	batch := d.held
	d.held, d.spare = d.spare, nil
	d.mu.Unlock()
	for _, a := range batch {
		d.histogram.Record(context.Background(), a.took.Seconds(), a.kind.opts...)
	}
	clear(batch)
	d.mu.Lock()
	d.spare = batch[:0]
	d.mu.Unlock()
}

func (d *durations) close() {
	d.mu.Lock()
	d.closed = true
	d.flushLocked()
}
