package function_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-dev/weir/function"
)

// gateway stands for the one that takes reports.
func gateway(status int, answer string, seen func(r *http.Request, body string)) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen(r, string(body))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
}

func ExampleCallback() {
	weir := gateway(http.StatusNoContent, "", func(r *http.Request, body string) {
		fmt.Println(r.URL.Query().Get("status"), body)
	})
	defer weir.Close()

	work := make(chan *function.Callback, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		work <- function.CallbackOf(r.Header)
		w.WriteHeader(http.StatusAccepted) // the work goes on
	})
	call := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
	call.Header.Set(function.HeaderCallback, weir.URL)
	handler.ServeHTTP(httptest.NewRecorder(), call)

	ctx := context.Background() // of the process, not of the call
	callback := <-work
	if err := callback.Progress(ctx, 50, "half"); errors.Is(err, function.ErrAttemptOver) {
		return
	}
	fmt.Println(callback.Succeed(ctx, "text/plain", strings.NewReader("done")))
	// Output:
	// running {"percent":50,"message":"half"}
	// succeeded done
	// <nil>
}

func TestCallback(t *testing.T) {
	over := func(err error) bool { return errors.Is(err, function.ErrAttemptOver) }
	failed := func(err error) bool { return err != nil && !errors.Is(err, function.ErrAttemptOver) }
	for answer, check := range map[string]func(error) bool{
		"204": func(err error) bool { return err == nil },
		`404 {"type":"https://weir.dev/problems/no-callback"}`:  over,
		`409 {"type":"https://weir.dev/problems/attempt-over"}`: over,
		// A proxy that knows no such address, or a gateway before it has a catalog, says nothing of the attempt.
		"404": failed, "409": failed, `404 {"type":"https://weir.dev/problems/no-route"}`: failed, "503": failed,
	} {
		code, text, _ := strings.Cut(answer, " ")
		status, err := strconv.Atoi(code)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		weir := gateway(status, text, func(r *http.Request, body string) {
			got = append(got, r.Method+" "+r.URL.Query().Get("status")+" "+r.Header.Get("Content-Type")+" "+body)
		})
		c := function.CallbackOf(http.Header{function.HeaderCallback: {weir.URL + "/secret"}})
		c.Client = weir.Client()
		for _, err := range []error{
			c.Progress(t.Context(), 1.5, ""), c.Succeed(t.Context(), "text/csv", strings.NewReader("a,b")), c.Fail(t.Context(), "broken"),
		} {
			if !check(err) {
				t.Errorf("%s: %v", answer, err)
			}
		}
		if want := `[POST running application/json {"percent":1.5} POST succeeded text/csv a,b POST failed text/plain; charset=utf-8 broken]`; fmt.Sprint(got) != want {
			t.Errorf("%d: %v", status, got)
		}
		weir.Close()
		if err := c.Progress(t.Context(), 2, ""); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("nobody listens: %v", err)
		}
	}
	none := function.CallbackOf(http.Header{})
	if err := none.Progress(t.Context(), 1, ""); none != nil || err != nil {
		t.Errorf("%v %v", none, err)
	}
	if err := errors.Join(none.Succeed(t.Context(), "", nil), none.Fail(t.Context(), "")); !errors.Is(err, function.ErrNoCallback) {
		t.Error(err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestResultsHaveTheirContextsTime: only its context bounds a result: a GiB takes longer than a report may.
func TestResultsHaveTheirContextsTime(t *testing.T) {
	bounded := map[string]bool{}
	c := function.CallbackOf(http.Header{function.HeaderCallback: {"http://weir/x"}})
	c.Client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		_, bounded[r.URL.Query().Get("status")] = r.Context().Deadline()
		return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
	})}
	if err := errors.Join(c.Progress(t.Context(), 1, ""), c.Succeed(t.Context(), "text/plain", strings.NewReader("x")), c.Fail(t.Context(), "no")); err != nil {
		t.Fatal(err)
	}
	if !bounded["running"] || !bounded["failed"] || bounded["succeeded"] {
		t.Errorf("what has a deadline of its own: %v", bounded)
	}
}
