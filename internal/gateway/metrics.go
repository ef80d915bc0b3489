package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	attr "go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/telemetry"
)

const scope = "github.com/weir-dev/weir/internal/gateway"

// maxKinds bounds the kinds of answers of one route whose attributes are kept: what a function answers is its own choice.
// Those past it are made for each answer.
const maxKinds = 64

// errorAborted is the error.type of an answer that broke off.
const errorAborted = "aborted"

// metrics are the gateway's instruments. They are there, and do nothing, if nobody reads them.
type metrics struct {
	off       bool
	durations durations
	throttled metric.Int64Counter
	refused   metric.Int64Counter
	submitted metric.Int64Counter
	watch     metric.Registration // of what is observed; nil if off

	active    [2][methods]inFlight // by scheme (https second) and method
	unmatched answers
	problems  sync.Map // of []metric.AddOption, by name: those of package problem
}

type inFlight struct {
	seen atomic.Bool
	n    atomic.Int64
}

func newMetrics(g *Gateway, p telemetry.Providers) (*metrics, error) {
	m := &metrics{off: p.Meters == nil}
	meter := p.Meter(scope)
	var errs []error
	check := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	m.durations.histogram, err = meter.Float64Histogram("http.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Requests and how long each took until it was answered"),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10))
	check(err)
	m.throttled, err = meter.Int64Counter("weir.gateway.throttled", metric.WithUnit("{request}"), metric.WithDescription("Requests with a 429"))
	check(err)
	m.refused, err = meter.Int64Counter("weir.gateway.refused", metric.WithUnit("{request}"), metric.WithDescription("Answers that are problems"))
	check(err)
	m.submitted, err = meter.Int64Counter("weir.jobs.submitted", metric.WithUnit("{job}"), metric.WithDescription("Jobs that were accepted"))
	check(err)
	active, err := meter.Int64ObservableUpDownCounter("http.server.active_requests", metric.WithUnit("{request}"), metric.WithDescription("Requests being served"))
	check(err)
	bodies, err := meter.Int64ObservableGauge("weir.gateway.bodies.memory", metric.WithUnit("By"), metric.WithDescription("Memory of bodies being read"))
	check(err)
	lazy, err := meter.Int64ObservableGauge("weir.nats.lazy", metric.WithUnit("1"),
		metric.WithDescription("1 if NATS syncs lazily: a power cut loses writes that were answered with 202"))
	check(err)
	if m.off {
		return m, errors.Join(errs...)
	}
	var isLazy int64
	if g.cfg.Sync != SyncAlways {
		isLazy = 1
	}
	m.watch, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		m.durations.flush() //nolint:contextcheck // a duration belongs to no context
		o.ObserveInt64(bodies, g.bodies.Load())
		o.ObserveInt64(lazy, isLazy)
		for https := range m.active {
			for i := range m.active[https] {
				if a := &m.active[https][i]; a.seen.Load() {
					o.ObserveInt64(active, a.n.Load(), metric.WithAttributeSet(attr.NewSet(method(i).attribute(), schemeAttribute(https == 1))))
				}
			}
		}
		return nil
	}, active, bodies, lazy)
	check(err)
	return m, errors.Join(errs...)
}

// close ends what is observed, and records what is held; later durations are recorded at once.
func (m *metrics) close() {
	if m.watch != nil {
		_ = m.watch.Unregister()
	}
	m.durations.close()
}

func (m *metrics) of(o *observation) *inFlight {
	if o.https {
		return &m.active[1][o.method]
	}
	return &m.active[0][o.method]
}

func (m *metrics) begin(o *observation) {
	if m.off {
		return
	}
	a := m.of(o)
	a.n.Add(1)
	if !a.seen.Load() {
		a.seen.Store(true)
	}
}

func (m *metrics) end(o *observation, took time.Duration) {
	if m.off {
		return
	}
	m.of(o).n.Add(-1)
	m.durations.add(m.kindOf(o), took)
}

// kindOf is the kind of o's answer.
func (m *metrics) kindOf(o *observation) *answerOf {
	if o.route == nil {
		return m.unmatched.of(o)
	}
	return o.route.answers.of(o)
}

// refuse counts an answer that is a problem.
func (m *metrics) refuse(name string) {
	if m.off {
		return
	}
	opts, ok := m.problems.Load(name)
	if !ok {
		opts, _ = m.problems.LoadOrStore(name, []metric.AddOption{metric.WithAttributeSet(attr.NewSet(attr.String("weir.problem", name)))})
	}
	m.refused.Add(context.Background(), 1, opts.([]metric.AddOption)...) //nolint:forcetypeassert // it holds nothing else
}

