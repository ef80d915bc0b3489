package chart_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestRefused holds that what can't be meant is refused, with words that help.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ values, says string }{
		// Typos, one in each part.
		{`gatway: {}`, "gatway"},
		{`image: {repository: x}`, "repository"},
		{`log: {level: verbose}`, "/log/level"},
		{`compression: gzip`, "/compression"},
		{`crds: {instal: true}`, "instal"},
		{`gateway: {replica: 3}`, "replica"},
		{`gateway: {replicas: "3"}`, "/gateway/replicas"},
		{`gateway: {drainTimeout: 1m}`, "/gateway/drainTimeout"},
		{`gateway: {pathPrefix: /shop/}`, "/gateway/pathPrefix"},
		{`gateway: {autoscaling: {enable: true}}`, "enable"},
		{`gateway: {service: {type: Loadbalancer}}`, "/gateway/service/type"},
		{`gateway: {resources: {limit: {}}}`, "limit"},
		{`gateway: {resources: {limits: {memory: 1GB}}}`, "/gateway/resources/limits/memory"},
		{`gateway: {podDisruptionBudget: {minAvailable: 1}}`, "minAvailable"},
		{`gateway: {topologySpreadConstraints: [{maxskew: 1}]}`, "maxskew"},
		{`gateway: {podLabels: {a: 1}}`, "/gateway/podLabels/a"},
		{`gateway: {extraEnv: [{nam: A}]}`, "nam"},
		{`dispatcher: {drain: 3s}`, "drain"},
		{`controller: {watchNamespaces: shop}`, "/controller/watchNamespaces"},
		{`controller: {watchNamespaces: [Shop]}`, "/controller/watchNamespaces/0"},
		{`controller: {streamReplicas: 2}`, "/controller/streamReplicas"},
		{`nats: {replicas: 2}`, "/nats/replicas"},
		{`nats: {enabled: false, url: "nats.example.com:4222"}`, "/nats/url"},
		{`nats: {syncInterval: never}`, "/nats/syncInterval"},
		{`nats: {persistence: {sise: 1Gi}}`, "sise"},
		{`nats: {persistence: {accessModes: [ReadWriteMany]}}`, "/nats/persistence/accessModes"},
		{`nats: {auth: {usernames: {gateway: "a b"}}}`, "/nats/auth/usernames/gateway"},
		{`nats: {tls: {certManager: {issuerRef: {nam: x}}}}`, "nam"},
		{`nats: {lameDuck: {durationSeconds: 5}}`, "/nats/lameDuck/durationSeconds"},
		{`nats: {antiAffinity: hard}`, "/nats/antiAffinity"},
		{`nats: {podDisruptionBudget: {maxUnavailable: 2}}`, "/nats/podDisruptionBudget"},
		{`nats: {podSecurityContext: {runAsUser: 0}}`, "/nats/podSecurityContext/runAsUser"},
		{`pgbouncer: {poolMode: transactions}`, "/pgbouncer/poolMode"},
		{`pgbouncer: {databases: [{name: a, host: b, pool_size: 3}]}`, "pool_size"},
		{`pgbouncer: {databases: [{name: a, host: "b password=c"}]}`, "/pgbouncer/databases/0/host"},
		{`pgbouncer: {auth: {users: [{name: a}]}}`, "password"},
		{`pgbouncer: {extraConfig: {"a\nb": 1}}`, "/pgbouncer/extraConfig"},
		{`pgbouncer: {serverTls: {sslmode: verify}}`, "/pgbouncer/serverTls/sslmode"},
		{`networkPolicy: {gatewayFrom: [{namespace: a}]}`, "namespace"},
		{`networkPolicy: {dnsPorts: [0]}`, "/networkPolicy/dnsPorts/0"},
		{`route: {listeners: both}`, "/route/listeners"},
		{`route: {parentRefs: [{nam: a}]}`, "nam"},
		{`route: {hostnames: [https://a.example.com]}`, "/route/hostnames/0"},
		{`route: {enabled: true}`, "route.parentRefs"},
		{`ingress: {hosts: ["https://a.example.com"]}`, "/ingress/hosts/0"},
		{`ingress: {path: shop}`, "/ingress/path"},
		{`ingress: {tls: [{secret: a}]}`, "secret"},
		{`gateway: {imageDigest: "1.2.3"}`, "/gateway/imageDigest"},
		{`gateway: {service: {nodePort: 30080}}`, "gateway.service.nodePort is set, and gateway.service.type is ClusterIP"},
		{`gateway: {service: {externalTrafficPolicy: Local}}`, "gateway.service.externalTrafficPolicy"},
		{`gateway: {service: {type: NodePort, loadBalancerClass: a.example.com/b}}`, "make it LoadBalancer, or drop gateway.service.loadBalancerClass"},
		{`gateway: {service: {loadBalancerSourceRanges: [10.0.0.0/8]}}`, "gateway.service.loadBalancerSourceRanges"},
		{`gateway: {extraVolumes: [{name: nats, emptyDir: {}}]}`, "gateway.extraVolumes: the pods have a volume named nats already"},
		{`controller: {extraContainers: [{name: controller, image: a}]}`, "controller.extraContainers"},
		{`dispatcher: {initContainers: [{name: a, image: a}], extraContainers: [{name: a, image: a}]}`, "dispatcher.extraContainers"},
		{`dispatcher: {extraVolumeMounts: [{name: a}]}`, "mountPath"},
		{`fullnameOverride: 1-weir`, "fullnameOverride"},
		{`networkPolicy: {dnsTo: [{port: 53}]}`, "port"},
		{`networkPolicy: {functionsFrom: [{namespace: shop}]}`, "namespace"},
		{`emf: {namespace: [shop]}`, "namespace"},
		{`emf: {pods: ["order writer"]}`, "/emf/pods/0"},
		{`serviceMonitor: {enabled: "true"}`, "/serviceMonitor/enabled"},
		{`serviceMonitor: {functions: {namespaces: [Shop]}}`, "/serviceMonitor/functions/namespaces/0"},
		{`scrapeAnnotations: {enabled: true, port: 1}`, "port"},
		{`scrapeAnnotations: {enabled: true}
serviceMonitor: {enabled: true}`, "keep one"},
		{`alerts: {thresholds: {oldest: 1}}`, "oldest"},
		{`alerts: {thresholds: {fullShare: 80}}`, "/alerts/thresholds/fullShare"},
		{`dashboards: {labels: {a: 1}}`, "/dashboards/labels/a"},
		{`log: {access: all}`, "/log/access"},
		{`log: {access: "0.0"}`, "/log/access"},
		{`telemetry: {otlp: {endpoint: "collector:4318"}}`, "/telemetry/otlp/endpoint"},
		{`telemetry: {otlp: {endpoint: "http://collector"}}`, "/telemetry/otlp/endpoint"},
		{`telemetry: {otlp: {protocol: http}}`, "/telemetry/otlp/protocol"},
		{`telemetry: {traces: {sampler: ratio}}`, "/telemetry/traces/sampler"},
		{`telemetry: {traces: {samplerArg: "5%"}}`, "/telemetry/traces/samplerArg"},
		{`telemetry: {resourceAttributes: {a: "b,c=d"}}`, "/telemetry/resourceAttributes/a"},
		{`telemetry: {logs: {enabled: true}}`, "telemetry.otlp.endpoint is empty"},
		{`telemetry: {metrics: {enabled: true}}`, "telemetry.otlp.endpoint is empty"},
		{`telemetry: {otlp: {endpoint: "http://collector:4318"}, metrics: {enabled: true}}
serviceMonitor: {enabled: true}`, "telemetry.metrics.enabled and serviceMonitor.enabled are both true: keep one"},
		{`telemetry: {otlp: {endpoint: "http://collector:4318"}, metrics: {enabled: true}}
scrapeAnnotations: {enabled: true}`, "telemetry.metrics.enabled and scrapeAnnotations.enabled are both true: keep one"},
		{`telemetry: {otlp: {endpoint: "http://collector:4318"}, traces: {samplerArg: ""}}`, "telemetry.traces.samplerArg"},
		{`nats: {exporter: {port: 8222}}`, "/nats/exporter/port"},
		{`pgbouncer: {exporter: {user: "a b"}}`, "/pgbouncer/exporter/user"},
		{`pgbouncer: {enabled: true, databases: [{name: a, host: b}], auth: {users: [{name: a, password: b}]}, exporter: {enabled: true}}`, "pgbouncer.auth.users"},
		{`tests: {cmd: []}`, "cmd"},
		{`objects: {s3: {endpoint: s3.example.com}}`, "/objects/s3/endpoint"},
		{`objects: {s3: {prefix: /weir}}`, "/objects/s3/prefix"},
		{`objects: {s3: {endpoint: "https://s3.example.com"}}`, "objects.s3.bucket"},
		{`objects: {s3: {endpoint: "https://s3.example.com", bucket: weir, ownCA: true}}`, "objects.s3.existingSecret"},
		{`objects: {s3: {bucket: weir}}`, "objects.s3.endpoint is empty"},
		// What fits together by itself, but not with the rest.
		{`nats: {url: "nats://other:4222"}`, "set nats.enabled=false"},
		{`nats: {enabled: false, auth: {existingSecret: a}}`, "set nats.url"},
		{`nats: {enabled: false, url: "nats://other:4222"}`, "set nats.auth.existingSecret"},
		{`nats: {enabled: false, url: "nats://other:4222", auth: {existingSecret: a}, tls: {certManager: {issuerRef: {name: a}}}}`, "certManager"},
		{`nats: {tls: {existingSecret: a, certManager: {issuerRef: {name: a}}}}`, "keep one"},
		{`nats: {lameDuck: {durationSeconds: 30, gracePeriodSeconds: 30}}`, "gracePeriodSeconds"},
		{`nats: {jetstream: {maxFileStore: 60Gi}}`, "make the volume larger"},
		{`controller: {streamReplicas: 3}`, "nats.replicas"},
		{`nats: {moveFrom: {claim: data-weir-nats-0}}`, "the volume of this NATS itself"},
		{`nats: {suffix: "-2", moveFrom: {claim: data-weir-nats-2-0}}`, "the volume of this NATS itself"},
		{`nats: {moveFrom: {claim: data-weir-nats-2-0}}`, "nats.suffix"},
		{`gateway: {autoscaling: {enabled: true, minReplicas: 20}}`, "maxReplicas"},
		{`pgbouncer: {enabled: true, auth: {existingSecret: a}}`, "pgbouncer.databases"},
		{`pgbouncer: {enabled: true, databases: [{name: a, host: b}]}`, "pgbouncer.auth"},
		{`pgbouncer: {enabled: true, databases: [{name: a, host: b}], auth: {existingSecret: a, users: [{name: a, password: b}]}}`, "set one of"},
		{`pgbouncer: {enabled: true, databases: [{name: a, host: b}], auth: {existingSecret: a}, serverTls: {sslmode: verify-ca}}`, "caSecret"},
		{`pgbouncer: {enabled: true, databases: [{name: a, host: b}], auth: {existingSecret: a}, clientTls: {sslmode: require}}`, "existingSecret"},
		{`pgbouncer: {enabled: true, databases: [{name: a, host: b}], auth: {existingSecret: a}, extraConfig: {pool_mode: session}}`, "use its own value"},
		{`pgbouncer: {queryWaitTimeout: 0}`, "/pgbouncer/queryWaitTimeout"},
		{`pgbouncer: {enabled: true, databases: [{name: a, host: b}], auth: {existingSecret: a}, queryWaitTimeout: 4}`, "pgbouncer.queryWaitTimeout is 4, but some function waits 3 s at most"},
		{`pgbouncer: {enabled: true, databases: [{name: a, host: b}], auth: {existingSecret: a}, reservePoolSize: 1, reservePoolTimeout: 3}`, "pgbouncer.reservePoolTimeout is 3"},
		{`pgbouncer: {enabled: true, databases: [{name: a, host: b, reservePool: 1}], auth: {existingSecret: a}, reservePoolTimeout: 3}`, "pgbouncer.reservePoolTimeout is 3"},
	} {
		_, err := template(t, c.values)
		if err == nil {
			t.Errorf("%s was not refused", c.values)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: the refusal doesn't say %q:\n%v", c.values, c.says, err)
		}
	}
}

