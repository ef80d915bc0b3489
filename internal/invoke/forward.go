package invoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
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
	// ErrSlowBody: reading the client's body failed with os.ErrDeadlineExceeded.
	ErrSlowBody = errors.New("invoke: the request's body came too slowly")
	// ErrBroken: the connection broke before the answer.
	ErrBroken = errors.New("invoke: the connection to the function broke")
)

// The headers in which proxies say whom they serve: http.Header's canonical names.
const (
	HeaderForwarded       = "Forwarded" // RFC 7239
	HeaderForwardedFor    = "X-Forwarded-For"
	HeaderForwardedHost   = "X-Forwarded-Host"
	HeaderForwardedProto  = "X-Forwarded-Proto"
	HeaderForwardedPort   = "X-Forwarded-Port"
	HeaderForwardedPrefix = "X-Forwarded-Prefix"
)

// ForwardedHeaders are all of them.
func ForwardedHeaders() []string {
	return []string{HeaderForwarded, HeaderForwardedFor, HeaderForwardedHost, HeaderForwardedProto, HeaderForwardedPort, HeaderForwardedPrefix}
}

// Hop is a proxy's step to a function.
type Hop struct {
	Function string // FunctionName: whose call it is in metrics and traces; empty for a hop that has neither
	Base     string // URL of the function
	Host     string // for the function, if other than Base's
	// Inner means that a proxy before this one has said whom the request is for: this one adds nothing, as Knative's.
	Inner bool
	H2C   bool // the function speaks HTTP/2 by prior knowledge, and maybe nothing else
	// Failed answers when there is no answer, with one of the errors above, or with the error of reading the client's body.
	Failed func(http.ResponseWriter, *http.Request, error)
}

// Forward returns a handler that passes requests on to a function, path and query as they came, and its answer back:
// status, headers, body, as it comes. The caller bounds the time by the request's context. The headers of proxies that
// the request has are kept: the caller has dropped those that it doesn't trust. A connection is never upgraded: what
// follows would pass by all that a route bounds.
func (c *Caller) Forward(hop Hop) (http.Handler, error) {
	target, err := url.Parse(hop.Base)
	if err != nil {
		return nil, fmt.Errorf("function URL %q: %w", hop.Base, err)
	}
	if hop.H2C && target.Scheme != "http" {
		return nil, fmt.Errorf("function URL %q: h2c is HTTP/2 without TLS: give an http URL", hop.Base)
	}
	through := c.speaking(hop.H2C)
	if hop.Function != "" {
		through = &measured{next: through, caller: c, function: hop.Function}
	}
	proxy := &httputil.ReverseProxy{
		Transport:     through,
		FlushInterval: -1, // a stream of events must not wait for a full buffer
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = hop.Host
			if q := r.In.URL.RawQuery; target.RawQuery == "" {
				r.Out.URL.RawQuery = q // httputil has dropped the parameters that net/url can't read
			}
			for _, name := range []string{"Upgrade", "Connection", "Http2-Settings"} {
				r.Out.Header.Del(name)
			}
			// The function may still be at work at a body without end; by HTTP/2 that ends with its stream.
			r.Out.Close = r.Out.Method == http.MethodHead && !hop.H2C
			setForwarded(r, hop.Inner)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var tooLarge *http.MaxBytesError
			body, _ := r.Context().Value(bodyKey{}).(*watchedBody) // ReverseProxy has wrapped r.Body
			switch {
			case errors.As(err, &tooLarge):
			case body != nil && errors.Is(body.failure(), os.ErrDeadlineExceeded):
				err = fmt.Errorf("%w: %w", ErrSlowBody, err)
			case body != nil && body.failure() != nil:
				err = fmt.Errorf("%w: %w", ErrRequestBody, err)
			case errors.Is(context.Cause(r.Context()), context.DeadlineExceeded):
				err = fmt.Errorf("%w: %w", ErrTimeout, err)
			case refusedConnection(err), errors.Is(err, errNoHTTP2):
				err = fmt.Errorf("%w: %w", ErrNotReached, err)
			default:
				err = fmt.Errorf("%w: %w", ErrBroken, err)
			}
			hop.Failed(w, r, err)
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del("X-Request-Id") // the caller has set its own, which the function was told
			return nil
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			body := &watchedBody{ReadCloser: r.Body}
			r = r.WithContext(context.WithValue(r.Context(), bodyKey{}, body))
			r.Body = body
		}
		proxy.ServeHTTP(w, r)
	}), nil
}

// setForwarded says whom the request is for. ReverseProxy has dropped what the request said itself.
func setForwarded(r *httputil.ProxyRequest, inner bool) {
	for _, name := range ForwardedHeaders() {
		if values, ok := r.In.Header[name]; ok {
			r.Out.Header[name] = values
		}
	}
	if inner {
		return
	}
	host, proto := r.In.Header[HeaderForwardedHost], r.In.Header[HeaderForwardedProto]
	r.SetXForwarded() // adds this hop's client to those of the hops before it
	if host != nil {
		r.Out.Header[HeaderForwardedHost] = host
	}
	if proto != nil {
		r.Out.Header[HeaderForwardedProto] = proto
	}
}

// bodyKey is the watchedBody of a request in its context.
type bodyKey struct{}

// watchedBody remembers why reading the client's body failed: the transport reports it like a failure of the function's
// connection.
type watchedBody struct {
	io.ReadCloser
	err atomic.Pointer[error]
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err.CompareAndSwap(nil, &err)
	}
	return n, err
}

func (b *watchedBody) failure() error {
	if err := b.err.Load(); err != nil {
		return *err
	}
	return nil
}
