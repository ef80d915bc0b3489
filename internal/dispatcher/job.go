package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/stream"
)

// errCancelled is the cause with which a call is cut when its job is cancelled.
var errCancelled = errors.New("dispatcher: the job was cancelled")

// job makes attempts at a job until one has an outcome, and returns what writes that. The attempt is the job's before the
// function is called, and its end is durable before the record is settled. Like deliver, it leaves the record unsettled when
// intake or work ends.
func (e *batchRun) job(intake, work context.Context, it *item) (write func()) {
	nothing := func() {}
	select {
	case <-it.block.states.done:
	case <-intake.Done():
		return nothing
	}
	jobs, err := e.states.open(work)
	if err != nil {
		return func() { e.goOn(work, it, nil, err) }
	}
	var end ending
	stop, err := jobs.Watch(work, stream.KeyOf(it.rec), end.told) // before the attempt begins: no cancellation is missed
	if err != nil {
		return func() { e.goOn(work, it, nil, err) }
	}
	defer stop()
	e.jobs = jobs
	for {
		if err := e.m.limiter.Acquire(intake); err != nil {
			return nothing
		}
		if len(e.withoutExpired(e.items)) == 0 {
			e.m.limiter.Cancel()
			return nothing
		}
		// Before the attempt begins: the wait is no part of it, and a job that is cancelled meanwhile is not called.
		free, err := e.m.transfers.input(intake, it.rec, e.m.memory)
		if err != nil {
			e.m.limiter.Cancel()
			return nothing
		}
		attempt, err := job.Begin(work, jobs, e.m.queue, it.rec, e.m.cfg.Conn.Now(), e.states.since)
		if err == nil && !e.m.holds() {
			err = errNotOurs
		}
		if err != nil {
			free()
			e.m.limiter.Cancel()
			return func() { e.goOn(work, it, attempt, err) }
		}
		e.m.tally.began()
		e.waited(work)
		callback := e.m.callback(attempt.Callback())
		o, result, body, cancelled := e.ask(work, it, &end, callback)
		free()
		if cancelled || work.Err() != nil && o.Class == invoke.NotNow {
			e.m.cut(work, o)
			if !cancelled {
				return nothing
			}
			return func() { e.cancelled(work, it) }
		}
		switch o = e.answered(work, o, e.items); {
		case o.Class == invoke.Done && o.Status == http.StatusAccepted && callback != "":
			return func() { e.accepted(work, it, attempt, result) }
		case o.Class == invoke.Done:
			e.result = len(body)
			return func() { e.succeeded(work, it, attempt, result, body) }
		case o.Class == invoke.NotNow:
			e.leave()
			if err := attempt.Requeue(work, nil, time.Now()); err != nil {
				return func() {
					if errors.Is(err, job.ErrFinal) {
						e.over(attempt.Status())
					}
					e.conclude(work, it, err)
				}
			}
			e.jobIs(job.Queued)
		default:
			e.attempt, e.cause = attempt, causeOf(o)
			judge(e.items, o)
			return nothing
		}
	}
}

// ending is the end of a job that others may write while it is called: it is cancelled, or the function reports its success.
type ending struct {
	mu  sync.Mutex
	is  bool
	cut context.CancelCauseFunc // the present call; nil before the first
}

// told is told of a durable state.
func (d *ending) told(s stream.JobState) {
	if !job.HasEnded(s) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.is = true; d.cut != nil {
		d.cut(errCancelled)
	}
}

// cuts has the end cut a call by cancel.
func (d *ending) cuts(cancel context.CancelCauseFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut = cancel; d.is {
		cancel(errCancelled)
	}
}

// cancelled settles the record of a job that was cancelled during its call.
func (e *batchRun) cancelled(work context.Context, it *item) {
	if err := e.jobs.SettleJob(work, e.m.queue, stream.KeyOf(it.rec)); err != nil {
		e.conclude(work, it, err)
		return
	}
	it.disposition = done
	e.over(job.Cancelled)
}

