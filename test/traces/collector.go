// Package traces shows that what happens to an order and to a job is one trace each, over a retry, a dead letter and a redrive:
// it has a collector, the two stories, and the trees of spans that they must make. Its own test plays them in one process,
// test/e2e in a cluster.
//
// Invariants: spans are read from the wire (OTLP/HTTP) and by nothing of the product; all spans that come are kept, so what
// belongs nowhere is found; a tree is compared whole.
//
// The data flows through the files in this order: story.yaml, story.go, worker.go (the job's function), collector.go, tree.go.
//
// May import: anything below the stages; only tests import it.
package traces

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// maxBytes bounds a request with spans: a batch of the SDK's 512 is far below.
const maxBytes = 16 << 20

// Span is what the trees need of one.
type Span struct {
	Trace, ID, Parent string // Parent is empty at the beginning of a trace
	Name              string
	Kind              string // as in "server"
	Service           string // service.name
	Failed            bool
	Begin             uint64            // nanoseconds since 1970
	Links             []string          // ids of spans
	Attributes        map[string]string // those that are strings
}

// Collector takes spans by OTLP/HTTP (OpenTelemetry Protocol 1.x, POST /v1/traces) in protobuf, and keeps them all.
type Collector struct {
	URL string // for OTEL_EXPORTER_OTLP_ENDPOINT

	mu    sync.Mutex
	spans []Span
	fresh chan struct{} // closed when more have come
	wrong []error       // requests that can't be read
}

// StartCollector listens at the address host until the test's end.
func StartCollector(t testing.TB, host string) *Collector {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{URL: "http://" + l.Addr().String(), fresh: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", c.receive)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(srv.Close(), <-ended); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return c
}

func (c *Collector) receive(w http.ResponseWriter, r *http.Request) {
	req, err := read(r)
	if err != nil {
		c.mu.Lock()
		c.wrong = append(c.wrong, err)
		c.mu.Unlock()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.take(req)
	answer, err := proto.Marshal(&collector.ExportTraceServiceResponse{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer) // the exporter has gone: it sends them again, or not
}

func read(r *http.Request) (*collector.ExportTraceServiceRequest, error) {
	if media := r.Header.Get("Content-Type"); media != "application/x-protobuf" {
		return nil, fmt.Errorf("spans as %q", media)
	}
	in := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if in, err = gzip.NewReader(in); err != nil {
			return nil, fmt.Errorf("spans: %w", err)
		}
	}
	body, err := io.ReadAll(io.LimitReader(in, maxBytes))
	if err != nil {
		return nil, fmt.Errorf("spans: %w", err)
	}
	var req collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return nil, fmt.Errorf("spans: %w", err)
	}
	return &req, nil
}

func (c *Collector) take(req *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range req.GetResourceSpans() {
		service := ""
		for _, kv := range rs.GetResource().GetAttributes() {
			if kv.GetKey() == "service.name" {
				service = kv.GetValue().GetStringValue()
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				if span := of(s, service); !slices.ContainsFunc(c.spans, func(o Span) bool { return o.ID == span.ID }) { // else it is sent again
					c.spans = append(c.spans, span)
				}
			}
		}
	}
	close(c.fresh)
	c.fresh = make(chan struct{})
}

func of(p *otlp.Span, service string) Span {
	s := Span{
		Trace: hex.EncodeToString(p.GetTraceId()), ID: hex.EncodeToString(p.GetSpanId()), Parent: hex.EncodeToString(p.GetParentSpanId()),
		Name: p.GetName(), Kind: strings.ToLower(strings.TrimPrefix(p.GetKind().String(), "SPAN_KIND_")), Service: service,
		Failed: p.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR, Begin: p.GetStartTimeUnixNano(), Attributes: map[string]string{},
	}
	for _, l := range p.GetLinks() {
		s.Links = append(s.Links, hex.EncodeToString(l.GetSpanId()))
	}
	for _, kv := range p.GetAttributes() {
		if text := kv.GetValue().GetStringValue(); text != "" {
			s.Attributes[kv.GetKey()] = text
		}
	}
	return s
}

// All returns all spans that have come, in the order in which they came.
func (c *Collector) All() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Of returns those of a trace.
func (c *Collector) Of(trace string) []Span {
	return slices.DeleteFunc(c.All(), func(s Span) bool { return s.Trace != trace })
}

// Wrong returns why requests were refused.
func (c *Collector) Wrong() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.wrong...)
}

// wait returns once a trace has n spans that match, or when ctx ends; false then.
func (c *Collector) wait(ctx context.Context, trace string, n int, matches func(*Span) bool) bool {
	for {
		c.mu.Lock()
		fresh := c.fresh
		c.mu.Unlock()
		found := 0
		for _, s := range c.Of(trace) {
			if matches(&s) {
				found++
			}
		}
		if found >= n {
			return true
		}
		select {
		case <-fresh:
		case <-ctx.Done():
			return false
		}
	}
}
