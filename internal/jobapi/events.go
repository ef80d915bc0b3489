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

// RetryEvent tells an EventSource how long to wait before it reconnects.
func RetryEvent(wait time.Duration) string {
	return fmt.Sprintf("retry: %d\n\n", wait.Milliseconds())
}

// CloseEvent says why a stream of events ends.
func CloseEvent(code int, reason string) string {
	return fmt.Sprintf("event: close\ndata: {\"code\":%d,\"reason\":%q}\n\n", code, reason)
}

// RefuseEvents answers a client that wants events which are unavailable now. An EventSource gives up for good on any
// status but 200, so a stream begins, and ends with a hint to reconnect.
func RefuseEvents(w http.ResponseWriter, wait time.Duration, reason string) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(RetryEvent(wait) + CloseEvent(CodeAway, reason)))
}
