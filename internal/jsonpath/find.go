package jsonpath

import (
	"fmt"

	"github.com/weir-dev/weir/internal/jsontree"
)

// lookup follows members and indices. When at is less than the number of steps, that step found nothing in v.
func lookup(steps []step, v any) (found any, at int) {
	for i := range steps {
		s := &steps[i]
		if s.kind == member {
			o, ok := v.(*jsontree.Object)
			if !ok {
				return v, i
			}
			m, ok := o.Get(s.name)
			if !ok {
				return v, i
			}
			v = m
			continue
		}
		list, ok := v.([]any)
		if !ok {
			return v, i
		}
		n, ok := place(s.index, len(list))
		if !ok {
			return v, i
		}
		v = list[n]
	}
	return v, len(steps)
}

// place is where index i, which may count from the end, is in an array of n elements.
func place(i, n int) (int, bool) {
	if i < 0 {
		i += n
	}
	return i, i >= 0 && i < n
}

// evaluation is one Find: what the paths in filters share with the whole.
type evaluation struct {
	root   any
	visits int
	err    error // an ErrTooMuch; nothing goes on after it
}

// spend counts n visits and reports whether to go on.
func (e *evaluation) spend(n int) bool {
	if e.visits += n; e.err == nil && e.visits > MaxVisits {
		e.err = fmt.Errorf("%w: more than %d values looked at", ErrTooMuch, MaxVisits)
	}
	return e.err == nil
}

// matches is what the steps find from v: one value, or the list of all. at is as lookup's.
func (q *query) matches(e *evaluation, v any) (found any, at int) {
	if q.single {
		return lookup(q.steps, v)
	}
	w := walk{evaluation: e, steps: q.steps, found: []any{}}
	w.from(0, v)
	return w.found, len(q.steps)
}

// walk collects what steps find.
type walk struct {
	*evaluation
	steps []step
	found []any
}

// from goes on at step i, in v.
func (w *walk) from(i int, v any) {
	if !w.spend(1) {
		return
	}
	if i < len(w.steps) {
		if w.steps[i].deep {
			w.descend(i, v, 0, false)
		} else {
			w.apply(i, v)
		}
		return
	}
	if len(w.found) == MaxResults {
		w.err = fmt.Errorf("%w: more than %d found", ErrTooMuch, MaxResults)
		return
	}
	w.found = append(w.found, v)
}

// descend applies step i, which has ".." before it, to v and to all that is in it, outer values first.
func (w *walk) descend(i int, v any, depth int, element bool) {
	if !w.spend(1) {
		return
	}
	if depth > MaxDepth {
		w.err = fmt.Errorf("%w: deeper than %d", ErrTooMuch, MaxDepth)
		return
	}
	o, object := v.(*jsontree.Object)
	if s := &w.steps[i]; s.kind != filter {
		w.apply(i, v)
	} else if (object || element) && s.cond.holds(w.evaluation, v) { // each once: an element is not tested again as an object
		w.from(i+1, v)
	}
	if object {
		for n := range o.Len() {
			_, m := o.At(n)
			w.descend(i, m, depth+1, false)
		}
		return
	}
	list, _ := v.([]any)
	for _, m := range list {
		w.descend(i, m, depth+1, true)
	}
}

// apply applies step i to v; where it finds nothing, that is all.
func (w *walk) apply(i int, v any) {
	s := &w.steps[i]
	switch v := v.(type) {
	case *jsontree.Object:
		switch s.kind {
		case member:
			w.member(i, v, s.name)
		case members:
			for _, name := range s.names {
				w.member(i, v, name)
			}
		case wildcard:
			for n := range v.Len() {
				_, m := v.At(n)
				w.from(i+1, m)
			}
		case filter: // Jayway: an object is tested itself
			if s.cond.holds(w.evaluation, v) {
				w.from(i+1, v)
			}
		case index, indices, slice:
		}
	case []any:
		switch s.kind {
		case index:
			w.element(i, v, s.index)
		case indices:
			for _, n := range s.list {
				w.element(i, v, n)
			}
		case slice, wildcard:
			from, to := s.bounds(len(v))
			for n := from; n < to; n++ {
				w.from(i+1, v[n])
			}
		case filter:
			for _, m := range v {
				if w.spend(1) && s.cond.holds(w.evaluation, m) {
					w.from(i+1, m)
				}
			}
		case member, members:
		}
	}
}

func (w *walk) member(i int, o *jsontree.Object, name string) {
	if v, ok := o.Get(name); ok {
		w.from(i+1, v)
	}
}

func (w *walk) element(i int, list []any, at int) {
	if n, ok := place(at, len(list)); ok {
		w.from(i+1, list[n])
	}
}

// bounds are those of a slice, or of a wildcard, in an array of n elements. A negative one counts from the end: at both sides,
// other than in Jayway, where [1:-1] finds nothing.
func (s *step) bounds(n int) (from, to int) {
	if s.kind == wildcard {
		return 0, n
	}
	from, to = s.index, s.to
	if from < 0 {
		from += n
	}
	if to < 0 {
		to += n
	}
	if s.open || to > n {
		to = n
	}
	return max(from, 0), to
}
