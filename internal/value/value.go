// Package value is the small language that names a value of a request: the attributes of a route are written in it, and
// whatever else depends on the request's content.
//
//	path.NAME            what the wildcard NAME of the route's path has matched, decoded
//	query.NAME           the first query parameter of this name, decoded
//	header.NAME          the header; several lines of it are joined with ", " (RFC 9110, section 5.3)
//	body:/json/pointer   a string, a number as it is written, true or false, at a JSON Pointer (RFC 6901) into a JSON body
//
// A value that the request doesn't have is absent: so is null, and an object or an array. An empty text is present.
//
// Invariants: the value of a request depends on nothing but the request; a member that is there twice in a JSON text is
// an error, because readers differ in which one they take (RFC 7493).
//
// May import: package function for its scanner, the JSON library, and httpguts.
package value

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// MaxLength bounds the text of an expression, in bytes.
const MaxLength = 256

// Expression names a value of a request. The zero value names none.
type Expression struct {
	text    string
	part    part
	name    string   // of the wildcard, parameter or header
	pointer []string // tokens of the JSON Pointer, unescaped
}

type part int

const (
	fromPath part = iota + 1
	fromQuery
	fromHeader
	fromBody
)

// Parse reads an expression. The error says what is allowed.
func Parse(text string) (Expression, error) {
	if len(text) > MaxLength {
		return Expression{}, fmt.Errorf("is longer than %d bytes", MaxLength)
	}
	if pointer, ok := strings.CutPrefix(text, "body:"); ok {
		tokens, err := parsePointer(pointer)
		return Expression{text: text, part: fromBody, pointer: tokens}, err
	}
	kind, name, _ := strings.Cut(text, ".")
	e := Expression{text: text, name: name}
	switch kind {
	case "path":
		e.part = fromPath
	case "query":
		e.part = fromQuery
	case "header":
		if e.part, e.name = fromHeader, http.CanonicalHeaderKey(name); !httpguts.ValidHeaderFieldName(name) {
			return Expression{}, fmt.Errorf("%q is no name of a header", name)
		}
		if e.name == "Host" {
			return Expression{}, errors.New("header.Host can't be had: it is no header to HTTP servers")
		}
	default:
		return Expression{}, errors.New("must be path.NAME, query.NAME, header.NAME or body:/json/pointer")
	}
	if name == "" {
		return Expression{}, fmt.Errorf("must name what is meant behind %q, such as %s.id", kind+".", kind)
	}
	return e, nil
}

// String is the text that was parsed.
func (e Expression) String() string { return e.text }

// Wildcard is the name of the path's wildcard that the expression needs; ok is false if it needs none.
func (e Expression) Wildcard() (name string, ok bool) { return e.name, e.part == fromPath }

// NeedsBody reports whether the expression looks into the body.
func (e Expression) NeedsBody() bool { return e.part == fromBody }

// Of returns the value of a request whose body, if any expression needs it, is one JSON text or anything else. ok is
// false when the request has none. The error, which names no value, is for the client: the body can't be read
// unambiguously.
func (e Expression) Of(req *http.Request, body []byte) (value string, ok bool, err error) {
	switch e.part {
	case fromPath:
		v := req.PathValue(e.name)
		return v, v != "", nil // a wildcard matches something, unless it is the rest of a path
	case fromQuery:
		v, ok := query(req.URL.RawQuery, e.name)
		return v, ok, nil
	case fromHeader:
		lines := req.Header[e.name]
		if len(lines) == 1 {
			return lines[0], true, nil
		}
		return strings.Join(lines, ", "), len(lines) > 0, nil
	case fromBody:
		return lookUp(body, e.pointer)
	}
	return "", false, nil
}

// query returns the first parameter of a name. Unlike net/url it drops none: a ';' is a character like others, and a
// value with a bad escape is taken as it is.
func query(raw, name string) (string, bool) {
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if k, v, _ := strings.Cut(pair, "="); pair != "" && unescape(k) == name {
			return unescape(v), true
		}
	}
	return "", false
}

func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}
