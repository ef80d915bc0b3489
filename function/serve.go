package function

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"
)

const (
	defaultPort       = "8080"
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute // longer than the dispatcher's, so that the caller closes first
	maxHeaderBytes    = 64 << 10
	// drainTimeout bounds what is in flight after SIGTERM: the default timeout of a mapping's call.
	drainTimeout = 60 * time.Second
)

// Serve runs h as Knative's container runtime contract wants it: on the port in the environment
// variable PORT (8080 without it), with GET /healthz answering 200. It returns when ctx has ended
// or SIGTERM or SIGINT has come, and what was in flight by then is finished, or cut after 60 s.
//
// It sets OpenTelemetry up by its standard environment (OTEL_…) for the service K_SERVICE, which Knative sets, unless
// OTEL_SERVICE_NAME says another, and has each call of h observed ([Observe]). Metrics of the function's own are made of
// OpenTelemetry's global provider, at any time, and are exported in batches beside the calls:
//
//	written, err := otel.Meter("example.com/orders").Int64Counter("orders.written")
//	written.Add(ctx, 1)
//
// Before Serve returns it exports what is left, so that an instance that is scaled to zero loses nothing. Without an endpoint
// (OTEL_EXPORTER_OTLP_ENDPOINT) nothing is exported and there are no spans. With OTEL_METRICS_EXPORTER=prometheus the
// metrics are not exported but at /metrics of OTEL_EXPORTER_PROMETHEUS_HOST (localhost; in a Knative Service, where K_SERVICE
// is set, all interfaces) and _PORT (9464): what was counted after the last scrape ends with the instance.
// OTEL_SDK_DISABLED=true turns all of it off, for a function that sets OpenTelemetry up itself.
func Serve(ctx context.Context, getenv func(string) string, h http.Handler) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	tel, err := setup(ctx, getenv)
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	defer tel.Close() //nolint:contextcheck // the last export has a time of its own
	stopPage, err := servePage(ctx, getenv, tel.Page())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopPage()) }()
	port := getenv("PORT")
	if port == "" {
		port = defaultPort
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("", port))
	if err != nil {
		return fmt.Errorf("listening on PORT %s: %w", port, err)
	}
	return serve(ctx, ln, Observe(h, serviceName(getenv), Telemetry{}))
}

func serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.Handle("/", h)
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()

	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	// Calls in flight keep their own context: the end of intake is not the end of work.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := srv.Shutdown(drain)
	if err != nil {
		err = errors.Join(fmt.Errorf("draining for %v: %w", drainTimeout, err), srv.Close())
	}
	return errors.Join(err, notClosed(<-served))
}

// notClosed drops the error that says that Shutdown or Close was called.
func notClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
