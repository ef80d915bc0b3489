package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/testkit"
)

const jobManifests = `
apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: work}
spec:
  routes:
  - {name: work, match: {method: POST, path: /work}, job: {queue: work}}
---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: work}
spec: {maxBytes: 64Mi, results: {maxBytes: 256Mi}}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: work}
spec:
  queue: work
  function: {url: "%s"}
  maxConcurrency: 16
  heartbeat: 10s
  retry: {initialBackoff: 10ms, maxBackoff: 100ms}
`

// jobLoad submits jobs, cancels some, and knows what became of each.
type jobLoad struct {
	t      *testing.T
	url    string
	client *http.Client
	next   atomic.Int64
	stop   chan struct{}
	wg     sync.WaitGroup

	mu        sync.Mutex
	accepted  map[int64]string // path, by number
	cancelled map[int64]cancelled
	calls     map[int64]int
}

// cancelled is a cancellation that was answered.
type cancelled struct {
	at    time.Time
	begun bool // an attempt had begun: its call may be on its way to the function
}

// onItsWay is how long after its cancellation the call of an attempt that had begun may still reach the function. The
// next attempt, after a restart, would come later.
const onItsWay = time.Second

// work is the function: of its calls most answer at once, some take a while, some fail the first time, and some go on
// after their answer.
func (l *jobLoad) work(w http.ResponseWriter, r *http.Request) {
	entered := time.Now()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var n int64
	if _, err := fmt.Sscan(string(b), &n); err != nil {
		l.t.Errorf("called with %q", b)
		return
	}
	l.mu.Lock()
	if c, ok := l.cancelled[n]; ok && c.at.Before(entered) && (!c.begun || entered.Sub(c.at) > onItsWay) {
		l.t.Errorf("job %d was called %s after its cancellation was answered; begun before: %t", n, entered.Sub(c.at), c.begun)
	}
	l.calls[n]++
	first := l.calls[n] == 1
	l.mu.Unlock()
	callback := r.Header.Get("Weir-Callback")
	switch n % 10 {
	case 1:
		hold(l.t, time.Duration(n%7)*10*time.Millisecond)
	case 2:
		if first {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
	case 3:
		w.WriteHeader(http.StatusAccepted)
		l.wg.Go(func() { l.report(callback, n) })
		return
	}
	_, _ = fmt.Fprintf(w, "result of %d", n)
}

// report calls back until it was heard.
func (l *jobLoad) report(callback string, n int64) {
	deadline := time.Now().Add(testkit.Patience)
	for time.Now().Before(deadline) {
		status, _, _, err := l.do(http.MethodPost, callback+"?status=succeeded", fmt.Sprintf("result of %d", n))
		if err == nil && (status == http.StatusNoContent || status == http.StatusConflict) {
			return
		}
		hold(l.t, 20*time.Millisecond)
	}
	l.t.Errorf("job %d: nobody takes what the function reports", n)
}

func (l *jobLoad) do(method, url, body string, header ...string) (status int, text string, h http.Header, err error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode, string(b), resp.Header, err
}

func (l *jobLoad) run() {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		n := l.next.Add(1)
		path, ok := l.submit(n)
		if ok && n%4 == 0 {
			l.cancel(n, path)
		}
	}
}

// submit repeats the request, under its key, until it is accepted.
func (l *jobLoad) submit(n int64) (path string, ok bool) {
	for {
		status, text, h, err := l.do(http.MethodPost, l.url+"/work", fmt.Sprint(n), "Idempotency-Key", fmt.Sprint(n))
		switch {
		case err == nil && status == http.StatusAccepted:
			path = h.Get("Location")
			l.mu.Lock()
			l.accepted[n] = path
			l.mu.Unlock()
			return path, true
		case err == nil && status != http.StatusServiceUnavailable:
			l.t.Errorf("job %d: %d %s", n, status, text)
			return "", false
		}
		select {
		case <-l.stop:
			return "", false
		default:
			hold(l.t, 20*time.Millisecond)
		}
	}
}

func (l *jobLoad) cancel(n int64, path string) {
	status, text, _, err := l.do(http.MethodDelete, l.url+path, "")
	switch {
	case err != nil || status == http.StatusServiceUnavailable || status == http.StatusConflict:
	case status == http.StatusOK:
		at := time.Now()
		var doc struct{ Started time.Time }
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			l.t.Errorf("cancel job %d: %v in %s", n, err, text)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.cancelled[n] = cancelled{at, !doc.Started.IsZero()}
	default:
		l.t.Errorf("cancel job %d: %d %s", n, status, text)
	}
}

// TestJobsAndKills kills everything at random moments: every job that was accepted reaches one final state and keeps it,
// no result is lost, and no job is called after its cancellation was answered.
func TestJobsAndKills(t *testing.T) {
	l := &jobLoad{
		t: t, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 40 * time.Second},
		stop: make(chan struct{}), accepted: map[int64]string{}, cancelled: map[int64]cancelled{}, calls: map[int64]int{},
	}
	srv := httptest.NewServer(http.HandlerFunc(l.work))
	defer srv.Close()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "work.yaml"), fmt.Appendf(nil, jobManifests, srv.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWeir(t, folder)
	w.binary = filepath.Join(parts.raceBin, "weir")
	w.up()
	l.url = "http://" + w.addr
	defer l.client.CloseIdleConnections()
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(l.run)
	}
	accepted := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.accepted)
	}
	kills := size(3, 6, 25)
	for range kills {
		before := accepted()
		testkit.Eventually(t, "jobs are accepted", func() bool { return accepted() > before+20 })
		hold(t, time.Duration(rand.Int64N(int64(size[time.Duration](700, 1000, 3000)*time.Millisecond))))
		w.kill()
		checkRaces(t, w.child)
		w.up()
	}
	close(l.stop)
	clients.Wait()

	final := func(n int64, path string) string {
		t.Helper()
		var doc struct{ Status string }
		testkit.Eventually(t, fmt.Sprintf("job %d has ended", n), func() bool {
			status, text, _, err := l.do(http.MethodGet, l.url+path+"/result", "", "Prefer", "wait=20")
			if err != nil || status == http.StatusServiceUnavailable || status == http.StatusAccepted {
				return false
			}
			if status == http.StatusOK && text != fmt.Sprintf("result of %d", n) {
				t.Errorf("job %d: its result is %q", n, text)
			}
			_, text, _, err = l.do(http.MethodGet, l.url+path, "")
			return err == nil && json.Unmarshal([]byte(text), &doc) == nil
		})
		return doc.Status
	}
	count := map[string]int{}
	states := map[int64]string{}
	for n, path := range l.accepted {
		s := final(n, path)
		states[n] = s
		count[s]++
		_, cancelled := l.cancelled[n]
		if cancelled && s != "cancelled" || !cancelled && s != "succeeded" && n%4 != 0 {
			t.Errorf("job %d, cancelled %t, is %s", n, cancelled, s)
		}
	}
	w.kill() // and once more: what is final stays
	w.up()
	for n, path := range l.accepted {
		if s := final(n, path); s != states[n] {
			t.Errorf("job %d was %s and is %s", n, states[n], s)
		}
	}
	l.wg.Wait()
	t.Logf("%d kills; %d jobs accepted: %v", kills+1, len(l.accepted), count)
	w.terminate()
	checkRaces(t, w.child)
}
