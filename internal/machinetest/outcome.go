package machinetest

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// JSON is the outcome with its history as nested states. Times are of the simulated clock.
func (o *Outcome) JSON() *jsontree.Object {
	x := jsontree.Of("status", string(o.Status), "startDate", stamp(o.Began), "stopDate", stamp(o.Ended), "seconds", seconds(o.Takes()))
	if o.Status == statelang.StatusSucceeded {
		x.Set("output", o.Output)
	}
	setFailure(x, o.Failure)
	if o.Err != nil {
		x.Set("problem", o.Err.Error())
	}
	x.Set("events", json.Number(strconv.Itoa(o.Events)))
	x.Set("states", entriesJSON(o.Entries))
	return x
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func seconds(d time.Duration) float64 { return d.Seconds() }

func setFailure(x *jsontree.Object, f *statelang.Failure) {
	if f == nil {
		return
	}
	if f.Error != nil {
		x.Set("error", *f.Error)
	}
	if f.Cause != nil {
		x.Set("cause", *f.Cause)
	}
}

func entriesJSON(entries []*Entry) []any {
	list := make([]any, len(entries))
	for i, e := range entries {
		list[i] = e.json()
	}
	return list
}

func (e *Entry) json() *jsontree.Object {
	x := jsontree.Of("name", e.State.Name, "type", string(e.State.Kind), "path", e.State.Path(), "entered", stamp(e.Entered), "input", e.Input)
	var steps []any
	for _, s := range e.Steps {
		if step := s.json(); step != nil {
			steps = append(steps, step)
		}
	}
	if steps != nil {
		x.Set("steps", steps)
	}
	if len(e.Branches) > 0 {
		var branches []any
		for _, b := range e.Branches {
			branches = append(branches, jsontree.Of("index", json.Number(strconv.Itoa(b.Slot)), "attempt", json.Number(strconv.Itoa(b.Attempt)),
				"states", entriesJSON(b.Entries)))
		}
		x.Set("branches", branches)
	}
	if e.Assigned != nil {
		x.Set("assigned", e.Assigned)
	}
	switch {
	case e.Aborted:
		x.Set("aborted", true)
	case !e.Left.IsZero() && !e.Failed:
		x.Set("left", stamp(e.Left))
		x.Set("output", e.Output)
		x.Set("way", e.Way.String())
	}
	return x
}

// json is nil for what a history does not tell.
func (s *Step) json() *jsontree.Object {
	x := jsontree.Of("at", stamp(s.At))
	switch s.Stage {
	case statelang.StageCall:
		x.Set("sent", s.Value)
	case statelang.StageResult:
		x.Set("result", s.Value)
	case statelang.StageFailed:
		x.Set("failed", true)
		setFailure(x, s.Failure)
	case statelang.StageRetry:
		x.Set("retry", json.Number(strconv.Itoa(s.Index)))
		x.Set("inSeconds", seconds(s.Delay))
	case statelang.StageIterationFailed:
		x.Set("tolerated", json.Number(strconv.Itoa(s.Index)))
	default:
		return nil
	}
	return x
}
