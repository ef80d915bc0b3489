package orchestrator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/orchestrator"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a NATS server, functions, and orchestrators.
type world struct {
	t         testing.TB
	nats      *localnats.Server
	functions *httptest.Server
	ring      sign.Ring
	mu        sync.Mutex
	answer    func(function string, body []byte) (int, string)
	calls     map[string]int         // by function
	headers   map[string]http.Header // of the last call, by function
	tel       telemetry.Providers
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, nats: testkit.NATS(t), calls: map[string]int{}, headers: map[string]http.Header{}}
	w.answer = func(string, []byte) (int, string) { return http.StatusOK, `"done"` }
	w.functions = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		name := strings.TrimPrefix(r.URL.Path, "/")
		w.mu.Lock()
		w.calls[name]++
		w.headers[name] = r.Header
		answer := w.answer
		w.mu.Unlock()
		status, text := answer(name, body)
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, text)
	}))
	t.Cleanup(w.functions.Close)
	conn := testkit.Conn(t, w.nats)
	if err := conn.EnsureLeases(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := conn.EnsureMachines(t.Context(), 1, 512<<20); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.ring, _, err = (sign.Ring{}).Rotate(time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) called(function string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[function]
}

func (w *world) answers(f func(function string, body []byte) (int, string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = f
}

// replica is one orchestrator, with its API.
type replica struct {
	t       testing.TB
	api     *httptest.Server
	conn    *stream.Conn
	serving <-chan struct{}
	stop    func() // in order
}

func (w *world) start(owner string) *replica { return w.startKeeping(owner, 0) }

func (w *world) startKeeping(owner string, keep time.Duration) *replica {
	return w.startAs(owner, func(cfg *orchestrator.Config) { cfg.Keep = keep })
}

func (w *world) startAs(owner string, configure func(*orchestrator.Config)) *replica {
	w.t.Helper()
	return w.startKnowing(owner, &catalog.Catalog{}, configure)
}

func (w *world) startKnowing(owner string, cat *catalog.Catalog, configure func(*orchestrator.Config)) *replica {
	w.t.Helper()
	conn := testkit.Conn(w.t, w.nats)
	caller := invoke.NewCaller(16, w.tel)
	cfg := orchestrator.Config{
		Conn: conn, Caller: caller, Owner: owner, Telemetry: w.tel, Log: testkit.Log(w.t),
		Function: func(_, name string) (catalog.Function, bool) {
			return catalog.Function{Name: name, URL: w.functions.URL + "/" + name}, !strings.HasPrefix(name, "no-")
		},
	}
	configure(&cfg)
	o, err := orchestrator.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	o.UseKeys(w.ring)
	o.Use(cat)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := o.Run(ctx, func() {}); err != nil {
			w.t.Error(err)
		}
	}()
	r := &replica{t: w.t, api: httptest.NewServer(o.API()), conn: conn, serving: o.Serving()}
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		r.api.Close()
		caller.Close()
	})
	w.t.Cleanup(r.stop)
	return r
}

// request makes a request of the API, until its partition has an owner.
func (r *replica) request(method, path string, body any) (status int, answer map[string]any) {
	r.t.Helper()
	testkit.Eventually(r.t, method+" "+path+" is answered", func() bool {
		status, answer = r.ask(method, path, body)
		return status != http.StatusServiceUnavailable
	})
	return status, answer
}

// ask makes a request of the API once.
func (r *replica) ask(method, path string, body any) (status int, answer map[string]any) {
	r.t.Helper()
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.api.URL+path, &text)
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, answer
}

func (r *replica) put(name, definition string) {
	r.t.Helper()
	if status, answer := r.request(http.MethodPut, "/state-machines/"+name, map[string]any{"definition": json.RawMessage(definition)}); status != http.StatusOK {
		r.t.Fatal(status, answer)
	}
}

