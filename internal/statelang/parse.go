package statelang

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/jsontree"
)

// Bounds of a definition.
const (
	maxNameChars    = 80
	maxLabelChars   = 40
	maxNesting      = 32 // machines in each other
	maxStates       = 10_000
	maxSeconds      = 99_999_999 // of a wait or a timeout: AWS's
	maxAttempts     = 99_999_999
	maxMaxDelay     = 31_622_400 // seconds
	maxConcurrency  = 10_000
	maxProblems     = 200
	labelForbidden  = "?*<>{}[],\"#%\\^|~`$&;:/ "
	defaultAttempts = 3
	defaultBackoff  = 2.0
)

// Options of Parse.
type Options struct {
	Type Type // STANDARD if empty
	// Supports says why a resource can't be called; nil: all can.
	Supports func(Resource) error
}

// Parse reads a definition and checks it. Its error is Problems: all mistakes that it finds.
func Parse(text []byte, options Options) (*Machine, error) {
	if len(text) > MaxDefinitionBytes {
		return nil, Problems{{"", fmt.Sprintf("the definition has %d bytes: at most %d are allowed", len(text), MaxDefinitionBytes)}}
	}
	v, err := jsontree.ParseUnique(text)
	if err != nil {
		return nil, Problems{{"", "the definition is no JSON: " + err.Error()}}
	}
	if options.Type == "" {
		options.Type = Standard
	}
	if options.Type != Standard && options.Type != Express {
		return nil, Problems{{"", fmt.Sprintf("the type is %q: it must be %s or %s", options.Type, Standard, Express)}}
	}
	p := &parser{options: options, language: JSONPath}
	m := p.top(v)
	if len(p.problems) > 0 {
		return nil, p.problems[:min(len(p.problems), maxProblems)]
	}
	return m, nil
}

// parser holds what is known while a definition is read.
type parser struct {
	options  Options
	language Language // of the top level
	problems Problems
	depth    int
	states   int
}

func (p *parser) node(path string, v any) (*node, bool) {
	obj, ok := v.(*jsontree.Object)
	if !ok {
		p.problems = append(p.problems, Problem{path, "must be an object, not " + kindOf(v)})
		return nil, false
	}
	return &node{p: p, path: path, obj: obj}, true
}

func (p *parser) top(v any) *Machine {
	n, ok := p.node("", v)
	if !ok {
		return nil
	}
	n.text("Version")
	if l, ok := n.language(); ok {
		p.language = l
	}
	seconds, _ := n.whole("TimeoutSeconds", 1, maxSeconds)
	m := p.machine(n)
	m.Type, m.Timeout = p.options.Type, time.Duration(seconds)*time.Second
	n.end("a state machine")
	return m
}

// language reads QueryLanguage.
func (n *node) language() (Language, bool) {
	text, ok := n.text("QueryLanguage")
	if !ok {
		return "", false
	}
	if l := Language(text); l == JSONPath || l == JSONata {
		return l, true
	}
	n.problem("QueryLanguage", "is %q: it must be %s or %s", text, JSONPath, JSONata)
	return "", false
}

// machine reads StartAt and States.
func (p *parser) machine(n *node) *Machine {
	m := &Machine{}
	if c, ok := n.obj.Get("Comment"); ok {
		m.Comment, _ = c.(string)
	}
	if p.depth++; p.depth > maxNesting {
		n.problem("", "more than %d machines are in each other", maxNesting)
		p.depth--
		return m
	}
	defer func() { p.depth-- }()
	if !n.has("States") {
		n.problem("States", "is missing: a machine has at least one state")
		n.text("StartAt")
		return m
	}
	states, ok := n.child("States")
	if !ok {
		n.text("StartAt")
		return m
	}
	if states.obj.Len() == 0 {
		states.problem("", "is empty: a machine has at least one state")
	}
	b := &builder{p: p, byName: map[string]*State{}, machine: m}
	for name, v := range states.obj.All() {
		if p.states++; p.states > maxStates {
			n.problem("States", "the definition has more than %d states", maxStates)
			return m
		}
		b.states = append(b.states, b.declare(states, name, v))
	}
	for _, s := range b.states {
		if s.node != nil {
			b.read(s.state, s.node)
		}
	}
	start, ok := n.text("StartAt")
	switch {
	case !n.obj.Has("StartAt"):
		n.problem("StartAt", "is missing: it names the first state")
	case ok && b.byName[start] == nil:
		n.problem("StartAt", "names %q, which is no state here", start)
	case ok:
		m.Start = b.byName[start]
		b.reachable(states)
	}
	return m
}

