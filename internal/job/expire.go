package job

import (
	"context"
	"errors"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// Expire stores, for the queue's owner, that the job of rec was not called within its queue's maxAge, as rec's Failure
// says. It returns ErrFinal when the job has ended otherwise, or rec is a stale copy: there is nothing to be done for it;
// and ErrWaiting when an attempt is under way, or was when its owner died. That the job has expired already, before its
// record was dead-lettered, is no error. It doesn't wait for room: stream.ErrQueueFull and stream.ErrNoQueue are returned
// at once.
func Expire(ctx context.Context, conn stream.Jobs, queue catalog.Key, rec *record.Record) error {
	now, fingerprint := rec.Failure.Time.UTC(), printOf(rec)
	a := &Attempt{conn: conn, queue: queue, rec: rec}
	for {
		there, err := a.stored(ctx)
		if err != nil {
			return err
		}
		s := State{Created: time.UnixMilli(rec.Time.UnixMilli()).UTC()}
		if there != nil {
			s = *there
			redriven := rec.Redrives > s.Redrives
			switch {
			case s.another(rec, fingerprint), !redriven && s.passed(rec):
				return a.final(ctx)
			case s.Status == Expired && !redriven:
				return nil
			case s.Status.Final() && (!redriven || !s.Status.redrivable()):
				return a.final(ctx)
			case s.Status == Running && !redriven:
				return ErrWaiting // Begin decides: rec may be a copy of this attempt's record
			}
		}
		a.state.seq = s.seq
		s.Status, s.Changed, s.Finished, s.Error, s.Result = Expired, now, now, &Error{Detail: rec.Failure.Reason}, nil
		s.Print, s.Redrives = fingerprint, rec.Redrives
		s.leave()
		if err := a.put(ctx, s, nil, true); !errors.Is(err, stream.ErrJobChanged) {
			return err
		}
		if err := stream.Pause(ctx); err != nil {
			return err
		}
	}
}
