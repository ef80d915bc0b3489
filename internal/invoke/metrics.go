package invoke

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/weir-dev/weir/internal/catalog"
)

// The ways in which a call has no answer, as error.type. A status of 400 or more is its own error.type.
const (
	troubleTimeout      = "timeout"
	troubleNoConnection = "no_connection"
	troubleBroken       = "broken"
	troubleCancelled    = "cancelled" // Weir or the client has cut it, or has no more of the request
	troubleOther        = "_OTHER"
)

// maxKinds bounds the kinds of calls whose attributes are kept. Past it they are kept anew.
const maxKinds = 4096

// kind is what http.client.request.duration tells apart.
type kind struct {
	function, method string
	status           int
	trouble          string
	outcome          string // weir.outcome; empty if there is none
}

// durations is http.client.request.duration.
type durations struct {
	histogram metric.Float64Histogram
	kept      sync.Map // kind → []metric.RecordOption: they cost more to make than the rest
	n         atomic.Int64
}

func newDurations(m metric.Meter) *durations {
	h, err := m.Float64Histogram("http.client.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Calls of functions."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10))
	if err != nil {
		otel.Handle(err) // of a name or bounds that are wrong, which are constants
	}
	return &durations{histogram: h}
}

func (d *durations) record(ctx context.Context, took time.Duration, k kind) {
	if !d.histogram.Enabled(ctx) {
		return
	}
	opts, ok := d.kept.Load(k)
	if !ok {
		opts = k.options()
		if d.n.Add(1) > maxKinds {
			d.kept.Clear()
			d.n.Store(1)
		}
		d.kept.Store(k, opts)
	}
	d.histogram.Record(ctx, took.Seconds(), opts.([]metric.RecordOption)...)
}

func (k kind) options() []metric.RecordOption {
	as := []attribute.KeyValue{semconv.FaaSInvokedName(k.function), semconv.HTTPRequestMethodKey.String(k.method)}
	if k.status != 0 {
		as = append(as, semconv.HTTPResponseStatusCode(k.status))
	}
	if e := errorType(k.trouble, k.status); e != "" {
		as = append(as, semconv.ErrorTypeKey.String(e))
	}
	if k.outcome != "" {
		as = append(as, attribute.String("weir.outcome", k.outcome))
	}
	return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(as...))}
}

// errorType is error.type; empty if there is none.
func errorType(trouble string, status int) string {
	if trouble == "" && status >= http.StatusBadRequest {
		return strconv.Itoa(status)
	}
	return trouble
}

func newColdStarts(m metric.Meter) metric.Int64Counter {
	c, err := m.Int64Counter("faas.coldstarts", metric.WithUnit("{coldstart}"), metric.WithDescription("First answers after the function had no instance."))
	if err != nil {
		otel.Handle(err) // of a name that is wrong, which is constant
	}
	return c
}

// Measure counts a call as http.client.request.duration, by the outcome as it is treated, and a cold start: so it is for the
// caller of Call and Ask to do. cut means that it was cut by the caller, and has none.
func (c *Caller) Measure(ctx context.Context, o Outcome, cut bool) {
	k := kind{function: o.function, method: http.MethodPost, status: o.Status, trouble: o.trouble}
	if !cut {
		k.outcome = o.row()
	}
	c.durations.record(ctx, o.took, k)
	if o.ColdStart {
		c.coldStarts.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(semconv.FaaSInvokedName(o.function))))
	}
}

// row is weir.outcome.
func (o *Outcome) row() string {
	switch {
	case o.Class == Done && len(o.FailedIDs) > 0:
		return "partial"
	case o.Class == NotNow:
		return "not_now"
	}
	return o.Class.String()
}

// FunctionName is faas.invoked_name: namespace/name of its Service, or the host of a bare URL.
func FunctionName(namespace string, f catalog.Function) string {
	_, authority, _ := strings.Cut(f.URL, "://")
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		authority = authority[:i]
	}
	if authority[strings.LastIndexByte(authority, '@')+1:] == f.Name {
		return f.Name
	}
	return namespace + "/" + f.Name
}

// methodOf is http.request.method: clients may send any.
func methodOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	case "":
		return http.MethodGet
	}
	return "_OTHER"
}