// builder reads the states of one machine.
type builder struct {
	p       *parser
	machine *Machine
	states  []declared
	byName  map[string]*State
	leads   map[*State][]*State // where a state leads
}

type declared struct {
	state *State
	node  *node
}

func (b *builder) declare(states *node, name string, v any) declared {
	s := &State{Name: name, path: states.at(name)}
	b.byName[name] = s
	b.machine.States = append(b.machine.States, s)
	if chars := utf8.RuneCountInString(name); chars == 0 || chars > maxNameChars {
		states.problem(name, "the name of a state has 1 to %d characters, not %d", maxNameChars, chars)
	}
	n, ok := b.p.node(s.path, v)
	if !ok {
		return declared{s, nil}
	}
	return declared{s, n}
}

// leadTo resolves the name of a next state.
func (b *builder) leadTo(from *State, n *node, field string) *State {
	name, ok := n.text(field)
	if !ok {
		return nil
	}
	to := b.byName[name]
	if to == nil {
		n.problem(field, "names %q, which is no state here%s", name, b.nearest(name))
		return nil
	}
	if b.leads == nil {
		b.leads = map[*State][]*State{}
	}
	b.leads[from] = append(b.leads[from], to)
	return to
}

func (b *builder) nearest(name string) string {
	var names []string
	for _, s := range b.states {
		names = append(names, s.state.Name)
	}
	return nearest(name, names)
}

// reachable reports states that no other leads to, and a machine that has no end.
func (b *builder) reachable(states *node) {
	seen := map[*State]bool{}
	todo := []*State{b.machine.Start}
	ends := false
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[s] {
			continue
		}
		seen[s] = true
		ends = ends || s.End || s.Kind == Succeed || s.Kind == Fail
		todo = append(todo, b.leads[s]...)
	}
	for _, s := range b.states {
		if !seen[s.state] {
			states.problem(s.state.Name, "is never reached: no other state leads to it")
		}
	}
	if !ends && len(b.p.problems) == 0 {
		states.problem("", "has no end that can be reached: a state with End, a Succeed or a Fail")
	}
}

// read reads one state.
func (b *builder) read(s *State, n *node) {
	kind, ok := n.text("Type")
	switch {
	case !n.obj.Has("Type"):
		n.problem("Type", "is missing: Pass, Task, Choice, Wait, Succeed, Fail, Parallel or Map")
		return
	case !ok:
		return
	}
	s.Kind, s.Language = Kind(kind), b.p.language
	if l, ok := n.language(); ok {
		if b.p.language == JSONata && l == JSONPath {
			n.problem("QueryLanguage", "must not be JSONPath in a state machine whose QueryLanguage is JSONata")
		}
		s.Language = l
	}
	f := &fields{node: n, p: b.p, b: b, state: s, language: s.Language}
	switch s.Kind {
	case Pass:
		f.pass()
	case Task:
		f.task()
	case Choice:
		f.choice()
	case Wait:
		f.wait()
	case Succeed:
		f.flows()
		f.output()
	case Fail:
		f.fail()
	case Parallel:
		f.parallel()
	case Map:
		f.iterate()
	default:
		n.problem("Type", "is %q: Pass, Task, Choice, Wait, Succeed, Fail, Parallel or Map", kind)
		return
	}
	switch s.Kind {
	case Succeed, Fail, Choice:
	default:
		f.transition()
		f.assign(&s.assign)
	}
	if s.Kind == Task || s.Kind == Parallel || s.Kind == Map {
		f.retries()
		f.catches()
	}
	n.end(fmt.Sprintf("a %s state in %s", s.Kind, s.Language))
}

