package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

// The version before kept the states of a queue's jobs in a stream that everybody wrote to. They are moved when the queue
// gets its log: before that it has no owner.
func formerStream(k catalog.Key) string { return "WEIR_J_" + k.Namespace + "_" + k.Name }

func formerSubject(k catalog.Key) string { return "weir.j." + k.Namespace + "." + k.Name + "." }

const (
	// moveTimeout bounds the move of all states of a queue; the next try goes on where this one has ended.
	moveTimeout = 5 * time.Minute
	// formerStay is how long they stay after they were moved, as what they were moved to need not be synced yet (ledger, keepBlocks).
	formerStay = 5 * time.Minute
	// movedKey is the metadata that tells when, and in which server's life, they were moved.
	movedKey = "weir.dev/moved"
)

// moveFormerStates moves the states of the version before, if there are any, and returns the last one's version. What the
// dispatchers of that version write from here on is refused: they try again until they are replaced. A later call removes
// their stream, or moves what NATS may have lost of them by a restart once more; at the latest when they have aged out.
func (c *Conn) moveFormerStates(ctx context.Context, k catalog.Key) (last uint64, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), moveTimeout)
	defer cancel()
	st, err := c.js.Stream(ctx, formerStream(k))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("queue %s: %w", k, c.apiError(ctx, err))
	}
	closed, now, began := st.CachedInfo().Config, st.CachedInfo().TimeStamp, time.Now()
	if at, moved := c.moved(st); moved {
		if now.Sub(at) >= formerStay || st.CachedInfo().State.Msgs == 0 {
			err = c.js.DeleteStream(ctx, formerStream(k))
		}
		if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return 0, fmt.Errorf("queue %s: remove the former stream of states: %w", k, c.apiError(ctx, err))
		}
		return st.CachedInfo().State.LastSeq, nil
	}
	closed.MaxMsgSize = closedMsgSize
	if st, err = c.js.UpdateStream(ctx, closed); err != nil {
		return 0, fmt.Errorf("queue %s: close the former stream of states: %w", k, c.apiError(ctx, err))
	}
	state := st.CachedInfo().State
	moved, err := c.moveStates(ctx, k, st, state)
	if err != nil {
		return 0, fmt.Errorf("queue %s: move the former states: %w", k, err)
	}
	closed.Metadata = maps.Clone(closed.Metadata)
	if closed.Metadata == nil {
		closed.Metadata = map[string]string{}
	}
	closed.Metadata[movedKey] = c.moves() + " " + now.Add(time.Since(began)).Format(time.RFC3339)
	if _, err := c.js.UpdateStream(ctx, closed); err != nil {
		return 0, fmt.Errorf("queue %s: the former stream of states: %w", k, c.apiError(ctx, err))
	}
	c.log.InfoContext(ctx, "the states of jobs of the version before were moved", "queue", k.String(), "states", moved)
	return state.LastSeq, nil
}

// moves is in which server's life states are moved now.
func (c *Conn) moves() string {
	if c.Routed() { // then nothing is lost
		return statesAlways
	}
	return c.nc.ConnectedServerId()
}

// formerStatesMoved reports whether there are no states of the version before, or they were moved in this server's life.
func (c *Conn) formerStatesMoved(ctx context.Context, k catalog.Key) (bool, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	st, err := c.js.Stream(ctx, formerStream(k))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("queue %s: former states: %w", k, c.apiError(ctx, err))
	}
	_, moved := c.moved(st)
	return moved, nil
}

// moved reports whether the states in st were moved in this server's life, or have been and are gone since, and when.
func (c *Conn) moved(st jetstream.Stream) (at time.Time, ok bool) {
	by, text, _ := strings.Cut(st.CachedInfo().Config.Metadata[movedKey], " ")
	at, err := time.Parse(time.RFC3339, text)
	return at, err == nil && (by == c.moves() || st.CachedInfo().State.Msgs == 0)
}

func (c *Conn) moveStates(ctx context.Context, k catalog.Key, from jetstream.Stream, state jetstream.StreamState) (moved int, err error) {
	if state.Msgs == 0 {
		return 0, nil
	}
	messages, err := from.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return 0, c.apiError(ctx, err)
	}
	it, err := messages.Messages()
	if err != nil {
		return 0, c.apiError(ctx, err)
	}
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return moved, c.apiError(ctx, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return moved, err
		}
		key := strings.TrimPrefix(m.Subject(), formerSubject(k))
		if header := m.Headers().Get(headerJobState); header != "" && key != epochToken {
			done, err := c.moveState(ctx, k, StatePut{Key: key, StoredState: StoredState{Header: header, Body: m.Data(), Version: meta.Sequence.Stream}})
			if err != nil {
				return moved, err
			}
			moved += done
		}
		if meta.NumPending == 0 {
			return moved, nil
		}
	}
}

// moveState stores one state, unless one of its key is there: by a move that was interrupted.
func (c *Conn) moveState(ctx context.Context, k catalog.Key, p StatePut) (int, error) {
	pending, err := c.PutState(k, p)
	if err != nil {
		return 0, err
	}
	_, err = pending.Wait(ctx)
	if errors.Is(err, ErrJobChanged) {
		return 0, nil
	}
	return 1, err
}
