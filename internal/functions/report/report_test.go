package report_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/dbtest"
	"github.com/weir-dev/weir/internal/functions/orderdb"
	"github.com/weir-dev/weir/internal/functions/report"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func start(t *testing.T, poolURL string) *report.Function {
	t.Helper()
	file := dbtest.File(t, poolURL)
	cfg, err := report.ConfigFromEnv(func(k string) string { return map[string]string{"DATABASE_URL_FILE": file}[k] })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	f, err := report.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// fill makes the table and n orders in it, the oldest with a quantity and a customer.
func fill(t *testing.T, n int) {
	t.Helper()
	db := dbtest.DB(t)
	schema := orderdb.Migrate(t.Context(), dbtest.File(t, db.DirectURL()), slog.New(slog.DiscardHandler))
	defer schema.Close()
	<-schema.Ready()
	conn := dbtest.Connect(t, db.DirectURL())
	for i := range n {
		var quantity, customer any
		if i == 0 {
			quantity, customer = 7, "Ada, \"Countess\""
		}
		_, err := conn.Exec(t.Context(), `INSERT INTO orders (id, sku, quantity, customer, body, accepted_at) VALUES ($1, $2, $3, $4, '{}', $5)`,
			orderID(n-i), fmt.Sprintf("sku-%d", i), quantity, customer, time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
	}
}

func orderID(i int) string { return fmt.Sprintf("0192f3a0-0000-7000-8000-%012d", i) }

func ask(ctx context.Context, f http.Handler, body string, header ...string) *httptest.ResponseRecorder {
	res := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	f.ServeHTTP(res, req)
	return res
}

func TestReport(t *testing.T) {
	fill(t, 3)
	for _, mode := range []string{"", "exec", "simple_protocol", "cache_describe"} {
		t.Run("mode "+mode, func(t *testing.T) {
			url := dbtest.DBRunning(t).PoolURL()
			if mode != "" {
				url = dbtest.WithParam(t, url, "default_query_exec_mode", mode)
			}
			f := start(t, url)
			for _, rows := range []int{0, 1, 3, 7} {
				res := ask(t.Context(), f, fmt.Sprintf(`{"rows": %d}`, rows))
				if res.Code != 200 || res.Header().Get("Content-Type") != "text/csv; charset=utf-8" {
					t.Fatalf("%d %v %s", res.Code, res.Header(), res.Body)
				}
				lines, err := csv.NewReader(res.Body).ReadAll()
				if err != nil || len(lines) != rows+1 || strings.Join(lines[0], " ") != "row id sku quantity customer acceptedAt" {
					t.Fatalf("%d rows: %v %q", rows, err, lines)
				}
				for i, l := range lines[1:] {
					want := []string{fmt.Sprint(i + 1), orderID(3 - i%3), fmt.Sprintf("sku-%d", i%3), "", "", fmt.Sprintf("2026-01-01T00:00:0%dZ", i%3)}
					if i%3 == 0 {
						want[3], want[4] = "7", `Ada, "Countess"`
					}
					if fmt.Sprintf("%q", l) != fmt.Sprintf("%q", want) {
						t.Errorf("row %d: %q, want %q", i, l, want)
					}
				}

				res = ask(t.Context(), f, fmt.Sprintf(`{"rows": %d, "format": "json"}`, rows))
				var objects []struct {
					Row        int
					ID, SKU    string
					Quantity   *int
					Customer   *string
					AcceptedAt time.Time
				}
				if err := json.Unmarshal(res.Body.Bytes(), &objects); err != nil || len(objects) != rows || res.Header().Get("Content-Type") != "application/json" {
					t.Fatalf("%d rows: %v %s", rows, err, res.Body)
				}
				for i, o := range objects {
					if o.Row != i+1 || o.ID != orderID(3-i%3) || o.SKU != fmt.Sprintf("sku-%d", i%3) || o.AcceptedAt.Second() != i%3 ||
						(o.Quantity != nil) != (i%3 == 0) || (o.Customer != nil) != (i%3 == 0) {
						t.Errorf("row %d: %+v", i, o)
					}
				}
			}
		})
	}
}

// Without orders there is nothing to repeat, however many rows are asked for.
func TestNoOrders(t *testing.T) {
	fill(t, 0)
	f := start(t, dbtest.DBRunning(t).PoolURL())
	for body, want := range map[string]string{
		`{}`:                                  "row,id,sku,quantity,customer,acceptedAt\n",
		`{"rows": 5000000, "format": "json"}`: "[\n]\n",
	} {
		if res := ask(t.Context(), f, body); res.Code != 200 || res.Body.String() != want {
			t.Errorf("%s: %d %q", body, res.Code, res.Body)
		}
	}
}

func TestDefaults(t *testing.T) {
	fill(t, 1)
	res := ask(t.Context(), start(t, dbtest.DBRunning(t).PoolURL()), `{}`)
	if n := bytes.Count(res.Body.Bytes(), []byte("\n")); res.Code != 200 || n != 1001 {
		t.Fatalf("%d, %d lines", res.Code, n)
	}
}

func TestRefusals(t *testing.T) {
	f := start(t, dbtest.DB(t).PoolURL())
	for body, status := range map[string]int{
		``: 400, `x`: 400, `[]`: 400, `{"rows": "1"}`: 400, `{"rows": 1.5}`: 400, `{"row": 1}`: 400, `{} {}`: 400, `{"format": 1}`: 400,
		`{"seconds": -1}`: 422, `{"seconds": 30.5}`: 422, `{"rows": -1}`: 422, `{"rows": 5000001}`: 422, `{"format": "xml"}`: 422, `{"format": ""}`: 422,
		`{"format": "` + strings.Repeat("x", 64<<10) + `"}`: 413,
	} {
		res := ask(t.Context(), f, body)
		var p function.Problem
		if err := json.Unmarshal(res.Body.Bytes(), &p); err != nil || res.Code != status || p.Status != status || p.Type == "" || p.Detail == "" ||
			res.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%.40s: %d %s, want %d", body, res.Code, res.Body, status)
		}
	}
	res := httptest.NewRecorder()
	f.ServeHTTP(res, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody))
	if res.Code != 405 || res.Header().Get("Allow") != "POST" {
		t.Errorf("GET: %d %v", res.Code, res.Header())
	}
	// There is no table yet.
	if res := ask(t.Context(), f, `{}`); res.Code != 503 || res.Header().Get("Retry-After") != "1" || res.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("no table: %d %v %s", res.Code, res.Header(), res.Body)
	}
}

