package invoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

type connKey struct{}

// saidListener is the listener of h2cServer.
type saidListener struct{ net.Listener }

// Accept implements net.Listener.
func (l saidListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &saidConn{Conn: c, said: make(chan struct{})}, err
}

// saidConn is a connection that knows whether the server has said something. net/http may call the handler before its
// SETTINGS are on the wire.
type saidConn struct {
	net.Conn
	once sync.Once
	said chan struct{}
}

// Write implements net.Conn.
func (c *saidConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.once.Do(func() { close(c.said) })
	return n, err
}

// h2cServer speaks HTTP/2 by prior knowledge and nothing else. cut breaks the connection of a request, after the server
// has begun to speak.
func h2cServer(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	srv.Listener = saidListener{srv.Listener}
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

func cut(r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*saidConn)
	<-c.said
	_ = c.Close()
}

func newTestCaller(t *testing.T) *Caller {
	t.Helper()
	c := NewCaller(1, telemetry.Providers{})
	t.Cleanup(c.Close)
	return c
}

// TestH2CEarlyAnswersCount is TestEarlyAnswersCount by HTTP/2.
func TestH2CEarlyAnswersCount(t *testing.T) {
	rs := sampleRecords(t)[3:4]
	srv := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		var status int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &status); err != nil || r.ProtoMajor != 2 {
			t.Errorf("%s %s: %v", r.Proto, r.URL, err)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "{}")
	})
	c := newTestCaller(t)
	for name, size := range map[string]int{"asked first": 4 << 20, "sent at once": expectFrom / 2} {
		rs[0].Body = bytes.Repeat([]byte("x"), size)
		for status, want := range map[int]Class{429: NotNow, 503: NotNow, 200: Done, 413: Refused} {
			for range 20 {
				o := c.Call(t.Context(), Batch{URL: fmt.Sprint(srv.URL, "/", status), H2C: true, Records: rs, Single: true, Timeout: testkit.Patience})
				if o.Class != want || o.Status != status {
					t.Errorf("%d, %s: %s %d, want %s: %s", status, name, o.Class, o.Status, want, o.Reason)
				}
			}
		}
	}
}

// TestH2COutcomes: what gives no answer means the same as by HTTP/1.1.
func TestH2COutcomes(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	const small, large = 10, 4 << 20
	srv := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade")+r.Header.Get("Connection") != "" {
			t.Errorf("%v", r.Header)
		}
		how, then, _ := strings.Cut(r.URL.Path[1:], "-")
		switch how {
		case "whole":
			_, _ = io.Copy(io.Discard, r.Body)
		case "part":
			_, _ = io.ReadFull(r.Body, make([]byte, 1000))
		}
		switch then {
		case "cut":
			cut(r)
		case "reset":
			panic(http.ErrAbortHandler)
		case "hang":
			<-r.Context().Done()
		case "417":
			if r.Header.Get("Expect") != "" {
				w.WriteHeader(http.StatusExpectationFailed)
			}
		case "elsewhere":
			w.Header().Set("Location", "/whole-")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	})
	undelivered := Outcome{Class: NotNow, Undelivered: true}
	for _, row := range []struct {
		url  string
		size int
		want Outcome // without Reason
	}{
		{srv.URL + "/whole-", small, Outcome{Status: 200}},
		{srv.URL + "/whole-", large, Outcome{Status: 200}},
		{srv.URL + "/none-417", large, Outcome{Status: 200}},
		{srv.URL + "/none-cut", large, undelivered},
		{srv.URL + "/part-cut", large, undelivered},
		{srv.URL + "/none-reset", large, undelivered},
		{srv.URL + "/part-reset", large, undelivered},
		{srv.URL + "/whole-cut", small, Outcome{Class: Failed}},
		{srv.URL + "/whole-cut", large, Outcome{Class: Failed}},
		{srv.URL + "/whole-reset", small, Outcome{Class: Failed}},
		{srv.URL + "/whole-reset", large, Outcome{Class: Failed}},
		{srv.URL + "/whole-hang", small, Outcome{Class: Failed, TimedOut: true}},
		{srv.URL + "/none-hang", large, Outcome{Class: Failed, TimedOut: true}},
		{srv.URL + "/whole-elsewhere", large, Outcome{Class: Failed, Status: 307}},
		{gone.URL, small, Outcome{Class: NotNow}},
	} {
		c := newTestCaller(t)
		rs := sampleRecords(t)[3:4]
		rs[0].Body = bytes.Repeat([]byte("x"), row.size)
		timeout := testkit.Patience
		if row.want.TimedOut {
			timeout = time.Second // a new connection is within it
		}
		for range 3 { // the connection is the same if it holds
			o := c.Call(t.Context(), Batch{URL: row.url, H2C: true, Records: rs, Single: true, Timeout: timeout})
			if o.Class != row.want.Class || o.Status != row.want.Status || o.Undelivered != row.want.Undelivered || o.TimedOut != row.want.TimedOut {
				t.Errorf("%s, %d bytes: %+v, want %+v", row.url, row.size, o, row.want)
			}
		}
	}
}

// TestH2COfAJob: a question is asked by HTTP/2, and its answer kept.
func TestH2COfAJob(t *testing.T) {
	srv := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %d %s", r.Proto, len(body), r.Header.Get(HeaderCallback))
	})
	o, a := newTestCaller(t).Ask(t.Context(), Question{
		URL: srv.URL, H2C: true, Record: sampleRecords(t)[3], Timeout: testkit.Patience, Callback: "http://gateway", Limit: 1000,
	})
	if o.Class != Done || string(a.Body) != "HTTP/2.0 7 http://gateway" {
		t.Errorf("%+v %s", o, a.Body)
	}
}

