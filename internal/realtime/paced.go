package realtime

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// paced is a connection whose client takes what is written within writeTimeout. It writes without waiting where it can:
// the way that waits is half of what telling many clients costs. Each write is whole before another begins.
type paced struct {
	net.Conn
	raw syscall.RawConn

	mu   sync.Mutex // held by who writes
	rest []byte     // what was begun
	over bool       // the last was written
	// Of the attempt to write; try is attempt, made once.
	try  func(fd uintptr) bool
	todo []byte
	n    int
	err  error

	late struct { // what came while another wrote
		mu     sync.Mutex
		writes []byte
	}
}

// newPaced returns conn paced: a TCP connection.
func newPaced(conn net.Conn) (*paced, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a connection of type %T has no socket", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &paced{Conn: conn, raw: raw}
	p.try = p.attempt
	return p, nil
}

// Write implements io.Writer, for frames of the library: nothing follows a close frame.
func (p *paced) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.writeNext(b, true)
	if len(b) > 0 && b[0] == closeOpcode {
		p.over = true
	}
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// write implements eventConn.
func (p *paced) write(b []byte, wait bool) error {
	if wait {
		p.mu.Lock()
	} else if !p.mu.TryLock() {
		p.late.mu.Lock()
		p.late.writes = append(p.late.writes, b...)
		p.late.mu.Unlock()
		return errWait
	}
	defer p.mu.Unlock()
	return p.writeNext(b, wait)
}

// last writes what is the last: nothing follows it, though others may write. The error is errWait, and b was not begun,
// if something else is still to be written.
func (p *paced) last(b []byte) error {
	if !p.mu.TryLock() {
		return errWait
	}
	defer p.mu.Unlock()
	if err := p.writeNext(nil, false); err != nil {
		return err
	}
	err := p.writeNext(b, false)
	p.over = true
	if errors.Is(err, errWait) {
		return nil // a client that doesn't take this either is cut off
	}
	return err
}

// writeNext writes after what is still to be written. The caller holds mu.
func (p *paced) writeNext(b []byte, wait bool) error {
	if p.over {
		return nil
	}
	p.late.mu.Lock()
	late := p.late.writes
	p.late.writes = nil
	p.late.mu.Unlock()
	if len(p.rest)+len(late) > 0 {
		b = append(append(p.rest, late...), b...)
		p.rest = nil
	}
	if len(b) == 0 {
		return nil
	}
	p.todo, p.n, p.err = b, 0, nil
	err := p.raw.Write(p.try)
	p.todo = nil
	if err = errors.Join(err, p.err); err != nil {
		return err
	}
	switch b = b[p.n:]; {
	case len(b) == 0:
		return nil
	case !wait:
		p.rest = append([]byte(nil), b...)
		return errWait
	}
	if err := p.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := p.Conn.Write(b); err != nil {
		return err
	}
	return p.SetWriteDeadline(time.Time{}) // else the next attempt would fail
}

// attempt writes what the connection takes now. It reports that it is done.
func (p *paced) attempt(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), p.todo)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
		case err != nil:
			p.err = err
		default:
			p.n = n
		}
		return true
	}
}