// watch stands for the gateway: it answers as it is told and says what came.
func watch(t *testing.T, status int, problem string) (address string, reports <-chan string) {
	t.Helper()
	got := make(chan string, 16)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.Method + " " + r.URL.RequestURI() + " " + string(body)
		w.WriteHeader(status)
		if problem != "" {
			_, _ = io.WriteString(w, `{"type":"https://weir.dev/problems/`+problem+`"}`)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/callbacks/x", got
}

func TestProgress(t *testing.T) {
	fill(t, 1)
	f := start(t, dbtest.DBRunning(t).PoolURL())
	// A report that isn't taken costs nothing but itself.
	for _, status := range []int{204, 503} {
		address, reports := watch(t, status, "")
		begin := time.Now()
		if res := ask(t.Context(), f, `{"seconds": 2, "rows": 1}`, function.HeaderCallback, address); res.Code != 200 || strings.Count(res.Body.String(), "\n") != 2 {
			t.Fatalf("%d %s", res.Code, res.Body)
		}
		if d := time.Since(begin); d < 2*time.Second {
			t.Errorf("after %v", d)
		}
		for _, want := range []string{`{"percent":50,"message":"1 of 2 s"}`, `{"percent":100,"message":"2 of 2 s"}`} {
			if got := <-reports; got != "POST /callbacks/x?status=running "+want {
				t.Errorf("%s, want %s", got, want)
			}
		}
	}
	// 409 and 404 of the gateway's own: nobody waits for it any more.
	for status, problem := range map[int]string{404: "no-callback", 409: "attempt-over"} {
		address, reports := watch(t, status, problem)
		if res := ask(t.Context(), f, `{"seconds": 30}`, function.HeaderCallback, address); res.Code != 500 || len(reports) != 1 {
			t.Errorf("%d: %d %s, after %d reports", status, res.Code, res.Body, len(reports))
		}
	}
}

// The caller goes away: the work ends with the step.
func TestCancelled(t *testing.T) {
	fill(t, 1)
	f := start(t, dbtest.DBRunning(t).PoolURL())
	ctx, cancel := context.WithCancel(t.Context())
	address, reports := watch(t, 204, "")
	done := make(chan *httptest.ResponseRecorder)
	begin := time.Now()
	go func() { done <- ask(ctx, f, `{"seconds": 30}`, function.HeaderCallback, address) }()
	<-reports
	cancel()
	if res := <-done; res.Code == 200 || time.Since(begin) > 15*time.Second {
		t.Fatalf("%d after %v", res.Code, time.Since(begin))
	}
}

// PostgreSQL ends in the middle of the rows: the caller sees a broken answer, not a short one.
func TestBrokenOff(t *testing.T) {
	fill(t, 3)
	srv := httptest.NewServer(start(t, dbtest.DBRunning(t).PoolURL()))
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, strings.NewReader(`{"rows": 3000000}`))
	if err != nil {
		t.Fatal(err)
	}
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body := bufio.NewReader(res.Body)
	if line, err := body.ReadString('\n'); err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %q %v", res.StatusCode, line, err)
	}
	super := dbtest.Connect(t, dbtest.DBRunning(t).SuperuserURL())
	dbtest.Eventually(t, func() error {
		if !dbtest.One[bool](t, super, `SELECT coalesce(bool_or(pg_terminate_backend(pid, 5000)), false) FROM pg_stat_activity WHERE query LIKE '%generate_series%' AND state = 'active' AND pid <> pg_backend_pid()`) {
			return errors.New("the query doesn't run yet")
		}
		return nil
	})
	n, err := io.Copy(io.Discard, body)
	if err == nil {
		t.Fatalf("%d bytes came, and the end of the answer", n)
	}
}

