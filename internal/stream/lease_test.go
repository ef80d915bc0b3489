package stream_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestLeaseHasOneOwner(t *testing.T) {
	s := testkit.NATS(t)
	a, b := testkit.Conn(t, s), testkit.Conn(t, s)
	ensure(t, a, orders())
	la, err := a.TryLease(t.Context(), "x", "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.TryLease(t.Context(), "x", "b"); !errors.Is(err, stream.ErrLeaseHeld) {
		t.Fatalf("b got %v, want ErrLeaseHeld", err)
	}
	la.Release()
	if la.Context().Err() == nil {
		t.Error("a released lease still counts")
	}
	lb, err := b.TryLease(t.Context(), "x", "b")
	if err != nil {
		t.Fatal(err)
	}
	defer lb.Release()
	// The same owner's next process takes over at once.
	lb2, err := b.TryLease(t.Context(), "x", "b")
	if err != nil {
		t.Fatal(err)
	}
	lb2.Release()
}

func TestALeaseThatCanNotBeRenewedEndsInTime(t *testing.T) {
	t.Parallel() // it waits for a lease to end
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	ensure(t, c, orders())
	l, err := c.TryLease(t.Context(), "x", "a")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	taken := time.Now()
	s.Stop()
	select {
	case <-l.Context().Done():
	case <-time.After(testkit.Patience):
		t.Fatal("the lease outlives the server")
	}
	if d := time.Since(taken); d >= stream.LeaseTTL || !errors.Is(context.Cause(l.Context()), stream.ErrLeaseLost) || l.Holds() {
		t.Errorf("it ended after %s with %v; the server holds it for %s", d, context.Cause(l.Context()), stream.LeaseTTL)
	}
}

// seenLeases is what a watch has delivered.
type seenLeases struct {
	mu     sync.Mutex
	states []stream.LeaseState // since the last complete list
	lists  int
}

// watchLeases watches until the test ends.
func watchLeases(t *testing.T, c *stream.Conn) *seenLeases {
	t.Helper()
	s := new(seenLeases)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.WatchLeases(ctx, s.tell)
	}()
	t.Cleanup(func() { cancel(); <-done })
	testkit.Eventually(t, "the watch knows all leases", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.lists == 1 })
	return s
}

func (s *seenLeases) tell(l *stream.LeaseState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l == nil {
		s.lists++
		return
	}
	s.states = append(s.states, *l)
}

func (s *seenLeases) has(want stream.LeaseState) bool {
	return s.count(func(l stream.LeaseState) bool { return l == want }) > 0
}

func (s *seenLeases) count(cond func(stream.LeaseState) bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, l := range s.states {
		if cond(l) {
			n++
		}
	}
	return n
}

// TestLeasesAreWatched: a watch sees every lease that is taken, noted, released, or left to expire by a process that
// is gone; and the watcher can take it at that moment.
func TestLeasesAreWatched(t *testing.T) {
	t.Parallel() // it waits for a lease to end
	s := testkit.NATS(t)
	a, b, gone := testkit.Conn(t, s), testkit.Conn(t, s), testkit.Conn(t, s)
	ensure(t, a, orders())
	early, err := a.TryLease(t.Context(), "early.1", "a")
	if err != nil {
		t.Fatal(err)
	}
	defer early.Release()
	seen := watchLeases(t, b)
	if !seen.has(stream.LeaseState{Name: "early.1", Owner: "a"}) {
		t.Error("a lease that was there is not in the list")
	}
	noted, err := a.TryLeaseNoted(t.Context(), "noted", "a", "1", stream.LeaseTTL)
	if err != nil {
		t.Fatal(err)
	}
	noted.Note("2")
	for _, note := range []string{"1", "2"} {
		testkit.Eventually(t, "the note is seen", func() bool { return seen.has(stream.LeaseState{Name: "noted", Owner: "a", Note: note}) })
	}
	if _, err := gone.TryLease(t.Context(), "left", "gone"); err != nil {
		t.Fatal(err)
	}
	last := time.Now()
	gone.Close() // without a release, as by kill -9
	noted.Release()
	testkit.Eventually(t, "the release is seen", func() bool { return seen.has(stream.LeaseState{Name: "noted"}) })
	next, err := b.TryLease(t.Context(), "noted", "b")
	if err != nil {
		t.Fatalf("what was released is not free: %v", err)
	}
	next.Release()
	again, err := b.TryLease(t.Context(), "again", "b")
	if err != nil {
		t.Fatal(err)
	}
	again.Release()

	testkit.Eventually(t, "the end is seen of the lease whose owner is gone", func() bool {
		return seen.has(stream.LeaseState{Name: "left", Expired: true})
	})
	after := time.Since(last)
	if after < stream.LeaseTTL-time.Second || after > stream.LeaseTTL+3*time.Second {
		t.Errorf("it expired after %s", after)
	}
	t.Logf("seen as expired after %s", after)
	next, err = b.TryLease(t.Context(), "left", "b")
	if err != nil {
		t.Fatalf("what has expired is not free: %v", err)
	}
	next.Release()
	if n := seen.count(func(l stream.LeaseState) bool { return l.Expired && l.Name != "left" }); n != 0 {
		t.Errorf("%d leases that were released count as expired", n)
	}
	if n := seen.count(func(l stream.LeaseState) bool { return l.Name == "early.1" && l.Owner == "a" }); n < 3 {
		t.Errorf("%d messages of a lease that is renewed all the time", n)
	}
}

