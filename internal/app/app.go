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
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Config is what the environment says to a service of the data plane.
type Config struct {
	NATSURL  string       // WEIR_NATS_URL
	Listen   string       // WEIR_LISTEN, default :8080
	Instance string       // WEIR_INSTANCE: the name of this process in the cluster; default: the host's name
	Codec    record.Codec // WEIR_COMPRESSION: s2 (default), zstd or none
	Log      *slog.Logger // WEIR_LOG_LEVEL (default info), WEIR_LOG_FORMAT (json or text; default json)
}

// FromEnv reads Config. getenv is os.Getenv but in tests.
func FromEnv(getenv func(string) string) (Config, error) {
	or := func(name, fallback string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return fallback
	}
	cfg := Config{NATSURL: getenv("WEIR_NATS_URL"), Listen: or("WEIR_LISTEN", ":8080"), Instance: getenv("WEIR_INSTANCE")}
	if cfg.NATSURL == "" {
		return Config{}, errors.New("WEIR_NATS_URL is not set: give it the address of NATS, such as nats://nats:4222")
	}
	var err error
	if cfg.Instance == "" {
		if cfg.Instance, err = os.Hostname(); err != nil {
			return Config{}, fmt.Errorf("WEIR_INSTANCE is not set and the host has no name: %w", err)
		}
	}
	if cfg.Codec, err = record.ParseCodec(or("WEIR_COMPRESSION", record.DefaultCodec.String())); err != nil {
		return Config{}, fmt.Errorf("WEIR_COMPRESSION: %w", err)
	}
	cfg.Log, err = telemetry.NewLogger(os.Stderr, or("WEIR_LOG_FORMAT", "json"), or("WEIR_LOG_LEVEL", "info"))
	if err != nil {
		return Config{}, fmt.Errorf("WEIR_LOG_FORMAT, WEIR_LOG_LEVEL: %w", err)
	}
	return cfg, nil
}

// gcPercent trades memory for time: the services hold little, and what they hold is bounded, so collecting
// at the default of 100 would spend a tenth of the CPU on a heap of a few MiB. GOGC overrides it.
const gcPercent = 400

// TuneGC sets the garbage collector as every process of Weir has it.
func TuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
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
	cfg.Log = cfg.Log.With("service", service, "instance", cfg.Instance)
	conn, err := stream.Connect(stream.Config{URL: cfg.NATSURL, Name: "weir-" + service + "-" + cfg.Instance, PingInterval: ping, Log: cfg.Log})
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
