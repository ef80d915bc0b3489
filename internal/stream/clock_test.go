package stream

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestClock: the server's clock goes on by ours, and moves only as the server says.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		if got := c.now(); !got.Equal(time.Now()) {
			t.Errorf("before any answer it is %s", got)
		}
		server := time.Now().Add(-2 * time.Hour)
		c.set(server)
		time.Sleep(time.Minute) //nolint:forbidigo // synctest
		if got := c.now(); !got.Equal(server.Add(time.Minute)) {
			t.Errorf("a minute later it is %s", got)
		}
		c.set(time.Time{}) // an answer without a time
		c.notBefore(server)
		if got := c.now(); !got.Equal(server.Add(time.Minute)) {
			t.Errorf("an older time has set it to %s", got)
		}
		c.notBefore(server.Add(time.Hour))
		if got := c.now(); !got.Equal(server.Add(time.Hour)) {
			t.Errorf("a time that it had not reached has set it to %s", got)
		}
	})
}
