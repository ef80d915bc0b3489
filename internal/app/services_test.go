package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/app"
	appdispatcher "github.com/weir-dev/weir/internal/app/dispatcher"
	appgateway "github.com/weir-dev/weir/internal/app/gateway"
	apprealtime "github.com/weir-dev/weir/internal/app/realtime"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// runs runs a service until the returned function is called.
func runs(t *testing.T, run func(context.Context, app.Config, *stream.Conn) error, cfg app.Config, conn *stream.Conn) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg, conn) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// get returns status and body; 0 when there is no answer.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

var orders = catalog.Key{Namespace: "default", Name: "orders"}

func shop(functionURL string) (catalog.Queue, *catalog.Catalog) {
	q := catalog.Queue{
		Key: orders, MaxAge: time.Hour, MaxBytes: 64 << 20, DeadLetterMaxAge: time.Hour,
		Jobs: true, Results: catalog.Results{MaxAge: time.Hour, MaxBytes: 16 << 20}, Objects: catalog.Objects{MaxAge: 2 * time.Hour, MaxBytes: 16 << 20},
	}
	return q, &catalog.Catalog{
		Queues: []catalog.Queue{q},
		APIs: []catalog.API{{Key: catalog.Key{Namespace: "default", Name: "shop"}, Routes: []catalog.Route{
			{Name: "create", Method: "POST", Path: "/orders", MaxBodyBytes: 1000, Queue: &catalog.QueueTarget{Queue: orders}},
			{Name: "report", Method: "POST", Path: "/reports", MaxBodyBytes: 1000, Job: &catalog.QueueTarget{Queue: orders}, MaxUpload: 1 << 20},
		}}},
		Mappings: []catalog.Mapping{{
			Key: orders, Queue: orders, Function: catalog.Function{Name: "f", URL: functionURL}, MaxConcurrency: 2, Timeout: testkit.Patience,
			Batch: catalog.Batch{MaxRecords: 1, MaxBytes: 1 << 20}, Heartbeat: time.Hour, MaxResultBytes: 16 << 20,
			Retry: catalog.Retry{MaxAttempts: 3, InitialBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, MaxAge: time.Hour},
		}},
	}
}

