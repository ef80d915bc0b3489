package jobapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/testkit"
)

// passing is a relay in an HTTP server, to a server that answers as realtime may.
type passing struct {
	t      *testing.T
	url    string
	client *http.Client
	stop   func()        // stops the relay, and returns once all clients were disconnected
	gone   chan struct{} // one for each client of the server behind that has gone
}

func startRelay(t *testing.T) *passing {
	t.Helper()
	p := &passing{t: t, gone: make(chan struct{}, 16)}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo/socket", func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Connection") != "Upgrade" || req.Header.Get("Keep-Alive") != "" {
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Sec-Websocket-Accept", "yes")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "hello ")
		_, _ = io.Copy(conn, buf)
		_ = conn.Close()
		p.gone <- struct{}{}
	})
	mux.HandleFunc("/taken/events", func(w http.ResponseWriter, req *http.Request) {
		BeginEvents(w.Header())
		w.Header().Set(problem.HeaderRequestID, "theirs")
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err == nil {
			err = errors.Join(BeginTaken(buf.Writer, w.Header(), true), buf.Flush())
		}
		if err != nil {
			t.Error(err)
			return
		}
		event := "id: " + req.Header.Get("Last-Event-Id") + "\ndata: 1\n\n"
		_, _ = fmt.Fprintf(conn, "%x\r\n%s\r\n", len(event), event)
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		p.gone <- struct{}{}
	})
	mux.HandleFunc("/chunked/events", func(w http.ResponseWriter, req *http.Request) { // as an older version does it
		BeginEvents(w.Header())
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done()
	})
	mux.HandleFunc("/over/events", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/unknown/events", func(w http.ResponseWriter, _ *http.Request) { problem.UnknownJob().Write(w) })
	behind := httptest.NewServer(mux)
	t.Cleanup(behind.CloseClientConnections)
	at, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := NewRelay(at, func(int64) {}, testkit.Log(t))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx, func() {}) })
	p.stop = func() {
		cancel()
		wg.Wait()
	}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set(problem.HeaderRequestID, "ours")
		r.ServeHTTP(w, req)
	}))
	front.Config.Protocols = new(http.Protocols)
	front.Config.Protocols.SetHTTP1(true)
	front.Config.Protocols.SetUnencryptedHTTP2(true)
	front.Start()
	p.url, p.client = front.URL, &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		p.stop()
		p.client.CloseIdleConnections()
		front.Close()
		behind.Close()
	})
	return p
}

// get asks for a path, and returns the answer's beginning.
func (p *passing) get(client *http.Client, path string, n int) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+path, http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Last-Event-Id", "7")
	resp, err := client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	head := make([]byte, n)
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		p.t.Fatalf("%s: %v", path, err)
	}
	return resp, string(head)
}

// upgrade returns a connection that is a socket.
func (p *passing) upgrade(with string) (*net.TCPConn, *bufio.Reader) {
	p.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testkit.Patience)); err != nil {
		p.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET /echo/socket HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nKeep-Alive: 5\r\nUpgrade: websocket\r\n\r\n%s", with); err != nil {
		p.t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil) //nolint:bodyclose // there is none
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-Websocket-Accept") != "yes" {
		p.t.Fatalf("%v, %v", resp, err)
	}
	return conn.(*net.TCPConn), r
}

func (p *passing) wait(what string, c <-chan struct{}) {
	p.t.Helper()
	select {
	case <-c:
	case <-time.After(testkit.Patience):
		p.t.Fatal("not seen: " + what)
	}
}

// TestRelayPassesSockets: what both sides say arrives whole and in order, also what came with the request; when the client
// has ended its side it still gets what is left, and both connections end.
func TestRelayPassesSockets(t *testing.T) {
	p := startRelay(t)
	said := make([]byte, 4<<20)
	_, _ = rand.Read(said)
	conn, r := p.upgrade("early ")
	go func() {
		_, _ = conn.Write(said)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(r)
	if want := append([]byte("hello early "), said...); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(want), err)
	}
	p.wait("the end behind", p.gone)
	_ = conn.Close()
	p.stop()
}

// TestRelayPassesEvents: events arrive as they come, over HTTP/2 too and from a server that sends chunks, and the client's
// end is the server's.
func TestRelayPassesEvents(t *testing.T) {
	p := startRelay(t)
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	for name, client := range map[string]*http.Client{"HTTP/1.1": p.client, "HTTP/2": {Transport: h2}} {
		resp, text := p.get(client, "/taken/events", len("id: 7\ndata: 1\n\n"))
		if text != "id: 7\ndata: 1\n\n" || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get(problem.HeaderRequestID) != "ours" {
			t.Errorf("%s: %q, %v", name, text, resp.Header)
		}
		if want := name == "HTTP/2"; (resp.ProtoMajor == 2) != want {
			t.Errorf("%s: %s", name, resp.Proto)
		}
		_ = resp.Body.Close()
		p.wait(name+": the end behind", p.gone)
	}
	resp, text := p.get(p.client, "/chunked/events", len("data: 1\n\n"))
	if text != "data: 1\n\n" {
		t.Errorf("chunks: %q", text)
	}
	_ = resp.Body.Close()
}