// accepted stores that the function goes on after its 202; the result is what it reports later.
func (e *batchRun) accepted(work context.Context, it *item, attempt *job.Attempt, result job.Result) {
	e.m.drop(work, result)
	err := attempt.Wait(work, e.m.spec().Heartbeat, e.m.cfg.Conn.Now())
	switch {
	case err == nil:
		err = job.ErrWaiting
	case errors.Is(err, job.ErrFinal):
		e.over(attempt.Status()) // by the function's report, or cancelled
		e.conclude(work, it, nil)
		return
	}
	e.goOn(work, it, attempt, err)
}

// succeeded stores the result.
func (e *batchRun) succeeded(work context.Context, it *item, attempt *job.Attempt, result job.Result, body []byte) {
	err := attempt.Succeed(work, result, body, time.Now())
	switch {
	case err == nil:
		e.over(job.Succeeded)
	case errors.Is(err, job.ErrFinal):
		e.m.drop(work, result)
		e.over(attempt.Status())
	}
	e.conclude(work, it, err)
}

// noRoomDelay is for how long a job is rescheduled whose attempt can't begin because the states of jobs have no room:
// waiting in the batch run would keep the mapping from records that are no jobs.
const noRoomDelay = 5 * time.Second

// goOn settles the record of an attempt for which no call is made now: it is rescheduled while the function goes on
// after its 202, and has failed when the heartbeat is overdue or the function reported that. Without room for the job's
// state it is rescheduled too.
func (e *batchRun) goOn(work context.Context, it *item, attempt *job.Attempt, err error) {
	switch {
	case errors.Is(err, job.ErrWaiting):
		now := e.m.cfg.Conn.Now()
		if err := e.m.cfg.Conn.DelayJob(work, e.m.queue, stream.Wait{Since: now, Due: attempt.Until()}, it.at(now)); err != nil {
			e.conclude(work, it, err)
			return
		}
		it.disposition = retried
		e.jobIs(job.Running)
		// A report before that found no record to hasten.
		if over, err := attempt.Over(work); err == nil && over {
			err = e.m.cfg.Conn.Hasten(work, e.m.queue, it.rec.ID)
			if err != nil {
				e.m.log.DebugContext(work, "a job's record could not be made due at once", "record", it.rec.ID.String(), "error", err)
			}
		}
	case errors.Is(err, job.ErrLapsed):
		cause := attempt.Cause()
		e.attempt, e.cause = attempt, &cause
		class := invoke.Failed
		if e.m.spec().Machine != nil {
			class = invoke.Refused // an execution has failed: what was to be retried in it was
		}
		judge(e.items, invoke.Outcome{Class: class, Status: cause.Status, Reason: cause.Detail})
		e.m.log.InfoContext(work, "an attempt at a job has lapsed", "record", it.rec.ID.String(), "reason", cause.Detail)
	case errors.Is(err, stream.ErrQueueFull), errors.Is(err, stream.ErrNoQueue):
		if e.m.complain(&e.m.noRoom) {
			e.m.log.WarnContext(work, "jobs are rescheduled: their states can't be stored; is the queue's results.maxBytes reached?",
				"queue", e.m.queue.String(), "for", noRoomDelay, "error", err)
		}
		// Not DelayJob: this may be a stale copy, which must not replace the record of a later attempt.
		now := e.m.cfg.Conn.Now()
		if err := e.m.cfg.Conn.Delay(work, e.m.queue, stream.Wait{Since: now, Due: now.Add(noRoomDelay)}, records(e.items, now)); err != nil {
			e.conclude(work, it, err)
			return
		}
		it.disposition = retried
	case errors.Is(err, job.ErrFinal):
		e.found(it, attempt)
		e.conclude(work, it, err)
	default:
		e.conclude(work, it, err)
	}
}

