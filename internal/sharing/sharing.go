// Package sharing divides what has one owner at a time, such as queues, among the processes that can own it.
//
// Each announces itself by a lease of its own and watches all leases; so it knows the others and what they hold, comes to the
// same plan as they do (share.go), takes what is free and planned for it, and hands over its surplus.
//
// Invariants: the leases alone guarantee that there is one owner, however wrong the plan; what moves when a process joins or
// leaves is as little as possible.
//
// The data flows through the files in this order: sharing.go (I/O), roster.go (decisions), share.go (the plan).
//
// May import: catalog, stream.
package sharing

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

const (
	// lookEvery is how often the roster decides without a change: for what follows from time alone.
	lookEvery = 250 * time.Millisecond
	// followAgain is the wait before a failed watch of the leases, or a failed announcement, is tried again.
	followAgain = time.Second

	// Prefixes of lease names. A member's goes on with its owner in URL-safe base64: owners may hold characters that
	// subjects must not.
	queueLease  = "queue."
	memberLease = "member."
)

// Config is what a process shares with others.
type Config struct {
	Conn interface {
		stream.Link
		stream.Leases
	}
	Owner string // unique among the processes that run at the same time
	// TTL is how long after its owner has vanished a queue is free; default: stream.LeaseTTL.
	TTL time.Duration
	// Kind begins the names of the leases: only processes of one kind share. Empty for dispatchers.
	Kind string
	Log  *slog.Logger
}

// Sharing is one process's part. Nothing happens before Run.
type Sharing struct {
	Config

	used    chan struct{} // closed by the first use
	revised chan struct{} // capacity 1: there is a new revision to announce
	wake    chan struct{} // capacity 1: the roster has changed

	mu     sync.Mutex
	roster *roster
}

