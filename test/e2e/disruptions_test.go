package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testDisruptions: restarts and deletions of everything that Weir consists of, under load: no accepted order is
// lost, none is a row twice, and a client sees 503 at most.
func testDisruptions(t *testing.T) {
	const run = "disrupted"
	db := database(t)
	load := startLoad(t, run, "/orders", 100, 0, 16)
	load.sends(200)
	step := func(name string, f func()) {
		start := time.Now()
		before := load.report()
		f()
		load.sends(300) // errors that follow a moment later belong to it too
		after := load.report()
		t.Logf("%s: %s; meanwhile %d × 202, %d × 503", name, time.Since(start).Round(100*time.Millisecond),
			after.Statuses["202"]-before.Statuses["202"], after.Statuses["503"]-before.Statuses["503"])
	}
	rollout := func(what string) {
		kubectl(t, "-n", weirNamespace, "rollout", "status", what, "--timeout=180s")
	}
	step("rolling restart of the gateway", func() {
		kubectl(t, "-n", weirNamespace, "rollout", "restart", "deploy/weir-gateway")
		rollout("deploy/weir-gateway")
	})
	if r := load.report(); r.Statuses["202"] != r.Sent {
		t.Errorf("a rolling restart of the gateway is to be seen by clients: %s", r)
	}
	step("rolling restart of the dispatcher", func() {
		kubectl(t, "-n", weirNamespace, "rollout", "restart", "deploy/weir-dispatcher")
		rollout("deploy/weir-dispatcher")
	})
	step("deletion of the dispatcher that owns the queue", func() {
		kubectl(t, "-n", weirNamespace, "delete", "pod", owner(t), "--wait=false")
		rollout("deploy/weir-dispatcher")
	})
	if env.onNode {
		step("kill -9 of the dispatcher that owns the queue", func() {
			name := owner(t)
			kill(t, get[pod](t, "-n", weirNamespace, "pod", name).Metadata.UID, "dispatcher")
			eventually(t, "it was started again", func() string {
				if n := kubectl(t, "-n", weirNamespace, "get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); n == "0" {
					return n + " restarts"
				}
				return ""
			})
			rollout("deploy/weir-dispatcher")
		})
	}
	step("deletion of the controllers", func() {
		kubectl(t, "-n", weirNamespace, "delete", "pod", "-l", "app.kubernetes.io/component=controller", "--wait=false")
		rollout("deploy/weir-controller")
	})
	step("deletion of NATS", func() {
		before := get[pod](t, "-n", weirNamespace, "pod", "weir-nats-0").Metadata.UID
		kubectl(t, "-n", weirNamespace, "delete", "pod", "weir-nats-0", "--wait=false")
		eventually(t, "weir-nats-0 is another pod", func() string {
			out, err := env.kubectl(t.Context(), "-n", weirNamespace, "get", "pod", "weir-nats-0", "-o", "jsonpath={.metadata.uid}")
			if err != nil || out == "" || out == before {
				return "still there, or none yet"
			}
			return ""
		})
		rollout("statefulset/weir-nats")
	})
	step("eviction of all pods, as a drain of the node does it", func() {
		for _, p := range pods(t, weirNamespace, "app.kubernetes.io/name=weir") {
			evict(t, p.Metadata.Name)
		}
		for _, stage := range env.stages() {
			rollout("deploy/weir-" + stage)
		}
		rollout("deploy/weir-pgbouncer")
		rollout("statefulset/weir-nats")
	})
	r := load.stop()
	if len(r.Errors) > 0 || r.Statuses["202"]+r.Statuses["503"] != r.Sent {
		t.Errorf("clients saw more than 503s: %s", r)
	}
	wantAll(t, db, "orders", run, r)
}

// testChangeWithoutNATS: the status says that a change can't be published, and it comes into use when NATS is back.
func testChangeWithoutNATS(t *testing.T) {
	scale := func(replicas string) {
		kubectl(t, "-n", weirNamespace, "scale", "statefulset/weir-nats", "--replicas="+replicas)
	}
	patch := func(spec string) {
		kubectl(t, "-n", sampleNamespace, "patch", "esm", "orders", "--type=merge", "-p", spec)
	}
	scale("0")
	kubectl(t, "-n", weirNamespace, "wait", "--for=delete", "pod/weir-nats-0", "--timeout=120s")
	patch(`{"spec":{"maxConcurrency":7}}`)
	eventually(t, "the status says that NATS is away", func() string {
		if c := get[resource](t, "-n", sampleNamespace, "esm/orders").ready(); c.Reason != "NATSUnavailable" {
			return c.Reason + ": " + c.Message
		}
		return ""
	})
	scale("1")
	waitReady(t, "esm/orders")
	if m := get[resource](t, "-n", sampleNamespace, "esm/orders"); m.Status.MaxConcurrency != 7 {
		t.Errorf("the cap is %d", m.Status.MaxConcurrency)
	}
	patch(`{"spec":{"maxConcurrency":null}}`)
	waitReady(t, "esm/orders", "apis.weir.dev/shop", "queues.weir.dev/orders")
}

