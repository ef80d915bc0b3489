package jsonpath

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Parse reads a path such as "$.order.items[0]", "$$.Execution.Id" or "$total.net". The error is a *SyntaxError.
func Parse(text string) (*Path, error) {
	p := &parser{text: text}
	path, err := p.root()
	if err != nil {
		return nil, err
	}
	if p.pos < len(text) {
		return nil, p.unexpected()
	}
	return path, nil
}

// ParsePrefix reads the path that text begins with and returns what follows it: nothing, or what begins with a comma, a closing
// parenthesis or a blank that is outside of brackets. The error is a *SyntaxError.
func ParsePrefix(text string) (path *Path, rest string, err error) {
	p := &parser{text: text}
	if path, err = p.root(); err != nil {
		return nil, "", err
	}
	if c := p.peek(); c != 0 && c != ',' && c != ')' && !blank(c) || c == 0 && p.pos < len(text) {
		return nil, "", p.unexpected()
	}
	path.text = text[:p.pos]
	return path, text[p.pos:], nil
}

// parser reads one path.
type parser struct {
	text    string
	pos     int
	nesting int
	filters int // in how many filters it is
}

func (p *parser) fail(format string, args ...any) error { return p.failAt(p.pos, format, args...) }

func (p *parser) failAt(pos int, format string, args ...any) error {
	return &SyntaxError{Text: p.text, Offset: pos, Problem: fmt.Sprintf(format, args...)}
}

