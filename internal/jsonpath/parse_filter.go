package jsonpath

import (
	"encoding/json"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/jsontree"
)

// filter reads "(…)" after the "?". As in Jayway the parentheses are needed.
func (p *parser) filter() (condition, error) {
	p.filters++
	defer func() { p.filters-- }()
	if p.skip(); p.peek() != '(' {
		return nil, p.fail("a filter is written [?(…)]")
	}
	return p.parentheses()
}

func (p *parser) parentheses() (condition, error) {
	from := p.pos
	p.pos++
	if err := p.nest(); err != nil {
		return nil, err
	}
	defer p.leave()
	c, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.skip(); !p.next(')') {
		if p.pos == len(p.text) {
			return nil, p.failAt(from, "the '(' has no ')'")
		}
		return nil, p.fail("'&&', '||' or ')' is missing here")
	}
	return c, nil
}

func (p *parser) or() (condition, error)  { return p.chain("||", p.and) }
func (p *parser) and() (condition, error) { return p.chain("&&", p.not) }

// chain reads one condition or several that are joined by the word. Unlike Jayway's, && binds closer than ||.
func (p *parser) chain(word string, read func() (condition, error)) (condition, error) {
	var list []condition
	for {
		c, err := read()
		if err != nil {
			return nil, err
		}
		list = append(list, c)
		if p.skip(); !strings.HasPrefix(p.text[p.pos:], word) {
			break
		}
		p.pos += len(word)
	}
	switch {
	case len(list) == 1:
		return list[0], nil
	case word == "||":
		return anyCondition(list), nil
	}
	return allConditions(list), nil
}

// not reads a condition with or without "!", which negates a path alone or what is in parentheses (where Jayway ignores it).
func (p *parser) not() (condition, error) {
	p.skip()
	from, negated := p.pos, false
	for p.next('!') {
		negated = !negated
		p.skip()
	}
	bang := p.pos > from
	read := p.comparison
	if p.peek() == '(' {
		read, bang = p.parentheses, false
	}
	c, err := read()
	if err != nil {
		return nil, err
	}
	if _, compares := c.(*comparison); compares && bang {
		return nil, p.failAt(from, "a comparison that '!' negates is written in parentheses")
	}
	if negated {
		return notCondition{c}, nil
	}
	return c, nil
}

// comparison reads a comparison, or a path alone, which holds if there is something at it.
func (p *parser) comparison() (condition, error) {
	from := p.pos
	left, err := p.operand(false)
	if err != nil {
		return nil, err
	}
	p.skip()
	if rest := p.text[p.pos:]; rest == "" || rest[0] == ')' || strings.HasPrefix(rest, "&&") || strings.HasPrefix(rest, "||") {
		if left.query == nil {
			return nil, p.failAt(from, "a comparison is missing: a literal alone is no condition")
		}
		return exists{left.query}, nil
	}
	c := &comparison{left: left}
	if c.op, err = p.operator(); err != nil {
		return nil, err
	}
	p.skip()
	if c.op == opMatch && p.peek() != '/' {
		return nil, p.fail("after =~ there is a regular expression /…/")
	}
	c.right, err = p.operand(c.op == opMatch)
	return c, err
}

func (p *parser) operator() (operator, error) {
	for _, o := range []struct {
		text string
		op   operator
	}{{"===", opEqual}, {"!==", opUnequal}, {"==", opEqual}, {"!=", opUnequal}, {"=~", opMatch}, {"<=", opLessEqual}, {">=", opGreaterEqual}, {"<", opLess}, {">", opGreater}} {
		if strings.HasPrefix(p.text[p.pos:], o.text) {
			p.pos += len(o.text)
			return o.op, nil
		}
	}
	from := p.pos
	for c := p.peek() | 0x20; c >= 'a' && c <= 'z'; c = p.peek() | 0x20 {
		p.pos++
	}
	switch strings.ToLower(p.text[from:p.pos]) {
	case "in":
		return opIn, nil
	case "nin":
		return opNotIn, nil
	case "subsetof":
		return opSubset, nil
	case "anyof":
		return opAny, nil
	case "noneof":
		return opNone, nil
	case "all":
		return opAll, nil
	case "contains":
		return opContains, nil
	case "size":
		return opSize, nil
	case "empty":
		return opEmpty, nil
	}
	return 0, p.failAt(from, "an operator, '&&', '||' or ')' is missing; operators are == != < <= > >= =~ in nin subsetof anyof noneof all contains size empty")
}

// operand reads a path or a literal, and a regular expression if one is expected.
func (p *parser) operand(pattern bool) (operand, error) {
	switch c := p.peek(); {
	case c == '@' || c == '$':
		from := p.pos
		p.pos++
		if c == '@' && p.filters == 0 {
			return operand{}, p.failAt(from, "'@' is possible in filters only")
		}
		q := &query{relative: c == '@'}
		if err := p.steps(q); err != nil {
			return operand{}, err
		}
		if c == '$' && p.pos == from+1 && (p.peek() == '$' || p.identifier()) {
			return operand{}, p.failAt(from, "within a path there are '$' and '@' only, no other root")
		}
		return operand{query: q}, nil
	case c == '/' && pattern:
		re, err := p.pattern()
		return operand{pattern: re}, err
	default:
		from := p.pos
		v, err := p.literal()
		if err != nil && p.pos == from && p.filters > 0 {
			if word := p.word(); word != "" { // a text without quotes: definitions in use have it
				return operand{value: word}, nil
			}
		}
		return operand{value: v}, err
	}
}

