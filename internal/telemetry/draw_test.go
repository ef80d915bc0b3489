package telemetry

import (
	"context"
	"log/slog"
	"math"
	"os"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// TestDraw: who draws first and then begins a span has as many sampled traces as the sampler's share says, and no others.
func TestDraw(t *testing.T) {
	for _, row := range []struct {
		sampler, arg string
		share        float64
		drawn        bool // not all are begun
	}{
		{"parentbased_traceidratio", "0.25", 0.25, true},
		{" TraceIDRatio ", "0.25", 0.25, true},
		{"traceidratio", "0", 0, true},
		{"traceidratio", "1", 1, false},
		{"traceidratio", "a quarter", 1, false}, // as the SDK has it
		{"traceidratio", "-1", 1, false},
		{"traceidratio", "", 1, false},
		{"parentbased_always_off", "", 0, false},
		{"", "", 1, false},
	} {
		t.Run(row.sampler+row.arg, func(t *testing.T) {
			t.Setenv("OTEL_TRACES_SAMPLER", row.sampler)
			t.Setenv("OTEL_TRACES_SAMPLER_ARG", row.arg)
			spans := tracetest.NewInMemoryExporter()
			tel, err := Setup(t.Context(), Config{Service: "test", Instance: "a", Spans: spans, Getenv: os.Getenv, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer tel.Close()
			tracer := tel.Tracer("test")
			const n = 10_000
			begun, sampled, seen := 0, 0, map[trace.TraceID]bool{}
			for range n {
				ctx, id, ok := tel.Draw()
				if row.drawn && !id.IsValid() {
					t.Fatal("it has no id")
				}
				if !ok {
					// Who goes on with it samples nothing either.
					_, span := tracer.Start(trace.ContextWithRemoteSpanContext(t.Context(), NotSampled()), "y")
					if span.SpanContext().IsSampled() {
						t.Fatal("a trace is sampled that was not")
					}
					continue
				}
				begun++
				_, span := tracer.Start(ctx, "x")
				sc := span.SpanContext()
				if !sc.IsValid() || seen[sc.TraceID()] || id.IsValid() && sc.TraceID() != id {
					t.Fatalf("%v", sc)
				}
				seen[sc.TraceID()] = true
				if sc.IsSampled() {
					sampled++
				}
				span.End()
			}
			// Six standard deviations of a binomial one.
			if most := 6*math.Sqrt(n*row.share*(1-row.share)) + 0.5; math.Abs(float64(sampled)-n*row.share) > most {
				t.Errorf("%d of %d are sampled", sampled, n)
			}
			if row.drawn && begun != sampled || !row.drawn && begun != n {
				t.Errorf("%d are begun, %d sampled", begun, sampled)
			}
		})
	}
	if ctx, _, ok := (Providers{}).Draw(); !ok || ctx == nil {
		t.Error("providers that do nothing refuse")
	}
}

func TestIDsAreValid(t *testing.T) {
	var g sdktrace.IDGenerator = ids{}
	id, span := g.NewIDs(context.Background())
	if next := g.NewSpanID(context.Background(), id); !id.IsValid() || !span.IsValid() || !next.IsValid() || next == span {
		t.Errorf("%v %v %v", id, span, next)
	}
	if a, b := NotSampled(), NotSampled(); !a.IsValid() || a.IsSampled() || !a.IsRemote() || a.TraceID() == b.TraceID() {
		t.Errorf("%v %v", a, b)
	}
}
