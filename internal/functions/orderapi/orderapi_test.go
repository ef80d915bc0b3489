package orderapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/functions/dbtest"
	"github.com/weir-dev/weir/internal/functions/orderapi"
	"github.com/weir-dev/weir/internal/functions/orderdb"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func start(t *testing.T, poolURL string) *orderapi.Function {
	t.Helper()
	file := dbtest.File(t, poolURL)
	cfg, err := orderapi.ConfigFromEnv(func(k string) string { return map[string]string{"DATABASE_URL_FILE": file}[k] })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	f, err := orderapi.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func call(f http.Handler, method, target string) *httptest.ResponseRecorder {
	res := httptest.NewRecorder()
	f.ServeHTTP(res, httptest.NewRequest(method, target, nil))
	return res
}

func decode[T any](t *testing.T, res *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if res.Code != 200 || res.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %s", res.Code, res.Header(), res.Body)
	}
	if err := json.Unmarshal(res.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func orderID(i int) string { return fmt.Sprintf("0192f3a0-0000-7000-8000-%012d", i) }

// fill makes the table and n orders in it; order i was accepted i seconds after the first.
func fill(t *testing.T, n int) {
	t.Helper()
	db := dbtest.DB(t)
	schema := orderdb.Migrate(t.Context(), dbtest.File(t, db.DirectURL()), slog.New(slog.DiscardHandler))
	defer schema.Close()
	<-schema.Ready()
	conn := dbtest.Connect(t, db.DirectURL())
	for i := range n {
		// Ids against the order of time: an Idempotency-Key's id says nothing of it.
		_, err := conn.Exec(t.Context(), `INSERT INTO orders (id, sku, body, accepted_at) VALUES ($1, 'A', $2, $3)`,
			orderID(n-i), fmt.Sprintf(`{"sku":"A", "i":%d}`, i), time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnswers(t *testing.T) {
	fill(t, 120)
	for _, mode := range []string{"", "exec", "simple_protocol", "cache_describe"} {
		t.Run("mode "+mode, func(t *testing.T) {
			url := dbtest.DBRunning(t).PoolURL()
			if mode != "" {
				url = dbtest.WithParam(t, url, "default_query_exec_mode", mode)
			}
			f := start(t, url)
			o := decode[orderapi.Order](t, call(f, http.MethodGet, "/orders/"+orderID(120)))
			if o.ID.String() != orderID(120) || string(o.Order) != `{"sku":"A","i":0}` || !o.AcceptedAt.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) || o.CreatedAt.IsZero() {
				t.Fatalf("%+v", o)
			}
			for query, want := range map[string]int{"": 20, "?limit=1": 1, "?limit=100": 100} {
				list := decode[struct{ Orders []orderapi.Order }](t, call(f, http.MethodGet, "/orders"+query)).Orders
				if len(list) != want {
					t.Fatalf("%q: %d orders", query, len(list))
				}
				for i, o := range list {
					if o.ID.String() != orderID(i+1) {
						t.Fatalf("%q: order %d is %s", query, i, o.ID)
					}
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	fill(t, 0)
	f := start(t, dbtest.DBRunning(t).PoolURL())
	if list := call(f, http.MethodGet, "/orders"); list.Body.String() != `{"orders":[]}` {
		t.Fatal(list.Body)
	}
	for _, tc := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/orders/" + orderID(1), 404},
		{"GET", "/orders/x", 400},
		{"GET", "/orders/%7B" + orderID(1) + "%7D", 400},
		{"GET", "/orders/" + orderID(1) + "/x", 404},
		{"GET", "/", 404},
		{"POST", "/orders", 405},
		{"DELETE", "/orders/" + orderID(1), 405},
		{"GET", "/orders?limit=0", 400},
		{"GET", "/orders?limit=101", 400},
		{"GET", "/orders?limit=-1", 400},
		{"GET", "/orders?limit=x", 400},
		{"GET", "/orders?limit=", 400},
	} {
		res := call(f, tc.method, tc.target)
		var p struct {
			Type, Title, Detail string
			Status              int
		}
		if err := json.Unmarshal(res.Body.Bytes(), &p); err != nil || res.Code != tc.status || p.Status != tc.status || p.Type == "" || p.Detail == "" || res.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s", tc.method, tc.target, res.Code, res.Body)
		}
	}
}

// With all connections taken PgBouncer answers before the readers give up: they cost the database no connection when
// one becomes free.
func TestFullPool(t *testing.T) {
	db := dbtest.DB(t)
	f := start(t, db.PoolURL())
	fill(t, 1)
	release := dbtest.FillPool(t)
	before := dbtest.ServerPIDs(t)
	var wg sync.WaitGroup
	for range orderdb.DefaultMaxConns {
		wg.Go(func() {
			if res := call(f, http.MethodGet, "/orders"); res.Code != 503 || res.Header().Get("Retry-After") != "1" {
				t.Errorf("%d %v %s", res.Code, res.Header(), res.Body)
			}
		})
	}
	wg.Wait()
	release()
	if res := call(f, http.MethodGet, "/orders"); res.Code != 200 {
		t.Errorf("%d %s", res.Code, res.Body)
	}
	after := dbtest.ServerPIDs(t)
	slices.Sort(before)
	slices.Sort(after)
	if len(before) != dbtest.PoolSize || !slices.Equal(before, after) {
		t.Errorf("PgBouncer's connections were %v, and are %v", before, after)
	}
}

// No table yet, PostgreSQL stopped, PgBouncer stopped: 503 in time, and no restart afterwards.
func TestUnavailable(t *testing.T) {
	db := dbtest.DB(t)
	f := start(t, db.PoolURL())
	want503 := func(what string) {
		t.Helper()
		for range 3 {
			begin := time.Now()
			res := call(f, http.MethodGet, "/orders")
			if d := time.Since(begin); res.Code != 503 || res.Header().Get("Retry-After") != "1" || d > orderapi.CallTimeout+2*time.Second {
				t.Fatalf("%s: %d %v %s after %v", what, res.Code, res.Header(), res.Body, d)
			}
		}
	}
	want200 := func() {
		t.Helper()
		dbtest.Eventually(t, func() error {
			if res := call(f, http.MethodGet, "/orders"); res.Code != 200 {
				return fmt.Errorf("%d %s", res.Code, res.Body)
			}
			return nil
		})
	}
	want503("no table")
	fill(t, 0)
	want200()
	if err := db.StopPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	want503("PostgreSQL is away")
	if err := errors.Join(db.StopPgBouncer(t.Context()), db.StartPostgres(t.Context())); err != nil {
		t.Fatal(err)
	}
	want503("PgBouncer is away")
	if err := db.StartPgBouncer(t.Context()); err != nil {
		t.Fatal(err)
	}
	want200()
	f.Close()
	want503("closed")
}
