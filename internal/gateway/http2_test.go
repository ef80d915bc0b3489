package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/gateway"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/testkit"
)

// startHTTP2 starts a gateway that serves HTTP/2 by prior knowledge, with a client that speaks nothing else. dialled are
// the client's connections.
func startHTTP2(t *testing.T, fn http.Handler, change func(*catalog.Catalog)) (f *front, dialled *atomic.Int32) {
	t.Helper()
	f = startAs(t, fn, change, func(c *gateway.Config) {
		c.H2C, c.Realtime = true, jobapi.NewRelay(&url.URL{Scheme: "http", Host: "127.0.0.1:1"}, func(int64) {}, testkit.Log(t))
	})
	dialled = new(atomic.Int32)
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	f.client.Transport = &http.Transport{Protocols: only, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}}
	return f, dialled
}

// TestHTTP2: both versions on one port, if that is wanted.
func TestHTTP2(t *testing.T) {
	f, _ := startHTTP2(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v", body, r.Header["X-Forwarded-Host"])
	}), nil)
	for _, row := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/orders", `{"sku":"a"}`, 202},
		{"POST", "/orders", `{}`, 400},
		{"POST", "/raw", `"` + strings.Repeat("x", 600<<10) + `"`, 202},
		{"POST", "/sync", "x", 200},
		{"GET", "/orders/7", "", 200},
		{"GET", "/nowhere", "", 404},
		{"GET", "/weir/jobs/x/socket", "", 501},
	} {
		r := f.do(row.method, row.path, row.body, "Content-Type", "application/json")
		if r.status != row.status {
			t.Errorf("%s %s: %d %s", row.method, row.path, r.status, r.body)
		}
		if row.status == 501 && (r.problem.Type != "https://weir.dev/problems/no-websocket" || r.header.Get("Upgrade") != "") {
			t.Errorf("a socket: %v %s", r.header, r.body)
		}
	}
	if r := f.do("POST", "/sync", "x"); string(r.body) != "x ["+strings.TrimPrefix(f.url, "http://")+"]" {
		t.Errorf("the function gets %s", r.body)
	}
	if r, _ := f.raw("GET /orders/7 HTTP/1.1\r\nHost: a\r\n\r\n"); r.status != 200 {
		t.Errorf("by HTTP/1.1: %d", r.status)
	}

	off := start(t, nil, nil)
	off.client.Transport = f.client.Transport
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, off.url+"/orders/7", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := off.client.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Errorf("HTTP/2 is served though it is off: %s", resp.Status)
	}
}

// begun is a body of which no more comes than its beginning. A transport that gives it up closes it.
func begun(t *testing.T, beginning string) io.Reader {
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	go func() { _, _ = io.WriteString(w, beginning) }()
	return r
}

