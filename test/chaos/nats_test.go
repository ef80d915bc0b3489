package chaos_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// outage is how long NATS is away, and inSeconds the bound for answers meanwhile: the promise is a second,
// what is added is for a machine that others keep busy.
const (
	natsOutage = 10 * time.Second
	inSeconds  = time.Second
	hangBound  = 1500 * time.Millisecond
)

// TestNATSStops stops NATS under load and starts it again: meanwhile every answer is a 503 within a
// second; nothing is restarted, and every 202 is a row.
func TestNATSStops(t *testing.T) {
	nats := newNATSServer(t)
	srv := nats.start()
	c := newCluster(t, nats, manifests(t), orderWriter(t))
	c.gateway()
	c.dispatcher("dispatcher-0")
	l := newLoad(t, c.addr, 64, 0)
	l.every = 5 * time.Millisecond
	l.start()
	l.waitAccepted(500)

	down := time.Now()
	srv.Stop()
	gone := time.Now()
	hold(t, natsOutage)
	l.outage(down, gone, time.Now(), inSeconds)
	nats.start()
	back := time.Now()
	l.waitAccepted(1)
	t.Logf("stopping took %s; the first 202 came %s after the start", gone.Sub(down).Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
	l.waitAccepted(500)
	l.finish()
	l.verify(false)
	c.settled()
}

// outage checks the answers of an outage: all 503 from gone on, and within bound.
func (l *load) outage(down, gone, end time.Time, bound time.Duration) {
	l.t.Helper()
	slowest, refused := l.slowest(down, end, http.StatusServiceUnavailable)
	_, accepted := l.slowest(gone.Add(bound), end, http.StatusAccepted)
	l.t.Logf("%d answers of 503 in %s without NATS, the slowest answer took %s", refused, end.Sub(down).Round(time.Millisecond), slowest.Round(time.Millisecond))
	if refused < l.conns {
		l.t.Errorf("only %d answers of 503", refused)
	}
	if accepted > 0 {
		l.t.Errorf("%d answers of 202 without NATS", accepted)
	}
	if slowest > bound {
		l.t.Errorf("an answer took %s; want at most %s", slowest, bound)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// A request that is still without an answer now is not in the list: the load records them when they end.
	if l.hung > 0 || l.unknown > 0 {
		l.t.Errorf("%d requests hung, %d connections broke", l.hung, l.unknown)
	}
}

// TestNATSHangs makes NATS hang without closing its sockets, as a machine does that lost its disk or its
// network: with orders of 1 KiB, and with large ones that fill the socket's buffers.
func TestNATSHangs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes int
	}{{"small", 0}, {"large", 250_000}} {
		t.Run(tt.name, func(t *testing.T) {
			nats := newNATSServer(t)
			srv := nats.startChild()
			c := newCluster(t, nats, manifests(t), orderWriter(t))
			c.gateway()
			c.dispatcher("dispatcher-0")
			l := newLoad(t, c.addr, 32, 0)
			l.every = 20 * time.Millisecond
			if tt.bytes > 0 {
				l.every = 100 * time.Millisecond
				l.body = l.large(tt.bytes)
			}
			l.start()
			l.waitAccepted(100)

			down := time.Now()
			srv.signal(syscall.SIGSTOP)
			gone := time.Now()
			hold(t, size[time.Duration](4, 5, 20)*time.Second)
			end := time.Now()
			l.outage(down, gone, end, hangBound)
			srv.signal(syscall.SIGCONT)
			l.waitAccepted(1)
			t.Logf("the first 202 came %s after NATS went on", time.Since(end).Round(time.Millisecond))
			l.waitAccepted(100)
			l.finish()
			l.verify(false)
			c.settled()
		})
	}
}

// large makes orders of about n bytes that don't compress.
func (l *load) large(n int) func(int) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	noise := make([]byte, 2*n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = letters[r.IntN(len(letters))]
	}
	return func(i int) []byte {
		b := fmt.Appendf(nil, `{"sku":%q,"n":%d,"note":"`, l.tag, i)
		at := i * 7919 % n
		return append(append(b, noise[at:at+n]...), `"}`...)
	}
}