// The caller goes away in the middle of the rows: PostgreSQL stops.
func TestCallerGoesAway(t *testing.T) {
	fill(t, 3)
	f := start(t, dbtest.DBRunning(t).PoolURL())
	ctx, cancel := context.WithCancel(t.Context())
	m := &meter{header: http.Header{}, wrote: cancel}
	begin := time.Now()
	defer func() {
		if err := recover(); err != http.ErrAbortHandler { //nolint:errorlint // what net/http compares too
			t.Errorf("it panicked with %v", err)
		}
		if d := time.Since(begin); d > report.StatementTimeout/2 {
			t.Errorf("it went on for %v", d)
		}
	}()
	f.ServeHTTP(m, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(`{"rows": 5000000}`)))
}

// meter is a ResponseWriter that keeps nothing and looks at the heap now and then.
type meter struct {
	header  http.Header
	written int64
	looked  int64
	peak    uint64
	wrote   func() // if set
}

func (m *meter) Header() http.Header { return m.header }
func (m *meter) WriteHeader(int)     {}

func (m *meter) Write(p []byte) (int, error) {
	m.written += int64(len(p))
	if m.wrote != nil {
		m.wrote()
	}
	if m.written-m.looked > 8<<20 {
		m.looked = m.written
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		m.peak = max(m.peak, s.HeapInuse)
	}
	return len(p), nil
}

func TestFlatMemory(t *testing.T) {
	fill(t, 3)
	// Long rows, because the race detector makes many rows slow.
	conn := dbtest.Connect(t, dbtest.DBRunning(t).DirectURL())
	if _, err := conn.Exec(t.Context(), `UPDATE orders SET customer = repeat('x', 1000)`); err != nil {
		t.Fatal(err)
	}
	f := start(t, dbtest.DBRunning(t).PoolURL())
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	m := &meter{header: http.Header{}}
	f.ServeHTTP(m, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(`{"rows": 110000}`)))
	if m.written < 100<<20 {
		t.Fatalf("only %d MiB were written", m.written>>20)
	}
	if m.peak > before.HeapInuse+32<<20 {
		t.Errorf("%d MiB of heap for %d MiB of report, %d MiB before", m.peak>>20, m.written>>20, before.HeapInuse>>20)
	}
}
