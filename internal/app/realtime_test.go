package app_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
			return nil // the present state first
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
		conn, _, err := websocket.Dial(t.Context(), j.url+links.Socket, nil) //nolint:bodyclose // there is none
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

// TestGatewayDrainsListeners: a gateway that stops parts from clients that listen, instead of waiting for them.
func TestGatewayDrainsListeners(t *testing.T) {
	j := startJobs(t, func(http.ResponseWriter, *http.Request) {})
	path := j.submit("{}")
	conn, _, err := websocket.Dial(t.Context(), j.url+path+"/socket", nil) //nolint:bodyclose // there is none
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
