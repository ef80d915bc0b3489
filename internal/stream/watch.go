package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// watchRetry is the pause before a broken watch is begun again.
const watchRetry = time.Second

// watchBucket calls follow with a watcher of all keys of a bucket, anew whenever it returns, until ctx ends. A bucket that
// is not there yet, or NATS being away, only delays it. follow's context ends with the connected period.
func (c *Conn) watchBucket(ctx context.Context, bucket string, follow func(ctx context.Context, w jetstream.KeyWatcher) error) {
	for ctx.Err() == nil {
		if err := c.watchOnce(ctx, bucket, follow); err != nil && ctx.Err() == nil {
			c.log.Warn("a bucket of NATS can't be watched", "bucket", bucket, "retry", watchRetry, "error", err)
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
		}
	}
}

func (c *Conn) watchOnce(ctx context.Context, bucket string, follow func(context.Context, jetstream.KeyWatcher) error) error {
	if err := c.WaitUp(ctx); err != nil {
		return err
	}
	ctx, cancel := c.whileUp(ctx)
	defer cancel()
	actx, done := c.bound(ctx, apiTimeout)
	defer done()
	kv, err := c.js.KeyValue(actx, bucket)
	if err != nil {
		return err
	}
	w, stop, err := watchAll(ctx, kv)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer stop()
	return follow(ctx, w)
}

// watchAll watches all keys until stop is called. Not until ctx ends: the client does not close the updates of a watcher
// whose context ends while it is being made, and stop takes what the watcher still holds, without which its goroutine
// would hang on it for ever.
func watchAll(ctx context.Context, kv jetstream.KeyValue) (w jetstream.KeyWatcher, stop func(), err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if w, err = kv.WatchAll(ctx); err != nil {
		cancel()
		return nil, nil, err
	}
	return w, func() {
		defer cancel()
		_ = w.Stop() // it may have ended with its connection
		timeout := time.NewTimer(apiTimeout)
		defer timeout.Stop()
		for {
			select {
			case _, more := <-w.Updates():
				if !more {
					return
				}
			case <-timeout.C: // rather a goroutine too many than one that waits for it
				return
			}
		}
	}, nil
}

// nextUpdate waits for a watcher's next update; nil marks the end of the initial values.
func nextUpdate(ctx context.Context, w jetstream.KeyWatcher) (jetstream.KeyValueEntry, error) {
	select {
	case e, ok := <-w.Updates():
		if !ok {
			return nil, ErrUnavailable
		}
		return e, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// watchKey calls use with the value of a key and with every later one until ctx ends.
func (c *Conn) watchKey(ctx context.Context, bucket, key string, use func(jetstream.KeyValueEntry)) {
	c.watchBucket(ctx, bucket, func(ctx context.Context, w jetstream.KeyWatcher) error {
		for {
			e, err := nextUpdate(ctx, w)
			if err != nil {
				return err
			}
			if e != nil && e.Key() == key && e.Operation() == jetstream.KeyValuePut {
				use(e)
			}
		}
	})
}
