package jsonata

import "strings"

// spec describes a built-in function.
type spec struct {
	signature string
	params    string // the names of its parameters, for partial application and for how many arguments $map hands over
	absent    bool   // nothing as the first argument gives nothing
	call      func(c *Call, args []any) (any, error)
}

// builtin makes the built-in function of the name; nil if there is none.
func builtin(name string) *Function {
	sp, ok := textFunctions(name)
	if !ok {
		sp, ok = numberFunctions(name)
	}
	if !ok {
		sp, ok = listFunctions(name)
	}
	if !ok {
		sp, ok = otherFunctions(name)
	}
	if !ok {
		return nil
	}
	sig, err := parseSignature(sp.signature)
	if err != nil {
		return nil
	}
	names := strings.Split(sp.params, " ") // without any, one that is empty, as in the reference
	f := &Function{kind: builtinFunction, name: name, signature: sig, arity: len(strings.Fields(sp.params)), names: names, native: sp.call}
	if sp.absent {
		f.native = func(c *Call, args []any) (any, error) {
			if isNothing(argument(args, 0)) {
				return Nothing{}, nil
			}
			return sp.call(c, args)
		}
	}
	return f
}

func textFunctions(name string) (spec, bool) {
	switch name {
	case "string":
		return spec{"<x-b?:s>", "arg", true, callString}, true
	case "substring":
		return spec{"<s-nn?:s>", "str start length", true, callSubstring}, true
	case "substringBefore":
		return spec{"<s-s:s>", "str chars", true, callSubstringBefore}, true
	case "substringAfter":
		return spec{"<s-s:s>", "str chars", true, callSubstringAfter}, true
	case "lowercase":
		return spec{"<s-:s>", "str", true, callLowercase}, true
	case "uppercase":
		return spec{"<s-:s>", "str", true, callUppercase}, true
	case "length":
		return spec{"<s-:n>", "str", true, callLength}, true
	case "trim":
		return spec{"<s-:s>", "str", true, callTrim}, true
	case "pad":
		return spec{"<s-ns?:s>", "str width char", true, callPad}, true
	case "match":
		return spec{"<s-f<s:o>n?:a<o>>", "str regex limit", true, callMatch}, true
	case "contains":
		return spec{"<s-(sf):b>", "str token", true, callContains}, true
	case "replace":
		return spec{"<s-(sf)(sf)n?:s>", "str pattern replacement limit", true, callReplace}, true
	case "split":
		return spec{"<s-(sf)n?:a<s>>", "str separator limit", true, callSplit}, true
	case "join":
		return spec{"<a<s>s?:s>", "strs separator", true, callJoin}, true
	case "base64encode":
		return spec{"<s-:s>", "str", true, callBase64Encode}, true
	case "base64decode":
		return spec{"<s-:s>", "str", true, callBase64Decode}, true
	case "encodeUrlComponent":
		return spec{"<s-:s>", "str", true, callEncodeURLComponent}, true
	case "encodeUrl":
		return spec{"<s-:s>", "str", true, callEncodeURL}, true
	case "decodeUrlComponent":
		return spec{"<s-:s>", "str", true, callDecodeURLComponent}, true
	case "decodeUrl":
		return spec{"<s-:s>", "str", true, callDecodeURL}, true
	}
	return spec{}, false
}

func numberFunctions(name string) (spec, bool) {
	switch name {
	case "sum":
		return spec{"<a<n>:n>", "args", true, callSum}, true
	case "count":
		return spec{"<a:n>", "args", false, callCount}, true
	case "max":
		return spec{"<a<n>:n>", "args", true, callMax}, true
	case "min":
		return spec{"<a<n>:n>", "args", true, callMin}, true
	case "average":
		return spec{"<a<n>:n>", "args", true, callAverage}, true
	case "formatNumber":
		return spec{"<n-so?:s>", "value picture options", true, callFormatNumber}, true
	case "formatBase":
		return spec{"<n-n?:s>", "value radix", true, callFormatBase}, true
	case "formatInteger":
		return spec{"<n-s:s>", "value picture", true, callFormatInteger}, true
	case "parseInteger":
		return spec{"<s-s:n>", "value picture", true, callParseInteger}, true
	case "number":
		return spec{"<(nsb)-:n>", "arg", true, callNumber}, true
	case "floor":
		return spec{"<n-:n>", "arg", true, callFloor}, true
	case "ceil":
		return spec{"<n-:n>", "arg", true, callCeil}, true
	case "round":
		return spec{"<n-n?:n>", "arg precision", true, callRound}, true
	case "abs":
		return spec{"<n-:n>", "arg", true, callAbs}, true
	case "sqrt":
		return spec{"<n-:n>", "arg", true, callSqrt}, true
	case "power":
		return spec{"<n-n:n>", "arg exp", true, callPower}, true
	case "random":
		return spec{"<:n>", "", false, callRandom}, true
	case "now":
		return spec{"<s?s?:s>", "picture timezone", false, callNow}, true
	case "millis":
		return spec{"<:n>", "", false, callMillis}, true
	case "toMillis":
		return spec{"<s-s?:n>", "timestamp picture", true, callToMillis}, true
	case "fromMillis":
		return spec{"<n-s?s?:s>", "millis picture timezone", true, callFromMillis}, true
	}
	return spec{}, false
}

