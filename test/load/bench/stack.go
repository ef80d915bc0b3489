package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localdb"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
)

// programs are the services of a commit.
type programs struct {
	dir   string // the binaries
	bench string // the program that starts NATS and makes the streams
}

func (p programs) path(name string) string { return filepath.Join(p.dir, name) }

// own are this checkout's.
func (b *bench) own() programs { return programs{b.bin, b.exe} }

// self starts this program as one of its servers and returns the line that it prints when ready.
func (b *bench) self(ctx context.Context, name string, args ...string) (c *child, line string, err error) {
	return b.startLine(ctx, name, b.exe, args...)
}

// startLine starts a program and returns the line that it prints when ready.
func (b *bench) startLine(ctx context.Context, name, program string, args ...string) (c *child, line string, err error) {
	if c, err = b.start(name, program, args, nil); err != nil {
		return nil, "", err
	}
	line, err = c.line(ctx, readyTimeout)
	return c, line, err
}

// line is the first that the child prints.
func (c *child) line(ctx context.Context, within time.Duration) (line string, err error) {
	err = c.untilIn(ctx, within, func() bool {
		text, err := os.ReadFile(c.log)
		var ok bool
		line, _, ok = strings.Cut(string(text), "\n")
		return err == nil && ok
	})
	return line, err
}

func (b *bench) startNATS(ctx context.Context, dir string) (c *child, url string, err error) {
	return b.startNATSOf(ctx, b.own(), dir)
}

// startNATSOf is startNATS as another commit runs it.
func (b *bench) startNATSOf(ctx context.Context, p programs, dir string) (c *child, url string, err error) {
	return b.startLine(ctx, "nats", p.bench, "nats", dir)
}

// catalogOf is the orders sample without effective throttles and with order-writer at url.
func (b *bench) catalogOf(url string) (*catalog.Catalog, error) {
	bundle, err := manifest.LoadDir(filepath.Join(b.root, "deploy", "k8s", "orders"), manifest.Options{
		FunctionURL: func(catalog.Key) string { return url },
	})
	if err != nil {
		return nil, err
	}
	const ample = 1 << 30
	for i := range bundle.Catalog.APIs {
		a := &bundle.Catalog.APIs[i]
		if a.Throttle != nil {
			a.Throttle = &catalog.Throttle{Rate: ample, Burst: ample}
		}
		for j := range a.Routes {
			if a.Routes[j].Throttle != nil {
				a.Routes[j].Throttle = &catalog.Throttle{Rate: ample, Burst: ample}
			}
		}
	}
	return bundle.Catalog, nil
}

// provision does what the controller does: it creates the streams and publishes the catalog.
func provision(ctx context.Context, url string, cat *catalog.Catalog) error {
	conn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.EnsureLeases(ctx, 1); err != nil {
		return err
	}
	if err := conn.EnsureKeys(ctx, 1, time.Now()); err != nil {
		return err
	}
	for _, q := range cat.Queues {
		if err := conn.EnsureQueue(ctx, q, 1); err != nil {
			return err
		}
	}
	return conn.PublishCatalog(ctx, cat, 1, nil)
}

