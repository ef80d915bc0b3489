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

// TestGCPercentOfThoseThatWait: the more executions wait, the smaller the proportion of garbage.
func TestGCPercentOfThoseThatWait(t *testing.T) {
	for waiting, want := range map[int64]int{0: 400, 25_000: 400, 50_000: 200, 200_000: 50, 1_000_000: 50} {
		if got := gcPercentWaiting(waiting); got != want {
			t.Errorf("%d executions wait: %d %%, want %d", waiting, got, want)
		}
	}
}
