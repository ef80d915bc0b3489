package chart_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

const pgbouncerOn = `
pgbouncer:
  enabled: true
  databases:
  - {name: orders, host: postgres.default.svc}
  - {name: reports, host: other.example.com, port: 5433, dbname: r, user: reader, poolSize: 3, reservePool: 1, poolMode: session, maxDbConnections: 4}
  auth: {users: [{name: orders, password: 'pass"word'}]}
`

// matrix are the ways in which the chart is used.
var matrix = map[string]string{
	"defaults":        ``,
	"nats cluster":    `nats: {replicas: 3, antiAffinity: required}`,
	"nats lazy sync":  `nats: {syncInterval: 2m, antiAffinity: none, extraConfig: "max_connections: 1000", jetstream: {maxFileStore: 20G}}`,
	"nats plain":      `nats: {replicas: 3, tls: {enabled: false}, auth: {enabled: false}}`,
	"nats of others":  `nats: {enabled: false, url: "tls://a.example.com:4222,tls://b.example.com:4222", auth: {existingSecret: mine}, tls: {existingSecret: ca}}`,
	"nats of a cloud": `nats: {enabled: false, url: "tls://connect.example.com", auth: {existingSecret: mine}, tls: {enabled: false}}`,
	"nats without":    `nats: {enabled: false, url: "nats://user:password@nats:4222", auth: {enabled: false}, tls: {enabled: false}}`,
	"own secrets":     `nats: {auth: {existingSecret: passwords}, tls: {existingSecret: certificate}}`,
	"cert-manager":    `nats: {replicas: 3, tls: {certManager: {issuerRef: {name: ca, kind: ClusterIssuer}}}}`,
	"pgbouncer":       pgbouncerOn,
	"pgbouncer with all": `
pgbouncer:
  enabled: true
  command: []
  databases: [{name: "*", host: 10.0.0.1}]
  auth: {existingSecret: users, user: pgbouncer, query: "select a, b from c($1)"}
  adminUsers: [admin]
  statsUsers: [stats, more]
  maxPreparedStatements: 100
  maxClientConn: 2000000
  serverTls: {sslmode: verify-full, caSecret: pg-ca}
  clientTls: {sslmode: require, existingSecret: pg-tls}
  extraConfig: {tcp_keepidle: 60, stats_period: 30}
  preStop: null
  extraEnv: [{name: A, value: b}]
`,
	"autoscaling":         `gateway: {autoscaling: {enabled: true, minReplicas: 3, behavior: {scaleDown: {stabilizationWindowSeconds: 600}}}}`,
	"no network policies": `networkPolicy: {enabled: false}`,
	"namespaces":          `controller: {watchNamespaces: [shop, billing]}`,
	"no definitions":      `crds: {install: false}`,
	"everything": pgbouncerOn + `
fullnameOverride: other
image: {registry: registry.example.com/weir/, tag: v9, pullPolicy: Always}
imagePullSecrets: [pull]
log: {level: debug, format: text}
compression: zstd
rbac: {aggregateToDefaultRoles: false}
gateway: &more
  image: registry.example.com/mine@sha256:0123
  podAnnotations: {a: b}
  podLabels: {c: d}
  extraEnv: [{name: A, value: b}, {name: C, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
  priorityClassName: high
  nodeSelector: {disk: ssd}
  tolerations: [{key: dedicated, operator: Exists}]
  affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: x, operator: Exists}]}}]}}
  topologySpreadConstraints: [{maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}]
  podDisruptionBudget: {enabled: true, maxUnavailable: 34%}
  resources: {requests: {cpu: 2, memory: 1G}, limits: {cpu: 4, memory: 2G}}
dispatcher: *more
controller:
  <<: *more
  streamReplicas: 1
nats:
  replicas: 3
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: x, operator: Exists}]}]}}}
  persistence: {size: 1Ti, storageClassName: fast, annotations: {a: b}, selector: {matchLabels: {e: f}}}
  lameDuck: {durationSeconds: 120, gracePeriodSeconds: 20}
  resources: {}
networkPolicy:
  gatewayFrom: [{namespaceSelector: {matchLabels: {a: b}}}]
  metricsFrom: [{namespaceSelector: {}, podSelector: {matchLabels: {app: prometheus}}}]
  natsFrom: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
  pgbouncerFrom: [{namespaceSelector: {}}]
  dnsPorts: [53, 5353]
serviceMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}}
tests: {image: mine, command: [], args: []}
`,
}

