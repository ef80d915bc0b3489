package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestHeadEnds: the head of a stream that never ends does.
func TestHeadEnds(t *testing.T) {
	b := start(t)
	w := b.submit()
	feed, err := job.NewFeed().Text(b.ring, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/weir/jobs/" + w.text + "/events": "text/event-stream", "/weir/jobs/events?id=" + w.text: "text/event-stream", "/weir/feeds/" + feed + "/events": "text/event-stream",
		"/weir/jobs/" + w.text + "/socket": "application/problem+json",
	} {
		for range 3 { // the same connection is good for the next one
			req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, b.url+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := b.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if ct := resp.Header.Get("Content-Type"); ct != want {
				t.Errorf("%s: %d %s", path, resp.StatusCode, ct)
			}
		}
	}
	if n := b.server.open.Load(); n != 0 {
		t.Errorf("%d connections are still counted", n)
	}
}

// TestNoEmptyEvents: some clients take any empty line for an event.
func TestNoEmptyEvents(t *testing.T) {
	b := start(t)
	w := b.submit()
	c := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+w.text+"/events", ""))
	defer c.close()
	var block []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\n" {
			break
		}
		block = append(block, strings.SplitN(line, ":", 2)[0])
	}
	if got := strings.Join(block, " "); got != "retry event id data" {
		t.Errorf("the first block has the fields %s", got)
	}
}

// TestPlacesThatAreNotOurs: the present state comes, and a stream ends where it must.
func TestPlacesThatAreNotOurs(t *testing.T) {
	b := start(t)
	w, other := b.submit(), b.submit()
	w.do(w.begin)
	other.do(other.begin)
	path := "/weir/jobs/" + w.text + "/events"
	for _, last := range []string{"nonsense", "99999999-00000000", "18446744073709551615-ffffffff", "1-2-3", "0", ",,,", "running"} {
		for _, query := range []bool{false, true} {
			p, header := path, last
			if query {
				p, header = path+"?lastEventId="+last, ""
			}
			c := must[*eventClient](t)(b.listen(t.Context(), p, header))
			if e, err := c.next(); err != nil || e.doc.Status != "running" {
				t.Errorf("%s: %+v %v", last, e, err)
			}
			c.close()
		}
	}
	// The ids of another order.
	both := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/events?id="+w.text+"&id="+other.text, ""))
	var ids string
	for range 2 {
		e, err := both.next()
		if err != nil {
			t.Fatal(err)
		}
		ids = e.id
	}
	both.close()
	swapped := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/events?id="+other.text+"&id="+w.text, ids))
	defer swapped.close()
	for range 2 {
		if e, err := swapped.next(); err != nil || e.doc.Status != "running" {
			t.Errorf("%+v %v", e, err)
		}
	}
	// What has the end already gets no other.
	c := must[*eventClient](t)(b.listen(t.Context(), path, ""))
	e, err := c.next()
	if err != nil {
		t.Fatal(err)
	}
	c.close()
	done := must[*eventClient](t)(b.listen(t.Context(), path+"?lastEventId="+e.id, ""))
	defer done.close()
	if err := job.Alive(t.Context(), b.conn, w.at.Callback(), &job.Progress{Percent: 1}); err != nil {
		t.Fatal(err)
	}
	if e, err := done.next(); err != nil || e.doc.Progress == nil {
		t.Errorf("%+v %v", e, err)
	}
}

