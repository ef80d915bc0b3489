package table

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// path leads from an item to a value within it. Its first step is a name.
type path []step

// step is the name of a member of a map, or an index in a list.
type step struct {
	name    string
	index   int
	isIndex bool
}

// String is the path as DynamoDB's messages have it: [a, [0], b].
func (p path) String() string {
	steps := make([]string, len(p))
	for i, s := range p {
		steps[i] = s.name
		if s.isIndex {
			steps[i] = "[" + strconv.Itoa(s.index) + "]"
		}
	}
	return "[" + strings.Join(steps, ", ") + "]"
}

// in is the value that the path leads to in the item; nil if there is none.
func (p path) in(item *jsontree.Object) *jsontree.Object {
	if item == nil {
		return nil
	}
	v, _ := item.Get(p[0].name)
	for _, s := range p[1:] {
		typ, content := take(object(v))
		switch {
		case s.isIndex && typ == typeL:
			list, _ := content.([]any)
			if s.index >= len(list) {
				return nil
			}
			v = list[s.index]
		case !s.isIndex && typ == typeM:
			m := object(content)
			if m == nil {
				return nil
			}
			v, _ = m.Get(s.name)
		default:
			return nil
		}
	}
	return object(v)
}

// checkApart refuses paths of which one is within another, or that take one value for a map and for a list.
func (p *parser) checkApart(paths []path) error {
	var conflict error
	for i, b := range paths {
		for _, a := range paths[:i] {
			n := 0
			for n < min(len(a), len(b)) && a[n] == b[n] {
				n++
			}
			switch {
			case n == min(len(a), len(b)):
				return p.notApart("overlap", a, b)
			case a[n].isIndex != b[n].isIndex && conflict == nil:
				conflict = p.notApart("conflict", a, b)
			}
		}
	}
	return conflict
}

func (p *parser) notApart(how string, a, b path) error {
	return p.fail("Two document paths " + how + " with each other; must remove or rewrite one of these paths; path one: " + a.String() + ", path two: " + b.String())
}

// branch is where paths that are apart from each other part: they make a tree of which each is one leaf.
type branch struct {
	leaf     int // the path's number
	isLeaf   bool
	isList   bool
	steps    []step // of a list in the order of the indexes, otherwise as written
	branches []*branch
}

func treeOf(paths []path) *branch {
	root := &branch{}
	for i, p := range paths {
		at := root
		for _, s := range p {
			at = at.to(s)
		}
		at.leaf, at.isLeaf = i, true
	}
	root.sort()
	return root
}

func (b *branch) to(s step) *branch {
	b.isList = s.isIndex
	if i := slices.Index(b.steps, s); i >= 0 {
		return b.branches[i]
	}
	b.steps = append(b.steps, s)
	b.branches = append(b.branches, &branch{})
	return b.branches[len(b.branches)-1]
}

func (b *branch) sort() {
	for _, next := range b.branches {
		next.sort()
	}
	if !b.isList {
		return
	}
	order := make([]int, len(b.steps))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(b.steps[i].index, b.steps[j].index) })
	steps, branches := make([]step, len(order)), make([]*branch, len(order))
	for to, from := range order {
		steps[to], branches[to] = b.steps[from], b.branches[from]
	}
	b.steps, b.branches = steps, branches
}

// project is the item with nothing but what the paths of the tree lead to; of lists the elements move up.
func (b *branch) project(item *jsontree.Object) *jsontree.Object {
	out := jsontree.NewObject(len(b.steps))
	for i, s := range b.steps {
		v, _ := item.Get(s.name)
		if kept := b.branches[i].projectValue(object(v)); kept != nil {
			out.Set(s.name, kept)
		}
	}
	return out
}

func (b *branch) projectValue(v *jsontree.Object) *jsontree.Object {
	typ, content := take(v)
	switch {
	case b.isLeaf:
		return v
	case b.isList && typ == typeL:
		list, _ := content.([]any)
		var kept []any
		for i, s := range b.steps {
			if s.index >= len(list) {
				break
			}
			if e := b.branches[i].projectValue(object(list[s.index])); e != nil {
				kept = append(kept, e)
			}
		}
		if len(kept) > 0 {
			return jsontree.Of(typeL, kept)
		}
	case !b.isList && typ == typeM:
		if m := object(content); m != nil {
			if kept := b.project(m); kept.Len() > 0 {
				return jsontree.Of(typeM, kept)
			}
		}
	}
	return nil
}

// parseProjection reads ProjectionExpression.
func parseProjection(source string, refs *references) (*branch, error) {
	p, err := newParser("ProjectionExpression", source, refs)
	if err != nil {
		return nil, err
	}
	var paths []path
	for {
		at, err := p.path()
		if err != nil {
			return nil, err
		}
		paths = append(paths, at)
		if !p.accept(",") {
			break
		}
	}
	if p.token().kind != end {
		return nil, p.syntaxError(p.at)
	}
	for _, at := range paths {
		if err := p.resolveNames(at); err != nil {
			return nil, err
		}
	}
	if err := p.checkApart(paths); err != nil {
		return nil, err
	}
	return treeOf(paths), nil
}
