package orchestrator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/weir-dev/weir/internal/telemetry"
)

// startOne starts an execution, with a client of the bench's own.
func startOne(b *testing.B, client *http.Client, url, body, prefer string) map[string]any {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	if prefer != "" {
		req.Header.Set("Prefer", prefer)
	}
	res, err := client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	var answer map[string]any
	if prefer == "" {
		_, _ = io.Copy(io.Discard, res.Body)
	} else if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		b.Fatal(err)
	}
	if res.StatusCode >= 300 {
		b.Fatal(res.Status, answer)
	}
	return answer
}

// telling runs a bench without telemetry, with metrics, and with spans of 1 % and of all that is started, which are dropped at the
// exporter. What it costs is the ratio of medians of many runs, one of each in turns: of cpu-µs/op, where others are at work.
func telling(b *testing.B, run func(*testing.B, telemetry.Providers)) {
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()), sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter))
	for _, tel := range []struct {
		name string
		telemetry.Providers
	}{
		{"off", telemetry.Providers{}},
		{"metrics", telemetry.Providers{Meters: meters}},
		{"traces=1%", telemetry.Providers{Meters: meters, Traces: spansOf(b, 0.01)}},
		{"traces=100%", telemetry.Providers{Meters: meters, Traces: spansOf(b, 1)}},
	} {
		b.Run(tel.name, func(b *testing.B) { run(b, tel.Providers) })
	}
}

func spansOf(b *testing.B, share float64) *sdktrace.TracerProvider {
	p := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(share))), sdktrace.WithBatcher(tracetest.NewNoopExporter()))
	b.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return p
}

// processorTime reports the processor's time of the process for each operation, until the returned function is called.
func processorTime(b *testing.B) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64((used()-before).Microseconds())/float64(b.N), "cpu-µs/op") }
}

// BenchmarkFiveTasks: executions of five tasks whose functions answer at once, from their starts to the last call, in one process
// with NATS and the functions.
func BenchmarkFiveTasks(b *testing.B) { telling(b, fiveTasks) }

func fiveTasks(b *testing.B, tel telemetry.Providers) {
	w := newWorld(b)
	w.tel = tel
	r := w.start("a")
	var ended atomic.Int64
	all := make(chan struct{}, 1)
	w.answers(func(function string, _ []byte) (int, string) {
		if function == "f5" && ended.Add(1) == int64(b.N) {
			all <- struct{}{}
		}
		return http.StatusOK, `{"done":true}`
	})
	var states []string
	for n := range 5 {
		next := fmt.Sprintf(`"Next": "S%d"`, n+2)
		if n == 4 {
			next = `"End": true`
		}
		states = append(states, fmt.Sprintf(`"S%d": {"Type": "Task", "Resource": "f%d", %s}`, n+1, n+1, next))
	}
	r.put("m", `{"StartAt": "S1", "States": {`+strings.Join(states, ",")+`}}`)
	r.put("warm", `{"StartAt": "P", "States": {"P": {"Type": "Pass", "End": true}}}`)
	for n := range 64 { // until all partitions have an owner: a start that is refused would not be made again
		r.begin("warm", fmt.Sprint("x", n), `{}`)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	b.ResetTimer()
	report := processorTime(b)
	defer report()
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range 64 {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				startOne(b, client, r.api.URL+"/state-machines/m/executions", `{"input":{"order":1}}`, "")
			}
		})
	}
	wg.Wait()
	started := time.Since(start)
	<-all
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "executions/s")
	b.ReportMetric(float64(b.N)/started.Seconds(), "starts/s")
}

// BenchmarkExpress: synchronous EXPRESS executions of five Pass and Choice states.
func BenchmarkExpress(b *testing.B) { telling(b, express) }

func express(b *testing.B, tel telemetry.Providers) {
	w := newWorld(b)
	w.tel = tel
	r := w.start("a")
	if status, answer := r.request(http.MethodPut, "/state-machines/m", map[string]any{"type": "EXPRESS", "definition": json.RawMessage(`{"StartAt": "A", "States": {
		"A": {"Type": "Pass", "Parameters": {"n.$": "$.n", "m": 1}, "Next": "B"}, "B": {"Type": "Choice", "Choices": [{"Variable": "$.n", "NumericGreaterThan": 5, "Next": "C"}], "Default": "C"},
		"C": {"Type": "Pass", "Result": {"a": 1}, "ResultPath": "$.c", "Next": "D"}, "D": {"Type": "Choice", "Choices": [{"Variable": "$.m", "NumericEquals": 1, "Next": "E"}], "Default": "E"},
		"E": {"Type": "Pass", "End": true}}}`)}); status != http.StatusOK {
		b.Fatal(status, answer)
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	b.ResetTimer()
	report := processorTime(b)
	defer report()
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range 64 {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if a := startOne(b, client, r.api.URL+"/state-machines/m/executions", `{"input":{"n":7}}`, "wait=5"); a["status"] != "SUCCEEDED" {
					b.Error(a)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "executions/s")
}
