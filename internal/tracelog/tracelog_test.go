package tracelog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write testdata")

// work makes spans of an order as a function of its own would, and returns the trace's id.
func work(t *testing.T, exporter sdktrace.SpanExporter) string {
	t.Helper()
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "mine"))))
	tracer := p.Tracer("example.com/mine")
	ctx, root := tracer.Start(t.Context(), "POST /orders", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String(AttrRecordID, "r1")))
	other := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{9}, SpanID: trace.SpanID{9}, TraceFlags: trace.FlagsSampled})
	_, db := tracer.Start(ctx, "INSERT", trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(trace.Link{
		SpanContext: other, Attributes: []attribute.KeyValue{attribute.String(attrEventID, "r2")},
	}), trace.WithAttributes(attribute.Int("pgx.rows_affected", 1), attribute.Bool("b", true), attribute.Float64("f", 1.5), attribute.StringSlice("l", []string{"x"})))
	db.RecordError(io.ErrUnexpectedEOF)
	db.SetStatus(codes.Error, "broken")
	db.End()
	root.End()
	if err := p.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return root.SpanContext().TraceID().String()
}

func TestSpans(t *testing.T) {
	for name, exporter := range map[string]func(*Log, string) sdktrace.SpanExporter{
		"of this process": func(l *Log, _ string) sdktrace.SpanExporter { return l },
		"by OTLP":         func(_ *Log, url string) sdktrace.SpanExporter { return otlpTo(t, url, otlptracehttp.NoCompression) },
		"by OTLP, gzip":   func(_ *Log, url string) sdktrace.SpanExporter { return otlpTo(t, url, otlptracehttp.GzipCompression) },
	} {
		t.Run(name, func(t *testing.T) {
			l := New()
			srv := httptest.NewServer(l)
			defer srv.Close()
			id := work(t, exporter(l, srv.URL))
			for _, by := range []string{id, strings.ToUpper(id), "r1", "r2"} {
				var got Trace
				getJSON(t, srv, "/traces/"+by, &got)
				if got.ID != id || len(got.Spans) != 2 {
					t.Fatalf("%s: %+v", by, got)
				}
				root, db := got.Spans[0], got.Spans[1]
				if root.Name != "POST /orders" || root.Kind != "server" || root.Service != "mine" || root.Scope != "example.com/mine" || root.Attributes[AttrRecordID] != "r1" || root.Failed {
					t.Errorf("the root is %+v", root)
				}
				if db.Parent != root.ID || db.Kind != "client" || !db.Failed || db.Status != "broken" || db.Attributes["pgx.rows_affected"] != "1" || db.Attributes["b"] != "true" || db.Attributes["f"] != "1.5" || !strings.Contains(db.Attributes["l"], `"x"`) {
					t.Errorf("the other is %+v", db)
				}
				if len(db.Events) != 1 || db.Events[0].Attributes["exception.message"] != "unexpected EOF" || len(db.Links) != 1 || db.Links[0].Trace != fmt.Sprintf("09%030d", 0) {
					t.Errorf("events %v, links %v", db.Events, db.Links)
				}
				if db.End.Before(db.Start) || time.Since(db.Start) > time.Hour {
					t.Errorf("from %v to %v", db.Start, db.End)
				}
			}
			var list List
			getJSON(t, srv, "/traces?limit=5", &list)
			if len(list.Traces) != 1 || list.Traces[0].ID != id || list.Traces[0].Root != "POST /orders" || list.Traces[0].Spans != 2 || list.Traces[0].Failed != 1 {
				t.Errorf("listed as %+v", list)
			}
		})
	}
}

func otlpTo(t *testing.T, url string, c otlptracehttp.Compression) sdktrace.SpanExporter {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	e, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(url+"/v1/traces"), otlptracehttp.WithCompression(c), otlptracehttp.WithHTTPClient(client))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func getJSON(t *testing.T, srv *httptest.Server, path string, into any) {
	t.Helper()
	res, err := srv.Client().Get(srv.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", path, res.StatusCode, body, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	zip := func(n int) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write(make([]byte, n))
		_ = w.Close()
		return b.String()
	}
	const path = "POST /v1/traces"
	for name, c := range map[string]struct {
		route, media, coding, body string
		want                       int
	}{
		"no such trace":            {"GET /traces/00", "", "", "", 404},
		"no id":                    {"GET /traces/", "", "", "", 404},
		"a limit of none":          {"GET /traces?limit=0", "", "", "", 400},
		"a limit that is no count": {"GET /traces?limit=x", "", "", "", 400},
		"JSON":                     {path, "application/json", "", "{}", 415},
		"another coding":           {path, protobuf, "zstd", "x", 415},
		"no protobuf":              {path, protobuf, "", "x", 400},
		"no gzip":                  {path, protobuf, "gzip", "x", 400},
		"gzip cut short":           {path, protobuf, "gzip", zip(1 << 20)[:20], 400},
		"too large":                {path, protobuf, "", strings.Repeat("x", maxPostBytes+1), 413},
		"too large once decoded":   {path, protobuf, "gzip", zip(maxPostBytes + 1), 413},
		"empty":                    {path, protobuf, "", "", 200},
		"spans without ids":        {path, protobuf, "", "\x0a\x04\x12\x02\x12\x00", 200},
	} {
		method, target, _ := strings.Cut(c.route, " ")
		r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.media)
		r.Header.Set("Content-Encoding", c.coding)
		w := httptest.NewRecorder()
		New().ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.want)
		}
	}
	l := New()
	l.posts <- struct{}{} // somebody sends
	w := httptest.NewRecorder()
	l.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/traces", http.NoBody))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: %d %v", w.Code, w.Header())
	}
}

