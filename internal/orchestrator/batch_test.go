package orchestrator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/clusterjob"
	"github.com/weir-dev/weir/internal/orchestrator"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// cluster is a controller with its cluster: Jobs run until the test ends them.
type cluster struct {
	t    testing.TB
	conn *stream.Conn

	mu     sync.Mutex
	asked  []string // "run NAME" and so on, without descriptions in a row
	jobs   map[string]clusterjob.Job
	states map[string]clusterjob.State
	stop   func()
}

func (w *world) cluster() *cluster {
	c := &cluster{t: w.t, conn: testkit.Conn(w.t, w.nats), jobs: map[string]clusterjob.Job{}, states: map[string]clusterjob.State{}}
	c.serve()
	return c
}

func (c *cluster) serve() {
	c.t.Helper()
	stop, err := c.conn.ServeAsks(stream.ClusterJobs(), c.answer)
	if err != nil {
		c.t.Fatal(err)
	}
	c.stop = sync.OnceFunc(stop)
	c.t.Cleanup(c.stop)
}

func (c *cluster) answer(_ context.Context, what string, body []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var q clusterjob.Job
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, err
	}
	if line := what + " " + q.Name; len(c.asked) == 0 || c.asked[len(c.asked)-1] != line {
		c.asked = append(c.asked, line)
	}
	switch what {
	case clusterjob.AskRun:
		if q.Definition == "none" {
			return nil, &stream.RefusedError{Code: clusterjob.CodeClient, Message: "there is no job definition none"}
		}
		c.jobs[q.Name] = q
		c.states[q.Name] = clusterjob.State{Status: clusterjob.Running, Image: "resize:1", Created: 1, Started: 2}
	case clusterjob.AskDescribe:
		s, ok := c.states[q.Name]
		if !ok {
			return nil, &stream.RefusedError{Code: clusterjob.CodeGone, Message: "the Job is not there any more"}
		}
		return json.Marshal(s)
	case clusterjob.AskTerminate:
		delete(c.states, q.Name)
	}
	return nil, nil
}

// named waits until a question has come for the first time or again, and returns the Job's name.
func (c *cluster) named(what string) (name string) {
	c.t.Helper()
	testkit.Eventually(c.t, what+" is asked", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, line := range c.asked {
			if rest, ok := strings.CutPrefix(line, what+" "); ok {
				name = rest
			}
		}
		return name != ""
	})
	return name
}

func (c *cluster) count(what string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, line := range c.asked {
		if strings.HasPrefix(line, what+" ") {
			n++
		}
	}
	return n
}

// ends has a Job be as it is at its end; one that has no status is gone.
func (c *cluster) ends(name string, s clusterjob.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Status == "" {
		delete(c.states, name)
		return
	}
	s.Image, s.Created, s.Started, s.Stopped = "resize:1", 1, 2, 3
	c.states[name] = s
}

func withBatch(cfg *orchestrator.Config) { cfg.Batch, cfg.DrainTimeout = true, time.Minute }

const (
	submitJob     = "arn:aws:states:::batch:submitJob"
	submitJobSync = submitJob + ".sync"
	resize        = `{"JobName": "r", "JobDefinition": "resize", "JobQueue": "q"}`
)

