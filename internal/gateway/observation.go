package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/jobapi"
)

// observation is the ResponseWriter of a request that sees how it is answered. What it has seen becomes metrics, a span and
// a line of the access log, at the end of the handler; of those who listen to the states of jobs when their answer begins or
// their connection is handed over: they stay for hours.
type observation struct {
	http.ResponseWriter
	g      *Gateway
	req    *http.Request
	start  time.Time
	route  *route // nil if none matches
	method method
	https  bool

	status  int   // of the answer; 0 before it begins
	sent    int64 // bytes of the answer's body
	refused string
	span    trace.Span    // nil if disabled or not drawn, and before it is known whose child it is
	drawn   trace.TraceID // by which it was decided that there is no span, or one; zero if nothing was drawn
	child   bool          // span has a parent: the client, or the job, says whether it is sampled
	id      string        // of the request's record; empty if none
	whole   bool          // the handler has returned
	handed  bool          // the answer goes on unobserved
	ended   bool
}

// observe begins to observe a request.
func (g *Gateway) observe(w http.ResponseWriter, r *http.Request) *observation {
	o := &observation{ResponseWriter: w, g: g, req: r, start: time.Now(), method: methodOf(r.Method)}
	o.https = r.TLS != nil
	if said := r.Header["X-Forwarded-Proto"]; len(said) > 0 { // of a trusted proxy (distrust)
		o.https = said[0] == "https"
	}
	g.metrics.begin(o)
	return o
}

// observationOf is the one that w wraps.
func observationOf(w http.ResponseWriter) *observation {
	for {
		switch v := w.(type) {
		case *observation:
			return v
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return nil
		}
	}
}

// end is idempotent.
func (o *observation) end() {
	if o.ended {
		return
	}
	o.ended = true
	if o.status == 0 && o.whole {
		o.status = http.StatusOK // net/http's
	}
	took := time.Since(o.start)
	o.g.metrics.end(o, took)
	o.endSpan()
	if o.g.access.on {
		o.log(took)
	}
}

// pattern is the route as the API names it; empty if there is none.
func (o *observation) pattern() string {
	if o.route == nil {
		return ""
	}
	return o.route.pattern
}

// path is the request's, at most so many bytes of it. In Weir's own paths, what the pattern leaves open is a key: whoever
// has it may read a job's result. So it is left out, as is the query.
func (o *observation) path(most int) string {
	if o.route != nil && o.route.kind == toOwn {
		return o.route.pattern
	}
	p := o.req.URL.EscapedPath()
	return p[:min(len(p), most)]
}

// errorType says what went wrong; empty if nothing did, or it is the client's fault.
func (o *observation) errorType() string {
	switch {
	case !o.whole && !o.handed:
		return errorAborted
	case o.status < http.StatusInternalServerError:
		return ""
	case o.refused != "":
		return o.refused
	}
	return strconv.Itoa(o.status)
}

// listens reports whether the request is answered for hours.
func (o *observation) listens() bool {
	return o.route != nil && o.route.kind == toOwn && o.route.own.Class == jobapi.ClassListen
}

// Begun implements problem.Observed.
func (o *observation) Begun() bool { return o.status != 0 }

// Refused is told the type of a problem that is the answer (problem.Write).
func (o *observation) Refused(name string) {
	o.refused = name
	o.g.metrics.refuse(name)
}

// Context implements problem.Observed.
func (o *observation) Context() context.Context {
	if o.span == nil {
		return o.req.Context()
	}
	return trace.ContextWithSpan(o.req.Context(), o.span)
}

// WriteHeader implements http.ResponseWriter.
func (o *observation) WriteHeader(status int) {
	// Informational ones may come from a goroutine of the function's connection.
	if final := status >= http.StatusOK || status == http.StatusSwitchingProtocols; final && o.status == 0 {
		o.status = status
		if o.listens() {
			o.handed = true
			defer o.end()
		}
	}
	o.ResponseWriter.WriteHeader(status)
}

// writeHead is WriteHeader for who begins with the body.
func (o *observation) writeHead() {
	if o.status == 0 {
		o.WriteHeader(http.StatusOK)
	}
}

// Write implements http.ResponseWriter.
func (o *observation) Write(p []byte) (int, error) {
	o.writeHead()
	n, err := o.ResponseWriter.Write(p)
	o.sent += int64(n)
	return n, err
}

// WriteString implements io.StringWriter: net/http's writer copies nothing.
func (o *observation) WriteString(s string) (int, error) {
	o.writeHead()
	n, err := io.WriteString(o.ResponseWriter, s)
	o.sent += int64(n)
	return n, err
}

// Hijack implements http.Hijacker.
func (o *observation) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(o.ResponseWriter).Hijack()
	if err == nil {
		if o.status == 0 {
			o.status = http.StatusOK // of events: who took the connection writes the head
		}
		o.handed = true
		o.end()
	}
	return conn, buf, err
}

// Unwrap is for http.ResponseController.
func (o *observation) Unwrap() http.ResponseWriter { return o.ResponseWriter }
