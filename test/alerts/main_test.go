// Package alerts_test makes the cause of each of the chart's alerts happen in the real system and waits until a real
// Prometheus says that it fires, for what it should, and no other; then it mends the cause and waits until it is over. That
// an hour of normal work is silent is held by test/chart with promtool.
//
// The rules are the chart's as Helm renders them, with small thresholds of its values; only their durations are changed, all
// by the same factor: a minute of theirs is a second here. The gateway, the dispatcher and NATS are processes of their own or
// the real server, PostgreSQL, PgBouncer and its exporter are real. One part is the test's own: the controller is a process that
// has the controller's package depth and no Kubernetes.
package alerts_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/app"
	// What the binaries are made of: a test that has passed is run again when it changes.
	_ "github.com/weir-dev/weir/internal/app/dispatcher"
	_ "github.com/weir-dev/weir/internal/app/gateway"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/depth"
	"github.com/weir-dev/weir/internal/lifecycle"
	"github.com/weir-dev/weir/internal/localdb"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// asController, when set, makes the test binary a controller without Kubernetes.
const asController = "WEIR_ALERTS_CONTROLLER"

// asStandby, when set too, makes it one that doesn't lead.
const asStandby = "WEIR_ALERTS_STANDBY"

// parts are what the tests of the package share.
var parts struct {
	db  *localdb.DB
	bin string // folder of the binaries
}

// poolSize is of PgBouncer: few, so that a few clients use it up.
const poolSize = 2

func TestMain(m *testing.M) {
	if os.Getenv(asController) != "" {
		os.Exit(app.Main("controller", pingInterval, runController))
	}
	os.Exit(processes.Main(m, "alerts", poolSize, &parts.db, build))
}

// pingInterval is the controller's.
const pingInterval = 2 * time.Second

// runController is what of the controller the alerts see: what queues hold, by the package that measures it there. The test
// publishes the catalog in its stead.
func runController(ctx context.Context, cfg app.Config, conn *stream.Conn) error {
	depths, err := depth.New(conn, cfg.Telemetry.Providers, cfg.Log, nil)
	if err != nil {
		return err
	}
	ready := func() (map[string]string, error) { return nil, conn.Ready() }
	of := []lifecycle.Part{
		app.Health(ctx, cfg.HealthListen, ready, cfg.Admin()),
		app.WatchCatalog(conn, func(c *catalog.Catalog) { depths.Use(c.Queues) }),
	}
	if os.Getenv(asStandby) == "" {
		of = append(of, lifecycle.Part{Name: "depths", Run: func(ctx context.Context, ready func()) error {
			ready()
			return depths.Run(ctx)
		}})
	}
	return lifecycle.Run(ctx, cfg.Log, func() {}, of...)
}

func build(ctx context.Context, dir string) error {
	parts.bin = filepath.Join(dir, "bin")
	return processes.Build(ctx, parts.bin, "./services/gateway", "./services/dispatcher")
}
