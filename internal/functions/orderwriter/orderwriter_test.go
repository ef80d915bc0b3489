package orderwriter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/dbtest"
	"github.com/weir-dev/weir/internal/functions/orderdb"
	"github.com/weir-dev/weir/internal/functions/orderwriter"
	"github.com/weir-dev/weir/internal/localdb"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// callTimeout is the shortest for a statement of 1 s.
const callTimeout = orderdb.QueueTimeout + time.Second + orderdb.Margin

const accepted = "2026-02-03T04:05:06.789012Z"

// start makes an order-writer as its main does, but for shorter timeouts.
func start(t testing.TB, poolURL, directURL string, change func(*orderwriter.Config)) *orderwriter.Function {
	t.Helper()
	env := map[string]string{"DATABASE_URL_FILE": dbtest.File(t, poolURL), "MIGRATE_DATABASE_URL_FILE": dbtest.File(t, directURL)}
	cfg, err := orderwriter.ConfigFromEnv(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	cfg.Database.StatementTimeout, cfg.Database.CallTimeout = time.Second, callTimeout
	cfg.Log = slog.New(slog.DiscardHandler)
	if change != nil {
		change(&cfg)
	}
	f, err := orderwriter.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func startReady(t testing.TB, db *localdb.DB) *orderwriter.Function {
	t.Helper()
	f := start(t, db.PoolURL(), db.DirectURL(), nil)
	untilOK(t, f)
	return f
}

// untilOK waits for the migrations: until then every answer is "not now". An event that cannot be a
// row doesn't get as far as the database.
func untilOK(t testing.TB, f http.Handler) {
	t.Helper()
	dbtest.Eventually(t, func() error {
		if res := send(f, event("warm-up", `{}`)); res.Code != http.StatusOK {
			mustBeNotNow(t, res)
			return fmt.Errorf("%d %s", res.Code, res.Body)
		}
		return nil
	})
}

func event(id, data string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/apis/shop/create-order","type":"dev.weir.record","time":%q,"datacontenttype":"application/json","data":%s}`, id, accepted, data)
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func send(h http.Handler, events ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("["+strings.Join(events, ",")+"]"))
	req.Header.Set("Content-Type", "application/cloudevents-batch+json")
	res := httptest.NewRecorder()
	h.ServeHTTP(res, req)
	return res
}

// mustSettle wants 200 and the failures named, with their reasons.
func mustSettle(t testing.TB, res *httptest.ResponseRecorder, failed ...function.Failure) {
	t.Helper()
	var got struct {
		BatchItemFailures []struct{ ItemIdentifier, Reason string }
	}
	if res.Code == http.StatusOK && res.Body.Len() > 0 {
		if err := json.Unmarshal(res.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
	}
	var named []function.Failure
	for _, f := range got.BatchItemFailures {
		named = append(named, function.Failure{ID: f.ItemIdentifier, Reason: f.Reason})
	}
	if res.Code != http.StatusOK || !slices.Equal(named, failed) {
		t.Fatalf("%d %s, want 200 and failures %q", res.Code, res.Body, failed)
	}
}

func mustBeNotNow(t testing.TB, res *httptest.ResponseRecorder) {
	t.Helper()
	if res.Code != http.StatusServiceUnavailable || res.Header().Get("Retry-After") != "1" || res.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%d %v %s, want 503 with Retry-After", res.Code, res.Header(), res.Body)
	}
}

func TestConfigFromEnv(t *testing.T) {
	_, err := orderwriter.ConfigFromEnv(func(string) string { return "" })
	if err == nil || !strings.HasPrefix(err.Error(), "DATABASE_URL_FILE is not set") {
		t.Fatalf("got %v, want an error that names DATABASE_URL_FILE", err)
	}
}

func TestWrite(t *testing.T) {
	for _, mode := range []string{"", "exec", "simple_protocol", "cache_describe", "cache_statement"} {
		t.Run("mode "+mode, func(t *testing.T) {
			db := dbtest.DB(t)
			url := db.PoolURL()
			if mode != "" {
				url = dbtest.WithParam(t, url, "default_query_exec_mode", mode)
			}
			f := start(t, url, db.DirectURL(), nil)
			untilOK(t, f)
			full, bare := newID(), newID()
			const order = `{"customer":"c-1","sku":"A-1","quantity":3,"note":"Grüße \u00e9 \ud83d\ude00 \"x\" \\u0000","nested":{"a":[1,2.5,null,true]}}`
			mustSettle(t, send(f, event(full, order), event(bare, `{"sku":"B"}`)))

			conn := dbtest.Connect(t, db.DirectURL())
			if n := dbtest.One[int](t, conn, `SELECT count(*)::int FROM orders`); n != 2 {
				t.Fatalf("%d rows", n)
			}
			if !dbtest.One[bool](t, conn, `SELECT customer = 'c-1' AND sku = 'A-1' AND quantity = 3 AND body::text = $2 AND accepted_at = $3
				AND created_at > now() - interval '1 minute' FROM orders WHERE id = $1`, full, order, time.Date(2026, 2, 3, 4, 5, 6, 789012000, time.UTC)) {
				t.Fatal("the full order's row is not the order")
			}
			if !dbtest.One[bool](t, conn, `SELECT customer IS NULL AND sku = 'B' AND quantity IS NULL AND body::text = '{"sku":"B"}' FROM orders WHERE id = $1`, bare) {
				t.Fatal("the bare order's row is not the order")
			}

			// The same again, an id twice in a batch, and one of them changed: the first write stands.
			fresh := newID()
			mustSettle(t, send(f, event(full, order), event(fresh, `{"sku":"C"}`), event(fresh, `{"sku":"C"}`), event(bare, `{"sku":"changed"}`)))
			mustSettle(t, send(f, event(fresh, `{"sku":"C"}`)))
			if s := dbtest.One[string](t, conn, `SELECT string_agg(sku, ' ' ORDER BY sku) FROM orders`); s != "A-1 B C" {
				t.Fatal(s)
			}
		})
	}
}

func TestPoisonOrdersAreNamed(t *testing.T) {
	db := dbtest.DB(t)
	f := startReady(t, db)
	good := []string{newID(), newID()}
	events := []string{event(good[0], `{"sku":"A"}`)}
	var failed []function.Failure
	poison := func(id, data, reason string) {
		events = append(events, event(id, data))
		failed = append(failed, function.Failure{ID: id, Reason: reason})
	}
	poison("not-a-uuid", `{"sku":"A"}`, "id: not a UUID")
	poison("{"+newID()+"}", `{"sku":"A"}`, "id: not a UUID")
	for reason, orders := range map[string][]string{
		"not a JSON object":        {`[]`, `"x"`, `null`, `1`},
		"sku: missing":             {`{}`, `{"sku":null}`, `{"sku":""}`, `{"SKU":"A"}`, `{"sku":"A","sku":null}`},
		"sku: not a string":        {`{"sku":7}`, `{"sku":99999999999}`, `{"sku":{"hunter2":1}}`},
		"customer: not a string":   {`{"sku":"A","customer":1}`},
		"quantity: not an integer": {`{"sku":"A","quantity":"3"}`, `{"sku":"A","quantity":1,"quantity":"x"}`, `{"sku":"A","quantity":1.5}`, `{"sku":"A","quantity":1e1}`, `{"sku":"A","quantity":[1]}`},
		"quantity: out of range":   {`{"sku":"A","quantity":3000000000}`, `{"sku":"A","quantity":-2147483649}`, `{"sku":"A","quantity":100000000000000000000}`},
		"holds the character U+0000, which PostgreSQL doesn't store": {`{"sku":"A\u0000"}`, `{"sku":"A","deep":{"x":["\\\u0000"]}}`, `{"sku":"A","\u0000":1}`},
		"holds half of a surrogate pair":                             {`{"sku":"A","x":"\ud800"}`, `{"sku":"A","x":"\udc00\ud800"}`, `{"sku":"A","x":"\ud800\u0041"}`},
		"not UTF-8":                                                  {"{\"sku\":\"A\",\"x\":\"\xff\"}"},
	} {
		for _, order := range orders {
			poison(newID(), order, reason)
		}
	}
	text := newID()
	events = append(events, strings.Replace(event(text, `"{}"`), "application/json", "text/plain", 1))
	failed = append(failed, function.Failure{ID: text, Reason: "content type: not JSON"})
	events = append(events, event(good[1], `{"sku":"A"}`))
	mustSettle(t, send(f, events...), failed...)
	conn := dbtest.Connect(t, db.DirectURL())
	if n := dbtest.One[int](t, conn, `SELECT count(*)::int FROM orders WHERE id = ANY($1::uuid[])`, good); n != 2 {
		t.Fatalf("%d of the good orders were written", n)
	}
	if n := dbtest.One[int](t, conn, `SELECT count(*)::int FROM orders`); n != 2 {
		t.Fatalf("%d rows", n)
	}
}

// What only the database can know to be wrong is a 500: the dispatcher bisects. The order itself is
// not in the answer.
func TestDataRefusedByTheDatabase(t *testing.T) {
	db := dbtest.DB(t)
	f := startReady(t, db)
	conn := dbtest.Connect(t, db.DirectURL())
	if _, err := conn.Exec(t.Context(), `ALTER TABLE orders ADD CONSTRAINT affordable CHECK ((body->>'price')::numeric < 100)`); err != nil {
		t.Fatal(err)
	}
	bad := event(newID(), `{"sku":"A","secret":"hunter2","price":1e3}`)
	res := send(f, event(newID(), `{"sku":"A"}`), bad)
	var p function.Problem
	if err := json.Unmarshal(res.Body.Bytes(), &p); err != nil || res.Code != 500 || !strings.Contains(p.Detail, "23514") || strings.Contains(res.Body.String(), "hunter2") {
		t.Fatalf("%d %s %v", res.Code, res.Body, err)
	}
	if n := dbtest.One[int](t, conn, `SELECT count(*)::int FROM orders`); n != 0 {
		t.Fatalf("%d rows of a batch that failed", n)
	}
	mustSettle(t, send(f, event(newID(), `{"sku":"A"}`)))
}

func TestInstancesStartAtOnce(t *testing.T) {
	db := dbtest.DB(t)
	const instances, batches = 5, 4
	var wg sync.WaitGroup
	for range instances {
		f := start(t, db.PoolURL(), db.DirectURL(), nil)
		wg.Go(func() {
			untilOK(t, f)
			for range batches {
				if res := send(f, event(newID(), `{"sku":"A"}`), event(newID(), `{"sku":"B"}`)); res.Code != 200 {
					t.Errorf("%d %s", res.Code, res.Body)
				}
			}
		})
	}
	wg.Wait()
	if n := dbtest.One[int](t, dbtest.Connect(t, db.DirectURL()), `SELECT count(*)::int FROM orders`); n != instances*batches*2 {
		t.Fatalf("%d rows", n)
	}
}

// The same batches from both ends at once, as after redeliveries: no deadlock.
func TestOverlappingBatches(t *testing.T) {
	db := dbtest.DB(t)
	f := startReady(t, db)
	var events []string
	for range 200 {
		events = append(events, event(newID(), `{"sku":"A"}`))
	}
	reversed := slices.Clone(events)
	slices.Reverse(reversed)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			batch := events
			if i%2 == 1 {
				batch = reversed
			}
			if res := send(f, batch...); res.Code != 200 {
				t.Errorf("%d %s", res.Code, res.Body)
			}
		})
	}
	wg.Wait()
	if n := dbtest.One[int](t, dbtest.Connect(t, db.DirectURL()), `SELECT count(*)::int FROM orders`); n != len(events) {
		t.Fatalf("%d rows", n)
	}
}