func TestBounds(t *testing.T) {
	l := New()
	span := func(i int) Span { return Span{ID: fmt.Sprintf("%016x", i), Name: strings.Repeat("x", 1000)} }
	for i := range maxSpans + 5 {
		l.add("large", span(i))
	}
	l.add("large", span(0)) // again
	if got, _ := l.Find("large"); len(got.Spans) != maxSpans || got.LeftOut != 5 {
		t.Errorf("%d spans, %d left out", len(got.Spans), got.LeftOut)
	}
	for i := range maxTraces - 1 {
		l.add(fmt.Sprint(i), Span{})
	}
	l.add("large", span(0)) // lately used
	l.add("another", Span{})
	if _, there := l.Find("0"); there || l.order.Len() != maxTraces || len(l.traces) != maxTraces {
		t.Errorf("%d traces, the oldest among them: %t", l.order.Len(), there)
	}
	if _, there := l.Find("large"); !there {
		t.Error("a trace that was added to lately has gone")
	}
	for i := range maxBytes / maxSpans {
		l.add("many-"+fmt.Sprint(i/100), span(i))
	}
	sum := 0
	for e := l.order.Front(); e != nil; e = e.Next() {
		for _, s := range e.Value.(*kept).spans {
			sum += s.size()
		}
	}
	if l.bytes > maxBytes || l.bytes != sum || sum < maxBytes/2 {
		t.Errorf("%d bytes are counted, %d are there", l.bytes, sum)
	}

	var s Span
	var kvs []attribute.KeyValue
	for i := range maxAttributes + 2 {
		kvs = append(kvs, attribute.String(fmt.Sprint(i), strings.Repeat("ä", maxValueBytes)))
	}
	if a := s.ofKeyValues(kvs); len(a) != maxAttributes || s.LeftOut != 2 || len(a["0"]) > maxValueBytes+len("…") {
		t.Errorf("%d attributes, %d left out", len(a), s.LeftOut)
	}
}

// TestOneTraceIsBounded: by its bytes too, also when its spans are sent again and are larger; the others stay.
func TestOneTraceIsBounded(t *testing.T) {
	l := New()
	sized := func(i, events int) Span {
		s := Span{ID: fmt.Sprintf("%016x", i)}
		for range events {
			s.Events = append(s.Events, Event{Name: strings.Repeat("x", maxValueBytes)})
		}
		return s
	}
	l.add("another", sized(0, 1))
	for i := range maxSpans {
		l.add("large", sized(i, maxEvents))
	}
	got, _ := l.Find("large")
	if left := maxSpans - len(got.Spans); l.bytes > maxTraceBytes+maxTraceBytes/10 || len(got.Spans) < 100 || left == 0 || got.LeftOut != left {
		t.Errorf("%d spans of %d bytes, %d left out", len(got.Spans), l.bytes, got.LeftOut)
	}
	for i := range maxSpans {
		l.add("small", sized(i, 0))
	}
	for i := range maxSpans { // again
		l.add("small", sized(i, maxEvents))
	}
	small, _ := l.Find("small")
	if len(small.Spans) != maxSpans || small.LeftOut == 0 || l.bytes > maxBytes {
		t.Errorf("%d spans, %d bytes of all, %d left out", len(small.Spans), l.bytes, small.LeftOut)
	}
	if _, there := l.Find("another"); !there {
		t.Error("another trace has gone")
	}
	l.add("one span", sized(0, maxTraceBytes/maxValueBytes))
	if got, _ := l.Find("one span"); len(got.Spans) != 0 || got.LeftOut != 1 || l.Last(1)[0].Spans != 1 {
		t.Errorf("of one that is too large: %d spans, %d left out", len(got.Spans), got.LeftOut)
	}
}

