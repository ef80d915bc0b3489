package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/value"
)

// Bounds of what a record keeps of its request: functions get it in headers, of which many servers take 16 KiB in all.
const (
	maxAttributeBytes = 8 << 10 // of the values of all attributes
	maxTargetBytes    = 4 << 10 // of path and query
)

// attribute is a value of a request that its record carries under a name.
type attribute struct {
	name     string
	value    value.Expression
	required bool
}

func compileAttributes(spec []catalog.Attribute) ([]attribute, error) {
	out := make([]attribute, len(spec))
	for i, a := range spec {
		e, err := value.Parse(a.From)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %q %w", a.Name, a.From, err)
		}
		out[i] = attribute{a.Name, e, a.Required}
	}
	return out, nil
}

// describe puts the request's method, path and query, and the attributes that the route names, into rec, whose body is
// set already. It returns nil if they are valid.
func (r *route) describe(rec *record.Record, req *http.Request) *problem.Problem {
	rec.Request = record.Request{Method: req.Method, Path: req.URL.EscapedPath(), Query: req.URL.RawQuery}
	if n := len(rec.Request.Path) + len(rec.Request.Query); n > maxTargetBytes {
		return &problem.Problem{
			Status: http.StatusRequestURITooLong, Type: problem.TargetTooLong, Title: "Path and query are too long",
			Detail: fmt.Sprintf("They have %d bytes; a request that is stored may have %d. Send what is long in the body.", n, maxTargetBytes),
		}
	}
	if len(r.attributes) == 0 {
		return nil
	}
	rec.Attributes = make([]record.Attribute, 0, len(r.attributes))
	left, isJSON := maxAttributeBytes, rec.JSON
	for i := range r.attributes {
		a := &r.attributes[i]
		body := rec.Body
		if a.value.NeedsBody() {
			if isJSON = isJSON || jsonMedia(req.Header); !isJSON {
				body = nil
			}
		}
		v, ok, err := a.value.Of(req, body)
		switch {
		case err != nil:
			return badAttribute(a, "can't be read: "+err.Error())
		case !ok && a.required:
			return badAttribute(a, "is missing: the request must have it")
		case !ok:
			continue
		case !isText(v):
			return badAttribute(a, "must be UTF-8 without control characters")
		}
		if left -= len(v); left < 0 {
			return badAttribute(a, fmt.Sprintf("is too long: the values of all attributes together may have %d bytes", maxAttributeBytes))
		}
		rec.Attributes = append(rec.Attributes, record.Attribute{Name: a.name, Value: v})
	}
	return nil
}

func badAttribute(a *attribute, why string) *problem.Problem {
	return &problem.Problem{
		Status: http.StatusBadRequest, Type: problem.Attribute, Title: "Bad attribute",
		Detail: fmt.Sprintf("%s, the attribute %s of this route, %s. Nothing was stored.", a.value, a.name, why),
	}
}

// isText reports whether v is a CloudEvents String (CloudEvents 1.0.2, type system): no control characters.
func isText(v string) bool {
	plain := true
	for i := range len(v) {
		if c := v[i]; c < 0x20 || c == 0x7f {
			return false
		} else if c >= 0x80 {
			plain = false
		}
	}
	return plain || utf8.ValidString(v) && !strings.ContainsFunc(v, func(r rune) bool { return r >= 0x80 && r < 0xa0 })
}
