package machinetest

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// Entry is one stay in a state.
type Entry struct {
	State    *statelang.State
	Entered  time.Time
	Left     time.Time // zero if it was not left
	Input    any
	Output   any
	Assigned *jsontree.Object // nil if nothing was
	Steps    []Step
	Branches []*Branch
	Way      statelang.Way // on which it was left
	Aborted  bool          // nobody waited for it any more
	Failed   bool          // it was not left: it has failed
}

// Step is something that happened in a state, in its order.
type Step struct {
	Stage   statelang.Stage
	At      time.Time
	Value   any
	Index   int
	Failure *statelang.Failure
	Delay   time.Duration
}

// Branch is a branch of a Parallel, or an iteration of a Map.
type Branch struct {
	Slot    int
	Attempt int // from 1; more than 1 after a retry of the Parallel or the Map
	Entries []*Entry
}

// tree puts together what an observer is told.
type tree struct {
	top   Branch
	lines map[statelang.Line]*lineOf
	calls map[uint32]*Entry
}

// lineOf is where a line of an execution is.
type lineOf struct {
	branch  *Branch
	current *Entry
}

func newTree() *tree {
	return &tree{lines: map[statelang.Line]*lineOf{}, calls: map[uint32]*Entry{}}
}

func (t *tree) root() []*Entry { return t.top.Entries }

func (t *tree) line(l statelang.Line) *lineOf {
	if at, ok := t.lines[l]; ok {
		return at
	}
	at := &lineOf{branch: &t.top}
	if parent, ok := l.Parent(); ok {
		above := t.line(parent).current
		attempt := 1
		for _, s := range above.Steps {
			if s.Stage == statelang.StageRetry {
				attempt++
			}
		}
		at.branch = &Branch{Slot: l.Slot(), Attempt: attempt}
		above.Branches = append(above.Branches, at.branch)
	}
	t.lines[l] = at
	return at
}

func (t *tree) observe(o statelang.Observation) {
	if o.State == nil {
		return
	}
	at := t.line(o.Line)
	if o.Stage == statelang.StageEntered {
		at.current = &Entry{State: o.State, Entered: o.At, Input: o.Value}
		at.branch.Entries = append(at.branch.Entries, at.current)
		return
	}
	e := at.current
	if e == nil {
		return
	}
	switch o.Stage {
	case statelang.StageLeft:
		e.Left, e.Output, e.Way = o.At, o.Value, o.Way
		return
	case statelang.StageAborted:
		e.Left = o.At
		e.Aborted = len(e.Steps) == 0 || e.Steps[len(e.Steps)-1].Stage != statelang.StageFailed // otherwise it is what ended the others
		e.Failed = !e.Aborted
		return
	case statelang.StageAssign:
		e.Assigned, _ = o.Value.(*jsontree.Object)
		return
	case statelang.StageCall:
		t.calls[o.Call] = e
	}
	e.Steps = append(e.Steps, Step{o.Stage, o.At, o.Value, o.Index, o.Failure, o.Delay})
}

// PrintTree writes the history of a run as a tree: when each state was entered on the simulated clock, what went wrong and was
// retried, what was assigned, and where it led. With data it also shows what went in and out.
func (o *Outcome) PrintTree(w io.Writer, data bool) error {
	b := bufio.NewWriter(w)
	p := &printer{w: b, began: o.Began, data: data}
	p.entries("", o.Entries)
	fmt.Fprintf(b, "%s after %s\n", o.Ending(), Clock(o.Takes()))
	return b.Flush()
}

// Ending is how the execution ended, in words.
func (o *Outcome) Ending() string {
	switch {
	case o.Err != nil:
		return "stopped"
	case o.Status == statelang.StatusSucceeded:
		return string(o.Status) + " with " + show(o.Output)
	case o.Failure != nil:
		return string(o.Status) + " with " + describe(o.Failure)
	}
	return string(o.Status)
}

// describe is a failure for people.
func describe(f *statelang.Failure) string {
	name := f.Name()
	if f.Error == nil {
		name = "no name of an error"
	}
	if f.Cause != nil && *f.Cause != "" {
		name += ": " + shorten(*f.Cause)
	}
	return name
}

type printer struct {
	w     io.Writer
	began time.Time
	data  bool
}

