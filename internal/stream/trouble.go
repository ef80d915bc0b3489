package stream

import (
	"log/slog"
	"sync"
	"time"
)

// A client that can't connect tries several times a second. What goes wrong is logged once, and again every
// troubleEvery as long as it lasts.
const (
	troubleEvery = 30 * time.Second
	maxTroubles  = 16 // different ones that are remembered
)

// troubles logs what is wrong with the connection, without flooding the log, and remembers the newest.
type troubles struct {
	log *slog.Logger

	mu     sync.Mutex
	logged map[string]time.Time
	latest error // nil if none since the last good connection
}

// Warn logs message and remembers err. It does nothing without an error.
func (t *troubles) Warn(message string, err error) {
	if err == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.latest = err
	k, now := message+"\x00"+err.Error(), time.Now()
	if last, ok := t.logged[k]; ok && now.Sub(last) < troubleEvery {
		return
	}
	if t.logged == nil || len(t.logged) >= maxTroubles {
		t.logged = make(map[string]time.Time, maxTroubles)
	}
	t.logged[k] = now
	t.log.Warn(message, "error", err) //nolint:sloglint // the callers' messages are constants (test/docs checks them)
}

// over forgets: the next trouble of the same kind is logged at once.
func (t *troubles) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.logged, t.latest = nil, nil
}

func (t *troubles) newest() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.latest
}
