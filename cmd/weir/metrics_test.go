package main

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
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

// row is a metric of docs/metrics.md.
type row struct {
	name, unit, kind string
	attributes       map[string][]string // with their values; nil if there is no list of them
	open             bool                // it says that there are more attributes
}

var (
	quoted    = regexp.MustCompile("`([^`]+)`")
	valueList = regexp.MustCompile(`^ \(([a-z0-9_]+(?:, [a-z0-9_]+)*)\)`)
)

// metricsTable reads the rows by the names that the Prometheus page gives them.
func metricsTable(t *testing.T) map[string]row {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	out, last := map[string]row{}, row{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if !strings.HasPrefix(line, "| `") || len(cells) < 8 {
			continue
		}
		r := row{name: strings.Trim(strings.TrimSpace(cells[1]), "`"), unit: strings.TrimSpace(cells[2]), kind: strings.TrimSpace(cells[3]), attributes: map[string][]string{}}
		said := cells[5]
		if strings.Contains(said, "as above") {
			maps.Copy(r.attributes, last.attributes)
		}
		r.open = strings.Contains(said, "more of") || strings.Contains(said, "*")
		for _, at := range quoted.FindAllStringSubmatchIndex(said, -1) {
			name := said[at[2]:at[3]]
			r.attributes[name] = nil
			if values := valueList.FindStringSubmatch(said[at[1]:]); values != nil && !strings.Contains(values[1], "the ") {
				r.attributes[name] = strings.Split(values[1], ", ")
			}
		}
		typ := map[string]otlptranslator.MetricType{
			"counter": otlptranslator.MetricTypeMonotonicCounter, "gauge": otlptranslator.MetricTypeGauge,
			"up-down": otlptranslator.MetricTypeNonMonotonicCounter, "histogram": otlptranslator.MetricTypeHistogram,
		}[r.kind]
		namer := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
		shown, err := namer.Build(otlptranslator.Metric{Name: r.name, Unit: r.unit, Type: typ})
		if err != nil {
			t.Fatal(err)
		}
		out[shown], last = r, r
	}
	return out
}

// TestMetricsTable holds docs/metrics.md to what weir local exports with the sample at work, to a back-end that refuses what is
// pushed: each metric is in the table, with its kind, attributes and values, and each of the table is there.
func TestMetricsTable(t *testing.T) {
	refused := make(chan struct{}, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusBadRequest)
		select {
		case refused <- struct{}{}:
		default:
		}
	}))
	defer backend.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.URL)
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
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
	status, job := do("POST", "/reports", `{"seconds": 0}`, json...)
	if events := regexp.MustCompile(`"events":"([^"]+)"`).FindStringSubmatch(job); status == http.StatusAccepted && events != nil {
		do("GET", events[1], "", "Last-Event-ID", "0") // until the job has ended
	} else {
		t.Errorf("no events of a job: %d %s", status, job)
	}
	<-refused

	table := metricsTable(t)
	if len(table) < 40 {
		t.Fatalf("only %d metrics are documented", len(table))
	}
	var families map[string]*dto.MetricFamily
	var missing []string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("missing at the end: %v", missing)
		}
	})
	testkit.Eventually(t, "all metrics are there, but for those of rare events", func() bool {
		families = scrape(t, env["WEIR_ADMIN_URL"]+"/metrics")
		missing = missing[:0]
		for shown, r := range table {
			if families[shown] == nil && !rare(r.name) {
				missing = append(missing, r.name)
			}
		}
		return len(missing) == 0
	})
	for shown, f := range families {
		r, documented := table[shown]
		if !documented {
			if !others.MatchString(shown) {
				t.Errorf("%s is not in docs/metrics.md", shown)
			}
			continue
		}
		kind := map[string]dto.MetricType{"counter": dto.MetricType_COUNTER, "gauge": dto.MetricType_GAUGE, "up-down": dto.MetricType_GAUGE, "histogram": dto.MetricType_HISTOGRAM}[r.kind]
		if f.GetType() != kind {
			t.Errorf("%s is a %s, documented as %s", r.name, f.GetType(), r.kind)
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				r.check(t, l.GetName(), l.GetValue())
			}
		}
	}
}

// rare are metrics that need what does not happen here; and one that the SDK counts for the first Setup of a process, which
// may have been another test's.
func rare(name string) bool {
	return slices.Contains([]string{"weir.gateway.throttled", "faas.coldstarts", "faas.errors", "otel.sdk.exporter.metric_data_point.exported"}, name)
}

// others are described in one sentence.
var others = regexp.MustCompile(`^(go|pgxpool|orders|otel_sdk|promhttp|process|db_client)_|^target_info$`)

// check holds an attribute to the row.
func (r *row) check(t *testing.T, label, value string) {
	t.Helper()
	for name, values := range r.attributes {
		if strings.ReplaceAll(name, ".", "_") != label {
			continue
		}
		if values != nil && !slices.Contains(values, value) {
			t.Errorf("%s: %s is %q, documented are %v", r.name, name, value, values)
		}
		return
	}
	if !r.open {
		t.Errorf("%s has the attribute %s, which is not documented", r.name, label)
	}
}

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
