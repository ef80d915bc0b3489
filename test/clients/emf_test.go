package clients_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/weir-dev/weir/internal/emf"
)

// given is a series as the function gave it to its library.
type given struct {
	Namespace, Name, Unit string
	Dimensions            map[string]string
	Count                 uint64
	Sum, Min, Max         float64
}

func (g given) String() string {
	var dimensions []string
	for _, k := range slices.Sorted(maps.Keys(g.Dimensions)) {
		dimensions = append(dimensions, k+"="+g.Dimensions[k])
	}
	return fmt.Sprintf("%s %s %s %q %d %v %v %v", g.Namespace, g.Name, g.Unit, dimensions, g.Count, g.Sum, g.Min, g.Max)
}

// units are those that the libraries know, as OpenTelemetry writes them.
func units() map[string]string {
	out := map[string]string{"None": "", "Count": "{count}", "Percent": "%", "Seconds": "s", "Milliseconds": "ms", "Microseconds": "us"}
	for prefix, ucum := range map[string]string{"": "", "Kilo": "k", "Mega": "M", "Giga": "G", "Tera": "T"} {
		bytes, bits := "Bytes", "Bits"
		if prefix != "" {
			bytes, bits = "bytes", "bits"
		}
		out[prefix+bytes], out[prefix+bits] = ucum+"By", ucum+"bit"
	}
	for unit, ucum := range maps.Clone(out) {
		if ucum != "" {
			out[unit+"/Second"] = ucum + "/s"
		}
	}
	return out
}

// TestEMF: what the libraries print becomes the metrics that the function has recorded, each value, sum and dimension.
func TestEMF(t *testing.T) {
	dir := packages(t)
	file := filepath.Join(t.TempDir(), "given.json")
	node := exec.CommandContext(t.Context(), "node", "emf.mjs", file)
	node.Dir = dir
	node.Env = append(os.Environ(), "AWS_EMF_ENVIRONMENT=Local", "AWS_EMF_LOG_GROUP_NAME=orders-logs", "AWS_EMF_SERVICE_NAME=orders", "AWS_EMF_SERVICE_TYPE=function")
	var stderr bytes.Buffer
	node.Stderr = &stderr
	lines, err := node.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	var want []given
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &want)
	}
	if err != nil {
		t.Fatal(err)
	}

	reader := sdkmetric.NewManualReader()
	var log strings.Builder
	recorder, err := emf.NewRecorder(emf.Config{
		Providers: []metric.MeterProvider{sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithCardinalityLimit(0))},
		Log:       slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	splitter := recorder.Source().Splitter()
	for chunk := range slices.Chunk(lines, 1000) { // as a pipe may cut it
		_, _ = splitter.Write(chunk)
	}
	_ = splitter.Close()

	var wanted, got []string
	known := units()
	for _, g := range want {
		ucum, ok := known[g.Unit]
		if !ok {
			t.Errorf("a new unit: %s", g.Unit)
		}
		g.Unit = ucum
		wanted = append(wanted, g.String())
	}
	got = recordedSeries(t, reader)
	slices.Sort(wanted)
	slices.Sort(got)
	if !slices.Equal(got, wanted) {
		for _, g := range got {
			if !slices.Contains(wanted, g) {
				t.Errorf("recorded: %s", g)
			}
		}
		for _, w := range wanted {
			if !slices.Contains(got, w) {
				t.Errorf("missing:  %s", w)
			}
		}
	}
	if log.Len() > 0 || len(wanted) < 250 {
		t.Errorf("%d series; %s", len(wanted), log.String())
	}
	t.Logf("%d lines, %d bytes, %d series", bytes.Count(lines, []byte("\n")), len(lines), len(got))
}

func recordedSeries(t *testing.T, reader sdkmetric.Reader) []string {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			if m.Name == "weir.emf.dropped" {
				t.Errorf("something was dropped: %v", m.Data)
			}
			data, ok := m.Data.(metricdata.Histogram[float64])
			if !ok {
				continue
			}
			for _, p := range data.DataPoints {
				g := given{Namespace: sm.Scope.Name, Name: m.Name, Unit: m.Unit, Dimensions: map[string]string{}, Count: p.Count, Sum: p.Sum}
				g.Min, _ = p.Min.Value()
				g.Max, _ = p.Max.Value()
				for _, a := range p.Attributes.ToSlice() {
					if a.Key == "emf.metric.name" {
						g.Name = a.Value.AsString()
						continue
					}
					g.Dimensions[string(a.Key)] = a.Value.AsString()
				}
				out = append(out, g.String())
			}
		}
	}
	return out
}
