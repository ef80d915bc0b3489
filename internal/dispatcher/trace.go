package dispatcher

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

const (
	scope  = "github.com/weir-dev/weir/internal/dispatcher"
	system = "weir" // messaging.system

	// maxEvents bounds the events of one process span: a function may be away for hours. How many more there were is its
	// attribute attrEventsOmitted.
	maxEvents         = 64
	attrEventsOmitted = "weir.events.omitted"
)

// begin starts the span of a batch run, if any of its records is sampled: child of the first sampled one, linked to the
// others. So a sampled record has its whole trace, in a batch too. Without one, calls are children of the first record's
// context, for the decision not to sample is the caller's to make. A record without a context was not sampled by the gateway,
// which had to decide: its call belongs to a trace that is not sampled. The span ends with finish.
func (e *batchRun) begin(work context.Context) context.Context {
	tracer := e.m.tracer
	if tracer == nil {
		return work
	}
	var first, parent trace.SpanContext // sampled; valid
	var links []trace.Link
	omitted := 0
	for _, it := range e.items {
		r := it.rec
		switch {
		case r.TraceParent == "":
		case !telemetry.Sampled(r.TraceParent):
			if !parent.IsValid() {
				parent = telemetry.Remote(r.TraceParent, r.TraceState)
			}
		case len(links) == telemetry.MaxLinks:
			omitted++
		default:
			switch sc := telemetry.Remote(r.TraceParent, r.TraceState); {
			case !sc.IsValid():
			case !first.IsValid():
				first = sc
			default:
				links = append(links, trace.Link{SpanContext: sc})
			}
		}
	}
	if !first.IsValid() {
		if !parent.IsValid() {
			parent = telemetry.NotSampled()
		}
		return trace.ContextWithRemoteSpanContext(work, parent)
	}
	work = trace.ContextWithRemoteSpanContext(work, first)
	ctx, span := tracer.Start(work, "process "+e.m.queue.String(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...))
	if !span.IsRecording() {
		return ctx
	}
	e.span = span
	span.SetAttributes(append(messaging(e.m.queue, "process", "process"), semconv.MessagingBatchMessageCount(len(e.items)))...)
	if len(e.items) == 1 {
		span.SetAttributes(about(e.items[0].rec)...)
	}
	if omitted > 0 {
		span.SetAttributes(attribute.Int(telemetry.AttrLinksOmitted, omitted))
	}
	return ctx
}

// finish ends the span of the batch run.
func (e *batchRun) finish() {
	if e.span == nil {
		return
	}
	if e.omitted > 0 {
		e.span.SetAttributes(attribute.Int(attrEventsOmitted, e.omitted))
	}
	if e.failure != "" {
		for _, it := range e.items {
			if it.disposition != done {
				e.span.SetStatus(codes.Error, e.failure)
				break
			}
		}
	}
	e.span.End()
}

func messaging(k catalog.Key, kind, name string) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKey.String(system), semconv.MessagingOperationTypeKey.String(kind),
		semconv.MessagingOperationName(name), semconv.MessagingDestinationName(k.String()),
	}
}

// about is a record as spans about it alone name it.
func about(r *record.Record) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("weir.record.id", r.ID.String()), attribute.Int("weir.record.attempts", r.Attempts), attribute.Int("weir.record.redrives", r.Redrives),
	}
}

func (e *batchRun) traceWait(wait time.Duration) {
	if e.span != nil {
		e.span.SetAttributes(attribute.Float64("weir.wait", wait.Seconds()))
	}
}

func (e *batchRun) event(name string, o invoke.Outcome, records int) {
	switch {
	case e.span == nil:
		return
	case e.events == maxEvents:
		e.omitted++
		return
	}
	e.events++
	as := []attribute.KeyValue{semconv.MessagingBatchMessageCount(records), attribute.String("weir.cause", o.Reason)}
	if o.Status != 0 {
		as = append(as, semconv.HTTPResponseStatusCode(o.Status))
	}
	e.span.AddEvent(name, trace.WithAttributes(as...))
}

// answered ends a call for items at the limiter, and returns its outcome as it is to be treated.
func (e *batchRun) answered(work context.Context, o invoke.Outcome, items []*item) invoke.Outcome {
	o = e.m.release(work, e.delivered(o), items)
	switch {
	case e.span == nil:
	case o.Class == invoke.NotNow:
		e.event("not now", o, len(items))
	case o.Class != invoke.Done, o.FailedIDs != nil:
		e.failure = o.Reason
	}
	return o
}

// over counts how the run's job has ended, in this run or seen by it.
func (e *batchRun) over(s job.Status) {
	e.m.tally.over(s)
	e.jobIs(s)
}

func (e *batchRun) jobIs(s job.Status) {
	if e.span != nil {
		e.span.SetAttributes(attribute.String("weir.job.status", string(s)))
	}
}

// buried traces that records become dead letters, each in its own trace. The spans end with the returned function.
func buried(ctx context.Context, tracer trace.Tracer, k catalog.Key, rs []record.Record, why stream.Reason) func(error) {
	return telemetry.Each(ctx, tracer, "dead-letter "+k.String(), len(rs), func(i int) telemetry.Message {
		return telemetry.Message{TraceParent: rs[i].TraceParent, TraceState: rs[i].TraceState, Attributes: func() []attribute.KeyValue {
			as := append(messaging(k, "send", "dead-letter"), about(&rs[i])...)
			if f := rs[i].Failure; f != nil {
				as = append(as, attribute.String("weir.cause", f.Reason))
			}
			return append(as, attribute.String("weir.reason", string(why)))
		}}
	})
}

// retrying traces that items will be tried again after wait, as buried does.
func (e *batchRun) retrying(work context.Context, items []*item, wait time.Duration) func(error) {
	k := e.m.queue
	return telemetry.Each(work, e.m.tracer, "retry "+k.String(), len(items), func(i int) telemetry.Message {
		r := items[i].rec
		return telemetry.Message{TraceParent: r.TraceParent, TraceState: r.TraceState, Attributes: func() []attribute.KeyValue {
			as := append(messaging(k, "send", "retry"), about(r)...)
			if f := r.Failure; f != nil {
				as = append(as, attribute.String("weir.cause", f.Reason))
			}
			return append(as, attribute.Float64("weir.backoff", wait.Seconds()))
		}}
	})
}

// deadLetter stores items, which died for the same reason, as dead letters.
func (e *batchRun) deadLetter(work context.Context, why stream.Reason, items []*item, now time.Time) error {
	rs := records(items, now)
	end := buried(work, e.m.tracer, e.m.queue, rs, why)
	err := e.m.cfg.Conn.DeadLetter(work, e.m.queue, why, rs)
	end(err)
	return err
}

// delay stores items, a job by itself, for a later attempt.
func (e *batchRun) delay(work context.Context, w stream.Wait, items []*item, now time.Time) error {
	end := e.retrying(work, items, w.Due.Sub(w.Since))
	var err error
	if items[0].rec.Job {
		err = e.m.cfg.Conn.DelayJob(work, e.m.queue, w, items[0].at(now))
	} else {
		err = e.m.cfg.Conn.Delay(work, e.m.queue, w, records(items, now))
	}
	end(err)
	return err
}

// which names items in a log line: a record by its id, several by their number.
func which(items []*item) slog.Attr {
	if len(items) == 1 {
		return slog.String("record", items[0].rec.ID.String())
	}
	return slog.Int("records", len(items))
}