// TestExpiredEnds: a client that knows of the end is told that there is nothing more.
func TestExpiredEnds(t *testing.T) {
	b := start(t)
	id, err := record.NewID()
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-1000 * time.Hour)
	rec := &record.Record{ID: id, Time: long, Job: true}
	text, err := job.NewID(b.queue, rec, long).Text(b.ring)
	if err != nil {
		t.Fatal(err)
	}
	c := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+text+"/events", ""))
	e, err := c.next()
	if err != nil || e.doc.Status != "expired" {
		t.Fatalf("%+v %v", e, err)
	}
	if _, err := c.next(); err != io.EOF { //nolint:errorlint // of bufio
		t.Errorf("after it: %v", err)
	}
	c.close()
	again := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/"+text+"/events", e.id))
	defer again.close()
	if again.resp.StatusCode != http.StatusNoContent {
		t.Errorf("a client that has it gets %d", again.resp.StatusCode)
	}
	// Beside another job it is told once, too, however often the client comes back.
	w := b.submit()
	w.do(w.begin)
	last := e.id + ","
	for range 2 {
		both := must[*eventClient](t)(b.listen(t.Context(), "/weir/jobs/events?id="+text+"&id="+w.text, last))
		if e, err = both.next(); err != nil || e.doc.ID != w.text {
			t.Fatalf("%+v %v", e, err)
		}
		last = e.id
		both.close()
		if err := job.Alive(t.Context(), b.conn, w.at.Callback(), &job.Progress{Percent: 1}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHandshakes: what can't be a WebSocket is refused by a problem.
func TestHandshakes(t *testing.T) {
	b := start(t)
	w := b.submit()
	path := "/weir/jobs/" + w.text + "/socket"
	good := map[string]string{"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
	for _, row := range []struct {
		name, header, value string
		status              int
	}{
		{"no upgrade", "Upgrade", "", 426},
		{"an old version", "Sec-WebSocket-Version", "8", 426},
		{"no key", "Sec-WebSocket-Key", "", 400},
		{"a short key", "Sec-WebSocket-Key", "AAAA", 400},
		{"another subprotocol", "Sec-WebSocket-Protocol", "graphql-ws", 400},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range good {
			req.Header.Set(k, v)
		}
		if row.value == "" {
			req.Header.Del(row.header)
		} else {
			req.Header.Set(row.header, row.value)
		}
		resp, err := b.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ Status int }
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Status != row.status || resp.StatusCode != row.status || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v", row.name, resp.StatusCode, err)
		}
		if row.status == 426 && (resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Sec-WebSocket-Version") != "13") {
			t.Errorf("%s: %v", row.name, resp.Header)
		}
		_ = resp.Body.Close()
	}
	conn, resp, err := websocket.Dial(t.Context(), b.url+path, &websocket.DialOptions{HTTPClient: &b.client, Subprotocols: []string{"other", "weir.v1"}}) //nolint:bodyclose // there is none
	if err != nil || conn.Subprotocol() != "weir.v1" {
		t.Fatal(resp, err)
	}
	_ = conn.CloseNow()
}

// TestTextIsUTF8: a message that isn't closes the socket with 1007.
func TestTextIsUTF8(t *testing.T) {
	b := start(t)
	c := must[*socketClient](t)(b.dial(t.Context(), "/weir/jobs/socket"))
	defer c.close()
	c.say(t, "{\"watch\":\"\xff\"}")
	if _, _, err := c.conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusInvalidFramePayloadData {
		t.Errorf("%v", err)
	}
}

// overHTTP2 has another server of the process hand over its clients, who speak HTTP/2.
func (b *bench) overHTTP2() {
	front := httptest.NewUnstartedServer(b.server)
	front.Config.Protocols = new(http.Protocols)
	front.Config.Protocols.SetUnencryptedHTTP2(true)
	front.Start()
	h2 := &http.Transport{Protocols: front.Config.Protocols}
	b.t.Cleanup(func() {
		h2.CloseIdleConnections()
		front.Close()
	})
	b.client.Transport, b.url = h2, front.URL
}

// TestEventsOverHTTP2: where a connection can't be taken from HTTP, events are written as an answer's body.
func TestEventsOverHTTP2(t *testing.T) {
	b := start(t)
	b.overHTTP2()
	w := b.submit()
	for _, gone := range []bool{true, false} { // a client that leaves, and one that stays to the end
		c := must[*eventClient](t)(b.listen(t.Context(), ownpath.Jobs+w.text+"/events", ""))
		if e := must[event](t)(c.next()); e.doc.Status != string(job.Queued) || c.resp.ProtoMajor != 2 {
			t.Errorf("%s, %+v", c.resp.Proto, e)
		}
		if gone {
			c.close()
			continue
		}
		w.do(w.begin)
		if e := must[event](t)(c.next()); e.doc.Status != string(job.Running) {
			t.Errorf("%+v", e)
		}
		w.do(func(ctx context.Context) error { return w.succeed(ctx, "text/plain", "done") })
		if e := must[event](t)(c.next()); e.doc.Status != string(job.Succeeded) {
			t.Errorf("%+v", e)
		}
		if _, err := c.next(); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
		c.close()
	}
	testkit.Eventually(t, "all have left", func() bool { return b.server.open.Load() == 0 })
}

// TestEndsOfStreams: an orderly end is told from a cut by chunks, which HTTP/1.0 doesn't know.
func TestEndsOfStreams(t *testing.T) {
	b := start(t)
	w := b.submit()
	w.do(w.begin, func(ctx context.Context) error { return w.succeed(ctx, "text/plain", "done") })
	for version, want := range map[string]bool{"1.0": false, "1.1": true} {
		conn := must[net.Conn](t)(net.Dial("tcp", strings.TrimPrefix(b.url, "http://")))
		if _, err := fmt.Fprintf(conn, "GET %s%s/events HTTP/%s\r\nHost: a\r\n\r\n", ownpath.Jobs, w.text, version); err != nil {
			t.Fatal(err)
		}
		all := string(must[[]byte](t)(io.ReadAll(conn)))
		_ = conn.Close()
		if !strings.Contains(all, `"status":"succeeded"`) || !strings.Contains(all, "Connection: close\r\n") ||
			strings.Contains(all, "Transfer-Encoding: chunked\r\n") != want || strings.HasSuffix(all, "\r\n0\r\n\r\n") != want {
			t.Errorf("HTTP/%s: %q", version, all)
		}
	}
}
