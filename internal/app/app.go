// Package app is the composition root: it reads the environment, once, and puts the stages together.
// Each service has a sub-package of its own, so that a binary links only what it runs
// (internal/arch_test.go checks it).
//
// May import: every package below it.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Config is a service's configuration, from the environment. Not every service uses all of it.
type Config struct {
	NATS         NATS
	NATSSync     string        // WEIR_NATS_SYNC: the sync_interval that NATS was configured with; empty means always
	Listen       string        // WEIR_LISTEN, default :8080
	HealthListen string        // WEIR_HEALTH_LISTEN, default :8081; HealthOff disables the probes
	DrainTimeout time.Duration // WEIR_DRAIN_TIMEOUT; 0 means the service's own default
	Memory       int64         // WEIR_MEMORY: the dispatcher's budget in bytes (dispatcher.Config), as GOMEMLIMIT writes it; 0 means a share of that
	Instance     string        // WEIR_INSTANCE: the name of this process in the cluster; default: the host's name
	CallbackURL  string        // WEIR_CALLBACK_URL: the gateway's, as functions reach it; empty means that functions can't go on after their answer
	RealtimeURL  *url.URL      // WEIR_REALTIME_URL: realtime's, as the gateway reaches it; empty means no events and no sockets
	OwnThrottles string        // WEIR_OWN_THROTTLES: of Weir's own paths, as gateway.ParseOwnThrottles reads them; empty means the defaults
	Trusted      string        // WEIR_TRUSTED_PROXIES: whose X-Forwarded-* the gateway keeps, as gateway.ParseTrustedProxies reads them; empty means none's
	AccessLog    string        // WEIR_ACCESS_LOG: of which requests the gateway logs a line, as gateway.ParseAccessLog reads it; default off
	H2C          bool          // WEIR_H2C: the gateway serves HTTP/2 by prior knowledge too: on or off (default)
	PathPrefix   ownpath.Base  // WEIR_PATH_PREFIX: below which clients find Weir, as ownpath.ParseBase reads it; empty means none
	EgressAllow  string        // WEIR_EGRESS_ALLOW: where http:invoke of state machines may go besides public addresses, as egress.ParsePolicy reads it; empty means nowhere
	Batch        bool          // WEIR_BATCH: the controller runs Kubernetes Jobs for tasks of state machines: on or off (default)
	S3           S3            // WEIR_S3_…: where objects are; without an endpoint they are in NATS
	Codec        record.Codec  // WEIR_COMPRESSION: s2 (default), zstd or none
	Lines        *telemetry.Lines
	Log          *slog.Logger // WEIR_LOG_LEVEL (default info), WEIR_LOG_FORMAT (json or text; default json)
	LevelFile    string       // WEIR_LOG_LEVEL_FILE: the level, as it may change; empty means that it stays
	// Telemetry is the process's, never nil. Main sets it up; before, it does nothing.
	Telemetry *telemetry.Telemetry
}

// NATS is how to reach NATS.
type NATS struct {
	URL          string // WEIR_NATS_URL
	User         string // WEIR_NATS_USER
	PasswordFile string // WEIR_NATS_PASSWORD_FILE
	CAFile       string // WEIR_NATS_CA_FILE: turns TLS on
}

// S3 is how to reach S3 (blob.S3Config, which says more).
type S3 struct {
	Endpoint        string // WEIR_S3_ENDPOINT
	PublicEndpoint  string // WEIR_S3_PUBLIC_ENDPOINT: as clients reach it, for pre-signed URLs; default: Endpoint
	Region          string // WEIR_S3_REGION
	Bucket          string // WEIR_S3_BUCKET
	Prefix          string // WEIR_S3_PREFIX
	CredentialsFile string // WEIR_S3_CREDENTIALS_FILE
	CAFile          string // WEIR_S3_CA_FILE
}

// NATSFromEnv reads NATS, unchecked: the flags of `weir dlq` override the environment.
func NATSFromEnv(getenv func(string) string) NATS {
	return NATS{
		URL: getenv("WEIR_NATS_URL"), User: getenv("WEIR_NATS_USER"),
		PasswordFile: getenv("WEIR_NATS_PASSWORD_FILE"), CAFile: getenv("WEIR_NATS_CA_FILE"),
	}
}

// Stream returns the configuration of a connection under name.
func (n NATS) Stream(name string, log *slog.Logger) stream.Config {
	return stream.Config{URL: n.URL, User: n.User, PasswordFile: n.PasswordFile, CAFile: n.CAFile, Name: name, Log: log}
}

