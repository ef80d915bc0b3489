package dispatcher_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/dispatcher"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// with gives d a catalog with the world's queue, of this maxAge, and the mappings.
func (w *world) with(d *dispatcher.Dispatcher, maxAge time.Duration, mappings ...catalog.Mapping) {
	w.queue.MaxAge = maxAge
	d.Use(&catalog.Catalog{Queues: []catalog.Queue{w.queue}, Mappings: mappings})
}

// expired checks that a dead letter is one that has expired.
func (w *world) expired(r record.Record) {
	w.t.Helper()
	if f := r.Failure; f == nil || !strings.HasPrefix(f.Reason, "expired: ") || f.Status != 0 || r.Attempts != 0 {
		w.t.Errorf("%s: attempts %d, %+v", r.Body, r.Attempts, f)
	}
}

// TestWhatIsTooOldIsADeadLetter has a function that is away, and more in the queue than is called at a time.
func TestWhatIsTooOldIsADeadLetter(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	var back atomic.Bool
	w := newWorld(t, conn, func(call) answer {
		if back.Load() {
			return answer{}
		}
		return answer{status: 503}
	}, func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords = 2, 3 })
	const n = 50
	for i := range n / 2 {
		w.put("a"+strconv.Itoa(i), "b"+strconv.Itoa(i))
	}
	d, stop := w.start("a", time.Second)
	w.with(d, 2*time.Second, w.spec)
	testkit.Eventually(t, "all are dead letters", func() bool { return len(w.dead()) == n })
	for _, r := range w.dead() {
		w.expired(r)
	}
	w.settled()
	if s, err := conn.Status(t.Context(), w.queue.Key); err != nil || s.Retrying != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	back.Store(true)
	w.put("young")
	testkit.Eventually(t, "what is young is called", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.taken["young"] == 1 })
	w.mu.Lock()
	if len(w.taken) != 1 {
		t.Errorf("the function took %v", w.taken)
	}
	w.mu.Unlock()
	s, _ := d.Stats(w.spec.Key)
	stop()
	if s.Taken != s.Done+s.Retried+s.Dead+s.InHand+s.Returned || s.Dead != n {
		t.Errorf("%+v", s)
	}
	if err := conn.Redrive(t.Context(), w.queue.Key, 0, func(int) {}); err != nil { // young again
		t.Fatal(err)
	}
	w.start("b", time.Second)
	testkit.Eventually(t, "what was redriven is called", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.taken) == n+1 })
}

// TestExpiryAfterAGiveBack: what an orderly stop writes back is no younger for it.
func TestExpiryAfterAGiveBack(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	w := newWorld(t, conn, func(call) answer { return answer{status: 503} }, nil)
	w.put("a", "b")
	d, stop := w.start("a", time.Second)
	w.with(d, time.Hour, w.spec)
	testkit.Eventually(t, "it is called", func() bool { return len(w.seen()) > 0 })
	stop()
	testkit.Eventually(t, "it was given back", func() bool {
		s, err := conn.Status(t.Context(), w.queue.Key)
		return err == nil && s.Retrying > 0 && s.Pending == 0 && s.InFlight == 0
	})
	d, _ = w.start("b", time.Second)
	w.with(d, time.Second, w.spec)
	testkit.Eventually(t, "both are dead letters", func() bool { return len(w.dead()) == 2 })
	for _, r := range w.dead() {
		w.expired(r)
	}
}

// TestExpiryWaitsForRoom: nothing expires while the dead-letter queue is full.
func TestExpiryWaitsForRoom(t *testing.T) {
	log := &said{Handler: testkit.Log(t).Handler(), times: map[string]int{}}
	conn := sayingConn(t, log)
	w := newWorld(t, conn, func(call) answer { return answer{status: 503} }, nil)
	w.fillDead()
	w.put(string(dense(16 << 10)))
	d, _ := w.start("a", time.Second)
	w.with(d, time.Second, w.spec)
	before := log.count("publishing again")
	testkit.Eventually(t, "it is tried again", func() bool { return log.count("publishing again") > before+2 })
	if s, err := conn.Status(t.Context(), w.queue.Key); err != nil || s.Dead != 2 || s.InFlight != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := conn.PurgeDead(t.Context(), w.queue.Key); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it is a dead letter", func() bool { return len(w.dead()) == 1 })
	w.settled()
}

