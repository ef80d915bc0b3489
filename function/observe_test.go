package function

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/telemetry"
)

const (
	traceA  = "0af7651916cd43dd8448eb211c80319c"
	parentA = "00-" + traceA + "-b7ad6b7169203331-01"
)

// recorded is a handler that is observed, and what was recorded of it.
type recorded struct {
	t       *testing.T
	handler http.Handler
	spans   *tracetest.SpanRecorder
	traces  *sdktrace.TracerProvider
	reader  *sdkmetric.ManualReader
}

func record(t *testing.T, h http.Handler) *recorded {
	t.Helper()
	r := &recorded{t: t, spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	r.traces = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans))
	r.handler = Observe(h, "orders", Telemetry{sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader)), r.traces})
	return r
}

// call makes a call and returns its span.
func (r *recorded) call(header http.Header, body string) sdktrace.ReadOnlySpan {
	r.t.Helper()
	req := httptest.NewRequestWithContext(r.t.Context(), http.MethodPost, "/", strings.NewReader(body))
	req.Header = header
	before := len(r.spans.Ended())
	func() {
		defer func() { _ = recover() }() // as net/http does
		r.handler.ServeHTTP(httptest.NewRecorder(), req)
	}()
	ended := r.spans.Ended()
	if len(ended) <= before {
		r.t.Fatal("the call has no span")
	}
	return ended[len(ended)-1] // the server span ends last
}

func attributes(kvs []attribute.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range kvs {
		out[string(kv.Key)] = kv.Value.String()
	}
	return out
}

// counts are the sums of all counters and the counts of all histograms, by name and trigger.
func (r *recorded) counts() map[string]int64 {
	r.t.Helper()
	var rm metricdata.ResourceMetrics
	if err := r.reader.Collect(context.WithoutCancel(r.t.Context()), &rm); err != nil {
		r.t.Fatal(err)
	}
	out := map[string]int64{}
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			add := func(set attribute.Set, n int64) {
				trigger, _ := set.Value("faas.trigger")
				name, _ := set.Value("faas.name")
				if name.AsString() != "orders" || set.Len() != 2 {
					r.t.Errorf("%s has the attributes %v", m.Name, set.ToSlice())
				}
				out[m.Name+" "+trigger.AsString()] += n
			}
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					add(p.Attributes, int64(p.Count))
				}
			}
		}
	}
	return out
}

// batch is a call with n events, each of a trace of its own but the first, which is of traceA.
func batch(n int) string {
	var b strings.Builder
	for i := range n {
		parent := parentA
		if i > 0 {
			parent = fmt.Sprintf("00-%032x-%016x-01", i, i)
		}
		fmt.Fprintf(&b, `,{"specversion":"1.0","id":"e%d","source":"/s","type":"t","traceparent":"%s"}`, i, parent)
	}
	return "[" + strings.TrimPrefix(b.String(), ",") + "]"
}

func TestObserveABatch(t *testing.T) {
	var inside trace.SpanContext
	var r *recorded
	r = record(t, Batch(func(ctx context.Context, _ []Event) ([]Failure, error) {
		inside = trace.SpanContextFromContext(ctx)
		_, span := r.traces.Tracer("db").Start(ctx, "INSERT")
		span.End()
		return nil, nil
	}))
	header := http.Header{"Content-Type": {contentTypeBatch}, "Traceparent": {parentA}}
	const n = telemetry.MaxLinks + 10
	s := r.call(header, batch(n))

	if s.Name() != "orders" || s.SpanKind() != trace.SpanKindServer || !s.SpanContext().Equal(inside) {
		t.Errorf("the span is %q, %v", s.Name(), s.SpanKind())
	}
	if p := s.Parent(); p.TraceID().String() != traceA || p.SpanID().String() != "b7ad6b7169203331" || !p.IsRemote() {
		t.Errorf("its parent is %v", p)
	}
	if below := r.spans.Ended()[0]; below.Parent().SpanID() != s.SpanContext().SpanID() {
		t.Error("the handler's span is not below it")
	}
	if len(s.Links()) != telemetry.MaxLinks || s.DroppedLinks() != 0 {
		t.Errorf("%d links, %d dropped", len(s.Links()), s.DroppedLinks())
	}
	first := s.Links()[0]
	if first.SpanContext.TraceID().String() != fmt.Sprintf("%032x", 1) || attributes(first.Attributes)["cloudevents.event_id"] != "e1" {
		t.Errorf("the first link is %+v: the event of the own trace must have none", first)
	}
	want := map[string]string{
		"faas.trigger": "pubsub", "faas.name": "orders", "faas.coldstart": "true", "http.request.method": "POST",
		"http.response.status_code": "200", "messaging.batch.message_count": fmt.Sprint(n), "weir.links.omitted": "9",
	}
	if got := attributes(s.Attributes()); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("attributes %v, want %v", got, want)
	}

	s = r.call(header, batch(1))
	got := attributes(s.Attributes())
	if got["faas.coldstart"] != "" || got["cloudevents.event_id"] != "e0" || got["cloudevents.event_source"] != "/s" || got["cloudevents.event_type"] != "t" {
		t.Errorf("the second call, of one event: %v", got)
	}
	wantCounts := "map[faas.coldstarts pubsub:1 faas.invocations pubsub:2 faas.invoke_duration pubsub:2]"
	if got := fmt.Sprint(r.counts()); got != wantCounts {
		t.Errorf("counted %s, want %s", got, wantCounts)
	}
}