// Bounds of what a tree shows; JSON has all.
const (
	maxIterations = 50  // of one state
	maxEntries    = 200 // at the beginning and at the end of a line of states
)

func (p *printer) line(indent string, at time.Time, format string, args ...any) {
	fmt.Fprintf(p.w, "%9s  %s%s\n", Clock(at.Sub(p.began)), indent, fmt.Sprintf(format, args...))
}

func (p *printer) more(indent, format string, args ...any) {
	fmt.Fprintf(p.w, "%9s  %s%s\n", "", indent, fmt.Sprintf(format, args...))
}

func (p *printer) entries(indent string, list []*Entry) {
	for i, e := range list {
		if left := len(list) - 2*maxEntries; left > 0 && i >= maxEntries && i < maxEntries+left {
			if i == maxEntries {
				p.more(indent, "… %d states more …", left)
			}
			continue
		}
		p.entry(indent, e)
	}
}

func (p *printer) entry(indent string, e *Entry) {
	line := fmt.Sprintf("%s (%s)", e.State.Name, e.State.Kind)
	if e.Aborted {
		line += " – given up"
	}
	p.line(indent, e.Entered, "%s", line)
	in := indent + "  "
	if p.data {
		p.more(in, "input %s", show(e.Input))
	}
	attempt := 1
	p.branches(in, e, attempt)
	for _, s := range e.Steps {
		switch s.Stage {
		case statelang.StageCall:
			if p.data {
				p.line(in, s.At, "sent %s", show(s.Value))
			}
		case statelang.StageResult:
			if p.data {
				p.line(in, s.At, "result %s", show(s.Value))
			}
		case statelang.StageFailed:
			p.line(in, s.At, "✗ %s", describe(s.Failure))
		case statelang.StageIterationFailed:
			p.line(in, s.At, "the failure of item %d is tolerated", s.Index)
		case statelang.StageRetry:
			attempt++
			p.line(in, s.At, "↻ Retry[%d] tries once more in %s", s.Index, Clock(s.Delay))
			p.branches(in, e, attempt)
		}
	}
	p.left(in, e)
}

// left tells what the state assigned, and where it led.
func (p *printer) left(in string, e *Entry) {
	if e.Left.IsZero() || e.Aborted || e.Failed {
		return
	}
	if e.Assigned != nil {
		p.more(in, "assigned %s", show(e.Assigned))
	}
	if p.data {
		p.more(in, "output %s", show(e.Output))
	}
	switch e.Way.Kind {
	case statelang.WayRule, statelang.WayDefault, statelang.WayCatch:
		for _, t := range e.State.Transitions() {
			if t.Way == e.Way && t.Label != "" {
				p.line(in, e.Left, "→ %s: %s", t.Way, shorten(t.Label))
			} else if t.Way == e.Way {
				p.line(in, e.Left, "→ %s", t.Way)
			}
		}
	default:
		if e.Left.After(e.Entered) && e.State.Kind == statelang.Wait {
			p.line(in, e.Left, "waited %s", Clock(e.Left.Sub(e.Entered)))
		}
	}
}

func (p *printer) branches(in string, e *Entry, attempt int) {
	shown, all := 0, 0
	for _, b := range e.Branches {
		if b.Attempt != attempt {
			continue
		}
		if all++; shown == maxIterations {
			continue
		}
		shown++
		what := "branch"
		if e.State.Kind == statelang.Map {
			what = "item"
		}
		p.more(in, "%s %d", what, b.Slot)
		p.entries(in+"  ", b.Entries)
	}
	if all > shown {
		p.more(in, "… and %d more", all-shown)
	}
}

// Clock writes a duration of the simulated clock: short, and exact to the millisecond.
func Clock(d time.Duration) string {
	if d >= 24*time.Hour {
		days := d / (24 * time.Hour)
		rest := d - days*24*time.Hour
		if rest == 0 {
			return fmt.Sprintf("%dd", days)
		}
		return fmt.Sprintf("%dd%s", days, Clock(rest))
	}
	text := d.Round(time.Millisecond).String()
	if rest, ok := strings.CutSuffix(text, "m0s"); ok {
		text = rest + "m"
	}
	if rest, ok := strings.CutSuffix(text, "h0m"); ok {
		text = rest + "h"
	}
	return text
}
