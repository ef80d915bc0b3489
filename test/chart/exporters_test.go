package chart_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// runExporter runs the real exporter with the arguments of its container, but that what it asks is at the port is, not at in,
// and it listens on loopback. Its page must have all that docs/kubernetes.md says of the prefix.
func runExporter(t *testing.T, c corev1.Container, prefix, in, is string, env ...string) {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t))
	host, port, _ := strings.Cut(address, ":")
	args := slices.Clone(c.Args)
	for i, a := range args {
		args[i] = strings.NewReplacer("--web.listen-address=:9127", "--web.listen-address="+address, "-port=7777", "-port="+port,
			"127.0.0.1:"+in, "127.0.0.1:"+is).Replace(a)
	}
	_, image, _ := strings.Cut(c.Image, "/")
	name := map[string]string{"prometheuscommunity/pgbouncer-exporter": "pgbouncer_exporter", "natsio/prometheus-nats-exporter": "prometheus-nats-exporter"}[strings.Split(image, ":")[0]]
	if name == "prometheus-nats-exporter" {
		args = append([]string{"-addr=" + host}, args...)
	}
	child := processes.Start(t, name, testkit.Tool(t, "../..", "exporters", name), env, args...)
	defer child.Kill()
	want := ofExporters(t)
	found := 0
	testkit.Eventually(t, name+" has all that docs/kubernetes.md says", func() bool {
		resp, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		page, err := pageOf(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		found = 0
		for metric, labels := range want {
			if !strings.HasPrefix(metric, prefix) {
				continue
			}
			has, ok := page[metric]
			if !ok {
				t.Logf("no %s", metric)
				return false
			}
			for _, l := range labels {
				if !slices.Contains(has, l) {
					t.Errorf("%s has no label %s: %v", metric, l, has)
				}
			}
			found++
		}
		return true
	})
	if found < 2 {
		t.Errorf("docs/kubernetes.md has %d metrics of %s", found, name)
	}
}

// TestNATSExporter: the real one, beside a NATS with the chart's configuration, knows what the documentation says. PgBouncer's
// is run by TestPgBouncer.
func TestNATSExporter(t *testing.T) {
	const values = `nats: {exporter: {enabled: true}}`
	n := newNATSSet(t, values, nil)
	n.start(t)
	if err := n.connect(t, "weir-nats-auth", "controller").EnsureQueue(t.Context(), orders("orders"), 1); err != nil {
		t.Fatal(err)
	}
	c := get[appsv1.StatefulSet](t, render(t, values), "weir-nats").Spec.Template.Spec.Containers
	_, port, _ := strings.Cut(n.servers[0].MonitorAddr().String(), ":")
	for _, prefix := range []string{"jetstream_", "gnatsd_"} {
		runExporter(t, c[len(c)-1], prefix, "8222", port)
	}
}
