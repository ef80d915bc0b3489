package gateway_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/gateway"
	"github.com/weir-dev/weir/internal/testkit"
)

// variants are catalogs in which the route /moving leads to the queue orders, to the queue other, which no other
// route has, and to the function.
func (f *front) variants() []*catalog.Catalog {
	f.t.Helper()
	other := catalog.Queue{Key: key("other"), MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour}
	if err := f.conn.EnsureQueue(f.t.Context(), other, 1); err != nil {
		f.t.Fatal(err)
	}
	var out []*catalog.Catalog
	for _, route := range []catalog.Route{
		{Queue: &catalog.QueueTarget{Queue: key("orders")}},
		{Queue: &catalog.QueueTarget{Queue: other.Key}},
		{Function: f.cat.APIs[0].Routes[4].Function},
	} {
		route.Name, route.Method, route.Path, route.MaxBodyBytes = "moving", "POST", "/moving", 1000
		cat := f.cat
		api := cat.APIs[0]
		api.Routes = append([]catalog.Route{route}, api.Routes...)
		cat.APIs = []catalog.API{api}
		out = append(out, &cat)
	}
	return out
}

func (f *front) use(cat *catalog.Catalog) {
	f.t.Helper()
	f.g.Use(cat)
}

// TestCatalogChangesUnderLoad: a catalog replaces another between two requests. A request goes either the old or the
// new way, and sees nothing else of the change.
func TestCatalogChangesUnderLoad(t *testing.T) {
	f := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }), nil)
	variants := f.variants()
	f.use(variants[0])
	var wg sync.WaitGroup
	var stopped atomic.Bool
	var stored, passed atomic.Int64
	for range 8 {
		wg.Go(func() {
			for !stopped.Load() {
				switch r := f.do("POST", "/moving", `{"sku":"a"}`); r.status {
				case 202:
					stored.Add(1)
				case 200:
					passed.Add(1)
				default:
					t.Errorf("%d %s", r.status, r.body)
					return
				}
				if r := f.do("POST", "/orders", `{"sku":"a"}`); r.status != 202 {
					t.Errorf("%d %s on a route that doesn't change", r.status, r.body)
					return
				}
			}
		})
	}
	const enough = 200
	for i := 0; stored.Load() < enough || passed.Load() < enough || i < enough; i++ {
		f.use(variants[i%len(variants)])
		if t.Failed() {
			break
		}
	}
	stopped.Store(true)
	wg.Wait()
}

// TestALateRequestIsStored: its route and its queue's writer are gone by the time its body is there.
func TestALateRequestIsStored(t *testing.T) {
	f := start(t, nil, nil)
	variants := f.variants()
	f.use(variants[1])
	for range 2 { // the second time the writer of the first is gone again
		matched := make(chan struct{})
		body, send := io.Pipe()
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(matched) }})
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url+"/moving", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Expect", "100-continue")
		client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: testkit.Patience}}
		status := make(chan int, 1)
		go func() {
			defer client.CloseIdleConnections()
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				status <- 0
				return
			}
			_ = resp.Body.Close()
			status <- resp.StatusCode
		}()
		<-matched
		f.use(variants[0])
		_, _ = io.WriteString(send, "late")
		_ = send.Close()
		if got := <-status; got != 202 {
			t.Errorf("answered with %d", got)
		}
		f.use(variants[1])
	}
	testkit.Eventually(t, "the queue holds two blocks", func() bool { // the consumer's count lags a moment behind
		s, err := f.conn.Status(t.Context(), key("other"))
		return err == nil && s.Pending == 2
	})
}

// TestAClosedQueueTakesNothing: the catalog says so, or, before that has arrived, the stream.
func TestAClosedQueueTakesNothing(t *testing.T) {
	f := start(t, nil, nil)
	refused := func(by string) {
		t.Helper()
		r := f.do("POST", "/orders", `{"sku":"a"}`)
		if r.status != 503 || r.problem.Type != "https://weir.dev/problems/queue-closed" || r.problem.Title != "The queue is being deleted" || r.header.Get("Retry-After") == "" {
			t.Errorf("closed by %s: %d %v %s", by, r.status, r.header, r.body)
		}
	}
	if err := f.conn.CloseQueue(t.Context(), key("orders")); err != nil {
		t.Fatal(err)
	}
	refused("the stream")
	open := f.cat
	f.cat.Queues = []catalog.Queue{f.cat.Queues[0]}
	f.cat.Queues[0].Closed = true
	closed := f.cat
	f.use(&closed)
	refused("the catalog")
	if s, err := f.conn.Status(t.Context(), key("orders")); err != nil || s.QueueBytes != 0 {
		t.Errorf("something was stored: %+v %v", s, err)
	}
	// It is created again under its name.
	if err := f.conn.EnsureQueue(t.Context(), open.Queues[0], 1); err != nil {
		t.Fatal(err)
	}
	refused("the catalog")
	f.use(&open)
	if r := f.do("POST", "/orders", `{"sku":"a"}`); r.status != 202 {
		t.Errorf("%d %s after it was opened", r.status, r.body)
	}
}

// TestStopBreaksNoConnectionInUse: clients that send one request after the other are told to go elsewhere; no
// connection ends under a request. What is refused is a new connection only.
func TestStopBreaksNoConnectionInUse(t *testing.T) {
	f := start(t, nil, nil)
	var wg sync.WaitGroup
	var answered atomic.Int64
	for range 8 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				reused := false
				ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url+"/orders", strings.NewReader(`{"sku":"a"}`))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					if reused {
						t.Errorf("a connection broke under a request: %v", err)
					}
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != 202 {
					t.Errorf("%d while it stops", resp.StatusCode)
				}
				answered.Add(1)
			}
		})
	}
	testkit.Eventually(t, "requests are under way", func() bool { return answered.Load() > 100 })
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// logged is a log that can be read.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestALazySyncIsSaidLoudly(t *testing.T) {
	for _, row := range []struct {
		sync string
		lazy bool
	}{{"", false}, {"always", false}, {"2m", true}} {
		log := &logged{}
		f := startAs(t, nil, nil, func(c *gateway.Config) {
			c.Sync, c.Log = row.sync, slog.New(slog.NewTextHandler(log, nil))
		})
		shown, err := f.g.Ready()
		if err != nil || (shown["sync"] == "2m") != row.lazy || (shown["sync"] != "") != row.lazy {
			t.Errorf("%q: %v, %v", row.sync, shown, err)
		}
		if strings.Contains(log.String(), "level=WARN msg=\"NATS syncs lazily") != row.lazy {
			t.Errorf("%q: the log says %s", row.sync, log)
		}
	}
}
