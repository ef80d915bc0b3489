// Package local runs everything in one process on loopback: `weir local`. It differs from a cluster in
// three places only: NATS is dialled in-process, the catalog comes from a folder of the same YAML, and a
// Knative Service is a function host on a loopback port. The data path is the same.
package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/app"
	appdispatcher "github.com/weir-dev/weir/internal/app/dispatcher"
	"github.com/weir-dev/weir/internal/app/objects"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/depth"
	"github.com/weir-dev/weir/internal/dispatcher"
	"github.com/weir-dev/weir/internal/egress"
	"github.com/weir-dev/weir/internal/gateway"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/orchestrator"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/realtime"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/tracelog"
)

// Config is the configuration of `weir local`.
type Config struct {
	Folder    string            // of YAML
	Listen    string            // of the gateway
	Admin     string            // of probes
	Data      string            // folder of JetStream's files
	Secrets   string            // folder: NAME/KEY is the key KEY of the Secret NAME; empty means none
	Functions map[string]string // Knative Service → URL of the user's own process
	Trusted   string            // proxies whose X-Forwarded-* are kept, as gateway.ParseTrustedProxies reads them
	Prefix    string            // below which clients find Weir, as ownpath.ParseBase reads it
	H2C       bool              // the gateway serves HTTP/2 by prior knowledge too
	EnvFile   string            // written when ready: WEIR_URL, WEIR_ADMIN_URL, WEIR_NATS_URL; empty means none
	AccessLog string            // of which requests the gateway logs a line, as gateway.ParseAccessLog reads it
	// EgressAllow is where http:invoke may go besides public addresses, as egress.ParsePolicy reads it.
	EgressAllow string
	Traces      bool // the last traces are kept in memory, and served at the admin address
	Codec       record.Codec
	Lines       *telemetry.Lines
	Log         *slog.Logger // Run makes it of Lines, unless it is set
}

const (
	maxIdle = 256
	// drainSpread is short: there is no other instance for the clients to spread over.
	drainSpread = 100 * time.Millisecond
	// memoryLimit makes the garbage collector work harder before the process grows past it: it has to
	// stay small on a laptop while a queue grows. GOMEMLIMIT overrides it.
	memoryLimit = 200 << 20
)

