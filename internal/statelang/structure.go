package statelang

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// WayKind says how a state leads on.
type WayKind string

// Kinds of ways.
const (
	WayNext    WayKind = "Next"
	WayEnd     WayKind = "End"
	WayRule    WayKind = "Choice"
	WayDefault WayKind = "Default"
	WayRetry   WayKind = "Retry"
	WayCatch   WayKind = "Catch"
)

// Way is a way on from a state. Index is the rule's, the retrier's or the catcher's place.
type Way struct {
	Kind  WayKind
	Index int
}

// String is the way as the definition names it, such as Catch[0].
func (w Way) String() string {
	switch w.Kind {
	case WayRule:
		return fmt.Sprintf("Choices[%d]", w.Index)
	case WayRetry, WayCatch:
		return fmt.Sprintf("%s[%d]", w.Kind, w.Index)
	}
	return string(w.Kind)
}

// Transition is a way with where it leads, and what it is for.
type Transition struct {
	Way
	To    *State // nil: the end of the machine
	Label string // the condition of a rule, or the errors of a retrier or a catcher
}

// Transitions are all ways on from the state, in the order in which they are tried. A Succeed and a Fail state have none.
func (s *State) Transitions() []Transition {
	var ways []Transition
	switch {
	case s.choice != nil:
		for i := range s.choice.rules {
			rule := &s.choice.rules[i]
			ways = append(ways, Transition{Way{WayRule, i}, rule.next, rule.String()})
		}
		if s.choice.other != nil {
			ways = append(ways, Transition{Way{Kind: WayDefault}, s.choice.other, ""})
		}
	case s.Next != nil:
		ways = append(ways, Transition{Way{Kind: WayNext}, s.Next, ""})
	case s.End:
		ways = append(ways, Transition{Way: Way{Kind: WayEnd}})
	}
	for i := range s.retry {
		ways = append(ways, Transition{Way{WayRetry, i}, s, strings.Join(s.retry[i].errors, ", ")})
	}
	for i := range s.catch {
		ways = append(ways, Transition{Way{WayCatch, i}, s.catch[i].next, strings.Join(s.catch[i].errors, ", ")})
	}
	return ways
}

// Path is where the state is in the definition, such as /States/Pay, or /States/All/Branches[0]/States/Pay.
func (s *State) Path() string { return s.path }

// Machines are the machines in the state: a Parallel's branches, or a Map's processor.
func (s *State) Machines() []*Machine {
	if s.iterate != nil && s.iterate.processor != nil {
		return []*Machine{s.iterate.processor}
	}
	return s.branches
}

// Resource is what a Task calls; false for other states.
func (s *State) Resource() (Resource, bool) {
	if s.task == nil {
		return Resource{}, false
	}
	return s.task.Resource, true
}

// Argument is what a Task sends as a field of its Parameters or Arguments, if that does not depend on data.
func (s *State) Argument(field string) (v any, ok bool) {
	switch arguments := s.arguments.(type) {
	case literal:
		if o, isObject := arguments.value.(*jsontree.Object); isObject {
			return o.Get(field)
		}
	case objectExpr:
		if i := slices.Index(arguments.keys, field); i >= 0 {
			l, isLiteral := arguments.values[i].(literal)
			return l.value, isLiteral
		}
	}
	return nil, false
}

// Distributed reports whether the state is a distributed map.
func (s *State) Distributed() bool { return s.iterate != nil && s.iterate.distributed }

// Reads reports whether the state is a map with an ItemReader.
func (s *State) Reads() bool { return s.iterate != nil && s.iterate.reader != nil }

// Writes reports whether the state is a map with a ResultWriter.
func (s *State) Writes() bool { return s.iterate != nil && s.iterate.writer != nil }

// TimesOut reports whether a Task fails when it has no answer: it has a timeout or a heartbeat.
func (s *State) TimesOut() bool {
	return s.task != nil && (s.task.timeout != nil || s.task.heartbeat != nil)
}

// All goes through the states of the machine and of those in it, in the order of the definition.
func (m *Machine) All() iter.Seq[*State] {
	return func(yield func(*State) bool) { m.each(yield) }
}

func (m *Machine) each(yield func(*State) bool) bool {
	for _, s := range m.States {
		if !yield(s) {
			return false
		}
		for _, inner := range s.Machines() {
			if !inner.each(yield) {
				return false
			}
		}
	}
	return true
}

// Find returns the states that have the name, or the one that is at the path.
func (m *Machine) Find(nameOrPath string) []*State {
	var found []*State
	for s := range m.All() {
		if s.path == nameOrPath {
			return []*State{s}
		}
		if s.Name == nameOrPath {
			found = append(found, s)
		}
	}
	return found
}

// NamesLike is a hint at the state that may have been meant; empty if there is none.
func (m *Machine) NamesLike(name string) string {
	var names []string
	for s := range m.All() {
		names = append(names, s.Name)
	}
	return nearest(name, names)
}

// String is the rule's condition, short enough for people.
func (r *rule) String() string {
	if q, ok := r.query.(*queryExpr); ok {
		return q.text
	}
	if l, ok := r.query.(literal); ok {
		return shown(l.value)
	}
	if text, ok := r.test.(fmt.Stringer); ok {
		return text.String()
	}
	return ""
}

func (a and) String() string { return joined(a, " and ") }

func (o or) String() string { return joined(o, " or ") }

func (n not) String() string { return "not " + inner(n.test) }

func joined(tests []test, with string) string {
	texts := make([]string, len(tests))
	for i, t := range tests {
		texts[i] = inner(t)
	}
	return strings.Join(texts, with)
}

// inner is a condition in another one: in brackets if it needs them.
func inner(t test) string {
	text := ""
	if s, ok := t.(fmt.Stringer); ok {
		text = s.String()
	}
	switch t.(type) {
	case and, or:
		return "(" + text + ")"
	}
	return text
}

func (c *comparison) String() string {
	value := ""
	switch v := c.value.(type) {
	case literal:
		text, err := jsontree.Append(nil, v.value)
		if err != nil {
			text = []byte(kindOf(v.value))
		}
		value = string(text)
	case *pathExpr:
		value = v.path.String()
	}
	variable := ""
	if c.variable != nil {
		variable = c.variable.path.String()
	}
	if c.operator.isCheck() {
		is := "is"
		if value == "false" {
			is = "is not"
		}
		return variable + " " + is + " " + c.operator.noun()
	}
	return variable + " " + c.operator.sign() + " " + value
}

func (o operator) noun() string {
	switch o.kind {
	case isNull:
		return "null"
	case isPresent:
		return "present"
	case isNumeric:
		return "a number"
	case isString:
		return "a text"
	case isBoolean:
		return "a boolean"
	default:
		return "a timestamp"
	}
}

func (o operator) sign() string {
	if o.kind == matches {
		return "matches"
	}
	switch o.order {
	case less:
		return "<"
	case lessEquals:
		return "<="
	case greater:
		return ">"
	case greaterEquals:
		return ">="
	default:
		return "="
	}
}
