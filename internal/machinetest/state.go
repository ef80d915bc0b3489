package machinetest

import (
	"fmt"
	"strconv"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// StateJSON is the result of a tested state as AWS's TestState answers (API reference, TestState): data is JSON in texts.
func StateJSON(r statelang.StateResult, inspect bool) *jsontree.Object {
	o := &jsontree.Object{}
	if r.Status == statelang.TestSucceeded || r.Status == statelang.TestCaught {
		o.Set("output", compact(r.Output))
	}
	if f := r.Failure; f != nil {
		if f.Error != nil {
			o.Set("error", *f.Error)
		}
		if f.Cause != nil {
			o.Set("cause", *f.Cause)
		}
	}
	if inspect {
		data := &jsontree.Object{}
		for name, v := range r.Inspection.All() {
			switch name {
			case "errorDetails", "maxConcurrency", "toleratedFailureCount", "toleratedFailurePercentage":
				data.Set(name, v)
			default:
				data.Set(name, compact(v))
			}
		}
		o.Set("inspectionData", data)
	}
	if r.Next != "" {
		o.Set("nextState", r.Next)
	}
	o.Set("status", string(r.Status))
	return o
}

// StateLine is one line of a result for people.
type StateLine struct{ Name, Value string }

// StateLines are what became of a tested state. level is info, debug or trace.
func StateLines(r statelang.StateResult, level string) []StateLine {
	var lines []StateLine
	add := func(name, value string) { lines = append(lines, StateLine{name, value}) }
	if r.Status == statelang.TestSucceeded || r.Status == statelang.TestCaught {
		add("output", compact(r.Output))
	}
	if f := r.Failure; f != nil {
		if f.Error != nil {
			add("error", *f.Error)
		}
		if f.Cause != nil {
			add("cause", *f.Cause)
		}
	}
	if r.Next != "" {
		add("nextState", r.Next)
	}
	switch level {
	case "debug":
		add("", "")
		for name, v := range r.Inspection.All() {
			add(name, compact(v))
		}
	case "trace":
		add("", "")
		for _, s := range r.Stages {
			lines = append(lines, stageLine(r, s))
		}
	}
	return lines
}

// stageLine is one stage, as it was made.
func stageLine(r statelang.StateResult, s statelang.Observation) StateLine {
	switch s.Stage {
	case statelang.StageCondition:
		label := ""
		for _, t := range s.State.Transitions() {
			if t.Way == (statelang.Way{Kind: statelang.WayRule, Index: s.Index}) {
				label = t.Label
			}
		}
		return StateLine{fmt.Sprintf("Choices[%d]", s.Index), fmt.Sprintf("%v: %s", s.Value, label)}
	case statelang.StageItemSelector:
		return StateLine{fmt.Sprintf("%s[%d]", s.Stage, s.Index), compact(s.Value)}
	case statelang.StageFailed:
		return StateLine{string(s.Stage), describe(s.Failure)}
	case statelang.StageRetry:
		return StateLine{s.Way.String(), "tries once more in " + Clock(s.Delay)}
	case statelang.StageLeft:
		to := s.Way.String()
		if r.Next != "" {
			to += " → " + r.Next
		}
		return StateLine{string(s.Stage), to}
	case statelang.StageMaxConcurrency, statelang.StageToleratedCount, statelang.StageToleratedShare:
		n, _ := jsontree.Float(s.Value)
		return StateLine{string(s.Stage), strconv.FormatFloat(n, 'f', -1, 64)}
	}
	return StateLine{string(s.Stage), compact(s.Value)}
}
