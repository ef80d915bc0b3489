package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// A record that has waited for its first attempt for its queue's maxAge is dead-lettered: by the queue's owner, out of
// the records in hand, as the rest of the queue follows in order; and in a queue without a mapping by the sweep, under
// the same lease. Its age is by the server's clock alone (record.Record.Age). NATS itself removes nothing from a queue.
// A full dead-letter queue holds this up.
const (
	// expireEvery is how often a session looks for expired records in hand.
	expireEvery = time.Second
	// maxExpired bounds the expired records that are dead-lettered at a time; the others wait, uncalled.
	maxExpired = 512
	// maxEnding bounds the ends of expired jobs that are stored at a time.
	maxEnding = 128
)

// expired reports whether the item has waited too long at now. Records that failed have a policy of their own
// (retry.maxAge). A job that comes from the retries never expires: its function may be going on with it after a 202.
func (it *item) expired(now time.Time, maxAge time.Duration) bool {
	return maxAge > 0 && it.expires() && it.at(now).Age >= maxAge
}

func (it *item) expires() bool {
	return it.rec.Attempts == 0 && (!it.rec.Job || !it.block.key.retry)
}

// born is when it was accepted, by the server's clock.
func (it *item) born() time.Time { return it.block.since.Add(-it.rec.Age) }

// expire takes the expired records out of those that wait and dead-letters them, maxExpired at a time.
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
	e := &batchRun{m: s.m, states: s.states, items: s.old[:n:n], expiry: true}
	settle(e.items, old)
	s.old, s.expiring = s.old[n:], true
	s.busy++
	go func() {
		if err := e.bury(work); err != nil {
			e.m.log.WarnContext(work, "expired records could not be dead-lettered; they will be delivered again", "error", err)
		}
		s.ends <- e
	}()
}

// notice keeps the time of the oldest record that waits: until that expires, none does.
func (s *session) notice(it *item) {
	if at := it.born(); it.expires() && (s.oldest.IsZero() || at.Before(s.oldest)) {
		s.oldest = at
	}
}

// anyExpired reports whether one of items has expired while they waited for the function.
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
	now := e.m.cfg.Conn.Now()
	x := expirer{e.m.cfg.Conn, e.states, e.m.log, e.m.tracer, e.m.queue, e.m.maxAge()}
	became, err := x.bury(work, now, records(items, now))
	if err != nil {
		return err
	}
	for i, it := range items {
		it.disposition = became[i]
		if it.reason = stream.Expired; it.rec.Job && became[i] == dead {
			e.over(job.Expired)
		}
	}
	return nil
}

// expirer buries the expired records of one queue.
type expirer struct {
	conn   Streams
	states *states
	log    *slog.Logger
	tracer trace.Tracer // nil if disabled
	queue  catalog.Key
	maxAge time.Duration
}

// end stores the ends of those of the records that are jobs: together, so that they share their writes.
func (x *expirer) end(ctx context.Context, rs []record.Record) (errs []error) {
	errs = make([]error, len(rs))
	slots := make(chan struct{}, maxEnding)
	var wg sync.WaitGroup
	for i := range rs {
		if !rs[i].Job {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			jobs, err := x.states.open(ctx)
			if err == nil {
				err = job.Expire(ctx, jobs, x.queue, &rs[i])
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errs
}

// bury dead-letters records that have expired at now, and returns their dispositions: the record of a job that has ended
// otherwise is done; that of a job with an attempt under way is rescheduled, as it is either a copy or the attempt's only
// record, which its next delivery decides. A job's state is stored before its dead letter: a job whose state says expired
// is buried again if it is redelivered.
func (x *expirer) bury(ctx context.Context, now time.Time, rs []record.Record) (became []disposition, err error) {
	became = slices.Repeat([]disposition{dead}, len(rs))
	var running []record.Record
	deads := make([]record.Record, 0, len(rs))
	var oldest time.Duration
	for i := range rs {
		r := &rs[i]
		oldest = max(oldest, r.Age)
		reason := fmt.Sprintf("expired: not called within %s (maxAge of the queue %s)", r.Age.Round(time.Second), x.maxAge)
		r.Failure = &record.Failure{Time: time.Now(), Reason: reason}
	}
	ended := x.end(ctx, rs)
	for i := range rs {
		r := &rs[i]
		if r.Job {
			switch err := ended[i]; {
			case errors.Is(err, job.ErrFinal):
				became[i] = done
				continue
			case errors.Is(err, job.ErrWaiting):
				r.Failure = nil
				became[i], running = retried, append(running, *r)
				continue
			case errors.Is(err, stream.ErrQueueFull), errors.Is(err, stream.ErrNoQueue):
				// Clients see it as expired anyway, by its age, unless an earlier state is stored.
				x.log.InfoContext(ctx, "the end of a job that has expired could not be stored", "record", r.ID.String(), "error", err)
			case err != nil:
				return nil, err
			}
		}
		deads = append(deads, *r)
	}
	if len(running) > 0 {
		if err := x.conn.Delay(ctx, x.queue, stream.AtOnce(now), running); err != nil {
			return nil, err
		}
	}
	if len(deads) == 0 {
		return became, nil
	}
	end := buried(ctx, x.tracer, x.queue, deads, stream.Expired)
	err = x.conn.DeadLetter(ctx, x.queue, stream.Expired, deads)
	end(err)
	if err != nil {
		return nil, err
	}
	x.log.WarnContext(ctx, "records have expired; they are dead letters now", "queue", x.queue.String(), "records", len(deads), "age", oldest.Round(time.Second), "maxAge", x.maxAge)
	return became, nil
}
