package machinetest

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Report is what became of the cases of a test file.
type Report struct {
	File     string       `json:"file"`
	Machine  string       `json:"machine,omitempty"`
	Problems []Problem    `json:"problems,omitempty"` // of the files; then no case was run
	Cases    []CaseReport `json:"cases,omitempty"`
	Unused   []Problem    `json:"unused,omitempty"` // mocks of the file that no case used
	Coverage Coverage     `json:"coverage"`
}

// CaseReport is what became of a case.
type CaseReport struct {
	Name     string        `json:"name"`
	Line     int           `json:"line"`
	Passed   bool          `json:"passed"`
	Failures []CaseFailure `json:"failures,omitempty"`
	Takes    time.Duration `json:"takesNanoseconds"` // on the simulated clock

	Outcome *Outcome `json:"-"`
}

// CaseFailure is one way in which an execution was not as expected.
type CaseFailure struct {
	Message     string       `json:"message"`
	Line        int          `json:"line,omitempty"` // in the test file
	Differences []Difference `json:"differences,omitempty"`
}

// Check runs the cases of a suite.
func Check(file string, s *Suite, d Definition) Report {
	m := d.Machine
	r := Report{File: file, Machine: s.Machine}
	if r.Problems = s.unknown(m); len(r.Problems) > 0 {
		return r
	}
	all := newReached()
	shared := map[string][]int{}
	for i := range s.Cases {
		c := &s.Cases[i]
		o := Simulate(Config{Machine: m, Name: d.Name, Input: c.Input, Mocks: c.Mocks, Shared: s.Mocks, Start: c.Start})
		all.add(o.reached)
		for _, set := range o.mocks {
			if set.shared {
				shared[set.state] = sum(shared[set.state], set.used)
			}
		}
		r.Cases = append(r.Cases, s.judge(c, o))
	}
	r.Unused = s.neverUsed(shared)
	r.Coverage = all.coverage(m)
	return r
}

func sum(a, b []int) []int {
	if a == nil {
		return slices.Clone(b)
	}
	for i := range b {
		a[i] += b[i]
	}
	return a
}

// neverUsed are the file's mocks that no case used.
func (s *Suite) neverUsed(used map[string][]int) []Problem {
	var problems []Problem
	for _, m := range s.Mocks.states {
		for i, a := range m.answers {
			if counts := used[m.state]; len(counts) == 0 || counts[i] == 0 {
				problems = append(problems, Problem{a.line, a.path, "the answer was never used, in no case: take it out, or add a case that comes there"})
			}
		}
	}
	return problems
}

// Failed is how many cases are not as expected.
func (r *Report) Failed() int {
	n := 0
	for _, c := range r.Cases {
		if !c.Passed {
			n++
		}
	}
	return n
}

// judge compares an outcome with what the case expects.
func (s *Suite) judge(c *Case, o *Outcome) CaseReport {
	j := &judge{suite: s, expect: &c.Expect, outcome: o}
	if o.Err != nil {
		j.say(c.Expect.path, nil, "%v", o.Err)
	} else {
		j.ending()
		j.path()
		j.sent()
	}
	for _, m := range o.mismatches {
		j.say(m.answer.path+"/request", m.found, "call %d of the state %q did not send what the answer's request says", m.call, m.state)
	}
	if o.Err == nil {
		for _, p := range o.Unused() {
			j.failures = append(j.failures, CaseFailure{Message: p.String(), Line: p.Line})
		}
	}
	return CaseReport{Name: c.Name, Line: c.Line, Passed: len(j.failures) == 0, Failures: j.failures, Takes: o.Takes(), Outcome: o}
}

type judge struct {
	suite    *Suite
	expect   *Expect
	outcome  *Outcome
	failures []CaseFailure
}

func (j *judge) say(path string, found []Difference, format string, args ...any) {
	j.failures = append(j.failures, CaseFailure{fmt.Sprintf(format, args...), j.suite.document.Line(path), found})
}

