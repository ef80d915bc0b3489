package jsonata

import (
	"errors"
	"fmt"
	"strings"
)

// Error is why an expression cannot be compiled or evaluated. Codes are the reference's: S for syntax, T for types, D for what
// happened during the evaluation.
type Error struct {
	Code     string
	Position int    // offset in UTF-16 units of the end of the token it is about, as the reference counts; 0 if unknown
	Token    string // the operator, function or word it is about
	Value    any    // the value it is about, a Nothing if there is none
	Index    int    // the argument, from 1
	Message  string
	cause    error
	located  bool
}

// Error implements error.
func (e *Error) Error() string {
	if e.Position > 0 {
		return fmt.Sprintf("%s at %d: %s", e.Code, e.Position, e.Message)
	}
	return e.Code + ": " + e.Message
}

// Unwrap gives the error of a Function or of the context.
func (e *Error) Unwrap() error { return e.cause }

func fail(code string) *Error { return &Error{Code: code, Value: Nothing{}, Message: message(code)} }

func failValue(code string, v any) *Error {
	e := fail(code)
	e.Value = v
	switch v := v.(type) {
	case string:
		e.Message += fmt.Sprintf(": %q", clip(v))
	case float64, bool, nil:
		e.Message += fmt.Sprintf(": %v", v)
	}
	return e
}

func failToken(code string, pos int, token string) *Error {
	e := fail(code)
	e.Position, e.Token, e.located = pos, token, true
	if token != "" {
		e.Message += fmt.Sprintf(": %q", clip(token))
	}
	return e
}

func failArgument(code string, v any, index int) *Error {
	e := failValue(code, v)
	e.Index = index
	return e
}

// external makes an Error of what a Function returned.
func external(err error) error {
	if _, own := errors.AsType[*Error](err); own {
		return err
	}
	e := fail("D3137")
	e.Message, e.cause = err.Error(), err
	return e
}

// at says where an error happened, unless that is known.
func at(err error, pos int, token string) error {
	e, is := errors.AsType[*Error](err)
	if !is {
		return err
	}
	if e.Position == 0 {
		e.Position = pos
	}
	if e.Token == "" {
		e.Token = token
	}
	return err
}

// always says where an error happened, whatever is known.
func always(err error, pos int, token string) error {
	if e, is := errors.AsType[*Error](err); is {
		e.Position, e.Token = pos, token
	}
	return err
}

