package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// output is what was written, also by a timer.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func lines(t *testing.T, b *output) *Lines {
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
		var b output
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
		synctest.Wait()
		log.Info("something else")
		log.Warn("the same")
		if s := b.String(); !strings.Contains(s, `"text":"the same","lines":7`) || strings.Count(s, `"level":"WARN","msg":"the same"`) != maxRepeated+1 {
			t.Errorf("after the window: %s", s[len(s)-400:])
		}
	})
}

// TestWhatWasLeftOutIsSaid without a later line, at the end too; by nobody's name, and at no level that isn't written any more.
func TestWhatWasLeftOutIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b output
		l := lines(t, &b)
		l.Level.Set(slog.LevelDebug)
		log := l.Logger(nil, slog.String("service", "s"))
		repeat := func(level slog.Level, text string) {
			for range maxRepeated + 7 {
				log.With("mapping", "m").Log(t.Context(), level, text) //nolint:sloglint // a constant of the caller
			}
		}
		said := func(text string) []string {
			synctest.Wait()
			var out []string
			for s := range strings.Lines(b.String()) {
				if strings.Contains(s, "lines were left out") && strings.Contains(s, `"text":"`+text+`"`) {
					out = append(out, s)
				}
			}
			return out
		}
		repeat(slog.LevelWarn, "first")
		time.Sleep(repeatWindow / 2) //nolint:forbidigo // synctest
		repeat(slog.LevelInfo, "second")
		repeat(slog.LevelDebug, "third")
		time.Sleep(repeatWindow / 2) //nolint:forbidigo // synctest
		if got := said("first"); len(got) != 1 || !strings.Contains(got[0], `"level":"WARN"`) || !strings.Contains(got[0], `"service":"s"`) ||
			!strings.Contains(got[0], `"lines":7`) || strings.Contains(got[0], "mapping") || len(said("second")) != 0 {
			t.Errorf("after the first window: %v, %v", got, said("second"))
		}
		l.Level.Set(slog.LevelInfo)
		time.Sleep(repeatWindow / 2) //nolint:forbidigo // synctest
		if len(said("second")) != 1 || len(said("third")) != 0 {
			t.Errorf("after the second: %v, %v", said("second"), said("third"))
		}
		repeat(slog.LevelInfo, "last")
		l.Close()
		l.Close()
		if len(said("last")) != 1 {
			t.Errorf("at the end: %v", said("last"))
		}
		repeat(slog.LevelInfo, "later")
		time.Sleep(2 * repeatWindow) //nolint:forbidigo // synctest
		if n := strings.Count(b.String(), `"msg":"later"`); n != maxRepeated+7 || strings.Count(b.String(), "lines were left out") != 3 {
			t.Errorf("after the end: %d lines", n)
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
		var b output
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
	var b output
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
