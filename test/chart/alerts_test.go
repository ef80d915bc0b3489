package chart_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/weir-dev/weir/internal/testkit"
)

const alertsFile = chart + "/files/alerts/weir.yaml"

// ofPrometheus runs a program that hack/tools/prometheus builds.
func ofPrometheus(t testing.TB, stdin, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testkit.Tool(t, "../..", "prometheus", name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), errors.New(stderr.String() + stdout.String())
	}
	return stdout.String(), nil
}

func alertRules(t *testing.T) ruleFile {
	t.Helper()
	data, err := os.ReadFile(alertsFile)
	var rules ruleFile
	if err == nil {
		err = yaml.UnmarshalStrict(data, &rules)
	}
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestAlerts runs promtool: the rules are valid, each fires on its cause, and none in an hour of normal work.
func TestAlerts(t *testing.T) {
	if _, err := ofPrometheus(t, "", "promtool", "check", "rules", "--lint=all", "--lint-fatal", alertsFile); err != nil {
		t.Error(err)
	}
	tests, err := filepath.Glob("alerts/*.test.yaml")
	if err != nil || len(tests) < 2 {
		t.Fatal(tests, err)
	}
	if out, err := ofPrometheus(t, "", "promtool", append([]string{"test", "rules"}, tests...)...); err != nil {
		t.Error(out, err)
	}
	causes, err := os.ReadFile("alerts/causes.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, g := range alertRules(t).Groups {
		for _, r := range g.Rules {
			names[r.Alert] = true
			if !strings.Contains(string(causes), `ALERTS{alertname="`+r.Alert+`",`) {
				t.Errorf("%s fires in no test", r.Alert)
			}
			if !strings.Contains(string(runbook), "\n### "+r.Alert+"\n") {
				t.Errorf("docs/operations.md has no section %s", r.Alert)
			}
			if r.Annotations["runbook_url"] != "RUNBOOKS#"+strings.ToLower(r.Alert) || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: annotations %v", r.Alert, r.Annotations)
			}
			if s := r.Labels["severity"]; s != "warning" && s != "critical" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
		}
	}
	for _, m := range regexp.MustCompile(`\n### (Weir\w+)\n`).FindAllStringSubmatch(string(runbook), -1) {
		if !names[m[1]] {
			t.Errorf("docs/operations.md has a section %s, and there is no such alert", m[1])
		}
	}
}

// TestScrapeConfiguration: what docs/kubernetes.md has for a Prometheus without the operator can be read by one.
func TestScrapeConfiguration(t *testing.T) {
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, config, ok := strings.Cut(string(text), "```yaml\nscrape_configs:\n")
	config, _, _ = strings.Cut(config, "```\n")
	file := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(file, []byte("scrape_configs:\n"+config), 0o600); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if out, err := ofPrometheus(t, "", "promtool", "check", "config", "--lint=all", "--lint-fatal", file); err != nil {
		t.Error(out, err)
	}
}

var threshold = regexp.MustCompile(`([0-9.]+) # (\w+)\n`)

