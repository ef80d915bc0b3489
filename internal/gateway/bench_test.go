package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/weir-dev/weir/internal/gateway"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// BenchmarkBuffered is the handler alone, without net/http's server, as 256 connections use it: without telemetry, with
// metrics, and with so large a share of traces besides. On a machine that others use too, cpu-ns/op says more than ns/op: the
// processor time of this process, NATS' included.
func BenchmarkBuffered(b *testing.B) {
	b.Run("off", func(b *testing.B) { benchmarkBuffered(b, telemetry.Providers{}) })
	b.Run("metrics", func(b *testing.B) { benchmarkBuffered(b, providers(b, -1)) })
	for _, share := range []float64{0, 0.01, 1} {
		b.Run(fmt.Sprintf("traces=%g", share), func(b *testing.B) { benchmarkBuffered(b, providers(b, share)) })
	}
}

// providers are a gateway's, but that the spans are dropped when they are exported. A negative share means no traces.
func providers(b testing.TB, share float64) telemetry.Providers {
	b.Helper()
	cfg := telemetry.Config{Service: "bench", Instance: "0", Getenv: os.Getenv, Log: testkit.Log(b)}
	if share >= 0 {
		cfg.Spans = dropped{}
		b.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
		b.Setenv("OTEL_TRACES_SAMPLER_ARG", fmt.Sprint(share))
	}
	tel, err := telemetry.Setup(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(tel.Close)
	return tel.Providers
}

// dropped is an exporter that drops all.
type dropped struct{}

func (dropped) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (dropped) Shutdown(context.Context) error                             { return nil }

// deadlined is a recorder that takes deadlines, as net/http's writer does.
type deadlined struct{ *httptest.ResponseRecorder }

func (deadlined) SetReadDeadline(time.Time) error { return nil }

func benchmarkBuffered(b *testing.B, tel telemetry.Providers) {
	f := startWith(b, tel, nil, nil, func(c *gateway.Config) { c.Codec = record.DefaultCodec })
	lines := make([]string, 8)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"sku":"A-%d","name":"enamelled kettle","quantity":%d,"priceCents":%d,"tags":["x","y"]}`, i, i+1, 100*i)
	}
	body := []byte(`{"sku":"SKU-1","quantity":3,"customer":"c-4711","currency":"EUR","lines":[` + strings.Join(lines, ",") + `],"address":{"city":"Springfield","zip":"12345"}}`)
	b.ReportAllocs()
	b.SetParallelism(128)
	b.ResetTimer()
	before := testkit.ProcessorTime(b)
	defer func() { b.ReportMetric(float64(testkit.ProcessorTime(b)-before)/float64(b.N), "cpu-ns/op") }()
	b.RunParallel(func(pb *testing.PB) {
		reader := bytes.NewReader(body)
		req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/orders", reader)
		req.Header.Set("Content-Type", "application/json")
		req.ContentLength = int64(len(body))
		for pb.Next() {
			reader.Reset(body)
			rec := deadlined{httptest.NewRecorder()}
			f.g.ServeHTTP(rec, req)
			if rec.Code != http.StatusAccepted {
				b.Errorf("%d %s", rec.Code, rec.Body)
				return
			}
		}
	})
}
