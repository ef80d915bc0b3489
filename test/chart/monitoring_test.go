package chart_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// monitored are the pods that have metrics, by component, with the port.
func monitored(nats, pgbouncer int32) map[string]int32 {
	out := map[string]int32{"nats": nats, "pgbouncer": pgbouncer, "emf": 8080}
	for _, name := range stageNames() {
		out[name] = 8081
	}
	return out
}

// TestPodMonitors holds that each pod with metrics is found by one PodMonitor, once, at a port that it has and that its
// NetworkPolicy lets those in to who read metrics, and that its job is the name by which alerts and dashboards go.
func TestPodMonitors(t *testing.T) {
	const values = "exporters with the operator"
	docs := render(t, matrix[values])
	want := monitored(9000, 9001)
	for _, p := range pods(docs) {
		component := p.meta.Labels["app.kubernetes.io/component"]
		found := 0
		for _, m := range all[podMonitor](docs) {
			selector, err := metav1.LabelSelectorAsSelector(&m.Spec.Selector)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(m.Spec.NamespaceSelector.MatchNames, []string{namespace}) {
				t.Errorf("%s looks into %v", m.Name, m.Spec.NamespaceSelector.MatchNames)
			}
			if !selector.Matches(labels.Set(p.meta.Labels)) {
				continue
			}
			for _, e := range m.Spec.PodMetricsEndpoints {
				port := portOf(p, e.Port)
				if port == 0 {
					continue
				}
				found++
				if port != want[component] || e.Path != "/metrics" || e.Interval != "30s" {
					t.Errorf("%s reads %s at port %d, %s, each %s", m.Name, p.name, port, e.Path, e.Interval)
				}
				if r := e.Relabelings[0]; r.TargetLabel != "job" || r.Replacement != "weir-$1" || r.SourceLabels[0] != "__meta_kubernetes_pod_label_app_kubernetes_io_component" {
					t.Errorf("%s: job is %v", m.Name, r)
				}
				from, open := admits(docs, p, port)
				if !open || !slices.ContainsFunc(from, func(p networkingv1.NetworkPolicyPeer) bool {
					return p.NamespaceSelector != nil && p.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] == "monitoring"
				}) {
					t.Errorf("the NetworkPolicy of %s lets no Prometheus in to port %d: %v", p.name, port, from)
				}
			}
		}
		if n := map[bool]int{true: 1}[want[component] != 0]; found != n {
			t.Errorf("%s is read by %d endpoints, want %d", p.name, found, n)
		}
	}
	if _, open := admits(render(t, matrix["exporters"]), pod{meta: metav1.ObjectMeta{Labels: map[string]string{"app.kubernetes.io/component": "nats"}}}, 8222); !open {
		t.Error("helm test can't ask NATS")
	}
	m := get[podMonitor](t, render(t, matrix["everything"]), "other-functions")
	if !slices.Equal(m.Spec.NamespaceSelector.MatchNames, []string{"shop"}) || m.Spec.PodMetricsEndpoints[0].Relabelings[0].Replacement != "$1:9464" || m.Labels["release"] != "prometheus" {
		t.Errorf("functions: %v", m.Spec)
	}
}

func portOf(p pod, name string) int32 {
	for _, c := range p.spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name {
				return port.ContainerPort
			}
		}
	}
	return 0
}

// admits are those whom a pod's NetworkPolicy lets in to a port; open is false if nobody is.
func admits(docs []typed, p pod, port int32) (from []networkingv1.NetworkPolicyPeer, open bool) {
	for _, policy := range all[networkingv1.NetworkPolicy](docs) {
		if policy.Labels["app.kubernetes.io/component"] != p.meta.Labels["app.kubernetes.io/component"] {
			continue
		}
		for _, rule := range policy.Spec.Ingress {
			if slices.ContainsFunc(rule.Ports, func(x networkingv1.NetworkPolicyPort) bool { return x.Port.IntVal == port }) {
				from, open = append(from, rule.From...), true
			}
		}
	}
	return from, open
}

