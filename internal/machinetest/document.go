package machinetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weir-dev/weir/internal/jsontree"
)

// Bounds of a file.
const (
	MaxFileBytes = 8 << 20
	maxNodes     = 1_000_000 // with those that YAML's aliases repeat
	maxDepth     = 500
)

// Document is one JSON or YAML document, with the lines of its fields.
type Document struct {
	Value any
	place *place
}

// place is where a value is.
type place struct {
	line   int // from 1
	fields map[string]field
	items  []*place
	block  bool // a text whose lines are lines of the file, after this one
}

type field struct {
	line  int // of the key
	value *place
}

// SyntaxError is text that is neither JSON nor YAML, or a document that JSON can't hold.
type SyntaxError struct {
	Line    int // 0 if nobody knows
	Message string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Message)
}

// ParseDocuments reads JSON, or the documents of a YAML stream. Empty documents are left out. Its error is a *SyntaxError.
func ParseDocuments(text []byte) ([]Document, error) {
	if len(text) > MaxFileBytes {
		return nil, &SyntaxError{0, fmt.Sprintf("the file has %d bytes: at most %d are allowed", len(text), MaxFileBytes)}
	}
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		d, err := parseJSON(text)
		if err == nil {
			return []Document{d}, nil
		}
		if !looksLikeYAML(text) {
			return nil, err
		}
	}
	return parseYAML(text)
}

// ParseJSON reads one JSON value.
func ParseJSON(text []byte) (any, error) {
	d, err := parseJSON(text)
	return d.Value, err
}

// looksLikeYAML reports whether what begins with a bracket may be YAML in its flow style nevertheless: it is no JSON, and has
// a key that isn't quoted.
func looksLikeYAML(text []byte) bool {
	inner := bytes.TrimLeft(bytes.TrimSpace(text), "{[ \t\r\n")
	return len(inner) > 0 && (inner[0] >= 'a' && inner[0] <= 'z' || inner[0] >= 'A' && inner[0] <= 'Z')
}

// jsonReader reads JSON with the lines of what it reads.
type jsonReader struct {
	d     *jsontext.Decoder
	text  []byte
	at    int64 // the lines up to here are counted
	line  int
	depth int
}

func parseJSON(text []byte) (Document, error) {
	r := &jsonReader{d: jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowInvalidUTF8(true)), text: text, line: 1}
	v, p, err := r.value()
	if err == nil {
		if _, more := r.d.ReadToken(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the end of the JSON value")
			r.here()
		}
	}
	if err != nil {
		return Document{}, r.wrong(err)
	}
	return Document{v, p}, nil
}

func (r *jsonReader) wrong(err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &SyntaxError{1 + bytes.Count(bytes.TrimRight(r.text, " \t\r\n"), []byte("\n")), "it ends in the middle of a JSON value"}
	case errors.As(err, &syntax):
		line := 1 + bytes.Count(r.text[:min(max(syntax.ByteOffset, 0), int64(len(r.text)))], []byte("\n"))
		message := strings.TrimPrefix(syntax.Err.Error(), "jsontext: ")
		if errors.Is(syntax.Err, jsontext.ErrDuplicateName) {
			message = fmt.Sprintf("the name %q is there twice in one object", syntax.JSONPointer.LastToken())
		}
		return &SyntaxError{line, message}
	}
	return &SyntaxError{r.line, err.Error()}
}

// here is the line that the last token ended in.
func (r *jsonReader) here() int {
	to := r.d.InputOffset()
	r.line += bytes.Count(r.text[r.at:to], []byte("\n"))
	r.at = to
	return r.line
}

func (r *jsonReader) value() (any, *place, error) {
	t, err := r.d.ReadToken()
	if err != nil {
		return nil, nil, err
	}
	p := &place{line: r.here()}
	switch t.Kind() {
	case 'n':
		return nil, p, nil
	case 't', 'f':
		return t.Bool(), p, nil
	case '"':
		return t.String(), p, nil
	case '0':
		return json.Number(t.String()), p, nil
	}
	if r.depth++; r.depth > maxDepth {
		return nil, nil, fmt.Errorf("more than %d values are in each other", maxDepth)
	}
	defer func() { r.depth-- }()
	if t.Kind() == '[' {
		return r.list(p)
	}
	return r.object(p)
}

func (r *jsonReader) list(p *place) (any, *place, error) {
	list := []any{}
	for r.d.PeekKind() != ']' {
		v, inner, err := r.value()
		if err != nil {
			return nil, nil, err
		}
		list, p.items = append(list, v), append(p.items, inner)
	}
	_, err := r.d.ReadToken()
	return list, p, err
}

func (r *jsonReader) object(p *place) (any, *place, error) {
	o := &jsontree.Object{}
	p.fields = map[string]field{}
	for r.d.PeekKind() != '}' {
		t, err := r.d.ReadToken()
		if err != nil {
			return nil, nil, err
		}
		name := t.String()
		line := r.here()
		v, inner, err := r.value()
		if err != nil {
			return nil, nil, err
		}
		o.Set(name, v)
		p.fields[name] = field{line, inner}
	}
	_, err := r.d.ReadToken()
	return o, p, err
}

// Line is the line of the field at a path such as /States/Pay/Retry[0]/MaxAttempts, or of its nearest ancestor that is there. A
// name may have slashes and brackets in it: the longest that fits counts.
func (d Document) Line(path string) int {
	p := d.place
	if p == nil {
		return 0
	}
	line := p.line
	for path != "" && p != nil {
		switch path[0] {
		case '[':
			digits, rest, _ := strings.Cut(path[1:], "]")
			i, err := strconv.Atoi(digits)
			if err != nil || i < 0 || i >= len(p.items) {
				return line
			}
			p, path = p.items[i], rest
			if p != nil {
				line = p.line
			}
		case '/':
			f, rest, ok := p.longest(path[1:])
			if !ok {
				return line
			}
			line, p, path = f.line, f.value, rest
		default:
			return line
		}
	}
	return line
}

func (p *place) longest(path string) (field, string, bool) {
	for end := len(path); end >= 0; end-- {
		if end < len(path) && path[end] != '/' && path[end] != '[' {
			continue
		}
		if f, ok := p.fields[path[:end]]; ok {
			return f, path[end:], true
		}
	}
	return field{}, "", false
}

// in is the document's part at a field.
func (d Document) in(name string) (Document, bool) {
	o, ok := d.Value.(*jsontree.Object)
	if !ok {
		return Document{}, false
	}
	v, ok := o.Get(name)
	if !ok {
		return Document{}, false
	}
	inner := Document{Value: v}
	if d.place != nil {
		inner.place = d.place.fields[name].value
	}
	return inner, true
}