// Each server goes away under load and comes back: 503 meanwhile and nothing else, no restart, no
// order lost.
func TestOutages(t *testing.T) {
	for name, outage := range map[string]struct {
		stop, start func(*localdb.DB, context.Context) error
	}{
		"PostgreSQL": {(*localdb.DB).StopPostgres, (*localdb.DB).StartPostgres},
		"PgBouncer":  {(*localdb.DB).StopPgBouncer, (*localdb.DB).StartPgBouncer},
	} {
		t.Run(name, func(t *testing.T) {
			db := dbtest.DB(t)
			f := startReady(t, db)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			refused := make(chan struct{}, 4)
			var mu sync.Mutex
			var settled []string
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for ctx.Err() == nil {
						id := newID()
						for e := event(id, `{"sku":"A"}`); ; {
							begin := time.Now()
							res := send(f, e)
							if d := time.Since(begin); d > callTimeout+2*time.Second {
								t.Errorf("an answer took %v", d)
							}
							if res.Code == 200 {
								mu.Lock()
								settled = append(settled, id)
								mu.Unlock()
								break
							}
							if res.Code != 503 {
								t.Errorf("%d %s", res.Code, res.Body)
								return
							}
							select {
							case refused <- struct{}{}:
							default:
							}
						}
					}
				})
			}
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(settled)
			}
			more := func() {
				t.Helper()
				before := count()
				dbtest.Eventually(t, func() error {
					if count() < before+20 {
						return errors.New("no progress")
					}
					return nil
				})
			}
			more()
			for range 2 {
				if err := outage.stop(db, t.Context()); err != nil {
					t.Fatal(err)
				}
				for range 8 {
					<-refused
				}
				if err := outage.start(db, t.Context()); err != nil {
					t.Fatal(err)
				}
				more()
			}
			cancel()
			wg.Wait()
			conn := dbtest.Connect(t, db.DirectURL())
			if n := dbtest.One[int](t, conn, `SELECT count(*)::int FROM orders WHERE id = ANY($1::uuid[])`, settled); n != len(settled) {
				t.Fatalf("%d rows of %d orders that were settled", n, len(settled))
			}
			if n := dbtest.One[int](t, conn, `SELECT count(*)::int FROM orders`); n != len(settled) {
				t.Fatalf("%d rows, %d orders settled", n, len(settled))
			}
		})
	}
}

