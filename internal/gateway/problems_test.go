package gateway

import (
	"context"
	"fmt"
	"testing"

	"github.com/weir-dev/weir/internal/stream"
)

// TestALostConnectionIsNoClientThatWentAway: what was under way when NATS went is cancelled, as is the request of a
// client that hung up; the client who is told is the former's.
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
