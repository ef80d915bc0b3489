package chart_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weir-dev/weir/internal/manifest"
)

// allOn has each template render something.
const allOn = `
crds: {install: false}
batch: {enabled: true}
controller: {watchNamespaces: [shop]}
objects: {s3: {endpoint: "https://s3.example.com", bucket: weir, existingSecret: mine}}
telemetry: {otlp: {endpoint: "http://collector.observability:4318"}, logs: {enabled: true}}
gateway: {autoscaling: {enabled: true}}
nats: {exporter: {enabled: true}}
pgbouncer:
  enabled: true
  databases: [{name: orders, host: postgres.default.svc}]
  auth: {users: [{name: orders, password: a-password}, {name: weir-exporter, password: another-password}]}
  exporter: {enabled: true}
emf: {enabled: true}
route: {enabled: true, parentRefs: [{name: public}]}
ingress: {enabled: true}
serviceMonitor: {enabled: true, functions: {namespaces: [shop]}}
alerts: {enabled: true}
dashboards: {enabled: true, namespace: grafana}
`

// TestReleasesKeepApart: two releases of different names in one namespace, and two of one name in two, have no object of the
// same name. What is there once is the definitions, which crds.install leaves to one of them.
func TestReleasesKeepApart(t *testing.T) {
	const long = "weir-of-a-department-with-a-very-long-name-"
	type release struct{ name, namespace string }
	for _, pair := range [][2]release{
		{{"shop", "a"}, {"billing", "a"}},
		{{"weir", "a"}, {"weir-nats", "a"}},
		{{"weir", "a"}, {"weir-gateway", "a"}},
		{{long + "1", "a"}, {long + "2", "a"}},
		{{"weir", "a"}, {"weir", "b"}},
		{{"shop", "a"}, {"shop", "b"}},
		{{"weir", "x-z"}, {"weir-x", "z"}},
	} {
		seen := map[string]bool{}
		for i, r := range pair {
			out, err := templateAs(t, r.name, r.namespace, allOn)
			if err != nil {
				t.Fatal(err)
			}
			docs, err := decode(out)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range docs {
				id := d.kind + " " + d.GetNamespace() + "/" + d.GetName()
				if seen[id] && i == 1 {
					t.Errorf("%v have one %s", pair, id)
				}
				seen[id] = seen[id] || i == 0
			}
		}
	}
}

// TestClaimsCantChange: what Kubernetes would forbid without a word on what to do is refused, with the steps.
func TestClaimsCantChange(t *testing.T) {
	const set = "/apis/apps/v1/namespaces/" + namespace + "/statefulsets/weir-nats"
	is := func(values string) string {
		return apiServer(t, map[string]any{set: get[appsv1.StatefulSet](t, render(t, values), "weir-nats")})
	}
	const fraction = `nats: {persistence: {size: 1.5Gi, annotations: {a: b}, selector: {matchLabels: {c: d}}}}`
	for _, c := range []struct{ before, after, says string }{
		{``, ``, ""},
		// As much, and what the API server writes as 1536Mi and 322122547200m.
		{``, `nats: {persistence: {size: 51200Mi}}`, ""},
		{fraction, fraction, ""},
		{`nats: {persistence: {size: 0.3Gi}}`, `nats: {persistence: {size: 0.3Gi}}`, ""},
		{``, `nats: {persistence: {size: 100Gi}}`, "nats.persistence.size can't go from 50Gi to 100Gi"},
		{``, `nats: {persistence: {size: 20Gi}}`, "nats.persistence.size"},
		{``, `nats: {persistence: {storageClassName: fast}}`, "nats.persistence.storageClassName"},
		{``, `nats: {persistence: {accessModes: [ReadWriteOncePod]}}`, "nats.persistence.accessModes"},
		{``, `nats: {persistence: {annotations: {a: b}}}`, "nats.persistence.annotations"},
		{fraction, `nats: {persistence: {size: 1.5Gi, annotations: {a: b}}}`, "nats.persistence.selector"},
		{``, `nats: {replicas: 3}`, "nats.replicas can't go from 1 to 3"},
	} {
		err := over(t, is(c.before), c.after)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%q after %q: %v", c.after, c.before, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%q after %q is not refused by %q: %v", c.after, c.before, c.says, err)
		case c.says != "" && !strings.Contains(c.says, "replicas") && !strings.Contains(err.Error(), "kubectl --namespace weir-system delete statefulset weir-nats --cascade=orphan"):
			t.Errorf("%q after %q: the refusal doesn't say what to do: %v", c.after, c.before, err)
		}
	}
	// And once the StatefulSet is away:
	if err := over(t, apiServer(t, nil), `nats: {persistence: {size: 100Gi}}`); err != nil {
		t.Error(err)
	}
}