// owner is the dispatcher that works for the queue orders: the latest to log that it does.
func owner(t testing.TB) string {
	t.Helper()
	var name, since string
	eventually(t, "a dispatcher works for the queue", func() string {
		for _, p := range pods(t, weirNamespace, "app.kubernetes.io/component=dispatcher") {
			for line := range strings.SplitSeq(kubectl(t, "-n", weirNamespace, "logs", p.Metadata.Name), "\n") {
				var l struct{ Time, Msg, Mapping string }
				if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "working for this mapping" && l.Mapping == "default/orders" && l.Time > since {
					name, since = p.Metadata.Name, l.Time
				}
			}
		}
		if name == "" {
			return "none"
		}
		return ""
	})
	return name
}

// kill sends SIGKILL to a program of a pod: these tests run on the node.
func kill(t testing.TB, podUID, program string) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, path := range commands {
		command, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(command), "/ko-app/"+program) {
			continue // or the process has just ended
		}
		process := filepath.Dir(path)
		groups, err := os.ReadFile(filepath.Join(process, "cgroup"))
		if err != nil || !strings.Contains(strings.ReplaceAll(string(groups), "_", "-"), podUID) {
			continue
		}
		id, err := strconv.Atoi(filepath.Base(process))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(id, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed++
	}
	if killed != 1 {
		t.Fatalf("%d processes of %s in pod %s", killed, program, podUID)
	}
}

// evict asks as `kubectl drain` does: a PodDisruptionBudget may say "not now".
func evict(t testing.TB, name string) {
	t.Helper()
	body := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":%q}}`, name, weirNamespace)
	path := "/api/v1/namespaces/" + weirNamespace + "/pods/" + name + "/eviction"
	eventually(t, name+" may be evicted", func() string {
		_, err := env.tool(t.Context(), body, "kubectl", "create", "--raw", path, "-f", "-")
		if err == nil || strings.Contains(err.Error(), "not found") {
			return ""
		}
		return err.Error()
	})
}

// testRollingUpdate: gateways, then dispatchers, are updated under load to a version that writes a field into each record
// which the running one doesn't know, and something into one of eight that it can't handle; then the gateways go back. No
// accepted order is lost, none is a row twice, none a dead letter.
func testRollingUpdate(t *testing.T) {
	const run = "rolled"
	db := database(t)
	update := func(stages ...string) {
		t.Helper()
		args := chartArgs("charts/weir")
		for _, stage := range stages {
			args = append(args, "--set", stage+".image="+env.image(stage)+"-next")
		}
		helm(t, args...)
	}
	held := func() (n int) {
		for _, p := range pods(t, weirNamespace, "app.kubernetes.io/component=dispatcher") {
			n += strings.Count(kubectl(t, "-n", weirNamespace, "logs", p.Metadata.Name), "blocks are held")
		}
		return n
	}
	load := startLoad(t, run, "/orders", 100, 0, 16)
	load.sends(200)
	update("gateway")
	load.sends(300)
	eventually(t, "a dispatcher holds what it can't read", func() string {
		if held() == 0 {
			return "none is held"
		}
		return ""
	})
	update("gateway", "dispatcher")
	load.sends(300)
	update("dispatcher")
	load.sends(300)
	r := load.stop()
	if len(r.Errors) > 0 || r.Statuses["202"]+r.Statuses["503"] != r.Sent {
		t.Errorf("clients saw more than 503s: %s", r)
	}
	wantAll(t, db, "orders", run, r)
	update()
}

