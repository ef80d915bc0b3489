package local

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

const machineFolder = `apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: machines}
spec:
  routes:
  - name: create-report
    match: {method: POST, path: /reports}
    job: {stateMachine: report}
  - name: create-live
    match: {method: POST, path: /live}
    job: {stateMachine: live}
  - name: record
    match: {method: POST, path: /records}
    queue: {name: records}
---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: reports}
spec: {maxBytes: 16Mi, results: {maxBytes: 16Mi}, objects: {maxBytes: 16Mi}}
---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: live}
spec: {maxBytes: 16Mi, results: {maxBytes: 16Mi}, objects: {maxBytes: 16Mi}}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: live}
spec: {queue: live, stateMachine: {name: live}}
---
apiVersion: weir.dev/v1alpha1
kind: StateMachine
metadata: {name: live}
spec:
  definition:
    StartAt: Both
    States:
      Both:
        Type: Parallel
        Branches:
        - {StartAt: Work, States: {Work: {Type: Task, Resource: "%[1]s/work", End: true}}}
        - {StartAt: Listen, States: {Listen: {Type: Task, Resource: "arn:weir:states:::jobs:waitForListener", End: true}}}
        ResultPath: $.both
        Catch: [{ErrorEquals: [Jobs.JobEndedException], Next: Late}]
        Next: Tell
      Late: {Type: Task, Resource: "%[1]s/late", End: true}
      Tell: {Type: Task, Resource: "arn:weir:states:::jobs:sendToListener", Parameters: {Message: it is there, Percent: 99}, ResultPath: null, Next: Done}
      Done: {Type: Pass, OutputPath: "$.both[0]", End: true}
---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: records}
spec: {maxBytes: 16Mi}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: reports}
spec:
  queue: reports
  stateMachine: {name: report}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: records}
spec:
  queue: records
  stateMachine: {name: record}
  batch: {maxRecords: 50, window: 200ms}
---
apiVersion: weir.dev/v1alpha1
kind: StateMachine
metadata: {name: report}
spec:
  definition:
    StartAt: Work
    States:
      Work:
        Type: Task
        Resource: %[1]s/work
        Retry: [{ErrorEquals: [Busy], IntervalSeconds: 1, MaxAttempts: 1}]
        End: true
---
apiVersion: weir.dev/v1alpha1
kind: StateMachine
metadata: {name: record}
spec:
  type: EXPRESS
  definitionString: |
    {"StartAt": "Note", "States": {"Note": {"Type": "Task", "Resource": "%[1]s/note", "End": true}}}
`

