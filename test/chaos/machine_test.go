package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// machineDefinition has tasks in a row, in parallel, retried, caught and waited for. The function f fails with "Flaky" the first
// time of each order, and c always.
const machineDefinition = `{"StartAt": "A", "States": {
	"A": {"Type": "Task", "Resource": "URL/a", "ResultPath": "$.a", "Next": "W",
		"Retry": [{"ErrorEquals": ["Flaky"], "IntervalSeconds": 1, "MaxAttempts": 3}]},
	"W": {"Type": "Wait", "Seconds": 1, "Next": "P"},
	"P": {"Type": "Parallel", "ResultPath": "$.p", "Next": "C", "Branches": [
		{"StartAt": "B1", "States": {"B1": {"Type": "Task", "Resource": "URL/b1", "End": true}}},
		{"StartAt": "B2", "States": {"B2": {"Type": "Task", "Resource": "URL/b2", "Next": "B3"}, "B3": {"Type": "Task", "Resource": "URL/b3", "End": true}}}]},
	"C": {"Type": "Task", "Resource": "URL/c", "Catch": [{"ErrorEquals": ["Always"], "ResultPath": "$.c", "Next": "D"}], "End": true},
	"D": {"Type": "Task", "Resource": "URL/d", "ResultPath": "$.d", "End": true}}}`

// machineLoad runs executions against orchestrators that come and go.
type machineLoad struct {
	t        *testing.T
	nats     natsServer
	function *httptest.Server
	admins   []string
	replicas []*processes.Child

	mu      sync.Mutex
	flaked  map[string]bool      // orders that have failed once
	stopped map[string]time.Time // when a stop was answered, by execution
	calls   map[string]int       // by function and order
	late    []string             // calls that began after the stop of their execution was answered
	called  atomic.Int64
}

