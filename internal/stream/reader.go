package stream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
)

// MaxPull is how many blocks one pull asks for at most. Nothing is prefetched beyond that: a block that was
// delivered but lay in a buffer of the client, unknown to its owner, would not be extended and would be
// redelivered after ackWait.
const MaxPull = 16

// BlockBytes is what one block of a pull may hold in memory until its owner has it: as many bytes decoded, or a little
// more before.
const BlockBytes = record.MaxBlockBytes

// pullExpiry is how long a pull request stays at the server. It is shorter than a lease: when an owner
// hangs without closing its connection, its requests are gone before the next owner resets the consumer,
// and take none of the next owner's blocks.
const pullExpiry = 5 * time.Second

// Readers is the reading side of queues, for the owners of their leases.
type Readers interface {
	OpenReader(ctx context.Context, k catalog.Key) (*Reader, error)
	OpenReaderWithoutRetries(ctx context.Context, k catalog.Key) (*Reader, error)
	PurgeSettled(ctx context.Context, k catalog.Key) (floor uint64, err error)
	Oldest(ctx context.Context, k catalog.Key) (age time.Duration, newest uint64, ok bool, err error)
}

// Reader delivers the blocks of one queue: the fresh ones and those whose retry is due. There is one
// open reader per queue; the owner of the queue's lease has it. It pulls only as its owner lets it.
type Reader struct {
	conn  *Conn
	queue catalog.Key
	out   chan *Delivery
	asks  chan Pull
	idle  chan struct{} // closed when nothing more comes

	live   context.Context // the connected period
	ctx    context.Context // ends with live, with Close, or with an error
	cancel context.CancelCauseFunc
	pulls  context.Context // ends with ctx or with Stop
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu         sync.Mutex // the two pulls share what follows
	held       int        // blocks held since complained
	complained time.Time  // when it was last logged that blocks are held
}

// Pull is a reader's question whether it may pull. There are two at most at a time: of the fresh blocks and of the retries.
type Pull struct {
	// Backlog is how many blocks are known to wait at the server, at most MaxPull: they would come at once. With zero
	// the pull waits for what comes: one block or, where they were small of late, as many of those as make BlockBytes.
	Backlog int

	leave chan<- leave
	over  <-chan struct{}
}

// leave is the answer to a Pull.
type leave struct {
	blocks int
	ended  func()
}

// Begin lets the reader pull so many blocks at most, once. ended, unless it is nil, is called when all that comes of them
// has been delivered. It returns false if the reader pulls no more.
func (p Pull) Begin(blocks int, ended func()) bool {
	select {
	case p.leave <- leave{blocks, ended}:
		return true
	case <-p.over:
		return false
	}
}

// Delivery is one block. It is settled by Ack, exactly once, after all its records are. It holds nothing of the message that
// it came in, which may be as large as the records.
type Delivery struct {
	Records []record.Record
	Moved   int  // instead of Records: how many of a block that can't be read and was stored elsewhere
	Retry   bool // from the retry stream
	Seq     uint64
	Since   time.Time // when the block began to wait here, by the server's clock (Conn.Now): the records' ages count until then
	reply   string    // the subject of its acknowledgements
	nc      *nats.Conn
}

// Ack settles the block. The ack is not itself confirmed: if it is lost with the connection, the block is
// redelivered to the next reader.
func (d *Delivery) Ack() error { return d.nc.Publish(d.reply, []byte("+ACK")) }

// InProgress tells the server that the block is still being worked on.
func (d *Delivery) InProgress() error { return d.nc.Publish(d.reply, []byte("+WPI")) }

// GiveUp has the block delivered again at once, to the consumer's present owner: else it would wait for ackWait.
func (d *Delivery) GiveUp() error { return d.nc.Publish(d.reply, []byte("-NAK")) }

// OpenReader starts delivering queue k from the first block that is not settled: blocks that were in
// the hands of an earlier owner are redelivered at once. It lives as long as the present connected period.
func (c *Conn) OpenReader(ctx context.Context, k catalog.Key) (*Reader, error) {
	return c.openReader(ctx, k, queueStream(k), retryStream(k))
}

// OpenReaderWithoutRetries is OpenReader for who calls no function: nothing of the retries is delivered, or moved.
func (c *Conn) OpenReaderWithoutRetries(ctx context.Context, k catalog.Key) (*Reader, error) {
	return c.openReader(ctx, k, queueStream(k))
}

