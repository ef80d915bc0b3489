package jobapi

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// maxComeBack is the longest wait that a client is told, beyond a second, before it comes back, when all have to.
const maxComeBack = 5 * time.Second

// CodeAway is why a connection that tells states ends when they can't be had now (docs/contracts.md).
const CodeAway = 1013

// ComeBack is how long a client is told to wait: each another time, so that those who lose an instance together don't
// come back together.
func ComeBack() time.Duration { return time.Second + rand.N(maxComeBack) }

// RetryEvent tells an EventSource how long to wait before it comes back.
func RetryEvent(wait time.Duration) string {
	return fmt.Sprintf("retry: %d\n\n", wait.Milliseconds())
}

// CloseEvent says why a stream of events ends.
func CloseEvent(code int, reason string) string {
	return fmt.Sprintf("event: close\ndata: {\"code\":%d,\"reason\":%q}\n\n", code, reason)
}

// RefuseEvents answers a client that wants events which can't be had now. Any status but 200 and 204 would be the end for
// ever to an EventSource, so a stream begins, and ends with a hint to come back.
func RefuseEvents(w http.ResponseWriter, wait time.Duration, reason string) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(RetryEvent(wait) + CloseEvent(CodeAway, reason)))
}
