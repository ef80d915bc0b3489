package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Message is what a span about one stored message needs of it.
type Message struct {
	TraceParent, TraceState string
	// Attributes are asked for only if the span is recorded.
	Attributes func() []attribute.KeyValue
}

// Each starts a producer span about each of n messages that is sampled, at most MaxLinks of them, in the message's own
// trace: child of its context, and linked to the span in ctx. How many are left out is an event of the span in ctx. The spans
// end with the returned function. A nil tracer makes none.
func Each(ctx context.Context, tracer trace.Tracer, name string, n int, message func(i int) Message) (end func(error)) {
	if tracer == nil {
		return func(error) {}
	}
	var spans []trace.Span
	omitted := 0
	var opts []trace.SpanStartOption
	for i := range n {
		m := message(i)
		if !Sampled(m.TraceParent) {
			continue
		}
		parent := Remote(m.TraceParent, m.TraceState)
		if !parent.IsValid() {
			continue
		}
		if len(spans) == MaxLinks {
			omitted++
			continue
		}
		if opts == nil {
			opts = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindProducer)}
			if by := trace.SpanContextFromContext(ctx); by.IsSampled() {
				opts = append(opts, trace.WithLinks(trace.Link{SpanContext: by}))
			}
		}
		_, span := tracer.Start(trace.ContextWithRemoteSpanContext(ctx, parent), name, opts...)
		if span.IsRecording() {
			span.SetAttributes(m.Attributes()...)
		}
		spans = append(spans, span)
	}
	if omitted > 0 {
		trace.SpanFromContext(ctx).AddEvent("not traced", trace.WithAttributes(
			attribute.String("weir.span", name), attribute.Int(AttrSpansOmitted, omitted)))
	}
	return func(err error) {
		for _, s := range spans {
			if err != nil {
				s.SetStatus(codes.Error, err.Error())
			}
			s.End()
		}
	}
}
