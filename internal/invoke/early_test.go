package invoke

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// rawServer serves each connection by serve, and closes it.
func rawServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				serve(c)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// earlyServer answers each request when it has read its head alone, and closes the connection.
func earlyServer(t *testing.T, answer func(head textproto.MIMEHeader) string) string {
	t.Helper()
	return rawServer(t, func(c net.Conn) {
		r := textproto.NewReader(bufio.NewReaderSize(c, 512))
		if _, err := r.ReadLine(); err == nil {
			head, _ := r.ReadMIMEHeader()
			_, _ = io.WriteString(c, answer(head))
		}
	})
}

// TestEarlyAnswersCount: what a function answers before it has read the request is its answer, though the rest of the
// request can't be written any more. Throttled is never failed.
func TestEarlyAnswersCount(t *testing.T) {
	rs := sampleRecords(t)[3:4]
	for name, size := range map[string]int{"asked first": 4 << 20, "sent at once": expectFrom / 2} {
		rs[0].Body = bytes.Repeat([]byte("x"), size)
		for status, want := range map[int]Class{429: NotNow, 503: NotNow, 200: Done, 413: Refused} {
			url := earlyServer(t, func(textproto.MIMEHeader) string {
				return fmt.Sprintf("HTTP/1.1 %d x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", status)
			})
			c := NewCaller(1, telemetry.Providers{})
			for range 20 {
				if o := c.Call(t.Context(), Batch{URL: url, Records: rs, Single: true, Timeout: testkit.Patience}); o.Class != want {
					t.Errorf("%d, %s: %s, want %s: %s", status, name, o.Class, want, o.Reason)
				}
			}
			c.Close()
		}
	}
}

// TestEarlyAnswersOfSynchronousCalls come through.
func TestEarlyAnswersOfSynchronousCalls(t *testing.T) {
	url := earlyServer(t, func(textproto.MIMEHeader) string {
		return "HTTP/1.1 429 x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
	})
	c := NewCaller(1, telemetry.Providers{})
	defer c.Close()
	h, err := c.Forward(Hop{Base: url, Failed: func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, err.Error(), http.StatusBadGateway)
	}})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(h)
	defer front.Close()
	for range 20 {
		resp, err := front.Client().Post(front.URL, "text/plain", bytes.NewReader(make([]byte, 200<<10)))
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 429 {
			body, _ := io.ReadAll(resp.Body)
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		_ = resp.Body.Close()
	}
}

// TestWhatWasNotDelivered is no attempt; what was, and got no answer, is.
func TestWhatWasNotDelivered(t *testing.T) {
	rs := sampleRecords(t)[3:4]
	url := earlyServer(t, func(textproto.MIMEHeader) string { return "" })
	c := NewCaller(1, telemetry.Providers{})
	defer c.Close()
	for size, want := range map[int]Class{32 << 20: NotNow, 10: Failed} {
		rs[0].Body = bytes.Repeat([]byte("x"), size)
		if o := c.Call(t.Context(), Batch{URL: url, Records: rs, Single: true, Timeout: testkit.Patience}); o.Class != want {
			t.Errorf("%d bytes: %s, want %s: %s", size, o.Class, want, o.Reason)
		}
	}
}

// TestExpect: a large request is sent when the function has asked for it, after a while when it is silent, and without
// the question where it doesn't know that.
func TestExpect(t *testing.T) {
	asked := make(chan string, 4)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Expect")
		if r.URL.Path == "/417" && r.Header.Get("Expect") != "" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		if n, err := io.Copy(io.Discard, r.Body); n != expectFrom || err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer srv.Close()
	c := NewCaller(1, telemetry.Providers{})
	defer c.Close()
	rs := sampleRecords(t)[3:4]
	rs[0].Body = make([]byte, expectFrom)
	for path, want := range map[string][]string{"/": {"100-continue"}, "/417": {"100-continue", ""}} {
		if o := c.Call(t.Context(), Batch{URL: srv.URL + path, Records: rs, Single: true, Timeout: testkit.Patience}); o.Class != Done {
			t.Errorf("%s: %+v", path, o)
		}
		for _, w := range want {
			if got := <-asked; got != w {
				t.Errorf("%s: Expect %q, want %q", path, got, w)
			}
		}
	}
}

