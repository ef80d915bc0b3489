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
	"github.com/weir-dev/weir/internal/testkit/processes"
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

// jobLoad submits jobs, cancels some, listens to some, and knows the outcome of each.
type jobLoad struct {
	t        *testing.T
	urls     []string // of the gateways
	patient  bool     // clients wait for the end of every eighth job, so the load doesn't run away from a queue without a consumer
	client   *http.Client
	next     atomic.Int64
	called   atomic.Int64 // calls of the function
	stop     chan struct{}
	stopOnce sync.Once
	clients  sync.WaitGroup
	wg       sync.WaitGroup // of work after the function's answer

	follow    chan accepted   // to listeners that are free
	listening context.Context // ends when listeners have waited long enough
	giveUp    func()          // ends it

	mu        sync.Mutex
	accepted  map[int64]string // path, by number
	cancelled map[int64]cancelled
	calls     map[int64]int
	heard     []*listener // those that received a final state
	cuts      int         // of their connections
}

// accepted is a job that was accepted.
type accepted struct {
	n    int64
	path string
}

func newJobLoad(t *testing.T) *jobLoad {
	l := &jobLoad{
		t: t, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 40 * time.Second},
		stop: make(chan struct{}), follow: make(chan accepted),
		accepted: map[int64]string{}, cancelled: map[int64]cancelled{}, calls: map[int64]int{},
	}
	l.listening, l.giveUp = context.WithCancel(t.Context())
	t.Cleanup(func() {
		l.finish() // also when the test has given up
		l.wg.Wait()
		l.client.CloseIdleConnections()
	})
	return l
}

// serve starts the function and returns a folder with the manifests.
func (l *jobLoad) serve() string {
	l.t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(l.work))
	l.t.Cleanup(srv.Close)
	folder := l.t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "work.yaml"), fmt.Appendf(nil, jobManifests, srv.URL), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return folder
}

// start begins the load, at the gateways' urls.
func (l *jobLoad) start(urls ...string) {
	l.urls = urls
	for range 16 {
		l.clients.Go(l.run)
	}
}

// finish ends the load. Listeners wait for the end of their jobs: only from now on is that bounded, as a job may be
// unlucky with each of the owners that are killed. It is idempotent.
func (l *jobLoad) finish() {
	l.stopOnce.Do(func() { close(l.stop) })
	defer time.AfterFunc(2*testkit.Patience, l.giveUp).Stop()
	l.clients.Wait()
}

// url is one of the gateways.
func (l *jobLoad) url() string { return l.urls[rand.IntN(len(l.urls))] }

// waitProgress waits until jobs are accepted, and listeners, if there are any, receive final states.
func (l *jobLoad) waitProgress(listeners bool) {
	l.t.Helper()
	count := func() (int, int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.accepted), len(l.heard)
	}
	accepted, heard := count()
	testkit.Eventually(l.t, "jobs are accepted, and clients told their ends", func() bool {
		if l.t.Failed() {
			l.t.FailNow()
		}
		a, h := count()
		return a > accepted+20 && (h > heard+5 || !listeners)
	})
}

// cancelled is a cancellation that was answered.
type cancelled struct {
	at    time.Time
	begun bool // an attempt had begun: its call may be in flight
}

// onItsWay is how long after its cancellation the call of an attempt that had begun may still reach the function. The
// next attempt, after a restart, would come later.
const onItsWay = time.Second

// work is the function: of its calls most answer at once, some take a while, some fail the first time, and some go on
// after their answer.
func (l *jobLoad) work(w http.ResponseWriter, r *http.Request) {
	entered := time.Now()
	l.called.Add(1)
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
	_, _ = io.WriteString(w, resultOf(n))
}

// report reports progress, then the result, each until it was taken.
func (l *jobLoad) report(callback string, n int64) {
	for percent := range 3 {
		hold(l.t, 20*time.Millisecond)
		if !l.callBack(callback+"?status=running", fmt.Sprintf(`{"percent": %d}`, percent), n) {
			return
		}
	}
	l.callBack(callback+"?status=succeeded", resultOf(n), n)
}

