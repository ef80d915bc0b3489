package gateway_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/gateway"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestJSONBounds: what parsers choke on is refused before any, for functions' sake also where there is no schema.
func TestJSONBounds(t *testing.T) {
	nested := func(n int) string { return `{"sku":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `}` }
	f := start(t, nil, func(c *catalog.Catalog) {
		c.APIs[0].Routes = append(c.APIs[0].Routes, catalog.Route{
			Name: "shallow", Method: "POST", Path: "/shallow", MaxBodyBytes: 1000, MaxDepth: 3, Queue: &catalog.QueueTarget{Queue: key("orders")},
		}, catalog.Route{
			Name: "recursive", Method: "POST", Path: "/recursive", MaxBodyBytes: 1000, Queue: &catalog.QueueTarget{Queue: key("orders")},
			Schema: json.RawMessage(`{"anyOf":[{"properties":{"a":{"$ref":"#"}},"required":["a"]},{"properties":{"a":{"$ref":"#"}},"required":["b"]},{"type":"integer"}]}`),
		})
	})
	for _, row := range []struct {
		path, media, body string
		status            int
		detail            string
	}{
		{"/raw", jsonType, nested(128), 202, ""},
		{"/raw", jsonType, nested(129), 400, "nested more than 128 deep"},
		{"/raw", "application/vnd.x+json", nested(129), 400, "nested more than 128 deep"},
		{"/raw", "text/plain", nested(129), 202, ""},
		{"/raw", jsonType, `{"n":1e401}`, 400, "exponent"},
		{"/raw", jsonType, `{"n":` + strings.Repeat("7", 401) + `}`, 400, "digits"},
		{"/orders", jsonType, nested(129), 400, "nested more than 128 deep"},
		{"/orders", jsonType, `{"sku":"a","n":-2.5E+401}`, 400, "exponent"},
		{"/shallow", jsonType, nested(3), 202, ""},
		{"/shallow", jsonType, nested(4), 400, "nested more than 3 deep (maxDepth)"},
		{"/recursive", jsonType, `{"a":{"a":{"a":1}}}`, 202, ""},
		{"/recursive", jsonType, strings.Repeat(`{"a":`, 60) + "1" + strings.Repeat("}", 60), 400, "too complex"},
	} {
		r := f.do("POST", row.path, row.body, "Content-Type", row.media)
		if r.status != row.status || !strings.Contains(r.problem.Detail, row.detail) {
			t.Errorf("%s %s %.60s: %d %s", row.path, row.media, row.body, r.status, r.body)
		}
	}
}

// TestContentCodings: a body is stored, and checked, as what it holds; a bomb is too large.
func TestContentCodings(t *testing.T) {
	f := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%q %d %s", r.Header.Get("Content-Encoding"), r.ContentLength, body)
	}), nil)
	gz := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		return b.String()
	}
	for _, row := range []struct {
		path, coding, body string
		status             int
		want               string // in the answer
	}{
		{"/orders", "gzip", gz(`{"sku":"a"}`), 202, ""},
		{"/orders", "GZIP", gz(`{"sku":1}`), 400, "problems/schema"},
		{"/orders", "identity", `{"sku":"b"}`, 202, ""},
		{"/orders", "br", "x", 415, "gzip, deflate, zstd"},
		{"/orders", "gzip, gzip", gz(gz(`{"sku":"a"}`)), 415, ""},
		{"/orders", "gzip", `{"sku":"a"}`, 400, "can't be read"},
		{"/orders", "gzip", gz(`{"sku":"a"}`)[:20], 400, "can't be read"},
		{"/orders", "gzip", gz(`{"sku":"` + strings.Repeat("a", 100_000) + `"}`), 413, "body-too-large"},
		{"/raw", "gzip", gz(strings.Repeat("a", 700<<10+1)), 413, "body-too-large"},
		{"/checked", "gzip", gz(`{"a":1}`), 200, `"" 7 {"a":1}`},
		{"/sync", "gzip", gz(`{}`), 200, `"gzip"`}, // the function's to undo
	} {
		r := f.do("POST", row.path, row.body, "Content-Encoding", row.coding, "Content-Type", jsonType)
		if r.status != row.status || !strings.Contains(string(r.body), row.want) {
			t.Errorf("%s %s: %d %s", row.path, row.coding, r.status, r.body)
		}
		if r.status == 415 && r.header.Get("Accept-Encoding") != "gzip, deflate, zstd" {
			t.Errorf("Accept-Encoding %q", r.header.Get("Accept-Encoding"))
		}
	}
	for i, rec := range f.stored(2) {
		if want := []string{`{"sku":"a"}`, `{"sku":"b"}`}[i]; string(rec.Body) != want {
			t.Errorf("stored %q, want %q", rec.Body, want)
		}
	}
}

// TestHeadersThatAreStored: what can't be told to a function is refused, and nothing is lost of what can.
func TestHeadersThatAreStored(t *testing.T) {
	f := start(t, nil, nil)
	for _, row := range []struct {
		status int
		header []string
	}{
		{400, []string{"Content-Type", "text/plain; x=" + strings.Repeat("y", 300)}},
		{400, []string{"Content-Type", "no media type"}},
		{400, []string{"Content-Type", "text/plain", "Content-Type", "text/html"}},
		{400, []string{"Idempotency-Key", `"a";p=1`}},
		{400, []string{"Idempotency-Key", `"a", "b"`}},
		{400, []string{"Idempotency-Key", `a, b`}},
		{400, []string{"Idempotency-Key", `"a`}},
		{400, []string{"Idempotency-Key", `a"`}},
		{400, []string{"Idempotency-Key", `"a"b"`}},
		{400, []string{"Idempotency-Key", `"a\b"`}},
		{202, []string{"Idempotency-Key", `"a\"b"`}},
	} {
		if r := f.do("POST", "/raw", "x", row.header...); r.status != row.status {
			t.Errorf("%.60q: %d %s", row.header, r.status, r.body)
		}
	}
	f.do("POST", "/raw", "x", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate", "a=1", "Tracestate", "b=2")
	rs := f.stored(2)
	if rs[0].ID != record.IDFromKey("/apis/default/shop/raw", `a"b`) {
		t.Error("an escaped quote is not the key's")
	}
	if rs[1].TraceState != "a=1,b=2" {
		t.Errorf("tracestate %q", rs[1].TraceState)
	}
}

// raw sends head, as it is, and returns the answer, and how long it took.
func (f *front) raw(head string) (reply, time.Duration) {
	f.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	begin := time.Now()
	if _, err := io.WriteString(c, head); err != nil {
		f.t.Fatal(err)
	}
	_ = c.SetReadDeadline(begin.Add(testkit.Patience))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		f.t.Fatalf("%.60q: %v", head, err)
	}
	defer func() { _ = resp.Body.Close() }()
	r := reply{status: resp.StatusCode, header: resp.Header, close: resp.Close}
	if r.body, err = io.ReadAll(resp.Body); err != nil {
		f.t.Fatal(err)
	}
	return r, time.Since(begin)
}

