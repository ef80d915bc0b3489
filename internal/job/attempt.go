package job

import (
	"context"
	"errors"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// Attempt is one try to do a job, by the owner of its queue. Wait, Succeed, Fail, and Requeue with a cause, try until the
// state is durable, ctx ends or the connection is lost. They are not safe for concurrent use.
type Attempt struct {
	conn  stream.Jobs
	queue catalog.Key
	rec   *record.Record
	state State     // as it is stored
	until time.Time // with ErrWaiting
}

// Why no new attempt begins: the one before it goes on after its answer, or has just failed.
var (
	// ErrWaiting means that the function goes on with the attempt after its answer: see Until.
	ErrWaiting = errors.New("job: the attempt goes on")
	// ErrLapsed means that this attempt has failed: see Cause.
	ErrLapsed = errors.New("job: the attempt has lapsed")
)

// Until is when the attempt has failed unless its heartbeat is renewed, by the server's clock.
func (a *Attempt) Until() time.Time { return a.until }

// Cause is why the attempt has lapsed.
func (a *Attempt) Cause() Error {
	if a.state.Broken && a.state.Error != nil {
		return *a.state.Error
	}
	return Error{Detail: "no sign of life for " + a.state.Heartbeat.String()}
}

// Status is the job's as this attempt knows it. With ErrFinal it is how the job has ended, unless that was of a stale copy.
func (a *Attempt) Status() Status { return a.state.Status }

// Callback identifies the attempt in the function's reports.
func (a *Attempt) Callback() Callback {
	return Callback{a.queue, a.rec.ID, a.rec.Client, a.state.Started}
}

// Begin stores that the job is running. It returns ErrFinal when there is nothing to do for this record: the job has
// ended or was cancelled, or the record is a stale copy. A job that had failed or expired begins again when its record
// was redriven since. With ErrWaiting and ErrLapsed it returns the previous attempt. It doesn't wait for room:
// stream.ErrQueueFull and stream.ErrNoQueue are returned at once. now is by the server's clock, and so is heard: since
// then the function's reports can be stored, before it the owner may have been away for long, and no silence counts.
func Begin(ctx context.Context, conn stream.Jobs, queue catalog.Key, rec *record.Record, now, heard time.Time) (*Attempt, error) {
	a := &Attempt{conn: conn, queue: queue, rec: rec}
	look := rec.Attempts > 0 || rec.Redrives > 0 // most others have no state yet: not worth a read
	for ; ; look = true {
		former := &State{}
		if look {
			s, err := a.stored(ctx)
			if err != nil {
				return nil, err
			}
			if s != nil {
				former = s
			}
		}
		err := a.begin(ctx, former, now, heard)
		if !errors.Is(err, stream.ErrJobChanged) {
			return a, err
		}
		if look {
			if err := stream.Pause(ctx); err != nil {
				return nil, err
			}
		}
	}
}

// begin replaces former, whose seq is 0 when nothing is stored.
func (a *Attempt) begin(ctx context.Context, former *State, now, heard time.Time) error {
	rec, fingerprint := a.rec, printOf(a.rec)
	a.state = *former
	redriven := rec.Redrives > former.Redrives
	switch {
	case former.seq == 0:
	case former.another(rec, fingerprint):
		return a.final(ctx) // its client was told that the idempotency key is another request's
	case former.Status.Final() && (!redriven || !former.Status.redrivable()):
		return a.final(ctx)
	case !redriven && former.passed(rec):
		return a.final(ctx)
	case former.Status == Running && former.waiting() && !redriven && former.Attempts == rec.Attempts+1: // else its failure is counted already
		a.until = later(former.stored, heard).Add(former.Heartbeat)
		if !former.Broken && now.Before(a.until) {
			return ErrWaiting
		}
		if !former.Broken {
			// A heartbeat may come just now: only one of the two is stored.
			cause := a.Cause()
			a.state.Broken, a.state.Error = true, &cause
			if err := a.put(ctx, a.state, nil, true); err != nil {
				return err
			}
		}
		return ErrLapsed
	}
	a.state = State{
		Status: Running, Attempts: rec.Attempts + 1, Created: time.UnixMilli(rec.Time.UnixMilli()).UTC(), Started: now.UTC(), Changed: now,
		Error: former.Error, Print: fingerprint, Trace: rec.TraceParent, Redrives: rec.Redrives, seq: former.seq,
	}
	if former.seq != 0 {
		a.state.Created = former.Created
	}
	return a.putLater(ctx, a.state)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// passed reports whether rec is a duplicate or stale copy: a later attempt than its own was made or is due. That one has
// a record of its own, because the failure of an attempt is stored as a state only after the record of the next one is
// durable.
func (s *State) passed(rec *record.Record) bool {
	return s.Redrives > rec.Redrives || s.Status == Queued && s.Attempts > rec.Attempts || s.Status == Running && s.Attempts > rec.Attempts+1
}

// final returns ErrFinal once what says so is durable: the record is settled then.
func (a *Attempt) final(ctx context.Context) error {
	if err := a.conn.SettleJob(ctx, a.queue, stream.KeyOf(a.rec)); err != nil {
		return err
	}
	return ErrFinal
}

// stored is the job's state; nil if none. One that can't be read counts as queued: otherwise the record would be
// redelivered for ever.
func (a *Attempt) stored(ctx context.Context) (*State, error) {
	s, _, err := load(ctx, a.conn, a.queue, stream.KeyOf(a.rec))
	if errors.Is(err, errState) {
		return &State{Status: Queued, Created: time.UnixMilli(a.rec.Time.UnixMilli()).UTC(), seq: s.seq}, nil
	}
	return s, err
}

// Over reports whether the attempt is not the job's current one any more, or has failed.
func (a *Attempt) Over(ctx context.Context) (bool, error) {
	s, _, err := load(ctx, a.conn, a.queue, stream.KeyOf(a.rec))
	return err == nil && !s.at(a.Callback()), err
}

// put replaces the state that this attempt has stored.
func (a *Attempt) put(ctx context.Context, s State, body []byte, impatient bool) error {
	header, err := s.encode()
	if err != nil {
		return err
	}
	seq, err := a.conn.PutJobUntil(ctx, a.queue, stream.KeyOf(a.rec), stream.JobState{Header: header, Body: body}, a.state.seq, impatient)
	if err == nil {
		s.keptAs(header, seq)
		a.state = s
	}
	return err
}

// putLater is put for a state that need not be durable before the attempt goes on. It waits for nothing.
func (a *Attempt) putLater(ctx context.Context, s State) error {
	header := func() string { // it may be called at any time: s stays as it is
		made := s
		text, _ := made.encode() // it fails only for a progress that is no number: this state has none
		return text
	}
	seq, err := a.conn.PutJobLater(ctx, a.queue, stream.KeyOf(a.rec), header, a.state.seq)
	if err == nil {
		a.state = s
		a.state.seq = seq
	}
	return err
}

// end stores s by put, but if the state was changed since the attempt's, it reads that: ErrFinal if it is final, otherwise it is
// replaced, as this process owns the queue: no other attempt is at work. Unless nil, merge may take over what that state
// says, or return an error.
func (a *Attempt) end(ctx context.Context, s *State, put func() error, merge func(there *State) error) error {
	for {
		err := put()
		if !errors.Is(err, stream.ErrJobChanged) {
			return err
		}
		if err := stream.Pause(ctx); err != nil {
			return err
		}
		there, err := a.stored(ctx)
		if err != nil {
			return err
		}
		if there == nil { // it aged out while the attempt ran
			there = &State{}
		} else if there.Status.Final() {
			a.state = *there
			// The key is unique, so it is our own state, whose ack was lost: its object must stay.
			if s.Result != nil && s.Result.Object != "" && there.Result != nil && there.Result.Object == s.Result.Object {
				return nil
			}
			return a.final(ctx)
		} else if merge != nil {
			if err := merge(there); err != nil {
				return err
			}
		}
		a.state.seq = there.seq
	}
}

// Succeed stores the result: body, or r's object. ErrFinal means that it is dropped: the job was cancelled.
func (a *Attempt) Succeed(ctx context.Context, r Result, body []byte, now time.Time) error {
	r, err := r.with(body)
	if err != nil {
		return err
	}
	s := a.state
	s.succeed(r, now)
	return a.end(ctx, &s, func() error { return a.put(ctx, s, body, false) }, nil)
}

// Wait stores that the function goes on with the attempt after its answer, and the heartbeat within which it must
// report. now is by the server's clock. ErrFinal means that the job has ended meanwhile, ErrLapsed that the function has
// reported that the attempt failed.
func (a *Attempt) Wait(ctx context.Context, heartbeat time.Duration, now time.Time) error {
	s := a.state
	s.Heartbeat, a.until = heartbeat, now.Add(heartbeat)
	return a.end(ctx, &s, func() error { return a.put(ctx, s, nil, false) }, func(there *State) error {
		if there.Broken {
			a.state = *there
			return ErrLapsed
		}
		s.Progress = there.Progress
		return nil
	})
}

// Fail stores that the job has failed for good. ErrFinal means that it was cancelled.
func (a *Attempt) Fail(ctx context.Context, e Error, now time.Time) error {
	s := a.state
	s.Status, s.Changed, s.Finished, s.Error = Failed, now, now, &e
	s.leave()
	return a.end(ctx, &s, func() error { return a.put(ctx, s, nil, false) }, nil)
}

// Requeue stores that the job waits for its next attempt. e is nil if none is counted ("not now"), and the same record
// goes on; that need not be durable. With e the record of the next attempt must be durable already: from then on Begin drops this one's copies.
// ErrFinal means that the job has ended or the next attempt has begun.
func (a *Attempt) Requeue(ctx context.Context, e *Error, now time.Time) error {
	s := a.state
	s.Status, s.Changed, s.Progress = Queued, now, nil
	s.leave()
	if e == nil {
		s.Attempts--
		err := a.end(ctx, &s, func() error { return a.putLater(ctx, s) }, nil)
		if errors.Is(err, stream.ErrQueueFull) {
			return nil // it is shown as running until its next call
		}
		return err
	}
	s.Error = e
	return a.end(ctx, &s, func() error { return a.put(ctx, s, nil, false) }, func(there *State) error {
		if there.Redrives > s.Redrives || there.Attempts > s.Attempts {
			return ErrFinal // the record of the next attempt is durable already, so that may have begun
		}
		return nil
	})
}
