package app

import "testing"

// TestGCPercent: the more idle connections, the smaller the proportion of garbage.
func TestGCPercent(t *testing.T) {
	for idle, want := range map[int64]int{0: 400, 500: 400, 1_000: 200, 4_000: 50, 8_000: 25, 100_000: 25} {
		if got := gcPercentFor(idle); got != want {
			t.Errorf("%d idle connections: %d %%, want %d", idle, got, want)
		}
	}
}
