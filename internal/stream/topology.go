package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
)

// A queue is three streams, or six, so that each can have the retention that it needs:
//
//	WEIR_Q_ns_name  weir.q.ns.name.n.N      blocks of N records, as the gateway wrote them. Limits retention
//	                weir.q.ns.name.ID       (removing messages one by one costs a sync each), discard new when full,
//	                weir.q.ns.name          purged below the ack floor. Those with an ID hold one record,
//	                                        stored as the only one of this id (AppendOnce); those of the version
//	                                        before don't say how many.
//	WEIR_R_ns_name  weir.r.ns.name.at.ID    blocks to be retried at a later time (message schedules),
//	                weir.r.ns.name.due      which the server moves here when they are due. A stream with
//	                                        schedules can't discard new, hence a stream of its own.
//	WEIR_D_ns_name  weir.d.ns.name.WHY.N    dead letters: blocks of N records that died for the same reason.
//	                weir.d.ns.name          Those of the version before.
//	WEIR_L_ns_name  weir.l.ns.name          blocks of changes of the states of jobs, of queues with job routes (ledger.go).
//	WEIR_S_ns_name  weir.s.ns.name.C.ID     the last state of each job, made of these (states.go); republished here once
//	                weir.e.ns.name.C.ID     it is stored. C is the client, or "-". Two more messages are the stream's
//	                                        epoch, see epoch.go, and since when it is whole.
//	WEIR_O_ns_name  objects of those queues, see objects.go.
//
// Names of resources are DNS labels: they hold no dot and no underscore, so these names are unambiguous.
const (
	consumerName    = "dispatcher"
	duplicateWindow = 2 * time.Minute
	apiTimeout      = 5 * time.Second

	// ackWait is how long a delivered block may go without an ack; a dispatcher that works on it extends
	// that every ackWait/3. A new owner does not wait for it: it resets the consumer.
	ackWait = time.Minute
	// maxFollowers bounds the clients with feeds that follow a queue's jobs at a time. The server's own default is 1,000.
	maxFollowers = 50_000
	// maxAckPending bounds the blocks in dispatchers' hands. Under light load a block is one record.
	maxAckPending = 16384
)

// ErrNoRoom means that the server or cluster can't take a queue of this size or number of replicas: it reserves
// maxBytes for the queue and as much for its dead letters. What was changed for it was undone.
var ErrNoRoom = errors.New("stream: NATS can't take the queue")

// Error codes of the NATS server (server/errors.json) that have no name in nats.go.
const (
	codeNoSuitablePeers       = 10005 // fewer servers with room than replicas
	codeInsufficientResources = 10023
	codeStorageExceeded       = 10047
	codeReplicasUnsupported   = 10074 // more than one replica at a server that is in no cluster
)

func queueStream(k catalog.Key) string  { return "WEIR_Q_" + k.Namespace + "_" + k.Name }
func retryStream(k catalog.Key) string  { return "WEIR_R_" + k.Namespace + "_" + k.Name }
func deadStream(k catalog.Key) string   { return "WEIR_D_" + k.Namespace + "_" + k.Name }
func queueSubject(k catalog.Key) string { return "weir.q." + k.Namespace + "." + k.Name }
func onceSubject(k catalog.Key, id record.ID) string {
	return queueSubject(k) + "." + id.String()
}

// countedSubject is that of a block of n records: the server counts messages by subject, and so records (depth.go).
func countedSubject(k catalog.Key, n int) string { return queueSubject(k) + ".n." + strconv.Itoa(n) }

func diedSubject(k catalog.Key, why Reason, n int) string {
	return deadSubject(k) + "." + string(why) + "." + strconv.Itoa(n)
}
func dueSubject(k catalog.Key) string  { return "weir.r." + k.Namespace + "." + k.Name + ".due" }
func deadSubject(k catalog.Key) string { return "weir.d." + k.Namespace + "." + k.Name }
func atSubject(k catalog.Key, id string) string {
	return "weir.r." + k.Namespace + "." + k.Name + ".at." + id
}

// Queues creates, closes and deletes queues.
type Queues interface {
	EnsureQueue(ctx context.Context, q catalog.Queue, replicas int) error
	CloseQueue(ctx context.Context, k catalog.Key) error
	DeleteQueue(ctx context.Context, k catalog.Key) error
	Status(ctx context.Context, k catalog.Key) (QueueStatus, error)
}

