package dispatcher_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// tracing records all sampled spans.
func tracing(t *testing.T) (telemetry.Providers, *tracetest.SpanRecorder) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)) // parent-based
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return telemetry.Providers{Traces: p}, spans
}

// traceparent is that of a request: trace number n, span 1.
func traceparent(n int, flags string) string { return fmt.Sprintf("00-%032x-%016x-%s", n, 1, flags) }

// putTraced stores records together, each with its trace context.
func (w *world) putTraced(parents map[string]string) {
	w.t.Helper()
	var wg sync.WaitGroup
	for body, parent := range parents {
		wg.Go(func() {
			id, err := record.NewID()
			if err == nil {
				err = w.writer.Append(w.t.Context(), &record.Record{ID: id, Time: time.Now(), Source: "/apis/default/test/put", Body: []byte(body), TraceParent: parent})
			}
			if err != nil {
				w.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// tree is the spans of a trace as "name < parent's name", in the order of their ends. The request's is "request".
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

func named(spans []sdktrace.ReadOnlySpan, name string) (out []sdktrace.ReadOnlySpan) {
	for _, s := range spans {
		if s.Name() == name {
			out = append(out, s)
		}
	}
	return out
}

// TestOneTraceOverRetryAndRedrive: a record's calls, its retry, its dead letter and its redrive are one trace.
func TestOneTraceOverRetryAndRedrive(t *testing.T) {
	server := testkit.NATS(t)
	healthy := make(chan struct{})
	w := newWorld(t, testkit.Conn(t, server), func(call) answer {
		select {
		case <-healthy:
			return answer{}
		default:
			return answer{status: 500, text: "no"}
		}
	}, func(m *catalog.Mapping) { m.Retry.MaxAttempts, m.Batch.MaxRecords = 2, 1 })
	tel, spans := tracing(t)
	w.tel = tel
	w.start("a", time.Second)
	w.putTraced(map[string]string{"order": traceparent(7, "01")})
	testkit.Eventually(t, "it is dead", func() bool { return len(w.dead()) == 1 })
	w.settled()
	close(healthy)
	c, err := stream.Connect(stream.Config{URL: server.URL(), Name: t.Name(), Telemetry: tel, Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	testkit.Eventually(t, "the connection is up", func() bool { return c.Ready() == nil })
	if err := c.Redrive(t.Context(), w.queue.Key, 0, func(int) {}); err != nil {
		t.Fatal(err)
	}
	q := w.queue.Key.String()
	want := []string{
		"POST < process " + q, "retry " + q + " < request", "process " + q + " < request",
		"POST < process " + q, "dead-letter " + q + " < request", "process " + q + " < request",
		"redrive " + q + " < request", "POST < process " + q, "process " + q + " < request",
	}
	slices.Sort(want)
	testkit.Eventually(t, "all spans are there", func() bool { return len(spans.Ended()) == len(want) })
	ended := spans.Ended()
	got := tree(ended, 7)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Fatalf("the tree is\n%s", strings.Join(got, "\n"))
	}
	processes, posts := named(ended, "process "+q), named(ended, "POST")
	for i, process := range processes {
		if n := attributeOf(process, "weir.record.attempts").AsInt64(); n != []int64{0, 1, 0}[i] {
			t.Errorf("process %d: attempts %d", i, n)
		}
		if n := attributeOf(process, "weir.record.redrives").AsInt64(); n != []int64{0, 0, 1}[i] {
			t.Errorf("process %d: redrives %d", i, n)
		}
		if attributeOf(process, "weir.wait").AsFloat64() <= 0 || attributeOf(process, "messaging.batch.message_count").AsInt64() != 1 ||
			attributeOf(process, "messaging.system").AsString() != "weir" || attributeOf(process, "messaging.destination.name").AsString() != q {
			t.Errorf("process %d: %v", i, process.Attributes())
		}
		if failed := i < 2; failed != (process.Status().Code == codes.Error) {
			t.Errorf("process %d: %v", i, process.Status())
		}
		calls := w.seen()
		if got, want := calls[i].headers.Get("Traceparent"), telemetry.TraceParent(posts[i].SpanContext()); got != want {
			t.Errorf("call %d: the function's caller is %s, want the client span %s", i, got, want)
		}
		if got := calls[i].headers.Get("Ce-Traceparent"); got != traceparent(7, "01") {
			t.Errorf("call %d: the event's context is %s", i, got)
		}
	}
	dead := named(ended, "dead-letter "+q)[0]
	if attributeOf(dead, "weir.reason").AsString() != "exhausted" || attributeOf(dead, "weir.record.id").AsString() == "" ||
		len(dead.Links()) != 1 || dead.Links()[0].SpanContext.SpanID() != processes[1].SpanContext().SpanID() {
		t.Errorf("%v, %v", dead.Attributes(), dead.Links())
	}
	for key, want := range map[string]string{"http.request.method": "POST", "faas.invoked_name": "default/f", "url.full": w.spec.Function.URL, "server.address": "127.0.0.1", "error.type": "500"} {
		if got := attributeOf(posts[0], key).AsString(); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

// TestBatchOfTraces: the span of a batch is in the first trace and linked to the others; what has no room is counted.
func TestBatchOfTraces(t *testing.T) {
	const n = 130
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(call) answer { return answer{} },
		func(m *catalog.Mapping) { m.Batch.MaxRecords, m.Batch.Window = n+1, testkit.Patience })
	tel, spans := tracing(t)
	w.tel = tel
	parents := map[string]string{"unsampled": traceparent(n+1, "00")}
	for i := range n {
		parents[fmt.Sprint(i)] = traceparent(i+1, "01")
	}
	w.putTraced(parents)
	w.start("a", time.Second)
	testkit.Eventually(t, "it has ended", func() bool { return len(spans.Ended()) == 2 })
	process := named(spans.Ended(), "process "+w.queue.Key.String())[0]
	if links, omitted := len(process.Links()), attributeOf(process, telemetry.AttrLinksOmitted).AsInt64(); links != telemetry.MaxLinks || omitted != n-1-telemetry.MaxLinks || process.DroppedLinks() != 0 {
		t.Errorf("%d links, %d omitted, %d dropped", links, omitted, process.DroppedLinks())
	}
	seen := map[string]bool{process.SpanContext().TraceID().String(): true}
	for _, l := range process.Links() {
		seen[l.SpanContext.TraceID().String()] = true
	}
	if len(seen) != telemetry.MaxLinks+1 || seen[fmt.Sprintf("%032x", n+1)] {
		t.Errorf("%d traces are linked", len(seen))
	}
	if got := w.seen()[0].headers.Get("Traceparent"); got != telemetry.TraceParent(named(spans.Ended(), "POST")[0].SpanContext()) {
		t.Errorf("the function's caller is %q", got)
	}
}

// TestEventsOfABatchRun: what the function did not take, and each halving.
func TestEventsOfABatchRun(t *testing.T) {
	var mu sync.Mutex
	first := true
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(c call) answer {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case first:
			first = false
			return answer{status: 429}
		case slices.Contains(c.bodies, "poison"):
			return answer{status: 400}
		}
		return answer{}
	}, func(m *catalog.Mapping) { m.Batch.MaxRecords, m.Batch.Window = 4, testkit.Patience })
	tel, spans := tracing(t)
	w.tel = tel
	parents := map[string]string{}
	for i, body := range []string{"a", "b", "poison", "c"} {
		parents[body] = traceparent(i+1, "01")
	}
	w.putTraced(parents)
	w.start("a", time.Second)
	name := "process " + w.queue.Key.String()
	testkit.Eventually(t, "it has ended", func() bool { return len(named(spans.Ended(), name)) == 1 })
	var events []string
	for _, e := range named(spans.Ended(), name)[0].Events() {
		events = append(events, e.Name)
	}
	if !slices.Equal(events, []string{"not now", "halved", "halved"}) {
		t.Errorf("%v", events)
	}
	dead := named(spans.Ended(), "dead-letter "+w.queue.Key.String())
	if len(dead) != 1 || dead[0].SpanContext().TraceID().String() != fmt.Sprintf("%032x", 3) || attributeOf(dead[0], "weir.reason").AsString() != "refused" {
		t.Errorf("%v", dead)
	}
}

// TestTracesThatAreNotSampled: there is no span, and the function is told so.
func TestTracesThatAreNotSampled(t *testing.T) {
	for _, row := range []struct {
		name, parent, state string
		single, disabled    bool
		flags               string // of the function's traceparent; empty if there is none
		same                bool   // it is the record's own
	}{
		{name: "single", parent: traceparent(1, "00"), single: true, flags: "-00"},
		{name: "batch", parent: traceparent(1, "00"), flags: "-00"},
		{name: "single of which nothing is stored", single: true, flags: "-00"},
		{name: "batch of which nothing is stored", flags: "-00"},
		{name: "disabled", parent: traceparent(1, "01"), single: true, disabled: true, flags: "-01", same: true},
		{name: "disabled batch", parent: traceparent(1, "01"), disabled: true},
		{name: "disabled without any", single: true, disabled: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(call) answer { return answer{} }, func(m *catalog.Mapping) {
				if row.single {
					m.Batch.MaxRecords = 1
				}
			})
			tel, spans := tracing(t)
			if !row.disabled {
				w.tel = tel
			}
			w.putTraced(map[string]string{"a": row.parent})
			w.start("a", time.Second)
			testkit.Eventually(t, "it is called", func() bool { return len(w.seen()) == 1 })
			w.settled()
			got := w.seen()[0].headers.Get("Traceparent")
			switch {
			case row.flags == "" && got != "", !strings.HasSuffix(got, row.flags), row.same != (got == row.parent && got != ""):
				t.Errorf("traceparent %q", got)
			case row.flags == "-00" && row.parent != "" && got[:35] != row.parent[:35]:
				t.Errorf("%q is of another trace", got)
			}
			if n := len(spans.Started()); n != 0 {
				t.Errorf("%d spans", n)
			}
		})
	}
}

// TestExpiryIsTraced: a record that nobody called has its dead letter in its trace.
func TestExpiryIsTraced(t *testing.T) {
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(call) answer { return answer{status: 503} }, nil)
	tel, spans := tracing(t)
	w.tel = tel
	w.putTraced(map[string]string{"a": traceparent(5, "01")})
	d, _ := w.start("a", time.Second)
	w.with(d, time.Second, w.spec)
	name := "dead-letter " + w.queue.Key.String()
	testkit.Eventually(t, "it is dead", func() bool { return len(named(spans.Ended(), name)) == 1 })
	if s := named(spans.Ended(), name)[0]; s.SpanContext().TraceID().String() != fmt.Sprintf("%032x", 5) || attributeOf(s, "weir.reason").AsString() != "expired" {
		t.Errorf("%v", s)
	}
}

// TestJobIsTraced: its span says how it has ended.
func TestJobIsTraced(t *testing.T) {
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(c call) answer {
		if c.attempts[0] == 0 {
			return answer{status: 500}
		}
		return answer{text: "done"}
	}, nil)
	w.takesJobs(16 << 20)
	tel, spans := tracing(t)
	w.tel = tel
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.conn.AppendOnce(t.Context(), w.queue.Key, &record.Record{ID: id, Time: time.Now(), Source: "/s", Body: []byte("a"), Job: true, TraceParent: traceparent(9, "01")}); err != nil {
		t.Fatal(err)
	}
	w.start("a", time.Second)
	q := w.queue.Key.String()
	testkit.Eventually(t, "both attempts are traced", func() bool { return len(named(spans.Ended(), "process "+q)) == 2 })
	var status []string
	for _, s := range named(spans.Ended(), "process "+q) {
		status = append(status, attributeOf(s, "weir.job.status").AsString())
	}
	want := []string{"POST < process " + q, "retry " + q + " < request", "process " + q + " < request", "POST < process " + q, "process " + q + " < request"}
	if got := tree(spans.Ended(), 9); !slices.Equal(got, want) || !slices.Equal(status, []string{"queued", "succeeded"}) {
		t.Errorf("%v\n%v", got, status)
	}
}

// TestLinesHaveTheirTrace: what is logged of a call and of its record has the ids of the process span and of the record.
func TestLinesHaveTheirTrace(t *testing.T) {
	var out lockedBuffer
	lines, err := telemetry.NewLines(&out, "json", "debug")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(call) answer { return answer{status: 500} }, func(m *catalog.Mapping) { m.Retry.MaxAttempts = 1 })
	tel, spans := tracing(t)
	w.tel, w.log = tel, lines.Logger(nil)
	w.putTraced(map[string]string{"a": traceparent(3, "01")})
	w.start("a", time.Second)
	name := "process " + w.queue.Key.String()
	testkit.Eventually(t, "it is dead", func() bool { return len(named(spans.Ended(), name)) == 1 })
	process := named(spans.Ended(), name)[0]
	ids := fmt.Sprintf(`"trace_id":"%032x","span_id":"%s"`, 3, process.SpanContext().SpanID())
	record := `"record":"` + attributeOf(process, "weir.record.id").AsString() + `"`
	for _, text := range []string{"a call failed", "dead-lettered"} {
		if !slices.ContainsFunc(strings.Split(out.String(), "\n"), func(l string) bool {
			return strings.Contains(l, `"msg":"`+text+`"`) && strings.Contains(l, ids) && strings.Contains(l, record)
		}) {
			t.Errorf("no line %q with %s and %s in\n%s", text, ids, record, out.String())
		}
	}
}

// lockedBuffer is written by many.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
