package testkit

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weir-dev/weir/internal/stream"
)

// Cluster is three NATS servers, each with file storage in a folder of the test's own.
type Cluster struct {
	t       testing.TB
	opts    []server.Options
	servers []*server.Server
}

// NATSCluster starts a cluster, which ends with the test. It syncs every write, as the chart's does.
func NATSCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{t: t, servers: make([]*server.Server, 3)}
	var ports []int
	var routes []string
	var held []net.Listener
	for range c.servers {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		routes = append(routes, "nats-route://"+l.Addr().String())
	}
	for _, l := range held { // all at once, so that no two are the same
		_ = l.Close()
	}
	dir := t.TempDir()
	for i, port := range ports {
		name := fmt.Sprintf("nats-%d", i)
		c.opts = append(c.opts, server.Options{
			ServerName: name, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: filepath.Join(dir, name), SyncAlways: true, JetStreamMaxStore: 1 << 40, JetStreamMaxMemory: 64 << 20,
			Cluster: server.ClusterOpts{Name: "weir", Host: "127.0.0.1", Port: port, NoAdvertise: true}, Routes: server.RoutesFromStr(strings.Join(routes, ",")),
		})
	}
	t.Cleanup(c.Stop)
	c.Start()
	return c
}

// Start starts the servers, again after a Stop, and waits until they are a cluster.
func (c *Cluster) Start() {
	c.t.Helper()
	for i := range c.servers {
		c.StartOne(i)
	}
	Eventually(c.t, "the cluster has JetStream", func() bool {
		return !slices.ContainsFunc(c.servers, func(s *server.Server) bool { return s.Healthz(nil).Status != "ok" })
	})
}

// StartOne starts a server.
func (c *Cluster) StartOne(i int) {
	c.t.Helper()
	srv, err := server.NewServer(&c.opts[i])
	if err != nil {
		c.t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(Patience) {
		c.t.Fatal(c.opts[i].ServerName, "is not ready")
	}
	c.opts[i].Port = srv.Addr().(*net.TCPAddr).Port // again at the same address
	c.servers[i] = srv
}

// Stop ends all servers; what they hold stays.
func (c *Cluster) Stop() {
	for i := range c.servers {
		c.StopOne(i)
	}
}

// StopOne ends a server.
func (c *Cluster) StopOne(i int) {
	if srv := c.servers[i]; srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		c.servers[i] = nil
	}
}

// Folder is where a server keeps what it holds.
func (c *Cluster) Folder(i int) string { return c.opts[i].StoreDir }

// Filled reports whether server i is healthy and has what the others have. Healthz alone says ok of an empty server until it has
// learned which streams it should have.
func (c *Cluster) Filled(i int) bool {
	c.t.Helper()
	if c.servers[i].Healthz(nil).Status != "ok" {
		return false
	}
	has := c.ends(i)
	for other, srv := range c.servers {
		if srv != nil && !maps.Equal(has, c.ends(other)) {
			return false
		}
	}
	return true
}

// ends are the first and last sequences of the streams that server i has itself.
func (c *Cluster) ends(i int) map[string][2]uint64 {
	c.t.Helper()
	info, err := c.servers[i].Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	if err != nil {
		c.t.Fatal(err)
	}
	ends := map[string][2]uint64{}
	for _, account := range info.AccountDetails {
		for _, s := range account.Streams {
			ends[s.Name] = [2]uint64{s.State.FirstSeq, s.State.LastSeq}
		}
	}
	return ends
}

// URL is where clients reach the cluster.
func (c *Cluster) URL() string {
	var urls []string
	for i := range c.opts {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", c.opts[i].Port))
	}
	return strings.Join(urls, ",")
}

// Conn connects to the cluster until the test ends.
func (c *Cluster) Conn() *stream.Conn {
	c.t.Helper()
	conn, err := stream.Connect(stream.Config{URL: c.URL(), Name: c.t.Name(), Log: Log(c.t)})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(conn.Close)
	Eventually(c.t, "the connection is up", func() bool { return conn.Ready() == nil })
	return conn
}
