package orchestrator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// tracing records all sampled spans.
func tracing(t testing.TB) (telemetry.Providers, *tracetest.SpanRecorder) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)) // parent-based
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return telemetry.Providers{Traces: p}, spans
}

// traceparent is that of a request: trace number n, span 1.
func traceparent(n int, flags string) string { return fmt.Sprintf("00-%032x-%016x-%s", n, 1, flags) }

// beginTraced starts an execution under a trace context.
func (r *replica) beginTraced(machine, parent, prefer string) {
	r.t.Helper()
	testkit.Eventually(r.t, machine+" is started", func() bool {
		req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.api.URL+"/state-machines/"+machine+"/executions", strings.NewReader(`{"name": "x"}`))
		if err != nil {
			r.t.Fatal(err)
		}
		req.Header.Set("Traceparent", parent)
		req.Header.Set("Tracestate", "k=v")
		req.Header.Set("Prefer", prefer)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			r.t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode < 300
	})
	http.DefaultClient.CloseIdleConnections()
}

func (w *world) header(function string) http.Header {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.headers[function]
}

// tree is the spans of a trace as "name < parent's name", sorted. The request's is "request".
func tree(spans []sdktrace.ReadOnlySpan, trace int) (out []string) {
	names := map[string]string{fmt.Sprintf("%016x", 1): "request"}
	for _, s := range spans {
		names[s.SpanContext().SpanID().String()] = s.Name()
	}
	for _, s := range spans {
		if s.SpanContext().TraceID().String() == fmt.Sprintf("%032x", trace) {
			out = append(out, s.Name()+" < "+names[s.Parent().SpanID().String()])
		}
	}
	slices.Sort(out)
	return out
}

func named(spans []sdktrace.ReadOnlySpan, name string) (out []sdktrace.ReadOnlySpan) {
	for _, s := range spans {
		if s.Name() == name {
			out = append(out, s)
		}
	}
	return out
}

func attributeOf(s sdktrace.ReadOnlySpan, key string) attribute.Value {
	for _, a := range s.Attributes() {
		if string(a.Key) == key {
			return a.Value
		}
	}
	return attribute.Value{}
}

// TestOneTraceOverOwners: an execution's calls are one trace with the request that has started it, also those that the next owner
// makes, those of a nested execution, and what consumes a message.
func TestOneTraceOverOwners(t *testing.T) {
	w := newWorld(t)
	conn := testkit.Conn(t, w.nats)
	q := catalog.Queue{Key: catalog.Key{Namespace: "default", Name: "orders"}, MaxAge: time.Hour, MaxBytes: 16 << 20, DeadLetterMaxAge: time.Hour}
	if err := conn.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Fatal(err)
	}
	var spans *tracetest.SpanRecorder
	w.tel, spans = tracing(t)
	w.answers(func(function string, _ []byte) (int, string) {
		switch {
		case function == "later" && w.called("later") == 1:
			return http.StatusServiceUnavailable, ""
		case function == "broken":
			return http.StatusInternalServerError, `{"error": "Broken", "cause": null}`
		}
		return http.StatusOK, `{}`
	})
	a := w.start("a")
	a.put("child", `{"StartAt": "In", "States": {"In": {"Type": "Task", "Resource": "in", "End": true}}}`)
	a.put("m", `{"StartAt": "First", "States": {
		"First": {"Type": "Task", "Resource": "first", "Next": "Wait"},
		"Wait": {"Type": "Wait", "Seconds": 2, "Next": "Later"},
		"Later": {"Type": "Task", "Resource": "later", "Next": "Nested"},
		"Nested": {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync:2", "Parameters": {"StateMachineArn": "child"}, "Next": "Send"},
		"Send": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "Parameters": {"QueueUrl": "orders", "MessageBody": "a"}, "Next": "Broken"},
		"Broken": {"Type": "Task", "Resource": "broken", "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.e", "Next": "P"}], "End": true}, "P": {"Type": "Pass", "End": true}}}`)
	a.beginTraced("m", traceparent(7, "01"), "")
	testkit.Eventually(t, "it waits", func() bool { return w.called("first") == 1 })
	a.stop()
	b := w.start("b")
	output := b.end("m:x")
	want := []string{
		"start default/m < request", "task First < start default/m", "POST < task First",
		"task Later < start default/m", "POST < task Later", "POST < task Later",
		"task Nested < start default/m", "task In < task Nested", "POST < task In",
		"task Send < start default/m", "task Broken < start default/m", "POST < task Broken",
	}
	slices.Sort(want)
	testkit.Eventually(t, "all spans are there", func() bool { return len(spans.Ended()) >= len(want) })
	ended := spans.Ended()
	if got := tree(ended, 7); !slices.Equal(got, want) || len(ended) != len(want) {
		t.Fatalf("of %d spans the tree is\n%s", len(ended), strings.Join(got, "\n"))
	}
	task := func(state string) sdktrace.ReadOnlySpan { return named(ended, "task "+state)[0] }
	for state, outcome := range map[string]string{"First": "succeeded", "Nested": "succeeded", "Broken": "failed"} {
		s := task(state)
		if attributeOf(s, "weir.outcome").AsString() != outcome || attributeOf(s, "weir.execution").AsString() != "m:x" ||
			attributeOf(s, "weir.state_machine").AsString() != "default/m" || attributeOf(s, "weir.state").AsString() != state ||
			(s.Status().Code == codes.Error) != (outcome == "failed") {
			t.Errorf("%s: %v, %v", state, s.Attributes(), s.Status())
		}
	}
	if events := task("Later").Events(); len(events) != 1 || events[0].Name != "not now" {
		t.Errorf("%v", events)
	}
	in := w.header("in")
	if posted := telemetry.Remote(in.Get("Traceparent"), ""); !posted.IsSampled() || posted.TraceID() != task("In").SpanContext().TraceID() ||
		in.Get("Ce-Traceparent") != telemetry.TraceParent(task("In").SpanContext()) || in.Get("Tracestate") != "k=v" {
		t.Errorf("the nested execution's function got %v", in)
	}
	var sent struct{ MessageId record.ID }
	if err := json.Unmarshal([]byte(output), &sent); err != nil {
		t.Fatal(output, err)
	}
	stored, err := conn.AppendOnce(t.Context(), q.Key, &record.Record{ID: sent.MessageId, Time: time.Now()})
	if err != nil || stored == nil || stored.TraceParent != telemetry.TraceParent(task("Send").SpanContext()) || stored.TraceState != "k=v" {
		t.Errorf("the record is %+v, %v", stored, err)
	}
}