// unexpected is the error for what may not follow a step.
func (p *parser) unexpected() error {
	r, _ := utf8.DecodeRuneInString(p.text[p.pos:])
	switch {
	case r == '(':
		return p.fail("only a function has parentheses")
	case r <= ' ':
		return p.fail("a blank is only possible within brackets: a name that has one is written ['my name']")
	}
	return p.fail("%q is not possible here; a '.' or a '[' begins a step, and names that have such a character are written ['name']", r)
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

// next reads c, if it is next.
func (p *parser) next(c byte) bool {
	if p.peek() != c || p.pos == len(p.text) {
		return false
	}
	p.pos++
	return true
}

func (p *parser) skip() {
	for p.pos < len(p.text) && blank(p.text[p.pos]) {
		p.pos++
	}
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// nest counts a level of brackets; who calls it defers p.leave.
func (p *parser) nest() error {
	if p.nesting++; p.nesting > MaxNesting {
		return p.fail("brackets nest deeper than %d", MaxNesting)
	}
	return nil
}

func (p *parser) leave() { p.nesting-- }

// root reads a path from its root on.
func (p *parser) root() (*Path, error) {
	if !p.next('$') {
		return nil, p.fail("a path begins with '$'")
	}
	path := &Path{text: p.text}
	if p.next('$') {
		path.root.Kind = Context
	} else if from := p.pos; p.identifier() {
		path.root = Root{Kind: Variable, Name: p.text[from:p.pos]}
	}
	return path, p.steps(&path.query)
}

// identifier reads the name of a variable, if there is one.
func (p *parser) identifier() bool {
	from := p.pos
	for p.pos < len(p.text) {
		r, n := utf8.DecodeRuneInString(p.text[p.pos:])
		if r != '_' && !unicode.IsLetter(r) && (p.pos == from || !unicode.IsDigit(r) && !unicode.IsMark(r)) {
			break
		}
		p.pos += n
	}
	return p.pos > from
}

// steps reads steps, and the function at the end, as long as there are any.
func (p *parser) steps(q *query) error {
	q.single = true
	for {
		var s step
		from := p.pos
		dot := p.next('.')
		s.deep = dot && p.next('.')
		switch {
		case p.peek() == '[': // after a dot, too: Jayway reads "$.['a']"
			if err := p.brackets(&s); err != nil {
				return err
			}
		case !dot:
			return nil
		case p.next('*'):
			s.kind = wildcard
		default:
			name, err := p.name()
			if err != nil {
				return err
			}
			if p.peek() == '(' {
				if s.deep {
					return p.failAt(from, "a function follows a single '.'")
				}
				if q.call, err = p.function(name, from+1); err != nil {
					return err
				}
				if c := p.peek(); c == '.' || c == '[' {
					return p.fail("a function is possible at the end of a path only")
				}
				return nil
			}
			s.name = name
		}
		s.end = p.pos
		q.single = q.single && !s.deep && (s.kind == member || s.kind == index)
		if q.steps = append(q.steps, s); len(q.steps) > MaxSteps {
			return p.fail("a path has at most %d steps", MaxSteps)
		}
	}
}

// name reads a name without quotes: any characters but those that end a step, and within a filter those of operators. As in
// Jayway a blank is an error, which says how to write it.
func (p *parser) name() (string, error) {
	ends := ".[](),* \t\r\n"
	if p.filters > 0 {
		ends = ".[](),* \t\r\n=<>!~&|'\""
	}
	n := strings.IndexAny(p.text[p.pos:], ends)
	if n < 0 {
		n = len(p.text) - p.pos
	}
	if n == 0 {
		return "", p.fail("a name or '*' is missing after the '.'")
	}
	name := p.text[p.pos : p.pos+n]
	p.pos += n
	return name, nil
}

// brackets reads what is in brackets.
func (p *parser) brackets(s *step) error {
	from := p.pos
	p.pos++
	if err := p.nest(); err != nil {
		return err
	}
	defer p.leave()
	p.skip()
	var err error
	switch c := p.peek(); {
	case c == '\'' || c == '"':
		err = p.bracketNames(s)
	case c == '*':
		p.pos++
		s.kind = wildcard
	case c == '?':
		p.pos++
		s.kind = filter
		s.cond, err = p.filter()
	case c == '-' || c == ':' || c >= '0' && c <= '9':
		err = p.bracketNumbers(s)
	case c == 0:
		err = p.failAt(from, "the '[' has no ']'")
	default:
		err = p.fail("in brackets there are names in quotes, indices, a slice, '*' or a filter '?(…)'")
	}
	if err != nil {
		return err
	}
	if p.skip(); p.next(']') {
		return nil
	}
	if p.pos == len(p.text) {
		return p.failAt(from, "the '[' has no ']'")
	}
	return p.fail("a ']' is missing here")
}

func (p *parser) bracketNames(s *step) error {
	for {
		if c := p.peek(); c != '\'' && c != '"' {
			return p.fail("a name in quotes is missing after the ','")
		}
		name, err := p.quoted()
		if err != nil {
			return err
		}
		s.names = append(s.names, name)
		if p.skip(); !p.next(',') {
			break
		}
		p.skip()
	}
	s.kind = members
	if len(s.names) == 1 {
		s.kind, s.name, s.names = member, s.names[0], nil
	}
	return nil
}

// bracketNumbers reads an index, several, or a slice. A slice has no step: Jayway ignores one, here it is an error.
func (p *parser) bracketNumbers(s *step) error {
	var err error
	from := p.pos
	if p.peek() != ':' {
		if s.index, err = p.integer(); err != nil {
			return err
		}
		p.skip()
	}
	switch {
	case p.next(':'):
		s.kind = slice
		if p.skip(); p.peek() == '-' || p.peek() >= '0' && p.peek() <= '9' {
			if s.to, err = p.integer(); err != nil {
				return err
			}
			p.skip()
		} else {
			s.open = true
			if p.text[from] == ':' {
				return p.failAt(from, "a slice has a start or an end; all elements are [*]")
			}
		}
		if p.peek() == ':' {
			return p.fail("a slice has no step")
		}
	case p.peek() == ',':
		s.kind, s.list = indices, []int{s.index}
		for p.next(',') {
			p.skip()
			i, err := p.integer()
			if err != nil {
				return err
			}
			s.list = append(s.list, i)
			p.skip()
		}
	default:
		s.kind = index
	}
	return nil
}

func (p *parser) integer() (int, error) {
	from := p.pos
	p.next('-')
	for p.peek() >= '0' && p.peek() <= '9' {
		p.pos++
	}
	if digits := strings.TrimPrefix(p.text[from:p.pos], "-"); digits == "" {
		return 0, p.failAt(from, "an index is missing here")
	}
	i, err := strconv.ParseInt(p.text[from:p.pos], 10, 32)
	if err != nil {
		return 0, p.failAt(from, "the index is too large")
	}
	return int(i), nil
}
