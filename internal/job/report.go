package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-dev/weir/internal/stream"
)

// ErrOver means that the attempt is not the job's present one: the job has ended, was cancelled, or another attempt
// was made after this one had failed. Whoever works at it can stop.
var ErrOver = errors.New("job: the attempt is over")

// Alive is a sign of life: the attempt may go on as long as the heartbeat says. p is nil for the progress there was.
func Alive(ctx context.Context, conn *stream.Conn, t Token, p *Progress, now time.Time) error {
	return report(ctx, conn, t, nil, func(s *State) {
		if p != nil {
			s.Progress = p
		}
		if !s.Until.IsZero() {
			s.Until = now.Add(s.Heartbeat).UTC()
		}
	})
}

// SucceedBy gives the job its result.
func SucceedBy(ctx context.Context, conn *stream.Conn, t Token, contentType string, body []byte, now time.Time) error {
	if len(body) > MaxInlineBytes {
		return fmt.Errorf("a result of %d bytes; at most %d", len(body), MaxInlineBytes)
	}
	return report(ctx, conn, t, body, func(s *State) { s.succeed(contentType, body, now) })
}

// FailBy says that the attempt has failed. Whether there is another one its queue's owner decides, at once.
func FailBy(ctx context.Context, conn *stream.Conn, t Token, e Error, now time.Time) error {
	err := report(ctx, conn, t, nil, func(s *State) { s.Error, s.Broken, s.Until = &e, true, now.UTC() })
	if err != nil {
		return err
	}
	return conn.Hasten(ctx, t.Queue, t.Record, now)
}

// maxContentType bounds what a function says that its result is, in bytes: a state must fit in a message.
const maxContentType = 256

func (s *State) succeed(contentType string, body []byte, now time.Time) {
	s.Status, s.Changed, s.Finished, s.Error = Succeeded, now.UTC(), now.UTC(), nil
	s.leave()
	if len(contentType) > maxContentType {
		contentType = "" // whoever asks for the result is told that it is bytes
	}
	s.Result = &Result{ContentType: contentType, Size: int64(len(body))}
}

// A replica of NATS may not know yet of an attempt that began a moment ago: whoever reports is refused only after so
// many looks.
const (
	maxLooks  = 3
	lookAgain = 50 * time.Millisecond
)

// report changes the state of a job whose present attempt is t's.
func report(ctx context.Context, conn *stream.Conn, t Token, body []byte, change func(*State)) error {
	for looks := 1; ; looks++ {
		s, _, err := load(ctx, conn, t.Queue, t.Record)
		if err != nil {
			return err
		}
		if !s.at(t) {
			if looks == maxLooks {
				return ErrOver
			}
			select {
			case <-time.After(lookAgain):
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		change(s)
		header, err := s.encode()
		if err != nil {
			return err
		}
		_, err = conn.PutJob(ctx, t.Queue, t.Record, stream.JobState{Header: header, Body: body}, s.seq)
		if !errors.Is(err, stream.ErrJobChanged) {
			return err
		}
	}
}

// Over reports whether the attempt is not the job's present one any more, or has failed.
func Over(ctx context.Context, conn *stream.Conn, t Token) (bool, error) {
	s, _, err := load(ctx, conn, t.Queue, t.Record)
	return err == nil && !s.at(t), err
}

// leave forgets what only an attempt that goes on after its call has.
func (s *State) leave() { s.Until, s.Heartbeat, s.Broken = time.Time{}, 0, false }

// at reports whether t's attempt is under way. s is nil when there is no state.
func (s *State) at(t Token) bool {
	return s != nil && s.Status == Running && !s.Broken && s.Started.Equal(t.Started)
}
