package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	appgateway "github.com/weir-dev/weir/internal/app/gateway"
	apporchestrator "github.com/weir-dev/weir/internal/app/orchestrator"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestTasksAtTheGateway: workers take tasks at the public port, and report on them there, over TLS as the gateway's own
// user with its rights and no others. What was never given, is over, or too large is refused.
func TestTasksAtTheGateway(t *testing.T) {
	s := newSecureNATS(t)
	control, _ := s.connect("controller")
	q, cat := shop("http://127.0.0.1:1")
	for _, err := range []error{
		control.EnsureLeases(t.Context(), 1), control.EnsureKeys(t.Context(), 1, time.Now()), control.EnsureQueue(t.Context(), q, 1),
		control.EnsureMachines(t.Context(), 1, 128<<20), control.PublishCatalog(t.Context(), cat, 1, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	admin, front, probes := freePort(t), freePort(t), freePort(t)
	ocfg, olog := s.config("orchestrator", "WEIR_HEALTH_LISTEN", admin, "WEIR_DRAIN_TIMEOUT", "2s", "WEIR_PATH_PREFIX", "/shop")
	gcfg, glog := s.config("gateway", "WEIR_LISTEN", front, "WEIR_HEALTH_LISTEN", probes, "WEIR_DRAIN_TIMEOUT", "20s", "WEIR_PATH_PREFIX", "/shop")
	stopOrchestrator := runs(t, apporchestrator.Run, ocfg, s.dial(ocfg))
	stopGateway := runs(t, appgateway.Run, gcfg, s.dial(gcfg))
	for _, address := range []string{admin, probes} {
		testkit.Eventually(t, "it is ready", func() bool { status, _ := get(t, "http://"+address+"/readyz"); return status == 200 })
	}
	until := func(address, method, path, body string, header ...string) (a jobReply) {
		j := &jobs{t: t, url: "http://" + address}
		testkit.Eventually(t, path+" is answered", func() bool {
			a = j.do(method, strings.TrimPrefix(path, "/shop"), body, header...)
			return a.status != http.StatusServiceUnavailable
		})
		return a
	}
	operator := func(want int, method, path, body string) string {
		t.Helper()
		a := until(admin, method, path, body)
		if a.status != want {
			t.Fatalf("%s: %+v", path, a)
		}
		return a.body
	}
	operator(200, "PUT", "/state-machines/m", `{"definition": {"StartAt": "A", "States": {
		"A": {"Type": "Task", "Resource": "arn:aws:states:us-east-1:1:activity:work", "HeartbeatSeconds": 60, "End": true}}}}`)
	var activity struct{ Name, ActivityARN, URL string }
	if err := json.Unmarshal([]byte(operator(200, "PUT", "/activities/work", "")), &activity); err != nil || !strings.HasPrefix(activity.URL, "/shop/weir/activities/") {
		t.Fatalf("%+v, %v", activity, err)
	}
	worker := func(header ...string) jobReply {
		return until(front, "POST", activity.URL, `{"workerName": "w"}`, header...)
	}
	if a := worker("Prefer", "wait=0"); a.status != 204 || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%+v", a)
	}
	came := make(chan jobReply, 1)
	go func() { came <- worker() }()
	operator(201, "POST", "/state-machines/m/executions", `{"name": "x", "input": {"n": 1}}`)
	got := <-came
	var task struct {
		TaskToken string
		Input     struct{ N int }
		Links     struct{ Success, Failure, Heartbeat string }
	}
	if err := json.Unmarshal([]byte(got.body), &task); err != nil || got.status != 200 || task.Input.N != 1 || task.Links.Success != "/shop/weir/tasks/"+task.TaskToken+"/success" {
		t.Fatalf("%+v, %v", got, err)
	}
	forged := func(text string) string { // another signature
		last := byte('A')
		if text[len(text)-20] == last {
			last = 'B'
		}
		return text[:len(text)-20] + string(last) + text[len(text)-19:]
	}
	address, _, _ := strings.Cut(strings.TrimPrefix(activity.URL, "/shop/weir/activities/"), "/")
	refused := func(path, body, want string) {
		t.Helper()
		a := until(front, "POST", path, body)
		if got := strings.TrimPrefix(a.doc.Type, "https://weir.dev/problems/"); got != want {
			t.Errorf("%s: %d %s; want %s", path, a.status, a.body, want)
		}
	}
	for _, c := range []struct{ path, body, want string }{
		{"/weir/tasks/AAAA/success", "", "no-task"},
		{"/weir/tasks/" + forged(task.TaskToken) + "/success", "", "no-task"},
		{"/weir/tasks/" + address + "/success", "", "no-task"},
		{"/weir/activities/" + task.TaskToken + "/tasks", "", "no-activity"},
		{"/weir/activities/" + forged(address) + "/tasks", "", "no-activity"},
		{"/weir/activities/work/tasks", "", "no-activity"},
		{task.Links.Success, `{"output": "` + strings.Repeat("x", 300<<10) + `"}`, "body-too-large"},
		{task.Links.Success, `{"output": "` + strings.Repeat("x", 400<<10) + `"}`, "body-too-large"},
		{task.Links.Success, `{"output"`, "bad-request"},
		{task.Links.Failure, `{"error": 1}`, "bad-request"},
		{activity.URL, `{"workerName": 1}`, "bad-request"},
		{"/weir/tasks/" + task.TaskToken, "", "no-route"},
	} {
		refused(c.path, c.body, c.want)
	}
	for _, path := range []string{task.Links.Heartbeat, task.Links.Success} {
		if a := until(front, "POST", path, `{"output": 1}`); a.status != 200 {
			t.Errorf("%s: %+v", path, a)
		}
	}
	for _, path := range []string{task.Links.Heartbeat, task.Links.Success, task.Links.Failure} {
		refused(path, "", "task-over")
	}
	if a := operator(200, "GET", "/executions/m:x", ""); !strings.Contains(a, `"status":"SUCCEEDED"`) || !strings.Contains(a, `"output":1`) {
		t.Error(a)
	}
	stopOrchestrator()
	for _, path := range []string{task.Links.Heartbeat, activity.URL} {
		a := (&jobs{t: t, url: "http://" + front}).do("POST", strings.TrimPrefix(path, "/shop"), "", "Prefer", "wait=0")
		if a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("without an owner: %+v", a)
		}
	}
	stopGateway()
	for _, log := range []*logged{olog, glog} {
		if log.says("permissions violation") {
			t.Errorf("something is not permitted that is tried: %s", log)
		}
	}
}
