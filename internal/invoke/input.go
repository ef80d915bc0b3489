package invoke

import (
	"context"
	"errors"
	"io"
	"sync"
)

// input is the body of a call that is read from elsewhere. The transport may ask for it again, reads it in a goroutine
// of its own, and closes it at any time: whatever it does, close leaves none open.
type input struct {
	ctx  context.Context //nolint:containedctx // of the call
	open func(context.Context) (io.ReadCloser, error)

	mu   sync.Mutex
	last *inputBody
	err  error // of the first Read that failed
}

// next opens it from the beginning.
func (in *input) next() (io.ReadCloser, error) {
	in.close()
	if in.open == nil {
		return nil, errors.New("the record has an input, and nobody can open it")
	}
	ctx, cancel := context.WithCancel(in.ctx)
	r, err := in.open(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	b := &inputBody{in: in, r: r, cancel: cancel}
	in.mu.Lock()
	in.last, in.err = b, nil
	in.mu.Unlock()
	return b, nil
}

func (in *input) close() {
	in.mu.Lock()
	b := in.last
	in.mu.Unlock()
	if b != nil {
		_ = b.Close()
	}
}

// failure is why reading it failed; nil if it didn't.
func (in *input) failure() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.err
}

type inputBody struct {
	in     *input
	cancel context.CancelFunc // ends a Read

	mu     sync.Mutex // Close may come during a Read
	r      io.ReadCloser
	closed bool
}

func (b *inputBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, io.ErrClosedPipe
	}
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.in.mu.Lock()
		if b.in.err == nil {
			b.in.err = err
		}
		b.in.mu.Unlock()
	}
	return n, err
}

// Close is idempotent.
func (b *inputBody) Close() error {
	b.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	return b.r.Close()
}