// The function starts before its database does.
func TestStartsWithoutDatabase(t *testing.T) {
	db := dbtest.DB(t)
	if err := errors.Join(db.StopPgBouncer(t.Context()), db.StopPostgres(t.Context())); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	f := start(t, db.PoolURL(), db.DirectURL(), nil)
	if d := time.Since(begin); d > time.Second {
		t.Fatalf("New took %v", d)
	}
	mustBeNotNow(t, send(f, event(newID(), `{"sku":"A"}`)))
	if err := errors.Join(db.StartPostgres(t.Context()), db.StartPgBouncer(t.Context())); err != nil {
		t.Fatal(err)
	}
	untilOK(t, f)
	mustSettle(t, send(f, event(newID(), `{"sku":"A"}`)))
}

// Without migrations of its own the function waits until the table exists.
func TestWithoutMigrations(t *testing.T) {
	db := dbtest.DB(t)
	f := start(t, db.PoolURL(), db.DirectURL(), func(c *orderwriter.Config) { c.MigrateURLFile = "" })
	mustBeNotNow(t, send(f, event(newID(), `{"sku":"A"}`)))
	startReady(t, db)
	mustSettle(t, send(f, event(newID(), `{"sku":"A"}`)))
}

func TestClose(t *testing.T) {
	db := dbtest.DB(t)
	f := startReady(t, db)
	f.Close()
	f.Close()
	mustBeNotNow(t, send(f, event(newID(), `{"sku":"A"}`)))
}

