package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weir-dev/weir/function"
)

// interest says which parts of a value a schema can see. A nil interest sees nothing: any value will do
// in its place.
type interest struct {
	all   bool                 // everything
	names bool                 // the names of all members, though not their values
	props map[string]*interest // the members that matter
	items *interest            // of an array's elements
}

const (
	draft2020 = "https://json-schema.org/draft/2020-12/schema"
	space     = " \t\r\n" // JSON's
)

// interestOf reads what a schema can see. It knows the keywords of simple schemas; at any other it gives
// up and sees everything, so that an unknown keyword costs speed, not correctness.
func interestOf(schema any) *interest {
	doc, ok := schema.(map[string]any)
	if !ok {
		return nil // true and false: the verdict doesn't depend on the value
	}
	in := &interest{props: map[string]*interest{}}
	for keyword, v := range doc {
		switch keyword {
		case "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment":
		case "$schema":
			if v != draft2020 {
				return &interest{all: true}
			}
		case "type", "required", "minItems", "maxItems",
			"minLength", "maxLength", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf":
		case "minProperties", "maxProperties":
			in.names = true
		case "properties":
			props, ok := v.(map[string]any)
			if !ok {
				return &interest{all: true}
			}
			for name, sub := range props {
				in.props[name] = interestOf(sub)
			}
		case "additionalProperties":
			if allowed, ok := v.(bool); !ok {
				return &interest{all: true}
			} else if !allowed {
				in.names = true
			}
		case "items":
			in.items = interestOf(v)
		default:
			return &interest{all: true}
		}
	}
	if required, ok := doc["required"].([]any); ok {
		for _, r := range required {
			if name, ok := r.(string); ok {
				if _, known := in.props[name]; !known {
					in.props[name] = nil // its presence matters, its value doesn't
				}
			}
		}
	}
	return in
}

// decode checks that text is one JSON value and returns what in can see of it. Objects are walked by the
// fast scanner of package function as long as only some members matter; the rest goes through jsontext.
func decode(text []byte, in *interest) (any, error) {
	if !utf8.Valid(text) { // the scanner lets it pass, as encoding/json does
		return nil, errors.New("a string is not valid UTF-8")
	}
	if text = bytes.Trim(text, space); len(text) > 0 && text[0] == '{' {
		return part(text, in)
	}
	return whole(text, in)
}

// part returns what in can see of text, which is one JSON value, whole or already scanned, without space
// around it.
func part(text []byte, in *interest) (any, error) {
	switch {
	case in == nil:
		return nil, nil //nolint:nilnil // any value will do
	case text[0] == '"' && bytes.IndexByte(text, '\\') < 0:
		return string(text[1 : len(text)-1]), nil
	case text[0] == '-' || text[0] >= '0' && text[0] <= '9':
		return json.Number(text), nil
	case text[0] != '{' || in.all:
		return whole(text, in)
	}
	out := make(map[string]any, len(in.props))
	err := function.Members(text, func(name, value []byte) error {
		sub, known := in.props[string(name)]
		if !known && !in.names {
			return nil
		}
		if _, twice := out[string(name)]; twice {
			return fmt.Errorf("the member %q is there twice", name)
		}
		v, err := part(value, sub)
		out[string(name)] = v
		return err
	})
	return out, err
}

// whole decodes with jsontext.
func whole(text []byte, in *interest) (any, error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(text)) // a *bytes.Buffer is read in place
	v, err := value(d, in)
	if err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("there is more after the value")
		}
		return nil, err
	}
	return v, nil
}

// value consumes one value. The decoder bounds the depth.
func value(d *jsontext.Decoder, in *interest) (any, error) {
	if in == nil {
		return nil, d.SkipValue()
	}
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case jsontext.KindBeginObject:
		return object(d, in)
	case jsontext.KindBeginArray:
		return array(d, in)
	case jsontext.KindString:
		return t.String(), nil
	case jsontext.KindNumber:
		return json.Number(t.String()), nil
	case jsontext.KindTrue, jsontext.KindFalse:
		return t.Bool(), nil
	default:
		return nil, nil //nolint:nilnil // JSON's null
	}
}

func object(d *jsontext.Decoder, in *interest) (any, error) {
	out := make(map[string]any, len(in.props))
	for d.PeekKind() != jsontext.KindEndObject {
		t, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		name := t.String()
		sub, known := in.props[name]
		if in.all {
			sub, known = in, true
		}
		v, err := value(d, sub)
		if err != nil {
			return nil, err
		}
		if known || in.names {
			out[name] = v
		}
	}
	_, err := d.ReadToken()
	return out, err
}

func array(d *jsontext.Decoder, in *interest) (any, error) {
	out := []any{}
	sub := in.items
	if in.all {
		sub = in
	}
	for d.PeekKind() != jsontext.KindEndArray {
		v, err := value(d, sub)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	_, err := d.ReadToken()
	return out, err
}