// TestWhoSpeaksNoHTTP2 is not there, whoever it is: no record is to blame. One who never says anything may have been
// killed by the record.
func TestWhoSpeaksNoHTTP2(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	c := newTestCaller(t)
	rs := sampleRecords(t)[3:4]
	for _, row := range []struct {
		url, says   string
		undelivered bool
	}{
		{plain.URL, "does not speak HTTP/2 without TLS, which its protocol h2c is: it answers \"HTTP/1.1 ", false},
		{peer(t, func(c net.Conn) { _, _ = io.WriteString(c, "no") }), "it answers \"no\"", false},
		{peer(t, func(net.Conn) {}), "has not said a word of HTTP/2", true},
	} {
		for _, size := range []int{10, 4 << 20} {
			rs[0].Body = bytes.Repeat([]byte("x"), size)
			for range 10 {
				o := c.Call(t.Context(), Batch{URL: row.url, H2C: true, Records: rs, Single: true, Timeout: testkit.Patience})
				if o.Class != NotNow || o.Undelivered != row.undelivered || !strings.Contains(o.Reason, row.says) {
					t.Errorf("%s, %d bytes: %+v", row.says, size, o)
				}
			}
		}
	}
}

// peer says something when it has read HTTP/2's first words, and closes the connection.
func peer(t *testing.T, says func(net.Conn)) string {
	t.Helper()
	return rawServer(t, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err == nil {
			says(c)
		}
	})
}

// TestRefusedStreams: what a function has refused is no attempt, soon; a single refusal is nobody's concern.
func TestRefusedStreams(t *testing.T) {
	for _, row := range []struct {
		refusals int
		want     Class
	}{{1, Done}, {1000, NotNow}} {
		url := peer(t, func(c net.Conn) {
			f := http2.NewFramer(c, c)
			_ = f.WriteSettings()
			for left := row.refusals; ; {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				if frame.Header().Type != http2.FrameHeaders {
					continue
				}
				if left--; left >= 0 {
					_ = f.WriteRSTStream(frame.Header().StreamID, http2.ErrCodeRefusedStream)
					continue
				}
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.Header().StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true}) // :status 200
			}
		})
		c := newTestCaller(t)
		o := c.Call(t.Context(), Batch{URL: url, H2C: true, Records: sampleRecords(t)[:1], Timeout: testkit.Patience})
		if o.Class != row.want || o.Undelivered != (row.want == NotNow) {
			t.Errorf("%d refusals: %+v", row.refusals, o)
		}
	}
}

// TestH2CForward: synchronous requests by HTTP/2.
func TestH2CForward(t *testing.T) {
	srv := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade")+r.Header.Get("Connection") != "" {
			t.Errorf("%v", r.Header)
		}
		switch r.URL.Path {
		case "/early":
			w.WriteHeader(http.StatusTooManyRequests)
		case "/hang":
			<-r.Context().Done()
		case "/reset":
			panic(http.ErrAbortHandler)
		case "/cut":
			cut(r)
		default:
			body, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "%s %s %s", r.Proto, r.Host, body)
		}
	})
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	c := newTestCaller(t)
	for _, row := range []struct {
		base, path string
		size       int
		status     int
		want       error
	}{
		{srv.URL, "/", 10, 200, nil},
		{srv.URL, "/early", 4 << 20, 429, nil},
		{srv.URL, "/hang", 10, 599, ErrTimeout},
		{srv.URL, "/reset", 10, 599, ErrBroken},
		{srv.URL, "/reset", 4 << 20, 599, ErrBroken},
		{srv.URL, "/cut", 10, 599, ErrBroken},
		{srv.URL, "/cut", 4 << 20, 599, ErrBroken},
		{gone.URL, "/", 10, 599, ErrNotReached},
		{plain.URL, "/", 10, 599, ErrNotReached},
		{plain.URL, "/", 4 << 20, 599, ErrNotReached},
	} {
		for _, method := range []string{http.MethodPost, http.MethodHead} {
			var got error
			h, err := c.Forward(Hop{Base: row.base, H2C: true, Failed: func(w http.ResponseWriter, _ *http.Request, err error) { got = err; w.WriteHeader(599) }})
			if err != nil {
				t.Fatal(err)
			}
			timeout := testkit.Patience
			if errors.Is(row.want, ErrTimeout) {
				timeout = time.Second // a new connection is within it
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			var body io.Reader
			if method == http.MethodPost {
				body = strings.NewReader(strings.Repeat("x", row.size))
			}
			req := httptest.NewRequestWithContext(ctx, method, "http://api.example"+row.path, body)
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "websocket")
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, req)
			cancel()
			if !errors.Is(got, row.want) || rec.Code != row.status {
				t.Errorf("%s %s, %d bytes: %d, %v, want %v", method, row.path, row.size, rec.Code, got, row.want)
			}
			if row.status == 200 && method == http.MethodPost && rec.Body.String() != "HTTP/2.0 "+srv.Listener.Addr().String()+" xxxxxxxxxx" {
				t.Errorf("passed through as %q", rec.Body)
			}
		}
	}
	if _, err := c.Forward(Hop{Base: "https://f", H2C: true}); err == nil || !strings.Contains(err.Error(), "h2c") {
		t.Errorf("by TLS: %v", err)
	}
}
