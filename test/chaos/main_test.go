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
	"path/filepath"
	"strconv"
	"testing"

	"github.com/weir-dev/weir/internal/localdb"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
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
	os.Exit(processes.Main(m, "chaos", poolSize, &parts.db, build))
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

// build compiles the binaries: without the race detector for speed, and with it, for the tests that kill them, when the
// tests themselves have it.
func build(ctx context.Context, dir string) error {
	parts.bin = filepath.Join(dir, "bin")
	parts.raceBin = parts.bin
	killed := []string{"./cmd/weir", "./services/gateway", "./services/dispatcher", "./services/realtime", "./services/orchestrator"}
	if err := processes.Build(ctx, parts.bin, append([]string{"./services/functions/order-writer"}, killed...)...); err != nil {
		return err
	}
	parts.nextBin = filepath.Join(dir, "next")
	if err := processes.Build(ctx, parts.nextBin, "-tags", "weirnext", "./services/gateway", "./services/dispatcher"); err != nil {
		return err
	}
	if !testkit.Race {
		return nil
	}
	parts.raceBin = filepath.Join(dir, "race")
	return processes.Build(ctx, parts.raceBin, append([]string{"-race"}, killed...)...)
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
