package chart_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// nullsAtOnce is how many keys are taken away together: a rendering takes a second of the CPU. They stand far apart in values.yaml, so that
// few of them are of one section.
const nullsAtOnce = 16

// TestNulls: each value and each section of values.yaml is taken away by null, while all is on: the chart renders what is left, and all
// of that is read strictly, or it names the key.
func TestNulls(t *testing.T) {
	var paths []string
	for _, v := range documented(t) {
		paths = append(paths, v.path)
		for section := v.path; strings.Contains(section, "."); {
			section = section[:strings.LastIndex(section, ".")]
			paths = append(paths, section)
		}
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	stride := (len(paths) + nullsAtOnce - 1) / nullsAtOnce
	for first := range stride {
		t.Run(paths[first], func(t *testing.T) {
			t.Parallel()
			var some []string
			for i := first; i < len(paths); i += stride {
				if !slices.ContainsFunc(some, func(other string) bool { return strings.HasPrefix(paths[i], other+".") }) { // it went with its section
					some = append(some, paths[i])
				}
			}
			rendersOrNames(t, some, nil)
		})
	}
}

// rendersOrNames gives a value to keys at once. Those that the chart names in its refusal are taken back until it renders what is left.
func rendersOrNames(t *testing.T, paths []string, value any) {
	t.Helper()
	taken := len(paths)
	for {
		_, err := renderOdd(t, paths, value)
		if err == nil {
			return
		}
		left := slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return names(err.Error(), path) })
		if len(left) == len(paths) {
			t.Fatalf("%d of %d keys are left, and none of them is named: %v", len(paths), taken, err)
		}
		paths = left
	}
}

