package chaos_test

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-dev/weir/internal/testkit"
)

// TestOneOrder posts an order as the README does and reads its row through PgBouncer.
func TestOneOrder(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("curl is not installed: hack/install-deps.sh installs it")
	}
	w := newWeir(t, manifests(t))
	w.up()
	cmd := exec.CommandContext(t.Context(), curl, "-sS", "-w", "\n%{http_code}", "http://"+w.addr+"/orders",
		"-H", "Content-Type: application/json", "-d", `{"sku": "book-42", "quantity": 1, "customer": "ada"}`)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("curl: %v: %s", err, out)
	}
	var id string
	if _, err := fmt.Sscanf(strings.TrimSpace(string(out)), `{"id":"%36s"}`, &id); err != nil || !strings.HasSuffix(string(out), "\n202") {
		t.Fatalf("curl got %s (%v)", out, err)
	}
	db := connect(t, parts.db.PoolURL())
	var sku string
	testkit.Eventually(t, "the order is a row", func() bool {
		return db.QueryRow(t.Context(), `SELECT sku FROM orders WHERE id = $1`, id).Scan(&sku) == nil
	})
	if sku != "book-42" {
		t.Errorf("the row's sku is %q", sku)
	}
	w.Terminate()
}

// TestSurge posts orders over 256 connections as fast as they go: every 202 is a row and nothing else is;
// neither PostgreSQL's connections nor the function calls at once exceed their caps.
func TestSurge(t *testing.T) {
	const callCap = 10 // order-writer: containerConcurrency 2 × max-scale 5
	var m meter
	url := m.serve(t, forward(t, orderWriter(t)))
	w := newWeir(t, manifests(t), "--function", "order-writer="+url)
	w.up()
	conns := watchConnections(t)

	l := newLoad(t, w.addr, 256, size(10_000, 30_000, 100_000))
	start := time.Now()
	l.start()
	l.wait()
	took := time.Since(start)
	l.verify(true)
	drained := time.Since(start)

	calls := m.peak()
	bouncer, postgres, samples := conns()
	t.Logf("%d orders in %s (%.0f/s), p99 %s; rows after %s; function calls at once at most %d; server connections at most %d (PgBouncer) and %d (PostgreSQL) in %d samples",
		l.total, took.Round(time.Millisecond), float64(l.total)/took.Seconds(), l.percentile(0.99, http.StatusAccepted, time.Time{}, time.Now()).Round(time.Millisecond),
		drained.Round(time.Millisecond), calls, bouncer, postgres, samples)
	if calls > callCap || calls < 2 {
		t.Errorf("%d function calls at once; want 2 to %d", calls, callCap)
	}
	if bouncer > poolSize || postgres > poolSize || bouncer < 2 || postgres < 2 {
		t.Errorf("%d server connections by PgBouncer's count and %d by PostgreSQL's; want 2 to %d", bouncer, postgres, poolSize)
	}
	if samples < 50 {
		t.Errorf("only %d samples", samples)
	}
	if others := m.others(http.StatusOK, http.StatusNoContent, http.StatusServiceUnavailable); len(others) > 0 {
		t.Errorf("order-writer's other answers: %v", others)
	}
	if t.Failed() {
		return
	}
	w.Terminate()
}

// watchConnections counts PgBouncer's server connections and PostgreSQL's backends for them again and
// again until the returned function is called, which gives the most seen.
func watchConnections(t testing.TB) func() (bouncer, postgres, samples int) {
	t.Helper()
	admin, super := connect(t, parts.db.AdminURL()), connect(t, parts.db.SuperuserURL())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	var bouncer, postgres, samples int
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			rows, err := admin.Query(ctx, "SHOW SERVERS")
			if err == nil {
				var all []string
				if all, err = pgx.CollectRows(rows, func(pgx.CollectableRow) (string, error) { return "", nil }); err == nil {
					bouncer = max(bouncer, len(all))
				}
			}
			var n int
			if err == nil {
				err = super.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'weir' AND application_name <> 'chaos'`).Scan(&n)
				postgres = max(postgres, n)
			}
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				t.Errorf("counting connections: %v", err)
				return
			}
			samples++
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func() (int, int, int) {
		cancel()
		<-done
		return bouncer, postgres, samples
	}
}
