package function

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("WEIR_TEST_FUNCTION") != "" { // a process of TestFunctionProcess: the exporter keeps its connection
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

// A call in flight when the end comes is finished; only then does serve return.
func TestServeDrains(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		if r.Context().Err() != nil {
			t.Error("the end of intake ended the work")
		}
		_, _ = io.WriteString(w, "done")
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- serve(ctx, ln, h) }()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String()+path, nil)
		if err != nil {
			return 0, "", err
		}
		res, err := client.Do(req)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, string(body), err
	}
	if code, _, err := get("/healthz"); code != 200 || err != nil {
		t.Fatalf("healthz: %d %v", code, err)
	}
	type answer struct {
		code int
		body string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		code, body, err := get("/")
		answered <- answer{code, body, err}
	}()
	<-entered
	cancel()
	select {
	case err := <-served:
		t.Fatalf("serve returned with a call in flight: %v", err)
	case a := <-answered:
		t.Fatalf("answered early: %+v", a)
	default:
	}
	close(release)
	if a := <-answered; a.code != 200 || a.body != "done" || a.err != nil {
		t.Fatalf("the call in flight: %+v", a)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

func TestServeNamesThePort(t *testing.T) {
	err := Serve(t.Context(), func(string) string { return "not-a-port" }, http.NotFoundHandler())
	if err == nil || !strings.Contains(err.Error(), "PORT not-a-port") {
		t.Fatalf("got %v, want an error that names PORT and its value", err)
	}
}
