package app

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/weir-dev/weir/internal/testkit"
)

// TestGarbageHasRoom: the less is alive, the larger is the proportion.
func TestGarbageHasRoom(t *testing.T) {
	for alive, want := range map[uint64]int{0: 400, 1 << 20: 400, 3 << 20: 400, 6 << 20: 200, 24 << 20: 50, 1 << 40: 25} {
		if got := percentFor(alive); got != want {
			t.Errorf("%d bytes alive: %d %%, want %d", alive, got, want)
		}
	}
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	TuneGC()
	held := make([]byte, 1<<30)
	testkit.Eventually(t, "much is alive, so the proportion is small", func() bool {
		runtime.GC()
		now := debug.SetGCPercent(minGCPercent)
		debug.SetGCPercent(now)
		return now == minGCPercent
	})
	runtime.KeepAlive(held)
}
