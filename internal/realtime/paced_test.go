package realtime

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/testkit"
)

// pacedPair is a connection and its client's side, with buffers that hold little.
func pacedPair(t *testing.T) (*paced, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), conn.Close() })
	err = errors.Join(conn.(*net.TCPConn).SetWriteBuffer(4<<10), client.(*net.TCPConn).SetReadBuffer(4<<10), client.SetDeadline(time.Now().Add(testkit.Patience)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPaced(conn)
	if err != nil {
		t.Fatal(err)
	}
	return p, client
}

// TestWritesAreWhole: what can't be written without waiting is written by the next who may wait, whole and in order, also
// what came while another waited; nothing follows the last.
func TestWritesAreWhole(t *testing.T) {
	p, client := pacedPair(t)
	var want bytes.Buffer
	next := byte('a')
	message := func(n int) []byte {
		m := bytes.Repeat([]byte{next}, n)
		next++
		want.Write(m)
		return m
	}
	for { // until the client's side is full
		err := p.write(message(8<<10), false)
		if errors.Is(err, errWait) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := p.last(message(0)); !errors.Is(err, errWait) {
		t.Errorf("the last before the rest: %v", err)
	}
	waited := make(chan error, 1)
	m := message(100)
	go func() {
		_, err := p.Write(m) // as a ping
		waited <- err
	}()
	testkit.Eventually(t, "the other waits", func() bool {
		free := p.mu.TryLock()
		if free {
			p.mu.Unlock()
		}
		return !free
	})
	if err := p.write(message(200), false); !errors.Is(err, errWait) {
		t.Errorf("while another waits: %v", err)
	}
	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(client)
		got <- all
	}()
	if err := errors.Join(<-waited, p.write(nil, true), p.write(message(300), false)); err != nil {
		t.Fatal(err)
	}
	end := message(10)
	if err := p.last(end); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.write([]byte("late"), true), p.Close()); err != nil {
		t.Errorf("after the last: %v", err)
	}
	if all := <-got; !bytes.Equal(all, want.Bytes()) {
		t.Errorf("%d bytes, want %d, or in another order", len(all), want.Len())
	}
}

// TestWriteToTheGone: errors come out, and the deadline of one write is none of the next's.
func TestWriteToTheGone(t *testing.T) {
	p, client := pacedPair(t)
	if err := p.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := p.write([]byte("x"), false); err == nil {
		t.Error("a write after its deadline")
	}
	if err := p.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	testkit.Eventually(t, "the write fails", func() bool { return p.write([]byte("x"), false) != nil })
}
