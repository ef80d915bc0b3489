package function_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/weir-dev/weir/function"
)

const batchType = "application/cloudevents-batch+json"

// The table of the function call contract: what a function returns and what its caller sees.
func TestBatchAnswers(t *testing.T) {
	secret := errors.New("postgres://weir:hunter2@db/weir refused")
	for _, tc := range []struct {
		name       string
		failed     []function.Failure
		err        error
		status     int
		problem    string
		retryAfter string
		body       string // substring
	}{
		{name: "all settled", status: 200},
		{name: "some failed", failed: []function.Failure{{ID: "b"}, {ID: "c"}}, status: 200, body: `{"batchItemFailures":[{"itemIdentifier":"b"},{"itemIdentifier":"c"}]}`},
		{name: "some failed, one with a reason", failed: []function.Failure{{ID: "b", Reason: `no "shop"`}, {ID: "c"}}, status: 200, body: `{"batchItemFailures":[{"itemIdentifier":"b","reason":"no \"shop\""},{"itemIdentifier":"c"}]}`},
		{name: "not now", err: function.NotNow(secret, 1500*time.Millisecond), status: 503, problem: function.ProblemNotNow, retryAfter: "2"},
		{name: "not now, wrapped", err: fmt.Errorf("writing: %w", function.NotNow(secret, 0)), status: 503, problem: function.ProblemNotNow, retryAfter: "1"},
		{name: "permanent", err: function.Permanent(secret), status: 422, problem: function.ProblemPermanent},
		{name: "any other", err: secret, status: 500, problem: function.ProblemFunctionError},
		{name: "with a detail", err: function.WithDetail(secret, "the total is negative"), status: 500, problem: function.ProblemFunctionError, body: "the total is negative"},
		{name: "permanent with a detail", err: function.Permanent(function.WithDetail(secret, "no such shop")), status: 422, problem: function.ProblemPermanent, body: "no such shop"},
		{name: "an id that isn't the batch's", failed: []function.Failure{{ID: "b"}, {ID: "z", Reason: "postgres://weir:hunter2@db"}}, status: 500, problem: function.ProblemFunctionError},
		{name: "an error makes failures void", failed: []function.Failure{{ID: "b", Reason: "hunter2"}}, err: function.NotNow(secret, 0), status: 503, problem: function.ProblemNotNow, retryAfter: "1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			h := function.Batch(func(context.Context, []function.Event) ([]function.Failure, error) { return tc.failed, tc.err },
				function.Logger(slog.New(slog.NewTextHandler(&log, nil))))
			res := post(h, batchType, `[`+event("a")+`,`+event("b")+`,`+event("c")+`]`)
			body := res.Body.String()
			if res.Code != tc.status || res.Header().Get("Retry-After") != tc.retryAfter || !strings.Contains(body, tc.body) {
				t.Fatalf("%d %v %s", res.Code, res.Header(), body)
			}
			if strings.Contains(body, "hunter2") {
				t.Fatalf("the answer leaks the error's text: %s", body)
			}
			if tc.problem == "" {
				return
			}
			var p function.Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil {
				t.Fatal(err)
			}
			if res.Header().Get("Content-Type") != "application/problem+json" || p.Type != tc.problem || p.Status != tc.status || p.Title == "" || p.Detail == "" {
				t.Fatalf("%+v", p)
			}
			if tc.err != nil && !strings.Contains(log.String(), "hunter2") {
				t.Fatalf("the log lacks the error: %s", log.String())
			}
		})
	}
}