// callBack reports whether the attempt goes on.
func (l *jobLoad) callBack(url, body string, n int64) bool {
	deadline := time.Now().Add(testkit.Patience)
	for time.Now().Before(deadline) {
		status, _, _, err := l.do(http.MethodPost, url, body, "Content-Type", "text/plain")
		if err == nil && (status == http.StatusNoContent || status == http.StatusConflict) {
			return status == http.StatusNoContent
		}
		hold(l.t, 20*time.Millisecond)
	}
	l.t.Errorf("job %d: nobody takes what the function reports", n)
	return false
}

func resultOf(n int64) string { return fmt.Sprintf("result of %d", n) }

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
		if !ok {
			continue
		}
		select {
		case l.follow <- accepted{n, path}:
		default:
		}
		switch {
		case n%4 == 0:
			l.cancel(n, path)
		case n%8 == 1 && l.patient:
			l.listen(accepted{n, path}, (*listener).poll)
		}
	}
}

// submit repeats the request, under its key, until it is accepted.
func (l *jobLoad) submit(n int64) (path string, ok bool) {
	for {
		status, text, h, err := l.do(http.MethodPost, l.url()+"/work", fmt.Sprint(n), "Idempotency-Key", fmt.Sprint(n))
		switch {
		case err == nil && status == http.StatusAccepted:
			path = h.Get("Operation-Location")
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
	status, text, _, err := l.do(http.MethodDelete, l.url()+path, "")
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

// final waits until the job has ended, checks its result, and returns its state; false means that it doesn't end.
func (l *jobLoad) final(j accepted) (string, bool) {
	deadline := time.Now().Add(2 * testkit.Patience)
	for time.Now().Before(deadline) {
		status, text, _, err := l.do(http.MethodGet, l.url()+j.path+"/result", "", "Prefer", "wait=20")
		if err == nil && status != http.StatusServiceUnavailable && status != http.StatusAccepted {
			if status == http.StatusOK && text != resultOf(j.n) {
				l.t.Errorf("job %d: its result is %q", j.n, text)
			}
			var d document
			if status, text, _, err = l.do(http.MethodGet, l.url()+j.path, ""); err == nil && status == http.StatusOK {
				if err := json.Unmarshal([]byte(text), &d); err != nil {
					l.t.Errorf("job %d: %v in %s", j.n, err, text)
				}
				return d.Status, true
			}
		}
		hold(l.t, 20*time.Millisecond)
	}
	status, text, _, err := l.do(http.MethodGet, l.url()+j.path, "")
	l.t.Errorf("job %d has not ended: %d %s, %v", j.n, status, text, err)
	return "", false
}

// finals waits until all have ended and returns their states.
func (l *jobLoad) finals() map[int64]string {
	l.t.Helper()
	jobs := make(chan accepted)
	states := map[int64]string{}
	var mu sync.Mutex
	var lost atomic.Bool
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for j := range jobs {
				if lost.Load() {
					continue
				}
				s, ok := l.final(j)
				if !ok {
					lost.Store(true)
				}
				mu.Lock()
				states[j.n] = s
				mu.Unlock()
			}
		})
	}
	for n, path := range l.accepted {
		jobs <- accepted{n, path}
	}
	close(jobs)
	wg.Wait()
	if lost.Load() {
		l.t.FailNow()
	}
	return states
}

// verify checks, after the load, the outcome of every job and what listeners received; that it stays the same once
// again has killed everything; and logs the numbers.
func (l *jobLoad) verify(again func()) {
	l.t.Helper()
	states := l.finals()
	count := map[string]int{}
	for n, s := range states {
		count[s]++
		_, cancelled := l.cancelled[n]
		if cancelled && s != "cancelled" || !cancelled && s != "succeeded" && n%4 != 0 {
			l.t.Errorf("job %d, cancelled %t, is %s", n, cancelled, s)
		}
	}
	for _, h := range l.heard {
		if h.last.Status != states[h.n] {
			l.t.Errorf("job %d is %s, and a client was told %s", h.n, states[h.n], h.last.Status)
		}
	}
	again()
	for n, s := range l.finals() {
		if s != states[n] {
			l.t.Errorf("job %d was %s and is %s", n, states[n], s)
		}
	}
	l.wg.Wait()
	l.t.Logf("%d jobs accepted: %v; %d listeners heard the end, over %d connections that broke", len(states), count, len(l.heard), l.cuts)
}