func (r *replica) begin(machine, name, input string) string {
	r.t.Helper()
	status, answer := r.request(http.MethodPost, "/state-machines/"+machine+"/executions", map[string]any{"input": json.RawMessage(input), "name": name})
	if status != http.StatusCreated {
		r.t.Fatal(status, answer)
	}
	return answer["id"].(string)
}

// end waits for an execution's end, and returns its outcome in a line.
func (r *replica) end(id string) string {
	r.t.Helper()
	var outcome string
	testkit.Eventually(r.t, id+" has ended", func() bool {
		_, answer := r.request(http.MethodGet, "/executions/"+id, nil)
		text, _ := json.Marshal(answer["output"])
		outcome = string(text)
		if answer["status"] != "SUCCEEDED" {
			outcome = fmt.Sprint(answer["status"], " ", answer["error"], " ", answer["cause"])
		}
		return answer["status"] != "RUNNING"
	})
	return outcome
}

// history is the types of an execution's events, in a line.
func (r *replica) history(id string) string {
	r.t.Helper()
	var types []string
	after := ""
	for {
		_, answer := r.request(http.MethodGet, "/executions/"+id+"/history?limit=7&after="+after, nil)
		for _, e := range answer["events"].([]any) {
			types = append(types, strings.ReplaceAll(e.(map[string]any)["type"].(string), "State", ""))
		}
		next, more := answer["next"].(string)
		if !more {
			return strings.Join(types, " ")
		}
		after = next
	}
}

const order = `{"StartAt": "Check", "States": {
	"Check": {"Type": "Task", "Resource": "arn:aws:lambda:us-east-1:1:function:check", "ResultPath": "$.checked", "Next": "Pay",
		"Retry": [{"ErrorEquals": ["Flaky"], "IntervalSeconds": 1, "MaxAttempts": 2}]},
	"Pay": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"FunctionName": "pay", "Payload.$": "$"},
		"Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Refund"}], "ResultPath": "$.paid", "End": true},
	"Refund": {"Type": "Pass", "OutputPath": "$.error", "End": true}}}`

// TestServing has machines of all partitions asked for once each, as soon as the process says that it serves.
func TestServing(t *testing.T) {
	r := newWorld(t).start("a")
	select {
	case <-r.serving:
	case <-time.After(testkit.Patience):
		t.Fatal("it doesn't serve all partitions")
	}
	for n := range 8 * stream.MachinePartitions {
		if status, answer := r.ask(http.MethodPut, fmt.Sprint("/state-machines/m", n), map[string]any{"definition": json.RawMessage(order)}); status != http.StatusOK {
			t.Error(status, answer)
		}
	}
}

