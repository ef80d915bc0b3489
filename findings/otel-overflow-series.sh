#!/usr/bin/env bash
# A series whose only attribute is otel.metric.overflow=true, recorded by a program itself, makes the instruments of
# OpenTelemetry's SDK for Go put every later series into it, even where the limit of cardinality is off:
#
#   go.opentelemetry.io/otel/sdk/metric v1.47.0
#
# So a program that has a limit of its own, and marks what is past it as the specification of metrics does, loses the
# attributes of all that comes after. A second attribute beside it keeps the others apart.
#
# Installs it in a temporary folder and fails if what it does has changed.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/go.mod" <<'GO'
module finding

go 1.25.0

require (
	go.opentelemetry.io/otel v1.47.0
	go.opentelemetry.io/otel/metric v1.47.0
	go.opentelemetry.io/otel/sdk/metric v1.47.0
)
GO
cat >"$dir/main.go" <<'GO'
package main

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	api "go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func main() {
	ctx := context.Background()
	reader := metric.NewManualReader()
	meter := metric.NewMeterProvider(metric.WithReader(reader), metric.WithCardinalityLimit(0), metric.WithView(metric.NewView(
		metric.Instrument{Name: "exponential"},
		metric.Stream{Aggregation: metric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}},
	))).Meter("m")
	explicit, _ := meter.Float64Histogram("explicit")
	exponential, _ := meter.Float64Histogram("exponential")
	counter, _ := meter.Int64Counter("counter")
	for _, a := range []attribute.KeyValue{attribute.Bool("otel.metric.overflow", true), attribute.String("later", "a"), attribute.String("later", "b")} {
		explicit.Record(ctx, 1, api.WithAttributes(a))
		exponential.Record(ctx, 1, api.WithAttributes(a))
		counter.Add(ctx, 1, api.WithAttributes(a))
	}
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &rm); err != nil {
		panic(err)
	}
	for _, m := range rm.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Histogram[float64]:
			fmt.Println(m.Name, len(data.DataPoints), "series")
		case metricdata.Sum[int64]:
			fmt.Println(m.Name, len(data.DataPoints), "series")
		case metricdata.ExponentialHistogram[float64]:
			fmt.Println(m.Name, len(data.DataPoints), "series")
		}
	}
}
GO
(cd "$dir" && go mod tidy >/dev/null 2>&1)
got=$(cd "$dir" && go run .)
want=$'explicit 1 series\nexponential 1 series\ncounter 1 series'
if [[ "$got" != "$want" ]]; then
  printf 'go.opentelemetry.io/otel/sdk/metric v1.47.0 has changed. It printed:\n%s\nand was seen to print:\n%s\n' "$got" "$want"
  exit 1
fi
printf 'sdk/metric v1.47.0, three series recorded:\n%s\n' "$got"
