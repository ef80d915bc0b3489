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

// ofFunctions are the metrics that functions have themselves, in their own namespaces. The dispatcher has faas_coldstarts_total,
// too, without a faas_name.
var ofFunctions = regexp.MustCompile(`\b(faas_invocations_total|faas_errors_total|faas_invoke_duration_seconds\w*|db_client_operation_duration_seconds\w*|faas_coldstarts_total\{[^}]*faas_name!="")`)

// TestDashboardsSelectByNamespace: what Weir exports is chosen by its namespace, and what functions export by theirs: else a
// panel is empty as soon as a namespace is chosen.
func TestDashboardsSelectByNamespace(t *testing.T) {
	selector := regexp.MustCompile(`namespace=~"\$(\w+)"`)
	ofTheirs := 0
	for name, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				want := "namespace"
				if ofFunctions.MatchString(q.Expr) {
					want = "function_namespace"
					ofTheirs++
				}
				if want == "namespace" && strings.Contains(q.Expr, "faas_coldstarts_total") && !strings.Contains(q.Expr, `faas_invoked_name!=""`) {
					t.Errorf("%s.json, %s: functions' own are among the dispatcher's: %s", name, p.Title, q.Expr)
				}
				chosen := selector.FindAllStringSubmatch(q.Expr, -1)
				if len(chosen) == 0 || slices.ContainsFunc(chosen, func(m []string) bool { return m[1] != want }) {
					t.Errorf("%s.json, %s: not all is of $%s: %s", name, p.Title, want, q.Expr)
				}
			}
		}
		for _, v := range d.Templating.List {
			if v.Name == "function_namespace" && !ofFunctions.MatchString(v.Definition) {
				t.Errorf("%s.json: $function_namespace is %s", name, v.Definition)
			}
		}
	}
	if ofTheirs < 6 {
		t.Errorf("%d queries of functions' metrics", ofTheirs)
	}
}

// TestDashboardsKeepQueuesApart: two releases may have a queue of one name, so no aggregation drops the namespace and keeps
// the queue, and no legend has the one without the other.
func TestDashboardsKeepQueuesApart(t *testing.T) {
	queue := regexp.MustCompile(`\b(weir_queue|messaging_destination_name|faas_name)\b`)
	by := regexp.MustCompile(`\b(?:by|on) ?\(([^)]*)\)`)
	found := 0
	for name := range dashboards(t) {
		data, err := os.ReadFile(filepath.Join(chart, "files", "dashboards", name+".json"))
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr, LegendFormat string }
			}
		}
		if err == nil {
			err = json.Unmarshal(data, &d)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				for _, m := range by.FindAllStringSubmatch(q.Expr, -1) {
					if !queue.MatchString(m[1]) {
						continue
					}
					found++
					if !slices.Contains(strings.Split(strings.ReplaceAll(m[1], " ", ""), ","), "namespace") {
						t.Errorf("%s.json, %s: %s in %s", name, p.Title, m[0], q.Expr)
					}
				}
				if queue.MatchString(q.LegendFormat) && !strings.Contains(q.LegendFormat, "{{namespace}}") {
					t.Errorf("%s.json, %s: the legend %q is that of two", name, p.Title, q.LegendFormat)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("%d aggregations by queue", found)
	}
}
