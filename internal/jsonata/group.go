package jsonata

import (
	"slices"

	"github.com/weir-dev/weir/internal/jsontree"
)

// group evaluates an object constructor: the items are grouped by what the keys are for them, and the values are evaluated
// for the groups.
func (s *state) group(n *node, input any, f *frame) (any, error) {
	items, is := elements(input)
	if !is {
		items = []any{input}
	}
	stream, tuples := input.(*array)
	tuples = tuples && stream.tuples
	if len(items) == 0 && !tuples {
		items = []any{Nothing{}}
	}
	type entry struct {
		key  string
		pair int
		data []any
		many bool
	}
	groups := make([]entry, 0, len(n.pairs))
	var index map[string]int
	find := func(key string) int {
		if index != nil {
			if i, ok := index[key]; ok {
				return i
			}
			return -1
		}
		for i := range groups {
			if groups[i].key == key {
				return i
			}
		}
		return -1
	}
	for _, item := range items {
		context, around := item, f
		if t, is := item.(*tuple); is && tuples {
			context, around = t.focus, t.frame(f)
		}
		for p := range n.pairs {
			k, err := s.eval(n.pairs[p][0], context, around)
			if err != nil {
				return nil, err
			}
			if isNothing(k) {
				continue
			}
			key, is := k.(string)
			if !is {
				e := failToken("T1003", n.pos, "")
				e.Value = k
				return nil, e
			}
			if key == "_jsonata_lambda" || key == "_jsonata_function" {
				return nil, failToken("D1013", n.pos, key)
			}
			i := find(key)
			if i < 0 {
				groups = append(groups, entry{key: key, pair: p, data: []any{item}})
				if index != nil {
					index[key] = len(groups) - 1
				} else if len(groups) == 16 {
					index = make(map[string]int, 64)
					for i := range groups {
						index[groups[i].key] = i
					}
				}
				continue
			}
			g := &groups[i]
			if g.pair != p {
				return nil, failToken("D1009", n.pos, key)
			}
			switch {
			case isNothing(item):
				continue
			case !g.many && isNothing(g.data[0]):
				g.data[0] = item
				continue
			case !g.many:
				g.many = true
				if first, is := elements(g.data[0]); is {
					g.data = slices.Clip(first)
				}
			}
			if more, is := elements(item); is {
				g.data = append(g.data, more...)
			} else {
				g.data = append(g.data, item)
			}
			if err := s.grow(1); err != nil {
				return nil, err
			}
		}
	}
	out := jsontree.NewObject(len(groups))
	for _, g := range groups { // the order in which they are evaluated is not seen
		var context any = g.data
		if !g.many {
			context = g.data[0]
		}
		around := f
		if tuples {
			t := s.reduceTuples(g.data)
			context, around = t.focus, t.frame(f)
		}
		v, err := s.eval(n.pairs[g.pair][1], context, around)
		if err != nil {
			return nil, err
		}
		if !isNothing(v) {
			out.Set(g.key, v)
		}
	}
	return ordered(out), s.grow(len(groups))
}

// reduceTuples makes one tuple of a group's: each variable is the list of its values.
func (s *state) reduceTuples(data []any) *tuple {
	var all *tuple
	for _, item := range data {
		t, is := item.(*tuple)
		if !is {
			continue
		}
		if all == nil {
			all = &tuple{focus: t.focus, vars: append([]binding(nil), t.vars...)}
			continue
		}
		all.focus = appendValue(all.focus, t.focus)
		for _, b := range t.vars {
			before, ok := any(Nothing{}), false
			for _, mine := range all.vars {
				if mine.name == b.name {
					before, ok = mine.value, true
				}
			}
			if ok {
				all.bind(b.name, appendValue(before, b.value))
			} else {
				all.bind(b.name, b.value)
			}
		}
	}
	if all == nil {
		return &tuple{focus: Nothing{}}
	}
	return all
}

// appendValue is $append.
func appendValue(a, b any) any {
	if isNothing(a) {
		return b
	}
	if isNothing(b) {
		return a
	}
	x, is := elements(a)
	if !is {
		x = []any{a}
	}
	y, is := elements(b)
	if !is {
		return append(slices.Clip(x), b)
	}
	return append(slices.Clip(x), y...)
}
