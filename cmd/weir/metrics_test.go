package main

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/otlptranslator"

	"github.com/weir-dev/weir/internal/testkit"
)

// TestMetricsTable holds docs/metrics.md to what weir local exports with the sample at work: what it pushes by OTLP has the names,
// units, kinds, attributes and values, the Prometheus page has the names that follow. Each metric and each attribute is in the
// table, and each of the table is there.
func TestMetricsTable(t *testing.T) {
	tab := readTable(t)
	to := newBackend(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	t.Setenv("OTEL_LOGS_EXPORTER", "otlp")
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	t.Setenv("OTEL_BLRP_SCHEDULE_DELAY", "100")
	env := startLocal(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	do := func(method, path, body string, header ...string) (status int, answer string) {
		req, err := http.NewRequestWithContext(t.Context(), method, env["WEIR_URL"]+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(text)
	}
	json := []string{"Content-Type", "application/json"}
	do("POST", "/orders", `{"sku": "book-42", "quantity": 1, "customer": "ada"}`, json...)
	do("POST", "/orders", `{"sku": 1}`, json...)
	do("GET", "/nowhere", "")
	do("GET", "/orders/none", "")
	status, job := do("POST", "/reports", `{"seconds": 0}`, json...)
	if events := regexp.MustCompile(`"events":"([^"]+)"`).FindStringSubmatch(job); status == http.StatusAccepted && events != nil {
		do("GET", events[1], "", "Last-Event-ID", "0") // until the job has ended
	} else {
		t.Errorf("no events of a job: %d %s", status, job)
	}
	runMachine(t, client, env["WEIR_ADMIN_URL"])

	var missing []string
	var page map[string]*dto.MetricFamily
	defer func() { // also if something is missing: that may be a name or a unit that is wrong
		if len(missing) > 0 {
			t.Errorf("missing at the end: %v", missing)
		}
		to.mu.Lock()
		defer to.mu.Unlock()
		for name, m := range to.metrics {
			tab.holds(t, name, m)
		}
		tab.holdsPage(t, page)
	}()
	testkit.Eventually(t, "all is there, but for what rare events have", func() bool {
		page = scrape(t, env["WEIR_ADMIN_URL"]+"/metrics")
		to.mu.Lock()
		defer to.mu.Unlock()
		missing = tab.missing(t, to.metrics, page)
		return len(missing) == 0
	})
}

// runMachine has executions of a state machine, of which one goes on from where it failed.
func runMachine(t *testing.T, client *http.Client, admin string) {
	t.Helper()
	do := func(method, path, body string) string {
		req, err := http.NewRequestWithContext(t.Context(), method, admin+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Prefer", "wait=20")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		if res.StatusCode >= 300 {
			t.Errorf("%s %s: %s %s", method, path, res.Status, text)
		}
		return string(text)
	}
	do("PUT", "/state-machines/m", `{"definition": {"StartAt": "W", "States": {
		"W": {"Type": "Wait", "Seconds": 1, "Next": "R"}, "R": {"Type": "Task", "Resource": "report", "Parameters": {"seconds": 0}, "Next": "F"}, "F": {"Type": "Fail"}}}}`)
	if got := do("POST", "/state-machines/m/executions", `{"name": "x"}`); !strings.Contains(got, `"FAILED"`) {
		t.Errorf("the execution is %s", got)
	}
	do("POST", "/executions/m:x/redrive", "")
}

// rare is what needs what does not happen here: of a metric these attributes, or all if there are none. The SDK counts its own
// export of metrics for the first Setup of a process, which may have been another test's.
func rare(name, attribute string) bool {
	of, ok := map[string][]string{
		"weir.gateway.throttled":                       nil,
		"faas.errors":                                  nil,
		"weir.executions.refused":                      nil,
		"weir.streams.unclaimed":                       nil, // package controller's TestUnclaimedStreamsAreCounted
		"weir.tasks.throttled":                         nil, // package orchestrator's TestMetricsOfKnownTraffic
		"faas.coldstarts":                              {"faas.invoked_name"},
		"http.server.request.duration":                 {"error.type"}, // package gateway's TestMetrics
		"messaging.client.operation.duration":          {"error.type"}, // package gateway's TestFailedWritesAreCounted
		"messaging.client.sent.messages":               {"error.type"},
		"otel.sdk.processor.span.processed":            {"error.type"}, // package telemetry's TestABackEndThatHangs
		"otel.sdk.processor.log.processed":             {"error.type"},
		"otel.sdk.exporter.metric_data_point.exported": nil,
	}[name]
	return ok && (of == nil || slices.Contains(of, attribute))
}

// missing are the metrics of the table that were not pushed or are not on the page, and their attributes that were not pushed.
func (tab *table) missing(t *testing.T, pushed map[string]*metric, page map[string]*dto.MetricFamily) (out []string) {
	t.Helper()
	for name, r := range tab.rows {
		m := pushed[name]
		if m == nil || page[r.shown(t)] == nil {
			if !rare(name, "") {
				out = append(out, name)
			}
			continue
		}
		seen := map[string]bool{}
		for a := range m.attributes {
			seen[r.attribute(a, asItIs)] = true
		}
		for a := range r.attributes {
			if !seen[a] && !rare(name, a) {
				out = append(out, name+" "+a)
			}
		}
	}
	return out
}

// holds holds a metric that was pushed to the table.
func (tab *table) holds(t *testing.T, name string, m *metric) {
	t.Helper()
	r := tab.rows[name]
	if r == nil {
		if !tab.other(name, asItIs) {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
		return
	}
	if m.unit != r.unit || m.kind != r.kind {
		t.Errorf("%s is of the kind %s in %s, documented as %s in %s", name, m.kind, m.unit, r.kind, r.unit)
	}
	for label, values := range m.attributes {
		a := r.attribute(label, asItIs)
		if a == "" {
			t.Errorf("%s has the attribute %s, which is not documented", name, label)
			continue
		}
		for v := range values {
			if !tab.has(r.attributes[a], v) {
				t.Errorf("%s: %s is %q, documented are %v", name, label, v, r.attributes[a])
			}
		}
	}
}

// holdsPage holds the Prometheus page to the table. Values are the same as those that were pushed.
func (tab *table) holdsPage(t *testing.T, page map[string]*dto.MetricFamily) {
	t.Helper()
	shown := map[string]*row{}
	for _, r := range tab.rows {
		shown[r.shown(t)] = r
	}
	types := map[string]dto.MetricType{"counter": dto.MetricType_COUNTER, "gauge": dto.MetricType_GAUGE, "up-down": dto.MetricType_GAUGE, "histogram": dto.MetricType_HISTOGRAM}
	for name, f := range page {
		r := shown[name]
		if r == nil {
			if name != "target_info" && !tab.other(name, underscored) && !tab.other(strings.TrimSuffix(name, "_total"), underscored) {
				t.Errorf("%s of the page is not in docs/metrics.md", name)
			}
			continue
		}
		if f.GetType() != types[r.kind] {
			t.Errorf("%s of the page is a %s, documented as %s", name, f.GetType(), r.kind)
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if r.attribute(l.GetName(), underscored) == "" {
					t.Errorf("%s of the page has the label %s, which is not documented", name, l.GetName())
				}
			}
		}
	}
}

// shown is the name on the Prometheus page.
func (r *row) shown(t *testing.T) string {
	t.Helper()
	kind, ok := map[string]otlptranslator.MetricType{
		"counter": otlptranslator.MetricTypeMonotonicCounter, "gauge": otlptranslator.MetricTypeGauge,
		"up-down": otlptranslator.MetricTypeNonMonotonicCounter, "histogram": otlptranslator.MetricTypeHistogram,
	}[r.kind]
	if !ok {
		t.Fatalf("%s is of the kind %q", r.name, r.kind)
	}
	namer := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
	name, err := namer.Build(otlptranslator.Metric{Name: r.name, Unit: r.unit, Type: kind})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func asItIs(name string) string { return name }

// underscored is a name as Prometheus' page has it, without unit and kind.
func underscored(name string) string { return strings.ReplaceAll(name, ".", "_") }

func scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}