// TestHTTP2AnswersDontWaitForTheBody, and what is refused costs the connection's other requests nothing.
func TestHTTP2AnswersDontWaitForTheBody(t *testing.T) {
	held, hold := make(chan struct{}), make(chan struct{})
	f, dialled := startHTTP2(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/orders/held":
			close(held)
			<-hold
		case "/early":
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = io.Copy(io.Discard, r.Body)
		}
	}), func(c *catalog.Catalog) {
		early, slow := c.APIs[0].Routes[4], *c.APIs[0].Routes[2].Function
		slow.Timeout = testkit.Patience
		c.APIs[0].Routes[2].Function = &slow
		early.Name, early.Path = "early", "/early"
		early.Function = &slow
		c.APIs[0].Routes[1].ContentTypes = []string{"text/plain"}
		c.APIs[0].Routes = append(c.APIs[0].Routes, early, catalog.Route{
			Name: "throttled", Method: "POST", Path: "/throttled", MaxBodyBytes: 1000, Throttle: &catalog.Throttle{Rate: 0.001, Burst: 1},
			Queue: &catalog.QueueTarget{Queue: key("orders")},
		})
	})
	neighbour := make(chan reply)
	go func() { neighbour <- f.do("GET", "/orders/held", "") }()
	<-held
	f.do("POST", "/throttled", "x")
	for range 3 {
		for _, row := range []struct {
			method, path string
			length       int64
			status       int
		}{
			{"POST", "/nowhere", -1, 404},
			{"PUT", "/orders", -1, 405},
			{"POST", "/throttled", 900, 429},
			{"POST", "/raw", -1, 415},
			{"POST", "/sync", 1001, 413},
			{"POST", "/sync", -1, 408}, // after the route's timeout of 300 ms
			{"POST", "/early", -1, 401},
		} {
			req, err := http.NewRequestWithContext(t.Context(), row.method, f.url+row.path, begun(t, ""))
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = row.length
			req.Header.Set("Content-Type", "image/png")
			begin := time.Now()
			resp, err := f.client.Do(req)
			if err != nil {
				t.Errorf("%s: %v", row.path, err)
				continue
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != row.status || err != nil || time.Since(begin) > 5*time.Second {
				t.Errorf("%s: %d %s, %v after %s", row.path, resp.StatusCode, body, err, time.Since(begin))
			}
		}
	}
	close(hold)
	if r := <-neighbour; r.status != 200 {
		t.Errorf("the neighbour: %d %s", r.status, r.body)
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestHTTP2ASlowBody is answered with 408 once nothing has come for the grace; a neighbour goes on.
func TestHTTP2ASlowBody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	f, dialled := startHTTP2(t, nil, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/raw", begun(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != 408 || err != nil || !strings.Contains(string(body), "problems/slow-body") {
		t.Errorf("%d %s, %v", resp.StatusCode, body, err)
	}
	if r := f.do("POST", "/raw", "x"); r.status != 202 || dialled.Load() != 1 {
		t.Errorf("after it: %d, %d connections", r.status, dialled.Load())
	}
}

// TestHTTP2Drain: what is in flight is answered, and an idle connection holds nothing up.
func TestHTTP2Drain(t *testing.T) {
	held, hold := make(chan struct{}), make(chan struct{})
	f, dialled := startHTTP2(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/orders/held" {
			close(held)
			<-hold
		}
	}), func(c *catalog.Catalog) { c.APIs[0].Routes[2].Function.Timeout = testkit.Patience })
	inFlight := make(chan reply)
	go func() { inFlight <- f.do("GET", "/orders/held", "") }()
	<-held
	begin, stopped := time.Now(), make(chan error)
	go func() { stopped <- f.stop() }()
	testkit.Eventually(t, "it drains", func() bool { _, err := f.g.Ready(); return err != nil })
	f.do("GET", "/orders/7", "") // its answer tells the client to go
	if r, err := f.client.Get(f.url + "/orders/7"); err == nil {
		_ = r.Body.Close()
	}
	if n := dialled.Load(); n < 2 {
		t.Errorf("a client stays on %d connection of a gateway that drains", n)
	}
	close(hold)
	if r := <-inFlight; r.status != 200 {
		t.Errorf("in flight: %d %s", r.status, r.body)
	}
	if err := <-stopped; err != nil || time.Since(begin) > testkit.Patience/2 {
		t.Errorf("stopped with %v after %s", err, time.Since(begin))
	}
}

// TestHTTP2IsBounded: streams of a connection, and what may be sent before anybody reads it.
func TestHTTP2IsBounded(t *testing.T) {
	f, _ := startHTTP2(t, nil, nil)
	c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	frames := http2.NewFramer(c, c)
	if err := frames.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	got := map[http2.SettingID]uint32{}
	for got[http2.SettingMaxConcurrentStreams] == 0 {
		frame, err := frames.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := frame.(*http2.SettingsFrame); ok {
			_ = s.ForeachSetting(func(s http2.Setting) error { got[s.ID] = s.Val; return nil })
		}
	}
	if got[http2.SettingMaxConcurrentStreams] != 128 || got[http2.SettingInitialWindowSize] != 64<<10 || got[http2.SettingMaxHeaderListSize] > 80<<10 || got[http2.SettingEnableConnectProtocol] != 0 {
		t.Errorf("%v", got)
	}
}
