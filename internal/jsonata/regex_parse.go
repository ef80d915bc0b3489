package jsonata

import "slices"

type patternKind uint8

const (
	patternSequence patternKind = iota
	patternChoice
	patternChar
	patternAny
	patternClass
	patternGroup
	patternBack
	patternStart
	patternEnd
	patternWord
	patternLook
	patternRepeat
)

// pattern is a part of a parsed regular expression.
type pattern struct {
	kind     patternKind
	parts    []*pattern
	unit     uint16
	class    *unitClass
	group    int
	name     string // of a reference to a group, until the groups are known
	negative bool
	behind   bool

	least, most           int
	lazy                  bool
	firstGroup, lastGroup int
}

type patternError string

func (e patternError) Error() string { return string(e) }

// maxPatternNesting bounds how deep groups may nest.
const maxPatternNesting = 500

type patternParser struct {
	text  []uint16
	at    int
	total int // groups in all, known before they are parsed
	named bool
	group int // groups so far
	names map[string]int
	depth int
	back  []*pattern // references by name
}

// compileRegex makes the program of a pattern. The flags are i and m.
func compileRegex(source, flags string) (*regex, error) {
	p := &patternParser{text: units(source), names: map[string]int{}}
	p.scanGroups()
	root, err := p.choice()
	if err != nil {
		return nil, err
	}
	if p.at < len(p.text) {
		return nil, patternError("a ) is too much")
	}
	for _, ref := range p.back {
		group, ok := p.names[ref.name]
		if !ok {
			return nil, patternError("there is no group of the name " + ref.name)
		}
		ref.group = group
	}
	re := &regex{source: source, groups: p.group + 1, registers: 2 * (p.group + 1)}
	for _, f := range flags {
		if f == 'i' && re.fold || f == 'm' && re.multiline {
			return nil, patternError("a flag is there twice")
		}
		re.fold = re.fold || f == 'i'
		re.multiline = re.multiline || f == 'm'
	}
	a := &assembler{re: re}
	a.node(root, false)
	a.emit(instruction{op: opMatch})
	return re, a.err
}

// scanGroups counts the groups, because \2 is a reference only if there are two.
func (p *patternParser) scanGroups() {
	inClass := false
	for i := 0; i < len(p.text); i++ {
		switch p.text[i] {
		case '\\':
			i++
		case '[':
			inClass = true
		case ']':
			inClass = false
		case '(':
			if inClass {
				continue
			}
			if i+1 >= len(p.text) || p.text[i+1] != '?' {
				p.total++
			} else if i+3 < len(p.text) && p.text[i+2] == '<' && p.text[i+3] != '=' && p.text[i+3] != '!' {
				p.total++
				p.named = true
			}
		}
	}
}

func (p *patternParser) peek(ahead int) int {
	if p.at+ahead < len(p.text) {
		return int(p.text[p.at+ahead])
	}
	return -1
}

func (p *patternParser) take(c int) bool {
	if p.peek(0) != c {
		return false
	}
	p.at++
	return true
}

