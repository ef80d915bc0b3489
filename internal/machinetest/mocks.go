package machinetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// Bounds of mocks.
const (
	maxAnswers = 10_000 // of a state
	anyTimes   = -1
)

// Mocks are the answers to the calls of states.
type Mocks struct{ states []stateMocks }

// stateMocks are the answers to one state's calls, in order.
type stateMocks struct {
	state   string // its name, or its path
	path    string // in the file
	line    int
	answers []Answer
}

// Answer is what a mock answers.
type Answer struct {
	Result  any
	Object  *string            // of an ItemReader: the object that it finds
	Failure *statelang.Failure // nil: Result is it
	Timeout bool               // there is no answer, and the state has a time for one
	Hang    bool               // there is no answer
	After   time.Duration      // that the call takes
	Times   int                // it is for so many calls; anyTimes: all that come

	when, request       any
	hasWhen, hasRequest bool
	path                string // in the file
	line                int
}

// ParseMocks reads a file of mocks: an object of states with their answers.
func ParseMocks(text []byte) (Mocks, []Problem) {
	documents, err := ParseDocuments(text)
	if err != nil {
		return Mocks{}, syntaxProblems(err)
	}
	if len(documents) != 1 {
		return Mocks{}, []Problem{{Message: fmt.Sprintf("must be one document, and has %d", len(documents))}}
	}
	r := &fileReader{document: documents[0]}
	if o, ok := documents[0].Value.(*jsontree.Object); ok && o.Has("cases") {
		r.problem("/cases", "this is a file of tests: weir sm check runs it")
		return Mocks{}, r.problems
	}
	m := r.mocks("", documents[0].Value)
	return m, r.problems
}

func (r *fileReader) mocks(path string, v any) Mocks {
	o, ok := r.object(path, v)
	if !ok {
		return Mocks{}
	}
	var m Mocks
	for state, answers := range o.o.All() {
		s := stateMocks{state: state, path: o.at(state), line: r.document.Line(o.at(state))}
		list, isList := answers.([]any)
		if !isList {
			if a, ok := r.answer(s.path, answers, anyTimes); ok {
				s.answers = append(s.answers, a)
			}
			m.states = append(m.states, s)
			continue
		}
		switch {
		case len(list) == 0:
			r.problem(s.path, "has no answers: leave it out, or give one")
		case len(list) > maxAnswers:
			r.problem(s.path, "has more than %d answers", maxAnswers)
			list = nil
		}
		for i, e := range list {
			if a, ok := r.answer(fmt.Sprintf("%s[%d]", s.path, i), e, 1); ok {
				s.answers = append(s.answers, a)
			}
		}
		m.states = append(m.states, s)
	}
	return m
}

func (r *fileReader) answer(path string, v any, times int) (Answer, bool) {
	o, ok := r.object(path, v)
	if !ok {
		return Answer{}, false
	}
	a := Answer{path: path, line: r.document.Line(path), Times: times}
	var kinds []string
	if a.Result, ok = o.get("result"); ok {
		kinds = append(kinds, "result")
	}
	if text, ok := o.text("object"); ok {
		a.Object = &text
		kinds = append(kinds, "object")
	}
	name, hasName := o.textOrNull("error")
	cause, hasCause := o.textOrNull("cause")
	if hasName || hasCause {
		kinds = append(kinds, "error")
		a.Failure = &statelang.Failure{Error: name, Cause: cause}
	}
	if a.Timeout = o.yes("timeout"); a.Timeout {
		kinds = append(kinds, "timeout")
	}
	if a.Hang = o.yes("hang"); a.Hang {
		kinds = append(kinds, "hang")
	}
	if len(kinds) != 1 {
		has := "none"
		if len(kinds) > 0 {
			has = strings.Join(kinds, " and ")
		}
		o.problem("", "an answer is one of result, error (with cause), timeout, hang, or object for an ItemReader; it has %s", has)
	}
	a.After, _ = o.duration("after")
	a.when, a.hasWhen = o.expected("when")
	a.request, a.hasRequest = o.expected("request")
	o.times(&a)
	o.end("an answer")
	return a, true
}

// times reads how often an answer is given: a number, or any.
func (o *object) times(a *Answer) {
	v, ok := o.get("times")
	if !ok {
		return
	}
	if v == "any" {
		a.Times = anyTimes
		return
	}
	n, isNumber := jsontree.Float(v)
	if !isNumber || n != float64(int(n)) || n < 1 || n > 1e6 {
		o.problem("times", "must be a whole number from 1, or any, not %s", show(v))
		return
	}
	a.Times = int(n)
}

