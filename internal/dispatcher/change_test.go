package dispatcher_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/dispatcher"
	"github.com/weir-dev/weir/internal/testkit"
)

// use gives d a changed spec and waits until it is in use.
func (w *world) use(d *dispatcher.Dispatcher, change func(*catalog.Mapping)) {
	w.t.Helper()
	change(&w.spec)
	cat := &catalog.Catalog{Mappings: []catalog.Mapping{w.spec}}
	d.Use(cat)
	testkit.Eventually(w.t, "the catalog is in use", func() bool { return d.Revision() == cat.Revision() })
}

func (w *world) running() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inFlight
}

// putEach stores n records, a block each.
func (w *world) putEach(n int) {
	w.t.Helper()
	for i := range n {
		w.put(strconv.Itoa(i))
	}
}

// TestMappingChangesLive: everything but the queue may change under calls in flight. None is cut, none waits for
// another to end, and nothing comes twice.
func TestMappingChangesLive(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	one := func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords = 2, 1 }
	// blocking returns a world whose function holds each call until it gets a value.
	blocking := func(t *testing.T, check func(running int)) (*world, chan struct{}) {
		release := make(chan struct{})
		var w *world
		w = newWorld(t, conn, func(call) answer {
			if check != nil {
				check(w.running())
			}
			<-release
			return answer{}
		}, one)
		return w, release
	}
	finish := func(t *testing.T, w *world, d *dispatcher.Dispatcher, records int) {
		t.Helper()
		w.settled()
		if s, _ := d.Stats(w.spec.Key); s.Done != records || s.Taken != records || s.Failed != 0 || s.Throttled != 0 || s.Returned != 0 {
			t.Errorf("after the changes: %+v, want %d records taken and done", s, records)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for b, n := range w.taken {
			if n != 1 {
				t.Errorf("%s was taken %d times", b, n)
			}
		}
	}

	t.Run("a higher maxConcurrency", func(t *testing.T) {
		t.Parallel()
		w, release := blocking(t, nil)
		w.putEach(10)
		d, _ := w.start("a", testkit.Patience)
		testkit.Eventually(t, "two calls block", func() bool { return w.running() == 2 })
		w.use(d, func(m *catalog.Mapping) { m.MaxConcurrency = 6 })
		testkit.Eventually(t, "four more have joined them", func() bool { return w.running() == 6 })
		close(release)
		finish(t, w, d, 10)
		if w.maxSeen != 6 {
			t.Errorf("%d calls at once", w.maxSeen)
		}
	})

	t.Run("a lower maxConcurrency", func(t *testing.T) {
		t.Parallel()
		var lowered atomic.Bool
		w, release := blocking(t, func(running int) {
			if lowered.Load() && running > 2 {
				t.Errorf("a call started as the %dth at once, although 2 are allowed now", running)
			}
		})
		w.spec.MaxConcurrency = 6
		w.putEach(12)
		d, _ := w.start("a", testkit.Patience)
		testkit.Eventually(t, "six calls block", func() bool { return w.running() == 6 })
		w.use(d, func(m *catalog.Mapping) { m.MaxConcurrency = 2 })
		lowered.Store(true)
		for done := 1; done <= 4; done++ {
			release <- struct{}{}
			testkit.Eventually(t, "a call has ended", func() bool { s, _ := d.Stats(w.spec.Key); return s.Done == done })
		}
		if calls := len(w.seen()); calls != 6 {
			t.Errorf("%d calls have started before fewer than 2 were in flight", calls)
		}
		release <- struct{}{}
		testkit.Eventually(t, "one call has joined the last", func() bool { return len(w.seen()) == 7 })
		close(release)
		finish(t, w, d, 12)
	})

	t.Run("another function", func(t *testing.T) {
		t.Parallel()
		w, release := blocking(t, nil)
		var there atomic.Int64
		other := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.serve(rw, r, func(call) answer { there.Add(1); return answer{} })
		}))
		defer other.Close()
		w.putEach(2)
		d, _ := w.start("a", testkit.Patience)
		testkit.Eventually(t, "two calls block", func() bool { return w.running() == 2 })
		w.use(d, func(m *catalog.Mapping) { m.Function.URL, m.MaxConcurrency = other.URL, 3 })
		w.put("x", "y", "z")
		testkit.Eventually(t, "the next calls went to the other function", func() bool { return there.Load() == 3 })
		if n := w.running(); n != 2 {
			t.Errorf("%d of the 2 calls in flight are left", n)
		}
		close(release)
		finish(t, w, d, 5)
	})

	t.Run("another function while the first is away", func(t *testing.T) {
		t.Parallel()
		w, release := blocking(t, nil)
		close(release)
		away := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Retry-After", "3600")
			rw.WriteHeader(http.StatusServiceUnavailable)
		}))
		defer away.Close()
		url := w.spec.Function.URL
		w.spec.Function.URL = away.URL
		w.put("a")
		d, _ := w.start("a", testkit.Patience)
		testkit.Eventually(t, "a call was refused for now", func() bool { s, _ := d.Stats(w.spec.Key); return s.Throttled > 0 })
		w.use(d, func(m *catalog.Mapping) { m.Function.URL = url })
		w.settled() // the pause was the other function's
	})

	t.Run("another protocol while the function was not understood", func(t *testing.T) {
		t.Parallel()
		w, release := blocking(t, nil)
		close(release)
		w.spec.Function.H2C = true
		w.put("a")
		d, _ := w.start("a", testkit.Patience)
		testkit.Eventually(t, "its limit is the lowest", func() bool { s, _ := d.Stats(w.spec.Key); return s.Throttled > 4 })
		w.use(d, func(m *catalog.Mapping) { m.Function.H2C = false })
		w.settled()
		if s, _ := d.Stats(w.spec.Key); s.Failed != 0 {
			t.Errorf("%+v", s)
		}
	})

	t.Run("another batch and window", func(t *testing.T) {
		t.Parallel()
		w, release := blocking(t, nil)
		close(release)
		w.spec.Batch.MaxRecords, w.spec.Batch.Window = 10, time.Hour
		w.putEach(4)
		d, _ := w.start("a", testkit.Patience)
		testkit.Eventually(t, "four records wait for company", func() bool { s, _ := d.Stats(w.spec.Key); return s.InHand == 4 })
		w.use(d, func(m *catalog.Mapping) { m.Batch.MaxRecords = 4 })
		testkit.Eventually(t, "they are a batch now", func() bool { s, _ := d.Stats(w.spec.Key); return s.Done == 4 })
		w.put("x")
		testkit.Eventually(t, "one more waits", func() bool { s, _ := d.Stats(w.spec.Key); return s.InHand == 1 })
		w.use(d, func(m *catalog.Mapping) { m.Batch.Window = 0 })
		finish(t, w, d, 5)
		if calls := w.seen(); len(calls) != 2 || len(calls[0].bodies) != 4 {
			t.Errorf("calls %v, want one of four records and one of one", calls)
		}
	})

	t.Run("a shorter timeout spares the call in flight", func(t *testing.T) {
		t.Parallel()
		w, release := blocking(t, nil)
		w.spec.Retry.MaxAttempts = 1
		w.put("long")
		d, _ := w.start("a", testkit.Patience)
		testkit.Eventually(t, "the call blocks", func() bool { return w.running() == 1 })
		w.use(d, func(m *catalog.Mapping) { m.Timeout = 50 * time.Millisecond })
		w.put("short")
		testkit.Eventually(t, "the next call has timed out", func() bool { s, _ := d.Stats(w.spec.Key); return s.Dead == 1 })
		close(release)
		w.settled()
		if dead := w.dead(); len(dead) != 1 || dead["short"].Attempts != 1 || w.taken["long"] != 1 {
			t.Errorf("dead %v, taken %v", dead, w.taken)
		}
	})
}

