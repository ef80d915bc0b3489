package docs_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// TestCollector: what is pushed through an OpenTelemetry Collector with the configuration of docs/kubernetes.md is, in a real
// Prometheus, by the names and labels that alerts and dashboards ask for.
func TestCollector(t *testing.T) {
	if os.Getenv("WEIR_LONG") == "" {
		t.Skip("!!! SKIPPED: NOTHING was pushed through an OpenTelemetry Collector; WEIR_LONG=1 builds one, in some minutes")
	}
	text, err := os.ReadFile(filepath.Join(root, "docs/kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	config := regexp.MustCompile("(?s)```yaml\n(receivers:.+?)```").FindStringSubmatch(string(text))
	if config == nil {
		t.Fatal("docs/kubernetes.md has no configuration of a collector")
	}
	// It is in nothing that make builds.
	if out, err := exec.CommandContext(t.Context(), filepath.Join(root, "hack/tools/collector/install.sh")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	free := func() string { return fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t)) }
	otlp, gateway, dir := free(), free(), t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	prometheus := processes.Prometheus(t, root, []byte("global: {}"), "--web.enable-remote-write-receiver")
	collector := strings.NewReplacer("0.0.0.0:4318", otlp, "0.0.0.0:4317", free(), "http://prometheus.monitoring:9090", prometheus.URL,
		"service:\n", "service:\n  telemetry: {metrics: {level: none}}\n").Replace(config[1]) // its own port may be taken
	processes.Start(t, "otelcol", testkit.Tool(t, root, "collector", "otelcol"), nil, "--config", write("collector.yaml", collector))
	if err := processes.Build(t.Context(), dir, "./cmd/weir"); err != nil {
		t.Fatal(err)
	}
	queues := filepath.Join(dir, "queues")
	if err := os.Mkdir(queues, 0o700); err != nil {
		t.Fatal(err)
	}
	write("queues/queue.yaml", "apiVersion: weir.dev/v1alpha1\nkind: Queue\nmetadata: {name: orders}\nspec: {maxBytes: 8Mi}\n")
	processes.Start(t, "weir", filepath.Join(dir, "weir"), []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + otlp, "OTEL_TRACES_EXPORTER=none", "OTEL_METRIC_EXPORT_INTERVAL=500",
		"OTEL_SERVICE_NAME=weir-gateway", "OTEL_RESOURCE_ATTRIBUTES=k8s.namespace.name=weir-system,k8s.pod.name=gateway-0",
	}, "local", "-f", queues, "--data", filepath.Join(dir, "nats"), "--listen", gateway)

	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	testkit.Eventually(t, "the gateway answers", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+gateway+"/no/such/route", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusNotFound
	})
	for _, metric := range []string{
		"weir_nats_connected_ratio", "weir_queue_limit_bytes", "weir_gateway_refused_total", `http_server_request_duration_seconds_bucket{le="+Inf"}`,
	} {
		var got []testkit.Sample
		testkit.Eventually(t, "Prometheus has "+metric, func() bool {
			got, err = prometheus.Query(t.Context(), "max by (job, namespace, pod) ("+metric+")")
			return err == nil && len(got) == 1
		})
		if want := map[string]string{"job": "weir-gateway", "namespace": "weir-system", "pod": "gateway-0"}; !maps.Equal(got[0].Metric, want) {
			t.Errorf("%s has %v", metric, got[0].Metric)
		}
	}
}
