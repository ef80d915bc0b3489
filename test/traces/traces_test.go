package traces_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/dispatcher"
	"github.com/weir-dev/weir/internal/app/gateway"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/functions/orderwriter"
	"github.com/weir-dev/weir/internal/localdb"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/test/traces"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOneTraceEach plays the stories with all parts in this process, each with telemetry of its own, as if it were alone:
// NATS, gateway, dispatcher, order-writer with its database, and the job's function.
func TestOneTraceEach(t *testing.T) {
	h := newHouse(t)
	writerURL, db := h.orderWriter()
	worker, workerURL := traces.StartWorker(t, "127.0.0.1", h.client)
	h.publish(traces.Manifests(traces.Parts{Writer: "order-writer", Worker: workerURL, Collector: h.collector.URL, Heartbeat: heartbeat}), writerURL)
	gatewayURL := h.stages()
	traces.Play(t, traces.System{
		Gateway: gatewayURL, DB: db, Worker: worker, Collector: h.collector, Redrive: h.redrive, Patience: testkit.Patience,
	})
}

// heartbeat is long beside exportDelay: what it is longer is only waited for.
const (
	heartbeat   = 5 * time.Second
	exportDelay = 50 * time.Millisecond
)

// house is what the parts share.
type house struct {
	t         *testing.T
	nats      string
	conn      *stream.Conn
	client    *http.Client
	collector *traces.Collector
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, client: &http.Client{Transport: &http.Transport{}}, collector: traces.StartCollector(t, "127.0.0.1")}
	t.Cleanup(h.client.CloseIdleConnections)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	// By OpenTelemetry's own variables, as in a cluster. A share of none: only what the client has sampled is traced.
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": h.collector.URL, "OTEL_METRICS_EXPORTER": "none", "OTEL_BSP_SCHEDULE_DELAY": fmt.Sprint(exportDelay.Milliseconds()),
		"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0",
	} {
		t.Setenv(name, value)
	}
	server := testkit.NATS(t)
	h.nats, h.conn = server.URL(), testkit.Conn(t, server)
	return h
}

// run runs a part until the test's end.
func (h *house) run(name string, part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { err = part(ctx) })
	h.t.Cleanup(func() {
		cancel()
		if wg.Wait(); err != nil {
			h.t.Errorf("%s: %v", name, err)
		}
	})
}

// telemetry is a part's own, as its main sets it up.
func (h *house) telemetry(service string) *telemetry.Telemetry {
	h.t.Helper()
	tel, err := telemetry.Setup(h.t.Context(), telemetry.Config{Service: service, Instance: "a", Getenv: os.Getenv, Log: testkit.Log(h.t)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(tel.Close)
	return tel
}

// port is free at the moment.
func (h *house) port() int {
	h.t.Helper()
	port, err := localdb.FreePort(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return port
}

// orderWriter serves the sample function with its database. It has telemetry as function.Serve makes it: that sets
// OpenTelemetry's globals too, which are the other function's.
func (h *house) orderWriter() (url string, pool *pgxpool.Pool) {
	h.t.Helper()
	db, err := localdb.Start(h.t.Context(), localdb.Config{Fast: true})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := db.Stop(context.WithoutCancel(h.t.Context())); err != nil {
			h.t.Error(err)
		}
	})
	dir := h.t.TempDir()
	env := map[string]string{"DATABASE_URL_FILE": filepath.Join(dir, "url"), "MIGRATE_DATABASE_URL_FILE": filepath.Join(dir, "direct-url")}
	err = errors.Join(os.WriteFile(env["DATABASE_URL_FILE"], []byte(db.PoolURL()), 0o600), os.WriteFile(env["MIGRATE_DATABASE_URL_FILE"], []byte(db.DirectURL()), 0o600))
	if err != nil {
		h.t.Fatal(err)
	}
	cfg, err := orderwriter.ConfigFromEnv(func(name string) string { return env[name] })
	if err != nil {
		h.t.Fatal(err)
	}
	tel := h.telemetry("traced-writer")
	cfg.Log, cfg.Database.Telemetry = testkit.Log(h.t), tel.Providers
	f, err := orderwriter.New(h.t.Context(), cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(f.Close)
	srv := httptest.NewServer(function.Observe(f, "traced-writer", function.Telemetry{Meters: tel.Meters, Traces: tel.Traces}))
	h.t.Cleanup(srv.Close)
	pool, err = pgxpool.New(h.t.Context(), db.DirectURL())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(pool.Close)
	return srv.URL, pool
}

// publish does what the controller does: it makes the queues and publishes the catalog.
func (h *house) publish(manifests, writer string) {
	h.t.Helper()
	dir := h.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "story.yaml"), []byte(manifests), 0o600); err != nil {
		h.t.Fatal(err)
	}
	bundle, err := manifest.LoadDir(dir, manifest.Options{FunctionURL: func(catalog.Key) string { return writer }})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), testkit.Patience)
	defer cancel()
	errs := []error{h.conn.EnsureLeases(ctx, 1), h.conn.EnsureKeys(ctx, 1, time.Now())}
	for _, q := range bundle.Catalog.Queues {
		errs = append(errs, h.conn.EnsureQueue(ctx, q, 1))
	}
	if err := errors.Join(append(errs, h.conn.PublishCatalog(ctx, bundle.Catalog, 1, nil))...); err != nil {
		h.t.Fatal(err)
	}
}

