package jsonata

import (
	"errors"

	"github.com/weir-dev/weir/internal/jsontree"
)

type functionKind uint8

const (
	lambdaFunction  functionKind = iota + 1
	builtinFunction              // of JSONata
	customFunction               // of the caller of Eval
	closureFunction              // a function as an argument: it is called without a context
	nativeFunction               // a regular expression, or its next match
)

// Function is a value that can be called. Functions of the caller are made by NewFunction.
type Function struct {
	kind      functionKind
	name      string
	signature *signature
	arity     int
	params    []*node // of a lambda, or what is left of a function that is applied partially
	native    func(c *Call, args []any) (any, error)

	// A lambda: its body is evaluated for the context and in the frame in which it stands.
	node  *node
	input any
	frame *frame
	body  *Function // called by a partial application instead of the node's body

	target *Function // of a closure
	regex  *regex    // of a regular expression
	names  []string  // of a native function's parameters, for partial application; nil if it has none
}

// Name is the name of a function that has one.
func (f *Function) Name() string { return f.name }

func (f *Function) isThunk() bool { return f.kind == lambdaFunction && f.node != nil && f.node.thunk }

// call evaluates the call of a function; applied is the first argument if it stands before a ~>.
func (s *state) call(n *node, input any, f *frame, applied []any) (any, error) {
	proc, err := s.eval(n.test, input, f)
	if err != nil {
		return nil, err
	}
	name := n.test.calleeName()
	if isNothing(proc) && n.test.kind == kindPath && s.known(n.test.list[0].text, f) {
		return nil, failToken("T1005", n.pos, name)
	}
	args := make([]any, len(applied), len(applied)+len(n.list))
	copy(args, applied)
	for _, part := range n.list {
		v, err := s.eval(part, input, f)
		if err != nil {
			return nil, err
		}
		if fn, is := v.(*Function); is {
			v = &Function{kind: closureFunction, name: fn.name, target: fn, arity: fn.arity, frame: f}
		}
		args = append(args, v)
	}
	v, err := s.apply(proc, args, input, f, n.pos, name)
	return v, at(err, n.pos, name)
}

func (n *node) calleeName() string {
	if n.kind == kindPath {
		return n.list[0].text
	}
	return n.text
}

// apply calls a function. One that ends with a call of a function gives a thunk of it, which is called here: so a tail
// recursion is a loop.
func (s *state) apply(proc any, args []any, input any, f *frame, pos int, name string) (any, error) {
	v, err := s.applyOnce(proc, args, input, f, pos, name)
	for err == nil {
		thunk, is := v.(*Function)
		if !is || !thunk.isThunk() {
			break
		}
		body := thunk.node.test
		var next any
		if next, err = s.eval(body.test, thunk.input, thunk.frame); err != nil {
			break
		}
		args := make([]any, len(body.list))
		for i, part := range body.list {
			if args[i], err = s.eval(part, thunk.input, thunk.frame); err != nil {
				return nil, err
			}
		}
		v, err = s.applyOnce(next, args, input, f, body.test.pos, body.test.calleeName())
	}
	return v, err
}

func (s *state) applyOnce(proc any, args []any, input any, f *frame, pos int, name string) (v any, err error) {
	fn, is := proc.(*Function)
	if !is {
		return nil, fail("T1006")
	}
	if fn.signature != nil {
		args, err = fn.signature.validate(args, input)
	}
	if err == nil {
		switch fn.kind {
		case lambdaFunction:
			v, err = s.applyLambda(fn, args)
		case closureFunction:
			if s.depth >= s.limits.Depth {
				return nil, fail("D1011")
			}
			s.depth++
			v, err = s.apply(fn.target, args, nil, fn.frame, 0, "")
			s.depth--
		default:
			v, err = fn.native(&Call{s: s, input: input, frame: f}, args)
		}
	}
	if err != nil && pos != 0 && fn.kind != closureFunction && fn.kind != nativeFunction {
		if e, is := errors.AsType[*Error](err); is {
			e.Position = pos
			if e.Token == "" {
				e.Token = name
			}
		}
	}
	return v, err
}

func (s *state) applyLambda(fn *Function, args []any) (any, error) {
	inner := &frame{parent: fn.frame, vars: make([]binding, 0, len(fn.params))}
	for i, parameter := range fn.params {
		inner.bind(parameter.text, argument(args, i))
	}
	if fn.body == nil {
		return s.eval(fn.node.test, fn.input, inner)
	}
	given := make([]any, len(fn.body.names))
	for i, name := range fn.body.names {
		given[i] = Nothing{}
		if v, ok := inner.find(name); ok {
			given[i] = v
		}
	}
	if fn.body.kind == customFunction && fn.body.signature != nil { // the reference checks none of these, but its own can bear that
		var err error
		if given, err = fn.body.signature.validate(given, Nothing{}); err != nil {
			return nil, err
		}
	}
	return fn.body.native(&Call{s: s, frame: inner, input: Nothing{}}, given)
}

// argument is the argument at place i, or nothing.
func argument(args []any, i int) any {
	if i < len(args) {
		return args[i]
	}
	return Nothing{}
}