// TestThresholds: the numbers in the file are the chart's presets, and each value of the chart takes its number's place.
func TestThresholds(t *testing.T) {
	data, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	inFile := map[string]string{}
	for _, m := range threshold.FindAllStringSubmatch(string(data), -1) {
		inFile[m[2]] = m[1]
	}
	var values struct {
		Alerts struct {
			Runbooks   string
			Thresholds map[string]json.Number
		}
	}
	parse(t, chart+"/values.yaml", &values)
	presets := map[string]string{}
	var others strings.Builder
	for name, v := range values.Alerts.Thresholds {
		presets[name] = v.String()
		n := "0.123"
		if name == "deadLetters" || name == "backlogRecords" || name == "leasesLost" {
			n = "1230000" // large enough for an exponent, if Helm gave it one
		}
		fmt.Fprintf(&others, "%s: %s, ", name, n)
	}
	if !maps.Equal(inFile, presets) {
		t.Errorf("the file has %v, values.yaml %v", inFile, presets)
	}
	rendered := get[prometheusRule](t, render(t, `alerts: {enabled: true, labels: {a: b}}`), "weir-alerts")
	if rendered.Labels["a"] != "b" {
		t.Errorf("labels %v", rendered.Labels)
	}
	want := alertRules(t)
	for _, g := range want.Groups {
		for _, r := range g.Rules {
			r.Annotations["runbook_url"] = strings.Replace(r.Annotations["runbook_url"], "RUNBOOKS", values.Alerts.Runbooks, 1)
		}
	}
	for i, g := range want.Groups {
		if i >= len(rendered.Spec.Groups) || len(rendered.Spec.Groups[i].Rules) != len(g.Rules) {
			t.Fatalf("the PrometheusRule lacks group %s, or rules of it", g.Name)
		}
		for j, r := range g.Rules {
			if got := rendered.Spec.Groups[i].Rules[j]; !reflect.DeepEqual(got, r) {
				t.Errorf("the PrometheusRule is not the file: %v, want %v", got, r)
			}
		}
	}
	changed := get[prometheusRule](t, render(t, `alerts: {enabled: true, thresholds: {`+others.String()+`}}`), "weir-alerts")
	for i, g := range changed.Spec.Groups {
		for j, r := range g.Rules {
			before := want.Groups[i].Rules[j].Expr
			n := len(threshold.FindAllString(before, -1))
			if got := strings.Count(r.Expr, "0.123 # ") + strings.Count(r.Expr, "1230000 # ") + strings.Count(r.Expr, "1.23e+06 # "); got != n {
				t.Errorf("%s: %d of %d thresholds changed in %s", r.Alert, got, n, r.Expr)
			}
		}
	}
	spec, err := yaml.Marshal(changed.Spec)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, spec, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ofPrometheus(t, "", "promtool", "check", "rules", file); err != nil {
		t.Error(err)
	}
}

// panel and dashboard are what is looked at of Grafana's.
type (
	datasource struct{ Type, UID string }
	panel      struct {
		ID                       int
		Type, Title, Description string
		Datasource               datasource
		GridPos                  struct{ H, W, X, Y int }
		FieldConfig              struct{ Defaults struct{ Unit string } }
		Targets                  []struct {
			Expr       string
			RefID      string
			Datasource datasource
		}
	}
	dashboard struct {
		UID, Title, Description string
		SchemaVersion           int
		Tags                    []string
		Templating              struct {
			List []struct {
				Name, Type, Definition string
				Datasource             datasource
			}
		}
		Panels []panel
	}
)

func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob(chart + "/files/dashboards/*.json")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]dashboard{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		var d dashboard
		if err == nil {
			err = json.Unmarshal(data, &d)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out[strings.TrimSuffix(filepath.Base(file), ".json")] = d
	}
	return out
}

// TestDashboards: each is there, in a ConfigMap that Grafana's sidecar finds, and each panel says what it shows, in which
// unit, of the data source that was chosen.
func TestDashboards(t *testing.T) {
	docs := render(t, `dashboards: {enabled: true}`)
	ds := datasource{"prometheus", "${datasource}"}
	found := dashboards(t)
	if got, want := slices.Sorted(maps.Keys(found)), []string{"database", "function", "jobs", "overview", "queue"}; !slices.Equal(got, want) {
		t.Errorf("there are %v, want %v", got, want)
	}
	for name, d := range found {
		no := func(format string, args ...any) { t.Errorf(name+".json: "+format, args...) }
		m := get[corev1.ConfigMap](t, docs, "weir-dashboard-"+name)
		data, err := os.ReadFile(filepath.Join(chart, "files", "dashboards", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if m.Labels["grafana_dashboard"] != "1" || strings.TrimSpace(m.Data["weir-"+name+".json"]) != strings.TrimSpace(string(data)) {
			no("the ConfigMap has labels %v, or not the file", m.Labels)
		}
		if d.UID != "weir-"+name || d.SchemaVersion < 39 || d.Description == "" || !slices.Contains(d.Tags, "weir") {
			no("uid %s, schema version %d, description %q, tags %v", d.UID, d.SchemaVersion, d.Description, d.Tags)
		}
		vars := map[string]bool{}
		for _, v := range d.Templating.List {
			vars[v.Name] = true
			if v.Type == "query" && v.Datasource != ds {
				no("variable %s has the data source %v", v.Name, v.Datasource)
			}
		}
		if !vars["datasource"] || !vars["namespace"] || d.Templating.List[0].Type != "datasource" {
			no("variables %v", vars)
		}
		ids, cells := map[int]bool{}, map[[2]int]int{}
		for _, p := range d.Panels {
			if ids[p.ID] {
				no("two panels have the id %d", p.ID)
			}
			ids[p.ID] = true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := cells[[2]int{x, y}]; other != 0 || x >= 24 {
						no("panel %d lies over %d, or out of the page", p.ID, other)
					}
					cells[[2]int{x, y}] = p.ID
				}
			}
			if p.Type == "row" {
				continue
			}
			if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource != ds || len(p.Targets) == 0 {
				no("panel %d %q: description %q, unit %q, data source %v, %d queries", p.ID, p.Title, p.Description, p.FieldConfig.Defaults.Unit, p.Datasource, len(p.Targets))
			}
			for _, q := range p.Targets {
				if q.Datasource != ds || q.RefID == "" {
					no("panel %q: data source %v", p.Title, q.Datasource)
				}
				for _, v := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(q.Expr, -1) {
					if !vars[v[1]] && v[1] != "__rate_interval" && v[1] != "1" {
						no("panel %q asks for $%s, which is no variable", p.Title, v[1])
					}
				}
			}
		}
	}
}

