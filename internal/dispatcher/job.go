package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/stream"
)

// errCancelled is the cause with which a call is cut when its job is cancelled.
var errCancelled = errors.New("dispatcher: the job was cancelled")

// job makes one attempt at a job. Its state is durable before the function is called, and again after the answer,
// before the record is settled. Like call, it leaves the record unsettled when intake or work ends.
func (e *batchRun) job(intake, work context.Context, it *item) {
	watch := e.m.hub.Watch(e.m.queue, it.rec.ID) // before the attempt begins: no cancellation is missed
	defer watch.Close()
	for {
		if err := e.m.limiter.Acquire(intake); err != nil {
			return
		}
		if len(e.withoutExpired(e.items)) == 0 {
			e.m.limiter.Cancel()
			return
		}
		// Before the attempt begins: the wait is no part of it, and a job that is cancelled meanwhile is not called.
		free, err := e.m.transfers.input(intake, it.rec)
		if err != nil {
			e.m.limiter.Cancel()
			return
		}
		attempt, err := e.beginJob(work, it)
		if err == nil && !e.m.holds() {
			err = errNotOurs
		}
		if err != nil {
			free()
			e.m.limiter.Cancel()
			e.goOn(work, it, attempt, err)
			return
		}
		e.m.tally.began()
		e.waited(work)
		callback := e.m.callback(attempt.Callback())
		o, result, body, cancelled := e.ask(work, it, watch, callback)
		free()
		if cancelled || work.Err() != nil && o.Class == invoke.NotNow {
			e.m.cut(work, o)
			if cancelled {
				it.disposition = done
				e.over(job.Cancelled)
			}
			return
		}
		switch o = e.answered(work, o, e.items); {
		case o.Class == invoke.Done && o.Status == http.StatusAccepted && callback != "":
			e.m.drop(work, result) // the result is what the function reports later
			err := attempt.Wait(work, e.m.spec().Heartbeat, e.m.cfg.Conn.Now())
			if err == nil {
				err = job.ErrWaiting
			} else if errors.Is(err, job.ErrFinal) {
				e.over(attempt.Status()) // by the function's report, or cancelled
				e.conclude(work, it, nil)
				return
			}
			e.goOn(work, it, attempt, err)
			return
		case o.Class == invoke.Done:
			err := attempt.Succeed(work, result, body, time.Now())
			switch {
			case err == nil:
				e.over(job.Succeeded)
			case errors.Is(err, job.ErrFinal):
				e.m.drop(work, result)
				e.over(attempt.Status())
			}
			e.conclude(work, it, err)
			return
		case o.Class == invoke.NotNow:
			if err := attempt.Requeue(work, nil, time.Now()); err != nil {
				if errors.Is(err, job.ErrFinal) {
					e.over(attempt.Status())
				}
				e.conclude(work, it, err)
				return
			}
			e.jobIs(job.Queued)
		default:
			e.attempt, e.cause = attempt, causeOf(o)
			judge(e.items, o)
			return
		}
	}
}

// beginJob begins an attempt as the owner of the job's state.
func (e *batchRun) beginJob(ctx context.Context, it *item) (*job.Attempt, error) {
	jobs, err := e.states.open(ctx)
	if err != nil {
		return nil, err
	}
	return job.Begin(ctx, jobs, e.m.queue, it.rec, e.m.cfg.Conn.Now())
}

// jobs are the states as the owner has them.
func (e *batchRun) jobs() stream.Jobs {
	e.states.mu.Lock()
	defer e.states.mu.Unlock()
	return e.states.jobs
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
		if over, err := job.Over(work, e.jobs(), attempt.Callback()); err == nil && over {
			err = e.m.cfg.Conn.Hasten(work, e.m.queue, it.rec.ID)
			if err != nil {
				e.m.log.DebugContext(work, "a job's record could not be made due at once", "record", it.rec.ID.String(), "error", err)
			}
		}
	case errors.Is(err, job.ErrLapsed):
		cause := attempt.Cause()
		e.attempt, e.cause = attempt, &cause
		judge(e.items, invoke.Outcome{Class: invoke.Failed, Status: cause.Status, Reason: cause.Detail})
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
func (e *batchRun) ask(work context.Context, it *item, watch *job.Watch, callback string) (o invoke.Outcome, result job.Result, body []byte, cancelled bool) {
	ctx, cancel := context.WithCancelCause(work)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		for {
			select {
			case <-watch.Changed():
				if e.cancelled(ctx, it, watch) {
					cancel(errCancelled)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	spec := e.m.spec()
	o, answer := e.m.cfg.Caller.Ask(ctx, invoke.Question{
		Function: e.m.function(), URL: spec.Function.URL, H2C: spec.Function.H2C, Record: it.rec, Timeout: spec.Timeout, Callback: callback, Permanent: spec.Retry.Permanent,
		Open: func(ctx context.Context) (io.ReadCloser, error) {
			r, err := e.m.openInput(ctx, it.rec.Input)
			if ended, eerr := job.Ended(ctx, e.jobs(), e.m.queue, it.rec); eerr == nil && ended { // opening may have taken long
				cancel(errCancelled)
			}
			return r, err
		},
		Limit: e.m.cfg.Conn.Room(job.MaxInlineBytes),
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
	<-watching
	return o, result, answer.Body, cancelled
}

func (e *batchRun) cancelled(ctx context.Context, it *item, watch *job.Watch) bool {
	if s := watch.Latest(); s != nil {
		return s.Status == job.Cancelled
	}
	ended, err := job.Ended(ctx, e.jobs(), e.m.queue, it.rec)
	return err == nil && ended // else its result is dropped later
}

// found counts the end of a job that had ended before this attempt could begin, if nobody has: that of one that was
// cancelled, or whose success the function reported after its answer. The record of the latter comes from the retries.
// One that was redelivered, as its acknowledgement was lost, may be counted again.
func (e *batchRun) found(it *item, attempt *job.Attempt) {
	switch s := attempt.Status(); {
	case s == job.Cancelled, s == job.Succeeded && it.block.delivery.Retry:
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
