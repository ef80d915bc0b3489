package orchestrator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/orchestrator"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

const activityTask = `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "arn:aws:states:us-east-1:1:activity:work", "End": true}}}`

// taken is a task as a worker gets it.
type taken struct {
	TaskToken string
	Input     json.RawMessage
	Links     struct{ Success, Failure, Heartbeat string }
}

// take has a worker ask for a task; ok is false if there was none.
func (r *replica) take(activity string, wait int, body string) (t taken, ok bool) {
	r.t.Helper()
	testkit.Eventually(r.t, "a worker is answered", func() bool {
		req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.api.URL+"/activities/"+activity+"/tasks", strings.NewReader(body))
		if err != nil {
			r.t.Fatal(err)
		}
		req.Header.Set("Prefer", fmt.Sprint("wait=", wait))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			r.t.Error(err)
			return true
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		switch ok = res.StatusCode == http.StatusOK; {
		case ok:
			if err := json.Unmarshal(text, &t); err != nil {
				r.t.Error(err)
			}
		case res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusServiceUnavailable:
			r.t.Errorf("%d %s", res.StatusCode, text)
		}
		return res.StatusCode != http.StatusServiceUnavailable
	})
	http.DefaultClient.CloseIdleConnections()
	return t, ok
}

// report posts to a link of a task.
func (r *replica) report(link, body string) {
	r.t.Helper()
	var said any
	if body != "" {
		said = json.RawMessage(body)
	}
	if status, answer := r.request(http.MethodPost, link, said); status != http.StatusOK {
		r.t.Errorf("%s: %d %v", link, status, answer)
	}
}

// watched counts what a process asks owners for tasks.
type watched struct {
	*stream.Conn
	takes atomic.Int64
	heard chan string // what hints are listened for
}

func (w *watched) Ask(ctx context.Context, k catalog.Key, what string, body []byte) ([]byte, error) {
	answer, err := w.Conn.Ask(ctx, k, what, body)
	if what == "take" {
		w.takes.Add(1)
	}
	return answer, err
}

func (w *watched) HearHints(ctx context.Context, what string, f func(string, []byte)) (func(), error) {
	stop, err := w.Conn.HearHints(ctx, what, f)
	w.heard <- what
	return stop, err
}

func (w *world) startWatched(owner string) (*replica, *watched) {
	var c *watched
	r := w.startAs(owner, func(cfg *orchestrator.Config) {
		c = &watched{Conn: cfg.Conn.(*stream.Conn), heard: make(chan string, 100)}
		cfg.Conn = c
	})
	return r, c
}

