package stream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

// The epoch of a queue's stream of states identifies the stream: one that was deleted and created again under the same
// name has another, and its sequences begin anew. It is a message among the states, on a subject that no job has, so
// permission to read states covers it, and it is deleted with the stream.
const (
	epochToken = "epoch.0"
	// epochNever exempts it from the stream's MaxAge.
	epochNever = "never"
)

// Place is a cursor in a queue's states: a sequence of the stream with this epoch. The zero value is the beginning.
type Place struct {
	Epoch string
	Seq   uint64
}

// epochs caches those that were read last.
type epochs struct {
	mu    sync.Mutex
	known map[catalog.Key]string
}

// maxEpochs bounds the cache, as queues may be gone; past it all is dropped.
const maxEpochs = 10_000

func (e *epochs) get(k catalog.Key) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known[k]
}

func (e *epochs) set(k catalog.Key, epoch string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known == nil || len(e.known) >= maxEpochs {
		e.known = map[catalog.Key]string{}
	}
	e.known[k] = epoch
}

// ensureEpoch gives the stream of states an epoch, if it has none.
func (c *Conn) ensureEpoch(ctx context.Context, k catalog.Key) error {
	m := lasting(stateSubject(k, epochToken), newEpoch())
	err := c.publish(ctx, m, "", jetstream.WithExpectLastSequencePerSubject(0))
	switch {
	case err == nil, wrongSequence(err):
		return nil
	case errors.Is(err, ErrQueueFull): // feeds begin anew each time until there is room
		c.log.Warn("no room for the epoch of the states of jobs; it is created the next time", "queue", k.String(), "error", err)
		return nil
	}
	return fmt.Errorf("queue %s: epoch: %w", k, err)
}

func newEpoch() string { return rand.Text()[:13] }

// epoch reads it; empty when the stream has none, or isn't there.
func (c *Conn) epoch(ctx context.Context, k catalog.Key) (string, error) {
	m, err := c.last(ctx, statesStream(k), stateSubject(k, epochToken))
	switch {
	case errors.Is(err, errNoMessage), errors.Is(err, nats.ErrNoResponders):
		return "", nil
	case err != nil:
		return "", err
	}
	c.epochs.set(k, string(m.data))
	return string(m.data), nil
}

// Epoch identifies the stream of queue k's states; it is empty while there is none. Unless fresh, what was read before will do.
func (c *Conn) Epoch(ctx context.Context, k catalog.Key, fresh bool) (string, error) {
	if known := c.epochs.get(k); known != "" && !fresh {
		return known, nil
	}
	return c.epoch(ctx, k)
}

// inEpoch calls begin, which begins to follow the states at the place, and returns once it is certain that this was in
// the stream of the place's epoch: the epoch was read before and after it, and is never another stream's. A cached one
// will do as the one before. TestFollowClientOfQueueMadeAnew guards it.
func (c *Conn) inEpoch(ctx context.Context, k catalog.Key, at *Place, begin func() error) error {
	before := c.epochs.get(k)
	for range MaxLooks {
		if before == "" {
			var err error
			if before, err = c.epoch(ctx, k); err != nil {
				return err
			}
		}
		if before != at.Epoch {
			*at = Place{Epoch: before}
		}
		if err := begin(); err != nil {
			return err
		}
		after, err := c.epoch(ctx, k)
		if err != nil || after == before {
			return err
		}
		before = after
	}
	return fmt.Errorf("%w: the stream of states is made again and again", ErrUnavailable)
}