// FromEnv reads Config. getenv is os.Getenv, except in tests.
func FromEnv(getenv func(string) string) (Config, error) {
	or := func(name, fallback string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return fallback
	}
	cfg := Config{
		Telemetry: &telemetry.Telemetry{}, NATS: NATSFromEnv(getenv), NATSSync: getenv("WEIR_NATS_SYNC"), Instance: getenv("WEIR_INSTANCE"), CallbackURL: getenv("WEIR_CALLBACK_URL"),
		OwnThrottles: getenv("WEIR_OWN_THROTTLES"), Trusted: getenv("WEIR_TRUSTED_PROXIES"), AccessLog: getenv("WEIR_ACCESS_LOG"), EgressAllow: getenv("WEIR_EGRESS_ALLOW"),
		S3: S3{
			Endpoint: getenv("WEIR_S3_ENDPOINT"), PublicEndpoint: getenv("WEIR_S3_PUBLIC_ENDPOINT"), Region: getenv("WEIR_S3_REGION"),
			Bucket: getenv("WEIR_S3_BUCKET"), Prefix: getenv("WEIR_S3_PREFIX"),
			CredentialsFile: getenv("WEIR_S3_CREDENTIALS_FILE"), CAFile: getenv("WEIR_S3_CA_FILE"),
		},
		Listen: or("WEIR_LISTEN", ":8080"), HealthListen: or("WEIR_HEALTH_LISTEN", ":8081"),
	}
	switch {
	case cfg.NATS.URL == "":
		return Config{}, errors.New("WEIR_NATS_URL is not set: give it the address of NATS, such as nats://nats:4222")
	case cfg.NATS.User != "" && cfg.NATS.PasswordFile == "":
		return Config{}, errors.New("WEIR_NATS_USER is set, but not WEIR_NATS_PASSWORD_FILE: give it the file that holds the user's password")
	case cfg.NATS.User == "" && cfg.NATS.PasswordFile != "":
		return Config{}, errors.New("WEIR_NATS_PASSWORD_FILE is set, but not WEIR_NATS_USER: give it the user whose password that is")
	}
	var err error
	if cfg.CallbackURL != "" && address(cfg.CallbackURL) == nil {
		return Config{}, fmt.Errorf("WEIR_CALLBACK_URL is %q: give it the address of the gateway as functions reach it, such as http://weir-gateway.weir-system", cfg.CallbackURL)
	}
	if cfg.H2C, err = onOrOff("WEIR_H2C", or("WEIR_H2C", "off")); err != nil {
		return Config{}, err
	}
	if cfg.Batch, err = onOrOff("WEIR_BATCH", or("WEIR_BATCH", "off")); err != nil {
		return Config{}, err
	}
	if cfg.PathPrefix, err = ownpath.ParseBase(getenv("WEIR_PATH_PREFIX")); err != nil {
		return Config{}, fmt.Errorf("WEIR_PATH_PREFIX: %w", err)
	}
	if v := getenv("WEIR_REALTIME_URL"); v != "" {
		if cfg.RealtimeURL = address(v); cfg.RealtimeURL == nil || cfg.RealtimeURL.Scheme != "http" {
			return Config{}, fmt.Errorf("WEIR_REALTIME_URL is %q: give it the address of realtime as the gateway reaches it, such as http://weir-realtime.weir-system", v)
		}
	}
	if v := getenv("WEIR_DRAIN_TIMEOUT"); v != "" {
		if cfg.DrainTimeout, err = time.ParseDuration(v); err != nil || cfg.DrainTimeout <= 0 {
			return Config{}, fmt.Errorf("WEIR_DRAIN_TIMEOUT is %q: give it a positive duration, such as 35s", v)
		}
	}
	if v := getenv("WEIR_MEMORY"); v != "" {
		if cfg.Memory, err = parseBytes(v); err != nil {
			return Config{}, fmt.Errorf("WEIR_MEMORY is %q: give it bytes as GOMEMLIMIT has them, such as 64MiB", v)
		}
	}
	if cfg.Instance == "" {
		if cfg.Instance, err = os.Hostname(); err != nil {
			return Config{}, fmt.Errorf("WEIR_INSTANCE is not set and the host has no name: %w", err)
		}
	}
	if cfg.Codec, err = record.ParseCodec(or("WEIR_COMPRESSION", record.DefaultCodec.String())); err != nil {
		return Config{}, fmt.Errorf("WEIR_COMPRESSION: %w", err)
	}
	cfg.Lines, err = telemetry.NewLines(os.Stderr, or("WEIR_LOG_FORMAT", "json"), or("WEIR_LOG_LEVEL", "info"))
	if err != nil {
		return Config{}, fmt.Errorf("WEIR_LOG_FORMAT, WEIR_LOG_LEVEL: %w", err)
	}
	cfg.Log, cfg.LevelFile = cfg.Lines.Logger(nil), getenv("WEIR_LOG_LEVEL_FILE")
	return cfg, nil
}