func (c *Conn) openReader(ctx context.Context, k catalog.Key, streams ...string) (*Reader, error) {
	live := c.Live()
	if err := live.Err(); err != nil {
		return nil, ErrUnavailable
	}
	actx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	if err := c.ensureConsumers(actx, k); err != nil {
		return nil, err
	}
	r := &Reader{conn: c, queue: k, out: make(chan *Delivery), asks: make(chan Pull), idle: make(chan struct{}), live: live}
	r.ctx, r.cancel = context.WithCancelCause(live)
	r.pulls, r.stop = context.WithCancel(r.ctx)
	consumers := make([]jetstream.Consumer, len(streams))
	for i, name := range streams {
		// Without the reset, blocks of an owner that died would wait for ackWait.
		_, err := c.js.ResetConsumer(actx, name, consumerName)
		if err == nil {
			if consumers[i], err = c.js.Consumer(actx, name, consumerName); err == nil {
				c.clock.set(consumers[i].CachedInfo().TimeStamp)
			}
		}
		if err != nil {
			r.stop()
			r.cancel(ErrClosed)
			return nil, fmt.Errorf("queue %s: consumer of %s: %w", k, name, err)
		}
	}
	for i, consumer := range consumers {
		r.wg.Go(func() { r.pull(consumer, streams[i] == retryStream(k)) })
	}
	go func() {
		r.wg.Wait()
		close(r.idle)
	}()
	return r, nil
}

// Pulls is where the reader asks. What it has asked may be answered later.
func (r *Reader) Pulls() <-chan Pull { return r.asks }

// Deliveries is where blocks come. It is never closed; Idle says when nothing more comes.
func (r *Reader) Deliveries() <-chan *Delivery { return r.out }

// Done is closed when the reader ended: by Close, by loss of the connection, or by an error.
func (r *Reader) Done() <-chan struct{} { return r.ctx.Done() }

// Err says why the reader ended; nil while it has not.
func (r *Reader) Err() error { return context.Cause(r.ctx) }

// Live reports whether deliveries can still be acknowledged.
func (r *Reader) Live() bool { return r.live.Err() == nil }

// Stop ends pulling. What has been pulled is still delivered; then Idle is closed.
func (r *Reader) Stop() { r.stop() }

// Idle is closed when nothing more comes.
func (r *Reader) Idle() <-chan struct{} { return r.idle }

// Close ends the reader and waits for its goroutines. Unsettled blocks may still be acknowledged.
func (r *Reader) Close() {
	r.cancel(ErrClosed)
	r.stop()
	<-r.idle
}

func (r *Reader) pull(consumer jetstream.Consumer, retry bool) {
	leaves := make(chan leave)
	last := seen{largest: BlockBytes}
	for {
		select {
		case r.asks <- Pull{Backlog: last.backlog, leave: leaves, over: r.pulls.Done()}:
		case <-r.pulls.Done():
			return
		}
		var l leave
		select {
		case l = <-leaves:
		case <-r.pulls.Done():
			return
		}
		err := r.fetch(consumer, retry, l.blocks, &last)
		if l.ended != nil {
			l.ended()
		}
		if err != nil {
			r.cancel(fmt.Errorf("queue %s: pull: %w", r.queue, err))
			return
		}
	}
}

// seen is what is known of a consumer's blocks from the last pull.
type seen struct {
	backlog int // how many wait at the server, at most MaxPull
	largest int // bytes of the largest one, decoded, of the last pull that brought any
}

// ask is how many blocks a pull asks for that may bring so many.
func (s *seen) ask(most int) int {
	if s.backlog > 0 {
		return max(1, min(most, s.backlog))
	}
	return max(1, min(most, MaxPull, BlockBytes/s.largest))
}

// fetch pulls once. Blocks are delivered as they come, not when the pull is complete.
func (r *Reader) fetch(consumer jetstream.Consumer, retry bool, most int, last *seen) error {
	ctx, cancel := context.WithTimeout(r.pulls, pullExpiry)
	defer cancel()
	// Without a bound of bytes: of a replicated consumer the server says that a pull with one is complete before it has sent the
	// last message, which the client then doesn't wait for (findings/nats-max-bytes-replicated.sh).
	blocks, err := consumer.Fetch(last.ask(most), jetstream.FetchContext(ctx))
	if err != nil {
		if r.pulls.Err() != nil {
			return nil
		}
		return err
	}
	last.backlog = 0
	largest := 1
	for msg := range blocks.Messages() {
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("queue %s: message without metadata: %w", r.queue, err)
		}
		last.backlog = int(min(meta.NumPending, MaxPull))
		d, err := r.delivery(msg, meta, retry)
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		size := 1
		for i := range d.Records {
			size += d.Records[i].Size()
		}
		largest = max(largest, size)
		last.largest = largest
		select {
		case r.out <- d:
		case <-r.ctx.Done():
			return nil
		}
	}
	if err := blocks.Error(); err != nil && ctx.Err() == nil && !errors.Is(err, nats.ErrTimeout) {
		return err
	}
	return nil
}

