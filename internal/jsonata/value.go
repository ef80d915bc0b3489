package jsonata

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"

	"github.com/weir-dev/weir/internal/jsontree"
)

// array is a list with what the reference notes at a list; one that has none of it is a []any.
type array struct {
	items    []any
	sequence bool // of one item it is that item, of none it is nothing
	keep     bool // but stays an array of one item
	cons     bool // made by an array constructor of a path: not flattened
	outer    bool // holds the input, which is an array
	tuples   bool // the items are *tuple
}

// tuple is an item of a path that binds variables: the context and what is bound so far.
type tuple struct {
	focus any
	vars  []binding
}

func (t *tuple) bind(name string, v any) {
	for i := range t.vars {
		if t.vars[i].name == name {
			t.vars[i].value = v
			return
		}
	}
	t.vars = append(t.vars, binding{name, v})
}

// object is the tuple as the reference shows it to where it is taken for a value.
func (t *tuple) object() *jsontree.Object {
	o := jsontree.NewObject(1 + len(t.vars))
	o.Set("@", t.focus)
	for _, b := range t.vars {
		o.Set(b.name, b.value)
	}
	return o
}

func isNothing(v any) bool {
	_, is := v.(Nothing)
	return is
}

// elements are the items of an array.
func elements(v any) (items []any, is bool) {
	switch v := v.(type) {
	case []any:
		return v, true
	case *array:
		return v.items, true
	}
	return nil, false
}

func isArray(v any) bool {
	switch v.(type) {
	case []any, *array:
		return true
	}
	return false
}

func isSequence(v any) bool {
	a, is := v.(*array)
	return is && a.sequence
}

// number is the number that v is. As with JavaScript, the input's numbers are those of float64.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case json.Number:
		return parsedNumber(v), true
	}
	return 0, false
}

func parsedNumber(n json.Number) float64 {
	if len(n) <= 15 { // most are small integers
		var i int64
		for k := range len(n) {
			c := n[k]
			if c < '0' || c > '9' {
				f, _ := jsontree.Float(n)
				return f
			}
			i = i*10 + int64(c-'0')
		}
		return float64(i)
	}
	f, _ := jsontree.Float(n)
	return f
}

// numeric is number for where the reference refuses the infinite ones (and does not take NaN for a number).
func numeric(v any) (float64, bool, error) {
	f, is := number(v)
	if !is || math.IsNaN(f) {
		return f, false, nil
	}
	if math.IsInf(f, 0) {
		return f, false, failValue("D1001", f)
	}
	return f, true, nil
}

func allNumeric(items []any) (bool, error) {
	all := true
	for _, item := range items {
		_, is, err := numeric(item)
		if err != nil {
			return false, err
		}
		all = all && is
	}
	return all, nil
}

func allStrings(items []any) bool {
	for _, item := range items {
		if _, is := item.(string); !is {
			return false
		}
	}
	return true
}

// symbol is the letter of a value's type in signatures.
func symbol(v any) byte {
	switch v.(type) {
	case nil:
		return 'l'
	case string:
		return 's'
	case float64, json.Number:
		return 'n'
	case bool:
		return 'b'
	case []any, *array:
		return 'a'
	case *Function:
		return 'f'
	case Nothing:
		return 'm'
	}
	return 'o'
}

// truth is the effective boolean value; nothing is false.
func (s *state) truth(v any) (bool, error) { return s.truthAt(v, 0) }

func (s *state) truthAt(v any, depth int) (bool, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case string:
		return v != "", nil
	case float64, json.Number:
		f, is, err := numeric(v)
		return is && f != 0, err
	case *jsontree.Object:
		return v.Len() > 0, nil
	case *tuple:
		return true, nil
	}
	items, is := elements(v)
	if !is || len(items) == 0 {
		return false, nil
	}
	if depth > maxData {
		return false, fail("D1011")
	}
	any := false
	for _, item := range items {
		if err := s.work(1); err != nil {
			return false, err
		}
		is, err := s.truthAt(item, depth+1)
		if err != nil {
			return false, err
		}
		any = any || is
	}
	return any, nil
}

// maxData is how deep data may nest where it is gone through. Documents are not deeper (jsontree.Parse stops at 10,000), but
// an expression can make arrays of arrays without end.
const maxData = 10_100

// same reports whether a and b are one value, as === does.
func same(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, is := b.([]any)
		return is && len(a) == len(b) && len(a) > 0 && &a[0] == &b[0]
	case float64, json.Number:
		x, _ := number(a)
		y, is := number(b)
		return is && x == y
	}
	if _, is := b.([]any); is {
		return false
	}
	return a == b
}

