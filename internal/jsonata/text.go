package jsonata

import (
	"strings"
	"unicode/utf8"
)

// JavaScript's strings are of UTF-16 units, and may hold half a surrogate pair. Here text is UTF-8, with such a half as the three
// bytes that its number would have.

func isHighSurrogate(u uint16) bool { return u >= 0xd800 && u < 0xdc00 }
func isLowSurrogate(u uint16) bool  { return u >= 0xdc00 && u < 0xe000 }

func joinSurrogates(high, low uint16) rune {
	return (rune(high)-0xd800)<<10 + rune(low) - 0xdc00 + 0x10000
}

// decode is the first character of the text, which may be half a pair.
func decode(s string) (r rune, size int) {
	if s[0] < utf8.RuneSelf {
		return rune(s[0]), 1
	}
	if isSurrogateAt(s) {
		return 0xd000 | rune(s[1]&0x3f)<<6 | rune(s[2]&0x3f), 3
	}
	return utf8.DecodeRuneInString(s)
}

func isSurrogateAt(s string) bool {
	return len(s) >= 3 && s[0] == 0xed && s[1] >= 0xa0 && s[1] <= 0xbf && s[2] >= 0x80 && s[2] <= 0xbf
}

// appendUnit appends one UTF-16 unit that is no part of a pair.
func appendUnit(dst []byte, u uint16) []byte {
	if u < 0xd800 || u >= 0xe000 {
		return utf8.AppendRune(dst, rune(u))
	}
	return append(dst, 0xe0|byte(u>>12), 0x80|byte(u>>6)&0x3f, 0x80|byte(u)&0x3f)
}

// units is the text in UTF-16.
func units(s string) []uint16 {
	out := make([]uint16, 0, len(s))
	for len(s) > 0 {
		r, size := decode(s)
		s = s[size:]
		if r >= 0x10000 {
			r -= 0x10000
			out = append(out, 0xd800|uint16(r>>10), 0xdc00|uint16(r&0x3ff))
		} else {
			out = append(out, uint16(r))
		}
	}
	return out
}

// textOfUnits is the text of UTF-16.
func textOfUnits(u []uint16) string {
	out := make([]byte, 0, len(u))
	for i := 0; i < len(u); i++ {
		if isHighSurrogate(u[i]) && i+1 < len(u) && isLowSurrogate(u[i+1]) {
			out = utf8.AppendRune(out, joinSurrogates(u[i], u[i+1]))
			i++
		} else {
			out = appendUnit(out, u[i])
		}
	}
	return string(out)
}

// utf16Length is the length of the text in UTF-16 units.
func utf16Length(s string) int {
	n := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 0xf0:
			n += 2
		case c < 0x80 || c >= 0xc0:
			n++
		}
	}
	return n
}

// characters is the number of code points.
func characters(s string) int {
	n := 0
	for i := range len(s) {
		if c := s[i]; c < 0x80 || c >= 0xc0 {
			n++
		}
	}
	return n
}

// cut is the text from one character to before another one.
func cut(s string, from, to int) string {
	if to <= from {
		return ""
	}
	start, n := -1, 0
	for i := 0; i < len(s); n++ {
		if n == from {
			start = i
		}
		if n == to {
			return s[start:i]
		}
		_, size := decode(s[i:])
		i += size
	}
	if start < 0 {
		return ""
	}
	return s[start:]
}

// joinText puts texts together; halves of a pair that meet become one.
func joinText(a, b string) string {
	if len(a) >= 3 && len(b) >= 3 && a[len(a)-3] == 0xed && b[0] == 0xed {
		high, n := decode(a[len(a)-3:])
		low, m := decode(b)
		if n == 3 && m == 3 && high >= 0xd800 && high < 0xdc00 && low >= 0xdc00 && low < 0xe000 {
			return a[:len(a)-3] + string(joinSurrogates(uint16(high), uint16(low))) + b[3:]
		}
	}
	return a + b
}

// wellFormed replaces halves of pairs and what is not UTF-8.
func wellFormed(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := decode(s)
		if r >= 0xd800 && r < 0xe000 {
			r = utf8.RuneError
		}
		b.WriteRune(r)
		s = s[size:]
	}
	return b.String()
}

// compareUTF16 compares texts as JavaScript does, by their units.
func compareUTF16(a, b string) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	if i == len(a) || i == len(b) || a[i] < 0xee && b[i] < 0xee {
		return strings.Compare(a[i:], b[i:])
	}
	for i > 0 && !utf8.RuneStart(a[i]) {
		i--
	}
	x, _ := decode(a[i:])
	y, _ := decode(b[i:])
	if x >= 0x10000 && y < 0x10000 {
		x = 0xd800
	} else if y >= 0x10000 && x < 0x10000 {
		y = 0xd800
	}
	return int(x - y)
}
