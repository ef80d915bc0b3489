// Package jsontree holds JSON documents in memory as they were written: members in their order, numbers with their spelling.
//
// A value is nil (null), a bool, a string, a number (json.Number as parsed, float64 as computed), a []any or an *Object.
//
// Invariants: a value that is shared is not changed any more; whoever changes one makes the copy of what lies above it. What
// Append writes, Parse reads as an equal value.
//
// May import: encoding/json's number and the standard library's coming JSON tokenizer.
package jsontree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Object is a JSON object: its members in the order in which they were first set. The zero value is empty.
type Object struct {
	members []member
	index   map[string]int // from indexFrom members on
}

type member struct {
	key   string
	value any
}

// indexFrom is the number of members from which looking through them is slower than a map.
const indexFrom = 16

// NewObject returns an empty object with room for n members.
func NewObject(n int) *Object { return &Object{members: make([]member, 0, n)} }

// Of returns an object of the keys and values that follow one another. It panics if a key is no string or its value is missing.
func Of(keysAndValues ...any) *Object {
	o := NewObject(len(keysAndValues) / 2)
	for i := 0; i < len(keysAndValues); i += 2 {
		o.Set(keysAndValues[i].(string), keysAndValues[i+1]) //nolint:forcetypeassert // as documented
	}
	return o
}

// Len is the number of members.
func (o *Object) Len() int { return len(o.members) }

// At returns the member at place i of 0 to Len-1.
func (o *Object) At(i int) (key string, value any) { return o.members[i].key, o.members[i].value }

// Get returns the member's value.
func (o *Object) Get(key string) (value any, ok bool) {
	if i := o.place(key); i >= 0 {
		return o.members[i].value, true
	}
	return nil, false
}

// Has reports whether there is such a member.
func (o *Object) Has(key string) bool { return o.place(key) >= 0 }

// Set adds a member, or changes it at its place.
func (o *Object) Set(key string, value any) {
	if i := o.place(key); i >= 0 {
		o.members[i].value = value
		return
	}
	o.members = append(o.members, member{key, value})
	switch {
	case o.index != nil:
		o.index[key] = len(o.members) - 1
	case len(o.members) >= indexFrom:
		o.reindex()
	}
}

// Delete removes a member, if it is there.
func (o *Object) Delete(key string) {
	i := o.place(key)
	if i < 0 {
		return
	}
	o.members = append(o.members[:i], o.members[i+1:]...)
	o.index = nil
	if len(o.members) >= indexFrom {
		o.reindex()
	}
}

// Clone returns a copy that has the same values.
func (o *Object) Clone() *Object {
	c := &Object{members: make([]member, len(o.members), len(o.members)+1)}
	copy(c.members, o.members)
	if o.index != nil {
		c.reindex()
	}
	return c
}

// All goes through the members in their order.
func (o *Object) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for _, m := range o.members {
			if !yield(m.key, m.value) {
				return
			}
		}
	}
}

func (o *Object) place(key string) int {
	if o.index != nil {
		if i, ok := o.index[key]; ok {
			return i
		}
		return -1
	}
	for i := range o.members {
		if o.members[i].key == key {
			return i
		}
	}
	return -1
}

func (o *Object) reindex() {
	o.index = make(map[string]int, cap(o.members))
	for i, m := range o.members {
		o.index[m.key] = i
	}
}

// MarshalJSON makes an object of this package a member of a Go struct.
func (o *Object) MarshalJSON() ([]byte, error) { return Append(nil, o) }

// errMore means that something follows the value.
var errMore = errors.New("something follows the end of the JSON value")

// Parse reads one JSON value (RFC 8259). Of members with one name the last counts. An error says where, in bytes or as a JSON
// pointer.
func Parse(text []byte) (any, error) { return parse(text, jsontext.AllowDuplicateNames(true)) }

// ParseUnique is Parse for what people write: members of one name are an error.
func ParseUnique(text []byte) (any, error) { return parse(text) }

func parse(text []byte, options ...jsontext.Options) (any, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the text is not UTF-8")
	}
	// What is invalid now are halves of surrogate pairs that are escaped; they become U+FFFD.
	d := jsontext.NewDecoder(bytes.NewReader(text), append(options, jsontext.AllowInvalidUTF8(true))...)
	v, err := value(d)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errMore
	}
	return v, nil
}

func value(d *jsontext.Decoder) (any, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return t.Bool(), nil
	case '"':
		return t.String(), nil
	case '0':
		return json.Number(t.String()), nil
	case '[':
		list := []any{}
		for d.PeekKind() != ']' {
			v, err := value(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.ReadToken()
		return list, err
	default: // '{': a token that may not stand here is an error above
		o := &Object{}
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String() // the next token replaces it
			v, err := value(d)
			if err != nil {
				return nil, err
			}
			o.Set(key, v)
		}
		_, err := d.ReadToken()
		return o, err
	}
}

