package jsonpath

import (
	"fmt"
	"slices"

	"github.com/weir-dev/weir/internal/jsontree"
)

// Set returns a copy of root that has the value at the path, which is a reference path; of what lies beside the path nothing is
// copied. Objects that are missing are made. A member of what is no object, null included, and an index that is not in an array
// are an ErrNoPlace.
func (p *Path) Set(root, value any) (any, error) {
	if !p.Reference() {
		return nil, fmt.Errorf("%w: %s", ErrNotReference, p.text)
	}
	return p.set(0, root, true, value)
}

// set returns a copy of v that has the value at steps i and after; v may be missing.
func (p *Path) set(i int, v any, there bool, value any) (any, error) {
	if i == len(p.steps) {
		return value, nil
	}
	s := &p.steps[i]
	if s.kind == index {
		list, ok := v.([]any)
		n, inside := place(s.index, len(list))
		switch {
		case !there:
			return nil, fmt.Errorf("%w: %s: there is no array", ErrNoPlace, p.text[:s.end])
		case !ok || !inside:
			return nil, fmt.Errorf("%w: %s: %s", ErrNoPlace, p.text[:s.end], s.missing(v))
		}
		inner, err := p.set(i+1, list[n], true, value)
		if err != nil {
			return nil, err
		}
		list = slices.Clone(list)
		list[n] = inner
		return list, nil
	}
	var old any
	var has bool
	made := &jsontree.Object{}
	if there {
		o, ok := v.(*jsontree.Object)
		if !ok {
			return nil, fmt.Errorf("%w: %s: %s", ErrNoPlace, p.text[:s.end], s.missing(v))
		}
		old, has = o.Get(s.name)
		made = o
	}
	inner, err := p.set(i+1, old, has, value)
	if err != nil {
		return nil, err
	}
	if there {
		made = made.Clone()
	}
	made.Set(s.name, inner)
	return made, nil
}
