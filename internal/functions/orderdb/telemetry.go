package orderdb

import (
	"errors"
	"sync"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/weir-dev/weir/internal/telemetry"
)

func newTracer(p telemetry.Providers) *otelpgx.Tracer {
	meters, traces := providers(p)
	return otelpgx.NewTracer(otelpgx.WithMeterProvider(meters), otelpgx.WithTracerProvider(traces))
}

func providers(p telemetry.Providers) (metric.MeterProvider, trace.TracerProvider) {
	switch {
	case p.Meters == nil:
		return otel.GetMeterProvider(), otel.GetTracerProvider()
	case p.Traces == nil:
		return p.Meters, tracenoop.NewTracerProvider()
	}
	return p.Meters, p.Traces
}

// traced is what pgx and its pool call by themselves. Statements are not among it: each is a batch with a setTimeout in front,
// which a tracer of batches would show as three spans. Exec and Query tell the tracer of one.
func traced(t *otelpgx.Tracer) pgx.QueryTracer {
	return struct {
		pgx.QueryTracer
		pgx.ConnectTracer
		pgxpool.AcquireTracer
	}{t, t, t}
}

// watchPool has the pool's figures among the metrics until unwatch is called.
func watchPool(pool *pgxpool.Pool, name string, p telemetry.Providers) (unwatch func(), err error) {
	meters, _ := providers(p)
	kept := &registrations{MeterProvider: meters}
	opts := []otelpgx.StatsOption{otelpgx.WithStatsMeterProvider(kept)}
	if name != "" {
		opts = append(opts, otelpgx.WithStatsAttributes(semconv.DBClientConnectionPoolName(name)))
	}
	err = otelpgx.RecordStats(pool, opts...)
	return sync.OnceFunc(kept.unregister), err
}

// registrations keeps what otelpgx registers, which has no way to end it.
type registrations struct {
	metric.MeterProvider
	list []metric.Registration
}

// Meter implements metric.MeterProvider.
func (r *registrations) Meter(name string, opts ...metric.MeterOption) metric.Meter {
	return registering{r.MeterProvider.Meter(name, opts...), r}
}

func (r *registrations) unregister() {
	var errs []error
	for _, reg := range r.list {
		errs = append(errs, reg.Unregister())
	}
	if err := errors.Join(errs...); err != nil {
		otel.Handle(err)
	}
}

type registering struct {
	metric.Meter
	kept *registrations
}

// RegisterCallback implements metric.Meter.
func (m registering) RegisterCallback(f metric.Callback, observables ...metric.Observable) (metric.Registration, error) {
	reg, err := m.Meter.RegisterCallback(f, observables...)
	if err == nil {
		m.kept.list = append(m.kept.list, reg)
	}
	return reg, err
}
