package chart_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// TestGatewayProbes: NATS that is away takes no gateway out of its Service, or clients would be refused where they
// are to get a 503.
func TestGatewayProbes(t *testing.T) {
	c := get[appsv1.Deployment](t, render(t, ``), "weir-gateway").Spec.Template.Spec.Containers[0]
	if s, r := c.StartupProbe.HTTPGet.Path, c.ReadinessProbe.HTTPGet.Path; s != "/readyz" || r != "/healthz" {
		t.Errorf("startup %s, readiness %s", s, r)
	}
}

// TestNATSProbes: see the comments in the template.
func TestNATSProbes(t *testing.T) {
	for values, live := range map[string]string{``: "/healthz", `nats: {replicas: 3}`: "/healthz?js-enabled-only=true"} {
		set := get[appsv1.StatefulSet](t, render(t, values), "weir-nats")
		c := set.Spec.Template.Spec.Containers[0]
		if c.LivenessProbe.HTTPGet.Path != live || c.LivenessProbe.PeriodSeconds*c.LivenessProbe.FailureThreshold < 60 {
			t.Errorf("%q: liveness %v", values, c.LivenessProbe)
		}
		if c.ReadinessProbe.HTTPGet.Path != "/healthz?js-server-only=true" {
			t.Errorf("%q: readiness %v", values, c.ReadinessProbe)
		}
		if c.StartupProbe.HTTPGet.Path != map[bool]string{true: "/healthz", false: "/healthz?js-server-only=true"}[*set.Spec.Replicas == 3] {
			t.Errorf("%q: startup %v", values, c.StartupProbe)
		}
		if clustered := *set.Spec.Replicas == 3; clustered != (c.StartupProbe.InitialDelaySeconds >= 10) {
			t.Errorf("%q: asked after %d s whether it has started", values, c.StartupProbe.InitialDelaySeconds)
		}
		if c.StartupProbe.PeriodSeconds*c.StartupProbe.FailureThreshold < 600 {
			t.Errorf("%q: recovery may take %d s only", values, c.StartupProbe.PeriodSeconds*c.StartupProbe.FailureThreshold)
		}
		if set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement || set.Spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted != appsv1.RetainPersistentVolumeClaimRetentionPolicyType {
			t.Errorf("%q: replicas wait for each other, or their data goes with them", values)
		}
		if (c.Lifecycle != nil) != (*set.Spec.Replicas == 3) {
			t.Errorf("%q: lame duck is for a cluster, and only for it", values)
		}
	}
}

// TestNoMetadataService holds that no URL of a resource reaches a cloud's metadata service through Weir: whoever may
// connect to addresses may not to these, and only the controller, which calls no such URL, to any. http:invoke's guard and the
// policies block the same services.
func TestNoMetadataService(t *testing.T) {
	docs := render(t, ``)
	var values struct {
		NetworkPolicy struct{ BlockedCIDRs []string }
	}
	parse(t, chart+"/values.yaml", &values)
	blocked := values.NetworkPolicy.BlockedCIDRs
	guard, err := os.ReadFile("../../internal/egress/addresses.go")
	if err != nil {
		t.Fatal(err)
	}
	services := regexp.MustCompile(`\ba\("([0-9a-f.:]+)"\)`).FindAllStringSubmatch(string(guard), -1)
	if len(services) < 8 {
		t.Fatalf("internal/egress has %d metadata services", len(services))
	}
	for _, s := range services {
		a := netip.MustParseAddr(s[1])
		if !slices.ContainsFunc(blocked, func(cidr string) bool { return netip.MustParsePrefix(cidr).Contains(a) }) {
			t.Errorf("internal/egress refuses %s, and networkPolicy.blockedCIDRs doesn't", a)
		}
	}
	for _, name := range stageNames() {
		if name == "controller" {
			continue
		}
		policy := get[networkingv1.NetworkPolicy](t, docs, "weir-"+name)
		if !slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
			t.Errorf("%s: egress is not restricted", name)
		}
		var except []string
		addresses := false
		for _, rule := range policy.Spec.Egress {
			if len(rule.To) == 0 && len(rule.Ports) == 0 {
				t.Errorf("%s: a rule lets everything out", name)
			}
			for _, peer := range rule.To {
				if peer.IPBlock != nil && len(rule.Ports) == 0 { // with ports it is the node's DNS cache
					addresses = true
					except = append(except, peer.IPBlock.Except...)
				}
			}
		}
		slices.Sort(except)
		if addresses && !slices.Equal(except, slices.Sorted(slices.Values(blocked))) {
			t.Errorf("%s: except %v", name, except)
		}
		if calls := name == "gateway" || name == "dispatcher"; calls && !addresses {
			t.Errorf("%s can't call functions", name)
		}
	}
}

