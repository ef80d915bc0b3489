package gateway

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"sync"

	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/schema"
)

// validate checks the body against the route's schema.
func (x *exchange) validate() *problem.Problem {
	if x.schema == nil || x.uploaded() {
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
func jsonMedia(h http.Header) bool {
	ct := h.Get("Content-Type")
	if ct == "" || ct == "application/json" {
		return true
	}
	media, _, err := mime.ParseMediaType(ct)
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}
