package chart_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
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
	return decode(out)
}

// names says whether a refusal, not an accident, is of the key: the schema's, at its JSON pointer, or one of templates/checks.yaml.
func names(refusal, path string) bool {
	if strings.Contains(refusal, "executing ") || strings.Contains(refusal, "YAML parse error") {
		return false
	}
	keys := strings.Split(path, ".")
	parent := ""
	for _, key := range keys[:len(keys)-1] {
		parent += "/" + key
	}
	key := regexp.QuoteMeta(keys[len(keys)-1])
	return regexp.MustCompile(`(?m)at '` + parent + `/` + key + `['/]|at '` + parent + `': missing propert.*'` + key + `'|` +
		`(^|[^\w.])` + regexp.QuoteMeta(path) + `\b`).MatchString(refusal)
}