func TestActivity(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	r.put("m", `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "arn:aws:states:us-east-1:1:activity:work", "Parameters": {"got.$": "$"},
		"Catch": [{"ErrorEquals": ["Mine"], "ResultPath": "$.error", "Next": "C"}], "ResultPath": "$.done", "End": true}, "C": {"Type": "Pass", "End": true}}}`)
	if _, ok := r.take("work", 0, ""); ok {
		t.Error("there was a task")
	}
	for n, c := range []struct{ verb, body, want, event string }{
		{"success", `{"output": "ok"}`, `{"done":"ok","n":1}`, "Succeeded"},
		{"failure", `{"error": "Mine", "cause": "why"}`, `{"error":{"Cause":"why","Error":"Mine"},"n":1}`, "Failed"},
	} {
		id := r.begin("m", fmt.Sprint("x", n), `{"n":1}`)
		task, ok := r.take("work", 0, `{"workerName": "w1"}`)
		if !ok || string(task.Input) != `{"got":{"n":1}}` || task.Links.Success != "/tasks/"+task.TaskToken+"/success" {
			t.Fatalf("%v %+v", ok, task)
		}
		if again, ok := r.take("work", 0, ""); ok {
			t.Errorf("it was given twice: %+v", again)
		}
		r.report(task.Links.Heartbeat, "")
		r.report("/tasks/"+task.TaskToken+"/"+c.verb, c.body)
		if got := r.end(id); got != c.want {
			t.Errorf("%s: %s", c.verb, got)
		}
		if got := r.history(id); !strings.Contains(got, "ActivityScheduled ActivityStarted Activity"+c.event+" TaskExited") {
			t.Error(got)
		}
		_, answer := r.request(http.MethodGet, "/executions/"+id+"/history", nil)
		if text, _ := json.Marshal(answer); !strings.Contains(string(text), `"workerName":"w1"`) {
			t.Errorf("the worker is not named: %s", text)
		}
		if status, answer := r.request(http.MethodPost, task.Links.Heartbeat, nil); status != http.StatusConflict || answer["type"] != "https://weir.dev/problems/task-over" {
			t.Error(status, answer)
		}
	}
	status, answer := r.request(http.MethodPut, "/activities/other%2Fwork", nil)
	if url, _ := answer["url"].(string); status != http.StatusOK || answer["name"] != "other/work" || answer["activityArn"] != "arn:weir:states::other:activity:work" ||
		!strings.HasPrefix(url, "/weir/activities/") || !strings.HasSuffix(url, "/tasks") {
		t.Error(status, answer)
	}
	for path, body := range map[string]string{"/activities/a%20b/tasks": "", "/activities/work/tasks": `{"workerName": "` + strings.Repeat("x", 81) + `"}`} {
		if status, answer := r.request(http.MethodPost, path, json.RawMessage(orEmpty(body))); status != http.StatusBadRequest {
			t.Error(path, status, answer)
		}
	}
	if status, answer := r.request(http.MethodPut, "/state-machines/bad", map[string]any{"definition": json.RawMessage(strings.Replace(activityTask, "work", "a.b", 1))}); status != http.StatusBadRequest {
		t.Error(status, answer)
	}
	if status, answer := r.request(http.MethodPost, "/activities/work/tasks", strings.Repeat("x", 5<<10)); status != http.StatusRequestEntityTooLarge {
		t.Error(status, answer)
	}
}

func orEmpty(body string) string {
	if body == "" {
		return "{}"
	}
	return body
}

// TestWorkersWait: a worker that waits asks nobody, and gets a task as soon as there is one, of any partition and whoever's.
func TestWorkersWait(t *testing.T) {
	w := newWorld(t)
	a, conn := w.startWatched("a")
	a.put("m", activityTask)
	a.put("other", strings.Replace(activityTask, "work", "other", 1))
	type got struct {
		task taken
		ok   bool
		at   time.Time
	}
	const workers = 3
	tasks := make(chan got, workers)
	for range workers {
		go func() {
			task, ok := a.take("work", 60, "")
			tasks <- got{task, ok, time.Now()}
		}()
	}
	if what := <-conn.heard; what != "default=work" {
		t.Error(what)
	}
	asked := int64(-1)
	testkit.Eventually(t, "they have asked everybody", func() bool {
		before := asked
		asked = conn.takes.Load()
		return asked >= 16 && asked == before
	})
	a.begin("other", "x", `{}`)
	if now := conn.takes.Load(); now != asked {
		t.Errorf("who waits for one activity has asked %d times because of another's task", now-asked)
	}
	for n := range workers {
		began := time.Now()
		id := a.begin("m", fmt.Sprint("x", n), `{}`)
		g := <-tasks
		if !g.ok || g.at.Sub(began) > 5*time.Second {
			t.Fatalf("%+v after %v", g, g.at.Sub(began))
		}
		t.Logf("taken %v after the start was asked for", g.at.Sub(began))
		a.report(g.task.Links.Success, `{"output": 1}`)
		a.end(id)
	}
}

