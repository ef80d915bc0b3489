package invoke

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sampleRecords(t *testing.T) []*record.Record {
	t.Helper()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	rs := []*record.Record{
		{Time: at, Source: "/apis/default/shop/create-order", ContentType: "application/json", JSON: true, Body: []byte(`{"sku":"a","n":1.50}`)},
		{Time: at, Source: "/a", ContentType: "application/json; charset=utf-8", Body: []byte(`[1,"two"]`), Attempts: 3},
		{Time: at, Source: "/a", ContentType: "application/json", Body: []byte(`{not json`)},
		{Time: at, Source: "/a", ContentType: "text/plain", Body: []byte("hello \u0001")},
		{Time: at, Source: "/a", ContentType: "application/octet-stream", Body: []byte{0, 1, 0xff}},
		{Time: at, Source: "/a", ContentType: "application/json", Body: []byte("\"\xff\"")},
		{Time: at, Source: "/a"},
		{
			Time: at, Source: "/a", ContentType: "text/plain", Body: []byte("x"),
			Request:    record.Request{Method: "PUT", Path: "/customers/a%20b", Query: "x=%C3%A9&y=\"1\""},
			Attributes: []record.Attribute{{Name: "customer", Value: `a "b" 100% é €`}, {Name: "empty"}, {Name: "weird", Value: "%41 \\"}},
		},
		{
			Time: at, Source: "/a", ContentType: "text/plain", Body: []byte("x"),
			TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "a=b",
		},
	}
	for _, r := range rs {
		var err error
		if r.ID, err = record.NewID(); err != nil {
			t.Fatal(err)
		}
	}
	return rs
}

func checkEvent(t *testing.T, e event.Event, r *record.Record) {
	t.Helper()
	if err := e.Validate(); err != nil {
		t.Errorf("%s: %v", r.Body, err)
	}
	if e.ID() != r.ID.String() || e.Source() != r.Source || e.Type() != eventType || !e.Time().Equal(r.Time) {
		t.Errorf("%q: attributes %v", r.Body, e.Context)
	}
	if string(e.Data()) != string(r.Body) || e.DataContentType() != r.ContentType {
		t.Errorf("data %q of type %q, want %q of %q", e.Data(), e.DataContentType(), r.Body, r.ContentType)
	}
	if e.Subject() != r.Request.Path || r.Request.Method != "" && (e.Extensions()["weirmethod"] != r.Request.Method || e.Extensions()["weirquery"] != r.Request.Query) {
		t.Errorf("subject %q, extensions %v", e.Subject(), e.Extensions())
	}
	for _, a := range r.Attributes {
		if got, ok := e.Extensions()[a.Name]; got != a.Value || !ok {
			t.Errorf("attribute %s is %q, want %q", a.Name, got, a.Value)
		}
	}
	if r.TraceParent != "" && (e.Extensions()["traceparent"] != r.TraceParent || e.Extensions()["tracestate"] != r.TraceState) {
		t.Errorf("extensions %v", e.Extensions())
	}
}

// TestBindingAgainstSDK: what we write, cloudevents/sdk-go reads as the events we mean.
func TestBindingAgainstSDK(t *testing.T) {
	rs := sampleRecords(t)
	req, err := newRequest(t.Context(), call{url: "http://f", records: rs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	events, err := cehttp.NewEventsFromHTTPRequest(req)
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != len(rs) {
		t.Fatalf("%d events, want %d", len(events), len(rs))
	}
	for i, e := range events {
		checkEvent(t, e, rs[i])
	}
	for _, r := range rs {
		req, err := newRequest(t.Context(), call{url: "http://f", records: []*record.Record{r}, single: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		e, err := binding.ToEvent(t.Context(), cehttp.NewMessageFromHttpRequest(req))
		if err != nil {
			t.Fatal(err)
		}
		// The SDK leaves the values of headers as they are, though the binding says that they are percent-encoded.
		for name, v := range e.Extensions() {
			if text, ok := v.(string); ok {
				e.SetExtension(name, unescape(t, text))
			}
		}
		e.SetSubject(unescape(t, e.Subject()))
		checkEvent(t, *e, r)
	}
}

func unescape(t *testing.T, s string) string {
	t.Helper()
	u, err := url.PathUnescape(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for h, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "-3": 0, "x": 0, "999999": maxRetryAfter, "9223372037": maxRetryAfter,
		now.Add(7 * time.Second).Format(http.TimeFormat): 7 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):      0,
	} {
		if got := retryAfter(h, now); got != want {
			t.Errorf("%q: %s, want %s", h, got, want)
		}
	}
}

func TestLargeAnswersAreCut(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		if r.URL.Path == "/bad" {
			status = http.StatusInternalServerError
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `"`+strings.Repeat("x", 2*maxAnswerBytes)+`"`)
	}))
	defer srv.Close()
	c := NewCaller(1, telemetry.Providers{})
	defer c.Close()
	rs := sampleRecords(t)[:1]
	for _, path := range []string{"/", "/bad"} {
		o := c.Call(t.Context(), Batch{URL: srv.URL + path, Records: rs, Timeout: time.Minute})
		if o.Class != Failed || len(o.Reason) > 2*maxReasonBytes {
			t.Errorf("%s: %s %.100q", path, o.Class, o.Reason)
		}
	}
}