func TestBatchJob(t *testing.T) {
	w := newWorld(t)
	c := w.cluster()
	r := w.startAs("a", withBatch)
	r.put("resize", task(submitJobSync, `{"JobName": "r", "JobDefinition": "arn:aws:batch:us-east-1:1:job-definition/resize:3", "JobQueue": "q", "Parameters": {"size": 64, "fast": true},
		"ContainerOverrides": {"Command": ["a", "b"], "Environment": [{"Name": "N", "Value": "v"}], "ResourceRequirements": [{"Type": "VCPU", "Value": "0.5"}, {"Type": "MEMORY", "Value": "64"}]},
		"RetryStrategy": {"Attempts": 2}, "Timeout": {"AttemptDurationSeconds": 60}, "Tags": {"team": "a"}}`))
	for n, row := range []struct {
		end  clusterjob.State
		want string
	}{
		{
			clusterjob.State{Status: clusterjob.Succeeded},
			`{"Attempts":[{"Container":{"ExitCode":0,"Image":"resize:1"},"StartedAt":2,"StatusReason":"","StoppedAt":3}],` +
				`"Container":{"ExitCode":0,"Image":"resize:1"},"CreatedAt":1,"JobArn":"arn:weir:batch::default:job/NAME",` +
				`"JobDefinition":"arn:aws:batch:us-east-1:1:job-definition/resize:3","JobId":"NAME","JobName":"r","JobQueue":"q","StartedAt":2,"Status":"SUCCEEDED","StatusReason":"","StoppedAt":3}`,
		},
		{
			clusterjob.State{Status: clusterjob.Failed, Reason: "BackoffLimitExceeded: it failed"},
			`FAILED States.TaskFailed {"Attempts":[{"Container":{"Image":"resize:1","Reason":"BackoffLimitExceeded: it failed"}`,
		},
		{clusterjob.State{}, `"Status":"FAILED","StatusReason":"the Job is not there any more"`},
	} {
		before := c.count(clusterjob.AskRun)
		id := r.begin("resize", fmt.Sprint(n), "{}")
		testkit.Eventually(t, "the Job runs", func() bool { return c.count(clusterjob.AskRun) > before })
		name := c.named(clusterjob.AskRun)
		if n == 0 {
			c.mu.Lock()
			got := c.jobs[name]
			c.mu.Unlock()
			text, _ := json.Marshal(got)
			if want := `{"ns":"default","name":"` + name + `","execution":"arn:weir:states::default:execution:resize:0","state":"T","definition":"resize","arguments":["a","b"],` +
				`"environment":[{"Name":"N","Value":"v"}],"cpu":"0.5","memory":"64Mi","parameters":{"fast":"true","size":"64"},"attempts":2,"timeoutSeconds":60,"labels":{"team":"a"}}`; string(text) != want {
				t.Errorf("it is asked for\n%s, want\n%s", text, want)
			}
			if len(name) > 63 || !strings.HasPrefix(name, "weir-") {
				t.Error("its name is", name)
			}
		}
		c.ends(name, row.end)
		if got := r.end(id); !strings.Contains(got, strings.ReplaceAll(row.want, "NAME", name)) {
			t.Errorf("%s, want %s", got, row.want)
		}
	}
	if n := c.count(clusterjob.AskTerminate); n != 0 {
		t.Errorf("Jobs that have ended were terminated %d times", n)
	}

	// Without .sync nobody waits, and nothing ends it.
	if got := r.run("submit", task(submitJob, resize), "{}"); !strings.HasPrefix(got, `{"JobArn":"arn:weir:batch::default:job/weir-`) || !strings.HasSuffix(got, `","JobName":"r"}`) {
		t.Error(got)
	}
	for name, row := range map[string][2]string{
		"none":  {`{"JobName": "r", "JobDefinition": "none"}`, "there is no job definition none"},
		"field": {`{"JobName": "r", "JobDefinition": "resize", "ArrayProperties": {"Size": 2}}`, `the field "ArrayProperties" is not served here`},
		"deep":  {`{"JobName": "r", "JobDefinition": "resize", "ContainerOverrides": {"InstanceType": "m5"}}`, `the field "InstanceType" is not served here`},
		"kind":  {`{"JobName": "r", "JobDefinition": "resize", "RetryStrategy": {"Attempts": "2"}}`, "RetryStrategy.Attempts can't be a JSON string"},
		"many":  {`{"JobName": "r", "JobDefinition": "resize", "RetryStrategy": {"Attempts": 11}}`, "RetryStrategy.Attempts is 11"},
		"gpu":   {`{"JobName": "r", "JobDefinition": "resize", "ContainerOverrides": {"ResourceRequirements": [{"Type": "GPU", "Value": "1"}]}}`, `has the Type "GPU"`},
		"list":  {`{"JobName": "r", "JobDefinition": "resize", "Parameters": {"a": [1]}}`, "Parameters.a must be a text"},
		"upper": {`{"JobName": "r", "JobDefinition": "ReSize"}`, `JobDefinition is "ReSize"`},
		"name":  {`{"JobDefinition": "resize"}`, "JobName is missing"},
	} {
		if got := r.run("bad-"+name, task(submitJobSync, row[0]), "{}"); !strings.HasPrefix(got, "FAILED Batch.ClientException ") || !strings.Contains(got, row[1]) {
			t.Errorf("%s: %s, want %s", name, got, row[1])
		}
	}
}

// TestBatchJobOutlivesOwners: the next owner awaits the same Job, which is not ended. The one before doesn't wait for it, although it
// could for a minute. The controller may be away.
func TestBatchJobOutlivesOwners(t *testing.T) {
	w := newWorld(t)
	c := w.cluster()
	c.stop()
	r := w.startAs("a", withBatch)
	r.put("resize", task(submitJobSync, resize))
	id := r.begin("resize", "one", "{}")
	c.serve()
	name := c.named(clusterjob.AskDescribe)
	began := time.Now()
	r.stop()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the owner stopped after %s", took)
	}
	c.stop()
	c.serve()
	r = w.startAs("b", withBatch)
	c.ends(name, clusterjob.State{Status: clusterjob.Succeeded})
	if got := r.end(id); !strings.Contains(got, `"JobId":"`+name+`"`) {
		t.Error(got)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.asked, []string{"run " + name, "describe " + name}) {
		t.Error("asked was", c.asked)
	}
}

// TestBatchJobIsTerminated: because its execution was stopped, its task timed out, another branch failed.
func TestBatchJobIsTerminated(t *testing.T) {
	w := newWorld(t)
	c := w.cluster()
	r := w.startAs("a", withBatch)
	job := task(submitJobSync, resize)
	r.put("stopped", job)
	r.put("timed", strings.Replace(job, `"Type"`, `"TimeoutSeconds": 1, "Type"`, 1))
	r.put("parallel", `{"StartAt": "P", "States": {"P": {"Type": "Parallel", "End": true, "Branches": [`+job+`,
		{"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "Next": "F"}, "F": {"Type": "Fail", "Error": "E"}}}]}}}`)
	for n, machine := range []string{"stopped", "timed", "parallel"} {
		id := r.begin(machine, "", "{}")
		testkit.Eventually(t, "the Job runs", func() bool { return c.count(clusterjob.AskRun) == n+1 })
		name := c.named(clusterjob.AskRun)
		if machine == "stopped" {
			if status, answer := r.request(http.MethodPost, "/executions/"+id+"/stop", map[string]any{}); status != http.StatusOK {
				t.Fatal(status, answer)
			}
		}
		r.end(id)
		testkit.Eventually(t, "the Job of "+machine+" is terminated", func() bool { return c.count(clusterjob.AskTerminate) == n+1 })
		if got := c.named(clusterjob.AskTerminate); got != name {
			t.Errorf("%s: %s was terminated, not %s", machine, got, name)
		}
	}
}

func TestBatchJobsAreNotEnabled(t *testing.T) {
	w := newWorld(t)
	c := w.cluster()
	r := w.start("a")
	if got := r.run("resize", task(submitJobSync, resize), "{}"); !strings.HasPrefix(got, "FAILED Batch.ClientException Kubernetes Jobs are not enabled here") {
		t.Error(got)
	}
	if len(c.asked) != 0 {
		t.Error("asked was", c.asked)
	}
}
