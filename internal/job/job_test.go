package job_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

const hour = time.Hour

// newQueue returns a queue of jobs on a server of the test's own.
func newQueue(t testing.TB) (*stream.Conn, catalog.Key) {
	t.Helper()
	conn := testkit.Conn(t, testkit.NATS(t))
	q := catalog.Queue{
		Key: catalog.Key{Namespace: "default", Name: "reports"}, MaxAge: hour, MaxBytes: 16 << 20, DeadLetterMaxAge: hour,
		Jobs: true, Results: catalog.Results{MaxAge: hour, MaxBytes: 256 << 20},
	}
	if err := conn.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Fatal(err)
	}
	testkit.OwnStates(t, conn, q.Key)
	return conn, q.Key
}

func newJob(t testing.TB, queue catalog.Key) (*record.Record, job.ID) {
	t.Helper()
	r := &record.Record{ID: newID(t), Time: time.Now(), Source: "test", Body: []byte("x"), Job: true}
	return r, job.NewID(queue, r, r.Time)
}

func TestStates(t *testing.T) {
	conn, queue := newQueue(t)
	rec, id := newJob(t, queue)
	now := rec.Time
	get := func(want job.Status, attempts int, body string) *job.State {
		t.Helper()
		s, b, err := job.Get(t.Context(), conn, id, hour, now)
		if err != nil || s.Status != want || s.Attempts != attempts || string(b) != body || !s.Created.Equal(id.Created) {
			t.Fatalf("%+v, %q, %v; want %s, %d attempts, %q", s, b, err, want, attempts, body)
		}
		return s
	}
	get(job.Queued, 0, "")
	if s, _, err := job.Get(t.Context(), conn, id, hour, now.Add(hour+time.Second)); err != nil || s.Status != job.Expired {
		t.Errorf("older than its queue keeps it: %+v, %v", s, err)
	}
	a, err := job.Begin(t.Context(), conn, queue, rec, now, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	get(job.Running, 1, "")
	if err := a.Requeue(t.Context(), nil, now); err != nil { // not now: no attempt
		t.Fatal(err)
	}
	get(job.Queued, 0, "")
	if a, err = job.Begin(t.Context(), conn, queue, rec, now, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Requeue(t.Context(), &job.Error{Status: 500, Detail: "no"}, now); err != nil {
		t.Fatal(err)
	}
	if s := get(job.Queued, 1, ""); s.Error == nil || s.Error.Detail != "no" {
		t.Errorf("the failure is not told: %+v", s)
	}
	rec.Attempts = 1
	if _, err = job.Begin(t.Context(), conn, queue, rec, now, time.Time{}); err != nil {
		t.Fatal(err)
	}
	get(job.Running, 2, "")
	if a, err = job.Begin(t.Context(), conn, queue, rec, now, time.Time{}); err != nil { // by the next owner, after a crash
		t.Fatal(err)
	}
	if err := a.Fail(t.Context(), job.Error{Status: 422, Detail: "never"}, now); err != nil {
		t.Fatal(err)
	}
	if s := get(job.Failed, 2, ""); s.Error.Status != 422 {
		t.Errorf("%+v", s)
	}
	if _, err := job.Begin(t.Context(), conn, queue, rec, now, time.Time{}); !errors.Is(err, job.ErrFinal) {
		t.Errorf("it begins again: %v", err)
	}
	redriven := *rec
	redriven.Redrive()
	if a, err = job.Begin(t.Context(), conn, queue, &redriven, now.Add(2*time.Second), time.Time{}); err != nil {
		t.Fatalf("redriven: %v", err)
	}
	if err := a.Succeed(t.Context(), job.Result{ContentType: "text/plain"}, make([]byte, job.MaxInlineBytes+1), now); err == nil {
		t.Error("a result of any size is stored")
	}
	if err := a.Succeed(t.Context(), job.Result{ContentType: "text/plain"}, []byte("done"), now); err != nil {
		t.Fatal(err)
	}
	if s := get(job.Succeeded, 1, "done"); s.Error != nil || s.Result.ContentType != "text/plain" || s.Result.Size != 4 {
		t.Errorf("%+v", s)
	}
	redriven.Redrive()
	if _, err := job.Begin(t.Context(), conn, queue, &redriven, now, time.Time{}); !errors.Is(err, job.ErrFinal) {
		t.Errorf("what has succeeded is redriven: %v", err)
	}
}

// TestContentTypeWithoutEnd must not keep the outcome from being stored: the record would be redelivered for ever.
func TestContentTypeWithoutEnd(t *testing.T) {
	conn, queue := newQueue(t)
	rec, id := newJob(t, queue)
	a, err := job.Begin(t.Context(), conn, queue, rec, rec.Time, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Succeed(t.Context(), job.Result{ContentType: strings.Repeat("x", 1<<20)}, []byte("done"), rec.Time); err != nil {
		t.Fatal(err)
	}
	if s, body, err := job.Get(t.Context(), conn, id, hour, rec.Time); err != nil || s.Result.ContentType != "" || string(body) != "done" {
		t.Errorf("%+v, %q, %v", s, body, err)
	}
}

// TestUnreadableState is replaced by the next attempt.
func TestUnreadableState(t *testing.T) {
	conn, queue := newQueue(t)
	rec, id := newJob(t, queue)
	if _, err := conn.PutJob(t.Context(), queue, stream.KeyOf(rec), stream.JobState{Header: "x"}, 0); err != nil {
		t.Fatal(err)
	}
	if s, _, err := job.Get(t.Context(), conn, id, hour, rec.Time); err == nil {
		t.Errorf("it reads as %+v", s)
	}
	a, err := job.Begin(t.Context(), conn, queue, rec, rec.Time, time.Time{})
	if err == nil {
		err = a.Succeed(t.Context(), job.Result{ContentType: ""}, []byte("done"), rec.Time)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s, _, err := job.Get(t.Context(), conn, id, hour, rec.Time); err != nil || s.Status != job.Succeeded || !s.Created.Equal(id.Created) {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestAgedOutWhileItRan: the outcome is stored although the state it is to replace is gone.
func TestAgedOutWhileItRan(t *testing.T) {
	conn, queue := newQueue(t)
	rec, id := newJob(t, queue)
	a, err := job.Begin(t.Context(), conn, queue, rec, rec.Time, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.DeleteQueue(t.Context(), queue); err != nil { // as if by age
		t.Fatal(err)
	}
	q := catalog.Queue{Key: queue, MaxAge: hour, MaxBytes: 16 << 20, DeadLetterMaxAge: hour, Jobs: true, Results: catalog.Results{MaxAge: hour, MaxBytes: 16 << 20}}
	if err := conn.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Fatal(err)
	}
	testkit.OwnStates(t, conn, q.Key)
	if err := a.Succeed(t.Context(), job.Result{ContentType: ""}, []byte("late"), rec.Time); err != nil {
		t.Fatal(err)
	}
	if s, body, err := job.Get(t.Context(), conn, id, hour, rec.Time); err != nil || s.Status != job.Succeeded || string(body) != "late" {
		t.Errorf("%+v, %q, %v", s, body, err)
	}
}

// TestCancelAgainstAttempts: one of the two wins, and once a cancellation was answered no attempt begins.
func TestCancelAgainstAttempts(t *testing.T) {
	conn, queue := newQueue(t)
	var began, dropped, tooLate int
	for i := range 100 {
		rec, id := newJob(t, queue)
		var cancelled atomic.Bool
		var wg sync.WaitGroup
		var cancelErr error
		wg.Go(func() {
			for range i % 7 {
				runtime.Gosched()
			}
			_, cancelErr = job.Cancel(t.Context(), conn, id, hour, time.Now())
			cancelled.Store(cancelErr == nil)
		})
		before := cancelled.Load()
		a, err := job.Begin(t.Context(), conn, queue, rec, time.Now(), time.Time{})
		switch {
		case err == nil && before:
			t.Fatal("an attempt began after the cancellation was answered")
		case err == nil:
			began++
			err = a.Succeed(t.Context(), job.Result{ContentType: ""}, nil, time.Now())
		}
		wg.Wait()
		s, _, gerr := job.Get(t.Context(), conn, id, hour, time.Now())
		if gerr != nil {
			t.Fatal(gerr)
		}
		switch {
		case cancelErr == nil && errors.Is(err, job.ErrFinal) && s.Status == job.Cancelled:
			dropped++
		case errors.Is(cancelErr, job.ErrFinal) && err == nil && s.Status == job.Succeeded:
			tooLate++
		default:
			t.Fatalf("cancel: %v; attempt: %v; the job is %s", cancelErr, err, s.Status)
		}
	}
	t.Logf("%d began; %d were cancelled, %d too late", began, dropped, tooLate)
}

// TestSubmitOnce: of many submissions at once under one id one is stored, and all are told of the same job.
func TestSubmitOnce(t *testing.T) {
	conn, queue := newQueue(t)
	for i := range 20 {
		id := record.IDFromKey("test", fmt.Sprint(i))
		var wg sync.WaitGroup
		var mu sync.Mutex
		ids, prints, fresh := map[job.ID]int{}, map[string]int{}, 0
		for k := range 8 {
			wg.Go(func() {
				r := &record.Record{ID: id, Time: time.Now().Add(time.Duration(k) * time.Second), Body: fmt.Append(nil, k%2), Job: true}
				got, fingerprint, isFresh, err := job.Submit(t.Context(), conn, queue, r)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				ids[got]++
				prints[fingerprint]++
				if isFresh {
					fresh++
				}
			})
		}
		wg.Wait()
		if len(ids) != 1 || len(prints) != 1 || fresh != 1 {
			t.Fatalf("ids %v, fingerprints %v, %d of them the first", ids, prints, fresh)
		}
	}
}

// TestWatchMissesNothing: work that takes no time, and a watch that begins before, while and after it is done.
func TestWatchMissesNothing(t *testing.T) {
	conn, queue := newQueue(t)
	hub := job.NewHub(conn, testkit.Log(t))
	defer hub.Close()
	const workers, each = 8, 100
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			for i := range each {
				rec, id := newJob(t, queue)
				worked := make(chan struct{})
				go func() {
					defer close(worked)
					a, err := job.Begin(ctx, conn, queue, rec, time.Now(), time.Time{})
					if err == nil {
						err = a.Succeed(ctx, job.Result{ContentType: ""}, []byte("done"), time.Now())
					}
					if err != nil {
						t.Error(err)
					}
				}()
				switch i % 3 {
				case 1:
					for range (i + n) % 50 {
						runtime.Gosched()
					}
				case 2:
					<-worked
				}
				w := hub.Watch(queue, stream.KeyOf(rec))
				for {
					s, body, err := job.Get(ctx, conn, id, hour, time.Now())
					if err != nil {
						t.Error(err)
						break
					}
					if s.Status == job.Succeeded {
						if string(body) != "done" {
							t.Errorf("the result is %q", body)
						}
						break
					}
					select {
					case <-w.Changed():
						continue
					case <-ctx.Done():
						t.Errorf("the end of a job was missed: it was %s", s.Status)
					}
					break
				}
				w.Close()
				<-worked
			}
		})
	}
	wg.Wait()
}

// TestSucceedTwice: an attempt whose success was stored and not acknowledged finds its own: the object of its result must
// not be taken for one that came too late. Another one is.
func TestSucceedTwice(t *testing.T) {
	conn, queue := newQueue(t)
	rec, _ := newJob(t, queue)
	a, err := job.Begin(t.Context(), conn, queue, rec, rec.Time, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	again := *a
	result := job.Result{ContentType: "text/csv", Size: 1 << 20, Object: "r-1", ETag: "e"}
	if err := a.Succeed(t.Context(), result, nil, rec.Time); err != nil {
		t.Fatal(err)
	}
	other := again
	if err := again.Succeed(t.Context(), result, nil, rec.Time); err != nil {
		t.Errorf("its own: %v", err)
	}
	result.Object = "r-2"
	if err := other.Succeed(t.Context(), result, nil, rec.Time); !errors.Is(err, job.ErrFinal) {
		t.Errorf("another: %v", err)
	}
}

// TestTimesAreUTC whatever the zone of whoever stores them.
func TestTimesAreUTC(t *testing.T) {
	conn, queue := newQueue(t)
	now := time.Now().In(time.FixedZone("here", 2*60*60))
	check := func(when string, s *job.State, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []time.Time{s.Created, s.Started, s.Changed, s.Finished} {
			if at.Location() != time.UTC {
				t.Errorf("%s: %s", when, at)
			}
		}
	}
	for what, end := range map[string]func(a *job.Attempt) error{
		"succeeded": func(a *job.Attempt) error { return a.Succeed(t.Context(), job.Result{}, nil, now) },
		"failed":    func(a *job.Attempt) error { return a.Fail(t.Context(), job.Error{}, now) },
		"queued":    func(a *job.Attempt) error { return a.Requeue(t.Context(), &job.Error{}, now) },
	} {
		rec, id := newJob(t, queue)
		if err := end(begin(t, conn, queue, rec, now)); err != nil {
			t.Fatal(err)
		}
		s, _, err := job.Get(t.Context(), conn, id, hour, now)
		check(what, s, err)
	}
	_, id := newJob(t, queue)
	s, err := job.Cancel(t.Context(), conn, id, hour, now)
	check("cancelled", s, err)
	s, _, err = job.Get(t.Context(), conn, id, hour, now)
	check("cancelled, asked for", s, err)
}