// Unknown are the problems of mocks for states that the machine does not have, or that call nothing.
func (m Mocks) Unknown(machine *statelang.Machine) []Problem {
	var problems []Problem
	for _, s := range m.states {
		found := machine.Find(s.state)
		calls := slices.ContainsFunc(found, func(s *statelang.State) bool { return s.Kind == statelang.Task || s.Reads() || s.Writes() })
		switch {
		case len(found) == 0:
			problems = append(problems, Problem{s.line, s.path, fmt.Sprintf("the machine has no state %q%s", s.state, machine.NamesLike(s.state))})
		case !calls:
			problems = append(problems, Problem{s.line, s.path, fmt.Sprintf("the %s state %q calls nothing: only Task states, and maps that read or write, have mocks", found[0].Kind, s.state)})
		case len(s.answers) > 0:
			problems = append(problems, s.unfit(found)...)
		}
	}
	return problems
}

// unfit are the problems of answers that the states can't have.
func (s *stateMocks) unfit(states []*statelang.State) []Problem {
	var problems []Problem
	for _, a := range s.answers {
		wrong := ""
		switch {
		case a.Object != nil && !slices.ContainsFunc(states, (*statelang.State).Reads):
			wrong = "object is for maps with an ItemReader: use result"
		case a.Timeout && !slices.ContainsFunc(states, (*statelang.State).TimesOut):
			wrong = fmt.Sprintf("the state %q has neither TimeoutSeconds nor HeartbeatSeconds, so it would wait for ever: use hang to see that, or error: States.Timeout", s.state)
		}
		if wrong != "" {
			problems = append(problems, Problem{a.line, a.path, wrong})
		}
	}
	return problems
}

// over are these mocks with the others for the states that these don't name.
func (m Mocks) over(others Mocks) []mockSet {
	sets := []mockSet{}
	for _, s := range m.states {
		sets = append(sets, mockSet{stateMocks: s})
	}
	for _, s := range others.states {
		if !slices.ContainsFunc(m.states, func(own stateMocks) bool { return own.state == s.state }) {
			sets = append(sets, mockSet{stateMocks: s, shared: true})
		}
	}
	for i := range sets {
		sets[i].used = make([]int, len(sets[i].answers))
	}
	return sets
}

// mockSet is a state's mocks in one run.
type mockSet struct {
	stateMocks
	shared bool // with other runs
	used   []int
	calls  int
}

// mismatch is a call that was not as an answer's request says.
type mismatch struct {
	state  string
	call   int
	answer Answer
	found  []Difference
}

// answer chooses the answer to a call. Its error is for people: there is none.
func (x *execution) answer(s *statelang.State, request any) (*Answer, error) {
	i := slices.IndexFunc(x.mocks, func(m mockSet) bool { return m.state == s.Path() })
	if i < 0 {
		i = slices.IndexFunc(x.mocks, func(m mockSet) bool { return m.state == s.Name })
	}
	if i < 0 {
		return nil, fmt.Errorf("the state %q was called, and has no mock: give one such as  %s: {result: …}  (or error, timeout, hang); it was sent %s",
			s.Name, yamlKey(s.Name), show(request))
	}
	m := &x.mocks[i]
	m.calls++
	conditional := 0
	for i := range m.answers {
		a := &m.answers[i]
		if a.Times != anyTimes && m.used[i] >= a.Times {
			continue
		}
		if a.hasWhen && len(differences(a.when, request, true)) > 0 {
			conditional++
			continue
		}
		m.used[i]++
		if a.hasRequest {
			if found := differences(a.request, request, false); len(found) > 0 {
				x.mismatches = append(x.mismatches, mismatch{s.Name, m.calls, *a, found})
			}
		}
		return a, nil
	}
	if conditional > 0 {
		return nil, fmt.Errorf("call %d of the state %q has no answer: no when of those that are left fits what was sent, %s", m.calls, s.Name, show(request))
	}
	return nil, fmt.Errorf("call %d of the state %q has no answer: all %d are used; add one, or give the last  times: any", m.calls, s.Name, len(m.answers))
}

// yamlKey is a name as a key of YAML: in quotes if it needs them.
func yamlKey(name string) string {
	for _, r := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_- ", r) {
			return string(jsontree.AppendString(nil, name))
		}
	}
	return name
}

// unused are the answers that nobody asked for. Those that are shared are left out.
func unused(sets []mockSet) []Problem {
	var problems []Problem
	for i := range sets {
		m := &sets[i]
		if m.shared {
			continue
		}
		if m.calls == 0 {
			problems = append(problems, Problem{m.line, m.path, fmt.Sprintf("the mock was never used: the state %q was not called; take it out, or see why the execution does not come there", m.state)})
			continue
		}
		for j, a := range m.answers {
			switch {
			case m.used[j] == 0:
				problems = append(problems, Problem{a.line, a.path, fmt.Sprintf("the answer was never used: the state %q was called %s", m.state, times(m.calls))})
			case a.Times > m.used[j]:
				problems = append(problems, Problem{a.line, a.path, fmt.Sprintf("the answer was used %s and is for %d", times(m.used[j]), a.Times)})
			}
		}
	}
	return problems
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}
