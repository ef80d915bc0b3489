package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/metric"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
)

// Writer commits records to one queue in groups, as databases do: records that arrive while one write
// is in flight form the next stream message. An idle writer writes a group of one at once, a busy one writes
// hundreds: see docs/decisions/0001-group-commit.md. Only jobs wait for each other, when many come (Pace).
type Writer struct {
	conn  *Conn
	queue catalog.Key
	codec record.Codec
	log   *slog.Logger
	work  chan struct{} // capacity 1: there may be something to write

	mu     sync.Mutex
	closed bool
	silent bool            // the last write had no answer although the connection is alive
	busy   bool            // a write is in flight
	open   *group          // takes records; never nil
	sealed []*group        // complete, not yet written, oldest first
	bytes  int             // payload in open and sealed
	pace   Pace            // of jobs
	used   bool            // a record has come
	spare  *record.Builder // memory for the next group

	kept  [outcomes]atomic.Pointer[writeOptions]
	sized []metric.RecordOption // of commit's
}

// writerIdle is Pace.Idle of a writer: 1,000 requests a second are as far apart once in twenty.
const writerIdle = 3 * time.Millisecond

// Bounds of a writer. What is past maxWaitingBytes gets ErrBusy.
const (
	maxWaitingBytes = 64 << 20
	// commitTimeout bounds a write while the connection is alive: a slow disk, a leader election.
	commitTimeout = 5 * time.Second
)

// group is the records of one stream message and those who wait for it.
type group struct {
	b    *record.Builder // the writer's again once done is closed
	done chan struct{}   // closed after err and errs are set
	urge bool            // some of its records are not paced
	err  error           // of all, if errs is nil
	errs []error         // of each, when the group had to be written as several messages

	sampled sampledRecords
}

// result is the outcome of the group's record number i. It is set once done is closed.
func (g *group) result(i int) error {
	if g.errs != nil {
		return g.errs[i]
	}
	return g.err
}

// worst is nil if all records of the group are durable.
func (g *group) worst() error {
	for _, err := range g.errs {
		if err != nil {
			return err
		}
	}
	return g.err
}

// Writers is the writing side of queues.
type Writers interface {
	NewWriter(k catalog.Key, codec record.Codec) *Writer
}

// NewWriter returns a writer for queue k. Run must run for Append to make progress.
func (c *Conn) NewWriter(k catalog.Key, codec record.Codec) *Writer {
	return &Writer{
		conn: c, queue: k, codec: codec, log: c.log.With("queue", k.String()),
		pace: Pace{Idle: writerIdle}, work: make(chan struct{}, 1), open: &group{b: new(record.Builder), done: make(chan struct{})},
	}
}

// Append is Add and Wait.
func (w *Writer) Append(ctx context.Context, r *record.Record) error {
	p, err := w.Add(r)
	if err != nil {
		return err
	}
	select {
	case <-p.g.done:
		return p.g.result(p.i)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Pending is a record that was added: number i of the group g.
type Pending struct {
	g *group
	i int
}

// Add adds a copy of r to the open group: r and its body may be reused. On an error nothing is stored: ErrBusy,
// ErrClosed, ErrUnavailable or record.ErrTooLarge.
func (w *Writer) Add(r *record.Record) (Pending, error) {
	err := w.conn.Ready()
	if err != nil {
		w.refused(err)
		return Pending{}, err
	}
	g, i, err := w.join(r)
	if err != nil {
		w.refused(err)
	}
	return Pending{g, i}, err
}

// Wait returns nil once the record is durable. On ErrQueueFull, ErrQueueClosed, ErrNoQueue, record.ErrTooLarge and
// ErrTooLargeForServer nothing was stored; on ErrUnavailable it is unknown. It takes as long as the write before it and
// its own, commitTimeout each at most.
func (p Pending) Wait() error {
	<-p.g.done
	return p.g.result(p.i)
}

// join adds r to the open group and returns it, with r's number in it.
func (w *Writer) join(r *record.Record) (*group, int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, 0, ErrClosed
	}
	if w.silent && (w.busy || w.open.b.Len() > 0 || len(w.sealed) > 0) {
		// A server that can't store, because its disk is full or it has no leader, doesn't answer. One record
		// at a time goes on trying; all others are refused at once. TestDiskFull guards it.
		return nil, 0, ErrUnavailable
	}
	if w.bytes+r.Size() > maxWaitingBytes {
		return nil, 0, ErrBusy
	}
	if !w.conn.fits(w.open.b, r) {
		w.sealed = append(w.sealed, w.open)
		w.open = w.newGroup()
	}
	before := w.open.b.Bytes()
	if err := w.open.b.Append(r); err != nil {
		return nil, 0, err
	}
	w.bytes += w.open.b.Bytes() - before
	w.used = true
	if r.Job {
		w.pace.Came(time.Now())
	} else {
		w.open.urge = true
	}
	if w.conn.metrics.tracer != nil {
		w.open.sampled.add(r)
	}
	select {
	case w.work <- struct{}{}:
	default: // the writer already knows
	}
	return w.open, w.open.b.Len() - 1, nil
}

// Run writes groups until ctx is cancelled; then it refuses new records, writes what waits, and returns.
func (w *Writer) Run(ctx context.Context) {
	w.conn.metrics.add(w)
	defer w.conn.metrics.remove(w)
	// One write is in flight at a time: two gained nothing in the measurements, and order is kept.
	var block []byte
	paced := time.NewTimer(0)
	defer paced.Stop()
	for {
		select {
		case <-w.work:
		case <-paced.C:
		case <-ctx.Done():
			w.mu.Lock()
			w.closed = true
			w.mu.Unlock()
			w.commitAll(block)
			return
		}
		var wait time.Duration
		if block, wait = w.commitAll(block); wait > 0 {
			paced.Reset(wait)
		}
	}
}

// wait is how long the open group waits for further jobs; zero if it is not to.
func (w *Writer) wait() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.sealed) > 0 || w.open.urge || w.open.b.Len() == 0 {
		return 0
	}
	return w.pace.Wait(time.Now(), w.open.b.Len())
}

