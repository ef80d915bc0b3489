package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// A check by the library has no bound of its own: with a recursive schema its cost may double with each level of the
// body. So it is counted before: how many schemas the library would hold against how many values, by a walk that sees
// each value once, whatever the schema.

// The budget of a check, in steps: a step is a schema held against a value, or a member, element or enum value that it
// looks at. A step takes the library some hundred nanoseconds (make bench ONLY=schema).
const (
	baseSteps    = 20_000
	stepsPerByte = 8
)

const (
	// most is where counts saturate.
	most = 1 << 40
	// maxTerms bounds what is kept of a schema: 16 bytes each.
	maxTerms = 100_000
)

// node is a schema, as the walk needs it.
type node struct {
	id      int
	s       *jsonschema.Schema
	inPlace []term // what is held against the same value, this one included; without the schemas of if, then and else
}

// term is a schema that is held against a value, and how often.
type term struct {
	n     *node
	times uint64
}

// costs counts the steps of checks by one schema. It is immutable.
type costs struct {
	root  *node
	nodes map[*jsonschema.Schema]*node
}

// newCosts returns an error for a schema that has too many chains of references to keep them.
func newCosts(root *jsonschema.Schema) (*costs, error) {
	c := &costs{nodes: map[*jsonschema.Schema]*node{}}
	c.find(root)
	kept := 0
	for _, n := range c.nodes {
		c.close(n, map[*node]bool{})
		if kept += len(n.inPlace); kept > maxTerms {
			return nil, errors.New("must hold fewer schemas against the same value: its $refs, allOf, anyOf and oneOf lead to too many")
		}
	}
	c.root = c.nodes[root]
	return c, nil
}

// find makes a node of s and of what it refers to.
func (c *costs) find(s *jsonschema.Schema) {
	if s == nil || c.nodes[s] != nil {
		return
	}
	c.nodes[s] = &node{id: len(c.nodes), s: s}
	for _, sub := range []*jsonschema.Schema{
		s.Ref, s.RecursiveRef, s.Not, s.If, s.Then, s.Else, s.PropertyNames, s.UnevaluatedProperties, s.Contains, s.Items2020, s.UnevaluatedItems,
	} {
		c.find(sub)
	}
	if s.DynamicRef != nil {
		c.find(s.DynamicRef.Ref)
	}
	for _, list := range [][]*jsonschema.Schema{s.AllOf, s.AnyOf, s.OneOf, s.PrefixItems} {
		for _, sub := range list {
			c.find(sub)
		}
	}
	for _, sub := range s.Properties {
		c.find(sub)
	}
	for _, sub := range s.PatternProperties {
		c.find(sub)
	}
	for _, sub := range s.DependentSchemas {
		c.find(sub)
	}
	for _, dep := range s.Dependencies {
		c.findAny(dep)
	}
	c.findAny(s.AdditionalProperties)
	c.findAny(s.AdditionalItems)
	c.findAny(s.Items)
}

func (c *costs) findAny(v any) {
	switch v := v.(type) {
	case *jsonschema.Schema:
		c.find(v)
	case []*jsonschema.Schema:
		for _, sub := range v {
			c.find(sub)
		}
	}
}

// close sets n.inPlace. open are the nodes on the way to n: a cycle in place is an error that the library finds.
func (c *costs) close(n *node, open map[*node]bool) {
	if n.inPlace != nil || open[n] {
		return
	}
	open[n] = true
	defer delete(open, n)
	sum := map[*node]uint64{n: 1}
	for _, sub := range c.applied(n.s) {
		m := c.nodes[sub]
		c.close(m, open)
		for _, t := range m.inPlace {
			sum[t.n] = min(most, sum[t.n]+t.times)
		}
	}
	for m, times := range sum {
		n.inPlace = append(n.inPlace, term{m, times})
	}
}

