package jobapi

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// maxComeBack bounds the jitter, beyond a second, of the wait before a client reconnects when all have to.
const maxComeBack = 5 * time.Second

// CodeAway is the close code of a connection whose states can't be read now (docs/contracts.md).
const CodeAway = 1013

// ComeBack is the wait before a client reconnects, with jitter, so that those who lose an instance together don't all
// reconnect at once.
func ComeBack() time.Duration { return time.Second + rand.N(maxComeBack) }

// RetryLine tells an EventSource how long to wait before it reconnects. It is part of the event that comes next: some
// clients take any empty line for the end of an event, also where there was none.
func RetryLine(wait time.Duration) string {
	return fmt.Sprintf("retry: %d\n", wait.Milliseconds())
}

// EventID is the id of the last event that the client has. A page that was loaded anew, or a polyfill, can't set the
// header, and says it in the query.
func EventID(req *http.Request) string {
	if id := req.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	return req.URL.Query().Get("lastEventId")
}

// BeginEvents sets the headers of a stream of events.
func BeginEvents(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies that heed it pass each event on at once
}

// CloseEvent says why a stream of events ends.
func CloseEvent(code int, reason string) string {
	return fmt.Sprintf("event: close\ndata: {\"code\":%d,\"reason\":%q}\n\n", code, reason)
}

// RefuseEvents answers a client that wants events which are unavailable now. An EventSource gives up for good on any
// status but 200, so a stream begins, and ends with a hint to reconnect.
func RefuseEvents(w http.ResponseWriter, wait time.Duration, reason string) {
	BeginEvents(w.Header())
	_, _ = w.Write([]byte(RetryLine(wait) + CloseEvent(CodeAway, reason)))
}