// Run runs everything until ctx is cancelled, then drains.
func Run(ctx context.Context, cfg Config) (err error) {
	app.TuneGC()
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	base, err := ownpath.ParseBase(cfg.Prefix)
	if err != nil {
		return fmt.Errorf("--path-prefix: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = cfg.Lines.Logger(nil)
	}
	setup := telemetry.Config{Service: "weir-local", Instance: "local", Getenv: os.Getenv, Log: cfg.Log}
	var admin app.Admin
	if cfg.Traces {
		traces := tracelog.New()
		setup.Spans, admin.Traces = traces, traces
	}
	tel, err := telemetry.Setup(ctx, setup)
	if err != nil {
		return err
	}
	defer tel.Close() //nolint:contextcheck // the last export has a time of its own
	admin.Metrics = tel.Page()
	if cfg.Lines != nil {
		defer cfg.Lines.Close() //nolint:contextcheck // it writes lines of no request
	}
	if tel.Logs != nil {
		cfg.Log = cfg.Lines.Logger(tel.Logs)
	}
	access, err := gateway.ParseAccessLog(cfg.AccessLog)
	if err != nil {
		return fmt.Errorf("--access-log: %w", err)
	}
	var accessLog *slog.Logger
	if access > 0 {
		accessLog = slog.New(cfg.Lines.All(tel.Logs)).With("service", "gateway")
	}
	hosts := &hosts{log: cfg.Log, tel: tel.Providers}
	defer hosts.close()
	var lc net.ListenConfig
	sl, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("the orchestrator's port: %w", err)
	}
	defer func() { _ = sl.Close() }() // the server has closed it on an orderly stop
	bundle, err := manifest.LoadDir(  //nolint:contextcheck // opening a loopback port doesn't block
		cfg.Folder, manifest.Options{FunctionURL: hosts.url, OrchestratorURL: "http://" + sl.Addr().String()})
	if err != nil {
		return fmt.Errorf("folder %s:\n%w", cfg.Folder, err)
	}
	if err := hosts.open(ctx, cfg, bundle.Services, len(bundle.Catalog.Machines) > 0); err != nil {
		return err
	}
	for _, k := range manifest.Undrained(bundle.Catalog) {
		cfg.Log.Warn("no EventSourceMapping drains this queue: what comes into it waits, and expires", "queue", k.String())
	}
	l, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w: choose another address with --listen HOST:PORT", cfg.Listen, err)
	}
	defer func() { _ = l.Close() }() // the gateway has closed it on an orderly stop

	token, err := natsToken(cfg.Data)
	if err != nil {
		return err
	}
	nats, err := localnats.Start(localnats.Config{Dir: cfg.Data, Token: token}) //nolint:contextcheck // Stop ends it
	if err != nil {
		return err
	}
	defer nats.Stop()
	caller := invoke.NewCaller(maxIdle, tel.Providers)
	defer caller.Close()
	front, err := stream.Connect(stream.Config{URL: nats.URL(), InProcess: nats, Name: "gateway", Telemetry: tel.Providers, Log: cfg.Log.With("service", "gateway")})
	if err != nil {
		return err
	}
	defer front.Close()
	back, err := stream.Connect(stream.Config{URL: nats.URL(), InProcess: nats, Name: "dispatcher", PingInterval: appdispatcher.PingInterval, Telemetry: tel.Providers, Beside: front, Log: cfg.Log.With("service", "dispatcher")})
	if err != nil {
		return err
	}
	defer back.Close()
	large, err := stream.Connect(stream.Config{URL: nats.URL(), InProcess: nats, Name: "objects", PingInterval: objects.PingInterval, Log: cfg.Log.With("connection", "objects")})
	if err != nil {
		return err
	}
	defer large.Close()
	store := objects.Over(large, base)
	if err := provision(ctx, back, bundle.Catalog); err != nil {
		return err
	}
	policy, err := egress.ParsePolicy(cfg.EgressAllow)
	if err != nil {
		return fmt.Errorf("--egress-allow: %w", err)
	}
	policy.PlainHTTP = cfg.EgressAllow != ""
	machines, err := orchestrator.New(orchestrator.Config{
		Conn: back, Caller: caller, Objects: store, Egress: policy, Owner: "local", Base: base, Telemetry: tel.Providers, Log: cfg.Log.With("service", "orchestrator"),
		Function: functionsOf(bundle.Services, cfg.Functions, hosts), //nolint:contextcheck // opening a loopback port doesn't block
	})
	if err != nil {
		return err
	}
	machines.Use(bundle.Catalog)
	for _, w := range machines.Warnings(bundle.Catalog) {
		cfg.Log.Warn("a task of a state machine will fail", "task", w)
	}
	admin.Machines = machines.API()

	r, err := realtime.New(realtime.Config{Conn: front, Base: base, DrainSpread: drainSpread, Telemetry: tel.Providers, Log: cfg.Log.With("service", "realtime")})
	if err != nil {
		return err
	}
	r.Use(bundle.Catalog)
	trusted, err := gateway.ParseTrustedProxies(cfg.Trusted)
	if err != nil {
		return fmt.Errorf("--trusted-proxies: %w", err)
	}
	g, err := gateway.New(gateway.Config{
		Listener: l, Conn: front, Caller: caller, TrustedProxies: trusted, Objects: store, Codec: cfg.Codec, Log: cfg.Log.With("service", "gateway"),
		Realtime: r, Base: base, H2C: cfg.H2C, Telemetry: tel.Providers, AccessShare: access, AccessLog: accessLog,
	})
	if err != nil {
		return err
	}
	g.Use(bundle.Catalog) //nolint:contextcheck // a queue's writer lives until Run ends it
	// The data folder admits one process at a time (localnats locks it), so the next process may take the queues over
	// at once: the functions have ended with this one. Not so the user's own processes, which may still have calls of
	// this one in flight.
	owner := "local"
	if len(cfg.Functions) > 0 {
		owner += "-" + rand.Text()
	}
	d, err := dispatcher.New(dispatcher.Config{
		Conn: back, Caller: caller, Objects: store, Owner: owner, CallbackURL: "http://" + l.Addr().String(), Telemetry: tel.Providers, Log: cfg.Log.With("service", "dispatcher"),
		Memory: dispatcher.MemoryFor(debug.SetMemoryLimit(-1) / 2), // the gateway and NATS are in this process too
	})
	if err != nil {
		return err
	}
	d.Use(bundle.Catalog)
	depths, err := depth.New(back, tel.Providers, cfg.Log, nil)
	if err != nil {
		return err
	}
	depths.Use(bundle.Catalog.Queues)
	al, err := lc.Listen(ctx, "tcp", cfg.Admin)
	if err != nil {
		return fmt.Errorf("listen on %s: %w: choose another address with --admin", cfg.Admin, err)
	}
	defer func() { _ = al.Close() }()
	ready := func() {
		url := "http://" + l.Addr().String()
		cfg.Log.Info("ready", "url", url, "admin", "http://"+al.Addr().String(), "nats", fmt.Sprintf("127.0.0.1:%d", nats.Port()))
		if cfg.EnvFile == "" {
			return
		}
		if werr := writeEnv(cfg.EnvFile, "export WEIR_URL="+url+"\nexport WEIR_ADMIN_URL=http://"+al.Addr().String()+"\nexport WEIR_NATS_URL="+nats.URL()+"\n"); werr != nil {
			cfg.Log.Error("the file of addresses could not be written", "error", werr)
		}
	}
	readiness := func() (map[string]string, error) {
		select {
		case <-machines.Serving():
			return g.Ready()
		default:
			return nil, errors.New("the executions of state machines are not all read yet")
		}
	}
	return lifecycle.Run(ctx, cfg.Log, ready,
		app.HealthOn(ctx, al, readiness, admin),
		lifecycle.Part{Name: "depths", Run: func(ctx context.Context, ready func()) error {
			ready()
			return depths.Run(ctx)
		}},
		lifecycle.Part{Name: "functions", Run: hosts.run},
		lifecycle.Part{Name: "orchestrator", Run: machines.Run},
		lifecycle.Part{Name: "starts", Run: func(ctx context.Context, ready func()) error { return machines.ServeStarts(ctx, sl, ready) }},
		lifecycle.Part{Name: "dispatcher", Run: d.Run},
		lifecycle.Part{Name: "realtime", Run: r.Run},
		lifecycle.Part{Name: "gateway", Run: g.Run},
		app.WatchKeys(front, func(ring sign.Ring) {
			store.UseKeys(ring)
			g.UseKeys(ring)
			d.UseKeys(ring)
			machines.UseKeys(ring)
			r.UseKeys(ring)
		}),
		lifecycle.Part{Name: "executions", Run: func(ctx context.Context, ready func()) error {
			select {
			case <-machines.Serving():
				ready()
				<-ctx.Done()
			case <-ctx.Done():
			}
			return nil
		}},
	)
}