// TestAnotherQueueStopsTheMapping: it goes on with the other queue, and what it had in hand is given back.
func TestAnotherQueueStopsTheMapping(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	from := newWorld(t, conn, func(call) answer { return answer{} }, func(m *catalog.Mapping) { m.Batch.Window, m.Batch.MaxRecords = time.Hour, 1000 })
	to := newWorld(t, conn, func(call) answer { return answer{} }, nil)
	from.put("a")
	d, _ := from.start("a", time.Second)
	testkit.Eventually(t, "the record is in hand", func() bool { s, _ := d.Stats(from.spec.Key); return s.InHand == 1 })
	from.use(d, func(m *catalog.Mapping) { m.Queue, m.Batch = to.queue.Key, to.spec.Batch })
	to.put("b")
	to.settled()
	if s, _ := d.Stats(from.spec.Key); s.Done != 1 || from.taken["b"] != 1 || from.taken["a"] != 0 {
		t.Errorf("%+v, taken %v", s, from.taken)
	}
	if s, err := conn.Status(t.Context(), from.queue.Key); err != nil || s.Empty() {
		t.Errorf("the former queue holds %+v (%v), want its record", s, err)
	}
}

// TestAClosedQueueIsDrained: it takes no new records, and loses none of the ones it has, those to be tried again
// among them.
func TestAClosedQueueIsDrained(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	var n atomic.Int64
	w := newWorld(t, conn, func(call) answer {
		if n.Add(1) == 1 {
			return answer{status: 500}
		}
		return answer{}
	}, nil)
	w.put("a", "b", "c")
	if err := conn.CloseQueue(t.Context(), w.queue.Key); err != nil {
		t.Fatal(err)
	}
	w.start("a", time.Second)
	w.settled()
	for _, b := range []string{"a", "b", "c"} {
		if w.taken[b] != 1 {
			t.Errorf("%s was taken %d times", b, w.taken[b])
		}
	}
}