// TestJobsAndKills kills everything at random moments: every job that was accepted reaches one final state and keeps it,
// no result is lost, and no job is called after its cancellation was answered.
func TestJobsAndKills(t *testing.T) {
	l := newJobLoad(t)
	w := newWeir(t, l.serve())
	w.binary = filepath.Join(parts.raceBin, "weir")
	w.up()
	l.start("http://" + w.addr)
	kill := func() {
		w.Kill()
		checkRaces(t, w.Child)
		w.up()
	}
	kills := size(3, 6, 25)
	for range kills {
		l.waitProgress(false)
		hold(t, time.Duration(rand.Int64N(int64(size[time.Duration](700, 1000, 3000)*time.Millisecond))))
		kill()
	}
	l.finish()
	l.verify(kill) // what is final stays
	t.Logf("%d kills", kills+1)
	w.Terminate()
	checkRaces(t, w.Child)
}

// TestJobsAndSingleKills kills the services of a cluster one at a time, at random, while clients submit, cancel and
// listen: what TestJobsAndKills shows holds, and every client that listens, over as many connections as it takes, gets
// the states in order, none twice, and the end once, as it is and with its result.
func TestJobsAndSingleKills(t *testing.T) {
	l := newJobLoad(t)
	nats := newNATSServer(t)
	nats.start()
	c := newCluster(t, nats, l.serve(), "")
	c.bin = parts.raceBin
	var urls []string
	starts := map[string]func() *processes.Child{}
	for i := range 2 {
		gateway, realtime := fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t))
		urls = append(urls, "http://"+gateway)
		name := func(service string) string { return fmt.Sprintf("%s-%d", service, i) }
		starts[name("realtime")] = func() *processes.Child {
			return c.service("realtime", name("realtime"), "WEIR_LISTEN="+realtime)
		}
		starts[name("dispatcher")] = func() *processes.Child {
			return c.dispatcher(name("dispatcher"), "WEIR_CALLBACK_URL=http://"+gateway)
		}
		starts[name("gateway")] = func() *processes.Child {
			return c.gatewayAt(gateway, name("gateway"), "WEIR_REALTIME_URL=http://"+realtime)
		}
	}
	running := map[string]*processes.Child{}
	for name, start := range starts {
		running[name] = start()
	}
	kill := func(name string) {
		running[name].Kill()
		checkRaces(t, running[name])
		running[name] = starts[name]()
	}
	const works, waits = "the dispatcher that works", "the dispatcher that waits for its lease"
	dispatcher := func(role string) (name string) {
		testkit.Eventually(t, "a dispatcher works", func() bool {
			for i := range 2 {
				if strings.Contains(running[fmt.Sprintf("dispatcher-%d", i)].Log(), "working for this mapping") {
					name = fmt.Sprintf("dispatcher-%d", i)
					if role == waits {
						name = fmt.Sprintf("dispatcher-%d", 1-i)
					}
				}
			}
			return name != ""
		})
		return name
	}
	l.patient = true
	l.start(urls...)
	for _, way := range []func(*listener, context.Context) error{(*listener).events, (*listener).socket} {
		for range 8 {
			l.clients.Go(func() { l.hear(way) })
		}
	}
	kills := 0
	for range size(1, 1, 6) {
		// Each dispatcher once: after the working one is killed nobody works on the queue for 15 s.
		names := []string{"gateway-0", "gateway-0", "gateway-1", "gateway-1", "realtime-0", "realtime-0", "realtime-1", "realtime-1", works, waits}
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			l.waitProgress(true)
			hold(t, time.Duration(rand.Int64N(int64(size[time.Duration](400, 700, 3000)*time.Millisecond))))
			if name == works || name == waits {
				name = dispatcher(name)
			}
			kill(name)
			kills++
		}
	}
	l.waitProgress(true)
	l.finish()
	l.verify(func() {
		for name := range starts {
			kill(name)
			kills++
		}
	})
	t.Logf("%d kills", kills)
	for _, c := range running {
		c.Terminate()
		checkRaces(t, c)
	}
}
