package telemetry

import (
	"go.opentelemetry.io/otel/trace"
)

// Bounds of the trace headers that are stored with a record; longer ones are dropped, as the W3C
// recommendation allows.
const (
	MaxTraceParent = 128
	MaxTraceState  = 512
)

// MaxLinks bounds the links of one span: the SDK would drop the oldest of more than 128. What is left out is counted in the
// span's attribute AttrLinksOmitted.
const (
	MaxLinks         = 127
	AttrLinksOmitted = "weir.links.omitted"
	AttrSpansOmitted = "weir.spans.omitted" // of an event: what Each has left out
)

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

// Remote is the span context of a traceparent header, and of a tracestate header if that can be read. It is invalid if the
// traceparent is.
func Remote(traceParent, traceState string) trace.SpanContext {
	if !ValidTraceParent(traceParent) {
		return trace.SpanContext{}
	}
	var cfg trace.SpanContextConfig
	cfg.Remote = true
	var err error
	if cfg.TraceID, err = trace.TraceIDFromHex(traceParent[3:35]); err != nil {
		return trace.SpanContext{}
	}
	if cfg.SpanID, err = trace.SpanIDFromHex(traceParent[36:52]); err != nil {
		return trace.SpanContext{}
	}
	if Sampled(traceParent) {
		cfg.TraceFlags = trace.FlagsSampled
	}
	if traceState != "" {
		if ts, err := trace.ParseTraceState(traceState); err == nil {
			cfg.TraceState = ts
		}
	}
	return trace.NewSpanContext(cfg)
}

// Sampled reports whether a valid traceparent says that its trace is sampled.
func Sampled(traceParent string) bool {
	if len(traceParent) < 55 {
		return false
	}
	switch traceParent[54] { // the low bit of the flags
	case '1', '3', '5', '7', '9', 'b', 'd', 'f':
		return true
	}
	return false
}

// TraceParent is the traceparent header of a span context; empty if that is invalid.
func TraceParent(sc trace.SpanContext) string {
	if !sc.IsValid() {
		return ""
	}
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	t, s := sc.TraceID(), sc.SpanID()
	b = appendHex(b, t[:])
	b = append(b, '-')
	b = appendHex(b, s[:])
	if sc.IsSampled() {
		return string(append(b, "-01"...))
	}
	return string(append(b, "-00"...))
}

func appendHex(dst, src []byte) []byte {
	const digits = "0123456789abcdef"
	for _, c := range src {
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return dst
}

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
