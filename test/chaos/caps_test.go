package chaos_test

import (
	"encoding/json"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/testkit"
)

// slow is a function that takes its time for every call, whether or not the caller is still there: like one that has
// sent its statement to a database.
type slow struct {
	meter

	hold time.Duration

	mu   sync.Mutex
	seen map[string]int // id → deliveries
}

func (s *slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, events, err := readBatch(r)
	if err != nil {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	timer := time.NewTimer(s.hold)
	defer timer.Stop()
	<-timer.C
	s.mu.Lock()
	for _, e := range events {
		if s.seen == nil {
			s.seen = map[string]int{}
		}
		s.seen[e.ID]++
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"batchItemFailures": []any{}})
}

// delivered returns how many of the ids came at least once, and how many duplicates there were.
func (s *slow) delivered(ids map[string]int) (n, again int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range ids {
		if s.seen[id] > 0 {
			n++
			again += s.seen[id] - 1
		}
	}
	return n, again
}

// TestCapsOverReplicas runs two dispatchers against a slow function: never more than maxConcurrency calls in flight in
// the whole cluster, while the working one ends, by a graceful drain and by kill -9, and each restarts; and every
// record is settled.
func TestCapsOverReplicas(t *testing.T) {
	t.Parallel() // with the other tests of caps, which wait for leases most of the time
	const limit = 4
	f := &slow{hold: 300 * time.Millisecond}
	url := f.serve(t, f)
	nats := newNATSServer(t)
	nats.start()
	c := newCluster(t, nats, manifests(t, "maxRecords: 500", "maxRecords: 5",
		"  timeout: 60s\n  retry", "  maxConcurrency: 4\n  timeout: 60s\n  retry"), url)
	c.gateway()
	a := c.dispatcher("dispatcher-a")
	testkit.Eventually(t, "dispatcher-a works", func() bool { return a.Logs("working for this mapping") })
	b := c.dispatcher("dispatcher-b")
	l := newLoad(t, c.addr, 16, 0)
	l.every = 250 * time.Millisecond // 64 a second; the function takes 4 × 5 every 0.3 s = 66 a second
	l.start()

	// phase waits until n more calls have been answered and checks the peak since the last phase.
	phase := func(what string, n int) {
		t.Helper()
		done := f.count(http.StatusOK)
		start := time.Now()
		testkit.Eventually(t, what+": calls go on", func() bool { return f.count(http.StatusOK) >= done+n })
		peak := f.peak()
		t.Logf("%-45s %3d calls in %6s, at once at most %d", what, n, time.Since(start).Round(time.Millisecond), peak)
		if peak > limit || peak < limit-1 {
			t.Errorf("%s: %d calls at once; the cap is %d", what, peak, limit)
		}
	}
	phase("both run, a works", 30)
	a.Terminate()
	phase("a got SIGTERM, b takes over", 30)
	testkit.Eventually(t, "dispatcher-b works", func() bool { return b.Logs("working for this mapping") })
	a = c.dispatcher("dispatcher-a")
	phase("a is back, b works", 30)
	b.Kill()
	phase("b was killed, a waits for its lease", 30)
	b = c.dispatcher("dispatcher-b")
	phase("b is back, a works", 30)
	a.Terminate()
	b.Terminate()
	phase("both are down", 0)
	b = c.dispatcher("dispatcher-b")
	phase("b is back alone", 30)

	l.finish()
	testkit.Eventually(t, "every record has been delivered", func() bool {
		n, _ := f.delivered(l.accepted)
		return n == len(l.accepted)
	})
	c.settled()
	_, again := f.delivered(l.accepted)
	t.Logf("%d records accepted and settled, %d deliveries more than one each", len(l.accepted), again)
	if peak := f.peak(); peak > limit {
		t.Errorf("%d calls at once at the end; the cap is %d", peak, limit)
	}
}

// TestCapsOverRestart kills the working dispatcher and starts it again at once under the same name, as Kubernetes
// restarts a container: the calls of the process before may still be in flight.
func TestCapsOverRestart(t *testing.T) {
	t.Parallel()
	const limit = 4
	f := &slow{hold: 2 * time.Second}
	url := f.serve(t, f)
	nats := newNATSServer(t)
	nats.start()
	c := newCluster(t, nats, manifests(t, "maxRecords: 500", "maxRecords: 5",
		"  timeout: 60s\n  retry", "  maxConcurrency: 4\n  timeout: 60s\n  retry"), url)
	c.gateway()
	d := c.dispatcher("dispatcher-0")
	l := newLoad(t, c.addr, 16, 200)
	l.start()
	l.wait()
	for range size(1, 1, 3) {
		testkit.Eventually(t, "all calls run", func() bool { return f.running() == limit })
		d.Kill()
		d = c.dispatcher("dispatcher-0")
		done := f.count(http.StatusOK)
		testkit.Eventually(t, "calls go on", func() bool { return f.count(http.StatusOK) > done+limit })
	}
	if peak := f.peak(); peak > limit {
		t.Errorf("%d calls at once; the cap is %d", peak, limit)
	}
}

// TestCapsOverHang makes the working dispatcher hang for longer than its lease, and go on when another has taken over.
func TestCapsOverHang(t *testing.T) {
	t.Parallel()
	const limit = 4
	f := &slow{hold: 300 * time.Millisecond}
	url := f.serve(t, f)
	nats := newNATSServer(t)
	nats.start()
	c := newCluster(t, nats, manifests(t, "maxRecords: 500", "maxRecords: 5",
		"  timeout: 60s\n  retry", "  maxConcurrency: 4\n  timeout: 60s\n  retry"), url)
	c.gateway()
	a := c.dispatcher("dispatcher-a")
	testkit.Eventually(t, "dispatcher-a works", func() bool { return a.Logs("working for this mapping") })
	b := c.dispatcher("dispatcher-b")
	l := newLoad(t, c.addr, 16, 800) // more than is done before b works
	l.start()
	l.wait()
	testkit.Eventually(t, "all calls run", func() bool { return f.running() == limit })
	a.Signal(syscall.SIGSTOP)
	testkit.Eventually(t, "dispatcher-b works", func() bool { return b.Logs("working for this mapping") })
	testkit.Eventually(t, "all calls of b run", func() bool { return f.running() == limit })
	a.Signal(syscall.SIGCONT)
	done := f.count(http.StatusOK)
	testkit.Eventually(t, "calls go on", func() bool { return f.count(http.StatusOK) > done+5*limit })
	if peak := f.peak(); peak > limit {
		t.Errorf("%d calls at once; the cap is %d", peak, limit)
	}
	testkit.Eventually(t, "every record has been delivered", func() bool {
		n, _ := f.delivered(l.accepted)
		return n == len(l.accepted)
	})
	c.settled()
}
