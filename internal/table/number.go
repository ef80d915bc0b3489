package table

import (
	"cmp"
	"math/big"
	"strconv"
	"strings"
)

// decimal is a number as DynamoDB has it: up to 38 digits, of which the first stands for 10^-130 to 10^125. Its zero value is 0.
type decimal struct {
	negative bool
	digits   string // no zeros at either end; of 0 none
	exponent int    // the value is digits × 10^exponent
}

const (
	notNumeric = "The parameter cannot be converted to a numeric value"
	overflow   = "Number overflow. Attempting to store a number with magnitude larger than supported range"
	underflow  = "Number underflow. Attempting to store a number with magnitude smaller than supported range"
	tooPrecise = "Attempting to store more than 38 significant digits in a Number"
)

// farExponent stands for every exponent that has more digits: numbers with it are out of range, or 0.
const farExponent = 999_999_999

func parseNumber(text string) (decimal, error) {
	if text == "" {
		return decimal{}, invalid(notNumeric)
	}
	rest := text
	var d decimal
	if rest[0] == '-' || rest[0] == '+' {
		d.negative, rest = rest[0] == '-', rest[1:]
	}
	mantissa := rest
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		var ok bool
		if d.exponent, ok = parseExponent(rest[i+1:]); !ok {
			return decimal{}, invalid("%s: %s", notNumeric, text)
		}
		mantissa = rest[:i]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if whole+fraction == "" || !allDigits(whole) || !allDigits(fraction) {
		return decimal{}, invalid("%s: %s", notNumeric, text)
	}
	d.digits = whole + fraction
	d.exponent -= len(fraction)
	d = d.trimmed()
	if why := d.outOfRange(); why != "" {
		return decimal{}, invalid("%s", why)
	}
	if len(d.digits) > maxDigits {
		return decimal{}, invalid(tooPrecise)
	}
	return d, nil
}

func parseExponent(text string) (n int, ok bool) {
	negative := strings.HasPrefix(text, "-")
	if negative || strings.HasPrefix(text, "+") {
		text = text[1:]
	}
	if text == "" || !allDigits(text) {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	if err != nil || n > farExponent {
		n = farExponent
	}
	if negative {
		n = -n
	}
	return n, true
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// trimmed is the same number in the form that its type promises.
func (d decimal) trimmed() decimal {
	d.digits = strings.TrimLeft(d.digits, "0")
	n := len(d.digits)
	d.digits = strings.TrimRight(d.digits, "0")
	d.exponent += n - len(d.digits)
	if d.digits == "" {
		return decimal{}
	}
	return d
}

// magnitude is the power of ten that the first digit stands for.
func (d decimal) magnitude() int { return len(d.digits) + d.exponent - 1 }

func (d decimal) outOfRange() string {
	switch {
	case d.digits == "":
	case d.magnitude() > maxNumber:
		return overflow
	case d.magnitude() < minNumber:
		return underflow
	}
	return ""
}

// String is the number as DynamoDB writes it: canonical, and never with an exponent.
func (d decimal) String() string {
	if d.digits == "" {
		return "0"
	}
	sign := ""
	if d.negative {
		sign = "-"
	}
	point := len(d.digits) + d.exponent
	switch {
	case d.exponent >= 0:
		return sign + d.digits + strings.Repeat("0", d.exponent)
	case point > 0:
		return sign + d.digits[:point] + "." + d.digits[point:]
	default:
		return sign + "0." + strings.Repeat("0", -point) + d.digits
	}
}

// size is what DynamoDB counts for the number, in bytes: its digits in pairs, before and behind the point on their own.
func (d decimal) size() int {
	if d.digits == "" {
		return 1
	}
	n := 1
	if d.negative {
		n++
	}
	point := len(d.digits) + d.exponent
	if d.exponent >= 0 || point <= 0 {
		return n + (len(d.digits)+1)/2
	}
	return n + (point+1)/2 + (-d.exponent+1)/2
}

func (d decimal) compare(other decimal) int {
	sign := func(d decimal) int {
		switch {
		case d.digits == "":
			return 0
		case d.negative:
			return -1
		}
		return 1
	}
	a, b := sign(d), sign(other)
	if a != b || a == 0 {
		return cmp.Compare(a, b)
	}
	return a * cmp.Or(cmp.Compare(d.magnitude(), other.magnitude()), strings.Compare(d.digits, other.digits))
}

func (d decimal) negated() decimal {
	d.negative = d.digits != "" && !d.negative
	return d
}

// plus adds exactly; a sum that can't be stored is an error. That has too many digits DynamoDB calls an overflow, too.
func (d decimal) plus(other decimal) (decimal, error) {
	exponent := min(d.exponent, other.exponent)
	sum := new(big.Int).Add(d.scaled(exponent), other.scaled(exponent))
	r := decimal{negative: sum.Sign() < 0, digits: sum.Abs(sum).String(), exponent: exponent}.trimmed()
	why := r.outOfRange()
	if why == "" && len(r.digits) > maxDigits {
		why = overflow
	}
	if why != "" {
		return decimal{}, invalid("%s", why)
	}
	return r, nil
}

// scaled is the number in units of 10^exponent, which is not above its own.
func (d decimal) scaled(exponent int) *big.Int {
	n := new(big.Int)
	if d.digits == "" {
		return n
	}
	n.SetString(d.digits+strings.Repeat("0", d.exponent-exponent), 10)
	if d.negative {
		n.Neg(n)
	}
	return n
}
