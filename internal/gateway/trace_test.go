package gateway_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/gateway"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

const (
	clientTrace  = "0af7651916cd43dd8448eb211c80319c"
	sampledTrace = "00-" + clientTrace + "-b7ad6b7169203331-01"
	droppedTrace = "00-" + clientTrace + "-b7ad6b7169203331-00"
)

// spans is a recorder of all spans, by its providers.
type spans struct {
	t        testing.TB
	recorder *tracetest.SpanRecorder
}

func newSpans(t testing.TB) (*spans, telemetry.Providers) {
	return newSpansBy(t, sdktrace.AlwaysSample())
}

func newSpansBy(t testing.TB, root sdktrace.Sampler) (*spans, telemetry.Providers) {
	s := &spans{t, tracetest.NewSpanRecorder()}
	return s, telemetry.Providers{Traces: sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(root)), sdktrace.WithSpanProcessor(s.recorder))}
}

// of waits for the first ended span of a name, and checks the attributes that are named.
func (s *spans) of(name string, attributes ...string) sdktrace.ReadOnlySpan {
	s.t.Helper()
	var found sdktrace.ReadOnlySpan
	testkit.Eventually(s.t, "there is a span "+name, func() bool {
		for _, span := range s.recorder.Ended() {
			if span.Name() == name && span.SpanKind() != trace.SpanKindClient { // that is package invoke's
				found = span
				return true
			}
		}
		return false
	})
	set := attribute.NewSet(found.Attributes()...)
	for i := 0; i < len(attributes); i += 2 {
		if v, _ := set.Value(attribute.Key(attributes[i])); v.String() != attributes[i+1] {
			s.t.Errorf("%s: %s is %q, want %q", name, attributes[i], v.String(), attributes[i+1])
		}
	}
	return found
}

// TestTraceOfAWrite goes from the client's span over the server's to that of the write, and on with the record.
func TestTraceOfAWrite(t *testing.T) {
	s, tel := newSpans(t)
	f := startWith(t, tel, nil, nil, func(*gateway.Config) {})
	r := f.do("POST", "/orders", `{"sku":"a"}`, "Traceparent", sampledTrace, "Tracestate", "k=v", "Tracestate", "l=w")
	if r.status != 202 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	var answer struct{ ID string }
	if err := json.Unmarshal(r.body, &answer); err != nil {
		t.Fatal(err)
	}
	server := s.of("POST /orders", "http.request.method", "POST", "http.route", "/orders", "url.path", "/orders", "url.scheme", "http",
		"http.response.status_code", "202", "weir.record.id", answer.ID)
	if server.Parent().TraceID().String() != clientTrace || server.Parent().SpanID().String() != "b7ad6b7169203331" || !server.Parent().IsRemote() ||
		server.SpanKind() != trace.SpanKindServer || server.Status().Code != codes.Unset {
		t.Errorf("the server's span is %+v", tracetest.SpanStubFromReadOnlySpan(server))
	}
	rec := f.stored(1)[0]
	if rec.TraceParent != telemetry.TraceParent(server.SpanContext()) || rec.TraceState != "k=v,l=w" {
		t.Errorf("the record goes on with %s %s", rec.TraceParent, rec.TraceState)
	}
	write := s.of("send default/orders", "messaging.system", "weir", "messaging.operation.name", "send", "messaging.operation.type", "send",
		"messaging.destination.name", "default/orders", "messaging.batch.message_count", "1")
	if write.Parent().SpanID() != server.SpanContext().SpanID() || write.SpanContext().TraceID().String() != clientTrace ||
		write.SpanKind() != trace.SpanKindProducer || len(write.Links()) != 0 {
		t.Errorf("the write's span is %+v", tracetest.SpanStubFromReadOnlySpan(write))
	}
}

