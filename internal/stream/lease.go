package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A lease makes one process in the cluster the owner of a name. It is one message on a subject of its
// own, which the server removes when it isn't renewed for LeaseTTL. The owner stops considering itself
// the owner leaseMargin earlier than the server does, by its own monotonic clock, counted from before it
// sent the last renewal that succeeded: so there are never two owners, as long as clocks run at the same
// speed. TestLeaseHasOneOwner guards it.
const (
	LeaseTTL      = 15 * time.Second
	leaseRenew    = 4 * time.Second
	leaseMargin   = 3 * time.Second
	leasePoll     = time.Second // of those who wait for it
	leaseStream   = "WEIR_LEASES"
	leaseSubjects = "weir.lease."
)

// ErrLeaseLost is the cause with which a lease's context ends when it could not be renewed.
var ErrLeaseLost = errors.New("stream: the lease was lost")

// Lease is the ownership of a name. Its context ends when it is lost or released.
type Lease struct {
	conn    *Conn
	subject string
	owner   string
	seq     uint64                    // of the message that is the lease
	until   atomic.Pointer[time.Time] // as this process counts it
	ctx     context.Context
	cancel  context.CancelCauseFunc
	done    chan struct{}
}

// EnsureLeases makes the stream of leases.
func (c *Conn) EnsureLeases(ctx context.Context, replicas int) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	_, err := c.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: leaseStream, Subjects: []string{leaseSubjects + ">"}, Storage: jetstream.FileStorage,
		Replicas: replicas, MaxMsgsPerSubject: 1, AllowMsgTTL: true,
	})
	if err != nil {
		return fmt.Errorf("stream of leases: %w", c.apiError(ctx, err))
	}
	return nil
}

// TryLease takes the lease name for owner, or returns ErrLeaseHeld. An owner that finds its own name
// takes the lease over: its earlier process is gone, because owners' names are unique among processes
// that run at the same time.
func (c *Conn) TryLease(ctx context.Context, name, owner string) (*Lease, error) {
	l := &Lease{conn: c, subject: leaseSubjects + name, owner: owner, done: make(chan struct{})}
	err := l.renew(ctx)
	if errors.Is(err, errWrongSequence) {
		if l.seq, err = l.find(ctx); err != nil {
			return nil, err
		}
		err = l.renew(ctx)
		if errors.Is(err, errWrongSequence) {
			return nil, ErrLeaseHeld
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lease %s: %w", name, err)
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	go l.keep()
	return l, nil
}

// WaitLease is TryLease until it succeeds or ctx ends. NATS being away only prolongs it.
func (c *Conn) WaitLease(ctx context.Context, name, owner string) (*Lease, error) {
	for {
		l, err := c.TryLease(ctx, name, owner)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, ErrLeaseHeld) && c.Ready() == nil && ctx.Err() == nil {
			c.log.Warn("the lease can't be asked for", "lease", name, "error", err)
		}
		select {
		case <-time.After(leasePoll):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Context ends when the lease does: with ErrLeaseLost, or ErrClosed after Release.
func (l *Lease) Context() context.Context { return l.ctx }

// Holds asks the clock. A process that was stopped for a while and goes on may find its time over before
// Context has ended: so it asks before it does what only the owner may. TestCapsOverHang guards it.
func (l *Lease) Holds() bool { return time.Now().Before(*l.until.Load()) }

// Release gives the lease up, so that another can have it at once. It is idempotent.
func (l *Lease) Release() {
	l.cancel(ErrClosed)
	<-l.done
}

// keep renews the lease until it is released or can't be renewed in time.
func (l *Lease) keep() {
	defer close(l.done)
	next := leaseRenew
	for {
		select {
		case <-time.After(next):
		case <-l.ctx.Done():
			l.drop()
			return
		}
		ctx, cancel := context.WithDeadline(l.ctx, *l.until.Load())
		err := l.renew(ctx)
		cancel()
		switch {
		case err == nil:
			next = leaseRenew
		case errors.Is(err, errWrongSequence):
			// Either another has it or our own renewal was written and its answer lost.
			seq, ferr := l.find(l.ctx)
			if errors.Is(ferr, ErrLeaseHeld) {
				l.cancel(ErrLeaseLost)
				return
			}
			if next = leasePoll / 4; ferr == nil {
				l.seq, next = seq, 0
			}
		default:
			next = leasePoll / 4
		}
		if !l.Holds() {
			l.cancel(ErrLeaseLost)
			return
		}
	}
}

var errWrongSequence = errors.New("stream: wrong last sequence")

// renew writes the lease's message after the one that is known.
func (l *Lease) renew(ctx context.Context) error {
	before := time.Now()
	ctx, cancel := l.conn.bound(ctx, apiTimeout)
	defer cancel()
	ack, err := l.conn.js.PublishMsg(ctx, &nats.Msg{Subject: l.subject, Data: []byte(l.owner)},
		jetstream.WithExpectLastSequencePerSubject(l.seq), jetstream.WithMsgTTL(LeaseTTL))
	if beingWritten(err) {
		// By another, or by our own last renewal, whose answer was late: who has the lease shows when that is decided.
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if wrongSequence(err) {
		return errWrongSequence
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%w: the stream of leases does not answer: %w", ErrUnavailable, err)
	}
	if err != nil {
		return publishError(ctx, err)
	}
	until := before.Add(LeaseTTL - leaseMargin)
	l.seq = ack.Sequence
	l.until.Store(&until)
	return nil
}

// find returns the sequence of the lease's message: 0 when there is none, ErrLeaseHeld when it is
// another's.
func (l *Lease) find(ctx context.Context) (uint64, error) {
	ctx, cancel := l.conn.bound(ctx, apiTimeout)
	defer cancel()
	st, err := l.conn.js.Stream(ctx, leaseStream)
	if err != nil {
		return 0, fmt.Errorf("lease: %w", err)
	}
	m, err := st.GetLastMsgForSubject(ctx, l.subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("lease: %w", err)
	case string(m.Data) != l.owner:
		return 0, ErrLeaseHeld
	}
	return m.Sequence, nil
}

// drop removes the lease's message. When it can't, the server does so after LeaseTTL.
func (l *Lease) drop() {
	ctx, cancel := l.conn.bound(context.Background(), apiTimeout)
	defer cancel()
	// Asked for again: the answer to the last renewal may have been lost.
	seq, err := l.find(ctx)
	if err == nil && seq == 0 {
		return
	}
	var st jetstream.Stream
	if err == nil {
		st, err = l.conn.js.Stream(ctx, leaseStream)
	}
	if err == nil {
		err = st.DeleteMsg(ctx, seq)
	}
	if err != nil {
		l.conn.log.Debug("the lease is left to expire", "lease", l.subject, "after", strconv.Itoa(int(LeaseTTL.Seconds()))+"s", "error", err)
	}
}
