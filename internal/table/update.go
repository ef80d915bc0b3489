package table

import (
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// update is UpdateExpression: changes at paths that are apart from each other.
type update struct {
	changes []change
	tree    *branch // of their paths
}

// change is one action of an update.
type change struct {
	section string // SET, REMOVE, ADD, DELETE
	path    path
	operand *operand // of REMOVE none
}

type updateParser struct {
	*parser
	u        *update
	repeated string // the section that was there already
}

func parseUpdate(source string, refs *references) (*update, error) {
	inner, err := newParser("UpdateExpression", source, refs, "SET", "REMOVE", "ADD", "DELETE")
	if err != nil {
		return nil, err
	}
	p := &updateParser{parser: inner, u: &update{}}
	seen := map[string]bool{}
	for p.token().kind != end {
		t := p.token()
		if !slices.ContainsFunc(p.reserved, t.is) {
			return nil, p.syntaxError(p.at)
		}
		p.at++
		section := strings.ToUpper(t.text)
		if seen[section] && p.repeated == "" {
			p.repeated = section
		}
		seen[section] = true
		if err := p.section(section); err != nil {
			return nil, err
		}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	paths := make([]path, len(p.u.changes))
	for i, c := range p.u.changes {
		paths[i] = c.path
	}
	p.u.tree = treeOf(paths)
	return p.u, nil
}

func (p *updateParser) section(section string) error {
	for {
		at, err := p.path()
		if err != nil {
			return err
		}
		c := change{section: section, path: at}
		switch section {
		case "SET":
			if err := p.expect("="); err != nil {
				return err
			}
			c.operand, err = p.sum()
		case "ADD", "DELETE":
			if p.token().kind != value {
				return p.syntaxError(p.at)
			}
			c.operand, err = p.operand()
		}
		if err != nil {
			return err
		}
		p.u.changes = append(p.u.changes, c)
		if !p.accept(",") {
			return nil
		}
	}
}

// sum reads an operand, or two with + or - between them.
func (p *updateParser) sum() (*operand, error) {
	first, err := p.summand()
	if err != nil {
		return nil, err
	}
	t := p.token()
	if !t.is("+") && !t.is("-") {
		return first, nil
	}
	if first.isSum() { // only one + or - is allowed, parentheses or not
		return nil, p.syntaxError(p.at)
	}
	p.at++
	from := p.at
	second, err := p.summand()
	if err == nil && second.isSum() {
		err = p.syntaxError(from)
	}
	return &operand{function: t.text, args: []*operand{first, second}}, err
}

func (o *operand) isSum() bool { return o.function == "+" || o.function == "-" }

func (p *updateParser) summand() (*operand, error) {
	if !p.accept("(") {
		return p.operand()
	}
	o, err := p.sum()
	if err != nil {
		return nil, err
	}
	return o, p.expect(")")
}

// check finds the first mistake that is none of syntax, in the order in which DynamoDB looks for them.
func (p *updateParser) check() error {
	var functions, operands []*operand
	paths := make([]path, len(p.u.changes))
	for i, c := range p.u.changes {
		paths[i] = c.path
		if c.operand == nil {
			continue
		}
		c.operand.each(func(o *operand) {
			operands = append(operands, o)
			if o.function != "" && !o.isSum() {
				functions = append(functions, o)
			}
		})
	}
	for _, f := range functions {
		if operandCount(f.function) == 0 {
			return p.unknownFunction(f)
		}
	}
	if p.repeated != "" {
		return p.fail(`The "` + p.repeated + `" section can only be used once in an update expression;`)
	}
	for _, f := range functions {
		if !ofUpdates(f.function) {
			return p.misused(f)
		}
	}
	for _, at := range paths {
		if err := p.resolveNames(at); err != nil {
			return err
		}
	}
	for _, o := range operands {
		if err := p.resolveNames(o.path); err != nil {
			return err
		}
	}
	for _, o := range operands {
		if err := p.resolveValue(o); err != nil {
			return err
		}
	}
	if err := p.checkApart(paths); err != nil {
		return err
	}
	for _, c := range p.u.changes {
		if err := p.checkChange(c); err != nil {
			return err
		}
	}
	for _, o := range operands {
		if err := p.checkFunction(o); err != nil {
			return err
		}
	}
	return nil
}

// checkChange: ADD takes a number or a set, DELETE a set.
func (p *updateParser) checkChange(c change) error {
	if c.section != "ADD" && c.section != "DELETE" {
		return nil
	}
	var long string
	switch c.operand.literalType() {
	case typeSS, typeNS, typeBS:
		return nil
	case typeN:
		if c.section == "ADD" {
			return nil
		}
		long = "NUMBER"
	case typeS:
		long = "STRING"
	case typeB:
		long = "BINARY"
	case typeBOOL:
		long = "BOOLEAN"
	case typeNULL:
		long = "NULL"
	case typeL:
		long = "LIST"
	case typeM:
		long = "MAP"
	}
	return p.fail("Incorrect operand type for operator or function; operator: " + c.section + ", operand type: " + long)
}

func (p *updateParser) checkFunction(o *operand) error {
	want := typeN
	switch {
	case o.function == "":
		return nil
	case !o.isSum() && len(o.args) != operandCount(o.function):
		return p.wrongCount(o)
	case o.function == "if_not_exists":
		if o.args[0].path == nil {
			return p.needsPath(o)
		}
		return nil
	case o.function == "list_append":
		want = typeL
	}
	for _, a := range o.args {
		if o.function == "list_append" && a.function == "list_append" {
			return p.misused(a)
		}
		if typ := a.literalType(); typ != "" && typ != want {
			return p.wrongType(o.function, typ)
		}
	}
	return nil
}

// onlyRemoves reports whether nothing is set: such an update makes no item where there is none.
func (u *update) onlyRemoves() bool {
	return !slices.ContainsFunc(u.changes, func(c change) bool { return c.section == "SET" || c.section == "ADD" })
}

const (
	wrongPath    = "The document path provided in the update expression is invalid for update"
	wrongOperand = "An operand in the update expression has an incorrect data type"
	noAttribute  = "The provided expression refers to an attribute that does not exist in the item"
)

// apply is what the update makes of the item, all of whose values are those from before.
func (u *update) apply(item *jsontree.Object) (*jsontree.Object, error) {
	set := make([]*jsontree.Object, len(u.changes))
	for i, c := range u.changes {
		if c.section == "SET" {
			var err error
			if set[i], err = c.operand.computed(item); err != nil {
				return nil, err
			}
		}
	}
	return u.changeMap(u.tree, item, set)
}

// computed is the value of an operand of SET.
func (o *operand) computed(item *jsontree.Object) (*jsontree.Object, error) {
	switch {
	case o.literal != nil:
		return o.literal, nil
	case o.path != nil:
		if v := o.path.in(item); v != nil {
			return v, nil
		}
		return nil, invalid(noAttribute)
	case o.function == "if_not_exists":
		if v := o.args[0].path.in(item); v != nil {
			return v, nil
		}
		return o.args[1].computed(item)
	}
	first, err := o.args[0].computed(item)
	if err != nil {
		return nil, err
	}
	second, err := o.args[1].computed(item)
	if err != nil {
		return nil, err
	}
	if o.function == "list_append" {
		typ, a := take(first)
		typ2, b := take(second)
		if typ != typeL || typ2 != typeL {
			return nil, invalid(wrongOperand)
		}
		l, _ := a.([]any)
		m, _ := b.([]any)
		return jsontree.Of(typeL, slices.Concat(l, m)), nil
	}
	return sum(first, second, o.function == "-")
}

func sum(a, b *jsontree.Object, minus bool) (*jsontree.Object, error) {
	d, ok := numberOf(a)
	e, okToo := numberOf(b)
	if !ok || !okToo {
		return nil, invalid(wrongOperand)
	}
	if minus {
		e = e.negated()
	}
	r, err := d.plus(e)
	if err != nil {
		return nil, err
	}
	return number(r), nil
}

func numberOf(v *jsontree.Object) (decimal, bool) {
	typ, content := take(v)
	s, _ := content.(string)
	d, err := parseNumber(s)
	return d, typ == typeN && err == nil
}

// changeMap is the map, or the item, with the changes of the tree.
func (u *update) changeMap(b *branch, m *jsontree.Object, set []*jsontree.Object) (*jsontree.Object, error) {
	out := m.Clone()
	for i, s := range b.steps {
		v, _ := m.Get(s.name)
		after, err := u.changeValue(b.branches[i], object(v), set)
		switch {
		case err != nil:
			return nil, err
		case after == nil:
			out.Delete(s.name)
		default:
			out.Set(s.name, after)
		}
	}
	return out, nil
}

// changeValue is what becomes of a value; of a missing one, too. Nil: it is removed.
func (u *update) changeValue(b *branch, v *jsontree.Object, set []*jsontree.Object) (*jsontree.Object, error) {
	if b.isLeaf {
		c := u.changes[b.leaf]
		switch c.section {
		case "SET":
			return set[b.leaf], nil
		case "ADD":
			return added(v, c.operand.literal)
		case "DELETE":
			return deleted(v, c.operand.literal)
		}
		return nil, nil //nolint:nilnil // REMOVE
	}
	typ, content := take(v)
	if m := object(content); typ == typeM && !b.isList && m != nil {
		after, err := u.changeMap(b, m, set)
		return jsontree.Of(typeM, after), err
	}
	if list, ok := content.([]any); typ == typeL && b.isList && ok {
		after, err := u.changeList(b, list, set)
		return jsontree.Of(typeL, after), err
	}
	return nil, invalid(wrongPath)
}

// changeList changes elements at their places from before; what is set behind the end comes there in the order of the indexes.
func (u *update) changeList(b *branch, list []any, set []*jsontree.Object) ([]any, error) {
	out := slices.Clone(list)
	for i, s := range b.steps {
		var v *jsontree.Object
		if s.index < len(list) {
			v = object(list[s.index])
		}
		after, err := u.changeValue(b.branches[i], v, set)
		switch {
		case err != nil:
			return nil, err
		case s.index < len(list) && after == nil:
			out[s.index] = nil // removed below, as no element is nil
		case s.index < len(list):
			out[s.index] = after
		case after != nil:
			out = append(out, after)
		}
	}
	return slices.DeleteFunc(out, func(v any) bool { return v == nil }), nil
}

// added is a number with another, or a set with more elements.
func added(v, more *jsontree.Object) (*jsontree.Object, error) {
	typ, content := take(v)
	typ2, content2 := take(more)
	switch {
	case typ == "":
		return more, nil
	case typ != typ2:
		return nil, invalid(wrongOperand)
	case typ == typeN:
		return sum(v, more, false)
	}
	list, _ := content.([]any)
	has := keysOf(typ, list)
	others, _ := content2.([]any)
	list = slices.Clone(list)
	for _, e := range others {
		if !has[elementKey(typ, e)] {
			list = append(list, e)
		}
	}
	return jsontree.Of(typ, list), nil
}

// deleted is a set without some elements, and nil without any that is left.
func deleted(v, gone *jsontree.Object) (*jsontree.Object, error) {
	typ, content := take(v)
	typ2, content2 := take(gone)
	switch {
	case typ == "":
		return nil, nil //nolint:nilnil // as documented
	case typ != typ2:
		return nil, invalid(wrongOperand)
	}
	list, _ := content.([]any)
	others, _ := content2.([]any)
	without := keysOf(typ, others)
	var left []any
	for _, e := range list {
		if !without[elementKey(typ, e)] {
			left = append(left, e)
		}
	}
	if len(left) == 0 {
		return nil, nil //nolint:nilnil // as documented
	}
	return jsontree.Of(typ, left), nil
}