// TestAnswersDontWaitForTheBody: what is refused for its head is answered at once, and a body that doesn't come is the
// client's fault, not the function's.
func TestAnswersDontWaitForTheBody(t *testing.T) {
	f := start(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }), func(c *catalog.Catalog) {
		c.APIs[0].Routes = append(c.APIs[0].Routes, catalog.Route{
			Name: "throttled", Method: "POST", Path: "/throttled", MaxBodyBytes: 1000, Throttle: &catalog.Throttle{Rate: 0.001, Burst: 1},
			Queue: &catalog.QueueTarget{Queue: key("orders")},
		})
	})
	f.do("POST", "/throttled", "x")
	for _, row := range []struct {
		head   string
		status int
	}{
		{"POST /nowhere", 404},
		{"PUT /orders", 405},
		{"POST /throttled", 429},
		{"POST /orders HTTP/1.1\r\nContent-Type: text/plain", 415},
		{"POST /orders HTTP/1.1\r\nContent-Encoding: br", 415},
		{"POST /sync", 408}, // after the route's timeout of 300 ms
	} {
		line, rest, _ := strings.Cut(row.head, " HTTP/1.1")
		resp, took := f.raw(line + " HTTP/1.1\r\nHost: a\r\nContent-Length: 900" + rest + "\r\n\r\n{")
		if resp.status != row.status || !resp.close {
			t.Errorf("%s: %d, close %t", line, resp.status, resp.close)
		}
		if took > 900*time.Millisecond && row.status != 408 || took > 5*time.Second { // it was a minute
			t.Errorf("%s: answered after %s", line, took)
		}
	}
	// The bodies of refused requests that do come cost no connection.
	for range 3 {
		if r := f.do("POST", "/throttled", strings.Repeat("x", 900)); r.status != 429 || r.close {
			t.Errorf("%d, close %t", r.status, r.close)
		}
	}
}

