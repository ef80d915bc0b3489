// Package telemetry sets up OpenTelemetry and structured logs for a process: metrics, aggregated here, on a Prometheus page
// and pushed in batches; traces, off without an endpoint; logs as lines and, if asked for, by OTLP. It carries the W3C trace
// context from a request through the stream to the function call.
//
// Where OpenTelemetry has an environment variable (OTEL_…), that counts, and there is none of Weir's own. Stages get
// Providers and make their own instruments; docs/metrics.md has the table of all of them.
//
// Invariants: nothing here waits for a back-end on the path of a request; memory is bounded whether the back-end is there
// or not; what is lost is counted (otel.sdk.*).
//
// May import: the standard library only, of Weir's own. It is the only importer of OpenTelemetry's SDK besides packages emf and
// tracelog.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

const (
	// maxSeries bounds the series of one instrument; what is past it is summed up in one with the attribute
	// otel.metric.overflow. Attributes have no values that clients choose, so it is reached with some ten thousand routes.
	maxSeries = 100_000
	// maxScrapes bounds the scrapes of the Prometheus page at a time; more get 503.
	maxScrapes = 2
	// shutdownTimeout bounds the last export.
	shutdownTimeout = 5 * time.Second
)

// Providers make the instruments of a stage. The zero value makes instruments that do nothing.
type Providers struct {
	Meters metric.MeterProvider
	Traces trace.TracerProvider // nil if disabled

	lot *lot // nil if it is not drawn
}

// Meter returns the meter of a package, whose name is the instrumentation scope.
func (p Providers) Meter(scope string) metric.Meter {
	if p.Meters == nil {
		return metricnoop.Meter{}
	}
	return p.Meters.Meter(scope)
}

// Tracer returns the tracer of a package; nil if traces are disabled.
func (p Providers) Tracer(scope string) trace.Tracer {
	if p.Traces == nil {
		return nil
	}
	return p.Traces.Tracer(scope)
}

// TracerOrNone is Tracer, but one that does nothing instead of nil.
func (p Providers) TracerOrNone(scope string) trace.Tracer {
	if p.Traces == nil {
		return tracenoop.Tracer{}
	}
	return p.Traces.Tracer(scope)
}

// Config says whose telemetry it is.
type Config struct {
	Service  string // service.name; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override it
	Instance string // service.instance.id
	// Spans gets all sampled spans besides the exporter of the environment, and turns traces on; nil if disabled.
	Spans sdktrace.SpanExporter
	// Getenv tells what is switched on. What OpenTelemetry itself reads comes from the process's environment.
	Getenv func(string) string
	Log    *slog.Logger // of trouble with exporting
}

// Telemetry is a process's. It is used until Close. The zero value does nothing.
type Telemetry struct {
	Providers
	// Logs gets log records to be exported by OTLP; nil if disabled.
	Logs slog.Handler

	registry *prometheus.Registry // nil if disabled
	log      *slog.Logger

	meters *sdkmetric.MeterProvider
	traces *sdktrace.TracerProvider
	logs   *sdklog.LoggerProvider
	closed sync.Once
}

// Setup starts telemetry. OpenTelemetry's own globals (its error handler, and where its SDK counts what it has lost) become
// this process's: so it is called once in a process, but for tests.
func Setup(ctx context.Context, cfg Config) (*Telemetry, error) {
	Report(cfg.Log)
	if disabled(cfg.Getenv("OTEL_SDK_DISABLED")) {
		return &Telemetry{log: cfg.Log}, nil
	}
	res, err := cfg.Resource(ctx)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{registry: prometheus.NewRegistry(), log: cfg.Log}
	if err := t.setupMetrics(ctx, cfg, res); err != nil {
		return nil, err
	}
	// The SDK counts into the global provider.
	otel.SetMeterProvider(t.meters)
	if err := counted(func() error { return errors.Join(t.setupTraces(ctx, cfg, res), t.setupLogs(ctx, cfg, res)) }); err != nil {
		t.Close() //nolint:contextcheck // the end has a time of its own
		return nil, err
	}
	return t, nil
}

// Report has OpenTelemetry report what it could not export to log. The exporters tell it nowhere else.
func Report(log *slog.Logger) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("telemetry could not be exported", "error", err)
	}))
}

// Resource is whose telemetry it is: what cfg says, unless the environment says something else.
func (cfg Config) Resource(ctx context.Context) (*resource.Resource, error) {
	res, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName(cfg.Service), semconv.ServiceInstanceID(cfg.Instance), semconv.ServiceVersion(version())),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME: %w", err)
	}
	return res, nil
}

// version is that of this build's main module; "devel" if it was not built from a release.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func disabled(v string) bool { return strings.EqualFold(strings.TrimSpace(v), "true") }

// counted calls f with OpenTelemetry's metrics of its own processors and exporters switched on: what a full buffer or a
// failed export has lost. That switch is an environment variable, read when they are made. Tracers read it too, later: theirs
// would cost each request more than its span.
func counted(f func() error) error {
	const name = "OTEL_GO_X_OBSERVABILITY"
	if _, set := os.LookupEnv(name); set {
		return f()
	}
	if err := os.Setenv(name, "true"); err != nil {
		return err
	}
	return errors.Join(f(), os.Unsetenv(name))
}

