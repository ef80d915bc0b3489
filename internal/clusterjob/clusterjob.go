// Package clusterjob is what the orchestrator asks the controller of Kubernetes Jobs: the orchestrator has no way to the cluster.
//
// Questions are asked by one version and answered by another: no field may change its meaning.
//
// May import: the standard library.
package clusterjob

// What the controller's leader is asked for, at stream.ClusterJobs. Each may be asked again.
const (
	AskRun       = "run"       // of Job. It is answered once the Job is there
	AskDescribe  = "describe"  // of Ref. The answer is State
	AskTerminate = "terminate" // of Ref. It is answered once the Job is not there, and does not come any more
)

// Codes of what is refused, for programs.
const (
	CodeClient     = "ClientException" // as AWS Batch names it: the question is at fault
	CodeGone       = "JobGone"
	CodeTerminated = "JobTerminated"
)

// Ref names a Job.
type Ref struct {
	Namespace string `json:"ns"`
	Name      string `json:"name"`
	Execution string `json:"execution"` // the ARN of whose it is
}

// Job is a Job that is to run.
type Job struct {
	Ref
	State          string            `json:"state"`               // whose task it is
	Definition     string            `json:"definition"`          // the name of a CronJob, whose template it is made of
	Arguments      []string          `json:"arguments,omitempty"` // in the place of the template's; none if there are none
	Environment    []Variable        `json:"environment,omitempty"`
	CPU            string            `json:"cpu,omitempty"` // quantities of Kubernetes
	Memory         string            `json:"memory,omitempty"`
	Parameters     map[string]string `json:"parameters,omitempty"` // of the placeholders Ref::NAME
	Attempts       int32             `json:"attempts,omitempty"`   // zero: as the template has it
	TimeoutSeconds int64             `json:"timeoutSeconds,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
}

// Variable is one of the environment.
type Variable struct{ Name, Value string }

// State is how a Job is.
type State struct {
	Status  Status `json:"status"`
	Reason  string `json:"reason,omitempty"` // of a failure
	Image   string `json:"image,omitempty"`
	Created int64  `json:"created,omitempty"` // these in Unix milliseconds, by the cluster's clocks
	Started int64  `json:"started,omitempty"`
	Stopped int64  `json:"stopped,omitempty"`
}

// Status is AWS Batch's.
type Status string

// Statuses of a Job.
const (
	Running   Status = "RUNNING"
	Succeeded Status = "SUCCEEDED"
	Failed    Status = "FAILED"
)
