package job

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/weir-dev/weir/internal/stream"
)

// ErrOver means that the attempt is not the job's current one: the job has ended, was cancelled, or another attempt
// was made after this one had failed. Its function can stop.
var ErrOver = errors.New("job: the attempt is over")

// Alive renews the attempt's heartbeat. If p is nil, the progress stays as it was.
func Alive(ctx context.Context, conn stream.Jobs, t Callback, p *Progress) error {
	_, _, err := report(ctx, conn, t, nil, func(s *State) {
		if p != nil {
			s.Progress = p
		}
	})
	return err
}

// IsCancelled reports whether the attempt's job was cancelled.
func IsCancelled(ctx context.Context, conn stream.Jobs, t Callback) (bool, error) {
	s, _, err := load(ctx, conn, t.Queue, stream.JobKey{Client: t.Client, ID: t.Record})
	return err == nil && s != nil && s.Status == Cancelled, err
}

// SucceedBy gives the job its result: body, or r's object. It is idempotent, as the answer may be lost: for the same
// result again it returns the one that is stored, whose object is another.
func SucceedBy(ctx context.Context, conn stream.Jobs, t Callback, r Result, body []byte, now time.Time) (Result, error) {
	r, err := r.with(body)
	if err != nil {
		return r, err
	}
	s, there, err := report(ctx, conn, t, body, func(s *State) { s.succeed(r, now) })
	if errors.Is(err, ErrOver) && s.of(t) && s.Status == Succeeded && s.Result != nil &&
		s.Result.Size == r.Size && s.Result.ETag == r.ETag && bytes.Equal(there, body) {
		return *s.Result, nil
	}
	return r, err
}

// FailBy reports that the attempt has failed. The queue's owner decides at once whether there is another one. It is
// idempotent, as the answer may be lost.
func FailBy(ctx context.Context, conn stream.Jobs, t Callback, e Error) error {
	s, _, err := report(ctx, conn, t, nil, func(s *State) { s.Error, s.Broken = &e, true })
	again := errors.Is(err, ErrOver) && s.of(t) && s.Status == Running && s.Broken
	if err != nil && !again {
		return err
	}
	return conn.Hasten(ctx, t.Queue, t.Record)
}

func (s *State) succeed(r Result, now time.Time) {
	s.Status, s.Changed, s.Finished, s.Error = Succeeded, now, now, nil
	s.leave()
	s.Result = &r
}

// report changes the state of a job whose current attempt is t's. With ErrOver it returns the stored state, nil if none,
// and result instead. It does so only after it has asked the queue's owner, who alone knows an attempt that began a moment
// ago, and after several looks: a replica of NATS may lag.
func report(ctx context.Context, conn stream.Jobs, t Callback, body []byte, change func(*State)) (*State, []byte, error) {
	for looks := 1; ; looks++ {
		s, there, err := load(ctx, conn, t.Queue, t.key())
		if err != nil {
			return nil, nil, err
		}
		if s.at(t) {
			change(s)
			header, err := s.encode()
			if err != nil {
				return nil, nil, err
			}
			_, err = conn.PutJob(ctx, t.Queue, t.key(), stream.JobState{Header: header, Body: body}, s.seq)
			if !errors.Is(err, stream.ErrJobChanged) {
				return nil, nil, err
			}
		} else if looks >= stream.MaxLooks {
			return s, there, ErrOver
		} else if looks == 1 {
			if err := conn.SettleJob(ctx, t.Queue, t.key()); err != nil {
				return nil, nil, err
			}
			continue
		}
		if err := stream.Pause(ctx); err != nil {
			return nil, nil, err
		}
	}
}

// TraceOf is the trace of the attempt's job (State.Trace); empty if none is known.
func TraceOf(ctx context.Context, conn stream.Jobs, t Callback) (string, error) {
	s, _, err := load(ctx, conn, t.Queue, t.key())
	if err != nil || s == nil {
		return "", err
	}
	return s.Trace, nil
}

// waiting reports whether the function goes on with the attempt after its answer.
func (s *State) waiting() bool { return s.Heartbeat > 0 }

// leave clears what only an attempt that goes on after its answer has.
func (s *State) leave() { s.Heartbeat, s.Broken = 0, false }

// of reports whether t's attempt is the job's latest. s is nil when there is no state.
func (s *State) of(t Callback) bool { return s != nil && s.Started.Equal(t.Started) }

// at reports whether t's attempt is under way.
func (s *State) at(t Callback) bool { return s.of(t) && s.Status == Running && !s.Broken }
