package invoke

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/telemetry"
)

const scope = "github.com/weir-dev/weir/internal/invoke"

// clientSpan starts the span of a call: child of that in ctx. It is nil if traces are disabled.
func (c *Caller) clientSpan(ctx context.Context, method, function string, to func() *url.URL) (context.Context, trace.Span) {
	if c.tracer == nil {
		return ctx, nil
	}
	name := method
	if name == "_OTHER" {
		name = "HTTP"
	}
	ctx, span := c.tracer.Start(ctx, name, c.client...)
	if span.IsRecording() {
		span.SetAttributes(semconv.HTTPRequestMethodKey.String(method), semconv.FaaSInvokedName(function))
		if u := to(); u != nil {
			span.SetAttributes(address(u)...)
		}
	}
	return ctx, span
}

// address is where a call goes. User information and the query may hold credentials: they are left out.
func address(u *url.URL) []attribute.KeyValue {
	bare := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	as := []attribute.KeyValue{semconv.ServerAddress(u.Hostname()), semconv.URLFull(bare.String())}
	port, err := strconv.Atoi(u.Port())
	switch {
	case err == nil:
	case u.Scheme == "https":
		port = 443
	default:
		port = 80
	}
	return append(as, semconv.ServerPort(port))
}

// endSpan ends a call's span.
func endSpan(span trace.Span, status int, trouble, reason string) {
	if span == nil {
		return
	}
	if span.IsRecording() {
		if status != 0 {
			span.SetAttributes(semconv.HTTPResponseStatusCode(status))
		}
		if e := errorType(trouble, status); e != "" {
			span.SetAttributes(semconv.ErrorTypeKey.String(e))
			if trouble == "" {
				reason = "" // the status says it
			}
			span.SetStatus(codes.Error, reason)
		}
	}
	span.End()
}

// propagate makes the call's span what the function sees as its caller. Without traces the headers stay as they are.
func (c *Caller) propagate(ctx context.Context, h http.Header) {
	if c.tracer == nil {
		return
	}
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return
	}
	h["Traceparent"] = []string{telemetry.TraceParent(sc)}
	if ts := sc.TraceState().String(); ts != "" {
		h["Tracestate"] = []string{ts}
	} else {
		delete(h, "Tracestate")
	}
}