// TestServicesNeedNoMoreRights: an order that fails once, one that is refused and one that is fine, and jobs of every
// kind, pass through gateway, dispatcher and realtime, each over TLS as its own user with the rights of natsConf and no others.
func TestServicesNeedNoMoreRights(t *testing.T) {
	s := newSecureNATS(t)
	var failed atomic.Bool
	callbacks := make(chan string, 10)
	fn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case bytes.Equal(body, []byte("once")) && failed.CompareAndSwap(false, true):
			w.WriteHeader(http.StatusInternalServerError)
		case bytes.Equal(body, []byte("large")):
			_, _ = io.Copy(w, noise(1, 1<<20))
		case bytes.Equal(body, []byte("never")):
			w.WriteHeader(http.StatusBadRequest)
		case bytes.Equal(body, []byte("goes on")):
			w.WriteHeader(http.StatusAccepted)
			callbacks <- r.Header.Get("Weir-Callback")
		}
	}))
	defer fn.Close()
	control, _ := s.connect("controller")
	q, cat := shop(fn.URL)
	if err := control.EnsureLeases(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := control.EnsureKeys(t.Context(), 1, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := control.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Fatal(err)
	}

	frontAddr, frontProbes, probes, pushAddr, pushProbes := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	gcfg, glog := s.config("gateway", "WEIR_LISTEN", frontAddr, "WEIR_HEALTH_LISTEN", frontProbes, "WEIR_REALTIME_URL", "http://"+pushAddr)
	rcfg, rlog := s.config("realtime", "WEIR_LISTEN", pushAddr, "WEIR_HEALTH_LISTEN", pushProbes)
	dcfg, dlog := s.config("dispatcher", "WEIR_HEALTH_LISTEN", probes, "WEIR_CALLBACK_URL", "http://"+frontAddr)
	front, back := s.dial(gcfg), s.dial(dcfg)
	stopGateway := runs(t, appgateway.Run, gcfg, front)
	stopDispatcher := runs(t, appdispatcher.Run, dcfg, back)
	stopRealtime := runs(t, apprealtime.Run, rcfg, s.dial(rcfg))

	testkit.Eventually(t, "the dispatcher lives", func() bool { status, _ := get(t, "http://"+probes+"/healthz"); return status == 200 })
	if status, body := get(t, "http://"+probes+"/readyz"); status != 503 || !strings.Contains(body, "catalog") {
		t.Errorf("the dispatcher without a catalog: %d %s", status, body)
	}
	if err := control.PublishCatalog(t.Context(), cat, 1, nil); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{frontProbes, probes, pushProbes} {
		testkit.Eventually(t, "it is ready", func() bool { status, _ := get(t, "http://"+addr+"/readyz"); return status == 200 })
	}
	var ready map[string]string
	if _, body := get(t, "http://"+probes+"/readyz"); json.Unmarshal([]byte(body), &ready) != nil || ready["status"] != "ready" || ready["catalog"] != cat.Revision() || ready["nats"] != "" {
		t.Errorf("the dispatcher's readiness: %s", body)
	}

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, body := range []string{"fine", "once", "never"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+frontAddr+"/orders", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 202 {
			t.Fatalf("%s: %d", body, resp.StatusCode)
		}
	}
	testkit.Eventually(t, "all is settled, one is dead, and the disk is free", func() bool {
		st, err := control.Status(t.Context(), orders)
		return err == nil && st.Empty() && st.Dead == 1 && st.QueueBytes == 0 && failed.Load()
	})

	j := &jobs{t: t, url: "http://" + frontAddr}
	for _, row := range []struct {
		body, key string
		status    int
	}{{"fine", "", 200}, {"fine", "k", 200}, {"fine", "k", 200}, {"other", "k", 422}, {"never", "", 400}} {
		header := []string{"Prefer", "wait=20"}
		if row.key != "" {
			header = append(header, "Idempotency-Key", row.key)
		}
		if r := j.do("POST", "/reports", row.body, header...); r.status != row.status {
			t.Errorf("job %+v: %+v", row, r)
		} else if path := r.header.Get("Operation-Location"); path != "" && j.do("DELETE", path, "").status != 409 {
			t.Errorf("job %+v has not ended", row)
		}
	}

	if r := j.do("POST", "/reports", "large", "Prefer", "wait=20"); r.status != 200 || len(r.body) != 1<<20 {
		t.Errorf("a large result: %d, %d bytes", r.status, len(r.body))
	}
	u := j.askUpload(5, "")
	j.put(u, strings.NewReader("large"), 5)
	if r := j.do("POST", "/reports", "", "Weir-Input", u.ID, "Prefer", "wait=20"); r.status != 200 || len(r.body) != 1<<20 {
		t.Errorf("an upload and a large result: %d, %d bytes", r.status, len(r.body))
	}
	f := j.feed(nil)
	j.submit("fine", "Weir-Feed", f.id)
	f.until(1)
	f.close()

	path := j.submit("goes on")
	for _, status := range []string{"failed", "succeeded"} { // the first attempt, the second
		if r := j.do("POST", strings.TrimPrefix(<-callbacks, j.url)+"?status="+status, ""); r.status != http.StatusNoContent {
			t.Errorf("%s: %+v", status, r)
		}
	}
	events := j.do("GET", path+"/events", "").body // the stream ends with the job
	if !strings.HasSuffix(events, "\n\n") || !strings.Contains(events, `"status":"succeeded"`) {
		t.Errorf("events: %s", events)
	}

	testkit.Eventually(t, "the dispatcher says what of the queue is settled, and the controller gets its answer", func() bool {
		d, err := control.Depth(t.Context(), orders)
		return err == nil && d.Owned && d.Settled > 0 && d.Waiting == 0 && d.Uncertainty == 0 && d.Unaccounted == 0 && d.Dead[stream.Refused] == 2
	})

	// A change reaches all without a restart: the ordered consumer of the catalog goes on.
	cat.Mappings[0].MaxConcurrency = 3
	if err := control.PublishCatalog(t.Context(), cat, 1, nil); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{frontProbes, probes, pushProbes} {
		testkit.Eventually(t, "the change has come", func() bool {
			_, body := get(t, "http://"+addr+"/readyz")
			return strings.Contains(body, cat.Revision())
		})
	}

	stopGateway()
	stopDispatcher()
	stopRealtime()
	if lease, err := control.TryLease(t.Context(), "queue.default.orders", "next"); err != nil {
		t.Errorf("the dispatcher has not given its lease up: %v", err)
	} else {
		lease.Release()
	}
	for _, log := range []*logged{glog, dlog, rlog} {
		if log.says("permissions violation") {
			t.Errorf("something is not permitted that is tried: %s", log)
		}
	}

	// Nor have they more than that. What is there already, anybody may publish: it writes nothing.
	other := *cat
	other.Mappings = slices.Clone(cat.Mappings)
	other.Mappings[0].MaxConcurrency++
	operator, _ := s.connect("operator")
	if err := operator.Redrive(t.Context(), orders, 0, func(int) {}); err != nil {
		t.Errorf("the operator can't redrive: %v", err)
	}
	short := func(f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // NATS says no to the connection, not to the request
		defer cancel()
		return f(ctx)
	}
	for _, row := range []struct {
		what string
		conn *stream.Conn
		f    func(context.Context, *stream.Conn) error
	}{
		{"the gateway makes a queue", front, func(ctx context.Context, c *stream.Conn) error { return c.EnsureQueue(ctx, q, 1) }},
		{"the gateway reads a queue", front, func(ctx context.Context, c *stream.Conn) error { _, err := c.OpenReader(ctx, orders); return err }},
		{"the gateway takes a lease", front, func(ctx context.Context, c *stream.Conn) error { _, err := c.TryLease(ctx, "x", "y"); return err }},
		{"the gateway publishes a catalog", front, func(ctx context.Context, c *stream.Conn) error { return c.PublishCatalog(ctx, &other, 1, nil) }},
		{"the gateway makes keys", front, func(ctx context.Context, c *stream.Conn) error { return c.EnsureKeys(ctx, 1, time.Now()) }},
		{"the dispatcher makes keys", back, func(ctx context.Context, c *stream.Conn) error { return c.EnsureKeys(ctx, 1, time.Now()) }},
		{"the dispatcher makes a queue", back, func(ctx context.Context, c *stream.Conn) error { return c.EnsureQueue(ctx, q, 1) }},
		{"the dispatcher deletes a queue", back, func(ctx context.Context, c *stream.Conn) error { return c.DeleteQueue(ctx, orders) }},
		{"the dispatcher publishes a catalog", back, func(ctx context.Context, c *stream.Conn) error { return c.PublishCatalog(ctx, &other, 1, nil) }},
	} {
		if err := short(func(ctx context.Context) error { return row.f(ctx, row.conn) }); err == nil {
			t.Errorf("%s", row.what)
		}
	}
}

