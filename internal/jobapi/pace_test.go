package jobapi

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: a transfer may stop for a while and be slow, and not be kept open by a byte now and then.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{start: time.Now()}
		left := func() time.Duration { return time.Until(p.deadline()) }
		if got := left(); got != transferTimeout {
			t.Errorf("at the start: %s", got)
		}
		time.Sleep(transferTimeout - time.Second) //nolint:forbidigo // synctest
		p.bytes++
		if got := left(); got > 2*time.Second {
			t.Errorf("with one byte: %s", got)
		}
		p.bytes = 100 * minTransferRate
		if got := left(); got != transferTimeout {
			t.Errorf("ahead of its pace: %s", got)
		}
	})
}
