package stream

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
)

// sampledRecords are the contexts of a group's records whose traces are sampled: the first one is the parent of the span of
// the write, the others are linked to it.
type sampledRecords struct {
	contexts []sampledRecord // telemetry.MaxLinks beside the first
	omitted  int
}

type sampledRecord struct{ traceParent, traceState string }

func (s *sampledRecords) add(r *record.Record) {
	switch {
	case !telemetry.Sampled(r.TraceParent):
	case len(s.contexts) > telemetry.MaxLinks:
		s.omitted++
	default:
		s.contexts = append(s.contexts, sampledRecord{r.TraceParent, r.TraceState})
	}
}

// sending begins the span of a write of n records to queue k. Without a sampled one the span is nil.
func (m *writeMetrics) sending(ctx context.Context, k catalog.Key, n int, of *sampledRecords) (context.Context, trace.Span) {
	if m.tracer == nil || len(of.contexts) == 0 {
		return ctx, nil
	}
	links := make([]trace.Link, 0, len(of.contexts)-1)
	for _, c := range of.contexts[1:] {
		links = append(links, trace.Link{SpanContext: telemetry.Remote(c.traceParent, c.traceState)})
	}
	first := of.contexts[0]
	ctx = trace.ContextWithRemoteSpanContext(ctx, telemetry.Remote(first.traceParent, first.traceState))
	ctx, span := m.tracer.Start(ctx, "send "+k.String(), trace.WithSpanKind(trace.SpanKindProducer), trace.WithLinks(links...))
	if span.IsRecording() {
		span.SetAttributes(append(messaging(k), semconv.MessagingOperationName("send"), semconv.MessagingOperationTypeSend, semconv.MessagingBatchMessageCount(n))...)
		if of.omitted > 0 {
			span.SetAttributes(attribute.Int(telemetry.AttrLinksOmitted, of.omitted))
		}
	}
	return ctx, span
}

// endSending ends such a span, which may be nil.
func endSending(span trace.Span, err error) {
	if span == nil {
		return
	}
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		span.SetAttributes(semconv.ErrorTypeKey.String(outcomeOf(err).errorType()))
	}
	span.End()
}
