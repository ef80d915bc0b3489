package jsonata

import (
	"context"
	"slices"

	"github.com/weir-dev/weir/internal/jsontree"
)

// state is one evaluation.
type state struct {
	ctx    context.Context
	expr   *Expr
	env    Env
	root   any
	base   frame
	limits Limits

	steps, depth, items, bytes int
}

// frame holds variables; what it has not, the frames around it have.
type frame struct {
	parent *frame
	vars   []binding
}

type binding struct {
	name  string
	value any
}

func (f *frame) bind(name string, v any) {
	for i := range f.vars {
		if f.vars[i].name == name {
			f.vars[i].value = v
			return
		}
	}
	f.vars = append(f.vars, binding{name, v})
}

func (f *frame) find(name string) (any, bool) {
	for ; f != nil; f = f.parent {
		for i := range f.vars {
			if f.vars[i].name == name {
				return f.vars[i].value, true
			}
		}
	}
	return nil, false
}

// checkEvery is how many steps pass between two looks at the context: a power of two.
const checkEvery = 1 << 10

// work counts n steps.
func (s *state) work(n int) error {
	before := s.steps
	s.steps += n
	if before/checkEvery == s.steps/checkEvery {
		return nil
	}
	if s.steps > s.limits.Steps {
		return fail("D1012")
	}
	if s.ctx != nil && s.ctx.Err() != nil {
		e := fail("D1012")
		e.cause = context.Cause(s.ctx)
		e.Message = "the evaluation was ended: " + e.cause.Error()
		return e
	}
	return nil
}

// grow counts n items or members that are made.
func (s *state) grow(n int) error {
	s.items += n
	if s.items > s.limits.Items || n < 0 {
		return fail("D2015")
	}
	return s.work(n / 4)
}

// spell counts n bytes of text that are made.
func (s *state) spell(n int) error {
	s.bytes += n
	if s.bytes > s.limits.Bytes || n < 0 {
		return fail("D2015")
	}
	return s.work(n / 16)
}

// eval evaluates a node for a context, and makes a sequence of one item that item.
func (s *state) eval(n *node, input any, f *frame) (any, error) {
	if err := s.work(1); err != nil {
		return nil, err
	}
	if s.depth >= s.limits.Depth {
		return nil, failToken("D1011", n.pos, "")
	}
	s.depth++
	v, err := s.evalKind(n, input, f)
	if err == nil {
		for i := range n.predicates {
			if v, err = s.filter(n.predicates[i].by, v, f); err != nil {
				break
			}
		}
		if err == nil && n.group != nil && n.kind != kindPath {
			v, err = s.group(n.group, v, f)
		}
	}
	s.depth--
	if err != nil {
		return nil, err
	}
	if a, is := v.(*array); is && a.sequence && !a.tuples {
		return a.settle(n.keepArray), nil
	}
	return v, nil
}

// settle is what a sequence is as a value.
func (a *array) settle(keep bool) any {
	switch {
	case len(a.items) == 0:
		return Nothing{}
	case len(a.items) > 1 || a.keep:
		return a
	case keep:
		return &array{items: a.items, sequence: true, keep: true}
	}
	return a.items[0]
}

func (s *state) evalKind(n *node, input any, f *frame) (any, error) {
	switch n.kind {
	case kindPath:
		return s.path(n, input, f)
	case kindBinary:
		return s.binary(n, input, f)
	case kindArray:
		return s.array(n, input, f)
	case kindObject:
		return s.group(n, input, f)
	case kindNegate:
		return s.negate(n, input, f)
	case kindName:
		return s.lookup(input, n.text)
	case kindString, kindNumber, kindValue:
		return n.value, nil
	case kindWildcard:
		return s.wildcard(input)
	case kindDescendant:
		return s.descendants(input)
	case kindParent:
		if v, ok := f.find(n.slot.label); ok {
			return v, nil
		}
		return Nothing{}, nil
	case kindCondition:
		return s.condition(n, input, f)
	case kindBlock:
		return s.block(n, input, f)
	case kindBind:
		v, err := s.eval(n.right, input, f)
		if err == nil {
			f.bind(n.left.text, v)
		}
		return v, err
	case kindRegex:
		return s.matcher(n), nil
	case kindCall:
		return s.call(n, input, f, nil)
	case kindVariable:
		return s.variable(n, input, f), nil
	case kindLambda:
		return &Function{kind: lambdaFunction, node: n, params: n.list, input: input, frame: f, signature: n.signature, arity: len(n.list)}, nil
	case kindPartial:
		return s.partial(n, input, f)
	case kindApply:
		return s.evalApply(n, input, f)
	case kindTransform:
		return s.transform(n, f), nil
	}
	return Nothing{}, nil // a ? that is no argument
}

func (s *state) variable(n *node, input any, f *frame) any {
	if n.text == "" {
		if a, is := input.(*array); is && a.outer {
			return a.items[0]
		}
		return input
	}
	if !n.free {
		if v, ok := f.find(n.text); ok {
			return v
		}
	}
	if v, ok := s.given(n.text); ok {
		return v
	}
	if n.builtin != nil {
		return n.builtin
	}
	return Nothing{}
}

// given is a variable that the caller of Eval gives, or the input.
func (s *state) given(name string) (any, bool) {
	if name == "$" {
		return s.root, true
	}
	if s.env.Scope == nil {
		return nil, false
	}
	v, ok := s.env.Scope.Variable(name)
	if fn, is := v.(*Function); is && fn == nil {
		return Nothing{}, ok
	}
	return v, ok
}