// New returns a process's part.
func New(cfg Config) *Sharing {
	cfg.TTL = cmp.Or(cfg.TTL, stream.LeaseTTL)
	return &Sharing{
		Config: cfg, roster: newRoster(cfg.Owner, cfg.TTL, time.Now()),
		used: make(chan struct{}), revised: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
}

// Use sets the queues to share.
func (s *Sharing) Use(revision string, queues map[catalog.Key]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roster.revision == "" {
		close(s.used)
	}
	s.roster.use(revision, queues)
	signal(s.revised)
	signal(s.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // signalled already
	}
}

// Run works until ctx ends. Then it releases the announcement, so that the others plan without this process and take
// over each of its queues as soon as the lease is released.
func (s *Sharing) Run(ctx context.Context) {
	select {
	case <-s.used: // without a catalog there is no queue to work on
	case <-ctx.Done():
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	announced := make(chan struct{})
	wg.Go(func() { s.announce(ctx, sync.OnceFunc(func() { close(announced) })) })
	wg.Go(func() {
		select {
		case <-announced: // of two that start together, one sees the other before it takes a queue
		case <-ctx.Done():
		}
		s.follow(ctx)
	})
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		s.look()
		select {
		case <-tick.C:
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

// look signals the roster's decisions to the claims.
func (s *Sharing) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	try, give := s.roster.decide(time.Now())
	for _, c := range try {
		signal(c.turn)
	}
	for _, c := range give {
		signal(c.leave)
	}
}

// announce holds the lease that announces this process. It calls tried after the first try.
func (s *Sharing) announce(ctx context.Context, tried func()) {
	defer tried()
	name := s.Kind + memberLease + base64.RawURLEncoding.EncodeToString([]byte(s.Owner))
	for s.Conn.WaitUp(ctx) == nil {
		lease, err := s.Conn.TryLeaseNoted(context.WithoutCancel(ctx), name, s.Owner, s.revision(), s.TTL)
		if err == nil {
			tried()
			s.announced(ctx, lease)
			continue
		}
		if s.worth(ctx) {
			s.Log.Warn("a lease request failed", "lease", name, "error", err)
		}
		tried()
		pause(ctx, followAgain)
	}
}

// announced keeps the announcement up to date until it is lost or ctx ends.
func (s *Sharing) announced(ctx context.Context, lease *stream.Lease) {
	defer lease.Release()
	for {
		select {
		case <-s.revised:
			lease.Note(s.revision())
		case <-lease.Context().Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *Sharing) revision() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roster.revision
}

// follow keeps the roster up to date with all leases until ctx ends.
func (s *Sharing) follow(ctx context.Context) {
	for s.Conn.WaitUp(ctx) == nil {
		s.mu.Lock()
		s.roster.reset(time.Now())
		s.mu.Unlock()
		err := s.Conn.WatchLeases(ctx, s.told)
		s.mu.Lock()
		s.roster.reset(time.Now())
		s.mu.Unlock()
		if s.worth(ctx) {
			s.Log.Warn("the leases can't be watched; they are requested without a plan", "error", err)
			pause(ctx, followAgain)
		}
	}
}

// told takes a change from WatchLeases.
func (s *Sharing) told(l *stream.LeaseState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, news := time.Now(), false
	if l == nil {
		s.roster.complete(now)
		news = true
	} else if text, ok := strings.CutPrefix(l.Name, s.Kind+memberLease); ok {
		if owner, err := base64.RawURLEncoding.DecodeString(text); err == nil {
			news = s.roster.member(string(owner), l, now)
		}
	} else if text, ok := strings.CutPrefix(l.Name, s.Kind+queueLease); ok {
		if ns, name, ok := strings.Cut(text, "."); ok {
			news = s.roster.lease(catalog.Key{Namespace: ns, Name: name}, l, now)
		}
	}
	if news {
		signal(s.wake)
	}
}

// worth reports whether a failure is worth logging: it is due neither to NATS being away, which is logged elsewhere,
// nor to our own shutdown.
func (s *Sharing) worth(ctx context.Context) bool { return s.Conn.Ready() == nil && ctx.Err() == nil }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Add registers that this process wants to own a queue. busy returns how much of its work is under way: idle ones are handed
// over first.
func (s *Sharing) Add(k catalog.Key, busy func() int) *Claim {
	c := &Claim{queue: k, busy: busy, turn: make(chan struct{}, 1), leave: make(chan struct{}, 1)}
	s.change(func(r *roster, now time.Time) { r.add(c, now) })
	return c
}

// Remove undoes Add.
func (s *Sharing) Remove(c *Claim) { s.change(func(r *roster, _ time.Time) { r.remove(c) }) }

// LeaseOf names a queue's lease.
func (s *Sharing) LeaseOf(k catalog.Key) string {
	return s.Kind + queueLease + k.Namespace + "." + k.Name
}

// Leave is signalled when the queue is to be handed over.
func (c *Claim) Leave() <-chan struct{} { return c.leave }

// Acquire waits for the claim's turn and takes the queue's lease, or returns why ctx ended.
func (s *Sharing) Acquire(ctx context.Context, c *Claim) (*stream.Lease, error) {
	name := s.LeaseOf(c.queue)
	for {
		select {
		case <-c.turn:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		// Not ctx: a request that is cancelled may have been granted, and nobody would release that lease. It has a bound
		// of its own. TestAnEndAmidATakeOverLeavesNoLease guards it.
		lease, err := s.Conn.TryLeaseNoted(context.WithoutCancel(ctx), name, s.Owner, "", s.TTL)
		switch {
		case err == nil:
			s.change(func(r *roster, now time.Time) { r.took(c, now) })
			return lease, nil
		case errors.Is(err, stream.ErrLeaseHeld):
			s.change(func(r *roster, now time.Time) { r.refused(c, now) })
		default:
			if s.worth(ctx) {
				s.Log.Warn("a lease request failed", "lease", name, "error", err)
			}
			s.change(func(r *roster, now time.Time) { r.failed(c, now) })
		}
	}
}

// Keep gives up the queue's handoff for now.
func (s *Sharing) Keep(c *Claim) { s.change(func(r *roster, now time.Time) { r.keep(c, now) }) }

// Left records that the queue's lease was released or lost.
func (s *Sharing) Left(c *Claim) {
	s.change(func(r *roster, now time.Time) { r.left(c, now) })
	select {
	case <-c.leave: // obsolete
	default:
	}
}

func (s *Sharing) change(f func(*roster, time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.roster, time.Now())
	signal(s.wake)
}
