// Package realtime puts the realtime service together.
package realtime

import (
	"context"
	"fmt"
	"net"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/realtime"
	"github.com/weir-dev/weir/internal/stream"
)

// PingInterval detects a NATS server that hangs within a second.
const PingInterval = stream.DefaultPingInterval

// Run serves the jobs of the published catalog until ctx is cancelled, then drains.
func Run(ctx context.Context, cfg app.Config, conn *stream.Conn) error {
	app.TuneGCFor(realtime.DefaultMaxConnections)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s (WEIR_LISTEN): %w", cfg.Listen, err)
	}
	s, err := realtime.New(realtime.Config{Listener: l, Conn: conn, Base: cfg.PathPrefix, DrainTimeout: cfg.DrainTimeout, Telemetry: cfg.Telemetry.Providers, Log: cfg.Log})
	if err != nil {
		return err
	}
	ready := func() (map[string]string, error) {
		revision, err := s.Ready()
		if err != nil {
			return nil, err
		}
		return map[string]string{"catalog": revision}, nil
	}
	return lifecycle.Run(ctx, cfg.Log, func() { cfg.Log.Info("listening", "address", l.Addr().String()) },
		app.Health(ctx, cfg.HealthListen, ready, cfg.Admin()),
		lifecycle.Part{Name: "realtime", Run: s.Run},
		app.WatchCatalog(conn, s.Use),
		app.WatchKeys(conn, s.UseKeys),
	)
}
