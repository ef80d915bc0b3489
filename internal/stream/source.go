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

// fetchBlocks is how many blocks one pull asks for. Nothing is pulled ahead of that: a block that was
// delivered but lay in a buffer of the client, unknown to its owner, would not be extended and would come
// twice after ackWait.
const fetchBlocks = 16

// pullExpiry is how long a pull request stays at the server. It is shorter than a lease: when an owner
// hangs without closing its connection, its requests are gone before the next owner resets the consumer,
// and catch none of the blocks that are the next owner's.
const pullExpiry = 5 * time.Second

// Sources is the reading side of queues, for who owns their leases.
type Sources interface {
	OpenSource(ctx context.Context, k catalog.Key) (*Source, error)
	PurgeSettled(ctx context.Context, k catalog.Key) error
	Oldest(ctx context.Context, k catalog.Key) (age time.Duration, newest uint64, ok bool, err error)
}

// Source delivers the blocks of one queue: the fresh ones and those whose retry is due. There is one
// open source per queue; the owner of the queue's lease has it. It pulls only as its owner gives it room.
type Source struct {
	conn  *Conn
	queue catalog.Key
	out   chan *Delivery
	room  chan struct{}
	idle  chan struct{} // closed when nothing more comes

	live   context.Context // the connected period
	ctx    context.Context // ends with live, with Close, or with an error
	cancel context.CancelCauseFunc
	pulls  context.Context // ends with ctx or with Stop
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu         sync.Mutex // the two pulls share what follows
	held       int        // blocks since complained
	complained time.Time  // when the log last said that blocks are held
}

// Delivery is one block. It is settled by Ack, exactly once, after all its records are.
type Delivery struct {
	Records []record.Record
	Retry   bool // of the retry stream
	Seq     uint64
	Since   time.Time // when the block began to wait here, by the server's clock (Conn.Now): the records' ages count until then
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
	s := &Source{conn: c, queue: k, out: make(chan *Delivery), room: make(chan struct{}), idle: make(chan struct{}), live: live}
	s.ctx, s.cancel = context.WithCancelCause(live)
	s.pulls, s.stop = context.WithCancel(s.ctx)
	var consumers [2]jetstream.Consumer
	for i, name := range []string{queueStream(k), retryStream(k)} {
		// Without the reset, blocks of an owner that died would wait for ackWait.
		_, err := c.js.ResetConsumer(actx, name, consumerName)
		if err == nil {
			if consumers[i], err = c.js.Consumer(actx, name, consumerName); err == nil {
				c.clock.set(consumers[i].CachedInfo().TimeStamp)
			}
		}
		if err != nil {
			s.stop()
			s.cancel(ErrClosed)
			return nil, fmt.Errorf("queue %s: consumer of %s: %w", k, name, err)
		}
	}
	for i, consumer := range consumers {
		s.wg.Go(func() { s.pull(consumer, i == 1) })
	}
	go func() {
		s.wg.Wait()
		close(s.idle)
	}()
	return s, nil
}

// Room takes a value for each pull that the owner has room for: fetchBlocks blocks at most.
func (s *Source) Room() chan<- struct{} { return s.room }

// Deliveries is where blocks come. It is never closed; Idle says when nothing more comes.
func (s *Source) Deliveries() <-chan *Delivery { return s.out }

// Done is closed when the source ended: by Close, by loss of the connection, or by an error.
func (s *Source) Done() <-chan struct{} { return s.ctx.Done() }

// Err says why the source ended; nil while it has not.
func (s *Source) Err() error { return context.Cause(s.ctx) }

// Live reports whether deliveries can still be acknowledged.
func (s *Source) Live() bool { return s.live.Err() == nil }

// Stop ends pulling. What has been pulled is still delivered; then Idle is closed.
func (s *Source) Stop() { s.stop() }

// Idle is closed when nothing more comes.
func (s *Source) Idle() <-chan struct{} { return s.idle }

// Close ends the source and waits for its goroutines. Unsettled blocks may still be acknowledged.
func (s *Source) Close() {
	s.cancel(ErrClosed)
	s.stop()
	<-s.idle
}

func (s *Source) pull(consumer jetstream.Consumer, retry bool) {
	for {
		select {
		case <-s.room:
		case <-s.pulls.Done():
			return
		}
		if err := s.fetch(consumer, retry); err != nil {
			s.cancel(fmt.Errorf("queue %s: pull: %w", s.queue, err))
			return
		}
	}
}

