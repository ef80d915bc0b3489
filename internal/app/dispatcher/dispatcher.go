// Package dispatcher puts the dispatcher service together.
package dispatcher

import (
	"context"
	"crypto/rand"
	"errors"
	"math"
	"runtime/debug"
	"time"

	"github.com/weir-dev/weir/internal/app"
	"github.com/weir-dev/weir/internal/app/objects"
	"github.com/weir-dev/weir/internal/dispatcher"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/stream"
)

// PingInterval is longer than the gateway's: nobody waits for an answer, and giving up a connection too early means
// that blocks are redelivered.
const PingInterval = 2 * time.Second

// maxIdle is how many idle connections are kept to each function.
const maxIdle = 256

// programBytes is what the program's own pages take of a container's memory, about. Go's limit doesn't count them, and what
// the chart leaves beside it is less than that in a small container.
const programBytes = 16 << 20

// LeaveRoom lowers the process's memory limit, if there is one, by programBytes.
func LeaveRoom() {
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		debug.SetMemoryLimit(max(limit/2, limit-programBytes))
	}
}

// Run dispatches by the published catalog until ctx is cancelled, then drains.
func Run(ctx context.Context, cfg app.Config, conn *stream.Conn) error {
	caller := invoke.NewCaller(maxIdle, cfg.Telemetry.Providers)
	defer caller.Close()
	store, err := objects.Open(cfg, "dispatcher")
	if err != nil {
		return err
	}
	defer store.Close()
	// Not the instance's name alone: a restarted container keeps it, and would take its leases over at once, while
	// calls of the process before it are still in flight. So it waits for the lease like any other.
	// TestCapsOverRestart guards it.
	owner := cfg.Instance + "-" + rand.Text()
	d, err := dispatcher.New(dispatcher.Config{
		Conn: conn, Caller: caller, Objects: store, Owner: owner, CallbackURL: cfg.CallbackURL, DrainTimeout: cfg.DrainTimeout, Memory: cfg.Memory,
		Telemetry: cfg.Telemetry.Providers, Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	ready := func() (map[string]string, error) {
		switch revision := d.Revision(); {
		case conn.Ready() != nil:
			return nil, errors.New("NATS can't be reached; the log says why")
		case revision == "":
			return nil, errors.New("no catalog has come yet: the controller publishes it")
		default:
			return map[string]string{"catalog": revision}, nil
		}
	}
	return lifecycle.Run(ctx, cfg.Log, func() {},
		app.Health(ctx, cfg.HealthListen, ready, cfg.Admin()),
		lifecycle.Part{Name: "dispatcher", Run: func(ctx context.Context, ready func()) error {
			ready() // it waits for a catalog, which the next part brings
			return d.Run(ctx, func() {})
		}},
		app.WatchCatalog(conn, d.Use),
		app.WatchKeys(conn, d.UseKeys),
	)
}
