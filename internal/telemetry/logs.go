package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Bounds of what one line may repeat.
const (
	// maxRepeated lines of one level and text are written in repeatWindow; how many more there were is logged after it.
	maxRepeated  = 50
	repeatWindow = 10 * time.Second
	// maxTexts bounds the texts that are counted; texts are constants of the code.
	maxTexts = 1024
	// levelEvery is how often the file of the level is read.
	levelEvery = 5 * time.Second
)

// Lines is the output of log lines. Level may be changed at any time.
type Lines struct {
	Level   *slog.LevelVar
	handler slog.Handler

	mu   sync.Mutex
	seen []*repetitions // of each Logger
}

// NewLines returns log lines to w: format "json" or "text", level as slog spells it ("debug", "info", "warn", "error").
// Lines whose context has a span have its trace_id and span_id.
func NewLines(w io.Writer, format, level string) (*Lines, error) {
	l := &Lines{Level: new(slog.LevelVar)}
	if err := l.Level.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l.Level}
	switch format {
	case "json":
		l.handler = traced{slog.NewJSONHandler(w, opts)}
	case "text":
		l.handler = traced{slog.NewTextHandler(w, opts)}
	default:
		return nil, fmt.Errorf("log format %q: use json or text", format)
	}
	return l, nil
}

