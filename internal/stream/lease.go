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
// own, which the server removes when it isn't renewed for its time, LeaseTTL of most. The owner stops considering itself
// the owner leaseMargin earlier than the server does, by its own monotonic clock, counted from before it
// sent the last renewal that succeeded: so there are never two owners, as long as clocks run at the same
// speed. TestLeaseHasOneOwner guards it.
//
// A marker, a message without a body in its place, says that the lease is free: the owner writes it on a release, the
// server when it removes an expired lease. Without it those who watch the leases would not see the end of one. It is
// removed after leaseMarker.
const (
	LeaseTTL      = 15 * time.Second
	leaseRenew    = 4.0 / 15               // of the lease's time
	leaseMargin   = 3.0 / 15               // the same
	leaseRetry    = 250 * time.Millisecond // of a renewal
	leaseMarker   = 5 * time.Second
	dropTries     = 3
	leaseStream   = "WEIR_LEASES"
	leaseSubjects = "weir.lease."

	// headerLeaseNote holds the owner's note.
	headerLeaseNote = "Weir-Lease-Note"
	// What the server has in a marker, and what makes it take ours for one: it writes none when ours is removed.
	headerMarkerReason = "Nats-Marker-Reason"
	headerOperation    = "KV-Operation"
	operationPurge     = "PURGE"
)

// ErrLeaseLost is the cause with which a lease's context ends when it could not be renewed.
var ErrLeaseLost = errors.New("stream: the lease was lost")

// Leases is the ownership of names in the cluster.
type Leases interface {
	EnsureLeases(ctx context.Context, replicas int) error
	TryLease(ctx context.Context, name, owner string) (*Lease, error)
	TryLeaseNoted(ctx context.Context, name, owner, note string, ttl time.Duration) (*Lease, error)
	WatchLeases(ctx context.Context, f func(*LeaseState)) error
}

// Lease is the ownership of a name. Its context ends when it is lost or released.
type Lease struct {
	conn    *Conn
	subject string
	owner   string
	ttl     time.Duration
	seq     uint64                    // of the message that is the lease
	note    atomic.Pointer[string]    // never nil
	noted   chan struct{}             // capacity 1: the note changed
	until   atomic.Pointer[time.Time] // by this process's clock
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
		SubjectDeleteMarkerTTL: leaseMarker, AllowRollup: true, // the marker is a rollup
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
	return c.TryLeaseNoted(ctx, name, owner, "", LeaseTTL)
}

// TryLeaseNoted is TryLease with a note, which WatchLeases delivers, and a time of its own: so long after its owner has
// vanished another can have it, and so often in a quarter of it the owner writes.
func (c *Conn) TryLeaseNoted(ctx context.Context, name, owner, note string, ttl time.Duration) (*Lease, error) {
	l := &Lease{conn: c, subject: leaseSubjects + name, owner: owner, ttl: ttl, noted: make(chan struct{}, 1), done: make(chan struct{})}
	l.note.Store(&note)
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

// Context ends when the lease does: with ErrLeaseLost, or ErrClosed after Release.
func (l *Lease) Context() context.Context { return l.ctx }

// Holds checks the clock. In a process that hung and goes on, the lease may be over before Context has ended:
// so it is asked before anything that only the owner may do. TestCapsOverHang guards it.
func (l *Lease) Holds() bool { return time.Now().Before(*l.until.Load()) }

// Note changes the note. It doesn't wait until that is written.
func (l *Lease) Note(note string) {
	l.note.Store(&note)
	select {
	case l.noted <- struct{}{}:
	default: // the pending renewal takes the latest note
	}
}

// Release gives the lease up, so that another can have it at once. It is idempotent.
func (l *Lease) Release() {
	l.cancel(ErrClosed)
	<-l.done
}

// keep renews the lease until it is released or can't be renewed in time.
func (l *Lease) keep() {
	defer close(l.done)
	every := part(l.ttl, leaseRenew)
	next := every
	for {
		select {
		case <-time.After(next):
		case <-l.noted:
		case <-l.ctx.Done():
			l.drop()
			return
		}
		ctx, cancel := context.WithDeadline(l.ctx, *l.until.Load())
		err := l.renew(ctx)
		cancel()
		switch {
		case err == nil:
			next = every
		case errors.Is(err, errWrongSequence):
			// Either another owner has it, or our own renewal was written and its answer lost.
			seq, ferr := l.find(l.ctx)
			if errors.Is(ferr, ErrLeaseHeld) {
				l.cancel(ErrLeaseLost)
				return
			}
			if next = leaseRetry; ferr == nil {
				l.seq, next = seq, 0
			}
		default:
			next = leaseRetry
		}
		if !l.Holds() {
			l.cancel(ErrLeaseLost)
			return
		}
	}
}

var errWrongSequence = errors.New("stream: wrong last sequence")

// renew replaces the lease's last known message.
func (l *Lease) renew(ctx context.Context) error {
	before := time.Now()
	m := &nats.Msg{Subject: l.subject, Data: []byte(l.owner)}
	if note := *l.note.Load(); note != "" {
		m.Header = nats.Header{headerLeaseNote: {note}}
	}
	if err := l.write(ctx, m, l.ttl); err != nil {
		return err
	}
	until := before.Add(l.ttl - part(l.ttl, leaseMargin))
	l.until.Store(&until)
	return nil
}

// write replaces the last known message by m.
func (l *Lease) write(ctx context.Context, m *nats.Msg, ttl time.Duration) error {
	ctx, cancel := l.conn.bound(ctx, apiTimeout)
	defer cancel()
	ack, err := l.conn.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(l.seq), jetstream.WithMsgTTL(ttl))
	if beingWritten(err) {
		// A write of another owner, or our own last renewal, whose answer was late, is in flight: who has the lease is known
		// once it is decided.
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
	l.seq = ack.Sequence
	return nil
}

// find returns the sequence of the lease's message, or of its marker: zero if there is none, ErrLeaseHeld if another
// owner holds it.
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
	case len(m.Data) > 0 && string(m.Data) != l.owner:
		return 0, ErrLeaseHeld
	}
	return m.Sequence, nil
}

func part(d time.Duration, share float64) time.Duration { return time.Duration(float64(d) * share) }

// drop marks the lease as free. When it can't, the server does so after the lease's time.
func (l *Lease) drop() {
	m := &nats.Msg{Subject: l.subject, Header: nats.Header{headerOperation: {operationPurge}}}
	err := l.write(context.Background(), m, leaseMarker)
	// The answer to the last renewal may have been lost, or have come too late.
	for tries := 0; tries < dropTries && (errors.Is(err, errWrongSequence) || errors.Is(err, ErrBusy)); tries++ {
		var seq uint64
		seq, err = l.find(context.Background())
		if errors.Is(err, ErrLeaseHeld) || err == nil && seq == 0 {
			return // it is no longer ours
		}
		if err == nil {
			l.seq = seq
			err = l.write(context.Background(), m, leaseMarker)
		}
	}
	if err != nil {
		l.conn.log.Debug("the lease is left to expire", "lease", l.subject, "after", strconv.Itoa(int(l.ttl.Seconds()))+"s", "error", err)
	}
}
