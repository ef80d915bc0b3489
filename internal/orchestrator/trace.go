package orchestrator

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

// A trace goes through an execution in this order: the request that starts it has a span (starting), whose context is in the
// question to the partition's owner (carried, in Orchestrator.ask) and in the execution's first line, which outlives owners; each
// of its calls has a span that is a child of it (under, watched); and what a call starts, a function, a record or another
// execution, gets that span's context.

// maxTaskEvents bounds the events of one task's span: a function may be away for hours. How many more there were is its attribute
// attrEventsOmitted.
const (
	maxTaskEvents     = 64
	attrEventsOmitted = "weir.events.omitted"
)

// starting begins the span of a request that starts an execution; without traces the client's context is kept. The span ends with
// the returned function.
func (o *Orchestrator) starting(r *http.Request, id ID) (*http.Request, func(error)) {
	parent := telemetry.Remote(r.Header.Get("Traceparent"), strings.Join(r.Header.Values("Tracestate"), ","))
	if o.tracer == nil && !parent.IsValid() {
		return r, func(error) {}
	}
	ctx := r.Context()
	if parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	if o.tracer == nil {
		return r.WithContext(ctx), func(error) {}
	}
	ctx, span := o.tracer.Start(ctx, "start "+id.Machine.String(), trace.WithSpanKind(trace.SpanKindServer))
	if span.IsRecording() {
		span.SetAttributes(about(id)...)
	}
	return r.WithContext(ctx), func(err error) {
		var refused *stream.RefusedError
		var problems statelang.Problems
		if err != nil && !errors.As(err, &refused) && !errors.As(err, &problems) { // not the client's fault
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

// about is an execution as spans name it.
func about(id ID) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("weir.state_machine", id.Machine.String()), attribute.String("weir.execution", id.String())}
}

// carried is the trace context that goes on with what is stored or sent under ctx; empty if there is none. One that is not sampled
// leaves nothing where traces are on: who reads that doesn't sample it either.
func (o *Orchestrator) carried(ctx context.Context) (traceParent, traceState string) {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() || o.tracer != nil && !sc.IsSampled() {
		return "", ""
	}
	if traceState = sc.TraceState().String(); len(traceState) > telemetry.MaxTraceState {
		traceState = ""
	}
	return telemetry.TraceParent(sc), traceState
}

// under is ctx under a stored trace context. Without one its start was not sampled: so its calls belong to a trace that is not
// sampled.
func (o *Orchestrator) under(ctx context.Context, traceParent, traceState string) context.Context {
	switch parent := telemetry.Remote(traceParent, traceState); {
	case parent.IsValid():
		return trace.ContextWithRemoteSpanContext(ctx, parent)
	case o.tracer != nil:
		return trace.ContextWithRemoteSpanContext(ctx, telemetry.NotSampled())
	}
	return ctx
}

// watched is perform, measured, and in a span if its execution is sampled.
func (o *Orchestrator) watched(ctx context.Context, id ID, e statelang.Effect, submitted bool) iter.Seq[statelang.Event] {
	return func(yield func(statelang.Event) bool) {
		resource := resourceOf(e)
		ended := o.metrics.of(id.Machine).attempt(resource) //nolint:contextcheck // a count belongs to no context
		ctx, span := o.span(ctx, id, e, resource)
		var last statelang.Event
		defer func() {
			became := outcomeOf(e, last)
			ended(became)
			endTask(span, became, last)
		}()
		for event := range o.perform(ctx, id, e, submitted) {
			last = event
			if !yield(event) {
				return
			}
		}
	}
}

// span begins a task's span; nil if its execution is not sampled.
func (o *Orchestrator) span(ctx context.Context, id ID, e statelang.Effect, resource string) (context.Context, trace.Span) {
	if o.tracer == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, nil
	}
	ctx, span := o.tracer.Start(ctx, "task "+e.State)
	if span.IsRecording() {
		span.SetAttributes(append(about(id), attribute.String("weir.state", e.State), attribute.String("weir.resource", resource))...)
	}
	return ctx, span
}

func endTask(span trace.Span, became outcome, last statelang.Event) {
	if span == nil {
		return
	}
	span.SetAttributes(attribute.String("weir.outcome", string(became)))
	if became == failing || became == timedOut {
		span.SetStatus(codes.Error, last.Failure.Name())
	}
	span.End()
}

// asking is the answers "not now" to one call.
type asking struct {
	tally    *tally
	resource string
	span     trace.Span
	answers  int
}

func (o *Orchestrator) asking(ctx context.Context, id ID, e statelang.Effect) *asking {
	return &asking{tally: o.metrics.of(id.Machine), resource: resourceOf(e), span: trace.SpanFromContext(ctx)}
}

// notNow notes one.
func (a *asking) notNow(o invoke.Outcome) {
	a.tally.notNow(a.resource)
	if a.answers++; a.answers > maxTaskEvents || !a.span.IsRecording() {
		return
	}
	as := []attribute.KeyValue{attribute.String("weir.cause", o.Reason)}
	if o.Status != 0 {
		as = append(as, semconv.HTTPResponseStatusCode(o.Status))
	}
	a.span.AddEvent("not now", trace.WithAttributes(as...))
}

// end tells the span how many were left out.
func (a *asking) end() {
	if a.answers > maxTaskEvents {
		a.span.SetAttributes(attribute.Int(attrEventsOmitted, a.answers-maxTaskEvents))
	}
}