func TestExecution(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	r.put("order", order)
	id := r.begin("order", "one", `{"n": 1.50}`)
	if got := r.end(id); got != `{"checked":"done","n":1.5,"paid":{"ExecutedVersion":"$LATEST","Payload":"done","StatusCode":200}}` {
		t.Error(got)
	}
	if got := r.history(id); got != "ExecutionStarted TaskEntered LambdaFunctionScheduled LambdaFunctionStarted LambdaFunctionSucceeded TaskExited "+
		"TaskEntered TaskScheduled TaskStarted TaskSucceeded TaskExited ExecutionSucceeded" {
		t.Error(got)
	}
	// The same start is the same execution; another is refused.
	if again := r.begin("order", "one", `{"n":1.50}`); again != id || w.called("check") != 1 {
		t.Errorf("%s, called %d times", again, w.called("check"))
	}
	if status, answer := r.request(http.MethodPost, "/state-machines/order/executions", map[string]any{"name": "one", "input": 2}); status != http.StatusConflict {
		t.Error(status, answer)
	}

	var flaky atomic.Int32
	w.answers(func(function string, _ []byte) (int, string) {
		switch {
		case function == "check" && flaky.Add(1) == 1:
			return http.StatusInternalServerError, `{"errorType": "Flaky", "errorMessage": "once"}`
		case function == "pay":
			return http.StatusInternalServerError, `{"error": "NoMoney", "cause": null}`
		}
		return http.StatusOK, ``
	})
	if got := r.end(r.begin("order", "two", `{}`)); got != `{"Cause":null,"Error":"NoMoney"}` {
		t.Error(got)
	}
	for _, c := range []struct{ method, path, body, want string }{
		{http.MethodPut, "/state-machines/bad", `{"definition": {"StartAt": "A", "States": {"A": {"Type": "Pass"}}}}`, "400 leads nowhere"},
		{http.MethodPut, "/state-machines/a%20b", `{"definition": {}}`, "400 name of a state machine"},
		{http.MethodPut, "/state-machines/bad", `{"definition"`, "400 no JSON"},
		{http.MethodPost, "/state-machines/none/executions", `{}`, "404 no state machine default/none"},
		{http.MethodPost, "/state-machines/order/executions", `{"name": "a b"}`, "400 name of an execution"},
		{http.MethodGet, "/executions/order:none", ``, "404 no execution order:none"},
		{http.MethodGet, "/executions/none", ``, "400 MACHINE:NAME"},
		{http.MethodPost, "/executions/order:one/stop", `{}`, "409 has ended"},
		{http.MethodPost, "/executions/order:one/redrive", `{}`, "409 SUCCEEDED"},
		{http.MethodPost, "/tasks/AAAA/success", `{}`, "404 never given"},
		{http.MethodGet, "/executions/order:one/history?limit=x", ``, "400 no count"},
	} {
		var body any
		if c.body != "" {
			body = json.RawMessage(c.body)
		}
		if c.body == `{"definition"` {
			body = nil
			req, _ := http.NewRequestWithContext(t.Context(), c.method, r.api.URL+c.path, strings.NewReader(c.body))
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "no JSON") {
				t.Error(res.StatusCode, string(text))
			}
			continue
		}
		status, answer := r.request(c.method, c.path, body)
		code, want, _ := strings.Cut(c.want, " ")
		if fmt.Sprint(status) != code || !strings.Contains(fmt.Sprint(answer["detail"]), want) {
			t.Errorf("%s %s: %d %v; want %s", c.method, c.path, status, answer, c.want)
		}
	}
}

// TestMissingFunctions: who puts a machine is told of tasks that name a function that is not there, if the definition tells.
func TestMissingFunctions(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	status, answer := r.request(http.MethodPut, "/state-machines/m", json.RawMessage(`{"definition": {"StartAt": "A", "States": {
		"A": {"Type": "Task", "Resource": "no-a", "Next": "B"},
		"B": {"Type": "Parallel", "Next": "C", "Branches": [{"StartAt": "I", "States": {"I": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"FunctionName": "arn:aws:lambda:eu-west-1:123456789012:function:no-b:live", "Payload.$": "$"}, "End": true}}}]},
		"C": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"FunctionName": "no-c", "Payload": {}}, "Next": "D"},
		"D": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Parameters": {"FunctionName.$": "$.name"}, "Next": "E"},
		"E": {"Type": "Task", "Resource": "check", "End": true}}}}`))
	want := `[/States/A: there is no function "no-a" in the namespace default` +
		` /States/B/Branches[0]/States/I: there is no function "no-b" in the namespace default` +
		` /States/C: there is no function "no-c" in the namespace default]`
	if got := fmt.Sprint(answer["warnings"]); status != http.StatusOK || got != want {
		t.Errorf("%d %s\nwant %s", status, got, want)
	}
}

// TestThrottledIsNeverFailed: a function that says "not now" is asked until it takes the call, and no retry is spent.
func TestThrottledIsNeverFailed(t *testing.T) {
	w := newWorld(t)
	var n atomic.Int32
	w.answers(func(string, []byte) (int, string) {
		if n.Add(1) < 5 {
			return []int{http.StatusTooManyRequests, http.StatusServiceUnavailable}[n.Load()%2], "not now"
		}
		return http.StatusOK, `5`
	})
	r := w.start("a")
	r.put("m", `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "f", "End": true}}}`)
	if got := r.end(r.begin("m", "x", `{}`)); got != "5" || n.Load() != 5 {
		t.Errorf("%s after %d calls", got, n.Load())
	}
}

