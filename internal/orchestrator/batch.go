package orchestrator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/clusterjob"
	"github.com/weir-dev/weir/internal/integration"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
)

// arn:aws:states:::batch:submitJob runs a Kubernetes Job (API reference of AWS Batch, "SubmitJob"). The controller makes it, and is
// asked how it is: nothing is kept of that but the call itself, so owners, controllers and NATS may end and begin meanwhile. The Job's
// name is made of the call's id: a call that is made again finds it there.

const (
	errBatch = "Batch.ClientException"
	// Waits before it is asked again how a Job is.
	firstJobLook = time.Second
	maxJobLook   = 5 * time.Second
	maxAttempts  = 10 // AWS's
	// maxShownBytes is of what a result repeats of its task's input.
	maxShownBytes = 4 << 10
	noBatch       = "Kubernetes Jobs are not enabled here: the chart has the value batch.enabled for it; weir local runs none"
	jobNameChars  = "abcdefghijklmnopqrstuvwxyz0123456789-."
)

// submission is what a task gives: AWS's fields, as far as they are served.
type submission struct {
	JobName, JobDefinition, JobQueue string

	ContainerOverrides struct {
		Command              []string
		Environment          []clusterjob.Variable
		ResourceRequirements []struct{ Type, Value string }
	}
	Parameters    map[string]any
	RetryStrategy struct{ Attempts *int32 }
	Timeout       struct{ AttemptDurationSeconds *int64 }
	Tags          map[string]string
}

// submissionOf reads a task's input. The error names the field.
func submissionOf(e statelang.Effect) (s submission, err error) {
	text, err := jsontree.Append(nil, e.Input)
	if err != nil {
		return s, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	d.UseNumber() // of Parameters: as they are written
	err = d.Decode(&s)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return s, fmt.Errorf("%s can't be a JSON %s", wrong.Field, wrong.Value)
	}
	if name, unknown := strings.CutPrefix(fmt.Sprint(err), "json: unknown field "); unknown {
		return s, fmt.Errorf("the field %s is not served here: docs/state-machines.md lists those that are", name)
	}
	return s, err
}

// job is the question for it.
func (s submission) job() (j clusterjob.Job, err error) {
	j.Definition = integration.NameAfter(":job-definition/", s.JobDefinition)
	switch {
	case s.JobName == "":
		return j, errors.New("JobName is missing")
	case len(s.JobName)+len(s.JobDefinition)+len(s.JobQueue) > maxShownBytes:
		return j, fmt.Errorf("JobName, JobDefinition and JobQueue have more than %d bytes together", maxShownBytes)
	case j.Definition == "" || strings.Trim(j.Definition, jobNameChars) != "":
		return j, fmt.Errorf("JobDefinition is %q: it must be the name of a CronJob, which has lower-case letters, digits and -, or an ARN that ends with it", s.JobDefinition)
	}
	j.Arguments, j.Environment, j.Labels = s.ContainerOverrides.Command, s.ContainerOverrides.Environment, s.Tags
	for _, r := range s.ContainerOverrides.ResourceRequirements {
		switch r.Type {
		case "VCPU":
			j.CPU = r.Value
		case "MEMORY":
			j.Memory = r.Value + "Mi"
		default:
			return j, fmt.Errorf("ContainerOverrides.ResourceRequirements has the Type %q: VCPU and MEMORY are served here", r.Type)
		}
	}
	for name, v := range s.Parameters {
		switch v.(type) {
		case string, json.Number, bool:
		default:
			return j, fmt.Errorf("the value of Parameters.%s must be a text, a number or a boolean", name)
		}
		if j.Parameters == nil {
			j.Parameters = map[string]string{}
		}
		j.Parameters[name] = fmt.Sprint(v)
	}
	if n := s.RetryStrategy.Attempts; n != nil {
		if *n < 1 || *n > maxAttempts {
			return j, fmt.Errorf("RetryStrategy.Attempts is %d: it must be 1 to %d", *n, maxAttempts)
		}
		j.Attempts = *n
	}
	if n := s.Timeout.AttemptDurationSeconds; n != nil {
		if *n < 1 {
			return j, fmt.Errorf("Timeout.AttemptDurationSeconds is %d: it must be 1 at least", *n)
		}
		j.TimeoutSeconds = *n
	}
	return j, nil
}

func jobRef(ctx context.Context, id ID, e statelang.Effect) clusterjob.Ref {
	return clusterjob.Ref{Namespace: id.Machine.Namespace, Name: "weir-" + callID(ctx, id, e.Call).String(), Execution: id.ARN()}
}

func jobARN(ref clusterjob.Ref) string {
	return "arn:" + taskapi.ARNPartition + ":batch::" + ref.Namespace + ":job/" + ref.Name
}

