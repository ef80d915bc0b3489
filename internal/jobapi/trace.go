package jobapi

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
)

// traceTimeout bounds what a report waits for its trace. A span that has lost its parent is worth less than a late report.
const traceTimeout = 200 * time.Millisecond

// TraceOf is the trace of the job that a callback's request reports of; invalid if the callback is, the job has none, or its
// state can't be read. It reads the state once more than the report does: only traces that are on cost it, and only of
// functions that send none of their own.
func (a *API) TraceOf(req *http.Request) trace.SpanContext {
	attempt, err := job.ParseCallback(req.PathValue("callback"), a.Ring(), a.queues.Load().keys)
	if err != nil {
		return trace.SpanContext{}
	}
	ctx, cancel := context.WithTimeout(req.Context(), traceTimeout)
	defer cancel()
	traceParent, err := job.TraceOf(ctx, a.cfg.Conn, attempt)
	if err != nil {
		return trace.SpanContext{}
	}
	return telemetry.Remote(traceParent, "")
}

// about names the job in the span of a request about it.
func about(ctx context.Context, queue catalog.Key, id record.ID) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(attribute.String("weir.record.id", id.String()), attribute.String("weir.queue", queue.String()))
	}
}