// word reads letters, digits, "_" and "-"; the first is a letter or "_".
func (p *parser) word() string {
	from := p.pos
	if !p.identifier() {
		return ""
	}
	for c := p.peek(); c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'; c = p.peek() {
		p.pos++
	}
	return p.text[from:p.pos]
}

// pattern reads "/…/i". As in Jayway the whole text has to match. The syntax is RE2's.
func (p *parser) pattern() (*regexp.Regexp, error) {
	from := p.pos
	for p.pos++; p.pos < len(p.text) && p.text[p.pos] != '/'; p.pos++ {
		if p.text[p.pos] == '\\' {
			p.pos++
		}
	}
	if p.pos >= len(p.text) {
		p.pos = len(p.text)
		return nil, p.failAt(from, "the regular expression has no '/' at its end")
	}
	text, flags := p.text[from+1:p.pos], syntax.Perl
	for p.pos++; strings.IndexByte("imsu", p.peek()) >= 0; p.pos++ {
		switch p.peek() {
		case 'i':
			flags |= syntax.FoldCase
		case 'm':
			flags &^= syntax.OneLine
		case 's':
			flags |= syntax.DotNL
		}
	}
	parsed, err := syntax.Parse(text, flags)
	if err != nil {
		return nil, p.failAt(from, "the regular expression is wrong: %v", err)
	}
	re, err := regexp.Compile(`\A(?:` + parsed.String() + `)\z`)
	if err != nil {
		return nil, p.failAt(from, "the regular expression is wrong: %v", err)
	}
	return re, nil
}

// literal reads a JSON value, whose strings may have single quotes.
func (p *parser) literal() (any, error) {
	switch c := p.peek(); {
	case c == '\'' || c == '"':
		return p.quoted()
	case c == '[':
		return p.arrayLiteral()
	case c == '{':
		return p.objectLiteral()
	case c == '-' || c >= '0' && c <= '9':
		from := p.pos
		for c := p.peek(); c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'; c = p.peek() {
			p.pos++
		}
		if text := p.text[from:p.pos]; json.Valid([]byte(text)) {
			return json.Number(text), nil
		}
		return nil, p.failAt(from, "that is no JSON number")
	}
	for _, w := range []struct {
		text  string
		value any
	}{{"true", true}, {"false", false}, {"null", nil}} {
		if strings.HasPrefix(p.text[p.pos:], w.text) {
			p.pos += len(w.text)
			return w.value, nil
		}
	}
	return nil, p.fail("a path or a literal is missing here")
}

func (p *parser) arrayLiteral() (any, error) {
	list := []any{}
	err := p.elements(']', func() error {
		v, err := p.literal()
		list = append(list, v)
		return err
	})
	return list, err
}

func (p *parser) objectLiteral() (any, error) {
	o := jsontree.NewObject(0)
	err := p.elements('}', func() error {
		if c := p.peek(); c != '\'' && c != '"' {
			return p.fail("a name in quotes is missing here")
		}
		name, err := p.quoted()
		if err != nil {
			return err
		}
		if p.skip(); !p.next(':') {
			return p.fail("a ':' is missing here")
		}
		p.skip()
		v, err := p.literal()
		o.Set(name, v)
		return err
	})
	return o, err
}

// elements reads what is between an opening bracket, which is next, and the closing one, with commas between.
func (p *parser) elements(closing byte, read func() error) error {
	from := p.pos
	p.pos++
	if err := p.nest(); err != nil {
		return err
	}
	defer p.leave()
	if p.skip(); p.next(closing) {
		return nil
	}
	for {
		p.skip()
		if err := read(); err != nil {
			return err
		}
		if p.skip(); p.next(closing) {
			return nil
		}
		if !p.next(',') {
			if p.pos == len(p.text) {
				return p.failAt(from, "the '%c' has no '%c'", p.text[from], closing)
			}
			return p.fail("a ',' or '%c' is missing here", closing)
		}
	}
}

// quoted reads a text in quotes. The backslash is one of JSON's escapes or stands before the same quote. Before any other
// character it means itself, which Step Functions was recorded doing: $['a\"'] is the member a\" with its backslash.
// TestRecorded guards this; Jayway drops it.
func (p *parser) quoted() (string, error) {
	from, quote := p.pos, p.text[p.pos]
	p.pos++
	var b strings.Builder
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		p.pos++
		switch {
		case c == quote:
			return b.String(), nil
		case c != '\\':
			b.WriteByte(c)
			continue
		}
		switch c := p.peek(); {
		case c == quote || c == '\\':
			b.WriteByte(c)
		case c == 'u':
			r, err := p.unicode()
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
			continue
		case c != 0 && strings.IndexByte("bfnrt", c) >= 0:
			b.WriteByte("\b\f\n\r\t"[strings.IndexByte("bfnrt", c)])
		default:
			b.WriteByte('\\')
			continue
		}
		p.pos++
	}
	return "", p.failAt(from, "the quote %c is not closed", quote)
}

// unicode reads "uXXXX", or two of them that are a surrogate pair.
func (p *parser) unicode() (rune, error) {
	read := func(pos int) (rune, bool) {
		if pos+5 > len(p.text) || p.text[pos] != 'u' {
			return 0, false
		}
		n, err := strconv.ParseUint(p.text[pos+1:pos+5], 16, 16)
		return rune(n), err == nil
	}
	r, ok := read(p.pos)
	if !ok {
		return 0, p.fail(`\u has four hexadecimal digits`)
	}
	p.pos += 5
	if utf16.IsSurrogate(r) && p.peek() == '\\' {
		if low, ok := read(p.pos + 1); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				p.pos += 6
				return pair, nil
			}
		}
	}
	return r, nil
}