// TestTraceThatIsNotSampled makes no span, but the record knows of it: the dispatcher must not begin another.
func TestTraceThatIsNotSampled(t *testing.T) {
	s, tel := newSpans(t)
	f := startWith(t, tel, nil, nil, func(*gateway.Config) {})
	for _, header := range [][]string{{"Traceparent", droppedTrace}, {"Traceparent", droppedTrace, "Traceparent", sampledTrace}, {"Traceparent", "00-x"}} {
		if r := f.do("POST", "/orders", `{"sku":"a"}`, header...); r.status != 202 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	recs := f.stored(3)
	if tp := recs[0].TraceParent; !strings.HasPrefix(tp, "00-"+clientTrace) || !strings.HasSuffix(tp, "-00") || tp == droppedTrace {
		t.Errorf("it goes on with %s", tp)
	}
	for _, rec := range recs[1:] { // a traceparent that is none counts for nothing
		if strings.Contains(rec.TraceParent, clientTrace) || !telemetry.Sampled(rec.TraceParent) {
			t.Errorf("it goes on with %s", rec.TraceParent)
		}
	}
	for _, span := range s.recorder.Ended() {
		if span.SpanContext().TraceID().String() == clientTrace {
			t.Errorf("there is a span %s", span.Name())
		}
	}
}

// TestTraceThatBeginsHereAndIsNotSampled leaves nothing in the record, unless the client began it.
func TestTraceThatBeginsHereAndIsNotSampled(t *testing.T) {
	s, tel := newSpansBy(t, sdktrace.NeverSample())
	f := startWith(t, tel, nil, nil, func(*gateway.Config) {})
	for _, header := range [][]string{nil, {"Traceparent", "00-x"}, {"Traceparent", droppedTrace}, {"Traceparent", sampledTrace}} {
		if r := f.do("POST", "/orders", `{"sku":"a"}`, header...); r.status != 202 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	for i, rec := range f.stored(4) {
		own, of := i < 2, strings.HasPrefix(rec.TraceParent, "00-"+clientTrace)
		if own && rec.TraceParent != "" || !own && !of || telemetry.Sampled(rec.TraceParent) != (i == 3) {
			t.Errorf("record %d goes on with %q", i, rec.TraceParent)
		}
	}
	s.of("POST /orders") // the client's
	if n := len(s.recorder.Ended()); n != 2 {
		t.Errorf("%d spans, want the client's: the request's and the write's", n)
	}
}

// TestTracesOfOtherRequests: what has no record has a span too.
func TestTracesOfOtherRequests(t *testing.T) {
	s, tel := newSpans(t)
	seen := make(chan trace.SpanContext, 1)
	f := startWith(t, tel, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- telemetry.Remote(r.Header.Get("Traceparent"), "")
		w.WriteHeader(http.StatusBadGateway)
	}), func(c *catalog.Catalog) {
		c.APIs[0].Routes[1].Throttle = &catalog.Throttle{Rate: 0.001, Burst: 1}
	}, func(*gateway.Config) {})
	f.do("GET", "/orders/7?secret=x", "", "Traceparent", sampledTrace)
	<-seen
	if span := s.of("GET /orders/{id}", "url.path", "/orders/7", "http.response.status_code", "502", "error.type", "502"); span.Status().Code != codes.Error {
		t.Errorf("its status is %v", span.Status())
	}
	f.do("GET", "/nowhere", "")
	if span := s.of("GET", "http.response.status_code", "404", "http.route", "", "url.path", "/nowhere"); span.Status().Code != codes.Unset {
		t.Errorf("a client's fault has the status %v", span.Status())
	}
	f.do("BREW", "/nowhere", "")
	s.of("HTTP", "http.request.method", "_OTHER")
	f.g.UseKeys(sign.Ring{})
	f.do("GET", "/weir/jobs/a-secret", "")
	s.of("GET /weir/jobs/{id}", "url.path", "/weir/jobs/{id}", "http.response.status_code", "503", "error.type", "unavailable")
	f.do("POST", "/raw", "x")
	f.do("POST", "/raw", "x")
	throttled := 0
	testkit.Eventually(t, "a throttled request has a span", func() bool {
		throttled = 0
		for _, span := range s.recorder.Ended() {
			set := attribute.NewSet(span.Attributes()...)
			if v, _ := set.Value("http.response.status_code"); span.Name() == "POST /raw" && v.AsInt64() == 429 {
				throttled++
			}
		}
		return throttled > 0
	})
}

