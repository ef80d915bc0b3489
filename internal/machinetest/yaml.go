package machinetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weir-dev/weir/internal/jsontree"
)

// yamlReader makes JSON of YAML: keys are texts, as in the core schema of YAML 1.2 yes and no are texts, too.
type yamlReader struct {
	left  int // nodes that may still be made
	depth int
}

func parseYAML(text []byte) ([]Document, error) {
	var documents []Document
	r := &yamlReader{left: maxNodes}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, yamlError(err)
		}
		v, p, err := r.value(&n)
		if err != nil {
			return nil, err
		}
		if v != nil {
			documents = append(documents, Document{v, p})
		}
	}
}

// yamlError reads the line out of "yaml: line 3: message".
func yamlError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		digits, message, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(digits); err == nil {
			return &SyntaxError{line, message}
		}
	}
	return &SyntaxError{0, text}
}

func (r *yamlReader) value(n *yaml.Node) (any, *place, error) {
	if r.left--; r.left < 0 {
		return nil, nil, &SyntaxError{n.Line, fmt.Sprintf("the file has more than %d values, with those that aliases repeat", maxNodes)}
	}
	if r.depth++; r.depth > maxDepth {
		return nil, nil, &SyntaxError{n.Line, fmt.Sprintf("more than %d values are in each other", maxDepth)}
	}
	defer func() { r.depth-- }()
	p := &place{line: n.Line}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 0 {
			return nil, p, nil
		}
		return r.value(n.Content[0])
	case yaml.AliasNode:
		v, inner, err := r.value(n.Alias)
		if err == nil {
			inner.line = n.Line
		}
		return v, inner, err
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			v, inner, err := r.value(c)
			if err != nil {
				return nil, nil, err
			}
			list, p.items = append(list, v), append(p.items, inner)
		}
		return list, p, nil
	case yaml.MappingNode:
		o := &jsontree.Object{}
		p.fields = map[string]field{}
		if err := r.members(n, o, p); err != nil {
			return nil, nil, err
		}
		return o, p, nil
	}
	v, err := scalar(n)
	p.block = n.Style&yaml.LiteralStyle != 0
	return v, p, err
}

// members reads a mapping. What is merged (<<) has no say where the mapping has a member of that name.
func (r *yamlReader) members(n *yaml.Node, o *jsontree.Object, p *place) error {
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return &SyntaxError{key.Line, "the name of a member must be a text"}
		}
		if key.Tag == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if o.Has(key.Value) {
			return &SyntaxError{key.Line, fmt.Sprintf("the name %q is there twice in one object", key.Value)}
		}
		v, inner, err := r.value(value)
		if err != nil {
			return err
		}
		o.Set(key.Value, v)
		p.fields[key.Value] = field{key.Line, inner}
	}
	for _, m := range merged {
		if err := r.merge(m, o, p); err != nil {
			return err
		}
	}
	return nil
}

func (r *yamlReader) merge(n *yaml.Node, o *jsontree.Object, p *place) error {
	v, from, err := r.value(n)
	if err != nil {
		return err
	}
	list, isList := v.([]any)
	if !isList {
		list, from = []any{v}, &place{line: n.Line, items: []*place{from}}
	}
	for i, e := range list {
		other, isObject := e.(*jsontree.Object)
		if !isObject {
			return &SyntaxError{n.Line, "<< merges objects only"}
		}
		for key, v := range other.All() {
			if !o.Has(key) {
				o.Set(key, v)
				p.fields[key] = from.items[i].fields[key]
			}
		}
	}
	return nil
}

func scalar(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		err := n.Decode(&b)
		return b, err
	case "!!int", "!!float":
		return number(n)
	default: // a timestamp is a text in JSON
		return n.Value, nil
	}
}

// number keeps the spelling of a number that is one in JSON, too.
func number(n *yaml.Node) (any, error) {
	if v, err := jsontree.Parse([]byte(n.Value)); err == nil {
		if _, ok := v.(json.Number); ok {
			return v, nil
		}
	}
	var i int64
	if n.ShortTag() == "!!int" && n.Decode(&i) == nil {
		return json.Number(strconv.FormatInt(i, 10)), nil
	}
	var f float64
	if err := n.Decode(&f); err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, &SyntaxError{n.Line, fmt.Sprintf("%s is no number of JSON", n.Value)}
	}
	return json.Number(jsontree.AppendFloat(nil, f)), nil
}