func (p *patternParser) choice() (*pattern, error) {
	if p.depth++; p.depth > maxPatternNesting {
		return nil, patternError("its groups nest too deeply")
	}
	defer func() { p.depth-- }()
	var parts []*pattern
	for {
		part, err := p.sequence()
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
		if !p.take('|') {
			break
		}
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	return &pattern{kind: patternChoice, parts: parts}, nil
}

func (p *patternParser) sequence() (*pattern, error) {
	seq := &pattern{kind: patternSequence}
	for p.at < len(p.text) && p.peek(0) != '|' && p.peek(0) != ')' {
		first := p.group + 1
		part, repeatable, err := p.atom()
		if err != nil {
			return nil, err
		}
		least, most, is, err := p.quantifier()
		if err != nil {
			return nil, err
		}
		if is {
			if !repeatable {
				return nil, patternError("there is nothing to repeat")
			}
			part = &pattern{kind: patternRepeat, parts: []*pattern{part}, least: least, most: most, lazy: p.take('?'), firstGroup: first, lastGroup: p.group + 1}
		}
		seq.parts = append(seq.parts, part)
	}
	return seq, nil
}

// quantifier reads *, +, ? or {n,m}; most is -1 if there is no bound.
func (p *patternParser) quantifier() (least, most int, is bool, err error) {
	switch {
	case p.take('*'):
		return 0, -1, true, nil
	case p.take('+'):
		return 1, -1, true, nil
	case p.take('?'):
		return 0, 1, true, nil
	case p.peek(0) != '{':
		return 0, 0, false, nil
	}
	start := p.at
	p.at++
	least, ok := p.integer()
	if !ok {
		p.at = start
		return 0, 0, false, nil
	}
	most = least
	if p.take(',') {
		if most, ok = p.integer(); !ok {
			most = -1
		}
	}
	if !p.take('}') {
		p.at = start
		return 0, 0, false, nil
	}
	if most >= 0 && most < least {
		return 0, 0, false, patternError("the numbers of a quantifier are in the wrong order")
	}
	return least, most, true, nil
}

func (p *patternParser) integer() (n int, ok bool) {
	for c := p.peek(0); c >= '0' && c <= '9'; c = p.peek(0) {
		n = min(n*10+c-'0', 1<<30)
		p.at++
		ok = true
	}
	return n, ok
}

func char(c int) *pattern { return &pattern{kind: patternChar, unit: uint16(c)} }

func (p *patternParser) atom() (part *pattern, repeatable bool, err error) {
	c := p.peek(0)
	switch c {
	case '*', '+', '?':
		return nil, false, patternError("there is nothing to repeat")
	case '{':
		if _, _, is, err := p.quantifier(); is || err != nil {
			return nil, false, patternError("there is nothing to repeat")
		}
	case '^':
		p.at++
		return &pattern{kind: patternStart}, false, nil
	case '$':
		p.at++
		return &pattern{kind: patternEnd}, false, nil
	case '.':
		p.at++
		return &pattern{kind: patternAny}, true, nil
	case '(':
		p.at++
		return p.parenthesis()
	case '[':
		p.at++
		part, err = p.class()
		return part, true, err
	case '\\':
		p.at++
		return p.escape()
	}
	p.at++
	return char(c), true, nil
}

func (p *patternParser) parenthesis() (part *pattern, repeatable bool, err error) {
	part = &pattern{kind: patternGroup}
	repeatable = true
	if p.take('?') {
		switch {
		case p.take(':'):
			part.kind = patternSequence
		case p.take('='):
			part.kind = patternLook
		case p.take('!'):
			part.kind, part.negative = patternLook, true
		case p.peek(0) == '<' && (p.peek(1) == '=' || p.peek(1) == '!'):
			part.kind, part.behind, part.negative = patternLook, true, p.peek(1) == '!'
			repeatable = false
			p.at += 2
		case p.take('<'):
			name, ok := p.name()
			if !ok {
				return nil, false, patternError("the name of a group is not valid")
			}
			if _, twice := p.names[name]; twice {
				return nil, false, patternError("two groups have one name")
			}
			p.names[name] = p.group + 1
		default:
			return nil, false, patternError("the kind of a group is not known")
		}
	}
	if part.kind == patternGroup {
		p.group++
		part.group = p.group
	}
	inner, err := p.choice()
	if err != nil {
		return nil, false, err
	}
	if !p.take(')') {
		return nil, false, patternError("a ) is missing")
	}
	part.parts = []*pattern{inner}
	return part, repeatable, nil
}

// name reads up to the >.
func (p *patternParser) name() (string, bool) {
	end := slices.Index(p.text[p.at:], '>')
	if end <= 0 {
		return "", false
	}
	name := p.text[p.at : p.at+end]
	for i, u := range name {
		if !isWord(u) && u != '$' && u < 0x80 || i == 0 && u >= '0' && u <= '9' {
			return "", false
		}
	}
	p.at += end + 1
	return textOfUnits(name), true
}

func (p *patternParser) escape() (part *pattern, repeatable bool, err error) {
	c := p.peek(0)
	switch {
	case c < 0:
		return nil, false, patternError("it ends with a backslash")
	case c == 'b' || c == 'B':
		p.at++
		return &pattern{kind: patternWord, negative: c == 'B'}, false, nil
	case c == 'k' && p.named:
		p.at++
		if !p.take('<') {
			return nil, false, patternError("the name of a group is not valid")
		}
		name, ok := p.name()
		if !ok {
			return nil, false, patternError("the name of a group is not valid")
		}
		ref := &pattern{kind: patternBack, name: name}
		p.back = append(p.back, ref)
		return ref, true, nil
	case c >= '1' && c <= '9':
		start := p.at
		if n, _ := p.integer(); n <= p.total {
			return &pattern{kind: patternBack, group: n}, true, nil
		}
		p.at = start
	}
	if class := p.classEscape(); class != nil {
		return &pattern{kind: patternClass, class: class}, true, nil
	}
	return char(p.character(false)), true, nil
}

// classEscape reads the letter of a class such as \d; nil if it is none.
func (p *patternParser) classEscape() *unitClass {
	var ranges [][2]uint16
	c := p.peek(0)
	switch c {
	case 'd', 'D':
		ranges = [][2]uint16{{'0', '9'}}
	case 'w', 'W':
		ranges = [][2]uint16{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}
	case 's', 'S':
		ranges = [][2]uint16{
			{'\t', '\r'},
			{' ', ' '},
			{0xa0, 0xa0},
			{0x1680, 0x1680},
			{0x2000, 0x200a},
			{0x2028, 0x2029},
			{0x202f, 0x202f},
			{0x205f, 0x205f},
			{0x3000, 0x3000},
			{0xfeff, 0xfeff},
		}
	default:
		return nil
	}
	p.at++
	if c < 'a' {
		ranges = complement(ranges)
	}
	return &unitClass{ranges: ranges}
}

func complement(ranges [][2]uint16) (rest [][2]uint16) {
	next := 0
	for _, r := range ranges {
		if int(r[0]) > next {
			rest = append(rest, [2]uint16{uint16(next), r[0] - 1})
		}
		next = int(r[1]) + 1
	}
	if next <= 0xffff {
		rest = append(rest, [2]uint16{uint16(next), 0xffff})
	}
	return rest
}

// character reads what follows a backslash and is one character.
func (p *patternParser) character(inClass bool) int {
	c := p.peek(0)
	p.at++
	switch c {
	case 't':
		return '\t'
	case 'n':
		return '\n'
	case 'v':
		return '\v'
	case 'f':
		return '\f'
	case 'r':
		return '\r'
	case 'b':
		return '\b' // in a class only
	case 'c':
		l := p.peek(0)
		if l >= 'a' && l <= 'z' || l >= 'A' && l <= 'Z' || inClass && (l >= '0' && l <= '9' || l == '_') {
			p.at++
			return l % 32
		}
		p.at--
		return '\\' // a backslash, and then a c
	case 'x':
		return p.hex(2, c)
	case 'u':
		return p.hex(4, c)
	}
	if c < '0' || c > '7' {
		return c
	}
	n := c - '0' // octal, up to 255
	for range 2 {
		d := p.peek(0)
		if d < '0' || d > '7' || n*8+d-'0' > 0xff {
			break
		}
		n = n*8 + d - '0'
		p.at++
	}
	return n
}

// hex reads so many hexadecimal digits; without them the letter stands for itself.
func (p *patternParser) hex(digits, letter int) int {
	n := 0
	for i := range digits {
		c := p.peek(i)
		if c < 0 || c > 'f' || !isHex(byte(c)) {
			return letter
		}
		n = n<<4 | int(unhex(byte(c)))
	}
	p.at += digits
	return n
}

func (p *patternParser) class() (*pattern, error) {
	class := &unitClass{negative: p.take('^')}
	for !p.take(']') {
		if p.at >= len(p.text) {
			return nil, patternError("a ] is missing")
		}
		low, set := p.classAtom()
		if p.peek(0) != '-' || p.peek(1) == ']' || p.peek(1) < 0 {
			class.add(low, low, set)
			continue
		}
		p.at++
		high, second := p.classAtom()
		if set != nil || second != nil { // a class is no end of a range: the hyphen is one of the characters
			class.add(low, low, set)
			class.add('-', '-', nil)
			class.add(high, high, second)
			continue
		}
		if high < low {
			return nil, patternError("the ends of a range are in the wrong order")
		}
		class.add(low, high, nil)
	}
	return &pattern{kind: patternClass, class: class}, nil
}

func (c *unitClass) add(low, high int, set *unitClass) {
	if set != nil {
		c.ranges = append(c.ranges, set.ranges...)
		return
	}
	c.ranges = append(c.ranges, [2]uint16{uint16(low), uint16(high)})
}

func (p *patternParser) classAtom() (c int, set *unitClass) {
	c = p.peek(0)
	p.at++
	if c != '\\' || p.at >= len(p.text) {
		return c, nil
	}
	if set := p.classEscape(); set != nil {
		return 0, set
	}
	return p.character(true), nil
}