// TestScrapeAnnotations: a pod with metrics says where they are, and no other.
func TestScrapeAnnotations(t *testing.T) {
	for name, want := range map[string]map[string]int32{"exporters": monitored(7777, 9127), "pgbouncer": {}, "defaults": {}} {
		for _, p := range pods(render(t, matrix[name])) {
			port := want[p.meta.Labels["app.kubernetes.io/component"]]
			a := p.meta.Annotations
			if port == 0 {
				if a["prometheus.io/scrape"] != "" {
					t.Errorf("%s: %s is to be read: %v", name, p.name, a)
				}
				continue
			}
			if a["prometheus.io/scrape"] != "true" || a["prometheus.io/port"] != strconv.Itoa(int(port)) || a["prometheus.io/path"] != "/metrics" {
				t.Errorf("%s: %s has %v", name, p.name, a)
			}
		}
	}
}

// TestDocumentedScrapeFindsEachPodOnce: of a pod's ports, each of which a Prometheus without the operator finds, the job of
// docs/kubernetes.md keeps one.
func TestDocumentedScrapeFindsEachPodOnce(t *testing.T) {
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`\[__meta_kubernetes_pod_container_port_name\], regex: ([^,]+), action: keep`).FindStringSubmatch(string(text))
	if m == nil {
		t.Fatal("docs/kubernetes.md has no such rule")
	}
	keeps := regexp.MustCompile("^(?:" + m[1] + ")$") // as Prometheus has it
	for _, p := range pods(render(t, matrix["exporters"])) {
		if p.meta.Annotations["prometheus.io/scrape"] == "" {
			continue
		}
		var kept []string
		for _, c := range p.spec.Containers {
			for _, port := range c.Ports {
				if keeps.MatchString(port.Name) {
					kept = append(kept, port.Name)
				}
			}
		}
		if len(kept) != 1 {
			t.Errorf("%s is found by its ports %v", p.name, kept)
		}
	}
}

// TestDocumentedCollector: the configuration of a collector in docs/kubernetes.md makes the labels that a target has beside its
// job of attributes that each pod which pushes has.
func TestDocumentedCollector(t *testing.T) {
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, config, ok := strings.Cut(string(text), "```yaml\nreceivers:\n")
	config, _, _ = strings.Cut(config, "```\n")
	var collector struct {
		Receivers, Exporters map[string]any
		Processors           map[string]struct {
			Statements []struct {
				Context    string
				Statements []string
			} `json:"metric_statements"`
		}
		Service struct {
			Pipelines map[string]struct{ Receivers, Processors, Exporters []string }
		}
	}
	if err := yaml.UnmarshalStrict([]byte("receivers:\n"+config), &collector); err != nil || !ok {
		t.Fatal(ok, err)
	}
	pipeline := collector.Service.Pipelines["metrics"]
	if !slices.Equal(pipeline.Receivers, slices.Collect(maps.Keys(collector.Receivers))) || !slices.Equal(pipeline.Processors, slices.Collect(maps.Keys(collector.Processors))) ||
		!slices.Equal(pipeline.Exporters, slices.Collect(maps.Keys(collector.Exporters))) {
		t.Errorf("its pipeline is %v", pipeline)
	}
	set := regexp.MustCompile(`^set\(attributes\["(\w+)"\], resource\.attributes\["([\w.]+)"\]\)$`)
	labels := map[string]string{}
	for _, s := range collector.Processors["transform/weir"].Statements {
		for _, statement := range s.Statements {
			m := set.FindStringSubmatch(statement)
			if m == nil || s.Context != "datapoint" {
				t.Fatalf("%s of a %s", statement, s.Context)
			}
			labels[m[1]] = m[2]
		}
	}
	if got := slices.Sorted(maps.Keys(labels)); !slices.Equal(got, []string{"namespace", "pod"}) {
		t.Errorf("it makes the labels %v", got)
	}
	for _, p := range pods(render(t, matrix["pushed"])) {
		c := p.spec.Containers[0]
		if env(c, "OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
			if component := p.meta.Labels["app.kubernetes.io/component"]; component == "emf" || slices.Contains(stageNames(), component) {
				t.Errorf("%s pushes nothing", p.name)
			}
			continue
		}
		for label, attribute := range labels {
			if !strings.Contains(","+env(c, "OTEL_RESOURCE_ATTRIBUTES"), ","+attribute+"=$(") {
				t.Errorf("%s has no %s of %s", p.name, label, attribute)
			}
		}
	}
}

