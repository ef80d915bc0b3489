package chaos_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// TestMoveNATS moves from a single NATS that is killed under load to one of three, by the command, while the services of the
// old one still run and those of the new one wait: each accepted record is delivered, and never by more calls at once
// than the cap, by all dispatchers together.
func TestMoveNATS(t *testing.T) {
	const limit = 4
	f := &slow{hold: time.Second}
	url := f.serve(t, f)
	nats := newNATSServer(t)
	server := nats.startChild()
	c := newCluster(t, nats, manifests(t, "maxRecords: 500", "maxRecords: 5",
		"  timeout: 60s\n  retry", "  maxConcurrency: 4\n  timeout: 60s\n  retry"), url)
	c.gateway()
	c.dispatcher("dispatcher-a")
	c.dispatcher("dispatcher-b")
	old := newLoad(t, c.addr, 16, 0)
	old.every = time.Second // 16 a second; the function takes 4 × 5
	old.start()
	testkit.Eventually(t, "all calls run", func() bool { return f.running() == limit && f.count(http.StatusOK) > 2*limit })
	former, err := c.conn.Catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	queue := former.Catalog.Queues[0]
	server.Kill()
	killed := time.Now()

	three := testkit.NATSCluster(t)
	at := "WEIR_NATS_URL=" + three.URL()
	addr := fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t))
	gateway := c.service("gateway", "gateway-new", at, "WEIR_LISTEN="+addr)
	c.dispatcher("dispatcher-c", at)
	c.dispatcher("dispatcher-d", at)
	conn := three.Conn()
	move := exec.CommandContext(t.Context(), filepath.Join(parts.bin, "weir"), "nats", "move", "--from", nats.cfg.Dir, "--to", three.URL(), "--replicas", "3", "--name", "test")
	out, err := move.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("the move took %s\n%s", time.Since(killed).Round(time.Millisecond), out)
	// As a controller does it that waits for the move.
	ctx := t.Context()
	for _, err := range []error{
		conn.AwaitMove(ctx, "test"), conn.EnsureLeases(ctx, 3), conn.EnsureKeys(ctx, 3, time.Now()), conn.EnsureQueue(ctx, queue, 3),
		conn.PublishCatalog(ctx, former.Catalog, 3, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, "the new gateway serves", func() bool { return gateway.Logs("listening") })
	fresh := newLoad(t, addr, 16, 0)
	fresh.every = time.Second // 16 a second; the function takes 4 × 5
	fresh.start()
	done := f.count(http.StatusOK)
	testkit.Eventually(t, "calls go on", func() bool { return f.count(http.StatusOK) > done+2*limit })
	fresh.finish()
	old.finish()
	c.conn = conn
	testkit.Eventually(t, "every record has been delivered", func() bool {
		n, _ := f.delivered(old.accepted)
		m, _ := f.delivered(fresh.accepted)
		return n == len(old.accepted) && m == len(fresh.accepted)
	})
	c.settled()
	_, again := f.delivered(old.accepted)
	t.Logf("%d records were accepted before the move, and %d after it; %d deliveries more than one each", len(old.accepted), len(fresh.accepted), again)
	if peak := f.peak(); peak > limit || peak < limit-1 {
		t.Errorf("%d calls at once; the cap is %d", peak, limit)
	}
	if len(fresh.accepted) == 0 || old.statuses[http.StatusServiceUnavailable] == 0 || len(old.bad)+old.hung > 0 {
		t.Errorf("after: %v; meanwhile: %v, %v, %d hung", fresh.statuses, old.statuses, old.bad, old.hung)
	}
}
