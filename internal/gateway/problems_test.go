package gateway

import (
	"context"
	"fmt"
	"testing"

	"github.com/weir-dev/weir/internal/stream"
)

// TestALostConnectionIsNoClientThatWentAway: a lost connection to NATS cancels what was in flight, as a client that
// hangs up cancels its request; only the former's client is there to be answered.
func TestALostConnectionIsNoClientThatWentAway(t *testing.T) {
	for title, err := range map[string]error{
		"Storage is not available": fmt.Errorf("write: %w: %w", stream.ErrUnavailable, context.Canceled),
		"The client went away":     fmt.Errorf("write: %w", context.Canceled),
	} {
		if p := problemOf(err); p.Title != title || p.Status != 503 {
			t.Errorf("%v: got %d %q, want %q", err, p.Status, p.Title, title)
		}
	}
}
