package emf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Bounds of the page for Prometheus.
const (
	pageTimeout     = 10 * time.Second // of a request, and of those in flight at the end
	pageHeaderBytes = 8 << 10
)

// metrics are the providers: one for what is pushed, one for the page. Each has the histograms that its reader takes.
type metrics struct {
	providers []*sdkmetric.MeterProvider
	page      http.Handler // nil without a page
}

// newMetrics makes the providers. Without a page, or with a variable that says where to, metrics are pushed.
func newMetrics(ctx context.Context, getenv func(string) string, page bool, log *slog.Logger) (*metrics, error) {
	telemetry.Report(log)
	res, err := telemetry.Config{Service: "weir-emf", Instance: uuid.NewString()}.Resource(ctx)
	if err != nil {
		return nil, err
	}
	m := &metrics{}
	pushed := cmp.Or(getenv("OTEL_METRICS_EXPORTER"), getenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"), getenv("OTEL_EXPORTER_OTLP_ENDPOINT")) != ""
	if pushed || !page {
		reader, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, fmt.Errorf("OTEL_METRICS_EXPORTER and OTEL_EXPORTER_OTLP_…: %w", err)
		}
		m.add(reader, res, exponential(getenv))
	}
	if page {
		registry := prometheus.NewRegistry()
		reader, err := promexporter.New(promexporter.WithRegisterer(registry),
			promexporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes))
		if err != nil {
			return nil, errors.Join(err, m.shutdown(ctx))
		}
		m.add(reader, res, buckets())
		m.page = telemetry.PageOf(log, registry)
	}
	return m, nil
}

// exponential are the views for what is pushed: exponential histograms, which fit values of any size, unless somebody
// chose others, or the reader is one for Prometheus, whose text has no buckets for them.
func exponential(getenv func(string) string) []sdkmetric.View {
	if getenv("OTEL_METRICS_EXPORTER") == "prometheus" || getenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION") != "" {
		return nil
	}
	return []sdkmetric.View{sdkmetric.NewView(
		sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}},
	)}
}

// buckets are the views for the page. OpenTelemetry's own boundaries are meant for milliseconds, and would put all values of
// a metric in seconds, or in bytes, into one bucket.
func buckets() []sdkmetric.View {
	return []sdkmetric.View{sdkmetric.NewView(
		sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: []float64{
			0, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500,
			1000, 2500, 5000, 10_000, 100_000, 1e6, 1e7, 1e8, 1e9,
		}}},
	)}
}

func (m *metrics) add(reader sdkmetric.Reader, res *resource.Resource, views []sdkmetric.View) {
	m.providers = append(m.providers, sdkmetric.NewMeterProvider(
		sdkmetric.WithReader(reader), sdkmetric.WithResource(res), sdkmetric.WithView(views...),
		sdkmetric.WithCardinalityLimit(0), // package emf has its own, which counts
		sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter),
	))
}

func (m *metrics) meters() []metric.MeterProvider {
	var out []metric.MeterProvider
	for _, p := range m.providers {
		out = append(out, p)
	}
	return out
}

// shutdown exports what there is, also when ctx is cancelled.
func (m *metrics) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exportTimeout)
	defer cancel()
	var errs []error
	for _, p := range m.providers {
		if err := p.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("the last metrics were not exported: %w", err))
		}
	}
	return errors.Join(errs...)
}

// serve returns the part that serves the page, and /healthz for probes. It is not package app's, which brings NATS along.
func (m *metrics) serve(l net.Listener) lifecycle.Part {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.page)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	return lifecycle.Part{Name: "page", Run: lifecycle.Server{
		Listener: l, Drain: pageTimeout,
		HTTP: &http.Server{
			Handler: mux, MaxHeaderBytes: pageHeaderBytes, ReadTimeout: pageTimeout, WriteTimeout: pageTimeout, IdleTimeout: 2 * time.Minute,
		},
	}.Run}
}

// listen listens, or returns nil without an address.
func listen(ctx context.Context, address string) (net.Listener, error) {
	if address == "" {
		return nil, nil //nolint:nilnil // documented
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--listen %s: write HOST:PORT of an address that is free: %w", address, err)
	}
	return l, nil
}

func closeListener(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}
