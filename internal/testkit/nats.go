// Package testkit holds what tests share: real parts, and the means to break them precisely.
package testkit

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

// Log returns a logger that writes to the test's log.
func Log(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// NATS starts a server with file storage in a folder of the test's own, which ends with the test.
func NATS(t testing.TB) *localnats.Server {
	t.Helper()
	return NATSIn(t, localnats.Config{Dir: t.TempDir()})
}

// NATSIn is NATS with a configuration, to start one again on the same folder, port and token.
func NATSIn(t testing.TB, cfg localnats.Config) *localnats.Server {
	t.Helper()
	s, err := localnats.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Conn connects to s over TCP, as services do, until the test ends.
func Conn(t testing.TB, s *localnats.Server) *stream.Conn {
	t.Helper()
	return ConnWith(t, s, telemetry.Providers{})
}

// ConnWith is Conn with telemetry.
func ConnWith(t testing.TB, s *localnats.Server, tel telemetry.Providers) *stream.Conn {
	t.Helper()
	c, err := stream.Connect(stream.Config{URL: s.URL(), Name: t.Name(), Telemetry: tel, Log: Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	Eventually(t, "the connection is up", func() bool { return c.Ready() == nil })
	return c
}

// Patience is how long a test waits for what must come.
const Patience = 30 * time.Second

// Eventually waits until cond holds, checking it again and again.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %s in vain until %s", Patience, what)
		}
	}
}

// Client returns a connection of NATS' own client, as somebody other than Weir has it.
func Client(t testing.TB, s *localnats.Server) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// JetStream is Client's JetStream.
func JetStream(t testing.TB, s *localnats.Server) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(Client(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return js
}
