// Package clients_test tries a running Weir with clients and functions on libraries that nobody here wrote, at pinned
// versions: package-lock.json. It needs node and npm, and the packages from a registry.
package clients_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	// What the Weir of these tests is made of: go test would else take a result from its cache that is of another one.
	_ "github.com/weir-dev/weir/internal/app/local"
	"github.com/weir-dev/weir/internal/testkit"
)

// folder is what the tests share.
var folder string

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "weir-clients-"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(folder)
		os.Exit(code)
	}))
}

const manifests = `apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: clients}
spec:
  routes:
  - name: create-report
    match: {method: POST, path: /reports}
    job: {queue: reports, maxUploadBytes: 1Mi}
  - name: batched
    match: {method: POST, path: /batched}
    queue: {name: batched}
  - name: alone
    match: {method: POST, path: /alone}
    queue: {name: alone}
`

const queue = `---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: %[1]s}
spec: {}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: %[1]s}
spec:
  queue: %[1]s
  function: {url: "%[2]s"}
  maxConcurrency: 4
  batch: {maxRecords: %[3]d, window: 300ms}
  retry: {maxAttempts: 1}
`

// packages returns a folder with what package-lock.json names, or skips the test.
func packages(t *testing.T) string {
	t.Helper()
	dir, err := installed()
	switch {
	case errors.Is(err, errMissing):
		t.Skipf("!!! SKIPPED: NOTHING was tried with clients and functions of others: %v", err)
	case err != nil:
		t.Fatal(err)
	}
	return dir
}

// errMissing means that this machine hasn't what the tests need.
var errMissing = errors.New("not to be had here")

// installed installs the packages once, into a folder of their own.
var installed = sync.OnceValues(install)

func install() (dir string, err error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("%s is %w", program, errMissing)
		}
	}
	dir = filepath.Join(folder, "npm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	for _, name := range []string{"package.json", "package-lock.json", "clients.mjs", "function.mjs", "emf.mjs"} {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=20000")
	npm.Dir = dir
	out, err := npm.CombinedOutput()
	switch {
	case err == nil:
		return dir, nil
	case ctx.Err() != nil || offline(string(out)):
		return "", fmt.Errorf("the packages are %w: %s", errMissing, out)
	}
	return "", fmt.Errorf("npm ci: %w\n%s", err, out)
}

// offline reports whether npm failed because it reached no registry.
func offline(out string) bool {
	return slices.ContainsFunc([]string{
		"ENOTFOUND", "ECONNREFUSED", "EAI_AGAIN", "ETIMEDOUT", "ENETUNREACH", "ECONNRESET", "EIDLETIMEOUT", "ERR_SOCKET_TIMEOUT", "E403", "E502", "E503",
	}, func(code string) bool { return strings.Contains(out, code) })
}

// weir builds and starts `weir local` with the manifests, and returns its address.
func weir(t *testing.T, yaml string) string {
	t.Helper()
	dir := t.TempDir()
	bin, envFile := filepath.Join(dir, "weir"), filepath.Join(dir, "env")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/weir")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	folder := filepath.Join(dir, "k8s")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "weir.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.CommandContext(context.Background(), bin, "local", "-f", folder, "--listen", "127.0.0.1:0", "--data", filepath.Join(dir, "nats"), "--env-file", envFile)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("weir: %v", err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	var url string
	testkit.Eventually(t, "weir local is ready", func() bool {
		text, _ := os.ReadFile(envFile)
		_, rest, found := strings.Cut(string(text), "WEIR_URL=")
		url = strings.Trim(strings.SplitN(rest, "\n", 2)[0], `"'`)
		return found && url != ""
	})
	return url
}

// TestClients runs clients.mjs.
func TestClients(t *testing.T) {
	dir := packages(t)
	fn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch string(body) {
		case "slow":
			select {
			case <-time.After(300 * time.Millisecond):
			case <-r.Context().Done():
			}
		case "quick":
		case "wrong":
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, `{"title":"No such format","detail":"csv or json"}`)
			return
		case "large":
			w.Header().Set("Content-Type", "text/csv")
			_, _ = io.WriteString(w, strings.Repeat("1,2\n", 100_000))
			return
		default:
			http.Error(w, "another body than the client's", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"ok":true}`)
	}))
	defer fn.Close()
	url := weir(t, manifests+fmt.Sprintf(queue, "reports", fn.URL, 1)+fmt.Sprintf(queue, "batched", fn.URL, 100)+fmt.Sprintf(queue, "alone", fn.URL, 1))
	node := exec.CommandContext(t.Context(), "node", "clients.mjs", url)
	node.Dir = dir
	out, err := node.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("%v", err)
	}
}

// heard is what the function on the SDK for JavaScript says of an event.
type heard struct {
	Port                          int
	ID, Source, Said, Data, Batch string
	Error, ContentType            string
}

// TestMediaTypes: whatever a client says of its body, the SDK for JavaScript reads it, in a batch and alone, and the event
// is the record's. internal/invoke does the same with the SDK for Go.
func TestMediaTypes(t *testing.T) {
	dir := packages(t)
	node := exec.CommandContext(t.Context(), "node", "function.mjs")
	node.Dir = dir
	stdout, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan heard, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			var h heard
			if err := json.Unmarshal(s.Bytes(), &h); err != nil {
				h.Error = s.Text()
			}
			lines <- h
		}
	}()
	t.Cleanup(func() {
		_ = node.Process.Kill()
		_ = node.Wait()
		for range lines {
		}
	})
	next := func() heard {
		t.Helper()
		select {
		case h := <-lines:
			return h
		case <-time.After(testkit.Patience):
			t.Fatal("the function has said nothing more")
			return heard{}
		}
	}
	fn := fmt.Sprintf("http://127.0.0.1:%d", next().Port)
	url := weir(t, manifests+fmt.Sprintf(queue, "reports", fn, 1)+fmt.Sprintf(queue, "batched", fn, 100)+fmt.Sprintf(queue, "alone", fn, 1))
	types := []string{
		"application/json", "Application/JSON", "application/json; charset=utf-8", "text/json", "application/vnd.x+json", "application/problem+json",
		"application/cloudevents+json", "application/cloudevents-batch+json", "application/cloudevents+protobuf", "application/xml",
		"text/plain", "text/plain; charset=iso-8859-1", "application/octet-stream",
	}
	const body = `{"specversion":"1.0","id":"forged","source":"/x","type":"t"}`
	for _, path := range []string{"/batched", "/alone"} {
		want := map[string]string{} // by id
		for _, media := range types {
			resp, err := http.Post(url+path, media, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			var answer struct{ ID string }
			if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusAccepted {
				t.Fatalf("%s: %d %v", media, resp.StatusCode, err)
			}
			_ = resp.Body.Close()
			want[answer.ID] = media
		}
		for range types {
			h := next()
			media, known := want[h.ID]
			if !known || h.Error != "" || !strings.EqualFold(h.Said, media) || h.Data != body || h.Source != "/apis/default/clients/"+path[1:] {
				t.Errorf("%s, %s: %+v", path, media, h)
			}
			delete(want, h.ID)
		}
		if len(want) > 0 {
			t.Errorf("%s: not heard of %v", path, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
