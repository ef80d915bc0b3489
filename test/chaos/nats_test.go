package chaos_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// natsOutage is how long NATS is away. Meanwhile answers are promised within a second, which half of them must keep on any
// machine; the bound for each has room for one that others keep busy, and is less than the time that a write waits for its
// acknowledgement.
const (
	natsOutage    = 10 * time.Second
	answerPromise = time.Second
	answerBound   = 3 * time.Second
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
	l.outage(down, gone, time.Now())
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
func (l *load) outage(down, gone, end time.Time) {
	l.t.Helper()
	slowest, refused := l.slowest(down, end, http.StatusServiceUnavailable)
	_, accepted := l.slowest(gone.Add(answerBound), end, http.StatusAccepted)
	l.t.Logf("%d answers of 503 in %s without NATS, the slowest answer took %s", refused, end.Sub(down).Round(time.Millisecond), slowest.Round(time.Millisecond))
	if refused < l.conns {
		l.t.Errorf("only %d answers of 503", refused)
	}
	if accepted > 0 {
		l.t.Errorf("%d answers of 202 without NATS", accepted)
	}
	if slowest > answerBound {
		l.t.Errorf("an answer took %s; want at most %s", slowest, answerBound)
	}
	if median := l.percentile(0.5, http.StatusServiceUnavailable, down, end); median > answerPromise {
		l.t.Errorf("half of the answers took more than %s; want %s", median, answerPromise)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// A request that is still without an answer now is not in the list: the load records each when it ends.
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
			srv.Signal(syscall.SIGSTOP)
			gone := time.Now()
			hold(t, size[time.Duration](4, 5, 20)*time.Second)
			end := time.Now()
			l.outage(down, gone, end)
			srv.Signal(syscall.SIGCONT)
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

// frozen is a NATS server behind a wire that can be frozen: then nothing that is written to it is read any more, as
// with a socket whose buffers are full.
type frozen struct {
	srv   *localnats.Server
	stop  chan struct{} // closed while frozen
	ended chan struct{} // closed at the test's end
	wg    sync.WaitGroup
}

func (f *frozen) InProcessConn() (net.Conn, error) {
	up, err := f.srv.InProcessConn()
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	context.AfterFunc(f.context(), func() { _ = up.Close(); _ = near.Close(); _ = far.Close() })
	f.wg.Go(func() { f.relay(far, up) })
	f.wg.Go(func() { f.relay(up, far) })
	return near, nil
}

func (f *frozen) context() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	f.wg.Go(func() { <-f.ended; cancel() })
	return ctx
}

func (f *frozen) relay(from, to net.Conn) {
	buf := make([]byte, 4<<10)
	for {
		select {
		case <-f.stop:
			<-f.ended
			return
		default:
		}
		n, err := from.Read(buf)
		if err == nil {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// TestNATSHangsWithFullBuffers freezes the wire while writes are in flight: the client is blocked in a write, and all
// the same each caller that waits for a record gets an error within about a second.
func TestNATSHangsWithFullBuffers(t *testing.T) {
	nats := newNATSServer(t)
	f := &frozen{srv: nats.start(), stop: make(chan struct{}), ended: make(chan struct{})}
	t.Cleanup(func() { close(f.ended); f.wg.Wait() })
	conn, err := stream.Connect(stream.Config{URL: nats.url(), InProcess: f, Name: t.Name(), Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	q := catalog.Queue{Key: catalog.Key{Namespace: "default", Name: "orders"}, MaxBytes: 1 << 30, MaxAge: time.Hour, DeadLetterMaxAge: time.Hour}
	if err := errors.Join(conn.WaitUp(ctx), conn.EnsureQueue(ctx, q, 1)); err != nil {
		t.Fatal(err)
	}
	w := conn.NewWriter(q.Key, record.None)
	running, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(running) }()
	t.Cleanup(func() { stop(); <-done })

	body := bytes.Repeat([]byte("x"), 200<<10)
	write := func() error {
		id, err := record.NewID()
		if err != nil {
			return err
		}
		return w.Append(ctx, &record.Record{ID: id, Time: time.Now(), Source: "/test", Body: body})
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	close(f.stop)
	for i := range 3 {
		start := time.Now()
		err := write()
		took := time.Since(start)
		t.Logf("write %d: %v after %s", i, err, took.Round(time.Millisecond))
		if err == nil || took > answerBound {
			t.Errorf("write %d: %v after %s; want an error within %s", i, err, took, answerBound)
		}
	}
}
