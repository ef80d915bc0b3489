// Package jsonpath finds and sets values in JSON documents by the JSONPath of Amazon States Language, which is Jayway's
// dialect (github.com/json-path/JsonPath), over the values of package jsontree.
//
// A definite path gives one value, or an error that says which step found nothing. A path with `*`, `..`, a slice, a filter or
// several names or indices gives an array of what it found, in the order of the document and possibly empty. A function at the
// end of a path gives one value again. Where this differs from Jayway is said at the parts concerned: grep for "Jayway".
//
// Invariants: a Path is never changed after Parse and may be used by many goroutines. Nothing that is handed in is changed, and
// what Find returns shares its values with the document. No text and no document makes this package panic; the work of one Find
// is bounded by MaxVisits, its result by MaxResults.
//
// May import: the standard library and internal/jsontree.
package jsonpath

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/jsontree"
)

const (
	// MaxResults is how many values a path may find; ErrTooMuch is beyond it.
	MaxResults = 1 << 20
	// MaxVisits is how many values may be looked at in one Find: `$..*..*` costs the square of a document. ErrTooMuch is beyond it.
	MaxVisits = 10 << 20
	// MaxDepth is how deep `..` goes into a document; what jsontree.Parse reads is never deeper. ErrTooMuch is beyond it.
	MaxDepth = 10_000
	// MaxSteps is how many steps a path may have.
	MaxSteps = 1000
	// MaxNesting is how deep brackets, filters and literals of a path may nest.
	MaxNesting = 64
)

var (
	// ErrNotFound means that there is nothing at a definite path; the error is a *NotFoundError.
	ErrNotFound = errors.New("jsonpath: nothing found")
	// ErrTooMuch means that one of the bounds above was reached.
	ErrTooMuch = errors.New("jsonpath: the path finds or looks at too much")
	// ErrFunction means that the function at the end of a path can't be applied to what the path found.
	ErrFunction = errors.New("jsonpath: the function can't be applied")
	// ErrNotReference means that Set was called on a path that may name more or less than one place.
	ErrNotReference = errors.New("jsonpath: not a reference path")
	// ErrNoPlace means that Set can't reach its place: a member of what is no object, an index outside an array.
	ErrNoPlace = errors.New("jsonpath: no such place")
)

// SyntaxError says what is wrong with the text of a path, and where.
type SyntaxError struct {
	Text    string
	Offset  int // in bytes
	Problem string
}

func (e *SyntaxError) Error() string {
	n := utf8.RuneCountInString(e.Text[:min(e.Offset, len(e.Text))]) + 1
	return fmt.Sprintf("JSONPath %q, at character %d: %s", e.Text, n, e.Problem)
}

// NotFoundError says which step of a definite path found nothing. It is an ErrNotFound.
type NotFoundError struct {
	Path   string
	Step   string // the path up to the step that found nothing, with it
	Reason string
}

func (e *NotFoundError) Error() string {
	if e.Path == e.Step {
		return fmt.Sprintf("no such path %s: %s", e.Step, e.Reason)
	}
	return fmt.Sprintf("no such path %s: at %s, %s", e.Path, e.Step, e.Reason)
}

// Is makes errors.Is(err, ErrNotFound) true.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// RootKind says from where a path starts.
type RootKind uint8

// The roots of paths.
const (
	Input    RootKind = iota // "$"
	Context                  // "$$", the context object
	Variable                 // "$name"
)

// Root is from where a path starts. Who calls Find hands in the root's value.
type Root struct {
	Kind RootKind
	Name string // of a Variable, without the "$"
}

// Path is a parsed JSONPath.
type Path struct {
	text string
	root Root
	query
}

// query is a path without its root: in a filter, too.
type query struct {
	relative bool // it starts with "@"
	single   bool // each step is a member or an index
	steps    []step
	call     *call // nil if no function is at the end
}

// step is one step of a path.
type step struct {
	kind  stepKind
	deep  bool // ".." is before it
	index int  // of an index; where a slice starts
	to    int  // where a slice ends
	open  bool // a slice has no end
	name  string
	names []string
	list  []int
	cond  condition
	end   int // of the step in the text
}

type stepKind uint8

const (
	member   stepKind = iota // .a and ['a']
	index                    // [0]
	members                  // ['a','b']
	indices                  // [0,1]
	slice                    // [1:3]
	wildcard                 // .* and [*]
	filter                   // [?(…)]
)

// Root is from where the path starts.
func (p *Path) Root() Root { return p.root }

// Definite reports whether the path gives one value or an error, and no array of what it found.
func (p *Path) Definite() bool { return p.single || p.call != nil }

// Reference reports whether the path names one place: it consists of members and indices only. For a ResultPath the caller also
// looks at Root.
func (p *Path) Reference() bool { return p.single && p.call == nil }

// String is the text from which the path was parsed.
func (p *Path) String() string { return p.text }

// Find returns what is at the path. The error is a *NotFoundError (ErrNotFound), an ErrFunction or an ErrTooMuch.
//
// BenchmarkFind guards that a definite path costs no allocation.
func (p *Path) Find(root any) (any, error) {
	if p.call == nil && p.single {
		v, at := lookup(p.steps, root)
		if at < len(p.steps) {
			return nil, p.notFound(at, v)
		}
		return v, nil
	}
	e := &evaluation{root: root}
	v, at := p.matches(e, root)
	switch {
	case e.err != nil:
		return nil, fmt.Errorf("%s: %w", p.text, e.err)
	case at < len(p.steps):
		return nil, p.notFound(at, v)
	case p.call == nil:
		return v, nil
	}
	v, err := p.call.apply(e, nil, v)
	if e.err != nil {
		err = e.err
	}
	if errors.Is(err, ErrNotFound) {
		return nil, &NotFoundError{Path: p.text, Step: p.text, Reason: "the function " + p.call.name + "() has nothing to return"}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.text, err)
	}
	return v, nil
}

// notFound is the error of step at, which found nothing in v.
func (p *Path) notFound(at int, v any) error {
	s := &p.steps[at]
	return &NotFoundError{Path: p.text, Step: p.text[:s.end], Reason: s.missing(v)}
}

// missing says why a member or an index is not in v.
func (s *step) missing(v any) string {
	if s.kind == index {
		if list, ok := v.([]any); ok {
			return fmt.Sprintf("the array has %d elements", len(list))
		}
		return kindOf(v) + " has no elements"
	}
	if _, ok := v.(*jsontree.Object); ok {
		return fmt.Sprintf("the object has no member %q", s.name)
	}
	return kindOf(v) + " has no members"
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case []any:
		return "an array"
	case *jsontree.Object:
		return "an object"
	}
	if _, ok := jsontree.Float(v); ok {
		return "a number"
	}
	return strings.TrimPrefix(fmt.Sprintf("a %T", v), "*")
}
