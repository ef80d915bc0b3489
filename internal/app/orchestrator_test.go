package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apporchestrator "github.com/weir-dev/weir/internal/app/orchestrator"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestTheOrchestratorNeedsNoMoreRights: executions of every kind, over TLS as the orchestrator's own user with its rights and no
// others.
func TestTheOrchestratorNeedsNoMoreRights(t *testing.T) {
	s := newSecureNATS(t)
	tokens := make(chan string, 1)
	fn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Token string }
		body, _ := io.ReadAll(r.Body)
		if json.Unmarshal(body, &in) == nil && in.Token != "" {
			tokens <- in.Token
		}
		_, _ = io.WriteString(w, `"done"`)
	}))
	defer fn.Close()
	control, _ := s.connect("controller")
	q, _ := shop(fn.URL)
	for _, err := range []error{
		control.EnsureLeases(t.Context(), 1), control.EnsureKeys(t.Context(), 1, time.Now()), control.EnsureQueue(t.Context(), q, 1),
		control.EnsureMachines(t.Context(), 1, 128<<20),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := control.PublishCatalog(t.Context(), &catalog.Catalog{}, 1, nil); err != nil {
		t.Fatal(err)
	}
	admin := freePort(t)
	cfg, log := s.config("orchestrator", "WEIR_HEALTH_LISTEN", admin, "WEIR_DRAIN_TIMEOUT", "2s")
	conn := s.dial(cfg)
	stop := runs(t, apporchestrator.Run, cfg, conn)
	testkit.Eventually(t, "it is ready", func() bool { status, _ := get(t, "http://"+admin+"/readyz"); return status == 200 })
	j := &jobs{t: t, url: "http://" + admin}
	ask := func(method, path, body string, header ...string) jobReply {
		var a jobReply
		testkit.Eventually(t, path+" is answered", func() bool {
			a = j.do(method, path, body, header...)
			return a.status != http.StatusServiceUnavailable
		})
		return a
	}
	put := func(name, definition string) {
		if a := ask("PUT", "/state-machines/"+name, `{"definition": `+definition+`}`); a.status != 200 {
			t.Fatalf("%s: %+v", name, a)
		}
	}
	put("all", `{"StartAt": "T", "States": {
		"T": {"Type": "Task", "Resource": "`+fn.URL+`", "Next": "W"}, "W": {"Type": "Wait", "Seconds": 1, "Next": "Q"},
		"Q": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "Parameters": {"QueueUrl": "orders", "MessageBody": "x"}, "End": true}}}`)
	put("outer", `{"StartAt": "S", "States": {"S": {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync:2", "Parameters": {"StateMachineArn": "all"}, "OutputPath": "$.Status", "End": true}}}`)
	put("token", `{"StartAt": "S", "States": {"S": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "Parameters": {"QueueUrl": "orders", "MessageBody": "x"}, "Next": "T"},
		"T": {"Type": "Task", "Resource": "`+fn.URL+`", "Parameters": {"Token.$": "$$.Task.Token"}, "End": true}}}`)
	if a := ask("POST", "/state-machines/outer/executions", `{"name": "x"}`, "Prefer", "wait=20"); a.status != 200 || !strings.Contains(a.body, `"output":"SUCCEEDED"`) {
		t.Errorf("%+v", a)
	}
	if a := ask("POST", "/state-machines/token/executions", `{"name": "x"}`); a.status != 201 {
		t.Errorf("%+v", a)
	}
	if a := ask("POST", "/executions/token:x/stop", `{}`); a.status != 200 {
		t.Errorf("%+v", a)
	}
	if a := ask("GET", "/state-machines", ""); a.status != 200 || strings.Count(a.body, `"type":"STANDARD"`) != 3 || !strings.Contains(a.body, `{"name":"default/all"`) && !strings.Contains(a.body, `{"name":"all"`) {
		t.Errorf("%+v", a)
	}
	if a := ask("GET", "/state-machines/none", ""); a.status != 404 || !strings.Contains(a.body, "/not-found") {
		t.Errorf("%+v", a)
	}
	if a := ask("GET", "/state-machines/all/executions", ""); a.status != 200 || !strings.Contains(a.body, `"SUCCEEDED"`) {
		t.Errorf("%+v", a)
	}
	stop()
	if lease, err := control.TryLease(t.Context(), "machines.queue.sm-.0", "next"); err != nil {
		t.Errorf("it has not given its leases up: %v", err)
	} else {
		lease.Release()
	}
	if log.says("permissions violation") {
		t.Errorf("something is not permitted that is tried: %s", log)
	}
	for what, f := range map[string]func(context.Context) error{
		"it makes a queue":         func(ctx context.Context) error { return conn.EnsureQueue(ctx, q, 1) },
		"it makes its own streams": func(ctx context.Context) error { return conn.EnsureMachines(ctx, 1, 8<<20) },
		"it reads a queue":         func(ctx context.Context) error { _, err := conn.OpenReader(ctx, orders); return err },
		"it takes a queue's lease": func(ctx context.Context) error { _, err := conn.TryLease(ctx, "queue.default.orders", "x"); return err },
		"it writes jobs' states":   func(ctx context.Context) error { _, err := conn.AppendLedger(ctx, orders, []byte("x"), 0); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := f(ctx); err == nil {
			t.Errorf("%s", what)
		}
		cancel()
	}
}