// provision creates the streams and publishes the catalog, as the controller does in a cluster.
func provision(ctx context.Context, conn *stream.Conn, cat *catalog.Catalog) error {
	if err := conn.WaitUp(ctx); err != nil {
		return err
	}
	if err := conn.EnsureLeases(ctx, 1); err != nil {
		return err
	}
	if err := conn.EnsureKeys(ctx, 1, time.Now()); err != nil {
		return err
	}
	if err := conn.EnsureMachines(ctx, 1, stream.DefaultMachineBytes); err != nil {
		return err
	}
	for _, q := range cat.Queues {
		if err := conn.EnsureQueue(ctx, q, 1); err != nil {
			return err
		}
	}
	return conn.PublishCatalog(ctx, cat, 1, nil) // for who asks: the stages here have it already
}

// functionsOf finds the functions that tasks of state machines call by name: Services, and the user's own processes.
func functionsOf(services []manifest.Service, own map[string]string, hosts *hosts) func(namespace, name string) (catalog.Function, bool) {
	known := map[catalog.Key]catalog.Function{}
	for name, url := range own {
		known[catalog.Key{Namespace: taskapi.DefaultNamespace, Name: name}] = catalog.Function{Name: name, URL: url}
	}
	for _, s := range services {
		known[s.Key] = catalog.Function{Name: s.Name, URL: hosts.url(s.Key), H2C: s.H2C}
	}
	return func(namespace, name string) (catalog.Function, bool) {
		f, ok := known[catalog.Key{Namespace: namespace, Name: name}]
		return f, ok
	}
}

// natsToken keeps the server's token beside its data, so that an address stays good over a restart.
func natsToken(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("data folder: %w", err)
	}
	path := filepath.Join(dir, "token")
	b, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(b))) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("NATS token: %w", err)
	}
	token := localnats.NewToken()
	if err := writeEnv(path, token+"\n"); err != nil {
		return "", fmt.Errorf("NATS token: %w", err)
	}
	return token, nil
}

// writeEnv writes a file that only its owner can read, atomically.
func writeEnv(path, content string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