// TestNewOwner: executions go on with the next owner, whatever they were at: a wait, a call, a token. What has ended is not
// done again.
func TestNewOwner(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.answers(func(function string, _ []byte) (int, string) {
		if function == "slow" {
			<-release
		}
		return http.StatusOK, `"` + function + `"`
	})
	let := sync.OnceFunc(func() { close(release) })
	defer let()
	a := w.start("a")
	a.put("m", `{"StartAt": "First", "States": {
		"First": {"Type": "Task", "Resource": "first", "Next": "Both"},
		"Both": {"Type": "Parallel", "End": true, "Branches": [
			{"StartAt": "Slow", "States": {"Slow": {"Type": "Task", "Resource": "slow", "Next": "After"}, "After": {"Type": "Task", "Resource": "after", "End": true}}},
			{"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 2, "Next": "Woken"}, "Woken": {"Type": "Task", "Resource": "woken", "End": true}}}]}}}`)
	var ids []string
	for n := range 20 {
		ids = append(ids, a.begin("m", fmt.Sprint("x", n), `{}`))
	}
	testkit.Eventually(t, "all are called", func() bool { return w.called("slow") == 20 })
	a.conn.Close() // as if it had been killed: nothing is given up in order
	go a.stop()
	b := w.start("a") // its name: it need not wait for the leases
	testkit.Eventually(t, "all are called once more", func() bool { return w.called("slow") >= 40 })
	let()
	for _, id := range ids {
		if got := b.end(id); got != `["after","woken"]` {
			t.Errorf("%s: %s", id, got)
		}
		if got := b.history(id); strings.Count(got, "TaskEntered") != 4 || strings.Count(got, "LambdaFunctionSucceeded") != 4 {
			t.Errorf("%s: %s", id, got)
		}
	}
	if n := w.called("first"); n != 20 {
		t.Errorf("what had ended was called again: %d", n)
	}
}

// TestPartitionsAreShared: a second orchestrator gets its half, in order and without a call that is made twice; when it ends,
// the first has all again.
func TestPartitionsAreShared(t *testing.T) {
	w := newWorld(t)
	a := w.start("a")
	a.put("m", `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "f", "Next": "W"}, "W": {"Type": "Wait", "Seconds": 1, "Next": "U"}, "U": {"Type": "Task", "Resource": "g", "End": true}}}`)
	owners := func() map[string]int {
		held := map[string]int{}
		ctx, cancel := context.WithCancel(t.Context())
		err := a.conn.WatchLeases(ctx, func(l *stream.LeaseState) {
			if l == nil {
				cancel()
			} else if strings.HasPrefix(l.Name, "machines.queue.") && l.Owner != "" {
				held[l.Owner]++
			}
		})
		cancel()
		_ = err // it was cancelled
		return held
	}
	var ids []string
	start := func(r *replica, n int) {
		for range n {
			ids = append(ids, r.begin("m", fmt.Sprint("x", len(ids)), `{}`))
		}
	}
	start(a, 30)
	b := w.start("b")
	testkit.Eventually(t, "both have a half", func() bool { o := owners(); return o["a"] == 4 && o["b"] == 4 })
	start(b, 30)
	b.stop()
	testkit.Eventually(t, "one has all", func() bool { return owners()["a"] == 8 })
	start(a, 10)
	for _, id := range ids {
		if got := a.end(id); got != `"done"` {
			t.Errorf("%s: %s", id, got)
		}
	}
	if w.called("f") != 70 || w.called("g") != 70 {
		t.Errorf("%d and %d calls of 70", w.called("f"), w.called("g"))
	}
}

