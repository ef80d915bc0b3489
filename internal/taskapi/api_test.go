package taskapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestDrainEndsWaits: a worker that waits comes again, to another process; one that comes later doesn't wait.
func TestDrainEndsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(Config{Conn: &owners{}, Tasks: "/tasks/"})
		took := func(prefer string) (status int, after time.Duration) {
			w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
			r.Header.Set("Prefer", prefer)
			began := time.Now()
			a.Take(w, r, work, nil)
			return w.Code, time.Since(began)
		}
		if status, after := took("wait=5"); status != http.StatusNoContent || after != 5*time.Second {
			t.Error(status, after)
		}
		if status, after := took(""); status != http.StatusNoContent || after != defaultTakeWait {
			t.Error(status, after)
		}
		time.AfterFunc(3*time.Second, a.Drain)
		for _, want := range []time.Duration{3 * time.Second, 0} {
			if status, after := took("wait=60"); status != http.StatusNoContent || after != want {
				t.Error(status, after)
			}
		}
	})
}

// TestTakenTask is as a worker gets it.
func TestTakenTask(t *testing.T) {
	o := &owners{}
	o.add(3, false, "token")
	a := New(Config{Conn: o, Tasks: "/shop/weir/tasks/"})
	w := httptest.NewRecorder()
	a.Take(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody), work, nil)
	const links = `"links":{"success":"/shop/weir/tasks/token/success","failure":"/shop/weir/tasks/token/failure","heartbeat":"/shop/weir/tasks/token/heartbeat"}`
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"taskToken":"token"`) || !strings.Contains(w.Body.String(), links) || w.Header().Get("Cache-Control") != "no-store" {
		t.Error(w.Code, w.Body)
	}
}

func TestWithoutKeys(t *testing.T) {
	a := New(Config{Conn: &owners{}})
	for _, serve := range []func(http.ResponseWriter, *http.Request, []byte){a.Report(Succeeded), a.TakeAt} {
		w := httptest.NewRecorder()
		serve(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody), nil)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Error(w.Code, w.Body)
		}
	}
}

func TestPreferredWait(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"wait=5": 5 * time.Second, "respond-async, Wait=\"7\"": 7 * time.Second, "wait=0": 0, "wait=100": time.Minute, "wait=5, wait=6": 5 * time.Second,
		"": -1, "wait": -1, "wait=-1": -1, "wait=x": -1, "respond-async": -1,
	} {
		got, asked := PreferredWait(http.Header{"Prefer": {text}}, time.Minute)
		if asked != (want >= 0) || asked && got != want {
			t.Errorf("%q: %v, %t", text, got, asked)
		}
	}
}
