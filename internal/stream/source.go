package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
)

// prefetchBytes bounds what the client holds of each of the two streams ahead of the dispatcher. A
// larger pull can make the server cut the client as a slow consumer.
const prefetchBytes = 4 << 20

// pullExpiry is how long a pull request stays at the server. It is shorter than a lease: when an owner
// hangs without closing its connection, its requests are gone before the next owner resets the consumer,
// and catch none of the blocks that are the next owner's.
const pullExpiry = 5 * time.Second

// Source delivers the blocks of one queue: the fresh ones and those whose retry is due. There is one
// open source per queue; the owner of the mapping's lease has it.
type Source struct {
	conn   *Conn
	queue  catalog.Key
	out    chan *Delivery
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// Delivery is one block. It is settled by Ack, exactly once, after all its records are.
type Delivery struct {
	Records []record.Record
	Retry   bool // of the retry stream
	Seq     uint64
	msg     jetstream.Msg
}

// Ack settles the block. The acknowledgement is not itself confirmed: one that is lost with the
// connection means that the block is delivered again by the next source.
func (d *Delivery) Ack() error { return d.msg.Ack() }

// InProgress tells the server that the block is still being worked on.
func (d *Delivery) InProgress() error { return d.msg.InProgress() }

// OpenSource starts delivering queue k from the first block that is not settled: blocks that were in
// the hands of an earlier owner come again at once. It lives as long as the present connected period.
func (c *Conn) OpenSource(ctx context.Context, k catalog.Key) (*Source, error) {
	live := c.Live()
	if err := live.Err(); err != nil {
		return nil, ErrUnavailable
	}
	actx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	if err := c.ensureConsumers(actx, k); err != nil {
		return nil, err
	}
	s := &Source{conn: c, queue: k, out: make(chan *Delivery)}
	s.ctx, s.cancel = context.WithCancelCause(live)
	for _, name := range []string{queueStream(k), retryStream(k)} {
		// Without the reset, blocks of the earlier owner would wait for ackWait.
		if _, err := c.js.ResetConsumer(actx, name, consumerName); err != nil {
			s.Close()
			return nil, fmt.Errorf("queue %s: reset the consumer of %s: %w", k, name, err)
		}
		if err := s.pull(actx, name); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Deliveries is where blocks come. It is never closed; Done says when nothing more comes.
func (s *Source) Deliveries() <-chan *Delivery { return s.out }

// Done is closed when the source ended: by Close, by loss of the connection, or by an error.
func (s *Source) Done() <-chan struct{} { return s.ctx.Done() }

// Err says why the source ended; nil while it has not.
func (s *Source) Err() error { return context.Cause(s.ctx) }

// Close ends the source and waits for its goroutines. Unsettled blocks may still be acknowledged.
func (s *Source) Close() {
	s.cancel(ErrClosed)
	s.wg.Wait()
}

func (s *Source) pull(ctx context.Context, name string) error {
	consumer, err := s.conn.js.Consumer(ctx, name, consumerName)
	if err != nil {
		return fmt.Errorf("queue %s: %w", s.queue, err)
	}
	it, err := consumer.Messages(jetstream.PullMaxBytes(prefetchBytes), jetstream.PullExpiry(pullExpiry))
	if err != nil {
		return fmt.Errorf("queue %s: pull: %w", s.queue, err)
	}
	s.wg.Go(func() {
		defer it.Stop()
		for {
			msg, err := it.Next(jetstream.NextContext(s.ctx))
			if err != nil {
				if s.ctx.Err() == nil {
					s.cancel(fmt.Errorf("queue %s: pull: %w", s.queue, err))
				}
				return
			}
			d, err := s.delivery(msg, name == retryStream(s.queue))
			if err != nil {
				s.cancel(err)
				return
			}
			if d == nil {
				continue
			}
			select {
			case s.out <- d:
			case <-s.ctx.Done():
				return
			}
		}
	})
	return nil
}

// delivery decodes a message. One that can't be decoded is moved to the dead-letter queue as it is, and
// nil is returned.
func (s *Source) delivery(msg jetstream.Msg, retry bool) (*Delivery, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("queue %s: message without metadata: %w", s.queue, err)
	}
	rs, err := record.Decode(msg.Data())
	if err == nil {
		return &Delivery{Records: rs, Retry: retry, Seq: meta.Sequence.Stream, msg: msg}, nil
	}
	s.conn.log.Error("a block can't be read; it goes to the dead-letter queue as it is",
		"queue", s.queue.String(), "stream", meta.Stream, "sequence", meta.Sequence.Stream, "error", err)
	dead := &nats.Msg{Subject: deadSubject(s.queue), Data: msg.Data()}
	if err := s.conn.publishUntil(s.ctx, dead, uuid.NewString()); err != nil {
		return nil, err
	}
	if err := msg.Ack(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
		return nil, err
	}
	return nil, nil //nolint:nilnil // documented: nothing to deliver
}
