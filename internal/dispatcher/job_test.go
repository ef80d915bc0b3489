package dispatcher_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// putJob stores a job.
func (w *world) putJob(body string) record.ID {
	w.t.Helper()
	id, err := record.NewID()
	if err == nil {
		_, err = w.conn.AppendOnce(w.t.Context(), w.queue.Key, &record.Record{
			ID: id, Time: time.Now(), Source: "/apis/default/test/put", ContentType: "text/plain", Body: []byte(body), Job: true,
		})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// takesJobs gives the queue a stream for the states of jobs.
func (w *world) takesJobs(room int64) {
	w.t.Helper()
	w.queue.Jobs, w.queue.Results = true, catalog.Results{MaxAge: time.Hour, MaxBytes: room}
	if err := w.conn.EnsureQueue(w.t.Context(), w.queue, 1); err != nil {
		w.t.Fatal(err)
	}
}

// TestJobsWithoutRoomForTheirStates keep nobody else waiting, and are done when there is room.
func TestJobsWithoutRoomForTheirStates(t *testing.T) {
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(call) answer { return answer{} }, func(m *catalog.Mapping) { m.MaxConcurrency = 1 })
	w.putJob("a")
	w.putJob("b")
	w.put("no job")
	d, _ := w.start("a", time.Second)
	testkit.Eventually(t, "the jobs are rescheduled and the other record is done", func() bool {
		s, _ := d.Stats(w.spec.Key)
		return s.Retried >= 2 && s.Done == 1
	})
	w.takesJobs(16 << 20)
	w.settled()
	for _, b := range []string{"a", "b", "no job"} {
		if w.taken[b] != 1 {
			t.Errorf("%s was taken %d times", b, w.taken[b])
		}
	}
}

// TestOutcomesWithoutRoomHoldNoCall: while the outcomes of jobs wait for room, and hold all the calls' places that there are,
// records that are no jobs are called; and the outcomes are stored when there is room.
func TestOutcomesWithoutRoomHoldNoCall(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	var w *world
	var once sync.Once
	w = newWorld(t, conn, func(c call) answer {
		if c.bodies[0] == "job" {
			once.Do(w.useUpRoom)
		}
		return answer{}
	}, func(m *catalog.Mapping) { m.MaxConcurrency = 2 })
	w.takesJobs(1 << 20)
	first, second := w.putJob("job"), w.putJob("job")
	d, _ := w.start("a", time.Second)
	testkit.Eventually(t, "the jobs were called", func() bool { return len(w.seen()) >= 2 })
	w.put("no job")
	testkit.Eventually(t, "the record that is no job is done", func() bool {
		s, _ := d.Stats(w.spec.Key)
		return s.Done == 1
	})
	if s, _ := d.Stats(w.spec.Key); s.InHand != 2 {
		t.Errorf("the jobs are settled without an outcome: %+v", s)
	}
	w.takesJobs(16 << 20)
	w.settled()
	for _, id := range []record.ID{first, second} {
		if ended, err := job.Ended(t.Context(), conn, w.queue.Key, &record.Record{ID: id}); err != nil || !ended {
			t.Errorf("a job has not ended: %v", err)
		}
	}
	if s, _ := d.Stats(w.spec.Key); s.Calls != 3 {
		t.Errorf("%d calls", s.Calls)
	}
}

// useUpRoom stores states until there is no room for the smallest.
func (w *world) useUpRoom() {
	for _, size := range []int{job.MaxInlineBytes, 16 << 10, 1 << 10, 1} {
		for {
			id, err := record.NewID()
			if err == nil {
				_, err = w.conn.PutJob(w.t.Context(), w.queue.Key, stream.JobKey{ID: id}, stream.JobState{Header: "x", Body: make([]byte, size)}, 0)
			}
			if err != nil {
				break
			}
		}
	}
}

// TestAFunctionThatSpeaksHTTP2: batches, single records and jobs are called by what the mapping says, which may change: by
// HTTP/1.1 such a function is away.
func TestAFunctionThatSpeaksHTTP2(t *testing.T) {
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(call) answer { return answer{} }, nil)
	own := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("called by %s", r.Proto)
		}
		w.serve(rw, r, func(call) answer { return answer{} })
	}))
	own.Config.Protocols = new(http.Protocols)
	own.Config.Protocols.SetUnencryptedHTTP2(true) // and nothing else
	own.Start()
	t.Cleanup(own.Close)
	w.takesJobs(16 << 20)
	w.spec.Function.H2C = true // of the function that speaks HTTP/1.1 only
	w.put("a", "b")
	w.putJob("job")
	d, _ := w.start("a", testkit.Patience)
	testkit.Eventually(t, "it is away, which is no failure", func() bool { s, _ := d.Stats(w.spec.Key); return s.Throttled > 0 && s.Failed == 0 })
	w.use(d, func(m *catalog.Mapping) { m.Function.URL = own.URL })
	w.settled()
	w.use(d, func(m *catalog.Mapping) { m.Batch.MaxRecords = 1 })
	w.put("single")
	w.settled()
	for _, b := range []string{"a", "b", "job", "single"} {
		if w.taken[b] != 1 {
			t.Errorf("%s was taken %d times", b, w.taken[b])
		}
	}
}

// TestNextAttemptCanBeHastened by the id of its job.
func TestNextAttemptCanBeHastened(t *testing.T) {
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(c call) answer {
		if c.attempts[0] == 0 {
			return answer{status: http.StatusInternalServerError}
		}
		return answer{}
	}, func(m *catalog.Mapping) { m.Retry.InitialBackoff, m.Retry.MaxBackoff = time.Hour, time.Hour })
	w.takesJobs(16 << 20)
	id := w.putJob("a")
	d, _ := w.start("a", time.Second)
	testkit.Eventually(t, "its next attempt waits", func() bool { s, _ := d.Stats(w.spec.Key); return s.Retried == 1 })
	if err := w.conn.Hasten(t.Context(), w.queue.Key, id); err != nil {
		t.Fatal(err)
	}
	w.settled()
	if w.taken["a"] != 1 || len(w.seen()) != 2 {
		t.Errorf("taken %d times in %d calls", w.taken["a"], len(w.seen()))
	}
}

// TestDrainEndsWhileAJobFails for good: its dead letter is stored and there is no room for its state. It must not be
// left running, or be called and dead-lettered again.
func TestDrainEndsWhileAJobFails(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	var w *world
	w = newWorld(t, conn, func(call) answer {
		for _, size := range []int{job.MaxInlineBytes, 16 << 10, 1 << 10, 1} {
			for {
				id, err := record.NewID()
				if err == nil {
					_, err = conn.PutJob(context.Background(), w.queue.Key, stream.JobKey{ID: id}, stream.JobState{Header: "x", Body: make([]byte, size)}, 0)
				}
				if err != nil {
					break // full
				}
			}
		}
		return answer{status: http.StatusBadRequest}
	}, nil)
	w.takesJobs(1 << 20)
	id := w.putJob("a")
	_, stop := w.start("a", time.Millisecond)
	testkit.Eventually(t, "it is dead-lettered", func() bool { return len(w.dead()) == 1 })
	w.cancel()
	w.takesJobs(16 << 20)
	stop()
	if ended, err := job.Ended(t.Context(), conn, w.queue.Key, &record.Record{ID: id}); err != nil || !ended {
		t.Errorf("the job has ended: %t, %v", ended, err)
	}
	w.start("b", time.Second)
	w.settled()
	if len(w.seen()) != 1 || len(w.dead()) != 1 {
		t.Errorf("%d calls", len(w.seen()))
	}
}