// TestOneReleaseInstallsTheDefinitions: another is told which value to set.
func TestOneReleaseInstallsTheDefinitions(t *testing.T) {
	of := func(annotations map[string]string) string {
		crd := apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "queues.weir.dev", Annotations: annotations}}
		crd.APIVersion, crd.Kind = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
		return apiServer(t, map[string]any{"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/queues.weir.dev": crd})
	}
	const name, in = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
	for _, c := range []struct {
		owner   map[string]string
		values  string
		refused bool
	}{
		{nil, ``, false},
		{map[string]string{name: "weir", in: namespace}, ``, false},
		{map[string]string{name: "weir", in: "other"}, ``, true},
		{map[string]string{name: "other", in: namespace}, ``, true},
		{map[string]string{name: "other", in: namespace}, `crds: {install: false}`, false},
	} {
		err := over(t, of(c.owner), c.values)
		if c.refused != (err != nil) || err != nil && !strings.Contains(err.Error(), "set crds.install=false here") {
			t.Errorf("definitions of %v, %q: %v", c.owner, c.values, err)
		}
	}
}

// TestOddNamesOfReleases: a name or a namespace that YAML takes for a number or a truth is none.
func TestOddNamesOfReleases(t *testing.T) {
	for _, name := range []string{"123", "1e3", "true", "null", "y"} {
		out, err := templateAs(t, name, name, strings.Replace(allOn, "namespace: grafana", "namespace: \""+name+"\"", 1)+"fullnameOverride: weir\n")
		if err != nil {
			t.Errorf("release %s in a namespace of that name: %v", name, err)
			continue
		}
		if _, err := decode(out); err != nil {
			t.Errorf("release %s in a namespace of that name: %v", name, err)
		}
	}
	if _, err := templateAs(t, "a.b", "c", ``); err == nil || !strings.Contains(err.Error(), "fullnameOverride") {
		t.Errorf("a name with a dot: %v", err)
	}
}

// TestAllowedRoutes: what docs/contracts.md shows of them reaches the controller, as it reads it.
func TestAllowedRoutes(t *testing.T) {
	page, err := os.ReadFile("../../docs/contracts.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\ncontroller:\n  allowedRoutes:")
	values, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/contracts.md shows no allowedRoutes")
	}
	of := func(values string) string {
		for _, e := range get[appsv1.Deployment](t, render(t, values), "weir-controller").Spec.Template.Spec.Containers[0].Env {
			if e.Name == "WEIR_ALLOWED_ROUTES" {
				return e.Value
			}
		}
		return ""
	}
	want := manifest.AllowedRoutes{
		{Namespaces: []string{"shop"}, Hosts: []string{"shop.example", "*.shop.example"}},
		{Namespaces: []string{"stock"}, Paths: []string{"/stock", "/suppliers"}},
	}
	if got, err := manifest.ParseAllowedRoutes(of("controller:\n  allowedRoutes:" + values)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if got := of(""); got != "" {
		t.Errorf("by default %s", got)
	}
	if _, err := template(t, `controller: {allowedRoutes: [{namespaces: [shop], path: [/x]}]}`); err == nil || !strings.Contains(err.Error(), "allowedRoutes") {
		t.Errorf("a rule with a mistake: %v", err)
	}
}
