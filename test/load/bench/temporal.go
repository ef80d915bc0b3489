package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	temporalShards = 64
	temporalConns  = 64 // connections to the database
	temporalLimit  = 1_000_000
	temporalGC     = "GOGC=400"      // its processes collect garbage as seldom as Weir's
	temporalUp     = 2 * time.Minute // until a workflow has run
)

// Temporal's stores: the databases with their schema, of which each measurement has copies.
var temporalStores = []struct{ name, schema string }{ //nolint:gochecknoglobals // a constant table
	{"temporal", "postgresql/v12/temporal"}, {"temporal_visibility", "postgresql/v12/visibility"},
}

// temporal is what Weir's state machines are compared with: Temporal's server and a worker (test/load/peers/temporal), on the
// bench's own PostgreSQL.
type temporal struct{ b *bench }

// startTemporal builds it, starts PostgreSQL for it, and makes the schema. It returns nil if it can't be built: the rest is
// measured then.
func (b *bench) startTemporal(ctx context.Context) (*temporal, error) {
	const server = "go.temporal.io/server/cmd/"
	for _, program := range []struct{ name, path string }{{"temporal-server", server + "server"}, {"temporal-sql-tool", server + "tools/sql"}, {"temporal", "."}} {
		if b.withoutTemporal || !b.buildOther(ctx, program.name, "temporal", program.path) {
			b.results.machine["temporal"] = false
			return nil, nil //nolint:nilnil // it was said
		}
	}
	if err := b.stopDatabase(); err != nil { //nolint:contextcheck // another stage's, with other settings
		return nil, err
	}
	// As for River: fsync, full_page_writes and synchronous_commit are on, as ever.
	err := b.startDatabaseWith(ctx, "max_connections = 400", "shared_buffers = '1GB'", "max_wal_size = '8GB'", "checkpoint_timeout = '30min'")
	if err != nil {
		return nil, err
	}
	t := &temporal{b}
	for _, s := range temporalStores {
		if err := t.create(ctx, s.name, "template1"); err != nil {
			return nil, err
		}
		for _, args := range [][]string{{"setup-schema", "--version", "0.0"}, {"update-schema", "--schema-name", s.schema}} {
			if err := t.schema(ctx, s.name, args...); err != nil {
				return nil, err
			}
		}
		// The schema knows the name that it was made for.
		if err := execute(ctx, b.db.SuperuserURL(), "ALTER DATABASE "+s.name+" RENAME TO "+s.name+"_full"); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// create makes a database that is a copy of another, all of it on disk.
func (t *temporal) create(ctx context.Context, name, template string) error {
	return execute(ctx, t.b.db.SuperuserURL(), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)",
		"CREATE DATABASE "+name+" OWNER weir TEMPLATE "+template, "CHECKPOINT")
}

// url is of the bench's PostgreSQL, without PgBouncer.
func (t *temporal) url() *url.URL {
	u, err := url.Parse(t.b.db.DirectURL())
	if err != nil {
		panic(err) // localdb made it
	}
	return u
}

// schema runs Temporal's own tool.
func (t *temporal) schema(ctx context.Context, database string, args ...string) error {
	u := t.url()
	password, _ := u.User.Password()
	cmd := exec.CommandContext(ctx, filepath.Join(t.b.bin, "temporal-sql-tool"), append([]string{
		"--plugin", "postgres12_pgx", "--endpoint", u.Hostname(), "--port", u.Port(), "--user", u.User.Username(), "--database", database,
	}, args...)...)
	cmd.Dir = t.b.root
	cmd.Env = append(os.Environ(), "SQL_PASSWORD="+password)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("temporal-sql-tool %s: %w\n%s", args[0], err, out[max(0, len(out)-2000):])
	}
	return nil
}

// serve starts a server with empty stores, all four services in one process, and returns its address.
func (t *temporal) serve(ctx context.Context) (addr string, err error) {
	for _, s := range temporalStores {
		if err := t.create(ctx, s.name, s.name+"_full"); err != nil {
			return "", err
		}
	}
	dynamic, config := t.b.folder("temporal-dynamic")+".yaml", t.b.folder("temporal")+".yaml"
	// Limits that protect a shared installation, raised; and the namespace that was made just now is seen at once.
	limits := map[string]any{"system.namespaceCacheRefreshInterval": "1s"}
	for _, name := range []string{
		"frontend.rps", "frontend.namespaceRPS", "frontend.namespaceCount", "history.rps", "matching.rps",
		"frontend.persistenceMaxQPS", "history.persistenceMaxQPS", "matching.persistenceMaxQPS",
	} {
		limits[name] = temporalLimit
	}
	// One worker polls: of several partitions of a task queue most would be empty, and forward their tasks.
	limits["matching.numTaskqueueReadPartitions"], limits["matching.numTaskqueueWritePartitions"] = 1, 1
	values := map[string]any{}
	for name, value := range limits {
		values[name] = []map[string]any{{"value": value}}
	}
	if err := writeJSON(dynamic, values); err != nil {
		return "", err
	}
	settings, addr, err := t.settings(ctx, dynamic)
	if err != nil {
		return "", err
	}
	if err := writeJSON(config, settings); err != nil {
		return "", err
	}
	c, err := t.b.start("temporal-server", filepath.Join(t.b.bin, "temporal-server"), []string{"--config-file", config, "--allow-no-auth", "start"}, []string{temporalGC})
	if err != nil {
		return "", err
	}
	return addr, c.untilIn(ctx, temporalUp, func() bool {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			err = conn.Close()
		}
		return err == nil
	})
}

