package machinetest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// maxCases bounds a test file.
const maxCases = 1000

// Suite is a test file.
type Suite struct {
	Machine string         // the file of the machine, from the folder of the test file
	Name    string         // which of the file's machines, if it has several
	Type    statelang.Type // of a machine whose file does not say it
	Mocks   Mocks          // of all cases, for the states that a case has no mocks for
	Cases   []Case

	document Document
}

// Case is one execution, and what is expected of it.
type Case struct {
	Name   string
	Line   int
	Input  any
	Mocks  Mocks
	Start  time.Time
	Expect Expect
}

// Expect is what a case expects. What is not named is not looked at.
type Expect struct {
	Status       statelang.Status
	Output       any
	Error        any
	Cause        any
	Path         []string // the states in the order in which they are entered
	PathAnyOrder []string
	Calls        []StateCalls
	MaxDuration  time.Duration // on the simulated clock

	hasOutput, hasError, hasCause, hasPath, hasPathAnyOrder, hasMaxDuration bool
	path                                                                    string // in the file
}

// StateCalls is what a state is to send, call by call.
type StateCalls struct {
	State    string
	Requests []any
	path     string
}

// ParseSuite reads a test file, in JSON or YAML. Unknown fields are mistakes.
func ParseSuite(text []byte) (*Suite, []Problem) {
	documents, err := ParseDocuments(text)
	if err != nil {
		return nil, syntaxProblems(err)
	}
	if len(documents) != 1 {
		return nil, []Problem{{Message: fmt.Sprintf("a test file is one document, and this has %d", len(documents))}}
	}
	r := &fileReader{document: documents[0]}
	s := &Suite{document: documents[0]}
	o, ok := r.object("", documents[0].Value)
	if !ok {
		return nil, r.problems
	}
	if s.Machine, ok = o.text("machine"); !ok && !o.o.Has("machine") {
		o.problem("machine", "is missing: the file of the state machine, from the folder of this one")
	}
	s.Name, _ = o.text("name")
	if kind, ok := o.text("type"); ok {
		if s.Type = statelang.Type(kind); s.Type != statelang.Standard && s.Type != statelang.Express {
			o.problem("type", "is %q: it must be %s or %s", kind, statelang.Standard, statelang.Express)
		}
	}
	if v, ok := o.get("mocks"); ok {
		s.Mocks = r.mocks("/mocks", v)
	}
	if v, ok := o.get("cases"); ok {
		r.cases(s, v)
	} else {
		o.problem("cases", "is missing: a list of executions, and what is expected of them")
	}
	o.end("a test file")
	if len(r.problems) > 0 {
		slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
		return nil, r.problems
	}
	return s, nil
}

func (r *fileReader) cases(s *Suite, v any) {
	list, ok := v.([]any)
	switch {
	case !ok || len(list) == 0:
		r.problem("/cases", "must be a list with at least one case")
		return
	case len(list) > maxCases:
		r.problem("/cases", "has %d cases: at most %d are allowed in a file", len(list), maxCases)
		return
	}
	for i, e := range list {
		path := fmt.Sprintf("/cases[%d]", i)
		o, ok := r.object(path, e)
		if !ok {
			continue
		}
		c := Case{Line: r.document.Line(path), Input: &jsontree.Object{}, Start: DefaultStart()}
		if c.Name, ok = o.text("name"); !ok || c.Name == "" {
			o.problem("name", "is missing: it tells the case from the others")
		}
		if slices.ContainsFunc(s.Cases, func(other Case) bool { return other.Name == c.Name }) {
			o.problem("name", "%q is the name of another case, too", c.Name)
		}
		if v, ok := o.get("input"); ok {
			c.Input = v
		}
		if text, ok := o.text("start"); ok {
			var err error
			if c.Start, err = time.Parse(time.RFC3339, text); err != nil {
				o.problem("start", "must be a time such as 2026-11-29T12:00:00Z, not %q", text)
			}
		}
		if v, ok := o.get("mocks"); ok {
			c.Mocks = r.mocks(path+"/mocks", v)
		}
		if v, ok := o.get("expect"); ok {
			c.Expect = r.expect(path+"/expect", v)
		} else {
			o.problem("expect", "is missing: at least a status, or an output")
		}
		o.end("a case")
		s.Cases = append(s.Cases, c)
	}
}

func (r *fileReader) expect(path string, v any) Expect {
	x := Expect{Status: statelang.StatusSucceeded, path: path}
	o, ok := r.object(path, v)
	if !ok {
		return x
	}
	if text, ok := o.text("status"); ok {
		x.Status = statelang.Status(text)
		switch x.Status {
		case statelang.StatusSucceeded, statelang.StatusFailed, statelang.StatusTimedOut:
		default:
			o.problem("status", "is %q: it must be %s, %s or %s", text, statelang.StatusSucceeded, statelang.StatusFailed, statelang.StatusTimedOut)
		}
	} else if o.o.Has("error") || o.o.Has("cause") {
		x.Status = statelang.StatusFailed
	}
	x.Output, x.hasOutput = o.expected("output")
	x.Error, x.hasError = o.expected("error")
	x.Cause, x.hasCause = o.expected("cause")
	if x.hasOutput && (x.Status == statelang.StatusFailed || x.Status == statelang.StatusTimedOut) {
		o.problem("output", "an execution that is %s has no output", x.Status)
	}
	if (x.hasError || x.hasCause) && x.Status == statelang.StatusSucceeded {
		o.problem("error", "an execution that is %s has no error", x.Status)
	}
	x.Path, x.hasPath = o.texts("path")
	x.PathAnyOrder, x.hasPathAnyOrder = o.texts("pathInAnyOrder")
	x.MaxDuration, x.hasMaxDuration = o.duration("maxDuration")
	if v, ok := o.get("calls"); ok {
		x.Calls = r.expectedCalls(path+"/calls", v)
	}
	o.end("what is expected")
	return x
}

func (r *fileReader) expectedCalls(path string, v any) []StateCalls {
	o, ok := r.object(path, v)
	if !ok {
		return nil
	}
	var calls []StateCalls
	for state, v := range o.o.All() {
		list, isList := v.([]any)
		if !isList {
			r.problem(o.at(state), "must be a list of what is sent, call by call; [] if the state is not to be called")
			continue
		}
		if at, why := badMarker(o.at(state), v); why != "" {
			r.problem(at, "%s", why)
		}
		calls = append(calls, StateCalls{state, list, o.at(state)})
	}
	return calls
}

// unknown are the names in a suite that the machine has no state of.
func (s *Suite) unknown(m *statelang.Machine) []Problem {
	problems := s.Mocks.Unknown(m)
	name := func(path, state string) {
		if len(m.Find(state)) == 0 {
			problems = append(problems, Problem{s.document.Line(path), path, fmt.Sprintf("the machine has no state %q%s", state, m.NamesLike(state))})
		}
	}
	for _, c := range s.Cases {
		problems = append(problems, c.Mocks.Unknown(m)...)
		for i, state := range c.Expect.Path {
			name(fmt.Sprintf("%s/path[%d]", c.Expect.path, i), state)
		}
		for i, state := range c.Expect.PathAnyOrder {
			name(fmt.Sprintf("%s/pathInAnyOrder[%d]", c.Expect.path, i), state)
		}
		for _, calls := range c.Expect.Calls {
			name(calls.path, calls.State)
		}
	}
	return problems
}

// Problem is a mistake in the test file, at a path.
func (s *Suite) Problem(path, message string) Problem {
	return Problem{Line: s.document.Line(path), Path: path, Message: message}
}
