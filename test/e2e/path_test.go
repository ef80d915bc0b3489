package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// soon is how long a change may take from kubectl to its effect: a second, with room for kubectl itself and two
	// busy cores. A controller that polls would not make it.
	soon = 5 * time.Second
	// atOnce is well below a cold start.
	atOnce = time.Second
)

const writerPods = "serving.knative.dev/service=order-writer"

// testScaleFromZero: with order-writer at zero pods, orders are accepted at once, the first pod comes up, all arrive.
func testScaleFromZero(t *testing.T) {
	const run, n = "zero", 50
	eventually(t, "order-writer is at zero", func() string {
		if live := pods(t, sampleNamespace, writerPods); len(live) > 0 {
			return fmt.Sprintf("%d pods", len(live))
		}
		return ""
	})
	gateway := "http://" + forward(t, weirNamespace, "svc/weir-gateway", 80)
	db := database(t)
	start := time.Now()
	var slowest, accepted time.Duration // accepted: until the first 202
	for i := range n {
		status, answer, took := post(t, gateway+"/orders", fmt.Sprintf(`{"sku":%q,"quantity":1,"customer":"%d"}`, run, i))
		if status != http.StatusAccepted {
			t.Fatalf("POST /orders: %d %s", status, answer)
		}
		if slowest = max(slowest, took); accepted == 0 {
			accepted = time.Since(start)
		}
	}
	arrived := func(want int) func() string {
		return func() string {
			if got := count(t, db, `SELECT count(*) FROM orders WHERE sku = $1`, run); got < want {
				return fmt.Sprintf("%d of %d", got, want)
			}
			return ""
		}
	}
	eventually(t, "the first order is a row", arrived(1))
	first := time.Since(start)
	eventually(t, "all orders are rows", arrived(n))
	t.Logf("from zero: %d orders accepted, the slowest answer %s; first row %s after the first request, all after %s",
		n, slowest.Round(time.Millisecond), first.Round(10*time.Millisecond), time.Since(start).Round(10*time.Millisecond))
	if slowest > atOnce || accepted > first {
		t.Errorf("orders were not accepted at once: the slowest answer took %s, the first came after %s", slowest, accepted)
	}
}

// applySlow applies testdata/slow.yaml, whose function writes its calls into the table calls.
func applySlow(t testing.TB, db *pgxpool.Pool) {
	t.Helper()
	if _, err := db.Exec(t.Context(), `CREATE TABLE IF NOT EXISTS calls (pod text, started timestamptz, ended timestamptz)`); err != nil {
		t.Fatal(err)
	}
	manifests, err := os.ReadFile("testdata/slow.yaml")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, strings.ReplaceAll(string(manifests), "SLOWWRITER", env.image("slowwriter")))
	waitReady(t, "ksvc/slowwriter", "queues.weir.dev/slow", "esm/slow", "apis.weir.dev/slow")
}

// slowCall is how long slowwriter's calls take at least (testdata/slow.yaml).
const slowCall = 700 * time.Millisecond

// overlap is the largest number of calls at one moment, of those that began after $1.
const overlap = `
SELECT max(n) FROM (
  SELECT sum(d) OVER (ORDER BY t, d) AS n FROM (
    SELECT started AS t, 1 AS d FROM calls WHERE started > $1
    UNION ALL SELECT ended, -1 FROM calls WHERE started > $1) AS edges) AS sums`

// testCaps: with containerConcurrency 2 and max-scale 3, a backlog and a slow function: never more than 6 calls in
// flight, 3 pods, and PgBouncer's pool of connections; nothing fails.
func testCaps(t *testing.T) {
	const run, n, calls, podsAtMost, pool = "caps", 5000, 6, 3, poolSize
	db := database(t)
	applySlow(t, db)
	start := time.Now()
	load := startLoad(t, run, "/slow", 2000, n, 64)
	ips := pgbouncerIPs(t)
	mostPods, mostConnections, samples := 0, 0, 0
	eventually(t, "all orders are rows", func() string {
		samples++
		mostPods = max(mostPods, len(pods(t, sampleNamespace, "serving.knative.dev/service=slowwriter")))
		mostConnections = max(mostConnections, count(t, db, pooledConnections, ips))
		if got := count(t, db, `SELECT count(*) FROM orders WHERE sku = $1`, run); got < n {
			return fmt.Sprintf("%d of %d", got, n)
		}
		return ""
	})
	took := time.Since(start)
	r := load.stop()
	if r.Statuses["202"] != n || len(r.Errors) > 0 {
		t.Errorf("not all orders were accepted: %s", r)
	}
	most := count(t, db, overlap, start)
	if most > calls || most < calls-1 { // less would mean that the cap was not tried
		t.Errorf("%d calls at once; the cap is %d", most, calls)
	}
	if mostPods > podsAtMost {
		t.Errorf("%d pods at once; max-scale is %d", mostPods, podsAtMost)
	}
	if mostConnections > pool || mostConnections < pool-1 { // less would mean that the pool was not tried
		t.Errorf("%d server connections; PgBouncer's pool has %d", mostConnections, pool)
	}
	if d := dead(t, "slow"); d > 0 {
		t.Errorf("%d orders were dead-lettered", d)
	}
	t.Logf("%d orders in %s by %d calls: at most %d calls and %d pods at once, and %d server connections, in %d samples",
		n, took.Round(time.Second), count(t, db, `SELECT count(*) FROM calls WHERE started > $1`, start), most, mostPods, mostConnections, samples)
}

