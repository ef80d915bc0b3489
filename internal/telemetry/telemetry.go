// Package telemetry sets up structured logs and carries the W3C trace context from a request through
// the stream to the function call.
//
// May import: the standard library.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// NewLogger returns a logger that writes to w: format "json" or "text", level as slog spells it
// ("debug", "info", "warn", "error").
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	default:
		return nil, fmt.Errorf("log format %q: use json or text", format)
	}
}

// ValidTraceParent reports whether s is a traceparent header that may be passed on (W3C Trace Context,
// section 3.2): version, trace id and parent id in lower-case hex, ids not all zero.
func ValidTraceParent(s string) bool {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" {
		return false
	}
	if len(s) > 55 && (s[:2] == "00" || s[55] != '-') || len(s) > MaxTraceParent {
		return false
	}
	return hex(s[:2]) && hex(s[3:35]) && hex(s[36:52]) && hex(s[53:55]) && nonZero(s[3:35]) && nonZero(s[36:52])
}

// Bounds of the trace headers that are stored with a record; longer ones are dropped, as the W3C
// recommendation allows.
const (
	MaxTraceParent = 128
	MaxTraceState  = 512
)

func hex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func nonZero(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return true
		}
	}
	return false
}