// TestMachines: jobs and records start executions of state machines.
func TestMachines(t *testing.T) {
	var notes, works, late atomic.Int64
	functions := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/note":
			notes.Add(1)
			_, _ = w.Write([]byte(`{}`))
		case r.URL.Path == "/late":
			late.Add(1)
		case strings.Contains(string(body), "broken"):
			works.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(`{"error": "NoPaper", "cause": "the tray is empty"}`))
		default:
			_, _ = fmt.Fprintf(w, `{"of": %s}`, body)
		}
	}))
	defer functions.Close()
	dir := t.TempDir()
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "all.yaml"), fmt.Appendf(nil, machineFolder, functions.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	env := filepath.Join(dir, "env")
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{Folder: folder, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Data: filepath.Join(dir, "data"), EnvFile: env, Log: testkit.Log(t)})
	}()
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	var url, admin, nats string
	testkit.Eventually(t, "weir local is ready", func() bool {
		text, err := os.ReadFile(env)
		for line := range strings.Lines(string(text)) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "="); key {
			case "WEIR_URL":
				url = value
			case "WEIR_ADMIN_URL":
				admin = value
			case "WEIR_NATS_URL":
				nats = value
			}
		}
		return err == nil
	})
	do := func(method, url, body string, header ...string) (status int, answer map[string]any) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			t.Fatal(method, url, res.StatusCode, err)
		}
		return res.StatusCode, answer
	}
	// end submits a job and waits for its end.
	end := func(body string) (job map[string]any) {
		t.Helper()
		status, submitted := do("POST", url+"/reports", body, "Content-Type", "application/json")
		if status != http.StatusAccepted {
			t.Fatalf("%d %v", status, submitted)
		}
		self := submitted["links"].(map[string]any)["self"].(string)
		testkit.Eventually(t, "the job has ended", func() bool {
			_, job = do("GET", url+self, "", "Prefer", "wait=10")
			return job["status"] == "succeeded" || job["status"] == "failed"
		})
		return job
	}

	job := end(`{"rows": 3}`)
	text, _ := json.Marshal(job["result"])
	if job["status"] != "succeeded" || !strings.Contains(string(text), `"data":{"of":{"rows":3}}`) {
		t.Errorf("the job's result is %s", text)
	}
	job = end(`{"rows": "broken"}`)
	text, _ = json.Marshal(job["error"])
	if job["status"] != "failed" || !strings.Contains(string(text), "the tray is empty") || works.Load() != 1 {
		t.Errorf("the job is %v after %d calls: %s", job["status"], works.Load(), text)
	}
	_, listed := do("GET", admin+"/state-machines/report/executions", "")
	if executions := listed["executions"].([]any); len(executions) != 2 {
		t.Errorf("there are %d executions of report, want 2: a failed one is not started again", len(executions))
	}

	goesOn := func() (self string) {
		status, submitted := do("POST", url+"/live", `{"rows": 1}`, "Content-Type", "application/json")
		if status != http.StatusAccepted {
			t.Fatal(status, submitted)
		}
		testkit.Eventually(t, "the work is done, and the job goes on", func() bool {
			_, listed := do("GET", admin+"/state-machines/live/executions?status=RUNNING", "")
			executions := listed["executions"].([]any)
			if len(executions) == 0 {
				return false
			}
			_, history := do("GET", admin+"/executions/"+executions[0].(map[string]any)["id"].(string)+"/history", "")
			text, _ := json.Marshal(history)
			return strings.Contains(string(text), `"LambdaFunctionSucceeded"`) || strings.Contains(string(text), `"TaskSucceeded"`)
		})
		return submitted["links"].(map[string]any)["self"].(string)
	}
	if status, answer := do("DELETE", url+goesOn(), ""); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	testkit.Eventually(t, "a cancelled job's execution is stopped", func() bool {
		_, listed := do("GET", admin+"/state-machines/live/executions?status=ABORTED", "")
		return len(listed["executions"].([]any)) == 1
	})
	if late.Load() != 0 {
		t.Error("a task began after its job was cancelled")
	}
	self := goesOn()
	events, err := http.Get(url + self + "/events")
	if err != nil {
		t.Fatal(err)
	}
	heard, err := io.ReadAll(events.Body)
	_ = events.Body.Close()
	if err != nil || !strings.Contains(string(heard), `"it is there"`) || !strings.Contains(string(heard), `"succeeded"`) {
		t.Errorf("the listener heard %s, %v", heard, err)
	}

	for n := range 100 {
		if status, answer := do("POST", url+"/records", fmt.Sprintf(`{"n": %d}`, n), "Content-Type", "application/json"); status != http.StatusAccepted {
			t.Fatal(status, answer)
		}
	}
	testkit.Eventually(t, "each record has had its execution", func() bool { return notes.Load() == 100 })
	testkit.Eventually(t, "each execution is listed", func() bool {
		_, listed := do("GET", admin+"/state-machines/record/executions?status=SUCCEEDED", "")
		return len(listed["executions"].([]any)) == 100
	})

	conn, err := stream.Connect(stream.Config{URL: nats, Name: "test", Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	testkit.Eventually(t, "no record of a job waits for what has ended", func() bool {
		reports, err := conn.Depth(ctx, catalog.Key{Namespace: "default", Name: "reports"})
		live, err2 := conn.Depth(ctx, catalog.Key{Namespace: "default", Name: "live"})
		return err == nil && err2 == nil && reports.Retrying == 0 && live.Retrying == 0 && reports.Dead.Total() == 1 && live.Dead.Total() == 0
	})
	if status, answer := do("PUT", admin+"/tables/t", `{"key": "id"}`); status != http.StatusOK {
		t.Errorf("a table can't be made: %d %v", status, answer)
	}

	if status, answer := do("PUT", admin+"/state-machines/report", `{"definition": {"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}}`); status != http.StatusConflict {
		t.Errorf("a resource was changed by the API: %d %v", status, answer)
	}
	if status, answer := do("GET", admin+"/state-machines/record", ""); status != http.StatusOK || answer["type"] != "EXPRESS" {
		t.Errorf("%d %v", status, answer)
	}
}
