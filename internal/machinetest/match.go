package machinetest

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// Markers in what is expected: an object with one of them as its only member.
const (
	markAny    = "$any"    // true: whatever is there; or the name of a kind of value
	markRegex  = "$regex"  // a text that the regular expression (RE2) finds something in
	markJSON   = "$json"   // a text that is JSON, like this
	markSubset = "$subset" // objects may have more members than are named
	markExact  = "$exact"  // they may not
)

// maxDifferences bounds what is told of two values.
const maxDifferences = 20

// Difference is one place in which a value is not as expected.
type Difference struct {
	Path string `json:"path"` // such as $.items[0].price
	Want string `json:"want"`
	Got  string `json:"got"`
}

// differences compares a value with what is expected.
func differences(want, got any, subset bool) []Difference {
	m := &matcher{subset: subset}
	m.match("$", want, got)
	return m.found
}

type matcher struct {
	subset bool
	found  []Difference
}

func (m *matcher) differ(path, want, got string) {
	if len(m.found) < maxDifferences {
		m.found = append(m.found, Difference{path, want, got})
	}
}

func (m *matcher) match(path string, want, got any) {
	switch want := want.(type) {
	case *jsontree.Object:
		if name, v, ok := marker(want); ok {
			m.marked(path, name, v, got)
			return
		}
		o, ok := got.(*jsontree.Object)
		if !ok {
			m.differ(path, show(want), show(got))
			return
		}
		m.members(path, want, o)
	case []any:
		list, ok := got.([]any)
		if !ok {
			m.differ(path, show(want), show(got))
			return
		}
		for i := range max(len(want), len(list)) {
			at := fmt.Sprintf("%s[%d]", path, i)
			switch {
			case i >= len(list):
				m.differ(at, show(want[i]), nothing)
			case i >= len(want):
				m.differ(at, nothing, show(list[i]))
			default:
				m.match(at, want[i], list[i])
			}
		}
	default:
		if !jsontree.Equal(want, got) {
			m.differ(path, show(want), show(got))
		}
	}
}

// nothing stands for a value that is not there.
const nothing = "nothing"

func (m *matcher) members(path string, want, got *jsontree.Object) {
	for key, v := range want.All() {
		at := member(path, key)
		other, ok := got.Get(key)
		if !ok {
			m.differ(at, show(v), nothing)
			continue
		}
		m.match(at, v, other)
	}
	if m.subset {
		return
	}
	for key, v := range got.All() {
		if !want.Has(key) {
			m.differ(member(path, key), nothing, show(v))
		}
	}
}

func (m *matcher) marked(path, name string, v, got any) {
	switch name {
	case markAny:
		if kind, ok := v.(string); ok && kind != kindOf(got) {
			m.differ(path, "a value of the kind "+kind, show(got))
		}
	case markRegex:
		pattern, _ := v.(string)
		re, err := regexp.Compile(pattern)
		text, ok := got.(string)
		if err != nil || !ok || !re.MatchString(text) {
			m.differ(path, "a text like "+pattern, show(got))
		}
	case markJSON:
		text, ok := got.(string)
		parsed, err := jsontree.Parse([]byte(text))
		if !ok || err != nil {
			m.differ(path, "a text that is JSON", show(got))
			return
		}
		m.match(path, v, parsed)
	default:
		before := m.subset
		m.subset = name == markSubset
		m.match(path, v, got)
		m.subset = before
	}
}

// marker returns the only member of an object if it is a marker.
func marker(o *jsontree.Object) (name string, v any, ok bool) {
	if o.Len() != 1 {
		return "", nil, false
	}
	name, v = o.At(0)
	switch name {
	case markAny, markRegex, markJSON, markSubset, markExact:
		return name, v, true
	}
	return "", nil, false
}

// badMarker says what is wrong with a marker in what is expected, and where; empty if nothing is.
func badMarker(path string, want any) (at, why string) {
	switch want := want.(type) {
	case *jsontree.Object:
		if name, v, ok := marker(want); ok {
			return path, badMark(name, v)
		}
		for key, v := range want.All() {
			if key != "$schema" && strings.HasPrefix(key, "$") && want.Len() == 1 {
				return path + "/" + key, fmt.Sprintf("%s is no marker: %s, %s, %s, %s or %s", key, markAny, markRegex, markJSON, markSubset, markExact)
			}
			if at, why := badMarker(path+"/"+key, v); why != "" {
				return at, why
			}
		}
	case []any:
		for i, v := range want {
			if at, why := badMarker(fmt.Sprintf("%s[%d]", path, i), v); why != "" {
				return at, why
			}
		}
	}
	return "", ""
}

func badMark(name string, v any) string {
	switch name {
	case markAny:
		if kind, ok := v.(string); ok && !strings.Contains("null boolean string number array object", kind) || !ok && v != true {
			return "$any is true or a kind of value: null, boolean, string, number, array or object; not " + show(v)
		}
	case markRegex:
		pattern, ok := v.(string)
		if !ok {
			return "$regex must be a text, not " + show(v)
		}
		if _, err := regexp.Compile(pattern); err != nil {
			return "$regex is no regular expression of RE2: " + err.Error()
		}
	default:
		_, why := badMarker("", v)
		return why
	}
	return ""
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case *jsontree.Object:
		return "object"
	}
	return "number"
}

// member is the path of a member: $.name, or $["a name"].
func member(path, key string) string {
	for i := range len(key) {
		c := key[i]
		if c != '_' && (c < '0' || c > '9' || i == 0) && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return path + "[" + string(jsontree.AppendString(nil, key)) + "]"
		}
	}
	if key == "" {
		return path + `[""]`
	}
	return path + "." + key
}

// maxShown bounds a value in a message.
const maxShown = 200

// show is a value as JSON, short enough for a line.
func show(v any) string { return shorten(compact(v)) }

func compact(v any) string {
	text, err := jsontree.Append(nil, v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func shorten(text string) string {
	if len(text) <= maxShown {
		return text
	}
	return strings.ToValidUTF8(text[:maxShown-3], "") + "..."
}