// ask calls the function for one record's answer, and cuts the call when the job is cancelled. body is the result
// unless that is an object.
func (e *batchRun) ask(work context.Context, it *item, end *ending, callback string) (o invoke.Outcome, result job.Result, body []byte, cancelled bool) {
	ctx, cancel := context.WithCancelCause(work)
	end.cuts(cancel)
	spec := e.m.spec()
	o, answer := e.m.cfg.Caller.Ask(ctx, invoke.Question{
		Function: e.m.function(), URL: spec.Function.URL, H2C: spec.Function.H2C, Record: it.rec, Timeout: spec.Timeout, Callback: callback, Permanent: spec.Retry.Permanent,
		Open: func(ctx context.Context) (io.ReadCloser, error) {
			r, err := e.m.openInput(ctx, it.rec.Input)
			if ended, eerr := job.Ended(ctx, e.jobs, e.m.queue, it.rec); eerr == nil && ended { // opening may have taken long
				cancel(errCancelled)
			}
			return r, err
		},
		Limit: e.m.cfg.Conn.Room(job.MaxInlineBytes),
		Room:  e.room,
		Keep: func(ctx context.Context, contentType string, body io.Reader) (err error) {
			result, err = e.m.keep(ctx, it.rec.ID, contentType, body, spec.MaxResultBytes)
			return err
		},
	})
	if result.Object == "" {
		result.ContentType = answer.ContentType
	}
	cancelled = errors.Is(context.Cause(ctx), errCancelled) && o.Class == invoke.NotNow // else it answered first
	cancel(nil)
	return o, result, answer.Body, cancelled
}

// found counts the end of a job that had ended before this attempt could begin, if nobody has: that of one that was
// cancelled, or whose success the function reported after its answer. The record of the latter comes from the retries.
// One that was redelivered, as its acknowledgement was lost, may be counted again.
func (e *batchRun) found(it *item, attempt *job.Attempt) {
	switch s := attempt.Status(); {
	case s == job.Cancelled, s == job.Succeeded && it.block.key.retry:
		e.over(s)
	case s.Final():
		e.jobIs(s)
	}
}

// conclude settles the record of a job that has ended, by this attempt or before. With any other error it is redelivered.
func (e *batchRun) conclude(work context.Context, it *item, err error) {
	if err == nil || errors.Is(err, job.ErrFinal) {
		it.disposition = done
		return
	}
	e.m.log.WarnContext(work, "a job's state could not be stored; its record will be delivered again", "record", it.rec.ID.String(), "error", err)
}

// ended stores the state of a job whose attempt failed, once its record is durable elsewhere. Therefore it also does so
// after work has ended, as giveBack does.
func (e *batchRun) ended(work context.Context, now time.Time, forGood bool) error {
	if e.attempt == nil {
		return nil
	}
	err := e.end(work, now, forGood)
	if err != nil && work.Err() != nil && e.m.holds() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(work), giveBackTimeout)
		defer cancel()
		err = e.end(ctx, now, forGood)
	}
	return err
}

// causeOf is what the job's client may know of a failed call, if that is other than the reason for operators: the
// function's own problem. The text of a 5xx that is none is not for clients: it may be a stack trace.
func causeOf(o invoke.Outcome) *job.Error {
	switch {
	case o.Problem != nil:
		return &job.Error{Status: o.Status, Type: o.Problem.Type, Title: o.Problem.Title, Detail: cmp.Or(o.Problem.Detail, o.Problem.Title)}
	case o.Status >= http.StatusInternalServerError:
		return &job.Error{Status: o.Status, Detail: fmt.Sprintf("The function answered %d %s.", o.Status, http.StatusText(o.Status))}
	}
	return nil
}

func (e *batchRun) end(ctx context.Context, now time.Time, forGood bool) (err error) {
	f := e.items[0].rec.Failure
	cause := job.Error{Status: f.Status, Detail: f.Reason}
	if e.cause != nil {
		cause = *e.cause
	}
	if forGood {
		err = e.attempt.Fail(ctx, cause, now)
	} else {
		err = e.attempt.Requeue(ctx, &cause, now)
	}
	switch {
	case errors.Is(err, job.ErrFinal):
		if s := e.attempt.Status(); s.Final() {
			e.over(s)
		}
		return nil // it was cancelled meanwhile: there is no next attempt
	case err == nil && forGood:
		e.over(job.Failed)
	case err == nil:
		e.jobIs(job.Queued)
	}
	return err
}
