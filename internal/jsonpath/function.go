package jsonpath

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// call is a function at the end of a path. It is applied to what the path found: to the one value, or to the array of what an
// indefinite path found. (Jayway documents that, and applies some functions to each value instead.)
type call struct {
	name string
	args []operand
}

// function reads the parentheses of a function whose name was at from. Arguments are literals and paths.
func (p *parser) function(name string, from int) (*call, error) {
	least, most := 0, MaxSteps
	switch name {
	case "length", "size", "keys", "first", "last":
		most = 0
	case "index":
		least, most = 1, 1
	case "append":
		least = 1
	case "min", "max", "avg", "sum", "stddev", "concat":
	default:
		return nil, p.failAt(from, "there is no function %q: there are length, size, keys, first, last, index, append, concat, min, max, avg, sum, stddev", name)
	}
	c := &call{name: name}
	err := p.elements(')', func() error {
		arg, err := p.operand(false)
		c.args = append(c.args, arg)
		return err
	})
	if err == nil && (len(c.args) < least || len(c.args) > most) {
		if least == 0 {
			err = p.failAt(from, "the function %s has no arguments", name)
		} else {
			err = p.failAt(from, "the function %s needs an argument", name)
		}
	}
	return c, err
}

// apply returns the function's value of v. The error is an ErrFunction, or ErrNotFound for an element that is not there.
func (c *call) apply(e *evaluation, item, v any) (any, error) {
	args := make([]any, 0, len(c.args))
	for i := range c.args {
		arg, ok := c.args[i].get(e, item)
		if !ok {
			return nil, fmt.Errorf("%w: argument %d of %s() is not there", ErrFunction, i+1, c.name)
		}
		args = append(args, arg)
	}
	if n, list := length(v); list && c.name != "length" && c.name != "size" {
		e.spend(n)
	}
	switch c.name {
	case "length", "size": // Jayway: of null, a number or a boolean it is null; of a string too, which has a length here
		if n, ok := length(v); ok {
			return json.Number(strconv.Itoa(n)), nil
		}
		return nil, nil
	case "keys": // Jayway: of anything else it is null
		o, ok := v.(*jsontree.Object)
		if !ok {
			return nil, nil
		}
		keys := make([]any, 0, o.Len())
		for k := range o.All() {
			keys = append(keys, k)
		}
		return keys, nil
	case "first":
		return c.element(v, 0)
	case "last":
		return c.element(v, -1)
	case "index":
		f, ok := jsontree.Float(args[0])
		if n := int32(max(min(f, math.MaxInt32), math.MinInt32)); ok && float64(n) == f {
			return c.element(v, int(n))
		}
		return nil, fmt.Errorf("%w: the argument of index() is no whole number", ErrFunction)
	case "append": // Jayway: what is no array stays as it is
		if list, ok := v.([]any); ok {
			return slices.Concat(list, args), nil
		}
		return v, nil
	case "concat":
		return concat(v, args), nil
	default:
		return c.aggregate(flat(v, args))
	}
}

func (c *call) element(v any, at int) (any, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%w: %s() is for an array, not for %s", ErrFunction, c.name, kindOf(v))
	}
	n, ok := place(at, len(list))
	if !ok {
		return nil, ErrNotFound
	}
	return list[n], nil
}

// flat is the elements of v, if it is an array, and the arguments: those of them that are arrays by their elements.
func flat(v any, args []any) []any {
	list, _ := v.([]any)
	if len(args) == 0 {
		return list
	}
	list = slices.Clone(list)
	for _, a := range args {
		if l, ok := a.([]any); ok {
			list = append(list, l...)
		} else {
			list = append(list, a)
		}
	}
	return list
}

// concat joins the strings of an array, and the arguments with the numbers among them. As in Jayway other values are left out.
func concat(v any, args []any) string {
	var b strings.Builder
	for _, s := range flat(v, nil) {
		if s, ok := s.(string); ok {
			b.WriteString(s)
		}
	}
	for _, s := range flat(nil, args) {
		switch s := s.(type) {
		case string:
			b.WriteString(s)
		case json.Number:
			b.WriteString(string(s))
		case float64:
			b.Write(jsontree.AppendFloat(nil, s))
		}
	}
	return b.String()
}

// aggregate computes from the numbers of a list. As in Jayway other values are left out, and no number at all is an error.
// min and max return the number as it is written.
func (c *call) aggregate(list []any) (any, error) {
	var numbers []float64
	var least, most any
	for _, v := range list {
		f, ok := jsontree.Float(v)
		if !ok {
			continue
		}
		numbers = append(numbers, f)
		if n, _ := order(v, least); least == nil || n < 0 {
			least = v
		}
		if n, _ := order(v, most); most == nil || n > 0 {
			most = v
		}
	}
	if len(numbers) == 0 {
		return nil, fmt.Errorf("%w: %s() needs numbers", ErrFunction, c.name)
	}
	sum := 0.0
	for _, f := range numbers {
		sum += f
	}
	mean := sum / float64(len(numbers))
	result := sum
	switch c.name {
	case "min":
		return least, nil
	case "max":
		return most, nil
	case "avg":
		result = mean
	case "stddev": // of the whole, not of a sample
		squares := 0.0
		for _, f := range numbers {
			squares += (f - mean) * (f - mean)
		}
		result = math.Sqrt(squares / float64(len(numbers)))
	}
	if math.IsNaN(result) || math.IsInf(result, 0) {
		return nil, fmt.Errorf("%w: the result of %s() is too large", ErrFunction, c.name)
	}
	return result, nil
}