// TestObserveUnsampledEvents: an event whose trace nobody keeps is not linked.
func TestObserveUnsampledEvents(t *testing.T) {
	r := record(t, Batch(func(context.Context, []Event) ([]Failure, error) { return nil, nil }))
	body := strings.ReplaceAll(batch(3), "-01\"", "-00\"")
	s := r.call(http.Header{"Content-Type": {contentTypeBatch}}, body)
	if len(s.Links()) != 0 || s.Parent().IsValid() {
		t.Errorf("links %v, parent %v", s.Links(), s.Parent())
	}
}

func TestObserveOneEvent(t *testing.T) {
	r := record(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	s := r.call(http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"e%201"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}, "Traceparent": {parentA}}, "x")
	got := attributes(s.Attributes())
	if got["faas.trigger"] != "pubsub" || got["cloudevents.event_id"] != "e 1" || got["messaging.batch.message_count"] != "1" || got["http.response.status_code"] != "202" {
		t.Error(got)
	}
}

func TestObserveFailures(t *testing.T) {
	log := Logger(slog.New(slog.DiscardHandler))
	for name, c := range map[string]struct {
		err    error
		panics bool
		status codes.Code
		error  string // error.type
		counts string
	}{
		"an error":  {io.ErrUnexpectedEOF, false, codes.Error, "500", "map[faas.coldstarts pubsub:1 faas.errors pubsub:1 faas.invoke_duration pubsub:1]"},
		"not now":   {NotNow(io.ErrUnexpectedEOF, 0), false, codes.Error, "503", "map[faas.coldstarts pubsub:1 faas.invoke_duration pubsub:1]"},
		"permanent": {Permanent(io.ErrUnexpectedEOF), false, codes.Unset, "", "map[faas.coldstarts pubsub:1 faas.invocations pubsub:1 faas.invoke_duration pubsub:1]"},
		"a panic":   {nil, true, codes.Error, "broken", "map[faas.coldstarts pubsub:1 faas.errors pubsub:1 faas.invoke_duration pubsub:1]"},
	} {
		r := record(t, Batch(func(context.Context, []Event) ([]Failure, error) {
			if c.panics {
				panic(http.ErrAbortHandler)
			}
			return nil, c.err
		}, log))
		s := r.call(http.Header{"Content-Type": {contentTypeBatch}}, batch(1))
		if s.Status().Code != c.status || attributes(s.Attributes())["error.type"] != c.error {
			t.Errorf("%s: status %v, %v", name, s.Status(), s.Attributes())
		}
		if events := s.Events(); c.err != nil && (len(events) != 1 || !strings.Contains(attributes(events[0].Attributes)["exception.message"], "unexpected EOF")) {
			t.Errorf("%s: events %v", name, events)
		}
		if got := fmt.Sprint(r.counts()); got != c.counts {
			t.Errorf("%s: counted %s", name, got)
		}
	}
}

// TestObserveKeepsTheResponseWriter: a function may stream its answer, and read a body that is too large.
func TestObserveKeepsTheResponseWriter(t *testing.T) {
	h := Observe(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(http.Flusher); !ok {
			t.Error("it can't be flushed")
		}
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "x")
	}), "", Telemetry{})
	srv := httptest.NewServer(h)
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(body, []byte("x")) || res.StatusCode != http.StatusOK {
		t.Errorf("%d %q %v", res.StatusCode, body, err)
	}
}

// TestReportsAreTraced: a report is below the span that makes it; the process's context, after a 202, is of no call, and the
// call's own counts.
func TestReportsAreTraced(t *testing.T) {
	var got []string
	weir := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Traceparent"))
		w.WriteHeader(http.StatusNoContent)
	}))
	defer weir.Close()
	c := CallbackOf(http.Header{HeaderCallback: {weir.URL}, "Traceparent": {parentA}})
	c.Client = weir.Client()
	ctx, span := sdktrace.NewTracerProvider().Tracer("").Start(t.Context(), "work")
	defer span.End()
	if err := c.Progress(t.Context(), 1, ""); err != nil {
		t.Fatal(err)
	}
	if err := c.Progress(ctx, 1, ""); err != nil {
		t.Fatal(err)
	}
	if want := telemetry.TraceParent(span.SpanContext()); len(got) != 2 || got[0] != parentA || got[1] != want {
		t.Errorf("%v, want %s and %s", got, parentA, want)
	}
	none := CallbackOf(http.Header{HeaderCallback: {weir.URL}})
	none.Client = weir.Client()
	if err := none.Progress(t.Context(), 1, ""); err != nil || got[2] != "" {
		t.Error(got, err)
	}
}