func TestTaskTokens(t *testing.T) {
	w := newWorld(t)
	tokens := make(chan string, 10)
	w.answers(func(_ string, body []byte) (int, string) {
		var in struct{ Token string }
		_ = json.Unmarshal(body, &in)
		tokens <- in.Token
		return http.StatusAccepted, ``
	})
	r := w.start("a")
	r.put("m", `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
		"Parameters": {"FunctionName": "f", "Payload": {"Token.$": "$$.Task.Token"}}, "HeartbeatSeconds": 3, "End": true}}}`)
	for n, c := range []struct{ verb, body, want string }{
		{"success", `{"output": {"a": 1}}`, `{"a":1}`},
		{"failure", `{"error": "No", "cause": "why"}`, "FAILED No why"},
		{"failure", `{}`, "FAILED <nil> <nil>"},
	} {
		id := r.begin("m", fmt.Sprint("x", n), `{}`)
		token := <-tokens
		if status, answer := r.request(http.MethodPost, "/tasks/"+token+"/heartbeat", nil); status != http.StatusOK {
			t.Error(status, answer)
		}
		if status, answer := r.request(http.MethodPost, "/tasks/"+token+"/"+c.verb, json.RawMessage(c.body)); status != http.StatusOK {
			t.Error(status, answer)
		}
		if got := r.end(id); got != c.want {
			t.Errorf("%s: %s; want %s", c.verb, got, c.want)
		}
		if status, answer := r.request(http.MethodPost, "/tasks/"+token+"/success", nil); status != http.StatusConflict {
			t.Error("reported twice", status, answer)
		}
		if got := r.history(id); !strings.Contains(got, "TaskStarted TaskSubmitted") {
			t.Error(got)
		}
	}
	id := r.begin("m", "silent", `{}`)
	<-tokens
	if got := r.end(id); got != "FAILED States.Timeout " {
		t.Error(got)
	}
}

// TestSendTaskSuccess: a report from within a state machine, one that is no JSON among them.
func TestSendTaskSuccess(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	tokens := make(chan string, 1)
	w.answers(func(_ string, body []byte) (int, string) {
		tokens <- string(body)
		return http.StatusOK, `null`
	})
	r.put("waits", `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken",
		"Parameters": {"FunctionName": "f", "Payload.$": "States.JsonToString($$.Task.Token)"}, "End": true}}}`)
	r.put("reports", `{"StartAt": "S", "States": {"S": {"Type": "Task", "Resource": "arn:aws:states:::aws-sdk:sfn:sendTaskSuccess",
		"Parameters": {"TaskToken.$": "$.token", "Output.$": "$.output"}, "End": true}}}`)
	id := r.begin("waits", "x", `{}`)
	token := <-tokens
	for n, c := range []struct{ output, want string }{
		{`"no JSON"`, "FAILED Sfn.InvalidOutputException Invalid Output: 'Syntax Error: Invalid JSON'"},
		{`"{\"a\": \"<b>\"}"`, `{}`},
	} {
		if got := r.end(r.begin("reports", fmt.Sprint(n), `{"token":`+token+`,"output":`+c.output+`}`)); got != c.want {
			t.Errorf("%s: %s; want %s", c.output, got, c.want)
		}
	}
	if got := r.end(id); got != `{"a":"\u003cb\u003e"}` {
		t.Error(got)
	}
}