// TestAConnectionOutlivesATimeout: the next request on it is none the worse.
func TestAConnectionOutlivesATimeout(t *testing.T) {
	f := start(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}
	}), nil)
	for range 3 {
		if r := f.do("POST", "/sync", "whole"); r.status != 504 || r.close {
			t.Errorf("%d, close %t", r.status, r.close)
		}
		if r := f.do("GET", "/orders/7", ""); r.status != 200 {
			t.Errorf("after it: %d %s", r.status, r.body)
		}
	}
}

// TestAFunctionAnswersEarly: its answer is passed on while the client still has to send, and keeps the gateway's headers
// after an informational one.
func TestAFunctionAnswersEarly(t *testing.T) {
	f := start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(http.StatusUnauthorized)
	}), func(c *catalog.Catalog) { c.APIs[0].Routes[4].Function.Timeout = testkit.Patience })
	c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	begin := time.Now()
	if _, err := io.WriteString(c, "POST /sync HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nx"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(begin.Add(testkit.Patience))
	in := bufio.NewReader(c)
	var resp *http.Response
	for resp == nil || resp.StatusCode == http.StatusEarlyHints {
		if resp, err = http.ReadResponse(in, nil); err != nil {
			t.Fatal(err)
		}
	}
	_ = resp.Body.Close()
	if took := time.Since(begin); resp.StatusCode != 401 || !resp.Close || resp.Header.Get("X-Request-Id") == "" || took > 5*time.Second {
		t.Errorf("%d after %s, close %t, %v", resp.StatusCode, took, resp.Close, resp.Header)
	}
}

// TestASlowBody is answered with 408 once nothing has come for the grace.
func TestASlowBody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	f := start(t, nil, nil)
	resp, _ := f.raw("POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\nx")
	if resp.status != 408 || !strings.Contains(string(resp.body), "problems/slow-body") {
		t.Errorf("%d %s", resp.status, resp.body)
	}
}

// TestAClosedSide: a client that has sent all and closes its side reads on, and gets its 202.
func TestAClosedSide(t *testing.T) {
	f := start(t, nil, nil)
	for range 20 {
		c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		half, _ := c.(*net.TCPConn)
		_, werr := io.WriteString(c, "POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
		if err := errors.Join(werr, half.CloseWrite(), c.SetReadDeadline(time.Now().Add(testkit.Patience))); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			t.Errorf("%d", resp.StatusCode)
		}
		_ = c.Close()
	}
}