// testLiveChanges: a cap, a throttle and a route change under load, with no other answer than 202.
func testLiveChanges(t *testing.T) {
	db := database(t)
	gateway := "http://" + forward(t, weirNamespace, "svc/weir-gateway", 80)
	orders := startLoad(t, "live", "/orders", 100, 0, 16)
	slow := startLoad(t, "live-slow", "/slow", 600, 0, 32) // more than 6 calls of 50 take in 0.7 s
	inFlight := func(since time.Time) int { return count(t, db, overlap, since) }
	calls := func(since time.Time) int { return count(t, db, `SELECT count(*) FROM calls WHERE started > $1`, since) }
	begin := time.Now()
	eventually(t, "six calls at once", func() string {
		if n := inFlight(begin); n < 5 {
			return fmt.Sprintf("%d", n)
		}
		return ""
	})

	// A lower cap: calls that began a little later are never more than it. The ones in flight end by themselves.
	kubectl(t, "-n", sampleNamespace, "patch", "esm", "slow", "--type=merge", "-p", `{"spec":{"maxConcurrency":2}}`)
	lowered := time.Now().Add(2 * time.Second)
	eventually(t, "some calls under the lower cap", func() string {
		if n := calls(lowered); n < 8 {
			return fmt.Sprintf("%d calls", n)
		}
		return ""
	})
	if n := inFlight(lowered); n > 2 {
		t.Errorf("%d calls at once, 2 s after the cap was set to 2", n)
	}
	kubectl(t, "-n", sampleNamespace, "patch", "esm", "slow", "--type=merge", "-p", `{"spec":{"maxConcurrency":null}}`)
	raised := time.Now()
	// That there are more is the dispatcher's doing; that there are five takes pods, which Knative may have to start.
	took := within(t, soon+2*slowCall, "more calls under the higher cap", func() string {
		if n := inFlight(raised); n <= 2 {
			return fmt.Sprintf("%d", n)
		}
		return ""
	})
	eventually(t, "five calls at once under the higher cap", func() string {
		if n := inFlight(raised); n < 5 {
			return fmt.Sprintf("%d", n)
		}
		return ""
	})
	t.Logf("the cap was raised from 2 to 6: more than two calls at once were over %s after kubectl patch, five %s after it",
		took.Round(10*time.Millisecond), time.Since(raised).Round(10*time.Millisecond))

	answers := func(path string, want int) func() string {
		return func() string {
			if status, answer, _ := post(t, gateway+path, `{"sku":"live-probe","customer":"x"}`); status != want {
				return fmt.Sprintf("%d %s", status, answer)
			}
			return ""
		}
	}
	patch := func(p string) {
		kubectl(t, "-n", sampleNamespace, "patch", "apis.weir.dev", "slow", "--type=json", "-p", p)
	}
	patch(`[{"op":"add","path":"/spec/routes/-","value":{"name":"again","match":{"method":"POST","path":"/slow-again"},"queue":{"name":"slow"},"throttle":{"rate":"0.001","burst":1}}}]`)
	took = within(t, soon, "the new route takes an order", answers("/slow-again", http.StatusAccepted))
	t.Logf("a new route worked %s after kubectl patch", took.Round(10*time.Millisecond))
	eventually(t, "its throttle holds", answers("/slow-again", http.StatusTooManyRequests))
	patch(`[{"op":"replace","path":"/spec/routes/1/throttle","value":{"rate":"1000","burst":1000}}]`)
	took = within(t, soon, "the wider throttle lets orders through", answers("/slow-again", http.StatusAccepted))
	t.Logf("a wider throttle worked %s after kubectl patch", took.Round(10*time.Millisecond))
	patch(`[{"op":"remove","path":"/spec/routes/1"}]`)
	within(t, soon, "the route is gone", answers("/slow-again", http.StatusNotFound))

	for name, l := range map[string]*loader{"orders": orders, "slow": slow} {
		r := l.stop()
		if r.Statuses["202"] != r.Sent {
			t.Errorf("%s: other answers than 202: %s", name, r)
		}
		wantAll(t, db, name, l.run, r)
	}
}
