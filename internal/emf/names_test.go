package emf

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

func TestUnits(t *testing.T) {
	for unit, want := range map[string]string{
		"": "", "None": "", "Seconds": "s", "Microseconds": "us", "Milliseconds": "ms", "Percent": "%", "Count": "{count}",
		"Bytes": "By", "Kilobytes": "kBy", "Megabytes": "MBy", "Gigabytes": "GBy", "Terabytes": "TBy",
		"Bits": "bit", "Kilobits": "kbit", "Megabits": "Mbit", "Gigabits": "Gbit", "Terabits": "Tbit",
		"Bytes/Second": "By/s", "Kilobytes/Second": "kBy/s", "Megabytes/Second": "MBy/s", "Gigabytes/Second": "GBy/s", "Terabytes/Second": "TBy/s",
		"Bits/Second": "bit/s", "Kilobits/Second": "kbit/s", "Megabits/Second": "Mbit/s", "Gigabits/Second": "Gbit/s", "Terabits/Second": "Tbit/s",
		"Count/Second": "{count}/s", "None/Second": "", "/Second": "{/Second}", "é": "{__}", strings.Repeat("x", 80): "{" + strings.Repeat("x", 61) + "}",
	} {
		if got := ucum([]byte(unit)); got != want {
			t.Errorf("%s is %q, want %q", unit, got, want)
		}
	}
}

// clashing are metrics and dimensions that OpenTelemetry or Prometheus would take for one another, or for their own.
func clashing() []string {
	var out []string
	add := func(namespace, name, unit, dimension string) {
		out = append(out, line(namespace, name, unit, fmt.Sprintf(`[[%q]]`, dimension), fmt.Sprintf(`%q:1,%q:"x"`, name, dimension)))
	}
	for _, namespace := range []string{"N", "a/b c", "weir"} {
		for _, name := range []string{
			"a b", "a_b", "a.b", "A_B", "a__b", "time", "time_seconds", "Time", "x", "x_count", "x_sum", "x_bucket", "x_total", "y_count_count", "y_count", "y",
			"_", "__", "0", "é", "è", "target_info", "up", "weir_emf_lines_total", "weir.emf.lines", "otel_scope_info", "go_goroutines",
			strings.Repeat("long", 250), strings.Repeat("long", 250) + "er", "a{b=\"c\"}", "le", "emf_x", "x_emf",
		} {
			for _, unit := range []string{"", "None", "Count", "Seconds", "Milliseconds", "Bogus", "count"} {
				add(namespace, name, unit, "d") // fewer than maxInstruments
			}
		}
	}
	for _, dimension := range []string{
		"le", "quantile", "__name__", "__x", "otel_scope_name", "otel_scope_version", "otel.scope.name", "_", "é", "0", "a b", "job", "instance",
		"faas.name", "faas_name", "emf.metric.name", "otel.metric.overflow", "\"", "\n",
	} {
		add("D", "v", "Count", dimension)
	}
	out = append(out, line("D", "v", "Count", `[["a.b","a_b"]]`, `"v":1,"a.b":"x","a_b":"y"`), line("D", "v", "Count", `[["le","quantile"],["a"]]`, `"v":1,"le":"x","quantile":"1","a":"x"`))
	return out
}

// TestScrape: whatever functions call their metrics and dimensions, a page for Prometheus is served whole, in any order
// in which the names come, with all values on it. The handler is as strict as the one of OTEL_METRICS_EXPORTER=prometheus.
func TestScrape(t *testing.T) {
	lines := clashing()
	backwards := slices.Clone(lines)
	slices.Reverse(backwards)
	for name, lines := range map[string][]string{"forwards": lines, "backwards": backwards} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			reader, err := promexporter.New(promexporter.WithRegisterer(registry))
			if err != nil {
				t.Fatal(err)
			}
			provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithCardinalityLimit(0))
			defer func() {
				if err := provider.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			var log strings.Builder
			r, err := NewRecorder(Config{Providers: []metric.MeterProvider{provider}, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range lines {
				r.Source().Line([]byte(l))
			}
			if strings.Contains(log.String(), "level=ERROR") {
				t.Error(log.String())
			}
			page := httptest.NewRecorder()
			promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}).ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
			if page.Code != http.StatusOK {
				t.Fatalf("%d %s", page.Code, page.Body)
			}
			sum, seen := 0.0, map[string]bool{}
			for l := range strings.Lines(page.Body.String()) {
				series, value, _ := strings.Cut(l, "} ")
				if strings.HasPrefix(l, "#") {
					continue
				}
				if seen[series] {
					t.Errorf("twice: %s", series)
				}
				seen[series] = true
				if name, _, _ := strings.Cut(series, "{"); strings.HasSuffix(name, "_sum") && !strings.HasPrefix(name, "weir") {
					var v float64
					if _, err := fmt.Sscan(value, &v); err != nil {
						t.Error(err)
					}
					sum += v
				}
			}
			if want := float64(len(lines) + 1); sum != want { // one line has two dimension sets
				t.Errorf("the sums add up to %v, want %v", sum, want)
			}
		})
	}
}

// TestNames: what the SDK is given is what it allows, and two metrics stay two.
func TestNames(t *testing.T) {
	n := newNames()
	type key struct{ name, unit, apart string }
	seen := map[key]written{}
	for _, m := range []written{{"a b", ""}, {"a_b", ""}, {"A_B", ""}, {"a_b", "None"}, {"a_b", "Seconds"}, {"a_b_seconds", ""}, {"x", ""}, {"x_count", ""}, {"", ""}, {"9", "Count"}} {
		id := n.of("N", m)
		if len(id.name) > maxInstrumentName || id.name == "" || !isLetter(id.name[0]) || len(id.unit) > maxUnitBytes {
			t.Errorf("%v is called %v", m, id)
		}
		k := key{strings.ToLower(id.name), id.unit, fmt.Sprint(id.apart)}
		if other, ok := seen[k]; ok {
			t.Errorf("%v and %v are both %v", m, other, k)
		}
		seen[k] = m
	}
}
