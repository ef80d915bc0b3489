package dispatcher

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/ledger"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// disposition is what became of a record in a batch run.
type disposition int

const (
	unsettled disposition = iota
	done                  // the function took it, or nothing is left to do
	failed                // an attempt is counted; its retry or dead letter is not durable yet
	refused               // permanently; its dead letter is not durable yet
	retried               // durable in the retry stream, for a later attempt
	dead                  // durable in the dead-letter queue
	old                   // expired; its dead letter is not durable yet
)

func (f disposition) settled() bool { return f == done || f == retried || f == dead }

// batchRun is the life of one batch: its calls, its bisection, and the rescheduling or dead-lettering of what failed.
// A record that fails has one attempt counted for the whole batch run, however often the batch was bisected,
// so that records beside a poison record don't use up their attempts.
type batchRun struct {
	m       *mapping
	states  *states
	jobs    *ledger.Jobs // of states, once the one item's attempt begins
	items   []*item
	attempt *job.Attempt // of the one item, if it is a job that failed
	cause   *job.Error   // why, for its client; nil if that is the record's reason
	result  int          // bytes of the one item's result that is not written yet
	expiry  bool         // it calls nothing: its items have expired
	vacate  func()       // gives the slot of a large answer back; nil if it has none

	undelivered int  // calls in a row that the function broke off
	failedAlone int  // items whose call, for them alone, failed
	someDone    bool // an item was done

	called  bool       // the function was called, or is about to be
	span    trace.Span // nil if it isn't recorded
	events  int        // of the span
	omitted int        // events that it has no room for
	failure string     // the last failed call's reason
}

// maxFailedAlone is how many items may fail alone, with none done, until a function is taken to fail whatever it gets.
const maxFailedAlone = 8

// call calls the function until there is an outcome, which store then makes durable: however long that takes, no call waits
// for it. It ends early, and then store leaves records unsettled, when intake ends while it waits for the function, or when
// work ends.
func (e *batchRun) call(intake, work context.Context) (store func()) {
	work = e.begin(work)
	ended := func() {}
	if e.items[0].rec.Job {
		ended = e.job(intake, work, e.items[0])
	} else {
		e.deliver(intake, work, e.items)
	}
	return func() {
		defer e.finish()
		defer e.leave()
		ended()
		err := e.store(work)
		if err == nil {
			err = e.bury(work)
		}
		if err != nil {
			e.m.log.WarnContext(work, "failed records could not be put back; they will be delivered again", "error", err)
		}
	}
}

// deliver runs one call for items and acts on its outcome (docs/contracts.md, the status table). It
// reports whether all of them have a disposition.
func (e *batchRun) deliver(intake, work context.Context, items []*item) bool {
	o, ok := e.outcome(intake, work, items)
	if !ok {
		return false
	}
	if o.Class == invoke.NotNow { // some have expired meanwhile
		items = e.withoutExpired(items)
		return len(items) == 0 || e.deliver(intake, work, items)
	}
	if len(items) > 1 && e.bisects(items, o) {
		half := len(items) / 2
		e.event("halved", o, len(items))
		return e.deliver(intake, work, items[:half]) && e.deliver(intake, work, items[half:])
	}
	judge(items, o)
	e.someDone = e.someDone || o.Class == invoke.Done && len(o.FailedIDs) < len(items)
	if len(items) == 1 && o.Class == invoke.Failed {
		e.failedAlone++
	}
	return true
}

// bisects reports whether the halves of items are called after o. No record is given up for what another one in its batch
// did to the function: so on the last attempt also where the mapping doesn't ask for it, as long as the function answers
// and doesn't fail for everything.
func (e *batchRun) bisects(items []*item, o invoke.Outcome) bool {
	spec := e.m.spec()
	switch {
	case o.Class == invoke.Refused:
		return true
	case o.Class != invoke.Failed:
		return false
	case spec.BisectOnError:
		return true
	case o.TimedOut || !e.someDone && e.failedAlone >= maxFailedAlone:
		return false
	}
	now := e.m.cfg.Conn.Now()
	return slices.ContainsFunc(items, func(it *item) bool {
		return it.rec.Attempts+1 >= spec.Retry.MaxAttempts || it.at(now).Age >= spec.Retry.MaxAge
	})
}

