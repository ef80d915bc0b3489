package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

// testMemory: dispatchers with little memory (dispatcherMemory), of twenty mappings of which one is busy with large orders: six calls
// of it hold more than there is room for. None is killed, and no order is lost or taken twice.
func testMemory(t *testing.T) {
	const run, n, size, idle = "memory", 400, 240_000, 19
	db := database(t)
	applySlow(t, db)
	before := dispatcherRestarts(t)
	var manifests strings.Builder
	for i := range idle {
		fmt.Fprintf(&manifests, "apiVersion: weir.dev/v1alpha1\nkind: Queue\nmetadata: {name: idle-%d}\nspec: {maxBytes: 8Mi}\n---\n"+
			"apiVersion: weir.dev/v1alpha1\nkind: EventSourceMapping\nmetadata: {name: idle-%[1]d}\nspec: {queue: idle-%[1]d, function: {url: \"http://idle.example\"}, maxConcurrency: 5}\n---\n", i)
		deleteAfter(t, "queues.weir.dev", fmt.Sprintf("idle-%d", i))
	}
	for i := range idle {
		deleteAfter(t, "esm", fmt.Sprintf("idle-%d", i)) // before its queue
	}
	apply(t, manifests.String())
	waitReady(t, "esm/idle-0", fmt.Sprintf("esm/idle-%d", idle-1))
	load := startLargeLoad(t, run, "/slow", 100, n, 16, size)
	eventually(t, "all orders are sent", func() string {
		if r := load.report(); r.Sent < n {
			return r.String()
		}
		return ""
	})
	r := load.stop()
	if r.Statuses["202"] != n {
		t.Errorf("not all were accepted: %s", r)
	}
	wantAll(t, db, "slow", run, r)
	if after := dispatcherRestarts(t); after != before {
		t.Errorf("dispatchers were started again: %s; before %s", after, before)
	}
}

// dispatcherRestarts says of each dispatcher how often its container was started again, and why it ended last.
func dispatcherRestarts(t testing.TB) string {
	t.Helper()
	return kubectl(t, "-n", weirNamespace, "get", "pods", "-l", "app.kubernetes.io/component=dispatcher", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount} {.status.containerStatuses[*].lastState.terminated.reason}{"\n"}{end}`)
}
