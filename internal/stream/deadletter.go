package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
)

// DeadBlock is one message of a dead-letter queue. Err is set, and Records empty, when the block can't
// be read.
type DeadBlock struct {
	Seq     uint64
	Time    time.Time // when it was dead-lettered
	Why     Reason
	Records []record.Record
	Err     error
	More    bool // there was a block after it when it was read
}

// Bounds of one read of a dead-letter queue: it ends with the block that goes past the bytes.
const (
	deadBatch      = 64
	deadBatchBytes = 4 << 20
)

// DeadLetterQueues is what operators do with dead letters.
type DeadLetterQueues interface {
	DeadLetters(ctx context.Context, k catalog.Key) iter.Seq2[DeadBlock, error]
	DeadLettersFrom(ctx context.Context, k catalog.Key, seq uint64, most int) iter.Seq2[DeadBlock, error]
	PurgeDead(ctx context.Context, k catalog.Key) (uint64, error)
	Redrive(ctx context.Context, k catalog.Key, rate int, progress func(moved int)) error
}

// DeadLetters walks the dead-letter queue of k, oldest first.
func (c *Conn) DeadLetters(ctx context.Context, k catalog.Key) iter.Seq2[DeadBlock, error] {
	return c.DeadLettersFrom(ctx, k, 0, deadBatch)
}

// DeadLettersFrom walks it from the block of sequence seq on, or the first one after it. It reads at most so many (most)
// blocks at a time, and holds no more.
func (c *Conn) DeadLettersFrom(ctx context.Context, k catalog.Key, seq uint64, most int) iter.Seq2[DeadBlock, error] {
	return func(yield func(DeadBlock, error) bool) {
		st, err := c.deadLetterStream(ctx, k)
		if err != nil {
			yield(DeadBlock{}, err)
			return
		}
		for next, more := max(seq, st.CachedInfo().State.FirstSeq, 1), true; more; {
			messages, err := c.batch(ctx, deadStream(k), next, min(most, deadBatch), deadBatchBytes)
			if err != nil {
				yield(DeadBlock{}, fmt.Errorf("dead-letter queue of %s: from message %d: %w", k, next, err))
				return
			}
			more = false
			for i, m := range messages {
				b := DeadBlock{Seq: m.seq, Time: m.stored, Why: reasonOf(m.header.Get(jetstream.SubjectHeader))}
				next, more = m.seq+1, m.header.Get(headerNumPending) != "0"
				b.Records, b.Err = record.Decode(m.data)
				b.More = more || i < len(messages)-1
				if !yield(b, nil) {
					return
				}
			}
		}
	}
}

// headerNumPending of an answer says how many messages there are after it.
const headerNumPending = "Nats-Num-Pending"

// batch reads at most n messages of a stream from seq on: one request and as many answers (nats-server, ADR-31). It ends
// earlier with the message that goes past the bytes.
func (c *Conn) batch(ctx context.Context, stream string, seq uint64, n, bytes int) ([]stored, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	request, err := json.Marshal(struct {
		Seq      uint64 `json:"seq"`
		Batch    int    `json:"batch"`
		MaxBytes int    `json:"max_bytes"`
	}{seq, n, bytes})
	if err != nil {
		return nil, err
	}
	answers := make(chan *nats.Msg, n+1) // room for all of them: none is dropped
	inbox := c.nc.NewInbox()
	sub, err := c.nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return nil, c.apiError(ctx, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := c.nc.PublishRequest(jetstream.DefaultAPIPrefix+"DIRECT.GET."+stream, inbox, request); err != nil {
		return nil, c.apiError(ctx, err)
	}
	var out []stored
	for {
		var m *nats.Msg
		select {
		case m = <-answers:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404": // the end, or there are none
			return out, nil
		default: // 503 without responders: the stream has no leader
			return nil, fmt.Errorf("%w: %s %s", ErrUnavailable, status, m.Header.Get("Description"))
		}
		seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: a message without a sequence: %w", ErrUnavailable, err)
		}
		at, err := time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
		if err != nil {
			return nil, fmt.Errorf("%w: a message without a time: %w", ErrUnavailable, err)
		}
		out = append(out, stored{m.Header, m.Data, seq, at})
	}
}

func (c *Conn) deadLetterStream(ctx context.Context, k catalog.Key) (jetstream.Stream, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	st, err := c.js.Stream(ctx, deadStream(k))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNoQueue, k)
	}
	if err != nil {
		return nil, fmt.Errorf("dead-letter queue of %s: %w", k, c.apiError(ctx, err))
	}
	return st, nil
}

// PurgeDead removes what the dead-letter queue of k holds now, but not what is added meanwhile. It returns how many
// messages those were, by the server's count: each holds one dead letter or several, which only reading them would tell.
func (c *Conn) PurgeDead(ctx context.Context, k catalog.Key) (uint64, error) {
	st, err := c.deadLetterStream(ctx, k)
	if err != nil {
		return 0, err
	}
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	request, err := json.Marshal(struct {
		Below uint64 `json:"seq"`
	}{st.CachedInfo().State.LastSeq + 1})
	if err != nil {
		return 0, err
	}
	var answer struct {
		Error  *jetstream.APIError `json:"error"`
		Purged uint64              `json:"purged"`
	}
	// The client's own Purge doesn't return the count.
	err = c.ask(ctx, "STREAM.PURGE."+deadStream(k), request, &answer)
	if err == nil && answer.Error != nil {
		err = c.apiError(ctx, answer.Error)
	}
	if err != nil {
		return 0, fmt.Errorf("dead-letter queue of %s: purge: %w", k, err)
	}
	return answer.Purged, nil
}