// TestAWatchOfLeasesEndsWithTheConnection, and the next one begins with the full state.
func TestAWatchOfLeasesEndsWithTheConnection(t *testing.T) {
	cfg := localnats.Config{Dir: t.TempDir(), Token: "t"}
	s := testkit.NATSIn(t, cfg)
	cfg.Port = s.Port()
	c := testkit.Conn(t, s)
	ensure(t, c, orders())
	l, err := c.TryLease(t.Context(), "x", "a")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	ended := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		ended <- c.WatchLeases(context.Background(), func(l *stream.LeaseState) {
			if l == nil {
				close(started)
			}
		})
	}()
	<-started
	s.Stop()
	if err := <-ended; !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("the watch ended with %v", err)
	}
	testkit.NATSIn(t, cfg)
	testkit.Eventually(t, "the connection is up", func() bool { return c.Ready() == nil })
	if seen := watchLeases(t, c); !seen.has(stream.LeaseState{Name: "x", Owner: "a"}) {
		t.Error("the lease is not in the list")
	}
}

// TestLeasesExpireOverARestart of the server, which can't remove any meanwhile.
func TestLeasesExpireOverARestart(t *testing.T) {
	t.Parallel() // it waits for a lease to end
	cfg := localnats.Config{Dir: t.TempDir(), Token: "t"}
	s := testkit.NATSIn(t, cfg)
	cfg.Port = s.Port()
	c, gone := testkit.Conn(t, s), testkit.Conn(t, s)
	ensure(t, c, orders())
	if _, err := gone.TryLease(t.Context(), "x", "gone"); err != nil {
		t.Fatal(err)
	}
	taken := time.Now()
	gone.Close()
	s.Stop()
	testkit.NATSIn(t, cfg)
	testkit.Eventually(t, "the connection is up", func() bool { return c.Ready() == nil })
	seen := watchLeases(t, c)
	testkit.Eventually(t, "its end is seen", func() bool { return seen.has(stream.LeaseState{Name: "x", Expired: true}) })
	if d := time.Since(taken); d < stream.LeaseTTL-time.Second || d > stream.LeaseTTL+3*time.Second {
		t.Errorf("it expired after %s", d)
	}
}

// TestLeasesOfFormerVersions: the stream that was made without markers gets them, and its leases go on.
func TestLeasesOfFormerVersions(t *testing.T) {
	t.Parallel() // it waits for a lease to end
	s := testkit.NATS(t)
	js := testkit.JetStream(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "WEIR_LEASES", Subjects: []string{"weir.lease.>"}, MaxMsgsPerSubject: 1, AllowMsgTTL: true,
	}); err != nil {
		t.Fatal(err)
	}
	c := testkit.Conn(t, s)
	l, err := c.TryLease(t.Context(), "x", "a")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if err := c.EnsureLeases(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	gone := testkit.Conn(t, s)
	if _, err := gone.TryLease(t.Context(), "left", "gone"); err != nil {
		t.Fatal(err)
	}
	gone.Close()
	seen := watchLeases(t, c)
	testkit.Eventually(t, "the end is seen of a lease", func() bool { return seen.has(stream.LeaseState{Name: "left", Expired: true}) })
	if !l.Holds() || l.Context().Err() != nil {
		t.Error("the lease did not outlive the change")
	}
}
