package stream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
)

// DeadBlock is one message of a dead-letter queue. Err is set, and Records empty, when the block can't
// be read.
type DeadBlock struct {
	Seq     uint64
	Time    time.Time // when it was dead-lettered
	Records []record.Record
	Err     error
}

// DeadLetters walks the dead-letter queue of k, oldest first. It holds one block at a time.
func (c *Conn) DeadLetters(ctx context.Context, k catalog.Key) iter.Seq2[DeadBlock, error] {
	return func(yield func(DeadBlock, error) bool) {
		st, err := c.deadLetterStream(ctx, k)
		if err != nil {
			yield(DeadBlock{}, err)
			return
		}
		for seq := st.CachedInfo().State.FirstSeq; ; seq++ {
			b, err := c.deadBlock(ctx, st, k, seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if !yield(b, err) || err != nil {
				return
			}
			seq = b.Seq
		}
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
		return nil, fmt.Errorf("dead-letter queue of %s: %w", k, err)
	}
	return st, nil
}

// deadBlock returns the first block at seq or after it.
func (c *Conn) deadBlock(ctx context.Context, st jetstream.Stream, k catalog.Key, seq uint64) (DeadBlock, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	m, err := st.GetMsg(ctx, max(seq, 1), jetstream.WithGetMsgSubject(deadSubject(k)))
	if err != nil {
		return DeadBlock{}, fmt.Errorf("dead-letter queue of %s: message %d: %w", k, seq, err)
	}
	b := DeadBlock{Seq: m.Sequence, Time: m.Time}
	b.Records, b.Err = record.Decode(m.Data)
	return b, nil
}

// PurgeDead empties the dead-letter queue of k and returns how many records it held; a message that can't be
// read counts as one.
func (c *Conn) PurgeDead(ctx context.Context, k catalog.Key) (int, error) {
	st, err := c.deadLetterStream(ctx, k)
	if err != nil {
		return 0, err
	}
	n, last := 0, uint64(0)
	for b, err := range c.DeadLetters(ctx, k) {
		if err != nil {
			return 0, err
		}
		n, last = n+max(1, len(b.Records)), b.Seq
	}
	if last == 0 {
		return 0, nil
	}
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	if err := st.Purge(ctx, jetstream.WithPurgeSequence(last+1)); err != nil {
		return 0, fmt.Errorf("dead-letter queue of %s: purge: %w", k, err)
	}
	return n, nil
}

// redriveStep is how much of a second's worth of records a redrive writes at once.
const redriveStep = 100 * time.Millisecond

// Redrive moves the dead letters that are there now back into queue k, oldest first, as new records
// with no failures behind them, at most rate records a second (0: as fast as it goes). It calls
// progress with the number of records moved so far. One redrive of a queue runs at a time: another gets
// ErrLeaseHeld.
//
// A block is removed after all its records are durable in the queue. Cancelling ctx puts what is left
// of the present block back; after a crash that block is redriven again, which the records' ids make
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
	last := st.CachedInfo().State.LastSeq // what dies again meanwhile is for the next redrive
	moved, start := 0, time.Now()
	for b, err := range c.DeadLetters(ctx, k) {
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
					start, at = start.Add(late), at.Add(late) // after a stall the pace goes on, it doesn't catch up
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
			// Bounded: the dead-letter queue may be full, and of all things of the block that is to be split.
			// Then the whole block stays, and a part of it comes twice.
			pctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
			err := c.DeadLetter(pctx, k, left)
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

// redriveStep stores rs, the records of a dead block from number from on.
func (c *Conn) redriveStep(ctx context.Context, k catalog.Key, rs []record.Record, id string, from int) error {
	fresh := make([]record.Record, len(rs))
	for i, r := range rs {
		r.Attempts, r.Failure, r.Redriven = 0, nil, time.Now()
		fresh[i] = r
	}
	return c.eachPiece(fresh, record.DefaultCodec, func(p piece) error {
		m := &nats.Msg{Subject: queueSubject(k), Data: p.block}
		return c.until(ctx, m.Subject, unconfirmed, func() error {
			return c.publish(ctx, m, fmt.Sprintf("%s-%d-%d", id, from+p.from, p.n))
		})
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
