package gateway_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/gateway"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// expect waits until each series of want has its value, and there is no other one of the metrics that want has.
func expect(t testing.TB, reader *sdkmetric.ManualReader, want map[string]float64) {
	t.Helper()
	names := map[string]bool{}
	for s := range want {
		name, _, _ := strings.Cut(s, "{")
		names[name] = true
	}
	var got map[string]float64
	deadline, tick := time.NewTimer(testkit.Patience), time.NewTicker(5*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
wait:
	for {
		got = testkit.Series(t, reader)
		maps.DeleteFunc(got, func(s string, _ float64) bool {
			name, _, _ := strings.Cut(s, "{")
			return !names[name]
		})
		if maps.Equal(got, want) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			break wait
		}
	}
	for _, s := range slices.Sorted(maps.Keys(got)) {
		if v, ok := want[s]; !ok || v != got[s] {
			t.Errorf("%s is %g, want %g", s, got[s], v)
		}
	}
	for s := range want {
		if _, ok := got[s]; !ok {
			t.Errorf("there is no %s", s)
		}
	}
}

// TestMetrics: known traffic of all kinds, and what each metric says of it.
func TestMetrics(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	throttles, err := gateway.ParseOwnThrottles("feeds=0.001/1")
	if err != nil {
		t.Fatal(err)
	}
	blocked, release := make(chan struct{}), make(chan struct{})
	fn := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/orders/fail":
			w.WriteHeader(http.StatusInternalServerError)
		case "/orders/block":
			close(blocked)
			<-release
		case "/orders/part":
			_, _ = io.WriteString(w, "a part")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	rare := &catalog.Throttle{Rate: 0.001, Burst: 1}
	f := startWith(t, telemetry.Providers{Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}, fn, func(c *catalog.Catalog) {
		c.Queues[0].Jobs, c.Queues[0].Results = true, catalog.Results{MaxAge: time.Hour, MaxBytes: 1 << 20}
		c.APIs[0].Routes[2].Function.Timeout = testkit.Patience
		to := &catalog.QueueTarget{Queue: key("orders")}
		c.APIs[0].Routes = append(c.APIs[0].Routes,
			catalog.Route{Name: "rare", Method: "POST", Path: "/rare", MaxBodyBytes: 10, Queue: to, Throttle: rare},
			catalog.Route{Name: "report", Method: "POST", Path: "/reports", MaxBodyBytes: 10, Job: to},
		)
		c.APIs = append(c.APIs, catalog.API{Key: key("slow"), Throttle: rare, Routes: []catalog.Route{
			{Name: "a", Method: "POST", Path: "/a", MaxBodyBytes: 10, Queue: to}, {Name: "b", Method: "POST", Path: "/b", MaxBodyBytes: 10, Queue: to},
		}})
	}, func(c *gateway.Config) {
		c.OwnThrottles, c.TrustedProxies, c.Sync = throttles, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, "1m"
	})
	if err := f.conn.EnsureQueue(t.Context(), f.cat.Queues[0], 1); err != nil {
		t.Fatal(err)
	}
	testkit.OwnStates(t, f.conn, f.cat.Queues[0].Key)

	for _, r := range []struct {
		method, path, body string
		status             int
		header             []string
	}{
		{"POST", "/orders", `{"sku":"a"}`, 202, nil},
		{"POST", "/orders", `{"sku":"b"}`, 202, nil},
		{"POST", "/orders", `{"sku":"c"}`, 202, []string{"X-Forwarded-Proto", "https"}},
		{"POST", "/orders", `{}`, 400, nil},
		{"POST", "/raw", strings.Repeat("x", 700<<10+1), 413, nil},
		{"GET", "/nowhere", "", 404, nil},
		{"BREW", "/orders", "", 405, nil},
		{"GET", "/orders/1", "", 200, nil},
		{"HEAD", "/orders/1", "", 200, nil},
		{"GET", "/orders/fail", "", 500, nil},
		{"POST", "/rare", "x", 202, nil},
		{"POST", "/rare", "x", 429, nil},
		{"POST", "/a", "x", 202, nil},
		{"POST", "/b", "x", 429, nil},
		{"POST", "/weir/feeds", "", 201, nil},
		{"POST", "/weir/feeds", "", 429, nil},
		{"POST", "/reports", "x", 202, nil},
		{"POST", "/reports", "y", 202, []string{"Idempotency-Key", "k"}},
		{"POST", "/reports", "y", 202, []string{"Idempotency-Key", "k"}}, // is the same job
		{"GET", "/weir/jobs/x", "", 404, nil},
	} {
		if got := f.do(r.method, r.path, r.body, r.header...); got.status != r.status {
			t.Fatalf("%s %s: %d %s", r.method, r.path, got.status, got.body)
		}
	}
	if resp, err := f.client.Get(f.url + "/orders/part"); err == nil {
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("a part of an answer looks whole")
		}
		_ = resp.Body.Close()
	}
	want := map[string]float64{
		"http.server.request.duration{http.request.method=POST,http.response.status_code=202,http.route=/orders,url.scheme=http,weir.api=default/shop}":                        2,
		"http.server.request.duration{http.request.method=POST,http.response.status_code=202,http.route=/orders,url.scheme=https,weir.api=default/shop}":                       1,
		"http.server.request.duration{http.request.method=POST,http.response.status_code=400,http.route=/orders,url.scheme=http,weir.api=default/shop}":                        1,
		"http.server.request.duration{http.request.method=POST,http.response.status_code=413,http.route=/raw,url.scheme=http,weir.api=default/shop}":                           1,
		"http.server.request.duration{http.request.method=GET,http.response.status_code=404,url.scheme=http}":                                                                  1,
		"http.server.request.duration{http.request.method=_OTHER,http.response.status_code=405,url.scheme=http}":                                                               1,
		"http.server.request.duration{http.request.method=GET,http.response.status_code=200,http.route=/orders/{id},url.scheme=http,weir.api=default/shop}":                    1,
		"http.server.request.duration{http.request.method=HEAD,http.response.status_code=200,http.route=/orders/{id},url.scheme=http,weir.api=default/shop}":                   1,
		"http.server.request.duration{error.type=500,http.request.method=GET,http.response.status_code=500,http.route=/orders/{id},url.scheme=http,weir.api=default/shop}":     1,
		"http.server.request.duration{error.type=aborted,http.request.method=GET,http.response.status_code=200,http.route=/orders/{id},url.scheme=http,weir.api=default/shop}": 1,
		"http.server.request.duration{http.request.method=POST,http.response.status_code=202,http.route=/rare,url.scheme=http,weir.api=default/shop}":                          1,
		"http.server.request.duration{http.request.method=POST,http.response.status_code=429,http.route=/rare,url.scheme=http,weir.api=default/shop}":                          1,
		"http.server.request.duration{http.request.method=POST,http.response.status_code=202,http.route=/a,url.scheme=http,weir.api=default/slow}":                             1,
		"http.server.request.duration{http.request.method=POST,http.response.status_code=429,http.route=/b,url.scheme=http,weir.api=default/slow}":                             1,
		"http.server.request.duration{http.request.method=POST,http.response.status_code=201,http.route=/weir/feeds,url.scheme=http}":                                          1,
		"http.server.request.duration{http.request.method=POST,http.response.status_code=429,http.route=/weir/feeds,url.scheme=http}":                                          1,
		"http.server.request.duration{http.request.method=POST,http.response.status_code=202,http.route=/reports,url.scheme=http,weir.api=default/shop}":                       3,
		"http.server.request.duration{http.request.method=GET,http.response.status_code=404,http.route=/weir/jobs/{id},url.scheme=http}":                                       1,

		"http.server.active_requests{http.request.method=GET,url.scheme=http}":    0,
		"http.server.active_requests{http.request.method=HEAD,url.scheme=http}":   0,
		"http.server.active_requests{http.request.method=POST,url.scheme=http}":   0,
		"http.server.active_requests{http.request.method=POST,url.scheme=https}":  0,
		"http.server.active_requests{http.request.method=_OTHER,url.scheme=http}": 0,

		"weir.gateway.bodies.memory{}": 0,
		"weir.gateway.throttled{weir.api=default/shop,weir.bucket=route,weir.throttle=rare}": 1,
		"weir.gateway.throttled{weir.api=default/slow,weir.bucket=api,weir.throttle=slow}":   1,
		"weir.gateway.throttled{weir.bucket=own,weir.throttle=weir feeds}":                   1,
		"weir.gateway.refused{weir.problem=throttled}":                                       3,
		"weir.gateway.refused{weir.problem=schema}":                                          1,
		"weir.gateway.refused{weir.problem=body-too-large}":                                  1,
		"weir.gateway.refused{weir.problem=no-route}":                                        1,
		"weir.gateway.refused{weir.problem=method-not-allowed}":                              1,
		"weir.gateway.refused{weir.problem=no-job}":                                          1,
		// Each by itself: the client waits for the answer.
		"weir.gateway.commit.size{weir.queue=default/orders}":     6,
		"weir.gateway.commit.size.sum{weir.queue=default/orders}": 6,
		"messaging.client.operation.duration{messaging.destination.name=default/orders,messaging.operation.name=send,messaging.operation.type=send,messaging.system=weir}": 7,
		"messaging.client.sent.messages{messaging.destination.name=default/orders,messaging.operation.name=send,messaging.system=weir}":                                    7,
		"weir.gateway.commit.waiting{weir.queue=default/orders}": 0,
		"weir.jobs.submitted{weir.queue=default/orders}":         2,
		"weir.nats.connected{}":                                  1,
		"weir.nats.lazy{}":                                       1,
	}
	expect(t, reader, want)

	// A new catalog without the route, and one that has it again: its counts go on.
	other := f.cat
	other.APIs = slices.Clone(f.cat.APIs)
	other.APIs[0].Routes = slices.Clone(f.cat.APIs[0].Routes)[1:]
	f.g.Use(&other)
	f.g.Use(&f.cat)
	if r := f.do("POST", "/orders", `{"sku":"a"}`); r.status != 202 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	expect(t, reader, map[string]float64{
		"weir.gateway.commit.size{weir.queue=default/orders}":     7,
		"weir.gateway.commit.size.sum{weir.queue=default/orders}": 7,
	})

	done := make(chan struct{})
	go func() {
		defer close(done)
		f.do("GET", "/orders/block", "")
	}()
	<-blocked
	if n := testkit.Series(t, reader)["http.server.active_requests{http.request.method=GET,url.scheme=http}"]; n != 1 {
		t.Errorf("%g requests are being served", n)
	}
	close(release)
	<-done

	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	for s := range testkit.Series(t, reader) {
		if strings.HasPrefix(s, "http.server.active_requests") || strings.HasPrefix(s, "weir.gateway.bodies") {
			t.Errorf("%s is observed when its gateway has ended", s)
		}
	}
}

