package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/localdb"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/tracelog"
)

// weir runs the command line.
func weir(ctx context.Context, args ...string) (stdout string, err error) {
	var out bytes.Buffer
	cmd := newRoot()
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(ctx)
	return out.String(), err
}

// startLocal runs weir local with the sample and a database until the test's end, and returns its addresses.
func startLocal(t *testing.T) (env map[string]string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(cancel)
	db, err := localdb.Start(ctx, localdb.Config{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	secret := filepath.Join(dir, "secrets", "orders-database")
	if err := os.MkdirAll(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	for key, url := range map[string]string{"url": db.PoolURL(), "direct-url": db.DirectURL()} {
		if err := os.WriteFile(filepath.Join(secret, key), []byte(url), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "env")
	ended := make(chan error, 1)
	go func() {
		_, err := weir(ctx, "local", "-f", "../../deploy/k8s/orders", "--listen", "127.0.0.1:0", "--data", filepath.Join(dir, "nats"),
			"--secrets", filepath.Dir(secret), "--env-file", file)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	env = map[string]string{}
	testkit.Eventually(t, "weir local is ready", func() bool {
		text, err := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "=")
			env[key] = value
		}
		return err == nil
	})
	return env
}

// TestTraceOfAnOrder: from the order's 202 to the tree with the function's and the database's spans; the same of a job.
func TestTraceOfAnOrder(t *testing.T) {
	t.Setenv("WEIR_TELEMETRY", "1")
	env := startLocal(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	post := func(path, body string) (answer struct {
		ID    string            `json:"id"`
		Links map[string]string `json:"links"`
	},
	) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, env["WEIR_URL"]+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusAccepted {
			t.Fatalf("%s: %d %v", path, res.StatusCode, err)
		}
		return answer
	}
	// The function answers 503 until its tables are there: what is waited for is the call that wrote the row.
	traceOf := func(id string, want ...string) string {
		t.Helper()
		var tree string
		testkit.Eventually(t, "the trace of "+id+" has "+strings.Join(want, ", "), func() bool {
			out, err := weir(t.Context(), "trace", id, "--admin", env["WEIR_ADMIN_URL"])
			tree = out
			for _, w := range want {
				if !regexp.MustCompile(w).MatchString(out) {
					return false
				}
			}
			return err == nil
		})
		return tree
	}
	order := post("/orders", `{"sku": "book-42", "quantity": 1, "customer": "ada"}`)
	tree := traceOf(order.ID, `order-writer .* server `, `─ INSERT .* client `, `db.query.text=INSERT INTO orders`, `pgx.rows_affected=1`)
	if strings.Contains(tree, "book-42") {
		t.Errorf("the trace has what the order says:\n%s", tree)
	}
	t.Log("\n" + tree)
	job := post("/reports", `{"seconds": 0, "rows": 1}`)
	traceOf(job.Links["self"], `report .* server `, `─ SELECT .* client `)
	traceOf(job.ID, `report .* server `)

	list, err := weir(t.Context(), "trace", "--admin", env["WEIR_ADMIN_URL"])
	id := regexp.MustCompile(`trace ([0-9a-f]{32})`).FindStringSubmatch(tree)
	if err != nil || id == nil || !strings.Contains(list, id[1]) {
		t.Errorf("the list has no %v: %v\n%s", id, err, list)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env["WEIR_ADMIN_URL"]+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`faas_invocations_total{faas_name="order-writer",faas_trigger="pubsub"`, `orders_written_total`, `db_client_operation_duration_seconds_count`,
		`pgxpool_acquires_total{db_client_connection_pool_name="order-writer"`, `pgxpool_acquires_total{db_client_connection_pool_name="report"`,
	} {
		if !bytes.Contains(page, []byte(want)) {
			t.Errorf("the page of metrics has no %s", want)
		}
	}
}

func TestTraceErrors(t *testing.T) {
	empty := httptest.NewServer(tracelog.New())
	defer empty.Close()
	off := httptest.NewServer(http.NotFoundHandler())
	defer off.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	t.Setenv("WEIR_ADMIN_URL", "")
	for want, args := range map[string][]string{
		"--admin":           {"trace", "x"},
		"no such trace":     {"trace", "x", "--wait", "1ms", "--admin", empty.URL},
		"WEIR_TELEMETRY=1":  {"trace", "x", "--admin", off.URL},
		"WEIR_TELEMETRY=":   {"trace", "--admin", off.URL},
		"weir local":        {"trace", "--admin", gone.URL},
		"limit is a number": {"trace", "--limit", "0", "--admin", empty.URL},
	} {
		if _, err := weir(t.Context(), args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q in it", args, err, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := weir(ctx, "trace", "x", "--wait", "1h", "--admin", empty.URL); err == nil {
		t.Error("it waits though it is interrupted")
	}
}