// TestSizes: what is large is kept and answered as it was given; what is too large is refused, and nothing of it is kept.
func TestSizes(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	const pass = `{"StartAt": "P", "States": {"P": {"Type": "Pass", "End": true}}}`
	r.put("m", pass)
	for n, size := range []int{1, 64 << 10, 250 << 10} {
		input := `{"x":"` + strings.Repeat("<&>", size/3) + `"}`
		id := r.begin("m", fmt.Sprint(n), input)
		if again := r.begin("m", fmt.Sprint(n), input); again != id {
			t.Error(again)
		}
		_, answer := r.request(http.MethodGet, "/executions/"+id, nil)
		if in, _ := answer["input"].(map[string]any); in["x"] != strings.Repeat("<&>", size/3) {
			t.Errorf("%d bytes of input are described otherwise", size)
		}
		r.end(id)
		_, answer = r.request(http.MethodGet, "/executions/"+id, nil)
		if out, _ := answer["output"].(map[string]any); out["x"] != strings.Repeat("<&>", size/3) {
			t.Errorf("%d bytes of output are described otherwise", size)
		}
	}
	long := strings.Repeat("x", 257<<10)
	if status, answer := r.request(http.MethodPost, "/state-machines/m/executions", map[string]any{"name": "large", "input": long}); status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge {
		t.Error(status, answer["detail"])
	}
	if status, answer := r.request(http.MethodGet, "/executions/m:large", nil); status != http.StatusNotFound {
		t.Error(status, answer)
	}
	definition := strings.Replace(pass, `"Type"`, `"Comment": "`+strings.Repeat("x", 1<<20)+`", "Type"`, 1)
	status, answer := r.request(http.MethodPut, "/state-machines/large", map[string]any{"definition": json.RawMessage(definition)})
	if status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge {
		t.Error(status, answer["detail"])
	}
	if status, answer := r.request(http.MethodGet, "/state-machines/large", nil); status != http.StatusNotFound {
		t.Error(status, answer)
	}
}

// TestStop: after a stop was answered no task begins; a redrive goes on from there.
func TestStopAndRedrive(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	r.put("m", `{"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "Next": "T"}, "T": {"Type": "Task", "Resource": "f", "End": true}}}`)
	id := r.begin("m", "x", `{}`)
	if status, answer := r.request(http.MethodPost, "/executions/"+id+"/stop", map[string]string{"error": "Enough", "cause": "it is late"}); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	if got := r.end(id); got != "ABORTED Enough it is late" {
		t.Error(got)
	}
	other := r.begin("m", "y", `{}`)
	if got := r.end(other); got != `"done"` || w.called("f") != 1 {
		t.Errorf("%s, %d calls", got, w.called("f"))
	}
	if status, answer := r.request(http.MethodPost, "/executions/"+id+"/redrive", nil); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	if got := r.end(id); got != `"done"` || w.called("f") != 2 {
		t.Errorf("%s, %d calls", got, w.called("f"))
	}
	if got := r.history(id); !strings.Contains(got, "ExecutionAborted ExecutionRedriven WaitEntered WaitExited") {
		t.Error(got)
	}
	_, answer := r.request(http.MethodGet, "/state-machines/m/executions?status=SUCCEEDED", nil)
	var listed []string
	for _, e := range answer["executions"].([]any) {
		listed = append(listed, e.(map[string]any)["id"].(string))
	}
	if slices.Sort(listed); !slices.Equal(listed, []string{"m:x", "m:y"}) {
		t.Error(listed)
	}
}

// TestLargeExecution: results of many times what one message holds, over a new owner.
func TestLargeExecution(t *testing.T) {
	w := newWorld(t)
	large := `"` + strings.Repeat("x", 200<<10) + `"`
	w.answers(func(string, []byte) (int, string) { return http.StatusOK, large })
	a := w.start("a")
	a.put("m", `{"StartAt": "M", "States": {"M": {"Type": "Map", "ItemsPath": "$.list", "MaxConcurrency": 12, "ResultSelector": {"n.$": "States.ArrayLength($)"},
		"ItemProcessor": {"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "f", "Next": "P"}, "P": {"Type": "Pass", "Result": 1, "End": true}}}, "Next": "W"},
		"W": {"Type": "Wait", "Seconds": 1, "End": true}}}`)
	id := a.begin("m", "x", `{"list": [1,2,3,4,5,6,7,8,9,10,11,12]}`)
	testkit.Eventually(t, "all are called", func() bool { return w.called("f") == 12 })
	a.stop()
	b := w.start("b")
	if got := b.end(id); got != `{"n":12}` {
		t.Error(got)
	}
	if got := b.history(id); strings.Count(got, "MapIterationSucceeded") != 12 {
		t.Error(got)
	}
}

