package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// scrapeInterval is that of the test, so that it need not wait for the chart's.
const scrapeInterval = "2s"

// required is what testdata/metrics.yaml has.
type required struct {
	Query   string
	AtLeast float64
}

// orders are posted by testMetrics; testdata/metrics.yaml knows how many.
const orders = 25

// testMetrics: a Prometheus that finds the pods as the chart's PodMonitors say reads every one of them, knows what has
// happened after some traffic, and evaluates the chart's alerts. What NetworkPolicies let in is held by
// test/chart: the throw-away cluster doesn't enforce them.
func testMetrics(t *testing.T) {
	if !env.onNode {
		t.Skip("!!! SKIPPED: the pods' addresses can't be reached from here, so NOTHING read the metrics")
	}
	gateway := "http://" + forward(t, weirNamespace, "svc/weir-gateway", 80)
	prometheus := startPrometheus(t)
	db := database(t)
	const run = "metrics"
	for i := range orders {
		if status, answer, _ := post(t, gateway+"/orders", fmt.Sprintf(`{"sku":%q,"quantity":1,"customer":"%d"}`, run, i)); status != http.StatusAccepted {
			t.Fatalf("POST /orders: %d %s", status, answer)
		}
	}
	getStatus(t, gateway+"/no/such/route", http.StatusNotFound)
	eventually(t, "all orders are rows", func() string {
		if n := count(t, db, `SELECT count(*) FROM orders WHERE sku = $1`, run); n < orders {
			return fmt.Sprintf("%d of %d", n, orders)
		}
		return ""
	})

	var want []string
	for _, stage := range append(env.stages(), "nats", "pgbouncer") { // of the last two, their exporters
		for _, p := range pods(t, weirNamespace, "app.kubernetes.io/component="+stage) {
			want = append(want, "weir-"+stage+" "+p.Metadata.Name)
		}
	}
	slices.Sort(want)
	eventually(t, "all pods are read", func() string {
		up, err := prometheus.Query(t.Context(), `up{namespace="`+weirNamespace+`"} == 1`)
		var got []string
		for _, s := range up {
			got = append(got, s.Metric["job"]+" "+s.Metric["pod"])
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Sprintf("%v are, want %v %v", got, want, err)
		}
		return ""
	})
	var all []required
	list, err := os.ReadFile("testdata/metrics.yaml")
	if err == nil {
		err = yaml.UnmarshalStrict(list, &all)
	}
	if err != nil || len(all) == 0 {
		t.Fatal(len(all), err)
	}
	within(t, time.Minute, "Prometheus knows all that is required", func() string {
		var missing []string
		for _, r := range all {
			got, err := prometheus.Query(t.Context(), r.Query)
			switch {
			case err != nil:
				missing = append(missing, fmt.Sprintf("%s: %v", r.Query, err))
			case len(got) != 1:
				missing = append(missing, fmt.Sprintf("%s: %d series", r.Query, len(got)))
			case got[0].Value < r.AtLeast:
				missing = append(missing, fmt.Sprintf("%s: %g, want %g", r.Query, got[0].Value, r.AtLeast))
			}
		}
		return strings.Join(missing, "\n")
	})
	rules, err := prometheus.rules(t.Context())
	if err != nil || len(rules) < 10 {
		t.Errorf("%d rules, %v", len(rules), err)
	}
	for _, r := range rules {
		if r.Health != "ok" || r.LastError != "" {
			t.Errorf("alert %s: %s %s", r.Name, r.Health, r.LastError)
		}
	}
	if firing, err := prometheus.Query(t.Context(), `ALERTS{alertstate="firing"}`); err != nil || len(firing) > 0 {
		t.Errorf("alerts: %v %v", firing, err)
	}
	t.Logf("Prometheus reads %d pods", len(want))
}

func getStatus(t testing.TB, address string, want int) {
	t.Helper()
	if status := statusOf(t, address); status != want {
		t.Errorf("GET %s: %d, want %d", address, status, want)
	}
}

// podMonitor is what is used of the Prometheus operator's resource.
type podMonitor struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Selector struct {
			MatchLabels      map[string]string
			MatchExpressions []struct {
				Key, Operator string
				Values        []string
			}
		}
		NamespaceSelector   struct{ MatchNames []string }
		PodMetricsEndpoints []struct {
			Port, Path  string
			Relabelings []struct {
				SourceLabels                            []string
				Regex, TargetLabel, Replacement, Action string
			}
		}
	}
}

