package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// sweepEvery is how often queues without a mapping are looked at, and sweepTimeout how long one may take.
const (
	sweepEvery   = 15 * time.Second
	sweepTimeout = 10 * time.Second
)

// sweep looks after the queues that no mapping names, until ctx ends.
func (d *Dispatcher) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		for k, maxAge := range d.unmapped() {
			if ctx.Err() != nil || d.cfg.Conn.Ready() != nil {
				break
			}
			if err := d.sweepQueue(ctx, k, maxAge); err != nil && ctx.Err() == nil {
				d.cfg.Log.Warn("a queue without a mapping could not be swept; trying again", "queue", k.String(), "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-d.swept:
		case <-ctx.Done():
			return
		}
	}
}

// unmapped are the queues that no mapping here works or drains for, with their maxAge.
func (d *Dispatcher) unmapped() map[catalog.Key]time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[catalog.Key]time.Duration{}
	for k, maxAge := range d.ages {
		if m, ok := d.latest[k]; maxAge > 0 && (!ok || m.over()) && d.caretakers[k] == nil {
			out[k] = maxAge
		}
	}
	return out
}

// over reports whether m has ended.
func (m *mapping) over() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// sweepQueue dead-letters what is too old in a queue, from its beginning on. Whoever gets a mapping for it meanwhile waits
// for the lease.
func (d *Dispatcher) sweepQueue(ctx context.Context, k catalog.Key, maxAge time.Duration) (err error) {
	conn := d.cfg.Conn
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	age, newest, ok, err := conn.Oldest(ctx, k)
	if err != nil || !ok || age < maxAge {
		return err
	}
	lease, err := d.spareLease(ctx, k, "sweep")
	if errors.Is(err, stream.ErrLeaseHeld) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lease.Release()
	states := &states{conn: conn, queue: k, log: d.cfg.Log, holds: lease.Holds}
	defer states.close()
	return d.sweepOwned(ctx, k, maxAge, newest, lease, states)
}

// spareLease takes the lease of a queue without a mapping for a purpose. Not under the name of this process: it would take it
// from its own mapping.
func (d *Dispatcher) spareLease(ctx context.Context, k catalog.Key, purpose string) (*stream.Lease, error) {
	return d.cfg.Conn.TryLease(context.WithoutCancel(ctx), d.sharing.LeaseOf(k), d.cfg.Owner+"."+purpose)
}

// sweepOwned sweeps a queue, whose lease and states this process has, up to its newest block.
func (d *Dispatcher) sweepOwned(ctx context.Context, k catalog.Key, maxAge time.Duration, newest uint64, lease *stream.Lease, states *states) (err error) {
	conn := d.cfg.Conn
	reader, err := conn.OpenReaderWithoutRetries(ctx, k) // they wait for a function
	if err != nil {
		return err
	}
	defer reader.Close()
	defer func() {
		if _, perr := conn.PurgeSettled(ctx, k); err == nil && ctx.Err() == nil {
			err = perr
		}
	}()
	x := expirer{conn, states, d.cfg.Log, d.cfg.Telemetry.Tracer(scope), k, maxAge}
	for {
		select {
		case p := <-reader.Pulls():
			p.Begin(1, nil)
		case delivery := <-reader.Deliveries():
			if delivery.Moved > 0 {
				if err := delivery.Ack(); err != nil || delivery.Seq >= newest {
					return err
				}
				continue
			}
			b, now := &block{delivery: delivery, since: delivery.Since}, conn.Now()
			rs := make([]record.Record, 0, len(delivery.Records))
			for i := range delivery.Records {
				it := &item{rec: &delivery.Records[i], block: b}
				if !it.expired(now, maxAge) {
					return nil // nor have those after it
				}
				rs = append(rs, it.at(now))
			}
			if !lease.Holds() {
				return stream.ErrLeaseLost
			}
			became, err := x.bury(ctx, now, rs)
			if err != nil {
				return err
			}
			d.metrics.of(k).swept(rs, became)
			if err := delivery.Ack(); err != nil || delivery.Seq >= newest {
				return err
			}
		case <-reader.Done():
			return reader.Err()
		case <-lease.Context().Done():
			return stream.ErrLeaseLost
		case <-ctx.Done():
			return nil // the rest is left to the next sweep
		}
	}
}
