package jsonata

// maxNesting bounds how deep an expression's text may nest, for the stack's sake.
const maxNesting = 1000

// parser is an operator precedence parser (Vaughan Pratt): a token has a meaning as a prefix, and one as what follows an operand.
type parser struct {
	lexer *lexer
	tok   token // the next one
	depth int
}

// The binding powers of operators that follow an operand; 0 ends an expression.
func power(t token) int {
	if t.kind != operatorToken {
		return 0
	}
	switch t.text {
	case ".":
		return 75
	case "[", "(", "@", "#":
		return 80
	case "{":
		return 70
	case "*", "/", "%":
		return 60
	case "+", "-", "&":
		return 50
	case "=", "<", ">", "!=", "<=", ">=", "~>", "?:", "??", "in", "^":
		return 40
	case "and":
		return 30
	case "or":
		return 25
	case "?":
		return 20
	case ":=":
		return 10
	}
	return 0
}

func parse(text string) (*node, error) {
	p := &parser{lexer: &lexer{text: text}}
	if err := p.advance(false); err != nil {
		return nil, err
	}
	n, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != endToken {
		return nil, failToken("S0201", p.tok.pos, p.tok.text)
	}
	return n, nil
}

// advance reads the next token. After an operand a slash is a division.
func (p *parser) advance(operand bool) error {
	t, err := p.lexer.next(operand)
	if err != nil {
		return err
	}
	if t.kind == operatorToken && (t.text == "!" || t.text == "~") {
		return failToken("S0204", t.pos, t.text)
	}
	p.tok = t
	return nil
}

func (p *parser) is(operator string) bool {
	return p.tok.kind == operatorToken && p.tok.text == operator
}

// expect takes the operator and reads on.
func (p *parser) expect(operator string, operand bool) error {
	if !p.is(operator) {
		code := "S0202"
		if p.tok.kind == endToken {
			code = "S0203"
		}
		e := failToken(code, p.tok.pos, p.tok.text)
		e.Value = operator
		e.Message += "; expected " + operator
		return e
	}
	return p.advance(operand)
}

// optional takes the operator if it is next.
func (p *parser) optional(operator string) (bool, error) {
	if !p.is(operator) {
		return false, nil
	}
	return true, p.advance(false)
}

// expression reads operators that bind more strongly than power does.
func (p *parser) expression(least int) (*node, error) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxNesting {
		return nil, failToken("D1011", p.tok.pos, "")
	}
	t := p.tok
	if err := p.advance(true); err != nil {
		return nil, err
	}
	left, err := p.prefix(t)
	if err != nil {
		return nil, err
	}
	for chain := 0; least < power(p.tok); chain++ {
		if chain > 20*maxNesting {
			return nil, failToken("D1011", p.tok.pos, "")
		}
		t := p.tok
		if err := p.advance(false); err != nil {
			return nil, err
		}
		if left, err = p.infix(t, left); err != nil {
			return nil, err
		}
	}
	return left, nil
}

func (p *parser) prefix(t token) (*node, error) {
	n := &node{pos: t.pos, text: t.text}
	switch t.kind {
	case endToken:
		n.kind = kindEnd
	case nameToken:
		n.kind = kindName
	case variableToken:
		n.kind = kindVariable
	case stringToken:
		n.kind, n.value = kindString, t.text
	case numberToken:
		n.kind, n.number, n.value = kindNumber, t.number, t.number
	case valueToken:
		n.kind, n.value = kindValue, t.value
	case regexToken:
		n.kind, n.regex = kindRegex, t.regex
	case operatorToken:
		return p.prefixOperator(n)
	}
	return n, nil
}

func (p *parser) prefixOperator(n *node) (_ *node, err error) {
	switch n.text {
	case "and", "or", "in":
		n.kind = kindKeyword
	case "*":
		n.kind = kindWildcard
	case "**":
		n.kind = kindDescendant
	case "%":
		n.kind = kindParent
	case "-":
		n.kind = kindNegate
		n.test, err = p.expression(70)
	case "(":
		n.kind = kindBlock
		err = p.block(n)
	case "[":
		n.kind = kindArray
		err = p.array(n)
	case "{":
		n.kind = kindObject
		n.pairs, err = p.members()
	case "|":
		n.kind = kindTransform
		err = p.transform(n)
	default:
		return nil, failToken("S0211", n.pos, n.text)
	}
	return n, err
}

func (p *parser) block(n *node) error {
	for !p.is(")") {
		e, err := p.expression(0)
		if err != nil {
			return err
		}
		n.list = append(n.list, e)
		if more, err := p.optional(";"); err != nil {
			return err
		} else if !more {
			break
		}
	}
	return p.expect(")", true)
}

func (p *parser) array(n *node) error {
	if p.is("]") {
		return p.advance(true)
	}
	for {
		item, err := p.expression(0)
		if err != nil {
			return err
		}
		if p.is("..") {
			item = &node{kind: kindBinary, text: "..", pos: p.tok.pos, left: item}
			if err := p.advance(false); err != nil {
				return err
			}
			if item.right, err = p.expression(0); err != nil {
				return err
			}
		}
		n.list = append(n.list, item)
		if more, err := p.optional(","); err != nil {
			return err
		} else if !more {
			return p.expect("]", true)
		}
	}
}

