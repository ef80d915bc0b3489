package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

// Jobs keeps the states of one queue's jobs as their owner: it is a stream.Jobs that asks nobody.
type Jobs struct {
	stream.Jobs
	o *Owner
}

// Jobs returns the states of jobs that o owns. What has nothing to do with states is conn's.
func (o *Owner) Jobs(conn stream.Jobs) *Jobs { return &Jobs{conn, o} }

// Serve makes the changes that others ask for, until stop or the end of the connection. holds tells whether the lease holds:
// an owner that has slept past it would refuse what the present one can do.
func (j *Jobs) Serve(holds func() bool) (stop func(), err error) {
	return j.o.conn.ServeChanges(j.o.queue, func(ctx context.Context, s stream.StateChange) (uint64, error) {
		if !holds() {
			return 0, stream.ErrLeaseLost
		}
		if err := j.o.Room(); err != nil && !s.Settle {
			return 0, stream.ErrQueueFull
		}
		c, err := j.o.Hold(ctx, s.Key)
		if err != nil {
			return 0, err
		}
		defer j.o.Release(c)
		var p Pending
		if s.Settle {
			p = j.o.Settled(c)
		} else {
			p = j.o.Change(c, c.replaces(s.Last, Value{Header: s.Header, Body: s.Body}))
		}
		select {
		case <-p.Done():
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		switch err := p.Err(); {
		case errors.Is(err, ErrLost):
			return 0, fmt.Errorf("%w: %w", stream.ErrLeaseLost, err)
		case (err != nil || s.Settle) && !holds(): // nothing has been written that says so
			return 0, stream.ErrLeaseLost
		case err != nil:
			return 0, err
		}
		if err := j.o.Shown(ctx, c); err != nil {
			return 0, err
		}
		return p.g.seq, nil // zero if nothing was changed
	})
}

// Job returns the newest state of a job, with its body only if it can't be looked up yet.
func (j *Jobs) Job(ctx context.Context, k catalog.Key, id stream.JobKey) (*stream.JobState, error) {
	c, err := j.hold(ctx, k, id)
	if err != nil {
		return nil, err
	}
	defer j.o.Release(c)
	j.o.mu.Lock()
	defer j.o.mu.Unlock()
	v := j.o.newest(c)
	if v.Header == "" {
		return nil, stream.ErrNoJob
	}
	return &stream.JobState{Header: v.Header, Body: v.Body, Seq: c.last(), Stored: c.stored}, nil
}

func (j *Jobs) hold(ctx context.Context, k catalog.Key, id stream.JobKey) (*Cell, error) {
	if k != j.o.queue {
		return nil, fmt.Errorf("ledger: the states of queue %s are asked for among those of %s", k, j.o.queue)
	}
	return j.o.Hold(ctx, id.String())
}

// PutJob implements stream.Jobs.
func (j *Jobs) PutJob(ctx context.Context, k catalog.Key, id stream.JobKey, s stream.JobState, last uint64) (uint64, error) {
	return j.put(ctx, k, id, s, last)
}

// PutJobUntil implements stream.Jobs.
func (j *Jobs) PutJobUntil(ctx context.Context, k catalog.Key, id stream.JobKey, s stream.JobState, last uint64, impatient bool) (uint64, error) {
	if impatient {
		if j.o.Room() != nil {
			return 0, stream.ErrQueueFull
		}
	} else if err := j.o.WaitRoom(ctx); err != nil {
		return 0, outage(err)
	}
	return j.put(ctx, k, id, s, last)
}

// SettleJob implements stream.Jobs. The owner need not look it up: it has to be durable.
func (j *Jobs) SettleJob(ctx context.Context, k catalog.Key, id stream.JobKey) error {
	c, err := j.hold(ctx, k, id)
	if err != nil {
		return outage(err)
	}
	defer j.o.Release(c)
	p := j.o.Settled(c)
	select {
	case <-p.Done():
		return outage(p.Err())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Watch is Owner.Watch for a job's states.
func (j *Jobs) Watch(ctx context.Context, id stream.JobKey, f func(stream.JobState)) (stop func(), err error) {
	c, err := j.o.Hold(ctx, id.String())
	if err != nil {
		return nil, outage(err)
	}
	unwatch := j.o.Watch(c, func(v Value) { f(stream.JobState{Header: v.Header, Body: v.Body}) })
	return func() {
		unwatch()
		j.o.Release(c)
	}, nil
}

// Prefetch looks the states of many jobs up together, so that none has to be by itself until release is called.
func (j *Jobs) Prefetch(ctx context.Context, ids []stream.JobKey) (release func()) {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = id.String()
	}
	cells := j.o.HoldAll(ctx, keys)
	return func() {
		for _, c := range cells {
			j.o.Release(c)
		}
	}
}

// PutJobLater implements stream.Jobs: the state is the owner's at once, and durable before anybody is told of it. Whoever
// cancels the job asks the owner.
func (j *Jobs) PutJobLater(ctx context.Context, k catalog.Key, id stream.JobKey, header func() string, last uint64) (uint64, error) {
	if j.o.Room() != nil {
		return 0, stream.ErrQueueFull
	}
	c, err := j.hold(ctx, k, id)
	if err != nil {
		return 0, outage(err)
	}
	defer j.o.Release(c)
	ticket, err := j.o.ChangeLater(c, c.replaces(last, Value{Make: header}))
	return ticket, outage(err)
}

func (j *Jobs) put(ctx context.Context, k catalog.Key, id stream.JobKey, s stream.JobState, last uint64) (uint64, error) {
	if err := stream.CheckJob(id, s); err != nil {
		return 0, err
	}
	c, err := j.hold(ctx, k, id)
	if err != nil {
		return 0, outage(err)
	}
	defer j.o.Release(c)
	p := j.o.Change(c, c.replaces(last, Value{Header: s.Header, Body: s.Body}))
	select {
	case <-p.Done():
		return p.ticket, outage(p.Err())
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// outage is err as stream's callers know it.
func outage(err error) error {
	if errors.Is(err, ErrLost) {
		return fmt.Errorf("%w: %w", stream.ErrUnavailable, err)
	}
	return err
}