func TestCancelledCallsSayNothingAboutRecords(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a server notices that its client is gone only after the body
		cancel()
		<-r.Context().Done()
	}))
	defer srv.Close()
	c := NewCaller(1, telemetry.Providers{})
	defer c.Close()
	if o := c.Call(ctx, Batch{URL: srv.URL, Records: sampleRecords(t)[:1], Timeout: time.Minute}); o.Class != NotNow {
		t.Errorf("%+v", o)
	}
}

func TestForwardSaysWhatWentWrong(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/hang":
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		case "/base/break":
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("X-Seen", r.URL.RequestURI()+" "+r.Header.Get("X-Forwarded-Host"))
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.Copy(w, r.Body)
		}
	}))
	defer srv.Close()
	defer close(release)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	c := NewCaller(1, telemetry.Providers{})
	defer c.Close()
	for _, row := range []struct {
		base, path string
		want       error
	}{
		{srv.URL + "/base", "/x?a=1", nil},
		{srv.URL + "/base", "/hang", ErrTimeout},
		{srv.URL + "/base", "/break", ErrBroken},
		{gone.URL, "/x", ErrNotReached},
	} {
		var got error
		h, err := c.Forward(Hop{Base: row.base, Failed: func(w http.ResponseWriter, _ *http.Request, err error) { got = err; w.WriteHeader(599) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		req := httptest.NewRequestWithContext(ctx, http.MethodPost, "http://api.example"+row.path, strings.NewReader("body"))
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		cancel()
		if !errors.Is(got, row.want) {
			t.Errorf("%s: %v, want %v", row.path, got, row.want)
		}
		if row.want == nil && (rec.Code != http.StatusTeapot || rec.Body.String() != "body" || rec.Header().Get("X-Seen") != "/base/x?a=1 api.example") {
			t.Errorf("passed through as %d %q %v", rec.Code, rec.Body, rec.Header())
		}
	}
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(8)
		ctx := t.Context()
		take := func(n int) {
			t.Helper()
			for range n {
				if err := l.Acquire(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		limit := func() int { n, _, _ := l.State(); return n }
		take(8)
		blocked := make(chan error, 1)
		go func() { blocked <- l.Acquire(ctx) }()
		synctest.Wait()
		select {
		case err := <-blocked:
			t.Fatal("a ninth call started", err)
		default:
		}
		l.Release(Outcome{Class: Done, Status: 200})
		if err := <-blocked; err != nil {
			t.Fatal(err)
		}

		// Calls that were in flight together and are all refused are one signal.
		for range 8 {
			l.Release(Outcome{Class: NotNow, Status: 429})
		}
		if limit() != 4 {
			t.Errorf("limit %d after one round of 429, want 4", limit())
		}
		start := time.Now()
		take(1)
		if d := time.Since(start); d < pauseMin/2 || d > pauseMin {
			t.Errorf("calls paused for %s", d)
		}
		l.Release(Outcome{Class: NotNow, Status: 429, RetryAfter: 3 * time.Second})
		start = time.Now()
		take(1)
		if d := time.Since(start); d < 3*time.Second || d > 4*time.Second {
			t.Errorf("Retry-After: 3 paused for %s", d)
		}
		for range 10 {
			l.Release(Outcome{Class: NotNow, Status: 429})
			take(1)
		}
		if limit() != 1 {
			t.Errorf("limit %d, want 1", limit())
		}
		start = time.Now()
		l.Release(Outcome{Class: NotNow, Status: 429})
		take(1)
		if d := time.Since(start); d > pauseMax {
			t.Errorf("paused for %s, more than %s", d, pauseMax)
		}
		// What gets through raises the limit step by step, up to the cap.
		for want := 2; want <= 8; want++ {
			for range want - 1 {
				l.Release(Outcome{Class: Done, Status: 200})
				take(1)
			}
			if limit() != want {
				t.Errorf("limit %d, want %d", limit(), want)
			}
		}
		for range 100 {
			l.Release(Outcome{Class: Failed, Status: 500}) // an answer is an answer
			take(1)
		}
		if limit() != 8 {
			t.Errorf("limit %d is above the cap", limit())
		}

		cctx, cancel := context.WithCancelCause(ctx)
		take(7)
		cause := errors.New("stop")
		cancel(cause)
		if err := l.Acquire(cctx); !errors.Is(err, cause) {
			t.Errorf("Acquire after a cancel: %v", err)
		}
	})
}

// TestLimiterTakesANewCap: a change of the cap interrupts nothing and undoes nothing that "not now" has taught.
func TestLimiterTakesANewCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(2)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 12 {
			go func() { _ = l.Acquire(ctx) }()
		}
		in := func(want int) {
			t.Helper()
			synctest.Wait()
			if _, n, _ := l.State(); n != want {
				t.Errorf("%d calls in flight, want %d", n, want)
			}
		}
		limit := func(want int, paused bool) {
			t.Helper()
			if n, _, pause := l.State(); n != want || pause > 0 != paused {
				t.Errorf("limit %d, pause %s; want %d, %t", n, pause, want, paused)
			}
		}
		in(2)
		l.SetMax(6)
		in(6)
		l.SetMax(2)
		for left := 5; left >= 2; left-- {
			l.Release(Outcome{Class: Done, Status: 200})
			in(left)
		}
		l.Release(Outcome{Class: Done, Status: 200})
		in(2) // one has ended, one has begun
		l.SetMax(8)
		in(7) // twelve, less the five that have ended

		// What "not now" has lowered rises by what gets through, not by a higher cap.
		l.Release(Outcome{Class: NotNow, Status: 429})
		limit(4, true)
		l.SetMax(16)
		limit(4, true)
		l.SetMax(3)
		limit(3, true)
		l.SetMax(16)
		l.Release(Outcome{Class: Done, Status: 200})
		l.Forget() // the calls go to another function
		limit(16, false)
		in(5)
	})
}

