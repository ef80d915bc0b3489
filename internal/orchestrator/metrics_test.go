package orchestrator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

func measuring(t testing.TB) (telemetry.Providers, *sdkmetric.ManualReader) {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	t.Cleanup(func() { _ = meters.Shutdown(context.Background()) })
	return telemetry.Providers{Meters: meters}, reader
}

// TestMetricsOfKnownTraffic has each outcome once, and each number of docs/metrics.md that follows from it.
func TestMetricsOfKnownTraffic(t *testing.T) {
	w := newWorld(t)
	var reader *sdkmetric.ManualReader
	w.tel, reader = measuring(t)
	var throttled, broken atomic.Bool
	broken.Store(true)
	w.answers(func(function string, _ []byte) (int, string) {
		switch {
		case function == "later" && !throttled.Swap(true):
			return http.StatusTooManyRequests, ""
		case function == "broken" && broken.Load():
			return http.StatusInternalServerError, ""
		}
		return http.StatusOK, `1`
	})
	r := w.start("a")
	r.put("good", `{"StartAt": "T", "States": {
		"T": {"Type": "Task", "Resource": "later", "Next": "W"}, "W": {"Type": "Wait", "Seconds": 1, "Next": "U"}, "U": {"Type": "Task", "Resource": "f", "End": true}}}`)
	r.put("bad", `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "broken", "End": true}}}`)
	r.put("token", `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
		"Parameters": {"FunctionName": "f", "Payload": {"token.$": "$$.Task.Token"}}, "End": true}}}`)
	for name, definition := range map[string]string{
		"quick": `{"StartAt": "P", "States": {"P": {"Type": "Pass", "End": true}}}`,
		"long":  `{"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 60, "End": true}}}`,
	} {
		if status, answer := r.request(http.MethodPut, "/state-machines/"+name, map[string]any{"type": "EXPRESS", "definition": json.RawMessage(definition)}); status != http.StatusOK {
			t.Fatal(status, answer)
		}
	}
	r.end(r.begin("good", "x", `{}`))
	bad := r.begin("bad", "x", `{}`)
	r.end(bad)
	broken.Store(false)
	if status, answer := r.request(http.MethodPost, "/executions/"+bad+"/redrive", nil); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	if got := r.end(bad); got != "1" {
		t.Fatal(got)
	}
	r.put("never", `{"StartAt": "F", "States": {"F": {"Type": "Fail"}}}`)
	never := r.begin("never", "x", `{}`)
	if status, answer := r.request(http.MethodPost, "/executions/"+never+"/redrive", nil); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	token := r.begin("token", "x", `{}`)
	testkit.Eventually(t, "it waits for a report", func() bool { return testkit.Series(t, reader)["weir.executions.waiting{}"] == 1 })
	waiting := testkit.Series(t, reader)
	if status, answer := r.request(http.MethodPost, "/executions/"+token+"/stop", nil); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	r.end(r.begin("quick", "x", `{}`))
	for machine, wait := range map[string]int{"quick": 5, "long": 1} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.api.URL+"/state-machines/"+machine+"/executions", strings.NewReader(`{}`))
		req.Header.Set("Prefer", fmt.Sprint("wait=", wait))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()

	series := func(name string, attributes ...string) string {
		slices.Sort(attributes)
		return name + "{" + strings.Join(attributes, ",") + "}"
	}
	of := func(name, machine string, attributes ...string) string {
		return series(name, append(attributes, "weir.state_machine=default/"+machine)...)
	}
	ended := func(name, machine, kind, status string) string {
		return of(name, machine, "weir.execution.type="+kind, "weir.execution.status="+status)
	}
	task := func(machine, resource, outcome string) string {
		return of("weir.tasks.attempts", machine, "weir.resource="+resource, "weir.outcome="+outcome)
	}
	took := func(resource, outcome string) string {
		return series("weir.tasks.duration", "weir.resource="+resource, "weir.outcome="+outcome)
	}
	const standard, express = "weir.execution.type=standard", "weir.execution.type=express"
	const invoke = "lambda:invoke"
	want := map[string]float64{
		of("weir.executions.started", "good", standard):                    1,
		of("weir.executions.started", "bad", standard):                     1,
		of("weir.executions.started", "token", standard):                   1,
		of("weir.executions.started", "quick", express):                    2,
		of("weir.executions.started", "long", express):                     1,
		of("weir.executions.started", "never", standard):                   1,
		of("weir.executions.redriven", "never", standard):                  1,
		ended("weir.executions.ended", "never", "standard", "failed"):      2,
		ended("weir.executions.duration", "never", "standard", "failed"):   2,
		of("weir.executions.redriven", "bad", standard):                    1,
		ended("weir.executions.ended", "good", "standard", "succeeded"):    1,
		ended("weir.executions.ended", "bad", "standard", "failed"):        1,
		ended("weir.executions.ended", "bad", "standard", "succeeded"):     1,
		ended("weir.executions.ended", "token", "standard", "aborted"):     1,
		ended("weir.executions.ended", "quick", "express", "succeeded"):    2,
		ended("weir.executions.ended", "long", "express", "timed_out"):     1,
		ended("weir.executions.duration", "good", "standard", "succeeded"): 1,
		ended("weir.executions.duration", "bad", "standard", "failed"):     1,
		ended("weir.executions.duration", "bad", "standard", "succeeded"):  1,
		ended("weir.executions.duration", "token", "standard", "aborted"):  1,
		ended("weir.executions.duration", "quick", "express", "succeeded"): 2,
		ended("weir.executions.duration", "long", "express", "timed_out"):  1,
		"weir.executions.events{}":                                         9,  // good 3; bad 3; never 1; token 2
		"weir.executions.write.duration{}":                                 14, // starts 5, with an end in one; the events
		"weir.executions.wake.delay{}":                                     1,
		"weir.executions.active{}":                                         0,
		"weir.executions.waiting{}":                                        0,
		task("good", "function", "succeeded"):                              2,
		task("bad", "function", "failed"):                                  1,
		task("bad", "function", "succeeded"):                               1,
		task("token", invoke, "submitted"):                                 1,
		took("function", "succeeded"):                                      3,
		took("function", "failed"):                                         1,
		took(invoke, "submitted"):                                          1,
		of("weir.tasks.throttled", "good", "weir.resource=function"):       1,
		"weir.tasks.in_flight{}":                                           0,
		"weir.tasks.calls{}":                                               0,
		"weir.partitions.owned{}":                                          8,
		"weir.partitions.recovery.duration{}":                              8,
	}
	var got map[string]float64
	testkit.Eventually(t, "nothing is under way", func() bool {
		got = testkit.Series(t, reader)
		return got["weir.executions.active{}"]+got["weir.executions.waiting{}"]+got["weir.tasks.in_flight{}"] == 0
	})
	for k, v := range want {
		if there, ok := got[k]; !ok || there != v {
			t.Errorf("%s: %v, %t, want %v", k, there, ok, v)
		}
		delete(got, k)
	}
	for k := range got {
		if !strings.Contains(k, ".sum{") && !strings.HasPrefix(k, "http.") {
			t.Errorf("besides, there is %s: %v", k, got[k])
		}
	}
	if waiting["weir.executions.active{}"] != 0 || waiting["weir.tasks.in_flight{}"] != 0 {
		t.Errorf("while one waits for a report: %v", waiting)
	}
	if s := got[strings.Replace(ended("weir.executions.duration", "good", "standard", "succeeded"), "{", ".sum{", 1)]; s < 1 || s > 60 {
		t.Errorf("good took %v s", s)
	}
	r.stop()
	if got = testkit.Series(t, reader); got["weir.partitions.owned{}"] != 0 || got["weir.executions.events{}"] != 9 {
		t.Errorf("after its end, for the last export: %v", got)
	}
}
