package orchestrator

import (
	"context"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/telemetry"
)

// BenchmarkTelemetryOfATask: what is measured and traced of a task, whose call fails at once.
func BenchmarkTelemetryOfATask(b *testing.B) {
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()), sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter))
	traces := sdktrace.NewTracerProvider(sdktrace.WithBatcher(tracetest.NewNoopExporter()))
	defer func() { _ = traces.Shutdown(context.Background()) }()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, c := range []struct {
		name, parent string
		tel          telemetry.Providers
	}{
		{"off", "", telemetry.Providers{}},
		{"metrics", "", telemetry.Providers{Meters: meters}},
		{"not sampled", "", telemetry.Providers{Meters: meters, Traces: traces}},
		{"sampled", parent, telemetry.Providers{Meters: meters, Traces: traces}},
	} {
		b.Run(c.name, func(b *testing.B) {
			x, err := newMetrics(c.tel, func() int { return 0 })
			if err != nil {
				b.Fatal(err)
			}
			o := &Orchestrator{metrics: x, tracer: c.tel.Tracer(scope)}
			id := ID{Machine: catalog.Key{Namespace: "default", Name: "m"}, Name: "x"}
			e := statelang.Effect{Kind: statelang.CallTask, State: "T", Resource: statelang.Resource{Kind: statelang.Integration, Service: "no", Action: "such"}}
			b.ReportAllocs()
			for b.Loop() {
				ctx := o.under(b.Context(), c.parent, "")
				o.asking(ctx, id, e).end()
				_, _ = o.carried(ctx)
				for range o.watched(ctx, id, e, false) {
				}
			}
		})
	}
}
