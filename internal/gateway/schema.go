package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// maxFieldErrors bounds the findings in one answer.
const maxFieldErrors = 20

// schema validates bodies against a JSON Schema (draft 2020-12 unless it says otherwise).
type schema struct {
	compiled *jsonschema.Schema
	printer  *message.Printer
}

// compileSchema returns nil for an empty source. References to other documents are refused: a gateway
// must not fetch anything while it compiles.
func compileSchema(source []byte) (*schema, error) {
	if len(source) == 0 {
		return nil, nil //nolint:nilnil // documented: no schema
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(source))
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	const name = "weir:schema"
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{})
	if err := c.AddResource(name, doc); err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	s, err := c.Compile(name)
	if err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	return &schema{compiled: s, printer: message.NewPrinter(language.English)}, nil
}

// validate returns nil when body is valid.
func (s *schema) validate(body []byte) *problem {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return &problem{Status: http.StatusBadRequest, Type: typeBadRequest, Title: "Not JSON", Detail: notJSON(err, body)}
	}
	err = s.compiled.Validate(v)
	if err == nil {
		return nil
	}
	p := &problem{Status: http.StatusBadRequest, Type: typeSchema, Title: "The body does not match the route's schema"}
	var ve *jsonschema.ValidationError
	if !errors.As(err, &ve) {
		p.Detail = err.Error()
		return p
	}
	s.collect(p, ve)
	p.Detail = fmt.Sprintf("%d finding(s); the first: %s %s", len(p.Errors), p.Errors[0].Pointer, p.Errors[0].Detail)
	return p
}

// collect appends the leaves of the tree of findings: they say what is wrong, the inner nodes only where.
func (s *schema) collect(p *problem, ve *jsonschema.ValidationError) {
	if len(p.Errors) == maxFieldErrors {
		return
	}
	if len(ve.Causes) == 0 {
		p.Errors = append(p.Errors, fieldError{Pointer: pointer(ve.InstanceLocation), Detail: ve.ErrorKind.LocalizedString(s.printer)})
		return
	}
	for _, c := range ve.Causes {
		s.collect(p, c)
	}
}

// pointer joins the tokens of a JSON Pointer (RFC 6901).
func pointer(tokens []string) string {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	var b strings.Builder
	for _, t := range tokens {
		b.WriteByte('/')
		b.WriteString(escape.Replace(t))
	}
	return b.String()
}

func notJSON(err error, body []byte) string {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Sprintf("The body is not valid JSON at byte %d of %d: %s.", syntax.Offset, len(body), syntax.Error())
	}
	return fmt.Sprintf("The body is not valid JSON: %s.", err)
}
