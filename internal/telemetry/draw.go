package telemetry

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// lot decides whether a trace that begins here is sampled before there is a span. It decides as the sampler will, by the
// trace's id, and a span that is begun with its context gets that id. To begin a span that is not sampled costs a buffered
// write as much as all its metrics do, and of a hundred writes ninety-nine would.
type lot struct{ sampler sdktrace.Sampler }

// newLot returns nil if all that begins here is sampled, or nothing, or if the sampler's share can't be read: then the SDK
// reports it and goes on with a sampler of its own.
func newLot(getenv func(string) string) *lot {
	switch strings.ToLower(strings.TrimSpace(getenv("OTEL_TRACES_SAMPLER"))) {
	case "traceidratio", "parentbased_traceidratio":
	default:
		return nil
	}
	share, err := strconv.ParseFloat(strings.TrimSpace(getenv("OTEL_TRACES_SAMPLER_ARG")), 64)
	if err != nil || share < 0 || share >= 1 {
		return nil
	}
	return &lot{sdktrace.TraceIDRatioBased(share)}
}

// Draw returns the context to begin the first span of a trace with. If ok is false it would not be sampled: then there is
// just the id that the trace would have had. That is for callers that have no use for such a span; what they call must be told
// (NotSampled).
func (p Providers) Draw() (ctx context.Context, id trace.TraceID, ok bool) {
	ctx = context.Background()
	if p.lot == nil {
		return ctx, id, true
	}
	id = newTraceID()
	if p.lot.sampler.ShouldSample(sdktrace.SamplingParameters{TraceID: id}).Decision == sdktrace.Drop { // without a parent
		return ctx, id, false
	}
	return context.WithValue(ctx, drawn{}, id), id, true
}

type drawn struct{}

// ids makes random ids, but for a trace that was drawn.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if id, ok := ctx.Value(drawn{}).(trace.TraceID); ok {
		return id, newSpanID()
	}
	return newTraceID(), newSpanID()
}

func (ids) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return newSpanID() }

func newTraceID() (id trace.TraceID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

func newSpanID() (id trace.SpanID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// NotSampled is the context of a new trace that is not sampled: whoever is called with it samples none of its own. Half of its
// id is as high as it can be, since a sampler by share that looks at no parent samples what is low there.
func NotSampled() trace.SpanContext {
	id := newTraceID()
	binary.NativeEndian.PutUint64(id[8:], math.MaxUint64)
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: newSpanID(), Remote: true})
}