// holdDelay is after how long a block that only a later version can read is tried again.
const holdDelay = 10 * time.Second

// delivery decodes a message. One that no version can decode is moved to the dead-letter queue as it is; one that a later
// version can is moved to the retries. Of both there is a delivery without records, for the owner to settle. One of the retries
// that a later version can decode stays there: nil.
func (r *Reader) delivery(msg jetstream.Msg, meta *jetstream.MsgMetadata, retry bool) (*Delivery, error) {
	rs, err := record.Decode(msg.Data())
	if err == nil {
		r.conn.clock.notBefore(meta.Timestamp)
		return &Delivery{Records: rs, Retry: retry, Seq: meta.Sequence.Stream, Since: waitsSince(msg.Headers(), meta.Timestamp), reply: msg.Reply(), nc: r.conn.nc}, nil
	}
	n := recordsOf(msg.Subject())
	moved := &Delivery{Moved: n, Retry: retry, Seq: meta.Sequence.Stream, reply: msg.Reply(), nc: r.conn.nc}
	if errors.Is(err, record.ErrUnsupported) {
		r.complain(meta, err)
		if retry {
			moved = nil
		}
		return moved, r.hold(msg, meta, retry)
	}
	r.conn.log.Error("a block can't be read; it goes to the dead-letter queue as it is",
		"queue", r.queue.String(), "stream", meta.Stream, "sequence", meta.Sequence.Stream, "error", err)
	id := movedID(meta, msg.Data())
	err = r.conn.until(r.ctx, deadSubject(r.queue), held(unconfirmed), func() error {
		return r.conn.publishDead(r.ctx, r.queue, Unreadable, n, msg.Data(), id)
	})
	if err != nil {
		return nil, err
	}
	return moved, nil
}

// movedID is the message id of a block that is stored elsewhere as it is. It follows from the block: whoever gets it again
// because its acknowledgement is missing stores it under the same id, which the server drops. That the block is the same is
// said by its bytes, since sequences begin anew when a queue is deleted and made again.
func movedID(meta *jetstream.MsgMetadata, block []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %d ", meta.Stream, meta.Sequence.Stream, meta.Timestamp.UnixNano())
	_, _ = h.Write(block)
	return "moved-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// complain logs that blocks are held, once in holdDelay: there may be many.
func (r *Reader) complain(meta *jetstream.MsgMetadata, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held++
	if time.Since(r.complained) < holdDelay {
		return
	}
	r.conn.log.Error("blocks are held: a later version of Weir has written them; update this dispatcher",
		"queue", r.queue.String(), "blocks", r.held, "stream", meta.Stream, "sequence", meta.Sequence.Stream, "again", holdDelay, "error", err)
	r.held, r.complained = 0, time.Now()
}

// hold keeps a block as it is, for a version that can read it. It waits among the retries: in the queue's own stream it
// would hold down the ack floor, and what was settled behind it would be redelivered to each new owner.
func (r *Reader) hold(msg jetstream.Msg, meta *jetstream.MsgMetadata, retry bool) error {
	if retry {
		if err := msg.NakWithDelay(holdDelay); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return err
		}
		return nil
	}
	id := movedID(meta, msg.Data())
	return r.conn.publishUntil(r.ctx, scheduled(r.queue, id, Wait{Since: meta.Timestamp, Due: r.conn.Now().Add(holdDelay)}, msg.Data()), id)
}

// PurgeSettled removes the messages up to the ack floor, the last settled one before the first unsettled one, and returns
// the sequence up to which there are none now. It costs one operation however many messages there are.
func (c *Conn) PurgeSettled(ctx context.Context, k catalog.Key) (floor uint64, err error) {
	if floor, err = c.purgeSettled(ctx, queueStream(k)); err != nil {
		return 0, fmt.Errorf("queue %s: purge: %w", k, err)
	}
	return floor, nil
}

func (c *Conn) purgeSettled(ctx context.Context, name string) (floor uint64, err error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	consumer, err := c.js.Consumer(ctx, name, consumerName)
	if err != nil {
		return 0, err
	}
	st, err := c.js.Stream(ctx, name)
	if err != nil {
		return 0, err
	}
	floor = consumer.CachedInfo().AckFloor.Stream
	if s := st.CachedInfo().State; s.Msgs == 0 || floor < s.FirstSeq {
		return max(floor, s.FirstSeq-min(1, s.FirstSeq)), nil // the first of an empty stream is the next
	}
	return floor, st.Purge(ctx, jetstream.WithPurgeSequence(floor+1))
}

// Oldest returns the age of the oldest block of queue k that was not purged, by the server's clock alone, and the
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
