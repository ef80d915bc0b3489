package chaos_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// cluster is the services as a cluster runs them: each a process, a NATS server of its own, the catalog in its bucket.
type cluster struct {
	t     testing.TB
	nats  natsServer
	conn  *stream.Conn // the test's own
	bin   string       // folder of the binaries
	addr  string       // of the gateway
	queue catalog.Key
}

// natsServer is a NATS server on a fixed port that keeps its data and token over restarts.
type natsServer struct {
	t   testing.TB
	cfg localnats.Config
}

func newNATSServer(t testing.TB) natsServer {
	return natsServer{t: t, cfg: localnats.Config{Dir: t.TempDir(), Port: processes.FreePort(t), Token: localnats.NewToken()}}
}

func (n natsServer) url() string {
	return fmt.Sprintf("nats://%s@127.0.0.1:%d", n.cfg.Token, n.cfg.Port)
}

// start runs the server in the test's process.
func (n natsServer) start() *localnats.Server {
	n.t.Helper()
	return testkit.NATSIn(n.t, n.cfg)
}

// startChild runs the server as a process of its own, which can be made to hang.
func (n natsServer) startChild() *processes.Child {
	n.t.Helper()
	self, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	return processes.Start(n.t, "nats", self, []string{
		natsDir + "=" + n.cfg.Dir, fmt.Sprintf("%s=%d", natsPort, n.cfg.Port), natsToken + "=" + n.cfg.Token,
	})
}

// newCluster publishes the catalog of folder, with order-writer at url, to a NATS server that is running.
func newCluster(t testing.TB, nats natsServer, folder, url string) *cluster {
	t.Helper()
	bundle, err := manifest.LoadDir(folder, manifest.Options{FunctionURL: func(catalog.Key) string { return url }})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := stream.Connect(stream.Config{URL: nats.url(), Name: t.Name(), Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	if err := conn.WaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	if err := conn.EnsureLeases(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := conn.EnsureKeys(ctx, 1, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, q := range bundle.Catalog.Queues {
		if err := conn.EnsureQueue(ctx, q, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.PublishCatalog(ctx, bundle.Catalog, 1, nil); err != nil {
		t.Fatal(err)
	}
	return &cluster{
		t: t, nats: nats, conn: conn, bin: parts.bin, addr: fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t)),
		queue: bundle.Catalog.Queues[0].Key,
	}
}

// gateway starts the gateway and waits until it serves.
func (c *cluster) gateway() *processes.Child {
	c.t.Helper()
	return c.gatewayAt(c.addr, "gateway")
}

func (c *cluster) gatewayAt(addr, instance string, env ...string) *processes.Child {
	c.t.Helper()
	probes := fmt.Sprintf("127.0.0.1:%d", processes.FreePort(c.t))
	g := c.service("gateway", instance, append(env, "WEIR_LISTEN="+addr, "WEIR_HEALTH_LISTEN="+probes)...)
	client := &http.Client{Timeout: 5 * time.Second}
	c.t.Cleanup(client.CloseIdleConnections)
	testkit.Eventually(c.t, instance+" is ready", func() bool {
		resp, err := client.Get("http://" + probes + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return g
}

func (c *cluster) dispatcher(instance string, env ...string) *processes.Child {
	c.t.Helper()
	return c.service("dispatcher", instance, env...)
}

// service starts a service and returns at once.
func (c *cluster) service(name, instance string, env ...string) *processes.Child {
	c.t.Helper()
	return processes.Start(c.t, instance, filepath.Join(c.bin, name), append([]string{
		"WEIR_NATS_URL=" + c.nats.url(), "WEIR_HEALTH_LISTEN=off", "WEIR_INSTANCE=" + instance, "WEIR_LOG_FORMAT=text",
	}, env...))
}

func (c *cluster) status() stream.QueueStatus {
	c.t.Helper()
	s, err := c.conn.Status(c.t.Context(), c.queue)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// settled waits until nothing is left to be delivered and checks that nothing was dead-lettered.
func (c *cluster) settled() {
	c.t.Helper()
	testkit.Eventually(c.t, "the queue is empty", func() bool { return c.status().Empty() })
	if s := c.status(); s.Dead > 0 {
		c.t.Errorf("%d blocks of dead letters", s.Dead)
	}
}
