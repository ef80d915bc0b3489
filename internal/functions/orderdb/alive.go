package orderdb

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// prepareConn lets the pool replace a connection that was closed while it was idle, as by a restart of PgBouncer.
// pgxpool's own way is a ping, for which PgBouncer needs a server connection: with a full pool a call would wait
// query_wait_timeout for the ping, and again for its statement.
func prepareConn(_ context.Context, conn *pgx.Conn) (bool, error) {
	return alive(conn.PgConn().Conn()), nil
}

// alive looks at an idle connection's socket, and neither waits nor takes anything from it. A server that says
// something unasked says why it closes; should it be a mere notice, a new connection costs little.
func alive(conn net.Conn) bool {
	if wrapped, ok := conn.(*tls.Conn); ok {
		conn = wrapped.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	// Not raw.Read, which would wait for a Read: after a slow write pgx reads in the background until something comes.
	err = raw.Control(func(fd uintptr) {
		var peeked [1]byte
		_, _, err := syscall.Recvfrom(int(fd), peeked[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN || err == syscall.EINTR
	})
	return err == nil && quiet
}
