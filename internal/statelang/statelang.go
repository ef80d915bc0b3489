// Package statelang is the Amazon States Language (states-language.net, and what AWS Step Functions does beyond it) as a pure
// interpreter: definitions are parsed and validated, and an execution is stepped from event to event.
//
// Invariants: there is no I/O, no clock and no randomness of its own. The same definition, start and events give the same
// effects and the same history, so an execution can be made again from its events. What a definition says is checked when it
// is parsed; all mistakes are told at once.
//
// May import: jsontree, jsonpath, jsonata, items, and the standard library.
package statelang

import (
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/items"
)

// Limits of an execution, as AWS's.
const (
	// MaxDataBytes bounds the input, the output and the result of a state, as JSON.
	MaxDataBytes = 256 << 10
	// MaxVariablesBytes bounds the variables of a scope.
	MaxVariablesBytes = 10 << 20
	// MaxErrorBytes and MaxCauseBytes are how much is kept of the texts of a task's failure.
	MaxErrorBytes = 256
	MaxCauseBytes = 32 << 10
	// MaxEvents bounds the history of a STANDARD execution.
	MaxEvents = 25_000
	// MaxExecutionAge is how long a STANDARD execution may run.
	MaxExecutionAge = 365 * 24 * time.Hour
	// MaxExpressAge is how long an EXPRESS execution may run.
	MaxExpressAge = 5 * time.Minute
	// MaxDefinitionBytes bounds a definition.
	MaxDefinitionBytes = 1 << 20
)

// Type is how an execution runs.
type Type string

// Types of state machines.
const (
	Standard Type = "STANDARD" // durable
	Express  Type = "EXPRESS"  // in memory, at least once, five minutes at most
)

// Language is how fields of a state refer to data.
type Language string

// Query languages.
const (
	JSONPath Language = "JSONPath"
	JSONata  Language = "JSONata"
)

// Kind is the type of a state.
type Kind string

// Types of states.
const (
	Pass     Kind = "Pass"
	Task     Kind = "Task"
	Choice   Kind = "Choice"
	Wait     Kind = "Wait"
	Succeed  Kind = "Succeed"
	Fail     Kind = "Fail"
	Parallel Kind = "Parallel"
	Map      Kind = "Map"
)

// Machine is a definition, or what is inside one: a branch, or the processor of a map. It is immutable.
type Machine struct {
	Comment string
	Start   *State
	States  []*State // in the order of the definition
	Timeout time.Duration
	Type    Type
}

// State is one state of a machine.
type State struct {
	Name     string
	Kind     Kind
	Language Language
	Next     *State // nil at the end, and of what has no next state
	End      bool

	path string // of the state in the definition

	inputPath  flow
	outputPath flow
	resultPath place

	arguments      expr // Parameters or Arguments; nil if there are none
	resultSelector expr
	output         expr
	assign         []assignment
	retry          []retrier
	catch          []catcher

	pass     *pass
	task     *task
	choice   *choice
	wait     *wait
	fail     *fail
	branches []*Machine
	iterate  *iterate
}

// flow is InputPath or OutputPath: by default all; null is an empty object.
type flow struct {
	none bool
	path *pathExpr // nil: all
}

// assignment is one variable of Assign.
type assignment struct {
	name  string
	value expr
}

type pass struct {
	result any
	given  bool
}

type task struct {
	Resource    Resource
	timeout     expr // seconds; nil if there is none
	heartbeat   expr
	credentials expr
}

type choice struct {
	rules []rule
	other *State // Default
}

type wait struct {
	seconds expr
	until   expr
	field   string // that is given, for errors
}

type fail struct {
	err, cause expr
}

type retrier struct {
	errors   []string
	interval time.Duration
	attempts int
	backoff  float64
	maxDelay time.Duration // 0: no bound
	jitter   bool
}

type catcher struct {
	errors     []string
	next       *State
	resultPath place
	output     expr
	assign     []assignment
}

// iterate is what a Map state has of its own.
type iterate struct {
	processor   *Machine
	distributed bool
	items       expr // ItemsPath or Items; nil: the input
	itemsField  string
	selector    expr // ItemSelector, or Parameters of former definitions
	concurrency expr // nil: no bound of its own
	reader      *reader
	batcher     *batcher
	writer      *writer
	tolerated   expr // a count
	percentage  expr
	label       string
}

type reader struct {
	resource  Resource
	arguments expr
	config    readerConfig
}

type readerConfig struct {
	inputType string
	pointer   string
	headers   []string // with location GIVEN
	firstRow  bool
	delimiter rune
	maxItems  expr
}

type batcher struct {
	items, bytes expr
	input        expr // BatchInput
}

type writer struct {
	resource  Resource
	arguments expr
	config    items.WriterConfig
}

// Failure is how something failed: an error's name and its cause. nil is no name, which is not an empty one.
type Failure struct {
	Error *string `json:"error"`
	Cause *string `json:"cause"`

	heartbeat bool // a States.Timeout for want of a sign of life: States.HeartbeatTimeout matches it, too
}

// NewFailure returns a failure with a name and a cause.
func NewFailure(name, cause string) *Failure { return &Failure{Error: &name, Cause: &cause} }

// Cut is the failure with no more of its texts than is kept; nil if there is none.
func (f *Failure) Cut() *Failure {
	if f == nil {
		return nil
	}
	c := *f
	if f.Error != nil {
		c.Error = new(first(*f.Error, MaxErrorBytes))
	}
	if f.Cause != nil {
		c.Cause = new(first(*f.Cause, MaxCauseBytes))
	}
	return &c
}

func first(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

// Name is the error's name; empty if there is none.
func (f *Failure) Name() string {
	if f.Error == nil {
		return ""
	}
	return *f.Error
}

// Names of errors (states-language.net, appendix A; the user guide's "Handling errors").
const (
	ErrAll              = "States.ALL"
	ErrTaskFailed       = "States.TaskFailed"
	ErrTimeout          = "States.Timeout"
	ErrHeartbeatTimeout = "States.HeartbeatTimeout"
	ErrRuntime          = "States.Runtime"
	ErrDataLimit        = "States.DataLimitExceeded"
	ErrQuery            = "States.QueryEvaluationError"
	ErrIntrinsic        = "States.IntrinsicFailure"
	ErrNoChoice         = "States.NoChoiceMatched"
	ErrParameterPath    = "States.ParameterPathFailure"
	ErrResultPath       = "States.ResultPathMatchFailure"
	ErrItemReader       = "States.ItemReaderFailed"
	ErrResultWriter     = "States.ResultWriterFailed"
	ErrTolerated        = "States.ExceedToleratedFailureThreshold"
	ErrPermissions      = "States.Permissions"
	ErrBranch           = "States.BranchFailed"
)