// redriveStep is the interval whose share of the rate a redrive writes at once.
const redriveStep = 100 * time.Millisecond

// Redrive moves the dead letters that are there now back into queue k, oldest first, as new records
// with no failures behind them, at most rate records a second (zero means no limit). It calls progress
// with the number of records moved so far. One redrive of a queue runs at a time: another gets
// ErrLeaseHeld.
//
// A block is removed after all its records are durable in the queue. Cancelling ctx puts what is left
// of the current block back; after a crash that block is redriven again, which the records' ids make
// harmless. So a redrive resumes by running it again.
func (c *Conn) Redrive(ctx context.Context, k catalog.Key, rate int, progress func(moved int)) error {
	lease, err := c.TryLease(ctx, "redrive."+k.Namespace+"."+k.Name, uuid.NewString())
	if err != nil {
		return err
	}
	defer lease.Release()
	st, err := c.deadLetterStream(ctx, k)
	if err != nil {
		return err
	}
	last := st.CachedInfo().State.LastSeq // what is dead-lettered meanwhile is left to the next redrive
	moved, start := 0, time.Now()
	for b, err := range c.DeadLettersFrom(ctx, k, 0, 1) { // one at a time: what is purged meanwhile is not moved
		if err != nil {
			return err
		}
		if b.Seq > last {
			return nil
		}
		if b.Err != nil {
			c.log.Error("a dead block can't be read and stays", "queue", k.String(), "sequence", b.Seq, "error", b.Err)
			continue
		}
		if ok, err := c.storable(b.Records, record.DefaultCodec); !ok {
			c.log.Error("a dead block holds a record that is larger than NATS takes now; all of it stays until max_payload of the server is raised",
				"queue", k.String(), "sequence", b.Seq, "max_payload", c.MaxPayload(), "error", err)
			continue
		}
		left := b.Records
		for len(left) > 0 {
			if err := lease.Context().Err(); err != nil {
				return ErrLeaseLost
			}
			n := len(left)
			if rate > 0 {
				n = min(n, max(1, int(float64(rate)*redriveStep.Seconds())))
				at := start.Add(time.Duration(float64(moved) / float64(rate) * float64(time.Second)))
				if late := time.Since(at); late > redriveStep {
					start, at = start.Add(late), at.Add(late) // after a stall it doesn't catch up
				}
				select {
				case <-time.After(time.Until(at)):
				case <-ctx.Done():
				}
			}
			if ctx.Err() != nil {
				break
			}
			// The id makes a step that is repeated soon after a crash harmless. It holds all that says what
			// is in the step: another step under the same id would be dropped as a duplicate, and lost.
			// TestRedriveAgainAtAnotherRate guards it.
			if err := c.redriveStep(ctx, k, left[:n], fmt.Sprintf("redrive-%d", b.Seq), len(b.Records)-len(left)); err != nil {
				return err
			}
			left, moved = left[n:], moved+n
			progress(moved)
		}
		if len(left) == len(b.Records) {
			return context.Cause(ctx)
		}
		if len(left) > 0 {
			// Bounded: the dead-letter queue may be full, just because of the block that is to be split.
			// Then the whole block stays, and what was moved of it becomes a duplicate.
			pctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
			err := c.DeadLetter(pctx, k, b.Why, left)
			cancel()
			if err != nil {
				return errors.Join(context.Cause(ctx), err)
			}
		}
		if err := c.removeDead(context.WithoutCancel(ctx), st, b.Seq); err != nil {
			return err
		}
		if len(left) > 0 {
			return context.Cause(ctx)
		}
	}
	return nil
}

// redriveStep stores rs, the records of a dead block from number from on. Each that is sampled has a span of it in its own
// trace.
func (c *Conn) redriveStep(ctx context.Context, k catalog.Key, rs []record.Record, id string, from int) error {
	fresh := make([]record.Record, len(rs))
	for i, r := range rs {
		r.Redrive()
		fresh[i] = r
	}
	end := c.redriven(ctx, k, fresh)
	err := c.eachPiece(fresh, record.DefaultCodec, func(p piece) error {
		return c.until(ctx, queueSubject(k), unconfirmed, func() error {
			return c.publishBlock(ctx, k, p.n, p.block, fmt.Sprintf("%s-%d-%d", id, from+p.from, p.n))
		})
	})
	end(err)
	return err
}

// redriven starts the spans of rs, which end with the returned function.
func (c *Conn) redriven(ctx context.Context, k catalog.Key, rs []record.Record) func(error) {
	return telemetry.Each(ctx, c.metrics.tracer, "redrive "+k.String(), len(rs), func(i int) telemetry.Message {
		r := &rs[i]
		return telemetry.Message{TraceParent: r.TraceParent, TraceState: r.TraceState, Attributes: func() []attribute.KeyValue {
			return []attribute.KeyValue{
				semconv.MessagingSystemKey.String("weir"), semconv.MessagingOperationTypeSend, semconv.MessagingOperationName("redrive"),
				semconv.MessagingDestinationName(k.String()), attribute.String("weir.record.id", r.ID.String()), attribute.Int("weir.record.redrives", r.Redrives),
			}
		}}
	})
}

func (c *Conn) removeDead(ctx context.Context, st jetstream.Stream, seq uint64) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	if err := st.DeleteMsg(ctx, seq); err != nil {
		return fmt.Errorf("dead-letter queue: remove message %d: %w", seq, err)
	}
	return nil
}
