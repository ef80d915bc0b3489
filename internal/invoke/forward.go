package invoke

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// The ways in which a forwarded request gets no answer.
var (
	// ErrTimeout: the function did not answer before the request's deadline.
	ErrTimeout = errors.New("invoke: the function did not answer in time")
	// ErrNotReached: no instance of the function could be reached; it has not seen the request.
	ErrNotReached = errors.New("invoke: the function can't be reached")
	// ErrBroken: the connection broke before the answer.
	ErrBroken = errors.New("invoke: the connection to the function broke")
)

// Forward returns a handler that passes requests on to the function at base, path and query kept, and
// its answer back: status, headers, body, as it comes. The caller bounds the time by the request's
// context. When there is no answer it calls failed with one of the errors above, or with the error of
// reading the client's body.
func (c *Client) Forward(base string, failed func(http.ResponseWriter, *http.Request, error)) (http.Handler, error) {
	target, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("function URL %q: %w", base, err)
	}
	return &httputil.ReverseProxy{
		Transport:     c.http.Transport,
		FlushInterval: -1, // a stream of events must not wait for a full buffer
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var tooLarge *http.MaxBytesError
			switch {
			case errors.As(err, &tooLarge):
			case errors.Is(context.Cause(r.Context()), context.DeadlineExceeded):
				err = fmt.Errorf("%w: %w", ErrTimeout, err)
			case refusedConnection(err):
				err = fmt.Errorf("%w: %w", ErrNotReached, err)
			default:
				err = fmt.Errorf("%w: %w", ErrBroken, err)
			}
			failed(w, r, err)
		},
	}, nil
}