// TestRelayPassesRefusals: an answer that is no stream arrives as it is.
func TestRelayPassesRefusals(t *testing.T) {
	p := startRelay(t)
	for path, want := range map[string]int{"/over/events": http.StatusNoContent, "/unknown/events": http.StatusNotFound, "/echo/socket": http.StatusUpgradeRequired} {
		resp, err := p.client.Get(p.url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != want || resp.Header.Get(problem.HeaderRequestID) != "ours" {
			t.Errorf("%s: %d, want %d: %v, %s", path, resp.StatusCode, want, err, body)
		}
		if up := resp.Header.Get("Upgrade"); (up == "websocket") != (want == http.StatusUpgradeRequired) {
			t.Errorf("%s: Upgrade %q", path, up)
		}
	}
}

// TestRelayDrains: a relay that ends disconnects all that listen, also who says nothing, and tells others to come back.
func TestRelayDrains(t *testing.T) {
	p := startRelay(t)
	conn, r := p.upgrade("")
	resp, _ := p.get(p.client, "/taken/events", 1)
	chunks, _ := p.get(p.client, "/chunked/events", 1)
	p.stop()
	for name, body := range map[string]io.Reader{"socket": r, "events": resp.Body, "chunks": chunks.Body} {
		_, err := io.Copy(io.Discard, body)
		if cut := errors.Is(err, io.ErrUnexpectedEOF); errors.Is(err, context.DeadlineExceeded) || name != "socket" && !cut {
			t.Errorf("%s: %v; an end and a cut must not look alike", name, err)
		}
	}
	_, _ = conn.Close(), errors.Join(resp.Body.Close(), chunks.Body.Close())
	later, text := p.get(p.client, "/taken/events", len("retry: "))
	defer func() { _ = later.Body.Close() }()
	if later.StatusCode != http.StatusOK || text != "retry: " {
		t.Errorf("after the end: %d, %q", later.StatusCode, text)
	}
}

// TestRelayToNobody: a realtime that can't be reached is a reason to come back.
func TestRelayToNobody(t *testing.T) {
	r := NewRelay(&url.URL{Scheme: "http", Host: "127.0.0.1:1"}, func(int64) {}, testkit.Log(t))
	for path, want := range map[string]string{"/weir/jobs/x/events": `"code":1013`, "/weir/jobs/x/socket": "Events can't be had now"} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d, %s", path, w.Code, w.Body)
		}
	}
}

// TestRelayHearsOut: a client that still talks gets all that realtime had said before it ended.
func TestRelayHearsOut(t *testing.T) {
	const size = 256 << 10 // the systems on the way have room for it
	said := make(chan struct{})
	r := NewRelay(rawRealtime(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = conn.Write(make([]byte, size))
		_ = conn.Close()
		close(said)
	}), func(int64) {}, testkit.Log(t))
	front := httptest.NewServer(r)
	defer front.Close()
	conn, err := net.Dial("tcp", front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.(*net.TCPConn).SetReadBuffer(8 << 10)
	fmt.Fprintf(conn, "GET /x/socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	br := bufio.NewReader(conn)
	if _, err := http.ReadResponse(br, nil); err != nil { //nolint:bodyclose // there is none
		t.Fatal(err)
	}
	<-said
	tick := time.NewTicker(10 * time.Millisecond)
	for n := 0; ; n++ {
		<-tick.C
		if _, err := conn.Write([]byte{0x8a, 0x80, 0, 0, 0, 0}); err != nil || n > 10 {
			break
		}
	}
	tick.Stop()
	_ = conn.(*net.TCPConn).SetReadBuffer(1 << 20)
	if n, err := io.Copy(io.Discard, br); n != size {
		t.Errorf("%d of %d bytes, %v", n, size, err)
	}
}

// rawRealtime answers each request by answer, which closes the connection.
func rawRealtime(t *testing.T, answer func(net.Conn)) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				answer(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

// TestRelayOfGarbage: an answer that is none is refused, and one that breaks off doesn't look whole; nothing is left of
// either.
func TestRelayOfGarbage(t *testing.T) {
	for name, row := range map[string]struct {
		answer string
		http2  bool
		want   string // of what the client gets; empty if its answer breaks off
	}{
		"101 by HTTP/2": {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", true, `"code":1013`},
		"101 unasked":   {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", false, `"code":1013`},
		"status 000":    {"HTTP/1.1 000 Huh\r\nContent-Length: 0\r\n\r\n", false, `"code":1013`},
		"no HTTP":       {"hello\r\n\r\n", false, `"code":1013`},
		"a long head":   {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 2*maxAnswerHead) + "\r\n\r\n", false, `"code":1013`},
		"broken off":    {"HTTP/1.1 503 Huh\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRelay(rawRealtime(t, func(conn net.Conn) {
				_, _ = io.WriteString(conn, row.answer)
				_ = conn.Close()
			}), func(int64) {}, testkit.Log(t))
			front := httptest.NewUnstartedServer(problem.Guard(r, testkit.Log(t)))
			front.Config.Protocols = new(http.Protocols)
			front.Config.Protocols.SetHTTP1(true)
			front.Config.Protocols.SetUnencryptedHTTP2(true)
			front.Start()
			defer front.Close()
			client := &http.Transport{Protocols: new(http.Protocols)}
			client.Protocols.SetHTTP1(!row.http2)
			client.Protocols.SetUnencryptedHTTP2(row.http2)
			defer client.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+"/x/events", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if broken := row.want == ""; broken != (err != nil) || !strings.Contains(string(text), row.want) {
				t.Errorf("%d %q, %v", resp.StatusCode, text, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = r.Run(ctx, func() {}) // returns once nothing is left
			if n := r.count.Load(); n != 0 {
				t.Errorf("%d are counted", n)
			}
		})
	}
}
