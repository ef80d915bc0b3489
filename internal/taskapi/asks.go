package taskapi

import (
	"context"
	"encoding/json"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
)

// Codes of what is refused, for programs.
const (
	CodeNoExecution = "ExecutionDoesNotExist"
	CodeInvalid     = "ValidationException"
	CodeToken       = "InvalidToken"
	CodeActivity    = "ActivityDoesNotExist"
	CodeOver        = "TaskTimedOut"
	CodeTooLarge    = "TooLarge"
	CodeFull        = "NoRoom"
	CodeBusy        = "TooManyExecutions"
)

// What the owner of a partition is asked for.
const (
	AskReport = "report" // of Question: the task, Kind, and Output or Failure
	AskTake   = "take"   // of Question: the activity as Namespace and Machine, and Worker. The answer is Taken
)

// Question is what the owner of a partition is asked. Each uses some of the fields.
type Question struct {
	Namespace string           `json:"ns"`
	Machine   string           `json:"machine"`
	Name      string           `json:"name,omitempty"`
	Began     int64            `json:"began,omitempty"` // of a report: Task.Began; zero if any
	Call      uint32           `json:"call,omitempty"`
	Kind      Kind             `json:"kind,omitempty"`
	Output    *json.RawMessage `json:"output,omitempty"`
	Failure   *Failure         `json:"failure,omitempty"`
	Worker    string           `json:"worker,omitempty"`
}

// About returns the question with what names the task.
func (q Question) About(t Task) Question {
	q.Namespace, q.Machine, q.Name, q.Began, q.Call = t.ID.Machine.Namespace, t.ID.Machine.Name, t.ID.Name, t.Began, t.Call
	return q
}

// Kind is what is reported.
type Kind string

// Kinds of reports. They are asked by one version and answered by another: none may change its meaning.
const (
	Succeeded Kind = "s"
	Failed    Kind = "f"
	Alive     Kind = "b"
)

// Failure is how a task failed, or why an execution is stopped.
type Failure struct {
	Error *string `json:"error"`
	Cause *string `json:"cause"`
}

// AsFailure is f in the language; nil is one without a name and a cause.
func (f *Failure) AsFailure() *statelang.Failure {
	if f == nil {
		return &statelang.Failure{}
	}
	return &statelang.Failure{Error: f.Error, Cause: f.Cause}
}

// Taken is a task of an activity that was given to a worker: it is the only one that has it. Token is empty if there was none.
type Taken struct {
	Token string          `json:"token,omitempty"`
	Input json.RawMessage `json:"input,omitempty"`
	More  int             `json:"more,omitempty"` // tasks that the partition has further
}

// report asks the owner of a task.
func report(ctx context.Context, conn stream.Asks, t Task, q Question) error {
	body, err := jsontree.Marshal(q.About(t))
	if err != nil {
		return &stream.RefusedError{Code: CodeInvalid, Message: err.Error()}
	}
	_, err = conn.Ask(ctx, t.ID.Partition(), AskReport, body)
	return err
}

// take asks the owner of a partition for a task.
func take(ctx context.Context, conn stream.Asks, partition int, activity catalog.Key, worker string) (t Taken, err error) {
	body, err := jsontree.Marshal(Question{Namespace: activity.Namespace, Machine: activity.Name, Worker: worker})
	if err != nil {
		return t, err
	}
	answer, err := conn.Ask(ctx, stream.MachinePartition(partition), AskTake, body)
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal(answer, &t)
}
