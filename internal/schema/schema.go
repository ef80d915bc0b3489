// Package schema checks JSON texts against a JSON Schema (draft 2020-12 unless the schema says
// otherwise), as the gateway does with every body of a route that has one.
//
// The checking itself is santhosh-tekuri/jsonschema's. Ours are two short cuts, because every body takes this
// path: what certainly matches a simple schema passes without building a value (rule.go), and of the rest
// only the parts that the schema can see become Go values (interest.go).
//
// What no parser and no exact arithmetic should be given is refused first (bounds.go), and what a check by the library
// would cost is counted before it is made (cost.go).
//
// Invariants: a check takes time in proportion to its text; a text is valid here if and only if the library finds it so when it is decoded whole
// (TestShortCutsChangeNoVerdict); a text in which a member that the schema looks at is there twice, or
// with invalid UTF-8, is refused, because readers differ in how they read it (RFC 7493); nothing is
// ever fetched.
//
// May import: the schema and JSON libraries, and package function for its scanner.
package schema

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Bounds of one validation: what is reported, and what is looked at to find the first in order.
const (
	MaxFindings       = 20
	maxCollected      = 1000
	maxCollectedBytes = 1 << 20
	maxFindingBytes   = 1 << 10 // of a finding's pointer and of its detail
)

// maxReasons bounds what may be looked for reasons: the steps of its check, each weighed with what a reason takes, 200 bytes
// and 16 for each level. That is 16 MiB.
const maxReasons = 1 << 20

// schemaDepth bounds the nesting of a schema: two levels for each of the body's.
const schemaDepth = 2 * DefaultMaxDepth

// Schema is a compiled JSON Schema. It is safe for concurrent use.
type Schema struct {
	compiled *jsonschema.Schema
	verdict  *jsonschema.Schema // not: it finds no reasons, which take much more memory, and stops at the first failure
	rule     *rule              // nil if the schema is not simple
	costs    *costs
	interest *interest
	printer  *message.Printer
}

// Finding is one reason why a text is invalid.
type Finding struct {
	Pointer string // JSON Pointer (RFC 6901) into the text
	Detail  string
}

// InvalidError says why a JSON text does not match the schema.
type InvalidError struct{ Findings []Finding }

func (e *InvalidError) Error() string {
	return fmt.Sprintf("%d finding(s); the first: %s %s", len(e.Findings), e.Findings[0].Pointer, e.Findings[0].Detail)
}

// SyntaxError says why a text is not JSON, or not unambiguously.
type SyntaxError struct{ Err error }

func (e *SyntaxError) Error() string { return fmt.Sprintf("not valid JSON: %v", e.Err) }
func (e *SyntaxError) Unwrap() error { return e.Err }

// CostError means that checking a text would take more steps than its size allows.
type CostError struct{ Steps uint64 }

func (e *CostError) Error() string {
	return fmt.Sprintf("too complex for the schema: a check would take more than %d steps for a body of this size", e.Steps)
}

// The made-up URL of a schema: hierarchical, so that a relative $ref resolves to another place and not this
// one.
const base, id, idVerdict = "weir:///", "weir:///schema", "weir:///verdict"

