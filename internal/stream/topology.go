package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

// A queue is three streams, so that each can have the retention that it needs:
//
//	WEIR_Q_ns_name  weir.q.ns.name          blocks as the gateway wrote them. Limits retention (removing
//	                                        messages one by one costs a sync each), discard new when full,
//	                                        purged below the acknowledgement floor.
//	WEIR_R_ns_name  weir.r.ns.name.at.ID    blocks to be tried again at a later time (message schedules),
//	                weir.r.ns.name.due      which the server moves here when their time has come. A stream
//	                                        with schedules can't discard new, hence a stream of its own.
//	WEIR_D_ns_name  weir.d.ns.name          dead letters.
//
// Names of resources are DNS labels: they hold no dot and no underscore, so these names are unambiguous.
const (
	consumerName    = "dispatcher"
	duplicateWindow = 2 * time.Minute
	apiTimeout      = 5 * time.Second

	// ackWait is how long a delivered block may stay silent; a dispatcher that works on it says so
	// every ackWait/3. A new owner does not wait for it: it resets the consumer.
	ackWait = time.Minute
	// maxAckPending bounds the blocks in dispatchers' hands. Under light load a block is one record.
	maxAckPending = 16384
)

// ErrNoRoom means that the server or cluster can't take a queue of this size or number of replicas: it reserves
// maxBytes for the queue and as much for its dead letters. Nothing was changed.
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
func dueSubject(k catalog.Key) string   { return "weir.r." + k.Namespace + "." + k.Name + ".due" }
func deadSubject(k catalog.Key) string  { return "weir.d." + k.Namespace + "." + k.Name }
func atSubject(k catalog.Key, id string) string {
	return "weir.r." + k.Namespace + "." + k.Name + ".at." + id
}

// EnsureQueue makes or updates the streams and consumers of q. replicas is 1 or 3 or 5.
func (c *Conn) EnsureQueue(ctx context.Context, q catalog.Queue, replicas int) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	base := jetstream.StreamConfig{
		Storage: jetstream.FileStorage, Replicas: replicas, Duplicates: duplicateWindow, AllowDirect: true,
		Metadata: map[string]string{"weir.dev/queue": q.Key.String()},
	}
	main := base
	main.Name, main.Subjects = queueStream(q.Key), []string{queueSubject(q.Key)}
	main.Retention, main.Discard = jetstream.LimitsPolicy, jetstream.DiscardNew
	main.MaxBytes, main.MaxAge = q.MaxBytes, q.MaxAge

	retry := base
	retry.Name, retry.Subjects = retryStream(q.Key), []string{dueSubject(q.Key), atSubject(q.Key, "*")}
	retry.Retention = jetstream.WorkQueuePolicy // no MaxAge: a failed record ends in the dead-letter queue, never by itself
	retry.AllowMsgSchedules, retry.AllowRollup = true, true

	dead := base
	dead.Name, dead.Subjects = deadStream(q.Key), []string{deadSubject(q.Key)}
	dead.Retention, dead.Discard = jetstream.LimitsPolicy, jetstream.DiscardNew
	dead.MaxBytes, dead.MaxAge = q.MaxBytes, q.DeadLetterMaxAge

	for _, sc := range []jetstream.StreamConfig{main, retry, dead} {
		if sc.MaxAge > 0 {
			sc.Duplicates = min(sc.Duplicates, sc.MaxAge) // the server refuses a longer window
		}
		if _, err := c.js.CreateOrUpdateStream(ctx, sc); err != nil {
			return fmt.Errorf("queue %s: stream %s: %w", q.Key, sc.Name, topologyError(err))
		}
	}
	return c.ensureConsumers(ctx, q.Key)
}

// ensureConsumers makes the consumers of a queue whose streams exist; one that was deleted by hand is
// made again when a dispatcher next opens the queue.
func (c *Conn) ensureConsumers(ctx context.Context, k catalog.Key) error {
	for stream, subject := range map[string]string{queueStream(k): queueSubject(k), retryStream(k): dueSubject(k)} {
		_, err := c.js.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{
			Durable: consumerName, FilterSubject: subject, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: ackWait, MaxAckPending: maxAckPending, MaxDeliver: -1, // we own the dead-letter queue
		})
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("%w: %s", ErrNoQueue, k)
		}
		if err != nil {
			return fmt.Errorf("queue %s: consumer of %s: %w", k, stream, err)
		}
	}
	return nil
}

// topologyError names the states of a refused stream that a user can mend.
func topologyError(err error) error {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case codeNoSuitablePeers, codeInsufficientResources, codeStorageExceeded, codeReplicasUnsupported:
			return fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
	}
	return err
}

// closedMsgSize is the largest message of a closed queue: no block is as small, so all are refused.
const closedMsgSize = 1

// CloseQueue lets the queue's stream refuse every further record (ErrQueueClosed), whoever writes it; what it
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
		return fmt.Errorf("queue %s: %w", k, err)
	}
	sc := st.CachedInfo().Config
	if sc.MaxMsgSize == closedMsgSize {
		return nil
	}
	sc.MaxMsgSize = closedMsgSize
	if _, err := c.js.UpdateStream(ctx, sc); err != nil {
		return fmt.Errorf("queue %s: close: %w", k, err)
	}
	return nil
}

// DeleteQueue removes the queue's streams and all that they hold. It is idempotent.
func (c *Conn) DeleteQueue(ctx context.Context, k catalog.Key) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	for _, name := range []string{queueStream(k), retryStream(k), deadStream(k)} {
		if err := c.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("queue %s: delete stream %s: %w", k, name, err)
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

// Status asks the leaders of the queue's streams and consumers. It returns ErrNoQueue when there are none.
func (c *Conn) Status(ctx context.Context, k catalog.Key) (QueueStatus, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	var s QueueStatus
	consumer, err := c.js.Consumer(ctx, queueStream(k), consumerName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return s, fmt.Errorf("%w: %s", ErrNoQueue, k)
	}
	if err != nil {
		return s, fmt.Errorf("queue %s: %w", k, err)
	}
	info := consumer.CachedInfo() // fetched by the call above
	s.Pending, s.InFlight = info.NumPending, info.NumAckPending
	for name, into := range map[string]func(jetstream.StreamState){
		queueStream(k): func(st jetstream.StreamState) {
			s.QueueBytes = st.Bytes
			// A consumer counts what was stored a moment ago a moment later; the stream knows at once.
			if delivered := info.Delivered.Stream; s.Pending == 0 && st.Msgs > 0 && st.LastSeq > delivered {
				s.Pending = min(st.LastSeq-delivered, st.Msgs)
			}
		},
		retryStream(k): func(st jetstream.StreamState) { s.Retrying, s.RetryBytes = st.Msgs, st.Bytes },
		deadStream(k):  func(st jetstream.StreamState) { s.Dead, s.DeadBytes = st.Msgs, st.Bytes },
	} {
		st, err := c.js.Stream(ctx, name)
		if err != nil {
			return s, fmt.Errorf("queue %s: %w", k, err)
		}
		into(st.CachedInfo().State)
	}
	return s, nil
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