// TestFailedWritesAreCounted by what was wrong.
func TestFailedWritesAreCounted(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	f := startWith(t, telemetry.Providers{Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}, nil, func(c *catalog.Catalog) {
		c.APIs[0].Routes = append(c.APIs[0].Routes, catalog.Route{Name: "lost", Method: "POST", Path: "/lost", MaxBodyBytes: 10, Queue: &catalog.QueueTarget{Queue: key("lost")}})
	}, func(*gateway.Config) {})
	if r := f.do("POST", "/lost", "x"); r.status != 503 {
		t.Errorf("%d %s", r.status, r.body)
	}
	f.nats.Stop()
	testkit.Eventually(t, "NATS is away", func() bool { return f.conn.Ready() != nil })
	for range 2 {
		if r := f.do("POST", "/raw", "x"); r.status != 503 {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	expect(t, reader, map[string]float64{
		"messaging.client.sent.messages{error.type=no_queue,messaging.destination.name=default/lost,messaging.operation.name=send,messaging.system=weir}":                                    1,
		"messaging.client.sent.messages{error.type=unavailable,messaging.destination.name=default/orders,messaging.operation.name=send,messaging.system=weir}":                               2,
		"messaging.client.operation.duration{error.type=no_queue,messaging.destination.name=default/lost,messaging.operation.name=send,messaging.operation.type=send,messaging.system=weir}": 1,
		"http.server.request.duration{error.type=unavailable,http.request.method=POST,http.response.status_code=503,http.route=/lost,url.scheme=http,weir.api=default/shop}":                 1,
		"http.server.request.duration{error.type=unavailable,http.request.method=POST,http.response.status_code=503,http.route=/raw,url.scheme=http,weir.api=default/shop}":                  2,
		"weir.gateway.refused{weir.problem=unavailable}": 3,
		"weir.nats.connected{}":                          0,
		"weir.nats.lazy{}":                               0,
	})
}

// TestMetricsAllocateNothing beyond the first request of a kind. NATS, in the same process, allocates at its leisure.
func TestMetricsAllocateNothing(t *testing.T) {
	allocations := func(tel telemetry.Providers) float64 {
		f := startWith(t, tel, nil, nil, func(*gateway.Config) {})
		reader := strings.NewReader("")
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", reader)
		return testing.AllocsPerRun(500, func() {
			reader.Reset(`{"sku":"a"}`)
			req.ContentLength = int64(reader.Len())
			rec := deadlined{httptest.NewRecorder()}
			f.g.ServeHTTP(rec, req)
			if rec.Code != http.StatusAccepted {
				t.Errorf("%d %s", rec.Code, rec.Body)
			}
		})
	}
	off, on := allocations(telemetry.Providers{}), allocations(providers(t, -1))
	if on > off+3 {
		t.Errorf("%g allocations a request, %g without metrics", on, off)
	}
}

// TestRoutesAreMeasuredLazily: a route that nothing is asked of costs a few bytes.
func TestRoutesAreMeasuredLazily(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	f := startWith(t, telemetry.Providers{Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}, nil, func(c *catalog.Catalog) {
		for i := range 1000 {
			c.APIs[0].Routes = append(c.APIs[0].Routes, catalog.Route{
				Name: fmt.Sprintf("r%d", i), Method: "POST", Path: fmt.Sprintf("/r/%d", i), MaxBodyBytes: 10, Queue: &catalog.QueueTarget{Queue: key("orders")},
			})
		}
	}, func(*gateway.Config) {})
	f.do("POST", "/r/7", "x")
	n := 0
	for s := range testkit.Series(t, reader) {
		if strings.HasPrefix(s, "http.server.request.duration{") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d series of one route", n)
	}
}

// listeners serve those who listen.
type listeners func(http.ResponseWriter, *http.Request)

func (l listeners) ServeHTTP(w http.ResponseWriter, r *http.Request) { l(w, r) }
func (listeners) Drain()                                             {}

// TestListenersAreMeasuredUntilTheirAnswerBegins: they stay for hours.
func TestListenersAreMeasuredUntilTheirAnswerBegins(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	end := make(chan struct{})
	f := startWith(t, telemetry.Providers{Meters: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}, nil, nil, func(c *gateway.Config) {
		c.Realtime = listeners(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/socket") {
				conn, buf, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
				_ = buf.Flush()
				<-end
				_, _ = conn.Write([]byte("."))
				_ = conn.Close()
				return
			}
			w.Header().Set("Content-Length", "1")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-end
			_, _ = io.WriteString(w, ".")
		})
	})
	for _, path := range []string{"/weir/jobs/x/events", "/weir/jobs/x/socket"} {
		resp, err := f.client.Get(f.url + path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
	}
	want := map[string]float64{
		"http.server.request.duration{http.request.method=GET,http.response.status_code=200,http.route=/weir/jobs/{id}/events,url.scheme=http}": 1,
		"http.server.request.duration{http.request.method=GET,http.response.status_code=200,http.route=/weir/jobs/{id}/socket,url.scheme=http}": 1,
		"http.server.active_requests{http.request.method=GET,url.scheme=http}":                                                                  0,
	}
	expect(t, reader, want)
	close(end)
	if err := f.stop(); err != nil {
		t.Fatal(err)
	}
	delete(want, "http.server.active_requests{http.request.method=GET,url.scheme=http}")
	expect(t, reader, want)
}
