package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/testkit"
)

// windowless is a client by HTTP/2 that answers pings and takes no byte of any answer.
type windowless struct {
	t    *testing.T
	conn net.Conn
	fr   *http2.Framer
	next uint32
	gone chan struct{} // closed with the connection
}

func dialWindowless(t *testing.T, f *front) *windowless {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	h := &windowless{t: t, conn: conn, fr: http2.NewFramer(conn, conn), next: 1, gone: make(chan struct{})}
	if err := h.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(h.gone)
		for {
			f, err := h.fr.ReadFrame()
			if err != nil {
				return
			}
			if p, ok := f.(*http2.PingFrame); ok && !p.IsAck() {
				_ = h.fr.WritePing(true, p.Data)
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-h.gone
	})
	return h
}

func (h *windowless) send(method, path, body string) {
	h.t.Helper()
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, field := range [][2]string{{":method", method}, {":scheme", "http"}, {":path", path}, {":authority", "x"}, {"content-type", "text/plain"}} {
		_ = e.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	id := h.next
	h.next += 2
	if err := h.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true}); err != nil {
		h.t.Fatal(err)
	}
	if err := h.fr.WriteData(id, true, []byte(body)); err != nil {
		h.t.Fatal(err)
	}
}

// TestHTTP2ClientsHaveToRead: a client that gives its streams no window holds neither what its answers hold nor the drain.
func TestHTTP2ClientsHaveToRead(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	answered := make(chan struct{}, 8)
	f, _ := startHTTP2(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(make([]byte, 64<<10))
		answered <- struct{}{}
	}), func(c *catalog.Catalog) { c.APIs[0].Routes[4].Function.Timeout = testkit.Patience })
	h := dialWindowless(t, f)
	for range 4 {
		h.send("POST", "/raw", "x")
		h.send("POST", "/sync", "x")
	}
	for range 4 {
		<-answered
	}
	begin := time.Now()
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d > 25*time.Second { // the answers' time and some more, and less than the drain's
		t.Errorf("the drain took %s", d)
	}
}

// TestHTTP2BodiesDontWaitForEachOther: bodies that a function doesn't read hold up no other body of their connection.
func TestHTTP2BodiesDontWaitForEachOther(t *testing.T) {
	hold := make(chan struct{})
	f, dialled := startHTTP2(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-hold
		_, _ = io.Copy(io.Discard, r.Body)
	}), func(c *catalog.Catalog) {
		c.APIs[0].Routes[4].Function.Timeout, c.APIs[0].Routes[4].MaxBodyBytes = testkit.Patience, 64<<20
	})
	f.do("GET", "/nowhere", "") // there is a connection
	const bodies = 20
	done := make(chan error, bodies)
	for range bodies {
		go func() {
			resp, err := f.client.Post(f.url+"/sync", "text/plain", bytes.NewReader(make([]byte, 32<<20)))
			if err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %d", resp.StatusCode)
				}
			}
			done <- err
		}()
	}
	for range 20 {
		if r := f.do("POST", "/raw", strings.Repeat("x", 100<<10)); r.status != 202 {
			t.Errorf("a neighbour: %d %s", r.status, r.body)
		}
	}
	close(hold)
	for range bodies {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}