// Logger returns a logger that writes the lines, and exports them by more if that isn't nil. Every line has the attributes of.
// Lines that repeat are limited until Close.
func (l *Lines) Logger(more slog.Handler, of ...slog.Attr) *slog.Logger {
	base := l.All(more)
	if len(of) > 0 {
		base = base.WithAttrs(of)
	}
	s := &repetitions{base: base, lines: map[line]*repetition{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, s)
	return slog.New(&limited{base, s})
}

// Close says what lines were left out lately. From then on none is. It is idempotent.
func (l *Lines) Close() {
	l.mu.Lock()
	seen := l.seen
	l.seen = nil
	l.mu.Unlock()
	for _, s := range seen {
		s.close()
	}
}

// All is Logger's handler without the limit: for access logs, which have one of their own.
func (l *Lines) All(more slog.Handler) slog.Handler {
	if more == nil {
		return l.handler
	}
	return slog.NewMultiHandler(l.handler, leveled{more, l.Level})
}

// Follow makes the level that of a file's content, read every few seconds, until ctx ends. A file that can't be read, or
// holds no level, changes nothing, and is logged once.
func (l *Lines) Follow(ctx context.Context, file string, log *slog.Logger) {
	tick := time.NewTicker(levelEvery)
	defer tick.Stop()
	last := ""
	for {
		switch b, err := os.ReadFile(file); {
		case err != nil && last != err.Error():
			last = err.Error()
			log.Warn("the file of the log level can't be read; the level stays", "error", err)
		case err == nil && last != string(b):
			last = string(b)
			var to slog.Level
			if err := to.UnmarshalText([]byte(strings.TrimSpace(last))); err != nil {
				log.Warn("the file of the log level holds no level; use debug, info, warn or error", "file", file)
				break
			}
			if from := l.Level.Level(); from != to {
				l.Level.Set(to)
				log.Log(ctx, max(to, slog.LevelInfo), "the log level changed", "from", from, "to", to)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// WithTrace returns h so that lines whose context has a span have its trace_id and span_id.
func WithTrace(h slog.Handler) slog.Handler { return traced{h} }

// traced adds the trace of a line's context.
type traced struct{ slog.Handler }

// Handle implements slog.Handler.
func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h traced) WithAttrs(as []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(as)} }

// WithGroup implements slog.Handler.
func (h traced) WithGroup(name string) slog.Handler { return traced{h.Handler.WithGroup(name)} }

// leveled is a handler with a level.
type leveled struct {
	slog.Handler
	level slog.Leveler
}

// Enabled implements slog.Handler.
func (h leveled) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level.Level() && h.Handler.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (h leveled) WithAttrs(as []slog.Attr) slog.Handler {
	return leveled{h.Handler.WithAttrs(as), h.level}
}

// WithGroup implements slog.Handler.
func (h leveled) WithGroup(name string) slog.Handler {
	return leveled{h.Handler.WithGroup(name), h.level}
}

// limited writes each text only so often.
type limited struct {
	next slog.Handler
	seen *repetitions // shared by all handlers that are made of this one
}

type repetitions struct {
	base slog.Handler // gets what is said about lines, which may be of several loggers: it has no attributes of one of them

	mu     sync.Mutex
	lines  map[line]*repetition
	swept  time.Time
	timer  *time.Timer // fires when the first window with lines left out has ended; nil if there is none
	closed bool
	firing sync.WaitGroup // of timer
}

type line struct {
	level slog.Level
	text  string
}

type repetition struct {
	since   time.Time
	written int
	left    int // out
}

// Enabled implements slog.Handler.
func (h *limited) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// WithAttrs implements slog.Handler.
func (h *limited) WithAttrs(as []slog.Attr) slog.Handler {
	return &limited{h.next.WithAttrs(as), h.seen}
}

// WithGroup implements slog.Handler.
func (h *limited) WithGroup(name string) slog.Handler {
	return &limited{h.next.WithGroup(name), h.seen}
}

// Handle implements slog.Handler.
func (h *limited) Handle(ctx context.Context, r slog.Record) error {
	write, over := h.seen.see(line{r.Level, r.Message})
	h.seen.say(over) //nolint:contextcheck // they are lines of other requests
	if !write {
		return nil
	}
	return h.next.Handle(ctx, r)
}

type leftOut struct {
	line
	left int
}

// see counts a line. It returns whether that is to be written, and what was left out of the windows that have ended.
func (s *repetitions) see(l line) (write bool, over []leftOut) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return true, nil
	}
	if now.Sub(s.swept) >= repeatWindow/10 {
		over = s.sweep(now, repeatWindow)
	}
	x := s.lines[l]
	if x == nil {
		if len(s.lines) >= maxTexts {
			return true, over
		}
		x = &repetition{since: now}
		s.lines[l] = x
	}
	if x.written >= maxRepeated {
		x.left++
		s.arm(x.since.Add(repeatWindow).Sub(now))
		return false, over
	}
	x.written++
	return true, over
}

// sweep forgets the windows that began so long ago, and returns what was left out of them. Under mu.
func (s *repetitions) sweep(now time.Time, ago time.Duration) (over []leftOut) {
	s.swept = now
	for k, x := range s.lines {
		if now.Sub(x.since) < ago {
			continue
		}
		delete(s.lines, k)
		if x.left > 0 {
			over = append(over, leftOut{k, x.left})
		}
	}
	return over
}

// arm has the windows swept after d, unless they are earlier. Under mu.
func (s *repetitions) arm(d time.Duration) {
	if s.timer == nil && !s.closed {
		s.firing.Add(1)
		s.timer = time.AfterFunc(d, s.fire)
	}
}

// fire says what was left out of the windows that have ended: no later line may come that would.
func (s *repetitions) fire() {
	defer s.firing.Done()
	s.mu.Lock()
	s.timer = nil
	now := time.Now()
	over := s.sweep(now, repeatWindow)
	// Of those that have not ended the first one is next; they all end within a window.
	next := time.Duration(-1)
	for _, x := range s.lines {
		if d := x.since.Add(repeatWindow).Sub(now); x.left > 0 && (next < 0 || d < next) {
			next = d
		}
	}
	if next >= 0 {
		s.arm(next)
	}
	s.mu.Unlock()
	s.say(over)
}

// close says what is left to say, and waits for the timer.
func (s *repetitions) close() {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil && s.timer.Stop() {
		s.firing.Done()
	}
	over := s.sweep(time.Now(), 0)
	s.mu.Unlock()
	s.firing.Wait()
	s.say(over)
}

// say writes what was left out, at the level of the lines, if that is still written. That a write fails is told to whoever
// writes the next line.
func (s *repetitions) say(over []leftOut) {
	ctx := context.Background()
	for _, o := range over {
		if !s.base.Enabled(ctx, o.level) {
			continue
		}
		r := slog.NewRecord(time.Now(), o.level, "lines were left out, as there were too many of one text", 0)
		r.AddAttrs(slog.String("text", o.text), slog.Int("lines", o.left))
		_ = s.base.Handle(ctx, r)
	}
}
