package app_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// TestFourWays: one job is read by polling, by long polling, by Server-Sent Events and by WebSocket at once, all through
// the gateway's address; each client sees it queued, running and succeeded, with the same result.
func TestFourWays(t *testing.T) {
	called, finish := make(chan struct{}), make(chan struct{})
	j := startJobs(t, func(w http.ResponseWriter, _ *http.Request) {
		close(called)
		<-finish
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"rows":[1,2,3]}`)
	})
	r := j.do("POST", "/reports", "{}")
	links := r.doc.Links
	type sight struct{ status, result string }
	ways := map[string]chan sight{}
	follow := func(name string, f func(saw func(status, result string)) error) {
		c := make(chan sight, 16)
		ways[name] = c
		go func() {
			defer close(c)
			var last sight
			err := f(func(status, result string) {
				if s := (sight{status, result}); s != last {
					c <- s
					last = s
				}
			})
			if err != nil {
				c <- sight{"error", err.Error()}
			}
		}()
	}
	poll := func(header func(etag string) []string) func(func(string, string)) error {
		return func(saw func(string, string)) error {
			etag := ""
			for {
				r := j.do("GET", links.Self, "", header(etag)...)
				etag = r.header.Get("Etag")
				switch {
				case r.doc.Status == "succeeded":
					saw(r.doc.Status, string(r.doc.Result.Data))
					return nil
				case r.status != http.StatusNotModified:
					saw(r.doc.Status, "")
				}
			}
		}
	}
	follow("poll", poll(func(string) []string { return nil }))
	follow("long poll", poll(func(etag string) []string {
		if etag == "" {
			return nil // the current state first
		}
		return []string{"Prefer", "wait=20", "If-None-Match", etag}
	}))
	type document struct {
		Status string
		Result *struct{ Data json.RawMessage }
	}
	show := func(saw func(string, string), data []byte) error {
		var d document
		if err := json.Unmarshal(data, &d); err != nil {
			return fmt.Errorf("%w in %s", err, data)
		}
		if d.Result != nil {
			saw(d.Status, string(d.Result.Data))
		} else {
			saw(d.Status, "")
		}
		return nil
	}
	follow("events", func(saw func(string, string)) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, j.url+links.Events, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := show(saw, []byte(data)); err != nil {
					return err
				}
			}
		}
		return lines.Err()
	})
	follow("socket", func(saw func(string, string)) error {
		conn, _, err := websocket.Dial(t.Context(), j.url+links.Socket, nil)
		if err != nil {
			return err
		}
		defer func() { _ = conn.CloseNow() }()
		for {
			_, data, err := conn.Read(t.Context())
			if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
				return nil
			}
			if err == nil {
				err = show(saw, data)
			}
			if err != nil {
				return err
			}
		}
	})
	see := func(want sight) {
		t.Helper()
		for name, c := range ways {
			if got, ok := <-c; !ok || got != want {
				t.Errorf("%s saw %v, want %v", name, got, want)
			}
		}
	}
	see(sight{"queued", ""})
	j.release()
	<-called
	see(sight{"running", ""})
	close(finish)
	see(sight{"succeeded", `{"rows":[1,2,3]}`})
	for name, c := range ways {
		if got, ok := <-c; ok {
			t.Errorf("%s saw %v after the end", name, got)
		}
	}
	if got := j.do("GET", links.Result, ""); got.body != `{"rows":[1,2,3]}` {
		t.Errorf("the result is %s", got.body)
	}
}

// TestGatewayDrainsListeners: a gateway that stops disconnects clients that listen, instead of waiting for them.
func TestGatewayDrainsListeners(t *testing.T) {
	j := startJobs(t, func(http.ResponseWriter, *http.Request) {})
	path := j.submit("{}")
	conn, _, err := websocket.Dial(t.Context(), j.url+path+"/socket", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, j.url+path+"/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, data, err := conn.Read(t.Context()); err != nil || !strings.Contains(string(data), "queued") {
		t.Fatalf("%s, %v", data, err)
	}
	j.stop()
	if _, _, err := conn.Read(t.Context()); err == nil || errors.Is(err, t.Context().Err()) {
		t.Errorf("the socket outlived the gateway: %v", err)
	}
	if _, err := io.ReadAll(resp.Body); errors.Is(err, t.Context().Err()) && err != nil {
		t.Errorf("the events outlived the gateway: %v", err)
	}
}

// clientFeed is a client that listens to all its jobs by Server-Sent Events.
type clientFeed struct {
	t     *testing.T
	id    string
	body  io.Closer
	lines *bufio.Scanner
	ended map[string]string // status, by job
}

// feed gets a feed, or takes the one of another connection, and listens to it.
func (j *jobs) feed(other *clientFeed) *clientFeed {
	j.t.Helper()
	f := &clientFeed{t: j.t, ended: map[string]string{}}
	if other != nil {
		f.id = other.id
	} else {
		r := j.do("POST", "/weir/feeds", "")
		if f.id = r.doc.ID; r.status != http.StatusCreated || r.doc.Links.Events != "/weir/feeds/"+f.id+"/events" || r.header.Get("Location") != "/weir/feeds/"+f.id {
			j.t.Fatalf("a feed: %+v", r)
		}
	}
	resp := j.raw("GET", "/weir/feeds/"+f.id+"/events", nil, 0)
	if resp.StatusCode != http.StatusOK {
		j.t.Fatalf("events of a feed: %s", resp.Status)
	}
	f.body, f.lines = resp.Body, bufio.NewScanner(resp.Body)
	return f
}

// until reads until so many jobs have ended.
func (f *clientFeed) until(jobs int) {
	f.t.Helper()
	for len(f.ended) < jobs && f.lines.Scan() {
		if data, ok := strings.CutPrefix(f.lines.Text(), "data: "); ok {
			var d struct{ ID, Status string }
			if err := json.Unmarshal([]byte(data), &d); err != nil {
				f.t.Fatalf("%v in %s", err, data)
			}
			if _, again := f.ended[d.ID]; again {
				f.t.Errorf("job %s ended before it was %s", d.ID, d.Status)
			}
			if d.Status != "running" && d.Status != "queued" {
				f.ended[d.ID] = d.Status
			}
		}
	}
	if len(f.ended) < jobs {
		f.t.Errorf("%d jobs of %d: %v", len(f.ended), jobs, f.lines.Err())
	}
}

func (f *clientFeed) close() { _ = f.body.Close() }

// TestFeed: a client gets the states of all its jobs over one connection, and of nobody else's, through the gateway's
// address; the same idempotency key of another client is no duplicate.
func TestFeed(t *testing.T) {
	j := startJobs(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "done") })
	mine, other := j.feed(nil), j.feed(nil)
	first := j.submit("1", "Weir-Feed", mine.id, "Idempotency-Key", "k")
	if again := j.submit("1", "Weir-Feed", mine.id, "Idempotency-Key", "k"); again != first {
		t.Errorf("the same request: %s, then %s", first, again)
	}
	theirs := j.submit("2", "Weir-Feed", other.id, "Idempotency-Key", "k")
	nobodys := j.submit("3", "Idempotency-Key", "k")
	cancelled := j.submit("4", "Weir-Feed", mine.id)
	if theirs == first || nobodys == first || nobodys == theirs {
		t.Errorf("%s, %s and %s", first, theirs, nobodys)
	}
	if r := j.do("DELETE", cancelled, ""); r.doc.Status != "cancelled" {
		t.Errorf("cancelled: %+v", r)
	}
	j.release()
	mine.until(2)
	other.until(1)
	id := func(path string) string { return strings.TrimPrefix(path, "/weir/jobs/") }
	if want := map[string]string{id(first): "succeeded", id(cancelled): "cancelled"}; !maps.Equal(mine.ended, want) {
		t.Errorf("told %v, want %v", mine.ended, want)
	}
	if want := map[string]string{id(theirs): "succeeded"}; !maps.Equal(other.ended, want) {
		t.Errorf("told %v, want %v", other.ended, want)
	}
	late := j.feed(mine) // the current states
	late.until(2)
	for _, f := range []*clientFeed{mine, other, late} {
		f.close()
	}
	for _, path := range []string{first, nobodys} {
		if r := j.do("GET", path+"/result", "", "Prefer", "wait=20"); r.body != "done" {
			t.Errorf("%s: %+v", path, r)
		}
	}
	for what, r := range map[string]jobReply{
		"submitted": j.do("POST", "/reports", "5", "Weir-Feed", mine.id[1:]),
		"events":    j.do("GET", "/weir/feeds/"+mine.id[1:]+"/events", ""),
		"socket":    j.do("GET", "/weir/feeds/x/socket", ""),
	} {
		if r.status != http.StatusNotFound || r.doc.Type != "https://weir.dev/problems/no-feed" ||
			len(r.header["X-Request-Id"]) != 1 || !strings.Contains(r.body, `"requestId":"`+r.header.Get("X-Request-Id")+`"`) {
			t.Errorf("%s with an invented feed: %+v", what, r)
		}
	}
}
