package localdb_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/localdb"
)

// victimDir, when set, makes the test binary a starter that waits to be
// killed: see TestKilledStarter.
const victimDir = "LOCALDB_TEST_VICTIM_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		os.Exit(victim(dir))
	}
	goleak.VerifyTestMain(m)
}

func victim(dir string) int {
	db, err := localdb.Start(context.Background(), localdb.Config{Dir: dir, Fast: true})
	if err != nil {
		fmt.Fprintln(os.Stdout, "error", err)
		return 1
	}
	fmt.Fprintln(os.Stdout, "started", db.PostgresPID(), db.PgBouncerPID())
	select {}
}