// TestAnswersThatMayNameFailures never settle as done unless they certainly name none.
func TestAnswersThatMayNameFailures(t *testing.T) {
	rs := sampleRecords(t)[:2]
	id := rs[0].ID.String()
	gz := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		return b.String()
	}
	wide := func(text string) string { // UTF-16
		var b strings.Builder
		b.WriteString("\xff\xfe")
		for _, c := range []byte(text) {
			b.WriteByte(c)
			b.WriteByte(0)
		}
		return b.String()
	}
	names := `{"batchItemFailures":[{"itemIdentifier":"` + id + `"}]}`
	for _, row := range []struct {
		media, coding, body string
		want                Class
		failed              int
	}{
		{"application/json", "", names, Done, 1},
		{"text/plain", "", names, Done, 1},
		{"", "", names, Done, 1},
		{"application/json", "gzip", gz(names), Done, 1},
		{"application/json", "", "\xef\xbb\xbf" + names, Done, 1},
		{"application/json", "", strings.ToLower(names[:20]) + names[20:], Done, 1},
		{"application/json", "", `{"batch\u0049temFailures":[{"itemIdentifier":"` + id + `"}]}`, Done, 1},
		{"application/json", "br", names, Failed, 0},
		{"application/json", "gzip", names, Failed, 0},
		{"text/html", "", "<p>" + names + "</p>", Failed, 0},
		{"application/x-www-form-urlencoded", "", "batchItemFailures=" + id, Failed, 0},
		{"application/yaml", "", "batchItemFailures:\n- itemIdentifier: " + id, Failed, 0},
		{"application/json; charset=utf-16", "", wide(names), Failed, 0},
		{"text/plain", "", wide(names), Failed, 0},
		{"application/json", "", "[" + names + "]", Failed, 0},
		{"application/json", "", `{"batchItemFailures":[],"batchItemFailures":[{"itemIdentifier":"` + id + `"}]}`, Failed, 0},
		{"application/json", "", `{"batchItemFailures":[{"itemIdentifier":"` + id + `"}],"batchitemfailures":[]}`, Failed, 0},
		{"application/json", "", `{"batchItemFailures":[{"itemIdentifier":"` + id + `","itemIdentifier":"` + rs[1].ID.String() + `"}]}`, Failed, 0},
		{"text/plain", "", names[:len(names)-3], Failed, 0},
		{"text/plain", "", strings.Repeat("x", maxAnswerBytes) + names, Failed, 0},
		{"application/json", "", `{"batchItemFailures":null}`, Done, 0},
		{"application/json", "", `{"ok":true}`, Done, 0},
		{"application/json", "", `null`, Done, 0},
		{"application/json", "", `["fine"]`, Done, 0},
		{"text/plain", "", `{fine}`, Done, 0},
		{"text/html", "gzip", gz("<p>fine</p>"), Done, 0},
		{"text/html", "", "<p>fine</p>", Done, 0},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{row.media}
			if row.coding != "" {
				w.Header().Set("Content-Encoding", row.coding)
			}
			_, _ = io.WriteString(w, row.body)
		}))
		c := NewCaller(1, telemetry.Providers{})
		if o := c.Call(t.Context(), Batch{URL: srv.URL, Records: rs, Timeout: testkit.Patience}); o.Class != row.want || len(o.FailedIDs) != row.failed {
			t.Errorf("%s %s %.80q: %s, %d failed: %s", row.media, row.coding, row.body, o.Class, len(o.FailedIDs), o.Reason)
		}
		c.Close()
		srv.Close()
	}
}

// TestAnAnswerIsKeptDecoded: a job's result is what the function meant, in any coding.
func TestAnAnswerIsKeptDecoded(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", r.URL.Path[1:])
		w.Header().Set("Content-Type", "text/csv")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, strings.Repeat("a,b\n", 100))
		_ = z.Close()
	}))
	defer srv.Close()
	c := NewCaller(1, telemetry.Providers{})
	defer c.Close()
	q := Question{URL: srv.URL + "/gzip", Record: sampleRecords(t)[0], Timeout: testkit.Patience, Limit: 1000}
	if o, a := c.Ask(t.Context(), q); o.Class != Done || string(a.Body) != strings.Repeat("a,b\n", 100) || a.ContentType != "text/csv" {
		t.Errorf("%+v %q", o, a.Body)
	}
	q.Limit = 10
	q.Keep = func(_ context.Context, contentType string, body io.Reader) error {
		if text, err := io.ReadAll(body); err != nil || len(text) != 400 || contentType != "text/csv" {
			t.Errorf("kept %d bytes, %v", len(text), err)
		}
		return nil
	}
	if o, _ := c.Ask(t.Context(), q); o.Class != Done {
		t.Errorf("%+v", o)
	}
	q.URL = srv.URL + "/br"
	if o, _ := c.Ask(t.Context(), q); o.Class != Failed || !strings.Contains(o.Reason, "not supported") {
		t.Errorf("%+v", o)
	}
}

// TestEveryMediaTypeIsReadable: whatever a client says of its body, the SDK reads the batch that it is in, and the event
// is the record's.
func TestEveryMediaTypeIsReadable(t *testing.T) {
	const body = `{"specversion":"1.0","id":"forged","source":"/x","type":"t","data":1}`
	var rs []*record.Record
	for _, ct := range []string{
		"application/json", "Application/JSON", "application/JSON; Charset=UTF-8", "text/json", "application/vnd.x+json", "application/problem+json; a=b",
		"application/cloudevents+json", "Application/CloudEvents+JSON; charset=utf-8", "application/cloudevents-batch+json", "application/cloudevents+protobuf",
		"application/xml", "text/plain; charset=iso-8859-1", "application/octet-stream", "no media type", "",
	} {
		id, err := record.NewID()
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, &record.Record{ID: id, Time: time.Now().UTC(), Source: "/a", ContentType: ct, Body: []byte(body), Attempts: 2})
	}
	req, err := newRequest(t.Context(), call{url: "http://f", records: rs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	events, err := cehttp.NewEventsFromHTTPRequest(req)
	if err != nil || len(events) != len(rs) {
		t.Fatalf("%d events: %v", len(events), err)
	}
	for i, e := range events {
		r := rs[i]
		said := r.ContentType
		if got, ok := e.Extensions()["weirmediatype"].(string); ok {
			if got != said {
				t.Errorf("%s: weirmediatype %s", said, got)
			}
		} else if !strings.EqualFold(e.DataContentType(), said) {
			t.Errorf("%s: datacontenttype %s", said, e.DataContentType())
		}
		if err := e.Validate(); err != nil || e.ID() != r.ID.String() || string(e.Data()) != body {
			t.Errorf("%s: id %s, data %s, %v", said, e.ID(), e.Data(), err)
		}
		req, err := newRequest(t.Context(), call{url: "http://f", records: rs[i : i+1], single: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		m := cehttp.NewMessageFromHttpRequest(req)
		single, err := binding.ToEvent(t.Context(), m)
		if err != nil || m.ReadEncoding() != binding.EncodingBinary || single.ID() != r.ID.String() || string(single.Data()) != body {
			t.Errorf("%s, alone: %v %v", said, err, single)
		}
	}
}
