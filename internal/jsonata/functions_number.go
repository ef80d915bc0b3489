package jsonata

import (
	"encoding/json"
	"math"
)

func callNumber(_ *Call, args []any) (any, error) {
	switch v := argument(args, 0).(type) {
	case float64, json.Number:
		f, _ := number(v)
		return f, nil
	case bool:
		if v {
			return 1.0, nil
		}
		return 0.0, nil
	case string:
		if f, ok := toNumber(v); ok {
			return f, nil
		}
	}
	return nil, failArgument("D3030", argument(args, 0), 1)
}

func callFloor(_ *Call, args []any) (any, error) {
	f, err := numberArgument(args, 0)
	return math.Floor(f), err
}

func callCeil(_ *Call, args []any) (any, error) {
	f, err := numberArgument(args, 0)
	return math.Ceil(f), err
}

func callAbs(_ *Call, args []any) (any, error) {
	f, err := numberArgument(args, 0)
	return math.Abs(f), err
}

func callRound(_ *Call, args []any) (any, error) {
	f, err := numberArgument(args, 0)
	if err != nil {
		return nil, err
	}
	precision, _ := number(argument(args, 1))
	return roundEven(f, precision), nil
}

func callSqrt(_ *Call, args []any) (any, error) {
	f, err := numberArgument(args, 0)
	if err == nil && f < 0 {
		err = failArgument("D3060", f, 1)
	}
	return math.Sqrt(f), err
}

func callPower(_ *Call, args []any) (any, error) {
	f, err := numberArgument(args, 0)
	if err != nil {
		return nil, err
	}
	exponent, is := number(argument(args, 1))
	r := power64(f, exponent)
	if !is || math.IsNaN(r) || math.IsInf(r, 0) {
		return nil, failArgument("D3061", f, 1)
	}
	return r, nil
}

// power64 is JavaScript's Math.pow, which differs from C's for a base of 1 or -1.
func power64(f, exponent float64) float64 {
	if (f == 1 || f == -1) && (math.IsInf(exponent, 0) || math.IsNaN(exponent)) {
		return math.NaN()
	}
	return math.Pow(f, exponent)
}

func callRandom(c *Call, _ []any) (any, error) { return c.s.random(), nil }

func callFormatBase(c *Call, args []any) (any, error) {
	f, err := numberArgument(args, 0)
	if err != nil {
		return nil, err
	}
	base := 10.0
	if b, is := number(argument(args, 1)); is {
		base = roundEven(b, 0)
	}
	if !(base >= 2 && base <= 36) {
		return nil, failArgument("D3100", base, 2)
	}
	text := inBase(roundEven(f, 0), int(base))
	return text, c.s.spell(len(text))
}
