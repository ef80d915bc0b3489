package chaos_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// tmpfs mounts a small file system, or skips the test.
func tmpfs(t testing.TB, megabytes int) string {
	t.Helper()
	dir := t.TempDir()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("SKIPPED: NOTHING was shown about a full disk: mounting a small file system takes root on Linux")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", megabytes), "weir-chaos", dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: NOTHING was shown about a full disk: a small file system can't be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

// TestDiskFull fills the disk under the queues while nothing drains them: answers turn 503, and when there is space
// again orders are accepted, after a restart (kill -9) and without one: every 202 is a row in the end.
func TestDiskFull(t *testing.T) {
	for _, tt := range []struct {
		name    string
		restart bool
	}{{"restarted", true}, {"left alone", false}} {
		t.Run(tt.name, func(t *testing.T) {
			disk := tmpfs(t, 32)
			port := processes.FreePort(t) // nothing listens there at first: the queue only grows
			w := newWeir(t, manifests(t), "--function", fmt.Sprintf("order-writer=http://127.0.0.1:%d", port))
			w.data = filepath.Join(disk, "nats")
			ballast := filepath.Join(disk, "ballast")
			if err := os.WriteFile(ballast, make([]byte, 24<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			w.up()
			l := newLoad(t, w.addr, 32, 0)
			start := time.Now()
			l.start()
			testkit.Eventually(t, "the disk is full", func() bool { return l.count(http.StatusServiceUnavailable) > l.conns })
			full := l.acceptedCount()
			slowest, refused := l.slowest(start, time.Now(), http.StatusServiceUnavailable)
			t.Logf("full after %d orders, %d answers of 503; the slowest answer took %s", full, refused, slowest.Round(time.Millisecond))
			if slowest > diskFullBound {
				t.Errorf("an answer took %s", slowest)
			}

			if tt.restart {
				w.Kill()
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if tt.restart {
				w.up()
			}
			freed := time.Now()
			l.waitAccepted(100)
			t.Logf("orders were accepted again within %s", time.Since(freed).Round(time.Millisecond))
			l.finish()
			serveAt(t, port, forward(t, orderWriter(t)))
			l.verify(false)
		})
	}
}

// diskFullBound is two of the stream's commit timeouts: NATS gives no answer to a write that it can't
// store, and a request may wait for the group before its own.
const diskFullBound = 11 * time.Second

// serveAt serves h on a port of loopback until the test's end.
func serveAt(t testing.TB, port int, h http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
}

// TestSecondProcessOnTheSameData starts weir local twice on one folder: the second must not touch it.
func TestSecondProcessOnTheSameData(t *testing.T) {
	port := processes.FreePort(t) // nothing listens there at first: the queue only grows
	function := fmt.Sprintf("order-writer=http://127.0.0.1:%d", port)
	w := newWeir(t, manifests(t), "--function", function)
	w.up()
	l := newLoad(t, w.addr, 16, 4000)
	l.start()
	l.waitAccepted(100)

	second := newWeir(t, w.folder, "--function", function)
	second.data = w.data
	second.start()
	select {
	case <-second.Done():
		t.Logf("the second said: %s", second.Tail(400))
		if second.State().ExitCode() == 0 {
			t.Error("the second ended without an error")
		}
	case <-time.After(5 * time.Second):
		t.Errorf("the second process runs on the data folder of the first:\n%s", second.Tail(1000))
		m := newLoad(t, second.addr, 16, 1000)
		m.start()
		m.wait()
		second.Kill()
	}
	l.wait()
	w.Kill()
	w.up()
	serveAt(t, port, forward(t, orderWriter(t)))
	l.verify(true)
}

// TestCorruptBlock publishes garbage on the queue's subject: it goes to the dead-letter queue as it is, and
// the orders around it flow.
func TestCorruptBlock(t *testing.T) {
	w := newWeir(t, manifests(t))
	w.up()
	nc, err := nats.Connect(w.natsURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	l := newLoad(t, w.addr, 16, 3000)
	l.start()
	garbage := [][]byte{nil, []byte("garbage"), []byte("WB"), {'W', 'B', 1, 2, 1}, append([]byte{'W', 'B', 1, 0, 0xff, 0xff, 3, 0xff, 0xff, 0xff, 0xff, 15}, make([]byte, 64)...), bytes.Repeat([]byte{0xaa}, 900<<10)}
	for _, g := range garbage {
		if _, err := nc.Request("weir.q.default.orders", g, 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	l.wait()
	l.verify(true)
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	c, err := stream.Connect(stream.Config{URL: w.natsURL(), Name: t.Name(), Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	queue := catalog.Key{Namespace: "default", Name: "orders"}
	testkit.Eventually(t, "the garbage is in the dead-letter queue and nothing is left", func() bool {
		s, err := c.Status(ctx, queue)
		return err == nil && s.Empty() && int(s.Dead) == len(garbage)
	})
	for b, err := range c.DeadLetters(ctx, queue) {
		if err != nil {
			t.Fatal(err)
		}
		if b.Err == nil {
			t.Errorf("dead block %d can be read", b.Seq)
		}
	}
	t.Logf("weir dlq list: %q", w.command("dlq", "list", "orders"))
	w.command("dlq", "redrive", "orders") // leaves them where they are
	w.command("dlq", "purge", "orders", "--yes")
	if s, err := c.Status(ctx, queue); err != nil || s.Dead != 0 {
		t.Errorf("%d dead blocks after the purge (%v)", s.Dead, err)
	}
}

// TestQueueFull lets a small queue fill up while nothing drains it: 503 at once, nothing dropped, and once it is
// drained orders are accepted again.
func TestQueueFull(t *testing.T) {
	port := processes.FreePort(t)
	w := newWeir(t, manifests(t, "maxBytes: 10Gi", "maxBytes: 8Mi"), "--function", fmt.Sprintf("order-writer=http://127.0.0.1:%d", port))
	w.up()
	l := newLoad(t, w.addr, 32, 0)
	start := time.Now()
	l.start()
	testkit.Eventually(t, "the queue is full", func() bool { return l.count(http.StatusServiceUnavailable) > 1000 })
	slowest, refused := l.slowest(start, time.Now(), http.StatusServiceUnavailable)
	t.Logf("full after %d orders; %d answers of 503, the slowest answer took %s", l.acceptedCount(), refused, slowest.Round(time.Millisecond))
	if slowest > answerBound {
		t.Errorf("an answer took %s", slowest)
	}
	serveAt(t, port, forward(t, orderWriter(t)))
	l.waitAccepted(1000)
	l.finish()
	l.verify(true)
}

// TestConsumerVanishes deletes the queue's consumers under load: they are created again, and nothing is lost.
func TestConsumerVanishes(t *testing.T) {
	w := newWeir(t, manifests(t))
	w.up()
	nc, err := nats.Connect(w.natsURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	l := newLoad(t, w.addr, 16, 0)
	l.every = 5 * time.Millisecond
	l.start()
	for _, s := range []string{"WEIR_Q_default_orders", "WEIR_R_default_orders"} {
		l.waitAccepted(500)
		m, err := nc.Request("$JS.API.CONSUMER.DELETE."+s+".dispatcher", nil, 5*time.Second)
		if err != nil || !strings.Contains(string(m.Data), `"success":true`) {
			t.Fatalf("%s (%v)", m.Data, err)
		}
	}
	l.waitAccepted(500)
	l.finish()
	l.verify(true)
}

// TestTerminate ends weir local with SIGTERM under load, again and again: it drains and ends without an
// error, and every 202 is a row.
func TestTerminate(t *testing.T) {
	w := newWeir(t, manifests(t))
	w.up()
	l := newLoad(t, w.addr, 64, 0)
	l.start()
	for range size(2, 3, 10) {
		l.waitAccepted(1000)
		start := time.Now()
		w.Terminate()
		t.Logf("drained in %s", time.Since(start).Round(time.Millisecond))
		w.up()
	}
	l.waitAccepted(100)
	l.finish()
	l.verify(false)
}

// TestHostileClients sends garbage, oversized and slow requests beside good ones, which all get through.
func TestHostileClients(t *testing.T) {
	w := newWeir(t, manifests(t))
	w.up()

	// Slow bodies: the headers and a byte now and then.
	slowly := make(chan struct{})
	defer close(slowly)
	for range 200 {
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, "POST /orders HTTP/1.1\r\nHost: weir\r\nContent-Type: application/json\r\nContent-Length: 262144\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
	}
	l := newLoad(t, w.addr, 32, 3000)
	l.start()

	post := "POST /orders HTTP/1.1\r\nHost: weir\r\nContent-Type: application/json\r\nConnection: close\r\n"
	body := func(b string) string { return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", post, len(b), b) }
	for _, tt := range []struct {
		name, request string
		want          int // 0: any answer or none
	}{
		{"garbage", "\x00\x01\x02garbage\r\n\r\n", 400},
		{"tls", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0},
		{"a header that is too long", "GET /orders HTTP/1.1\r\nHost: weir\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", 431},
		{"no body", post + "\r\n", 400},
		{"no JSON", body("{"), 400},
		{"JSON twice", body(`{"sku":"a"}{"sku":"b"}`), 400},
		{"no object", body(`[]`), 400},
		{"without sku", body(`{}`), 400},
		{"deep JSON", body(`{"sku":"a","x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`), 400},
		{"U+0000", body(`{"sku":"a\u0000b"}`), 0},
		{"not UTF-8", body("{\"sku\":\"a\xff\"}"), 0},
		{"huge number", body(`{"sku":"a","quantity":1` + strings.Repeat("0", 5000) + `}`), 0},
		{"exponent", body(`{"sku":"a","quantity":1e999999999}`), 0},
		{"too large, announced", post + "Content-Length: 300000\r\n\r\n", 413},
		{"too large, chunked", post + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("10000\r\n"+strings.Repeat("x", 0x10000)+"\r\n", 5) + "0\r\n\r\n", 413},
		{"length and chunked", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"two lengths", post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
		{"negative length", post + "Content-Length: -1\r\n\r\n", 400},
		{"wrong type", strings.Replace(body(`{"sku":"a"}`), "application/json", "text/plain", 1), 415},
		{"wrong method", "DELETE /orders HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n", 405},
		{"no route", "GET /nowhere HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n", 404},
		{"dots", "GET /orders/../../etc/passwd HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n", 0},
		{"cut off", post + "Content-Length: 100\r\n\r\n{", 0},
	} {
		status, answer := raw(t, w.addr, tt.request, tt.name == "cut off" || tt.name == "tls")
		switch {
		case tt.want != 0 && status != tt.want:
			t.Errorf("%s: got %d, want %d: %.300s", tt.name, status, tt.want, answer)
		case status >= 500:
			t.Errorf("%s: got %d: %.300s", tt.name, status, answer)
		default:
			t.Logf("%s: %d", tt.name, status)
		}
	}
	l.wait()
	l.verify(true)
	if n := l.count(http.StatusAccepted); n != l.total {
		t.Errorf("%d of %d good orders were accepted beside hostile ones", n, l.total)
	}
	if w.Ended() {
		t.Fatal("weir ended")
	}
	if log := w.Log(); strings.Contains(log, "panic") {
		t.Errorf("a panic in the log")
	}
}

// raw sends bytes and returns the answer's status, 0 when the connection ended without one.
func raw(t testing.TB, addr, request string, cut bool) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
	_, _ = io.WriteString(conn, request) // the server may answer and close before it has read all
	if cut {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("no answer to %.60q", request)
		}
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}
