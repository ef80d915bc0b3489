package orderdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/telemetry"
)

// TestSpansAndMetrics: whatever the pool is capable of, a statement is one span below its caller's, with its text and
// none of its values; without a caller's span there is none.
func TestSpansAndMetrics(t *testing.T) {
	for _, mode := range modes {
		t.Run("mode "+mode, func(t *testing.T) {
			spans, reader := tracetest.NewSpanRecorder(), sdkmetric.NewManualReader()
			traces := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
			db := open(t, modeURL(t, mode), func(c *Config) {
				c.Name = "mine"
				c.Telemetry = telemetry.Providers{Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), Traces: traces}
			})
			if err := ping(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			if n := len(spans.Ended()); n != 0 {
				t.Errorf("%d spans without a parent", n)
			}
			ctx, call := traces.Tracer("").Start(t.Context(), "call")
			const secret = "a value"
			if _, err := db.Exec(ctx, "\nSELECT $1::text", Param{OID: pgtype.TextOID, Value: secret}); err != nil {
				t.Fatal(err)
			}
			if err := db.Query(ctx, func(pgx.Rows) error { return nil }, `SELECT $1::text`, secret); err != nil {
				t.Fatal(err)
			}
			if err := db.Query(ctx, func(pgx.Rows) error { return nil }, `SELECT 1/0`); err == nil {
				t.Fatal("divided")
			}
			call.End()

			var names []string
			for _, s := range spans.Ended() {
				if s.Name() == "call" {
					continue
				}
				text, state := "", ""
				for _, kv := range s.Attributes() {
					if strings.Contains(kv.Value.String(), secret) {
						t.Errorf("%s has the value: %v", s.Name(), kv)
					}
					switch kv.Key {
					case "db.query.text":
						text = kv.Value.AsString()
					case "pgx.sql_state":
						state = kv.Value.AsString()
					}
				}
				if s.Parent().SpanID() != call.SpanContext().SpanID() || s.SpanKind() != trace.SpanKindClient {
					t.Errorf("%s is not below the call", s.Name())
				}
				names = append(names, strings.TrimSpace(fmt.Sprintf("%s %q %s", s.Name(), text, state)))
			}
			slices.Sort(names)
			want := []string{`SELECT "SELECT $1::text"`, `SELECT "SELECT 1/0" 22012`, `SELECT "\nSELECT $1::text"`, `pool.acquire ""`, `pool.acquire ""`, `pool.acquire ""`}
			if !slices.Equal(names, want) {
				t.Errorf("spans\n%s\nwant\n%s", strings.Join(names, "\n"), strings.Join(want, "\n"))
			}
			if got := metricNames(t, reader); !slices.Contains(got, "db.client.operation.duration") || !slices.Contains(got, "pgxpool.acquires mine") {
				t.Errorf("metrics %v", got)
			}
			db.Close()
			if got := metricNames(t, reader); slices.Contains(got, "pgxpool.acquires mine") {
				t.Error("a pool that is closed is observed still")
			}
		})
	}
}

// metricNames are the names of the metrics, with the pool's.
func metricNames(t *testing.T, reader *sdkmetric.ManualReader) []string {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(context.WithoutCancel(t.Context()), &rm); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			name := m.Name
			if d, ok := m.Data.(metricdata.Sum[int64]); ok && len(d.DataPoints) > 0 {
				pool, _ := d.DataPoints[0].Attributes.Value("db.client.connection.pool.name")
				name = strings.TrimSpace(name + " " + pool.AsString())
			}
			out = append(out, name)
		}
	}
	return out
}
