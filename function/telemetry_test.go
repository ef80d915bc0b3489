package function

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.opentelemetry.io/otel"
)

// freePort is free at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// backend takes what is exported by OTLP.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	took map[string]string // by path
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{took: map[string]string{}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			var err error
			if body, err = gzip.NewReader(r.Body); err != nil {
				t.Error(err)
				return
			}
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.took[r.URL.Path] += string(text)
	}))
	t.Cleanup(b.Close)
	return b
}

// get gets what url answers, once it does.
func get(t *testing.T, url string, ended <-chan error) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		select {
		case err := <-ended:
			t.Fatalf("Serve ended: %v", err)
		case <-t.Context().Done():
			t.Fatal("it does not answer")
		default:
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil { // it does not listen yet
			continue
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s %v", url, res.StatusCode, body, err)
		}
		return string(body)
	}
}

// TestFunctionProcess is the function of TestServeExportsBeforeItEnds.
func TestFunctionProcess(t *testing.T) {
	if os.Getenv("WEIR_TEST_FUNCTION") == "" {
		t.Skip("another test starts it in a process of its own")
	}
	mine, err := otel.Meter("mine").Int64Counter("of.the.author") // before Serve, as authors do
	if err != nil {
		t.Fatal(err)
	}
	tracer := otel.Tracer("mine")
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, span := tracer.Start(r.Context(), "the author's span")
		defer span.End()
		mine.Add(r.Context(), 1)
	})
	if err := Serve(context.Background(), os.Getenv, h); err != nil {
		t.Fatal(err)
	}
}

// TestServeExportsBeforeItEnds: an instance that is scaled to zero loses nothing, though its interval has not passed.
func TestServeExportsBeforeItEnds(t *testing.T) {
	b, port := newBackend(t), freePort(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFunctionProcess$")
	cmd.Env = append(os.Environ(), "WEIR_TEST_FUNCTION=1", "OTEL_EXPORTER_OTLP_ENDPOINT="+b.URL, "OTEL_METRIC_EXPORT_INTERVAL=3600000",
		"OTEL_BSP_SCHEDULE_DELAY=3600000", "K_SERVICE=of-knative", "PORT="+port)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	get(t, "http://127.0.0.1:"+port, ended)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for path, wanted := range map[string][]string{
		"/v1/metrics": {"of.the.author", "faas.invocations", "faas.coldstarts", "of-knative", "go.goroutine.count"},
		"/v1/traces":  {"the author's span", "faas.coldstart"},
	} {
		for _, want := range wanted {
			if !strings.Contains(b.took[path], want) {
				t.Errorf("%s has no %s", path, want)
			}
		}
	}
}

func TestServeHasAPageOfMetrics(t *testing.T) {
	port, page := freePort(t), freePort(t)
	for name, value := range map[string]string{
		"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1", "OTEL_EXPORTER_PROMETHEUS_PORT": page,
		"OTEL_SERVICE_NAME": "mine", "PORT": port,
	} {
		t.Setenv(name, value)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- Serve(ctx, os.Getenv, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) }()
	get(t, "http://127.0.0.1:"+port, ended)
	text := get(t, "http://127.0.0.1:"+page+"/metrics", ended)
	for _, want := range []string{`faas_invocations_total{`, `faas_trigger="http"`, `service_name="mine"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %s:\n%s", want, text)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// TestPageAddress: where Knative runs a function its page is for others than itself, without one more variable.
func TestPageAddress(t *testing.T) {
	const host, port = "OTEL_EXPORTER_PROMETHEUS_HOST", "OTEL_EXPORTER_PROMETHEUS_PORT"
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{nil, "localhost:9464"},
		{map[string]string{port: "9000"}, "localhost:9000"},
		{map[string]string{host: "0.0.0.0"}, "0.0.0.0:9464"},
		{map[string]string{"K_SERVICE": "order-writer"}, ":9464"},
		{map[string]string{"K_SERVICE": "order-writer", port: "9000"}, ":9000"},
		{map[string]string{"K_SERVICE": "order-writer", host: "127.0.0.1"}, "127.0.0.1:9464"},
		{map[string]string{"K_SERVICE": "order-writer", host: "::1"}, "[::1]:9464"},
	} {
		if got := pageAddress(func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%v: %s, want %s", c.env, got, c.want)
		}
	}
}

// TestServeHasAPageForOthers: a scraper reaches a Knative Service's page at an address of the pod that is not its loopback.
func TestServeHasAPageForOthers(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(addresses, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.To4() != nil && !n.IP.IsLoopback()
	})
	if i < 0 {
		t.Skip("this machine has no address but its loopback's: TestPageAddress says what is listened at")
	}
	port, page := freePort(t), freePort(t)
	for name, value := range map[string]string{
		"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": page, "K_SERVICE": "order-writer", "PORT": port,
	} {
		t.Setenv(name, value)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { ended <- Serve(ctx, os.Getenv, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) }()
	get(t, "http://127.0.0.1:"+port, ended) // the page listens before
	ip := addresses[i].(*net.IPNet).IP.String()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort(ip, page))
	if err != nil {
		t.Fatalf("nobody else reads the page: %v", err)
	}
	_ = conn.Close()
	if text := get(t, "http://"+net.JoinHostPort(ip, page)+"/metrics", ended); !strings.Contains(text, `service_name="order-writer"`) {
		t.Errorf("the page is\n%s", text)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestServeNamesThePageAddress(t *testing.T) {
	t.Setenv("OTEL_METRICS_EXPORTER", "prometheus")
	t.Setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "none")
	if err := Serve(t.Context(), os.Getenv, http.NotFoundHandler()); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_PROMETHEUS") {
		t.Errorf("got %v", err)
	}
}

func TestTraceLogs(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(TraceLogs(slog.NewJSONHandler(&out, nil)))
	r := record(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { log.InfoContext(r.Context(), "in a call") }))
	s := r.call(http.Header{}, "")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%v %v", line["trace_id"], line["span_id"]), fmt.Sprintf("%v %v", s.SpanContext().TraceID(), s.SpanContext().SpanID()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
