package invoke

import (
	"context"
	"net"
	"sync"
	"time"
)

// answerGrace is how long after a failed write an answer is still read.
const answerGrace = 2 * time.Second

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := dialer()
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return newPatientConn(c), nil
}

func dialer() net.Dialer { return net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second} }

// patientConn is a connection whose failed writes wait until all that the function has sent is read. A function that
// answers early, without reading a large body, closes the connection: net/http's transport would take the failed write
// for the end, and drop the answer, such as a 429, that has come already.
type patientConn struct {
	net.Conn
	once  sync.Once
	ended chan struct{} // nothing more is to be read
}

func newPatientConn(c net.Conn) *patientConn {
	return &patientConn{Conn: c, ended: make(chan struct{})}
}

// Read implements net.Conn.
func (c *patientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.end()
	}
	return n, err
}

// Write implements net.Conn.
func (c *patientConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		t := time.NewTimer(answerGrace)
		defer t.Stop()
		select {
		case <-c.ended:
		case <-t.C:
		}
	}
	return n, err
}

// Close implements net.Conn.
func (c *patientConn) Close() error {
	c.end()
	return c.Conn.Close()
}

func (c *patientConn) end() { c.once.Do(func() { close(c.ended) }) }
