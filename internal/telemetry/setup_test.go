package telemetry

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/metric"
)

// value is that of a series on the page; 0 if there is none.
func value(t *testing.T, tel *Telemetry, series string) int {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Page().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	found := regexp.MustCompile(`(?m)^` + series + ` (\d+)$`).FindStringSubmatch(w.Body.String())
	if found == nil {
		return 0
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestABackEndThatHangs costs nobody anything: spans end at once, as many wait as may, the others are counted as lost. One that
// refuses what it gets loses that, and it is counted too.
func TestABackEndThatHangs(t *testing.T) {
	var mu sync.Mutex
	hang := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		wait := hang
		mu.Unlock()
		select {
		case <-wait:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusBadRequest)
	}))
	defer backend.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.URL)
	t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
	t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	tel, err := Setup(t.Context(), Config{Service: "test", Instance: "a", Getenv: os.Getenv, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close()
	tracer := tel.Tracer("test")
	const spans = 1000
	for range spans {
		_, span := tracer.Start(t.Context(), "x")
		span.End() // doesn't wait: the test would never end
	}
	lost := value(t, tel, `otel_sdk_processor_span_processed_total\{error_type="queue_full",.*\}`)
	if lost < spans-16-2*8 || lost >= spans {
		t.Errorf("%d of %d spans are counted as lost", lost, spans)
	}
	close(hang)
	if err := tel.Flush(t.Context()); err == nil {
		t.Error("a back-end that refuses is no error")
	}
	if n := value(t, tel, `otel_sdk_exporter_span_exported_total\{error_type="[^"]+",.*\}`); n == 0 || n+lost > spans {
		t.Errorf("%d spans are counted as refused, %d as lost", n, lost)
	}
}

// TestWithoutAnEndpoint: metrics are on the page, nothing is pushed, there are no traces and no second logs.
func TestWithoutAnEndpoint(t *testing.T) {
	tel, err := Setup(t.Context(), Config{Service: "test", Getenv: func(string) string { return "" }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close()
	c, err := tel.Meter("test").Int64Counter("weir.test", metric.WithUnit("{thing}"))
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 3)
	if tel.Tracer("test") != nil || tel.Logs != nil || value(t, tel, `weir_test_total`) != 3 || value(t, tel, `go_goroutine_count`) == 0 {
		t.Error("there are traces, or no metrics")
	}
	off, err := Setup(t.Context(), Config{Getenv: func(name string) string { return map[string]string{"OTEL_SDK_DISABLED": "true"}[name] }, Log: slog.New(slog.DiscardHandler)})
	if err != nil || off.Meter("test") == nil || off.Tracer("test") != nil {
		t.Errorf("disabled: %v", err)
	}
	off.Close()
}
