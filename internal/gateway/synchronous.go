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

// synchronous forwards the request to the function, and its answer to the client, within the route's timeout.
func (x *exchange) synchronous() {
	ctx, cancel := context.WithTimeout(x.ctx(), x.spec.Function.Timeout)
	defer cancel()
	req := x.req.WithContext(ctx)
	switch {
	case x.schema != nil: // validation has read the body
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(x.body)), int64(len(x.body))
	case req.Body != nil:
		req.Body = http.MaxBytesReader(x.w, req.Body, x.spec.MaxBodyBytes)
	}
	req.Header.Set(problem.HeaderRequestID, ensureRequestID(x.w.Header())) // the function logs the same id
	x.forward.ServeHTTP(x.w, req)
}

func (g *Gateway) forwardFailed(w http.ResponseWriter, req *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		problemTooLarge(tooLarge.Limit).Write(w)
	case errors.Is(err, invoke.ErrRequestBody):
		jobapi.BadBody().Write(w)
	case errors.Is(err, invoke.ErrTimeout):
		problem.Problem{
			Status: http.StatusGatewayTimeout, Type: problem.Timeout, Title: "The function did not answer in time",
			Detail: "It may still be at work. Raise the route's function.timeout, or make the route asynchronous.",
		}.Write(w)
	case errors.Is(err, invoke.ErrNotReached):
		g.cfg.Log.Info("a function can't be reached", "request", req.Header.Get(problem.HeaderRequestID), "path", req.URL.Path, "error", err)
		problem.NotNow("The function can't be reached", "No instance took the connection. Try again later.", time.Second).Write(w)
	default:
		g.cfg.Log.Info("a synchronous call broke", "request", req.Header.Get(problem.HeaderRequestID), "path", req.URL.Path, "error", err)
		problem.Problem{
			Status: http.StatusBadGateway, Type: problem.BadGateway, Title: "The function broke the connection",
			Detail: "It closed the connection before it answered.",
		}.Write(w)
	}
}
