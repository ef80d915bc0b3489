package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"
)

// metric is one that was exported, with all that was seen of it.
type metric struct {
	unit, kind string
	attributes map[string]map[string]bool // the values, by the attribute's name
}

// has notes an attribute.
func (m *metric) has(name, value string) {
	if m.attributes[name] == nil {
		m.attributes[name] = map[string]bool{}
	}
	m.attributes[name][value] = true
}

// backend is one of OpenTelemetry that refuses all spans, and the first push of metrics and of logs.
type backend struct {
	*httptest.Server

	mu      sync.Mutex
	pushes  map[string]int     // by path
	metrics map[string]*metric // by name
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{pushes: map[string]int{}, metrics: map[string]*metric{}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // broken off: its time was over
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pushes[r.URL.Path]++
		if r.URL.Path == "/v1/traces" || b.pushes[r.URL.Path] == 1 {
			w.WriteHeader(http.StatusBadRequest)
		} else if r.URL.Path == "/v1/metrics" {
			if err := b.take(body); err != nil {
				t.Error(err)
			}
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) take(body []byte) error {
	var request collector.ExportMetricsServiceRequest
	if err := proto.Unmarshal(body, &request); err != nil {
		return err
	}
	var errs []error
	for _, rm := range request.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				kind, points := pointsOf(m)
				at := b.metrics[m.GetName()]
				if at == nil {
					at = &metric{unit: m.GetUnit(), kind: kind, attributes: map[string]map[string]bool{}}
					b.metrics[m.GetName()] = at
				}
				if at.unit != m.GetUnit() || at.kind != kind {
					errs = append(errs, errors.New(m.GetName()+" is of two units or kinds"))
				}
				for _, p := range points {
					for _, a := range p {
						at.has(a.GetKey(), textOf(a.GetValue()))
					}
				}
			}
		}
	}
	return errors.Join(errs...)
}

// pointsOf is the kind of m, as docs/metrics.md has it, and the attributes of its points.
func pointsOf(m *otlp.Metric) (kind string, points [][]*common.KeyValue) {
	add := func(of interface{ GetAttributes() []*common.KeyValue }) { points = append(points, of.GetAttributes()) }
	switch d := m.GetData().(type) {
	case *otlp.Metric_Sum:
		kind = "up-down"
		if d.Sum.GetIsMonotonic() {
			kind = "counter"
		}
		for _, p := range d.Sum.GetDataPoints() {
			add(p)
		}
	case *otlp.Metric_Gauge:
		kind = "gauge"
		for _, p := range d.Gauge.GetDataPoints() {
			add(p)
		}
	case *otlp.Metric_Histogram:
		kind = "histogram"
		for _, p := range d.Histogram.GetDataPoints() {
			add(p)
		}
	}
	return kind, points
}

func textOf(v *common.AnyValue) string {
	if n, ok := v.GetValue().(*common.AnyValue_IntValue); ok {
		return strconv.FormatInt(n.IntValue, 10)
	}
	return v.GetStringValue()
}
