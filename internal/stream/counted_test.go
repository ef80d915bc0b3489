package stream

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestFormerStreams: a stream that had no leader for a moment is written by counted subjects again after a second; one of the
// version before is asked ever less often; what is gone is forgotten.
func TestFormerStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f formerStreams
		f.note("a")
		time.Sleep(formerLeast - 1) //nolint:forbidigo // synctest
		if !f.is("a") || f.is("b") {
			t.Error("it is not noted, or of another queue")
		}
		time.Sleep(time.Nanosecond) //nolint:forbidigo // synctest
		if f.is("a") {
			t.Error("it stays so longer than a second")
		}
		f.forget("a")
		f.note("a")
		if got := f.of["a"].wait; got != formerLeast {
			t.Errorf("after it took counted ones it is %s", got)
		}
		for range 10 {
			f.note("a")
		}
		if got := f.of["a"].wait; got != formerMost {
			t.Errorf("one of the version before waits %s", got)
		}
		time.Sleep(3 * formerMost) //nolint:forbidigo // synctest
		f.note("b")
		if _, there := f.of["a"]; there {
			t.Error("a queue that is gone is kept")
		}
	})
}
