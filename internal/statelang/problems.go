package statelang

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/spelling"
)

// Problem is one mistake of a definition.
type Problem struct {
	Path    string `json:"path"` // of the field, such as /States/Pay/Next
	Message string `json:"message"`
}

// String is the problem for people.
func (p Problem) String() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Path + ": " + p.Message
}

// Problems is all mistakes of a definition, in the order of the definition. It is the error of Parse.
type Problems []Problem //nolint:errname // it is what people read, and an error besides

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// node is one object of a definition while it is read. What is asked for is known; the rest are mistakes.
type node struct {
	p     *parser
	path  string
	obj   *jsontree.Object
	known []string
}

func (n *node) at(field string) string { return n.path + "/" + field }

func (n *node) problem(field, format string, args ...any) {
	path := n.path
	if field != "" {
		path = n.at(field)
	}
	n.p.problems = append(n.p.problems, Problem{path, fmt.Sprintf(format, args...)})
}

// get returns a field, and knows it from now on.
func (n *node) get(field string) (any, bool) {
	n.known = append(n.known, field)
	return n.obj.Get(field)
}

func (n *node) has(field string) bool {
	n.known = append(n.known, field)
	return n.obj.Has(field)
}

// text is a field that must be a text if it is there.
func (n *node) text(field string) (string, bool) {
	v, ok := n.get(field)
	if !ok {
		return "", false
	}
	s, isText := v.(string)
	if !isText {
		n.problem(field, "must be a text, not %s", kindOf(v))
	}
	return s, isText
}

func (n *node) boolean(field string) bool {
	v, ok := n.get(field)
	if !ok {
		return false
	}
	b, isBool := v.(bool)
	if !isBool {
		n.problem(field, "must be true or false, not %s", kindOf(v))
	}
	return b
}

// whole is a field that must be an integer of at least least and at most most.
func (n *node) whole(field string, least, most int64) (int64, bool) {
	v, ok := n.get(field)
	if !ok {
		return 0, false
	}
	i, isWhole := wholeNumber(v)
	if !isWhole || i < least || i > most {
		n.problem(field, "must be a whole number from %d to %d, not %s", least, most, shown(v))
		return 0, false
	}
	return i, true
}

// child is a field that must be an object.
func (n *node) child(field string) (*node, bool) {
	v, ok := n.get(field)
	if !ok {
		return nil, false
	}
	return n.p.node(n.at(field), v)
}

// children is a field that must be an array of objects.
func (n *node) children(field string) ([]*node, bool) {
	v, ok := n.get(field)
	if !ok {
		return nil, false
	}
	list, isList := v.([]any)
	if !isList {
		n.problem(field, "must be an array, not %s", kindOf(v))
		return nil, true
	}
	var nodes []*node
	for i, e := range list {
		if c, ok := n.p.node(fmt.Sprintf("%s[%d]", n.at(field), i), e); ok {
			nodes = append(nodes, c)
		}
	}
	return nodes, true
}

// oneOf reports a mistake if more than one of the fields is there.
func (n *node) oneOf(fields ...string) {
	var there []string
	for _, f := range fields {
		if n.obj.Has(f) {
			there = append(there, f)
		}
	}
	if len(there) > 1 {
		n.problem("", "may have only one of %s", strings.Join(there, " and "))
	}
}

// end reports what nobody has asked for.
func (n *node) end(of string) {
	for field := range n.obj.All() {
		if !slices.Contains(n.known, field) && field != "Comment" {
			n.problem(field, "is no field of %s%s", of, nearest(field, n.known))
		}
	}
	if v, ok := n.obj.Get("Comment"); ok {
		if _, isText := v.(string); !isText {
			n.problem("Comment", "must be a text, not %s", kindOf(v))
		}
	}
}

// nearest is a hint at the field that may have been meant.
func nearest(field string, known []string) string {
	best, name := min(3, 1+len(field)/3), ""
	for _, k := range known {
		if len(field)-len(k) >= best || len(k)-len(field) >= best {
			continue // as far away at least
		}
		if d := spelling.Distance(strings.ToLower(field), strings.ToLower(k)); d < best {
			best, name = d, k
		}
	}
	if name == "" {
		return ""
	}
	return ": is " + name + " meant?"
}

// shown is a value as people may see it: short.
func shown(v any) string {
	text, err := jsontree.Append(nil, v)
	if err != nil {
		return kindOf(v)
	}
	if len(text) > 60 {
		return strings.ToValidUTF8(string(text[:57]), "") + "..."
	}
	return string(text)
}