// applied are the schemas that s holds against the value that s itself is held against.
func (c *costs) applied(s *jsonschema.Schema) []*jsonschema.Schema {
	var out []*jsonschema.Schema
	for _, sub := range []*jsonschema.Schema{s.Ref, s.Not} {
		if sub != nil {
			out = append(out, sub)
		}
	}
	if s.RecursiveRef != nil {
		out = append(out, s.RecursiveRef)
	}
	if s.DynamicRef != nil {
		out = append(out, s.DynamicRef.Ref)
	}
	out = append(append(append(out, s.AllOf...), s.AnyOf...), s.OneOf...)
	for _, sub := range s.DependentSchemas {
		out = append(out, sub)
	}
	for _, dep := range s.Dependencies {
		if sub, ok := dep.(*jsonschema.Schema); ok {
			out = append(out, sub)
		}
	}
	return out
}

// take returns how many steps a check of v takes, and how deep v is; ok is false if it takes more than budget.
func (c *costs) take(v any, budget uint64) (steps uint64, depth int, ok bool) {
	w := walk{c: c, left: budget, times: make([]uint64, len(c.nodes))}
	ok = w.value(v, []term{{c.root, 1}})
	return budget - w.left, w.deepest, ok
}

// oneTarget refuses a schema in which the target of a $dynamicRef or $recursiveRef depends on the way to it: what such a
// check costs can't be told from the schema alone.
func oneTarget(doc any) error {
	seen := map[string]bool{}
	var walk func(v any) error
	walk = func(v any) error {
		switch v := v.(type) {
		case map[string]any:
			name, dynamic := v["$dynamicAnchor"].(string)
			if v["$recursiveAnchor"] == true {
				name, dynamic = "$recursiveAnchor", true
			}
			if dynamic && seen[name] {
				return fmt.Errorf("must have each $dynamicAnchor, and $recursiveAnchor, once: %s is there twice", name)
			}
			seen[name] = seen[name] || dynamic
			for _, sub := range v {
				if err := walk(sub); err != nil {
					return err
				}
			}
		case []any:
			for _, sub := range v {
				if err := walk(sub); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return walk(doc)
}

// walk is one count.
type walk struct {
	c    *costs
	left uint64

	depth, deepest int

	terms []term // of the values on the way to this one
	// times and touched add up the terms of the value that comes next.
	times   []uint64 // by node
	touched []*node
}

// spend takes steps, times over, from what is left; false means that it is not enough.
func (w *walk) spend(steps, times uint64) bool {
	high, total := bits.Mul64(steps, times)
	if high > 0 || total > w.left {
		return false
	}
	w.left -= total
	return true
}

func (w *walk) add(s *jsonschema.Schema, times uint64) {
	n := w.c.nodes[s]
	if w.times[n.id] == 0 {
		w.touched = append(w.touched, n)
	}
	w.times[n.id] = min(most, w.times[n.id]+times)
}

// next takes what was added, as terms behind those that are there.
func (w *walk) next() []term {
	start := len(w.terms)
	for _, n := range w.touched {
		w.terms = append(w.terms, term{n, w.times[n.id]})
		w.times[n.id] = 0
	}
	w.touched = w.touched[:0]
	return w.terms[start:]
}

// value counts what holding the schemas of roots against v takes; false means more than is left.
func (w *walk) value(v any, roots []term) bool {
	start := len(w.terms)
	w.depth++
	w.deepest = max(w.deepest, w.depth)
	defer func() { w.terms, w.depth = w.terms[:start], w.depth-1 }()
	for _, r := range roots {
		for _, t := range r.n.inPlace {
			w.add(t.n.s, min(most, r.times*t.times))
		}
	}
	at := w.next()
	if len(at) == 0 { // nothing is held against v, nor what is in it
		return true
	}
	for i := 0; i < len(at); i++ { // it grows
		t := at[i]
		if !w.spend(w.steps(t.n.s, v), t.times) {
			return false
		}
		if t.n.s.If == nil {
			continue
		}
		branch, ok := w.branch(t, v)
		if !ok {
			return false
		}
		if branch != nil {
			for _, b := range w.c.nodes[branch].inPlace {
				w.terms = append(w.terms, term{b.n, min(most, b.times*t.times)})
			}
			at = w.terms[start:]
		}
	}
	switch v := v.(type) {
	case map[string]any:
		return w.object(v, at)
	case []any:
		return w.array(v, at)
	}
	return true
}

// branch returns then or else, as the value is: counting both would take a chain of alternatives for a recursion with
// many branches. The check of if is counted before it is made, twice, since the library makes it again.
func (w *walk) branch(t term, v any) (*jsonschema.Schema, bool) {
	cond := t.n.s.If
	if !w.value(v, []term{{w.c.nodes[cond], min(most, t.times+1)}}) {
		return nil, false
	}
	if cond.Validate(v) == nil {
		return t.n.s.Then, true
	}
	return t.n.s.Else, true
}

// steps is what holding s alone against v takes.
func (w *walk) steps(s *jsonschema.Schema, v any) uint64 {
	n := 1
	if s.Enum != nil {
		n += len(s.Enum.Values) / 8 // of a number below: it is made a fraction for each
	}
	switch v := v.(type) {
	case map[string]any:
		n += len(v) * (1 + len(s.PatternProperties))
		if len(s.PatternProperties) > 0 {
			for name := range v {
				n += len(name) / 16 * len(s.PatternProperties)
			}
		}
		n += compared(s) * size(v)
	case []any:
		n += compared(s) * size(v)
		n += len(v)
		if s.UniqueItems {
			n += 10 * size(v) // each of up to 20 elements is compared with each
		}
	case string:
		if s.Pattern != nil || s.MinLength != nil || s.MaxLength != nil {
			n += len(v) / 16
		}
	case json.Number:
		n += len(v) / 16
		if s.Enum != nil {
			n += len(s.Enum.Values)
		}
	}
	return uint64(n)
}

// compared is with how many values of its own s compares one.
func compared(s *jsonschema.Schema) (n int) {
	if s.Enum != nil {
		n = len(s.Enum.Values)
	}
	if s.Const != nil {
		n++
	}
	return n
}

// size is the number of values in v, and more for long numbers, which are made fractions.
func size(v any) int {
	n := 1
	switch v := v.(type) {
	case json.Number:
		n += len(v) / 16
	case map[string]any:
		for _, m := range v {
			n += size(m)
		}
	case []any:
		for _, e := range v {
			n += size(e)
		}
	}
	return n
}

func (w *walk) object(v map[string]any, at []term) bool {
	for name, value := range v {
		for _, t := range at {
			w.member(t, name)
		}
		if !w.value(value, w.next()) {
			return false
		}
		for _, t := range at {
			if t.n.s.PropertyNames != nil {
				w.add(t.n.s.PropertyNames, t.times)
			}
		}
		if !w.value(name, w.next()) {
			return false
		}
	}
	return true
}

// member adds the schemas of t that are held against the value of a member.
func (w *walk) member(t term, name string) {
	s, evaluated := t.n.s, false
	if sub, ok := s.Properties[name]; ok {
		w.add(sub, t.times)
		evaluated = true
	}
	for pattern, sub := range s.PatternProperties {
		if pattern.MatchString(name) {
			w.add(sub, t.times)
			evaluated = true
		}
	}
	if sub, ok := s.AdditionalProperties.(*jsonschema.Schema); ok && !evaluated {
		w.add(sub, t.times)
		evaluated = true
	}
	if s.UnevaluatedProperties != nil && !evaluated {
		w.add(s.UnevaluatedProperties, t.times)
	}
}

func (w *walk) array(v []any, at []term) bool {
	for i, value := range v {
		for _, t := range at {
			w.element(t, i)
		}
		if !w.value(value, w.next()) {
			return false
		}
	}
	return true
}

// element adds the schemas of t that are held against the i-th element.
func (w *walk) element(t term, i int) {
	s, evaluated := t.n.s, false
	add := func(sub *jsonschema.Schema) {
		w.add(sub, t.times)
		evaluated = true
	}
	switch items := s.Items.(type) { // until 2019-09
	case *jsonschema.Schema:
		add(items)
	case []*jsonschema.Schema:
		if i < len(items) {
			add(items[i])
		} else if sub, ok := s.AdditionalItems.(*jsonschema.Schema); ok {
			add(sub)
		}
	}
	if i < len(s.PrefixItems) {
		add(s.PrefixItems[i])
	} else if s.Items2020 != nil {
		add(s.Items2020)
	}
	if s.UnevaluatedItems != nil && !evaluated {
		w.add(s.UnevaluatedItems, t.times)
	}
	if s.Contains != nil {
		w.add(s.Contains, t.times)
	}
}