// Compile makes a schema ready for use. The error says what the schema's author must change.
func Compile(source []byte) (*Schema, error) {
	if err := CheckBounds(source, schemaDepth); err != nil {
		return nil, fmt.Errorf("must be a JSON Schema object: %w", err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(source))
	if err != nil {
		return nil, fmt.Errorf("must be a JSON Schema object: %w", err)
	}
	if _, ok := doc.(map[string]any); !ok {
		return nil, errors.New("must be a JSON Schema object, such as {type: object}")
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noRemoteSchemas{})
	var compiled, verdict *jsonschema.Schema
	if err = c.AddResource(id, doc); err == nil {
		compiled, err = c.Compile(id)
	}
	if err == nil {
		if err = c.AddResource(idVerdict, map[string]any{"not": map[string]any{"$ref": id}}); err == nil {
			verdict, err = c.Compile(idVerdict)
		}
	}
	if err != nil {
		// Without the made-up URL, which would mean nothing to the schema's author.
		msg := strings.ReplaceAll(strings.ReplaceAll(err.Error(), id, ""), base, "")
		return nil, errors.New("must be a valid JSON Schema: " + strings.Join(strings.Fields(msg), " "))
	}
	if err := oneTarget(doc); err != nil {
		return nil, err
	}
	s := &Schema{compiled: compiled, verdict: verdict, interest: interestOf(doc), printer: message.NewPrinter(language.English)}
	if s.costs, err = newCosts(compiled); err != nil {
		return nil, err
	}
	if r, err := ruleOf(doc); err == nil {
		s.rule = r
	}
	return s, nil
}

// noRemoteSchemas keeps the gateway from fetching what a schema points to: a request's check must not
// depend on somebody else's web server.
type noRemoteSchemas struct{}

func (noRemoteSchemas) Load(string) (any, error) {
	return nil, errors.New("schemas of other places are not loaded: put the schema under $defs and refer to it as #/$defs/NAME")
}

// Validate returns nil for a valid JSON text, an *InvalidError, a *SyntaxError or a *CostError. The text is within
// CheckBounds.
func (s *Schema) Validate(text []byte) error {
	if s.rule != nil && s.rule.accepts(text) {
		return nil
	}
	v, err := decode(text, s.interest)
	if err != nil {
		return &SyntaxError{Err: err}
	}
	budget := baseSteps + stepsPerByte*uint64(len(text))
	steps, depth, ok := s.costs.take(v, budget)
	if !ok {
		return &CostError{budget}
	}
	if s.verdict.Validate(v) != nil {
		return nil //nolint:nilerr // it is the opposite schema
	}
	if steps*uint64(12+depth) > maxReasons {
		return &InvalidError{Findings: []Finding{{Detail: "does not match; it is too large for the places to be named"}}}
	}
	err = s.compiled.Validate(v)
	if err == nil {
		return nil
	}
	var ve *jsonschema.ValidationError
	if !errors.As(err, &ve) {
		return &InvalidError{Findings: []Finding{{Detail: err.Error()}}}
	}
	left := maxCollectedBytes
	fs := s.collect(nil, ve, &left)
	// The library walks maps: unsorted, the findings of the same body would differ each time.
	slices.SortFunc(fs, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Pointer, b.Pointer), strings.Compare(a.Detail, b.Detail))
	})
	return &InvalidError{Findings: fs[:min(len(fs), MaxFindings)]}
}

// collect appends the leaves of the tree of findings: they say what is wrong, the inner nodes only where.
// left are the bytes that those to come may have.
func (s *Schema) collect(fs []Finding, ve *jsonschema.ValidationError, left *int) []Finding {
	if len(fs) == maxCollected || *left < 0 {
		return fs
	}
	if len(ve.Causes) == 0 {
		f := Finding{Pointer: pointer(ve.InstanceLocation), Detail: ve.ErrorKind.LocalizedString(s.printer)}
		*left -= len(f.Pointer) + len(f.Detail)
		f.Pointer, f.Detail = shorten(f.Pointer), shorten(f.Detail)
		return append(fs, f)
	}
	for _, c := range ve.Causes {
		fs = s.collect(fs, c, left)
	}
	return fs
}

// shorten cuts what repeats a long name or value of the body.
func shorten(text string) string {
	if len(text) <= maxFindingBytes {
		return text
	}
	end := maxFindingBytes
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// pointer joins the tokens of a JSON Pointer.
func pointer(tokens []string) string {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	var b strings.Builder
	for _, t := range tokens {
		b.WriteByte('/')
		b.WriteString(escape.Replace(t))
	}
	return b.String()
}
