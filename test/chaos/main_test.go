// Package chaos_test breaks the whole system with real parts: the real binaries as child processes, a real
// PostgreSQL behind a real PgBouncer, a real NATS server, real HTTP over many connections. Each test shows
// one promise of docs/contracts.md while something is killed, stopped, hung or filled up.
//
// The plain run is cut to a few minutes; WEIR_LONG=1 runs the full sizes and outages, -short the smallest:
//
//	WEIR_LONG=1 go test -timeout 30m ./test/chaos/
package chaos_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/localdb"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/testkit"
)

// poolSize is below the calls that order-writer makes at once, so that PgBouncer's cap takes effect.
const poolSize = 4

// parts are what all tests of the package share; they don't run in parallel.
var parts struct {
	db  *localdb.DB
	bin string // folder of the binaries
	// raceBin holds them with the race detector; the same as bin when the tests run without it.
	raceBin string
	// nextBin holds gateway and dispatcher as the next version has them (internal/record/format_next.go).
	nextBin string
}

// natsDir, when set, makes the test binary a NATS server that can be stopped, hung and killed.
const (
	natsDir   = "WEIR_CHAOS_NATS_DIR"
	natsPort  = "WEIR_CHAOS_NATS_PORT"
	natsToken = "WEIR_CHAOS_NATS_TOKEN"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(natsDir); dir != "" {
		os.Exit(serveNATS(dir))
	}
	os.Exit(run(m))
}

func serveNATS(dir string) int {
	port, err := strconv.Atoi(os.Getenv(natsPort))
	if err == nil {
		_, err = localnats.Start(localnats.Config{Dir: dir, Port: port, Token: os.Getenv(natsToken)})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	select {} // until it is killed
}

// startTimeout bounds building the binaries, on a cold cache, and starting the database.
const startTimeout = 8 * time.Minute

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "weir-chaos-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, "building the binaries:", err)
		return 1
	}
	if parts.db, err = localdb.Start(ctx, localdb.Config{PoolSize: poolSize, Fast: true}); err != nil {
		fmt.Fprintln(os.Stderr, "starting the database:", err)
		return 1
	}
	code := m.Run()
	if err := parts.db.Stop(context.WithoutCancel(ctx)); err != nil {
		fmt.Fprintln(os.Stderr, "stopping the database:", err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// build compiles the binaries: without the race detector for speed, and with it, for the tests that kill them, when the
// tests themselves have it.
func build(ctx context.Context, dir string) error {
	parts.bin = filepath.Join(dir, "bin")
	parts.raceBin = parts.bin
	killed := []string{"./cmd/weir", "./services/gateway", "./services/dispatcher", "./services/realtime"}
	if err := goBuild(ctx, parts.bin, append([]string{"./services/functions/order-writer"}, killed...)...); err != nil {
		return err
	}
	parts.nextBin = filepath.Join(dir, "next")
	if err := goBuild(ctx, parts.nextBin, "-tags", "weirnext", "./services/gateway", "./services/dispatcher"); err != nil {
		return err
	}
	if !testkit.Race {
		return nil
	}
	parts.raceBin = filepath.Join(dir, "race")
	return goBuild(ctx, parts.raceBin, append([]string{"-race"}, killed...)...)
}

func goBuild(ctx context.Context, dir string, args ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dir + "/"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// long tells whether the full sizes were asked for.
func long() bool { return os.Getenv("WEIR_LONG") != "" }

// size picks by the way the tests were started.
func size[T any](short, plain, full T) T {
	switch {
	case long():
		return full
	case testing.Short():
		return short
	}
	return plain
}