// fillDead makes a queue whose dead-letter queue has room for no more than 4 KiB.
func (w *world) fillDead() {
	w.t.Helper()
	w.queue.MaxBytes = 64 << 10
	if err := w.conn.EnsureQueue(w.t.Context(), w.queue, 1); err != nil {
		w.t.Fatal(err)
	}
	for range 2 {
		id, err := record.NewID()
		if err != nil {
			w.t.Fatal(err)
		}
		filler := record.Record{ID: id, Time: time.Now(), Body: dense(30 << 10), Failure: &record.Failure{Reason: "filler"}}
		if err := w.conn.DeadLetter(w.t.Context(), w.queue.Key, stream.Refused, []record.Record{filler}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestExpiredJobWithoutItsDeadLetter: a job whose state says expired, and whose dead letter isn't stored yet when its
// dispatcher stops, becomes one after all.
func TestExpiredJobWithoutItsDeadLetter(t *testing.T) {
	log := &said{Handler: testkit.Log(t).Handler(), times: map[string]int{}}
	conn := sayingConn(t, log)
	w := newWorld(t, conn, func(call) answer { return answer{status: 503} }, nil)
	w.queue.Jobs, w.queue.Results = true, catalog.Results{MaxAge: time.Hour, MaxBytes: 16 << 20}
	w.fillDead()
	rid, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	r := &record.Record{ID: rid, Time: time.Now(), Job: true, Source: "/apis/default/test/put", Body: dense(16 << 10)}
	if err := w.writer.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	d, stop := w.start("a", time.Second)
	w.with(d, time.Second, w.spec)
	testkit.Eventually(t, "its dead letter finds no room", func() bool { return log.count("publishing again") > 1 })
	if s, _, err := job.Get(t.Context(), conn, job.NewID(w.queue.Key, r, r.Time), time.Hour, time.Now()); err != nil || s.Status != job.Expired {
		t.Errorf("it is %+v, %v", s, err)
	}
	stop()
	if _, err := conn.PurgeDead(t.Context(), w.queue.Key); err != nil {
		t.Fatal(err)
	}
	d, _ = w.start("b", time.Second)
	w.with(d, time.Second, w.spec)
	testkit.Eventually(t, "it is a dead letter", func() bool { return len(w.dead()) == 1 })
	for _, dead := range w.dead() {
		w.expired(dead)
	}
	w.settled()
}

// TestQueueWithoutMappingExpires: what is too old is dead-lettered, what is younger waits for the mapping that comes.
func TestQueueWithoutMappingExpires(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	w := newWorld(t, conn, func(call) answer { return answer{} }, nil)
	w.put("a", "b")
	w.put("c")
	spec := w.spec
	w.spec.Queue = catalog.Key{Namespace: "default", Name: "another"} // so that the mapping is not of this queue
	c := collect(t)
	w.tel = c.Providers
	d, _ := w.start("a", time.Second)
	w.with(d, time.Second)
	testkit.Eventually(t, "they are dead letters", func() bool {
		if len(w.dead()) == 3 {
			return true
		}
		w.with(d, time.Second) // a new catalog triggers the sweep at once
		return false
	})
	for _, r := range w.dead() {
		w.expired(r)
	}
	w.settled()
	if n := c.now()["weir.mapping.dead{weir.queue="+w.queue.Key.String()+",weir.reason=expired}"]; n != 3 {
		t.Errorf("%v are counted", n)
	}
	w.put("young")
	w.with(d, time.Hour)
	w.spec = spec
	w.with(d, time.Hour, spec)
	testkit.Eventually(t, "what is young is called", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.taken["young"] == 1 })
	if len(w.dead()) != 3 {
		t.Errorf("%d dead letters", len(w.dead()))
	}
}

// TestExpiredJob: a job that has expired has that status, and is done after a redrive.
func TestExpiredJob(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	var back atomic.Bool
	w := newWorld(t, conn, func(call) answer {
		if back.Load() {
			return answer{text: "done"}
		}
		return answer{status: 503}
	}, nil)
	w.queue.Jobs, w.queue.Results = true, catalog.Results{MaxAge: time.Hour, MaxBytes: 16 << 20}
	if err := conn.EnsureQueue(t.Context(), w.queue, 1); err != nil {
		t.Fatal(err)
	}
	id := func(r *record.Record) job.ID { return job.NewID(w.queue.Key, r, r.Time) }
	var recs []*record.Record
	for i := range 5 {
		rid, err := record.NewID()
		if err != nil {
			t.Fatal(err)
		}
		r := &record.Record{ID: rid, Time: time.Now(), Job: true, Source: "/apis/default/test/put", Body: []byte(fmt.Sprint(i))}
		if err := w.writer.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		recs = append(recs, r)
	}
	cancelled := recs[4]
	leave := testkit.OwnStates(t, conn, w.queue.Key)
	if _, err := job.Cancel(t.Context(), conn, id(cancelled), time.Hour, time.Now()); err != nil {
		t.Fatal(err)
	}
	leave()
	d, _ := w.start("a", time.Second)
	w.with(d, time.Second, w.spec)
	status := func(r *record.Record) job.Status {
		s, _, err := job.Get(t.Context(), conn, id(r), time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return s.Status
	}
	for _, r := range recs[:4] {
		testkit.Eventually(t, "it has expired", func() bool { return status(r) == job.Expired })
	}
	w.settled()
	if dead := w.dead(); len(dead) != 4 || status(cancelled) != job.Cancelled {
		t.Errorf("%d dead letters, the cancelled one is %s", len(dead), status(cancelled))
	}
	for _, r := range w.dead() {
		w.expired(r)
	}
	back.Store(true)
	w.with(d, time.Hour, w.spec)
	if err := conn.Redrive(t.Context(), w.queue.Key, 0, func(int) {}); err != nil {
		t.Fatal(err)
	}
	for _, r := range recs[:4] {
		testkit.Eventually(t, "it is done after all", func() bool { return status(r) == job.Succeeded })
	}
}

// sayingConn is a connection whose log counts messages.
func sayingConn(t *testing.T, log *said) *stream.Conn {
	t.Helper()
	return connAs(t, testkit.NATS(t).URL(), log)
}

// TestSweepLeavesRetries: a damaged block among the retries of a queue without a mapping waits, as the others do, however many
// sweeps there are. With a mapping it is one dead letter.
func TestSweepLeavesRetries(t *testing.T) {
	srv := testkit.NATS(t)
	conn := testkit.Conn(t, srv)
	w := newWorld(t, conn, func(call) answer { return answer{} }, func(*catalog.Mapping) {})
	k := w.queue.Key
	if _, err := testkit.JetStream(t, srv).Publish(t.Context(), "weir.r."+k.Namespace+"."+k.Name+".due", []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	spec := w.spec
	w.spec.Queue = catalog.Key{Namespace: "default", Name: "another"} // so that the mapping is not of this queue
	d, _ := w.start("a", time.Second)
	w.with(d, time.Second)
	for sweeps := range int64(3) {
		w.put("old")
		testkit.Eventually(t, "it is a dead letter", func() bool {
			w.with(d, time.Second) // a new catalog triggers the sweep at once
			return w.depth().Dead[stream.Expired] == sweeps+1
		})
		if got := w.depth(); got.Dead[stream.Unreadable] != 0 || got.Retrying != 1 {
			t.Fatalf("after %d sweeps: %+v", sweeps+1, got)
		}
	}
	w.spec = spec
	w.with(d, time.Hour, spec)
	testkit.Eventually(t, "it is a dead letter, too", func() bool {
		got := w.depth()
		return got.Dead[stream.Unreadable] == 1 && got.Retrying == 0
	})
}
