package jsonata

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	endToken tokenKind = iota
	operatorToken
	nameToken
	variableToken
	stringToken
	numberToken
	valueToken // true, false, null
	regexToken
)

type token struct {
	kind   tokenKind
	text   string // of an operator, a name, a variable or a string
	number float64
	value  any // of a valueToken
	regex  *regex
	pos    int // offset of its end in UTF-16 units
}

// lexer gives the tokens of a text one at a time, because what a slash means depends on what the parser expects.
type lexer struct {
	text     string
	offset   int // in bytes
	lastByte int // utf16 of lastByte is lastUnit
	lastUnit int
}

const blanks = " \t\n\r\v"

// isOperatorByte says whether a character ends a name.
func isOperatorByte(c byte) bool {
	return strings.IndexByte(".[]{}(),@#;:?+-*/%|=<>^&!~", c) >= 0
}

// unit is a byte offset in UTF-16 units. Offsets are asked in about ascending order, so the way is short.
func (l *lexer) unit(offset int) int {
	if offset < l.lastByte {
		l.lastByte, l.lastUnit = 0, 0
	}
	l.lastUnit += utf16Length(l.text[l.lastByte:offset])
	l.lastByte = offset
	return l.lastUnit
}

func (l *lexer) peek(ahead int) byte {
	if l.offset+ahead < len(l.text) {
		return l.text[l.offset+ahead]
	}
	return 0
}

func (l *lexer) fail(code, tok string) *Error { return failToken(code, l.unit(l.offset), tok) }

func (l *lexer) make(kind tokenKind, text string) token {
	return token{kind: kind, text: text, pos: l.unit(l.offset)}
}

// next gives the next token. After an operand a slash is the division (operand is true), otherwise it begins a regular expression.
func (l *lexer) next(operand bool) (token, error) {
	if err := l.skip(); err != nil {
		return token{}, err
	}
	if l.offset >= len(l.text) {
		return l.make(endToken, ""), nil
	}
	c := l.text[l.offset]
	switch {
	case !operand && c == '/':
		l.offset++
		return l.regex()
	case l.double():
		l.offset += 2
		return l.make(operatorToken, l.text[l.offset-2:l.offset]), nil
	case isOperatorByte(c):
		l.offset++
		return l.make(operatorToken, l.text[l.offset-1:l.offset]), nil
	case c == '"' || c == '\'':
		return l.string(c)
	case c >= '0' && c <= '9':
		return l.number()
	case c == '`':
		l.offset++
		end := strings.IndexByte(l.text[l.offset:], '`')
		if end < 0 {
			l.offset = len(l.text)
			return token{}, l.fail("S0105", "")
		}
		name := l.text[l.offset : l.offset+end]
		l.offset += end + 1
		return l.make(nameToken, name), nil
	}
	return l.word(), nil
}

// skip goes past blanks and comments.
func (l *lexer) skip() error {
	for l.offset < len(l.text) {
		switch {
		case strings.IndexByte(blanks, l.text[l.offset]) >= 0:
			l.offset++
		case l.text[l.offset] == '/' && l.peek(1) == '*':
			end := strings.Index(l.text[l.offset+2:], "*/")
			if end < 0 {
				return l.fail("S0106", "")
			}
			l.offset += 2 + end + 2
		default:
			return nil
		}
	}
	return nil
}

func (l *lexer) double() bool {
	switch l.text[l.offset] {
	case '.':
		return l.peek(1) == '.'
	case ':', '!', '>', '<':
		return l.peek(1) == '='
	case '*':
		return l.peek(1) == '*'
	case '~':
		return l.peek(1) == '>'
	case '?':
		return l.peek(1) == ':' || l.peek(1) == '?'
	}
	return false
}

func (l *lexer) word() token {
	from := l.offset
	for l.offset < len(l.text) && strings.IndexByte(blanks, l.text[l.offset]) < 0 && !isOperatorByte(l.text[l.offset]) {
		l.offset++
	}
	word := l.text[from:l.offset]
	if word[0] == '$' {
		return l.make(variableToken, word[1:])
	}
	t := l.make(nameToken, word)
	switch word {
	case "or", "in", "and":
		t.kind = operatorToken
	case "true", "false":
		t.kind, t.value = valueToken, word == "true"
	case "null":
		t.kind = valueToken
	}
	return t
}

