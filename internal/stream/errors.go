package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The states that callers tell apart.
var (
	// ErrQueueFull means that the queue holds maxBytes: nothing was stored.
	ErrQueueFull = errors.New("stream: the queue is full")
	// ErrQueueClosed means that the queue is being deleted and takes no records: nothing was stored.
	ErrQueueClosed = errors.New("stream: the queue is being deleted")
	// ErrBusy means that this process already holds as much unwritten data as it may, or that the
	// server does: nothing was stored.
	ErrBusy = errors.New("stream: too many writes are waiting")
	// ErrNoQueue means that the queue's stream does not exist: nothing was stored.
	ErrNoQueue = errors.New("stream: the queue has no stream")
	// ErrLeaseHeld means that another owner holds the lease.
	ErrLeaseHeld = errors.New("stream: the lease is held by another")
	// ErrNoJob means that no state of the job is stored.
	ErrNoJob = errors.New("stream: no state of the job")
	// ErrJobChanged means that the job has another state than the one that was to be replaced.
	ErrJobChanged = errors.New("stream: the job's state has changed")
	// ErrClosed means that the writer was stopped, the reader closed or the lease released.
	ErrClosed = errors.New("stream: closed")
)

// Error codes of the NATS server (server/errors.json) that have no name in nats.go.
const (
	codeMessageTooLarge   = 10054 // larger than the stream's MaxMsgSize, which only a closed queue has
	codeStreamStoreFailed = 10077 // DiscardNew and a limit is reached
	codeIngestQueueFull   = 10167
)

// publishError turns what a publish returned into one of this package's states, keeping the cause.
func publishError(ctx context.Context, err error) error {
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api):
		switch {
		case api.ErrorCode == codeMessageTooLarge:
			return fmt.Errorf("%w: %w", ErrQueueClosed, err)
		case api.ErrorCode == codeStreamStoreFailed:
			return fmt.Errorf("%w: %w", ErrQueueFull, err)
		case api.ErrorCode == codeIngestQueueFull || api.Code == 429:
			return fmt.Errorf("%w: %w", ErrBusy, err)
		case api.Code == 503 || api.Code == 500:
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return err
	case errors.Is(err, nats.ErrMaxPayload): // of the client: nothing was sent
		return fmt.Errorf("%w: %w", ErrTooLargeForServer, err)
	case errors.Is(context.Cause(ctx), ErrUnavailable):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: %w", ErrNoQueue, err)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}
