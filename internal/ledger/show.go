package ledger

import (
	"errors"
	"time"

	"github.com/weir-dev/weir/internal/stream"
)

const (
	// maxShowing bounds the states that are put at a time.
	maxShowing = 256
	// floorEvery is how often it is found out which changes are shown.
	floorEvery = 50 * time.Millisecond
	// purgeEvery is how often blocks that are not needed any more are removed.
	purgeEvery = 10 * time.Second
	// keepBlocks is how long a block stays after its changes were shown, where the server may lose those: it syncs them
	// every two minutes at the latest (nats-server, filestore.go: syncBlocks).
	keepBlocks = 5 * time.Minute
)

// show puts the latest durable states where they are looked up, until the owner ends.
func (o *Owner) show() {
	wait := backoffMin
	for {
		select {
		case <-o.dirty:
		case <-o.ctx.Done():
			return
		}
		for cells := o.next(); len(cells) > 0; cells = o.next() {
			err := o.put(cells)
			if err == nil {
				wait = backoffMin
				o.noRoom(false)
				continue
			}
			if errors.Is(err, stream.ErrQueueFull) {
				o.noRoom(true)
			}
			if o.ctx.Err() != nil {
				return
			}
			if o.conn.Ready() != nil {
				o.end(err)
				return
			}
			if errors.Is(err, errStale) {
				continue
			}
			o.log.Warn("states could not be stored; trying again", "in", wait, "error", err)
			select {
			case <-time.After(wait):
			case <-o.ctx.Done():
				return
			}
			wait = min(2*wait, backoffMax)
		}
	}
}

// shape is a state that is being put.
type shape struct {
	cell    *Cell
	put     stream.StatePut
	pending *stream.PendingState
}

// next takes the cells whose states are to be put next.
func (o *Owner) next() []shape {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(len(o.toShow), maxShowing)
	out := make([]shape, n)
	for i, c := range o.toShow[:n] {
		c.queued = false
		out[i] = shape{cell: c, put: stream.StatePut{
			Key: c.key, StoredState: stream.StoredState{Header: c.durable.Header, Body: c.durable.Body, TTL: c.durable.TTL, Version: c.version, Seq: c.seq},
		}}
	}
	o.toShow = append(o.toShow[:0], o.toShow[n:]...)
	return out
}

// put puts states. Those that fail are to be put again; it returns the error that says most.
func (o *Owner) put(shapes []shape) error {
	if o.states > 0 && o.live.Err() == nil { // after a restart NATS may give a sequence once more
		puts := make([]stream.StatePut, len(shapes))
		for i := range shapes {
			puts[i] = shapes[i].put
		}
		err := o.conn.PutStates(o.ctx, o.queue, puts, o.states)
		if err == nil {
			for i := range shapes {
				o.states++
				o.isShown(&shapes[i], o.states)
			}
			return nil
		}
		// Somebody else has put something, or there was no room, or the answer was lost.
		o.states = 0
	}
	return o.putEach(shapes)
}

// putEach is put with an answer for each state.
func (o *Owner) putEach(shapes []shape) (failed error) {
	again := func(s *shape, err error) {
		o.again(s)
		if failed == nil || errors.Is(failed, errStale) || errors.Is(err, stream.ErrQueueFull) {
			failed = err
		}
	}
	for i := range shapes {
		s := &shapes[i]
		err := o.ctx.Err()
		if err != nil {
			return err
		}
		if s.pending, err = o.conn.PutState(o.queue, s.put); err != nil {
			again(s, err)
		}
	}
	last := uint64(0)
	for i := range shapes {
		s := &shapes[i]
		if s.pending == nil {
			continue
		}
		seq, err := s.pending.Wait(o.ctx)
		if errors.Is(err, stream.ErrJobChanged) {
			seq, err = o.found(s)
		}
		if err != nil {
			again(s, err)
			continue
		}
		last = max(last, seq)
		o.isShown(s, seq)
	}
	if failed == nil {
		o.states = last
	}
	return failed
}

// found looks at what is in the place of another message than was expected: our own, whose answer was lost, or another
// owner's. errStale means that an older state is there: it is to be replaced.
func (o *Owner) found(s *shape) (seq uint64, err error) {
	there, err := o.conn.LoadState(o.ctx, o.queue, s.cell.key)
	if err != nil {
		return 0, err
	}
	if there.Version >= s.put.Version {
		return there.Seq, nil
	}
	o.mu.Lock()
	s.cell.seq = there.Seq
	o.mu.Unlock()
	return 0, errStale
}

var errStale = errors.New("ledger: an older state was there")

func (o *Owner) again(s *shape) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !s.cell.queued {
		s.cell.queued = true
		o.toShow = append(o.toShow, s.cell)
	}
}

// isShown is told that a state can be looked up.
func (o *Owner) isShown(s *shape, seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := s.cell
	c.seq, c.shown = seq, s.put.Version
	if c.shown != c.version { // a later one is queued
		return
	}
	delete(o.unshown, c)
	c.durable = Value{}
	if c.due.IsZero() && (c.group == nil || c.group.settled()) {
		o.bytes -= c.size
		c.size, c.value.Body = 0, nil // it can be looked up
		o.changedRoom()
	}
	for _, done := range c.waiters {
		close(done)
	}
	c.waiters = nil
	o.retire(c)
}

// allShown is a block up to which all changes are shown. The caller holds mu.
func (o *Owner) allShown() uint64 {
	if time.Since(o.floored) < floorEvery {
		return o.floor
	}
	o.floored, o.floor = time.Now(), o.last
	for c := range o.unshown {
		o.floor = min(o.floor, c.version-1)
	}
	return o.floor
}

// mark is that all changes up to a block were shown at a time.
type mark struct {
	at    time.Time
	floor uint64
}

// purge removes the blocks that nobody needs, until the owner ends. kept is up to where all was shown when it began.
func (o *Owner) purge(kept uint64) {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	marks, purged := []mark{{time.Now(), kept}}, uint64(0)
	for {
		select {
		case <-tick.C:
		case <-o.ctx.Done():
			return
		}
		o.mu.Lock()
		marks = append(marks, mark{time.Now(), o.allShown()})
		o.mu.Unlock()
		var below uint64
		for len(marks) > 0 && time.Since(marks[0].at) >= keepBlocks {
			below, marks = marks[0].floor, marks[1:]
		}
		if below <= purged {
			continue
		}
		// Not the last one: who becomes the owner begins with it.
		if err := o.conn.PurgeLedger(o.ctx, o.queue, below); err != nil && o.ctx.Err() == nil {
			o.log.Warn("blocks of the log of states could not be removed; trying again", "error", err)
		} else {
			purged = below
		}
	}
}
