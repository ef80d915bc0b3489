package invoke

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
)

// counted returns telemetry, what http.client.request.duration has counted by its attributes, and the spans.
func counted(t *testing.T) (telemetry.Providers, func() map[string]int, *tracetest.SpanRecorder) {
	t.Helper()
	reader, spans := sdkmetric.NewManualReader(), tracetest.NewSpanRecorder()
	p := telemetry.Providers{
		Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
		Traces: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
	}
	return p, func() map[string]int {
		t.Helper()
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		out := map[string]int{}
		for _, s := range all.ScopeMetrics {
			for _, m := range s.Metrics {
				for _, p := range m.Data.(metricdata.Histogram[float64]).DataPoints {
					out[p.Attributes.Encoded(attribute.DefaultEncoder())] += int(p.Count)
				}
			}
		}
		return out
	}, spans
}

// TestForwardIsMeasured: each synchronous call is counted once, when its answer has ended, and its span is what the function
// sees as its caller: child of the request's.
func TestForwardIsMeasured(t *testing.T) {
	seen := make(chan http.Header, 1)
	fn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Clone()
		switch r.URL.Path {
		case "/503":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/hang":
			<-r.Context().Done()
		case "/cut":
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		default:
			_, _ = io.WriteString(w, "ok")
		}
	}))
	defer fn.Close()
	parent := telemetry.Remote("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "k=v")
	const client = "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01"
	for _, row := range []struct{ method, base, path, want, span string }{
		{"GET", fn.URL, "/", "faas.invoked_name=default/f,http.request.method=GET,http.response.status_code=200", "GET"},
		{"BREW", fn.URL, "/?secret=1", "faas.invoked_name=default/f,http.request.method=_OTHER,http.response.status_code=200", "HTTP"},
		{"PUT", fn.URL, "/503", "error.type=503,faas.invoked_name=default/f,http.request.method=PUT,http.response.status_code=503", "PUT"},
		{"GET", fn.URL, "/hang", "error.type=timeout,faas.invoked_name=default/f,http.request.method=GET", "GET"},
		{"GET", fn.URL, "/cut", "error.type=broken,faas.invoked_name=default/f,http.request.method=GET,http.response.status_code=200", "GET"},
		{"GET", "http://user:pw@127.0.0.1:1", "/", "error.type=no_connection,faas.invoked_name=default/f,http.request.method=GET", "GET"},
	} {
		t.Run(row.method+row.path, func(t *testing.T) {
			tel, now, spans := counted(t)
			c := NewCaller(4, tel)
			defer c.Close()
			h, err := c.Forward(Hop{Function: "default/f", Base: row.base, Failed: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(599) }})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(trace.ContextWithSpanContext(t.Context(), parent), time.Minute)
			defer cancel()
			if row.path == "/hang" {
				ctx, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
				defer cancel()
			}
			r := httptest.NewRequestWithContext(ctx, row.method, row.path, http.NoBody)
			r.Header.Set("Traceparent", client)
			func() {
				defer func() { _ = recover() }() // ReverseProxy's of an answer that is cut
				h.ServeHTTP(httptest.NewRecorder(), r)
			}()
			if got := now(); len(got) != 1 || got[row.want] != 1 {
				t.Errorf("%v, want one of %s", got, row.want)
			}
			ended := spans.Ended()
			if len(ended) != 1 || ended[0].Name() != row.span || ended[0].Parent().SpanID() != parent.SpanID() {
				t.Fatalf("%v", ended)
			}
			if text := fmt.Sprint(ended[0].Attributes()); strings.Contains(text, "secret") || strings.Contains(text, "pw") {
				t.Errorf("credentials in %s", text)
			}
			if row.base == fn.URL {
				header := <-seen
				if header.Get("Traceparent") != telemetry.TraceParent(ended[0].SpanContext()) || header.Get("Tracestate") != "k=v" {
					t.Errorf("the function's caller is %s, %s", header.Get("Traceparent"), header.Get("Tracestate"))
				}
			}
			if r.Header.Get("Traceparent") != client {
				t.Error("the client's request was changed")
			}
		})
	}
}

// TestHopWithoutAName is neither measured nor traced, and passes the headers on.
func TestHopWithoutAName(t *testing.T) {
	got := make(chan http.Header, 1)
	fn := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Clone() }))
	defer fn.Close()
	tel, now, spans := counted(t)
	c := NewCaller(4, tel)
	defer c.Close()
	h, err := c.Forward(Hop{Base: fn.URL, Inner: true})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
	r.Header.Set("Traceparent", "x")
	h.ServeHTTP(httptest.NewRecorder(), r)
	if seen := <-got; len(now()) != 0 || len(spans.Started()) != 0 || seen.Get("Traceparent") != "x" {
		t.Errorf("%v, %v, %v", now(), spans.Started(), seen)
	}
}

