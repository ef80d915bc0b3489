package statelang

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
)

// rule is one of a Choice state's Choices.
type rule struct {
	next   *State
	test   test // JSONPath
	query  expr // Condition of JSONata
	output expr
	assign []assignment
}

// test is a condition in JSONPath.
type test interface {
	holds(e *env) (bool, error)
}

type and []test

func (a and) holds(e *env) (bool, error) {
	for _, t := range a {
		if ok, err := t.holds(e); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

type or []test

func (o or) holds(e *env) (bool, error) {
	for _, t := range o {
		if ok, err := t.holds(e); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

type not struct{ test test }

func (n not) holds(e *env) (bool, error) {
	ok, err := n.test.holds(e)
	return !ok && err == nil, err
}

// comparison compares a variable with a value, or with what is at another path.
type comparison struct {
	variable *pathExpr
	operator operator
	value    expr
}

func (c *comparison) holds(e *env) (bool, error) {
	v, err := c.variable.find(e)
	if c.operator.kind == isPresent {
		want, _ := c.literal()
		return (err == nil) == want, nil
	}
	if err != nil {
		return false, runtimeError("Invalid path '%s': The choice state's condition path references an invalid value.", c.variable.path)
	}
	if want, ok := c.literal(); ok && c.operator.isCheck() {
		return c.operator.check(v) == want, nil
	}
	other, err := c.value.eval(e)
	if err != nil {
		return false, err
	}
	return c.operator.compare(v, other), nil
}

func (c *comparison) literal() (value, ok bool) {
	l, isLiteral := c.value.(literal)
	if !isLiteral {
		return false, false
	}
	value, ok = l.value.(bool)
	return value, ok
}

// operator is such as NumericLessThanEquals: a kind of value, and an order.
type operator struct {
	kind  operatorKind
	order order
}

type operatorKind int

const (
	ofStrings operatorKind = iota
	ofNumbers
	ofBooleans
	ofTimestamps
	matches // StringMatches
	isNull
	isPresent
	isNumeric
	isString
	isBoolean
	isTimestamp
)

type order int

const (
	equals order = iota
	less
	lessEquals
	greater
	greaterEquals
)

// operatorOf returns the operator of a field's name; byPath if its value is a path.
func operatorOf(field string) (op operator, byPath, ok bool) {
	switch field {
	case "IsNull":
		return operator{kind: isNull}, false, true
	case "IsPresent":
		return operator{kind: isPresent}, false, true
	case "IsNumeric":
		return operator{kind: isNumeric}, false, true
	case "IsString":
		return operator{kind: isString}, false, true
	case "IsBoolean":
		return operator{kind: isBoolean}, false, true
	case "IsTimestamp":
		return operator{kind: isTimestamp}, false, true
	case "StringMatches":
		return operator{kind: matches}, false, true
	}
	field, byPath = strings.CutSuffix(field, "Path")
	for prefix, kind := range map[string]operatorKind{"String": ofStrings, "Numeric": ofNumbers, "Boolean": ofBooleans, "Timestamp": ofTimestamps} {
		rest, found := strings.CutPrefix(field, prefix)
		if !found {
			continue
		}
		if kind == ofBooleans && rest != "Equals" {
			return operator{}, false, false
		}
		for suffix, o := range map[string]order{
			"Equals": equals, "LessThan": less, "LessThanEquals": lessEquals, "GreaterThan": greater, "GreaterThanEquals": greaterEquals,
		} {
			if rest == suffix {
				return operator{kind, o}, byPath, true
			}
		}
	}
	return operator{}, false, false
}

// isCheck reports whether the operator asks for a kind of value: then it is given true or false.
func (o operator) isCheck() bool { return o.kind >= isNull }

func (o operator) check(v any) bool {
	switch o.kind {
	case isNull:
		return v == nil
	case isNumeric:
		_, ok := jsontree.Float(v)
		return ok
	case isString:
		_, ok := v.(string)
		return ok
	case isBoolean:
		_, ok := v.(bool)
		return ok
	default: // isTimestamp
		_, ok := timestamp(v)
		return ok
	}
}

// compare is false for values that are not of the operator's kind.
func (o operator) compare(a, b any) bool {
	switch o.kind {
	case ofStrings:
		x, ok := a.(string)
		y, both := b.(string)
		return ok && both && o.order.holds(strings.Compare(x, y))
	case ofNumbers:
		x, ok := jsontree.Float(a)
		y, both := jsontree.Float(b)
		return ok && both && o.order.holds(compareNumbers(a, b, x, y))
	case ofBooleans:
		x, ok := a.(bool)
		y, both := b.(bool)
		return ok && both && x == y
	case ofTimestamps:
		x, ok := timestamp(a)
		y, both := timestamp(b)
		return ok && both && o.order.holds(x.Compare(y))
	default: // matches
		x, ok := a.(string)
		y, both := b.(string)
		return ok && both && matchesPattern(x, y)
	}
}

// compareNumbers compares integers as such, whatever a float64 holds of them.
func compareNumbers(a, b any, x, y float64) int {
	if m, ok := a.(json.Number); ok {
		if n, ok := b.(json.Number); ok {
			i, err := m.Int64()
			j, bad := n.Int64()
			if err == nil && bad == nil {
				return compare(i, j)
			}
		}
	}
	return compare(x, y)
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

func (o order) holds(c int) bool {
	switch o {
	case equals:
		return c == 0
	case less:
		return c < 0
	case lessEquals:
		return c <= 0
	case greater:
		return c > 0
	default:
		return c >= 0
	}
}

// timestamp reads a timestamp of the language: RFC 3339 with a capital T, and Z or an offset.
func timestamp(v any) (time.Time, bool) {
	text, ok := v.(string)
	if !ok || !strings.Contains(text, "T") {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	return t, err == nil
}

// matchesPattern reports whether text is like the pattern, in which * is any text and \ escapes * and itself.
func matchesPattern(text, pattern string) bool {
	pieces := patternPieces(pattern)
	if len(pieces) == 1 {
		return text == pieces[0]
	}
	first, last := pieces[0], pieces[len(pieces)-1]
	if len(text) < len(first)+len(last) || !strings.HasPrefix(text, first) || !strings.HasSuffix(text, last) {
		return false
	}
	text = text[len(first) : len(text)-len(last)]
	for _, p := range pieces[1 : len(pieces)-1] {
		i := strings.Index(text, p)
		if i < 0 {
			return false
		}
		text = text[i+len(p):]
	}
	return true
}

// patternPieces splits a pattern at its stars.
func patternPieces(pattern string) []string {
	var pieces []string
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\' && i+1 < len(pattern):
			i++
			b.WriteByte(pattern[i])
		case c == '*':
			pieces = append(pieces, b.String())
			b.Reset()
		default:
			b.WriteByte(c)
		}
	}
	return append(pieces, b.String())
}
