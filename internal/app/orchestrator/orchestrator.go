// Package orchestrator puts the orchestrator service together.
package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/objects"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/egress"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/orchestrator"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
)

// PingInterval is the dispatcher's: whoever waits for an execution waits for NATS with it.
const PingInterval = 2 * time.Second

// serviceChars are those of a Knative Service's name.
const serviceChars = "abcdefghijklmnopqrstuvwxyz0123456789-"

// maxIdle is how many idle connections are kept to each function.
const maxIdle = 256

// Run runs executions until ctx is cancelled, then hands them over.
func Run(ctx context.Context, cfg app.Config, conn *stream.Conn) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s (WEIR_LISTEN): %w", cfg.Listen, err)
	}
	defer func() { _ = l.Close() }() // the server has closed it on an orderly stop
	policy, err := egress.ParsePolicy(cfg.EgressAllow)
	if err != nil {
		return fmt.Errorf("WEIR_EGRESS_ALLOW: %w", err)
	}
	policy.PlainHTTP = cfg.EgressAllow != "" // what is within a cluster often has no certificate
	store, err := objects.Open(cfg, "orchestrator")
	if err != nil {
		return err
	}
	defer store.Close()
	caller := invoke.NewCaller(maxIdle, cfg.Telemetry.Providers)
	defer caller.Close()
	o, err := orchestrator.New(orchestrator.Config{
		Conn: conn, Caller: caller, Objects: store, Batch: cfg.Batch, Egress: policy, Log: cfg.Log, DrainTimeout: cfg.DrainTimeout, Telemetry: cfg.Telemetry.Providers,
		// A container that is started again has the name of the one before, and takes its partitions over at once. Should that one
		// still live it can write nothing: the log has a fence. (A dispatcher must wait, for calls that are in flight.)
		Owner: cfg.Instance, Base: cfg.PathPrefix, Waits: app.TuneGCForWaiting,
		Function: func(namespace, name string) (catalog.Function, bool) {
			if len(name) > 63 || strings.Trim(name, serviceChars) != "" || strings.Trim(name, "-") != name || name == "" {
				return catalog.Function{}, false // it may come from data, and must not lead to another host
			}
			return catalog.Function{Name: name, URL: catalog.ServiceURL(catalog.Key{Namespace: namespace, Name: name})}, true
		},
	})
	if err != nil {
		return err
	}
	ready := func() (map[string]string, error) {
		if conn.Ready() != nil {
			return nil, errors.New("NATS can't be reached; the log says why")
		}
		return map[string]string{}, nil
	}
	admin := cfg.Admin()
	admin.Machines = o.API()
	return lifecycle.Run(ctx, cfg.Log, func() { cfg.Log.Info("listening", "address", l.Addr().String()) },
		app.Health(ctx, cfg.HealthListen, ready, admin),
		lifecycle.Part{Name: "orchestrator", Run: o.Run},
		lifecycle.Part{Name: "starts", Run: func(ctx context.Context, ready func()) error { return o.ServeStarts(ctx, l, ready) }},
		app.WatchCatalog(conn, o.Use),
		app.WatchKeys(conn, func(ring sign.Ring) {
			store.UseKeys(ring)
			o.UseKeys(ring)
		}),
	)
}
