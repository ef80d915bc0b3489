package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
)

// Output stores records that were delivered and are not done: for a later attempt, or as dead letters.
type Output interface {
	Delay(ctx context.Context, k catalog.Key, w Wait, rs []record.Record) error
	DelayJob(ctx context.Context, k catalog.Key, w Wait, r record.Record) error
	DeadLetter(ctx context.Context, k catalog.Key, why Reason, rs []record.Record) error
}

// Headers of message schedules (nats-server, ADR-51).
const (
	headerSchedule       = "Nats-Schedule"
	headerScheduleTarget = "Nats-Schedule-Target"
)

// headerSince is when the records of a scheduled message began to wait in it, as RFC 3339. NATS keeps it.
const headerSince = "Weir-Since"

// The wait between attempts to publish what must not be lost.
const (
	publishBackoffMin = 50 * time.Millisecond
	publishBackoffMax = 2 * time.Second
)

// Wait is how long records wait for their next delivery, by the server's clock (Conn.Now).
type Wait struct {
	Since time.Time // until then the records' ages count; from then on the server counts
	Due   time.Time
}

// AtOnce is a wait that is over, whatever the clocks say.
func AtOnce(since time.Time) Wait { return Wait{Since: since, Due: time.Unix(1, 0)} }

// Delay stores rs to be delivered when they are due, as late as half a second after it. It returns nil once they are
// durable; until then it tries again, as long as ctx lasts and the connection is there. The caller acknowledges the
// records' block only afterwards.
func (c *Conn) Delay(ctx context.Context, k catalog.Key, w Wait, rs []record.Record) error {
	return c.store(ctx, dueSubject(k), rs, func(ctx context.Context, p piece, id string) error {
		return c.publish(ctx, scheduled(k, id, w, p.block), id)
	})
}

// DelayJob is Delay for one record, which Hasten finds by its id. It replaces a delay of the same record.
func (c *Conn) DelayJob(ctx context.Context, k catalog.Key, w Wait, r record.Record) error {
	return c.store(ctx, dueSubject(k), []record.Record{r}, func(ctx context.Context, p piece, id string) error {
		return c.publish(ctx, scheduled(k, r.ID.String(), w, p.block), id)
	})
}

// scheduled is a message that NATS stores anew, and so with another time, when it is due: a header says since when its
// records wait.
func scheduled(k catalog.Key, id string, w Wait, block []byte) *nats.Msg {
	return &nats.Msg{
		Subject: atSubject(k, id), Data: block,
		Header: nats.Header{
			headerSchedule:       {"@at " + w.Due.UTC().Format(time.RFC3339Nano)},
			headerScheduleTarget: {dueSubject(k)},
			headerSince:          {w.Since.UTC().Format(time.RFC3339Nano)},
		},
	}
}

// waitsSince is scheduled's since, or else when the message was stored.
func waitsSince(h nats.Header, stored time.Time) time.Time {
	if since, err := time.Parse(time.RFC3339Nano, h.Get(headerSince)); err == nil {
		return since
	}
	return stored
}

// DeadLetter stores rs, each with its Failure, in the dead-letter queue, like Delay. All died for the same reason.
func (c *Conn) DeadLetter(ctx context.Context, k catalog.Key, why Reason, rs []record.Record) error {
	return c.store(ctx, deadSubject(k), rs, func(ctx context.Context, p piece, id string) error {
		return c.publishDead(ctx, k, why, p.n, p.block, id)
	})
}

// store stores rs as one block or several, which publish writes, under an id that is the same for all tries of one. A record that is too large for the server,
// because it was stored when that took larger messages, holds the call up: it is tried again for as long as ctx lasts,
// and logged. It is not dropped, nor are functions called for it again and again.
// TestRecordTooLargeForServerIsHeld guards it.
func (c *Conn) store(ctx context.Context, subject string, rs []record.Record, publish func(ctx context.Context, p piece, id string) error) error {
	return c.eachPiece(rs, record.DefaultCodec, func(p piece) error {
		id, again := uuid.NewString(), unconfirmed
		if p.n == 1 {
			again = held(unconfirmed)
		}
		return c.until(ctx, subject, again, func() error { return publish(ctx, p, id) })
	})
}

// publishUntil publishes m, again and again under the same id, until it is durable, ctx ends or the
// connection is lost.
func (c *Conn) publishUntil(ctx context.Context, m *nats.Msg, id string) error {
	return c.until(ctx, m.Subject, held(unconfirmed), func() error { return c.publish(ctx, m, id) })
}

// unanswered reports whether a write may succeed in a moment.
func unanswered(err error) bool { return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrBusy) }

// unconfirmed reports whether a write may succeed at some time.
func unconfirmed(err error) bool {
	return unanswered(err) || errors.Is(err, ErrQueueFull) || errors.Is(err, ErrNoQueue)
}

// held is again, and waits too until the server takes larger messages.
func held(again func(error) bool) func(error) bool {
	return func(err error) bool { return again(err) || errors.Is(err, ErrTooLargeForServer) }
}

func (c *Conn) until(ctx context.Context, subject string, again func(error) bool, publish func() error) error {
	live := c.Live()
	for wait := publishBackoffMin; ; wait = min(2*wait, publishBackoffMax) {
		err := publish()
		if err == nil {
			return nil
		}
		if !again(err) || c.Ready() != nil || ctx.Err() != nil {
			return fmt.Errorf("publish to %s: %w", subject, err)
		}
		pause := wait
		if errors.Is(err, ErrTooLargeForServer) {
			pause = tooLargeRetry
			c.log.Error("a write is too large for NATS now; it is held until max_payload of the server is raised",
				"subject", subject, "max_payload", c.MaxPayload(), "in", pause, "error", err)
		} else {
			c.log.Warn("publishing again", "subject", subject, "in", wait, "error", err)
		}
		select {
		case <-time.After(pause):
		case <-live.Done():
			return fmt.Errorf("publish to %s: %w: %w", subject, ErrUnavailable, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
