package chart_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// exporters are the programs of the exporters' images, by their modules.
var exporters = map[string]string{
	"pgbouncer-exporter":       "github.com/prometheus-community/pgbouncer_exporter",
	"prometheus-nats-exporter": "github.com/nats-io/prometheus-nats-exporter",
}

// runExporter runs the real exporter, of the image's version, with the arguments and the environment of its container, but that
// what it asks is at the port is, not at in, and it listens on loopback. Its page must have all that docs/kubernetes.md says of
// the prefix.
func runExporter(t *testing.T, docs []typed, c corev1.Container, prefix, in, is string) {
	t.Helper()
	image, version, _ := strings.Cut(c.Image[strings.LastIndexByte(c.Image, '/')+1:], ":")
	module := exporters[image]
	version = "v" + strings.TrimPrefix(version, "v")
	mod, err := os.ReadFile("../../hack/tools/exporters/go.mod")
	if err != nil || !strings.Contains(string(mod), module+" "+version+" ") {
		t.Fatalf("hack/tools/exporters/go.mod has no %s %s, which the chart's image %s is of; %v", module, version, c.Image, err)
	}
	if page, err := os.ReadFile("../../docs/kubernetes.md"); err != nil || !strings.Contains(string(page), strings.TrimPrefix(version, "v")) {
		t.Errorf("docs/kubernetes.md doesn't name %s of %s; %v", version, image, err)
	}
	name := path.Base(module)
	var env []string
	for _, e := range c.Env {
		if e.ValueFrom != nil {
			ref := e.ValueFrom.SecretKeyRef
			e.Value = string(get[corev1.Secret](t, docs, ref.Name).Data[ref.Key])
		}
		env = append(env, e.Name+"="+e.Value)
	}
	address := fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t))
	host, port, _ := strings.Cut(address, ":")
	args := slices.Clone(c.Args)
	for i, a := range args {
		args[i] = strings.NewReplacer("--web.listen-address=:9127", "--web.listen-address="+address, "-port=7777", "-port="+port,
			"127.0.0.1:"+in, "127.0.0.1:"+is).Replace(a)
	}
	if name == "prometheus-nats-exporter" {
		args = append([]string{"-addr=" + host}, args...)
	}
	child := processes.Start(t, name, testkit.Tool(t, "../..", "exporters", name), env, args...)
	defer child.Kill()
	var page series
	testkit.Eventually(t, name+" has a page of what it is for", func() bool {
		resp, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		if page, err = pageOf(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			return false
		}
		return slices.ContainsFunc(slices.Collect(maps.Keys(page)), func(metric string) bool { return strings.HasPrefix(metric, prefix) })
	})
	found := 0
	for metric, labels := range ofExporters(t) {
		if !strings.HasPrefix(metric, prefix) {
			continue
		}
		found++
		has, ok := page[metric]
		if !ok {
			t.Errorf("the page of %s has no %s", name, metric)
			continue
		}
		for _, l := range labels {
			if !slices.Contains(has, l) {
				t.Errorf("%s has no label %s: %v", metric, l, has)
			}
		}
	}
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
	docs := render(t, values)
	c := get[appsv1.StatefulSet](t, docs, "weir-nats").Spec.Template.Spec.Containers
	_, port, _ := strings.Cut(n.servers[0].MonitorAddr().String(), ":")
	for _, prefix := range []string{"jetstream_", "gnatsd_"} {
		runExporter(t, docs, c[len(c)-1], prefix, "8222", port)
	}
}
