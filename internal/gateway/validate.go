package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"sync"

	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/schema"
)

// validate checks the body of a stored request, or of a route with a schema: first the bounds of any JSON, which are
// for functions' parsers too, then the schema.
func (x *exchange) validate() *problem.Problem {
	if x.uploaded() {
		return nil
	}
	if len(x.body) > 0 && (x.schema != nil || x.kind == toQueue && saysJSON(x.req.Header)) {
		if err := schema.CheckBounds(x.body, cmp.Or(x.spec.MaxDepth, schema.DefaultMaxDepth)); err != nil {
			return &problem.Problem{Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "JSON beyond its bounds", Detail: "The body, at " + err.Error() + "."}
		}
	}
	if x.schema == nil {
		return nil
	}
	s, err := x.schema()
	if err != nil {
		return new(problemNotServed(err.Error()))
	}
	if err := s.Validate(x.body); err != nil {
		return problemOfSchema(err)
	}
	return nil
}

// lazySchema compiles a schema when the first request needs it. That takes some milliseconds and hundreds of KiB of
// temporary memory, too much at each start for ten thousand routes.
type lazySchema func() (*schema.Schema, error)

// newLazySchema returns nil for an empty source.
func newLazySchema(source []byte, failed func(error)) lazySchema {
	if len(source) == 0 {
		return nil
	}
	return sync.OnceValues(func() (*schema.Schema, error) {
		s, err := schema.Compile(source)
		if err != nil {
			err = fmt.Errorf("schema %w", err)
			failed(err)
		}
		return s, err
	})
}

// problemOfSchema says why a body was found invalid.
func problemOfSchema(err error) *problem.Problem {
	var invalid *schema.InvalidError
	if _, costly := errors.AsType[*schema.CostError](err); costly {
		return &problem.Problem{Status: http.StatusBadRequest, Type: problem.Schema, Title: "Too much to check", Detail: "The body is " + err.Error() + "."}
	}
	if !errors.As(err, &invalid) {
		return &problem.Problem{Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "Not JSON", Detail: "The body is " + err.Error()}
	}
	p := &problem.Problem{
		Status: http.StatusBadRequest, Type: problem.Schema, Title: "The body does not match the route's schema",
		Detail: invalid.Error(), Errors: make([]problem.Field, len(invalid.Findings)),
	}
	for i, f := range invalid.Findings {
		p.Errors[i] = problem.Field(f)
	}
	return p
}

// jsonMedia reports whether the Content-Type is JSON, or missing.
func jsonMedia(h http.Header) bool { return h.Get("Content-Type") == "" || saysJSON(h) }

// saysJSON reports whether the Content-Type is JSON.
func saysJSON(h http.Header) bool {
	ct := h.Get("Content-Type")
	if ct == "application/json" {
		return true
	}
	media, _, err := mime.ParseMediaType(ct)
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}
