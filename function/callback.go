package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/telemetry"
)

// HeaderCallback is the header of a job's call that holds the address for reports.
const HeaderCallback = "Weir-Callback"

// callbackTimeout bounds a report that is no result.
const callbackTimeout = 10 * time.Second

// Types of the problems that a report gets once nobody waits for it (docs/contracts.md).
const (
	problemAttemptOver = "https://weir.dev/problems/attempt-over"
	problemNoCallback  = "https://weir.dev/problems/no-callback"
)

// ErrAttemptOver says that nobody waits for this attempt any more: the job has ended, was cancelled
// or has another attempt. Stop working.
var ErrAttemptOver = errors.New("the job's attempt is over")

// ErrNoCallback is returned for an outcome when the call has no callback.
var ErrNoCallback = errors.New("the call has no callback")

// Callback is where the call of a job reports how the work goes (docs/contracts.md, Jobs). It is good
// for one attempt, and may be used after the call was answered with 202. Whoever knows the address may
// report, so no error names it.
type Callback struct {
	// Client makes the requests; nil means http.DefaultClient. A report that is no result has 10 s.
	Client *http.Client

	address string
	call    trace.SpanContext // of the call: reports belong to its trace
}

// CallbackOf takes the callback from a call's header. It is nil if there is none, as when the call is
// no job's; a nil Callback drops progress.
func CallbackOf(h http.Header) *Callback {
	address := h.Get(HeaderCallback)
	if address == "" {
		return nil
	}
	return &Callback{address: address, call: telemetry.Remote(h.Get("Traceparent"), h.Get("Tracestate"))}
}

// Progress renews the job's heartbeat. Clients see it: percent from 0 to 100 and a text of up to 1 KiB.
func (c *Callback) Progress(ctx context.Context, percent float64, message string) error {
	if c == nil {
		return nil
	}
	body, err := json.Marshal(struct {
		Percent float64 `json:"percent"`
		Message string  `json:"message,omitempty"`
	}{percent, message})
	if err != nil {
		return fmt.Errorf("reporting progress: %w", err)
	}
	return c.shortReport(ctx, "running", "application/json", string(body))
}

// Succeed ends the job with a result, after its call was answered with 202. The result may be of any size; ctx bounds how
// long it takes.
func (c *Callback) Succeed(ctx context.Context, contentType string, result io.Reader) error {
	if c == nil {
		return ErrNoCallback
	}
	return c.report(ctx, "succeeded", contentType, result)
}

// Fail ends the attempt, after its call was answered with 202. The retry policy decides on the next.
func (c *Callback) Fail(ctx context.Context, reason string) error {
	if c == nil {
		return ErrNoCallback
	}
	return c.shortReport(ctx, "failed", "text/plain; charset=utf-8", reason)
}

func (c *Callback) shortReport(ctx context.Context, status, contentType, body string) error {
	ctx, cancel := context.WithTimeout(ctx, callbackTimeout)
	defer cancel()
	return c.report(ctx, status, contentType, strings.NewReader(body))
}

func (c *Callback) report(ctx context.Context, status, contentType string, body io.Reader) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.address+"?status="+status, body)
	if err != nil {
		return fmt.Errorf("reporting %s: the address is no URL", status)
	}
	req.Header.Set("Content-Type", contentType)
	c.trace(ctx, req.Header)
	client := c.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the address
		}
		return fmt.Errorf("reporting %s: %w", status, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // to the end, so that the connection is used again
	if resp.StatusCode/100 == 2 {
		return nil
	}
	// By its type, not its status: a proxy on the way that knows no such address answers 404 too.
	var p Problem
	if err == nil && json.Unmarshal(answer, &p) == nil && (p.Type == problemAttemptOver || p.Type == problemNoCallback) {
		return fmt.Errorf("reporting %s: %w", status, ErrAttemptOver)
	}
	return fmt.Errorf("reporting %s: the answer is %s", status, resp.Status)
}

// trace has the report's span below that of ctx, or, if ctx is of no call, below the caller's.
func (c *Callback) trace(ctx context.Context, h http.Header) {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		sc = c.call
	}
	if !sc.IsValid() {
		return
	}
	h.Set("Traceparent", telemetry.TraceParent(sc))
	if state := sc.TraceState().String(); state != "" {
		h.Set("Tracestate", state)
	}
}
