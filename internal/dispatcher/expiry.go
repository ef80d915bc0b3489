package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// A record that has waited for its first attempt for its queue's maxAge is dead-lettered: by whoever works for the queue,
// out of what is in hand, which the rest of the queue follows in order; and where nobody does, because no mapping names the
// queue, by the sweep, under the same lease. Its age is by the server's clock alone (record.Record.Age). NATS itself
// removes nothing from a queue. A full dead-letter queue holds this up.
const (
	// expireEvery is how often a session looks for what has grown too old in its hands.
	expireEvery = time.Second
	// maxExpired bounds the records that are dead-lettered at a time; what else has expired waits, uncalled.
	maxExpired = 512
	// sweepEvery is how often queues without a mapping are looked at, and sweepTimeout how long one may take.
	sweepEvery   = 15 * time.Second
	sweepTimeout = 10 * time.Second
)

// expired reports whether it has waited too long at now. What has failed has a policy of its own (retry.maxAge), and so has
// a job that was rescheduled because its function goes on with it.
func (it *item) expired(now time.Time, maxAge time.Duration) bool {
	return maxAge > 0 && it.expires() && it.at(now).Age >= maxAge
}

func (it *item) expires() bool {
	return it.rec.Attempts == 0 && (!it.rec.Job || !it.block.delivery.Retry)
}

// born is when it was accepted, by the server's clock.
func (it *item) born() time.Time { return it.block.delivery.Since.Add(-it.rec.Age) }

// expire takes what has grown too old out of what waits, and has it dead-lettered, maxExpired records at a time.
func (s *session) expire(work context.Context) {
	now, maxAge := s.m.cfg.Conn.Now(), s.m.maxAge()
	if maxAge > 0 && !s.oldest.IsZero() && now.Sub(s.oldest) >= maxAge {
		s.oldest = time.Time{}
		tooOld := func(it *item) bool {
			if it.expired(now, maxAge) {
				return true
			}
			s.notice(it)
			return false
		}
		s.old = append(append(s.old, s.acc.Remove(tooOld)...), s.jobs.Remove(tooOld)...)
	}
	if s.expiring || len(s.old) == 0 {
		return
	}
	n := min(len(s.old), maxExpired)
	e := &batchRun{m: s.m, items: s.old[:n:n], expiry: true}
	settle(e.items, old)
	s.old, s.expiring = s.old[n:], true
	s.busy++
	go func() {
		if err := e.bury(work); err != nil {
			e.m.log.Warn("expired records could not be dead-lettered; they will be delivered again", "error", err)
		}
		s.ends <- e
	}()
}

// notice keeps the time of the oldest that waits: before that is too old nothing is.
func (s *session) notice(it *item) {
	if at := it.born(); it.expires() && (s.oldest.IsZero() || at.Before(s.oldest)) {
		s.oldest = at
	}
}

// calls is how many batch runs run that call the function.
func (s *session) calls() int {
	if s.expiring {
		return s.busy - 1
	}
	return s.busy
}

// anyExpired reports whether one of items has grown too old while they waited for the function.
func (e *batchRun) anyExpired(items []*item) bool {
	now, maxAge := e.m.cfg.Conn.Now(), e.m.maxAge()
	return slices.ContainsFunc(items, func(it *item) bool { return it.expired(now, maxAge) })
}

// withoutExpired returns those of items that are still to be called; the others are buried at the end of the batch run.
func (e *batchRun) withoutExpired(items []*item) []*item {
	now, maxAge := e.m.cfg.Conn.Now(), e.m.maxAge()
	var rest []*item
	for _, it := range items {
		if it.expired(now, maxAge) {
			it.disposition = old
		} else {
			rest = append(rest, it)
		}
	}
	return rest
}

// bury dead-letters the items that have expired. Only then are they settled.
func (e *batchRun) bury(work context.Context) error {
	var items []*item
	for _, it := range e.items {
		if it.disposition == old {
			items = append(items, it)
		}
	}
	if len(items) == 0 {
		return nil
	}
	became, err := bury(work, e.m.cfg.Conn, e.m.log, e.m.queue, records(items, e.m.cfg.Conn.Now()), e.m.maxAge())
	if err != nil {
		return err
	}
	for i, it := range items {
		it.disposition = became[i]
	}
	return nil
}

