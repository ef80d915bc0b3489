package table

import (
	"slices"
	"strconv"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// condition is ConditionExpression, or a part of it.
type condition struct {
	operator string       // AND, OR, NOT, a comparator, BETWEEN, IN; empty if the one operand is a function that is a condition
	of       []*condition // of AND, OR and NOT
	operands []*operand   // of the others
}

// term is what has been read of a condition: a condition, or an operand of one that goes on.
type term struct {
	condition *condition
	operand   *operand
	inParens  bool
	after     int // the token behind it
}

type conditionParser struct {
	*parser
	redundant  bool // parentheses
	conditions []*condition
}

func parseCondition(source string, refs *references) (*condition, error) {
	inner, err := newParser("ConditionExpression", source, refs, "AND", "OR", "NOT", "BETWEEN", "IN")
	if err != nil {
		return nil, err
	}
	p := &conditionParser{parser: inner}
	t, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.token().kind != end {
		return nil, p.syntaxError(p.at)
	}
	c, err := p.asCondition(t)
	if err != nil {
		return nil, err
	}
	return c, p.check()
}

// asCondition makes a function a condition; any other operand is one too few.
func (p *conditionParser) asCondition(t term) (*condition, error) {
	switch {
	case t.condition != nil:
		return t.condition, nil
	case t.operand.function == "":
		return nil, p.syntaxError(t.after)
	}
	return p.leaf("", t.operand), nil
}

// leaf is a condition of operands. What it is of is checked in this order, which is that of the text.
func (p *conditionParser) leaf(operator string, operands ...*operand) *condition {
	c := &condition{operator: operator, operands: operands}
	p.conditions = append(p.conditions, c)
	return c
}

func (p *conditionParser) or() (term, error)  { return p.chain("OR", p.and) }
func (p *conditionParser) and() (term, error) { return p.chain("AND", p.not) }

func (p *conditionParser) chain(operator string, next func() (term, error)) (term, error) {
	first, err := next()
	if err != nil || !p.token().is(operator) {
		return first, err
	}
	c := &condition{operator: operator}
	for t := first; ; {
		part, err := p.asCondition(t)
		if err != nil {
			return term{}, err
		}
		c.of = append(c.of, part)
		if !p.accept(operator) {
			return term{condition: c, after: p.at}, nil
		}
		if t, err = next(); err != nil {
			return term{}, err
		}
	}
}

func (p *conditionParser) not() (term, error) {
	if !p.accept("NOT") {
		return p.comparison()
	}
	t, err := p.not()
	if err != nil {
		return term{}, err
	}
	c, err := p.asCondition(t)
	return term{condition: &condition{operator: "NOT", of: []*condition{c}}, after: p.at}, err
}

func (p *conditionParser) comparison() (term, error) {
	first, err := p.primary()
	if err != nil || first.operand == nil {
		return first, err
	}
	var c *condition
	switch t := p.token(); {
	case t.kind == symbol && isComparator(t.text):
		p.at++
		second, err := p.another()
		if err != nil {
			return term{}, err
		}
		c = p.leaf(t.text, first.operand, second)
	case p.accept("BETWEEN"):
		low, err := p.another()
		if err != nil {
			return term{}, err
		}
		if err := p.expect("AND"); err != nil {
			return term{}, err
		}
		high, err := p.another()
		if err != nil {
			return term{}, err
		}
		c = p.leaf("BETWEEN", first.operand, low, high)
	case p.accept("IN"):
		list, err := p.list()
		if err != nil {
			return term{}, err
		}
		c = p.leaf("IN", append([]*operand{first.operand}, list...)...)
	default:
		return first, nil
	}
	return term{condition: c, after: p.at}, nil
}

// another reads the further operand of a comparison.
func (p *conditionParser) another() (*operand, error) {
	t, err := p.primary()
	if err == nil && t.operand == nil {
		err = p.syntaxError(t.after)
	}
	return t.operand, err
}

func (p *conditionParser) primary() (term, error) {
	if !p.accept("(") {
		o, err := p.operand()
		return term{operand: o, after: p.at}, err
	}
	t, err := p.or()
	if err != nil {
		return term{}, err
	}
	if err := p.expect(")"); err != nil {
		return term{}, err
	}
	p.redundant = p.redundant || t.inParens
	t.inParens, t.after = true, p.at
	return t, nil
}

func isComparator(s string) bool {
	switch s {
	case "=", "<>", "<", "<=", ">", ">=":
		return true
	}
	return false
}

// check finds the first mistake that is none of syntax, in the order in which DynamoDB looks for them.
func (p *conditionParser) check() error {
	if p.redundant {
		return p.fail("The expression has redundant parentheses;")
	}
	for _, check := range []func(*condition) error{p.checkFunctions, p.checkPlaces, p.checkOperands} {
		for _, c := range p.conditions {
			if err := check(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// functions are the functions within the condition's operands.
func (c *condition) functions() (list []*operand) {
	for _, o := range c.operands {
		o.each(func(o *operand) {
			if o.function != "" {
				list = append(list, o)
			}
		})
	}
	return list
}

func (p *conditionParser) checkFunctions(c *condition) error {
	for _, f := range c.functions() {
		if operandCount(f.function) == 0 {
			return p.unknownFunction(f)
		}
	}
	return nil
}

// checkPlaces: size is an operand, the other functions are conditions.
func (p *conditionParser) checkPlaces(c *condition) error {
	for _, f := range c.functions() {
		isCondition := c.operator == "" && f == c.operands[0]
		if isCondition == (f.function == "size") || ofUpdates(f.function) {
			return p.misused(f)
		}
	}
	return nil
}

func (p *conditionParser) checkOperands(c *condition) error {
	for _, o := range c.operands {
		var err error
		o.each(func(o *operand) {
			if err == nil {
				err = p.resolveNames(o.path)
			}
			if err == nil {
				err = p.resolveValue(o)
			}
		})
		if err != nil {
			return err
		}
	}
	for _, f := range c.functions() {
		if len(f.args) != operandCount(f.function) {
			return p.wrongCount(f)
		}
		if err := p.checkDistinct(f.function, f.args); err != nil {
			return err
		}
	}
	if err := p.checkDistinct(c.operator, c.operands); err != nil {
		return err
	}
	for _, f := range c.functions() {
		if err := p.checkFunctionTypes(f); err != nil {
			return err
		}
	}
	switch c.operator {
	case "<", "<=", ">", ">=":
		return p.checkOrdered(c.operator, c.operands)
	case "BETWEEN":
		if err := p.checkOrdered(c.operator, c.operands); err != nil {
			return err
		}
		return p.checkBounds(c.operands[1], c.operands[2])
	case "IN":
		if n := len(c.operands) - 1; n > maxInOperands {
			return p.fail("The IN operator is provided with too many operands; number of operands: " + strconv.Itoa(n))
		}
	}
	return nil
}

func (p *conditionParser) checkDistinct(operator string, operands []*operand) error {
	if len(operands) == 2 && operands[0].path != nil && slices.Equal(operands[0].path, operands[1].path) {
		return p.fail("The first operand must be distinct from the remaining operands for this operator or function; operator: " + operator +
			", first operand: " + operands[0].path.String())
	}
	return nil
}

func (p *conditionParser) checkFunctionTypes(f *operand) error {
	switch f.function {
	case "attribute_exists", "attribute_not_exists":
		if f.args[0].path == nil {
			return p.needsPath(f)
		}
	case "attribute_type":
		typ := f.args[1].literalType()
		if typ != typeS {
			if typ == "" {
				typ = "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}"
			}
			return p.wrongType(f.function, typ)
		}
		if _, name := take(f.args[1].literal); !isType(name.(string)) { //nolint:forcetypeassert // a literal is canonical
			return p.fail("Invalid attribute type name found; type: " + name.(string) + ", valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}") //nolint:forcetypeassert // as above
		}
	case "begins_with":
		for _, a := range f.args {
			typ := a.literalType()
			if a.function == "size" {
				typ = typeN
			}
			if typ != "" && typ != typeS && typ != typeB {
				return p.wrongType(f.function, typ)
			}
		}
	case "size":
		if typ := f.args[0].literalType(); typ == typeN || typ == typeBOOL || typ == typeNULL {
			return p.wrongType(f.function, typ)
		}
	}
	return nil
}

// checkOrdered refuses literals that have no order.
func (p *conditionParser) checkOrdered(operator string, operands []*operand) error {
	for _, o := range operands {
		if typ := o.literalType(); typ != "" && typ != typeS && typ != typeN && typ != typeB {
			return p.wrongType(operator, typ)
		}
	}
	return nil
}

func (p *conditionParser) checkBounds(low, high *operand) error {
	if low.literal == nil || high.literal == nil {
		return nil
	}
	bounds := "; lower bound operand: AttributeValue: " + describe(low.literal) + ", upper bound operand: AttributeValue: " + describe(high.literal)
	n, ok := order(low.literal, high.literal)
	switch {
	case !ok:
		return p.fail("The BETWEEN operator requires same data type for lower and upper bounds" + bounds)
	case n > 0:
		return p.fail("The BETWEEN operator requires upper bound to be greater than or equal to lower bound" + bounds)
	}
	return nil
}

func describe(v *jsontree.Object) string {
	typ, content := take(v)
	s, _ := content.(string)
	return "{" + typ + ":" + s + "}"
}

// holds reports whether an item is as the condition wants it. There may be none: then every path leads nowhere.
func (c *condition) holds(item *jsontree.Object) bool {
	holds := func(c *condition) bool { return c.holds(item) }
	switch c.operator {
	case "AND":
		return !slices.ContainsFunc(c.of, func(c *condition) bool { return !holds(c) })
	case "OR":
		return slices.ContainsFunc(c.of, holds)
	case "NOT":
		return !c.of[0].holds(item)
	case "":
		return c.operands[0].isTrue(item)
	}
	first := c.operands[0].of(item)
	others := make([]*jsontree.Object, len(c.operands)-1)
	for i, o := range c.operands[1:] {
		others[i] = o.of(item)
	}
	switch c.operator {
	case "=":
		return equal(first, others[0])
	case "<>":
		return !equal(first, others[0])
	case "IN":
		return slices.ContainsFunc(others, func(v *jsontree.Object) bool { return equal(first, v) })
	case "BETWEEN":
		low, ok := order(first, others[0])
		high, okToo := order(first, others[1])
		return ok && okToo && low >= 0 && high <= 0
	}
	n, ok := order(first, others[0])
	switch c.operator {
	case "<":
		return ok && n < 0
	case "<=":
		return ok && n <= 0
	case ">":
		return ok && n > 0
	default:
		return ok && n >= 0
	}
}

// of is the operand's value with that item; nil if it has none.
func (o *operand) of(item *jsontree.Object) *jsontree.Object {
	switch {
	case o.literal != nil:
		return o.literal
	case o.path != nil:
		return o.path.in(item)
	}
	return sizeOf(o.args[0].of(item))
}

// sizeOf is what the function size says; numbers, booleans and null have none.
func sizeOf(v *jsontree.Object) *jsontree.Object {
	typ, content := take(v)
	n := 0
	switch typ {
	case typeS:
		s, _ := content.(string)
		n = len(s)
	case typeB:
		s, _ := content.(string)
		n = len(bytesOf(s))
	case typeM:
		if m := object(content); m != nil {
			n = m.Len()
		}
	case typeL, typeSS, typeNS, typeBS:
		list, _ := content.([]any)
		n = len(list)
	default:
		return nil
	}
	return jsontree.Of(typeN, strconv.Itoa(n))
}

// isTrue is a function that is a condition.
func (o *operand) isTrue(item *jsontree.Object) bool {
	first := o.args[0].of(item)
	typ, content := take(first)
	switch o.function {
	case "attribute_exists":
		return first != nil
	case "attribute_not_exists":
		return first == nil
	}
	second := o.args[1].of(item)
	typ2, content2 := take(second)
	s, _ := content.(string)
	t, _ := content2.(string)
	switch o.function {
	case "attribute_type":
		return typ != "" && typ == t
	case "begins_with":
		switch {
		case typ != typ2:
		case typ == typeS:
			return strings.HasPrefix(s, t)
		case typ == typeB:
			return strings.HasPrefix(bytesOf(s), bytesOf(t))
		}
		return false
	}
	// contains
	list, _ := content.([]any)
	switch {
	case typ == typeS && typ2 == typeS:
		return strings.Contains(s, t)
	case typ == typeB && typ2 == typeB:
		return strings.Contains(bytesOf(s), bytesOf(t))
	case typ == typeL:
		return slices.ContainsFunc(list, func(v any) bool { return equal(object(v), second) })
	case typ == typ2+"S" && (typ == typeSS || typ == typeNS || typ == typeBS):
		return keysOf(typ, list)[elementKey(typ, content2)]
	}
	return false
}
