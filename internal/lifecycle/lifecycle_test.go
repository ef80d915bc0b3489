package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// diary notes what happens, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (d *diary) part(name string) Part {
	return Part{Name: name, Run: func(ctx context.Context, ready func()) error {
		d.note("start " + name)
		ready()
		<-ctx.Done()
		d.note("stop " + name)
		return nil
	}}
}

func TestPartsStartInOrderAndStopInReverse(t *testing.T) {
	var d diary
	ctx, cancel := context.WithCancel(t.Context())
	err := Run(ctx, slog.New(slog.DiscardHandler), func() { d.note("ready"); cancel() }, d.part("a"), d.part("b"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"start a", "start b", "ready", "stop b", "stop a"}; !slices.Equal(d.lines, want) {
		t.Errorf("%q, want %q", d.lines, want)
	}
}

func TestAPartThatEndsEndsAll(t *testing.T) {
	boom := errors.New("boom")
	for name, last := range map[string]Part{
		"with an error":     {Name: "x", Run: func(context.Context, func()) error { return boom }},
		"by itself":         {Name: "x", Run: func(_ context.Context, ready func()) error { ready(); return nil }},
		"before it's ready": {Name: "x", Run: func(context.Context, func()) error { return nil }},
	} {
		var d diary
		err := Run(t.Context(), slog.New(slog.DiscardHandler), func() {}, d.part("a"), last, d.part("z"))
		if err == nil || !strings.HasPrefix(err.Error(), "x: ") || name == "with an error" && !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Contains(d.lines, "stop a") {
			t.Errorf("%s: a was not stopped: %q", name, d.lines)
		}
	}
}

func TestStopBeforeReady(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	slow := Part{Name: "slow", Run: func(ctx context.Context, _ func()) error { cancel(); <-ctx.Done(); return nil }}
	if err := Run(ctx, slog.New(slog.DiscardHandler), func() { t.Error("ready") }, slow); err != nil {
		t.Error(err)
	}
}