// TestCallsAreMeasured as they are treated, and named by what went wrong.
func TestCallsAreMeasured(t *testing.T) {
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	fn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch _, _ = io.ReadAll(r.Body); r.URL.Path {
		case "/hang":
			<-r.Context().Done()
		case "/break":
			panic(http.ErrAbortHandler)
		case "/502":
			w.WriteHeader(http.StatusBadGateway)
		case "/garbled":
			_, _ = io.WriteString(w, `{"batchItemFailures":1}`)
		}
	}))
	defer fn.Close()
	const of = "faas.invoked_name=ns/f,http.request.method=POST"
	for _, row := range []struct{ url, want string }{
		{fn.URL, of + ",http.response.status_code=200,weir.outcome=done"},
		{fn.URL + "/hang", "error.type=timeout," + of + ",weir.outcome=failed"},
		{fn.URL + "/break", "error.type=broken," + of + ",weir.outcome=failed"},
		{fn.URL + "/502", "error.type=502," + of + ",http.response.status_code=502,weir.outcome=not_now"},
		{fn.URL + "/garbled", of + ",http.response.status_code=200,weir.outcome=failed"},
		{"http://127.0.0.1:1", "error.type=no_connection," + of + ",weir.outcome=not_now"},
	} {
		tel, now, spans := counted(t)
		c := NewCaller(4, tel)
		timeout := time.Minute
		if strings.HasSuffix(row.url, "/hang") {
			timeout = 50 * time.Millisecond
		}
		o := c.Call(t.Context(), Batch{Function: "ns/f", URL: row.url, Records: []*record.Record{{ID: id}}, Timeout: timeout})
		if o.GatewayErr {
			o.Class = NotNow // as a Limiter does while no instance is ready
		}
		c.Measure(t.Context(), o, false)
		if got := now(); len(got) != 1 || got[row.want] != 1 {
			t.Errorf("%v, want %s", got, row.want)
		}
		if len(spans.Ended()) != 1 {
			t.Errorf("%s: %v", row.url, spans.Ended())
		}
		c.Close()
	}
}

// TestColdStarts is what can be known of them: see warmth.
func TestColdStarts(t *testing.T) {
	answered := func(took time.Duration) Outcome { return Outcome{Class: Done, Status: 200, took: took} }
	const ms = time.Millisecond
	for name, steps := range map[string][]struct {
		idle time.Duration // before the call
		o    Outcome
		cold bool
	}{
		"nobody was there": {
			{0, Outcome{Class: NotNow, trouble: troubleNoConnection}, false},
			{0, Outcome{Class: NotNow, Status: 503, took: ms}, false},
			{0, answered(ms), true},
			{0, answered(ms), false},
		},
		"it failed, but it answered": {
			{0, Outcome{Class: NotNow, trouble: troubleNoConnection}, false},
			{0, Outcome{Class: Failed, Status: 500, took: ms}, true},
		},
		"a proxy's answer is none": {
			{0, Outcome{Class: NotNow, trouble: troubleNoConnection}, false},
			{0, Outcome{Class: Failed, Status: 502, GatewayErr: true, took: ms}, false},
			{0, answered(ms), true},
		},
		"503 may be for what is behind the function": {
			{0, answered(ms), false},
			{0, Outcome{Class: NotNow, Status: 503, took: ms}, false},
			{0, answered(ms), false},
		},
		"slow after a long pause": {
			{0, answered(100 * ms), false},
			{idleToZero, answered(800 * ms), true},
			{0, answered(800 * ms), false}, // no pause
		},
		"not slow after a long pause": {
			{0, answered(100 * ms), false},
			{2 * idleToZero, answered(600 * ms), false},
		},
		"a function that is always slow": {
			{0, answered(20 * time.Second), false},
			{idleToZero, answered(25 * time.Second), false},
		},
		"slow after a pause that is too short": {
			{0, answered(100 * ms), false},
			{idleToZero - ms, answered(2 * time.Second), false},
		},
		"the first call says nothing": {
			{time.Hour, answered(5 * time.Second), false},
		},
		"throttled meanwhile": {
			{0, answered(100 * ms), false},
			{idleToZero, Outcome{Class: NotNow, Status: 429, took: ms}, false},
			{0, answered(2 * time.Second), false},
		},
	} {
		l, now := NewLimiter(2), time.Unix(0, 0)
		l.now = func() time.Time { return now }
		for i, step := range steps {
			now = now.Add(step.idle + step.o.took)
			l.inFlight++
			if got := l.Release(step.o).ColdStart; got != step.cold {
				t.Errorf("%s: call %d: %t", name, i, got)
			}
		}
	}
	// Of two that wait for an instance together, one is counted.
	l, now := NewLimiter(2), time.Unix(0, 0)
	l.now = func() time.Time { return now }
	for i, o := range []Outcome{answered(100 * ms), answered(2 * time.Second), answered(2 * time.Second)} {
		if now = now.Add(ms); i == 1 {
			now = now.Add(idleToZero + 2*time.Second)
		}
		l.inFlight++
		if got := l.Release(o).ColdStart; got != (i == 1) {
			t.Errorf("together: call %d: %t", i, got)
		}
	}
}

// TestKindsAreBounded: whatever statuses functions answer with.
func TestKindsAreBounded(t *testing.T) {
	tel, _, _ := counted(t)
	d := newDurations(tel.Meter("t"))
	for i := range 3 * maxKinds {
		d.record(t.Context(), time.Second, kind{function: fmt.Sprint(i)})
	}
	n := 0
	d.kept.Range(func(any, any) bool { n++; return true })
	if n > maxKinds {
		t.Errorf("%d are kept", n)
	}
}

func TestFunctionName(t *testing.T) {
	for _, row := range []struct{ name, url, want string }{
		{"orders", "http://orders.shop.svc.cluster.local", "shop/orders"},
		{"orders", "http://127.0.0.1:8080", "shop/orders"},
		{"example.com:8080", "http://example.com:8080/a", "example.com:8080"},
		{"example.com", "https://me:secret@example.com?x", "example.com"},
	} {
		if got := FunctionName("shop", catalog.Function{Name: row.name, URL: row.url}); got != row.want {
			t.Errorf("%s: %q, want %q", row.url, got, row.want)
		}
	}
}
