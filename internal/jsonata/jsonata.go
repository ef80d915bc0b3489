// Package jsonata evaluates JSONata expressions with the results of the reference, npm jsonata 2.2.
//
// Compile makes an Expr of a text; Eval gives its value for an input and an environment.
//
// Invariants: an Expr is immutable and safe for concurrent use. An evaluation is a function of the expression, the input and
// the Env: it reads no clock, no randomness and no globals, starts no goroutine, changes neither input nor variables, never
// panics, and ends: steps, nesting, items and bytes are bounded (Limits), and a cancelled context ends it early. Text is UTF-8;
// inside, halves of surrogate pairs, which JavaScript's strings may hold, are kept as their three-byte encoding, and become
// U+FFFD in what Eval returns.
//
// May import: the standard library, golang.org/x/text/cases for the case of letters, and jsontree. The regular expressions are
// its own (regex.go), because no library has JavaScript's meaning, a bound that is counted instead of timed, and UTF-16 offsets.
package jsonata

import (
	"context"
	"math/rand/v2"
	"strconv"
	"time"
)

// Nothing is JSONata's undefined: what a path gives that does not match. Null is another value. As a variable or as the result
// of a Function it stands for the absence of a value; Eval reports it by ok.
type Nothing struct{}

// Scope gives the variables of an evaluation by their names, without the dollar sign: values as package jsontree describes
// them, a Nothing, or a *Function. It is asked each time a variable is read that the expression itself has not bound.
type Scope interface {
	Variable(name string) (value any, ok bool)
}

// Variables is a Scope of a map.
type Variables map[string]any

// Variable implements Scope.
func (v Variables) Variable(name string) (any, bool) {
	value, ok := v[name]
	return value, ok
}

// Env is what an evaluation may know beyond its input. The zero Env has no variables.
type Env struct {
	Scope  Scope          // nil if there are no variables
	Now    time.Time      // what $now and $millis give
	Random func() float64 // from 0 to below 1, for $random and $shuffle; nil for a fixed sequence
	Limits Limits
}

// Limits bound one evaluation. A zero field means its default.
type Limits struct {
	Steps int // nodes evaluated, items gone through and steps of regular expressions: 20,000,000 (D1012)
	Depth int // evaluations inside one another: 10,000, some 2,000 calls that are not tail calls (D1011)
	Items int // array items and object members made: 25,000,000 (D2015)
	Bytes int // bytes of text made: 64 MiB (D2015)
}

func (l Limits) withDefaults() Limits {
	def := func(n *int, d int) {
		if *n <= 0 {
			*n = d
		}
	}
	def(&l.Steps, 20_000_000)
	def(&l.Depth, 10_000)
	def(&l.Items, 25_000_000)
	def(&l.Bytes, 64<<20)
	return l
}

// Option changes what Compile accepts.
type Option func(*options)

type options struct {
	noEval bool
	inner  bool // the text of an $eval, which sees the frames around it
}

// WithoutEval leaves $eval out: $eval is then a variable like any other.
func WithoutEval() Option { return func(o *options) { o.noEval = true } }

// Expr is a compiled expression.
type Expr struct {
	text  string
	root  *node
	opts  options
	bound map[string]bool // names that the expression binds anywhere; only these are looked for in frames
	walk  bool            // look for every name in the frames: $eval may have bound it
	names map[string]*Function
}

// Compile parses an expression. An error is an *Error whose code begins with S.
func Compile(text string, opts ...Option) (*Expr, error) {
	var o options
	for _, set := range opts {
		set(&o)
	}
	return compile(text, o)
}

// String is the expression's text.
func (e *Expr) String() string { return e.text }

// Eval evaluates the expression. ok is false if it returned nothing. An error is an *Error; if the context ended, errors.Is finds
// the context's error in it.
//
// The value is of package jsontree: nil, bool, float64, string, []any or *jsontree.Object. Parts of the input or of variables
// may be in it, unchanged and with their json.Number where its spelling is JavaScript's. As JSON.stringify does it, a function inside an
// object is left out and one inside an array is null; one that is the whole result is the error T1009. A number may be
// infinite or NaN, which no JSON text can hold.
func (e *Expr) Eval(ctx context.Context, input any, env Env) (value any, ok bool, err error) {
	s := &state{ctx: ctx, expr: e, env: env, root: input, limits: env.Limits.withDefaults()}
	focus := input
	if list, is := input.([]any); is {
		focus = &array{items: []any{list}, sequence: true, outer: true}
	}
	v, err := s.eval(e.root, focus, &s.base)
	if err != nil {
		return nil, false, err
	}
	return s.result(v)
}

// result makes of a value what callers of the package may see.
func (s *state) result(v any) (value any, ok bool, err error) {
	switch v.(type) {
	case Nothing:
		return nil, false, nil
	case *Function:
		return nil, false, fail("T1009")
	}
	value, err = s.export(v, 0)
	return value, err == nil, err
}

// random is the next number of the environment's source, or of a fixed one.
func (s *state) random() float64 {
	if s.env.Random == nil {
		s.env.Random = rand.New(rand.NewPCG(1, 2)).Float64
	}
	return s.env.Random()
}

// Call is one call of a Function.
type Call struct {
	s     *state
	input any
	frame *frame
}

// Context is the evaluation's context.
func (c *Call) Context() context.Context { return c.s.ctx }

// Now is the evaluation's time.
func (c *Call) Now() time.Time { return c.s.env.Now }

// Sequence is a list that a Function returns as JSONata's paths do: none is nothing, one is that value itself, more are an
// array. A list returned as []any stays an array.
func Sequence(items []any) any { return &array{items: items, sequence: true} }

// NewFunction makes a function that a Scope may give. The signature, such as "<a<n>n?:n>", is checked as those of JSONata's own
// functions are, and may be empty: then the function gets the arguments of the call as they are. The arity is how many arguments
// $map and its like hand over. The arguments are values of package jsontree, a Nothing, or a *Function; there may be fewer
// than the signature has, if the last ones are optional. An error is wrapped in an *Error with the code D3137.
func NewFunction(name, signature string, arity int, f func(c *Call, args []any) (any, error)) (*Function, error) {
	fn := &Function{kind: customFunction, name: name, arity: arity}
	if signature != "" {
		sig, err := parseSignature(signature)
		if err != nil {
			return nil, err
		}
		fn.signature = sig
		arity = max(arity, len(sig.params))
	}
	for i := range arity {
		fn.names = append(fn.names, strconv.Itoa(i)) // no variable has such a name
	}
	fn.native = func(c *Call, args []any) (any, error) {
		given := make([]any, len(args))
		for i, a := range args {
			switch a.(type) {
			case Nothing, *Function:
				given[i] = a
				continue
			}
			v, err := c.s.export(a, 0)
			if err != nil {
				return nil, err
			}
			given[i] = v
		}
		v, err := f(c, given)
		if err != nil {
			return nil, external(err)
		}
		return v, nil
	}
	return fn, nil
}
