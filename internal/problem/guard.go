package problem

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
)

// Observed is a ResponseWriter that knows of itself what Guard asks, so that Guard wraps it in no other.
type Observed interface {
	http.ResponseWriter
	Begun() bool              // part of the answer may have been sent
	Context() context.Context // the request's, for log lines
}

// Guard is h, but a panic in it is an error in the log and a problem 500. A client that has part of an answer already
// sees its connection break: it must not take that part for the whole.
func Guard(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g, ok := w.(Observed)
		if !ok {
			g = &guarded{ResponseWriter: w, ctx: r.Context()}
		}
		defer func() { //nolint:contextcheck // the line's context has the span, too
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && err == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				panic(v)
			}
			log.ErrorContext(g.Context(), "a request's handler panicked", "method", r.Method, "path", r.URL.Path,
				"request", w.Header().Get(HeaderRequestID), "panic", v, "stack", string(debug.Stack()))
			if g.Begun() {
				panic(http.ErrAbortHandler)
			}
			if r.ProtoMajor < 2 {
				w.Header().Set("Connection", "close") // the rest of the request may still be coming
			}
			Problem{
				Status: http.StatusInternalServerError, Type: Internal, Title: "Internal error",
				Detail: "The request met a bug, which the log of the service has. What it asked for may or may not have been done.",
			}.Write(w)
		}()
		h.ServeHTTP(g, r)
	})
}

// guarded knows whether the answer has begun.
type guarded struct {
	http.ResponseWriter
	ctx   context.Context
	begun bool
}

// Begun implements Observed.
func (g *guarded) Begun() bool { return g.begun }

// Context implements Observed.
func (g *guarded) Context() context.Context { return g.ctx }

// WriteHeader implements http.ResponseWriter.
func (g *guarded) WriteHeader(status int) {
	g.begun = g.begun || status >= http.StatusOK || status == http.StatusSwitchingProtocols
	g.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (g *guarded) Write(p []byte) (int, error) {
	g.begun = true
	return g.ResponseWriter.Write(p)
}

// WriteString implements io.StringWriter: net/http's writer copies nothing.
func (g *guarded) WriteString(s string) (int, error) {
	g.begun = true
	return io.WriteString(g.ResponseWriter, s)
}

// Unwrap is for http.ResponseController.
func (g *guarded) Unwrap() http.ResponseWriter { return g.ResponseWriter }
