package chart_test

import (
	"io"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/weir-dev/weir/internal/telemetry"
)

// series are the labels of each name that can be asked for, as they are on a page of Prometheus.
type series map[string][]string

var (
	metricRow   = regexp.MustCompile("(?m)^\\| `([a-z0-9._]+)` \\| ([^|]+) \\| (counter|up-down|gauge|histogram) \\| ([^|]+) \\|([^|]*)\\|")
	exporterRow = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|([^|]*)\\| [^|]+ \\|$")
	attributes  = regexp.MustCompile("`([a-z_.*]+)`")
)

// anyOf stands for the rest of a label that the table has as "server.*".
const anyOf = "any"

// exported reads the table of docs/metrics.md and makes each of its instruments: the names and labels are those that
// the page of a stage then has, by the translation that is in use.
func exported(t *testing.T) series {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{Service: "weir-test", Getenv: func(string) string { return "" }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tel.Close)
	meter := tel.Meter("chart_test")
	rows := metricRow.FindAllStringSubmatch(string(text), -1)
	if len(rows) < 30 {
		t.Fatalf("docs/metrics.md has %d rows", len(rows))
	}
	for _, row := range rows {
		name, unit, kind := row[1], row[2], row[3]
		var attrs []attribute.KeyValue
		for _, m := range attributes.FindAllStringSubmatch(outsideParentheses(row[5]), -1) {
			attrs = append(attrs, attribute.String(strings.Replace(m[1], "*", anyOf, 1), "x"))
		}
		with := metric.WithAttributes(attrs...)
		switch kind {
		case "counter":
			i, e := meter.Int64Counter(name, metric.WithUnit(unit))
			i.Add(t.Context(), 1, with)
			err = e
		case "up-down":
			i, e := meter.Int64UpDownCounter(name, metric.WithUnit(unit))
			i.Add(t.Context(), 1, with)
			err = e
		case "gauge":
			i, e := meter.Float64Gauge(name, metric.WithUnit(unit))
			i.Record(t.Context(), 1, with)
			err = e
		case "histogram":
			i, e := meter.Float64Histogram(name, metric.WithUnit(unit))
			i.Record(t.Context(), 1, with)
			err = e
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	rec := httptest.NewRecorder()
	tel.Page().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	out, err := pageOf(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pageOf reads a page of Prometheus.
func pageOf(page io.Reader) (series, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return nil, err
	}
	out := series{}
	for name, f := range families {
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		of := slices.Sorted(maps.Keys(labels))
		if f.GetType() != dto.MetricType_HISTOGRAM {
			out[name] = of
			continue
		}
		out[name+"_count"], out[name+"_sum"], out[name+"_bucket"] = of, of, append(slices.Clone(of), "le")
	}
	return out, nil
}

// outsideParentheses drops what stands in parentheses: values and conditions.
func outsideParentheses(s string) string {
	var b strings.Builder
	depth := 0
	for _, r := range s {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		default:
			if depth == 0 {
				b.WriteRune(r)
			}
		}
	}
	return b.String()
}

// ofExporters reads what docs/kubernetes.md has of the metrics of NATS' and PgBouncer's exporters.
func ofExporters(t *testing.T) series {
	t.Helper()
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	out := series{}
	for _, row := range exporterRow.FindAllStringSubmatch(string(text), -1) {
		out[row[1]] = []string{}
		for _, m := range attributes.FindAllStringSubmatch(row[2], -1) {
			out[row[1]] = append(out[row[1]], m[1])
		}
	}
	return out
}