var update = flag.Bool("update", false, "write the table of values into the chart's README")

// value is a key of values.yaml that stands on a line with what it is set to.
type value struct{ path, preset, meaning string }

// documented reads values.yaml: the keys in their order, each with the comment above it and its value.
func documented(t *testing.T) []value {
	t.Helper()
	data, err := os.ReadFile(chart + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.UnmarshalStrict(data, &tree); err != nil {
		t.Fatal(err)
	}
	var out []value
	var path []string
	comment := ""
	for i, line := range strings.Split(string(data), "\n") {
		trimmed := strings.TrimLeft(line, " ")
		if meaning, ok := strings.CutPrefix(trimmed, "# -- "); ok {
			comment = meaning
			continue
		}
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		key, rest, ok := strings.Cut(trimmed, ":")
		depth := (len(line) - len(trimmed)) / 2
		if !ok || depth > len(path) {
			t.Fatalf("values.yaml:%d: a value must stand on one line with its key: %s", i+1, line)
		}
		path = append(path[:depth], key)
		if rest == "" {
			continue // what is below it is described
		}
		if comment == "" {
			t.Errorf("values.yaml:%d: %s has no comment that begins with --", i+1, key)
		}
		at := any(tree)
		for _, k := range path {
			at = at.(map[string]any)[k]
		}
		var preset strings.Builder
		enc := json.NewEncoder(&preset)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(at); err != nil {
			t.Fatal(err)
		}
		out = append(out, value{strings.Join(path, "."), strings.TrimSpace(preset.String()), comment})
		comment = ""
	}
	return out
}

func TestReadme(t *testing.T) {
	const heads = "| Value | Default | Meaning |\n|---|---|---|\n"
	file := chart + "/README.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, got, ok := strings.Cut(string(data), heads)
	if !ok {
		t.Fatal("README.md has no table of values")
	}
	var want strings.Builder
	for _, v := range documented(t) {
		fmt.Fprintf(&want, "| `%s` | `%s` | %s |\n", v.path, v.preset, v.meaning)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+heads+want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != want.String() {
		t.Error("the table of values in README.md is not what values.yaml says: go test ./test/chart -run TestReadme -update")
	}
}

// TestSchemaIsComplete holds that the schema and values.yaml have the same keys.
func TestSchemaIsComplete(t *testing.T) {
	data, err := os.ReadFile(chart + "/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type node struct {
		Ref                  string `json:"$ref"`
		Properties           map[string]json.RawMessage
		AdditionalProperties any
		Definitions          map[string]json.RawMessage
	}
	var top node
	if err := json.Unmarshal(data, &top); err != nil {
		t.Fatal(err)
	}
	var walk func(path string, schema json.RawMessage, values map[string]any)
	walk = func(path string, schema json.RawMessage, values map[string]any) {
		var n node
		if err := json.Unmarshal(schema, &n); err != nil {
			t.Fatal(err)
		}
		if n.Ref == "#/definitions/stage" {
			n = node{}
			if err := json.Unmarshal(top.Definitions["stage"], &n); err != nil {
				t.Fatal(err)
			}
		}
		if n.Properties == nil {
			return // another definition, or free
		}
		if n.AdditionalProperties != false {
			t.Errorf("%s takes any key", path)
		}
		for _, key := range slices.Sorted(maps.Keys(n.Properties)) {
			v, ok := values[key]
			if !ok && path+"."+key != ".global" && !strings.HasSuffix(path, "issuerRef") {
				t.Errorf("%s.%s is in the schema and not in values.yaml", path, key)
			}
			if below, ok := v.(map[string]any); ok {
				walk(path+"."+key, n.Properties[key], below)
			}
		}
	}
	var tree map[string]any
	values, err := os.ReadFile(chart + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(values, &tree); err != nil {
		t.Fatal(err)
	}
	walk("", data, tree)
}