// TestWorkersShareNoTask: many workers at two owners take tasks of many executions, each once.
func TestWorkersShareNoTask(t *testing.T) {
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	a.put("m", activityTask)
	a.put("map", `{"StartAt": "M", "States": {"M": {"Type": "Map", "MaxConcurrency": 20, "ItemProcessor": {"StartAt": "T", "States": {
		"T": {"Type": "Task", "Resource": "arn:aws:states:us-east-1:1:activity:work", "End": true}}}, "End": true}}}`)
	const single, mapped = 40, 30
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for n := range 8 {
		r := []*replica{a, b}[n%2]
		wg.Go(func() {
			for ctx.Err() == nil {
				task, ok := r.take("work", 1, "")
				if !ok {
					continue
				}
				mu.Lock()
				seen[task.TaskToken]++
				mu.Unlock()
				r.report(task.Links.Success, `{"output": 1}`)
			}
		})
	}
	var items []string
	for n := range mapped {
		items = append(items, fmt.Sprint(n))
	}
	ids := []string{a.begin("map", "x", "["+strings.Join(items, ",")+"]")}
	for n := range single {
		ids = append(ids, b.begin("m", fmt.Sprint("x", n), `{}`))
	}
	for _, id := range ids {
		if got := a.end(id); got != "1" && got != "["+strings.TrimSuffix(strings.Repeat("1,", mapped), ",")+"]" {
			t.Errorf("%s: %s", id, got)
		}
	}
	cancel()
	wg.Wait()
	if len(seen) != single+mapped {
		t.Errorf("%d tasks of %d", len(seen), single+mapped)
	}
	for token, n := range seen {
		if n != 1 {
			t.Errorf("%s was given %d times", token, n)
		}
	}
	for _, id := range ids {
		if got := a.history(id); strings.Count(got, "ActivityStarted") != strings.Count(got, "ActivityScheduled") {
			t.Errorf("%s: %s", id, got)
		}
	}
}

// TestActivityNewOwner: a task is given, and reported on, whoever owns its execution by then; who waits hears of it from the new
// owner.
func TestActivityNewOwner(t *testing.T) {
	w := newWorld(t)
	a := w.start("a")
	a.put("m", `{"StartAt": "P", "States": {"P": {"Type": "Parallel", "End": true, "Branches": [
		{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "arn:aws:states:us-east-1:1:activity:work", "End": true}}},
		{"StartAt": "U", "States": {"U": {"Type": "Task", "Resource": "arn:aws:states:us-east-1:1:activity:work", "End": true}}},
		{"StartAt": "V", "States": {"V": {"Type": "Task", "Resource": "arn:weir:states::far:activity:work", "End": true}}}]}}}`)
	id := a.begin("m", "x", `{"n": 1}`)
	first, ok := a.take("work", 0, "")
	if !ok {
		t.Fatal("there was no task")
	}
	restart := func(r *replica) *replica {
		r.conn.Close() // as if it had been killed
		go r.stop()
		return w.start("a")
	}
	b := restart(a)
	second, ok := b.take("work", 30, "") // it waits for the new owner
	if !ok || second.TaskToken == first.TaskToken || string(second.Input) != `{"n":1}` {
		t.Fatalf("%v %+v", ok, second)
	}
	far, ok := b.take("far%2Fwork", 0, "")
	if !ok {
		t.Fatal("the other namespace's has no task")
	}
	c := restart(b)
	if again, ok := c.take("work", 0, ""); ok {
		t.Errorf("it was given again: %+v", again)
	}
	for n, task := range []taken{first, second, far} {
		c.report(task.Links.Success, fmt.Sprintf(`{"output": %d}`, n))
	}
	if got := c.end(id); got != "[0,1,2]" && got != "[1,0,2]" {
		t.Error(got)
	}
	if got := c.history(id); strings.Count(got, "ActivityStarted") != 3 {
		t.Error(got)
	}
}