// A reason is cut at a whole character, and all of them together never make the answer longer than the
// dispatcher takes: it would fail the batch.
func TestReasonsAreBounded(t *testing.T) {
	for _, tc := range []struct{ name, reason, want string }{
		{"fits", strings.Repeat("a", function.MaxReasonBytes), strings.Repeat("a", function.MaxReasonBytes)},
		{"is cut", strings.Repeat("a", function.MaxReasonBytes+1), strings.Repeat("a", function.MaxReasonBytes)},
		{"is cut before the character that doesn't fit", "a" + strings.Repeat("😀", function.MaxReasonBytes), "a" + strings.Repeat("😀", (function.MaxReasonBytes-1)/4)},
		{"is not UTF-8", "a\xffb", "a\uFFFDb"},
		{"is not UTF-8 and is cut", strings.Repeat("a\xff", function.MaxReasonBytes), strings.Repeat("a\uFFFD", function.MaxReasonBytes/4)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := failAll(t, tc.reason, "1"); got["1"] != tc.want {
				t.Fatalf("%q, want %q", got["1"], tc.want)
			}
		})
	}
	t.Run("of the largest batch", func(t *testing.T) {
		ids := make([]string, 10_000) // the most that a mapping allows
		for i := range ids {
			ids[i] = fmt.Sprintf("01a206ae-b5db-7ea6-b5a6-%012d", i)
		}
		got := failAll(t, "\x01"+strings.Repeat("<", function.MaxReasonBytes), ids...)
		if len(got) != len(ids) || got[ids[0]] == "" || got[ids[len(ids)-1]] != "" {
			t.Fatalf("%d of %d records are named, the first with %q, the last with %q", len(got), len(ids), got[ids[0]], got[ids[len(ids)-1]])
		}
		if got := failAll(t, "sku: missing", ids...); got[ids[len(ids)-1]] == "" {
			t.Fatal("a short reason is missing")
		}
	})
}

// failAll returns the reasons by id, as a caller reads them.
func failAll(t *testing.T, reason string, ids ...string) map[string]string {
	t.Helper()
	h := function.Batch(func(_ context.Context, events []function.Event) (failed []function.Failure, err error) {
		for _, e := range events {
			failed = append(failed, function.Failure{ID: e.ID, Reason: reason})
		}
		return failed, nil
	})
	events := make([]string, 0, len(ids))
	for _, id := range ids {
		events = append(events, event(id))
	}
	res := post(h, batchType, "["+strings.Join(events, ",")+"]")
	const dispatcherTakes = 1 << 20 // internal/invoke: maxAnswerBytes
	if n := res.Body.Len(); n > dispatcherTakes {
		t.Fatalf("the answer has %d bytes", n)
	}
	var answer struct {
		BatchItemFailures []struct{ ItemIdentifier, Reason string }
	}
	if err := json.Unmarshal(res.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, f := range answer.BatchItemFailures {
		reasons[f.ItemIdentifier] = f.Reason
	}
	return reasons
}

func TestBatchRefuses(t *testing.T) {
	h := function.Batch(func(context.Context, []function.Event) ([]function.Failure, error) {
		t.Error("the function was called")
		return nil, nil
	}, function.MaxBodyBytes(300), function.Logger(slog.New(slog.DiscardHandler)))
	big := `[` + event("a") + `,` + event(strings.Repeat("b", 300)) + `]`
	for _, tc := range []struct {
		name   string
		req    *http.Request
		status int
	}{
		{"GET", request(http.MethodGet, batchType, ""), 405},
		{"not events", request(http.MethodPost, "application/json", "{}"), 415},
		{"no content type", request(http.MethodPost, "", "{}"), 415},
		{"another format", request(http.MethodPost, "application/cloudevents-batch+avro", "{}"), 415},
		{"another charset", request(http.MethodPost, batchType+"; charset=utf-16", "[]"), 415},
		{"malformed", request(http.MethodPost, batchType, "[{}]"), 400},
		{"too large", request(http.MethodPost, batchType, big), 413},
		{"too large, length unknown", chunked(request(http.MethodPost, batchType, big)), 413},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res := httptest.NewRecorder()
			h.ServeHTTP(res, tc.req)
			if res.Code != tc.status || res.Header().Get("Content-Type") != "application/problem+json" {
				t.Fatalf("%d %s", res.Code, res.Body)
			}
		})
	}
	if res := post(h, batchType+"; charset=UTF-8", " []"); res.Code != 200 {
		t.Fatalf("an empty batch: %d %s", res.Code, res.Body)
	}
}

