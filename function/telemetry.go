package function

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"

	"github.com/weir-dev/weir/internal/telemetry"
)

// Of the page of metrics: OpenTelemetry's defaults, and a bound for a scraper that takes nothing.
const (
	defaultPageHost = "localhost" // not in a Knative Service: pageAddress
	defaultPagePort = "9464"
	pageTimeout     = 30 * time.Second
)

// TraceLogs returns h so that a line that is logged with a call's context has its trace_id and span_id:
//
//	slog.SetDefault(slog.New(function.TraceLogs(slog.NewJSONHandler(os.Stderr, nil))))
func TraceLogs(h slog.Handler) slog.Handler { return telemetry.WithTrace(h) }

// setup sets OpenTelemetry up as its environment says. Its globals are set, which is how libraries and a function's author
// find it: what was made of otel.Meter and otel.Tracer before works from now on.
func setup(ctx context.Context, getenv func(string) string) (*telemetry.Telemetry, error) {
	instance, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("the host's name: %w", err)
	}
	t, err := telemetry.Setup(ctx, telemetry.Config{
		Service: serviceName(getenv), Instance: instance, Getenv: getenv, Log: slog.Default(),
	})
	if err != nil {
		return nil, err
	}
	if t.Meters == nil { // disabled: perhaps the author has set globals of their own
		return t, nil
	}
	if t.Traces != nil {
		otel.SetTracerProvider(t.Traces)
	}
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return t, nil
}

// serviceName is the Knative Service's, or the program's.
func serviceName(getenv func(string) string) string {
	if name := getenv("K_SERVICE"); name != "" {
		return name
	}
	return filepath.Base(os.Args[0])
}

// servePage serves the metrics for Prometheus if the environment asks for it. It has a port of its own: the function's is
// behind Knative's queue-proxy, which would count a scrape as a call, and start an instance for it.
func servePage(ctx context.Context, getenv func(string) string, page http.Handler) (stop func() error, err error) {
	if getenv("OTEL_METRICS_EXPORTER") != "prometheus" {
		return func() error { return nil }, nil
	}
	address := pageAddress(getenv)
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on OTEL_EXPORTER_PROMETHEUS_HOST and _PORT %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", page)
	srv := &http.Server{
		Handler: mux, ReadTimeout: readHeaderTimeout, WriteTimeout: pageTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	return func() error {
		err := srv.Close() // a scrape in flight comes again
		return errors.Join(err, notClosed(<-served))
	}, nil
}

// pageAddress is where the page listens. In a Knative Service that is all interfaces: who reads it is never in the pod, and a
// machine of one's own is the only place where localhost is enough.
func pageAddress(getenv func(string) string) string {
	host := defaultPageHost
	if getenv("K_SERVICE") != "" {
		host = ""
	}
	return net.JoinHostPort(
		cmp.Or(getenv("OTEL_EXPORTER_PROMETHEUS_HOST"), host),
		cmp.Or(getenv("OTEL_EXPORTER_PROMETHEUS_PORT"), defaultPagePort))
}
