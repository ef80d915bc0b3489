package dispatcher

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

// careRetry is the wait after the care of a queue has ended, or another dispatcher has it.
const careRetry = 2 * time.Second

// caretaker owns the states of a queue's jobs that no mapping names: jobs are cancelled, and what NATS has lost of their
// states is restored, also while nobody works at them.
type caretaker struct {
	cancel  context.CancelFunc
	stopped bool
	done    chan struct{} // closed once it has ended
}

// care starts a caretaker for each queue of jobs without a mapping, and stops those of other queues. A queue's next one, or
// its mapping, begins once the one before has ended. The caller holds mu.
func (d *Dispatcher) care(ctx context.Context, wg *sync.WaitGroup, jobs []catalog.Key, mapped map[catalog.Key]bool) {
	wanted := map[catalog.Key]bool{}
	for _, k := range jobs {
		wanted[k] = !mapped[k]
	}
	for k, c := range d.caretakers {
		if !wanted[k] {
			c.stopped = true
			c.cancel()
		}
	}
	for k := range wanted {
		former := d.caretakers[k]
		if !wanted[k] || former != nil && !former.stopped {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		c := &caretaker{cancel: cancel, done: make(chan struct{})}
		d.caretakers[k] = c
		wg.Go(func() {
			former.wait()
			d.careFor(ctx, k)
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.caretakers[k] == c {
				delete(d.caretakers, k)
			}
			close(c.done)
		})
	}
}

// wait waits until it has ended; nil has.
func (c *caretaker) wait() {
	if c != nil {
		<-c.done
	}
}

// careFor cares for a queue until ctx ends, whenever it has the queue's lease.
func (d *Dispatcher) careFor(ctx context.Context, k catalog.Key) {
	for {
		err := d.careOnce(ctx, k)
		if err != nil && ctx.Err() == nil && !errors.Is(err, stream.ErrLeaseHeld) && d.cfg.Conn.Ready() == nil {
			d.cfg.Log.InfoContext(ctx, "the care of a queue without a mapping has ended; trying again", "queue", k.String(), "in", careRetry, "error", err)
		}
		select {
		case <-time.After(careRetry):
		case <-ctx.Done():
			return
		}
	}
}

func (d *Dispatcher) careOnce(ctx context.Context, k catalog.Key) error {
	if err := d.cfg.Conn.WaitUp(ctx); err != nil {
		return err
	}
	lease, err := d.spareLease(ctx, k, "care")
	if err != nil {
		return err
	}
	defer lease.Release()
	live := d.cfg.Conn.Live() // what others ask for is heard as long as it lasts
	states := &states{conn: d.cfg.Conn, queue: k, log: d.cfg.Log, holds: lease.Holds}
	if _, err := states.open(ctx); err != nil {
		return err
	}
	defer states.close()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := d.sweepCared(ctx, k, lease, states); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-states.lost():
			return errNotOurs
		case <-live.Done():
			return stream.ErrUnavailable
		case <-lease.Context().Done():
			return stream.ErrLeaseLost
		case <-ctx.Done():
			return nil
		}
	}
}

// sweepCared is sweepQueue for a queue whose lease this process has.
func (d *Dispatcher) sweepCared(ctx context.Context, k catalog.Key, lease *stream.Lease, states *states) error {
	d.mu.Lock()
	maxAge := d.ages[k]
	d.mu.Unlock()
	if maxAge <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	age, newest, ok, err := d.cfg.Conn.Oldest(ctx, k)
	if err != nil || !ok || age < maxAge {
		return err
	}
	return d.sweepOwned(ctx, k, maxAge, newest, lease, states)
}
