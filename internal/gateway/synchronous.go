package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/weir-dev/weir/internal/invoke"
)

// synchronous passes the request to the function and its answer back, within the route's timeout.
func (r *route) synchronous(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), r.spec.Function.Timeout)
	defer cancel()
	req = req.WithContext(ctx)
	if req.Body != nil {
		req.Body = http.MaxBytesReader(w, req.Body, r.spec.MaxBodyBytes)
	}
	id := requestID(req.Header, newRequestID)
	req.Header.Set(headerRequestID, id) // the function logs the same id
	w.Header().Set(headerRequestID, id)
	r.forward.ServeHTTP(w, req)
}

// withBody replaces the body that was read for validation.
func withBody(req *http.Request, body []byte) {
	req.Body = io.NopCloser(bytes.NewReader(body))
	req.ContentLength = int64(len(body))
}

func (g *Gateway) forwardFailed(w http.ResponseWriter, req *http.Request, err error) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		writeProblem(w, req, problemTooLarge(tooLarge.Limit))
	case errors.Is(err, invoke.ErrRequestBody):
		writeProblem(w, req, problemOfBody(err, 0))
	case errors.Is(err, invoke.ErrTimeout):
		writeProblem(w, req, problem{
			Status: http.StatusGatewayTimeout, Type: typeTimeout, Title: "The function did not answer in time",
			Detail: "It may still be at work. Raise the route's function.timeout, or make the route asynchronous.",
		})
	case errors.Is(err, invoke.ErrNotReached):
		g.cfg.Log.Info("a function can't be reached", "request", req.Header.Get(headerRequestID), "path", req.URL.Path, "error", err)
		writeProblem(w, req, problem{
			Status: http.StatusServiceUnavailable, Type: typeUnavailable, Title: "The function can't be reached",
			Detail: "No instance took the connection. Try again later.", retryAfter: 1,
		})
	default:
		g.cfg.Log.Info("a synchronous call broke", "request", req.Header.Get(headerRequestID), "path", req.URL.Path, "error", err)
		writeProblem(w, req, problem{
			Status: http.StatusBadGateway, Type: typeBadGateway, Title: "The function broke the connection",
			Detail: "It closed the connection before it answered.",
		})
	}
}
