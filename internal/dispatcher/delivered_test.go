package dispatcher

import (
	"testing"

	"github.com/weir-dev/weir/internal/invoke"
)

// TestWhatIsNeverDelivered: a function that breaks off each request is busy a few times, and then has failed; any other
// outcome begins the count anew.
func TestWhatIsNeverDelivered(t *testing.T) {
	broken := invoke.Outcome{Class: invoke.NotNow, Undelivered: true}
	throttled := invoke.Outcome{Class: invoke.NotNow, Status: 429}
	e := &batchRun{}
	for i, step := range []struct {
		o    invoke.Outcome
		want invoke.Class
	}{
		{broken, invoke.NotNow},
		{broken, invoke.NotNow},
		{throttled, invoke.NotNow},
		{broken, invoke.NotNow},
		{broken, invoke.NotNow},
		{broken, invoke.NotNow},
		{broken, invoke.NotNow},
		{broken, invoke.Failed},
		{broken, invoke.NotNow},
	} {
		if got := e.delivered(step.o); got.Class != step.want {
			t.Errorf("step %d: %s, want %s", i, got.Class, step.want)
		}
	}
}
