package job_test

import (
	"errors"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
)

// TestExpire: only a job that has not begun expires, once, and a redrive has it begin after all.
func TestExpire(t *testing.T) {
	conn, queue := newQueue(t)
	expire := func(what string, rec *record.Record, want error) {
		t.Helper()
		expired := *rec
		expired.Failure = &record.Failure{Time: rec.Time, Reason: "too old"}
		if err := job.Expire(t.Context(), conn, queue, &expired); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	status := func(what string, id job.ID, want job.Status) {
		t.Helper()
		if s, _, err := job.Get(t.Context(), conn, id, hour, id.Created); err != nil || s.Status != want {
			t.Errorf("%s: %+v, %v; want %s", what, s, err, want)
		}
	}

	rec, id := newJob(t, queue)
	expire("a job of which nothing is stored", rec, nil)
	status("it", id, job.Expired)
	expire("the same, whose dead letter was not stored", rec, nil)
	if _, err := job.Begin(t.Context(), conn, queue, rec, rec.Time, time.Time{}); !errors.Is(err, job.ErrFinal) {
		t.Errorf("a copy of it begins: %v", err)
	}
	redriven := *rec
	redriven.Redrive()
	begin(t, conn, queue, &redriven, rec.Time)
	expire("a copy from before the redrive", rec, job.ErrFinal)
	expire("the redriven one, under its attempt", &redriven, job.ErrWaiting)
	status("it", id, job.Running)

	rec, id = newJob(t, queue)
	a := begin(t, conn, queue, rec, rec.Time)
	expire("one whose attempt is under way", rec, job.ErrWaiting)
	status("it", id, job.Running)
	if err := a.Succeed(t.Context(), job.Result{}, nil, rec.Time); err != nil {
		t.Fatal(err)
	}
	expire("one that has succeeded", rec, job.ErrFinal)
	status("it", id, job.Succeeded)

	rec, id = newJob(t, queue)
	if _, err := job.Cancel(t.Context(), conn, id, hour, id.Created); err != nil {
		t.Fatal(err)
	}
	expire("one that was cancelled", rec, job.ErrFinal)
	status("it", id, job.Cancelled)
}
