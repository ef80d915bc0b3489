package local

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCallsAsInTheCluster: of fifteen calls at once, one runs and ten wait for their turn, as long as it takes; four are
// refused at once. With queue-proxy it is so with containerConcurrency 1.
func TestCallsAsInTheCluster(t *testing.T) {
	release := make(chan struct{})
	var mu sync.Mutex
	in, most := 0, 0
	h := proxied(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		in++
		most = max(most, in)
		mu.Unlock()
		<-release
		mu.Lock()
		in--
		mu.Unlock()
	}), manifest.Service{ContainerConcurrency: 1, MaxScale: 1, Timeout: testkit.Patience})
	answers := make(chan int, 15)
	var wg sync.WaitGroup
	for range cap(answers) {
		wg.Go(func() {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", http.NoBody))
			answers <- rec.Code
		})
	}
	for range 4 {
		if status := <-answers; status != http.StatusServiceUnavailable {
			t.Errorf("one too many: %d", status)
		}
	}
	close(release)
	wg.Wait()
	for range 11 {
		if status := <-answers; status != http.StatusOK {
			t.Errorf("one that waits: %d", status)
		}
	}
	if most != 1 {
		t.Errorf("%d calls at once", most)
	}
}

// TestACallThatTakesTooLong is answered by the host, and its context ends.
func TestACallThatTakesTooLong(t *testing.T) {
	h := proxied(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), manifest.Service{Timeout: 50 * time.Millisecond})
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", http.NoBody))
	if rec.Code != http.StatusGatewayTimeout {
		t.Errorf("%d", rec.Code)
	}
}

func TestSecretsBecomeFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "db", "password"), []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	service := manifest.Service{
		Env: []manifest.EnvVar{
			{Name: "PLAIN", Value: "x"},
			{Name: "PASSWORD", SecretName: "db", SecretKey: "password"},
			{Name: "URL_FILE", Value: "/var/run/secrets/db/url"},
			{Name: "OTHER", Value: "/var/run/secrets/dbx/url"},
		},
		SecretMounts: []manifest.SecretMount{{Path: "/var/run/secrets/db", SecretName: "db"}},
	}
	getenv, err := environment(service, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"", filepath.Join(dir, "nowhere")} {
		if _, err := environment(service, folder); err == nil || !strings.Contains(err.Error(), "--secrets") {
			t.Errorf("without the Secret: %v", err)
		}
	}
	for name, want := range map[string]string{
		"PLAIN": "x", "PASSWORD": "s3cret", "URL_FILE": filepath.Join(dir, "db", "url"), "OTHER": "/var/run/secrets/dbx/url", "HOME": "",
	} {
		if got := getenv(name); got != want {
			t.Errorf("%s=%q, want %q", name, got, want)
		}
	}
}

func TestWhatCanNotRunHereIsSaid(t *testing.T) {
	h := &hosts{log: testkit.Log(t)}
	defer h.close()
	err := h.open(t.Context(), Config{Log: testkit.Log(t), Functions: map[string]string{"nobody": "http://127.0.0.1:1"}},
		[]manifest.Service{{Key: catalog.Key{Namespace: "default", Name: "mine"}, Image: "example.com/mine:v1", Timeout: time.Second}}, false)
	if err == nil || !strings.Contains(err.Error(), "--function mine=http") || !strings.Contains(err.Error(), "--function nobody") {
		t.Errorf("%v", err)
	}
}

