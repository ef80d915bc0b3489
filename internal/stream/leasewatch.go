package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// leaseHeartbeat is the consumer's idle heartbeat, by which a lost message is noticed although none follows. After
	// two missing ones the watch ends.
	leaseHeartbeat = 2 * time.Second
	// leaseWatchGone is how long the consumer outlives its subscription.
	leaseWatchGone = 15 * time.Second
	// Bounds of what waits in memory. Past them messages are dropped, and the watch ends.
	maxLeaseMessages = 65536
	maxLeaseBytes    = 16 << 20
)

// errLeasesMissed means that messages of the server were lost.
var errLeasesMissed = errors.New("stream: changes of leases were missed")

// LeaseState is what a lease's last message says.
type LeaseState struct {
	Name  string
	Owner string // empty if free
	Note  string
	// Expired means that the server removed the lease's message, as it was not renewed. The lease may have been free.
	Expired bool
}

// WatchLeases calls f with all leases, then with nil, and then with each change, renewals too, until ctx ends, the
// connection is lost or changes were missed. It doesn't know what a lease was before: one that ended between two
// watches is not in the second.
//
// It is a consumer in the memory of one server, as FollowClient's, and like that needs no permission but to create it.
func (c *Conn) WatchLeases(ctx context.Context, f func(*LeaseState)) error {
	if err := c.Ready(); err != nil {
		return err
	}
	ctx, cancel := c.whileUp(ctx)
	defer cancel()
	// A subject for each consumer: the server counts only a subscription to exactly this subject as interest.
	sub, err := c.nc.SubscribeSync(c.nc.NewInbox())
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }() // without it the consumer expires
		err = sub.SetPendingLimits(maxLeaseMessages, maxLeaseBytes)
	}
	if err != nil {
		return fmt.Errorf("watch the leases: %w", c.apiError(ctx, err))
	}
	actx, acancel := c.bound(ctx, apiTimeout)
	defer acancel()
	consumer, err := c.js.CreatePushConsumer(actx, leaseStream, jetstream.ConsumerConfig{
		Name: uuid.NewString(), DeliverSubject: sub.Subject, FilterSubject: leaseSubjects + ">",
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
		IdleHeartbeat: leaseHeartbeat, InactiveThreshold: leaseWatchGone,
	})
	if err != nil {
		return fmt.Errorf("watch the leases: %w", c.apiError(actx, err))
	}
	w := leaseWatch{sub: sub, f: f}
	if consumer.CachedInfo().NumPending == 0 {
		w.complete()
	}
	for {
		if err := w.next(ctx); err != nil {
			return fmt.Errorf("watch the leases: %w", err)
		}
	}
}

// leaseWatch is one WatchLeases.
type leaseWatch struct {
	sub   *nats.Subscription
	f     func(*LeaseState)
	count uint64 // of the consumer's messages that have come
	all   bool   // f has the initial state
}

// complete tells f, once, that it has the initial state.
func (w *leaseWatch) complete() {
	if !w.all {
		w.all = true
		w.f(nil)
	}
}

// next waits for a message and passes it to f.
func (w *leaseWatch) next(ctx context.Context) error {
	hctx, cancel := context.WithTimeoutCause(ctx, 2*leaseHeartbeat+leaseHeartbeat/2, errLeasesMissed)
	defer cancel()
	m, err := w.sub.NextMsgWithContext(hctx)
	switch {
	case hctx.Err() != nil:
		return context.Cause(hctx)
	case err != nil: // such as a slow consumer
		return err
	}
	if m.Subject == w.sub.Subject { // an idle heartbeat
		if last, err := strconv.ParseUint(m.Header.Get("Nats-Last-Consumer"), 10, 64); err == nil && last != w.count {
			return errLeasesMissed
		}
		w.complete()
		return nil
	}
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	if w.count++; meta.Sequence.Consumer != w.count {
		return errLeasesMissed
	}
	w.f(&LeaseState{
		Name: strings.TrimPrefix(m.Subject, leaseSubjects), Owner: string(m.Data), Note: m.Header.Get(headerLeaseNote),
		Expired: m.Header.Get(headerMarkerReason) != "",
	})
	if meta.NumPending == 0 {
		w.complete()
	}
	return nil
}
