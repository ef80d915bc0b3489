package chaos_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/testkit/processes"
)

// TestKillEverything kills the whole local process at random moments under load, some of them while it
// still starts, and starts it again on the same data: every order that got a 202 is a row, once.
// WEIR_SEED repeats the moments of an earlier run as far as they can be repeated.
func TestKillEverything(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("WEIR_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("WEIR_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))

	w := newWeir(t, manifests(t))
	w.binary = filepath.Join(parts.raceBin, "weir")
	w.up()
	l := newLoad(t, w.addr, 64, 0)
	l.start()
	kills, early := size(10, 12, 40), 0
	for i := range kills {
		if i%4 == 3 { // in the middle of its start
			hold(t, time.Duration(r.Int64N(int64(700*time.Millisecond))))
			early++
		} else {
			w.waitReady()
			l.waitAccepted(1)
			hold(t, time.Duration(r.Int64N(int64(size[time.Duration](1500, 1500, 4000)*time.Millisecond))))
		}
		w.Kill()
		checkRaces(t, w.Child)
		w.start()
	}
	w.waitReady()
	l.waitAccepted(100)
	l.finish()
	rows := l.verify(false)
	t.Logf("%d kills, %d of them while it started; %d orders sent, %d accepted, %d rows", kills, early, l.sent(), l.acceptedCount(), rows)
	w.Terminate()
	checkRaces(t, w.Child)
}

// checkRaces looks for the race detector's reports: a killed process can't report them by its exit code.
func checkRaces(t *testing.T, c *processes.Child) {
	t.Helper()
	if log := c.Log(); strings.Contains(log, "DATA RACE") {
		t.Errorf("a data race in %s:\n%s", c.Name, log[strings.Index(log, "DATA RACE"):][:min(6000, len(log)-strings.Index(log, "DATA RACE"))])
	}
}