// A pool that is smaller than the number of calls: they wait, and the bound of the wait is a 503.
func TestPoolExhausted(t *testing.T) {
	db := dbtest.DB(t)
	startReady(t, db)
	f := start(t, db.PoolURL(), db.DirectURL(), func(c *orderwriter.Config) {
		c.Database.MaxConns = 1
		c.Database.StatementTimeout = 200 * time.Millisecond
	})
	untilOK(t, f)
	tx, err := dbtest.Connect(t, db.DirectURL()).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE orders IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if res := send(f, event(newID(), `{"sku":"A"}`)); res.Code != 503 {
				t.Errorf("%d %s", res.Code, res.Body)
			}
		})
	}
	wg.Wait()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustSettle(t, send(f, event(newID(), `{"sku":"A"}`)))
}

// BenchmarkOrderWriter: batches of 500 orders of about 1 KiB, from the HTTP request to rows, as
// many calls at once as the sample's containerConcurrency lets one instance have.
func BenchmarkOrderWriter(b *testing.B) {
	const size = 500
	for _, callers := range []int{1, 2} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			db := dbtest.DB(b)
			f := start(b, db.PoolURL(), db.DirectURL(), func(c *orderwriter.Config) {
				c.Database.StatementTimeout, c.Database.CallTimeout = orderwriter.StatementTimeout, orderwriter.CallTimeout
			})
			untilOK(b, f)
			batches := make(chan []byte, callers)
			for range callers {
				batches <- benchBatch(size)
			}
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				body := <-batches
				wg.Go(func() {
					freshIDs(body)
					req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
					req.Header.Set("Content-Type", "application/cloudevents-batch+json")
					res := httptest.NewRecorder()
					if f.ServeHTTP(res, req); res.Code != 200 || res.Body.Len() > 0 {
						b.Errorf("%d %s", res.Code, res.Body)
					}
					batches <- body
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(size*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			if n := dbtest.One[int](b, dbtest.Connect(b, db.DirectURL()), `SELECT count(*)::int FROM orders`); n != size*b.N {
				b.Fatalf("%d rows, want %d", n, size*b.N)
			}
		})
	}
}

func benchBatch(n int) []byte {
	var events []string
	for i := range n {
		note := strings.Repeat("Lorem ipsum dolor sit amet, \\\"consectetur\\\". ", 10)
		events = append(events, event(newID(), fmt.Sprintf(
			`{"customer":"customer-%d","sku":"SKU-%06d","quantity":%d,"currency":"EUR","unitPriceCents":1999,"note":"%s","lines":[%s]}`,
			i%1000, i, i%7+1, note, strings.TrimSuffix(strings.Repeat(`{"line":1,"sku":"X-1","options":{"gift":true,"wrap":null}},`, 7), ","))))
	}
	return []byte("[" + strings.Join(events, ",") + "]")
}

// freshIDs gives each event of the batch another id, in place.
func freshIDs(body []byte) {
	mark := []byte(`"specversion":"1.0","id":"`)
	for i := bytes.Index(body, mark); i >= 0; {
		i += len(mark)
		copy(body[i:], newID())
		next := bytes.Index(body[i:], mark)
		if next < 0 {
			return
		}
		i += next
	}
}
