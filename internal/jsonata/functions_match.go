package jsonata

import (
	"math"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// found is one match of a text; places are in UTF-16 units.
type found struct {
	text       string
	start, end int
	groups     []any
	value      any // as a function sees it
}

// matches goes through the matches of a matcher: a regular expression, or a function that gives objects like one.
type matches struct {
	c       *Call
	subject string
	units   []uint16
	fn      *Function
	re      *regex
	from    int
	begun   bool
}

// matchesOf begins with the first match of a matcher.
func (c *Call) matchesOf(fn *Function, subject string) *matches {
	m := &matches{c: c, subject: subject, units: units(subject), fn: fn}
	for fn.kind == closureFunction {
		fn = fn.target
	}
	m.re = fn.regex
	return m
}

// next is the next match, nil if there is none.
func (m *matches) next() (*found, error) {
	begun := m.begun
	m.begun = true
	if m.re == nil {
		return m.call(begun)
	}
	if begun && m.from >= len(m.units) {
		return nil, nil
	}
	f, err := m.c.s.exec(m.re, m.units, m.from)
	if err != nil || f == nil {
		return nil, err
	}
	if begun && f.start == f.end {
		return nil, failValue("D1004", m.re.source)
	}
	m.from = f.end
	return f, nil
}

func (m *matches) call(begun bool) (*found, error) {
	var args []any
	if !begun {
		args = []any{m.subject}
	}
	v, err := m.c.invoke(m.fn, args...)
	if err != nil || isNothing(v) {
		return nil, err
	}
	o, is := v.(*jsontree.Object)
	if !is {
		return nil, fail("T1010")
	}
	get := func(name string) any {
		if v, ok := o.Get(name); ok {
			return v
		}
		return Nothing{}
	}
	start, hasStart := number(get("start"))
	end, _ := number(get("end"))
	groups, hasGroups := elements(get("groups"))
	next, hasNext := get("next").(*Function)
	if !hasStart && !hasGroups && !hasNext {
		return nil, fail("T1010")
	}
	f := &found{start: m.place(start), end: m.place(end), groups: groups, value: v}
	f.text, _ = get("match").(string)
	m.fn = next
	if next == nil {
		m.fn = &Function{kind: nativeFunction, native: func(*Call, []any) (any, error) { return nil, fail("T1010") }}
	}
	return f, nil
}

func (m *matches) place(f float64) int {
	if !(f > 0) {
		return 0
	}
	return int(min(f, float64(len(m.units))))
}

// between is a part of the subject.
func (m *matches) between(from, to int) string {
	if from > to {
		from, to = to, from
	}
	return textOfUnits(m.units[from:min(to, len(m.units))])
}

// exec looks for the next match from a place on.
func (s *state) exec(re *regex, subject []uint16, from int) (*found, error) {
	if from > len(subject) {
		return nil, nil
	}
	captures, err := re.exec(subject, from, s.work)
	if err != nil || captures == nil {
		return nil, err
	}
	f := &found{start: captures[0], end: captures[1], text: textOfUnits(subject[captures[0]:captures[1]])}
	f.groups = make([]any, 0, len(captures)/2-1)
	size := len(f.text)
	for i := 2; i < len(captures); i += 2 {
		if captures[i] < 0 {
			f.groups = append(f.groups, Nothing{})
			continue
		}
		group := textOfUnits(subject[captures[i]:captures[i+1]])
		size += len(group)
		f.groups = append(f.groups, group)
	}
	return f, s.spell(size)
}

// matcher is the function that a regular expression is.
func (s *state) matcher(n *node) *Function {
	re := n.regex
	return &Function{kind: nativeFunction, regex: re, arity: 2, names: []string{"str", "fromIndex"}, native: func(c *Call, args []any) (any, error) {
		subject, is := argument(args, 0).(string)
		if !is {
			var err error
			if subject, err = c.s.textOf(argument(args, 0)); err != nil {
				return nil, err
			}
		}
		from, _ := number(argument(args, 1))
		text := units(subject)
		if from > float64(len(text)) {
			return Nothing{}, nil
		}
		f, err := c.s.exec(re, text, int(max(from, 0)))
		if err != nil || f == nil {
			return Nothing{}, err
		}
		return f.object(re, text), nil
	}}
}

// object is a match as functions see it, with a function for the next one.
func (f *found) object(re *regex, subject []uint16) any {
	if f.value != nil {
		return f.value
	}
	next := &Function{kind: nativeFunction, names: []string{""}, native: func(c *Call, _ []any) (any, error) {
		if f.end >= len(subject) {
			return Nothing{}, nil
		}
		following, err := c.s.exec(re, subject, f.end)
		if err != nil || following == nil {
			return Nothing{}, err
		}
		if following.start == following.end {
			return nil, failValue("D1004", re.source)
		}
		return following.object(re, subject), nil
	}}
	return jsontree.Of("match", f.text, "start", float64(f.start), "end", float64(f.end), "groups", f.groups, "next", next)
}

func callContains(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	switch token := argument(args, 1).(type) {
	case string:
		return strings.Contains(text, token), c.s.work(len(text) / 16)
	case Nothing:
		return token, nil
	}
	fn, err := functionArgument(args)
	if err != nil {
		return nil, err
	}
	f, err := c.matchesOf(fn, text).next()
	return f != nil, err
}

func callMatch(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	limit, limited, err := limitArgument(args, 2, "D3040")
	if err != nil {
		return nil, err
	}
	fn, err := functionArgument(args)
	if err != nil {
		return nil, err
	}
	var out []any
	if limited && !(limit > 0) {
		return &array{sequence: true}, nil
	}
	m := c.matchesOf(fn, text)
	for !limited || float64(len(out)) < limit {
		f, err := m.next()
		if err != nil {
			return nil, err
		}
		if f == nil {
			break
		}
		groups := f.groups
		if groups == nil {
			groups = []any{}
		}
		out = append(out, jsontree.Of("match", f.text, "index", float64(f.start), "groups", groups))
		if err := c.s.grow(4 + len(groups)); err != nil {
			return nil, err
		}
	}
	if limited && float64(len(out)) >= limit { // the reference has looked for the next one already
		if _, err := m.next(); err != nil {
			return nil, err
		}
	}
	return &array{items: out, sequence: true}, nil
}

func callSplit(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	limit, limited, err := limitArgument(args, 2, "D3020")
	if err != nil {
		return nil, err
	}
	if limited && !(limit > 0) {
		return []any{}, nil
	}
	if separator, is := argument(args, 1).(string); is {
		return c.splitAt(text, separator, limit, limited)
	}
	fn, err := functionArgument(args)
	if err != nil {
		return nil, err
	}
	m := c.matchesOf(fn, text)
	out, start := []any{}, 0
	for {
		if limited && float64(len(out)) >= limit {
			_, err := m.next() // the reference has looked for it already
			return out, err
		}
		f, err := m.next()
		if err != nil {
			return nil, err
		}
		if f == nil {
			return append(out, m.between(start, len(m.units))), nil
		}
		out = append(out, m.between(start, f.start))
		start = f.end
		if err := c.s.grow(1); err != nil {
			return nil, err
		}
	}
}

func (c *Call) splitAt(text, separator string, limit float64, limited bool) (any, error) {
	out := []any{}
	most := math.MaxInt32
	if limited {
		most = int(min(limit, math.MaxInt32))
	}
	if separator == "" {
		for _, u := range units(text) {
			if len(out) == most {
				break
			}
			out = append(out, textOfUnits([]uint16{u}))
		}
		return out, c.s.grow(len(out))
	}
	if err := c.s.spell(len(text)); err != nil {
		return nil, err
	}
	for len(out) < most {
		part, rest, more := strings.Cut(text, separator)
		out = append(out, part)
		if !more {
			break
		}
		text = rest
	}
	return out, c.s.grow(len(out))
}

func callReplace(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	pattern, plain := argument(args, 1).(string)
	if plain && pattern == "" {
		return nil, failArgument("D3010", pattern, 2)
	}
	limit, limited, err := limitArgument(args, 3, "D3011")
	if err != nil {
		return nil, err
	}
	if limited && !(limit > 0) {
		return text, nil
	}
	if plain {
		with, err := c.s.textOf(argument(args, 2))
		if isNothing(argument(args, 2)) {
			with = "undefined" // as JavaScript writes it
		}
		if err != nil {
			return nil, err
		}
		n := -1
		if limited {
			n = int(min(math.Ceil(limit), math.MaxInt32))
		}
		times := strings.Count(text, pattern)
		if limited {
			times = min(times, n)
		}
		if err := c.s.spell(len(text) + times*len(with)); err != nil {
			return nil, err
		}
		return strings.Replace(text, pattern, with, n), nil
	}
	return c.replaceMatches(text, args, limit, limited)
}

func (c *Call) replaceMatches(text string, args []any, limit float64, limited bool) (any, error) {
	fn, err := functionArgument(args)
	if err != nil {
		return nil, err
	}
	m := c.matchesOf(fn, text)
	var b strings.Builder
	position := 0
	for count := 0; ; count++ {
		f, err := m.next()
		if err != nil {
			return nil, err
		}
		if f == nil || limited && float64(count) >= limit {
			break
		}
		with, err := c.replacement(argument(args, 2), f, m)
		if err != nil {
			return nil, err
		}
		before := m.between(position, f.start)
		if err := c.s.spell(len(before) + len(with)); err != nil {
			return nil, err
		}
		b.WriteString(before)
		b.WriteString(with)
		position = min(f.start+utf16Length(f.text), len(m.units))
	}
	b.WriteString(m.between(position, len(m.units)))
	return b.String(), nil
}

// replacement is what stands for one match: what a function gives, or a text in which $1 is the first group.
func (c *Call) replacement(by any, f *found, m *matches) (string, error) {
	if template, is := by.(string); is {
		return f.expand(template), nil
	}
	fn, is := by.(*Function)
	if !is {
		return "", failArgument("T0410", by, 3)
	}
	v, err := c.invoke(fn, f.object(m.re, m.units))
	if err != nil {
		return "", err
	}
	text, is := v.(string)
	if !is {
		return "", failValue("D3012", v)
	}
	return text, nil
}

func (f *found) expand(template string) string {
	var b strings.Builder
	for {
		before, rest, more := strings.Cut(template, "$")
		b.WriteString(before)
		if !more {
			return b.String()
		}
		template = rest
		switch {
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			template = rest[1:]
		case strings.HasPrefix(rest, "0"):
			b.WriteString(f.text)
			template = rest[1:]
		default:
			// As many digits are read as the number of groups has.
			digits := 1
			for n := len(f.groups); n >= 10; n /= 10 {
				digits++
			}
			group, size := leadingInt(rest, digits)
			if digits > 1 && group > len(f.groups) {
				group, size = leadingInt(rest, digits-1)
			}
			if size == 0 {
				b.WriteByte('$')
				continue
			}
			if group >= 1 && group <= len(f.groups) {
				text, _ := f.groups[group-1].(string)
				b.WriteString(text)
			}
			template = rest[size:]
		}
	}
}

// leadingInt reads a number of at most so many digits; size is that of the number without leading zeros.
func leadingInt(text string, most int) (n, size int) {
	read := 0
	for read < min(most, len(text)) && text[read] >= '0' && text[read] <= '9' {
		n = n*10 + int(text[read]-'0')
		read++
	}
	if read == 0 {
		return 0, 0
	}
	size = 1
	for m := n; m >= 10; m /= 10 {
		size++
	}
	return n, size
}
