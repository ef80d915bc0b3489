package orchestrator

import (
	"context"
	"errors"
	"time"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
)

// An execution that is the work of a job may wait until a client listens to the job, and tell its listeners something before its
// end.

const (
	errNoJob = "Jobs.NoJobException"
	errEnded = "Jobs.JobEndedException"
	// firstListen and maxListen are the waits before it is looked again whether somebody listens.
	firstListen = 100 * time.Millisecond
	maxListen   = 2 * time.Second
)

type workKey struct{}

// work is what calls know of the execution that they are made for, besides its id.
type work struct {
	began    int64  // when, in Unix milliseconds; of one that nothing is stored of, in nanoseconds
	callback string // of the job whose work it is; empty if none
}

func (w work) in(ctx context.Context) context.Context { return context.WithValue(ctx, workKey{}, w) }

func workOf(ctx context.Context) work {
	w, _ := ctx.Value(workKey{}).(work)
	return w
}

// attemptOf is the attempt whose work the call belongs to.
func (o *Orchestrator) attemptOf(ctx context.Context) (job.Callback, error) {
	return o.attempt(workOf(ctx).callback)
}

func noJob() statelang.Event {
	return failed(errNoJob, "the execution is no job's work: a route with job starts one that is")
}

// waitForListener is arn:weir:states:::jobs:waitForListener: it ends when a client listens to the job's events, at its socket or in a
// long poll.
func (o *Orchestrator) waitForListener(ctx context.Context, _ ID, _ statelang.Effect) statelang.Event {
	t, err := o.attemptOf(ctx)
	if err != nil {
		return noJob()
	}
	for range tries(ctx, firstListen, maxListen) {
		listens, err := o.cfg.Conn.Followed(ctx, t.Queue, stream.JobKey{Client: t.Client, ID: t.Record})
		if err == nil && listens {
			return statelang.Event{Kind: statelang.Succeeded, Output: &jsontree.Object{}}
		}
		if o.cancelled(ctx, workOf(ctx).callback) {
			return failed(errEnded, "the job was cancelled")
		}
	}
	return statelang.Event{}
}

// sendToListener is arn:weir:states:::jobs:sendToListener: Message, a text of up to 1 KiB, and Percent become the job's progress, which
// its listeners are told at once and others see when they ask.
func (o *Orchestrator) sendToListener(ctx context.Context, _ ID, e statelang.Effect) statelang.Event {
	t, err := o.attemptOf(ctx)
	if err != nil {
		return noJob()
	}
	input, _ := e.Input.(*jsontree.Object)
	var p job.Progress
	p.Message, _ = textOf(input, "Message")
	if v, there := valueOf(input, "Percent"); there {
		percent, ok := jsontree.Float(v)
		if !ok || percent < 0 || percent > 100 {
			return failed(statelang.ErrRuntime, "Percent must be a number between 0 and 100")
		}
		p.Percent = percent
	}
	for range tries(ctx, firstBackoff, maxBackoff) {
		err := job.Alive(ctx, o.cfg.Conn, t, &p)
		switch {
		case err == nil:
			return statelang.Event{Kind: statelang.Succeeded, Output: &jsontree.Object{}}
		case errors.Is(err, job.ErrOver):
			return failed(errEnded, "the job has ended, or was cancelled")
		}
		o.again(ctx, err.Error())
	}
	return statelang.Event{}
}
