package function_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"

	"github.com/weir-dev/weir/function"
)

func TestParseBatchShapes(t *testing.T) {
	const attrs = `"specversion":"1.0","id":"a","source":"/s","type":"t"`
	base := function.Event{ID: "a", Source: "/s", Type: "t"}
	with := func(change func(*function.Event)) []function.Event {
		e := base
		change(&e)
		return []function.Event{e}
	}
	for _, tc := range []struct {
		name, body string
		want       []function.Event // nil: an error
	}{
		{"no events", ` [ ] `, []function.Event{}},
		{"no data", `[{` + attrs + `}]`, []function.Event{base}},
		{"object", `[{` + attrs + `,"data":{"sku":"x", "n":[1,{}]}}]`, with(func(e *function.Event) {
			e.Data = []byte(`{"sku":"x", "n":[1,{}]}`)
		})},
		{"data first", `[{"data":{"sku":"x"},` + attrs + `}]`, with(func(e *function.Event) {
			e.Data = []byte(`{"sku":"x"}`)
		})},
		{"a JSON string stays JSON", `[{` + attrs + `,"data":"x"}]`, with(func(e *function.Event) {
			e.Data = []byte(`"x"`)
		})},
		{"text", `[{` + attrs + `,"datacontenttype":"text/plain","data":"a\n\u00e9"}]`, with(func(e *function.Event) {
			e.DataContentType, e.Data = "text/plain", []byte("a\né")
		})},
		{"content type after the data", `[{"data":"a\n",` + attrs + `,"datacontenttype":"text/plain; charset=utf-8"}]`, with(func(e *function.Event) {
			e.DataContentType, e.Data = "text/plain; charset=utf-8", []byte("a\n")
		})},
		{"JSON with a suffix", `[{` + attrs + `,"datacontenttype":"application/vnd.shop+json; v=1","data":{}}]`, with(func(e *function.Event) {
			e.DataContentType, e.Data = "application/vnd.shop+json; v=1", []byte(`{}`)
		})},
		{"base64", `[{` + attrs + `,"datacontenttype":"image/png","data_base64":"AAEC"}]`, with(func(e *function.Event) {
			e.DataContentType, e.Data = "image/png", []byte{0, 1, 2}
		})},
		{"optional attributes", `[{` + attrs + `,"subject":"é","dataschema":"http://x/","time":"2026-02-03T04:05:06.789Z"}]`, with(func(e *function.Event) {
			e.Subject, e.DataSchema, e.Time = "é", "http://x/", time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC)
		})},
		{"request", `[{` + attrs + `,"subject":"/a%20b","weirmethod":"PUT","weirquery":"x=1","customer":"c"}]`, with(func(e *function.Event) {
			e.Subject, e.Method, e.Query, e.Extensions = "/a%20b", "PUT", "x=1", map[string]string{"customer": "c"}
		})},
		{"extensions", `[{` + attrs + `,"attempts":3,"x":"y","b":true,"n":null,"subject":null,"time":null}]`, with(func(e *function.Event) {
			e.Extensions = map[string]string{"attempts": "3", "x": "y", "b": "true"}
		})},
		{"not an array", `{}`, nil},
		{"not objects", `[1]`, nil},
		{"trailing comma", `[{` + attrs + `},]`, nil},
		{"trailing comma inside", `[{` + attrs + `,}]`, nil},
		{"text after the end", `[{` + attrs + `}]x`, nil},
		{"cut short", `[{` + attrs + `,"data":{"a":`, nil},
		{"no id", `[{"specversion":"1.0","source":"/s","type":"t"}]`, nil},
		{"no specversion", `[{"id":"a","source":"/s","type":"t"}]`, nil},
		{"old specversion", `[{"specversion":"0.3","id":"a","source":"/s","type":"t"}]`, nil},
		{"id not a string", `[{"specversion":"1.0","id":1,"source":"/s","type":"t"}]`, nil},
		{"two kinds of data", `[{` + attrs + `,"data":1,"data_base64":"AAEC"}]`, nil},
		{"bad base64", `[{` + attrs + `,"data_base64":"A"}]`, nil},
		{"base64 not a string", `[{` + attrs + `,"data_base64":1}]`, nil},
		{"text that isn't a string", `[{` + attrs + `,"datacontenttype":"text/plain","data":1}]`, nil},
		{"an attribute that is an object", `[{` + attrs + `,"x":{}}]`, nil},
		{"bad time", `[{` + attrs + `,"time":"yesterday"}]`, nil},
		{"bad data", `[{` + attrs + `,"data":{"a":01}}]`, nil},
		{"nested too deeply", `[{` + attrs + `,"data":` + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + `}]`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := function.ParseBatch([]byte(tc.body))
			if tc.want == nil {
				if err == nil {
					t.Fatalf("no error, %+v", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Fatalf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

// A batch that the CloudEvents SDK encodes decodes here to what the SDK decodes it to.
func TestParseBatchAgreesWithSDK(t *testing.T) {
	var batch []cloudevents.Event
	for i, data := range []struct {
		contentType string
		value       any
	}{
		{"application/json", map[string]any{"sku": "A-1", "quantity": 3, "note": "é \u2028 \"<>&\" \\"}},
		{"application/json", []int{1, 2, 3}},
		{"application/json", "a string"},
		{"text/json", json.RawMessage(`{ "spaced" : [ ] }`)},
		{"text/plain", []byte("line\nline \"quoted\" é")},
		{"application/xml", []byte("<a>ü</a>")},
		{"", nil},
	} {
		e := cloudevents.NewEvent()
		e.SetID(fmt.Sprintf("id-%d", i))
		e.SetSource("/queues/orders")
		e.SetType("dev.weir.record")
		e.SetTime(time.Date(2026, 1, 2, 3, 4, 5, i*1000, time.FixedZone("", 3600)))
		e.SetSubject("s é")
		e.SetExtension("attempts", i)
		e.SetExtension("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		e.SetExtension("last", true)
		if data.value != nil {
			if err := e.SetData(data.contentType, data.value); err != nil {
				t.Fatal(err)
			}
		}
		batch = append(batch, e)
	}
	binary := batch[0].Clone()
	if err := binary.SetData("application/octet-stream", []byte{0, 0xff, '"'}); err != nil {
		t.Fatal(err)
	}
	binary.DataBase64 = true
	batch = append(batch, binary)
	body, err := json.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}
	var want []cloudevents.Event
	if err := json.Unmarshal(body, &want); err != nil {
		t.Fatal(err)
	}
	got, err := function.ParseBatch(body)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
	for i := range want {
		sameAsSDK(t, got[i], want[i])
	}
}

func sameAsSDK(t *testing.T, got function.Event, want cloudevents.Event) {
	t.Helper()
	extensions := map[string]string{}
	for k, v := range want.Extensions() {
		extensions[k] = fmt.Sprint(v)
	}
	if got.ID != want.ID() || got.Source != want.Source() || got.Type != want.Type() ||
		got.Subject != want.Subject() || got.DataContentType != want.DataContentType() ||
		!got.Time.Equal(want.Time()) || !bytes.Equal(got.Data, want.Data()) ||
		!reflect.DeepEqual(got.Extensions, extensions) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// FuzzParseBatch holds the parser against encoding/json: both accept the same bodies, and read the
// same events from them. Where a member is repeated this parser may be stricter, never more lenient.
func FuzzParseBatch(f *testing.F) {
	const attrs = `"specversion":"1.0","id":"a","source":"/s","type":"t"`
	for _, s := range []string{
		`[]`, `[{}]`, `null`, `[null]`, `[{` + attrs + `}]`,
		`[{` + attrs + `,"data":{"sku":"x","n":[1.5e-3,true,null,""]}},{` + attrs + `,"data_base64":"AAEC"}]`,
		`[{` + attrs + `,"datacontenttype":"text/plain","data":"\ud83d\ude00\u0000\ud800"}]`,
		`[{` + attrs + `,"time":"2026-02-03T04:05:06.789+01:00","subject":"é","attempts":3,"b":false,"n":null}]`,
		"[{" + attrs + ",\"x\":\"\xff\",\"\xfe\":\"y\"}]", `[{"id":"b",` + attrs + `,"id":null}]`,
		`[{` + attrs + `,"x":-0,"y":1E5,"z":"\/\b\f"}]` + "\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		got, gotErr := function.ParseBatch(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		want, repeated, wantErr := referenceBatch(body)
		switch {
		case gotErr == nil && wantErr != nil:
			t.Fatalf("accepted %q: %v", body, wantErr)
		case gotErr != nil && wantErr == nil && !repeated:
			t.Fatalf("refused %q: %v", body, gotErr)
		case gotErr == nil && !reflect.DeepEqual(got, want):
			t.Fatalf("%q\ngot  %+v\nwant %+v", body, got, want)
		}
	})
}

// referenceBatch is the obvious way: slow, by encoding/json.
func referenceBatch(body []byte) (events []function.Event, repeated bool, err error) {
	var objects []map[string]json.RawMessage
	if err := json.Unmarshal(body, &objects); err != nil {
		return nil, false, err
	}
	if objects == nil {
		return nil, false, errors.New("null")
	}
	events = []function.Event{}
	for _, o := range objects {
		if o == nil {
			return nil, false, errors.New("null")
		}
		e, err := referenceEvent(o)
		if err != nil {
			return nil, repeatsMembers(body), err
		}
		events = append(events, e)
	}
	return events, repeatsMembers(body), nil
}

func referenceEvent(o map[string]json.RawMessage) (e function.Event, err error) {
	attributes := map[string]string{}
	for name, raw := range o {
		if name == "data" || name == "data_base64" || string(raw) == "null" {
			continue
		}
		switch name {
		case "id", "source", "type", "subject", "dataschema", "datacontenttype", "time", "specversion":
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return e, err
			}
			attributes[name] = s
			continue
		}
		value := string(raw)
		switch raw[0] {
		case '{', '[':
			return e, errors.New("not a scalar")
		case '"':
			if err := json.Unmarshal(raw, &value); err != nil {
				return e, err
			}
		}
		if e.Extensions == nil {
			e.Extensions = map[string]string{}
		}
		e.Extensions[name] = value
	}
	e.ID, e.Source, e.Type = attributes["id"], attributes["source"], attributes["type"]
	e.Subject, e.DataSchema, e.DataContentType = attributes["subject"], attributes["dataschema"], attributes["datacontenttype"]
	if e.ID == "" || e.Source == "" || e.Type == "" || attributes["specversion"] != "1.0" {
		return e, errors.New("an attribute is missing")
	}
	if s := attributes["time"]; s != "" {
		if e.Time, err = time.Parse(time.RFC3339, s); err != nil {
			return e, err
		}
	}
	data, hasData := o["data"]
	encoded, hasEncoded := o["data_base64"]
	hasEncoded = hasEncoded && string(encoded) != "null"
	var s string
	switch {
	case hasData && hasEncoded:
		return e, errors.New("two kinds of data")
	case hasEncoded:
		if err := json.Unmarshal(encoded, &s); err != nil {
			return e, err
		}
		e.Data, err = base64.StdEncoding.DecodeString(s)
	case hasData && function.IsJSON(e.DataContentType):
		e.Data = data
	case hasData && string(data) != "null":
		err = json.Unmarshal(data, &s)
		e.Data = []byte(s)
	}
	return e, err
}

// repeatsMembers tells whether any of the events names a member twice.
func repeatsMembers(body []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(body))
	depth, isName := 0, false
	seen := map[string]bool{}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return false
		}
		if err != nil {
			return true
		}
		switch v := token.(type) {
		case json.Delim:
			switch v {
			case '{', '[':
				depth++
			default:
				depth--
			}
			if depth == 2 && v == '{' {
				clear(seen)
			}
			isName = depth == 2
		default:
			if depth != 2 {
				continue
			}
			if name, ok := token.(string); isName && ok {
				if seen[name] {
					return true
				}
				seen[name] = true
			}
			isName = !isName
		}
	}
}

// FuzzMembers holds Members against encoding/json.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{`{}`, ` {"a":1,"b":{"c":[{}]},"a":"x" } `, `{"\u0061\n":"\ud800"}`, `[]`, `{"a":1,}`, `{"a":1}x`, "{\"\xff\":0}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		var want map[string]json.RawMessage
		wantErr := json.Unmarshal(object, &want)
		if wantErr == nil && want == nil {
			wantErr = errors.New("null")
		}
		got := map[string]json.RawMessage{}
		err := function.Members(object, func(name, value []byte) error {
			got[string(name)] = value
			return nil
		})
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, encoding/json: %v", object, err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

func TestMembersEndsWithVisit(t *testing.T) {
	enough := errors.New("enough")
	n := 0
	err := function.Members([]byte(`{"a":1,"b":2,`), func(_, _ []byte) error { n++; return enough })
	if !errors.Is(err, enough) || n != 1 {
		t.Fatal(n, err)
	}
}

func BenchmarkMembers(b *testing.B) {
	order := []byte(orderBody(1, 1024))
	b.Run("weir", func(b *testing.B) {
		b.SetBytes(int64(len(order)))
		for b.Loop() {
			var sku []byte
			err := function.Members(order, func(name, value []byte) error {
				if string(name) == "sku" {
					sku = value
				}
				return nil
			})
			if err != nil || sku == nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		b.SetBytes(int64(len(order)))
		for b.Loop() {
			var o struct {
				SKU json.RawMessage `json:"sku"`
			}
			if err := json.Unmarshal(order, &o); err != nil || o.SKU == nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkParseBatch: 500 events of 1 KiB. weir is this package; json is encoding/json with
// json.RawMessage for the data; sdk is the CloudEvents SDK.
func BenchmarkParseBatch(b *testing.B) {
	body := batchBody(500, 1024)
	run := func(name string, parse func() (int, error)) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if n, err := parse(); err != nil || n != 500 {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(500*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
	run("weir", func() (int, error) {
		events, err := function.ParseBatch(body)
		return len(events), err
	})
	run("json", func() (int, error) {
		var events []struct {
			ID, Source, Type, Traceparent, Attempts string
			Time                                    time.Time
			Data                                    json.RawMessage
		}
		err := json.Unmarshal(body, &events)
		return len(events), err
	})
	run("sdk", func() (int, error) {
		var events []cloudevents.Event
		err := json.Unmarshal(body, &events)
		return len(events), err
	})
}

// batchBody returns a batch of n events with orders of about size bytes.
func batchBody(n, size int) []byte {
	var buf bytes.Buffer
	buf.WriteByte('[')
	for i := range n {
		if i > 0 {
			buf.WriteByte(',')
		}
		fmt.Fprintf(&buf, `{"specversion":"1.0","id":"0192f3a0-0000-7000-8000-%012x","source":"/apis/shop/create-order","type":"dev.weir.record",`+
			`"time":"2026-02-03T04:05:06.789012Z","datacontenttype":"application/json","attempts":"1",`+
			`"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","data":%s}`, i, orderBody(i, size))
	}
	buf.WriteByte(']')
	return buf.Bytes()
}

func orderBody(i, size int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"customer":"customer-%d","sku":"SKU-%06d","quantity":%d,"lines":[`, i%1000, i, i%7+1)
	for j := 0; b.Len() < size-60; j++ {
		if j > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"line":%d,"note":"Grüße, \"fragile\"","price":%d.95}`, j, i%90+10)
	}
	b.WriteString(`]}`)
	return b.String()
}
