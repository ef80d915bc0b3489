package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"
)

func lines(t *testing.T, b *bytes.Buffer) *Lines {
	t.Helper()
	l, err := NewLines(b, "json", "info")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestRepeatedLinesAreLimited: so many of one text in a window, then how many more there were; other texts and the access log
// are not held up.
func TestRepeatedLinesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		l := lines(t, &b)
		log := l.Logger(nil)
		for range maxRepeated + 7 {
			log.With("a", 1).Warn("the same")
		}
		log.Info("the same") // of another level
		access := slog.New(l.All(nil))
		for range 2 * maxRepeated {
			access.Info("request")
		}
		if n := strings.Count(b.String(), `"level":"WARN","msg":"the same"`); n != maxRepeated {
			t.Errorf("%d lines, want %d", n, maxRepeated)
		}
		if n := strings.Count(b.String(), "request"); n != 2*maxRepeated || !strings.Contains(b.String(), `"level":"INFO","msg":"the same"`) {
			t.Errorf("%d lines of the access log", n)
		}
		time.Sleep(repeatWindow) //nolint:forbidigo // synctest
		log.Info("something else")
		log.Warn("the same")
		if s := b.String(); !strings.Contains(s, `"text":"the same","lines":7`) || strings.Count(s, `"level":"WARN","msg":"the same"`) != maxRepeated+1 {
			t.Errorf("after the window: %s", s[len(s)-400:])
		}
	})
}

// TestTheLevelMayChange by a file's content; what is none changes nothing.
func TestTheLevelMayChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "level")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		l := lines(t, &b)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); l.Follow(ctx, file, l.Logger(nil)) }()
		for _, row := range []struct {
			content string
			want    slog.Level
		}{{"", slog.LevelInfo}, {"debug\n", slog.LevelDebug}, {"loud", slog.LevelDebug}, {"ERROR", slog.LevelError}} {
			if row.content != "" {
				write(row.content)
			}
			time.Sleep(levelEvery) //nolint:forbidigo // synctest
			synctest.Wait()
			if got := l.Level.Level(); got != row.want {
				t.Errorf("%q: %s, want %s", row.content, got, row.want)
			}
		}
		cancel()
		<-done
		if s := b.String(); strings.Count(s, "can't be read") != 1 || strings.Count(s, "holds no level") != 1 || strings.Count(s, "the log level changed") != 2 {
			t.Errorf("the log says %s", s)
		}
	})
}

// TestLinesHaveTheirTrace: of the context, before and after With.
func TestLinesHaveTheirTrace(t *testing.T) {
	var b bytes.Buffer
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := trace.ContextWithSpanContext(t.Context(), Remote(parent, "k=v"))
	log := lines(t, &b).Logger(nil)
	log.With("a", 1).InfoContext(ctx, "with")
	log.Info("without")
	out := strings.Split(b.String(), "\n")
	if !strings.Contains(out[0], `"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"`) || strings.Contains(out[1], "trace_id") {
		t.Errorf("%s", b.String())
	}
}

// TestRemote: a header is read and written alike, sampled or not; what is none is invalid.
func TestRemote(t *testing.T) {
	for _, s := range []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"} {
		sc := Remote(s, "k=v")
		if TraceParent(sc) != s || sc.TraceState().String() != "k=v" || !sc.IsRemote() || sc.IsSampled() != Sampled(s) {
			t.Errorf("%s became %s", s, TraceParent(sc))
		}
	}
	if sc := Remote("00-x", ""); sc.IsValid() || TraceParent(sc) != "" || Sampled("00-x") {
		t.Error("no header is taken for one")
	}
}
