package schema

import (
	"bytes"
	"fmt"
)

// Bounds of a JSON text, before any parser sees it: what exceeds them makes parsers recurse too deeply, and exact
// arithmetic take seconds, here and in functions.
const (
	// DefaultMaxDepth is how deeply objects and arrays may be nested, unless the route says otherwise.
	DefaultMaxDepth = 128
	// maxNumberDigits bounds the digits of a number, maxExponent its exponent: those of a double are 17 and 308.
	maxNumberDigits = 400
	maxExponent     = 400
)

// BoundError says which bound a JSON text exceeds.
type BoundError struct {
	Offset int // bytes
	What   string
}

func (e *BoundError) Error() string { return fmt.Sprintf("byte %d: %s", e.Offset, e.What) }

// CheckBounds returns nil if text, taken as JSON, is nested at most depth deep and its numbers are within their bounds,
// else a *BoundError. It doesn't tell whether text is JSON.
func CheckBounds(text []byte, depth int) error {
	if bytes.Count(text, open)+bytes.Count(text, openArray) <= depth && !hasExponent(text) && !hasLongNumber(text) {
		return nil // the usual case, told at some gigabytes a second
	}
	level := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; class[c] {
		case plain:
		case quote:
			n := skipString(text[i+1:])
			if n < 0 {
				return nil // no JSON: its parser says so
			}
			i += n
		case opening:
			if level++; level > depth {
				return &BoundError{i, fmt.Sprintf("objects and arrays are nested more than %d deep (maxDepth)", depth)}
			}
		case closing:
			level--
		case number:
			n, what := checkNumber(text[i:])
			if what != "" {
				return &BoundError{i, what}
			}
			i += n - 1
		}
	}
	return nil
}

var open, openArray = []byte{'{'}, []byte{'['} //nolint:gochecknoglobals // constants

// hasExponent reports whether text has a number with an exponent, or anything that looks like one.
func hasExponent(text []byte) bool {
	for _, e := range [...]byte{'e', 'E'} {
		for rest := text; ; {
			i := bytes.IndexByte(rest, e)
			if i < 0 {
				break
			}
			if i > 0 && '0' <= rest[i-1] && rest[i-1] <= '9' {
				return true
			}
			rest = rest[i+1:]
		}
	}
	return false
}

// hasLongNumber reports whether text has a number with too many digits, or anything that looks like one. Such a number
// reaches over a multiple of maxNumberDigits.
func hasLongNumber(text []byte) bool {
	digit := func(i int) bool { c := text[i]; return '0' <= c && c <= '9' || c == '.' }
	for i := maxNumberDigits; i < len(text); i += maxNumberDigits {
		from, to := i, i
		for from > 0 && digit(from-1) && to-from <= maxNumberDigits {
			from--
		}
		for to < len(text) && digit(to) && to-from <= maxNumberDigits {
			to++
		}
		if to-from > maxNumberDigits {
			return true
		}
	}
	return false
}

// The classes of bytes outside of strings.
const (
	plain = iota
	quote
	opening
	closing
	number // its first byte
)

var class = func() (t [256]uint8) { //nolint:gochecknoglobals // a constant table
	t['"'] = quote
	t['{'], t['['] = opening, opening
	t['}'], t[']'] = closing, closing
	t['-'] = number
	for c := '0'; c <= '9'; c++ {
		t[c] = number
	}
	return t
}()

// skipString returns the length of a string's rest, its last quote included; -1 if it has no end.
func skipString(text []byte) int {
	for i := 0; ; {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		escapes := 0
		for j := i - 1; j >= 0 && text[j] == '\\'; j-- {
			escapes++
		}
		i++
		if escapes%2 == 0 {
			return i
		}
	}
}

// checkNumber returns the length of the number at the beginning of text, or what is wrong with it.
func checkNumber(text []byte) (n int, what string) {
	digits := 0
	for ; n < len(text); n++ {
		if c := text[n]; '0' <= c && c <= '9' {
			digits++
		} else if c != '.' && c != '-' {
			break
		}
	}
	if digits > maxNumberDigits {
		return n, fmt.Sprintf("a number has more than %d digits", maxNumberDigits)
	}
	if n == len(text) || text[n]|0x20 != 'e' {
		return n, ""
	}
	exponent := 0
	for n++; n < len(text); n++ {
		if c := text[n]; '0' <= c && c <= '9' {
			exponent = min(10*exponent+int(c-'0'), maxExponent+1)
		} else if c != '+' && c != '-' {
			break
		}
	}
	if exponent > maxExponent {
		return n, fmt.Sprintf("a number's exponent is beyond %d", maxExponent)
	}
	return n, ""
}