// transition reads Next and End: one of them must be there.
func (f *fields) transition() {
	next, end := f.node.has("Next"), f.node.has("End")
	ends := f.node.boolean("End")
	switch {
	case next && ends:
		f.node.problem("", "has both Next and End: it may have one of them")
	case !next && !ends:
		f.node.problem("", "leads nowhere: it needs Next, or End with true")
	}
	if next {
		f.state.Next = f.b.leadTo(f.state, f.node, "Next")
	}
	f.state.End = end && ends
}

func (f *fields) retries() {
	list, _ := f.node.children("Retry")
	for i, n := range list {
		r := retrier{interval: time.Second, attempts: defaultAttempts, backoff: defaultBackoff}
		r.errors = errorNames(n, i == len(list)-1)
		if v, ok := n.whole("IntervalSeconds", 1, maxSeconds); ok {
			r.interval = time.Duration(v) * time.Second
		}
		if v, ok := n.whole("MaxAttempts", 0, maxAttempts); ok {
			r.attempts = int(v)
		}
		if v, ok := n.whole("MaxDelaySeconds", 1, maxMaxDelay-1); ok {
			r.maxDelay = time.Duration(v) * time.Second
			if r.maxDelay < r.interval {
				n.problem("MaxDelaySeconds", "must not be less than IntervalSeconds")
			}
		}
		if v, ok := n.get("BackoffRate"); ok {
			rate, isNumber := jsontree.Float(v)
			if !isNumber || rate < 1 || math.IsInf(rate, 0) {
				n.problem("BackoffRate", "must be a number of 1 or more, not %s", shown(v))
			}
			r.backoff = rate
		}
		if v, ok := n.text("JitterStrategy"); ok {
			if v != "FULL" && v != "NONE" {
				n.problem("JitterStrategy", "is %q: it must be FULL or NONE", v)
			}
			r.jitter = v == "FULL"
		}
		n.end("a retrier")
		f.state.retry = append(f.state.retry, r)
	}
}

func (f *fields) catches() {
	list, _ := f.node.children("Catch")
	for i, n := range list {
		in := &fields{node: n, p: f.p, b: f.b, state: f.state, language: f.language}
		c := catcher{errors: errorNames(n, i == len(list)-1)}
		if !n.obj.Has("Next") {
			n.problem("Next", "is missing: it names the state that goes on after the error")
		}
		c.next = f.b.leadTo(f.state, n, "Next")
		in.assign(&c.assign)
		if f.language == JSONata {
			c.output = in.value("Output")
		} else {
			c.resultPath = in.resultPath()
		}
		n.end("a catcher in " + string(f.language))
		f.state.catch = append(f.state.catch, c)
	}
}

// errorNames reads ErrorEquals. States.ALL stands alone, in the last one.
func errorNames(n *node, last bool) []string {
	v, ok := n.get("ErrorEquals")
	if !ok {
		n.problem("ErrorEquals", "is missing: it lists names of errors")
		return nil
	}
	list, isList := v.([]any)
	if !isList || len(list) == 0 {
		n.problem("ErrorEquals", "must be an array with at least one name of an error")
		return nil
	}
	var names []string
	for i, e := range list {
		name, isText := e.(string)
		if !isText {
			n.problem(fmt.Sprintf("ErrorEquals[%d]", i), "must be a text, not %s", kindOf(e))
			continue
		}
		if strings.HasPrefix(name, "States.") && !slices.Contains(reservedErrors(), name) {
			n.problem(fmt.Sprintf("ErrorEquals[%d]", i), "%q is no error of the language%s", name, nearest(name, reservedErrors()))
		}
		names = append(names, name)
	}
	if slices.Contains(names, ErrAll) && (len(names) > 1 || !last) {
		n.problem("ErrorEquals", "States.ALL must stand alone, in the last one")
	}
	return names
}

func reservedErrors() []string {
	return []string{
		ErrAll, ErrTaskFailed, ErrTimeout, ErrHeartbeatTimeout, ErrRuntime, ErrDataLimit, ErrQuery, ErrIntrinsic, ErrNoChoice, ErrParameterPath,
		ErrResultPath, ErrItemReader, ErrResultWriter, ErrTolerated, ErrPermissions, ErrBranch,
	}
}