// stages runs gateway and dispatcher as their mains do, and returns the gateway's URL once it is ready.
func (h *house) stages() string {
	h.t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", h.port())
	probes := fmt.Sprintf("127.0.0.1:%d", h.port())
	h.stage("gateway", gateway.PingInterval, gateway.Run, map[string]string{"WEIR_LISTEN": listen, "WEIR_HEALTH_LISTEN": probes})
	h.stage("dispatcher", dispatcher.PingInterval, dispatcher.Run, map[string]string{"WEIR_HEALTH_LISTEN": "off", "WEIR_CALLBACK_URL": "http://" + listen, "WEIR_DRAIN_TIMEOUT": "1s"})
	testkit.Eventually(h.t, "the gateway is ready", func() bool {
		req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://"+probes+"/readyz", http.NoBody)
		if err != nil {
			h.t.Fatal(err)
		}
		resp, err := h.client.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return "http://" + listen
}

func (h *house) stage(name string, ping time.Duration, run func(context.Context, app.Config, *stream.Conn) error, env map[string]string) {
	h.t.Helper()
	env["WEIR_NATS_URL"], env["WEIR_INSTANCE"] = h.nats, name+"-0"
	cfg, err := app.FromEnv(func(name string) string { return env[name] })
	if err != nil {
		h.t.Fatal(err)
	}
	cfg.Log, cfg.Telemetry = testkit.Log(h.t).With("service", name), h.telemetry("weir-"+name)
	nats := cfg.NATS.Stream("weir-"+name, cfg.Log)
	nats.PingInterval, nats.Telemetry = ping, cfg.Telemetry.Providers
	conn, err := stream.Connect(nats)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(conn.Close)
	h.run(name, func(ctx context.Context) error { return run(ctx, cfg, conn) })
}

// redrive does what `weir dlq redrive` does.
func (h *house) redrive(queue string) (err error) {
	tel, err := telemetry.Setup(h.t.Context(), telemetry.Config{Service: "weir-cli", Instance: "a", Getenv: os.Getenv, Log: testkit.Log(h.t)})
	if err != nil {
		return err
	}
	defer tel.Close() // after the connection: it exports the spans
	conn, err := stream.Connect(stream.Config{URL: h.nats, Name: "weir-dlq", Telemetry: tel.Providers, Log: testkit.Log(h.t)})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.WaitUpFor(h.t.Context(), testkit.Patience); err != nil {
		return err
	}
	moved := 0
	err = conn.Redrive(h.t.Context(), catalog.Key{Namespace: "default", Name: queue}, 0, func(n int) { moved = n })
	if err == nil && moved != 1 {
		err = fmt.Errorf("%d dead letters were moved", moved)
	}
	return err
}