func newMachineLoad(t *testing.T, nats natsServer) *machineLoad {
	m := &machineLoad{t: t, nats: nats, flaked: map[string]bool{}, stopped: map[string]time.Time{}, calls: map[string]int{}}
	m.function = httptest.NewServer(http.HandlerFunc(m.serve))
	t.Cleanup(m.function.Close)
	t.Cleanup(m.told)
	conn, err := stream.Connect(stream.Config{URL: nats.url(), Name: t.Name(), Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	if err := conn.WaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{conn.EnsureLeases(ctx, 1), conn.EnsureKeys(ctx, 1, time.Now()), conn.EnsureMachines(ctx, 1, 512<<20), conn.PublishCatalog(ctx, &catalog.Catalog{}, 1, nil)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// serve is the functions. An order that is called for an execution whose stop was answered before is late.
func (m *machineLoad) serve(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	body, _ := io.ReadAll(r.Body)
	var in struct{ Order string }
	_ = json.Unmarshal(body, &in)
	name := strings.TrimPrefix(r.URL.Path, "/")
	m.called.Add(1)
	m.mu.Lock()
	m.calls[name+" "+in.Order]++
	if at, ok := m.stopped[in.Order]; ok && began.After(at) {
		m.late = append(m.late, name+" "+in.Order)
	}
	flaky := name == "a" && !m.flaked[in.Order] && strings.HasSuffix(in.Order, "7")
	if flaky {
		m.flaked[in.Order] = true
	}
	m.mu.Unlock()
	hold(m.t, time.Duration(rand.Int64N(int64(20*time.Millisecond))))
	switch {
	case flaky:
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"error": "Flaky", "cause": "once"}`)
	case name == "c":
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"error": "Always", "cause": "as it is"}`)
	default:
		fmt.Fprintf(w, `{"%s": true}`, name)
	}
}

func (m *machineLoad) replica(i int) *processes.Child {
	name := fmt.Sprintf("orchestrator-%d", i) // as a container that is started again in its pod
	return processes.Start(m.t, name, filepath.Join(parts.raceBin, "orchestrator"), []string{
		"WEIR_NATS_URL=" + m.nats.url(), "WEIR_LISTEN=127.0.0.1:0", "WEIR_HEALTH_LISTEN=" + m.admins[i], "WEIR_INSTANCE=" + name, "WEIR_LOG_FORMAT=text", "WEIR_DRAIN_TIMEOUT=5s",
	})
}

// told logs what the replicas last said, of a test that has failed.
func (m *machineLoad) told() {
	if m.t.Failed() {
		for _, r := range m.replicas {
			m.t.Logf("%s: %s", r.Name, r.Tail(3000))
		}
	}
}

func (m *machineLoad) start(n int) {
	for i := range n {
		m.admins = append(m.admins, fmt.Sprintf("127.0.0.1:%d", processes.FreePort(m.t)))
		m.replicas = append(m.replicas, m.replica(i))
	}
}

// request asks any replica, until one answers.
func (m *machineLoad) request(method, path, body string) (status int, answer map[string]any) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.Now().Add(2 * testkit.Patience)
	for i := rand.IntN(len(m.admins)); time.Now().Before(deadline) && m.t.Context().Err() == nil; i++ {
		req, err := http.NewRequestWithContext(m.t.Context(), method, "http://"+m.admins[i%len(m.admins)]+path, bytes.NewReader([]byte(body)))
		if err != nil {
			m.t.Error(err)
			return 0, nil
		}
		res, err := client.Do(req)
		if err == nil {
			answer = nil
			err = json.NewDecoder(res.Body).Decode(&answer)
			_ = res.Body.Close()
			if err == nil && res.StatusCode < 500 {
				return res.StatusCode, answer
			}
		}
		hold(m.t, 50*time.Millisecond)
	}
	m.t.Errorf("%s %s has no answer", method, path)
	return 0, nil
}

// run starts executions, some of which are stopped, until finish is closed, or all of n were. It returns their names.
func (m *machineLoad) run(n int, every time.Duration) (names []string) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i := range n {
		name := fmt.Sprintf("order-%d", i)
		names = append(names, name)
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			status, answer := m.request(http.MethodPost, "/state-machines/m/executions", fmt.Sprintf(`{"name": %q, "input": {"Order": %q}}`, name, name))
			if status != http.StatusCreated {
				m.t.Errorf("%s: %d %v", name, status, answer)
				return
			}
			if i%10 == 3 {
				hold(m.t, time.Duration(rand.Int64N(int64(2*time.Second))))
				if status, _ := m.request(http.MethodPost, "/executions/m:"+name+"/stop", `{"error": "Enough"}`); status == http.StatusOK {
					m.mu.Lock()
					m.stopped[name] = time.Now()
					m.mu.Unlock()
				}
			}
		})
		hold(m.t, every)
	}
	wg.Wait()
	return names
}

// verify waits for the ends, and holds each history against the definition.
func (m *machineLoad) verify(names []string) {
	m.t.Helper()
	ended := map[string]int{}
	for _, name := range names {
		var answer map[string]any
		testkit.Eventually(m.t, name+" has ended", func() bool {
			_, answer = m.request(http.MethodGet, "/executions/m:"+name, "")
			return answer["status"] != "RUNNING"
		})
		status, _ := answer["status"].(string)
		ended[status]++
		m.mu.Lock()
		_, stopped := m.stopped[name]
		m.mu.Unlock()
		switch {
		case status == "SUCCEEDED" && !stopped:
		case status == "ABORTED": // a stop whose answer was lost counts, too
		default:
			m.t.Errorf("%s has ended as %v", name, answer)
		}
		m.verifyHistory(name, status)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.late) > 0 {
		m.t.Errorf("calls after a stop was answered: %v", m.late)
	}
	again := 0
	for _, n := range m.calls {
		again += n - 1
	}
	m.t.Logf("%d executions: %v; of %d calls %d were made again", len(names), ended, len(m.calls)+again, again)
}

