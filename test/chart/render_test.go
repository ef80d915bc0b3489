package chart_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
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
	"nats moved":      `nats: {replicas: 3, suffix: "-2", moveFrom: {claim: data-weir-nats-0}}`,
	"nats moved away": `nats: {enabled: false, url: "tls://a.example.com:4222", auth: {existingSecret: mine}, tls: {existingSecret: ca}, moveFrom: {claim: data-weir-nats-0}}`,
	"nats moved on":   `nats: {suffix: "-b", tls: {enabled: false}, auth: {enabled: false}, moveFrom: {claim: data-weir-nats-2-0}, nodeSelector: {disk: fast}, tolerations: [{operator: Exists}]}`,
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
	"webhook":           `controller: {webhook: {enabled: true}}`,
	"webhook managed":   `controller: {webhook: {enabled: true, failurePolicy: Fail, certManager: {issuerRef: {name: ca, kind: ClusterIssuer}}}}`,
	"autoscaling":       `gateway: {autoscaling: {enabled: true, minReplicas: 3, behavior: {scaleDown: {stabilizationWindowSeconds: 600}}}}`,
	"route":             `route: {enabled: true, parentRefs: [{name: public}], requestTimeout: ""}`,
	"route to realtime": `route: {enabled: true, parentRefs: [{name: public}], listeners: realtime}`,
	"emf":               `emf: {enabled: true}`,
	"emf with all": `
emf:
  enabled: true
  namespaces: [shop, billing]
  pods: ["order-*", mail]
  containers: []
  exportTo: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: telemetry}}}]
  extraEnv: [{name: OTEL_EXPORTER_OTLP_ENDPOINT, value: "http://collector.telemetry:4318"}]
  tolerations: [{operator: Exists}]
serviceMonitor: {enabled: true}
`,
	"exporters": `
scrapeAnnotations: {enabled: true}
emf: {enabled: true}
nats: {exporter: {enabled: true}}
pgbouncer:
  enabled: true
  databases: [{name: orders, host: postgres.default.svc}]
  auth: {users: [{name: orders, password: a-password}, {name: weir-exporter, password: another-password}]}
  exporter: {enabled: true}
`,
	"exporters with the operator": `
serviceMonitor: {enabled: true}
emf: {enabled: true}
nats: {replicas: 3, exporter: {enabled: true, port: 9000}}
pgbouncer:
  enabled: true
  databases: [{name: orders, host: postgres.default.svc}]
  auth: {existingSecret: users}
  clientTls: {sslmode: require, existingSecret: pg-tls}
  statsUsers: [stats]
  exporter: {enabled: true, user: stats, port: 9001}
networkPolicy: {metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}
`,
	"pushed": `
telemetry: {otlp: {endpoint: "http://collector.observability:4318"}, metrics: {enabled: true}}
emf: {enabled: true}
`,
	"ingress": `
ingress: {enabled: true}
gateway: {service: {type: NodePort, nodePort: 30080}}
`,
	"batch": `
batch: {enabled: true}
controller: {watchNamespaces: [shop]}
`,
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
controller:
  <<: *more
  streamReplicas: 1
` + others("more", "gateway", "controller") + `
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
route:
  enabled: true
  parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: gateways, name: public, sectionName: https, port: 443}]
  hostnames: ["*.example.com", example.org]
  annotations: {a: b}
  listeners: realtime
  requestTimeout: 1h
ingress:
  enabled: true
  className: nginx
  hosts: [a.example.com, "*.example.org"]
  path: /shop(/|$)(.*)
  pathType: ImplementationSpecific
  tls: [{secretName: mine, hosts: [a.example.com]}]
  annotations: {nginx.ingress.kubernetes.io/rewrite-target: /$2}
serviceMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}, functions: {namespaces: [shop]}}
alerts: {enabled: true, labels: {release: prometheus}, annotations: {a: b}, runbooks: "https://wiki.example.com/weir", thresholds: {oldestRecordSeconds: 60}}
dashboards: {enabled: true, namespace: grafana, annotations: {k8s-sidecar-target-directory: weir}}
telemetry:
  otlp: {endpoint: "https://collector.example.com:4317", protocol: grpc, headersSecret: mine, to: [{namespaceSelector: {}}]}
  traces: {sampler: always_on, samplerArg: ""}
  metrics: {intervalSeconds: 5}
  logs: {enabled: true}
  resourceAttributes: {deployment.environment.name: prod}
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
		case *appsv1.DaemonSet:
			check("DaemonSet", component, v.Spec.Selector.MatchLabels)
		case *corev1.Service:
			check("Service", component, v.Spec.Selector)
		case *policyv1.PodDisruptionBudget:
			check("PodDisruptionBudget", component, v.Spec.Selector.MatchLabels)
		case *networkingv1.NetworkPolicy:
			check("NetworkPolicy", component, v.Spec.PodSelector.MatchLabels)
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

var _ metav1.Object = (*podMonitor)(nil)
