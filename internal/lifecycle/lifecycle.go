// Package lifecycle runs the parts of a process together: ordered start, one readiness, drain in
// reverse order.
//
// Invariants: Run returns only after every part's Run has returned; a part is started after the ones
// before it are ready; a part is told to stop only after the ones after it have ended.
//
// May import: the standard library only.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
)

// Part is something that runs. Run blocks until all that it started has ended; cancelling its context
// means stop intake and drain.
type Part struct {
	Name string
	Run  func(ctx context.Context, ready func()) error
}

// ErrStopped is the cause with which a part's context is cancelled on an orderly stop.
var ErrStopped = errors.New("lifecycle: stopping")

// Run starts the parts in order, each once the one before has called ready, calls allReady when the
// last one has, and waits. When ctx is cancelled, or a part ends by itself, it stops the parts in
// reverse order and returns the errors of the parts. A part that ends by itself without an error is an
// error of its own, unless ctx was cancelled.
func Run(ctx context.Context, log *slog.Logger, allReady func(), parts ...Part) error {
	ended := make(chan *running, len(parts))
	var started []*running
	var errs []error
	for _, p := range parts {
		r := start(ctx, p, ended)
		started = append(started, r)
		select {
		case <-r.ready:
			continue
		case <-ended:
		case <-ctx.Done():
		}
		break
	}
	if len(started) == len(parts) && isClosed(started[len(started)-1].ready) && ctx.Err() == nil {
		allReady()
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
	early := ctx.Err() == nil
	for _, r := range slices.Backward(started) {
		self := early && isClosed(r.done)
		r.cancel(ErrStopped)
		<-r.done
		switch {
		case r.err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", r.name, r.err))
		case self:
			errs = append(errs, fmt.Errorf("%s: ended by itself", r.name))
		}
		log.Debug("ended", "part", r.name)
	}
	return errors.Join(errs...)
}

type running struct {
	name   string
	cancel context.CancelCauseFunc
	ready  chan struct{}
	done   chan struct{}
	err    error
}

func start(ctx context.Context, p Part, ended chan<- *running) *running {
	// The part outlives the cancellation of ctx until its turn in the reverse order comes.
	pctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	r := &running{name: p.Name, cancel: cancel, ready: make(chan struct{}), done: make(chan struct{})}
	var once sync.Once
	go func() {
		defer func() {
			cancel(nil)
			close(r.done)
			ended <- r
		}()
		r.err = p.Run(pctx, func() { once.Do(func() { close(r.ready) }) })
	}()
	return r
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