// testUninstallAndUpgrade: what is queued, the resources and their definitions survive helm uninstall; an older
// chart takes them over, and helm upgrade brings it to this one under load.
func testUninstallAndUpgrade(t *testing.T) {
	const run = "kept"
	db := database(t)
	// Nothing drains the queue while there is no Weir: the orders are there when it is back.
	kubectl(t, "-n", weirNamespace, "scale", "deploy/weir-dispatcher", "--replicas=0")
	kubectl(t, "-n", weirNamespace, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=dispatcher", "--timeout=90s")
	load := startLoad(t, run, "/orders", 200, 500, 16)
	eventually(t, "the orders are sent", func() string {
		if r := load.report(); r.Sent < 500 {
			return r.String()
		}
		return ""
	})
	r := load.stop()
	if r.Statuses["202"] != 500 {
		t.Fatalf("not all were accepted: %s", r)
	}
	helm(t, "uninstall", "weir", "--namespace", weirNamespace, "--wait", "--timeout", "3m")
	if n := len(get[struct{ Items []resource }](t, "-n", sampleNamespace, "apis.weir.dev,queues.weir.dev,esm").Items); n < 3 {
		t.Errorf("%d resources are left after helm uninstall", n)
	}
	for _, r := range get[struct{ Items []resource }](t, "-n", sampleNamespace, "apis.weir.dev,queues.weir.dev,esm").Items {
		if c := r.ready(); c.Status != "False" || c.Reason != "Uninstalled" {
			t.Errorf("%s is Ready=%s %s after helm uninstall: %s", r.Metadata.Name, c.Status, c.Reason, c.Message)
		}
	}
	// As docs/kubernetes.md shows it for a hook that could not be made.
	if left := kubectl(t, "delete", "job,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding", "--all-namespaces",
		"-l", "app.kubernetes.io/component=uninstalled", "-o", "name"); left != "" && left != "No resources found" {
		t.Errorf("the hook left %s", left)
	}
	if volumes := kubectl(t, "-n", weirNamespace, "get", "pvc", "-o", "name"); !strings.Contains(volumes, "weir-nats-0") {
		t.Errorf("NATS' volume is gone: %q", volumes)
	}

	older := olderChart(t)
	helm(t, append(chartArgs(older), olderPods()...)...)
	wantAll(t, db, "orders", run, r)
	waitReady(t, "apis.weir.dev/shop", "queues.weir.dev/orders", "esm/orders")
	before := kubectl(t, "-n", weirNamespace, "get", "secret", "weir-nats-auth", "weir-nats-tls", "-o", "jsonpath={.items[*].data}")

	names := func() (all []string) {
		for _, p := range pods(t, weirNamespace, "app.kubernetes.io/name=weir") {
			all = append(all, p.Metadata.UID)
		}
		return all
	}
	olderUIDs := names()
	upgraded := startLoad(t, "upgraded", "/orders", 100, 0, 16)
	upgraded.sends(200)
	helm(t, chartArgs("charts/weir")...)
	upgraded.sends(300)
	ru := upgraded.stop()
	if len(ru.Errors) > 0 || ru.Statuses["202"]+ru.Statuses["503"] != ru.Sent {
		t.Errorf("clients saw more than 503s while helm upgrade ran: %s", ru)
	}
	wantAll(t, db, "orders", "upgraded", ru)
	for _, uid := range names() {
		if slices.Contains(olderUIDs, uid) {
			t.Error("helm upgrade left a pod as it was: nothing was tried")
		}
	}
	if columns := kubectl(t, "get", "crd", "queues.weir.dev", "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}"); !strings.Contains(columns, "In-Flight") {
		t.Errorf("the custom resource definitions were not upgraded: %s", columns)
	}
	if after := kubectl(t, "-n", weirNamespace, "get", "secret", "weir-nats-auth", "weir-nats-tls", "-o", "jsonpath={.items[*].data}"); before != after {
		t.Error("helm upgrade made new credentials")
	}
}

// olderPods make every pod of the older release another one than after the upgrade.
func olderPods() []string {
	var args []string
	for _, component := range append(env.stages(), "nats", "pgbouncer") {
		args = append(args, "--set", component+".podAnnotations.older=yes")
	}
	return args
}

// olderChart is this chart as an earlier one could have been: another version, resources with fewer fields.
func olderChart(t testing.TB) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "weir")
	if err := os.CopyFS(folder, os.DirFS(filepath.Join(env.root, "charts", "weir"))); err != nil {
		t.Fatal(err)
	}
	edit := func(file string, change func(string) string) {
		t.Helper()
		path := filepath.Join(folder, file)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := change(string(old))
		if text == string(old) {
			t.Fatalf("%s: nothing to change", file)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit("Chart.yaml", func(s string) string { return strings.Replace(s, "\nversion: ", "\nversion: 0.0.1 # was ", 1) })
	edit("files/crds/weir.dev_queues.yaml", func(s string) string {
		return strings.Replace(s, "    - jsonPath: .status.depth.inFlight\n      name: In-Flight\n      type: integer\n", "", 1)
	})
	return folder
}
