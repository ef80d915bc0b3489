package traces

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/weir-dev/weir/function"
)

// Worker is the job's function, for function.Serve. It fails until it is mended. Then it answers 202, and goes on when it is
// told to.
type Worker struct {
	client *http.Client // of its reports
	mended atomic.Bool
	calls  chan call // those that were answered with 202
}

type call struct {
	ctx      context.Context //nolint:containedctx // a function goes on with its call's, which has the call's span
	address  string
	callback *function.Callback
}

// NewWorker makes its reports by client.
func NewWorker(client *http.Client) *Worker {
	return &Worker{client: client, calls: make(chan call, 1)}
}

// ServeHTTP implements http.Handler.
func (w *Worker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	callback := function.CallbackOf(r.Header)
	if callback == nil || !w.mended.Load() {
		http.Error(rw, "not yet", http.StatusInternalServerError)
		return
	}
	callback.Client = w.client
	select {
	case w.calls <- call{context.WithoutCancel(r.Context()), r.Header.Get(function.HeaderCallback), callback}:
		rw.WriteHeader(http.StatusAccepted)
	default:
		http.Error(rw, "one job is enough", http.StatusInternalServerError)
	}
}

// report makes the three kinds of reports of the call that was answered with 202: by someone who knows nothing of traces, by
// one who has only the call's header, and by one who has kept its context.
func (w *Worker) report(ctx context.Context) error {
	var c call
	select {
	case c = <-w.calls:
	case <-ctx.Done():
		return fmt.Errorf("the worker has no call: %w", ctx.Err())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.address+"?status=running", strings.NewReader(`{"percent": 25}`))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the plain report: %s, %w", resp.Status, err)
	}
	if err := c.callback.Progress(ctx, 50, "half of it"); err != nil {
		return err
	}
	return c.callback.Succeed(c.ctx, "text/plain", strings.NewReader("done"))
}