func listFunctions(name string) (spec, bool) {
	switch name {
	case "map":
		return spec{"<af>", "arr func", true, callMap}, true
	case "zip":
		return spec{"<a+>", "", false, callZip}, true
	case "filter":
		return spec{"<af>", "arr func", true, callFilter}, true
	case "single":
		return spec{"<af?>", "arr func", true, callSingle}, true
	case "reduce":
		return spec{"<afj?:j>", "sequence func init", true, callReduce}, true
	case "append":
		return spec{"<xx:a>", "arg1 arg2", false, callAppend}, true
	case "reverse":
		return spec{"<a:a>", "arr", true, callReverse}, true
	case "sort":
		return spec{"<af?:a>", "arr comparator", true, callSort}, true
	case "shuffle":
		return spec{"<a:a>", "arr", true, callShuffle}, true
	case "distinct":
		return spec{"<x:x>", "arr", true, callDistinct}, true
	}
	return spec{}, false
}

func otherFunctions(name string) (spec, bool) {
	switch name {
	case "boolean":
		return spec{"<x-:b>", "arg", true, callBoolean}, true
	case "not":
		return spec{"<x-:b>", "arg", true, callNot}, true
	case "sift":
		return spec{"<o-f?:o>", "arg func", false, callSift}, true
	case "keys":
		return spec{"<x-:a<s>>", "arg", false, callKeys}, true
	case "lookup":
		return spec{"<x-s:x>", "input key", false, callLookup}, true
	case "exists":
		return spec{"<x:b>", "arg", false, callExists}, true
	case "spread":
		return spec{"<x-:a<o>>", "arg", false, callSpread}, true
	case "merge":
		return spec{"<a<o>:o>", "arg", true, callMerge}, true
	case "each":
		return spec{"<o-f:a>", "obj func", false, callEach}, true
	case "error":
		return spec{"<s?:x>", "message", false, callError}, true
	case "assert":
		return spec{"<bs?:x>", "condition message", false, callAssert}, true
	case "type":
		return spec{"<x:s>", "value", true, callType}, true
	case "eval":
		return spec{"<sx?:x>", "expr focus", true, callEval}, true
	case "clone":
		return spec{"<(oa)-:o>", "arg", true, callClone}, true
	}
	return spec{}, false
}

// What follows reads arguments. Those of a call fit the signature, those of a partial application need not.

func textArgument(args []any, i int) (string, error) {
	text, is := argument(args, i).(string)
	if !is {
		return "", failArgument("T0410", argument(args, i), i+1)
	}
	return text, nil
}

func numberArgument(args []any, i int) (float64, error) {
	f, is := number(argument(args, i))
	if !is {
		return 0, failArgument("T0410", argument(args, i), i+1)
	}
	return f, nil
}

// listArgument is the first argument, an array.
func listArgument(args []any) ([]any, error) {
	items, is := elements(argument(args, 0))
	if !is {
		return nil, failArgument("T0410", argument(args, 0), 1)
	}
	return items, nil
}

// functionArgument is the second argument, a function.
func functionArgument(args []any) (*Function, error) {
	f, is := argument(args, 1).(*Function)
	if !is {
		return nil, failArgument("T0410", argument(args, 1), 2)
	}
	return f, nil
}

// limitArgument is an argument that limits a number of matches; none is no limit.
func limitArgument(args []any, i int, code string) (limit float64, given bool, err error) {
	v := argument(args, i)
	if isNothing(v) {
		return 0, false, nil
	}
	limit, err = numberArgument(args, i)
	if err == nil && limit < 0 {
		err = failArgument(code, v, i+1)
	}
	return limit, true, err
}