// commitAll writes all that waits, but for a group that waits for others. When a write is not confirmed, the groups behind it fail with it: each would
// wait as long in vain, and no request is to wait for more than one write before its own.
//
// It returns block's memory, and for how long such a group waits.
func (w *Writer) commitAll(block []byte) ([]byte, time.Duration) {
	for {
		if wait := w.wait(); wait > 0 {
			return block, wait
		}
		g := w.take()
		if g == nil {
			return block, 0
		}
		block = w.commit(g, block)
		if !errors.Is(g.err, ErrUnavailable) {
			continue
		}
		for rest := w.take(); rest != nil; rest = w.take() {
			rest.err = g.err
			w.written(rest, rest.b.Len(), 0, false)
			close(rest.done)
		}
		w.mu.Lock()
		w.busy = false
		w.mu.Unlock()
	}
}

// take removes the oldest group that holds records.
func (w *Writer) take() *group {
	w.mu.Lock()
	defer w.mu.Unlock()
	var g *group
	switch {
	case len(w.sealed) > 0:
		g = w.sealed[0]
		w.sealed[0] = nil
		w.sealed = w.sealed[1:]
	case w.open.b.Len() > 0:
		g = w.open
		w.open = w.newGroup()
	default:
		return nil
	}
	w.bytes -= g.b.Bytes()
	w.busy = true
	w.pace.Began(time.Now())
	return g
}

// newGroup returns an empty group. The caller holds mu.
func (w *Writer) newGroup() *group {
	b := w.spare
	w.spare = nil
	if b == nil {
		b = new(record.Builder)
	}
	return &group{b: b, done: make(chan struct{})}
}

// commit writes g and wakes those who wait. It returns block's memory for reuse.
func (w *Writer) commit(g *group, block []byte) []byte {
	n := g.b.Len()
	block = g.b.AppendBlock(block[:0], w.codec)
	g.b.Reset()
	w.mu.Lock()
	w.spare, g.b = g.b, nil
	w.mu.Unlock()
	start := time.Now()
	// Not the context of any one request: a group outlives those of its clients that went away.
	ctx, span := w.conn.metrics.sending(context.Background(), w.queue, n, &g.sampled)
	if g.err = w.write(ctx, block, n); n > 1 && errors.Is(g.err, ErrTooLargeForServer) {
		// The group was formed for a server that takes larger messages.
		g.errs, g.err = w.writeApart(ctx, block, n)
	}
	w.written(g, n, time.Since(start), true)
	endSending(span, g.worst())
	w.mu.Lock()
	w.busy = false
	w.silent = errors.Is(g.err, ErrUnavailable) && w.conn.Ready() == nil
	w.mu.Unlock()
	close(g.done)
	return block
}

// writeApart writes the n records of a block that is too large as smaller ones. It returns the outcome of each record;
// err is ErrUnavailable when one write was not confirmed: those behind it were not tried then.
func (w *Writer) writeApart(ctx context.Context, block []byte, n int) (errs []error, err error) {
	errs = slices.Repeat([]error{ErrUnavailable}, n)
	rs, err := record.Decode(block)
	if err == nil {
		err = w.conn.eachPiece(rs, w.codec, func(p piece) error {
			err := w.write(ctx, p.block, p.n)
			if p.n > 1 && errors.Is(err, ErrTooLargeForServer) {
				return err // it is tried again in halves
			}
			for i := range p.n {
				errs[p.from+i] = err
			}
			if errors.Is(err, ErrUnavailable) {
				return err
			}
			return nil
		})
	}
	return errs, err
}

func (w *Writer) write(ctx context.Context, block []byte, n int) error {
	err := w.conn.publishBlock(ctx, w.queue, n, block, uuid.NewString())
	switch {
	case errors.Is(err, ErrTooLargeForServer):
		w.conn.trouble.Warn("a record is too large for NATS; its client gets 413", err)
	case err != nil:
		w.log.WarnContext(ctx, "a group of records was not confirmed", "error", err)
	default:
		return nil
	}
	return fmt.Errorf("write to queue %s: %w", w.queue, err)
}
