package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/gateway"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// front is a running gateway with one queue and one function.
type front struct {
	t       testing.TB
	g       *gateway.Gateway
	nats    *localnats.Server
	natsCfg localnats.Config
	conn    *stream.Conn
	cat     catalog.Catalog
	keys    sign.Ring
	url     string
	client  *http.Client
	stop    func() error
}

func key(name string) catalog.Key { return catalog.Key{Namespace: "default", Name: name} }

func start(t testing.TB, fn http.Handler, change func(*catalog.Catalog)) *front {
	t.Helper()
	return startAs(t, fn, change, func(*gateway.Config) {})
}

func startAs(t testing.TB, fn http.Handler, change func(*catalog.Catalog), configure func(*gateway.Config)) *front {
	t.Helper()
	return startWith(t, telemetry.Providers{}, fn, change, configure)
}

func startWith(t testing.TB, tel telemetry.Providers, fn http.Handler, change func(*catalog.Catalog), configure func(*gateway.Config)) *front {
	t.Helper()
	f := &front{t: t, natsCfg: localnats.Config{Dir: t.TempDir(), Token: "t"}}
	f.nats = testkit.NATSIn(t, f.natsCfg)
	f.natsCfg.Port = f.nats.Port()
	f.conn = testkit.ConnWith(t, f.nats, tel)
	queue := catalog.Queue{Key: key("orders"), MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour}
	if err := f.conn.EnsureQueue(t.Context(), queue, 1); err != nil {
		t.Fatal(err)
	}
	if fn == nil {
		fn = http.NotFoundHandler()
	}
	srv := httptest.NewServer(fn)
	t.Cleanup(srv.Close)
	target := &catalog.FunctionTarget{Function: catalog.Function{Name: "f", URL: srv.URL}, Timeout: 300 * time.Millisecond}
	f.cat = catalog.Catalog{Queues: []catalog.Queue{queue}, APIs: []catalog.API{{Key: key("shop"), Routes: []catalog.Route{
		{
			Name: "create", Method: "POST", Path: "/orders", MaxBodyBytes: 1000, Queue: &catalog.QueueTarget{Queue: queue.Key},
			Schema: json.RawMessage(`{"type":"object","required":["sku"],"properties":{"sku":{"type":"string"}}}`),
		},
		{Name: "raw", Method: "POST", Path: "/raw", MaxBodyBytes: 700 << 10, Queue: &catalog.QueueTarget{Queue: queue.Key}},
		{Name: "get", Method: "GET", Path: "/orders/{id}", MaxBodyBytes: 1000, Function: target},
		{Name: "checked", Method: "POST", Path: "/checked", MaxBodyBytes: 1000, Function: target, Schema: json.RawMessage(`{"type":"object"}`)},
		{Name: "sync", Method: "POST", Path: "/sync", MaxBodyBytes: 1000, Function: target},
	}}}}
	if change != nil {
		change(&f.cat)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	caller := invoke.NewCaller(4, tel)
	cfg := gateway.Config{Telemetry: tel, Listener: l, Conn: f.conn, Caller: caller, Objects: objects(f.conn), Codec: record.Zstd, DrainTimeout: testkit.Patience, Log: testkit.Log(t)}
	configure(&cfg)
	f.g, err = gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.g.Use(&f.cat)
	f.keys = keys(t)
	f.g.UseKeys(f.keys)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	ready := make(chan struct{})
	go func() { ended <- f.g.Run(ctx, func() { close(ready) }) }()
	<-ready
	f.url, f.client = "http://"+l.Addr().String(), &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	f.stop = sync.OnceValue(func() error {
		cancel()
		f.client.CloseIdleConnections()
		caller.Close()
		return <-ended
	})
	t.Cleanup(func() { _ = f.stop() })
	return f
}

// keys makes the signing keys.
func keys(t testing.TB) sign.Ring {
	t.Helper()
	ring, _, err := sign.Ring{}.Rotate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// reply is an answer, read whole.
type reply struct {
	status  int
	header  http.Header
	body    []byte
	close   bool // the connection is not to be used again
	problem struct {
		Type, Title, Detail, RequestID string
		Status                         int
		Errors                         []struct{ Pointer, Detail string }
	}
}

func (f *front) do(method, path, body string, header ...string) reply {
	f.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := f.client.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	r := reply{status: resp.StatusCode, header: resp.Header, close: resp.Close}
	if r.body, err = io.ReadAll(resp.Body); err != nil {
		f.t.Fatal(err)
	}
	if resp.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(r.body, &r.problem); err != nil || r.problem.Status != r.status || r.problem.Detail == "" || r.problem.Title == "" {
			f.t.Errorf("%s %s: not a proper problem: %s", method, path, r.body)
		}
	}
	return r
}

// stored returns the next n records of the queue.
func (f *front) stored(n int) []record.Record {
	f.t.Helper()
	src, err := f.conn.OpenReader(f.t.Context(), key("orders"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer src.Close()
	var out []record.Record
	for len(out) < n {
		select {
		case p := <-src.Pulls():
			p.Begin(16, nil)
		case d := <-src.Deliveries():
			out = append(out, d.Records...)
		case <-time.After(testkit.Patience):
			f.t.Fatalf("%d of %d records are stored", len(out), n)
		}
	}
	return out
}

const jsonType = "application/json"

func TestBufferedRequestIsStoredBeforeItsAnswer(t *testing.T) {
	f := start(t, nil, nil)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	before := time.Now()
	r := f.do("POST", "/orders", `{"sku":"a"}`, "Content-Type", jsonType, "Traceparent", trace, "Tracestate", "k=v", "X-Request-Id", "mine")
	if r.status != 202 || r.header.Get("X-Request-Id") != "mine" || r.header.Get("Content-Type") != jsonType {
		t.Fatalf("%d %v %s", r.status, r.header, r.body)
	}
	var answer struct{ ID string }
	if err := json.Unmarshal(r.body, &answer); err != nil {
		t.Fatal(err)
	}
	got := f.stored(1)[0]
	if got.ID.String() != answer.ID || string(got.Body) != `{"sku":"a"}` || got.ContentType != jsonType || !got.JSON ||
		got.Source != "/apis/default/shop/create" || got.TraceParent != trace || got.TraceState != "k=v" ||
		got.Time.Before(before.Add(-time.Second)) || got.Time.After(time.Now()) {
		t.Errorf("stored as %+v, answered %s", got, answer.ID)
	}
}

func TestIdempotencyKeyGivesTheRecordItsID(t *testing.T) {
	f := start(t, nil, nil)
	post := func(path, key string) string {
		r := f.do("POST", path, `{"sku":"a"}`, "Idempotency-Key", key)
		if r.status != 202 {
			t.Fatalf("%q: %d %s", key, r.status, r.body)
		}
		return string(r.body)
	}
	a := post("/orders", "k-1")
	if post("/orders", "k-1") != a || post("/orders", `"k-1"`) != a {
		t.Error("the same key gives another id")
	}
	if post("/orders", "k-2") == a || post("/raw", "k-1") == a {
		t.Error("another key or route gives the same id")
	}
	for _, bad := range []string{"", " ", `""`, strings.Repeat("k", 256), "ключ"} {
		if r := f.do("POST", "/orders", `{"sku":"a"}`, "Idempotency-Key", bad); r.status != 400 {
			t.Errorf("%q: %d %s", bad, r.status, r.body)
		}
	}
}

func TestEveryRefusalIsAProblem(t *testing.T) {
	f := start(t, nil, func(c *catalog.Catalog) { c.APIs[0].Routes[1].MaxBodyBytes = 100 })
	for _, row := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		slug                     string
		pointers                 []string
	}{
		{"unknown path", "GET", "/nowhere", "", nil, 404, "no-route", nil},
		{"wrong method", "DELETE", "/orders", "", nil, 405, "method-not-allowed", nil},
		{"schema", "POST", "/orders", `{"sku":1}`, nil, 400, "schema", []string{"/sku"}},
		{"missing member", "POST", "/orders", `{}`, nil, 400, "schema", []string{""}},
		{"no JSON", "POST", "/orders", `{`, nil, 400, "bad-request", nil},
		{"empty body", "POST", "/orders", ``, nil, 400, "bad-request", nil},
		{"repeated member", "POST", "/orders", `{"sku":"a","sku":"b"}`, nil, 400, "bad-request", nil},
		{"media type", "POST", "/orders", `sku=a`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "unsupported-media-type", nil},
		{"too large", "POST", "/orders", `{"sku":"` + strings.Repeat("a", 1000) + `"}`, nil, 413, "body-too-large", nil},
		{"too large for a function", "POST", "/sync", strings.Repeat("a", 1001), nil, 413, "body-too-large", nil},
		{"schema before a function", "POST", "/checked", `[]`, nil, 400, "schema", []string{""}},
		{"two idempotency keys", "POST", "/orders", `{"sku":"a"}`, []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, 400, "bad-request", nil},
	} {
		r := f.do(row.method, row.path, row.body, row.header...)
		if r.status != row.status || r.problem.Type != "https://weir.dev/problems/"+row.slug {
			t.Errorf("%s: %d %s", row.name, r.status, r.body)
		}
		if r.problem.RequestID == "" || r.header.Get("X-Request-Id") != r.problem.RequestID {
			t.Errorf("%s: request id %q, header %q", row.name, r.problem.RequestID, r.header.Get("X-Request-Id"))
		}
		var pointers []string
		for _, e := range r.problem.Errors {
			pointers = append(pointers, e.Pointer)
		}
		if !slices.Equal(pointers, row.pointers) {
			t.Errorf("%s: pointers %q, want %q", row.name, pointers, row.pointers)
		}
	}
	if r := f.do("DELETE", "/orders", ""); r.header.Get("Allow") != "POST" {
		t.Errorf("Allow: %q", r.header.Get("Allow"))
	}
	// A body of unknown length is cut at the limit too.
	req, _ := http.NewRequestWithContext(t.Context(), "POST", f.url+"/raw", io.MultiReader(strings.NewReader(strings.Repeat("a", 5000))))
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("chunked: %d", resp.StatusCode)
	}
	if s, err := f.conn.Status(t.Context(), key("orders")); err != nil || s.QueueBytes != 0 {
		t.Errorf("something was stored: %+v %v", s, err)
	}
}

func TestSynchronousRequestsPassThrough(t *testing.T) {
	f := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/orders/slow":
			<-r.Context().Done()
		case "/orders/break":
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("X-Function", r.Header.Get("X-Request-Id"))
			w.WriteHeader(http.StatusTeapot)
			_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), body)
		}
	}), nil)
	if r := f.do("GET", "/orders/7?a=b", "", "X-Request-Id", "mine"); r.status != 418 || string(r.body) != "GET /orders/7?a=b " || r.header.Get("X-Function") != "mine" {
		t.Errorf("%d %q %v", r.status, r.body, r.header)
	}
	if r := f.do("POST", "/checked", `{"a":1}`); r.status != 418 || string(r.body) != `POST /checked {"a":1}` {
		t.Errorf("%d %q", r.status, r.body)
	}
	began := time.Now()
	if r := f.do("GET", "/orders/slow", ""); r.status != 504 || r.problem.Type != "https://weir.dev/problems/function-timeout" || time.Since(began) > 5*time.Second {
		t.Errorf("%d %s after %s", r.status, r.body, time.Since(began))
	}
	if r := f.do("GET", "/orders/break", ""); r.status != 502 || r.problem.Type != "https://weir.dev/problems/bad-gateway" {
		t.Errorf("%d %s", r.status, r.body)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	f.cat.APIs[0].Routes[2].Function = &catalog.FunctionTarget{Function: catalog.Function{URL: gone.URL}, Timeout: time.Second}
	f.g.Use(&f.cat)
	if r := f.do("GET", "/orders/7", ""); r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// TestASynchronousFunctionThatSpeaksHTTP2 is called so from the moment on at which its route says so.
func TestASynchronousFunctionThatSpeaksHTTP2(t *testing.T) {
	own := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	}))
	own.Config.Protocols = new(http.Protocols)
	own.Config.Protocols.SetUnencryptedHTTP2(true) // and nothing else
	own.Start()
	t.Cleanup(own.Close)
	f := start(t, nil, func(cat *catalog.Catalog) {
		cat.APIs[0].Routes[2].Function = &catalog.FunctionTarget{Function: catalog.Function{URL: own.URL}, Timeout: testkit.Patience}
	})
	if r := f.do("GET", "/orders/7", ""); r.status < 400 {
		t.Errorf("by HTTP/1.1: %d %s", r.status, r.body)
	}
	use := func(url string) {
		f.cat.APIs[0].Routes[2].Function = &catalog.FunctionTarget{Function: catalog.Function{URL: url, H2C: true}, Timeout: testkit.Patience}
		f.g.Use(&f.cat)
	}
	use(own.URL)
	if r := f.do("GET", "/orders/7", ""); r.status != 200 || string(r.body) != "HTTP/2.0" {
		t.Errorf("%d %s", r.status, r.body)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	use(plain.URL)
	if r := f.do("GET", "/orders/7", ""); r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("speaks HTTP/1.1 only: %d %s", r.status, r.body)
	}
}

