package statelang

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/jsonata"
	"github.com/weir-dev/weir/internal/jsonpath"
	"github.com/weir-dev/weir/internal/jsontree"
)

// expr is a value of a definition: as it is, or with parts that are looked up or computed when the state runs.
type expr interface {
	// eval returns a *Failure as its error.
	eval(e *env) (any, error)
}

// env is what expressions of a state see. The variables are those at the state's entry: what is assigned in the state is not
// seen in it.
type env struct {
	ctx     context.Context
	input   any                     // what "$" is
	states  func() *jsontree.Object // what JSONata sees as $states
	context func() *jsontree.Object
	vars    *scope
	now     time.Time
	random  func() *rand.Rand
	source  *rand.Rand // of the queries in this env, once one has asked
}

// literal is a value that is always the same.
type literal struct{ value any }

func (l literal) eval(*env) (any, error) { return l.value, nil }

// pathExpr is a JSONPath.
type pathExpr struct {
	field string // for errors
	path  *jsonpath.Path
	// optional: a definite path that finds nothing is errNoPath, for who wants to know
}

// errNoPath means that a path found nothing.
var errNoPath = errors.New("statelang: nothing is there")

// find returns errNoPath when there is nothing at a definite path.
func (p *pathExpr) find(e *env) (any, error) {
	var root any
	switch r := p.path.Root(); r.Kind {
	case jsonpath.Input:
		root = e.input
	case jsonpath.Context:
		root = e.context()
	default:
		v, ok := e.vars.get(r.Name)
		if !ok {
			return nil, errNoPath
		}
		root = v
	}
	v, err := p.path.Find(root)
	if errors.Is(err, jsonpath.ErrNotFound) {
		return nil, errNoPath
	}
	return v, err
}

func (p *pathExpr) eval(e *env) (any, error) {
	v, err := p.find(e)
	switch {
	case errors.Is(err, errNoPath):
		if name := p.path.Root().Name; name != "" && !e.vars.has(name) {
			return nil, runtimeError("The variable '$%s', referenced by the field '%s', is not assigned", name, p.field)
		}
		return nil, runtimeError("The JSONPath '%s' specified for the field '%s' could not be found in the input", p.path, p.field)
	case err != nil:
		return nil, runtimeError("The JSONPath '%s' specified for the field '%s' could not be evaluated: %v", p.path, p.field, err)
	}
	return v, nil
}

// queryExpr is a JSONata expression.
type queryExpr struct {
	field string
	text  string
	query *jsonata.Expr
}

func (q *queryExpr) eval(e *env) (any, error) {
	v, ok, err := q.query.Eval(e.ctx, nil, e.bindings())
	switch {
	case err != nil:
		return nil, queryError("The JSONata expression '%s' specified for the field '%s' threw an error during evaluation. %v", q.text, q.field, err)
	case !ok:
		return nil, queryError("The JSONata expression '%s' specified for the field '%s' returned nothing (undefined).", q.text, q.field)
	}
	if !finite(v) {
		return nil, queryError("The JSONata expression '%s' specified for the field '%s' returned a number that is not finite.", q.text, q.field)
	}
	return v, nil
}

// finite reports whether v can be written as JSON.
func finite(v any) bool {
	switch v := v.(type) {
	case float64:
		return !math.IsInf(v, 0) && !math.IsNaN(v)
	case []any:
		for _, e := range v {
			if !finite(e) {
				return false
			}
		}
	case *jsontree.Object:
		for _, e := range v.All() {
			if !finite(e) {
				return false
			}
		}
	}
	return true
}

// objectExpr is an object that has expressions in it.
type objectExpr struct {
	keys   []string
	values []expr
}

func (o objectExpr) eval(e *env) (any, error) {
	made := jsontree.NewObject(len(o.keys))
	for i, key := range o.keys {
		v, err := o.values[i].eval(e)
		if err != nil {
			return nil, err
		}
		made.Set(key, v)
	}
	return made, nil
}

// arrayExpr is the same of an array.
type arrayExpr []expr

func (a arrayExpr) eval(e *env) (any, error) {
	made := make([]any, len(a))
	for i, x := range a {
		v, err := x.eval(e)
		if err != nil {
			return nil, err
		}
		made[i] = v
	}
	return made, nil
}

func (f *Failure) asError() error { return failureError{f} }

// failureError carries a failure through eval.
type failureError struct{ failure *Failure }

func (f failureError) Error() string {
	cause := ""
	if f.failure.Cause != nil {
		cause = *f.failure.Cause
	}
	return f.failure.Name() + ": " + cause
}

func runtimeError(format string, args ...any) error {
	return NewFailure(ErrRuntime, fmt.Sprintf(format, args...)).asError()
}

func queryError(format string, args ...any) error {
	return NewFailure(ErrQuery, fmt.Sprintf(format, args...)).asError()
}

// failureOf is the failure that an error of eval stands for.
func failureOf(err error) *Failure {
	if f, ok := errors.AsType[failureError](err); ok {
		return f.failure
	}
	return NewFailure(ErrRuntime, err.Error())
}

// isQuery reports whether text is a JSONata expression, and returns it. Blanks around the marks make it a text.
func isQuery(text string) (query string, ok bool) {
	if strings.HasPrefix(text, "{%") && strings.HasSuffix(text, "%}") && len(text) >= 4 {
		return strings.TrimSpace(text[2 : len(text)-2]), true
	}
	return "", false
}

// scope is the variables of a machine, a branch or an iteration. Those of the scopes around it can be read.
type scope struct {
	outer *scope
	vars  *jsontree.Object // never changed: assign makes a copy
}

func (s *scope) get(name string) (any, bool) {
	for ; s != nil; s = s.outer {
		if s.vars != nil {
			if v, ok := s.vars.Get(name); ok {
				return v, true
			}
		}
	}
	return nil, false
}

func (s *scope) has(name string) bool {
	_, ok := s.get(name)
	return ok
}
