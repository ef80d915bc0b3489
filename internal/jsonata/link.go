package jsonata

import "slices"

// children calls f for each part of the node.
func (n *node) children(f func(*node)) {
	for _, part := range []*node{n.test, n.left, n.right, n.group} {
		if part != nil {
			f(part)
		}
	}
	for _, part := range n.list {
		f(part)
	}
	for _, pair := range n.pairs {
		f(pair[0])
		f(pair[1])
	}
	for _, t := range n.terms {
		f(t.by)
	}
	for _, s := range slices.Concat(n.predicates, n.stages) {
		if s.by != nil {
			f(s.by)
		}
	}
}

// binds calls f for each name that the node itself binds.
func (n *node) binds(f func(string)) {
	switch n.kind {
	case kindBind:
		f(n.left.text)
	case kindLambda:
		for _, parameter := range n.list {
			f(parameter.text)
		}
	}
	if n.focus != "" {
		f(n.focus)
	}
	if n.index != "" {
		f(n.index)
	}
	for _, s := range n.stages {
		if s.by == nil {
			f(s.index)
		}
	}
}

// link finds out what evaluations need not find out each time: which variables can be in frames, which blocks bind any, and
// which functions are meant.
func (e *Expr) link() {
	var collect func(n *node)
	collect = func(n *node) {
		n.binds(func(name string) { e.bound[name] = true })
		if n.kind == kindVariable && n.text == "eval" && !e.opts.noEval {
			e.walk = true
		}
		n.children(collect)
	}
	e.walk = e.walk || e.opts.inner
	collect(e.root)
	e.settle(e.root)
}

func (e *Expr) settle(n *node) {
	switch n.kind {
	case kindVariable:
		n.free = !e.walk && !e.bound[n.text]
		n.builtin = e.builtin(n.text)
	case kindTransform:
		n.builtin = e.builtin("clone")
	case kindBlock:
		n.frame = e.walk
		for _, part := range n.list {
			n.frame = n.frame || part.bindsHere()
		}
	case kindPath:
		for n.plain = 0; n.plain+1 < len(n.list) && n.list[n.plain+1].isPlain(); n.plain++ {
		}
	}
	n.children(e.settle)
}

// bindsHere reports whether evaluating the node binds a variable in the frame that it is evaluated in.
func (n *node) bindsHere() bool {
	if n.kind == kindBind {
		return true
	}
	if n.kind == kindBlock || n.kind == kindLambda {
		for _, s := range n.predicates {
			if s.by != nil && s.by.bindsHere() {
				return true
			}
		}
		return n.group != nil && n.group.bindsHere()
	}
	found := false
	n.children(func(part *node) { found = found || part.bindsHere() })
	return found
}

// isPlain reports whether a step is just a name.
func (n *node) isPlain() bool {
	return n.kind == kindName && !n.keepArray && !n.tuple && n.stages == nil && n.predicates == nil && n.group == nil &&
		n.focus == "" && n.index == "" && n.ancestor == nil
}

// builtin is the built-in function of the name, the same one for the whole expression; nil if there is none.
func (e *Expr) builtin(name string) *Function {
	if name == "eval" && e.opts.noEval {
		return nil
	}
	if f, ok := e.names[name]; ok {
		return f
	}
	f := builtin(name)
	if f != nil {
		e.names[name] = f
	}
	return f
}

// Reference is a variable that an expression reads and does not bind.
type Reference struct {
	Name     string   // without $; "$" for $$, the input
	Position int      // as in Error
	Path     []string // the names that follow it: input and id for $states.input.id
	Builtin  bool     // JSONata has a function of the name
}

// References lists the free variables in the order in which they are written. A name is bound where it is a parameter, or a
// variable that is assigned to anywhere in an enclosing block, or bound by @ or # anywhere.
func (e *Expr) References() []Reference {
	r := &referrer{expr: e, bound: map[string]int{}}
	var tuples func(n *node)
	tuples = func(n *node) {
		if n.kind != kindBind && n.kind != kindLambda {
			n.binds(func(name string) { r.bound[name]++ })
		}
		n.children(tuples)
	}
	tuples(e.root)
	r.scope(e.root, func() { r.visit(e.root) })
	slices.SortStableFunc(r.found, func(a, b Reference) int { return a.Position - b.Position })
	return slices.CompactFunc(r.found, func(a, b Reference) bool { return a.Name == b.Name && a.Position == b.Position })
}

type referrer struct {
	expr  *Expr
	bound map[string]int // how many scopes bind it
	found []Reference
}

// scope visits with the names bound that the node assigns to in its own frame.
func (r *referrer) scope(n *node, visit func()) {
	var names []string
	var collect func(part *node)
	collect = func(part *node) {
		if part.kind == kindBind {
			names = append(names, part.left.text)
		}
		if part == n || part.kind != kindBlock && part.kind != kindLambda {
			part.children(collect)
		}
	}
	collect(n)
	r.with(names, visit)
}

func (r *referrer) with(names []string, visit func()) {
	for _, name := range names {
		r.bound[name]++
	}
	visit()
	for _, name := range names {
		r.bound[name]--
	}
}

func (r *referrer) visit(n *node) {
	switch n.kind {
	case kindVariable:
		r.add(n, nil)
		n.children(r.visit)
	case kindBind:
		r.visit(n.right) // the left side is no reading
	case kindPath:
		if first := n.list[0]; first.kind == kindVariable {
			r.add(first, n.list[1:])
			first.children(r.visit)
			for _, step := range n.list[1:] {
				r.visit(step)
			}
			if n.group != nil {
				r.visit(n.group)
			}
			return
		}
		n.children(r.visit)
	case kindBlock:
		r.scope(n, func() { n.children(r.visit) })
	case kindLambda:
		var names []string
		n.binds(func(name string) { names = append(names, name) })
		r.with(names, func() {
			r.scope(n, func() { r.visit(n.test) })
		})
	default:
		n.children(r.visit)
	}
}

func (r *referrer) add(n *node, steps []*node) {
	if n.text == "" || r.bound[n.text] > 0 {
		return
	}
	ref := Reference{Name: n.text, Position: n.pos, Builtin: r.expr.opts.has(n.text)}
	if n.predicates == nil {
		for _, step := range steps {
			if step.kind != kindName {
				break
			}
			ref.Path = append(ref.Path, step.text)
			if step.stages != nil {
				break
			}
		}
	}
	r.found = append(r.found, ref)
}

// has reports whether there is a built-in function of the name.
func (o options) has(name string) bool { return (name != "eval" || !o.noEval) && builtin(name) != nil }
