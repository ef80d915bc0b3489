package orchestrator

import (
	"slices"
	"testing"
)

// Whoever tunes memory by the number is told when it has doubled or halved, and not again and again around one value.
func TestWaitsAreToldOf(t *testing.T) {
	var told []int64
	w := waits{tell: func(n int64) { told = append(told, n) }}
	for range 10_000 {
		w.add(1)
	}
	for range 1000 {
		w.add(-1)
		w.add(1)
	}
	for range 10_000 {
		w.add(-1)
	}
	if want := []int64{2048, 4096, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1, 0}; !slices.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
	(&waits{}).add(1 << 20) // nobody asks
}
