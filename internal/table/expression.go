package table

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/jsontree"
)

// references are what a request's expressions may name, and what they have named.
type references struct {
	names  map[string]string           // "#name" to an attribute's name
	values map[string]*jsontree.Object // ":name" to an attribute value
	used   map[string]bool
}

// unused are those of the keys that no expression names, as a message has them.
func unused[V any](r *references, defined map[string]V) string {
	var list []string
	for key := range defined {
		if !r.used[key] {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// operand is a value within an expression: exactly one of a path, a literal and a function's result.
type operand struct {
	path     path
	ref      string // of a literal: ":name"
	literal  *jsontree.Object
	function string // or an operator: + or -
	args     []*operand
}

// each goes through the operand and what is within it.
func (o *operand) each(do func(*operand)) {
	do(o)
	for _, a := range o.args {
		a.each(do)
	}
}

// literalType is the type of a literal, and empty for what is known only with an item.
func (o *operand) literalType() string {
	typ, _ := take(o.literal)
	return typ
}

type tokenKind int

const (
	end    tokenKind = iota
	word             // a letter, and letters, digits and _
	digits           // of an index
	name             // #name
	value            // :name
	symbol           // an operator, a bracket, or a character that no expression has
)

type token struct {
	kind     tokenKind
	text     string
	from, to int // its place in the source
}

// is reports whether the token is that symbol, or that keyword, whose case does not matter.
func (t token) is(text string) bool {
	return t.kind == symbol && t.text == text || t.kind == word && strings.EqualFold(t.text, text)
}

// isFunction reports whether the token is a function's name that is followed by what opens its operands.
func (p *parser) isFunction() bool {
	return p.token().kind == word && p.tokens[p.at+1].is("(")
}

// parser reads one expression.
type parser struct {
	label    string // of the request's member
	source   string
	tokens   []token // the last is the end
	at       int
	refs     *references
	reserved []string // keywords that are no attribute's name here
}

func newParser(label, source string, refs *references, reserved ...string) (*parser, error) {
	p := &parser{label: label, source: source, refs: refs, reserved: reserved}
	if strings.TrimSpace(source) == "" {
		return nil, p.fail("The expression can not be empty;")
	}
	if len(source) > maxExpression {
		return nil, p.fail("Expression size has exceeded the maximum allowed size; expression size: " + strconv.Itoa(len(source)))
	}
	p.tokens = tokensOf(source)
	return p, nil
}

func tokensOf(source string) []token {
	var list []token
	for i := 0; i < len(source); {
		from := i
		c := source[i]
		kind := symbol
		while := func(part func(byte) bool) {
			for i < len(source) && part(source[i]) {
				i++
			}
		}
		i++
		switch {
		case c == ' ', c == '\t', c == '\r', c == '\n':
			continue
		case isLetter(c):
			kind = word
			while(isNamePart)
		case isDigit(c):
			kind = digits
			while(isDigit)
		case c == '#', c == ':':
			while(isNamePart)
			if i > from+1 {
				kind = name
				if c == ':' {
					kind = value
				}
			}
		case c == '<' && i < len(source) && (source[i] == '>' || source[i] == '='), c == '>' && i < len(source) && source[i] == '=':
			i++
		case c >= utf8.RuneSelf:
			_, n := utf8.DecodeRuneInString(source[from:])
			i = from + n
		}
		list = append(list, token{kind: kind, text: source[from:i], from: from, to: i})
	}
	return append(list, token{kind: end, text: "<EOF>", from: len(source), to: len(source)})
}

func isLetter(c byte) bool   { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isNamePart(c byte) bool { return isLetter(c) || isDigit(c) || c == '_' }

func (p *parser) token() token { return p.tokens[p.at] }

// fail is a mistake in the expression.
func (p *parser) fail(message string) error { return invalid("Invalid %s: %s", p.label, message) }

// syntaxError is about the token at that place, and shows those around it.
func (p *parser) syntaxError(at int) error {
	from := p.tokens[max(at-1, 0)].from
	to := p.tokens[min(at+1, len(p.tokens)-1)].to
	near := strings.TrimRight(p.source[from:to], " \t\r\n")
	return p.fail(`Syntax error; token: "` + p.tokens[at].text + `", near: "` + near + `"`)
}

// accept steps over that symbol or keyword, if it is the next.
func (p *parser) accept(text string) bool {
	if !p.token().is(text) {
		return false
	}
	p.at++
	return true
}

func (p *parser) expect(text string) error {
	if !p.accept(text) {
		return p.syntaxError(p.at)
	}
	return nil
}

// path reads a document path, such as a.b[0].#name.
func (p *parser) path() (path, error) {
	first, err := p.step()
	if err != nil {
		return nil, err
	}
	out := path{first}
	for {
		switch {
		case p.accept("."):
			s, err := p.step()
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		case p.accept("["):
			t := p.token()
			if t.kind != digits {
				return nil, p.syntaxError(p.at)
			}
			p.at++
			if err := p.expect("]"); err != nil {
				return nil, err
			}
			n, err := strconv.Atoi(t.text)
			if err != nil || n > maxIndex {
				return nil, p.fail("List index is not within the allowable range; index: [" + t.text + "]")
			}
			out = append(out, step{index: n, isIndex: true})
		case len(out) > maxNesting:
			return nil, p.fail("The document path has too many nesting elements; nesting levels: " + strconv.Itoa(len(out)))
		default:
			return out, nil
		}
	}
}

// step reads an attribute's name, or what stands for one.
func (p *parser) step() (step, error) {
	t := p.token()
	switch {
	case t.kind == name:
		p.refs.used[t.text] = true
	case t.kind != word || slices.ContainsFunc(p.reserved, t.is):
		return step{}, p.syntaxError(p.at)
	}
	p.at++
	return step{name: t.text}, nil
}

// operand reads a path, a value or a function.
func (p *parser) operand() (*operand, error) {
	t := p.token()
	switch {
	case t.kind == value:
		p.at++
		p.refs.used[t.text] = true
		return &operand{ref: t.text}, nil
	case p.isFunction() && !slices.ContainsFunc(p.reserved, t.is):
		p.at++
		args, err := p.list()
		return &operand{function: t.text, args: args}, err
	}
	at, err := p.path()
	return &operand{path: at}, err
}

// list reads operands in parentheses.
func (p *parser) list() ([]*operand, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var list []*operand
	for {
		o, err := p.listed()
		if err != nil {
			return nil, err
		}
		list = append(list, o)
		if !p.accept(",") {
			return list, p.expect(")")
		}
	}
}

func (p *parser) listed() (*operand, error) {
	if !p.accept("(") {
		return p.operand()
	}
	o, err := p.operand()
	if err != nil {
		return nil, err
	}
	return o, p.expect(")")
}

// resolveNames puts the attributes' names in the place of what stands for them.
func (p *parser) resolveNames(at path) error {
	for i := range at {
		if ref := at[i].name; strings.HasPrefix(ref, "#") {
			n, ok := p.refs.names[ref]
			if !ok {
				return p.fail("An expression attribute name used in the document path is not defined; attribute name: " + ref)
			}
			at[i].name = n
		}
	}
	return nil
}

// resolveValue gives a literal its value.
func (p *parser) resolveValue(o *operand) error {
	if o.ref == "" {
		return nil
	}
	v, ok := p.refs.values[o.ref]
	if !ok {
		return p.fail("An expression attribute value used in expression is not defined; attribute value: " + o.ref)
	}
	o.literal = v
	return nil
}

// operandCount is how many operands a function has, and 0 for what is none.
func operandCount(function string) int {
	switch function {
	case "attribute_exists", "attribute_not_exists", "size":
		return 1
	case "attribute_type", "begins_with", "contains", "if_not_exists", "list_append":
		return 2
	}
	return 0
}

// ofUpdates reports whether the function is one of UpdateExpression, and not one of conditions.
func ofUpdates(function string) bool { return function == "if_not_exists" || function == "list_append" }

func (p *parser) unknownFunction(o *operand) error {
	return p.fail("Invalid function name; function: " + o.function)
}

func (p *parser) misused(o *operand) error {
	return p.fail("The function is not allowed to be used this way in an expression; function: " + o.function)
}

func (p *parser) wrongCount(o *operand) error {
	return p.fail("Incorrect number of operands for operator or function; operator or function: " + o.function + ", number of operands: " + strconv.Itoa(len(o.args)))
}

func (p *parser) wrongType(operator, typ string) error {
	return p.fail("Incorrect operand type for operator or function; operator or function: " + operator + ", operand type: " + typ)
}

func (p *parser) needsPath(o *operand) error {
	return p.fail("Operator or function requires a document path; operator or function: " + o.function)
}