// odd are values that somebody may write. Each is given to every key at once.
var odd = map[string]any{
	"a word that is a truth":     "true",
	"a word that is a number":    "1e3",
	"a word that is nothing":     "null",
	"a date":                     "2026-01-02",
	"YAML":                       "a: b # c",
	"more YAML":                  "- a\n- b",
	"a template":                 "{{ .Values.image.tag }}",
	"quotes":                     `'"\`,
	"a blank":                    " ",
	"line ends of other systems": "a\rb\u0085c\u2028d",
	"an empty word":              "",
	"a fraction of a size":       "1.5Gi",
	"a fraction":                 1.5,
	"a share of nothing":         0.0000001,
	"below zero":                 -1,
	"a great number":             1e12,
	"zero":                       0,
	"a truth":                    true,
	"no list":                    []any{},
	"a list of truths":           []any{"true", "1e3"},
	"a list of YAML":             []any{"a: b # c\n- d", "{{ . }}"},
	"a list of objects":          []any{map[string]any{"nosuch": "a"}},
	"a list of nothing":          []any{nil},
	"no object":                  map[string]any{},
	"an object":                  map[string]any{"nosuch": map[string]any{"nosuch": 1}},
	"texts":                      map[string]any{"true": "1e3", "b": "a: b # c\n- d"},
	"the chart's own labels":     map[string]any{"app.kubernetes.io/component": "mine"},
	"the chart's other labels":   map[string]any{"helm.sh/chart": "mine"},
	"whole bytes":                1073741824,
	"a fraction of a byte":       "1.5",
	"a network of no prefix":     []any{"::ffff:a/130"},
	"a network of no address":    []any{"10.0.0.256/32"},
	"the whole network":          []any{"::/0", "0.0.0.0/0"},
	"the chart's own variable":   []any{map[string]any{"name": "WEIR_NATS_URL", "value": "1"}},
	"the chart's own volume":     []any{map[string]any{"name": "log"}, map[string]any{"name": "config"}, map[string]any{"name": "data"}},
	"a mount of no volume":       []any{map[string]any{"name": "nosuch", "mountPath": "/nosuch"}},
}

func TestOddValues(t *testing.T) {
	for name, value := range odd {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var paths []string
			for _, v := range documented(t) {
				if v.path != "crds.install" && v.path != "fullnameOverride" { // they change all that is rendered
					paths = append(paths, v.path)
				}
			}
			rendersOrNames(t, paths, value)
		})
	}
}

// TestLabelsAreTheCharts: what pods are selected by, and what the chart says of each object, can't be another's.
func TestLabelsAreTheCharts(t *testing.T) {
	var paths []string
	for _, v := range documented(t) {
		if strings.HasSuffix(strings.ToLower(v.path), "labels") {
			paths = append(paths, v.path)
		}
	}
	if len(paths) < len(stageNames())+3+3 { // NATS, PgBouncer, emf; PodMonitors, alerts, dashboards
		t.Fatalf("only %v", paths)
	}
	own := map[string]any{"helm.sh/chart": "mine"}
	for _, name := range []string{"name", "instance", "component", "version", "managed-by", "part-of"} {
		own["app.kubernetes.io/"+name] = "mine"
	}
	_, err := renderOdd(t, paths, own)
	for _, path := range paths {
		for label := range own {
			at := "at '/" + strings.ReplaceAll(path, ".", "/") + "/" + strings.ReplaceAll(label, "/", "~1") + "'" // RFC 6901
			if err == nil || !strings.Contains(err.Error(), at) {
				t.Errorf("%s with %s: %v", path, label, err)
			}
		}
	}
}

// renderOdd renders with all on and the value at each path, and reads what comes out.
func renderOdd(t *testing.T, paths []string, value any) ([]typed, error) {
	t.Helper()
	tree := map[string]any{}
	for _, path := range paths {
		at := tree
		keys := strings.Split(path, ".")
		for _, key := range keys[:len(keys)-1] {
			if at[key] == nil {
				at[key] = map[string]any{}
			}
			at = at[key].(map[string]any)
		}
		at[keys[len(keys)-1]] = value
	}
	text, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "odd.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := template(t, allOn, "--values", file)
	if err != nil {
		return nil, err
	}
	docs, err := decode(out)
	if err == nil {
		err = impossible(docs)
	}
	return docs, err
}

// impossible says what Kubernetes would not take, or not as it is meant, though each field is of its type.
func impossible(docs []typed) error {
	var errs []error
	for _, p := range pods(docs) {
		once := func(what string, seen map[string]bool, name string) {
			if seen[name] {
				errs = append(errs, fmt.Errorf("%s has twice the %s %s", p.name, what, name))
			}
			seen[name] = true
		}
		volumes, containers := map[string]bool{}, map[string]bool{}
		if set := lookup[appsv1.StatefulSet](docs, p.name); set != nil {
			for _, claim := range set.Spec.VolumeClaimTemplates {
				once("volume", volumes, claim.Name)
			}
		}
		for _, v := range p.spec.Volumes {
			once("volume", volumes, v.Name)
		}
		for _, c := range slices.Concat(p.spec.InitContainers, p.spec.Containers) {
			once("container", containers, c.Name)
			variables, paths := map[string]bool{}, map[string]bool{}
			for _, e := range c.Env {
				once("variable", variables, e.Name)
			}
			for _, m := range c.VolumeMounts {
				once("path", paths, path.Clean(m.MountPath))
				if !volumes[m.Name] {
					errs = append(errs, fmt.Errorf("%s mounts %s, which is no volume of it", p.name, m.Name))
				}
			}
			if m := c.Resources.Limits.Memory(); !m.IsZero() && m.Value() < 1<<20 {
				errs = append(errs, fmt.Errorf("%s runs in %s bytes of memory", p.name, m))
			}
		}
	}
	for _, policy := range all[networkingv1.NetworkPolicy](docs) {
		for _, rule := range policy.Spec.Egress {
			for _, to := range rule.To {
				errs = append(errs, block(to.IPBlock))
			}
		}
	}
	return errors.Join(errs...)
}

// block says whether what it leaves out is a part of it, as Kubernetes wants it.
func block(b *networkingv1.IPBlock) error {
	if b == nil {
		return nil
	}
	_, whole, err := net.ParseCIDR(b.CIDR)
	if err != nil {
		return err
	}
	for _, text := range b.Except {
		ip, part, err := net.ParseCIDR(text)
		if err != nil {
			return err
		}
		all, _ := whole.Mask.Size()
		if of, _ := part.Mask.Size(); of <= all || !whole.Contains(ip) {
			return fmt.Errorf("%s is no part of %s", text, b.CIDR)
		}
	}
	return nil
}

// TestCollisions: what the values bring along and the chart, or they themselves, have already is refused by its key.
func TestCollisions(t *testing.T) {
	const with = "\npgbouncer: {enabled: true, databases: [{name: a, host: b}], auth: {existingSecret: c}, exporter: {enabled: true}}\nnats: {exporter: {enabled: true}}\n"
	for _, c := range []struct{ values, says string }{
		{`gateway: {extraEnv: [{name: WEIR_NATS_URL, value: a}]}`, "gateway.extraEnv: the pods have a variable named WEIR_NATS_URL already"},
		{`dispatcher: {extraEnv: [{name: WEIR_CALLBACK_URL, value: "http://a"}]}`, "dispatcher.extraEnv: the pods have a variable named WEIR_CALLBACK_URL already"},
		{`dispatcher: {extraEnv: [{name: GOMEMLIMIT, value: 1GiB}]}`, ""}, // in the place of the chart's
		{`gateway: {extraVolumes: [{name: a, emptyDir: {}}], extraVolumeMounts: [{name: a, mountPath: /more, readOnly: true}, {name: log, mountPath: /more/log}]}`, ""},
		{`dispatcher: {extraEnv: [{name: A, value: a}, {name: A, value: b}]}`, "dispatcher.extraEnv: the pods have a variable named A already"},
		{`nats: {extraEnv: [{name: POD_NAME, value: a}]}`, "nats.extraEnv: the pods have a variable named POD_NAME already"},
		{`emf: {enabled: true, extraEnv: [{name: WEIR_NODE, value: a}]}`, "emf.extraEnv: the pods have a variable named WEIR_NODE already"},
		{`pgbouncer: {extraEnv: [{name: A, value: a}, {name: A, value: b}]}`, "pgbouncer.extraEnv: the pods have a variable named A already"},
		{`controller: {extraVolumes: [{name: log, emptyDir: {}}]}`, "controller.extraVolumes: the pods have a volume named log already"},
		{`nats: {extraVolumes: [{name: data, emptyDir: {}}]}`, "nats.extraVolumes: the pods have a volume named data already"},
		{`pgbouncer: {extraVolumes: [{name: auth, emptyDir: {}}]}`, "pgbouncer.extraVolumes: the pods have a volume named auth already"},
		{`gateway: {extraVolumes: [{name: a, emptyDir: {}}], extraVolumeMounts: [{name: a, mountPath: /etc/weir/log/}]}`, "gateway.extraVolumeMounts: there is a volume at /etc/weir/log already"},
		{`gateway: {extraVolumes: [{name: a, emptyDir: {}}], extraVolumeMounts: [{name: a, mountPath: /etc/weir/log/a}]}`, "gateway.extraVolumeMounts: nothing can be mounted at /etc/weir/log/a"},
		{`nats: {extraVolumes: [{name: a, emptyDir: {}}], extraVolumeMounts: [{name: a, mountPath: /data}]}`, "nats.extraVolumeMounts: there is a volume at /data already"},
		{`pgbouncer: {extraVolumes: [{name: a, emptyDir: {}}], extraVolumeMounts: [{name: a, mountPath: /etc/pgbouncer/auth}]}`, "pgbouncer.extraVolumeMounts: there is a volume at /etc/pgbouncer/auth already"},
		{`orchestrator: {extraVolumeMounts: [{name: a, mountPath: /a}]}`, "orchestrator.extraVolumeMounts: the pods have no volume named a"},
		{`orchestrator: {extraVolumes: [{name: a, emptydir: {}}]}`, "emptydir"},
		{`orchestrator: {extraVolumeMounts: [{name: a, mountPath: /a, readonly: true}]}`, "readonly"},
		{`orchestrator: {extraVolumeMounts: [{name: a, mountPath: "/a:b"}]}`, "/orchestrator/extraVolumeMounts/0/mountPath"},
		{`nats: {extraContainers: [{name: backup, image: a, volumeMounts: [{name: a, mountPath: /a}]}]}`, "nats.extraContainers: the pods have no volume named a"},
		{`nats: {extraContainers: [{name: exporter, image: a}]}`, "nats.extraContainers: the pods have a container named exporter already"},
		{`pgbouncer: {initContainers: [{name: pgbouncer, image: a}]}`, "pgbouncer.initContainers: the pods have a container named pgbouncer already"},
		{`gateway: {resources: {limits: {memory: "1.5"}}}`, "gateway.resources.limits.memory is 1.5: nothing runs in less than 8Mi"},
		{`nats: {exporter: {resources: {limits: {memory: 64}}}}`, "nats.exporter.resources.limits.memory is 64"},
		{`gateway: {resources: {limits: {memory: 1.5}}}`, "/gateway/resources/limits/memory"},
		{`gateway: {service: {type: NodePort, nodePort: 0}}`, "/gateway/service/nodePort"},
		{`gateway: {service: {type: NodePort, nodePort: 65536}}`, "/gateway/service/nodePort"},
		{`gateway: {service: {type: NodePort, nodePort: 8080}}`, ""}, // of an API server with another range
		{`networkPolicy: {blockedCIDRs: ["::ffff:a/130"]}`, "/networkPolicy/blockedCIDRs/0"},
		{`networkPolicy: {blockedCIDRs: [10.0.0.0/33]}`, "/networkPolicy/blockedCIDRs/0"},
		{`networkPolicy: {blockedCIDRs: [0.0.0.0/0]}`, "/networkPolicy/blockedCIDRs/0"},
		{`networkPolicy: {blockedCIDRs: [0.0.0.0/1, 255.249.199.9/32, "fd00::/8", "64:ff9b::10.0.0.0/96", "::1/128", "1::/100"]}`, ""},
		{`gateway: {extraVolumes: [{name: a, emptyDir: {}}], extraVolumeMounts: [{name: a, mountPath: /etc/weir}, {name: log, mountPath: /more}]}`, ""},
	} {
		out, err := template(t, with, "--values", written(t, c.values))
		if err == nil && c.says == "" {
			docs, e := decode(out)
			err = errors.Join(e, impossible(docs))
		}
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", c.values, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s is not refused by %q: %v", c.values, c.says, err)
		}
	}
}

// written is a file of values.
func written(t *testing.T, values string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "more.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// names says whether a refusal, not an accident, is of the key: the schema's, at its JSON pointer, or one of templates/checks.yaml.
// Refusals are long, and a regular expression over all of one cost most of the tests' time.
func names(refusal, path string) bool {
	if strings.Contains(refusal, "executing ") || strings.Contains(refusal, "YAML parse error") {
		return false
	}
	pointer := "/" + strings.ReplaceAll(path, ".", "/")
	if strings.Contains(refusal, "at '"+pointer+"'") || strings.Contains(refusal, "at '"+pointer+"/") {
		return true
	}
	parent, key := pointer[:strings.LastIndex(pointer, "/")], pointer[strings.LastIndex(pointer, "/")+1:]
	for line := range strings.Lines(refusal) {
		if _, missing, ok := strings.Cut(line, "at '"+parent+"': missing propert"); ok && strings.Contains(missing, "'"+key+"'") {
			return true
		}
	}
	return strings.Contains(refusal, path) && regexp.MustCompile(`(?m)(^|[^\w.])`+regexp.QuoteMeta(path)+`\b`).MatchString(refusal)
}
