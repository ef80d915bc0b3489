package statelang

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/weir-dev/weir/internal/jsonata"
	"github.com/weir-dev/weir/internal/jsontree"
)

// Bounds of one evaluation: a second or so of work, and some tens of MiB.
const (
	maxQuerySteps = 5_000_000
	maxQueryItems = 500_000 // of arrays and objects that it makes
	maxQueryBytes = 8 << 20 // of texts
)

// compileQuery compiles a JSONata expression. As AWS has it there is no $eval.
func compileQuery(text string) (*jsonata.Expr, error) {
	return jsonata.Compile(text, jsonata.WithoutEval())
}

// bindings is what an expression finds: $states, the variables, and the functions that Step Functions adds to JSONata's
// (user guide, "JSONata functions provided by Step Functions").
func (e *env) bindings() jsonata.Env {
	return jsonata.Env{
		Scope: queryScope{e}, Now: e.now, Limits: jsonata.Limits{Steps: maxQuerySteps, Items: maxQueryItems, Bytes: maxQueryBytes},
		Random: func() float64 {
			if e.source == nil {
				e.source = e.random()
			}
			return e.source.Float64()
		},
	}
}

type queryScope struct{ e *env }

// Variable implements jsonata.Scope.
func (s queryScope) Variable(name string) (any, bool) {
	switch name {
	case "states":
		return s.e.states(), true
	case "partition":
		return function(name, "<an:a>", 2, func(args []any) (any, error) { return arrayPartition(nil, args) })
	case "range":
		return function(name, "<nnn:a>", 3, func(args []any) (any, error) {
			list, err := arrayRange(nil, args)
			if err != nil {
				return nil, err
			}
			return jsonata.Sequence(list.([]any)), nil //nolint:forcetypeassert // arrayRange returns nothing else
		})
	case "hash":
		return function(name, "<(sonab)s:s>", 2, func(args []any) (any, error) { return hashText(nil, args) })
	case "random":
		return function(name, "<n?:n>", 1, s.randomNumber)
	case "uuid":
		return function(name, "<:s>", 0, func([]any) (any, error) { return newUUID(s.e.random()), nil })
	case "parse":
		return function(name, "<s:x>", 1, parseText)
	}
	return s.e.vars.get(name)
}

// function is a function for expressions. Of absent arguments the result is nothing.
func function(name, signature string, arity int, f func(args []any) (any, error)) (any, bool) {
	made, err := jsonata.NewFunction(name, signature, arity, func(_ *jsonata.Call, args []any) (any, error) {
		for _, a := range args {
			if _, absent := a.(jsonata.Nothing); absent {
				return jsonata.Nothing{}, nil
			}
		}
		return f(args)
	})
	if err != nil {
		return nil, false // never: the signatures are right
	}
	return made, true
}

// randomNumber is $random, with a seed if there is one.
func (s queryScope) randomNumber(args []any) (any, error) {
	if len(args) == 0 {
		return s.e.random().Float64(), nil
	}
	seed, ok := jsontree.Float(args[0])
	if !ok {
		return nil, errors.New("the seed is no number")
	}
	return rand.New(rand.NewPCG(math.Float64bits(seed), 0)).Float64(), nil // it is to be the same for the same seed
}

func parseText(args []any) (any, error) {
	text, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("%s is no text", kindOf(args[0]))
	}
	v, err := jsontree.Parse([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("the text is no JSON: %w", err)
	}
	return v, nil
}