func (l *lexer) number() (token, error) {
	from := l.offset
	digits := func() bool {
		start := l.offset
		for c := l.peek(0); c >= '0' && c <= '9'; c = l.peek(0) {
			l.offset++
		}
		return l.offset > start
	}
	if l.peek(0) == '0' {
		l.offset++
	} else {
		digits()
	}
	whole := l.offset
	if l.peek(0) == '.' {
		l.offset++
		if digits() {
			whole = l.offset
		}
	}
	l.offset = whole
	if c := l.peek(0); c == 'e' || c == 'E' {
		l.offset++
		if c := l.peek(0); c == '+' || c == '-' {
			l.offset++
		}
		if digits() {
			whole = l.offset
		}
	}
	l.offset = whole
	f, _ := strconv.ParseFloat(l.text[from:l.offset], 64) // out of range is infinite, or zero, as in JavaScript
	if math.IsInf(f, 0) {
		text := l.text[from:l.offset]
		l.offset = from
		return token{}, l.fail("S0102", text)
	}
	t := l.make(numberToken, l.text[from:l.offset])
	t.number = f
	return t, nil
}

func (l *lexer) string(quote byte) (token, error) {
	l.offset++
	var b strings.Builder
	for l.offset < len(l.text) {
		c := l.text[l.offset]
		switch {
		case c == quote:
			l.offset++
			return l.make(stringToken, b.String()), nil
		case c != '\\':
			b.WriteByte(c)
			l.offset++
		default:
			l.offset++
			if err := l.escape(&b); err != nil {
				return token{}, err
			}
		}
	}
	return token{}, l.fail("S0101", "")
}

func (l *lexer) escape(b *strings.Builder) error {
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	c := l.peek(0)
	if i := strings.IndexByte(from, c); i >= 0 && l.offset < len(l.text) {
		b.WriteByte(to[i])
		l.offset++
		return nil
	}
	if c != 'u' {
		_, size := utf8.DecodeRuneInString(l.text[l.offset:])
		return l.fail("S0103", l.text[l.offset:l.offset+size])
	}
	unit, ok := l.hex(l.offset + 1)
	if !ok {
		return l.fail("S0104", "")
	}
	l.offset += 5
	if isHighSurrogate(unit) && l.peek(0) == '\\' && l.peek(1) == 'u' {
		if low, ok := l.hex(l.offset + 2); ok && isLowSurrogate(low) {
			l.offset += 6
			b.WriteRune(joinSurrogates(unit, low))
			return nil
		}
	}
	b.Write(appendUnit(nil, unit))
	return nil
}

func (l *lexer) hex(from int) (uint16, bool) {
	if from+4 > len(l.text) {
		return 0, false
	}
	for _, c := range []byte(l.text[from : from+4]) {
		if !isHex(c) {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(l.text[from:from+4], 16, 16)
	return uint16(n), err == nil
}

// regex reads up to the slash that is outside of brackets and not escaped.
func (l *lexer) regex() (token, error) {
	from, depth := l.offset, 0
	for ; l.offset < len(l.text); l.offset++ {
		c := l.text[l.offset]
		escaped := l.text[l.offset-1] == '\\'
		switch c {
		case '/':
			if depth != 0 || oddBackslashes(l.text[:l.offset]) {
				continue
			}
			pattern := l.text[from:l.offset]
			if pattern == "" {
				return token{}, l.fail("S0301", "")
			}
			l.offset++
			flags := l.offset
			for l.peek(0) == 'i' || l.peek(0) == 'm' {
				l.offset++
			}
			re, err := compileRegex(pattern, l.text[flags:l.offset])
			if err != nil {
				e := l.fail("S0303", pattern)
				e.Message += ": " + err.Error()
				return token{}, e
			}
			t := l.make(regexToken, pattern)
			t.regex = re
			return t, nil
		case '(', '[', '{':
			if !escaped {
				depth++
			}
		case ')', ']', '}':
			if !escaped {
				depth--
			}
		}
	}
	return token{}, l.fail("S0302", "")
}

func oddBackslashes(s string) bool {
	return (len(s)-len(strings.TrimRight(s, `\`)))%2 == 1
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