// Append appends the value's JSON text, without blanks; what is no JSON value, such as an infinite number, is an error.
// Numbers that were parsed keep their spelling, others are written as ECMAScript writes them.
func Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case string:
		return AppendString(dst, v), nil
	case json.Number:
		return append(dst, v...), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return dst, fmt.Errorf("%v is no JSON number", v)
		}
		return AppendFloat(dst, v), nil
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = Append(dst, e); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case *Object:
		dst = append(dst, '{')
		for i := range v.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(AppendString(dst, v.members[i].key), ':')
			var err error
			if dst, err = Append(dst, v.members[i].value); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	default:
		return dst, fmt.Errorf("a %T is no JSON value", v)
	}
}

// AppendString appends s as a JSON string: escaped is only what must be (RFC 8785, section 3.2.2.2).
func AppendString(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return append(append(dst, s[from:]...), '"')
}

// AppendFloat appends a finite number as ECMAScript writes it (ECMA-262, Number::toString): the shortest text that is read as
// the same number.
func AppendFloat(dst []byte, f float64) []byte {
	if f == 0 {
		return append(dst, '0') // minus zero, too
	}
	if abs := math.Abs(f); abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	from := len(dst)
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	if n := len(dst); n-from >= 4 && dst[n-2] == '0' && (dst[n-3] == '-' || dst[n-3] == '+') { // e-07 is e-7
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}

// Float is the number that v is.
func Float(v any) (f float64, ok bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case json.Number:
		f, err := strconv.ParseFloat(string(v), 64)
		return f, err == nil || !math.IsNaN(f) && errors.Is(err, strconv.ErrRange) // as ECMAScript: infinite, or zero
	}
	return 0, false
}

// Equal reports whether two values are equal: numbers by what they are worth, objects whatever the order of their members.
func Equal(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !Equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case *Object:
		b, ok := b.(*Object)
		if !ok || a.Len() != b.Len() {
			return false
		}
		for k, v := range a.All() {
			if other, ok := b.Get(k); !ok || !Equal(v, other) {
				return false
			}
		}
		return true
	case json.Number, float64:
		if i, j, ok := integers(a, b); ok {
			return i == j // those, too, that are too large for a float64
		}
		x, ok := Float(a)
		y, same := Float(b)
		return ok && same && x == y
	default:
		return a == b
	}
}

// integers are two numbers that are both written as integers.
func integers(a, b any) (i, j int64, ok bool) {
	x, ok := a.(json.Number)
	y, both := b.(json.Number)
	if !ok || !both {
		return 0, 0, false
	}
	i, err := strconv.ParseInt(string(x), 10, 64)
	if err != nil {
		return 0, 0, false
	}
	j, err = strconv.ParseInt(string(y), 10, 64)
	return i, j, err == nil
}

// Size is the length of what Append writes of v, and 0 for what it refuses.
func Size(v any) int {
	switch v := v.(type) {
	case nil:
		return len("null")
	case bool:
		if v {
			return len("true")
		}
		return len("false")
	case string:
		return stringSize(v)
	case json.Number:
		return len(v)
	case float64:
		var b [32]byte
		return len(AppendFloat(b[:0], v))
	case []any:
		n := 2 + max(len(v)-1, 0)
		for _, e := range v {
			n += Size(e)
		}
		return n
	case *Object:
		n := 2 + max(len(v.members)-1, 0)
		for i := range v.members {
			n += stringSize(v.members[i].key) + 1 + Size(v.members[i].value)
		}
		return n
	}
	return 0
}

func stringSize(s string) int {
	n := len(s) + 2
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"', c == '\\', c == '\b', c == '\f', c == '\n', c == '\r', c == '\t':
			n++
		case c < ' ':
			n += len(`\u0000`) - 1
		}
	}
	return n
}

// Canonical appends a text that equal values have in common, and others don't: members sorted, numbers by what they are worth.
func Canonical(dst []byte, v any) []byte {
	switch v := v.(type) {
	case json.Number:
		if _, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return append(dst, v...)
		}
		f, _ := Float(v)
		return appendAny(dst, f)
	case float64:
		return appendAny(dst, v)
	case []any:
		dst = append(dst, '[')
		for _, e := range v {
			dst = append(Canonical(dst, e), ',')
		}
		return append(dst, ']')
	case *Object:
		sorted := slices.Clone(v.members)
		slices.SortFunc(sorted, func(a, b member) int { return strings.Compare(a.key, b.key) })
		dst = append(dst, '{')
		for _, m := range sorted {
			dst = append(AppendString(dst, m.key), ':')
			dst = append(Canonical(dst, m.value), ',')
		}
		return append(dst, '}')
	default:
		dst, _ = Append(dst, v) // of what is left nothing is refused
		return dst
	}
}

func appendAny(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strconv.AppendFloat(dst, f, 'g', -1, 64)
	}
	return AppendFloat(dst, f)
}
