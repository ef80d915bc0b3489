package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/job"
)

// errCancelled is why a call is cut whose job was cancelled.
var errCancelled = errors.New("dispatcher: the job was cancelled")

// job makes one attempt at a job. What clients may ask about is durable before the function is called, and again after
// it has answered, before the record is settled. Like call, it leaves the record unsettled when intake or work ends.
func (e *episode) job(intake, work context.Context, it *item) {
	watch := e.m.hub.Watch(e.m.queue, it.rec.ID) // before the attempt begins: no cancellation is missed
	defer watch.Close()
	for {
		if err := e.m.limiter.Acquire(intake); err != nil {
			return
		}
		attempt, err := job.Begin(work, e.m.cfg.Conn, e.m.queue, it.rec, time.Now())
		if err == nil && !e.m.holds() {
			err = errNotOurs
		}
		if err != nil {
			e.m.limiter.Cancel()
			e.conclude(it, err)
			return
		}
		o, answer, cancelled := e.callFor(work, it, watch)
		if cancelled || work.Err() != nil && o.Class == invoke.NotNow {
			e.m.limiter.Cancel() // we cut the call ourselves: it says nothing about the function
			if cancelled {
				it.fate = done
			}
			return
		}
		switch o = e.m.release(o, 1); o.Class {
		case invoke.Done:
			e.conclude(it, attempt.Succeed(work, answer.ContentType, answer.Body, time.Now()))
			return
		case invoke.NotNow:
			if err := attempt.Requeue(work, nil, time.Now()); err != nil {
				e.conclude(it, err)
				return
			}
		default:
			e.attempt = attempt
			judge(e.items, o)
			return
		}
	}
}

// callFor calls the function for one record's answer, and breaks the call off when the job is cancelled.
func (e *episode) callFor(work context.Context, it *item, watch *job.Watch) (invoke.Outcome, invoke.Answer, bool) {
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
	o, answer := e.m.cfg.Client.CallFor(ctx, spec.Function.URL, it.rec, spec.Timeout, job.MaxInlineBytes)
	cancelled := errors.Is(context.Cause(ctx), errCancelled) && o.Class == invoke.NotNow // else it answered first
	cancel(nil)
	<-watching
	return o, answer, cancelled
}

func (e *episode) cancelled(ctx context.Context, it *item, watch *job.Watch) bool {
	if s := watch.Latest(); s != nil {
		return s.Status == job.Cancelled
	}
	ended, err := job.Ended(ctx, e.m.cfg.Conn, e.m.queue, it.rec.ID)
	return err == nil && ended // else its result is dropped later
}

// conclude settles the record of a job that has ended, by this attempt or before. With any other error it comes again.
func (e *episode) conclude(it *item, err error) {
	if err == nil || errors.Is(err, job.ErrFinal) {
		it.fate = done
		return
	}
	e.m.log.Warn("a job's state could not be stored; its record will be delivered again", "record", it.rec.ID.String(), "error", err)
}

// ended stores what becomes of a job whose attempt failed.
func (e *episode) ended(ctx context.Context, now time.Time, forGood bool) error {
	if e.attempt == nil {
		return nil
	}
	f := e.items[0].rec.Failure
	cause := job.Error{Status: f.Status, Detail: f.Reason}
	var err error
	if forGood {
		err = e.attempt.Fail(ctx, cause, now)
	} else {
		err = e.attempt.Requeue(ctx, &cause, now)
	}
	if errors.Is(err, job.ErrFinal) {
		return nil // it was cancelled meanwhile: there is no next attempt
	}
	return err
}