// verifyHistory: each state is entered once, tasks that succeeded are not forgotten, retries are recorded.
func (m *machineLoad) verifyHistory(name, status string) {
	var entered []string
	counts := map[string]int{}
	after := ""
	for {
		_, page := m.request(http.MethodGet, "/executions/m:"+name+"/history?after="+after, "")
		events, _ := page["events"].([]any)
		for _, e := range events {
			event, _ := e.(map[string]any)
			kind, _ := event["type"].(string)
			counts[kind]++
			if strings.HasSuffix(kind, "StateEntered") {
				state, _ := event["name"].(string)
				entered = append(entered, state)
			}
		}
		next, more := page["next"].(string)
		if !more {
			break
		}
		after = next
	}
	slices.Sort(entered)
	if once := slices.Compact(slices.Clone(entered)); len(once) != len(entered) {
		m.t.Errorf("%s: a state was entered twice: %v", name, entered)
	}
	failures, lost := 1, 0 // of c
	if m.flaked[name] {
		failures, lost = 2, 1 // a failure that was answered to an owner that was killed is nobody's: the call is made again
	}
	if failed := counts["TaskFailed"]; status == "SUCCEEDED" && (len(entered) != 8 || counts["TaskSucceeded"] != 5 || failed > failures || failed < failures-lost) {
		m.t.Errorf("%s: entered %v; %v", name, entered, counts)
	}
}

// TestMachinesAndKills: three orchestrators of which one is killed every second or so, and one is put to sleep past its lease and
// goes on, under executions that run, wait, retry and are stopped.
func TestMachinesAndKills(t *testing.T) {
	nats := newNATSServer(t)
	nats.start()
	m := newMachineLoad(t, nats)
	m.start(3)
	if status, answer := m.request(http.MethodPut, "/state-machines/m", `{"definition": `+strings.ReplaceAll(machineDefinition, "URL", m.function.URL)+`}`); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	var names []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		names = m.run(size(150, 500, 5000), 10*time.Millisecond)
	}()
	kills, sleeps := 0, 0
	for running := true; running; {
		i := rand.IntN(len(m.replicas))
		switch {
		case kills%4 == 3 && sleeps*4 <= kills:
			sleeping := m.replicas[i]
			sleeping.Signal(syscall.SIGSTOP)
			hold(t, 7*time.Second) // past its lease
			sleeping.Signal(syscall.SIGCONT)
			sleeps++
		default:
			m.replicas[i].Kill()
			checkRaces(t, m.replicas[i])
			m.replicas[i] = m.replica(i)
			kills++
		}
		select {
		case <-done:
			running = false
		case <-time.After(time.Second + time.Duration(rand.Int64N(int64(time.Second)))):
		}
	}
	m.verify(names)
	t.Logf("%d were killed, %d slept past their leases", kills, sleeps)
	for _, r := range m.replicas {
		r.Terminate()
		checkRaces(t, r)
	}
}

// TestMachinesAndPowerCuts cuts NATS' power under executions: what was answered is not lost.
func TestMachinesAndPowerCuts(t *testing.T) {
	d := newDisk(t, 512)
	nats := newNATSServer(t)
	nats.cfg.Dir = filepath.Join(d.dir, "nats")
	server := nats.startChild()
	m := newMachineLoad(t, nats)
	run(t, "sync", "-f", d.dir) // the streams are not so new
	m.start(2)
	if status, answer := m.request(http.MethodPut, "/state-machines/m", `{"definition": `+strings.ReplaceAll(machineDefinition, "URL", m.function.URL)+`}`); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	var names []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		names = m.run(size(100, 300, 3000), 20*time.Millisecond)
	}()
	cuts := size(1, 2, 20)
	for range cuts {
		called := m.called.Load()
		testkit.Eventually(t, "functions are called", func() bool { return m.called.Load() > called+20 })
		hold(t, time.Duration(rand.Int64N(int64(time.Second))))
		d.cut(server)
		server = nats.startChild()
	}
	<-done
	m.verify(names)
	t.Logf("the power was cut %d times", cuts)
	for _, r := range m.replicas {
		r.Terminate()
		checkRaces(t, r)
	}
	server.Kill()
}
