package tracelog

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// ExportSpans implements sdktrace.SpanExporter.
func (l *Log) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, s := range spans {
		l.add(s.SpanContext().TraceID().String(), ofSDK(s))
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter. What is there stays.
func (l *Log) Shutdown(context.Context) error { return nil }

func ofSDK(r sdktrace.ReadOnlySpan) Span {
	s := Span{
		ID: r.SpanContext().SpanID().String(), Name: cut(r.Name()), Kind: r.SpanKind().String(), Scope: cut(r.InstrumentationScope().Name),
		Start: r.StartTime(), End: r.EndTime(), Failed: r.Status().Code == codes.Error, Status: cut(r.Status().Description),
		LeftOut: r.DroppedAttributes() + r.DroppedEvents() + r.DroppedLinks(),
	}
	if r.Parent().SpanID().IsValid() {
		s.Parent = r.Parent().SpanID().String()
	}
	if service, ok := r.Resource().Set().Value(semconv.ServiceNameKey); ok {
		s.Service = cut(service.AsString())
	}
	s.Attributes = s.ofKeyValues(r.Attributes())
	for _, e := range r.Events() {
		if len(s.Events) == maxEvents {
			s.LeftOut++
			continue
		}
		s.LeftOut += e.DroppedAttributeCount
		s.Events = append(s.Events, Event{e.Time, cut(e.Name), s.ofKeyValues(e.Attributes)})
	}
	for _, k := range r.Links() {
		if len(s.Links) == maxLinks {
			s.LeftOut++
			continue
		}
		s.LeftOut += k.DroppedAttributeCount
		s.Links = append(s.Links, Link{k.SpanContext.TraceID().String(), k.SpanContext.SpanID().String(), s.ofKeyValues(k.Attributes)})
	}
	return s
}

// ofKeyValues returns attributes within their bound; those that are left out are counted.
func (s *Span) ofKeyValues(kvs []attribute.KeyValue) Attributes {
	var out Attributes
	for _, kv := range kvs {
		s.set(&out, string(kv.Key), kv.Value.String())
	}
	return out
}

func (s *Span) set(a *Attributes, key, value string) {
	if *a == nil {
		*a = Attributes{}
	}
	if len(*a) == maxAttributes {
		s.LeftOut++
		return
	}
	(*a)[cut(key)] = cut(value)
}

// cut bounds a text. What is cut is a copy, so that the rest may go.
func cut(s string) string {
	if len(s) <= maxValueBytes {
		return s
	}
	return strings.ToValidUTF8(strings.Clone(s[:maxValueBytes]), "") + "…"
}