// TestFind: of a record that is named in several traces the one is meant that is its own, and the longest of these.
func TestFind(t *testing.T) {
	l := New()
	of := func(key, value string) Attributes { return Attributes{key: value} }
	l.add("long", Span{ID: "1", Attributes: of(AttrRecordID, "r")})
	l.add("long", Span{ID: "2"})
	l.add("repeated", Span{ID: "1", Attributes: of(AttrRecordID, "r")})
	for i := range 5 {
		l.add("batch", Span{ID: fmt.Sprint(i), Links: []Link{{Attributes: of(AttrRecordID, "r")}}, Attributes: of(AttrRecordID, `["a","b"]`)})
	}
	l.add("function", Span{ID: "1", Attributes: of(attrEventID, "e")})
	l.add("execution", Span{ID: "1", Attributes: of(attrExecution, "m:x")})
	for id, want := range map[string]string{"r": "long", "a": "batch", "e": "function", "m:x": "execution", "long": "long"} {
		if got, ok := l.Find(id); !ok || got.ID != want {
			t.Errorf("%s: %v %t, want %s", id, got.ID, ok, want)
		}
	}
	if got, ok := l.Find(""); ok {
		t.Errorf("found %v", got)
	}
}

// order is the trace of an order, with a retry, and something hostile in every text.
func order() Trace {
	begin := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	at := func(ms float64) time.Time { return begin.Add(time.Duration(ms * float64(time.Millisecond))) }
	return Trace{ID: "0af7651916cd43dd8448eb211c80319c", LeftOut: 2, Spans: []Span{
		{ID: "1", Parent: "client's", Name: "POST /orders", Kind: "server", Service: "weir-local", Scope: "github.com/weir-dev/weir/internal/gateway", Start: at(0), End: at(8.2), Attributes: Attributes{
			"http.response.status_code": "202", AttrRecordID: "01a206ae-b186-7ed0-a68c-c6fcaa55f779", "server.address": "x",
		}},
		{ID: "2", Parent: "1", Name: "send default/orders", Kind: "producer", Service: "weir-local", Start: at(0.4), End: at(7.9)},
		{ID: "3", Parent: "1", Name: "process default/orders", Kind: "consumer", Service: "weir-local", Start: at(9), End: at(21.5), Links: []Link{
			{Trace: "aa", Span: "1", Attributes: Attributes{"cloudevents.event_id": "e"}}, {Trace: "bb", Span: "1"}, {Trace: "cc", Span: "1"}, {Trace: "dd", Span: "1"}, {Trace: "ee", Span: "1"},
		}},
		{ID: "4", Parent: "3", Name: "POST", Kind: "client", Service: "weir-local", Start: at(9.1), End: at(21.4)},
		{ID: "5", Parent: "4", Name: "order-writer", Kind: "server", Service: "order-writer", Scope: "github.com/weir-dev/weir/function", Start: at(9.5), End: at(21), Failed: true, Status: "bad\x1b[31m news\u202e", Attributes: Attributes{
			"faas.name": "order-writer", "error.type": "500", "weir.\x1b]0;title\x07": "\x00\xff\n\r x",
		}, Events: []Event{{Time: at(20), Name: "exception", Attributes: Attributes{"exception.message": "no\nroom", "exception.stacktrace": "long"}}}, LeftOut: 3},
		{ID: "6", Parent: "5", Name: "INSERT", Kind: "client", Service: "order-writer", Start: at(10), End: at(19.5), Attributes: Attributes{
			"db.query.text": "\nINSERT INTO orders\n  SELECT " + strings.Repeat("column, ", 30), "pgx.rows_affected": "1",
		}},
		{ID: "7", Parent: "1", Name: "retry " + strings.Repeat("long", 30), Kind: "producer", Service: "weir-local", Start: at(22), End: at(22)},
		{ID: "8", Parent: "9", Name: "each other's", Kind: "internal", Start: at(23), End: at(24)},
		{ID: "9", Parent: "8", Name: "parents", Kind: "internal", Start: at(23), End: at(24.5)},
		{ID: "a", Parent: "a", Name: "its own parent", Kind: "internal", Start: at(23), End: at(22)},
	}}
}

func TestPrint(t *testing.T) {
	o := order()
	for file, all := range map[string]bool{"tree.txt": false, "tree-all.txt": true} {
		var b bytes.Buffer
		if err := o.Print(&b, all); err != nil {
			t.Fatal(err)
		}
		golden(t, file, b.String())
	}
	var b bytes.Buffer
	if err := PrintList(&b, []Summary{o.summary(), {ID: "\x1b[2J", Root: "\x1b[2J"}}); err != nil {
		t.Fatal(err)
	}
	golden(t, "list.txt", b.String())
	b.Reset()
	if err := (&Trace{ID: "x"}).Print(&b, false); err != nil || b.String() != "trace x: 0 ms, 0 spans\n" {
		t.Errorf("%q %v", b.String(), err)
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	for _, r := range got {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Fatalf("%s: %q reaches the terminal", file, r)
		}
	}
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || got != string(want) {
		t.Errorf("%s (-update writes it): %v, got\n%s", path, err, got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[31m\n b\xff\u202e", 10)
	f.Fuzz(func(t *testing.T, s string, n int) {
		for _, r := range clean(s, n) {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q of %q", r, s)
			}
		}
	})
}
