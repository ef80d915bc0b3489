// Package job is asynchronous requests: their ids, their states, and the notification of changes.
//
// A job is a record in a queue whose outcome somebody waits for. Its submission writes the record and nothing else;
// the first state is stored when its first attempt begins.
//
// Invariants: each state of a job replaces the one before it by compare-and-set at the queue's owner, so a final
// state stays and what comes after it is dropped; an attempt begins only if that has succeeded there, so a job
// that was cancelled before is not called; a record is settled only after the job's state, or the record of its next
// attempt, is durable.
//
// May import: record, catalog, sign, stream, blob.
package job

import (
	"context"
	"errors"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// ErrFinal means that the job has a final state already.
var ErrFinal = errors.New("job: it has ended")

// Get returns the job's state; maxAge is its queue's.
func Get(ctx context.Context, conn stream.Jobs, id ID, maxAge time.Duration, now time.Time) (*State, []byte, error) {
	s, body, err := load(ctx, conn, id.Queue, id.Key())
	if err != nil || s != nil {
		return s, body, err
	}
	s = &State{Status: Queued, Created: id.Created}
	if now.Sub(id.Created) > maxAge { // states are kept longer: so there is none
		s.Status = Expired
	}
	return s, nil, nil
}

// GetSince is Get for a state no older than a version that is known. A replica may lag behind it: an older state is believed
// only after several looks.
func GetSince(ctx context.Context, conn stream.Jobs, id ID, maxAge time.Duration, version uint64) (*State, []byte, error) {
	for looks := 1; ; looks++ {
		s, body, err := Get(ctx, conn, id, maxAge, time.Now())
		if err != nil || s.Version() >= version || s.Status == Expired || looks == stream.MaxLooks {
			return s, body, err
		}
		if err := stream.Pause(ctx); err != nil {
			return nil, nil, err
		}
	}
}

// load returns nil when no state is stored.
func load(ctx context.Context, conn stream.Jobs, queue catalog.Key, id stream.JobKey) (*State, []byte, error) {
	st, err := conn.Job(ctx, queue, id)
	if errors.Is(err, stream.ErrNoJob) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	s, err := decode(st.Header, st.Seq)
	s.stored = st.Stored
	return s, st.Body, err
}

// Submit stores r, a job whose id comes from an idempotency key, once: if a record of this id is or was there already,
// it returns the id of that job and its fingerprint, which is r's own only if it is the same request; fresh is false
// then.
func Submit(ctx context.Context, conn stream.Jobs, queue catalog.Key, r *record.Record) (id ID, fingerprint string, fresh bool, err error) {
	there, err := conn.AppendOnce(ctx, queue, r)
	if err != nil {
		return ID{}, "", false, err
	}
	// A state takes precedence over a record: the job's own may have been settled and purged, and then the one that is
	// there, or was just stored, is a duplicate, which Begin drops.
	s, _, err := load(ctx, conn, queue, stream.KeyOf(r))
	switch {
	case err != nil:
		return ID{}, "", false, err
	case s != nil && s.Print != "":
		return NewID(queue, r, s.Created), s.Print, false, nil
	case s != nil && there == nil: // cancelled before its first attempt: what the request was is not known any more
		return NewID(queue, r, s.Created), Fingerprint(r), false, nil
	case there != nil:
		return NewID(queue, there, there.Time), Fingerprint(there), false, nil
	}
	return NewID(queue, r, r.Time), Fingerprint(r), true, nil
}

// Cancel makes the job cancelled, or returns ErrFinal with the final state that it has. When it returns nil, no attempt
// begins any more.
func Cancel(ctx context.Context, conn stream.Jobs, id ID, maxAge time.Duration, now time.Time) (*State, error) {
	for {
		s, _, err := Get(ctx, conn, id, maxAge, now)
		if err != nil {
			return nil, err
		}
		if s.Status.Final() && s.seq != 0 { // else it is final only by its age by this clock
			return s, ErrFinal
		}
		next := *s
		next.Status, next.Changed, next.Finished = Cancelled, now, now
		header, err := next.encode()
		if err != nil {
			return nil, err
		}
		seq, err := conn.PutJob(ctx, id.Queue, id.Key(), stream.JobState{Header: header}, s.seq)
		next.keptAs(header, seq)
		if !errors.Is(err, stream.ErrJobChanged) {
			return &next, err
		}
		if err := stream.Pause(ctx); err != nil {
			return nil, err
		}
	}
}

// HasEnded reports whether a stored state is final.
func HasEnded(st stream.JobState) bool {
	s, err := decode(st.Header, st.Seq)
	return err == nil && s.Status.Final()
}

// Ended reports whether the job has a final state.
func Ended(ctx context.Context, conn stream.Jobs, queue catalog.Key, rec *record.Record) (bool, error) {
	s, _, err := load(ctx, conn, queue, stream.KeyOf(rec))
	return err == nil && s != nil && s.Status.Final(), err
}