// ofTarget are the labels that come with the target.
var ofTarget = []string{"namespace", "job", "pod", "instance", "container"}

// TestQueries holds each metric and each label of alerts, dashboards and test/e2e to what is exported: by the stages, as
// docs/metrics.md has it; by the exporters, as docs/kubernetes.md has it.
func TestQueries(t *testing.T) {
	known := exported(t)
	ours := len(known)
	maps.Copy(known, ofExporters(t))
	if len(known) < ours+10 {
		t.Fatalf("docs/kubernetes.md has %d metrics of exporters", len(known)-ours)
	}
	known["up"] = nil
	known["controller_runtime_reconcile_total"] = []string{"controller", "result"}

	var where, expressions []string
	ask := func(w, e string) { where, expressions = append(where, w), append(expressions, e) }
	for _, g := range alertRules(t).Groups {
		for _, r := range g.Rules {
			ask(r.Alert, r.Expr)
		}
	}
	grafana := strings.NewReplacer("$__rate_interval", "5m")
	labelValues := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	for name, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				ask(name+".json, "+p.Title, grafana.Replace(q.Expr))
			}
		}
		for _, v := range d.Templating.List {
			if v.Type != "query" {
				continue
			}
			m := labelValues.FindStringSubmatch(v.Definition)
			if m == nil {
				t.Errorf("%s.json: variable %s is %q", name, v.Name, v.Definition)
				continue
			}
			ask(name+".json, $"+v.Name, "count by ("+m[2]+") ("+m[1]+")")
		}
	}
	var required []struct{ Query string }
	parse(t, "../e2e/testdata/metrics.yaml", &required)
	for _, r := range required {
		ask("test/e2e/testdata/metrics.yaml", r.Query)
	}
	in, err := json.Marshal(expressions)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ofPrometheus(t, string(in), "queries")
	if err != nil {
		t.Fatal(err)
	}
	var queries []query
	if err := json.Unmarshal([]byte(out), &queries); err != nil || len(queries) != len(expressions) {
		t.Fatal(len(queries), err)
	}
	for i, q := range queries {
		if q.Error != "" {
			t.Errorf("%s: %s in %s", where[i], q.Error, expressions[i])
			continue
		}
		has := slices.Concat(ofTarget, q.Replaced)
		for _, s := range q.Selectors {
			labels, ok := known[s.Metric]
			if !ok {
				t.Errorf("%s: nobody exports %s", where[i], s.Metric)
			}
			has = append(has, labels...)
			for _, l := range s.Labels {
				if !is(l, slices.Concat(ofTarget, labels)) {
					t.Errorf("%s: %s has no label %s, but %v", where[i], s.Metric, l, labels)
				}
			}
		}
		for _, l := range q.Labels {
			if l != "le" && !is(l, has) {
				t.Errorf("%s: nothing has the label %s: %v", where[i], l, has)
			}
		}
	}
}

// query is what bin/queries says of an expression.
type query struct {
	Error     string
	Selectors []struct {
		Metric string
		Labels []string
	}
	Labels, Replaced []string
}

func is(label string, labels []string) bool {
	return slices.ContainsFunc(labels, func(l string) bool {
		rest, any := strings.CutSuffix(l, "_"+anyOf)
		return l == label || any && strings.HasPrefix(label, rest+"_")
	})
}
