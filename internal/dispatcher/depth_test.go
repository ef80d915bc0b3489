package dispatcher_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/dispatcher"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

func (w *world) depth() stream.Depth {
	w.t.Helper()
	d, err := w.conn.Depth(w.t.Context(), w.queue.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// becomes waits for a depth, and that nothing of it is uncertain.
func (w *world) becomes(what string, owned bool, waiting, retrying int64) {
	w.t.Helper()
	var d stream.Depth
	defer func() {
		if w.t.Failed() {
			w.t.Logf("%s: %+v", what, d)
		}
	}()
	testkit.Eventually(w.t, what, func() bool {
		d = w.depth()
		if d.Unaccounted != 0 {
			w.t.Fatalf("%s: %d records are unaccounted for", what, d.Unaccounted)
		}
		return d.Owned == owned && d.Waiting == waiting && d.Retrying == retrying && d.Uncertainty == 0
	})
}

// TestDepthIsExact: the depth of a queue is exact with an owner, after its orderly end, after it has vanished, and with the
// next one, while one record holds all that was settled after it in the stream.
func TestDepthIsExact(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	release := make(chan struct{})
	w := newWorld(t, testkit.Conn(t, s), func(c call) answer {
		switch {
		case strings.HasPrefix(c.bodies[0], "slow"):
			<-release
		case strings.HasPrefix(c.bodies[0], "poison"):
			return answer{status: 422}
		case strings.HasPrefix(c.bodies[0], "weak"):
			return answer{status: 500}
		}
		return answer{}
	}, func(m *catalog.Mapping) {
		m.Batch.MaxRecords, m.MaxConcurrency = 1, 2
		m.Retry.InitialBackoff, m.Retry.MaxBackoff = time.Hour, time.Hour
	})
	open := sync.OnceFunc(func() { close(release) })
	t.Cleanup(open)
	// Nobody works on it yet.
	w.put("slow")
	w.put(many("first", 90)...)
	w.becomes("all wait, without an owner", false, 91, 0)

	own := testkit.Conn(t, s) // of its own, to be cut
	_, stop := w.startOn(own, "a")
	w.becomes("the slow one is in flight, all others are settled", true, 1, 0)
	w.put(many("poison", 7)...)
	w.put(many("weak", 5)...)
	w.becomes("some have died, some wait for their next attempt", true, 1, 5)
	if d := w.depth(); d.Dead[stream.Refused] != 7 || d.Oldest <= 0 || d.Settled != 102 || d.Epoch == "" {
		t.Errorf("%+v", d)
	}
	own.Close() // it vanishes: what it had settled behind the slow one comes again
	testkit.Eventually(t, "it has no owner", func() bool { return !w.depth().Owned })
	w.becomes("all after the slow one wait again", false, 103, 5)
	stop()
	open()
	_, stop = w.start("a", time.Second) // under the same name: the lease is its own
	testkit.Eventually(t, "all is settled", func() bool { d := w.depth(); return d.Owned && d.Waiting == 0 && d.Uncertainty == 0 })
	if d := w.depth(); d.Oldest != 0 || d.Unaccounted != 0 {
		t.Errorf("%+v", d)
	}
	stop()
	w.put("last")
	testkit.Eventually(t, "one waits, after an orderly end", func() bool {
		d := w.depth()
		return !d.Owned && d.Waiting-d.Uncertainty <= 1 && d.Waiting >= 1
	})
}

// TestUnaccounted: messages that somebody removes by hand are noticed, before they were delivered.
func TestUnaccounted(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	release := make(chan struct{})
	w := newWorld(t, testkit.Conn(t, s), func(call) answer { <-release; return answer{} }, func(m *catalog.Mapping) {
		m.Batch.MaxRecords, m.MaxConcurrency = 1, 1
	})
	open := sync.OnceFunc(func() { close(release) })
	t.Cleanup(open)
	w.put("a")
	w.put("b")
	w.put("c")
	js, err := jetstream.New(testkit.Client(t, s))
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(t.Context(), "WEIR_Q_default_"+w.queue.Key.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.DeleteMsg(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if d := w.depth(); d.Waiting != 2 || d.Unaccounted != 1 {
		t.Errorf("without an owner: %+v", d)
	}
	_, stop := w.start("a", time.Second)
	testkit.Eventually(t, "its owner misses it", func() bool { d := w.depth(); return d.Owned && d.Unaccounted >= 1 })
	open()
	testkit.Eventually(t, "the others are settled", func() bool { d := w.depth(); return d.Waiting == 0 && d.Unaccounted >= 1 })
	stop()
}

// TestCountedBesideTheVersionBefore: streams that take no counted subjects, as a controller of the version before made them,
// take blocks and dead letters anyway; their numbers are said to be uncertain.
func TestCountedBesideTheVersionBefore(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	w := newWorld(t, testkit.Conn(t, s), func(call) answer { return answer{status: 422} }, func(m *catalog.Mapping) { m.Batch.MaxRecords = 1 })
	js, err := jetstream.New(testkit.Client(t, s))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"Q", "D"} {
		st, err := js.Stream(t.Context(), "WEIR_"+kind+"_default_"+w.queue.Key.Name)
		if err != nil {
			t.Fatal(err)
		}
		sc := st.CachedInfo().Config
		sc.Subjects = sc.Subjects[:1]
		if _, err := js.UpdateStream(t.Context(), sc); err != nil {
			t.Fatal(err)
		}
	}
	w.put("a", "b")
	if d := w.depth(); d.Waiting < 1 || d.Waiting+d.Uncertainty < 2 {
		t.Errorf("%+v", d)
	}
	_, stop := w.start("a", time.Second)
	testkit.Eventually(t, "they are dead letters", func() bool { return w.depth().Dead[stream.Unknown] == 2 })
	stop()
}

func many(name string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s %d", name, i)
	}
	return out
}

// startOn is start with another connection.
func (w *world) startOn(conn *stream.Conn, owner string) (*dispatcher.Dispatcher, func()) {
	w.t.Helper()
	former := w.conn
	w.conn = conn
	defer func() { w.conn = former }()
	return w.start(owner, time.Second)
}

// TestDepthBesideAPurge: a reading that falls between the server's purge and the owner's books is made again; one that stays
// so doesn't pass for exact.
func TestDepthBesideAPurge(t *testing.T) {
	s := testkit.NATS(t)
	c := testkit.Conn(t, s)
	w := newWorld(t, c, func(call) answer { return answer{} }, func(*catalog.Mapping) {})
	k := w.queue.Key
	for range 2 {
		w.put("a") // a block
	}
	q, err := testkit.JetStream(t, s).Stream(t.Context(), "WEIR_Q_"+k.Namespace+"_"+k.Name)
	if err == nil {
		err = q.Purge(t.Context(), jetstream.WithPurgeSequence(2))
	}
	if err != nil {
		t.Fatal(err)
	}
	var asked, late atomic.Int32
	late.Store(1)
	stop, err := c.ServeTally(k, func() stream.Tally {
		if asked.Add(1) <= late.Load() {
			return stream.Tally{Exact: true, Last: 2, Settled: 1} // the first is settled; that it is gone is not in the books yet
		}
		return stream.Tally{Exact: true, Purged: 1, Last: 2}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if d, err := c.Depth(t.Context(), k); err != nil || d.Waiting != 1 || d.Uncertainty != 0 {
		t.Errorf("%+v %v, want 1", d, err)
	}
	asked.Store(0)
	late.Store(100)
	if d, err := c.Depth(t.Context(), k); err != nil || d.Waiting != 0 || d.Uncertainty < 1 {
		t.Errorf("%+v %v, want it to be uncertain", d, err)
	}
}