func (p *parser) members() (pairs [][2]*node, err error) {
	if p.is("}") {
		return nil, p.advance(true)
	}
	for {
		var pair [2]*node
		if pair[0], err = p.expression(0); err != nil {
			return nil, err
		}
		if err = p.expect(":", false); err != nil {
			return nil, err
		}
		if pair[1], err = p.expression(0); err != nil {
			return nil, err
		}
		pairs = append(pairs, pair)
		if more, err := p.optional(","); err != nil {
			return nil, err
		} else if !more {
			return pairs, p.expect("}", true)
		}
	}
}

func (p *parser) transform(n *node) (err error) {
	if n.test, err = p.expression(0); err != nil {
		return err
	}
	if err = p.expect("|", false); err != nil {
		return err
	}
	if n.left, err = p.expression(0); err != nil {
		return err
	}
	more, err := p.optional(",")
	if err != nil {
		return err
	}
	if more {
		if n.right, err = p.expression(0); err != nil {
			return err
		}
	}
	return p.expect("|", false)
}

// infix reads what follows an operator after an operand.
func (p *parser) infix(t token, left *node) (_ *node, err error) {
	n := &node{kind: kindBinary, pos: t.pos, text: t.text, left: left}
	switch t.text {
	case "(":
		return p.call(n)
	case "[":
		return p.filter(n)
	case "^":
		n.kind = kindOrder
		return n, p.order(n)
	case "{":
		n.kind = kindGroup
		n.pairs, err = p.members()
		return n, err
	case "?":
		n.kind, n.test, n.left = kindCondition, left, nil
		if n.left, err = p.expression(0); err != nil {
			return nil, err
		}
		if more, err := p.optional(":"); err != nil || !more {
			return n, err
		}
		n.right, err = p.expression(0)
		return n, err
	case "?:":
		n.kind, n.test = kindCondition, left
		n.right, err = p.expression(0)
		return n, err
	case "??":
		exists := &node{kind: kindVariable, text: "exists"}
		n.kind, n.test = kindCondition, &node{kind: kindCall, text: "(", test: exists, list: []*node{left}}
		n.right, err = p.expression(0)
		return n, err
	case ":=":
		if left.kind != kindVariable {
			return nil, failToken("S0212", left.pos, left.text)
		}
		n.kind = kindBind
		n.right, err = p.expression(power(t) - 1) // associates to the right
		return n, err
	case "@", "#":
		n.kind = kindFocus
		if t.text == "#" {
			n.kind = kindIndex
		}
		if n.right, err = p.expression(power(t)); err == nil && n.right.kind != kindVariable {
			err = failToken("S0214", n.right.pos, t.text)
		}
		return n, err
	case ".":
		n.kind = kindDot
	case "~>":
		n.kind = kindApply
	}
	n.right, err = p.expression(power(t))
	return n, err
}

func (p *parser) call(n *node) (*node, error) {
	n.kind, n.test, n.left = kindCall, n.left, nil
	for !p.is(")") || len(n.list) > 0 {
		var argument *node
		var err error
		if p.is("?") {
			n.kind = kindPartial
			argument = &node{kind: kindPlaceholder, text: "?", pos: p.tok.pos}
			err = p.advance(false)
		} else {
			argument, err = p.expression(0)
		}
		if err != nil {
			return nil, err
		}
		n.list = append(n.list, argument)
		if more, err := p.optional(","); err != nil {
			return nil, err
		} else if !more {
			break
		}
	}
	if err := p.expect(")", true); err != nil {
		return nil, err
	}
	if n.test.kind == kindName && (n.test.text == "function" || n.test.text == "λ") {
		return n, p.lambda(n)
	}
	return n, nil
}

func (p *parser) lambda(n *node) (err error) {
	for i, parameter := range n.list {
		if parameter.kind != kindVariable {
			e := failToken("S0208", parameter.pos, parameter.text)
			e.Value = i + 1
			return e
		}
	}
	n.kind = kindLambda
	if p.is("<") {
		if err := p.signature(n); err != nil {
			return err
		}
	}
	if err := p.expect("{", false); err != nil {
		return err
	}
	if n.test, err = p.expression(0); err != nil {
		return err
	}
	return p.expect("}", false)
}

func (p *parser) signature(n *node) error {
	pos, text := p.tok.pos, "<"
	for depth := 1; depth > 0 && !p.is("{") && p.tok.kind != endToken; {
		if err := p.advance(false); err != nil {
			return err
		}
		switch {
		case p.is(">"):
			depth--
		case p.is("<"):
			depth++
		}
		text += p.tok.text
	}
	if err := p.expect(">", false); err != nil {
		return err
	}
	sig, err := parseSignature(text)
	if err != nil {
		return at(err, pos, text)
	}
	n.signature = sig
	return nil
}

func (p *parser) filter(n *node) (_ *node, err error) {
	if p.is("]") { // a[] keeps an array of one
		step := n.left
		for step.kind == kindFilter {
			step = step.left
		}
		step.keepArray = true
		return n.left, p.advance(false)
	}
	n.kind = kindFilter
	if n.right, err = p.expression(0); err != nil {
		return nil, err
	}
	return n, p.expect("]", true)
}

func (p *parser) order(n *node) error {
	if err := p.expect("(", false); err != nil {
		return err
	}
	for {
		var t term
		ascending, err := p.optional("<")
		if err != nil {
			return err
		}
		if !ascending {
			if t.descending, err = p.optional(">"); err != nil {
				return err
			}
		}
		if t.by, err = p.expression(0); err != nil {
			return err
		}
		n.terms = append(n.terms, t)
		if more, err := p.optional(","); err != nil {
			return err
		} else if !more {
			return p.expect(")", false)
		}
	}
}