// exports reports whether a signal (TRACES, METRICS, LOGS) has somewhere to go.
func exports(getenv func(string) string, signal string) bool {
	switch getenv("OTEL_" + signal + "_EXPORTER") {
	case "none":
		return false
	case "":
		return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
	}
	return true
}

func (t *Telemetry) setupMetrics(ctx context.Context, cfg Config, res *resource.Resource) error {
	page, err := otelprometheus.New(otelprometheus.WithRegisterer(t.registry), otelprometheus.WithoutScopeInfo(),
		otelprometheus.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes))
	if err != nil {
		return fmt.Errorf("the Prometheus page: %w", err)
	}
	opts := []sdkmetric.Option{
		sdkmetric.WithResource(res), sdkmetric.WithReader(page), sdkmetric.WithCardinalityLimit(maxSeries),
	}
	if cfg.Getenv("OTEL_METRICS_EXEMPLAR_FILTER") == "" { // each series would hold as many as it has buckets
		opts = append(opts, sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter))
	}
	if exports(cfg.Getenv, "METRICS") && cfg.Getenv("OTEL_METRICS_EXPORTER") != "prometheus" {
		var reader sdkmetric.Reader
		err := counted(func() (err error) {
			reader, err = autoexport.NewMetricReader(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("OTEL_METRICS_EXPORTER, OTEL_EXPORTER_OTLP_PROTOCOL: %w", err)
		}
		opts = append(opts, sdkmetric.WithReader(reader))
	}
	t.meters = sdkmetric.NewMeterProvider(opts...)
	t.Meters = t.meters
	if err := runtime.Start(runtime.WithMeterProvider(t.meters)); err != nil {
		return fmt.Errorf("metrics of the Go runtime: %w", err)
	}
	return nil
}

// Page is the Prometheus page of the process, with what more gathers.
func (t *Telemetry) Page(more ...prometheus.Gatherer) http.Handler {
	if t.registry != nil {
		more = append(more, t.registry)
	}
	return PageOf(t.log, more...)
}

// PageOf is a Prometheus page of all that is gathered. A nil log discards what can't be shown.
func PageOf(log *slog.Logger, from ...prometheus.Gatherer) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return promhttp.HandlerFor(prometheus.Gatherers(from), promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError, // a clash of two names must not take the whole page away
		MaxRequestsInFlight: maxScrapes,
		ErrorLog:            pageLog{log},
	})
}

// pageLog is a log for promhttp.
type pageLog struct{ log *slog.Logger }

func (l pageLog) Println(v ...any) {
	l.log.Error("some metrics can't be shown to Prometheus", "error", fmt.Sprint(v...))
}

func (t *Telemetry) setupTraces(ctx context.Context, cfg Config, res *resource.Resource) error {
	opts := []sdktrace.TracerProviderOption{sdktrace.WithResource(res), sdktrace.WithIDGenerator(ids{})} // the sampler is OTEL_TRACES_SAMPLER's
	if exports(cfg.Getenv, "TRACES") {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return fmt.Errorf("OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_PROTOCOL: %w", err)
		}
		opts = append(opts, sdktrace.WithBatcher(exporter))
	} else if cfg.Spans == nil {
		return nil
	}
	if cfg.Spans != nil {
		opts = append(opts, sdktrace.WithBatcher(cfg.Spans, sdktrace.WithBatchTimeout(200*time.Millisecond)))
	}
	t.traces = sdktrace.NewTracerProvider(opts...)
	t.Traces, t.lot = t.traces, newLot(cfg.Getenv)
	return nil
}

// setupLogs exports logs only if OTEL_LOGS_EXPORTER asks for it: an endpoint alone doesn't double them.
func (t *Telemetry) setupLogs(ctx context.Context, cfg Config, res *resource.Resource) error {
	if v := cfg.Getenv("OTEL_LOGS_EXPORTER"); v == "" || v == "none" {
		return nil
	}
	exporter, err := autoexport.NewLogExporter(ctx)
	if err != nil {
		return fmt.Errorf("OTEL_LOGS_EXPORTER, OTEL_EXPORTER_OTLP_PROTOCOL: %w", err)
	}
	t.logs = sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)))
	t.Logs = otelslog.NewHandler("github.com/weir-dev/weir", otelslog.WithLoggerProvider(t.logs))
	return nil
}

// Flush exports what has been recorded so far.
func (t *Telemetry) Flush(ctx context.Context) error {
	var errs []error
	if t.meters != nil {
		errs = append(errs, t.meters.ForceFlush(ctx))
	}
	if t.traces != nil {
		errs = append(errs, t.traces.ForceFlush(ctx))
	}
	if t.logs != nil {
		errs = append(errs, t.logs.ForceFlush(ctx))
	}
	return errors.Join(errs...)
}

// Close exports what is left, within shutdownTimeout, and ends. It is idempotent.
func (t *Telemetry) Close() {
	t.closed.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		// Errors have been reported to the error handler, or come of a back-end that is away.
		if t.traces != nil {
			_ = t.traces.Shutdown(ctx)
		}
		if t.logs != nil {
			_ = t.logs.Shutdown(ctx)
		}
		if t.meters != nil {
			_ = t.meters.Shutdown(ctx)
		}
	})
}
