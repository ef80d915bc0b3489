package chaos_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// meter counts the calls of a function, from the function's side.
type meter struct {
	mu       sync.Mutex
	inFlight int
	most     int
	calls    int
	statuses map[int]int
}

func (m *meter) enter() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	m.inFlight++
	m.most = max(m.most, m.inFlight)
}

func (m *meter) leave(status int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inFlight--
	if m.statuses == nil {
		m.statuses = map[int]int{}
	}
	m.statuses[status]++
}

// peak returns the most calls at once since the last peak.
func (m *meter) peak() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	most := m.most
	m.most = m.inFlight
	return most
}

// total is the number of calls so far.
func (m *meter) total() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// running is the number of calls at this moment.
func (m *meter) running() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inFlight
}

func (m *meter) count(status int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statuses[status]
}

func (m *meter) others(status ...int) map[int]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := maps.Clone(m.statuses)
	for _, s := range status {
		delete(out, s)
	}
	return out
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// serve runs a metered function until the test's end and returns its URL.
func (m *meter) serve(t testing.TB, h http.Handler) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		m.enter()
		defer func() { m.leave(sw.status) }()
		h.ServeHTTP(sw, r)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL
}

// forward passes calls on to the function at target.
func forward(t testing.TB, target string) *httputil.ReverseProxy {
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // callers go away in these tests
	}
}

// event is what the tests read of a CloudEvent.
type event struct {
	ID       string `json:"id"`
	Attempts any    `json:"weirattempts"`
	Data     struct {
		N      int  `json:"n"`
		Poison bool `json:"poison"`
	} `json:"data"`
}

// readBatch returns a call's events, each also as it came.
func readBatch(r *http.Request) (raw []json.RawMessage, events []event, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, nil, err
	}
	events = make([]event, len(raw))
	for i := range raw {
		if err := json.Unmarshal(raw[i], &events[i]); err != nil {
			return nil, nil, err
		}
	}
	return raw, events, nil
}