// TestCallbackIsInItsJobsTrace although the function sends no traceparent.
func TestCallbackIsInItsJobsTrace(t *testing.T) {
	s, tel := newSpans(t)
	f := startWith(t, tel, nil, func(c *catalog.Catalog) {
		c.Queues[0].Jobs, c.Queues[0].Results = true, catalog.Results{MaxAge: time.Hour, MaxBytes: 1 << 20}
		c.APIs[0].Routes = append(c.APIs[0].Routes, catalog.Route{Name: "report", Method: "POST", Path: "/reports", MaxBodyBytes: 10, Job: &catalog.QueueTarget{Queue: key("orders")}})
	}, func(*gateway.Config) {})
	if err := f.conn.EnsureQueue(t.Context(), f.cat.Queues[0], 1); err != nil {
		t.Fatal(err)
	}
	testkit.OwnStates(t, f.conn, f.cat.Queues[0].Key)
	if r := f.do("POST", "/reports", "x", "Traceparent", sampledTrace, "Idempotency-Key", "k"); r.status != 202 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	submitted := s.of("POST /reports")
	if write := s.of("send default/orders"); write.Parent().SpanID() != submitted.SpanContext().SpanID() {
		t.Error("the write of a job with an idempotency key is no child of its request")
	}
	rec := f.stored(1)[0]
	s.of("POST /reports", "weir.record.id", rec.ID.String())
	attempt, err := job.Begin(t.Context(), f.conn, key("orders"), &rec, time.Now(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := attempt.Callback().Text(f.keys)
	if err != nil {
		t.Fatal(err)
	}
	if r := f.do("POST", "/weir/callbacks/"+text+"?status=running", ""); r.status != 204 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	span := s.of("POST /weir/callbacks/{callback}", "weir.record.id", rec.ID.String(), "weir.queue", "default/orders", "url.path", "/weir/callbacks/{callback}")
	if span.Parent().SpanID() != submitted.SpanContext().SpanID() || span.SpanContext().TraceID().String() != clientTrace {
		t.Errorf("it is in %s, a child of %s", span.SpanContext().TraceID(), span.Parent().SpanID())
	}
}

// lines are log lines as JSON.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// of returns those with a message.
func (l *lines) of(t testing.TB, message string) (out []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		if m["msg"] == message {
			out = append(out, m)
		}
	}
	return out
}

func newLines(t testing.TB) (*lines, *telemetry.Lines) {
	t.Helper()
	l := &lines{}
	out, err := telemetry.NewLines(l, "json", "info")
	if err != nil {
		t.Fatal(err)
	}
	return l, out
}

// TestLogLinesHaveTheirTrace: what is logged of a request names its trace.
func TestLogLinesHaveTheirTrace(t *testing.T) {
	_, tel := newSpans(t)
	l, out := newLines(t)
	f := startWith(t, tel, nil, func(c *catalog.Catalog) {
		c.APIs[0].Routes[2].Function.Function.URL = "http://127.0.0.1:1"
	}, func(c *gateway.Config) { c.Log = out.Logger(nil) })
	if r := f.do("GET", "/orders/1", "", "Traceparent", sampledTrace); r.status != 503 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if got := l.of(t, "a function can't be reached"); len(got) != 1 || got[0]["trace_id"] != clientTrace || got[0]["span_id"] == "b7ad6b7169203331" {
		t.Errorf("%v", got)
	}
}

// TestAccessLog: what a line has, and what it never has.
func TestAccessLog(t *testing.T) {
	l, out := newLines(t)
	configure := func(share float64) func(*gateway.Config) {
		return func(c *gateway.Config) { c.AccessShare, c.AccessLog = share, slog.New(out.All(nil)) }
	}
	f := startWith(t, telemetry.Providers{}, nil, nil, configure(1))
	r := f.do("POST", "/orders?key=secret", `{"sku":"a"}`, "X-Request-Id", "mine", "Traceparent", sampledTrace)
	var answer struct{ ID string }
	if err := json.Unmarshal(r.body, &answer); err != nil {
		t.Fatal(err)
	}
	f.do("GET", "/weir/jobs/a-secret", "")
	f.do("GET", "/"+strings.Repeat("x", 1000), "")
	got := l.of(t, "request")
	if len(got) != 3 {
		t.Fatalf("%d lines: %v", len(got), got)
	}
	for k, want := range map[string]any{
		"level": "INFO", "method": "POST", "route": "/orders", "api": "default/shop", "path": "/orders", "status": 202.0, "request": "mine", "record": answer.ID,
		"queue": "default/orders", "received": 11.0, "sent": float64(len(r.body)), "trace_id": clientTrace, "span_id": "b7ad6b7169203331",
	} {
		if got[0][k] != want {
			t.Errorf("%s is %v, want %v", k, got[0][k], want)
		}
	}
	if d, ok := got[0]["duration"].(float64); !ok || d <= 0 || d > testkit.Patience.Seconds() {
		t.Errorf("it took %v", got[0]["duration"])
	}
	if got[1]["path"] != "/weir/jobs/{id}" || got[1]["error"] != "no-job" {
		t.Errorf("%v", got[1])
	}
	if p, _ := got[2]["path"].(string); len(p) != 256 || got[2]["route"] != nil || got[2]["error"] != "no-route" {
		t.Errorf("%v", got[2])
	}
	if text := l.text.String(); strings.Contains(text, "secret") {
		t.Errorf("secrets are logged: %s", text)
	}

	// A share of the requests, by their traces where they have some.
	sampled, out := newLines(t)
	f = startWith(t, telemetry.Providers{}, nil, nil, func(c *gateway.Config) { c.AccessShare, c.AccessLog = 0.25, slog.New(out.All(nil)) })
	for range 8 {
		f.do("GET", "/nowhere", "")
	}
	if got := sampled.of(t, "request"); len(got) != 2 {
		t.Errorf("%d of 8 requests are logged", len(got))
	}
	for range 2 {
		f.do("GET", "/nowhere", "", "Traceparent", "00-0af7651916cd43dd3448eb211c80319c-b7ad6b7169203331-00")
		f.do("GET", "/nowhere", "", "Traceparent", "00-0af7651916cd43ddf448eb211c80319c-b7ad6b7169203331-00")
	}
	if got := sampled.of(t, "request"); len(got) != 4 || got[2]["trace_id"] != "0af7651916cd43dd3448eb211c80319c" || got[3]["trace_id"] != got[2]["trace_id"] {
		t.Errorf("%v", got)
	}
	_, out = newLines(t)
	f = startWith(t, telemetry.Providers{}, nil, nil, configure(0))
	f.do("GET", "/nowhere", "")
	if got := l.of(t, "request"); len(got) != 3 {
		t.Error("it is off, and logs")
	}
}

// TestAccessLogOfDrawnTraces: with the sampler's share the log has the requests whose traces are kept, and no others, also
// where there is no span of a trace that isn't.
func TestAccessLogOfDrawnTraces(t *testing.T) {
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{
		Service: "test", Instance: "a", Spans: tracetest.NewInMemoryExporter(), Getenv: os.Getenv, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close()
	l, out := newLines(t)
	f := startWith(t, tel.Providers, nil, nil, func(c *gateway.Config) { c.AccessShare, c.AccessLog = 0.25, slog.New(out.All(nil)) })
	const n = 200
	for range n {
		if r := f.do("POST", "/orders", `{"sku":"a"}`); r.status != 202 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	got := l.of(t, "request")
	if len(got) < n/10 || len(got) > n/2 { // 50 ± 6 standard deviations and more
		t.Errorf("%d of %d requests are logged", len(got), n)
	}
	for _, line := range got {
		if line["trace_id"] == nil {
			t.Fatalf("a request whose trace is not kept is logged: %v", line)
		}
	}
}

func TestParseAccessLog(t *testing.T) {
	for text, want := range map[string]float64{"": 0, "off": 0, "full": 1, "0.01": 0.01, "1": 1} {
		if got, err := gateway.ParseAccessLog(text); err != nil || got != want {
			t.Errorf("%q: %g, %v", text, got, err)
		}
	}
	for _, bad := range []string{"on", "0", "-1", "1.5", "NaN", "1%"} {
		if got, err := gateway.ParseAccessLog(bad); err == nil {
			t.Errorf("%q is %g", bad, got)
		}
	}
}