// What the CloudEvents SDK sends in binary and in structured mode arrives equal, and a single event
// that fails is a 500.
func TestSingleEventFromSDK(t *testing.T) {
	e := cloudevents.NewEvent()
	e.SetID("id-1")
	e.SetSource("/queues/orders")
	e.SetType("dev.weir.record")
	e.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC))
	e.SetSubject("order 1")
	e.SetExtension("weirattempts", 2)
	if err := e.SetData("application/json", map[string]string{"sku": "é"}); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"binary", "structured"} {
		t.Run(mode, func(t *testing.T) {
			ctx := cloudevents.WithEncodingBinary(t.Context())
			if mode == "structured" {
				ctx = cloudevents.WithEncodingStructured(t.Context())
			}
			var failed []function.Failure
			h := function.Batch(func(_ context.Context, events []function.Event) ([]function.Failure, error) {
				if len(events) != 1 {
					t.Errorf("%d events", len(events))
				}
				sameAsSDK(t, events[0], e)
				return failed, nil
			}, function.Logger(slog.New(slog.DiscardHandler)))
			send := func() *httptest.ResponseRecorder {
				req := httptest.NewRequest(http.MethodPost, "/", nil)
				if err := cehttp.WriteRequest(ctx, binding.ToMessage(&e), req); err != nil {
					t.Fatal(err)
				}
				res := httptest.NewRecorder()
				h.ServeHTTP(res, req)
				return res
			}
			if res := send(); res.Code != 200 {
				t.Fatal(res.Code)
			}
			failed = []function.Failure{{ID: "id-1"}}
			if res := send(); res.Code != 500 || !strings.Contains(res.Body.String(), "its log says why") {
				t.Fatalf("a failed single event: %d %s, want 500", res.Code, res.Body)
			}
			failed[0].Reason = "no such shop"
			var p function.Problem
			if res := send(); res.Code != 500 || json.Unmarshal(res.Body.Bytes(), &p) != nil || p.Detail != "no such shop" {
				t.Fatalf("a failed single event: %d %s, want 500 with the reason", res.Code, res.Body)
			}
		})
	}
}

func TestBinaryModeHeaders(t *testing.T) {
	var got []function.Event
	h := function.Batch(func(_ context.Context, events []function.Event) ([]function.Failure, error) {
		got = events
		return nil, nil
	}, function.Logger(slog.New(slog.DiscardHandler)))
	req := request(http.MethodPost, "text/plain", "100%")
	for k, v := range map[string]string{
		"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-subject": "Gr%C3%BC%C3%9Fe",
		"ce-time": "2026-01-02T03:04:05Z", "ce-discount": "5%", "traceparent": "00-…",
	} {
		req.Header.Set(k, v)
	}
	res := httptest.NewRecorder()
	h.ServeHTTP(res, req)
	want := []function.Event{{
		ID: "1", Source: "/s", Type: "t", Subject: "Grüße", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		DataContentType: "text/plain", Extensions: map[string]string{"discount": "5%"}, Data: []byte("100%"),
	}}
	if res.Code != 200 || !reflect.DeepEqual(got, want) {
		t.Fatalf("%d\ngot  %+v\nwant %+v", res.Code, got, want)
	}
	req.Header.Del("Ce-Type")
	req.Body = io.NopCloser(strings.NewReader(""))
	res = httptest.NewRecorder()
	if h.ServeHTTP(res, req); res.Code != 400 {
		t.Fatalf("without ce-type: %d", res.Code)
	}
}

func ExampleBatch() {
	handler := function.Batch(func(_ context.Context, events []function.Event) (failed []function.Failure, err error) {
		for _, e := range events {
			if !json.Valid(e.Data) {
				failed = append(failed, function.Failure{ID: e.ID, Reason: "not JSON"})
				continue
			}
			fmt.Printf("%s: %s\n", e.ID, e.Data)
		}
		return failed, nil
	})
	res := post(handler, "application/cloudevents-batch+json", `[
		{"specversion":"1.0","id":"1","source":"/shop","type":"order","data":{"sku":"A-1"}},
		{"specversion":"1.0","id":"2","source":"/shop","type":"order","datacontenttype":"text/plain","data":"oops"}]`)
	fmt.Println(res.Code, res.Body)
	// Output:
	// 1: {"sku":"A-1"}
	// 200 {"batchItemFailures":[{"itemIdentifier":"2","reason":"not JSON"}]}
}

func event(id string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/s","type":"t","data":{}}`, id)
}

func request(method, contentType, body string) *http.Request {
	req := httptest.NewRequest(method, "/", strings.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	return req
}

func chunked(r *http.Request) *http.Request {
	r.ContentLength = -1
	return r
}

func post(h http.Handler, contentType, body string) *httptest.ResponseRecorder {
	res := httptest.NewRecorder()
	h.ServeHTTP(res, request(http.MethodPost, contentType, body))
	return res
}
