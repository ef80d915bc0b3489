package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// poolSize is PgBouncer's.
const poolSize = 2

// dispatcherMemory is the limit of the dispatchers' containers.
const dispatcherMemory = "128Mi"

// chartArgs are the values with which the tests install: those of kind, with more than one replica where possible.
func chartArgs(chart string) []string {
	args := []string{
		"upgrade", "--install", "weir", chart, "--namespace", weirNamespace, "--create-namespace", "--wait", "--timeout", "5m",
		"--values", "deploy/k8s/kind/values.yaml",
		"--set", "image.registry=" + env.images, "--set", "image.tag=" + env.tag,
		"--set", "tests.image=" + env.image("loader"), "--set", "tests.command={/ko-app/loader}", "--set", "tests.args={-get}",
		// Fewer connections than slowwriter may make calls: the pool is what bounds PostgreSQL.
		"--set", fmt.Sprintf("pgbouncer.defaultPoolSize=%[1]d,pgbouncer.maxDbConnections=%[1]d", poolSize),
		"--set", "dispatcher.resources.limits.memory=" + dispatcherMemory,
		"--set", "nats.exporter.enabled=true,pgbouncer.exporter.enabled=true,batch.enabled=true",
		"--set", "pgbouncer.auth.users[1].name=weir-exporter,pgbouncer.auth.users[1].password=for-development-only-too",
	}
	for _, stage := range env.stages() {
		args = append(args, "--set", stage+".replicas=2")
	}
	if env.collector != nil {
		// A share of none: but for what a client has sampled there are no spans, and nothing is sent.
		args = append(args, "--set", "telemetry.otlp.endpoint="+env.collector.URL, "--set", "telemetry.metrics.enabled=false",
			"--set", "telemetry.traces.sampler=parentbased_traceidratio", "--set-string", "telemetry.traces.samplerArg=0")
	}
	if env.natsReplicas != "" {
		args = append(args, "--set", "nats.replicas="+env.natsReplicas)
	}
	for name, image := range map[string]string{
		"nats.image": env.nats, "nats.exporter.image": env.natsExporter,
		"pgbouncer.image": env.pgbouncer, "pgbouncer.exporter.image": env.pgbouncerExporter,
	} {
		if image != "" {
			args = append(args, "--set", name+"="+image)
		}
	}
	return args
}

func helm(t testing.TB, args ...string) string {
	t.Helper()
	out, err := env.tool(t.Context(), "", "helm", args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, troubles(t))
	}
	return out
}

// troubles is what an operator would look at next.
func troubles(t testing.TB) string {
	var b strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"get", "events", "-n", weirNamespace, "--sort-by=.lastTimestamp"},
		{"logs", "-n", weirNamespace, "-l", "app.kubernetes.io/name=weir", "--all-containers", "--prefix", "--tail=20"},
	} {
		out, err := env.kubectl(t.Context(), args...)
		fmt.Fprintf(&b, "--- kubectl %s\n%s\n", strings.Join(args, " "), out)
		if err != nil {
			fmt.Fprintln(&b, err)
		}
	}
	return b.String()
}

// applySample is `kubectl apply -k deploy/k8s/overlays/kind` with this run's images.
func applySample(t testing.TB) {
	t.Helper()
	folder := filepath.Join(env.root, "bin", "e2e-overlay")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	const published = "ghcr.io/weir-dev/weir/"
	k := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../deploy/k8s/overlays/kind]\nimages:\n"
	for _, name := range []string{"order-writer", "order-api", "report", "query"} {
		k += fmt.Sprintf("- {name: %s%s, newName: %s/%s, newTag: %q}\n", published, name, env.images, name, env.tag)
	}
	if env.postgres != "" {
		name, tag, _ := strings.Cut(env.postgres, ":")
		k += fmt.Sprintf("- {name: postgres, newName: %s, newTag: %q}\n", name, tag)
	}
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(k), 0o644); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-k", folder)
}

func waitSample(t testing.TB) {
	t.Helper()
	kubectl(t, "-n", sampleNamespace, "rollout", "status", "statefulset/postgres", "--timeout=180s")
	waitReady(t, "ksvc/order-writer", "ksvc/order-api", "ksvc/report", "ksvc/query", "queues.weir.dev/orders", "queues.weir.dev/reports",
		"eventsourcemappings.weir.dev/orders", "eventsourcemappings.weir.dev/reports", "apis.weir.dev/shop",
		"queues.weir.dev/restocks", "eventsourcemappings.weir.dev/restocks", "statemachines.weir.dev/restock",
		"queues.weir.dev/watched-reports", "eventsourcemappings.weir.dev/watched-reports", "statemachines.weir.dev/watched-report")
}

