package realtime

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// faulty is a connection whose reads of states can be made to fail, or to wait.
type faulty struct {
	*stream.Conn
	fail atomic.Bool
	gate atomic.Pointer[chan struct{}]
}

// Job implements stream.Jobs.
func (f *faulty) Job(ctx context.Context, q catalog.Key, id stream.JobKey) (*stream.JobState, error) {
	if c := f.gate.Load(); c != nil {
		select {
		case <-*c:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if f.fail.Load() {
		return nil, errors.New("no leader")
	}
	return f.Conn.Job(ctx, q, id)
}

func startFaulty(t *testing.T) (*bench, *faulty) {
	t.Helper()
	b := start(t)
	f := &faulty{Conn: b.conn}
	b.server.cfg.Conn = f
	return b, f
}

// TestASlowResultHoldsUpNobody: results that can't be read now, of as many jobs as there are senders, delay no other
// job's states.
func TestASlowResultHoldsUpNobody(t *testing.T) {
	b, f := startFaulty(t)
	listen := func() (*work, *eventClient) {
		w := b.submit()
		w.do(w.begin)
		c := must[*eventClient](t)(b.listen(t.Context(), ownpath.Jobs+w.text+"/events", ""))
		t.Cleanup(c.close)
		must[event](t)(c.next())
		return w, c
	}
	var done []*work
	var clients []*eventClient
	for range 2 * runtime.GOMAXPROCS(0) {
		w, c := listen()
		done, clients = append(done, w), append(clients, c)
	}
	other, c := listen()
	gate := make(chan struct{})
	f.gate.Store(&gate)
	for _, w := range done {
		w.do(func(ctx context.Context) error { return w.succeed(ctx, "text/plain", "hi") })
	}
	if err := job.Alive(t.Context(), b.conn, other.at.Callback(), &job.Progress{Percent: 50}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	e := must[event](t)(c.next())
	if d := time.Since(begin); e.doc.Status != string(job.Running) || d > showTimeout/2 {
		t.Errorf("%s after %s", e.doc.Status, d)
	}
	f.gate.Store(nil)
	close(gate)
	for _, c := range clients {
		if e := must[event](t)(c.next()); e.doc.Status != string(job.Succeeded) || e.doc.Result == nil || string(e.doc.Result.Data) != `"hi"` {
			t.Errorf("%+v", e)
		}
	}
}

// collector is a wire that keeps what it is to send.
type collector struct {
	wire
	docs []*shownDoc
}

func (n *collector) state(t told, _ bool) error {
	if t.doc != nil {
		n.docs = append(n.docs, t.doc)
	}
	return nil
}

// TestALookThatFailsHoldsUpNothing: what was pushed is told all the same, and the connection goes on.
func TestALookThatFailsHoldsUpNothing(t *testing.T) {
	b, f := startFaulty(t)
	sub := &subscription{s: b.server, wake: func() {}, open: true}
	defer sub.close()
	var last *followed
	for range 3 {
		w := b.submit()
		w.do(w.begin)
		id, maxAge, err := b.server.parse(w.text)
		if err != nil {
			t.Fatal(err)
		}
		last = sub.newJob(id, w.text, maxAge, "")
		sub.follow(last)
		if got := must[told](t)(sub.next(t.Context())); got.doc == nil {
			t.Fatal(got)
		}
	}
	s, _, err := job.Get(t.Context(), b.conn, last.id, last.maxAge, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	last.version-- // s is news
	f.fail.Store(true)
	sub.lookAgain()
	last.Changed(s)
	n := &collector{}
	l := &listener{s: b.server, updates: sub, wire: n, ctx: t.Context(), closed: true}
	if c, ok := l.flush(); c != nil || !ok || len(n.docs) != 1 {
		t.Errorf("told %d states; it ends with %v", len(n.docs), c)
	}
}

// sink is an eventConn that keeps what is written.
type sink struct{ bytes.Buffer }

func (s *sink) Close() error { return nil }

func (s *sink) write(b []byte, _ bool) error {
	s.Write(b)
	return nil
}

// TestTheIDOfAnEventStays when the connection is closed meanwhile: an empty one would have the client told again.
func TestTheIDOfAnEventStays(t *testing.T) {
	b := start(t)
	w := b.submit()
	w.do(w.begin)
	l := &listener{s: b.server, sending: true}
	f := &subscription{s: b.server, wake: func() {}}
	l.updates = f
	id, maxAge, err := b.server.parse(w.text)
	if err != nil {
		t.Fatal(err)
	}
	f.follow(f.newJob(id, w.text, maxAge, ""))
	got := must[told](t)(f.next(t.Context()))
	f.close()
	out := &sink{}
	if err := (&eventStream{listener: l, conn: out}).state(got, false); err != nil || !strings.Contains(out.String(), "\nid: "+got.doc.version+"\n") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// TestNothingFollowsACloseFrame (RFC 6455, section 5.5.1), though a state comes before the client has answered it.
func TestNothingFollowsACloseFrame(t *testing.T) {
	b := start(t)
	w := b.submit()
	w.do(w.begin)
	conn := must[net.Conn](t)(net.Dial("tcp", strings.TrimPrefix(b.url, "http://")))
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
	fmt.Fprintf(conn, "GET %ssocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", ownpath.Jobs)
	r := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols { //nolint:bodyclose // there is none
		t.Fatal(resp, err)
	}
	send := func(m []byte) {
		h := []byte{textOpcode, 0x80 | 126, byte(len(m) >> 8), byte(len(m)), 0, 0, 0, 0}
		if _, err := conn.Write(append(h, m...)); err != nil {
			t.Fatal(err)
		}
	}
	read := func() (first byte, err error) {
		var h [4]byte
		if _, err := io.ReadFull(r, h[:2]); err != nil {
			return 0, err
		}
		n := int(h[1])
		if n == 126 {
			if _, err := io.ReadFull(r, h[2:]); err != nil {
				return 0, err
			}
			n = int(h[2])<<8 | int(h[3])
		}
		_, err = io.CopyN(io.Discard, r, int64(n))
		return h[0], err
	}
	watch, err := json.Marshal(request{Watch: w.text})
	if err != nil {
		t.Fatal(err)
	}
	send(watch)
	if first, err := read(); first != textOpcode || err != nil {
		t.Fatal(first, err)
	}
	send([]byte("\xff\xff"))
	if first, err := read(); first != closeOpcode || err != nil {
		t.Fatal(first, err)
	}
	if err := job.Alive(t.Context(), b.conn, w.at.Callback(), &job.Progress{Percent: 50}); err != nil {
		t.Fatal(err)
	}
	if first, err := read(); err == nil {
		t.Errorf("a frame that begins with %x follows", first)
	}
}

// TestEventsOverHTTP2Stay though nothing happens: a write's deadline ends with the write.
func TestEventsOverHTTP2Stay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes eleven seconds")
	}
	b := start(t)
	b.overHTTP2()
	w := b.submit()
	w.do(w.begin)
	c := must[*eventClient](t)(b.listen(t.Context(), ownpath.Jobs+w.text+"/events", ""))
	defer c.close()
	must[event](t)(c.next())
	ended := make(chan error, 1)
	go func() {
		_, err := c.next()
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Error(err)
	case <-time.After(writeTimeout + time.Second):
	}
	w.do(func(ctx context.Context) error { return w.succeed(ctx, "text/plain", "done") })
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