func TestLint(t *testing.T) {
	if out, err := helm(t, "lint", "--strict", "--kube-version", kubeVersion, chart); err != nil {
		t.Error(out, err)
	}
	for name, values := range matrix {
		file := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := helm(t, "lint", "--strict", "--kube-version", kubeVersion, "--values", file, chart); err != nil {
			t.Errorf("%s: %s%v", name, out, err)
		}
	}
}

// TestMatrix renders each way of using the chart and holds it to what holds for all.
func TestMatrix(t *testing.T) {
	for name, values := range matrix {
		t.Run(name, func(t *testing.T) {
			docs := render(t, values)
			uniqueNames(t, docs)
			selectors(t, docs)
			references(t, docs)
			for _, p := range pods(docs) {
				securityHabits(t, p)
			}
			graceLongerThanDrain(t, docs)
			dataPlaneHasNoPermission(t, docs)
			noPasswordOutsideSecrets(t, docs)
		})
	}
}

// TestDeployValues renders with the files of values that the repository offers.
func TestDeployValues(t *testing.T) {
	for _, name := range []string{"kind", "production"} {
		if _, err := template(t, "", "--values", "../../deploy/k8s/"+name+"/values.yaml"); err != nil {
			t.Errorf("deploy/k8s/%s/values.yaml: %v", name, err)
		}
	}
}

func uniqueNames(t *testing.T, docs []typed) {
	t.Helper()
	seen := map[string]bool{}
	for _, d := range docs {
		id := fmt.Sprintf("%s %s/%s", d.kind, d.GetNamespace(), d.GetName())
		if seen[id] {
			t.Errorf("%s is there twice", id)
		}
		seen[id] = true
		if d.kind == "CustomResourceDefinition" {
			continue
		}
		for _, label := range []string{"name", "instance", "component", "version", "managed-by", "part-of"} {
			if d.GetLabels()["app.kubernetes.io/"+label] == "" {
				t.Errorf("%s has no label app.kubernetes.io/%s", id, label)
			}
		}
	}
}

// selectors holds that what selects pods selects exactly its own component's.
func selectors(t *testing.T, docs []typed) {
	t.Helper()
	check := func(what, component string, selector map[string]string) {
		n := 0
		for _, p := range pods(docs) {
			if labels.SelectorFromSet(selector).Matches(labels.Set(p.meta.Labels)) {
				n++
				if got := p.meta.Labels["app.kubernetes.io/component"]; got != component {
					t.Errorf("%s of %s selects pods of %s", what, component, got)
				}
			}
		}
		if n != 1 {
			t.Errorf("%s of %s selects %d kinds of pods", what, component, n)
		}
	}
	for _, d := range docs {
		component := d.GetLabels()["app.kubernetes.io/component"]
		switch v := d.value.(type) {
		case *appsv1.Deployment:
			check("Deployment", component, v.Spec.Selector.MatchLabels)
		case *appsv1.StatefulSet:
			check("StatefulSet", component, v.Spec.Selector.MatchLabels)
		case *corev1.Service:
			check("Service", component, v.Spec.Selector)
		case *policyv1.PodDisruptionBudget:
			check("PodDisruptionBudget", component, v.Spec.Selector.MatchLabels)
		case *networkingv1.NetworkPolicy:
			check("NetworkPolicy", component, v.Spec.PodSelector.MatchLabels)
		case *serviceMonitor:
			found := slices.ContainsFunc(all[corev1.Service](docs), func(s *corev1.Service) bool {
				return labels.SelectorFromSet(v.Spec.Selector.MatchLabels).Matches(labels.Set(s.Labels)) &&
					slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == v.Spec.Endpoints[0].Port })
			})
			if !found {
				t.Error("the ServiceMonitor finds no Service with its port")
			}
		}
	}
}

