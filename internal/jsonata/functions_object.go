package jsonata

import (
	"math"

	"github.com/weir-dev/weir/internal/jsontree"
)

func callBoolean(c *Call, args []any) (any, error) { return c.s.truth(argument(args, 0)) }

func callNot(c *Call, args []any) (any, error) {
	is, err := c.s.truth(argument(args, 0))
	return !is, err
}

func callExists(_ *Call, args []any) (any, error) { return !isNothing(argument(args, 0)), nil }

func callType(_ *Call, args []any) (any, error) {
	switch symbol(argument(args, 0)) {
	case 'l':
		return "null", nil
	case 's':
		return "string", nil
	case 'n':
		f, is, err := numeric(args[0])
		if !is && math.IsNaN(f) {
			return "object", err // as the reference
		}
		return "number", err
	case 'b':
		return "boolean", nil
	case 'a':
		return "array", nil
	case 'f':
		return "function", nil
	}
	return "object", nil
}

func callKeys(c *Call, args []any) (any, error) {
	merged := jsontree.NewObject(8)
	if err := c.collectKeys(merged, argument(args, 0), 0); err != nil {
		return nil, err
	}
	out := make([]any, 0, merged.Len())
	for k := range ordered(merged).All() {
		out = append(out, k)
	}
	return &array{items: out, sequence: true}, c.s.grow(len(out))
}

func (c *Call) collectKeys(merged *jsontree.Object, v any, depth int) error {
	if depth > maxData {
		return fail("D1011")
	}
	if err := c.s.work(1); err != nil {
		return err
	}
	if o, is := v.(*jsontree.Object); is {
		for k := range ordered(o).All() {
			merged.Set(k, true)
		}
		return c.s.work(o.Len())
	}
	items, _ := elements(v)
	for _, item := range items {
		if err := c.collectKeys(merged, item, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func callLookup(c *Call, args []any) (any, error) {
	key, is := argument(args, 1).(string)
	if !is {
		key = "undefined" // the name of what is not given, in JavaScript
	}
	return c.s.lookup(argument(args, 0), key)
}

func callSpread(c *Call, args []any) (any, error) { return c.spread(argument(args, 0), 0) }

func (c *Call) spread(v any, depth int) (any, error) {
	if depth > maxData {
		return nil, fail("D1011")
	}
	if o, is := v.(*jsontree.Object); is {
		out := make([]any, 0, o.Len())
		for k, member := range ordered(o).All() {
			out = append(out, jsontree.Of(k, member))
		}
		return &array{items: out, sequence: true}, c.s.grow(2 * len(out))
	}
	items, is := elements(v)
	if !is {
		return v, nil
	}
	var out any = &array{sequence: true}
	var list []any // what out is once something was appended
	for _, item := range items {
		part, err := c.spread(item, depth+1)
		if err != nil {
			return nil, err
		}
		if isNothing(part) {
			continue
		}
		if more, is := elements(part); is {
			list = append(list, more...)
		} else {
			list = append(list, part)
		}
		if list == nil {
			list = []any{}
		}
		out = list
	}
	return out, c.s.grow(len(list))
}

func callMerge(c *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil {
		return nil, err
	}
	out := jsontree.NewObject(8)
	for _, item := range items {
		o, is := item.(*jsontree.Object)
		if !is {
			continue
		}
		for k, v := range ordered(o).All() {
			out.Set(k, v)
		}
		if err := c.s.grow(o.Len()); err != nil {
			return nil, err
		}
	}
	return ordered(out), nil
}

func callEach(c *Call, args []any) (any, error) {
	var out []any
	o, is := argument(args, 0).(*jsontree.Object)
	if is {
		f, err := functionArgument(args)
		if err != nil {
			return nil, err
		}
		for k, v := range ordered(o).All() {
			r, err := c.offer(f, v, k, o)
			if err != nil {
				return nil, err
			}
			if !isNothing(r) {
				out = append(out, r)
			}
		}
	}
	return &array{items: out, sequence: true}, c.s.grow(len(out))
}

func callSift(c *Call, args []any) (any, error) {
	o, is := argument(args, 0).(*jsontree.Object)
	if !is {
		return Nothing{}, nil
	}
	out := jsontree.NewObject(o.Len())
	for k, v := range ordered(o).All() {
		f, err := functionArgument(args)
		if err != nil {
			return nil, err
		}
		keep, err := c.test(f, v, k, o)
		if err != nil {
			return nil, err
		}
		if keep {
			out.Set(k, v)
		}
	}
	if out.Len() == 0 {
		return Nothing{}, nil
	}
	return out, c.s.grow(out.Len())
}

func callError(_ *Call, args []any) (any, error) {
	e := fail("D3137")
	if text, is := argument(args, 0).(string); is && text != "" {
		e.Message = text
	}
	return nil, e
}

func callAssert(_ *Call, args []any) (any, error) {
	if scriptTruth(argument(args, 0)) {
		return Nothing{}, nil
	}
	e := fail("D3141")
	if text, is := argument(args, 1).(string); is && text != "" {
		e.Message = text
	}
	return nil, e
}

func callClone(c *Call, args []any) (any, error) { return c.s.clone(argument(args, 0), nil, 0) }

// callEval evaluates a text in the frame of the call: it sees and binds its variables.
func callEval(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	input := c.input
	if focus := argument(args, 1); !isNothing(focus) {
		input = focus
		if isArray(focus) && !isSequence(focus) {
			input = &array{items: []any{focus}, sequence: true, outer: true}
		}
	}
	if err := c.s.work(len(text)); err != nil {
		return nil, err
	}
	inner, err := compile(text, options{inner: true})
	if err != nil {
		e := fail("D3120")
		e.Value, e.cause, e.Message = err.Error(), err, e.Message+": "+err.Error()
		return nil, e
	}
	v, err := c.s.eval(inner.root, input, c.frame)
	if err != nil {
		e := fail("D3121")
		e.Value, e.cause, e.Message = err.Error(), err, e.Message+": "+err.Error()
		return nil, e
	}
	return v, nil
}
