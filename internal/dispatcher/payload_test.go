package dispatcher_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// said is a log handler that counts messages.
type said struct {
	slog.Handler
	mu    sync.Mutex
	times map[string]int
}

func (s *said) Handle(ctx context.Context, r slog.Record) error {
	s.mu.Lock()
	s.times[r.Message]++
	s.mu.Unlock()
	return s.Handler.Handle(ctx, r)
}

// WithAttrs and WithGroup implement slog.Handler: derived handlers count here too.
func (s *said) WithAttrs([]slog.Attr) slog.Handler { return s }
func (s *said) WithGroup(string) slog.Handler      { return s }

func (s *said) count(message string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times[message]
}

// TestRecordTooLargeForServerIsHeld has NATS take smaller messages than a record that it holds, which fails.
func TestRecordTooLargeForServerIsHeld(t *testing.T) {
	cfg := localnats.Config{Dir: t.TempDir(), Token: "t"}
	srv := testkit.NATSIn(t, cfg)
	cfg.Port = srv.Port()
	log := &said{Handler: testkit.Log(t).Handler(), times: map[string]int{}}
	conn := connAs(t, srv.URL(), log)
	body := dense(300 << 10)
	large := func(c call) bool { return len(c.bodies) > 0 && len(c.bodies[0]) > 1000 }
	w := newWorld(t, conn, func(c call) answer {
		if large(c) {
			return answer{status: 500}
		}
		return answer{}
	}, nil)
	w.spec.Batch.MaxRecords = 1
	w.put(string(body))
	restart := func(maxPayload int32) {
		srv.Stop()
		cfg.MaxPayload = maxPayload
		srv = testkit.NATSIn(t, cfg)
		testkit.Eventually(t, "it is connected to the other server", func() bool {
			return conn.Ready() == nil && conn.MaxPayload() == max(int64(maxPayload), 1<<18)
		})
	}
	restart(1 << 18)
	w.start("a", time.Second)
	testkit.Eventually(t, "the record is held", func() bool {
		return log.count("a write is too large for NATS now; it is held until max_payload of the server is raised") > 0
	})
	for i := range 20 { // others go on
		w.put("small " + strconv.Itoa(i))
	}
	testkit.Eventually(t, "the others are done", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.taken) == 20
	})
	calls := 0
	for _, c := range w.seen() {
		if large(c) {
			calls++
		}
	}
	if calls != 1 || len(w.dead()) != 0 {
		t.Errorf("it was called %d times, %d are dead", calls, len(w.dead()))
	}
	restart(1 << 20)
	testkit.Eventually(t, "it is dead once NATS takes it", func() bool { return len(w.dead()) == 1 })
	for got := range w.dead() {
		if !bytes.Equal([]byte(got), body) {
			t.Error("it is another")
		}
	}
	w.settled()
}

// connAs connects with a log that counts messages.
func connAs(t *testing.T, url string, log *said) *stream.Conn {
	t.Helper()
	conn, err := stream.Connect(stream.Config{URL: url, Name: t.Name(), Log: slog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	testkit.Eventually(t, "the connection is up", func() bool { return conn.Ready() == nil })
	return conn
}

// dense are bytes that don't shrink when they are compressed.
func dense(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}
