package statelang

import (
	"time"

	"github.com/weir-dev/weir/internal/items"
	"github.com/weir-dev/weir/internal/jsontree"
)

// Start is what an execution begins with.
type Start struct {
	ID          string // the execution's ARN, or what stands for it
	Name        string
	MachineID   string
	MachineName string
	RoleARN     string
	Input       any
	At          time.Time
	// Token returns the task token of a call. It must return the same text whenever the execution is made again; nil: the call's
	// number.
	Token func(call uint32) string
	// Record is told the history as it is made; nil: nobody is.
	Record func(HistoryEvent)
	// Observe is told what is made of the data, stage by stage; nil: nobody is. Effects and history are the same either way.
	Observe func(Observation)

	context *jsontree.Object // what a test gives of the context object
}

// EventKind says what has happened.
type EventKind string

// Kinds of events.
const (
	Succeeded EventKind = "succeeded" // a call: Output is its result
	Failed    EventKind = "failed"    // a call: Failure says how
	Submitted EventKind = "submitted" // what a call started is on its way: Output is the first answer
	Taken     EventKind = "taken"     // a worker has the task of an activity: Worker is what it calls itself
	Beat      EventKind = "beat"      // a call has given a sign of life
	Woke      EventKind = "woke"      // a time that was asked for has come
	Continued EventKind = "continued" // the answer to Continue
	Stopped   EventKind = "stopped"   // the execution is to end: Failure says why
	Redriven  EventKind = "redriven"  // a failed execution goes on from where it failed
)

// Event is what the world tells an execution. Events of calls that are over are of no effect.
type Event struct {
	Kind    EventKind `json:"kind"`
	At      time.Time `json:"at"`
	Call    uint32    `json:"call,omitempty"`
	Output  any       `json:"output,omitempty"`
	Failure *Failure  `json:"failure,omitempty"`
	Worker  string    `json:"worker,omitempty"`
}

// EffectKind says what is to be done.
type EffectKind string

// Kinds of effects.
const (
	// CallTask: call the resource with Input, and tell how it ended; of an activity, have a worker take it, and tell Taken before.
	CallTask EffectKind = "call"
	// CallReader: read items; Output of its success is an array (Items).
	CallReader EffectKind = "read"
	// CallWriter: write Results, of a map, where Input says.
	CallWriter EffectKind = "write"
	// WakeAt: tell Woke at the time, instead of an earlier WakeAt of the same call.
	WakeAt EffectKind = "wake"
	// Cancel: nobody waits for the call, or the time, any more.
	Cancel EffectKind = "cancel"
	// Continue: the execution has more to do at once: tell Continued.
	Continue EffectKind = "continue"
)

// Effect is what an execution wants done. A call may be made more than once: after a crash nobody knows whether it was.
type Effect struct {
	Kind        EffectKind
	Call        uint32
	At          time.Time // of WakeAt; of CallTask, when it was asked for
	State       string
	Resource    Resource
	Input       any
	Credentials any
	Token       string        // of a call that somebody reports on
	Timeout     time.Duration // 0: none
	Heartbeat   time.Duration // 0: none
	Reader      *ReaderConfig
	Writer      *items.WriterConfig
	Results     []MapResult
}

// Status is how an execution is.
type Status string

// Statuses of an execution.
const (
	StatusRunning   Status = "RUNNING"
	StatusSucceeded Status = "SUCCEEDED"
	StatusFailed    Status = "FAILED"
	StatusTimedOut  Status = "TIMED_OUT"
	StatusAborted   Status = "ABORTED"
)

// HistoryEvent is one line of an execution's history (API reference, HistoryEvent). What does not apply is zero.
type HistoryEvent struct {
	ID       uint32
	Previous uint32
	Type     string
	At       time.Time
	Name     string // of the state
	Index    int    // of a map's iteration
	Input    any
	Output   any
	Failure  *Failure
	Worker   string // who has taken an activity's task
	Resource Resource
	Field    string // whose expression failed
}
