package gateway

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections counts the server's open connections.
type connections struct {
	mu   sync.Mutex
	open int
	gone chan struct{} // closed while there are none
}

func newConnections() *connections {
	c := &connections{gone: make(chan struct{})}
	close(c.gone)
	return c
}

// observe is the server's ConnState.
func (c *connections) observe(_ net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s {
	case http.StateNew:
		if c.open++; c.open == 1 {
			c.gone = make(chan struct{})
		}
	case http.StateClosed, http.StateHijacked:
		if c.open--; c.open == 0 {
			close(c.gone)
		}
	}
}

// waitGone returns when no connection is open, after d, or when ctx ends.
func (c *connections) waitGone(ctx context.Context, d time.Duration) {
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-gone:
	case <-t.C:
	case <-ctx.Done():
	}
}
