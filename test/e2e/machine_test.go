package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// testStateMachines: a job runs the sample's state machine, while its functions are at zero pods: two reports and an order. What it
// did is in the history at the operator's port.
func testStateMachines(t *testing.T) {
	gateway := "http://" + forward(t, weirNamespace, "svc/weir-gateway", 80)
	if m := get[struct {
		Status struct {
			StateMachineArn string `json:"stateMachineArn"`
		} `json:"status"`
	}](t, "-n", sampleNamespace, "statemachines.weir.dev/restock"); m.Status.StateMachineArn != "arn:weir:states::default:stateMachine:restock" {
		t.Errorf("the status says %+v", m.Status)
	}
	status, answer, _ := post(t, gateway+"/restocks", `{"sku":"restocked"}`)
	var job struct {
		ID, Status string
		Result     struct{ Data struct{ Order string } }
		Links      struct{ Self string }
	}
	if err := json.Unmarshal([]byte(answer), &job); status != http.StatusAccepted || err != nil {
		t.Fatalf("POST /restocks: %d %s", status, answer)
	}
	self := gateway + job.Links.Self
	took := eventually(t, "the job's execution has ended", func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, self, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Prefer", "wait=5")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&job); err != nil {
			return err.Error()
		}
		if job.Status != "succeeded" && job.Status != "failed" {
			return job.Status
		}
		return ""
	})
	if job.Status != "succeeded" || job.Result.Data.Order == "" {
		t.Fatalf("the job is %+v", job)
	}
	db := database(t)
	eventually(t, "the order is a row", func() string {
		if count(t, db, `SELECT count(*) FROM orders WHERE id = $1 AND sku = 'restocked'`, job.Result.Data.Order) == 0 {
			return "no row"
		}
		return ""
	})
	t.Logf("POST /restocks: two reports and an order after %s", took)

	admin := "http://" + forward(t, weirNamespace, "svc/weir-orchestrator-admin", 8081)
	res, err := http.Get(admin + "/state-machines/restock/executions?status=SUCCEEDED")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var listed struct{ Executions []struct{ ID string } }
	if err := json.NewDecoder(res.Body).Decode(&listed); err != nil || len(listed.Executions) != 1 || !strings.HasPrefix(listed.Executions[0].ID, "restock:") {
		t.Errorf("the executions: %+v, %v", listed, err)
	}
}

// clusterJobs are a job definition and a state machine that runs it.
const clusterJobs = `
apiVersion: batch/v1
kind: CronJob
metadata: {name: fetch, labels: {weir.dev/job-definition: "true"}}
spec:
  suspend: true
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          terminationGracePeriodSeconds: 1
          automountServiceAccountToken: false
          securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
          containers:
          - name: fetch
            image: %s
            args: [-get, "Ref::url"]
            securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
apiVersion: weir.dev/v1alpha1
kind: StateMachine
metadata: {name: fetch}
spec:
  definition:
    StartAt: Which
    States:
      Which:
        Type: Choice
        Choices: [{Variable: $.url, StringEquals: endless, Next: Endless}]
        Default: Fetch
      Fetch:
        Type: Task
        Resource: arn:aws:states:::batch:submitJob.sync
        Parameters: {JobName: fetch, JobDefinition: fetch, JobQueue: any, Parameters: {url.$: $.url}}
        End: true
      Endless:
        Type: Task
        Resource: arn:aws:states:::batch:submitJob.sync
        Parameters: {JobName: endless, JobDefinition: "fetch:1", ContainerOverrides: {Command: [-url, "http://127.0.0.1:1", -rate, "1", -c, "1"]}}
        End: true
`

// testClusterJobs: a task runs a Kubernetes Job to its end, which is its result or its failure, and a stop ends one.
func testClusterJobs(t *testing.T) {
	apply(t, fmt.Sprintf(clusterJobs, env.image("loader")))
	deleteAfter(t, "cronjob", "fetch")
	deleteAfter(t, "statemachines.weir.dev", "fetch")
	waitReady(t, "statemachines.weir.dev/fetch")
	admin := "http://" + forward(t, weirNamespace, "svc/weir-orchestrator-admin", 8081)
	type execution struct {
		ID, Status, Error, Cause string
		Output                   struct {
			JobID     string
			Container struct{ ExitCode *int }
		}
	}
	start := func(url string) (x execution) {
		t.Helper()
		status, answer, _ := post(t, admin+"/state-machines/fetch/executions", fmt.Sprintf(`{"input": {"url": %q}}`, url))
		if err := json.Unmarshal([]byte(answer), &x); status != http.StatusCreated || err != nil {
			t.Fatalf("a start: %d %s", status, answer)
		}
		return x
	}
	look := func(id string) (x execution) {
		t.Helper()
		res, err := http.Get(admin + "/executions/" + id)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(&x); err != nil {
			t.Fatal(err)
		}
		return x
	}
	// jobOf is the name of the execution's Job; empty if there is none.
	jobOf := func(id string) string {
		t.Helper()
		jobs := get[struct {
			Items []struct {
				Metadata struct {
					Name        string
					Annotations map[string]string
				}
			}
		}](t, "-n", sampleNamespace, "jobs", "-l", "app.kubernetes.io/managed-by=weir")
		for _, j := range jobs.Items {
			if strings.HasSuffix(j.Metadata.Annotations["weir.dev/execution"], ":execution:"+id) {
				return j.Metadata.Name
			}
		}
		return ""
	}

	good := start("http://weir-gateway-admin." + weirNamespace + ".svc.cluster.local:8081/readyz")
	bad := start("http://127.0.0.1:1")
	for _, id := range []string{good.ID, bad.ID} {
		took := eventually(t, id+" has ended", func() string {
			if x := look(id); x.Status == "RUNNING" {
				return x.Status
			}
			return ""
		})
		t.Logf("%s: after %s", id, took)
		deleteAfter(t, "job", jobOf(id))
	}
	if x := look(good.ID); x.Status != "SUCCEEDED" || x.Output.JobID != jobOf(good.ID) || x.Output.Container.ExitCode == nil || *x.Output.Container.ExitCode != 0 {
		t.Errorf("a Job that succeeds: %+v", x)
	}
	if x := look(bad.ID); x.Status != "FAILED" || x.Error != "States.TaskFailed" || !strings.Contains(x.Cause, "BackoffLimitExceeded") {
		t.Errorf("a Job that fails: %+v", x)
	}

	endless := start("endless")
	eventually(t, "the endless Job runs", func() string {
		if jobOf(endless.ID) == "" {
			return "there is none"
		}
		return ""
	})
	if status, answer, _ := post(t, admin+"/executions/"+endless.ID+"/stop", `{}`); status != http.StatusOK {
		t.Fatalf("a stop: %d %s", status, answer)
	}
	eventually(t, "the endless Job is gone", func() string { return jobOf(endless.ID) })
}
