package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
)

// An execution may be the work of a job: it was started with the callback of the job's attempt, and its end is the attempt's.

const (
	jsonContent = "application/json"
	// maxStrange is how often a callback is tried that none of the known queues has given: the catalog may lag.
	maxStrange = 12
)

// reportJob tells a job how its execution ended, again and again until that is durable, or nobody waits for it. The error is ctx's.
func (o *Orchestrator) reportJob(ctx context.Context, id ID, callback string, d Description) error {
	strange := 0
	for range tries(ctx, firstBackoff, maxBackoff) {
		err := o.reportOnce(ctx, callback, d)
		if err == nil || errors.Is(err, job.ErrOver) {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, job.ErrNoCallback) {
			if strange++; strange == maxStrange {
				o.cfg.Log.WarnContext(ctx, "the end of an execution can't be reported: no job queue has given its callback", "execution", id.String())
				return nil
			}
		}
		o.cfg.Log.DebugContext(ctx, "the end of an execution is reported once more", "execution", id.String(), "error", err)
	}
	return context.Cause(ctx)
}

// attempt is the one that has given a callback.
func (o *Orchestrator) attempt(callback string) (job.Callback, error) {
	if callback == "" {
		return job.Callback{}, job.ErrNoCallback
	}
	return job.ParseCallback(callback, o.tasks.Ring(), o.catalog.Load().JobQueues())
}

// cancelled reports whether the job was cancelled whose attempt has the callback, as far as that is known: then no task begins. There
// is none if the callback is empty.
func (o *Orchestrator) cancelled(ctx context.Context, callback string) bool {
	t, err := o.attempt(callback)
	if err != nil {
		return false
	}
	is, err := job.IsCancelled(ctx, o.cfg.Conn, t)
	return err == nil && is
}

// later reports whether the attempt of callback a began after that of b: b is a start that came late.
func (o *Orchestrator) later(a, b string) bool {
	queues := o.catalog.Load().JobQueues()
	first, errA := job.ParseCallback(a, o.tasks.Ring(), queues)
	second, errB := job.ParseCallback(b, o.tasks.Ring(), queues)
	return errA == nil && errB == nil && first.Started.After(second.Started)
}

func (o *Orchestrator) reportOnce(ctx context.Context, callback string, d Description) error {
	t, err := job.ParseCallback(callback, o.tasks.Ring(), o.catalog.Load().JobQueues())
	if err != nil {
		return err
	}
	if d.Status == statelang.StatusSucceeded {
		// An output is never larger than what is kept with the state of a job.
		_, err := job.SucceedBy(ctx, o.cfg.Conn, t, job.Result{ContentType: jsonContent}, d.Output, time.Now())
		if err == nil || errors.Is(err, job.ErrOver) { // also of one that was cancelled: its record waits for a year otherwise
			return cmp.Or(o.cfg.Conn.Hasten(ctx, t.Queue, t.Record), err)
		}
		if !errors.Is(err, stream.ErrTooLargeForServer) {
			return err
		}
		d.Error, d.Cause = new(statelang.ErrDataLimit), new("the output is larger than NATS takes")
	}
	e := job.Error{Title: string(d.Status), Detail: fmt.Sprintf("The execution is %s.", d.Status)}
	if d.Error != nil {
		e.Title = cmp.Or(*d.Error, e.Title)
	}
	if d.Cause != nil {
		e.Detail = cmp.Or(*d.Cause, e.Detail)
	}
	err = job.FailBy(ctx, o.cfg.Conn, t, e)
	if errors.Is(err, job.ErrOver) {
		err = cmp.Or(o.cfg.Conn.Hasten(ctx, t.Queue, t.Record), err)
	}
	return err
}