// EnsureQueue creates or updates the streams and consumers of q. replicas is 1 or 3 or 5. Objects.MaxBytes is zero if
// its objects are not kept in NATS.
func (c *Conn) EnsureQueue(ctx context.Context, q catalog.Queue, replicas int) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	base := streamOf(q.Key, replicas)
	main := base
	main.Name, main.Subjects = queueStream(q.Key), []string{queueSubject(q.Key), queueSubject(q.Key) + ".*", queueSubject(q.Key) + ".n.*"}
	main.Retention, main.Discard = jetstream.LimitsPolicy, jetstream.DiscardNew
	main.MaxBytes = q.MaxBytes // no MaxAge: the server would remove records silently; dispatchers dead-letter what is older

	retry := base
	retry.Name, retry.Subjects = retryStream(q.Key), []string{dueSubject(q.Key), atSubject(q.Key, "*")}
	retry.Retention = jetstream.WorkQueuePolicy // no MaxAge: a failed record ends in the dead-letter queue, never by itself
	retry.AllowMsgSchedules, retry.AllowRollup = true, true

	dead := base
	dead.Name, dead.Subjects = deadStream(q.Key), []string{deadSubject(q.Key), deadSubject(q.Key) + ".*.*"}
	dead.Retention, dead.Discard = jetstream.LimitsPolicy, jetstream.DiscardNew
	dead.MaxBytes, dead.MaxAge = q.MaxBytes, q.DeadLetterMaxAge

	streams := []jetstream.StreamConfig{dead, retry, main}
	if q.Jobs {
		streams = slices.Insert(streams, 0, c.ledgerConfigs(q, base)...)
		if q.Objects.MaxBytes > 0 {
			streams = slices.Insert(streams, 0, objectConfig(q, base))
		}
	}

	// Against the flow, so that records always have a stream to go to next.
	err := c.ensureStreams(ctx, streams, func(sc *jetstream.StreamConfig) error {
		if sc.Name != ledgerStream(q.Key) {
			return nil
		}
		former, err := c.moveFormerStates(ctx, q.Key)
		sc.FirstSeq += former
		return err
	})
	if err != nil {
		return fmt.Errorf("queue %s: %w", q.Key, err)
	}
	if q.Jobs {
		if err := c.ensureEpoch(ctx, q.Key); err != nil {
			return err
		}
		if err := c.confirmNew(ctx, q.Key); err != nil {
			return err
		}
	}
	return c.ensureConsumers(ctx, q.Key)
}

// streamOf is what all streams of a queue have in common.
func streamOf(k catalog.Key, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Storage: jetstream.FileStorage, Replicas: replicas, Duplicates: duplicateWindow, AllowDirect: true,
		Metadata: map[string]string{"weir.dev/queue": k.String()},
	}
}

// ensureStreams creates or updates streams one after the other; before is called for each. What NATS takes only in part would take up
// room and could not work, so what was done is undone.
func (c *Conn) ensureStreams(ctx context.Context, streams []jetstream.StreamConfig, before func(*jetstream.StreamConfig) error) error {
	var undo []func()
	for _, sc := range streams {
		err := before(&sc)
		if err != nil {
			return err
		}
		back, err := c.ensureStream(ctx, sc)
		if err != nil {
			for _, f := range slices.Backward(undo) {
				f()
			}
			return fmt.Errorf("stream %s: %w", sc.Name, c.apiError(ctx, err))
		}
		undo = append(undo, back)
	}
	return nil
}

// ensureStream creates or updates one stream and returns what undoes that as far as possible.
func (c *Conn) ensureStream(ctx context.Context, sc jetstream.StreamConfig) (undo func(), err error) {
	again := func(f func(context.Context) error) func() {
		return func() {
			ctx, cancel := c.bound(context.WithoutCancel(ctx), apiTimeout)
			defer cancel()
			if err := f(ctx); err != nil {
				c.log.Warn("a stream is left as it is", "stream", sc.Name, "error", err)
			}
		}
	}
	if sc.MaxAge > 0 {
		sc.Duplicates = min(sc.Duplicates, sc.MaxAge) // the server refuses a longer window
	}
	st, err := c.js.Stream(ctx, sc.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if _, err := c.js.CreateStream(ctx, sc); err != nil {
			return nil, err
		}
		return again(func(ctx context.Context) error { return c.js.DeleteStream(ctx, sc.Name) }), nil
	}
	if err != nil {
		return nil, err
	}
	before := st.CachedInfo().Config
	sc.FirstSeq = before.FirstSeq
	if sc.PersistMode = before.PersistMode; sc.PersistMode == jetstream.AsyncPersistMode && sc.Replicas > 1 {
		c.log.WarnContext(ctx, "a stream stays with one replica: it was made for a NATS server that is alone", "stream", sc.Name)
		sc.Replicas = 1
	}
	if _, err := c.js.UpdateStream(ctx, sc); err != nil {
		return nil, err
	}
	return again(func(ctx context.Context) error { _, err := c.js.UpdateStream(ctx, before); return err }), nil
}

// ensureConsumers creates the consumers of a queue whose streams exist; one that was deleted by hand is
// created again when a dispatcher next opens the queue.
func (c *Conn) ensureConsumers(ctx context.Context, k catalog.Key) error {
	// No filter on the queue's stream: one that matches everything has a cost.
	for stream, subject := range map[string]string{queueStream(k): "", retryStream(k): dueSubject(k)} {
		_, err := c.js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{
			Durable: consumerName, FilterSubject: subject, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: ackWait, MaxAckPending: maxAckPending, MaxDeliver: -1, // we own the dead-letter queue
		})
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("%w: %s", ErrNoQueue, k)
		}
		if err != nil {
			return fmt.Errorf("queue %s: consumer of %s: %w", k, stream, c.apiError(ctx, err))
		}
	}
	return nil
}