// TestNotSampled: what is not sampled has no spans, and the functions are told; where traces are off the client's context goes on
// as it is.
func TestNotSampled(t *testing.T) {
	w := newWorld(t)
	const definition = `{"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 2, "Next": "T"}, "T": {"Type": "Task", "Resource": "%s", "End": true}}}`
	off := w.start("off")
	for _, name := range []string{"before", "bare", "later", "unsampled"} {
		off.put(name, fmt.Sprintf(definition, name))
	}
	off.beginTraced("before", traceparent(1, "01"), "")
	bare := off.begin("bare", "x", `{}`) // as all that began before there were traces
	off.end("before:x")
	off.end(bare)
	if h := w.header("before"); h.Get("Traceparent") != traceparent(1, "01") || h.Get("Tracestate") != "k=v" || w.header("bare").Get("Traceparent") != "" {
		t.Errorf("without traces: %v, %v", h, w.header("bare"))
	}
	later := off.begin("later", "x", `{}`)
	off.stop()
	var spans *tracetest.SpanRecorder
	w.tel, spans = tracing(t)
	on := w.start("on")
	on.beginTraced("unsampled", traceparent(2, "00"), "")
	on.end(later)
	on.end("unsampled:x")
	for _, function := range []string{"later", "unsampled"} {
		if sc := telemetry.Remote(w.header(function).Get("Traceparent"), ""); !sc.IsValid() || sc.IsSampled() {
			t.Errorf("%s got %v", function, w.header(function))
		}
	}
	if ended := spans.Ended(); len(ended) > 0 {
		t.Errorf("%d spans: %s", len(ended), ended[0].Name())
	}
}

// TestTraceOfARequest: an EXPRESS execution in a request is one trace with it.
func TestTraceOfARequest(t *testing.T) {
	w := newWorld(t)
	var spans *tracetest.SpanRecorder
	w.tel, spans = tracing(t)
	r := w.start("a")
	if status, answer := r.request(http.MethodPut, "/state-machines/m", map[string]any{
		"type": "EXPRESS", "definition": `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "f", "End": true}}}`,
	}); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	r.beginTraced("m", traceparent(3, "01"), "wait=10")
	testkit.Eventually(t, "the span has ended", func() bool { return len(spans.Ended()) == 3 })
	if got := strings.Join(tree(spans.Ended(), 3), ", "); got != "POST < task T, start default/m < request, task T < start default/m" {
		t.Error(got)
	}
}