// ending judges how the execution ended, and when.
func (j *judge) ending() {
	x, o := j.expect, j.outcome
	if o.Status != x.Status {
		j.say(x.path+"/status", nil, "the status is %s, not %s", o.Ending(), x.Status)
		return
	}
	if x.hasOutput {
		if found := differences(x.Output, o.Output, false); len(found) > 0 {
			j.say(x.path+"/output", found, "the output is not as expected")
		}
	}
	if f := o.Failure; f != nil {
		if found := differences(x.Error, textOrNil(f.Error), false); x.hasError && len(found) > 0 {
			j.say(x.path+"/error", found, "the error is not as expected")
		}
		if found := differences(x.Cause, textOrNil(f.Cause), false); x.hasCause && len(found) > 0 {
			j.say(x.path+"/cause", found, "the cause is not as expected")
		}
	}
	if x.hasMaxDuration && o.Takes() > x.MaxDuration {
		j.say(x.path+"/maxDuration", nil, "it took %s on the simulated clock, more than %s", Clock(o.Takes()), Clock(x.MaxDuration))
	}
}

func textOrNil(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

// path judges which states were entered.
func (j *judge) path() {
	x, got := j.expect, j.outcome.Path
	if x.hasPath && !slices.Equal(x.Path, got) {
		i := 0
		for i < len(x.Path) && i < len(got) && x.Path[i] == got[i] {
			i++
		}
		j.say(x.path+"/path", []Difference{{fmt.Sprintf("path[%d]", i), entry(x.Path, i), entry(got, i)}}, "the states entered were %s", strings.Join(got, " → "))
	}
	if !x.hasPathAnyOrder {
		return
	}
	left := slices.Clone(got)
	var found []Difference
	for _, name := range x.PathAnyOrder {
		if i := slices.Index(left, name); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else {
			found = append(found, Difference{"pathInAnyOrder", name, nothing})
		}
	}
	for _, name := range left {
		found = append(found, Difference{"pathInAnyOrder", nothing, name})
	}
	if len(found) > 0 {
		j.say(x.path+"/pathInAnyOrder", found[:min(len(found), maxDifferences)], "the states entered were %s", strings.Join(got, " → "))
	}
}

func entry(path []string, i int) string {
	if i < len(path) {
		return path[i]
	}
	return nothing
}

// sent judges what was sent.
func (j *judge) sent() {
	for _, calls := range j.expect.Calls {
		var got []any
		for _, c := range j.outcome.Calls {
			if c.State.Name == calls.State || c.State.Path() == calls.State {
				got = append(got, c.Request)
			}
		}
		if len(got) != len(calls.Requests) {
			j.say(calls.path, nil, "the state %q was called %s, not %s", calls.State, times(len(got)), times(len(calls.Requests)))
		}
		for i := range min(len(got), len(calls.Requests)) {
			if found := differences(calls.Requests[i], got[i], false); len(found) > 0 {
				j.say(fmt.Sprintf("%s[%d]", calls.path, i), found, "call %d of the state %q did not send what is expected", i+1, calls.State)
			}
		}
	}
}

// Print writes a line for each case, with what was not as expected. With history, what failed is shown as a tree, too.
func (r *Report) Print(w io.Writer, history bool) error {
	b := bufio.NewWriter(w)
	for _, p := range r.Problems {
		fmt.Fprintf(b, "%s: %s\n", at(r.File, p.Line), p)
	}
	for _, c := range r.Cases {
		verdict := "ok  "
		if !c.Passed {
			verdict = "FAIL"
		}
		fmt.Fprintf(b, "%s %s: %s (%s)\n", verdict, r.File, c.Name, Clock(c.Takes))
		for _, f := range c.Failures {
			fmt.Fprintf(b, "     %s: %s\n", at(r.File, f.Line), f.Message)
			for _, d := range f.Differences {
				fmt.Fprintf(b, "       %s\n         want %s\n         got  %s\n", d.Path, d.Want, d.Got)
			}
		}
		if !c.Passed && history {
			if err := c.Outcome.PrintTree(b, true); err != nil {
				return err
			}
		}
	}
	for _, p := range r.Unused {
		fmt.Fprintf(b, "FAIL %s: %s\n", at(r.File, p.Line), p)
	}
	return b.Flush()
}

func at(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}