// apiError maps the error of a request to this package's: what the user can fix, and NATS being away, which may be the
// cause of ctx (see bound).
func (c *Conn) apiError(ctx context.Context, err error) error {
	api, ok := errors.AsType[*jetstream.APIError](err)
	if ok {
		switch api.ErrorCode {
		case codeNoSuitablePeers, codeInsufficientResources, codeStorageExceeded, codeReplicasUnsupported:
			return fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("%w: %w", ErrTooLargeForServer, err)
	}
	// The client knows of a lost connection a moment before Ready does.
	lost := errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrConnectionClosed) || c.Ready() != nil
	if lost || errors.Is(context.Cause(ctx), ErrUnavailable) || errors.Is(err, nats.ErrNoResponders) || ok && api.Code == 503 {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// closedMsgSize is the MaxMsgSize of a closed queue: every block is larger, so all are refused.
const closedMsgSize = 1

// CloseQueue makes the queue's stream refuse every further record (ErrQueueClosed), whoever writes it; what it
// holds stays and can be delivered and dead-lettered. It is the first step of deleting a queue: what is found
// empty afterwards stays empty. EnsureQueue opens the queue again. A queue without streams is no error.
func (c *Conn) CloseQueue(ctx context.Context, k catalog.Key) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	st, err := c.js.Stream(ctx, queueStream(k))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("queue %s: %w", k, c.apiError(ctx, err))
	}
	sc := st.CachedInfo().Config
	if sc.MaxMsgSize == closedMsgSize {
		return nil
	}
	sc.MaxMsgSize = closedMsgSize
	if _, err := c.js.UpdateStream(ctx, sc); err != nil {
		return fmt.Errorf("queue %s: close: %w", k, c.apiError(ctx, err))
	}
	return nil
}

// DeleteQueue removes the queue's streams and all that they hold. It is idempotent.
func (c *Conn) DeleteQueue(ctx context.Context, k catalog.Key) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	for _, name := range []string{queueStream(k), retryStream(k), deadStream(k), statesStream(k), formerStream(k), ledgerStream(k), objectStream(k)} {
		if err := c.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("queue %s: delete stream %s: %w", k, name, c.apiError(ctx, err))
		}
	}
	return nil
}

// QueueStatus is what a queue holds, in stream messages (blocks) and bytes on disk.
type QueueStatus struct {
	Pending    uint64 // blocks that no dispatcher has taken yet
	InFlight   int    // blocks in dispatchers' hands
	Retrying   uint64 // blocks that wait for a later attempt, or are due
	Dead       uint64 // blocks of dead letters
	QueueBytes uint64
	RetryBytes uint64
	DeadBytes  uint64
}

// Empty reports whether nothing is left to be delivered.
func (s QueueStatus) Empty() bool { return s.Pending == 0 && s.InFlight == 0 && s.Retrying == 0 }

// Status asks the leaders of the queue's streams and consumers. It returns ErrNoQueue when none of them exists.
//
// It asks in the direction in which records go, queue, retries, dead letters, and a record is stored in the next stream
// before it leaves the one before: so none is missed, and a closed queue that is found empty is empty.
func (c *Conn) Status(ctx context.Context, k catalog.Key) (QueueStatus, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	var s QueueStatus
	var info *jetstream.ConsumerInfo
	consumer, err := c.js.Consumer(ctx, queueStream(k), consumerName)
	switch {
	case err == nil:
		info = consumer.CachedInfo() // fetched by the call above
		s.Pending, s.InFlight = info.NumPending, info.NumAckPending
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound):
		// Removed by hand, or the queue was never created completely.
	default:
		return s, fmt.Errorf("queue %s: %w", k, c.apiError(ctx, err))
	}
	main, haveMain, err := c.streamState(ctx, queueStream(k))
	if err != nil {
		return s, err
	}
	s.QueueBytes = main.Bytes
	if info == nil {
		s.Pending = main.Msgs
	} else if delivered := info.Delivered.Stream; s.Pending == 0 && main.Msgs > 0 && main.LastSeq > delivered {
		// A consumer's count of pending messages lags a moment behind the stream.
		s.Pending = min(main.LastSeq-delivered, main.Msgs)
	}
	retry, haveRetry, err := c.streamState(ctx, retryStream(k))
	if err != nil {
		return s, err
	}
	s.Retrying, s.RetryBytes = retry.Msgs, retry.Bytes
	dead, haveDead, err := c.streamState(ctx, deadStream(k))
	if err != nil {
		return s, err
	}
	s.Dead, s.DeadBytes = dead.Msgs, dead.Bytes
	if !haveMain && !haveRetry && !haveDead {
		return s, fmt.Errorf("%w: %s", ErrNoQueue, k)
	}
	return s, nil
}

// streamState is zero, and ok false, when there is no such stream.
func (c *Conn) streamState(ctx context.Context, name string) (state jetstream.StreamState, ok bool, err error) {
	st, err := c.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return state, false, nil
	}
	if err != nil {
		return state, false, fmt.Errorf("stream %s: %w", name, c.apiError(ctx, err))
	}
	return st.CachedInfo().State, true, nil
}
