// Package gateway puts the gateway service together.
package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/objects"
	"github.com/weir-dev/weir/internal/gateway"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
)

// PingInterval detects a NATS server that hangs within a second: clients get their 503 then.
const PingInterval = stream.DefaultPingInterval

// maxIdle is how many idle connections are kept to each function.
const maxIdle = 256

// noticeTimeout is long enough for the connections of a pool that are only used at times: on a busy node one in some
// thousand requests met the closing of its connection when it was a second.
const noticeTimeout = 5 * time.Second

// Run serves the published catalog until ctx is cancelled, then drains.
func Run(ctx context.Context, cfg app.Config, conn *stream.Conn) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s (WEIR_LISTEN): %w", cfg.Listen, err)
	}
	caller := invoke.NewCaller(maxIdle, cfg.Telemetry.Providers)
	defer caller.Close()
	store, err := objects.Open(cfg, "gateway")
	if err != nil {
		return err
	}
	defer store.Close()
	throttles, err := gateway.ParseOwnThrottles(cfg.OwnThrottles)
	if err != nil {
		return fmt.Errorf("WEIR_OWN_THROTTLES: %w", err)
	}
	trusted, err := gateway.ParseTrustedProxies(cfg.Trusted)
	if err != nil {
		return fmt.Errorf("WEIR_TRUSTED_PROXIES: %w", err)
	}
	access, err := gateway.ParseAccessLog(cfg.AccessLog)
	if err != nil {
		return fmt.Errorf("WEIR_ACCESS_LOG: %w", err)
	}
	config := gateway.Config{
		Listener: l, Conn: conn, Caller: caller, Objects: store, Codec: cfg.Codec, Sync: cfg.NATSSync, Base: cfg.PathPrefix, OwnThrottles: throttles,
		H2C: cfg.H2C, TrustedProxies: trusted, DrainTimeout: cfg.DrainTimeout, NoticeTimeout: noticeTimeout,
		Telemetry: cfg.Telemetry.Providers, Log: cfg.Log, AccessShare: access,
	}
	if access > 0 {
		config.AccessLog = slog.New(cfg.Lines.All(cfg.Telemetry.Logs)).With("service", "gateway", "instance", cfg.Instance)
	}
	var parts []lifecycle.Part
	if cfg.RealtimeURL != nil {
		relay := jobapi.NewRelay(cfg.RealtimeURL, app.TuneGCFor, cfg.Log)
		config.Realtime = relay
		parts = append(parts, lifecycle.Part{Name: "relay", Run: relay.Run})
	}
	g, err := gateway.New(config)
	if err != nil {
		return err
	}
	return lifecycle.Run(ctx, cfg.Log, func() { cfg.Log.Info("listening", "address", l.Addr().String()) },
		append(parts,
			app.Health(ctx, cfg.HealthListen, g.Ready, cfg.Admin()),
			lifecycle.Part{Name: "gateway", Run: g.Run},
			app.WatchCatalog(conn, g.Use),
			app.WatchKeys(conn, func(ring sign.Ring) {
				store.UseKeys(ring)
				g.UseKeys(ring)
			}),
		)...,
	)
}
