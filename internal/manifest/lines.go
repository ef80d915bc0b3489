package manifest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v2"
)

// node holds the lines of a YAML document's nodes. The values themselves come from sigs.k8s.io/yaml, as
// in kubectl; this tree only answers "on which line is spec.routes[0].match".
//
// sigs.k8s.io/yaml reads with yaml v2, which has no public node type. It does call Unmarshaler for every
// node, and names the line in its type errors: see lineOf. Reading both times with the same parser keeps
// the two views of a document from differing; TestLines holds it to what v2 says.
type node struct {
	line   int    // from 1
	odd    string // the text of a scalar that only YAML 1.1 takes for true or false, such as yes
	fields map[string]fieldNode
	items  []*node
}

type fieldNode struct {
	line  int // of the key
	odd   bool
	value *node
}

// UnmarshalYAML records the node's line and its children.
func (n *node) UnmarshalYAML(unmarshal func(any) error) error {
	line, err := lineOf(unmarshal)
	if err != nil {
		return err
	}
	n.line = line

	// The key is a pointer, so that a duplicate key doesn't hide the other one's line.
	var fields map[*keyNode]*node
	if err := unmarshal(&fields); err == nil {
		n.fields = make(map[string]fieldNode, len(fields))
		for k, v := range fields {
			if k == nil { // a null key
				continue
			}
			if prev, ok := n.fields[k.name]; !ok || k.line > prev.line {
				n.fields[k.name] = fieldNode{line: k.line, odd: k.odd, value: v}
			}
		}
		return nil
	} else if !isTypeError(err) {
		return err
	}
	err = unmarshal(&n.items)
	if err == nil || !isTypeError(err) {
		return err
	}
	var text string
	if err := unmarshal(&text); err == nil && oddBool(text, unmarshal) {
		n.odd = text
	}
	return nil
}

// oddBool reports whether a scalar is a boolean by its text to YAML 1.1 alone, and not in quotes.
func oddBool(text string, unmarshal func(any) error) bool {
	switch strings.ToLower(text) {
	case "y", "n", "yes", "no", "on", "off":
	default:
		return false
	}
	var v any
	err := unmarshal(&v)
	_, is := v.(bool)
	return err == nil && is
}

// odds calls f with the path and text of each such key and value below n.
func (n *node) odds(path string, f func(line int, path, text string)) {
	if n == nil {
		return
	}
	if n.odd != "" {
		f(n.line, path, n.odd)
	}
	for name, field := range n.fields {
		if field.odd {
			f(field.line, path+"."+name, name)
		}
		field.value.odds(path+"."+name, f)
	}
	for i, item := range n.items {
		item.odds(fmt.Sprintf("%s[%d]", path, i), f)
	}
}

type keyNode struct {
	line int
	name string
	odd  bool
}

// UnmarshalYAML records the key's line and text.
func (k *keyNode) UnmarshalYAML(unmarshal func(any) error) error {
	line, err := lineOf(unmarshal)
	if err != nil {
		return err
	}
	k.line = line
	if err := unmarshal(&k.name); err != nil && !isTypeError(err) {
		return err
	}
	k.odd = oddBool(k.name, unmarshal)
	return nil
}

// lineOf decodes a node into a type that no node fits, and reads the line from the type error. An error of its own
// means that the whole document fails (an alias of itself).
func lineOf(unmarshal func(any) error) (int, error) {
	var impossible chan struct{}
	err := unmarshal(&impossible)
	if te := (*yaml.TypeError)(nil); errors.As(err, &te) && len(te.Errors) > 0 {
		line, _ := cutLine(te.Errors[0])
		return line, nil
	}
	return 0, err
}

func isTypeError(err error) bool {
	var te *yaml.TypeError
	return errors.As(err, &te)
}

// cutLine splits yaml's "line 3: message"; the line is 0 if there is none.
func cutLine(msg string) (int, string) {
	rest, ok := strings.CutPrefix(msg, "line ")
	if !ok {
		return 0, msg
	}
	digits, rest, _ := strings.Cut(rest, ": ")
	line, err := strconv.Atoi(digits)
	if err != nil {
		return 0, msg
	}
	return line, rest
}

// lineAt returns the line of the field at path, or of its nearest ancestor that the document has. Paths are those of
// Kubernetes and Knative: spec.routes[0].match, metadata.annotations[a/b] and metadata.annotations.a.dev/b. A key may
// hold dots, so the longest key that fits wins.
func (n *node) lineAt(path string) int {
	if n == nil {
		return 0
	}
	line := n.line
	for n != nil && path != "" {
		if inner, rest, ok := cutIndex(path); ok {
			if i, err := strconv.Atoi(inner); err == nil && i >= 0 && i < len(n.items) {
				n = n.items[i]
				if n != nil {
					line = n.line
				}
			} else if f, ok := n.fields[inner]; ok {
				n, line = f.value, f.line
			} else {
				return line
			}
			path = strings.TrimPrefix(rest, ".")
			continue
		}
		f, rest, ok := n.longestField(path)
		if !ok {
			return line
		}
		n, line, path = f.value, f.line, strings.TrimPrefix(rest, ".")
	}
	return line
}

// item returns the item at index i of a list field; of one that is null, a node with the field's line.
func (n *node) item(field string, i int) *node {
	if n == nil {
		return nil
	}
	f := n.fields[field]
	if f.value != nil && i < len(f.value.items) && f.value.items[i] != nil {
		return f.value.items[i]
	}
	return &node{line: f.line}
}

// cutIndex splits "[inner]rest".
func cutIndex(path string) (inner, rest string, ok bool) {
	if !strings.HasPrefix(path, "[") {
		return "", "", false
	}
	return strings.Cut(path[1:], "]")
}

func (n *node) longestField(path string) (best fieldNode, rest string, ok bool) {
	for end := len(path); end > 0; end-- {
		if end < len(path) && path[end] != '.' && path[end] != '[' {
			continue
		}
		if f, found := n.fields[path[:end]]; found {
			return f, path[end:], true
		}
	}
	return fieldNode{}, "", false
}