// TestPushedMetricsAreNotReadBesides: who pushes is read by nobody, or each series is there twice in a Prometheus that both
// reach. What can't push, an exporter or a function's page, is read still.
func TestPushedMetricsAreNotReadBesides(t *testing.T) {
	const push = `
telemetry: {otlp: {endpoint: "http://collector:4318"}, metrics: {enabled: true}}
`
	// An endpoint alone pushes no metrics.
	docs := render(t, strings.Replace(push, "enabled: true", "enabled: false", 1)+`
serviceMonitor: {enabled: true}
emf: {enabled: true}
`)
	for _, name := range stageNames() {
		if v := env(get[appsv1.Deployment](t, docs, "weir-"+name).Spec.Template.Spec.Containers[0], "OTEL_METRICS_EXPORTER"); v != "none" {
			t.Errorf("%s: OTEL_METRICS_EXPORTER is %q though it is read", name, v)
		}
	}
	c := get[appsv1.DaemonSet](t, docs, "weir-emf").Spec.Template.Spec.Containers[0]
	if v := env(c, "OTEL_EXPORTER_OTLP_ENDPOINT"); v != "" {
		t.Errorf("emf pushes to %s though it is read", v)
	}
	for _, row := range []struct {
		values string
		want   []string // what is read
	}{
		{matrix["exporters with the operator"] + push, []string{"weir-nats", "weir-pgbouncer"}},
		{matrix["exporters"] + push, []string{"weir-nats", "weir-pgbouncer"}},
		{`serviceMonitor: {enabled: true, functions: {namespaces: [shop]}}
emf: {enabled: true}` + push, []string{"weir-functions"}},
		{matrix["pushed"], nil},
		{matrix["emf with all"], []string{"weir-stages"}}, // which pushes by its own environment
	} {
		docs := render(t, row.values)
		var read []string
		for _, m := range all[podMonitor](docs) {
			read = append(read, m.Name)
		}
		for _, p := range pods(docs) {
			if p.meta.Annotations["prometheus.io/scrape"] != "" {
				read = append(read, p.name)
			}
		}
		if slices.Sort(read); !slices.Equal(read, row.want) {
			t.Errorf("%v are read, want %v with%s", read, row.want, row.values)
		}
	}
}