func TestGatewayErrorsCountUnlessNoInstanceIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(1)
		class := func(o Outcome) Class {
			t.Helper()
			if err := l.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			return l.Release(o).Class
		}
		bad := Outcome{Class: Failed, Status: 502, GatewayErr: true}
		if class(bad) != Failed {
			t.Error("502 of a function that was never seen away is a failure")
		}
		class(Outcome{Class: NotNow}) // connection refused
		if class(bad) != NotNow {
			t.Error("502 while no instance is ready is not now")
		}
		class(Outcome{Class: Done, Status: 200})
		if class(bad) != Failed {
			t.Error("502 after an instance answered is a failure")
		}
		class(Outcome{Class: NotNow, Status: 429})
		if class(bad) != Failed {
			t.Error("an instance that answers 429 is ready")
		}
		class(Outcome{Class: NotNow, Status: 503})
		time.Sleep(unreadyGrace) //nolint:forbidigo // synctest: no real time passes
		if class(bad) != Failed {
			t.Error("502 counts again once the grace is over")
		}
	})
}

// TestLimiterQuiesces: no call starts any more, even while others are in flight; and after Resume they do.
func TestLimiterQuiesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(2)
		if err := l.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		quiet, waits := make(chan error, 2), make(chan error, 1)
		go func() { quiet <- l.Quiesce(t.Context()) }()
		synctest.Wait()
		go func() { waits <- l.Acquire(t.Context()) }()
		synctest.Wait()
		if len(quiet) != 0 || len(waits) != 0 {
			t.Fatal("a call started, or the one in flight was forgotten")
		}
		l.Release(Outcome{Class: Done})
		synctest.Wait()
		if len(quiet) != 1 || len(waits) != 0 || <-quiet != nil {
			t.Fatal("it is not quiet once none is in flight, or a call started")
		}
		l.Resume()
		if err := <-waits; err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Quiesce(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v while a call is in flight", err)
		}
		l.Resume()
		if err := l.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestUserInfo: a function's URL may hold the credentials of a proxy before it.
func TestUserInfo(t *testing.T) {
	var user, password string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { user, password, _ = r.BasicAuth() }))
	t.Cleanup(srv.Close)
	c := NewCaller(1, telemetry.Providers{})
	t.Cleanup(c.Close)
	to := "http://me:secret@" + strings.TrimPrefix(srv.URL, "http://")
	o := c.Call(t.Context(), Batch{URL: to, Records: sampleRecords(t)[:1], Single: true, Timeout: time.Second})
	if o.Class != Done || user != "me" || password != "secret" {
		t.Errorf("%+v, %q, %q", o, user, password)
	}
}
