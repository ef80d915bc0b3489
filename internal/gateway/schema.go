package gateway

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/weir-dev/weir/internal/schema"
)

// compileSchema returns nil for an empty source.
func compileSchema(source []byte) (*schema.Schema, error) {
	if len(source) == 0 {
		return nil, nil //nolint:nilnil // documented: no schema
	}
	s, err := schema.Compile(source)
	if err != nil {
		return nil, fmt.Errorf("schema %w", err)
	}
	return s, nil
}

// problemOfSchema says why a body was found invalid.
func problemOfSchema(err error) problem {
	var invalid *schema.InvalidError
	if !errors.As(err, &invalid) {
		return problem{Status: http.StatusBadRequest, Type: typeBadRequest, Title: "Not JSON", Detail: "The body is " + err.Error()}
	}
	p := problem{
		Status: http.StatusBadRequest, Type: typeSchema, Title: "The body does not match the route's schema",
		Detail: invalid.Error(), Errors: make([]fieldError, len(invalid.Findings)),
	}
	for i, f := range invalid.Findings {
		p.Errors[i] = fieldError(f)
	}
	return p
}
