package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/problem"
)

// exchangeKey is the exchange of a forwarded request in its context.
type exchangeKey struct{}

// synchronous forwards the request to the function, and its answer to the client, within the route's timeout.
func (x *exchange) synchronous() {
	ctx, cancel := context.WithTimeout(x.ctx(), x.spec.Function.Timeout)
	defer cancel()
	kept := *x // of its own: with x in the context every exchange would be on the heap, those of writes too
	req := x.req.WithContext(context.WithValue(ctx, exchangeKey{}, &kept))
	req.Header.Set(problem.HeaderRequestID, ensureRequestID(x.w.Header())) // the function logs the same id
	w := &forwardWriter{ResponseWriter: x.w, said: x.w.Header().Clone(), cross: x.cors != nil && len(x.req.Header["Origin"]) > 0, alone: !streams(x.req)}
	switch {
	case x.schema != nil: // validation has read the body
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(x.body)), int64(len(x.body))
	case req.Body != nil && req.Body != http.NoBody:
		body := x.paced()
		defer func() { _ = body.Close() }()
		// A client that sends nothing would hold the call past its timeout: the transport waits for its reading of the body.
		stop := context.AfterFunc(ctx, body.abort)
		defer stop()
		req.Body, w.body = http.MaxBytesReader(x.w, body, x.spec.MaxBodyBytes), body
		// A function may answer before it has the whole body; net/http would hold the answer until then.
		_ = http.NewResponseController(x.w).EnableFullDuplex() // HTTP/2 needs none
	}
	x.forward.ServeHTTP(w, req)
}

// forwardWriter keeps what the gateway has said in the headers of an answer: ReverseProxy clears them after an
// informational answer, and a function may say other things of origins.
type forwardWriter struct {
	http.ResponseWriter
	said  http.Header
	cross bool       // the API has cors, and the request an origin
	alone bool       // on its connection
	body  *pacedBody // of the request; nil if it was read before, or there is none
}

// WriteHeader implements http.ResponseWriter.
func (f *forwardWriter) WriteHeader(status int) {
	if status >= http.StatusOK {
		h := f.Header()
		if f.cross {
			for _, name := range crossHeaders {
				h.Del(name)
			}
		}
		for name, values := range f.said {
			if len(h[name]) == 0 {
				h[name] = values
			}
		}
		if f.body != nil && f.alone && !f.body.whole() {
			h.Set("Connection", "close") // what is left of the body is not the next request
		}
	}
	f.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (f *forwardWriter) Unwrap() http.ResponseWriter { return f.ResponseWriter }

func (g *Gateway) forwardFailed(w http.ResponseWriter, req *http.Request, err error) {
	x, _ := req.Context().Value(exchangeKey{}).(*exchange)
	if req.Body != nil {
		_ = req.Body.Close() // from here on the body is read by refuse alone
	}
	x.w = w
	if ids := req.Header[problem.HeaderRequestID]; len(w.Header()[problem.HeaderRequestID]) == 0 && len(ids) > 0 {
		w.Header()[problem.HeaderRequestID] = ids // an informational answer has cleared it
	}
	x.refuse(g.problemOfForward(req, err))
}

func (g *Gateway) problemOfForward(req *http.Request, err error) problem.Problem {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return problemTooLarge(tooLarge.Limit)
	case errors.Is(err, invoke.ErrSlowBody):
		return problemSlowBody()
	case errors.Is(err, invoke.ErrRequestBody):
		return jobapi.BadBody()
	case errors.Is(err, invoke.ErrTimeout):
		return problem.Problem{
			Status: http.StatusGatewayTimeout, Type: problem.Timeout, Title: "The function did not answer in time",
			Detail: "It may still be at work. Raise the route's function.timeout, or make the route asynchronous.",
		}
	case errors.Is(err, invoke.ErrNotReached):
		g.cfg.Log.InfoContext(req.Context(), "a function can't be reached", "request", req.Header.Get(problem.HeaderRequestID), "path", req.URL.Path, "error", err)
		return problem.NotNow("The function can't be reached", "No instance took the connection. Try again later.", time.Second)
	}
	g.cfg.Log.InfoContext(req.Context(), "a synchronous call broke", "request", req.Header.Get(problem.HeaderRequestID), "path", req.URL.Path, "error", err)
	return problem.Problem{
		Status: http.StatusBadGateway, Type: problem.BadGateway, Title: "The function broke the connection",
		Detail: "It closed the connection before it answered.",
	}
}