// references holds that what a pod names is rendered, or the user's own, and that Services' ports exist.
func references(t *testing.T, docs []typed) {
	t.Helper()
	own := []string{"mine", "ca", "passwords", "certificate", "users", "pg-ca", "pg-tls"}
	if certificates := all[certificate](docs); len(certificates) > 0 {
		own = append(own, certificates[0].Spec.SecretName)
	}
	secret := func(p pod, name string) {
		if lookup[corev1.Secret](docs, name) == nil && !slices.Contains(own, name) {
			t.Errorf("%s uses Secret %s, which is not rendered", p.name, name)
		}
	}
	ports := map[string][]string{}
	for _, p := range pods(docs) {
		volumes := map[string]bool{}
		if set := lookup[appsv1.StatefulSet](docs, p.name); set != nil {
			for _, claim := range set.Spec.VolumeClaimTemplates {
				volumes[claim.Name] = true
			}
		}
		for _, v := range p.spec.Volumes {
			volumes[v.Name] = true
			switch {
			case v.Secret != nil:
				secret(p, v.Secret.SecretName)
			case v.Projected != nil:
				for _, s := range v.Projected.Sources {
					secret(p, s.Secret.Name)
				}
			case v.ConfigMap != nil:
				get[corev1.ConfigMap](t, docs, v.ConfigMap.Name)
			}
		}
		for _, c := range p.spec.Containers {
			for _, m := range c.VolumeMounts {
				if !volumes[m.Name] {
					t.Errorf("%s mounts %s, which is no volume of it", p.name, m.Name)
				}
			}
			names := map[string]bool{}
			for _, e := range c.Env {
				if names[e.Name] {
					t.Errorf("%s has %s twice", p.name, e.Name)
				}
				names[e.Name] = true
				if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
					secret(p, e.ValueFrom.SecretKeyRef.Name)
				}
			}
			for _, port := range c.Ports {
				ports[p.meta.Labels["app.kubernetes.io/component"]] = append(ports[p.meta.Labels["app.kubernetes.io/component"]], port.Name)
			}
		}
		if p.meta.Labels["app.kubernetes.io/component"] != "test" {
			get[corev1.ServiceAccount](t, docs, p.spec.ServiceAccountName)
		}
	}
	for _, s := range all[corev1.Service](docs) {
		for _, port := range s.Spec.Ports {
			if !slices.Contains(ports[s.Labels["app.kubernetes.io/component"]], port.TargetPort.String()) {
				t.Errorf("Service %s goes to port %s, which no container has", s.Name, port.TargetPort.String())
			}
		}
	}
}

func securityHabits(t *testing.T, p pod) {
	t.Helper()
	no := func(what string) { t.Errorf("%s: %s", p.name, what) }
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	test := p.meta.Labels["app.kubernetes.io/component"] == "test"
	s := p.spec.SecurityContext
	switch {
	case s == nil || !is(s.RunAsNonRoot, true) || s.RunAsUser == nil || *s.RunAsUser == 0:
		no("may run as root")
	case s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
		no("has no seccomp profile")
	}
	controller := p.meta.Labels["app.kubernetes.io/component"] == "controller"
	if !is(p.spec.AutomountServiceAccountToken, controller) {
		no("automountServiceAccountToken must be said: true for the controller, false for all others")
	}
	if p.spec.HostNetwork || p.spec.HostPID || p.spec.HostIPC || !is(p.spec.EnableServiceLinks, false) {
		no("shares namespaces with its node, or gets all Services as environment")
	}
	if !test && (len(p.spec.TopologySpreadConstraints) == 0 || p.spec.TerminationGracePeriodSeconds == nil) {
		no("has no topology spread or no grace period")
	}
	for _, c := range p.spec.Containers {
		s := c.SecurityContext
		if s == nil || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) || !is(s.RunAsNonRoot, true) ||
			s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			no("container " + c.Name + " lacks a restriction")
		}
		if !test && (c.StartupProbe == nil || c.LivenessProbe == nil || c.ReadinessProbe == nil) {
			no("container " + c.Name + " lacks a probe")
		}
		if c.ImagePullPolicy == "" || c.Image == "" || !strings.ContainsAny(c.Image, ":@m") {
			no("container " + c.Name + " has no image with a tag")
		}
	}
}

