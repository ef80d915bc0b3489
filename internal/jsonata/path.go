package jsonata

import (
	"math"
	"slices"
)

// path evaluates the steps of a path, each for the items that the one before it gave. From the first step on that binds
// something to an item the items are tuples.
func (s *state) path(n *node, input any, f *frame) (any, error) {
	steps := n.list
	first := steps[0]
	var in any = &array{items: []any{input}, sequence: true}
	if isArray(input) && first.kind != kindVariable {
		in = input
	}
	from := 0
	if simple := first.kind == kindVariable && first.isBare() || first.isPlain() && !isArray(input); simple && !n.keepSingleton && n.group == nil {
		v, done, err := s.names(n, input, f, &from)
		if done || err != nil {
			return v, err
		}
		in = v
	}
	var result any = Nothing{}
	var tuples any // nil before the first step that makes them
	stream := false
	for i := from; i < len(steps); i++ {
		step := steps[i]
		stream = stream || step.tuple
		var err error
		switch {
		case i == 0 && step.cons:
			result, err = s.eval(step, in, f)
		case stream:
			tuples, err = s.tupleStep(step, in, tuples, f)
		default:
			result, err = s.step(step, in, f, i == len(steps)-1)
		}
		if err != nil {
			return nil, err
		}
		if !stream && isEmpty(result) {
			break
		}
		if step.focus == "" {
			in = result
		}
	}
	if stream {
		result = Nothing{}
		switch {
		case tuples == nil:
		case n.tuple:
			result = tuples
		default:
			result = foci(tuples)
		}
	}
	if n.keepSingleton {
		result = kept(result)
	}
	if n.group != nil {
		if stream {
			result = tuples
		}
		return s.group(n.group, result, f)
	}
	return result, nil
}

// isBare reports whether a variable has nothing that makes a step of it.
func (n *node) isBare() bool {
	return n.stages == nil && n.predicates == nil && n.group == nil && !n.tuple && !n.keepArray && n.focus == "" && n.index == ""
}

// names is the short way for a variable or name and the names that follow it, as long as each gives one value that is no array:
// the most frequent paths need no sequences. done is true if that was the whole path; otherwise v is what the step *next works on.
func (s *state) names(n *node, input any, f *frame, next *int) (v any, done bool, err error) {
	steps := n.list
	if v, err = s.eval(steps[0], input, f); err != nil {
		return nil, true, err
	}
	for i := 0; ; i++ {
		last := i == len(steps)-1
		switch {
		case isNothing(v):
			return v, true, nil
		case isArray(v):
			if last && !isSequence(v) {
				return v, true, nil
			}
			*next = i + 1
			v, err = s.flat([]any{v})
			return v, last, err
		case last:
			return v, true, nil
		case i >= n.plain:
			*next = i + 1
			return &array{items: []any{v}, sequence: true}, false, nil
		}
		if v, err = s.lookup(v, steps[i+1].text); err != nil {
			return nil, true, err
		}
	}
}

func isEmpty(v any) bool {
	if items, is := elements(v); is {
		return len(items) == 0
	}
	return isNothing(v) || v == ""
}

// kept marks a result as an array even if it has one item.
func kept(result any) any {
	a, is := result.(*array)
	switch {
	case !is:
		return result
	case a.cons && !a.sequence:
		return &array{items: []any{a}, sequence: true, keep: true}
	case a.keep:
		return a
	}
	c := *a
	c.keep = true
	return &c
}

func foci(tuples any) any {
	items, _ := elements(tuples)
	out := make([]any, len(items))
	for i, item := range items {
		if t, is := item.(*tuple); is {
			out[i] = t.focus
		} else {
			out[i] = Nothing{}
		}
	}
	return &array{items: out, sequence: true}
}

// each gives the items that a step works on. A string that an array constructor's predicate left is gone through by its units, as
// the reference does.
func each(in any) []any {
	if items, is := elements(in); is {
		return items
	}
	text, is := in.(string)
	if !is {
		return nil
	}
	var items []any
	for _, u := range units(text) {
		items = append(items, textOfUnits([]uint16{u}))
	}
	return items
}

func (s *state) step(step *node, in any, f *frame, last bool) (any, error) {
	if step.kind == kindSort {
		sorted, err := s.order(step, in, f)
		if err != nil {
			return nil, err
		}
		return s.passStages(step.stages, sorted, f)
	}
	items := each(in)
	results := make([]any, 0, len(items))
	for _, item := range items {
		v, err := s.eval(step, item, f)
		if err != nil {
			return nil, err
		}
		for i := range step.stages {
			if step.stages[i].by == nil {
				continue
			}
			if v, err = s.filter(step.stages[i].by, v, f); err != nil {
				return nil, err
			}
		}
		if !isNothing(v) {
			results = append(results, v)
		}
	}
	if last && len(results) == 1 && isArray(results[0]) && !isSequence(results[0]) {
		return results[0], nil
	}
	return s.flat(results)
}

