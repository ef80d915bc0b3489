package gateway

import (
	"context"
	"net/http"
	"strings"

	attr "go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
)

// maxTracedPath bounds a path in a span and in the access log.
const maxTracedPath = 256

// asServer is the options of every span that the gateway begins.
var asServer = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)} //nolint:gochecknoglobals // a constant list

// trace begins the request's span, if traces are on. throttled says that the request is refused before anything of it was
// looked at.
func (x *exchange) trace(throttled bool) {
	if x.g.tracer == nil {
		return
	}
	parent := remoteOf(x.req)
	if !parent.IsValid() && !throttled && x.kind == toOwn && x.own.Class == jobapi.ClassCallbacks {
		// The function knows nothing of traces. The report belongs to the job's.
		parent = x.g.jobs.TraceOf(x.req)
	}
	x.seen.begin(parent)
}

// remoteOf is the span that the client says the request belongs to.
func remoteOf(req *http.Request) trace.SpanContext {
	tp := req.Header["Traceparent"]
	if len(tp) != 1 {
		return trace.SpanContext{}
	}
	return telemetry.Remote(tp[0], traceState(req.Header))
}

// traceState is the header tracestate: more than one line is one list (W3C Trace Context, section 3.3.1).
func traceState(h http.Header) string {
	lines := h["Tracestate"]
	if len(lines) == 1 {
		return lines[0]
	}
	return strings.Join(lines, ",")
}

// begin begins the span. It is not in the request's context: a copy of the request for it alone would cost a write more than
// the span.
func (o *observation) begin(parent trace.SpanContext) {
	if o.g.tracer == nil || o.span != nil {
		return
	}
	var ctx context.Context // not the request's: looking for a span there would take longer than to make one
	switch o.child = parent.IsValid(); {
	case o.child:
		ctx = trace.ContextWithRemoteSpanContext(context.Background(), parent)
	case o.route != nil && o.route.kind == toQueue:
		var sampled bool
		if ctx, o.drawn, sampled = o.g.cfg.Telemetry.Draw(); !sampled {
			return // nobody is called on the way to the queue
		}
	default:
		ctx = context.Background()
	}
	_, o.span = o.g.tracer.Start(ctx, o.spanName(), asServer...)
}

// spanName is METHOD ROUTE, as the conventions have it.
func (o *observation) spanName() string {
	if o.route != nil && o.req.Method == o.route.method {
		return o.route.spanName
	}
	name := o.req.Method
	if o.method == methodOther {
		name = "HTTP"
	}
	if p := o.pattern(); p != "" {
		name += " " + p
	}
	return name
}

// endSpan tells the span what the answer was. The API and the queue are not among it: the route has one of each, and an
// attribute costs as much as the record's id.
func (o *observation) endSpan() {
	if o.span == nil {
		return
	}
	if o.span.IsRecording() {
		room := o.g.attrs.Get().(*[]attr.KeyValue) //nolint:forcetypeassert // it holds nothing else
		attrs := append((*room)[:0], o.g.metrics.kindOf(o).span...)
		attrs = append(attrs, semconv.URLPath(o.path(maxTracedPath)))
		if o.id != "" {
			attrs = append(attrs, attr.String("weir.record.id", o.id))
		}
		o.span.SetAttributes(attrs...) // it keeps a copy
		clear(attrs)
		*room = attrs
		o.g.attrs.Put(room)
		if o.errorType() != "" {
			o.span.SetStatus(codes.Error, "")
		}
	}
	o.span.End()
}

// keepTrace puts the context into the record under which its way goes on: the request's span, or, without traces, what the
// client said. A trace that began here and is not sampled leaves nothing: in each of ninety-nine records of a hundred its
// random ids, which don't compress, would cost more than all metrics do. Who reads such a record doesn't sample it either.
func (x *exchange) keepTrace(rec *record.Record) {
	if x.g.tracer == nil {
		if tp := x.req.Header.Get("Traceparent"); tp != "" && telemetry.ValidTraceParent(tp) {
			rec.TraceParent, rec.TraceState = tp, bounded(traceState(x.req.Header))
		}
		return
	}
	if x.seen.span == nil {
		return
	}
	sc := x.seen.span.SpanContext()
	if !sc.IsSampled() && !x.seen.child {
		return
	}
	rec.TraceParent = telemetry.TraceParent(sc)
	if ts := sc.TraceState(); ts.Len() > 0 {
		rec.TraceState = bounded(ts.String())
	}
}

func bounded(traceState string) string {
	if len(traceState) > telemetry.MaxTraceState {
		return ""
	}
	return traceState
}
