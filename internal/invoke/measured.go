package invoke

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// measured makes forwarded requests calls in metrics and traces, until the answer's body ends.
type measured struct {
	next     http.RoundTripper
	caller   *Caller
	function string
}

// RoundTrip implements http.RoundTripper.
func (t *measured) RoundTrip(req *http.Request) (*http.Response, error) {
	start, method := time.Now(), methodOf(req.Method)
	ctx, span := t.caller.clientSpan(req.Context(), method, t.function, func() *url.URL { return req.URL })
	if span != nil {
		req = req.WithContext(ctx)
		req.Header = req.Header.Clone()
		t.caller.propagate(ctx, req.Header)
	}
	status := 0
	finish := func(err error) {
		trouble, reason := "", ""
		if err != nil {
			trouble, reason = troubleOf(ctx, err), err.Error()
		}
		t.caller.durations.record(ctx, time.Since(start), kind{function: t.function, method: method, status: status, trouble: trouble})
		endSpan(span, status, trouble, reason)
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		finish(err)
		return nil, err
	}
	status = resp.StatusCode
	if resp.StatusCode == http.StatusSwitchingProtocols { // its body is more than one
		finish(nil)
		return resp, nil
	}
	resp.Body = &answerBody{ReadCloser: resp.Body, ctx: ctx, finish: finish}
	return resp, nil
}

// troubleOf is error.type of a forwarded request without an answer, or with half of one.
func troubleOf(ctx context.Context, err error) string {
	var tooLarge *http.MaxBytesError
	body, _ := ctx.Value(bodyKey{}).(*watchedBody)
	switch {
	case errors.As(err, &tooLarge), body != nil && body.failure() != nil:
		return troubleCancelled
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return troubleTimeout
	case ctx.Err() != nil:
		return troubleCancelled
	case refusedConnection(err), errors.Is(err, errNoHTTP2):
		return troubleNoConnection
	}
	return troubleBroken
}

// answerBody tells when it has ended: at its end, or when it is closed before.
type answerBody struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // the call's, whose end cuts the body
	once   sync.Once
	finish func(error)
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.once.Do(func() { b.finish(nil) })
	case err != nil:
		b.once.Do(func() { b.finish(err) })
	}
	return n, err
}

// Close implements io.Closer.
func (b *answerBody) Close() error {
	b.once.Do(func() { b.finish(b.ctx.Err()) })
	return b.ReadCloser.Close()
}
