package statelang

import "time"

// Stage names what an execution has made of its data, or where it has come to.
type Stage string

// Stages. Those from StageInputPath to StageOutput are named as in AWS's TestState (API reference, InspectionData).
const (
	StageEntered         Stage = "entered"        // Value: the state's input
	StageInputPath       Stage = "afterInputPath" // of JSONPath only, as the next, afterResultSelector and afterResultPath
	StageParameters      Stage = "afterParameters"
	StageArguments       Stage = "afterArguments" // of JSONata only
	StageItems           Stage = "afterItemsPath" // what a Map goes over
	StageItemSelector    Stage = "afterItemSelector"
	StageItemBatcher     Stage = "afterItemBatcher"
	StageMaxConcurrency  Stage = "maxConcurrency"
	StageToleratedCount  Stage = "toleratedFailureCount"
	StageToleratedShare  Stage = "toleratedFailurePercentage"
	StageResult          Stage = "result"
	StageResultSelector  Stage = "afterResultSelector"
	StageResultPath      Stage = "afterResultPath"
	StageOutput          Stage = "output"    // after OutputPath, or what Output gave
	StageAssign          Stage = "assigned"  // Value: an object of the variables that are assigned
	StageCondition       Stage = "condition" // Index: of the rule; Value: whether it holds
	StageCall            Stage = "call"      // Call: its number; Value: what is sent
	StageFailed          Stage = "failed"    // Failure: how; it may be retried or caught
	StageRetry           Stage = "retry"     // Index: of the retrier; Delay: until the next attempt
	StageLeft            Stage = "left"      // Value: the state's output
	StageIterationFailed Stage = "tolerated" // Index: of the iteration; the map goes on
	StageAborted         Stage = "aborted"   // nobody waits for the state any more
)

// Observation is what an observer of an execution is told. Its values must not be changed.
type Observation struct {
	Stage   Stage
	Line    Line
	State   *State
	At      time.Time
	Value   any
	Index   int
	Call    uint32
	Failure *Failure
	Delay   time.Duration
	Way     Way // of StageRetry and StageLeft
}

// Line is one line of an execution: the machine itself, a branch, or an iteration of a map. Lines are equal if they are the
// same one.
type Line struct{ t *thread }

// Parent is the line whose Parallel or Map state has started this one; false for the machine's own.
func (l Line) Parent() (Line, bool) {
	if l.t == nil || l.t.parent == nil {
		return Line{}, false
	}
	return Line{l.t.parent}, true
}

// Slot is the branch's place, or the iteration's index.
func (l Line) Slot() int { return l.t.slot }

// seen tells the observer, if there is one, of a value.
func (r *Run) seen(t *thread, stage Stage, v any) {
	if r.start.Observe != nil {
		r.observe(t, Observation{Stage: stage, Value: v})
	}
}

func (r *Run) observe(t *thread, o Observation) {
	if r.start.Observe == nil {
		return
	}
	o.Line, o.State, o.At = Line{t}, t.state, r.now
	r.start.Observe(o)
}
