package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-dev/weir/internal/stream"
)

// The wait between attempts to write what must not be lost.
const (
	backoffMin = 20 * time.Millisecond
	backoffMax = 2 * time.Second
	// lookTimeout bounds the look at a block that is said to be there.
	lookTimeout = 5 * time.Second
)

// commit writes group after group until the owner ends. One write is in flight at a time: the next group forms meanwhile.
func (o *Owner) commit() {
	waits := time.NewTimer(0)
	defer waits.Stop()
	for {
		select {
		case <-o.work:
		case <-waits.C:
		case <-o.ctx.Done():
			return
		}
		g, b, wait := o.take()
		for ; g != nil; g, b, wait = o.take() {
			if err := o.write(g, b); err != nil {
				g.err = err
				close(g.done)
				o.end(err)
				return
			}
		}
		if wait > 0 {
			waits.Reset(wait)
		}
	}
}

// take removes the oldest group that is not to wait, and makes a block of it. If all are, it returns for how long; zero if
// there is none.
func (o *Owner) take() (*group, *block, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if len(o.sealed) == 0 {
		if wait := o.wait(now); wait > 0 && !o.closing {
			return nil, nil, wait
		}
		o.joinDue(now, o.closing)
	}
	var g *group
	switch {
	case len(o.sealed) > 0:
		g = o.sealed[0]
		o.sealed[0] = nil
		o.sealed = o.sealed[1:]
	case len(o.open.entries) > 0:
		g = o.open
		o.open = newGroup()
	default:
		return nil, nil, 0
	}
	o.pace.Began(now)
	b := &block{writer: o.me, number: o.number, shown: o.allShown(), entries: g.entries}
	o.number++
	return g, b, 0
}

// wait is how long nothing is to be written. The caller holds mu.
func (o *Owner) wait(now time.Time) time.Duration {
	alone := o.alone()
	switch {
	case len(o.open.entries) > 0 && alone.IsZero():
		return o.pace.Wait(now, len(o.open.entries))
	case len(o.open.entries) > 0:
		return min(o.pace.Wait(now, len(o.open.entries)), alone.Sub(now))
	case alone.IsZero():
		return 0
	default:
		return alone.Sub(now)
	}
}

// write writes g's block until it is durable, or the owner has ended.
func (o *Owner) write(g *group, b *block) error {
	data := b.encode()
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		seq, err := o.append(o.ctx, data, b.number)
		if err == nil {
			o.written(g, seq)
			return nil
		}
		switch {
		case errors.Is(err, stream.ErrQueueFull):
			o.noRoom(true)
			o.log.Warn("the log of states has no room; changes of states wait", "in", wait, "error", err)
		case errors.Is(err, stream.ErrBusy), errors.Is(err, stream.ErrUnavailable) && o.conn.Ready() == nil:
			o.log.Warn("a change of states was not confirmed; writing it again", "in", wait, "error", err)
		default:
			return err
		}
		select {
		case <-time.After(wait):
		case <-o.ctx.Done():
			return o.Err()
		}
	}
}

// append appends a block of this owner's behind the last one. If another is there, it is this one, whose answer was lost, or
// that of another owner: ErrLost.
func (o *Owner) append(ctx context.Context, data []byte, number uint64) (uint64, error) {
	seq, err := o.conn.AppendLedger(ctx, o.queue, data, o.last)
	if !errors.Is(err, stream.ErrLedgerMoved) {
		return seq, err
	}
	end, err := o.conn.LedgerEnd(ctx, o.queue)
	switch {
	case err != nil:
		return 0, err
	case end.Last < o.last: // another log: the queue was deleted and made again
		return 0, ErrLost
	case end.Last == o.last: // with several replicas an earlier try is being written
		return 0, fmt.Errorf("%w: another block is being written", stream.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, stream.ErrUnavailable)
	defer cancel()
	there, err := o.read(ctx, o.last+1)
	switch {
	case errors.Is(err, stream.ErrNoBlock):
		return 0, ErrLost
	case err != nil:
		return 0, err
	case there.writer == o.me && there.number == number:
		return o.last + 1, nil
	}
	return 0, ErrLost
}

// written is told that g is block seq.
func (o *Owner) written(g *group, seq uint64) {
	var tell []func()
	defer func() {
		for _, f := range tell {
			f()
		}
	}()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = seq
	for i, c := range g.cells {
		c.durable, c.version = g.entries[i].Value, seq
		if c.group == g && c.due.IsZero() {
			c.former, c.ticket = c.ticket, 0
		}
		for w := range c.watches {
			v := c.durable
			tell = append(tell, func() { w.told(v) })
		}
		o.unshown[c] = struct{}{}
		if !c.queued {
			c.queued = true
			o.toShow = append(o.toShow, c)
		}
	}
	g.entries, g.cells, g.seq = nil, nil, seq
	close(g.done)
	signal(o.dirty)
}

func (o *Owner) noRoom(full bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.full != full {
		o.full = full
		o.changedRoom()
	}
}