// TestNested: executions in executions, at .sync and .sync:2, over a new owner.
func TestNested(t *testing.T) {
	w := newWorld(t)
	a := w.start("a")
	a.put("child", `{"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "Next": "C"},
		"C": {"Type": "Choice", "Choices": [{"Variable": "$.fail", "IsPresent": true, "Next": "F"}], "Default": "P"},
		"F": {"Type": "Fail", "Error": "Child", "Cause": "why"}, "P": {"Type": "Pass", "Parameters": {"got.$": "$"}, "End": true}}}`)
	parent := func(pattern string) string {
		return `{"StartAt": "S", "States": {"S": {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution` + pattern + `",
			"Parameters": {"StateMachineArn": "arn:aws:states:us-east-1:1:stateMachine:child", "Input.$": "$"}, "End": true}}}`
	}
	var ids []string
	for n, pattern := range []string{"", ".sync", ".sync:2", ".sync"} {
		a.put(fmt.Sprint("parent", n), parent(pattern))
		ids = append(ids, a.begin(fmt.Sprint("parent", n), "x", []string{`{"n":1}`, `{"n":1}`, `{"n":1}`, `{"fail":true}`}[n]))
	}
	a.stop()
	b := w.start("b")
	for n, want := range []string{`"ExecutionArn"`, `"Output":"{\"got\":{\"n\":1}}"`, `"Output":{"got":{"n":1}}`, `FAILED States.TaskFailed {"ExecutionArn"`} {
		if got := b.end(ids[n]); !strings.Contains(got, want) {
			t.Errorf("%s: %s", ids[n], got)
		}
		if got := b.history(ids[n]); n > 0 && strings.Count(got, "TaskSubmitted") != 1 {
			t.Errorf("%s: %s", ids[n], got)
		}
	}
	_, answer := b.request(http.MethodGet, "/state-machines/child/executions", nil)
	if list := answer["executions"].([]any); len(list) != 4 {
		t.Errorf("%d nested executions of 4", len(list))
	}
	a = b
	a.put("lost", `{"StartAt": "S", "States": {"S": {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution", "Parameters": {"StateMachineArn": "none"}, "End": true}}}`)
	if got := a.end(a.begin("lost", "x", `{}`)); !strings.HasPrefix(got, "FAILED StepFunctions.StateMachineDoesNotExistException") {
		t.Error(got)
	}
}

// TestSendMessage: a message is one record, whatever happens; a queue that is not there is an error that can be caught.
func TestSendMessage(t *testing.T) {
	w := newWorld(t)
	q := catalog.Queue{Key: catalog.Key{Namespace: "default", Name: "orders"}, MaxAge: time.Hour, MaxBytes: 16 << 20, DeadLetterMaxAge: time.Hour}
	conn := testkit.Conn(t, w.nats)
	if err := conn.EnsureQueue(t.Context(), q, 1); err != nil {
		t.Fatal(err)
	}
	r := w.start("a")
	r.put("m", `{"StartAt": "S", "States": {"S": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage",
		"Parameters": {"QueueUrl": "https://sqs.us-east-1.amazonaws.com/1/orders", "MessageBody": {"in.$": "$"}}, "OutputPath": "$.MD5OfMessageBody", "Next": "T"},
		"T": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "Parameters": {"QueueUrl": "no-queue", "MessageBody": "x"},
			"Catch": [{"ErrorEquals": ["SQS.QueueDoesNotExistException"], "Next": "P"}], "End": true}, "P": {"Type": "Pass", "Result": "caught", "End": true}}}`)
	if got := r.end(r.begin("m", "x", `{"n": 1}`)); got != `"caught"` {
		t.Error(got)
	}
	d, err := conn.Status(t.Context(), q.Key)
	if err != nil || d.Pending != 1 {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestExpress: in memory, at least once; with Prefer: wait the end is the answer.
func TestExpress(t *testing.T) {
	w := newWorld(t)
	a := w.start("a")
	const definition = `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "f", "Next": "W"}, "W": {"Type": "Wait", "Seconds": 1, "Next": "U"}, "U": {"Type": "Task", "Resource": "g", "End": true}}}`
	if status, answer := a.request(http.MethodPut, "/state-machines/m", map[string]any{"definition": json.RawMessage(definition), "type": "EXPRESS"}); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	if got := a.end(a.begin("m", "x", `{}`)); got != `"done"` {
		t.Error(got)
	}
	if got := a.history("m:x"); strings.Count(got, "LambdaFunctionSucceeded") != 2 {
		t.Error(got)
	}
	sync := func(r *replica, path string) (int, map[string]any) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, r.api.URL+path, strings.NewReader(`{"input": {"n": 1}}`))
		req.Header.Set("Prefer", "respond-async, wait=20")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var answer map[string]any
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, answer
	}
	if status, answer := sync(a, "/state-machines/m/executions"); status != http.StatusOK || answer["status"] != "SUCCEEDED" || answer["output"] != "done" {
		t.Error(status, answer)
	}
	a.put("s", definition)
	if status, answer := sync(a, "/state-machines/s/executions"); status != http.StatusOK || answer["status"] != "SUCCEEDED" || answer["type"] != "STANDARD" {
		t.Error(status, answer)
	}
	// An owner that goes away leaves it to the next, which begins it anew.
	before := w.called("f")
	id := a.begin("m", "y", `{}`)
	testkit.Eventually(t, "it waits", func() bool { return w.called("f") == before+1 })
	a.conn.Close()
	go a.stop()
	b := w.start("a")
	if got := b.end(id); got != `"done"` || w.called("f") != before+2 {
		t.Errorf("%s after %d calls", got, w.called("f")-before)
	}
}