// TestExporters: NATS' monitoring is asked by the pod's own loopback; PgBouncer's exporter may read and has its password
// from the Secret.
func TestExporters(t *testing.T) {
	exporter := func(spec corev1.PodSpec) corev1.Container { return spec.Containers[len(spec.Containers)-1] }
	docs := render(t, matrix["exporters"])
	c := exporter(get[appsv1.StatefulSet](t, docs, "weir-nats").Spec.Template.Spec)
	if want := []string{"-port=7777", "-varz", "-jsz=streams", "http://127.0.0.1:8222"}; !slices.Equal(c.Args, want) {
		t.Errorf("NATS' exporter: %v", c.Args)
	}
	if from, open := admits(docs, pod{meta: metav1.ObjectMeta{Labels: map[string]string{"app.kubernetes.io/component": "nats"}}}, 8222); !open || len(from) != 1 || from[0].PodSelector.MatchLabels["app.kubernetes.io/component"] != "test" {
		t.Errorf("NATS' monitoring is open to %v", from)
	}
	c = exporter(get[appsv1.Deployment](t, docs, "weir-pgbouncer").Spec.Template.Spec)
	if !slices.Contains(c.Args, "--pgBouncer.connectionString=postgres://127.0.0.1:6432/pgbouncer?sslmode=disable") || env(c, "PGUSER") != "weir-exporter" {
		t.Errorf("PgBouncer's exporter: %v %v", c.Args, c.Env)
	}
	if got := string(get[corev1.Secret](t, docs, "weir-pgbouncer-auth").Data["exporter-password"]); got != "another-password" {
		t.Errorf("its password is %q", got)
	}
	if ini := get[corev1.ConfigMap](t, docs, "weir-pgbouncer").Data["pgbouncer.ini"]; !strings.Contains(ini, "\nstats_users = weir-exporter\n") || strings.Contains(ini, "admin_users") {
		t.Errorf("its rights in\n%s", ini)
	}
	docs = render(t, matrix["exporters with the operator"])
	c = exporter(get[appsv1.Deployment](t, docs, "weir-pgbouncer").Spec.Template.Spec)
	if ref := c.Env[1].ValueFrom.SecretKeyRef; ref.Name != "users" || ref.Key != "exporter-password" || !strings.HasSuffix(c.Args[1], "sslmode=require") {
		t.Errorf("PgBouncer's exporter: %v %v", c.Args, ref)
	}
	if ini := get[corev1.ConfigMap](t, docs, "weir-pgbouncer").Data["pgbouncer.ini"]; !strings.Contains(ini, "\nstats_users = stats\n") {
		t.Errorf("one user twice in\n%s", ini)
	}
}

// TestTelemetry: all stages send what they are told to by OpenTelemetry's own variables, and their NetworkPolicies let it out.
func TestTelemetry(t *testing.T) {
	docs := render(t, `
telemetry:
  otlp: {endpoint: "http://collector.observability:4318", headersSecret: collector, to: [{namespaceSelector: {matchLabels: {a: b}}}]}
  metrics: {enabled: true, intervalSeconds: 15}
  logs: {enabled: true}
  resourceAttributes: {deployment.environment.name: prod, team: shop}
emf: {enabled: true}
`)
	telemetryOfTheCollector(t, docs)
	for _, name := range stageNames() {
		c := get[appsv1.Deployment](t, docs, "weir-"+name).Spec.Template.Spec.Containers[0]
		want := map[string]string{
			"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.observability:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
			"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "15000", "OTEL_LOGS_EXPORTER": "otlp",
			"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.05",
			"OTEL_RESOURCE_ATTRIBUTES": "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(WEIR_INSTANCE),k8s.deployment.name=weir-" + name + ",deployment.environment.name=prod,team=shop",
		}
		if got := otelEnv(t, name, c); !maps.Equal(got, want) {
			t.Errorf("%s has %v, want %v", name, got, want)
		}
		policy := get[networkingv1.NetworkPolicy](t, docs, "weir-"+name)
		if restricted, out := slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress), letsOut(policy); restricted != out {
			t.Errorf("%s: its egress is restricted: %t, and open to the collector: %t", name, restricted, out)
		}
	}
	for _, e := range get[appsv1.Deployment](t, render(t, ``), "weir-gateway").Spec.Template.Spec.Containers[0].Env {
		if strings.HasPrefix(e.Name, "OTEL_") {
			t.Errorf("%s is set though nothing is sent", e.Name)
		}
	}
}

