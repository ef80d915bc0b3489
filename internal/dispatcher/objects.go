package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
)

const (
	// maxTransfers bounds the objects that are read, and those that are written, at a time in this process: each holds some
	// MiB. Jobs that need one more wait for it. The two have bounds of their own: with a common one, functions that answer
	// while they still read could deadlock.
	maxTransfers = 16
	// maxLargeAnswers bounds the answers past invoke.SmallAnswer that are in memory at a time, until they are written.
	maxLargeAnswers = 64
	// transferShare of the process's memory is for each of the three kinds, at most.
	transferShare = 8
)

// transfers are the slots that the mappings of a process share.
type transfers struct{ inputs, results, answers slots }

func newTransfers(memory, putBytes int64) *transfers {
	of := func(most, bytes int64) slots {
		return slots{make(chan struct{}, max(1, min(most, memory/transferShare/bytes))), bytes}
	}
	return &transfers{inputs: of(maxTransfers, transferBytes), results: of(maxTransfers, putBytes), answers: of(maxLargeAnswers, transferBytes)}
}

// input waits until rec's input may be read, if it has one. The caller calls done once it was read.
func (t *transfers) input(ctx context.Context, rec *record.Record, sh *share) (done func(), err error) {
	if rec.Input == nil {
		return func() {}, nil
	}
	return t.inputs.acquire(ctx, sh)
}

// slots are for transfers that take so many bytes each.
type slots struct {
	taken chan struct{}
	bytes int64
}

// acquire waits for a slot, and charges its bytes to the mapping until done is called.
func (s slots) acquire(ctx context.Context, sh *share) (done func(), err error) {
	select {
	case s.taken <- struct{}{}:
		sh.add(s.bytes)
		return func() {
			sh.add(-s.bytes)
			<-s.taken
		}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// openInput opens what is sent to the function instead of a body. Its errors are not the function's fault.
func (m *mapping) openInput(ctx context.Context, in *record.Input) (io.ReadCloser, error) {
	r, err := job.OpenInput(ctx, m.cfg.Objects, m.queue, in)
	if err != nil {
		return nil, m.trouble(err)
	}
	return &inputReader{r, m}, nil
}

type inputReader struct {
	io.ReadCloser
	m *mapping
}

func (r *inputReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.EOF itself must stay itself
		err = r.m.trouble(err)
	}
	return n, err
}

// keep stores a result that is too large to be kept with the state.
func (m *mapping) keep(ctx context.Context, id record.ID, contentType string, body io.Reader, limit int64) (job.Result, error) {
	done, err := m.transfers.results.acquire(ctx, m.memory)
	if err != nil {
		return job.Result{}, &invoke.TroubleError{Class: invoke.NotNow, Err: fmt.Errorf("too many large results at once: %w", err)}
	}
	defer done()
	r, err := job.StoreResult(ctx, m.cfg.Objects, m.queue, id, contentType, body, limit)
	return r, m.trouble(err)
}

// drop deletes a result that came too late.
func (m *mapping) drop(ctx context.Context, r job.Result) {
	if err := job.Drop(ctx, m.cfg.Objects, m.queue, r); err != nil {
		m.log.Warn("the result of a job that had ended stays until it expires", "object", r.Object, "error", err)
	}
}

// trouble gives an error of the store the class that it means for a record.
func (m *mapping) trouble(err error) error {
	switch {
	case errors.Is(err, blob.ErrUnavailable):
		return &invoke.TroubleError{Class: invoke.NotNow, Err: err}
	case errors.Is(err, blob.ErrFull):
		// An attempt is counted: each one repeats the work, and there may never be room.
		return &invoke.TroubleError{Class: invoke.Failed, Err: fmt.Errorf("the result has no room: raise objects.maxBytes of the queue: %w", err)}
	case errors.Is(err, blob.ErrTooLarge):
		return &invoke.TroubleError{Class: invoke.Refused, Err: fmt.Errorf("the result is larger than half of objects.maxBytes of the queue: %w", err)}
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrGone):
		// A replica may not have it yet; if it has expired, the attempts are soon used up.
		return &invoke.TroubleError{Class: invoke.Failed, Err: fmt.Errorf("the input that was uploaded is not there: %w", err)}
	}
	return err
}
