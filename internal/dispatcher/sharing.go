package dispatcher

import (
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
	// lookEvery is how often the roster is looked at although nothing was told: for what follows from time alone.
	lookEvery = 250 * time.Millisecond
	// followAgain is the wait before the leases are followed anew, or the announcement is made anew, when that failed.
	followAgain = time.Second

	// Names of leases. Of members the rest is the owner in URL-safe base64, as it may hold what a subject must not.
	queueLease  = "queue."
	memberLease = "member."
)

// sharing divides the queues among the dispatchers of the cluster. Each announces itself by a lease of its own and
// follows all leases; so it knows the others and what they hold, comes to the same plan as they do (share), takes what it
// is to have when that is free, and hands over what it has too much of. That nobody works on a queue without its lease,
// however wrong the plan, is the lease's part.
type sharing struct {
	conn interface {
		stream.Link
		stream.Leases
	}
	owner string
	log   *slog.Logger

	used    chan struct{} // closed by the first use
	revised chan struct{} // capacity 1: there is another revision to announce
	wake    chan struct{} // capacity 1: something follows from what was told

	mu     sync.Mutex
	roster *roster
}

func newSharing(cfg Config) *sharing {
	return &sharing{
		conn: cfg.Conn, owner: cfg.Owner, log: cfg.Log, roster: newRoster(cfg.Owner, time.Now()),
		used: make(chan struct{}), revised: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
}

// use makes these queues the ones to share.
func (s *sharing) use(revision string, queues map[catalog.Key]bool) {
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
	default: // it is there already
	}
}

// run works until ctx ends. Then the others are told that this process takes no queue any more: they take over what it
// has as soon as it is given up.
func (s *sharing) run(ctx context.Context) {
	select {
	case <-s.used: // who has no catalog yet can work for no queue
	case <-ctx.Done():
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	announced := make(chan struct{})
	wg.Go(func() { s.announce(ctx, sync.OnceFunc(func() { close(announced) })) })
	wg.Go(func() {
		select {
		case <-announced: // of two that start together one knows of the other before it takes a queue
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

// look does what follows from the roster.
func (s *sharing) look() {
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

// announce holds the lease that says that this process is there. It calls tried once it has tried to.
func (s *sharing) announce(ctx context.Context, tried func()) {
	defer tried()
	name := memberLease + base64.RawURLEncoding.EncodeToString([]byte(s.owner))
	for s.conn.WaitUp(ctx) == nil {
		lease, err := s.conn.TryLeaseNoted(context.WithoutCancel(ctx), name, s.owner, s.revision())
		if err == nil {
			tried()
			s.announced(ctx, lease)
			continue
		}
		if s.worth(ctx) {
			s.log.Warn("the lease can't be asked for", "lease", name, "error", err)
		}
		tried()
		pause(ctx, followAgain)
	}
}

// announced keeps the announcement up to date until it is lost or ctx ends.
func (s *sharing) announced(ctx context.Context, lease *stream.Lease) {
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

func (s *sharing) revision() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roster.revision
}

// follow tells the roster of all leases until ctx ends.
func (s *sharing) follow(ctx context.Context) {
	for s.conn.WaitUp(ctx) == nil {
		s.mu.Lock()
		s.roster.reset(time.Now())
		s.mu.Unlock()
		err := s.conn.WatchLeases(ctx, s.told)
		s.mu.Lock()
		s.roster.reset(time.Now())
		s.mu.Unlock()
		if s.worth(ctx) {
			s.log.Warn("the other dispatchers can't be seen; leases are asked for without", "error", err)
			pause(ctx, followAgain)
		}
	}
}

// told takes what WatchLeases tells.
func (s *sharing) told(l *stream.LeaseState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, news := time.Now(), false
	if l == nil {
		s.roster.complete(now)
		news = true
	} else if text, ok := strings.CutPrefix(l.Name, memberLease); ok {
		if owner, err := base64.RawURLEncoding.DecodeString(text); err == nil {
			news = s.roster.member(string(owner), l, now)
		}
	} else if text, ok := strings.CutPrefix(l.Name, queueLease); ok {
		if ns, name, ok := strings.Cut(text, "."); ok {
			news = s.roster.lease(catalog.Key{Namespace: ns, Name: name}, l, now)
		}
	}
	if news {
		signal(s.wake)
	}
}

// worth reports whether a failure is worth a line of the log: it is due neither to NATS being away, which is said
// elsewhere, nor to our own end.
func (s *sharing) worth(ctx context.Context) bool { return s.conn.Ready() == nil && ctx.Err() == nil }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// add makes a mapping one that wants to work for its queue. busy tells how many of its calls are in flight.
func (s *sharing) add(k catalog.Key, busy func() int) *claim {
	c := &claim{queue: k, busy: busy, turn: make(chan struct{}, 1), leave: make(chan struct{}, 1)}
	s.change(func(r *roster, now time.Time) { r.add(c, now) })
	return c
}

// remove ends that.
func (s *sharing) remove(c *claim) { s.change(func(r *roster, _ time.Time) { r.remove(c) }) }

// leaseOf names a queue's lease.
func leaseOf(k catalog.Key) string { return queueLease + k.Namespace + "." + k.Name }

// acquire waits for the claim's turn and takes the queue's lease, or returns why ctx ended.
func (s *sharing) acquire(ctx context.Context, c *claim) (*stream.Lease, error) {
	name := leaseOf(c.queue)
	for {
		select {
		case <-c.turn:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		// A request that is broken off may have been granted: nobody would give that lease back. It ends by itself, soon.
		// TestAnEndAmidATakeOverLeavesNoLease guards it.
		lease, err := s.conn.TryLease(context.WithoutCancel(ctx), name, s.owner)
		switch {
		case err == nil:
			s.change(func(r *roster, now time.Time) { r.took(c, now) })
			return lease, nil
		case errors.Is(err, stream.ErrLeaseHeld):
			s.change(func(r *roster, now time.Time) { r.refused(c, now) })
		default:
			if s.worth(ctx) {
				s.log.Warn("the lease can't be asked for", "lease", name, "error", err)
			}
			s.change(func(r *roster, now time.Time) { r.failed(c, now) })
		}
	}
}

// keep says that the queue is not handed over after all.
func (s *sharing) keep(c *claim) { s.change(func(r *roster, now time.Time) { r.keep(c, now) }) }

// left says that the queue's lease was released or lost.
func (s *sharing) left(c *claim) {
	s.change(func(r *roster, now time.Time) { r.left(c, now) })
	select {
	case <-c.leave: // too late to be of use
	default:
	}
}

func (s *sharing) change(f func(*roster, time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.roster, time.Now())
	signal(s.wake)
}
