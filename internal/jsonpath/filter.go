package jsonpath

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/jsontree"
)

// Searching a text is counted in visits by what it may cost: matchVisits for any, and one for each visitBytes of it.
const (
	matchVisits = 8
	visitBytes  = 4
)

// condition is what is in a filter.
type condition interface {
	holds(e *evaluation, item any) bool
}

type anyCondition []condition

func (c anyCondition) holds(e *evaluation, item any) bool {
	return slices.ContainsFunc(c, func(c condition) bool { return c.holds(e, item) })
}

type allConditions []condition

func (c allConditions) holds(e *evaluation, item any) bool {
	return !slices.ContainsFunc(c, func(c condition) bool { return !c.holds(e, item) })
}

type notCondition struct{ c condition }

func (c notCondition) holds(e *evaluation, item any) bool { return !c.c.holds(e, item) }

// exists holds when there is something at a path, null and false too; at an indefinite path, when it finds at least one value.
type exists struct{ query *query }

func (c exists) holds(e *evaluation, item any) bool {
	v, ok := c.query.value(e, item)
	if ok && !c.query.single && c.query.call == nil {
		list, _ := v.([]any)
		return len(list) > 0
	}
	return ok
}

type operator uint8

const (
	opEqual operator = iota
	opUnequal
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opMatch
	opIn
	opNotIn
	opSubset
	opAny
	opNone
	opAll
	opContains
	opSize
	opEmpty
)

type comparison struct {
	op          operator
	left, right operand
}

// operand is one side of a comparison, or an argument of a function.
type operand struct {
	value   any
	query   *query         // nil if it is a literal
	pattern *regexp.Regexp // nil if it is none
}

func (o *operand) get(e *evaluation, item any) (v any, ok bool) {
	if o.query == nil {
		return o.value, true
	}
	return o.query.value(e, item)
}

// value is what the query finds in a filter. A function that can't be applied gives nothing.
func (q *query) value(e *evaluation, item any) (v any, ok bool) {
	e.spend(1)
	v = e.root
	if q.relative {
		v = item
	}
	v, at := q.matches(e, v)
	if at < len(q.steps) || e.err != nil {
		return nil, false
	}
	if q.call == nil {
		return v, true
	}
	v, err := q.call.apply(e, item, v)
	return v, err == nil
}

// holds compares. What is not there equals nothing, so != holds for it and nin too; all else does not.
func (c *comparison) holds(e *evaluation, item any) bool {
	left, lok := c.left.get(e, item)
	right, rok := c.right.get(e, item)
	if e.err != nil {
		return false
	}
	there := lok && rok
	switch c.op {
	case opEqual:
		return there && e.equal(left, right)
	case opUnequal:
		return !there || !e.equal(left, right)
	case opIn:
		return there && in(e, left, right)
	case opNotIn:
		return !there || !in(e, left, right)
	case opMatch:
		return lok && e.spend(matchVisits) && matchesText(e, c.right.pattern, left)
	default:
		return there && c.related(e, left, right)
	}
}

// related compares two values that are there.
func (c *comparison) related(e *evaluation, left, right any) bool {
	switch c.op {
	case opLess, opLessEqual, opGreater, opGreaterEqual:
		n, ok := order(left, right)
		return ok && (n < 0 && (c.op == opLess || c.op == opLessEqual) ||
			n > 0 && (c.op == opGreater || c.op == opGreaterEqual) ||
			n == 0 && (c.op == opLessEqual || c.op == opGreaterEqual))
	case opContains:
		if s, ok := left.(string); ok {
			part, ok := right.(string)
			return ok && e.spend(len(s)/visitBytes) && strings.Contains(s, part)
		}
		return in(e, right, left)
	case opSize:
		n, ok := length(left)
		_, object := left.(*jsontree.Object) // Jayway: an object has no size
		want, number := jsontree.Float(right)
		return ok && !object && number && float64(n) == want
	case opEmpty:
		n, ok := length(left)
		want, boolean := right.(bool)
		return ok && boolean && (n == 0) == want
	default:
		return setRelated(e, c.op, left, right)
	}
}

// setRelated compares arrays as sets; what is no array is no set.
func setRelated(e *evaluation, op operator, left, right any) bool {
	a, ok := left.([]any)
	b, both := right.([]any)
	if !ok || !both {
		return false
	}
	if op == opAll { // all of the right are in the left
		a, b, op = b, a, opSubset
	}
	for _, v := range a {
		found := in(e, v, b)
		switch {
		case op == opSubset && !found, op == opNone && found:
			return false
		case op == opAny && found:
			return true
		}
	}
	return op != opAny
}

func in(e *evaluation, v, list any) bool {
	l, _ := list.([]any)
	for _, other := range l {
		if !e.spend(1) {
			return false
		}
		if e.equal(v, other) {
			return true
		}
	}
	return false
}

// equal is jsontree.Equal that counts as visits what it looks at: `$[?($ == $)]` costs the square of a document.
func (e *evaluation) equal(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) || !e.spend(len(a)) {
			return false
		}
		for i := range a {
			if !e.equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case *jsontree.Object:
		b, ok := b.(*jsontree.Object)
		if !ok || a.Len() != b.Len() || !e.spend(a.Len()) {
			return false
		}
		for i := range a.Len() {
			name, v := a.At(i)
			if other, ok := b.Get(name); !ok || !e.equal(v, other) {
				return false
			}
		}
		return true
	}
	return jsontree.Equal(a, b)
}

// matchesText reports whether the text of v, or of one of its elements, matches. Jayway takes what has no text for ""; here it never
// matches.
func matchesText(e *evaluation, re *regexp.Regexp, v any) bool {
	switch v := v.(type) {
	case string:
		return e.spend(len(v)/visitBytes) && re.MatchString(v)
	case json.Number:
		return re.MatchString(string(v))
	case float64:
		return re.Match(jsontree.AppendFloat(nil, v))
	case bool:
		return re.MatchString(strconv.FormatBool(v))
	case []any:
		return slices.ContainsFunc(v, func(v any) bool {
			_, list := v.([]any)
			return !list && e.spend(matchVisits) && matchesText(e, re, v)
		})
	}
	return false
}

// order compares two numbers or two strings; other values, and a string with a number, have no order.
func order(a, b any) (int, bool) {
	if s, ok := a.(string); ok {
		t, ok := b.(string)
		return strings.Compare(s, t), ok
	}
	if m, ok := integer(a); ok {
		if n, ok := integer(b); ok { // exact, where a float64 is not
			return compare(m, n), true
		}
	}
	x, ok := jsontree.Float(a)
	y, both := jsontree.Float(b)
	return compare(x, y), ok && both
}

func compare[T int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func integer(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	return i, err == nil
}

// length is that of a string in characters, of an array, of an object.
func length(v any) (int, bool) {
	switch v := v.(type) {
	case string:
		return utf8.RuneCountInString(v), true
	case []any:
		return len(v), true
	case *jsontree.Object:
		return v.Len(), true
	}
	return 0, false
}
