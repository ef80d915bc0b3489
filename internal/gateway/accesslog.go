package gateway

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/problem"
)

// accessLog writes a line for each request, or for a share of them. Failed ones are no exception: when all fail, they would
// be the load that is too much; the metrics count them.
type accessLog struct {
	log   *slog.Logger
	on    bool
	share float64
	every uint64 // of the requests without a trace, one in so many
	count atomic.Uint64
}

// ParseAccessLog reads the share of requests that the access log has: "off" or nothing is 0, "full" is 1.
func ParseAccessLog(text string) (float64, error) {
	switch text {
	case "", "off":
		return 0, nil
	case "full":
		return 1, nil
	}
	share, err := strconv.ParseFloat(text, 64)
	if err != nil || !(share > 0 && share <= 1) {
		return 0, fmt.Errorf("%q: must be off, full, or a share of the requests such as 0.01", text)
	}
	return share, nil
}

func (a *accessLog) use(share float64, log *slog.Logger) {
	if share > 0 && log != nil {
		a.log, a.on, a.share, a.every = log, true, share, uint64(math.Max(1, math.Round(1/share)))
	}
}

// has decides on a request. For one that has a trace it is the trace that decides, in the way of OpenTelemetry's
// TraceIDRatioBased: with the same share the traces that are kept are those whose requests are in the log, of all processes.
func (a *accessLog) has(id trace.TraceID) bool {
	if a.share >= 1 {
		return true
	}
	if !id.IsValid() {
		return a.count.Add(1)%a.every == 0
	}
	return binary.BigEndian.Uint64(id[8:])>>1 < uint64(a.share*(1<<63))
}

// log writes the request's line, once it is answered.
func (o *observation) log(took time.Duration) {
	a, ctx := &o.g.access, context.Background()
	var sc trace.SpanContext
	if o.span != nil {
		sc = o.span.SpanContext()
	} else {
		sc = remoteOf(o.req) // others' trace, which the line belongs to all the same
	}
	id := sc.TraceID()
	if !sc.IsValid() {
		id = o.drawn // the trace is not to be found: it is no part of the line
	}
	if !a.log.Enabled(ctx, slog.LevelInfo) || !a.has(id) {
		return
	}
	if sc.IsValid() {
		ctx = trace.ContextWithSpanContext(ctx, sc)
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.String("method", o.method.name()), slog.String("path", o.path(maxTracedPath)),
		slog.Int("status", o.status), slog.Float64("duration", took.Seconds()), slog.Int64("sent", o.sent))
	if p := o.pattern(); p != "" {
		attrs = append(attrs, slog.String("route", p))
		if o.route.apiName != "" {
			attrs = append(attrs, slog.String("api", o.route.apiName))
		}
	}
	if n := o.req.ContentLength; n > 0 {
		attrs = append(attrs, slog.Int64("received", n))
	}
	if ids := o.Header()[problem.HeaderRequestID]; len(ids) > 0 {
		attrs = append(attrs, slog.String("request", ids[0]))
	}
	if o.id != "" {
		attrs = append(attrs, slog.String("record", o.id), slog.String("queue", o.route.queue.String()))
	}
	if e := o.errorType(); e != "" {
		attrs = append(attrs, slog.String("error", e))
	} else if o.refused != "" {
		attrs = append(attrs, slog.String("error", o.refused))
	}
	a.log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// name is the method as the attribute has it.
func (m method) name() string { return m.attribute().Value.AsString() }