// TestNATSIsClosed holds that NATS and its clients are named in the policy, and nobody else.
func TestNATSIsClosed(t *testing.T) {
	policy := get[networkingv1.NetworkPolicy](t, render(t, ``), "weir-nats")
	if !slices.Equal(policy.Spec.PolicyTypes, []networkingv1.PolicyType{"Ingress", "Egress"}) {
		t.Error(policy.Spec.PolicyTypes)
	}
	want := map[int][]string{4222: stageNames(), 6222: {"nats"}, 8222: {"test"}}
	for _, rule := range policy.Spec.Ingress {
		var from []string
		for _, peer := range rule.From {
			if peer.NamespaceSelector != nil || peer.IPBlock != nil {
				t.Error("more than pods of this namespace:", peer)
			}
			from = append(from, peer.PodSelector.MatchLabels["app.kubernetes.io/component"])
		}
		slices.Sort(from)
		port := rule.Ports[0].Port.IntValue()
		if len(rule.Ports) != 1 || !slices.Equal(from, want[port]) {
			t.Errorf("port %d: from %v, want %v", port, from, want[port])
		}
		delete(want, port)
	}
	if len(want) > 0 {
		t.Error("no rule for", want)
	}
	for _, rule := range policy.Spec.Egress {
		for _, port := range rule.Ports {
			if n := port.Port.IntValue(); len(rule.To) == 0 || n != 53 && (n != 6222 || len(rule.To) != 1) {
				t.Errorf("egress to %d of %v", n, rule.To)
			}
		}
	}
}

func TestHelmTestPod(t *testing.T) {
	docs := render(t, `{nats: {replicas: 3}, tests: {image: "ko.local/get:v1", command: [/get], args: [-x]}}`)
	p := get[corev1.Pod](t, docs, "weir-test")
	if p.Annotations["helm.sh/hook"] != "test" {
		t.Error("the pod is no test")
	}
	urls := map[string]string{
		"gateway":      "http://weir-gateway-admin.weir-system.svc:8081/readyz",
		"orchestrator": "http://weir-orchestrator-admin.weir-system.svc:8081/readyz",
	}
	for i := range 3 {
		urls[fmt.Sprintf("nats-%d", i)] = fmt.Sprintf("http://weir-nats-%d.weir-nats-headless.weir-system.svc:8222/healthz", i)
	}
	for _, c := range p.Spec.Containers {
		if !slices.Equal(c.Command, []string{"/get"}) || !slices.Equal(c.Args, []string{"-x", urls[c.Name]}) || c.Image != "ko.local/get:v1" {
			t.Errorf("%s: %s %v %v", c.Name, c.Image, c.Command, c.Args)
		}
		delete(urls, c.Name)
	}
	if len(urls) > 0 {
		t.Error("nobody gets", urls)
	}
}

// TestNotes holds that the notes come out for every way of using the chart, with the commands that they are for.
// helm renders notes for a cluster only, so a copy of the chart has them in a ConfigMap.
func TestNotes(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "weir")
	notes, err := os.ReadFile(filepath.Join(chart, "templates", "NOTES.txt"))
	err = errors.Join(err, os.CopyFS(folder, os.DirFS(chart)))
	err = errors.Join(err, os.WriteFile(filepath.Join(folder, "notes.tpl"), notes, 0o600))
	err = errors.Join(err, os.WriteFile(filepath.Join(folder, "templates", "notes.yaml"), []byte(
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {notes: {{ tpl (.Files.Get \"notes.tpl\") . | toJson }}}\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range matrix {
		file := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := helm(t, "template", "weir", folder, "--namespace", namespace, "--values", file, "--show-only", "templates/notes.yaml")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var m corev1.ConfigMap
		if err := yaml.Unmarshal([]byte(out), &m); err != nil {
			t.Fatal(err)
		}
		notes := m.Data["notes"]
		if !strings.Contains(notes, "port-forward svc/") || !strings.Contains(notes, "curl -i http://localhost:8080/PATH") {
			t.Errorf("%s: the notes don't say how to try it:\n%s", name, notes)
		}
		if strings.Contains(notes, "localhost:8080/orders") || strings.Contains(notes, " orders\n") {
			t.Errorf("%s: the notes name a path or a queue that may not exist:\n%s", name, notes)
		}
		if strings.Contains(notes, "crds.install") != strings.Contains(values, "install: false") {
			t.Errorf("%s: the notes on who installs the definitions:\n%s", name, notes)
		}
		if ours := !strings.Contains(values, "enabled: false, url") && !strings.Contains(values, "auth: {enabled: false}"); ours != strings.Contains(notes, "weir dlq list") {
			t.Errorf("%s: the notes on weir dlq:\n%s", name, notes)
		}
	}
}
