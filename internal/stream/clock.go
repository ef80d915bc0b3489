package stream

import (
	"sync"
	"time"
)

// clock is the server's time, as far as its answers tell. Whatever is computed with times that the server has written,
// such as when a message was stored or is due, is computed with this clock: that of this machine may show another time.
// Between two answers it goes on by this machine's monotonic clock.
type clock struct {
	mu     sync.Mutex
	server time.Time // the server's time at local; zero before its first answer
	local  time.Time
}

// set takes the time of an answer that has just come.
func (c *clock) set(server time.Time) {
	if server.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server, c.local = server, time.Now()
}

// notBefore moves the clock forward to a time that the server has written.
func (c *clock) notBefore(server time.Time) {
	if c.now().Before(server) {
		c.set(server)
	}
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server.IsZero() {
		return time.Now()
	}
	return c.server.Add(time.Since(c.local))
}

// Clock is the server's.
type Clock interface{ Now() time.Time }

// Now is the time at the server. Before OpenReader it is this machine's.
func (c *Conn) Now() time.Time { return c.clock.now() }
