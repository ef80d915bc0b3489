package jsonata

import (
	"slices"
	"strconv"
)

// compiler makes the tree that is evaluated of the tree that was parsed: paths with their steps in a row, filters and
// groupings at what they apply to, and every % tied to the step whose value it stands for.
type compiler struct {
	labels int
}

func compile(text string, o options) (*Expr, error) {
	raw, err := parse(text)
	if err != nil {
		return nil, err
	}
	c := &compiler{}
	root, err := c.process(raw)
	if err != nil {
		return nil, err
	}
	if root.kind == kindParent || root.seeking != nil {
		return nil, failToken("S0217", root.pos, root.kind.String())
	}
	e := &Expr{text: text, root: root, opts: o, bound: map[string]bool{}, names: map[string]*Function{}}
	e.link()
	return e, nil
}

func (c *compiler) all(raw []*node) ([]*node, error) {
	list := make([]*node, len(raw))
	for i, r := range raw {
		var err error
		if list[i], err = c.process(r); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (c *compiler) process(raw *node) (n *node, err error) {
	switch raw.kind {
	case kindDot:
		n, err = c.dot(raw)
	case kindFilter:
		n, err = c.filter(raw)
	case kindGroup:
		n, err = c.group(raw)
	case kindOrder:
		n, err = c.order(raw)
	case kindFocus:
		n, err = c.focus(raw)
	case kindIndex:
		n, err = c.index(raw)
	case kindName, kindKeyword:
		step := raw.bare()
		step.kind, step.keepArray = kindName, raw.keepArray
		n = &node{kind: kindPath, list: []*node{step}, keepSingleton: raw.keepArray}
	case kindParent:
		n = raw.bare()
		n.slot = &slot{label: "!" + strconv.Itoa(c.labels), level: 1}
		c.labels++
	case kindString, kindNumber, kindValue, kindWildcard, kindDescendant, kindVariable, kindRegex, kindPlaceholder:
		n = raw.bare()
	case kindEnd:
		return nil, failToken("S0207", raw.pos, "(end)")
	default:
		n, err = c.composed(raw)
	}
	if err != nil {
		return nil, err
	}
	if raw.keepArray {
		n.keepArray = true
	}
	return n, nil
}

// bare is a copy of what the token gave. A part of the parsed tree may be processed twice (a ?: b), so it is never changed.
func (n *node) bare() *node {
	return &node{kind: n.kind, pos: n.pos, text: n.text, number: n.number, value: n.value, regex: n.regex}
}

// composed makes a node whose parts are processed and may seek a parent.
func (c *compiler) composed(raw *node) (n *node, err error) {
	n = raw.bare()
	n.signature = raw.signature
	part := func(r *node) *node {
		if r == nil || err != nil {
			return nil
		}
		var p *node
		if p, err = c.process(r); err == nil && n.kind != kindLambda && n.kind != kindTransform {
			n.pass(p)
		}
		return p
	}
	switch raw.kind {
	case kindBind:
		n.left, n.right = raw.left.bare(), part(raw.right)
	case kindApply:
		if n.left, err = c.process(raw.left); err != nil {
			return nil, err
		}
		if n.right, err = c.process(raw.right); err != nil {
			return nil, err
		}
		n.keepArray = n.left.keepArray || n.right.keepArray
		if n.right.kind != kindCall {
			n.chain = composition()
		}
	case kindNegate:
		if n.test = part(raw.test); err == nil && n.test.kind == kindNumber {
			n = n.test
			n.number = -n.number
			n.value = n.number
		}
	case kindCall, kindPartial:
		for _, argument := range raw.list {
			n.list = append(n.list, part(argument))
		}
		if err == nil {
			n.test, err = c.process(raw.test)
		}
	case kindLambda:
		for _, parameter := range raw.list {
			n.list = append(n.list, parameter.bare())
		}
		if n.test = part(raw.test); err == nil {
			n.test = tailCall(n.test)
		}
	default:
		n.test, n.left, n.right = part(raw.test), part(raw.left), part(raw.right)
		for _, item := range raw.list {
			p := part(item)
			n.list = append(n.list, p)
			if p != nil && raw.kind == kindBlock && (p.cons || p.kind == kindPath && p.list[0].cons) {
				n.cons = true
			}
		}
		for _, pair := range raw.pairs {
			n.pairs = append(n.pairs, [2]*node{part(pair[0]), part(pair[1])})
		}
	}
	return n, err
}

// pass makes n seek the parents that its part seeks.
func (n *node) pass(part *node) {
	n.seeking = append(n.seeking, part.seeking...)
	if part.kind == kindParent {
		n.seeking = append(n.seeking, part.slot)
	}
}

// tailCall puts a call that is the last thing a function does into a thunk, which the caller evaluates (see apply).
func tailCall(n *node) *node {
	switch {
	case n.kind == kindCall && n.predicates == nil:
		return &node{kind: kindLambda, thunk: true, pos: n.pos, test: n}
	case n.kind == kindCondition:
		n.left = tailCall(n.left)
		if n.right != nil {
			n.right = tailCall(n.right)
		}
	case n.kind == kindBlock && len(n.list) > 0:
		last := len(n.list) - 1
		n.list[last] = tailCall(n.list[last])
	}
	return n
}

func (c *compiler) dot(raw *node) (*node, error) {
	n, err := c.process(raw.left)
	if err != nil {
		return nil, err
	}
	if n.kind != kindPath {
		first := n
		n = &node{kind: kindPath, list: []*node{first}}
		if first.kind == kindParent {
			n.seeking = []*slot{first.slot}
		}
	}
	rest, err := c.process(raw.right)
	if err != nil {
		return nil, err
	}
	if rest.kind == kindPath {
		n.list = append(n.list, rest.list...)
	} else {
		if rest.predicates != nil {
			rest.stages, rest.predicates = rest.predicates, nil
		}
		n.list = append(n.list, rest)
	}
	for _, step := range n.list {
		switch step.kind {
		case kindNumber, kindValue:
			e := failToken("S0213", step.pos, "")
			e.Value = step.value
			return nil, e
		case kindString:
			step.kind = kindName
		}
		n.keepSingleton = n.keepSingleton || step.keepArray
	}
	if first := n.list[0]; first.kind == kindArray {
		first.cons = true
	}
	if last := n.list[len(n.list)-1]; last.kind == kindArray {
		last.cons = true
	}
	return n, n.resolve()
}

func (n *node) lastStep() *node {
	if n.kind == kindPath {
		return n.list[len(n.list)-1]
	}
	return n
}

func (c *compiler) filter(raw *node) (*node, error) {
	n, err := c.process(raw.left)
	if err != nil {
		return nil, err
	}
	step := n.lastStep()
	if step.group != nil {
		return nil, failToken("S0209", raw.pos, "")
	}
	by, err := c.process(raw.right)
	if err != nil {
		return nil, err
	}
	for _, s := range by.seeking {
		if s.level == 1 {
			if _, err := step.seek(s); err != nil {
				return nil, err
			}
		} else {
			s.level--
		}
	}
	if by.seeking != nil {
		step.pass(by)
	}
	filter := stage{by: by, pos: raw.pos}
	if n.kind == kindPath {
		step.stages = append(step.stages, filter)
	} else {
		step.predicates = append(step.predicates, filter)
	}
	return n, nil
}

func (c *compiler) group(raw *node) (*node, error) {
	n, err := c.process(raw.left)
	if err != nil {
		return nil, err
	}
	if n.group != nil {
		return nil, failToken("S0210", raw.pos, "")
	}
	n.group = &node{kind: kindObject, pos: raw.pos}
	for _, pair := range raw.pairs {
		p, err := c.all(pair[:])
		if err != nil {
			return nil, err
		}
		n.group.pairs = append(n.group.pairs, [2]*node(p))
	}
	return n, nil
}

func (c *compiler) order(raw *node) (*node, error) {
	n, err := c.process(raw.left)
	if err != nil {
		return nil, err
	}
	if n.kind != kindPath {
		n = &node{kind: kindPath, list: []*node{n}}
	}
	step := &node{kind: kindSort, pos: raw.pos}
	for _, t := range raw.terms {
		by, err := c.process(t.by)
		if err != nil {
			return nil, err
		}
		step.pass(by)
		step.terms = append(step.terms, term{t.descending, by})
	}
	n.list = append(n.list, step)
	return n, n.resolve()
}

func (c *compiler) focus(raw *node) (*node, error) {
	n, err := c.process(raw.left)
	if err != nil {
		return nil, err
	}
	step := n.lastStep()
	if step.stages != nil || step.predicates != nil {
		return nil, failToken("S0215", raw.pos, "")
	}
	if step.kind == kindSort {
		return nil, failToken("S0216", raw.pos, "")
	}
	step.keepArray = step.keepArray || raw.keepArray
	step.focus, step.tuple = raw.right.text, true
	return n, nil
}

func (c *compiler) index(raw *node) (*node, error) {
	n, err := c.process(raw.left)
	if err != nil {
		return nil, err
	}
	if n.kind != kindPath {
		if n.predicates != nil {
			n.stages, n.predicates = n.predicates, nil
		}
		n = &node{kind: kindPath, list: []*node{n}}
	}
	step := n.lastStep()
	if step.stages == nil {
		step.index = raw.right.text
	} else {
		step.stages = append(step.stages, stage{index: raw.right.text, pos: raw.pos})
	}
	step.tuple = true
	return n, nil
}

// seek takes a slot down through the node, towards the step whose value it stands for. It gives the levels that are left.
func (n *node) seek(s *slot) (_ *slot, err error) {
	switch n.kind {
	case kindName, kindWildcard:
		s.level--
		if s.level == 0 {
			if n.ancestor != nil {
				s.label = n.ancestor.label
			}
			n.ancestor = s
			n.tuple = true
		}
	case kindParent:
		s.level++
	case kindBlock:
		if len(n.list) > 0 {
			n.tuple = true
			return n.list[len(n.list)-1].seek(s)
		}
	case kindPath:
		n.tuple = true
		i := len(n.list) - 1
		if s, err = n.list[i].seek(s); err != nil {
			return nil, err
		}
		for i--; s.level > 0 && i >= 0; i-- {
			if s, err = n.list[i].seek(s); err != nil {
				return nil, err
			}
		}
	default:
		return nil, failToken("S0217", n.pos, n.kind.String())
	}
	return s, nil
}

// resolve ties what the path's last step seeks to the steps before it; what they don't have, the path seeks.
func (n *node) resolve() (err error) {
	last := n.list[len(n.list)-1]
	slots := slices.Clone(last.seeking)
	if last.kind == kindParent {
		slots = append(slots, last.slot)
	}
	for _, s := range slots {
		i := len(n.list) - 2
		for s.level > 0 {
			if i < 0 {
				n.seeking = append(n.seeking, s)
				break
			}
			step := n.list[i]
			i--
			for i >= 0 && step.focus != "" && n.list[i].focus != "" { // steps that bind one focus count once
				step = n.list[i]
				i--
			}
			if s, err = step.seek(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// composition is function($f, $g) { function($x) { $g($f($x)) } }, of which ~> makes the composition of two functions.
func composition() *node {
	variable := func(name string) *node { return &node{kind: kindVariable, text: name} }
	call := func(name string, argument *node) *node {
		return &node{kind: kindCall, text: "(", test: variable(name), list: []*node{argument}}
	}
	inner := &node{kind: kindLambda, list: []*node{variable("x")}, test: tailCall(call("g", call("f", variable("x"))))}
	return &node{kind: kindLambda, list: []*node{variable("f"), variable("g")}, test: inner}
}