// throttle counts a request that bucket b had no token for.
func (m *metrics) throttle(b *bucket) {
	if m.off {
		return
	}
	m.throttled.Add(context.Background(), 1, b.counted.of(func() []attr.KeyValue {
		attrs := []attr.KeyValue{attr.String("weir.bucket", b.kind), attr.String("weir.throttle", b.name)}
		if b.api != "" {
			attrs = append(attrs, attr.String("weir.api", b.api))
		}
		return attrs
	})...)
}

// submit counts a job that w's queue k has got.
func (m *metrics) submit(w *writer, k catalog.Key) {
	if m.off {
		return
	}
	m.submitted.Add(context.Background(), 1, w.submitted.of(func() []attr.KeyValue {
		return []attr.KeyValue{attr.String("weir.queue", k.String())}
	})...)
}

// counted are the attributes of a counter, made at its first count: of ten thousand routes most are idle.
type counted struct {
	kept atomic.Pointer[[]metric.AddOption]
}

func (c *counted) of(attrs func() []attr.KeyValue) []metric.AddOption {
	if opts := c.kept.Load(); opts != nil {
		return *opts
	}
	opts := []metric.AddOption{metric.WithAttributeSet(attr.NewSet(attrs()...))}
	c.kept.Store(&opts)
	return opts
}

// answers are the kinds of a route's answers, each made at the first of them. They go with the route.
type answers struct{ kept atomic.Pointer[[]*answerOf] }

type answerOf struct {
	kind answerKind
	opts []metric.RecordOption
	span []attr.KeyValue
}

type answerKind struct {
	method    method
	https     bool
	status    int
	errorType string
}

// of returns the kind of o's answer.
func (a *answers) of(o *observation) *answerOf {
	kind := answerKind{o.method, o.https, o.status, o.errorType()}
	kept := a.kept.Load()
	if kept != nil {
		for _, k := range *kept {
			if k.kind == kind {
				return k
			}
		}
	}
	attrs := o.attributes()
	made := &answerOf{kind: kind, span: attrs}
	if o.route != nil && o.route.apiName != "" {
		attrs = append(slices.Clip(attrs), attr.String("weir.api", o.route.apiName))
	}
	made.opts = []metric.RecordOption{metric.WithAttributeSet(attr.NewSet(attrs...))}
	var next []*answerOf
	if kept != nil {
		next = append(next, *kept...)
	}
	if len(next) < maxKinds {
		next = append(next, made)
		a.kept.CompareAndSwap(kept, &next) // else it is made once more at the next answer
	}
	return made
}

// attributes are those that the metric and the span have in common; all but the status have values that the catalog knows.
func (o *observation) attributes() []attr.KeyValue {
	attrs := []attr.KeyValue{o.method.attribute(), schemeAttribute(o.https)}
	if o.route != nil {
		attrs = append(attrs, semconv.HTTPRoute(o.route.pattern))
	}
	if o.status != 0 {
		attrs = append(attrs, semconv.HTTPResponseStatusCode(o.status))
	}
	if e := o.errorType(); e != "" {
		attrs = append(attrs, semconv.ErrorTypeKey.String(e))
	}
	return attrs
}

func schemeAttribute(https bool) attr.KeyValue {
	if https {
		return semconv.URLScheme("https")
	}
	return semconv.URLScheme("http")
}

// method is one of HTTP's, or methodOther: clients may make up others.
type method uint8

const (
	methodOther method = iota
	methodGet
	methodHead
	methodPost
	methodPut
	methodPatch
	methodDelete
	methodConnect
	methodOptions
	methodTrace
	methods
)

func methodOf(name string) method {
	switch name {
	case http.MethodGet:
		return methodGet
	case http.MethodHead:
		return methodHead
	case http.MethodPost:
		return methodPost
	case http.MethodPut:
		return methodPut
	case http.MethodPatch:
		return methodPatch
	case http.MethodDelete:
		return methodDelete
	case http.MethodConnect:
		return methodConnect
	case http.MethodOptions:
		return methodOptions
	case http.MethodTrace:
		return methodTrace
	}
	return methodOther
}

func (m method) attribute() attr.KeyValue {
	switch m {
	case methodGet:
		return semconv.HTTPRequestMethodGet
	case methodHead:
		return semconv.HTTPRequestMethodHead
	case methodPost:
		return semconv.HTTPRequestMethodPost
	case methodPut:
		return semconv.HTTPRequestMethodPut
	case methodPatch:
		return semconv.HTTPRequestMethodPatch
	case methodDelete:
		return semconv.HTTPRequestMethodDelete
	case methodConnect:
		return semconv.HTTPRequestMethodConnect
	case methodOptions:
		return semconv.HTTPRequestMethodOptions
	case methodTrace:
		return semconv.HTTPRequestMethodTrace
	case methodOther, methods:
	}
	return semconv.HTTPRequestMethodOther
}
