package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// movedNATS is the ending of the names of NATS after its move.
const movedNATS = "-2"

// testMoveNATS: one helm upgrade makes three NATS servers of one, and moves what that holds, under load: each accepted order
// becomes a row, clients see 503 at most, and never are there more calls than the cap. Then, still under load, one of the
// three gets a new volume, which the others fill.
func testMoveNATS(t *testing.T) {
	if env.natsReplicas != "" {
		t.Skip("NATS has three replicas from the start")
	}
	const calls = 6 // of slowwriter
	t.Cleanup(func() { anewWithOneNATS(t) })
	db := database(t)
	applySlow(t, db)
	begin := time.Now()
	orders := startLoad(t, "moved", "/orders", 50, 0, 16)
	slow := startLoad(t, "moved-slow", "/slow", 450, 0, 32) // more than 6 calls of 50 take in 0.7 s: there is always a backlog
	busy := func(since time.Time) {
		t.Helper()
		eventually(t, "as many calls as there may be", func() string {
			if n := count(t, db, overlap, since); n < calls-1 {
				return fmt.Sprintf("%d at once", n)
			}
			return ""
		})
	}
	busy(begin)

	const claim = "data-weir-nats-0"
	to := append(chartArgs("charts/weir"), "--timeout", "10m", "--set", "nats.replicas=3,nats.suffix="+movedNATS)
	upgraded := time.Now()
	helm(t, append(to, "--set", "nats.moveFrom.claim="+claim)...)
	kubectl(t, "-n", weirNamespace, "wait", "--for=condition=Complete", "job/weir-nats-move", "--timeout=60s")
	took := time.Since(upgraded)
	env.natsService = "weir-nats" + movedNATS
	t.Logf("helm upgrade from one NATS to three: %s; the move says:\n%s", took.Round(time.Second), kubectl(t, "-n", weirNamespace, "logs", "job/weir-nats-move", "-c", "move"))
	after := time.Now()
	orders.sends(300)
	busy(after)
	if r := orders.report(); r.Statuses["202"] == 0 || r.Statuses["503"] == 0 {
		t.Errorf("nothing was tried: %s", r)
	}
	helm(t, to...) // the move is over
	orders.sends(200)

	// Each stream has three replicas, so that one volume may go.
	const replica = "weir-nats" + movedNATS + "-2"
	volume := func() string {
		return kubectl(t, "-n", weirNamespace, "get", "pvc", "data-"+replica, "-o", "jsonpath={.spec.volumeName}")
	}
	former := volume()
	kubectl(t, "-n", weirNamespace, "delete", "pvc", "data-"+replica, "--wait=false")
	kubectl(t, "-n", weirNamespace, "delete", "pod", replica)
	eventually(t, replica+" is ready with another volume", func() string {
		out, err := env.kubectl(t.Context(), "-n", weirNamespace, "wait", "--for=condition=Ready", "pod/"+replica, "--timeout=10s")
		if err != nil {
			return out + err.Error()
		}
		return ""
	})
	if now := volume(); now == former || now == "" {
		t.Errorf("the replica has the volume %q, as before", now)
	}
	orders.sends(200)

	for name, l := range map[string]*loader{"orders": orders, "slow": slow} {
		r := l.stop()
		if len(r.Errors) > 0 || r.Statuses["202"]+r.Statuses["503"] != r.Sent {
			t.Errorf("%s: clients saw more than 503s: %s", name, r)
		}
		wantAll(t, db, name, l.run, r)
	}
	most := count(t, db, overlap, begin)
	if most > calls || most < calls-1 { // less would mean that the cap was not tried
		t.Errorf("%d calls at once; the cap is %d", most, calls)
	}
	volumes := kubectl(t, "-n", weirNamespace, "get", "pvc", "-o", "name")
	if !strings.Contains(volumes, claim+"\n") || strings.Count(volumes, "data-"+env.natsService+"-") != 3 {
		t.Errorf("the volumes are %s; the former one is to stay", volumes)
	}
	t.Logf("at most %d calls at once, by %d calls in all", most, count(t, db, `SELECT count(*) FROM calls WHERE started > $1`, begin))
}

// anewWithOneNATS installs as testInstall has, with an empty NATS: what comes after goes by its names. The resources stay.
func anewWithOneNATS(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience) // the test's own context is over then
	defer cancel()
	env.natsService = "weir-nats"
	steps := [][]string{
		{"helm", "uninstall", "weir", "--namespace", weirNamespace, "--wait", "--timeout", "3m"},
		{"kubectl", "-n", weirNamespace, "delete", "pvc", "--all", "--timeout=120s"},
		append([]string{"helm"}, chartArgs("charts/weir")...),
		{"kubectl", "-n", sampleNamespace, "wait", "--for=condition=Ready", "queues.weir.dev/orders", "esm/orders", "apis.weir.dev/shop", "--timeout=120s"},
	}
	for _, s := range steps {
		if _, err := env.tool(ctx, "", s[0], s[1:]...); err != nil {
			t.Error(err)
		}
	}
}