// TestKeep: an execution is gone some time after its end; one that waits is not, nor one that has ended just now. Its name is free
// again.
func TestKeep(t *testing.T) {
	w := newWorld(t)
	r := w.startKeeping("a", 2*time.Second)
	r.put("m", `{"StartAt": "W", "States": {"W": {"Type": "Wait", "SecondsPath": "$.s", "End": true}}}`)
	waits, ends := r.begin("m", "waits", `{"s":3600}`), r.begin("m", "ends", `{"s":0}`)
	if got := r.end(ends); got != `{"s":0}` {
		t.Error(got)
	}
	testkit.Eventually(t, "what has ended is gone", func() bool {
		status, _ := r.request(http.MethodGet, "/executions/"+ends, nil)
		return status == http.StatusNotFound
	})
	if status, answer := r.request(http.MethodGet, "/executions/"+waits, nil); status != http.StatusOK || answer["status"] != "RUNNING" {
		t.Error(status, answer)
	}
	if got := r.end(r.begin("m", "ends", `{"s":1}`)); got != `{"s":1}` {
		t.Error(got)
	}
}

// TestStartsThatMean: a start says what it means; nothing of it is lost without a word.
func TestStartsThatMean(t *testing.T) {
	w := newWorld(t)
	r := w.start("a")
	r.put("m", `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "f", "End": true}}}`)
	if status, answer := r.request(http.MethodPost, "/state-machines/m/executions", map[string]any{"orderId": "1"}); status != http.StatusBadRequest || !strings.Contains(fmt.Sprint(answer["detail"]), `"orderId" is no member here`) {
		t.Errorf("%d %v", status, answer)
	}
	if status, answer := r.request(http.MethodPut, "/state-machines/n", map[string]any{"StartAt": "A"}); status != http.StatusBadRequest || !strings.Contains(fmt.Sprint(answer["detail"]), "definition is missing") {
		t.Errorf("%d %v", status, answer)
	}
	for said, want := range map[string]string{
		`{"error": "Mine"}`:                         "FAILED Mine <nil>",
		`{"error": "Mine", "cause": "so"}`:          "FAILED Mine so",
		`{"error": "failed", "at": 1}`:              `FAILED Lambda.Unknown`,
		`{"errorType": "Mine", "errorMessage": ""}`: `FAILED Mine {"errorType"`,
	} {
		w.answers(func(string, []byte) (int, string) { return http.StatusInternalServerError, said })
		if got := r.end(r.begin("m", "", "{}")); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", said, got, want)
		}
	}
}