// bury dead-letters records that have expired, and returns what became of each: those of jobs that have ended otherwise are
// done, and those of jobs that an attempt is under way at are copies, or all there is of it, which their next delivery
// decides. First the state of a job is stored, then the record: a job that is said to have expired is buried again
// if it comes again.
func bury(ctx context.Context, conn Streams, log *slog.Logger, queue catalog.Key, rs []record.Record, maxAge time.Duration) (became []disposition, err error) {
	became = slices.Repeat([]disposition{dead}, len(rs))
	var running []record.Record
	deads := make([]record.Record, 0, len(rs))
	var oldest time.Duration
	for i := range rs {
		r := &rs[i]
		oldest = max(oldest, r.Age)
		reason := fmt.Sprintf("expired: not called within %s (maxAge of the queue %s)", r.Age.Round(time.Second), maxAge)
		r.Failure = &record.Failure{Time: time.Now(), Reason: reason}
		if r.Job {
			err := job.Expire(ctx, conn, queue, r, reason, time.Now())
			switch {
			case errors.Is(err, job.ErrFinal):
				became[i] = done
				continue
			case errors.Is(err, job.ErrWaiting):
				r.Failure = nil
				became[i], running = retried, append(running, *r)
				continue
			case errors.Is(err, stream.ErrQueueFull), errors.Is(err, stream.ErrNoQueue):
				// Who asks is told so anyway, by the job's age, unless an earlier state is stored.
				log.Info("the end of a job that has expired could not be stored", "record", r.ID.String(), "error", err)
			case err != nil:
				return nil, err
			}
		}
		deads = append(deads, *r)
	}
	if len(running) > 0 {
		if err := conn.Delay(ctx, queue, stream.AtOnce(), running); err != nil {
			return nil, err
		}
	}
	if len(deads) == 0 {
		return became, nil
	}
	if err := conn.DeadLetter(ctx, queue, deads); err != nil {
		return nil, err
	}
	log.Warn("records have expired; they are dead letters now", "queue", queue.String(), "records", len(deads), "age", oldest.Round(time.Second), "maxAge", maxAge)
	return became, nil
}

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
		if m, ok := d.latest[k]; maxAge > 0 && (!ok || m.over()) {
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
func (d *Dispatcher) sweepQueue(ctx context.Context, k catalog.Key, maxAge time.Duration) error {
	conn := d.cfg.Conn
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	age, newest, ok, err := conn.Oldest(ctx, k)
	if err != nil || !ok || age < maxAge {
		return err
	}
	// Not under the name of this process: it would take the lease from its own mapping.
	lease, err := conn.TryLease(context.WithoutCancel(ctx), leaseOf(k), d.cfg.Owner+".sweep")
	if errors.Is(err, stream.ErrLeaseHeld) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lease.Release()
	src, err := conn.OpenSource(ctx, k)
	if err != nil {
		return err
	}
	defer src.Close()
	defer func() {
		if perr := conn.PurgeSettled(ctx, k); err == nil && ctx.Err() == nil {
			err = perr
		}
	}()
	for {
		select {
		case src.Room() <- struct{}{}:
		case delivery := <-src.Deliveries():
			if delivery.Retry {
				continue // it waits for a function
			}
			b, now := &block{delivery: delivery}, conn.Now()
			rs := make([]record.Record, 0, len(delivery.Records))
			for i := range delivery.Records {
				it := &item{rec: &delivery.Records[i], block: b}
				if !it.expired(now, maxAge) {
					return nil // nor has what comes after it
				}
				rs = append(rs, it.at(now))
			}
			if !lease.Holds() {
				return stream.ErrLeaseLost
			}
			if _, err := bury(ctx, conn, d.cfg.Log, k, rs, maxAge); err != nil {
				return err
			}
			if err := delivery.Ack(); err != nil || delivery.Seq >= newest {
				return err
			}
		case <-src.Done():
			return src.Err()
		case <-lease.Context().Done():
			return stream.ErrLeaseLost
		case <-ctx.Done():
			return nil // the rest the next time
		}
	}
}