func clip(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func message(code string) string {
	if text := syntaxMessage(code); text != "" {
		return text
	}
	if text := typeMessage(code); text != "" {
		return text
	}
	if text := pictureMessage(code); text != "" {
		return text
	}
	if text := functionMessage(code); text != "" {
		return text
	}
	return "the expression cannot be evaluated"
}

func syntaxMessage(code string) string {
	switch code {
	case "S0101":
		return "the string has no closing quote"
	case "S0102":
		return "the number is out of range"
	case "S0103":
		return "the escape sequence is not supported"
	case "S0104":
		return "four hexadecimal digits must follow \\u"
	case "S0105":
		return "the name has no closing backquote"
	case "S0106":
		return "the comment is not closed"
	case "S0201":
		return "unexpected token"
	case "S0202":
		return "another token is expected"
	case "S0203":
		return "the expression ends before the expected token"
	case "S0204":
		return "unknown operator"
	case "S0205":
		return "unexpected token"
	case "S0206":
		return "unknown kind of expression"
	case "S0207":
		return "the expression ends too early"
	case "S0208":
		return "a parameter of a function must be a variable"
	case "S0209":
		return "a predicate must not follow a grouping in one step"
	case "S0210":
		return "a step may have one grouping only"
	case "S0211":
		return "the symbol is not a prefix operator"
	case "S0212":
		return "the left side of := must be a variable"
	case "S0213":
		return "a literal value cannot be a step of a path"
	case "S0214":
		return "the right side of the operator must be a variable"
	case "S0215":
		return "the binding of a context variable must come before the predicates of its step"
	case "S0216":
		return "the binding of a context variable must come before the order-by of its step"
	case "S0217":
		return "the parent cannot be found from here"
	case "S0301":
		return "the regular expression is empty"
	case "S0302":
		return "the regular expression has no closing /"
	case "S0303":
		return "the regular expression is not valid"
	case "S0401":
		return "only functions and arrays have type parameters"
	case "S0402":
		return "a choice of types must not have type parameters"
	case "S0403":
		return "the signature is not valid"
	case "S0500":
		return "the expression has syntax errors"
	}
	return ""
}

func typeMessage(code string) string {
	switch code {
	case "T0410":
		return "an argument does not fit the function's signature"
	case "T0411":
		return "the context is of a type that does not fit the argument it stands for"
	case "T0412":
		return "an argument must be an array of one type"
	case "D1001":
		return "the number is out of range"
	case "D1002":
		return "only a number can be negated"
	case "T1003":
		return "the key of an object must be a string"
	case "D1004":
		return "the regular expression matches the empty string"
	case "T1005":
		return "this is no function; is a $ missing before the name?"
	case "T1006":
		return "this is no function"
	case "T1007":
		return "this is no function to apply partially; is a $ missing before the name?"
	case "T1008":
		return "this is no function to apply partially"
	case "D1009":
		return "several keys of the object are the same"
	case "T1009":
		return "the result is a function, which is no JSON value"
	case "T1010":
		return "the matcher function returns another structure than it must"
	case "D1011":
		return "the evaluation nests too deeply; does a function call itself without end?"
	case "D1012":
		return "the evaluation takes too long; is there an endless loop?"
	case "D1013":
		return "the name of an object's member is reserved"
	case "T2001":
		return "the left side of the operator must be a number"
	case "T2002":
		return "the right side of the operator must be a number"
	case "T2003":
		return "the left side of the range must be an integer"
	case "T2004":
		return "the right side of the range must be an integer"
	case "T2006":
		return "the right side of ~> must be a function"
	case "T2007":
		return "the values to order by are of different types"
	case "T2008":
		return "the values to order by must be numbers or strings"
	case "T2009":
		return "both sides of the operator must be of the same type"
	case "T2010":
		return "both sides of the operator must be numbers or strings"
	case "T2011":
		return "the update of a transform must be an object"
	case "T2012":
		return "what a transform deletes must be a string or an array of strings"
	case "T2013":
		return "a transform needs $clone, which is bound to something else"
	case "D2014":
		return "a range may have ten million items at most"
	case "D2015":
		return "the evaluation makes too many items or too much text"
	}
	return ""
}

func pictureMessage(code string) string {
	switch code {
	case "D3080":
		return "the picture may have two parts at most"
	case "D3081":
		return "the picture has more than one decimal separator"
	case "D3082":
		return "the picture has more than one percent sign"
	case "D3083":
		return "the picture has more than one per-mille sign"
	case "D3084":
		return "the picture has both a percent and a per-mille sign"
	case "D3085":
		return "the picture has no digit"
	case "D3086":
		return "the picture has other text between its digits"
	case "D3087":
		return "in the picture a grouping separator is next to the decimal separator"
	case "D3088":
		return "in the picture a grouping separator ends the integer part"
	case "D3089":
		return "in the picture two grouping separators are next to one another"
	case "D3090":
		return "in the picture's integer part an optional digit follows a mandatory one"
	case "D3091":
		return "in the picture's fraction a mandatory digit follows an optional one"
	case "D3092":
		return "a picture with a percent or per-mille sign must have no exponent"
	case "D3093":
		return "the picture's exponent must be of digits"
	case "D3130":
		return "integers cannot be written or read as a sequence that begins with this"
	case "D3131":
		return "the digits of a picture must be of one family"
	case "D3132":
		return "the picture has an unknown component"
	case "D3133":
		return "only months and days have names"
	case "D3134":
		return "a time zone has four digits at most"
	case "D3135":
		return "the picture lacks a closing bracket"
	case "D3136":
		return "the picture lacks components that are needed for a time"
	}
	return ""
}

func functionMessage(code string) string {
	switch code {
	case "D3001":
		return "a number that is infinite or not a number has no text"
	case "D3010":
		return "what $replace looks for must not be empty"
	case "D3011":
		return "the limit of $replace must not be negative"
	case "D3012":
		return "the replacement must be a string"
	case "D3020":
		return "the limit of $split must not be negative"
	case "D3030":
		return "the value cannot be made a number"
	case "D3040":
		return "the limit of $match must not be negative"
	case "D3050":
		return "$reduce needs a function of at least two arguments"
	case "D3060":
		return "a negative number has no square root"
	case "D3061":
		return "the power cannot be represented as a number"
	case "D3070":
		return "without a comparing function $sort takes arrays of numbers or of strings"
	case "D3100":
		return "the base must be from 2 to 36"
	case "D3110":
		return "the time must be written as ISO 8601 says"
	case "D3120":
		return "syntax error in the expression for $eval"
	case "D3121":
		return "error in the expression for $eval"
	case "D3137":
		return "$error() function evaluated"
	case "D3138":
		return "$single found more than one match"
	case "D3139":
		return "$single found no match"
	case "D3140":
		return "the text is no well-formed part of a URL"
	case "D3141":
		return "$assert() statement failed"
	}
	return ""
}
