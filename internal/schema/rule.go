package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"strconv"
	"unicode/utf8"

	"github.com/weir-dev/weir/function"
)

// rule is a schema of simple keywords, compiled to be checked on the text itself, without building a value.
// It only ever says "certainly valid"; all else goes to the library, which also gives the reasons. Nearly
// every body that a gateway sees is valid and nearly every schema is simple, so this is the usual path
// (BenchmarkValidate: a fifteenth of the time of decoding and asking the library).
type rule struct {
	types    kind           // zero means any
	index    map[string]int // of the members that matter, by name
	members  []*rule        // nil means any value
	required uint64         // bit i: members[i] must be there
	closed   bool           // no other members
	minLen   int
	maxLen   int
	pattern  *regexp.Regexp // nil if none
	min, max int64
	numeric  bool // min and max are to be checked
}

// kind is a set of JSON types.
type kind uint8

const (
	kindObject kind = 1 << iota
	kindArray
	kindString
	kindInteger // a number without fraction or exponent; 1.0 is left to the library
	kindNumber
	kindBoolean
	kindNull
)

var errNotSimple = errors.New("schema: not simple")

// ruleOf returns the rule of a simple schema, nil for true and {}, or errNotSimple.
func ruleOf(schema any) (*rule, error) {
	if schema == true {
		return nil, nil //nolint:nilnil // any value
	}
	doc, ok := schema.(map[string]any)
	if !ok {
		return nil, errNotSimple
	}
	r := &rule{index: map[string]int{}, maxLen: math.MaxInt, min: math.MinInt64, max: math.MaxInt64}
	for keyword, v := range doc {
		if err := r.add(keyword, v); err != nil {
			return nil, err
		}
	}
	// A closed schema that requires what it doesn't declare accepts nothing: the library says why.
	props, _ := doc["properties"].(map[string]any)
	if len(r.members) > 64 || r.closed && len(props) < len(r.members) {
		return nil, errNotSimple
	}
	return r, nil
}

func (r *rule) add(keyword string, v any) error {
	switch keyword {
	case "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment":
		return nil
	case "$schema":
		if v == draft2020 {
			return nil
		}
	case "type":
		name, _ := v.(string) // a list of types is not simple
		r.types = map[string]kind{
			"object": kindObject, "array": kindArray, "string": kindString, "integer": kindInteger,
			"number": kindInteger | kindNumber, "boolean": kindBoolean, "null": kindNull,
		}[name]
		if r.types != 0 {
			return nil
		}
	case "properties":
		props, ok := v.(map[string]any)
		if !ok {
			return errNotSimple
		}
		for name, sub := range props {
			m, err := ruleOf(sub)
			if err != nil {
				return err
			}
			r.members[r.member(name)] = m
		}
		return nil
	case "required":
		names, ok := v.([]any)
		if !ok {
			return errNotSimple
		}
		for _, n := range names {
			name, ok := n.(string)
			if !ok {
				return errNotSimple
			}
			i := r.member(name)
			if i >= 64 {
				return errNotSimple
			}
			r.required |= 1 << i
		}
		return nil
	case "additionalProperties":
		allowed, ok := v.(bool)
		r.closed = ok && !allowed
		if ok {
			return nil
		}
	case "minLength":
		n, ok := integer(v)
		r.minLen = int(n)
		if ok {
			return nil
		}
	case "maxLength":
		n, ok := integer(v)
		r.maxLen = int(n)
		if ok {
			return nil
		}
	case "pattern":
		source, _ := v.(string)
		var err error
		if r.pattern, err = regexp.Compile(source); err == nil {
			return nil
		}
	case "minimum":
		n, ok := integer(v)
		r.min, r.numeric = n, true
		if ok {
			return nil
		}
	case "maximum":
		n, ok := integer(v)
		r.max, r.numeric = n, true
		if ok {
			return nil
		}
	}
	return errNotSimple
}

func (r *rule) member(name string) int {
	i, ok := r.index[name]
	if !ok {
		i = len(r.members)
		r.index[name] = i
		r.members = append(r.members, nil)
	}
	return i
}

// maxDigits bounds the integers that are compared here: they fit in 64 bits.
const maxDigits = 18

func integer(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok || len(n) > maxDigits {
		return 0, false
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	return i, err == nil
}

// accepts reports whether text, a whole document, is certainly valid JSON and matches.
func (r *rule) accepts(text []byte) bool {
	text = bytes.Trim(text, space)
	return len(text) > 0 && text[0] == '{' && utf8.Valid(text) && r.matches(text)
}

// matches is accepts for a value that was scanned, or an object that was not.
func (r *rule) matches(text []byte) bool {
	if r == nil {
		return true
	}
	c := text[0]
	switch {
	case c == '{':
		return r.is(kindObject) && r.object(text)
	case c == '"':
		return r.is(kindString) && r.text(text[1:len(text)-1])
	case c == '[':
		return r.is(kindArray)
	case c == 't' || c == 'f':
		return r.is(kindBoolean)
	case c == 'n':
		return r.is(kindNull)
	case bytes.ContainsAny(text, ".eE"):
		return r.is(kindNumber) && !r.numeric
	default:
		if !r.is(kindInteger) || len(text) > maxDigits {
			return false
		}
		n, err := strconv.ParseInt(string(text), 10, 64)
		return err == nil && r.min <= n && n <= r.max
	}
}

func (r *rule) is(k kind) bool { return r.types == 0 || r.types&k != 0 }

func (r *rule) object(text []byte) bool {
	var seen uint64
	err := function.Members(text, func(name, value []byte) error {
		i, known := r.index[string(name)]
		if !known {
			if r.closed {
				return errNotSimple
			}
			return nil
		}
		if seen&(1<<i) != 0 || !r.members[i].matches(value) {
			return errNotSimple
		}
		seen |= 1 << i
		return nil
	})
	return err == nil && seen&r.required == r.required
}

func (r *rule) text(raw []byte) bool {
	if bytes.IndexByte(raw, '\\') >= 0 {
		return false
	}
	if r.minLen > 0 || r.maxLen < math.MaxInt {
		if n := utf8.RuneCount(raw); n < r.minLen || n > r.maxLen {
			return false
		}
	}
	return r.pattern == nil || r.pattern.Match(raw)
}
