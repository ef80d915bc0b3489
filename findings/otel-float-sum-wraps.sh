#!/usr/bin/env bash
# A float64 histogram and a float64 counter of OpenTelemetry's SDK for Go add up values that are whole numbers in an int64:
#
#   go.opentelemetry.io/otel/sdk/metric v1.47.0
#
# When the sum of those passes 2^63 it wraps, and a metric that only ever got positive values has a negative sum; nothing is
# logged. Times in nanoseconds since 1970 (1.8e18) come to that with the sixth value.
#
# Installs it in a temporary folder and fails if what it does has changed.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cat >"$dir/go.mod" <<'GO'
module finding

go 1.25.0

require (
	go.opentelemetry.io/otel/metric v1.47.0
	go.opentelemetry.io/otel/sdk/metric v1.47.0
)
GO
cat >"$dir/main.go" <<'GO'
package main

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func main() {
	ctx := context.Background()
	reader := metric.NewManualReader()
	meter := metric.NewMeterProvider(metric.WithReader(reader)).Meter("m")
	histogram, _ := meter.Float64Histogram("histogram")
	counter, _ := meter.Float64Counter("counter")
	for range 6 {
		histogram.Record(ctx, 1.8e18)
		counter.Add(ctx, 1.8e18)
	}
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &rm); err != nil {
		panic(err)
	}
	for _, m := range rm.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Histogram[float64]:
			fmt.Printf("%s %d %.4g\n", m.Name, data.DataPoints[0].Count, data.DataPoints[0].Sum)
		case metricdata.Sum[float64]:
			fmt.Printf("%s %.4g\n", m.Name, data.DataPoints[0].Value)
		}
	}
}
GO
(cd "$dir" && go mod tidy >/dev/null 2>&1)
got=$(cd "$dir" && go run .)
want=$'histogram 6 -7.647e+18\ncounter -7.647e+18'
if [[ "$got" != "$want" ]]; then
  printf 'go.opentelemetry.io/otel/sdk/metric v1.47.0 has changed. It printed:\n%s\nand was seen to print:\n%s\n' "$got" "$want"
  exit 1
fi
printf 'sdk/metric v1.47.0, six values of 1.8e18:\n%s\n' "$got"