// fetch pulls once. Blocks are delivered as they come, not when the pull is complete.
func (s *Source) fetch(consumer jetstream.Consumer, retry bool) error {
	ctx, cancel := context.WithTimeout(s.pulls, pullExpiry)
	defer cancel()
	blocks, err := consumer.Fetch(fetchBlocks, jetstream.FetchContext(ctx))
	if err != nil {
		if s.pulls.Err() != nil {
			return nil
		}
		return err
	}
	for msg := range blocks.Messages() {
		d, err := s.delivery(msg, retry)
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		select {
		case s.out <- d:
		case <-s.ctx.Done():
			return nil
		}
	}
	if err := blocks.Error(); err != nil && ctx.Err() == nil && !errors.Is(err, nats.ErrTimeout) {
		return err
	}
	return nil
}

// holdDelay is after how long a block that only a later version can read is looked at again.
const holdDelay = 10 * time.Second

// delivery decodes a message. One that no version can decode is moved to the dead-letter queue as it is; one that a later
// version can is left in the queue. nil is returned for both.
func (s *Source) delivery(msg jetstream.Msg, retry bool) (*Delivery, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("queue %s: message without metadata: %w", s.queue, err)
	}
	rs, err := record.Decode(msg.Data())
	if err == nil {
		s.conn.clock.notBefore(meta.Timestamp)
		return &Delivery{Records: rs, Retry: retry, Seq: meta.Sequence.Stream, Since: waitsSince(msg.Headers(), meta.Timestamp), msg: msg}, nil
	}
	if errors.Is(err, record.ErrUnsupported) {
		s.complain(meta, err)
		return nil, s.hold(msg, meta, retry)
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

// complain says that blocks are held, once in holdDelay: there may be many.
func (s *Source) complain(meta *jetstream.MsgMetadata, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held++
	if time.Since(s.complained) < holdDelay {
		return
	}
	s.conn.log.Error("blocks are held: a later version of Weir has written them; update this dispatcher",
		"queue", s.queue.String(), "blocks", s.held, "stream", meta.Stream, "sequence", meta.Sequence.Stream, "again", holdDelay, "error", err)
	s.held, s.complained = 0, time.Now()
}

// hold leaves a block in the queue as it is, for a version that can read it. It waits among the retries: in the queue's
// own stream it would keep the acknowledgement floor down, and what was settled behind it would come again to each
// owner.
func (s *Source) hold(msg jetstream.Msg, meta *jetstream.MsgMetadata, retry bool) error {
	if retry {
		if err := msg.NakWithDelay(holdDelay); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return err
		}
		return nil
	}
	id := uuid.NewString()
	if err := s.conn.publishUntil(s.ctx, scheduled(s.queue, id, s.conn.Now().Add(holdDelay), meta.Timestamp, msg.Data()), id); err != nil {
		return err
	}
	if err := msg.Ack(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
		return err
	}
	return nil
}

// PurgeSettled removes what is below the acknowledgement floor. It costs one operation however many
// messages there are. The floor is the last settled message before the first unsettled one.
func (c *Conn) PurgeSettled(ctx context.Context, k catalog.Key) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	consumer, err := c.js.Consumer(ctx, queueStream(k), consumerName)
	if err != nil {
		return fmt.Errorf("queue %s: %w", k, err)
	}
	st, err := c.js.Stream(ctx, queueStream(k))
	if err != nil {
		return fmt.Errorf("queue %s: %w", k, err)
	}
	floor := consumer.CachedInfo().AckFloor.Stream
	if s := st.CachedInfo().State; s.Msgs == 0 || floor < s.FirstSeq {
		return nil
	}
	if err := st.Purge(ctx, jetstream.WithPurgeSequence(floor+1)); err != nil {
		return fmt.Errorf("queue %s: purge: %w", k, err)
	}
	return nil
}

// Oldest says since when the oldest block of queue k that was not purged is there, by the server's clock alone, and the
// sequence of the newest. ok is false when the queue holds none, or has no stream.
func (c *Conn) Oldest(ctx context.Context, k catalog.Key) (age time.Duration, newest uint64, ok bool, err error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	st, err := c.js.Stream(ctx, queueStream(k))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("queue %s: %w", k, c.apiError(ctx, err))
	}
	info := st.CachedInfo()
	return info.TimeStamp.Sub(info.State.FirstTime), info.State.LastSeq, info.State.Msgs > 0, nil
}