func onOrOff(name, v string) (on bool, err error) {
	if v != "on" && v != "off" {
		return false, fmt.Errorf("%s is %q: say on or off", name, v)
	}
	return v == "on", nil
}

// parseBytes reads a positive number of bytes as GOMEMLIMIT has it: digits, and maybe B, KiB, MiB, GiB or TiB.
func parseBytes(text string) (int64, error) {
	digits, unit := text, int64(1)
	for i, suffix := range []string{"TiB", "GiB", "MiB", "KiB", "B"} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			digits, unit = rest, 1<<(40-10*i)
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, err
	}
	if n < 1 || n > math.MaxInt64/unit {
		return 0, strconv.ErrRange
	}
	return n * unit, nil
}

// address reads the URL of a service, nil if it is invalid.
func address(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil
	}
	return u
}

// gcPercent trades memory for time: the services hold little, and what they hold is bounded, so collecting
// at the default of 100 would spend a tenth of the CPU on a heap of a few MiB. GOGC overrides it.
const gcPercent = 400

// idleGCPercent is for a process of many idle connections: their memory is what counts, and they make little garbage.
const idleGCPercent = 25

// Admin is what a service serves on its admin port.
func (c *Config) Admin() Admin { return Admin{Metrics: c.Telemetry.Page()} }

// TuneGC configures the garbage collector for a process of Weir.
func TuneGC() { TuneGCFor(0) }

// TuneGCFor is TuneGC for a process with so many idle connections: 500 and fewer make no difference, and from 8,000 on
// what is alive is mostly theirs.
func TuneGCFor(idle int64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercentFor(idle))
	}
}

func gcPercentFor(idle int64) int {
	return int(max(gcPercent*500/max(idle, 500), idleGCPercent))
}

// waitingGCPercent is for a process of many executions that wait, of which each is some 200 bytes.
const waitingGCPercent = 50

// TuneGCForWaiting is TuneGC for a process with so many executions that wait: 25,000 and fewer make no difference, and from
// 200,000 on what is alive is mostly theirs.
func TuneGCForWaiting(executions int64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercentWaiting(executions))
	}
}

func gcPercentWaiting(executions int64) int {
	return int(max(gcPercent*25_000/max(executions, 25_000), waitingGCPercent))
}

// Main runs a service until SIGTERM or SIGINT and returns the process's exit code. ping is how often the
// connection to NATS is checked (stream.Config).
func Main(service string, ping time.Duration, run func(context.Context, Config, *stream.Conn) error) int {
	TuneGC()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	cfg, err := FromEnv(os.Getenv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "weir %s: %v\n", service, err)
		return 2
	}
	us := []slog.Attr{slog.String("service", service), slog.String("instance", cfg.Instance)}
	cfg.Telemetry, err = telemetry.Setup(ctx, telemetry.Config{
		Service: "weir-" + service, Instance: cfg.Instance, Getenv: os.Getenv, Log: cfg.Lines.Logger(nil, us...),
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "weir %s: %v\n", service, err)
		return 2
	}
	defer cfg.Telemetry.Close()
	cfg.Log = cfg.Lines.Logger(cfg.Telemetry.Logs, us...)
	defer cfg.Lines.Close() // what it says is exported too
	if cfg.LevelFile != "" {
		var wg sync.WaitGroup
		wg.Go(func() { cfg.Lines.Follow(ctx, cfg.LevelFile, cfg.Log) })
		defer wg.Wait()
		defer stop()
	}
	nats := cfg.NATS.Stream("weir-"+service+"-"+cfg.Instance, cfg.Log)
	nats.PingInterval, nats.Telemetry = ping, cfg.Telemetry.Providers
	conn, err := stream.Connect(nats)
	if err == nil {
		err = run(ctx, cfg, conn)
		conn.Close()
	}
	if err != nil {
		cfg.Log.Error("ended", "error", err)
		return 1
	}
	cfg.Log.Info("ended")
	return 0
}
