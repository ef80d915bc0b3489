package podlogs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/emf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a folder of pods' logs and a follower of it.
type node struct {
	*Follower
	t      *testing.T
	dir    string
	reader *sdkmetric.ManualReader
	log    strings.Builder
}

func newNode(t *testing.T, change func(*Config)) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), reader: sdkmetric.NewManualReader()}
	log := slog.New(slog.NewTextHandler(&n.log, nil))
	recorder, err := emf.NewRecorder(emf.Config{Providers: []metric.MeterProvider{sdkmetric.NewMeterProvider(sdkmetric.WithReader(n.reader))}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: n.dir, Log: log, Source: func(c Container) *emf.Source {
		return recorder.Source(attribute.String("pod", c.Namespace+"/"+c.Pod+"/"+c.Name))
	}}
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	n.Follower = New(cfg)
	t.Cleanup(n.close)
	return n
}

func (n *node) path(pod, container, file string) string {
	return filepath.Join(n.dir, pod, container, file)
}

// print appends to a file, as a container runtime does.
func (n *node) print(path, text string) {
	n.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		n.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		n.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		n.t.Fatal(err)
	}
}

// sum is that of metric v of a container, after another look at the files.
func (n *node) sum(of string) float64 {
	n.t.Helper()
	n.poll(n.t.Context())
	var rm metricdata.ResourceMetrics
	if err := n.reader.Collect(n.t.Context(), &rm); err != nil {
		n.t.Fatal(err)
	}
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			if data, ok := m.Data.(metricdata.Histogram[float64]); ok {
				for _, p := range data.DataPoints {
					if v, _ := p.Attributes.Value("pod"); v.AsString() == of {
						return p.Sum
					}
				}
			}
		}
	}
	return 0
}

func (n *node) want(of string, want float64) {
	n.t.Helper()
	if got := n.sum(of); got != want {
		n.t.Errorf("%s: %v, want %v\n%s", of, got, want, n.log.String())
	}
}

func document(v int) string {
	return fmt.Sprintf(`{"_aws":{"CloudWatchMetrics":[{"Namespace":"N","Dimensions":[[]],"Metrics":[{"Name":"v"}]}]},"v":%d}`, v)
}

const stamp = "2026-11-28T00:00:00.000000000Z "

func said(v int) string { return stamp + "stdout F " + document(v) + "\n" }

const (
	orders = "shop_order-writer-00001-deployment-6d4f5b7c9d-x2x4z_0a1b"
	pod    = "shop/order-writer-00001-deployment-6d4f5b7c9d-x2x4z/user-container"
)

// TestFromTheEnd: what was there is not read, what comes is, and a container that starts later is read from its beginning.
func TestFromTheEnd(t *testing.T) {
	n := newNode(t, nil)
	p := n.path(orders, "user-container", "0.log")
	n.print(p, said(1)+strings.TrimSuffix(said(2), "\n"))
	n.want(pod, 0)
	n.print(p, "\n"+said(4))
	n.want(pod, 4)
	n.want(pod, 4)
	n.print(n.path(orders, "user-container", "1.log"), said(8)) // restarted
	n.print(n.path("other_new_2c3d", "main", "0.log"), said(16))
	n.want(pod, 12)
	n.want("other/new/main", 16)
}

func TestCRI(t *testing.T) {
	n := newNode(t, nil)
	p := n.path(orders, "user-container", "0.log")
	n.want(pod, 0)
	d := document(1)
	n.print(p, stamp+"stdout P "+d[:10]+"\n"+ // a long line, and the other stream in between
		stamp+"stderr P "+d[:20]+"\n"+
		stamp+"stdout P "+d[10:40]+"\n"+
		stamp+"stderr F "+d[20:]+"\n"+
		stamp+"stdout F:x "+d[40:]+"\n"+
		"\n"+stamp+"stdout F\n"+stamp+"stdout F \n"+stamp+"stdout X "+d+"\n"+stamp+"stdin F "+d+"\n"+ // nothing
		d+"\n"+strings.Repeat("x", 300)+" stdout F "+d+"\n"+ // no lines of a runtime
		said(1))
	n.want(pod, 3)
	for _, c := range said(10) { // as slowly as it can come
		n.print(p, string(c))
		n.poll(t.Context())
	}
	n.want(pod, 13)
	n.print(p, strings.Repeat(stamp+"stdout F plain text that is no metric\n", 10_000)+said(100)) // more than a buffer
	n.want(pod, 113)
}

// TestRotation: a file that is renamed is read to its end, whatever is written to it before there is the next one.
func TestRotation(t *testing.T) {
	n := newNode(t, nil)
	p := n.path(orders, "user-container", "0.log")
	n.print(p, said(1))
	n.want(pod, 0)
	n.print(p, said(2))
	rotated := p + ".20261128-000000"
	if err := os.Rename(p, rotated); err != nil {
		t.Fatal(err)
	}
	n.want(pod, 2)
	n.print(rotated, said(4)+stamp+"stdout P "+document(8)[:30]+"\n")
	n.want(pod, 6)
	n.print(rotated, said(0)[:20]) // the runtime was stopped within a line
	n.print(p, stamp+"stdout F "+document(8)[30:]+"\n"+said(16))
	n.want(pod, 30)
	if err := os.Remove(rotated); err != nil {
		t.Fatal(err)
	}
	n.print(p, said(32))
	n.want(pod, 62)
	if err := os.Truncate(p, 0); err != nil {
		t.Fatal(err)
	}
	n.want(pod, 62)
	n.print(p, said(64))
	n.want(pod, 126)
}

