package table

import (
	"cmp"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// An attribute value is a *jsontree.Object of one member: its type's name, and what the value is of that type.
const (
	typeS    = "S"
	typeN    = "N"
	typeB    = "B"
	typeBOOL = "BOOL"
	typeNULL = "NULL"
	typeM    = "M"
	typeL    = "L"
	typeSS   = "SS"
	typeNS   = "NS"
	typeBS   = "BS"
)

func isType(name string) bool {
	switch name {
	case typeS, typeN, typeB, typeBOOL, typeNULL, typeM, typeL, typeSS, typeNS, typeBS:
		return true
	}
	return false
}

// take takes an attribute value apart. What is none, such as a missing one, has no type.
func take(v *jsontree.Object) (typ string, content any) {
	if v == nil || v.Len() != 1 {
		return "", nil
	}
	return v.At(0)
}

func number(d decimal) *jsontree.Object { return jsontree.Of(typeN, d.String()) }

const nestedTooDeep = "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"

// canonicalItem checks an item, or a key, and is it in canonical form.
func canonicalItem(item *jsontree.Object) (*jsontree.Object, error) {
	out := jsontree.NewObject(item.Len())
	for name, v := range item.All() {
		c, err := canonical(v, 1)
		if err != nil {
			return nil, err
		}
		out.Set(name, c)
	}
	return out, nil
}

// canonical checks an attribute value, and is it in canonical form; it is a value within level-1 others.
func canonical(v any, level int) (*jsontree.Object, error) {
	if level > maxNesting {
		return nil, invalid(nestedTooDeep)
	}
	o, ok := v.(*jsontree.Object)
	if !ok {
		return nil, &Error{Serialization, `an attribute's value is an object of its type and its content, such as {"S": "text"}`}
	}
	var out *jsontree.Object
	for typ, content := range o.All() {
		if content == nil || !isType(typ) {
			continue
		}
		c, err := canonicalContent(typ, content, level)
		if err != nil {
			return nil, err
		}
		if out != nil {
			return nil, invalid("Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes")
		}
		out = jsontree.Of(typ, c)
	}
	if out == nil {
		return nil, invalid("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
	}
	return out, nil
}

func canonicalContent(typ string, content any, level int) (any, error) {
	switch typ {
	case typeS:
		return text(typ, content)
	case typeN:
		s, err := text(typ, content)
		if err != nil {
			return nil, err
		}
		d, err := parseNumber(s)
		return d.String(), err
	case typeB:
		return blob(typ, content)
	case typeBOOL:
		if _, ok := content.(bool); !ok {
			return nil, mustBe(typ, "a BOOLEAN")
		}
		return content, nil
	case typeNULL: // since 2026, DynamoDB takes false for true
		if _, ok := content.(bool); !ok {
			return nil, mustBe(typ, "a BOOLEAN")
		}
		return true, nil
	case typeM:
		m, ok := content.(*jsontree.Object)
		if !ok {
			return nil, mustBe(typ, "an OBJECT")
		}
		out := jsontree.NewObject(m.Len())
		for name, v := range m.All() {
			c, err := canonical(v, level+1)
			if err != nil {
				return nil, err
			}
			out.Set(name, c)
		}
		return out, nil
	case typeL:
		list, ok := content.([]any)
		if !ok {
			return nil, mustBe(typ, "a LIST")
		}
		out := make([]any, len(list))
		for i, v := range list {
			c, err := canonical(v, level+1)
			if err != nil {
				return nil, err
			}
			out[i] = c
		}
		return out, nil
	default:
		return canonicalSet(typ, content)
	}
}

// mustBe is Step Functions' complaint about a member of another type.
func mustBe(member, what string) error {
	return &Error{Serialization, "The value for the field '" + member + "' must be " + what}
}

func text(member string, v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", mustBe(member, "a STRING")
	}
	return s, nil
}

func blob(member string, v any) (string, error) {
	s, err := text(member, v)
	if err != nil {
		return "", err
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", &Error{Serialization, "The value for the field '" + member + "' must be base64: " + err.Error()}
	}
	return base64.StdEncoding.EncodeToString(b), nil
}

func canonicalSet(typ string, content any) (any, error) {
	list, ok := content.([]any)
	if !ok {
		return nil, mustBe(typ, "a LIST")
	}
	if len(list) == 0 {
		switch typ {
		case typeSS:
			return nil, invalid(invalidParameter + "An string set  may not be empty")
		case typeNS:
			return nil, invalid(invalidParameter + "An number set  may not be empty")
		default:
			return nil, invalid(invalidParameter + "Binary sets should not be empty")
		}
	}
	out := make([]any, len(list))
	seen := make(map[string]bool, len(list))
	for i, v := range list {
		s, err := element(typ, v)
		if err != nil {
			return nil, err
		}
		out[i] = s
		seen[s] = true
	}
	if len(seen) == len(list) {
		return out, nil
	}
	all := make([]string, len(list))
	for i, v := range list {
		all[i], _ = v.(string)
	}
	switch typ {
	case typeSS:
		return nil, invalid(invalidParameter+"Input collection [%s] contains duplicates.", strings.Join(all, ", "))
	case typeNS:
		return nil, invalid("Input collection contains duplicates")
	default:
		return nil, invalid(invalidParameter+"Input collection [%s]of type BS contains duplicates.", strings.Join(all, ", "))
	}
}

func element(typ string, v any) (string, error) {
	switch typ {
	case typeSS:
		s, err := text(typ, v)
		if err == nil && s == "" {
			err = invalid(invalidParameter + "An string set may not have a empty string as a member")
		}
		return s, err
	case typeNS:
		s, err := text(typ, v)
		if err != nil {
			return "", err
		}
		d, err := parseNumber(s)
		return d.String(), err
	default:
		s, err := blob(typ, v)
		if err == nil && s == "" {
			err = invalid(invalidParameter + "Binary sets may not contain null or empty values")
		}
		return s, err
	}
}

// equal reports whether two attribute values are the same: of one type, sets whatever their order. A missing one equals nothing.
func equal(a, b *jsontree.Object) bool {
	typ, x := take(a)
	other, y := take(b)
	if typ == "" || typ != other {
		return false
	}
	switch typ {
	case typeM:
		m, n := object(x), object(y)
		if m == nil || n == nil || m.Len() != n.Len() {
			return false
		}
		for name, v := range m.All() {
			if w, ok := n.Get(name); !ok || !equal(object(v), object(w)) {
				return false
			}
		}
		return true
	case typeL:
		l, _ := x.([]any)
		m, _ := y.([]any)
		return slices.EqualFunc(l, m, func(v, w any) bool { return equal(object(v), object(w)) })
	case typeSS, typeNS, typeBS:
		l, _ := x.([]any)
		m, _ := y.([]any)
		if len(l) != len(m) {
			return false
		}
		has := keysOf(typ, l)
		return !slices.ContainsFunc(m, func(v any) bool { return !has[elementKey(typ, v)] })
	default:
		return elementKey(typ, x) == elementKey(typ, y)
	}
}

// elementKey is the same for equal contents of a type that has no parts, or for equal elements of a set.
func elementKey(typ string, v any) any {
	if s, ok := v.(string); ok && (typ == typeN || typ == typeNS) { // an item that somebody else has written may not be canonical
		if d, err := parseNumber(s); err == nil {
			return d
		}
	}
	switch v.(type) {
	case string, bool:
		return v
	}
	return nil
}

func keysOf(setType string, list []any) map[any]bool {
	keys := make(map[any]bool, len(list))
	for _, v := range list {
		keys[elementKey(setType, v)] = true
	}
	return keys
}

// order compares two texts, two numbers or two binaries; nothing else has an order.
func order(a, b *jsontree.Object) (n int, ok bool) {
	typ, x := take(a)
	other, y := take(b)
	s, isText := x.(string)
	t, isTextToo := y.(string)
	if typ != other || !isText || !isTextToo {
		return 0, false
	}
	switch typ {
	case typeS:
		return strings.Compare(s, t), true
	case typeN:
		d, err := parseNumber(s)
		e, bad := parseNumber(t)
		return d.compare(e), cmp.Or(err, bad) == nil
	case typeB:
		return strings.Compare(bytesOf(s), bytesOf(t)), true
	}
	return 0, false
}

// bytesOf are the bytes of a canonical binary.
func bytesOf(base64Text string) string {
	b, err := base64.StdEncoding.DecodeString(base64Text)
	if err != nil {
		return ""
	}
	return string(b)
}

// itemSize is an item's size as DynamoDB counts it, in bytes.
func itemSize(item *jsontree.Object) int {
	n := 0
	for name, v := range item.All() {
		n += len(name) + valueSize(object(v))
	}
	return n
}

func valueSize(v *jsontree.Object) int {
	typ, content := take(v)
	switch typ {
	case typeM:
		n := 3
		if m := object(content); m != nil {
			n += m.Len() + itemSize(m)
		}
		return n
	case typeL:
		list, _ := content.([]any)
		n := 3 + len(list)
		for _, e := range list {
			n += valueSize(object(e))
		}
		return n
	case typeSS, typeNS, typeBS:
		list, _ := content.([]any)
		n := 0
		for _, e := range list {
			n += textSize(typ[:1], e)
		}
		return n
	default:
		return textSize(typ, content)
	}
}

func textSize(typ string, content any) int {
	s, ok := content.(string)
	switch {
	case !ok: // BOOL, NULL
		return 1
	case typ == typeN:
		d, err := parseNumber(s)
		if err != nil {
			return len(s)
		}
		return d.size()
	case typ == typeB:
		return len(bytesOf(s))
	}
	return len(s)
}

// nesting is how many values are within each other in the item, the innermost counted.
func nesting(v *jsontree.Object) int {
	typ, content := take(v)
	deepest := 0
	switch typ {
	case typeM:
		if m := object(content); m != nil {
			for _, e := range m.All() {
				deepest = max(deepest, nesting(object(e)))
			}
		}
	case typeL:
		list, _ := content.([]any)
		for _, e := range list {
			deepest = max(deepest, nesting(object(e)))
		}
	}
	return deepest + 1
}