// partial evaluates a call with a ? for some arguments: a function of those.
func (s *state) partial(n *node, input any, f *frame) (any, error) {
	args := make([]any, len(n.list))
	for i, part := range n.list {
		if part.kind == kindPlaceholder {
			args[i] = part
			continue
		}
		var err error
		if args[i], err = s.eval(part, input, f); err != nil {
			return nil, err
		}
	}
	proc, err := s.eval(n.test, input, f)
	if err != nil {
		return nil, err
	}
	name := n.test.calleeName()
	fn, is := proc.(*Function)
	if !is {
		code := "T1008"
		if isNothing(proc) && n.test.kind == kindPath && s.known(name, f) {
			code = "T1007"
		}
		return nil, failToken(code, n.pos, name)
	}
	rest := &Function{kind: lambdaFunction, name: fn.name, node: fn.node, input: fn.input, body: fn.body}
	params, around := fn.params, fn.frame
	if fn.kind != lambdaFunction {
		if code := fn.unpartial(); code != "" {
			return nil, failToken(code, n.pos, name)
		}
		rest.body, rest.node, rest.input = fn, nil, Nothing{}
		params = make([]*node, len(fn.names))
		for i, name := range fn.names {
			params[i] = &node{kind: kindVariable, text: name}
		}
		around = f
	}
	rest.frame = &frame{parent: around}
	for i, parameter := range params {
		if _, open := argument(args, i).(*node); open {
			rest.params = append(rest.params, parameter)
		} else {
			rest.frame.bind(parameter.text, argument(args, i))
		}
	}
	rest.arity = len(rest.params)
	return rest, nil
}

// unpartial is the error of applying a native function partially, empty if that is possible: the reference makes a function
// of the native one's text, which fails for those whose parameters are not just names.
func (f *Function) unpartial() string {
	switch {
	case f.kind == closureFunction:
		return "S0202"
	case f.kind == builtinFunction && f.name == "string":
		return "S0208"
	}
	return ""
}

// evalApply evaluates a ~> b.
func (s *state) evalApply(n *node, input any, f *frame) (any, error) {
	left, err := s.eval(n.left, input, f)
	if err != nil {
		return nil, err
	}
	if n.right.kind == kindCall {
		return s.call(n.right, input, f, []any{left})
	}
	right, err := s.eval(n.right, input, f)
	if err != nil {
		return nil, err
	}
	fn, is := right.(*Function)
	if !is {
		e := failToken("T2006", n.pos, "~>")
		e.Value = right
		return nil, e
	}
	if first, is := left.(*Function); is { // the composition of both
		chain, err := s.eval(n.chain, nil, f)
		if err != nil {
			return nil, err
		}
		return s.apply(chain, []any{first, fn}, nil, f, n.pos, "~>")
	}
	return s.apply(fn, []any{left}, nil, f, n.pos, n.right.calleeName())
}

// invoke calls a function that is an argument of a built-in one.
func (c *Call) invoke(fn *Function, args ...any) (any, error) {
	if err := c.s.work(1); err != nil {
		return nil, err
	}
	return c.s.apply(fn, args, nil, c.frame, 0, "")
}

// offer calls a function with as many of the arguments as it takes, but one at least.
func (c *Call) offer(fn *Function, args ...any) (any, error) {
	return c.invoke(fn, args[:min(len(args), max(fn.arity, 1))]...)
}

// transform evaluates |…|…|: a function that gives a changed copy of an object or array.
func (s *state) transform(n *node, f *frame) any {
	sig, _ := parseSignature("<(oa):o>")
	return &Function{kind: builtinFunction, signature: sig, arity: 1, names: []string{"obj"}, native: func(c *Call, args []any) (any, error) {
		return c.s.transformed(n, argument(args, 0), f)
	}}
}

func (s *state) transformed(n *node, v any, f *frame) (any, error) {
	if isNothing(v) {
		return v, nil
	}
	clone := any(n.builtin)
	if own, bound := f.find("clone"); bound {
		clone = own
	} else if own, bound := s.given("clone"); bound {
		clone = own
	}
	fn, is := clone.(*Function)
	if !is || fn == nil {
		return nil, failToken("T2013", n.pos, "")
	}
	var own map[*jsontree.Object]bool // what may be changed
	var result any
	var err error
	if fn == n.builtin {
		own = map[*jsontree.Object]bool{}
		result, err = s.clone(v, own, 0)
	} else {
		if result, err = s.apply(fn, []any{v}, nil, f, 0, ""); err == nil {
			own = map[*jsontree.Object]bool{}
			result, err = s.clone(result, own, 0) // it may have given what is shared
		}
	}
	if err != nil {
		return nil, err
	}
	matches, err := s.eval(n.test, result, f)
	if err != nil || isNothing(matches) {
		return result, err
	}
	items, is := elements(matches)
	if !is {
		items = []any{matches}
	}
	for _, match := range items {
		target, _ := match.(*jsontree.Object)
		if !own[target] {
			target = nil
		}
		if err := s.update(n, match, target, f); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// update changes one object of a transform's copy; target is nil if the match is no object of it.
func (s *state) update(n *node, match any, target *jsontree.Object, f *frame) error {
	update, err := s.eval(n.left, match, f)
	if err != nil {
		return err
	}
	if !isNothing(update) {
		o, is := update.(*jsontree.Object)
		if _, function := update.(*Function); !is && !function {
			e := failToken("T2011", n.left.pos, "")
			e.Value = update
			return e
		}
		if o != nil && target != nil {
			for k, v := range ordered(o).All() {
				target.Set(k, v)
			}
			if err := s.grow(o.Len()); err != nil {
				return err
			}
		}
	}
	if n.right == nil {
		return nil
	}
	deletion, err := s.eval(n.right, match, f)
	if err != nil || isNothing(deletion) {
		return err
	}
	names, is := elements(deletion)
	if !is {
		names = []any{deletion}
	}
	if !allStrings(names) {
		e := failToken("T2012", n.right.pos, "")
		e.Value = deletion
		return e
	}
	for _, name := range names {
		if key, is := name.(string); is && target != nil {
			target.Delete(key)
		}
	}
	return nil
}