// TestActivityEnds: what has timed out, or was stopped, is given to nobody, and a worker that is silent has failed.
func TestActivityEnds(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	r.put("timeout", strings.Replace(activityTask, `"End"`, `"TimeoutSeconds": 1, "End"`, 1))
	if got := r.end(r.begin("timeout", "x", `{}`)); got != "FAILED States.Timeout " {
		t.Error(got)
	}
	r.put("m", strings.Replace(activityTask, `"End"`, `"TimeoutSeconds": 60, "HeartbeatSeconds": 2, "End"`, 1))
	stopped := r.begin("m", "stopped", `{}`)
	if status, answer := r.request(http.MethodPost, "/executions/"+stopped+"/stop", nil); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	if task, ok := r.take("work", 0, ""); ok {
		t.Errorf("a task that is over was given: %+v", task)
	}
	silent, alive := r.begin("m", "silent", `{"n":1}`), r.begin("m", "alive", `{"n":2}`)
	var tasks []taken
	for range 2 {
		task, ok := r.take("work", 0, "")
		if !ok {
			t.Fatal("there was no task")
		}
		tasks = append(tasks, task)
	}
	if string(tasks[0].Input) == `{"n":2}` { // of another partition
		tasks[0], tasks[1] = tasks[1], tasks[0]
	}
	testkit.Eventually(t, "the one that is silent fails", func() bool {
		r.report(tasks[1].Links.Heartbeat, "")
		_, answer := r.request(http.MethodGet, "/executions/"+silent, nil)
		return answer["status"] != "RUNNING"
	})
	if got := r.end(silent); got != "FAILED States.Timeout " {
		t.Error(got)
	}
	if got := r.history(silent); !strings.Contains(got, "ActivityStarted ActivityTimedOut") {
		t.Error(got)
	}
	r.report(tasks[1].Links.Success, `{"output": 1}`)
	if got := r.end(alive); got != "1" {
		t.Error(got)
	}
	if status, answer := r.request(http.MethodPost, tasks[0].Links.Success, nil); status != http.StatusConflict {
		t.Error(status, answer)
	}
	if status, answer := r.request(http.MethodPost, "/executions/"+stopped+"/redrive", nil); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	if _, ok := r.take("work", 0, ""); !ok {
		t.Error("what is redriven has no task")
	}
}

// TestManyActivities: an execution with tasks of more activities than its summary names is found by a new owner all the same.
func TestManyActivities(t *testing.T) {
	w := newWorld(t)
	a := w.start("a")
	var branches []string
	for n := range 20 {
		branches = append(branches, fmt.Sprintf(`{"StartAt": "T%d", "States": {"T%d": {"Type": "Task", "Resource": "arn:aws:states:us-east-1:1:activity:w%d", "End": true}}}`, n, n, n))
	}
	a.put("m", `{"StartAt": "P", "States": {"P": {"Type": "Parallel", "End": true, "Branches": [`+strings.Join(branches, ",")+`]}}}`)
	id := a.begin("m", "x", `{}`)
	a.conn.Close()
	go a.stop()
	b := w.start("a")
	for n := range 20 {
		task, ok := b.take(fmt.Sprint("w", n), 30, "")
		if !ok {
			t.Fatalf("activity %d has no task", n)
		}
		b.report(task.Links.Success, fmt.Sprintf(`{"output": %d}`, n))
	}
	if got := b.end(id); !strings.HasPrefix(got, "[0,1,2,") {
		t.Error(got)
	}
}

// TestTokenOfAnEarlierExecution: a token is not one of a later execution with the same name.
func TestTokenOfAnEarlierExecution(t *testing.T) {
	w := newWorld(t)
	r := w.startKeeping("a", time.Second)
	r.put("m", activityTask)
	give := func() taken {
		t.Helper()
		r.begin("m", "x", `{}`)
		task, ok := r.take("work", 0, "")
		if !ok {
			t.Fatal("there was no task")
		}
		return task
	}
	first := give()
	r.report(first.Links.Success, `{"output": 1}`)
	testkit.Eventually(t, "it is gone", func() bool {
		status, _ := r.request(http.MethodGet, "/executions/m:x", nil)
		return status == http.StatusNotFound
	})
	if status, answer := r.request(http.MethodPost, first.Links.Success, nil); status != http.StatusConflict {
		t.Error(status, answer)
	}
	second := give()
	if status, answer := r.request(http.MethodPost, first.Links.Success, nil); status != http.StatusConflict {
		t.Error(status, answer)
	}
	r.report(second.Links.Success, `{"output": 2}`)
	if got := r.end("m:x"); got != "2" {
		t.Error(got)
	}
}
