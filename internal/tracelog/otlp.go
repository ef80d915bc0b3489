package tracelog

import (
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Bounds of what is sent.
const (
	maxPostBytes = 4 << 20 // of a request, also once it is decoded
	maxPosts     = 1       // at a time; more get 503, which an exporter repeats
)

const protobuf = "application/x-protobuf"

// receive takes spans by OTLP/HTTP (OpenTelemetry Protocol 1.x, POST /v1/traces) in protobuf.
func (l *Log) receive(w http.ResponseWriter, r *http.Request) {
	select {
	case l.posts <- struct{}{}:
		defer func() { <-l.posts }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests with spans at a time", http.StatusServiceUnavailable)
		return
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != protobuf {
		http.Error(w, "send "+protobuf+": OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf", http.StatusUnsupportedMediaType)
		return
	}
	body, status, err := read(w, r)
	if err != nil {
		http.Error(w, err.Error(), status)
		return
	}
	var req collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		http.Error(w, "the body is no ExportTraceServiceRequest", http.StatusBadRequest)
		return
	}
	var res collector.ExportTraceServiceResponse
	if refused := l.take(&req); refused > 0 {
		res.PartialSuccess = &collector.ExportTracePartialSuccess{RejectedSpans: refused, ErrorMessage: "spans without a valid trace id and span id"}
	}
	answer, err := proto.Marshal(&res)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", protobuf)
	_, _ = w.Write(answer) // the exporter has gone: nobody is left to tell
}

func read(w http.ResponseWriter, r *http.Request) (body []byte, status int, err error) {
	in := io.Reader(http.MaxBytesReader(w, r.Body, maxPostBytes))
	switch coding := r.Header.Get("Content-Encoding"); coding {
	case "", "identity":
	case "gzip":
		if in, err = gzip.NewReader(in); err != nil {
			return nil, http.StatusBadRequest, fmt.Errorf("the body is no gzip: %w", err)
		}
	default:
		return nil, http.StatusUnsupportedMediaType, errors.New("send gzip, or no Content-Encoding")
	}
	body, err = io.ReadAll(io.LimitReader(in, maxPostBytes+1))
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case tooLarge, err == nil && len(body) > maxPostBytes:
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("a request with spans has at most %d bytes: send fewer at a time (OTEL_BSP_MAX_EXPORT_BATCH_SIZE)", maxPostBytes)
	case err != nil:
		return nil, http.StatusBadRequest, fmt.Errorf("the body can't be read: %w", err)
	}
	return body, 0, nil
}

// take returns how many spans it has refused.
func (l *Log) take(req *collector.ExportTraceServiceRequest) (refused int64) {
	for _, rs := range req.GetResourceSpans() {
		service := serviceOf(rs.GetResource())
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				if len(s.GetTraceId()) != 16 || len(s.GetSpanId()) != 8 {
					refused++
					continue
				}
				l.add(hex.EncodeToString(s.GetTraceId()), ofOTLP(s, service, cut(ss.GetScope().GetName())))
			}
		}
	}
	return refused
}

func serviceOf(r *resource.Resource) string {
	for _, kv := range r.GetAttributes() {
		if kv.GetKey() == "service.name" {
			return cut(kv.GetValue().GetStringValue())
		}
	}
	return ""
}

func ofOTLP(p *otlp.Span, service, scope string) Span {
	s := Span{
		ID: hex.EncodeToString(p.GetSpanId()), Name: cut(p.GetName()), Service: service, Scope: scope,
		Kind:  strings.ToLower(strings.TrimPrefix(p.GetKind().String(), "SPAN_KIND_")),
		Start: at(p.GetStartTimeUnixNano()), End: at(p.GetEndTimeUnixNano()),
		Failed: p.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR, Status: cut(p.GetStatus().GetMessage()),
	}
	for _, n := range []uint32{p.GetDroppedAttributesCount(), p.GetDroppedEventsCount(), p.GetDroppedLinksCount()} {
		s.LeftOut += int(n)
	}
	if len(p.GetParentSpanId()) == 8 {
		s.Parent = hex.EncodeToString(p.GetParentSpanId())
	}
	s.Attributes = s.ofProto(p.GetAttributes())
	for _, e := range p.GetEvents() {
		if len(s.Events) == maxEvents {
			s.LeftOut++
			continue
		}
		s.Events = append(s.Events, Event{at(e.GetTimeUnixNano()), cut(e.GetName()), s.ofProto(e.GetAttributes())})
	}
	for _, k := range p.GetLinks() {
		if len(s.Links) == maxLinks || len(k.GetTraceId()) != 16 || len(k.GetSpanId()) != 8 {
			s.LeftOut++
			continue
		}
		s.Links = append(s.Links, Link{hex.EncodeToString(k.GetTraceId()), hex.EncodeToString(k.GetSpanId()), s.ofProto(k.GetAttributes())})
	}
	return s
}

func at(nanoseconds uint64) time.Time {
	return time.Unix(0, int64(min(nanoseconds, math.MaxInt64))).UTC()
}

func (s *Span) ofProto(kvs []*common.KeyValue) Attributes {
	var out Attributes
	for _, kv := range kvs {
		s.set(&out, kv.GetKey(), textOf(kv.GetValue()))
	}
	return out
}

func textOf(v *common.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *common.AnyValue_StringValue:
		return v.StringValue
	case *common.AnyValue_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	case *common.AnyValue_IntValue:
		return strconv.FormatInt(v.IntValue, 10)
	case *common.AnyValue_DoubleValue:
		return strconv.FormatFloat(v.DoubleValue, 'g', -1, 64)
	}
	return v.String() // of lists and the like: as protobuf shows it
}
