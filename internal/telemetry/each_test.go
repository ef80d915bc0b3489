package telemetry

import (
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// TestEachIsBounded: of many sampled messages MaxLinks have a span, and the span that they are linked to says how many have
// none. Those that are not sampled don't count.
func TestEachIsBounded(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	defer func() { _ = p.Shutdown(t.Context()) }()
	tracer := p.Tracer("test")
	ctx, by := tracer.Start(t.Context(), "process")
	const sampled, others = MaxLinks + 30, 20
	end := Each(ctx, tracer, "retry", sampled+others, func(i int) Message {
		flags := "01"
		if i < others {
			flags = "00"
		}
		return Message{TraceParent: fmt.Sprintf("00-%032x-%016x-%s", i+1, i+1, flags), Attributes: func() []attribute.KeyValue { return nil }}
	})
	end(nil)
	by.End()
	made := 0
	for _, s := range spans.Ended() {
		if s.Name() == "retry" {
			made++
			if len(s.Links()) != 1 || s.Links()[0].SpanContext.SpanID() != by.SpanContext().SpanID() {
				t.Fatalf("%v", s.Links())
			}
			continue
		}
		if len(s.Events()) != 1 {
			t.Fatalf("%v", s.Events())
		}
		set := attribute.NewSet(s.Events()[0].Attributes...)
		name, _ := set.Value("weir.span")
		if n, _ := set.Value(AttrSpansOmitted); n.AsInt64() != sampled-MaxLinks || name.AsString() != "retry" {
			t.Errorf("%v", s.Events())
		}
	}
	if made != MaxLinks {
		t.Errorf("%d spans", made)
	}
}
