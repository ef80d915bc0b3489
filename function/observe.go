package function

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/felixge/httpsnoop"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/telemetry"
)

const scope = "github.com/weir-dev/weir/function"

// Telemetry is where [Observe] reports to; nil means OpenTelemetry's global provider.
type Telemetry struct {
	Meters metric.MeterProvider
	Traces trace.TracerProvider
}

// Observe returns h so that each call has a server span, a child of the caller's, and is counted: faas.invocations,
// faas.invoke_duration, faas.errors and faas.coldstarts. name is the function's. [Serve] does it by itself: Observe is for
// those who have a server or a set-up of OpenTelemetry of their own.
//
// A call of events gets its links and attributes by the handler of [Batch].
func Observe(h http.Handler, name string, t Telemetry) http.Handler {
	if t.Meters == nil {
		t.Meters = otel.GetMeterProvider()
	}
	if t.Traces == nil {
		t.Traces = otel.GetTracerProvider()
	}
	o := &observed{next: h, name: name, tracer: t.Traces.Tracer(scope)}
	meter := t.Meters.Meter(scope)
	var errs [4]error
	o.duration, errs[0] = meter.Float64Histogram("faas.invoke_duration", metric.WithUnit("s"),
		metric.WithDescription("Measures the duration of the function's logic execution."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10))
	o.invocations, errs[1] = meter.Int64Counter("faas.invocations", metric.WithUnit("{invocation}"),
		metric.WithDescription("Number of successful invocations."))
	o.errors, errs[2] = meter.Int64Counter("faas.errors", metric.WithUnit("{error}"),
		metric.WithDescription("Number of invocation errors."))
	o.coldstarts, errs[3] = meter.Int64Counter("faas.coldstarts", metric.WithUnit("{coldstart}"),
		metric.WithDescription("Number of invocation cold starts."))
	if err := errors.Join(errs[:]...); err != nil {
		otel.Handle(err)
	}
	o.http, o.events = newTrigger(name, semconv.FaaSTriggerHTTP), newTrigger(name, semconv.FaaSTriggerPubSub)
	return o
}

type observed struct {
	next   http.Handler
	name   string
	tracer trace.Tracer

	duration                        metric.Float64Histogram
	invocations, errors, coldstarts metric.Int64Counter
	http, events                    trigger

	warm atomic.Bool // it has had a call
}

// trigger is what calls of one kind have in common, made once.
type trigger struct {
	add    []metric.AddOption
	record []metric.RecordOption
	span   []trace.SpanStartOption
}

func newTrigger(name string, kind attribute.KeyValue) trigger {
	attrs := []attribute.KeyValue{kind}
	if name != "" {
		attrs = append(attrs, semconv.FaaSName(name))
	}
	set := metric.WithAttributeSet(attribute.NewSet(attrs...))
	return trigger{
		[]metric.AddOption{set},
		[]metric.RecordOption{set},
		[]trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attrs...)},
	}
}

// ServeHTTP implements http.Handler.
func (o *observed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	by := &o.http
	if isEvents(r.Header) {
		by = &o.events
	}
	cold := !o.warm.Load() && o.warm.CompareAndSwap(false, true)
	ctx := r.Context()
	if parent := telemetry.Remote(r.Header.Get("Traceparent"), r.Header.Get("Tracestate")); parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent) // also without traces: what the function calls is in the caller's
	}
	name := o.name
	if name == "" {
		name = knownMethod(r.Method)
	}
	ctx, span := o.tracer.Start(ctx, name, by.span...)
	if span.IsRecording() {
		describe(span, r, cold)
	}
	status, over := 0, false
	w = httpsnoop.Wrap(w, httpsnoop.Hooks{WriteHeader: func(next httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
		return func(code int) {
			if status == 0 && code >= http.StatusOK {
				status = code
			}
			next(code)
		}
	}})
	defer func() {
		if status == 0 {
			status = http.StatusOK
		}
		counted := status
		if !over {
			counted = http.StatusInternalServerError
		}
		o.count(ctx, by, time.Since(begin), cold, counted)
		end(span, status, over)
	}()
	o.next.ServeHTTP(w, r.WithContext(ctx))
	over = true
}

func (o *observed) count(ctx context.Context, by *trigger, took time.Duration, cold bool, status int) {
	o.duration.Record(ctx, took.Seconds(), by.record...)
	switch {
	case status < http.StatusInternalServerError:
		o.invocations.Add(ctx, 1, by.add...)
	case status != http.StatusServiceUnavailable: // "not now" is neither: the call comes again, later
		o.errors.Add(ctx, 1, by.add...)
	}
	if cold {
		o.coldstarts.Add(ctx, 1, by.add...)
	}
}

func describe(span trace.Span, r *http.Request, cold bool) {
	span.SetAttributes(semconv.HTTPRequestMethodKey.String(knownMethod(r.Method)))
	if cold {
		span.SetAttributes(semconv.FaaSColdstart(true))
	}
	if id := r.Header.Get("Ce-Id"); id != "" { // an event in binary mode
		span.SetAttributes(semconv.MessagingBatchMessageCount(1), semconv.CloudEventsEventID(decodeHeader(id)),
			semconv.CloudEventsEventSource(decodeHeader(r.Header.Get("Ce-Source"))), semconv.CloudEventsEventType(decodeHeader(r.Header.Get("Ce-Type"))))
	}
}

// end ends the span of a call that was answered with status, or, unless it is over, was broken off by a panic.
func end(span trace.Span, status int, over bool) {
	if span.IsRecording() {
		switch {
		case !over:
			span.SetAttributes(semconv.ErrorTypeKey.String("broken"))
			span.SetStatus(codes.Error, "the handler panicked, or broke its answer off")
		case status >= http.StatusInternalServerError:
			span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(status)))
			span.SetStatus(codes.Error, "")
		}
		span.SetAttributes(semconv.HTTPResponseStatusCode(status))
	}
	span.End()
}

// observeEvents tells the call's span what events it has. Those that belong to another trace are linked: a batch is handled in
// the trace of its first record.
func observeEvents(ctx context.Context, events []Event) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(semconv.MessagingBatchMessageCount(len(events)))
	if len(events) == 1 {
		e := &events[0]
		span.SetAttributes(semconv.CloudEventsEventID(e.ID), semconv.CloudEventsEventSource(e.Source), semconv.CloudEventsEventType(e.Type))
	}
	links, omitted := 0, 0
	own := span.SpanContext().TraceID()
	for i := range events {
		of := events[i].Extensions
		if !telemetry.Sampled(of["traceparent"]) { // nobody has kept that trace
			continue
		}
		sc := telemetry.Remote(of["traceparent"], of["tracestate"])
		switch {
		case !sc.IsValid(), sc.TraceID() == own:
		case links == telemetry.MaxLinks:
			omitted++
		default:
			links++
			span.AddLink(trace.Link{SpanContext: sc, Attributes: []attribute.KeyValue{semconv.CloudEventsEventID(events[i].ID)}})
		}
	}
	if omitted > 0 {
		span.SetAttributes(attribute.Int(telemetry.AttrLinksOmitted, omitted))
	}
}

// isEvents reports whether a call brings CloudEvents.
func isEvents(h http.Header) bool {
	return h.Get("Ce-Specversion") != "" || strings.HasPrefix(h.Get("Content-Type"), "application/cloudevents")
}

// knownMethod is a method of HTTP; what a client has made up is _OTHER.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return m
	}
	return "_OTHER"
}
