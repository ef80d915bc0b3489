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
	switch {
	case x.schema != nil: // validation has read the body
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(x.body)), int64(len(x.body))
	case req.Body != nil && req.Body != http.NoBody:
		body := x.paced()
		defer func() { _ = body.Close() }()
		// A client that sends nothing would hold the call past its timeout: the transport waits for its reading of the body.
		stop := context.AfterFunc(ctx, func() { _ = body.deadline(time.Now()) })
		defer stop()
		req.Body = http.MaxBytesReader(x.w, body, x.spec.MaxBodyBytes)
	}
	req.Header.Set(problem.HeaderRequestID, ensureRequestID(x.w.Header())) // the function logs the same id
	w := x.w
	if x.cors != nil && len(x.req.Header["Origin"]) > 0 {
		w = newCrossWriter(w)
	}
	x.forward.ServeHTTP(w, req)
}

func (g *Gateway) forwardFailed(w http.ResponseWriter, req *http.Request, err error) {
	x, _ := req.Context().Value(exchangeKey{}).(*exchange)
	if req.Body != nil {
		_ = req.Body.Close() // from here on the body is read by refuse alone
	}
	x.w = w
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
		g.cfg.Log.Info("a function can't be reached", "request", req.Header.Get(problem.HeaderRequestID), "path", req.URL.Path, "error", err)
		return problem.NotNow("The function can't be reached", "No instance took the connection. Try again later.", time.Second)
	}
	g.cfg.Log.Info("a synchronous call broke", "request", req.Header.Get(problem.HeaderRequestID), "path", req.URL.Path, "error", err)
	return problem.Problem{
		Status: http.StatusBadGateway, Type: problem.BadGateway, Title: "The function broke the connection",
		Detail: "It closed the connection before it answered.",
	}
}