// TestOwnProcessThatIsAwayIsNotNow: the user's process may be started after `weir local`.
func TestOwnProcessThatIsAwayIsNotNow(t *testing.T) {
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	url := own.URL
	h := &hosts{log: testkit.Log(t)}
	defer h.close()
	k := catalog.Key{Namespace: "default", Name: "mine"}
	var said strings.Builder // read once all has ended
	log := slog.New(slog.NewTextHandler(&said, nil))
	err := h.open(t.Context(), Config{Log: log, Functions: map[string]string{"mine": url}},
		[]manifest.Service{{Key: k, Image: "example.com/mine", Timeout: time.Minute, ContainerConcurrency: 1, MaxScale: 1}}, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.run(ctx, func() {}) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	post := func() (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url(k), strings.NewReader("hi"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if status, body := post(); status != 200 || body != "hi" {
		t.Errorf("%d %s", status, body)
	}
	own.Close()
	// The call that finds the kept connection broken can't know whether it was seen; those after it can.
	testkit.Eventually(t, "the process is seen to be away", func() bool { status, _ := post(); return status == 503 })
	post()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	done <- nil
	if n := strings.Count(said.String(), "your process can't be reached"); n != 1 || !strings.Contains(said.String(), url) {
		t.Errorf("the log says it %d times: %s", n, said.String())
	}
}

// TestOwnProcessSeesTheClient: who asked, and by which name, is what the gateway says and not the hop on loopback.
func TestOwnProcessSeesTheClient(t *testing.T) {
	seen := make(chan http.Header, 1)
	own := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header }))
	defer own.Close()
	s := manifest.Service{Key: catalog.Key{Namespace: "default", Name: "f"}, Timeout: time.Minute}
	h := &hosts{log: testkit.Log(t)}
	defer h.close()
	if err := h.open(t.Context(), Config{Functions: map[string]string{"f": own.URL}, Log: testkit.Log(t)}, []manifest.Service{s}, false); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/orders/1", http.NoBody)
	said := map[string]string{"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Host": "shop.example.com", "X-Forwarded-Proto": "https"}
	for name, v := range said {
		r.Header.Set(name, v)
	}
	w := httptest.NewRecorder()
	h.list[0].srv.Handler.ServeHTTP(w, r)
	got := <-seen
	for name, v := range said {
		if got.Get(name) != v {
			t.Errorf("%s is %q, want %q", name, got.Get(name), v)
		}
	}
}

// TestOwnProcessThatSpeaksHTTP2: it is called as Knative calls a container whose port is named h2c.
func TestOwnProcessThatSpeaksHTTP2(t *testing.T) {
	own := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Proto+" "+string(body))
	}))
	own.Config.Protocols = new(http.Protocols)
	own.Config.Protocols.SetUnencryptedHTTP2(true) // and nothing else
	own.Start()
	s := manifest.Service{Key: catalog.Key{Namespace: "default", Name: "f"}, Timeout: time.Minute, H2C: true}
	h := &hosts{log: testkit.Log(t)}
	defer own.Close() // once there is no connection to it
	defer h.close()
	if err := h.open(t.Context(), Config{Functions: map[string]string{"f": own.URL}, Log: testkit.Log(t)}, []manifest.Service{s}, false); err != nil {
		t.Fatal(err)
	}
	post := func(path, body string) (int, string) {
		w := httptest.NewRecorder()
		h.list[0].srv.Handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	if status, body := post("/", "hi"); status != http.StatusOK || body != "HTTP/2.0 hi" {
		t.Errorf("%d %s", status, body)
	}
	for range 20 {
		if status, _ := post("/early", strings.Repeat("x", 1<<20)); status != http.StatusTooManyRequests {
			t.Errorf("answered early: %d", status)
		}
	}
	own.CloseClientConnections()
	own.Close()
	testkit.Eventually(t, "it is away, which is no failure", func() bool {
		status, _ := post("/", "hi") // the first may still find the connection
		return status == http.StatusServiceUnavailable
	})
	tls := &hosts{log: testkit.Log(t)}
	defer tls.close()
	if err := tls.open(t.Context(), Config{Functions: map[string]string{"f": "https://127.0.0.1:1"}, Log: testkit.Log(t)}, []manifest.Service{s}, false); err == nil || !strings.Contains(err.Error(), "h2c") {
		t.Errorf("by TLS: %v", err)
	}
}
