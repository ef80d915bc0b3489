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
		failed     []string
		err        error
		status     int
		problem    string
		retryAfter string
		body       string // substring
	}{
		{name: "all settled", status: 200},
		{name: "some failed", failed: []string{"b", "c"}, status: 200, body: `{"batchItemFailures":[{"itemIdentifier":"b"},{"itemIdentifier":"c"}]}`},
		{name: "not now", err: function.NotNow(secret, 1500*time.Millisecond), status: 503, problem: function.ProblemNotNow, retryAfter: "2"},
		{name: "not now, wrapped", err: fmt.Errorf("writing: %w", function.NotNow(secret, 0)), status: 503, problem: function.ProblemNotNow, retryAfter: "1"},
		{name: "permanent", err: function.Permanent(secret), status: 422, problem: function.ProblemPermanent},
		{name: "any other", err: secret, status: 500, problem: function.ProblemFunctionError},
		{name: "with a detail", err: function.WithDetail(secret, "the total is negative"), status: 500, problem: function.ProblemFunctionError, body: "the total is negative"},
		{name: "permanent with a detail", err: function.Permanent(function.WithDetail(secret, "no such shop")), status: 422, problem: function.ProblemPermanent, body: "no such shop"},
		{name: "an id that isn't the batch's", failed: []string{"b", "z"}, status: 500, problem: function.ProblemFunctionError},
		{name: "an error makes failures void", failed: []string{"b"}, err: function.NotNow(secret, 0), status: 503, problem: function.ProblemNotNow, retryAfter: "1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			h := function.Batch(func(context.Context, []function.Event) ([]string, error) { return tc.failed, tc.err },
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

func TestBatchRefuses(t *testing.T) {
	h := function.Batch(func(context.Context, []function.Event) ([]string, error) {
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
	e.SetExtension("attempts", 2)
	if err := e.SetData("application/json", map[string]string{"sku": "é"}); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"binary", "structured"} {
		t.Run(mode, func(t *testing.T) {
			ctx := cloudevents.WithEncodingBinary(t.Context())
			if mode == "structured" {
				ctx = cloudevents.WithEncodingStructured(t.Context())
			}
			var failed []string
			h := function.Batch(func(_ context.Context, events []function.Event) ([]string, error) {
				if len(events) != 1 {
					t.Errorf("%d events", len(events))
				}
				sameAsSDK(t, events[0], e)
				return failed, nil
			}, function.Logger(slog.New(slog.DiscardHandler)))
			send := func() int {
				req := httptest.NewRequest(http.MethodPost, "/", nil)
				if err := cehttp.WriteRequest(ctx, binding.ToMessage(&e), req); err != nil {
					t.Fatal(err)
				}
				res := httptest.NewRecorder()
				h.ServeHTTP(res, req)
				return res.Code
			}
			if code := send(); code != 200 {
				t.Fatal(code)
			}
			failed = []string{"id-1"}
			if code := send(); code != 500 {
				t.Fatalf("a failed single event: %d, want 500", code)
			}
		})
	}
}

func TestBinaryModeHeaders(t *testing.T) {
	var got []function.Event
	h := function.Batch(func(_ context.Context, events []function.Event) ([]string, error) {
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
	handler := function.Batch(func(_ context.Context, events []function.Event) (failed []string, err error) {
		for _, e := range events {
			if !json.Valid(e.Data) {
				failed = append(failed, e.ID)
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
	// 200 {"batchItemFailures":[{"itemIdentifier":"2"}]}
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
