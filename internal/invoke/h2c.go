package invoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// HTTP/2 by prior knowledge has ways to give no answer that HTTP/1.1 has not.
var (
	// errNoHTTP2: who listens there speaks something else. No request can have reached a function.
	errNoHTTP2 = errors.New("the function does not speak HTTP/2 without TLS, which its protocol h2c is")
	// errNotTaken: the function closed the connection before it said anything, or refused the stream (REFUSED_STREAM,
	// GOAWAY), again and again. It may be the record's doing.
	errNotTaken = errors.New("the request was not taken")
)

const (
	// maxSentAgain is how often net/http may send a request again that was not processed, here: one refusal costs it up to
	// two. It would go on for a minute, which is past most timeouts; the limiter's pauses come sooner.
	maxSentAgain = 2
	// deadAfter is how long what was sent may stay unacknowledged by the peer's TCP. All calls share a connection, so one
	// that is dead would be the end of all until the kernel gives up by itself, after a quarter of an hour. A ping of HTTP/2
	// would tell too, but also of a function that is only busy.
	deadAfter      = 30 * time.Second
	tcpUserTimeout = 0x12 // of linux/tcp.h, in which package syscall lacks it; milliseconds
)

// priorKnowledge is a transport that speaks HTTP/2 without TLS, and nothing else (RFC 9113, section 3.3).
type priorKnowledge struct{ *http.Transport }

func newPriorKnowledge(maxIdle int) priorKnowledge {
	t := transport(maxIdle)
	t.DialContext = dialH2C
	t.Protocols = new(http.Protocols)
	t.Protocols.SetUnencryptedHTTP2(true)
	return priorKnowledge{t}
}

// RoundTrip implements http.RoundTripper. It says by errNoHTTP2 or errNotTaken what net/http's error leaves open.
func (p priorKnowledge) RoundTrip(req *http.Request) (*http.Response, error) {
	var used atomic.Pointer[patientConn]
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if c, ok := info.Conn.(*patientConn); ok {
				used.Store(c)
			}
		},
	}))
	if again := req.GetBody; again != nil {
		left := maxSentAgain
		req.GetBody = func() (io.ReadCloser, error) {
			if left--; left < 0 {
				return nil, fmt.Errorf("%w: the function refuses the stream", errNotTaken)
			}
			return again()
		}
	}
	resp, err := p.Transport.RoundTrip(req)
	if err == nil {
		return resp, nil
	}
	if c := used.Load(); c != nil {
		if p, ok := c.Conn.(*prefaceConn); ok && p.why.Load() != nil {
			err = *p.why.Load() // net/http may only know that it can't use the connection
		}
	}
	return nil, err
}

func dialH2C(ctx context.Context, network, address string) (net.Conn, error) {
	d := dialer()
	d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
		if runtime.GOOS != "linux" {
			return nil // elsewhere it is another option, or none
		}
		cerr := raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(deadAfter/time.Millisecond))
		})
		return errors.Join(cerr, err)
	}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return newPatientConn(&prefaceConn{Conn: c}), nil // in this order: who has waited for the end of reading finds why
}

// prefaceConn is a connection that fails unless what the peer says begins with a SETTINGS frame, as RFC 9113, section 3.4
// has it.
type prefaceConn struct {
	net.Conn
	first []byte                // of what was read, until it is enough to tell; of Read only
	why   atomic.Pointer[error] // the peer did not begin so
}

// typeAt is the place of the type in a frame's header.
const (
	typeAt       = 3
	typeSettings = 4
)

// Read implements net.Conn.
func (c *prefaceConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if len(c.first) > typeAt {
		return n, err
	}
	c.first = append(c.first, p[:min(n, 64)]...)
	var why error
	switch {
	case len(c.first) > typeAt && c.first[typeAt] == typeSettings:
		return n, err
	case len(c.first) > typeAt, err != nil && len(c.first) > 0:
		why = fmt.Errorf("%w: it answers %q", errNoHTTP2, c.first)
	case err != nil:
		why = fmt.Errorf("%w: the function has not said a word of HTTP/2: %w", errNotTaken, err)
	default:
		return n, err
	}
	c.why.Store(&why)
	return 0, why
}