func TestThrottles(t *testing.T) {
	f := start(t, nil, func(c *catalog.Catalog) {
		c.APIs[0].Throttle = &catalog.Throttle{Rate: 0.001, Burst: 3}
		c.APIs[0].Routes[0].Throttle = &catalog.Throttle{Rate: 0.001, Burst: 2}
	})
	post := func(path string) reply { return f.do("POST", path, `{"sku":"a"}`) }
	for range 2 {
		if r := post("/orders"); r.status != 202 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	if r := post("/orders"); r.status != 429 || r.problem.Type != "https://weir.dev/problems/throttled" ||
		r.header.Get("Retry-After") != "1000" || r.header.Get("RateLimit") != `"create";r=0;t=1000` || r.header.Get("RateLimit-Policy") != `"create";q=1;w=1000` {
		t.Errorf("%d %v %s", r.status, r.header, r.body)
	}
	if r := post("/raw"); r.status != 202 { // the route's refusal took nothing from the API
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := post("/raw"); r.status != 429 || !strings.HasPrefix(r.header.Get("RateLimit"), `"shop"`) {
		t.Errorf("%d %v", r.status, r.header)
	}
	// A new catalog gives nobody new tokens, whether it has the same throttles or others; one without does.
	f.cat.APIs[0].Routes[3].MaxBodyBytes++
	f.g.Use(&f.cat)
	if r := post("/raw"); r.status != 429 {
		t.Errorf("%d after a change elsewhere", r.status)
	}
	f.cat.APIs[0].Throttle = &catalog.Throttle{Rate: 0.001, Burst: 300}
	f.g.Use(&f.cat)
	if r := post("/raw"); r.status != 429 {
		t.Errorf("%d after a change of the throttle: an empty bucket is filled by it", r.status)
	}
	f.cat.APIs[0].Throttle = nil
	f.g.Use(&f.cat)
	if r := post("/raw"); r.status != 202 {
		t.Errorf("%d without the API's throttle", r.status)
	}
}

func TestABadCatalogLeavesTheFormerInUse(t *testing.T) {
	f := start(t, nil, nil)
	bad := f.cat
	bad.APIs = append(slices.Clone(bad.APIs), catalog.API{Key: key("other"), Routes: []catalog.Route{
		{Name: "twin", Method: "POST", Path: "/orders", Queue: &catalog.QueueTarget{Queue: key("orders")}},
	}})
	f.g.Use(&bad) // the first one that has the path keeps it
	if r := f.do("POST", "/orders", `{"sku":"a"}`); r.status != 202 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestFullQueueAnswers503AndDropsNothing(t *testing.T) {
	f := start(t, nil, func(c *catalog.Catalog) { c.Queues[0].MaxBytes = 256 << 10 })
	if err := f.conn.EnsureQueue(t.Context(), f.cat.Queues[0], 1); err != nil {
		t.Fatal(err)
	}
	stored := 0
	for {
		noise := make([]byte, 60<<10)
		for i := range noise {
			noise[i] = byte(i * i * (stored + 7) >> 3)
		}
		r := f.do("POST", "/raw", string(noise))
		if r.status == 503 {
			if r.problem.Type != "https://weir.dev/problems/queue-full" || r.header.Get("Retry-After") == "" {
				t.Errorf("%s %v", r.body, r.header)
			}
			break
		}
		if r.status != 202 || stored > 10000 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		stored++
	}
	if got := f.stored(stored); len(got) != stored {
		t.Errorf("%d records are stored, %d got a 202", len(got), stored)
	}
}

func TestWithoutNATS(t *testing.T) {
	f := start(t, nil, nil)
	if shown, err := f.g.Ready(); err != nil || shown["nats"] != "" || shown["catalog"] == "" {
		t.Fatal(shown, err)
	}
	f.nats.Stop()
	testkit.Eventually(t, "it is not ready", func() bool { _, err := f.g.Ready(); return err != nil })
	began := time.Now()
	r := f.do("POST", "/orders", `{"sku":"a"}`)
	if r.status != 503 || r.header.Get("Retry-After") == "" || time.Since(began) > time.Second {
		t.Errorf("%d %s after %s", r.status, r.body, time.Since(began))
	}
	testkit.NATSIn(t, f.natsCfg)
	testkit.Eventually(t, "it takes requests again", func() bool { return f.do("POST", "/orders", `{"sku":"a"}`).status == 202 })
}

func TestDrainAnswersWhatIsInFlight(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	f := start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "done")
	}), func(c *catalog.Catalog) {
		c.APIs[0].Routes[2].Function = &catalog.FunctionTarget{Function: c.APIs[0].Routes[2].Function.Function, Timeout: testkit.Patience}
	})
	got := make(chan reply, 1)
	go func() { got <- f.do("GET", "/orders/1", "") }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- f.stop() }()
	testkit.Eventually(t, "no new connection is taken", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	probe := httptest.NewRecorder()
	f.g.ServeHTTP(probe, httptest.NewRequestWithContext(t.Context(), "GET", "/weir/jobs/x", http.NoBody))
	if _, err := f.g.Ready(); err == nil || probe.Header().Get("Connection") != "close" {
		t.Errorf("while it drains it is ready: %v; %v", err, probe.Header())
	}
	close(release)
	if r := <-got; r.status != 200 || string(r.body) != "done" || !r.close {
		t.Errorf("%d %s, connection closed: %t", r.status, r.body, r.close)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestBeforeTheFirstCatalogAndKeys(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	g, err := gateway.New(gateway.Config{Listener: l, Conn: conn, Caller: invoke.NewCaller(1, telemetry.Providers{}), Objects: objects(conn), Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/weir/jobs/x", "/orders"} {
		rec := httptest.NewRecorder()
		g.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", path, http.NoBody))
		if rec.Code != 503 {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
	if _, err := g.Ready(); err == nil || !strings.Contains(err.Error(), "catalog") {
		t.Error("without a catalog:", err)
	}
	g.Use(&catalog.Catalog{})
	if _, err := g.Ready(); err == nil || !strings.Contains(err.Error(), "signing keys") {
		t.Error("without keys it would refuse jobs:", err)
	}
	g.UseKeys(keys(t))
	if _, err := g.Ready(); err != nil {
		t.Error("with both:", err)
	}
}

func TestConfigNamesWhatIsMissing(t *testing.T) {
	if _, err := gateway.New(gateway.Config{}); err == nil || !strings.Contains(err.Error(), "Listener") {
		t.Errorf("%v", err)
	}
}

// FuzzFront sends raw bytes as a request: the gateway answers with a status that it documents, or closes
// the connection; it never panics and never answers 5xx but 503 for what a client sends.
func FuzzFront(f *testing.F) {
	g := start(f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }), nil)
	for _, seed := range []string{
		"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"sku\":\"a\"}",
		"POST /orders HTTP/1.1\r\nHost: a\r\nIdempotency-Key: \"k\"\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{\"sku\":\"a\"}\r\n0\r\n\r\n",
		"GET /orders/%2e%2e/x HTTP/1.1\r\nHost: a\r\nX-Request-Id: \x01\r\n\r\n",
		"POST /checked HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
		"GET //orders/../weir/x HTTP/1.1\r\nHost: a\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /raw HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rec := httptest.NewRecorder()
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return // net/http refuses it before the gateway sees it
		}
		req.RemoteAddr = "127.0.0.1:1"
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		g.g.ServeHTTP(rec, req.WithContext(ctx))
		if rec.Code >= 500 && rec.Code != 503 && rec.Code != 502 && rec.Code != 504 || rec.Code < 200 {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		if rec.Code == 202 {
			var answer struct{ ID string }
			if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			if _, err := record.ParseID(answer.ID); err != nil {
				t.Fatal(err)
			}
		}
		if ct := rec.Header().Get("Content-Type"); rec.Code >= 400 && rec.Header().Get("X-Request-Id") == "" && !errors.Is(ctx.Err(), context.DeadlineExceeded) && ct == "application/problem+json" {
			t.Fatalf("%d without a request id", rec.Code)
		}
	})
}

func objects(conn *stream.Conn) blob.Store {
	return blob.NewNATS(conn, func() sign.Ring { return sign.Ring{} }, time.Now, "")
}

// TestWhatTheRequestSaidIsStored: a buffered PUT or DELETE is useful only with its path, and with what the route names.
func TestWhatTheRequestSaidIsStored(t *testing.T) {
	f := start(t, nil, func(c *catalog.Catalog) {
		route := catalog.Route{
			Name: "customer", Method: "PUT", Path: "/customers/{id}", MaxBodyBytes: 1000, Queue: &catalog.QueueTarget{Queue: key("orders")},
			Attributes: []catalog.Attribute{
				{Name: "customer", From: "path.id"}, {Name: "lang", From: "query.lang"}, {Name: "sku", From: "body:/sku"}, {Name: "tenant", From: "header.X-Tenant", Required: true},
			},
		}
		c.APIs[0].Routes = append(c.APIs[0].Routes, route)
		route.Name, route.Method, route.Attributes = "delete", "DELETE", nil
		c.APIs[0].Routes = append(c.APIs[0].Routes, route)
	})
	attributes := func(pairs ...string) (out []record.Attribute) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, record.Attribute{Name: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	var wants []record.Record
	tenant := []string{"Content-Type", jsonType, "X-Tenant", "t1"}
	for _, c := range []struct {
		method, path, body string
		header             []string
		want               record.Record
	}{
		{
			"PUT", "/customers/a%20b?lang=de&x=1;2", `{"sku": "book"}`, tenant,
			record.Record{
				Request:    record.Request{Method: "PUT", Path: "/customers/a%20b", Query: "lang=de&x=1;2"},
				Attributes: attributes("customer", "a b", "lang", "de", "sku", "book", "tenant", "t1"),
			},
		},
		{
			"PUT", "/customers/1", `{"sku": "not looked at"}`,
			[]string{"Content-Type", "text/plain", "X-Tenant", "t2"},
			record.Record{Request: record.Request{Method: "PUT", Path: "/customers/1"}, Attributes: attributes("customer", "1", "tenant", "t2")},
		},
		{"DELETE", "/customers/1", "", nil, record.Record{Request: record.Request{Method: "DELETE", Path: "/customers/1"}}},
	} {
		if r := f.do(c.method, c.path, c.body, c.header...); r.status != http.StatusAccepted {
			t.Fatalf("%s %s: %d %s", c.method, c.path, r.status, r.body)
		}
		wants = append(wants, c.want)
	}
	for i, got := range f.stored(len(wants)) {
		if want := wants[i]; got.Request != want.Request || !slices.Equal(got.Attributes, want.Attributes) {
			t.Errorf("%+v %v, want %+v %v", got.Request, got.Attributes, want.Request, want.Attributes)
		}
	}
	for _, c := range []struct {
		path, body string
		header     []string
		status     int
		detail     string
	}{
		{"/customers/1", "{}", []string{"Content-Type", jsonType}, 400, "header.X-Tenant, the attribute tenant of this route, is missing"},
		{"/customers/1", `{"sku": 1, "sku": 2}`, tenant, 400, "body:/sku, the attribute sku of this route, can't be read"},
		{"/customers/1", `{"sku": `, tenant, 400, "body:/sku, the attribute sku of this route, can't be read"},
		{"/customers/1?lang=a%0Ab", "{}", tenant, 400, "query.lang, the attribute lang of this route, must be UTF-8 without control characters"},
		{"/customers/1?lang=%ff", "{}", tenant, 400, "query.lang, the attribute lang of this route, must be UTF-8"},
		{"/customers/1", "{}", []string{"Content-Type", jsonType, "X-Tenant", strings.Repeat("x", 8<<10+1)}, 400, "header.X-Tenant, the attribute tenant of this route, is too long"},
		{"/customers/" + strings.Repeat("x", 4<<10), "{}", tenant, 414, "4107 bytes; a request that is stored may have 4096"},
	} {
		r := f.do("PUT", c.path, c.body, c.header...)
		if r.status != c.status || !strings.Contains(r.problem.Detail, c.detail) {
			t.Errorf("%.40s %.40s: %d %q, want %d %q", c.path, c.body, r.status, r.problem.Detail, c.status, c.detail)
		}
	}
	if st, err := f.conn.Status(t.Context(), key("orders")); err != nil || st.Pending+uint64(st.InFlight) > 3 {
		t.Errorf("what was refused is stored: %+v, %v", st, err)
	}
}

// chunked is a request whose size isn't announced.
func (f *front) chunked(path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.url+path, struct{ io.Reader }{body})
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Content-Type", jsonType)
	return f.client.Do(req)
}

// TestBodiesAreChargedAsTheyCome: small bodies of unknown size, on a route that allows large ones, leave room for others
// while the function is at work; and bodies that arrive slowly are charged only for what has arrived.
func TestBodiesAreChargedAsTheyCome(t *testing.T) {
	const calls = 20 // of 10 MiB allowed each: more than the budget
	entered, release := make(chan struct{}, calls), make(chan struct{})
	f := start(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		entered <- struct{}{}
		<-release
	}), func(c *catalog.Catalog) {
		target := *c.APIs[0].Routes[3].Function
		target.Timeout = testkit.Patience
		c.APIs[0].Routes = append(c.APIs[0].Routes, catalog.Route{
			Name: "large", Method: "POST", Path: "/large", MaxBodyBytes: 10 << 20, Function: &target, Schema: json.RawMessage(`{"type":"object"}`),
		})
	})
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			resp, err := f.chunked("/large", strings.NewReader(`{}`))
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Error(resp, err)
				return
			}
			_ = resp.Body.Close()
		})
	}
	for range calls {
		select {
		case <-entered:
		case <-time.After(testkit.Patience):
			t.Fatal("not all calls have come to the function")
		}
	}
	close(release)
	wg.Wait()

	// 300 that have announced 700 KiB each, and sent nothing yet.
	var conns []net.Conn
	for range 300 {
		c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if _, err := fmt.Fprintf(c, "POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 700<<10); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		if r := f.do("POST", "/raw", "x"); r.status != http.StatusAccepted {
			t.Errorf("beside bodies that don't come: %d %s", r.status, r.body)
		}
	}
	for _, c := range conns {
		_ = c.Close()
	}
}