// podMonitors renders those of the chart: the operator's definitions are not in the cluster.
func podMonitors(t testing.TB) []podMonitor {
	t.Helper()
	args := slices.DeleteFunc(chartArgs("charts/weir"), func(a string) bool {
		return slices.Contains([]string{"upgrade", "--install", "--create-namespace", "--wait", "--timeout", "5m"}, a)
	})
	out := helm(t, append(append([]string{"template"}, args...), "--kube-version", "1.35.0", "--set", "serviceMonitor.enabled=true", "--show-only", "templates/monitoring/podmonitors.yaml")...)
	var monitors []podMonitor
	for text := range strings.SplitSeq(out, "\n---\n") {
		var m podMonitor
		if err := yaml.Unmarshal([]byte(strings.TrimPrefix(text, "---\n")), &m); err != nil {
			t.Fatal(err)
		}
		if m.Metadata.Name != "" {
			monitors = append(monitors, m)
		}
	}
	if len(monitors) == 0 {
		t.Fatal("the chart has no PodMonitor")
	}
	return monitors
}

// scrapeConfigs are what the operator makes of a PodMonitor, as far as the chart uses it.
func scrapeConfigs(m podMonitor) []map[string]any {
	label := func(key string) string {
		return "__meta_kubernetes_pod_label_" + strings.NewReplacer(".", "_", "/", "_", "-", "_").Replace(key)
	}
	keep := func(source, regex string) map[string]any {
		return map[string]any{"source_labels": []string{source}, "regex": regex, "action": "keep"}
	}
	to := func(source, target string) map[string]any {
		return map[string]any{"source_labels": []string{source}, "target_label": target}
	}
	var out []map[string]any
	for i, e := range m.Spec.PodMetricsEndpoints {
		var relabel []map[string]any
		for k, v := range m.Spec.Selector.MatchLabels {
			relabel = append(relabel, keep(label(k), v))
		}
		for _, x := range m.Spec.Selector.MatchExpressions {
			if x.Operator == "In" {
				relabel = append(relabel, keep(label(x.Key), strings.Join(x.Values, "|")))
			} else {
				relabel = append(relabel, keep(strings.Replace(label(x.Key), "_label_", "_labelpresent_", 1), "true"))
			}
		}
		relabel = append(relabel,
			map[string]any{"source_labels": []string{"__meta_kubernetes_pod_phase"}, "regex": "Failed|Succeeded", "action": "drop"},
			keep("__meta_kubernetes_pod_container_port_name", e.Port),
			to("__meta_kubernetes_namespace", "namespace"), to("__meta_kubernetes_pod_container_name", "container"), to("__meta_kubernetes_pod_name", "pod"))
		for _, r := range e.Relabelings {
			relabel = append(relabel, map[string]any{
				"source_labels": r.SourceLabels, "regex": r.Regex, "target_label": r.TargetLabel, "replacement": r.Replacement, "action": r.Action,
			})
		}
		out = append(out, map[string]any{
			"job_name":     fmt.Sprintf("podMonitor/%s/%s/%d", m.Metadata.Namespace, m.Metadata.Name, i),
			"metrics_path": e.Path,
			"kubernetes_sd_configs": []map[string]any{{
				"role": "pod", "kubeconfig_file": os.Getenv("E2E_KUBECONFIG"), "namespaces": map[string]any{"names": m.Spec.NamespaceSelector.MatchNames},
			}},
			"relabel_configs": relabel,
		})
	}
	return out
}

// promServer is a Prometheus of the test.
type promServer struct{ testkit.Prometheus }

func startPrometheus(t testing.TB) promServer {
	t.Helper()
	var configs []map[string]any
	for _, m := range podMonitors(t) {
		configs = append(configs, scrapeConfigs(m)...)
	}
	config, err := yaml.Marshal(map[string]any{
		"global":         map[string]any{"scrape_interval": scrapeInterval, "scrape_timeout": scrapeInterval, "evaluation_interval": scrapeInterval},
		"rule_files":     []string{filepath.Join(env.root, "charts/weir/files/alerts/weir.yaml")},
		"scrape_configs": configs,
	})
	if err != nil {
		t.Fatal(err)
	}
	return promServer{processes.Prometheus(t, env.root, config)}
}

type rule struct{ Name, Health, LastError string }

func (p promServer) rules(ctx context.Context) ([]rule, error) {
	b, err := p.Get(ctx, "/api/v1/rules", nil)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct{ Groups []struct{ Rules []rule } }
	}
	err = json.Unmarshal(b, &answer)
	var out []rule
	for _, g := range answer.Data.Groups {
		out = append(out, g.Rules...)
	}
	return out, err
}
