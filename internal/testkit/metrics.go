package testkit

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Series collects what there is, as name{attribute=value,…}: a number; of a histogram the number of values, and their sum as
// name.sum{…}.
func Series(t testing.TB, reader *sdkmetric.ManualReader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, s := range all.ScopeMetrics {
		for _, m := range s.Metrics {
			put := func(suffix string, set attribute.Set, v float64) {
				out[m.Name+suffix+"{"+set.Encoded(attribute.DefaultEncoder())+"}"] += v
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					put("", p.Attributes, float64(p.Value))
				}
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					put("", p.Attributes, p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					put("", p.Attributes, float64(p.Value))
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					put("", p.Attributes, p.Value)
				}
			case metricdata.Histogram[int64]:
				for _, p := range data.DataPoints {
					put("", p.Attributes, float64(p.Count))
					put(".sum", p.Attributes, float64(p.Sum))
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					put("", p.Attributes, float64(p.Count))
					put(".sum", p.Attributes, p.Sum)
				}
			default:
				t.Errorf("%s is of %T", m.Name, data)
			}
		}
	}
	return out
}
