package stream_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// collect returns the points of each metric.
func collect(t *testing.T, reader *sdkmetric.ManualReader) map[string]metricdata.Aggregation {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]metricdata.Aggregation{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			out[m.Name] = m.Data
		}
	}
	return out
}

func gauge(t *testing.T, reader *sdkmetric.ManualReader, name string) (values []int64) {
	t.Helper()
	data, _ := collect(t, reader)[name].(metricdata.Gauge[int64])
	for _, p := range data.DataPoints {
		values = append(values, p.Value)
	}
	return values
}

// TestGroupIsOneWrite in the metrics, and one span, however many records it has: linked to those of its records that are
// sampled, as many as a span may have, and counting the rest.
func TestGroupIsOneWrite(t *testing.T) {
	reader, recorder := sdkmetric.NewManualReader(), tracetest.NewSpanRecorder()
	c := testkit.ConnWith(t, testkit.NATS(t), telemetry.Providers{
		Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), Traces: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)),
	})
	q := orders()
	ensure(t, c, q)
	w := c.NewWriter(q.Key, record.S2)
	w.ObserveWaiting()
	if got := gauge(t, reader, "weir.gateway.commit.waiting"); got != nil {
		t.Errorf("a queue that nothing was written to has a series: %v", got)
	}
	const records, sampled = 300, 200
	for i := range records {
		r := newRecord(t, "x")
		r.TraceParent = fmt.Sprintf("00-%032x-%016x-%02x", i+1, i+1, btoi(i >= records-sampled))
		if _, err := w.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if got := gauge(t, reader, "weir.gateway.commit.waiting"); len(got) != 1 || got[0] < records*20 {
		t.Errorf("%v bytes wait", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // it writes what waits
	w.Run(ctx)
	all := collect(t, reader)
	size, _ := all["weir.gateway.commit.size"].(metricdata.Histogram[int64])
	duration, _ := all["messaging.client.operation.duration"].(metricdata.Histogram[float64])
	sent, _ := all["messaging.client.sent.messages"].(metricdata.Sum[int64])
	if len(size.DataPoints) != 1 || size.DataPoints[0].Count != 1 || size.DataPoints[0].Sum != records ||
		len(duration.DataPoints) != 1 || duration.DataPoints[0].Count != 1 || len(sent.DataPoints) != 1 || sent.DataPoints[0].Value != records {
		t.Errorf("%+v\n%+v\n%+v", size, duration, sent)
	}
	if got := gauge(t, reader, "weir.gateway.commit.waiting"); got != nil {
		t.Errorf("a writer that has ended is observed: %v", got)
	}
	ended := recorder.Ended()
	if len(ended) != 1 || ended[0].Name() != "send default/orders" {
		t.Fatalf("%d spans", len(ended))
	}
	span := ended[0]
	set := attribute.NewSet(span.Attributes()...)
	omitted, _ := set.Value(telemetry.AttrLinksOmitted)
	n, _ := set.Value("messaging.batch.message_count")
	if span.Parent().TraceID().String() != fmt.Sprintf("%032x", records-sampled+1) || len(span.Links()) != telemetry.MaxLinks || span.DroppedLinks() != 0 ||
		span.Links()[0].SpanContext.SpanID().String() != fmt.Sprintf("%016x", records-sampled+2) || omitted.AsInt64() != sampled-1-telemetry.MaxLinks || n.AsInt64() != records {
		t.Errorf("%+v", tracetest.SpanStubFromReadOnlySpan(span))
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestGroupWithoutASampledRecord has no span.
func TestGroupWithoutASampledRecord(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	c := testkit.ConnWith(t, testkit.NATS(t), telemetry.Providers{Traces: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))})
	q := orders()
	ensure(t, c, q)
	w := writer(t, c, q.Key)
	for _, tp := range []string{"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"} {
		r := newRecord(t, "x")
		r.TraceParent = tp
		if err := w.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(recorder.Ended()); n != 0 {
		t.Errorf("%d spans", n)
	}
}

// TestRefusedRecordsAreCounted by why.
func TestRefusedRecordsAreCounted(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	c := testkit.ConnWith(t, testkit.NATS(t), telemetry.Providers{Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	q := orders()
	q.MaxBytes = 1 << 20
	ensure(t, c, q)
	w := writer(t, c, q.Key)
	huge := newRecord(t, string(make([]byte, record.MaxRecordBytes+1)))
	if err := w.Append(t.Context(), huge); err == nil {
		t.Error("it is stored")
	}
	random := testRandom(800 << 10)
	stored := 0
	for w.Append(t.Context(), newRecord(t, random)) == nil {
		stored++
	}
	lost := writer(t, c, catalog.Key{Namespace: "default", Name: "lost"})
	if err := lost.Append(t.Context(), newRecord(t, "x")); err == nil {
		t.Error("it is stored")
	}
	sent, _ := collect(t, reader)["messaging.client.sent.messages"].(metricdata.Sum[int64])
	got := map[string]int64{}
	for _, p := range sent.DataPoints {
		v, _ := p.Attributes.Value("error.type")
		got[v.AsString()] += p.Value
	}
	want := map[string]int64{"": int64(stored), "full": 1, "too_large": 1, "no_queue": 1}
	for k, n := range want {
		if got[k] != n {
			t.Errorf("%q: %d, want %d", k, got[k], n)
		}
	}
}

// TestConnectedIsOneSeries of a process, whatever number of connections it has.
func TestConnectedIsOneSeries(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	tel := telemetry.Providers{Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}
	s := testkit.NATS(t)
	first := testkit.ConnWith(t, s, tel)
	second, err := stream.Connect(stream.Config{URL: s.URL(), Name: "second", Telemetry: tel, Beside: first, Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	const name = "weir.nats.connected"
	testkit.Eventually(t, "both are connected", func() bool { return second.Ready() == nil })
	if got := gauge(t, reader, name); len(got) != 1 || got[0] != 1 {
		t.Errorf("connected: %v", got)
	}
	first.Close()
	if got := gauge(t, reader, name); len(got) != 1 || got[0] != 1 {
		t.Errorf("one is closed, which is no outage: %v", got)
	}
	s.Stop()
	testkit.Eventually(t, "it is noticed", func() bool { return second.Ready() != nil })
	if got := gauge(t, reader, name); len(got) != 1 || got[0] != 0 {
		t.Errorf("NATS is away: %v", got)
	}
	second.Close()
	if got := gauge(t, reader, name); got != nil {
		t.Errorf("all are closed: %v", got)
	}
}

func testRandom(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return string(b)
}