// submitJob is arn:aws:states:::batch:submitJob.
func (o *Orchestrator) submitJob(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	if !o.cfg.Batch {
		return failed(errBatch, noBatch)
	}
	s, err := submissionOf(e)
	var job clusterjob.Job
	if err == nil {
		job, err = s.job()
	}
	if err != nil {
		return failed(errBatch, "batch:submitJob: "+err.Error())
	}
	job.Ref, job.State = jobRef(ctx, id, e), e.State
	_, err = o.askCluster(ctx, clusterjob.AskRun, job)
	if refused, ok := errors.AsType[*stream.RefusedError](err); ok {
		return failed(errBatch, refused.Message)
	}
	if err != nil {
		return statelang.Event{}
	}
	return statelang.Event{Kind: statelang.Succeeded, Output: jsontree.Of("JobArn", jobARN(job.Ref), "JobId", job.Name, "JobName", s.JobName)}
}

// awaitJob returns how the Job ended, as Step Functions does: what DescribeJobs of AWS Batch says of it.
func (o *Orchestrator) awaitJob(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	if !o.cfg.Batch {
		return failed(errBatch, noBatch)
	}
	s, err := submissionOf(e)
	if err != nil {
		return failed(errBatch, err.Error()) // never: it was submitted
	}
	ref := jobRef(ctx, id, e)
	for range tries(ctx, firstJobLook, maxJobLook) {
		body, err := o.askCluster(ctx, clusterjob.AskDescribe, ref)
		if ctx.Err() != nil {
			break
		}
		state := clusterjob.State{Status: clusterjob.Failed}
		refused, isRefused := errors.AsType[*stream.RefusedError](err)
		if isRefused && refused.Code != clusterjob.CodeGone { // not of the Job: rights or namespaces of the controller, which come back
			o.again(ctx, refused.Message)
			continue
		}
		if isRefused {
			state.Reason = refused.Message
		} else if err := json.Unmarshal(body, &state); err != nil {
			return failed(statelang.ErrRuntime, "the state of the Job can't be read: "+err.Error())
		}
		shown := s.shown(ref, state)
		switch state.Status {
		case clusterjob.Succeeded:
			return statelang.Event{Kind: statelang.Succeeded, Output: shown}
		case clusterjob.Failed:
			cause, _ := jsontree.Append(nil, shown) // JSON values
			return failed(statelang.ErrTaskFailed, string(cause))
		}
	}
	return statelang.Event{}
}

// shown is a Job as AWS describes it. The controller doesn't see pods: all attempts are one, and the code with which a container
// failed is in no field but, with a podFailurePolicy, in the reason.
func (s submission) shown(ref clusterjob.Ref, state clusterjob.State) *jsontree.Object {
	container := jsontree.Of("Image", state.Image)
	if state.Status == clusterjob.Succeeded {
		container.Set("ExitCode", json.Number("0"))
	}
	if state.Reason != "" {
		container.Set("Reason", state.Reason)
	}
	times := func(o *jsontree.Object) *jsontree.Object {
		setTime(o, "StartedAt", state.Started)
		setTime(o, "StoppedAt", state.Stopped)
		return o
	}
	attempts := []any{}
	if state.Started != 0 {
		attempts = append(attempts, times(jsontree.Of("Container", container, "StatusReason", state.Reason)))
	}
	shown := jsontree.Of(
		"Attempts", attempts, "Container", container, "JobArn", jobARN(ref), "JobDefinition", s.JobDefinition, "JobId", ref.Name, "JobName", s.JobName,
		"JobQueue", s.JobQueue, "Status", string(state.Status), "StatusReason", state.Reason,
	)
	setTime(shown, "CreatedAt", state.Created)
	return times(shown)
}

// setTime sets a time that is known.
func setTime(o *jsontree.Object, name string, milliseconds int64) {
	if milliseconds != 0 {
		o.Set(name, json.Number(fmt.Sprint(milliseconds)))
	}
}

// terminateJob ends a Job that nobody waits for any more.
func (o *Orchestrator) terminateJob(ctx context.Context, id ID, e statelang.Effect) {
	if !o.cfg.Batch {
		return
	}
	ref := jobRef(ctx, id, e)
	if _, err := o.askCluster(ctx, clusterjob.AskTerminate, ref); err != nil {
		o.cfg.Log.WarnContext(ctx, "a Kubernetes Job could not be ended; it goes on", "job", ref.Namespace+"/"+ref.Name, "execution", id.String(), "error", err)
	}
}

// askCluster asks the controller until it answers, or ctx ends.
func (o *Orchestrator) askCluster(ctx context.Context, what string, question any) ([]byte, error) {
	body, err := marshal(question)
	if err != nil {
		return nil, &stream.RefusedError{Code: clusterjob.CodeClient, Message: err.Error()}
	}
	ctx = afresh(ctx)
	for range tries(ctx, firstBackoff, maxBackoff) {
		answer, err := o.cfg.Conn.Ask(ctx, stream.ClusterJobs(), what, body)
		if errors.Is(err, stream.ErrTooLargeForServer) {
			return nil, &stream.RefusedError{Code: clusterjob.CodeClient, Message: "it is larger than NATS takes"}
		}
		if _, refused := errors.AsType[*stream.RefusedError](err); err == nil || refused {
			return answer, err
		}
		o.again(ctx, err.Error())
	}
	return nil, context.Cause(ctx)
}