// graceLongerThanDrain holds that nothing is killed in the middle of its drain.
func graceLongerThanDrain(t *testing.T, docs []typed) {
	t.Helper()
	for _, p := range pods(docs) {
		var need time.Duration
		for _, c := range p.spec.Containers {
			if c.Lifecycle != nil && c.Lifecycle.PreStop.Sleep != nil {
				need += time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
			}
			if v := env(c, "WEIR_DRAIN_TIMEOUT"); v != "" {
				d, err := time.ParseDuration(v)
				if err != nil {
					t.Error(err)
				}
				need += d
			}
		}
		switch component := p.meta.Labels["app.kubernetes.io/component"]; component {
		case "gateway", "dispatcher":
			if need < 10*time.Second {
				t.Errorf("%s has no time to drain", p.name)
			}
		case "nats":
			need = natsLameDuck(t, docs)
		case "test":
			continue
		}
		if grace := time.Duration(*p.spec.TerminationGracePeriodSeconds) * time.Second; grace <= need {
			t.Errorf("%s is killed after %s, its pause and drain may take %s", p.name, grace, need)
		}
	}
}

func env(c corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// dataPlaneHasNoPermission holds that only the controller's account is in a binding, and that only it may have a token.
func dataPlaneHasNoPermission(t *testing.T, docs []typed) {
	t.Helper()
	controller := ""
	for _, p := range pods(docs) {
		if p.meta.Labels["app.kubernetes.io/component"] == "controller" {
			controller = p.spec.ServiceAccountName
		}
	}
	bound := func(name string, subjects []rbacv1.Subject) {
		for _, s := range subjects {
			if s.Kind != rbacv1.ServiceAccountKind || s.Name != controller || s.Namespace != namespace {
				t.Errorf("binding %s gives rights to %s %s/%s", name, s.Kind, s.Namespace, s.Name)
			}
		}
	}
	for _, b := range all[rbacv1.RoleBinding](docs) {
		bound(b.Name, b.Subjects)
	}
	for _, b := range all[rbacv1.ClusterRoleBinding](docs) {
		bound(b.Name, b.Subjects)
	}
	for _, a := range all[corev1.ServiceAccount](docs) {
		if a.AutomountServiceAccountToken == nil || *a.AutomountServiceAccountToken {
			t.Errorf("ServiceAccount %s mounts its token by itself", a.Name)
		}
	}
	for _, r := range all[rbacv1.ClusterRole](docs) {
		rules(t, r.Name, r.Rules)
	}
	for _, r := range all[rbacv1.Role](docs) {
		rules(t, r.Name, r.Rules)
	}
}

func rules(t *testing.T, name string, rules []rbacv1.PolicyRule) {
	t.Helper()
	for _, r := range rules {
		for _, list := range [][]string{r.APIGroups, r.Resources, r.Verbs} {
			if slices.Contains(list, "*") {
				t.Errorf("role %s has a wildcard: %v", name, r)
			}
		}
		if slices.Contains(r.Resources, "secrets") || slices.Contains(r.Resources, "pods") {
			t.Errorf("role %s may touch secrets or pods", name)
		}
	}
}

// noPasswordOutsideSecrets holds that what is in a Secret stands nowhere else.
func noPasswordOutsideSecrets(t *testing.T, docs []typed) {
	t.Helper()
	for _, s := range all[corev1.Secret](docs) {
		for key, value := range s.Data {
			if key == "tls.crt" || key == "ca.crt" {
				continue
			}
			for _, d := range docs {
				if d.kind != "Secret" && (strings.Contains(d.text, string(value)) || strings.Contains(d.text, base64.StdEncoding.EncodeToString(value))) {
					t.Errorf("%s %s holds %s of Secret %s", d.kind, d.GetName(), key, s.Name)
				}
			}
		}
	}
}

// TestChecksums holds that the checksums at the pods are of the passwords in the Secret of the same rendering: else
// the first upgrade would restart everything for nothing.
func TestChecksums(t *testing.T) {
	docs := render(t, ``)
	auth, tls := get[corev1.Secret](t, docs, "weir-nats-auth"), get[corev1.Secret](t, docs, "weir-nats-tls")
	sum := func(data []byte) string {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(base64.StdEncoding.EncodeToString(data))))
	}
	for _, component := range []string{"gateway", "dispatcher", "controller"} {
		a := get[appsv1.Deployment](t, docs, "weir-"+component).Spec.Template.Annotations
		if got, want := a["checksum/nats-password"], sum(auth.Data[component+"-password"]); got != want {
			t.Errorf("%s: checksum of the password is %s, want %s", component, got, want)
		}
		if got, want := a["checksum/nats-ca"], sum(tls.Data["ca.crt"]); got != want {
			t.Errorf("%s: checksum of the CA is %s, want %s", component, got, want)
		}
	}
	a := get[appsv1.StatefulSet](t, docs, "weir-nats").Spec.Template.Annotations
	for _, name := range []string{"config", "auth", "tls"} {
		if a["checksum/"+name] == "" {
			t.Errorf("the pods of NATS have no checksum/%s", name)
		}
	}
	b := get[appsv1.StatefulSet](t, render(t, `nats: {jetstream: {maxMemoryStore: 1Mi}}`), "weir-nats").Spec.Template.Annotations
	if a["checksum/config"] == b["checksum/config"] {
		t.Error("another configuration of NATS doesn't restart it")
	}
}