// judge gives the items their disposition by the outcome of their call.
func judge(items []*item, o invoke.Outcome) {
	now := time.Now()
	for _, it := range items {
		reason, named := o.FailedIDs[it.rec.ID]
		switch {
		case o.Class == invoke.Refused:
			it.disposition, reason = refused, o.Reason
		case o.Class == invoke.Failed:
			it.disposition, reason = failed, o.Reason
		case named:
			it.disposition = failed
		default:
			it.disposition = done
			continue
		}
		it.rec.Attempts++
		it.rec.Failure = &record.Failure{Time: now, Status: o.Status, Reason: reason}
	}
}

// outcome calls the function until the answer is other than "not now". It returns true with "not now" only when
// an item has expired, before a call.
func (e *batchRun) outcome(intake, work context.Context, items []*item) (invoke.Outcome, bool) {
	rs := make([]*record.Record, len(items))
	for i, it := range items {
		rs[i] = it.rec
	}
	for {
		if err := e.m.limiter.Acquire(intake); err != nil {
			return invoke.Outcome{}, false
		}
		if !e.m.holds() {
			e.m.limiter.Cancel()
			return invoke.Outcome{}, false
		}
		if e.anyExpired(items) {
			e.m.limiter.Cancel()
			return invoke.Outcome{Class: invoke.NotNow}, true
		}
		// Each call goes by the current spec: the next one may go to another function than the one before it. A batch
		// that was formed before maxRecords became 1 is still sent as a batch.
		spec := e.m.spec()
		e.waited(work)
		o := e.m.cfg.Caller.Call(work, invoke.Batch{
			Function: e.m.function(), URL: spec.Function.URL, H2C: spec.Function.H2C, Records: rs, Single: spec.Batch.MaxRecords == 1 && len(rs) == 1, Timeout: spec.Timeout, Permanent: spec.Retry.Permanent, Room: e.room,
		})
		e.leave()
		if work.Err() != nil && o.Class == invoke.NotNow {
			e.m.cut(work, o)
			return o, false
		}
		o = e.answered(work, o, items)
		if o.Class != invoke.NotNow {
			return o, true
		}
	}
}

// room waits for a slot for a large answer, which the batch run has until leave.
func (e *batchRun) room(ctx context.Context) (err error) {
	if e.vacate == nil {
		if e.vacate, err = e.m.transfers.answers.acquire(ctx, e.m.memory); err != nil {
			return &invoke.TroubleError{Class: invoke.NotNow, Err: fmt.Errorf("too many large answers at once: %w", err)}
		}
	}
	return nil
}

// leave gives the slot back. It is idempotent.
func (e *batchRun) leave() {
	if e.vacate != nil {
		e.vacate()
		e.vacate = nil
	}
}

// maxUndelivered is how often in a row a function may break off a request without an answer until that counts as its
// failure at the records: a record that kills it would else come for ever.
const maxUndelivered = 5

// delivered returns o, as it is to be treated.
func (e *batchRun) delivered(o invoke.Outcome) invoke.Outcome {
	if !o.Undelivered {
		e.undelivered = 0
		return o
	}
	if e.undelivered++; e.undelivered >= maxUndelivered {
		e.undelivered, o.Class = 0, invoke.Failed
	}
	return o
}

