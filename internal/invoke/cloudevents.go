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
	extAttempts    = "weirattempts"  // counted failures before this call
	extRedrives    = "weirredrives"  // how often it was redriven from the dead letters; absent when never
	extMediaType   = "weirmediatype" // the client's Content-Type, where datacontenttype can't be that
	extMethod      = "weirmethod"    // of the client's request
	extQuery       = "weirquery"     // the same, absent when empty
	extTraceParent = "traceparent"   // CloudEvents' distributed tracing extension
	extTraceState  = "tracestate"
)

// binaryHeaders is how many headers there are at most, but for the attributes' and those that the call adds.
const binaryHeaders = 17

func setBinaryHeaders(h http.Header, r *record.Record) {
	h.Set("Ce-Specversion", specVersion)
	h.Set("Ce-Id", r.ID.String())
	h.Set("Ce-Source", encodeHeader(r.Source))
	if q := &r.Request; q.Method != "" { // there is none in records of format 1
		h.Set("Ce-Subject", encodeHeader(q.Path))
		h.Set("Ce-"+extMethod, encodeHeader(q.Method))
		if q.Query != "" {
			h.Set("Ce-"+extQuery, encodeHeader(q.Query))
		}
	}
	for i := range r.Attributes {
		h.Set("Ce-"+r.Attributes[i].Name, encodeHeader(r.Attributes[i].Value))
	}
	h.Set("Ce-Type", eventType)
	h.Set("Ce-Time", r.Time.UTC().Format(time.RFC3339Nano))
	h.Set("Ce-"+extAttempts, strconv.Itoa(r.Attempts))
	if r.Redrives > 0 {
		h.Set("Ce-"+extRedrives, strconv.Itoa(r.Redrives))
	}
	if r.TraceParent != "" {
		h.Set("Ce-"+extTraceParent, encodeHeader(r.TraceParent))
		h.Set("Traceparent", r.TraceParent)
		if r.TraceState != "" {
			h.Set("Ce-"+extTraceState, encodeHeader(r.TraceState))
			h.Set("Tracestate", r.TraceState)
		}
	}
	t := typeOf(r)
	if t.content != "" {
		h.Set("Content-Type", t.content)
	}
	if t.said != "" {
		h.Set("Ce-"+extMediaType, encodeHeader(t.said))
	}
}

// mediaType is how an event names the type of its data.
type mediaType struct {
	content string // datacontenttype
	said    string // what the client said, if that is not content
	json    bool   // application/json: readers of a batch find a JSON value in data
}

// typeOf keeps the client's Content-Type, unless that would change what the call itself is: a body that says it is an
// event, or several, travels as data, and the record's own attributes are the event's.
func typeOf(r *record.Record) mediaType {
	const jsonType, bytesType = "application/json", "application/octet-stream"
	ct := r.ContentType
	if ct == "" || ct == jsonType {
		return mediaType{content: ct, json: ct != ""}
	}
	media, _, err := mime.ParseMediaType(ct)
	switch {
	case strings.HasPrefix(strings.ToLower(ct), "application/cloudevents"):
		if r.JSON || err == nil && strings.HasSuffix(media, "+json") {
			return mediaType{content: jsonType, said: ct, json: true}
		}
		return mediaType{content: bytesType, said: ct}
	case err != nil: // the gateway refuses it; older records may have it
		return mediaType{content: bytesType, said: ct}
	case media == jsonType: // in lower case: readers compare it as text
		return mediaType{content: jsonType + ct[len(jsonType):], json: true}
	}
	return mediaType{content: ct}
}

// encodeHeader percent-encodes all but printable ASCII, and space, double quote and percent (CloudEvents HTTP binding
// 1.0.2, section 3.1.3.2).
func encodeHeader(s string) string {
	n := 0
	for i := range len(s) {
		if escaped(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const hex = "0123456789ABCDEF"
	p := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; escaped(c) {
			p = append(p, '%', hex[c>>4], hex[c&15])
		} else {
			p = append(p, c)
		}
	}
	return string(p)
}

func escaped(c byte) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '%' }

const eventOverhead = 320 // bytes of attributes around a body, about

func batchSize(rs []*record.Record) int {
	n := 2
	for _, r := range rs {
		n += eventOverhead + r.Size()
		if !r.JSON { // else what grows past it is copied, and both are in memory
			n += base64.StdEncoding.EncodedLen(len(r.Body)) - len(r.Body)
		}
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
	if r.Redrives > 0 {
		p = append(p, `,"`+extRedrives+`":`...)
		p = strconv.AppendInt(p, int64(r.Redrives), 10)
	}
	if q := &r.Request; q.Method != "" {
		p = append(p, `,"subject":`...)
		p = appendJSONString(p, q.Path)
		p = append(p, `,"`+extMethod+`":`...)
		p = appendJSONString(p, q.Method)
		if q.Query != "" {
			p = append(p, `,"`+extQuery+`":`...)
			p = appendJSONString(p, q.Query)
		}
	}
	for i := range r.Attributes {
		p = append(p, `,"`...)
		p = append(p, r.Attributes[i].Name...) // letters and digits
		p = append(p, `":`...)
		p = appendJSONString(p, r.Attributes[i].Value)
	}
	if r.TraceParent != "" {
		p = append(p, `,"`+extTraceParent+`":`...)
		p = appendJSONString(p, r.TraceParent)
		if r.TraceState != "" {
			p = append(p, `,"`+extTraceState+`":`...)
			p = appendJSONString(p, r.TraceState)
		}
	}
	t := typeOf(r)
	if t.content != "" {
		p = append(p, `,"datacontenttype":`...)
		p = appendJSONString(p, t.content)
	}
	if t.said != "" {
		p = append(p, `,"`+extMediaType+`":`...)
		p = appendJSONString(p, t.said)
	}
	if len(r.Body) == 0 {
		return append(p, '}')
	}
	if t.json && (r.JSON || json.Valid(r.Body) && utf8.Valid(r.Body)) {
		p = append(p, `,"data":`...)
		p = append(p, r.Body...)
		return append(p, '}')
	}
	p = append(p, `,"data_base64":"`...)
	p = base64.StdEncoding.AppendEncode(p, r.Body)
	return append(p, '"', '}')
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
