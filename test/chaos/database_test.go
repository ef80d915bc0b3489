package chaos_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/testkit"
)

// TestDatabaseStops stops PostgreSQL and PgBouncer under load: order-writer says 503 meanwhile, no order is
// lost, none is dead-lettered, and the 202s go on.
func TestDatabaseStops(t *testing.T) {
	ctx := context.WithoutCancel(t.Context()) // the servers run again when the test has ended
	for _, tt := range []struct {
		name        string
		stop, start func(context.Context) error
	}{
		{"PostgreSQL", parts.db.StopPostgres, parts.db.StartPostgres},
		{"PgBouncer", parts.db.StopPgBouncer, parts.db.StartPgBouncer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m meter
			url := m.serve(t, forward(t, orderWriter(t)))
			nats := newNATSServer(t)
			nats.start()
			c := newCluster(t, nats, manifests(t), url)
			c.gateway()
			c.dispatcher("dispatcher-0")
			l := newLoad(t, c.addr, 32, 0)
			l.every = 20 * time.Millisecond
			l.start()
			l.waitAccepted(500)
			testkit.Eventually(t, "order-writer has written", func() bool { return m.count(http.StatusOK)+m.count(http.StatusNoContent) > 0 })

			t.Cleanup(func() {
				if err := tt.start(ctx); err != nil {
					t.Error(err)
				}
			})
			before, accepted, start := m.count(http.StatusServiceUnavailable), l.acceptedCount(), time.Now()
			if err := tt.stop(ctx); err != nil {
				t.Fatal(err)
			}
			hold(t, size[time.Duration](8, 10, 20)*time.Second)
			refused, took := m.count(http.StatusServiceUnavailable)-before, l.acceptedCount()-accepted
			if err := tt.start(ctx); err != nil {
				t.Fatal(err)
			}
			back := time.Now()
			outage := back.Sub(start)
			l.waitAccepted(500)
			l.finish()
			l.verify(true)
			c.settled()
			t.Logf("in %s without %s: %d orders accepted, %d answers of 503 by order-writer; all were rows %s after it was back",
				outage.Round(time.Millisecond), tt.name, took, refused, time.Since(back).Round(time.Millisecond))
			if refused == 0 {
				t.Error("order-writer did not answer 503")
			}
			if took == 0 {
				t.Error("no order was accepted meanwhile")
			}
			if others := m.others(http.StatusOK, http.StatusNoContent, http.StatusServiceUnavailable); len(others) > 0 {
				t.Errorf("order-writer's other answers: %v", others)
			}
		})
	}
}
