package gateway

import (
	"sync"
	"testing"
	"time"

	attr "go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestNoDurationIsLost: of many answers at a time, while two readers read; neither what is held when one of them reads, nor
// what comes after the gateway's end.
func TestNoDurationIsLost(t *testing.T) {
	page, push := sdkmetric.NewManualReader(), sdkmetric.NewManualReader()
	m, err := newMetrics(&Gateway{}, telemetry.Providers{Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(page), sdkmetric.WithReader(push))})
	if err != nil {
		t.Fatal(err)
	}
	const at, each = 4, 10*maxHeld + 3
	kind := &answerOf{opts: []metric.RecordOption{metric.WithAttributeSet(attr.NewSet())}}
	var wg sync.WaitGroup
	for range at {
		wg.Go(func() {
			for range each {
				m.durations.add(kind, 250*time.Millisecond)
			}
		})
	}
	for _, r := range []*sdkmetric.ManualReader{page, push} {
		wg.Go(func() {
			for range 20 {
				testkit.Series(t, r)
			}
		})
	}
	wg.Wait()
	if n := len(m.durations.held); n >= maxHeld {
		t.Errorf("%d are held", n)
	}
	m.durations.add(kind, 250*time.Millisecond)
	check := func(want float64) {
		t.Helper()
		for name, r := range map[string]*sdkmetric.ManualReader{"page": page, "push": push} {
			if got := testkit.Series(t, r); got["http.server.request.duration{}"] != want {
				t.Errorf("%s: %v, want %g", name, got, want)
			}
		}
	}
	check(at*each + 1)
	m.durations.add(kind, time.Second)
	m.close()
	check(at*each + 2)
	m.durations.add(kind, time.Second)
	check(at*each + 3)
}