// settings are as config/development-postgres12.yaml of the server's repository has them, with more shards and connections.
func (t *temporal) settings(ctx context.Context, dynamic string) (settings map[string]any, addr string, err error) {
	port := func() int {
		if err != nil {
			return 0
		}
		var free, text string
		if free, err = freeAddress(ctx); err == nil {
			_, text, err = net.SplitHostPort(free)
		}
		n, _ := strconv.Atoi(text) // freeAddress printed it
		return n
	}
	u := t.url()
	password, _ := u.User.Password()
	stores := map[string]any{}
	for _, s := range temporalStores {
		stores[s.name] = map[string]any{"sql": map[string]any{
			"pluginName": "postgres12_pgx", "databaseName": s.name, "connectAddr": u.Host, "connectProtocol": "tcp",
			"user": u.User.Username(), "password": password, "maxConns": temporalConns, "maxIdleConns": temporalConns, "maxConnLifetime": "1h",
		}}
	}
	services := map[string]any{}
	for _, name := range []string{"frontend", "matching", "history", "worker"} {
		rpc := map[string]any{"grpcPort": port(), "membershipPort": port(), "bindOnLocalHost": true}
		if name == "frontend" {
			addr = fmt.Sprintf("127.0.0.1:%d", rpc["grpcPort"])
		}
		services[name] = map[string]any{"rpc": rpc}
	}
	return map[string]any{
		"log": map[string]any{"stdout": true, "level": "error"},
		"persistence": map[string]any{
			"defaultStore": temporalStores[0].name, "visibilityStore": temporalStores[1].name, "numHistoryShards": temporalShards, "datastores": stores,
		},
		"global":   map[string]any{"membership": map[string]any{"maxJoinDuration": "30s", "broadcastAddress": "127.0.0.1"}},
		"services": services,
		"clusterMetadata": map[string]any{
			"enableGlobalNamespace": false, "failoverVersionIncrement": 10, "masterClusterName": "active", "currentClusterName": "active",
			"clusterInformation": map[string]any{"active": map[string]any{"enabled": true, "initialFailoverVersion": 1, "rpcName": "frontend", "rpcAddress": addr}},
		},
		"dcRedirectionPolicy": map[string]any{"policy": "noop"},
		"dynamicConfigClient": map[string]any{"filepath": dynamic, "pollInterval": "10s"},
	}, addr, err
}

func writeJSON(path string, v any) error { // YAML takes it
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// run starts a server, and the worker, and returns the line that it prints.
func (t *temporal) run(ctx context.Context, within time.Duration, what string, args ...int) (line, crowd string, err error) {
	defer t.b.stopChildren()
	addr, err := t.serve(ctx)
	if err != nil {
		return "", "", err
	}
	texts := []string{what, addr}
	for _, n := range args {
		texts = append(texts, strconv.Itoa(n))
	}
	c, err := t.b.start("temporal", filepath.Join(t.b.bin, "temporal"), texts, []string{temporalGC})
	if err != nil {
		return "", "", err
	}
	others := t.b.watchOthers()
	if line, err = c.line(ctx, temporalUp+within); err != nil {
		return "", "", err
	}
	crowd = t.b.crowd(others())
	t.b.stopChildren()
	for _, s := range temporalStores { // PostgreSQL is idle for the next turn, which may be Weir's
		if err := execute(ctx, t.b.db.SuperuserURL(), "DROP DATABASE "+s.name+" WITH (FORCE)", "CHECKPOINT"); err != nil {
			return "", "", err
		}
	}
	return line, crowd, nil
}

// done measures the workflows a second, as machinesDone does.
func (t *temporal) done(ctx context.Context) (perSecond float64, err error) {
	n := max(t.b.machineCount/temporalShare, t.b.temporalAtOnce)
	line, crowd, err := t.run(ctx, drainTimeout, "throughput", n, t.b.temporalAtOnce)
	if err != nil {
		return 0, err
	}
	took, err := time.ParseDuration(line)
	if err != nil {
		return 0, fmt.Errorf("it printed %q: %w", line, err)
	}
	perSecond = float64(n) / took.Seconds()
	t.b.results.add("temporal_per_s", perSecond)
	fmt.Printf("    %-26s %7.1f/s%s\n", "temporal_per_s", perSecond, crowd)
	return perSecond, nil
}

// latencies measures workflows at fixed times: at the rate of machineLatency, and at one that is small for Temporal, too.
func (t *temporal) latencies(ctx context.Context) error {
	for _, rate := range []int{2, machineRate} {
		line, crowd, err := t.run(ctx, t.b.latency+drainTimeout, "latency", rate, int(t.b.latency.Seconds())*rate)
		if err != nil {
			return err
		}
		first, second, _ := strings.Cut(line, " ")
		for quantile, text := range map[string]string{"p50": first, "p99": second} {
			took, err := time.ParseDuration(text)
			if err != nil {
				return fmt.Errorf("it printed %q: %w", line, err)
			}
			t.b.results.add(fmt.Sprintf("temporal_%s_ms_%d", quantile, rate), float64(took.Microseconds())/1000)
		}
		fmt.Printf("    Temporal's five activities at %d/s: p50 and p99 %s%s\n", rate, line, crowd)
	}
	return nil
}