// TestBodiesOfAnySize are read whole, whether their size is announced or not.
func TestBodiesOfAnySize(t *testing.T) {
	f := start(t, nil, nil)
	for _, size := range []int{0, 1, 2047, 2048, 2049, 16<<10 - 1, 16 << 10, 16<<10 + 1, 100_000, 700 << 10, 700<<10 + 1} {
		body := bytes.Repeat([]byte{'x'}, size)
		want := http.StatusAccepted
		if size > 700<<10 {
			want = http.StatusRequestEntityTooLarge
		}
		if r := f.do("POST", "/raw", string(body)); r.status != want {
			t.Errorf("%d bytes: %d %s", size, r.status, r.body)
		}
		resp, err := f.chunked("/raw", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%d bytes in chunks: %d", size, resp.StatusCode)
		}
	}
	for i, r := range f.stored(20) {
		if want := []int{0, 1, 2047, 2048, 2049, 16<<10 - 1, 16 << 10, 16<<10 + 1, 100_000, 700 << 10}[i/2]; len(r.Body) != want || strings.Trim(string(r.Body), "x") != "" {
			t.Errorf("record %d has %d bytes, want %d", i, len(r.Body), want)
		}
	}
}

// TestOwnPathsAreThrottled like the routes of APIs, each class by itself.
func TestOwnPathsAreThrottled(t *testing.T) {
	throttles, err := gateway.ParseOwnThrottles("feeds=0.001/2, jobs=0.001/1")
	if err != nil {
		t.Fatal(err)
	}
	f := startAs(t, nil, nil, func(c *gateway.Config) { c.OwnThrottles = throttles })
	for i, want := range []int{201, 201, 429} {
		r := f.do("POST", "/weir/feeds", "", "X-Request-Id", "mine")
		if r.status != want || r.header.Get("X-Request-Id") != "mine" || (want == 429) != (r.header.Get("Retry-After") != "") {
			t.Errorf("feed %d: %d %v", i, r.status, r.header)
		}
	}
	if r := f.do("GET", "/weir/jobs/x", ""); r.status != 404 || r.problem.Type != "https://weir.dev/problems/no-job" || r.problem.RequestID == "" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := f.do("DELETE", "/weir/jobs/x", ""); r.status != 429 || !strings.HasPrefix(r.header.Get("RateLimit"), `"weir jobs"`) {
		t.Errorf("%d %v", r.status, r.header)
	}
	for _, bad := range []string{"x=1/1", "feeds", "feeds=1", "feeds=0/1", "feeds=1/0", "feeds=NaN/1", "feeds=a/b"} {
		if got, err := gateway.ParseOwnThrottles(bad); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

// TestARouteFailsAlone: a route that this version can't serve, of any tenant, blocks nothing else: not the change that it
// comes with, and not a gateway that starts with it.
func TestARouteFailsAlone(t *testing.T) {
	queue := &catalog.QueueTarget{Queue: key("orders")}
	later := func(c *catalog.Catalog) {
		// As a newer controller publishes it, of another tenant: a target that this version doesn't know.
		var api catalog.API
		text := `{"namespace":"other","name":"wf","routes":[{"name":"unknown","method":"POST","path":"/run","maxBodyBytes":1,"stateMachine":{"name":"x"}}]}`
		if err := json.Unmarshal([]byte(text), &api); err != nil {
			t.Fatal(err)
		}
		api.Routes = append(
			api.Routes,
			catalog.Route{Name: "schema", Method: "POST", Path: "/schema", MaxBodyBytes: 100, Schema: json.RawMessage(`{"type":"nothing"}`), Queue: queue},
			catalog.Route{Name: "attribute", Method: "POST", Path: "/attribute", MaxBodyBytes: 100, Attributes: []catalog.Attribute{{Name: "a", From: "claim.sub"}}, Queue: queue},
			catalog.Route{Name: "function", Method: "POST", Path: "/function", MaxBodyBytes: 100, Function: &catalog.FunctionTarget{Function: catalog.Function{URL: "http://%zz"}}},
			catalog.Route{Name: "twin", Method: "POST", Path: "/orders", MaxBodyBytes: 100, Queue: queue},
			catalog.Route{Name: "pattern", Method: "POST", Path: "no pattern", MaxBodyBytes: 100, Queue: queue},
			catalog.Route{Name: "fine", Method: "POST", Path: "/fine", MaxBodyBytes: 100, Queue: queue},
		)
		c.APIs = append(slices.Clone(c.APIs), api)
	}
	check := func(f *front) {
		t.Helper()
		if _, err := f.g.Ready(); err != nil {
			t.Error("it is not ready:", err)
		}
		for path, why := range map[string]string{
			"/run": "this version doesn't know its target", "/schema": "schema must be a valid JSON Schema", "/attribute": `attribute a: "claim.sub" must be`,
			"/function": "function URL",
		} {
			r := f.do("POST", path, "{}")
			if r.status != 503 || r.problem.Type != "https://weir.dev/problems/route-not-served" || !strings.Contains(r.problem.Detail, why) {
				t.Errorf("%s: %d %s", path, r.status, r.body)
			}
		}
		for _, path := range []string{"/orders", "/fine"} {
			if r := f.do("POST", path, `{"sku":"a"}`); r.status != 202 {
				t.Errorf("%s: %d %s", path, r.status, r.body)
			}
		}
	}
	f := start(t, nil, nil)
	next := f.cat
	later(&next)
	f.g.Use(&next)
	check(f)
	check(start(t, nil, later))

	// Once fixed it is served; and what was compiled before is reused.
	mended := f.cat
	mended.APIs = append(slices.Clone(mended.APIs), catalog.API{Key: catalog.Key{Namespace: "other", Name: "wf"}, Routes: []catalog.Route{
		{Name: "unknown", Method: "POST", Path: "/run", MaxBodyBytes: 100, Queue: queue},
	}})
	f.g.Use(&mended)
	if r := f.do("POST", "/run", "x"); r.status != 202 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// TestHosts: a route that names a host goes before one that names none, and takes the requests of that host alone, however it is
// written.
func TestHosts(t *testing.T) {
	said := func(what string) *catalog.FunctionTarget {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(what + " " + r.URL.Path)) }))
		t.Cleanup(srv.Close)
		return &catalog.FunctionTarget{Function: catalog.Function{Name: what, URL: srv.URL}, Timeout: testkit.Patience}
	}
	f := start(t, nil, func(c *catalog.Catalog) {
		c.APIs = []catalog.API{
			{Key: key("any"), Routes: []catalog.Route{
				{Name: "all", Method: "GET", Path: "/{rest...}", Function: said("any")},
				{Name: "stock", Method: "GET", Path: "/stock/{id}", Function: said("any stock")},
			}},
			{Key: key("shop"), Routes: []catalog.Route{{Name: "all", Method: "GET", Host: "shop.example", Path: "/{rest...}", Function: said("shop")}}},
			{Key: key("press"), CORS: &catalog.CORS{Origins: []string{"https://press.example"}, Methods: []string{"POST"}}, Routes: []catalog.Route{
				{Name: "post", Method: "POST", Host: "press.example", Path: "/letters", MaxBodyBytes: 100, Function: said("press")},
			}},
		}
	})
	for _, want := range []struct{ host, path, answer string }{
		{"elsewhere.example", "/stock/7", "any stock /stock/7"},
		{"shop.example", "/stock/7", "shop /stock/7"},
		{"SHOP.Example:8080", "/stock/7", "shop /stock/7"},
		{"shop.example.", "/", "shop /"},
		{"shop.example.:80", "/", "shop /"},
		{"a.shop.example", "/x", "any /x"},
		{"press.example", "/letters", "any /letters"}, // by GET
		{"[::1]:8080", "/x", "any /x"},
	} {
		if r := f.do("GET", want.path, "", "Host", want.host); r.status != 200 || string(r.body) != want.answer {
			t.Errorf("%s%s: %d %q, want %q", want.host, want.path, r.status, r.body, want.answer)
		}
	}
	for host, status := range map[string]int{"press.example": 200, "Press.Example": 200, "shop.example": 405} {
		if r := f.do("POST", "/letters", "{}", "Host", host); r.status != status {
			t.Errorf("POST to %s: %d %s, want %d", host, r.status, r.body, status)
		}
	}
	asks := []string{"Origin", "https://press.example", "Access-Control-Request-Method", "POST"}
	for host, origin := range map[string]string{"press.EXAMPLE": "https://press.example", "shop.example": ""} {
		if r := f.do("OPTIONS", "/letters", "", append(asks, "Host", host)...); r.header.Get("Access-Control-Allow-Origin") != origin {
			t.Errorf("a page asks %s: %d %v", host, r.status, r.header)
		}
	}
}