// telemetryOfTheCollector holds that the collector of lines in embedded metric format pushes where the stages do.
func telemetryOfTheCollector(t *testing.T, docs []typed) {
	t.Helper()
	want := map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.observability:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_METRIC_EXPORT_INTERVAL": "15000",
		"OTEL_RESOURCE_ATTRIBUTES": "k8s.node.name=$(WEIR_NODE),k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),k8s.daemonset.name=weir-emf,deployment.environment.name=prod,team=shop",
	}
	if got := otelEnv(t, "emf", get[appsv1.DaemonSet](t, docs, "weir-emf").Spec.Template.Spec.Containers[0]); !maps.Equal(got, want) {
		t.Errorf("emf has %v, want %v", got, want)
	}
	if policy := get[networkingv1.NetworkPolicy](t, docs, "weir-emf"); !letsOut(policy) || len(policy.Spec.Egress) != 2 {
		t.Errorf("emf may connect to %v", policy.Spec.Egress)
	}
}

// otelEnv are OpenTelemetry's variables of a container, but for the headers, which come from the Secret collector.
func otelEnv(t *testing.T, name string, c corev1.Container) map[string]string {
	t.Helper()
	got, before := map[string]string{}, map[string]bool{}
	for _, e := range c.Env {
		for _, m := range regexp.MustCompile(`\$\((\w+)\)`).FindAllStringSubmatch(e.Value, -1) {
			if !before[m[1]] {
				t.Errorf("%s: %s stands before %s, so Kubernetes does not expand it", name, e.Name, m[1])
			}
		}
		before[e.Name] = true
		switch {
		case e.Name == "OTEL_EXPORTER_OTLP_HEADERS":
			if e.ValueFrom.SecretKeyRef.Name != "collector" || e.ValueFrom.SecretKeyRef.Key != "headers" {
				t.Errorf("%s: headers of %v", name, e.ValueFrom)
			}
		case strings.HasPrefix(e.Name, "OTEL_"):
			got[e.Name] = e.Value
		}
	}
	if !before["OTEL_EXPORTER_OTLP_HEADERS"] {
		t.Errorf("%s sends no headers", name)
	}
	return got
}

// letsOut reports whether a policy lets out to port 4318 of the namespaces labelled a: b.
func letsOut(policy *networkingv1.NetworkPolicy) bool {
	return slices.ContainsFunc(policy.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool {
		return len(r.Ports) == 1 && r.Ports[0].Port.IntVal == 4318 && len(r.To) == 1 && r.To[0].NamespaceSelector.MatchLabels["a"] == "b"
	})
}

// TestLogLevels: each stage reads its own key of one ConfigMap, in a folder that the kubelet keeps up to date, and a
// change of it is no reason to restart.
func TestLogLevels(t *testing.T) {
	docs, changed := render(t, `log: {access: "0.01"}`), render(t, `log: {level: debug}`)
	levels := get[corev1.ConfigMap](t, docs, "weir-log-levels").Data
	if got := slices.Sorted(maps.Keys(levels)); !slices.Equal(got, stageNames()) {
		t.Errorf("levels of %v", got)
	}
	for _, name := range stageNames() {
		spec := get[appsv1.Deployment](t, docs, "weir-"+name).Spec.Template.Spec
		for _, v := range spec.Volumes {
			if v.ConfigMap != nil && (v.ConfigMap.Name != "weir-log-levels" || !slices.Equal(v.ConfigMap.Items, []corev1.KeyToPath{{Key: name, Path: "level"}})) {
				t.Errorf("%s: %v", name, v.ConfigMap)
			}
		}
		if !slices.ContainsFunc(spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/etc/weir/log" && m.SubPath == "" }) {
			t.Errorf("%s mounts %v", name, spec.Containers[0].VolumeMounts)
		}
		if levels[name] != "info" || get[corev1.ConfigMap](t, changed, "weir-log-levels").Data[name] != "debug" {
			t.Errorf("%s: levels %v", name, levels)
		}
	}
	if v := env(get[appsv1.Deployment](t, docs, "weir-gateway").Spec.Template.Spec.Containers[0], "WEIR_ACCESS_LOG"); v != "0.01" {
		t.Errorf("WEIR_ACCESS_LOG is %q", v)
	}
}