// equal reports whether a and b are deeply equal; the order of members does not count.
func (s *state) equal(a, b any, depth int) (bool, error) {
	if depth > maxData {
		return false, fail("D1011")
	}
	if err := s.work(1); err != nil {
		return false, err
	}
	if x, is := elements(a); is {
		y, is := elements(b)
		if !is || len(x) != len(y) {
			return false, nil
		}
		for i := range x {
			if eq, err := s.equal(x[i], y[i], depth+1); !eq {
				return false, err
			}
		}
		return true, nil
	}
	x, is := a.(*jsontree.Object)
	if !is {
		return same(a, b), nil
	}
	y, is := b.(*jsontree.Object)
	if !is || x.Len() != y.Len() {
		return false, nil
	}
	if x == y {
		return true, nil
	}
	for k, v := range x.All() {
		other, has := y.Get(k)
		if !has {
			return false, nil
		}
		if eq, err := s.equal(v, other, depth+1); !eq {
			return false, err
		}
	}
	return true, nil
}

// arrayIndex reports whether a key is one of those that JavaScript puts first, in the order of the numbers.
func arrayIndex(key string) (uint64, bool) {
	if key == "" || len(key) > 10 || key[0] < '0' || key[0] > '9' || key[0] == '0' && len(key) > 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(key, 10, 32)
	return n, err == nil && n < math.MaxUint32
}

// ordered is the object with its members in JavaScript's order: the object itself if they are.
func ordered(o *jsontree.Object) *jsontree.Object {
	in, last, names := true, -1, false
	for i := range o.Len() {
		key, _ := o.At(i)
		n, is := arrayIndex(key)
		if !is {
			names = true
			continue
		}
		if names || int(n) < last {
			in = false
			break
		}
		last = int(n)
	}
	if in {
		return o
	}
	keys := make([]string, 0, o.Len())
	for k := range o.All() {
		keys = append(keys, k)
	}
	slices.SortStableFunc(keys, func(a, b string) int {
		x, first := arrayIndex(a)
		y, second := arrayIndex(b)
		switch {
		case first && second:
			return int(x) - int(y)
		case first:
			return -1
		case second:
			return 1
		}
		return 0
	})
	c := jsontree.NewObject(len(keys))
	for _, k := range keys {
		v, _ := o.Get(k)
		c.Set(k, v)
	}
	return c
}

// export makes of an inner value one of package jsontree. What is one already is shared, not copied.
func (s *state) export(v any, depth int) (any, error) {
	if depth > maxData {
		return nil, fail("D1011")
	}
	if err := s.work(1); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case string:
		return wellFormed(v), nil
	case json.Number:
		if depth > 0 && isCanonical(string(v)) {
			return v, nil
		}
		return parsedNumber(v), nil
	case []any:
		return s.exportItems(v, true, depth)
	case *array:
		return s.exportItems(v.items, false, depth)
	case *tuple:
		return s.export(v.object(), depth)
	case *jsontree.Object:
		return s.exportObject(v, depth)
	case Nothing, *Function:
		return nil, nil
	}
	return v, nil
}

func (s *state) exportItems(items []any, shared bool, depth int) (any, error) {
	out := items
	copied := !shared
	if copied {
		out = slices.Clone(items)
	}
	for i, item := range items {
		v, err := s.export(item, depth+1)
		if err != nil {
			return nil, err
		}
		if identical(v, item) {
			continue
		}
		if !copied {
			out, copied = slices.Clone(items), true
		}
		out[i] = v
	}
	if out == nil {
		out = []any{}
	}
	return out, nil
}

func (s *state) exportObject(o *jsontree.Object, depth int) (any, error) {
	o = ordered(o)
	var out *jsontree.Object // nil while nothing had to be changed
	for i := range o.Len() {
		key, value := o.At(i)
		name := wellFormed(key)
		v, err := s.export(value, depth+1)
		if err != nil {
			return nil, err
		}
		_, function := value.(*Function)
		if out == nil && (function || len(name) != len(key) || name != key || !identical(v, value)) {
			out = jsontree.NewObject(o.Len())
			for j := range i {
				k, w := o.At(j)
				out.Set(k, w)
			}
		}
		if out != nil && !function {
			out.Set(name, v)
		}
	}
	if out == nil {
		return o, nil
	}
	return out, nil
}

// identical reports whether an export left the value as it was.
func identical(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, is := b.([]any)
		return is && len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
	case json.Number:
		_, is := b.(json.Number)
		return is
	case float64:
		_, is := b.(float64)
		return is
	}
	switch b.(type) {
	case []any, *array, *Function, Nothing:
		return false
	}
	return a == b
}

// isCanonical reports whether a number's text is an integer as JavaScript writes it.
func isCanonical(text string) bool {
	digits := text
	if digits != "" && digits[0] == '-' {
		digits = digits[1:]
	}
	if digits == "" || len(digits) > 15 || digits[0] == '0' && len(text) > 1 {
		return false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	return true
}