// store makes the retries and dead letters of the failed records durable. Only then are they settled.
func (e *batchRun) store(work context.Context) error {
	now := e.m.cfg.Conn.Now()
	deads := map[stream.Reason][]*item{}
	later := map[int][]*item{} // by attempts: they share a due time, and so a block
	for _, it := range e.items {
		switch it.disposition {
		case failed:
			if why, over := e.exhausted(it, now); over {
				deads[why] = append(deads[why], it)
			} else {
				later[it.rec.Attempts] = append(later[it.rec.Attempts], it)
			}
		case refused:
			it.rec.Failure.Reason = "refused: " + it.rec.Failure.Reason
			deads[stream.Refused] = append(deads[stream.Refused], it)
		}
	}
	for why, items := range deads {
		if err := e.deadLetter(work, why, items, now); err != nil {
			return err
		}
		// A job whose final state can't be stored is redelivered, at the price of one more call and maybe a duplicate dead
		// letter: if it were settled, its clients would see it running for ever.
		if err := e.ended(work, now, true); err != nil {
			return err
		}
		settle(items, dead)
		for _, it := range items {
			it.reason = why
			e.m.log.WarnContext(work, "dead-lettered", "record", it.rec.ID.String(), "attempts", it.rec.Attempts, "reason", it.rec.Failure.Reason)
		}
	}
	for attempts, items := range later {
		wait := backoff(e.m.spec().Retry, attempts)
		// First the record, then the job's state: from then on job.Begin drops every copy of the former record, so the
		// next attempt's must be durable.
		if err := e.reschedule(work, wait, items); err != nil {
			return err
		}
		settle(items, retried)
		if err := e.ended(work, now, false); err != nil {
			e.m.log.InfoContext(work, "a job is still shown as running until its next attempt", "record", items[0].rec.ID.String(), "error", err)
		}
	}
	return nil
}

// reschedule stores items for a later attempt, after wait. A job is by itself.
func (e *batchRun) reschedule(work context.Context, wait time.Duration, items []*item) error {
	now := e.m.cfg.Conn.Now()
	return e.delay(work, stream.Wait{Since: now, Due: now.Add(wait)}, items, now)
}

// deadly reports whether some of the items are to be dead-lettered.
func (e *batchRun) deadly() bool {
	now := e.m.cfg.Conn.Now()
	return slices.ContainsFunc(e.items, func(it *item) bool {
		_, over := e.givenUp(it, now)
		return it.disposition == refused || it.disposition == old || it.disposition == failed && over
	})
}

// givenUp reports whether an item that has just failed gets no further attempt and why not.
func (e *batchRun) givenUp(it *item, now time.Time) (why stream.Reason, over bool) {
	switch p := e.m.spec().Retry; {
	case it.rec.Attempts >= p.MaxAttempts:
		return stream.Exhausted, true
	case it.at(now).Age >= p.MaxAge:
		return stream.TooOld, true
	}
	return "", false
}

// exhausted is givenUp, which it also writes into the record's reason.
func (e *batchRun) exhausted(it *item, now time.Time) (why stream.Reason, over bool) {
	r, p := it.rec, e.m.spec().Retry
	switch why, over = e.givenUp(it, now); why {
	case stream.Exhausted:
		r.Failure.Reason = fmt.Sprintf("%d of %d attempts failed; the last: %s", r.Attempts, p.MaxAttempts, r.Failure.Reason)
	case stream.TooOld:
		r.Failure.Reason = fmt.Sprintf("still failing at an age of %s (retry.maxAge %s); the last: %s", it.at(now).Age.Round(time.Second), p.MaxAge, r.Failure.Reason)
	}
	return why, over
}

// backoff is the wait before the next attempt: the initial one doubled with each counted failure, at
// most the policy's maximum, half of it jitter.
func backoff(p catalog.Retry, attempts int) time.Duration {
	d := p.InitialBackoff
	for i := 1; i < attempts && d < p.MaxBackoff; i++ {
		d *= 2
	}
	d = min(d, p.MaxBackoff)
	return d/2 + rand.N(d/2+1)
}

func records(items []*item, now time.Time) []record.Record {
	out := make([]record.Record, 0, len(items))
	for _, it := range items {
		out = append(out, it.at(now))
	}
	return slices.Clip(out)
}

func settle(items []*item, f disposition) {
	for _, it := range items {
		it.disposition = f
	}
}
