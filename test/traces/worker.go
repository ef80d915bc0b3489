package traces

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/testkit"
)

// Worker is the job's function. It fails until it is mended. Then it answers 202, and goes on when it is
// told to.
type Worker struct {
	client *http.Client // of its reports
	mended atomic.Bool
	calls  chan call // those that were answered with 202
}

type call struct {
	ctx      context.Context // with the call's span
	address  string
	callback *function.Callback
}

// StartWorker serves one at a free port until the test's end, as its main would, and returns its URL, with the address host.
// It sets OpenTelemetry's globals. It makes its reports by client.
func StartWorker(t testing.TB, host string, client *http.Client) (*Worker, string) {
	t.Helper()
	w := &Worker{client: client, calls: make(chan call, 1)}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err = errors.Join(err, l.Close()); err != nil { // function.Serve opens it again
		t.Fatal(err)
	}
	env := map[string]string{"PORT": port, "K_SERVICE": "traced-worker"}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- function.Serve(ctx, func(name string) string { return cmp.Or(env[name], os.Getenv(name)) }, w)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the job's function: %v", err)
		}
	})
	testkit.Eventually(t, "the job's function listens", func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return w, "http://" + address
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
	return c.callback.Succeed(c.ctx, "text/plain", strings.NewReader("done")) //nolint:contextcheck // it is the call's that counts
}
