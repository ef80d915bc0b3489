package chaos_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/weir-dev/weir/internal/jobapi"
)

// document is what the tests read of a job.
type document struct {
	Status, Version string
	Started         time.Time
	Result          *struct{ Data string }
}

func (d document) final() bool {
	return slices.Contains([]string{"succeeded", "failed", "cancelled", "expired"}, d.Status)
}

// listener is a client that follows one job, over one connection after the other, until it has received the end.
type listener struct {
	accepted
	l    *jobLoad
	last document // that it received
	etag string   // of poll's
	done bool     // nothing more comes
}

// hear follows jobs until the load ends.
func (l *jobLoad) hear(way func(*listener, context.Context) error) {
	for {
		select {
		case j := <-l.follow:
			l.listen(j, way)
		case <-l.stop:
			return
		}
	}
}

// listen follows one job to its end. way is a connection: it returns why it ended.
func (l *jobLoad) listen(j accepted, way func(*listener, context.Context) error) {
	h := &listener{accepted: j, l: l}
	cuts := 0
	for {
		err := way(h, l.listening)
		if h.done {
			break
		}
		if l.listening.Err() != nil {
			l.t.Errorf("job %d: told %+v, and not the end; the last connection: %v", h.n, h.last, err)
			return
		}
		cuts++
		hold(l.t, 20*time.Millisecond)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = append(l.heard, h)
	l.cuts += cuts
}

// tell checks a document that was received.
func (h *listener) tell(data []byte) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		h.l.t.Errorf("job %d: %v in %s", h.n, err, data)
		return
	}
	version, ok := jobapi.ParseVersion(d.Version)
	former, _ := jobapi.ParseVersion(h.last.Version)
	switch {
	case !ok:
		h.l.t.Errorf("job %d: the version is %q", h.n, d.Version)
	case h.last.Version != "" && version <= former:
		h.l.t.Errorf("job %d: told %+v after %+v", h.n, d, h.last)
	case h.last.final():
		h.l.t.Errorf("job %d: told %+v after the end, %+v", h.n, d, h.last)
	case d.Status == "succeeded" && (d.Result == nil || d.Result.Data != resultOf(h.n)):
		h.l.t.Errorf("job %d: told without its result: %s", h.n, data)
	}
	h.last = d
}

// end is the orderly end of a connection.
func (h *listener) end() {
	h.done = true
	if !h.last.final() {
		h.l.t.Errorf("job %d: told that there is no more after %+v", h.n, h.last)
	}
}

// events follows by Server-Sent Events.
func (h *listener) events(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.l.url()+h.path+"/events", http.NoBody)
	if err != nil {
		return err
	}
	if h.last.Version != "" {
		req.Header.Set("Last-Event-ID", h.last.Version)
	}
	resp, err := h.l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		h.end()
		return nil
	default:
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	var event, data string
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "event":
			event = value
		case "data":
			data = value
		case "": // an event is complete; one that was cut off is not one
			switch event {
			case "state":
				h.tell([]byte(data))
			case "close":
				return fmt.Errorf("sent away: %s", data)
			}
			event, data = "", ""
		}
	}
	if lines.Err() == nil {
		h.end()
	}
	return lines.Err()
}

// socket follows by WebSocket.
func (h *listener) socket(ctx context.Context) error {
	conn, _, err := websocket.Dial(ctx, h.l.url()+h.path+"/socket?after="+h.last.Version, &websocket.DialOptions{HTTPClient: h.l.client}) //nolint:bodyclose // there is none
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	for {
		_, data, err := conn.Read(ctx)
		switch {
		case err == nil:
			h.tell(data)
		case websocket.CloseStatus(err) == websocket.StatusNormalClosure:
			h.end()
			return nil
		default:
			return err
		}
	}
}

// poll follows by one long poll after the other; the first returns the current state.
func (h *listener) poll(context.Context) error {
	for {
		var header []string
		if h.etag != "" {
			header = []string{"Prefer", "wait=20", "If-None-Match", h.etag}
		}
		status, text, got, err := h.l.do(http.MethodGet, h.l.url()+h.path, "", header...)
		switch {
		case err != nil:
			return err
		case status == http.StatusOK:
			h.tell([]byte(text))
			h.etag = got.Get("Etag")
		case status != http.StatusNotModified:
			return fmt.Errorf("status %d", status)
		}
		if h.last.final() {
			h.end()
			return nil
		}
	}
}