// known reports whether a variable of the name has a value that is true, as it looks like where a $ is missing.
func (s *state) known(name string, f *frame) bool {
	v, ok := f.find(name)
	if !ok {
		v, ok = s.given(name)
	}
	if !ok {
		return s.expr.opts.has(name)
	}
	if isArray(v) {
		return true
	}
	switch v := v.(type) {
	case *jsontree.Object, *Function:
		return true
	default:
		is, err := s.truth(v)
		return is || err != nil
	}
}

func (s *state) negate(n *node, input any, f *frame) (any, error) {
	v, err := s.eval(n.test, input, f)
	if err != nil || isNothing(v) {
		return v, err
	}
	x, is, err := numeric(v)
	if err != nil {
		return nil, err
	}
	if !is {
		e := failToken("D1002", n.pos, "-")
		e.Value = v
		return nil, e
	}
	return -x, nil
}

func (s *state) condition(n *node, input any, f *frame) (any, error) {
	test, err := s.eval(n.test, input, f)
	if err != nil {
		return nil, err
	}
	is, err := s.truth(test)
	if err != nil {
		return nil, err
	}
	if is {
		return s.eval(n.left, input, f)
	}
	if n.right != nil {
		return s.eval(n.right, input, f)
	}
	return Nothing{}, nil
}

func (s *state) block(n *node, input any, f *frame) (v any, err error) {
	if n.frame {
		f = &frame{parent: f}
	}
	v = Nothing{}
	for _, part := range n.list {
		if v, err = s.eval(part, input, f); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// array evaluates an array constructor: items that are arrays are flattened, but not those written as constructors.
func (s *state) array(n *node, input any, f *frame) (any, error) {
	items := make([]any, 0, len(n.list))
	for _, part := range n.list {
		v, err := s.eval(part, input, f)
		if err != nil {
			return nil, err
		}
		if isNothing(v) {
			continue
		}
		if many, is := elements(v); is && part.kind != kindArray {
			if err := s.grow(len(many)); err != nil {
				return nil, err
			}
			items = append(items, many...)
			continue
		}
		items = append(items, v)
	}
	if err := s.grow(len(n.list)); err != nil {
		return nil, err
	}
	if n.cons {
		return &array{items: items, cons: true}, nil
	}
	return items, nil
}

// lookup is the member of an object, or the sequence of the members of an array's objects.
func (s *state) lookup(input any, key string) (any, error) {
	switch v := input.(type) {
	case *jsontree.Object:
		if member, ok := v.Get(key); ok {
			return member, nil
		}
		return Nothing{}, nil
	case *tuple:
		return s.lookup(v.object(), key)
	}
	items, is := elements(input)
	if !is {
		return Nothing{}, nil
	}
	found, err := s.lookupAll(nil, items, key, 0)
	return &array{items: found, sequence: true}, err
}

func (s *state) lookupAll(found, items []any, key string, depth int) ([]any, error) {
	if depth > maxData {
		return nil, fail("D1011")
	}
	if err := s.grow(len(items)); err != nil {
		return nil, err
	}
	for _, item := range items {
		if inner, is := elements(item); is {
			var err error
			if found, err = s.lookupAll(found, inner, key, depth+1); err != nil {
				return nil, err
			}
			continue
		}
		v, err := s.lookup(item, key)
		if err != nil {
			return nil, err
		}
		if many, is := elements(v); is {
			found = append(found, many...)
			if err := s.grow(len(many)); err != nil {
				return nil, err
			}
		} else if !isNothing(v) {
			found = append(found, v)
		}
	}
	return found, nil
}

func (s *state) wildcard(input any) (any, error) {
	var values []any
	if a, is := input.(*array); is && a.outer && len(a.items) > 0 {
		input = a.items[0]
	}
	switch v := input.(type) {
	case *tuple:
		return s.wildcard(v.object())
	case *jsontree.Object:
		for _, member := range ordered(v).All() {
			values = append(values, member)
		}
	case []any:
		values = v
	case *array:
		values = v.items
		for _, flag := range []bool{v.sequence, v.keep} { // in the reference they are members of the list
			if flag {
				values = append(slices.Clip(values), true)
			}
		}
	}
	plain := false // appending an array makes of the sequence a list that stays one
	found := make([]any, 0, len(values))
	for _, v := range values {
		items, is := elements(v)
		if !is {
			found = append(found, v)
			continue
		}
		plain = true
		var err error
		if found, err = s.flatten(found, items, 0); err != nil {
			return nil, err
		}
	}
	if err := s.grow(len(found)); err != nil {
		return nil, err
	}
	if plain {
		return found, nil
	}
	return &array{items: found, sequence: true}, nil
}

func (s *state) flatten(dst, items []any, depth int) ([]any, error) {
	if depth > maxData {
		return nil, fail("D1011")
	}
	for _, item := range items {
		if err := s.work(1); err != nil {
			return nil, err
		}
		inner, is := elements(item)
		if !is {
			dst = append(dst, item)
			continue
		}
		var err error
		if dst, err = s.flatten(dst, inner, depth+1); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

func (s *state) descendants(input any) (any, error) {
	if isNothing(input) {
		return input, nil
	}
	found, err := s.descend(nil, input, 0)
	if err != nil {
		return nil, err
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return &array{items: found, sequence: true}, nil
}

func (s *state) descend(found []any, v any, depth int) ([]any, error) {
	if depth > maxData {
		return nil, fail("D1011")
	}
	items, is := elements(v)
	if !is {
		if err := s.grow(1); err != nil {
			return nil, err
		}
		found = append(found, v)
		if o, is := v.(*jsontree.Object); is {
			for _, member := range ordered(o).All() {
				items = append(items, member)
			}
		}
	}
	for _, item := range items {
		var err error
		if found, err = s.descend(found, item, depth+1); err != nil {
			return nil, err
		}
	}
	return found, s.work(1)
}