// flat is the sequence of the items, with those that are arrays replaced by their items.
func (s *state) flat(results []any) (any, error) {
	size, nested := 0, false
	for _, r := range results {
		items, is := flattened(r)
		if nested = nested || is; is {
			size += len(items)
		} else {
			size++
		}
	}
	if err := s.grow(size); err != nil {
		return nil, err
	}
	if !nested {
		return &array{items: results, sequence: true}, nil
	}
	out := make([]any, 0, size)
	for _, r := range results {
		if items, is := flattened(r); is {
			out = append(out, items...)
		} else {
			out = append(out, r)
		}
	}
	return &array{items: out, sequence: true}, nil
}

func flattened(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case *array:
		return v.items, !v.cons
	}
	return nil, false
}

// frame is the frame of the tuple's variables.
func (t *tuple) frame(parent *frame) *frame {
	return &frame{parent: parent, vars: slices.Clone(t.vars)}
}

func (s *state) tupleStep(step *node, in, tuples any, f *frame) (any, error) {
	if step.kind == kindSort {
		return s.tupleSort(step, in, tuples, f)
	}
	if tuples == nil {
		items := each(in)
		stream := make([]any, len(items))
		for i, item := range items {
			stream[i] = &tuple{focus: item}
		}
		tuples = &array{items: stream, sequence: true, tuples: true}
	}
	items, _ := elements(tuples)
	out := make([]any, 0, len(items))
	for _, item := range items {
		t, is := item.(*tuple)
		if !is {
			continue
		}
		v, err := s.eval(step, t.focus, t.frame(f))
		if err != nil {
			return nil, err
		}
		if isNothing(v) {
			continue
		}
		values, is := elements(v)
		if !is {
			values = []any{v}
		}
		stream, _ := v.(*array)
		for i, value := range values {
			out = append(out, t.next(step, value, i, stream != nil && stream.tuples))
		}
		if err := s.grow(len(values) * (1 + len(t.vars))); err != nil {
			return nil, err
		}
	}
	return s.passStages(step.stages, &array{items: out, sequence: true, tuples: true}, f)
}

// next is the tuple for one of the values that a step gave for t.
func (t *tuple) next(step *node, value any, i int, stream bool) *tuple {
	made := &tuple{focus: value, vars: make([]binding, len(t.vars), len(t.vars)+2)}
	copy(made.vars, t.vars)
	if inner, is := value.(*tuple); is && stream {
		made.focus = inner.focus
		for _, b := range inner.vars {
			made.bind(b.name, b.value)
		}
		return made
	}
	if step.focus != "" {
		made.focus = t.focus
		made.bind(step.focus, value)
	}
	if step.index != "" {
		made.bind(step.index, float64(i))
	}
	if step.ancestor != nil {
		made.bind(step.ancestor.label, t.focus)
	}
	return made
}

func (s *state) tupleSort(step *node, in, tuples any, f *frame) (any, error) {
	if tuples != nil {
		sorted, err := s.order(step, tuples, f)
		if err != nil {
			return nil, err
		}
		return s.passStages(step.stages, sorted, f)
	}
	sorted, err := s.order(step, in, f)
	if err != nil {
		return nil, err
	}
	items := each(sorted)
	stream := make([]any, len(items))
	for i, item := range items {
		stream[i] = &tuple{focus: item, vars: []binding{{step.index, float64(i)}}}
	}
	return s.passStages(step.stages, &array{items: stream, sequence: true, tuples: true}, f)
}

// passStages applies filters and index bindings to what a step gave.
func (s *state) passStages(stages []stage, v any, f *frame) (any, error) {
	for i := range stages {
		if stages[i].by != nil {
			var err error
			if v, err = s.filter(stages[i].by, v, f); err != nil {
				return nil, err
			}
			continue
		}
		items, _ := elements(v)
		for k, item := range items {
			if t, is := item.(*tuple); is {
				t.bind(stages[i].index, float64(k))
			}
		}
	}
	return v, nil
}