// TestTheDispatcherIsNotReadyWithoutNATS, and stays alive all the same.
func TestTheDispatcherIsNotReadyWithoutNATS(t *testing.T) {
	s := newSecureNATS(t)
	probes := freePort(t)
	cfg, _ := s.config("dispatcher", "WEIR_HEALTH_LISTEN", probes)
	control, _ := s.connect("controller")
	if err := control.PublishCatalog(t.Context(), &catalog.Catalog{}, 1, nil); err != nil {
		t.Fatal(err)
	}
	runs(t, appdispatcher.Run, cfg, s.dial(cfg))
	testkit.Eventually(t, "it is ready", func() bool { status, _ := get(t, "http://"+probes+"/readyz"); return status == 200 })
	s.srv.Shutdown()
	testkit.Eventually(t, "it is not", func() bool {
		status, body := get(t, "http://"+probes+"/readyz")
		return status == 503 && strings.Contains(body, "https://weir.dev/problems/unavailable")
	})
	if status, _ := get(t, "http://"+probes+"/healthz"); status != 200 {
		t.Errorf("healthz: %d", status)
	}
}

// TestHealthAnswersWhileOthersDrain: it says so from the beginning of the drain.
func TestHealthAnswersWhileOthersDrain(t *testing.T) {
	addr := freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	draining, drained := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- lifecycle.Run(ctx, testkit.Log(t), func() {},
			app.Health(ctx, addr, func() (map[string]string, error) { return nil, nil }, app.Admin{}),
			lifecycle.Part{Name: "work", Run: func(ctx context.Context, ready func()) error {
				ready()
				<-ctx.Done()
				close(draining)
				<-drained
				return nil
			}})
	}()
	testkit.Eventually(t, "it is ready", func() bool {
		status, body := get(t, "http://"+addr+"/readyz")
		return status == 200 && body == "{\"status\":\"ready\"}\n"
	})
	cancel()
	<-draining
	if status, body := get(t, "http://"+addr+"/readyz"); status != 503 || !strings.Contains(body, "Draining") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get(t, "http://"+addr+"/healthz"); status != 200 {
		t.Errorf("healthz: %d", status)
	}
	close(drained)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestHealthNamesAnAddressThatIsTaken(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	part := app.Health(t.Context(), s.Listener.Addr().String(), func() (map[string]string, error) { return nil, nil }, app.Admin{})
	if err := part.Run(t.Context(), func() {}); err == nil || !strings.Contains(err.Error(), "WEIR_HEALTH_LISTEN") {
		t.Errorf("%v", err)
	}
}
