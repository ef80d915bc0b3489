package problem

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestGuard: a panic is a problem 500 and an error in the log; after half an answer the connection breaks.
func TestGuard(t *testing.T) {
	var log bytes.Buffer
	srv := httptest.NewUnstartedServer(Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(HeaderRequestID, "r-1")
		switch r.URL.Path {
		case "/half":
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, "half an")
			_ = http.NewResponseController(w).Flush()
		case "/abort":
			panic(http.ErrAbortHandler)
		}
		panic("a bug")
	}), slog.New(slog.NewTextHandler(&log, nil))))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	get := func(path string) (status int, text string, err error) {
		resp, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body), err
	}
	status, body, err := get("/")
	var p Problem
	if err != nil || status != 500 || json.Unmarshal([]byte(body), &p) != nil || p.Type != Internal || p.RequestID != "r-1" {
		t.Errorf("%v %s", err, body)
	}
	if status, body, err := get("/half"); status != 200 || err == nil || strings.Contains(body, "problem") {
		t.Errorf("half an answer is taken for a whole: %v %q", err, body)
	}
	if _, _, err := get("/abort"); err == nil {
		t.Error("the connection did not break")
	}
	srv.Close()
	if got := strings.Count(log.String(), "level=ERROR"); got != 2 || !strings.Contains(log.String(), "a bug") || !strings.Contains(log.String(), "guard_test.go") {
		t.Errorf("%d errors in the log: %s", got, log.String())
	}
}

// observed is a writer as the gateway's.
type observed struct {
	http.ResponseWriter
	refused []string
	ctx     context.Context
}

func (o *observed) Begun() bool              { return false }
func (o *observed) Context() context.Context { return o.ctx }
func (o *observed) Refused(name string)      { o.refused = append(o.refused, name) }

// wrapped hides what it wraps, but for http.ResponseController.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestProblemsAreTold to the writer that wants to know them, however often it is wrapped: a panic's too, and by a name of
// Weir's.
func TestProblemsAreTold(t *testing.T) {
	o := &observed{ResponseWriter: httptest.NewRecorder(), ctx: t.Context()}
	Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a bug") }), slog.New(slog.DiscardHandler)).
		ServeHTTP(o, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	Problem{Type: QueueFull, Status: 503}.Write(wrapped{wrapped{o}})
	Problem{Type: "https://shop.example/x", CountAs: JobFailed, Status: 500}.Write(wrapped{o})
	if got := strings.Join(o.refused, " "); got != "internal queue-full job-failed" {
		t.Error(got)
	}
	Problem{Type: QueueFull, Status: 503}.Write(wrapped{httptest.NewRecorder()})
}