func TestCustomResourceDefinitions(t *testing.T) {
	files, err := filepath.Glob(chart + "/files/crds/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const mark = "    helm.sh/resource-policy: keep\n"
	kept, dropped := render(t, ``), render(t, `crds: {keep: false}`)
	for _, docs := range [][]typed{kept, dropped, render(t, `crds: {install: false}`)} {
		n := len(all[apiextensionsv1.CustomResourceDefinition](docs))
		if want := len(files); n != want && n != 0 {
			t.Errorf("%d definitions are rendered, %d are in files/crds", n, want)
		}
	}
	for _, file := range files {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want = bytes.TrimPrefix(want, []byte("---\n"))
		same := func(d typed, without string) bool {
			_, body, _ := strings.Cut(strings.TrimPrefix(d.text, "\n"), "\n") // Helm's comment
			return strings.TrimSpace(strings.Replace(body, without, "", 1)) == strings.TrimSpace(string(want))
		}
		found := func(docs []typed, without string) bool {
			return slices.ContainsFunc(docs, func(d typed) bool { return d.kind == "CustomResourceDefinition" && same(d, without) })
		}
		if !found(kept, mark) || !found(dropped, "") {
			t.Errorf("%s is not rendered as it is", file)
		}
	}
	for _, crd := range all[apiextensionsv1.CustomResourceDefinition](kept) {
		if crd.Annotations["helm.sh/resource-policy"] != "keep" {
			t.Errorf("%s would go with the release", crd.Name)
		}
	}
}

// TestEnvironment holds what each service is told (docs/operations.md).
func TestEnvironment(t *testing.T) {
	const secrets = "/var/run/secrets/weir/nats/"
	common := map[string]string{
		"WEIR_INSTANCE": "metadata.name", "WEIR_LOG_LEVEL": "info", "WEIR_LOG_FORMAT": "json",
		"WEIR_NATS_URL": "tls://weir-nats.weir-system.svc:4222", "WEIR_NATS_PASSWORD_FILE": secrets + "password",
		"WEIR_NATS_CA_FILE": secrets + "ca.crt",
	}
	services := map[string]map[string]string{
		"gateway": {
			"WEIR_NATS_USER": "gateway", "WEIR_LISTEN": ":8080", "WEIR_DRAIN_TIMEOUT": "35s", "WEIR_COMPRESSION": "s2",
			"WEIR_NATS_SYNC": "always", "GOMEMLIMIT": "912680550",
		},
		"dispatcher": {
			"WEIR_NATS_USER": "dispatcher", "WEIR_HEALTH_LISTEN": ":8081", "WEIR_DRAIN_TIMEOUT": "25s", "WEIR_COMPRESSION": "s2",
			"GOMEMLIMIT": "684510412",
		},
		"controller": {
			"WEIR_NATS_USER": "controller", "WEIR_HEALTH_LISTEN": ":8081", "WEIR_METRICS_LISTEN": ":8080", "WEIR_STREAM_REPLICAS": "1",
			"WEIR_NAMESPACES": "", "WEIR_LEADER_ELECTION_NAMESPACE": "metadata.namespace", "GOMEMLIMIT": "342255206",
		},
	}
	docs := render(t, ``)
	for name, want := range services {
		maps.Copy(want, common)
		spec := get[appsv1.Deployment](t, docs, "weir-"+name).Spec.Template.Spec
		got := map[string]string{}
		for _, e := range spec.Containers[0].Env {
			got[e.Name] = e.Value
			if e.ValueFrom != nil {
				got[e.Name] = e.ValueFrom.FieldRef.FieldPath
			}
		}
		for key := range want {
			if v, ok := got[key]; !ok || v != want[key] {
				t.Errorf("%s: %s is %q, want %q", name, key, v, want[key])
			}
			delete(got, key)
		}
		if len(got) > 0 {
			t.Errorf("%s has more in its environment: %v", name, got)
		}
		// Its own password and the CA's certificate: nothing else of these Secrets.
		sources := spec.Volumes[0].Projected.Sources
		if len(sources) != 2 || sources[0].Secret.Items[0].Key != name+"-password" || len(sources[0].Secret.Items) != 1 ||
			len(sources[1].Secret.Items) != 1 || sources[1].Secret.Items[0].Key != "ca.crt" {
			t.Errorf("%s mounts %v", name, sources)
		}
		if image := spec.Containers[0].Image; image != "ghcr.io/weir-dev/weir/"+name+":0.1.0" {
			t.Errorf("%s: image %s", name, image)
		}
	}
}

// TestSwitches holds what single values change.
func TestSwitches(t *testing.T) {
	gateway := func(values string) *appsv1.Deployment {
		return get[appsv1.Deployment](t, render(t, values), "weir-gateway")
	}
	if d := gateway(``); *d.Spec.Replicas != 2 || d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
		t.Error("the gateway doesn't have two replicas with none unavailable in an update")
	}
	docs := render(t, matrix["autoscaling"])
	if get[appsv1.Deployment](t, docs, "weir-gateway").Spec.Replicas != nil {
		t.Error("an upgrade would undo what the autoscaler did")
	}
	if h := get[autoscalingv2.HorizontalPodAutoscaler](t, docs, "weir-gateway"); *h.Spec.MinReplicas != 3 || h.Spec.ScaleTargetRef.Name != "weir-gateway" {
		t.Error("the autoscaler is for something else")
	}
	if image := gateway(`gateway: {image: "x@sha256:1"}`).Spec.Template.Spec.Containers[0].Image; image != "x@sha256:1" {
		t.Error("gateway.image is not taken as it is:", image)
	}
	if g := *gateway(`gateway: {drainTimeout: 120s, preStopSleepSeconds: 7}`).Spec.Template.Spec.TerminationGracePeriodSeconds; g != 137 {
		t.Error("the grace period doesn't follow from drainTimeout and preStopSleepSeconds:", g)
	}
	if n := len(all[networkingv1.NetworkPolicy](render(t, matrix["no network policies"]))); n != 0 {
		t.Error(n, "network policies though they are off")
	}
	if n := len(all[serviceMonitor](render(t, ``))); n != 0 {
		t.Error("a ServiceMonitor though it is off")
	}
	if out, err := helm(t, "template", "prod", chart, "--kube-version", kubeVersion); err != nil || !strings.Contains(out, "name: prod-weir-gateway\n") {
		t.Error("a release without weir in its name: RELEASE-weir", err)
	}

	docs = render(t, matrix["namespaces"])
	for _, r := range all[rbacv1.ClusterRole](docs) {
		if r.Labels["app.kubernetes.io/component"] == "controller" {
			t.Error("watchNamespaces is set, and there is a ClusterRole")
		}
	}
	for _, ns := range []string{"shop", "billing"} {
		if !slices.ContainsFunc(all[rbacv1.RoleBinding](docs), func(b *rbacv1.RoleBinding) bool { return b.Namespace == ns }) {
			t.Error("no RoleBinding in", ns)
		}
	}
	if v := env(get[appsv1.Deployment](t, docs, "weir-controller").Spec.Template.Spec.Containers[0], "WEIR_NAMESPACES"); v != "shop,billing" {
		t.Error("WEIR_NAMESPACES is", v)
	}

	for name, want := range map[string]string{"nats cluster": "3", "nats of others": "1", "everything": "1"} {
		docs := render(t, matrix[name])
		for _, d := range all[appsv1.Deployment](docs) {
			if c := d.Spec.Template.Spec.Containers[0]; c.Name == "controller" && env(c, "WEIR_STREAM_REPLICAS") != want {
				t.Errorf("%s: WEIR_STREAM_REPLICAS is %s", name, env(c, "WEIR_STREAM_REPLICAS"))
			}
		}
		if name == "nats of others" && len(all[appsv1.StatefulSet](docs)) != 0 {
			t.Error("a NATS though nats.enabled is false")
		}
	}
}

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