func connect(ctx context.Context, url string) (*stream.Conn, error) {
	conn, err := stream.Connect(stream.Config{URL: url, Name: "bench", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if err := conn.WaitUpFor(ctx, readyTimeout); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// startGateway starts the service as it is shipped and waits until it serves the catalog.
func (b *bench) startGateway(ctx context.Context, natsURL string, more ...string) (c *child, addr string, err error) {
	return b.startGatewayOf(ctx, b.gatewayProgram(), natsURL, asShipped, more...)
}

func (b *bench) gatewayProgram() string { return filepath.Join(b.bin, "gateway") }

// startGatewayOf is startGateway for the service of another commit.
func (b *bench) startGatewayOf(ctx context.Context, program, natsURL, compression string, more ...string) (c *child, addr string, err error) {
	if addr, err = freeAddress(ctx); err != nil {
		return nil, "", err
	}
	probes, err := freeAddress(ctx)
	if err != nil {
		return nil, "", err
	}
	env := append([]string{"WEIR_NATS_URL=" + natsURL, "WEIR_LISTEN=" + addr, "WEIR_HEALTH_LISTEN=" + probes, "WEIR_COMPRESSION=" + compression}, more...)
	if c, err = b.start("gateway", program, nil, env); err != nil {
		return nil, "", err
	}
	return c, addr, c.answers(ctx, "http://"+probes+"/readyz")
}

// startRealtime starts the service and waits until it serves the catalog.
func (b *bench) startRealtime(ctx context.Context, p programs, natsURL string) (c *child, addr string, err error) {
	if addr, err = freeAddress(ctx); err != nil {
		return nil, "", err
	}
	probes, err := freeAddress(ctx)
	if err != nil {
		return nil, "", err
	}
	env := []string{"WEIR_NATS_URL=" + natsURL, "WEIR_LISTEN=" + addr, "WEIR_HEALTH_LISTEN=" + probes}
	if c, err = b.start("realtime", p.path("realtime"), nil, env); err != nil {
		return nil, "", err
	}
	return c, addr, c.answers(ctx, "http://"+probes+"/readyz")
}

func (b *bench) startDispatcher(natsURL string, more ...string) (*child, error) {
	return b.startDispatcherOf(b.own(), natsURL, append([]string{"WEIR_HEALTH_LISTEN=off"}, more...)...)
}

// startDispatcherOf is startDispatcher for the service of another commit.
func (b *bench) startDispatcherOf(p programs, natsURL string, more ...string) (*child, error) {
	return b.start("dispatcher", p.path("dispatcher"), nil, append([]string{"WEIR_NATS_URL=" + natsURL}, more...))
}

// startWriter starts order-writer, one instance for all that a cluster would run: it gets as many
// connections as there may be calls (containerConcurrency 2 × max-scale 5).
func (b *bench) startWriter(ctx context.Context, more ...string) (c *child, url string, err error) {
	addr, err := freeAddress(ctx)
	if err != nil {
		return nil, "", err
	}
	secrets, err := b.secrets(b.db.PoolURL(), b.db.DirectURL())
	if err != nil {
		return nil, "", err
	}
	maxConns := os.Getenv("BENCH_WRITER_CONNS")
	if maxConns == "" {
		maxConns = "10"
	}
	c, err = b.start("order-writer", filepath.Join(b.bin, "order-writer"), nil, append([]string{
		"PORT=" + addr[strings.LastIndexByte(addr, ':')+1:], "DATABASE_MAX_CONNS=" + maxConns,
		"DATABASE_URL_FILE=" + filepath.Join(secrets, "orders-database", "url"),
		"MIGRATE_DATABASE_URL_FILE=" + filepath.Join(secrets, "orders-database", "direct-url"),
	}, more...))
	if err != nil {
		return nil, "", err
	}
	url = "http://" + addr
	// It answers 503 until its schema is there; then it names this event, which is no order, as failed.
	probe := []byte(`[{"specversion":"1.0","id":"probe","source":"bench","type":"probe","data":{}}]`)
	return c, url, c.until(ctx, func() bool {
		status, _ := get(ctx, http.MethodPost, url, "application/cloudevents-batch+json", probe)
		return status == http.StatusOK
	})
}

// secrets writes the sample's Secret as a folder, as it is mounted.
func (b *bench) secrets(url, direct string) (string, error) {
	dir := b.folder("secrets")
	if err := os.MkdirAll(filepath.Join(dir, "orders-database"), 0o700); err != nil {
		return "", err
	}
	return dir, errors.Join(
		os.WriteFile(filepath.Join(dir, "orders-database", "url"), []byte(url), 0o600),
		os.WriteFile(filepath.Join(dir, "orders-database", "direct-url"), []byte(direct), 0o600))
}

// startDatabase starts the private PostgreSQL and PgBouncer, once a run. Commits carry a timestamp, for the latency;
// drain and copy pay for it alike.
func (b *bench) startDatabase(ctx context.Context) error {
	return b.startDatabaseWith(ctx, "track_commit_timestamp = on")
}

// startDatabaseWith is startDatabase with other settings of PostgreSQL's. One that runs keeps its own.
func (b *bench) startDatabaseWith(ctx context.Context, settings ...string) error {
	if b.db != nil {
		return nil
	}
	b.say("starting PostgreSQL and PgBouncer")
	db, err := localdb.Start(ctx, localdb.Config{Dir: filepath.Join(b.dir, "db")})
	if err != nil {
		return err
	}
	b.db = db
	for _, s := range settings {
		if err := execute(ctx, db.SuperuserURL(), "ALTER SYSTEM SET "+s); err != nil {
			return err
		}
	}
	if err := db.StopPostgres(ctx); err != nil {
		return err
	}
	return db.StartPostgres(ctx)
}

func (b *bench) stopDatabase() error {
	if b.db == nil {
		return nil
	}
	dir := filepath.Join(b.dir, "db")
	err := b.db.Stop(context.Background()) // it bounds itself
	b.db = nil
	if b.keep {
		return err
	}
	return errors.Join(err, localdb.Remove(dir))
}

// execute runs statements, each by itself.
func execute(ctx context.Context, url string, statements ...string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// withoutMappings is cat for a data plane that stores and doesn't dispatch.
func withoutMappings(cat *catalog.Catalog) *catalog.Catalog {
	c := *cat
	c.Mappings = nil
	return &c
}

func queueKey(cat *catalog.Catalog) catalog.Key {
	i := slices.IndexFunc(cat.Queues, func(q catalog.Queue) bool { return q.Name == "orders" })
	return cat.Queues[i].Key
}