// TestTheProxyBeforeUs: its word counts if it is trusted; a client's never does.
func TestTheProxyBeforeUs(t *testing.T) {
	fn := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		fmt.Fprintf(w, "%s|%s|%s|%s|%s", h["X-Forwarded-For"], h["X-Forwarded-Proto"], h["X-Forwarded-Host"], h["Forwarded"], h["X-Forwarded-Prefix"])
	})
	said := []string{"X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "shop.example", "Forwarded", "for=203.0.113.9", "X-Forwarded-Prefix", "/api"}
	f := start(t, fn, nil)
	if r := f.do("GET", "/orders/7", "", said...); string(r.body) != "[127.0.0.1]|[http]|["+strings.TrimPrefix(f.url, "http://")+"]|[]|[]" {
		t.Errorf("of a stranger: %s", r.body)
	}
	trusted, err := gateway.ParseTrustedProxies("192.0.2.0/24, 127.0.0.1")
	if err != nil || len(trusted) != 2 || trusted[1] != netip.MustParsePrefix("127.0.0.1/32") {
		t.Fatal(trusted, err)
	}
	f = startAs(t, fn, nil, func(c *gateway.Config) { c.TrustedProxies = trusted })
	if r := f.do("GET", "/orders/7", "", said...); string(r.body) != "[203.0.113.9, 127.0.0.1]|[https]|[shop.example]|[for=203.0.113.9]|[/api]" {
		t.Errorf("of a trusted proxy: %s", r.body)
	}
	for _, bad := range []string{"10.0.0.0/33", "proxy.example", "10.0.0.0/8;10.1.0.0/16"} {
		if _, err := gateway.ParseTrustedProxies(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestAQueryIsPassedAsItIs: also where net/url can't read it.
func TestAQueryIsPassedAsItIs(t *testing.T) {
	f := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.RawQuery) }), nil)
	for _, query := range []string{"a=1;b=2&c=3", "a=%zz&b=%41", "a=1&&b", "q=a+b%20c", "%"} {
		resp, _ := f.raw("GET /orders/7?" + query + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if string(resp.body) != query {
			t.Errorf("%s: the function gets %s", query, resp.body)
		}
	}
}

// TestNoUpgrade: a synchronous route never becomes a tunnel.
func TestNoUpgrade(t *testing.T) {
	f := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" || r.Header.Get("Http2-Settings") != "" {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
			w.WriteHeader(http.StatusSwitchingProtocols)
			return
		}
		fmt.Fprintf(w, "%v", r.Header["Connection"])
	}), nil)
	resp, _ := f.raw("GET /orders/7 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
	if resp.status != 200 || string(resp.body) != "[]" {
		t.Errorf("%d %s", resp.status, resp.body)
	}
}

// TestARouteHasItsShare: bodies that don't end take at most half of the budget if all are for one route.
func TestARouteHasItsShare(t *testing.T) {
	f := start(t, nil, nil)
	// 700 KiB each, of which all but a byte comes: more than the share, less than the budget.
	const conns = 120
	head := fmt.Sprintf("POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 700<<10) + strings.Repeat("x", 700<<10-1)
	answers := make(chan int, conns)
	for range conns {
		c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			_, _ = io.WriteString(c, head)
			if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
				answers <- resp.StatusCode
				_ = resp.Body.Close()
			}
		}()
	}
	select {
	case status := <-answers:
		if status != 503 {
			t.Errorf("%d", status)
		}
	case <-time.After(testkit.Patience):
		t.Fatal("the route has taken more than its share")
	}
	for range 20 {
		if r := f.do("POST", "/orders", `{"sku":"a"}`); r.status != 202 {
			t.Errorf("beside it: %d %s", r.status, r.body)
		}
	}
}

// TestABodyThatNobodyWants holds up no answer of Weir's own paths, nor does its connection stay.
func TestABodyThatNobodyWants(t *testing.T) {
	f := startAs(t, nil, nil, func(c *gateway.Config) {
		c.Realtime = jobapi.NewRelay(&url.URL{Scheme: "http", Host: "127.0.0.1:1"}, func(int64) {}, testkit.Log(t))
	})
	for _, path := range []string{"/weir/jobs/x/events", "/weir/jobs/x/socket", "/weir/jobs/x"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		all, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(all), "Connection: close") {
			t.Errorf("%s: %q, %v", path, all, err)
		}
		_ = conn.Close()
	}
}
