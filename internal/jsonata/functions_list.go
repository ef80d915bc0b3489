package jsonata

import (
	"math"
	"slices"
)

func callSum(_ *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil {
		return nil, err
	}
	total := 0.0
	for _, item := range items {
		f, _ := number(item)
		total += f
	}
	return total, nil
}

func callCount(_ *Call, args []any) (any, error) {
	if isNothing(argument(args, 0)) {
		return 0.0, nil
	}
	items, err := listArgument(args)
	return float64(len(items)), err
}

func callMax(_ *Call, args []any) (any, error) { return extreme(args, math.Max) }

func callMin(_ *Call, args []any) (any, error) { return extreme(args, math.Min) }

func extreme(args []any, better func(a, b float64) float64) (any, error) {
	items, err := listArgument(args)
	if err != nil || len(items) == 0 {
		return Nothing{}, err
	}
	best, _ := number(items[0])
	for _, item := range items[1:] {
		f, _ := number(item)
		best = better(best, f)
	}
	return best, nil
}

func callAverage(c *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil || len(items) == 0 {
		return Nothing{}, err
	}
	total, err := callSum(c, args)
	if err != nil {
		return nil, err
	}
	f, _ := number(total)
	return f / float64(len(items)), nil
}

func callMap(c *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil {
		return nil, err
	}
	f, err := functionArgument(args)
	if err != nil {
		return nil, err
	}
	out := make([]any, 0, len(items))
	for i, item := range items {
		v, err := c.offer(f, item, float64(i), args[0])
		if err != nil {
			return nil, err
		}
		if !isNothing(v) {
			out = append(out, v)
		}
	}
	return &array{items: out, sequence: true}, c.s.grow(len(out))
}

func callFilter(c *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil {
		return nil, err
	}
	f, err := functionArgument(args)
	if err != nil {
		return nil, err
	}
	var out []any
	for i, item := range items {
		keep, err := c.test(f, item, float64(i), args[0])
		if err != nil {
			return nil, err
		}
		if keep {
			out = append(out, item)
		}
	}
	return &array{items: out, sequence: true}, c.s.grow(len(out))
}

// test is whether a function gives what is true.
func (c *Call) test(f *Function, args ...any) (bool, error) {
	v, err := c.offer(f, args...)
	if err != nil {
		return false, err
	}
	return c.s.truth(v)
}

func callSingle(c *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil {
		return nil, err
	}
	f, _ := argument(args, 1).(*Function)
	var found any
	matches := 0
	for i, item := range items {
		is := true
		if f != nil {
			if is, err = c.test(f, item, float64(i), args[0]); err != nil {
				return nil, err
			}
		}
		if !is {
			continue
		}
		if matches++; matches > 1 {
			return nil, fail("D3138")
		}
		found = item
	}
	if matches == 0 {
		return nil, fail("D3139")
	}
	return found, nil
}

func callReduce(c *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil {
		return nil, err
	}
	f, err := functionArgument(args)
	if err != nil {
		return nil, err
	}
	if f.arity < 2 {
		e := fail("D3050")
		e.Index = 1
		return nil, e
	}
	sum, from := argument(args, 2), 0
	if isNothing(sum) && len(items) > 0 {
		sum, from = items[0], 1
	}
	for i := from; i < len(items); i++ {
		given := []any{sum, items[i], float64(i), args[0]}
		if sum, err = c.invoke(f, given[:min(f.arity, 4)]...); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

func callZip(c *Call, args []any) (any, error) {
	shortest := -1
	for _, a := range args {
		items, _ := elements(a)
		if shortest < 0 || len(items) < shortest {
			shortest = len(items)
		}
	}
	out := make([]any, 0, max(shortest, 0))
	for i := range max(shortest, 0) {
		row := make([]any, len(args))
		for k, a := range args {
			items, _ := elements(a)
			row[k] = items[i]
		}
		out = append(out, row)
		if err := c.s.grow(len(args) + 1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func callAppend(c *Call, args []any) (any, error) {
	v := appendValue(argument(args, 0), argument(args, 1))
	items, _ := elements(v)
	return v, c.s.grow(len(items))
}

func callReverse(c *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil || len(items) <= 1 {
		return argument(args, 0), err
	}
	out := slices.Clone(items)
	slices.Reverse(out)
	return out, c.s.grow(len(out))
}

func callSort(c *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil || len(items) <= 1 {
		return argument(args, 0), err
	}
	if f, is := argument(args, 1).(*Function); is {
		return c.s.mergeSort(args[0], func(a, b any) (bool, error) {
			v, err := c.invoke(f, a, b)
			if err != nil {
				return false, err
			}
			return scriptTruth(v), nil
		})
	}
	numbers, err := allNumeric(items)
	if err != nil {
		return nil, err
	}
	if !numbers && !allStrings(items) {
		e := fail("D3070")
		e.Index = 1
		return nil, e
	}
	return c.s.mergeSort(args[0], func(a, b any) (bool, error) {
		order, _ := orderOf(a, b)
		return order > 0, nil
	})
}

// scriptTruth is what JavaScript takes for true, which the reference asks of a comparing function.
func scriptTruth(v any) bool {
	switch v := v.(type) {
	case nil, Nothing:
		return false
	case bool:
		return v
	case string:
		return v != ""
	}
	f, is := number(v)
	return !is || f != 0 && !math.IsNaN(f)
}

func callShuffle(c *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil || len(items) <= 1 {
		return argument(args, 0), err
	}
	out := make([]any, len(items))
	for i, item := range items {
		j := min(max(int(c.s.random()*float64(i+1)), 0), i)
		out[i] = out[j]
		out[j] = item
	}
	return out, c.s.grow(len(out))
}

func callDistinct(c *Call, args []any) (any, error) {
	items, is := elements(argument(args, 0))
	if !is || len(items) <= 1 {
		return argument(args, 0), nil
	}
	seen := map[any]bool{} // of those that can be told by themselves
	var out []any
	for _, item := range items {
		key, simple := distinctKey(item)
		if simple && seen[key] {
			continue
		}
		if simple {
			seen[key] = true
		} else if known, err := c.hasEqual(out, item); known || err != nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, item)
	}
	if err := c.s.grow(len(items)); err != nil {
		return nil, err
	}
	if isSequence(args[0]) {
		return &array{items: out, sequence: true}, nil
	}
	return out, nil
}

func distinctKey(v any) (any, bool) {
	switch v := v.(type) {
	case nil, bool, string, Nothing:
		return v, true
	}
	if f, is := number(v); is && !math.IsNaN(f) {
		return f, true
	}
	return nil, false
}

func (c *Call) hasEqual(items []any, v any) (bool, error) {
	for _, item := range items {
		if is, err := c.s.equal(v, item, 0); is || err != nil {
			return is, err
		}
	}
	return false, nil
}