// filter keeps the items for which the predicate is true, or whose places it gives.
func (s *state) filter(by *node, input any, f *frame) (any, error) {
	items, is := elements(input)
	if !is {
		items = []any{input}
	}
	stream, _ := input.(*array)
	tuples := stream != nil && stream.tuples
	if by.kind == kindNumber {
		i, ok := place(by.number, len(items))
		if !ok || isNothing(items[i]) {
			return &array{sequence: true, tuples: tuples}, nil
		}
		if isArray(items[i]) {
			return items[i], nil
		}
		return &array{items: []any{items[i]}, sequence: true, tuples: tuples}, nil
	}
	var out []any
	for i, item := range items {
		context, around := item, f
		if t, is := item.(*tuple); is && tuples {
			context, around = t.focus, t.frame(f)
		}
		v, err := s.eval(by, context, around)
		if err != nil {
			return nil, err
		}
		if out, err = s.choose(out, v, item, i, len(items)); err != nil {
			return nil, err
		}
	}
	if err := s.grow(len(out)); err != nil {
		return nil, err
	}
	return &array{items: out, sequence: true, tuples: tuples}, nil
}

func (s *state) choose(out []any, v, item any, i, size int) ([]any, error) {
	if b, is := v.(bool); is {
		if b {
			out = append(out, item)
		}
		return out, nil
	}
	places, is := elements(v)
	if !is {
		places = []any{v}
	}
	all, err := allNumeric(places)
	if err != nil {
		return nil, err
	}
	if all {
		for _, p := range places {
			n, _ := number(p)
			if at, ok := place(n, size); ok && at == i {
				out = append(out, item)
			}
		}
		return out, s.work(len(places))
	}
	truth, err := s.truth(v)
	if truth {
		out = append(out, item)
	}
	return out, err
}

// order sorts by the terms of a ^(…).
func (s *state) order(step *node, in any, f *frame) (any, error) {
	stream, _ := in.(*array)
	tuples := stream != nil && stream.tuples
	return s.mergeSort(in, func(a, b any) (bool, error) {
		for _, t := range step.terms {
			x, err := s.sortKey(t.by, a, tuples, f)
			if err != nil {
				return false, err
			}
			y, err := s.sortKey(t.by, b, tuples, f)
			if err != nil {
				return false, err
			}
			order, err := orderKeys(step, x, y)
			if err != nil {
				return false, err
			}
			if order != 0 {
				swap := order > 0
				if t.descending && !isNothing(x) && !isNothing(y) {
					swap = !swap
				}
				return swap, nil
			}
		}
		return false, nil
	})
}

func (s *state) sortKey(by *node, item any, tuples bool, f *frame) (any, error) {
	if t, is := item.(*tuple); is && tuples {
		return s.eval(by, t.focus, t.frame(f))
	}
	return s.eval(by, item, f)
}

// orderKeys compares two keys; nothing comes last.
func orderKeys(step *node, x, y any) (int, error) {
	a, b := symbol(x), symbol(y)
	switch {
	case a == 'm' && b == 'm':
		return 0, nil
	case a == 'm':
		return 1, nil
	case b == 'm':
		return -1, nil
	}
	if a != 's' && a != 'n' || b != 's' && b != 'n' {
		e := failToken("T2008", step.pos, "")
		e.Value = x
		if a == 's' || a == 'n' {
			e.Value = y
		}
		return 0, e
	}
	if a != b {
		e := failToken("T2007", step.pos, "")
		e.Value = x
		return 0, e
	}
	order, comparable := orderOf(x, y)
	if !comparable {
		return 1, nil
	}
	return order, nil
}

// mergeSort sorts an array; after is true if a belongs behind b. Equal items keep their order.
func (s *state) mergeSort(in any, after func(a, b any) (bool, error)) (any, error) {
	items, is := elements(in)
	if !is || len(items) <= 1 {
		return in, nil
	}
	out := slices.Clone(items)
	if err := s.grow(len(out)); err != nil {
		return nil, err
	}
	return out, s.mergeHalves(out, make([]any, len(out)), after)
}

func (s *state) mergeHalves(items, spare []any, after func(a, b any) (bool, error)) error {
	if len(items) <= 1 {
		return nil
	}
	middle := len(items) / 2
	if err := s.mergeHalves(items[:middle], spare, after); err != nil {
		return err
	}
	if err := s.mergeHalves(items[middle:], spare, after); err != nil {
		return err
	}
	left := spare[:copy(spare, items[:middle])]
	right := items[middle:]
	for k := 0; len(left) > 0 && len(right) > 0; k++ {
		if err := s.work(1); err != nil {
			return err
		}
		swap, err := after(left[0], right[0])
		if err != nil {
			return err
		}
		if swap {
			items[k], right = right[0], right[1:]
		} else {
			items[k], left = left[0], left[1:]
		}
		if len(right) == 0 {
			copy(items[k+1:], left)
		}
	}
	return nil
}

// place is the index that a number means: rounded down, and counted from the end if it is negative.
func place(n float64, size int) (int, bool) {
	n = math.Floor(n)
	if n < 0 {
		n += float64(size)
	}
	if !(n >= 0 && n < float64(size)) {
		return 0, false
	}
	return int(n), true
}