// TestVanishes: a pod that goes is read to its end, and its file closed.
func TestVanishes(t *testing.T) {
	n := newNode(t, nil)
	n.want(pod, 0)
	p := n.path(orders, "user-container", "0.log")
	n.print(p, said(1))
	n.want(pod, 1)
	n.print(p, said(2)+strings.TrimSuffix(said(4), "\n"))
	if err := os.RemoveAll(filepath.Join(n.dir, orders)); err != nil {
		t.Fatal(err)
	}
	n.want(pod, 7)
	if len(n.files) != 0 {
		t.Errorf("%d files are open", len(n.files))
	}
}

func TestSelection(t *testing.T) {
	n := newNode(t, func(c *Config) {
		c.Namespaces, c.Pods, c.Containers = []string{"shop", "billing"}, []string{"order-*", "mail"}, []string{"user-container"}
	})
	n.want(pod, 0)
	for _, of := range []string{"shop_order-a_u", "billing_mail_u", "shop_mailer_u", "other_order-a_u", "noise"} {
		for _, container := range []string{"user-container", "queue-proxy"} {
			n.print(n.path(of, container, "0.log"), said(1))
			n.print(n.path(of, container, "0.log.20261128-000000"), said(1))
		}
	}
	for of, want := range map[string]float64{
		"shop/order-a/user-container": 1, "billing/mail/user-container": 1, "shop/order-a/queue-proxy": 0, "shop/mailer/user-container": 0, "other/order-a/user-container": 0,
	} {
		n.want(of, want)
	}
	if len(n.files) != 2 {
		t.Errorf("%d files are open", len(n.files))
	}
}

// TestOddFiles: a link and a pipe are not read, and said once.
func TestOddFiles(t *testing.T) {
	n := newNode(t, nil)
	n.want(pod, 0)
	secret := filepath.Join(t.TempDir(), "secret")
	n.print(secret, said(1))
	if err := os.MkdirAll(filepath.Join(n.dir, orders, "user-container"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, n.path(orders, "user-container", "0.log")); err != nil {
		t.Fatal(err)
	}
	n.want(pod, 0)
	n.want(pod, 0)
	if got := strings.Count(n.log.String(), "can't be read"); got != 1 {
		t.Errorf("said %d times\n%s", got, n.log.String())
	}
}

// TestManyFiles: what is too much is not open, is said once, and of files that were there at first nothing old is read.
func TestManyFiles(t *testing.T) {
	n := newNode(t, func(c *Config) {
		all := c.Source(Container{"all", "of", "them"})
		c.Source = func(Container) *emf.Source { return all }
	})
	of := func(i int) string { return n.path(fmt.Sprintf("shop_p%d_u", i), "c", "0.log") }
	for i := range maxFiles + 3 {
		n.print(of(i), said(1))
	}
	n.poll(t.Context())
	n.poll(t.Context())
	if len(n.files) != maxFiles || strings.Count(n.log.String(), "more containers") != 1 {
		t.Errorf("%d files are open; %s", len(n.files), n.log.String())
	}
	var waiting []int
	for i := range maxFiles + 3 {
		if n.files[of(i)] == nil {
			waiting = append(waiting, i)
		} else if err := os.RemoveAll(filepath.Dir(filepath.Dir(of(i)))); err != nil {
			t.Fatal(err)
		}
	}
	n.poll(t.Context()) // closes
	n.poll(t.Context()) // opens
	for turn, i := range waiting {
		n.print(of(i), said(2))
		n.want("all/of/them", float64(2*turn+2))
	}
}

// TestRun: it ends when it is told to, after a last look.
func TestRun(t *testing.T) {
	n := newNode(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- n.Run(ctx, func() { close(ready) }) }()
	<-ready
	n.print(n.path(orders, "user-container", "0.log"), said(1))
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(n.files) != 0 {
		t.Errorf("%d files are open", len(n.files))
	}
	n.begun = false // what comes from now on isn't looked at: the sum is what Run has read
	n.want(pod, 1)
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		says string
	}{
		{Config{Dir: filepath.Join(t.TempDir(), "none")}, "the folder of the pods' logs"},
		{Config{Dir: "podlogs_test.go"}, "/var/log/pods"},
		{Config{Dir: t.TempDir(), Pods: []string{"["}}, "order-*"},
	} {
		if err := c.cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %s", err, c.says)
		}
	}
}

func TestWorkload(t *testing.T) {
	for pod, want := range map[string]string{
		"order-writer-00001-deployment-6d4f5b7c9d-x2x4z": "order-writer",
		"order-writer-blue-deployment-6d4f5b7c9d-x2x4z":  "order-writer-blue", // a revision with a name of its own
		"api-6d4f5b7c9d-x2x4z":                           "api",
		"postgres-0":                                     "postgres",
		"fluent-x2x4z":                                   "fluent",
		"report-29384756-x2x4z":                          "report",
		"migrate-2-x2x4z":                                "migrate-2",
		"debug":                                          "debug",
		"curl-static":                                    "curl-static",
		"-x2x4z":                                         "-x2x4z",
	} {
		if got := Workload(pod); got != want {
			t.Errorf("%s is of %s, want %s", pod, got, want)
		}
	}
}

// BenchmarkPods reads lines as a container runtime writes them.
func BenchmarkPods(b *testing.B) {
	recorder, err := emf.NewRecorder(emf.Config{
		Providers: []metric.MeterProvider{sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	for name, line := range map[string]string{"emf": said(1), "plain": stamp + "stdout F " + strings.Repeat("plain text ", 12) + "\n"} {
		b.Run(name, func(b *testing.B) {
			r := newCRIReader(recorder.Source())
			chunk := []byte(strings.Repeat(line, 64))
			b.SetBytes(int64(len(chunk)))
			n := 0
			for b.Loop() {
				r.read(chunk)
				n += 64
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
