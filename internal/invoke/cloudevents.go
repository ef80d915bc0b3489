package invoke

import (
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/record"
)

// CloudEvents 1.0: the JSON batch format and HTTP binary mode. The binding is our own because it is on
// the hot path: a record's JSON body goes into the batch as it is, without being parsed again.
// TestBindingAgainstSDK holds it against cloudevents/sdk-go.
const (
	batchContentType = "application/cloudevents-batch+json"
	eventType        = "dev.weir.record.v1"
	specVersion      = "1.0"
)

// Extension attributes (lower-case letters and digits, as CloudEvents asks).
const (
	extAttempts    = "weirattempts" // counted failures before this call
	extTraceParent = "traceparent"  // CloudEvents' distributed tracing extension
	extTraceState  = "tracestate"
)

func setBinaryHeaders(h http.Header, r *record.Record) {
	h.Set("Ce-Specversion", specVersion)
	h.Set("Ce-Id", r.ID.String())
	h.Set("Ce-Source", r.Source)
	h.Set("Ce-Type", eventType)
	h.Set("Ce-Time", r.Time.UTC().Format(time.RFC3339Nano))
	h.Set("Ce-"+extAttempts, strconv.Itoa(r.Attempts))
	if r.TraceParent != "" {
		h.Set("Ce-"+extTraceParent, r.TraceParent)
		h.Set("Traceparent", r.TraceParent)
		if r.TraceState != "" {
			h.Set("Ce-"+extTraceState, r.TraceState)
			h.Set("Tracestate", r.TraceState)
		}
	}
	if r.ContentType != "" {
		h.Set("Content-Type", r.ContentType)
	}
}

const eventOverhead = 320 // bytes of attributes around a body, about

func batchSize(rs []*record.Record) int {
	n := 2
	for _, r := range rs {
		n += eventOverhead + r.Size()
	}
	return n
}

func appendBatch(p []byte, rs []*record.Record) []byte {
	p = append(p, '[')
	for i, r := range rs {
		if i > 0 {
			p = append(p, ',')
		}
		p = appendEvent(p, r)
	}
	return append(p, ']')
}

func appendEvent(p []byte, r *record.Record) []byte {
	p = append(p, `{"specversion":"1.0","id":"`...)
	p = append(p, r.ID.String()...)
	p = append(p, `","source":`...)
	p = appendJSONString(p, r.Source)
	p = append(p, `,"type":"`+eventType+`","time":"`...)
	p = r.Time.UTC().AppendFormat(p, time.RFC3339Nano)
	p = append(p, `","`+extAttempts+`":`...)
	p = strconv.AppendInt(p, int64(r.Attempts), 10)
	if r.TraceParent != "" {
		p = append(p, `,"`+extTraceParent+`":`...)
		p = appendJSONString(p, r.TraceParent)
		if r.TraceState != "" {
			p = append(p, `,"`+extTraceState+`":`...)
			p = appendJSONString(p, r.TraceState)
		}
	}
	if r.ContentType != "" {
		p = append(p, `,"datacontenttype":`...)
		p = appendJSONString(p, r.ContentType)
	}
	if len(r.Body) == 0 {
		return append(p, '}')
	}
	if isJSON(r) {
		p = append(p, `,"data":`...)
		p = append(p, r.Body...)
		return append(p, '}')
	}
	p = append(p, `,"data_base64":"`...)
	p = base64.StdEncoding.AppendEncode(p, r.Body)
	return append(p, '"', '}')
}

// isJSON reports whether the body may stand as a JSON value: the gateway has seen that it is, or its
// media type says so and it is.
func isJSON(r *record.Record) bool {
	if r.JSON {
		return true
	}
	media, _, err := mime.ParseMediaType(r.ContentType)
	if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
		return false
	}
	return json.Valid(r.Body) && utf8.Valid(r.Body)
}

// appendJSONString appends s quoted. Plain text, the usual case, is not escaped at all.
func appendJSONString(p []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			q, err := json.Marshal(s)
			if err != nil {
				return append(p, `""`...) // strings always marshal
			}
			return append(p, q...)
		}
	}
	p = append(p, '"')
	p = append(p, s...)
	return append(p, '"')
}