// TestNoMetadataService holds that no URL of a resource reaches a cloud's metadata service through Weir.
func TestNoMetadataService(t *testing.T) {
	for _, name := range []string{"weir-gateway", "weir-dispatcher"} {
		policy := get[networkingv1.NetworkPolicy](t, render(t, ``), name)
		if !slices.Contains(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
			t.Errorf("%s: egress is not restricted", name)
		}
		var except []string
		for _, rule := range policy.Spec.Egress {
			if len(rule.To) == 0 && len(rule.Ports) == 0 {
				t.Errorf("%s: a rule lets everything out", name)
			}
			for _, peer := range rule.To {
				if peer.IPBlock != nil {
					except = append(except, peer.IPBlock.Except...)
				}
			}
		}
		if !slices.Equal(except, []string{"169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128"}) {
			t.Errorf("%s: except %v", name, except)
		}
	}
}

// TestNATSIsClosed holds that NATS and its clients are named in the policy, and nobody else.
func TestNATSIsClosed(t *testing.T) {
	policy := get[networkingv1.NetworkPolicy](t, render(t, ``), "weir-nats")
	if !slices.Equal(policy.Spec.PolicyTypes, []networkingv1.PolicyType{"Ingress", "Egress"}) {
		t.Error(policy.Spec.PolicyTypes)
	}
	want := map[int][]string{4222: {"controller", "dispatcher", "gateway"}, 6222: {"nats"}, 8222: {"test"}}
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
			if n := port.Port.IntValue(); n != 53 && (n != 6222 || len(rule.To) != 1) {
				t.Error("egress to", n)
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
	urls := map[string]string{"gateway": "http://weir-gateway.weir-system.svc:80/readyz"}
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
		if !strings.Contains(notes, "port-forward svc/") || !strings.Contains(notes, "curl -i http://localhost:8080/orders") {
			t.Errorf("%s: the notes don't say how to try it:\n%s", name, notes)
		}
		if ours := !strings.Contains(values, "enabled: false, url") && !strings.Contains(values, "auth: {enabled: false}"); ours != strings.Contains(notes, "weir dlq list") {
			t.Errorf("%s: the notes on weir dlq:\n%s", name, notes)
		}
	}
}

var _ metav1.Object = (*serviceMonitor)(nil)
