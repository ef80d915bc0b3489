package emf

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/pflag"
	"go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const document = `{"_aws":{"Timestamp":1574109732004,"LogGroupName":"Foo","CloudWatchMetrics":[{"Namespace":"MyApp","Dimensions":[["Operation"]],"Metrics":[{"Name":"ProcessingLatency","Unit":"Milliseconds","StorageResolution":60}]}]},"Operation":"Aggregator","ProcessingLatency":100}`

func config() Config { return Config{LogFormat: "text", LogLevel: "info"} }

// otlp is what takes pushed metrics; they are one text for each series.
type otlp struct {
	*httptest.Server
	mu    sync.Mutex
	last  []string
	count uint64 // of the last series
}

func newOTLP(t *testing.T) *otlp {
	t.Helper()
	o := &otlp{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request v1.ExportMetricsServiceRequest
		if err = errors.Join(err, proto.Unmarshal(body, &request)); err != nil {
			t.Error(err)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.last = nil
		for _, rm := range request.ResourceMetrics {
			for _, sm := range rm.ScopeMetrics {
				for _, m := range sm.Metrics {
					for _, p := range m.GetExponentialHistogram().GetDataPoints() {
						series := []string{sm.Scope.Name, m.Name, m.Unit}
						for _, a := range p.Attributes {
							series = append(series, a.Key+"="+a.Value.GetStringValue())
						}
						o.last = append(o.last, strings.Join(series, " "))
						if p.GetCount() == 0 || p.GetSum() != 100*float64(p.GetCount()) || p.GetMin() != 100 || p.GetMax() != 100 {
							t.Errorf("%v", p)
						}
						o.count = p.GetCount()
					}
				}
			}
		}
	}))
	t.Cleanup(o.Close)
	return o
}

// TestPipe: the input is passed on as it is, and what it says is pushed before the end.
func TestPipe(t *testing.T) {
	collector := newOTLP(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	input := "plain\r\n" + document + "\n\x00\xff\n\n" + document // without an end
	var out, log bytes.Buffer
	if err := Run(t.Context(), config(), strings.NewReader(input), &out, &log); err != nil {
		t.Fatal(err)
	}
	if out.String() != input {
		t.Errorf("passed on: %q", out.String())
	}
	if len(collector.last) != 1 || collector.last[0] != "MyApp ProcessingLatency ms Operation=Aggregator" || collector.count != 2 || log.Len() > 0 {
		t.Errorf("%q %s", collector.last, log.String())
	}
}

// TestNobodyThere: metrics that nobody takes are an error at the end, and what is passed on is all there.
func TestNobodyThere(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+free(t))
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
	var out, log bytes.Buffer
	err := Run(t.Context(), config(), strings.NewReader(document), &out, &log)
	if err == nil || !strings.Contains(err.Error(), "the last metrics were not exported") || out.String() != document {
		t.Errorf("%v %q", err, out.String())
	}
}

func free(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func get(t *testing.T, url string) (string, bool) {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", false
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err == nil && resp.StatusCode == http.StatusOK
}

// TestPage: with --listen alone nothing is pushed, and the page shows what was printed while the input goes on. After
// SIGTERM the input may still end by itself.
func TestPage(t *testing.T) {
	address := free(t)
	in, function := io.Pipe()
	cfg := config()
	cfg.Listen = address
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var out, log bytes.Buffer
	go func() { ended <- Run(ctx, cfg, in, &out, &log) }()
	write := func(text string) {
		t.Helper()
		if _, err := io.WriteString(function, text); err != nil {
			t.Fatal(err)
		}
	}
	write(document + "\n")
	testkit.Eventually(t, "the page shows the metric", func() bool {
		page, ok := get(t, "http://"+address+"/metrics")
		return ok && strings.Contains(page, `ProcessingLatency_milliseconds_sum{Operation="Aggregator",otel_scope_name="MyApp"`)
	})
	if _, ok := get(t, "http://"+address+"/healthz"); !ok {
		t.Error("/healthz does not answer")
	}
	cancel()
	write(document + "\n")
	if err := function.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), document); got != 2 || log.Len() > 0 {
		t.Errorf("%d lines were passed on; %s", got, log.String())
	}
}

// TestPods: the collector's mode, with both ways out.
func TestPods(t *testing.T) {
	collector := newOTLP(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	address := free(t)
	cfg := config()
	cfg.Listen, cfg.Pods = address, t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var log bytes.Buffer
	go func() { ended <- Run(ctx, cfg, strings.NewReader(""), io.Discard, &log) }()
	testkit.Eventually(t, "it runs", func() bool {
		_, ok := get(t, "http://"+address+"/healthz")
		return ok
	})
	dir := filepath.Join(cfg.Pods, "shop_order-writer-00001-deployment-6d4f5b7c9d-x2x4z_0a1b", "user-container")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the page shows the metric", func() bool { // what is there when it begins doesn't count
		line := "2026-11-28T00:00:00.000000000Z stdout F " + strings.Replace(document, "MyApp", "Pods", 1) + "\n"
		f, err := os.OpenFile(filepath.Join(dir, "0.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		page, ok := get(t, "http://"+address+"/metrics")
		return ok && strings.Contains(page, `{Operation="Aggregator",faas_name="order-writer",k8s_namespace_name="shop",otel_scope_name="Pods"`)
	})
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	want := "Pods ProcessingLatency ms Operation=Aggregator faas.name=order-writer k8s.namespace.name=shop"
	if log.Len() > 0 || len(collector.last) != 1 || collector.last[0] != want {
		t.Errorf("%q, want %s; %s", collector.last, want, log.String())
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"x"}, "--pods FOLDER"},
		{[]string{"--namespace", "shop"}, "add --pods"},
		{[]string{"--pods", "/nowhere"}, "the folder of the pods' logs"},
		{[]string{"--listen", "nowhere"}, "HOST:PORT"},
		{[]string{"--log-level", "loud"}, "use debug"},
	} {
		var cfg Config
		flags := pflag.NewFlagSet("emf", pflag.ContinueOnError)
		cfg.Flags(flags)
		err := flags.Parse(c.args)
		if err == nil {
			err = cfg.Complete(flags.Args())
		}
		if err == nil {
			t.Setenv("OTEL_METRICS_EXPORTER", "none")
			err = Run(t.Context(), cfg, strings.NewReader(""), io.Discard, io.Discard)
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %s", c.args, err, c.says)
		}
	}
	t.Setenv("OTEL_METRICS_EXPORTER", "carrier-pigeon")
	if err := Run(t.Context(), config(), strings.NewReader(""), io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "OTEL_METRICS_EXPORTER") {
		t.Error(err)
	}
}
