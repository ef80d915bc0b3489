package invoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
)

// The ways in which a forwarded request gets no answer.
var (
	// ErrTimeout: the function did not answer before the request's deadline.
	ErrTimeout = errors.New("invoke: the function did not answer in time")
	// ErrNotReached: no instance of the function could be reached; it has not seen the request.
	ErrNotReached = errors.New("invoke: the function can't be reached")
	// ErrRequestBody: the client's body could not be read to its end; the function is not to blame.
	ErrRequestBody = errors.New("invoke: the request's body can't be read")
	// ErrBroken: the connection broke before the answer.
	ErrBroken = errors.New("invoke: the connection to the function broke")
)

// Forward returns a handler that passes requests on to the function at base, path and query kept, and
// its answer back: status, headers, body, as it comes. The caller bounds the time by the request's
// context. When there is no answer it calls failed with one of the errors above, or with the error of
// reading the client's body.
func (c *Caller) Forward(base string, failed func(http.ResponseWriter, *http.Request, error)) (http.Handler, error) {
	return c.forward(base, (*httputil.ProxyRequest).SetXForwarded, failed)
}

// ForwardHop is Forward for a proxy that is not the first one: X-Forwarded-For, -Host, -Proto and Forwarded stay as the
// proxy before it has set them, as with Knative's proxies.
func (c *Caller) ForwardHop(base string, failed func(http.ResponseWriter, *http.Request, error)) (http.Handler, error) {
	return c.forward(base, func(r *httputil.ProxyRequest) {
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"} {
			if values, ok := r.In.Header[name]; ok {
				r.Out.Header[name] = values
			}
		}
	}, failed)
}

func (c *Caller) forward(base string, forwarded func(*httputil.ProxyRequest), failed func(http.ResponseWriter, *http.Request, error)) (http.Handler, error) {
	target, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("function URL %q: %w", base, err)
	}
	proxy := &httputil.ReverseProxy{
		Transport:     c.http.Transport,
		FlushInterval: -1, // a stream of events must not wait for a full buffer
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			forwarded(r)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var tooLarge *http.MaxBytesError
			body, _ := r.Body.(*watchedBody)
			switch {
			case errors.As(err, &tooLarge):
			case body != nil && body.failed.Load():
				err = fmt.Errorf("%w: %w", ErrRequestBody, err)
			case errors.Is(context.Cause(r.Context()), context.DeadlineExceeded):
				err = fmt.Errorf("%w: %w", ErrTimeout, err)
			case refusedConnection(err):
				err = fmt.Errorf("%w: %w", ErrNotReached, err)
			default:
				err = fmt.Errorf("%w: %w", ErrBroken, err)
			}
			failed(w, r, err)
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del("X-Request-Id") // the caller has set its own, which the function was told
			return nil
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &watchedBody{ReadCloser: r.Body}
		}
		proxy.ServeHTTP(w, r)
	}), nil
}

// watchedBody remembers whether reading the client's body failed: the transport reports it like a failure
// of the function's connection.
type watchedBody struct {
	io.ReadCloser
	failed atomic.Bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.failed.Store(true)
	}
	return n, err
}