// testInstall: helm install into the empty cluster, then kubectl apply -k; an order posted through a port-forward
// is in PostgreSQL.
func testInstall(t *testing.T) {
	start := time.Now()
	helm(t, chartArgs("charts/weir")...)
	t.Logf("helm install: all pods ready after %s", time.Since(start).Round(time.Second))
	helm(t, "test", "weir", "--namespace", weirNamespace, "--timeout", "2m")

	applied := time.Now()
	applySample(t)
	waitSample(t)
	t.Logf("kubectl apply -k: everything Ready after %s", time.Since(applied).Round(time.Second))
	if m := get[resource](t, "-n", sampleNamespace, "esm/orders"); m.Status.MaxConcurrency != 10 {
		t.Errorf("the mapping's cap is %d; containerConcurrency 2 × max-scale 5 is 10", m.Status.MaxConcurrency)
	}

	gateway := "http://" + forward(t, weirNamespace, "svc/weir-gateway", 80)
	status, answer, took := post(t, gateway+"/orders", `{"sku":"install","quantity":1,"customer":"ada"}`)
	if status != http.StatusAccepted {
		t.Fatalf("POST /orders: %d %s", status, answer)
	}
	var accepted struct{ ID string }
	if err := json.Unmarshal([]byte(answer), &accepted); err != nil {
		t.Fatal(err)
	}
	db := database(t)
	eventually(t, "the orders' table is there", func() string {
		if count(t, db, `SELECT count(*) FROM pg_tables WHERE tablename = 'orders'`) == 0 {
			return "no table"
		}
		return ""
	})
	row := eventually(t, "the order is a row", func() string {
		if count(t, db, `SELECT count(*) FROM orders WHERE id = $1`, accepted.ID) == 0 {
			return "no row"
		}
		return ""
	})
	t.Logf("the first order: 202 after %s, a row %s later", took.Round(time.Millisecond), row.Round(time.Millisecond))

	// Back through the API, the function and the chart's PgBouncer. A first instance that ends or begins meanwhile may cost a client of a
	// synchronous route an answer: what was seen is in the log then.
	eventually(t, "the order can be read", func() string {
		start := time.Now()
		status := statusOf(t, gateway+"/orders/"+accepted.ID)
		if status == http.StatusOK {
			return ""
		}
		out, err := env.kubectl(t.Context(), "-n", sampleNamespace, "get", "pods", "-o", "wide")
		logs, lerr := env.kubectl(t.Context(), "-n", sampleNamespace, "logs", "-l", "serving.knative.dev/service=order-api", "--all-containers", "--tail=40", "--prefix")
		t.Logf("GET /orders/%s: %d after %s; pods %v\n%s\n%v\n%s", accepted.ID, status, time.Since(start), err, out, lerr, logs)
		return fmt.Sprint(status)
	})
	if n := count(t, db, pooledConnections, pgbouncerIPs(t)); n == 0 {
		t.Error("PostgreSQL has no connection from PgBouncer: how did the order get there?")
	}
	for _, stage := range env.stages() {
		for _, pod := range pods(t, weirNamespace, "app.kubernetes.io/component="+stage) {
			if pod.hasToken() != (stage == "controller") {
				t.Errorf("%s: that it has a service account's token is %t; only the controller's pods need one", pod.Metadata.Name, pod.hasToken())
			}
		}
	}
}

const pooledConnections = `SELECT count(*) FROM pg_stat_activity WHERE usename = 'orders' AND host(client_addr) = ANY($1)`

func pgbouncerIPs(t testing.TB) []string {
	t.Helper()
	var ips []string
	for _, p := range pods(t, weirNamespace, "app.kubernetes.io/component=pgbouncer") {
		ips = append(ips, p.Status.PodIP)
	}
	return ips
}

type pod struct {
	Metadata struct {
		Name              string
		UID               string
		DeletionTimestamp *time.Time
	}
	Spec struct {
		Volumes []struct {
			Name      string
			Projected *struct{ Sources []map[string]any }
		}
	}
	Status struct {
		PodIP      string
		Conditions []struct{ Type, Status string }
	}
}

func (p pod) hasToken() bool {
	for _, v := range p.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if _, ok := s["serviceAccountToken"]; ok {
				return true
			}
		}
	}
	return false
}

// statusOf returns the status of a GET.
func statusOf(t testing.TB, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// pods are those that are not ending: a scaled-down pod of Knative drains for 30 s.
func pods(t testing.TB, namespace, selector string) []pod {
	t.Helper()
	list := get[struct{ Items []pod }](t, "-n", namespace, "pods", "-l", selector)
	var live []pod
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == nil {
			live = append(live, p)
		}
	}
	return live
}
