package job_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// begin makes an attempt that must begin.
func begin(t *testing.T, conn *stream.Conn, queue catalog.Key, rec *record.Record, now time.Time) *job.Attempt {
	t.Helper()
	a, err := job.Begin(t.Context(), conn, queue, rec, now, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestCopiesLeftBehind: stale copies of a record, whose job has a later attempt, are dropped; a copy that may be the
// only one is not.
func TestCopiesLeftBehind(t *testing.T) {
	conn, queue := newQueue(t)
	rec, _ := newJob(t, queue)
	now := rec.Time
	stale := *rec
	dropped := func(when string) {
		t.Helper()
		if _, err := job.Begin(t.Context(), conn, queue, &stale, now, time.Time{}); !errors.Is(err, job.ErrFinal) {
			t.Errorf("%s: %v", when, err)
		}
	}
	a := begin(t, conn, queue, rec, now)
	if err := a.Requeue(t.Context(), nil, now); err != nil {
		t.Fatal(err)
	}
	a = begin(t, conn, queue, rec, now) // the same record, because the function took none
	if err := a.Requeue(t.Context(), &job.Error{Detail: "no"}, now); err != nil {
		t.Fatal(err)
	}
	dropped("the next attempt is due")
	rec.Attempts = 1
	begin(t, conn, queue, rec, now)
	dropped("the next attempt was made")
	begin(t, conn, queue, rec, now.Add(time.Second)) // after a crash
	if err := a.Requeue(t.Context(), &job.Error{Detail: "no"}, now); !errors.Is(err, job.ErrFinal) {
		t.Errorf("an attempt that has failed takes the next one's place: %v", err)
	}
	redriven := stale // its dead letter was stored, its end was not
	redriven.Redrive()
	begin(t, conn, queue, &redriven, now)
	again := redriven // redriven twice: the redrive was killed, and run again
	dropped("it was redriven")
	if err := begin(t, conn, queue, &again, now).Requeue(t.Context(), &job.Error{Detail: "no"}, now); err != nil {
		t.Fatal(err)
	}
	if _, err := job.Begin(t.Context(), conn, queue, &again, now, time.Time{}); !errors.Is(err, job.ErrFinal) {
		t.Errorf("the second copy of a redriven record: %v", err)
	}
}

// TestFailureThatIsCounted: a record whose failure is counted begins its next attempt although the state still says that
// the function goes on with the former.
func TestFailureThatIsCounted(t *testing.T) {
	conn, queue := newQueue(t)
	rec, _ := newJob(t, queue)
	a := begin(t, conn, queue, rec, rec.Time)
	if err := a.Wait(t.Context(), time.Minute, rec.Time); err != nil {
		t.Fatal(err)
	}
	if _, err := job.Begin(t.Context(), conn, queue, rec, rec.Time, time.Time{}); !errors.Is(err, job.ErrWaiting) {
		t.Errorf("while the function goes on: %v", err)
	}
	rec.Attempts = 1
	begin(t, conn, queue, rec, rec.Time)
}

// TestLapseAgainstSignOfLife: of a lapse and a heartbeat at once, one wins.
func TestLapseAgainstSignOfLife(t *testing.T) {
	conn, queue := newQueue(t)
	alive, lapsed := 0, 0
	for range 50 {
		rec, id := newJob(t, queue)
		a := begin(t, conn, queue, rec, rec.Time)
		if err := a.Wait(t.Context(), time.Minute, rec.Time); err != nil {
			t.Fatal(err)
		}
		late := time.Now().Add(time.Minute) // past the stored heartbeat, not past the one that Alive is about to store
		var wg sync.WaitGroup
		var sign error
		wg.Go(func() { sign = job.Alive(t.Context(), conn, a.Callback(), nil) })
		again, err := job.Begin(t.Context(), conn, queue, rec, late, time.Time{})
		wg.Wait()
		switch {
		case sign == nil && errors.Is(err, job.ErrWaiting):
			alive++
		case errors.Is(sign, job.ErrOver) && errors.Is(err, job.ErrLapsed):
			lapsed++
			s, _, err := job.Get(t.Context(), conn, id, hour, late)
			if err != nil || !s.Broken || s.Error == nil || *s.Error != again.Cause() || s.Error.Detail != "no sign of life for 1m0s" {
				t.Fatalf("%+v, %v", s, err)
			}
		default:
			t.Fatalf("a sign of life: %v; the next attempt: %v", sign, err)
		}
	}
	t.Logf("%d live, %d have lapsed", alive, lapsed)
}

// TestAwayOwner: the silence of a time in which nobody could take reports doesn't count.
func TestAwayOwner(t *testing.T) {
	conn, queue := newQueue(t)
	rec, _ := newJob(t, queue)
	a := begin(t, conn, queue, rec, rec.Time)
	if err := a.Wait(t.Context(), time.Minute, rec.Time); err != nil {
		t.Fatal(err)
	}
	back := time.Now().Add(10 * time.Minute)
	a, err := job.Begin(t.Context(), conn, queue, rec, back.Add(59*time.Second), back)
	if !errors.Is(err, job.ErrWaiting) || !a.Until().Equal(back.Add(time.Minute)) {
		t.Errorf("%v, until %s", err, a.Until())
	}
	if _, err := job.Begin(t.Context(), conn, queue, rec, back.Add(61*time.Second), back); !errors.Is(err, job.ErrLapsed) {
		t.Error(err)
	}
}

// TestReportsAgain: a function whose report had no answer sends it again.
func TestReportsAgain(t *testing.T) {
	conn, queue := newQueue(t)
	failed, _ := newJob(t, queue)
	now := failed.Time
	a := begin(t, conn, queue, failed, now)
	if err := a.Wait(t.Context(), hour, now); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := job.FailBy(t.Context(), conn, a.Callback(), job.Error{Detail: "no"}); err != nil {
			t.Errorf("a failure: %v", err)
		}
	}
	if _, err := job.SucceedBy(t.Context(), conn, a.Callback(), job.Result{}, nil, now); !errors.Is(err, job.ErrOver) {
		t.Errorf("a success after the failure: %v", err)
	}
	done, _ := newJob(t, queue)
	a = begin(t, conn, queue, done, now)
	for range 2 {
		if _, err := job.SucceedBy(t.Context(), conn, a.Callback(), job.Result{}, []byte("done"), now); err != nil {
			t.Errorf("a success: %v", err)
		}
	}
	if _, err := job.SucceedBy(t.Context(), conn, a.Callback(), job.Result{}, []byte("else"), now); !errors.Is(err, job.ErrOver) {
		t.Errorf("another result: %v", err)
	}
	if err := job.FailBy(t.Context(), conn, a.Callback(), job.Error{Detail: "no"}); !errors.Is(err, job.ErrOver) {
		t.Errorf("a failure after the success: %v", err)
	}
}

// TestTextsWithoutEnd must not keep a state from being stored: the record would be redelivered for ever.
func TestTextsWithoutEnd(t *testing.T) {
	conn, queue := newQueue(t)
	rec, id := newJob(t, queue)
	long := "x" + strings.Repeat("é", 1<<19)
	a := begin(t, conn, queue, rec, rec.Time)
	if err := job.Alive(t.Context(), conn, a.Callback(), &job.Progress{Message: long}); err != nil {
		t.Fatal(err)
	}
	fits := func(text string) bool {
		return utf8.ValidString(text) && len(text) == record.MaxReasonBytes-1 && strings.HasPrefix(long, text)
	}
	if s, _, err := job.Get(t.Context(), conn, id, hour, rec.Time); err != nil || !fits(s.Progress.Message) {
		t.Errorf("%+v, %v", s, err)
	}
	if err := a.Fail(t.Context(), job.Error{Status: 500, Detail: long}, rec.Time); err != nil {
		t.Fatal(err)
	}
	if s, _, err := job.Get(t.Context(), conn, id, hour, rec.Time); err != nil || s.Error.Status != 500 || !fits(s.Error.Detail) {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestNoRoomToBegin is said at once.
func TestNoRoomToBegin(t *testing.T) {
	conn, queue := newQueue(t)
	q := catalog.Queue{Key: queue, MaxAge: hour, MaxBytes: 16 << 20, DeadLetterMaxAge: hour, Jobs: true, Results: catalog.Results{MaxAge: hour, MaxBytes: 1 << 20}}
	if err := conn.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{job.MaxInlineBytes, 16 << 10, 1 << 10, 1} {
		for {
			_, err := conn.PutJob(t.Context(), queue, stream.JobKey{ID: newID(t)}, stream.JobState{Header: "x", Body: make([]byte, size)}, 0)
			if errors.Is(err, stream.ErrQueueFull) || errors.Is(err, stream.ErrUnavailable) { // it can't be looked up, or is not stored
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	rec, _ := newJob(t, queue)
	if _, err := job.Begin(t.Context(), conn, queue, rec, rec.Time, time.Time{}); !errors.Is(err, stream.ErrQueueFull) {
		t.Errorf("without room: %v", err)
	}
}
