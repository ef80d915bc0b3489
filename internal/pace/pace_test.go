package pace

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: a transfer may stop for a while and be slow, and not be kept open by a byte now and then.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const grace, rate = 30 * time.Second, 16 << 10
		p := Pace{Start: time.Now(), Grace: grace, Rate: rate}
		left := func() time.Duration { return time.Until(p.Deadline()) }
		if got := left(); got != grace {
			t.Errorf("at the start: %s", got)
		}
		time.Sleep(grace - time.Second) //nolint:forbidigo // synctest
		p.Bytes++
		if got := left(); got > 2*time.Second {
			t.Errorf("with one byte: %s", got)
		}
		p.Bytes = 100 * rate
		if got := left(); got != grace {
			t.Errorf("ahead of its pace: %s", got)
		}
	})
}
