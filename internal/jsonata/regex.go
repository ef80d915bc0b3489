package jsonata

import (
	"slices"
	"unicode"
)

// regex is a regular expression of ECMAScript (ECMA-262, section 22.2, with annex B, without the flag u), as a program for a
// machine that goes back (run). Its text is UTF-16, as the places in a match are.
type regex struct {
	source    string
	program   []instruction
	groups    int // with the whole match
	registers int // the ends of the groups, counters and places of loops
	fold      bool
	multiline bool
}

type opcode uint8

const (
	opMatch opcode = iota
	opChar
	opAny
	opClass
	opJump
	opSplit   // goes to x, and if that fails to y
	opSave    // register x is the place
	opReset   // the groups x to below y are unset
	opZero    // register x is zero
	opNext    // register x is one more
	opRepeat  // with the counter x and the bounds of the loop: to its body at y, or on
	opMoved   // fails if the place is that in register x, and the counter y (if not -1) has reached its least
	opMany    // as many as possible of one character
	opFew     // as few as possible
	opBack    // the text of group x
	opStart   // ^
	opEnd     // $
	opWord    // \b, or \B if negative
	opLook    // the program from pc+1 to x must match here, or must not
	opAsserts // ends such a program
)

type instruction struct {
	op          opcode
	x, y        int
	unit        uint16
	class       *unitClass
	inner       opcode // of opMany and opFew: opChar, opAny or opClass
	least, most int    // most is -1 if there is no bound
	lazy        bool
	backward    bool
	negative    bool
}

// unitClass is a set of units as ranges.
type unitClass struct {
	ranges   [][2]uint16
	negative bool
}

func (c *unitClass) has(u uint16) bool {
	for _, r := range c.ranges {
		if u >= r[0] && u <= r[1] {
			return true
		}
	}
	return false
}

// matches applies the class to a character; without regard to case if fold.
func (c *unitClass) matches(u uint16, fold bool) bool {
	in := c.has(u)
	if !in && fold {
		want := canonical(u)
		for r := unicode.SimpleFold(rune(u)); r != rune(u) && !in; r = unicode.SimpleFold(r) {
			in = r < 0x10000 && canonical(uint16(r)) == want && c.has(uint16(r))
		}
	}
	return in != c.negative
}

// canonical is the upper case of a unit, unless that would make ASCII of what is none (ECMA-262, Canonicalize).
func canonical(u uint16) uint16 {
	if u < 0x80 {
		if u >= 'a' && u <= 'z' {
			return u - 'a' + 'A'
		}
		return u
	}
	r := unicode.ToUpper(rune(u))
	if r < 0x80 || r >= 0x10000 {
		return u
	}
	return uint16(r)
}

func isWord(u uint16) bool {
	return u >= 'a' && u <= 'z' || u >= 'A' && u <= 'Z' || u >= '0' && u <= '9' || u == '_'
}

func isLineEnd(u uint16) bool { return u == '\n' || u == '\r' || u == 0x2028 || u == 0x2029 }

// choice is a place to go back to. If last is another place there are several, one for each place up to last: down for a greedy
// loop, up for a lazy one.
type choice struct {
	pc, pos, last int
	trail         int
}

type change struct{ register, before int }

// mostChoices bounds the memory of one search.
const mostChoices = 1 << 20

type machine struct {
	re      *regex
	text    []uint16
	regs    []int
	choices []choice
	trail   []change
	steps   int
	work    func(int) error
}

// exec looks for the first match from a place on: the ends of the groups, -1 for those that are not part of it, or nil.
func (re *regex) exec(text []uint16, from int, work func(int) error) ([]int, error) {
	m := &machine{re: re, text: text, regs: make([]int, re.registers), work: work}
	for start := from; start <= len(text); start++ {
		for i := range m.regs {
			m.regs[i] = -1
		}
		m.choices, m.trail = m.choices[:0], m.trail[:0]
		end, ok, err := m.run(0, start)
		if err != nil {
			return nil, err
		}
		if ok {
			m.regs[0], m.regs[1] = start, end
			return m.regs[:2*re.groups], nil
		}
	}
	return nil, nil
}

func (m *machine) set(register, value int) {
	m.trail = append(m.trail, change{register, m.regs[register]})
	m.regs[register] = value
}

func (m *machine) undo(to int) {
	for len(m.trail) > to {
		last := m.trail[len(m.trail)-1]
		m.trail = m.trail[:len(m.trail)-1]
		m.regs[last.register] = last.before
	}
}

// back goes to the last choice above base; false if there is none.
func (m *machine) back(base int) (pc, pos int, ok bool) {
	if len(m.choices) == base {
		return 0, 0, false
	}
	c := &m.choices[len(m.choices)-1]
	m.undo(c.trail)
	pc, pos = c.pc, c.pos
	switch {
	case c.pos > c.last:
		c.pos--
	case c.pos < c.last:
		c.pos++
	default:
		m.choices = m.choices[:len(m.choices)-1]
	}
	return pc, pos, true
}

// single reports whether one unit fits an instruction.
func (m *machine) single(op opcode, in *instruction, u uint16) bool {
	switch op {
	case opChar:
		return u == in.unit || m.re.fold && canonical(u) == canonical(in.unit)
	case opAny:
		return !isLineEnd(u)
	default:
		return in.class.matches(u, m.re.fold)
	}
}

// run matches from a place on, until the program's end.
func (m *machine) run(pc, pos int) (end int, ok bool, err error) {
	base := len(m.choices)
	program, text := m.re.program, m.text
	for {
		if m.steps++; m.steps%64 == 0 {
			if err := m.work(16); err != nil {
				return 0, false, err
			}
			if len(m.choices)+len(m.trail) > mostChoices {
				return 0, false, fail("D1011")
			}
		}
		in := &program[pc]
		ok := true
		switch in.op {
		case opMatch, opAsserts:
			m.choices = m.choices[:base]
			return pos, true, nil
		case opChar, opAny, opClass:
			if in.backward {
				if ok = pos > 0 && m.single(in.op, in, text[pos-1]); ok {
					pos--
				}
			} else if ok = pos < len(text) && m.single(in.op, in, text[pos]); ok {
				pos++
			}
		case opJump:
			pc = in.x
			continue
		case opSplit:
			m.choices = append(m.choices, choice{pc: in.y, pos: pos, last: pos, trail: len(m.trail)})
			pc = in.x
			continue
		case opSave:
			m.set(in.x, pos)
		case opReset:
			for g := in.x; g < in.y; g++ {
				if m.regs[2*g] != -1 || m.regs[2*g+1] != -1 {
					m.set(2*g, -1)
					m.set(2*g+1, -1)
				}
			}
		case opZero:
			m.set(in.x, 0)
		case opNext:
			m.set(in.x, m.regs[in.x]+1)
		case opRepeat:
			pc = m.repeat(in, pc, pos)
			continue
		case opMoved:
			ok = pos != m.regs[in.x] || in.y >= 0 && m.regs[in.y] < in.least
		case opMany, opFew:
			pos, ok = m.loop(in, pc, pos)
		case opBack:
			pos, ok = m.repeated(in, pos)
		case opStart:
			ok = pos == 0 || m.re.multiline && isLineEnd(text[pos-1])
		case opEnd:
			ok = pos == len(text) || m.re.multiline && isLineEnd(text[pos])
		case opWord:
			before := pos > 0 && isWord(text[pos-1])
			after := pos < len(text) && isWord(text[pos])
			ok = (before != after) != in.negative
		case opLook:
			if ok, err = m.look(in, pc, pos); err != nil {
				return 0, false, err
			}
			if ok {
				pc = in.x
				continue
			}
		}
		if ok {
			pc++
			continue
		}
		if pc, pos, ok = m.back(base); !ok {
			return 0, false, nil
		}
	}
}

// repeat decides at the begin of a counted loop where to go.
func (m *machine) repeat(in *instruction, pc, pos int) int {
	n := m.regs[in.x]
	switch {
	case n < in.least:
		return in.y
	case in.most >= 0 && n >= in.most:
		return pc + 1
	}
	first, second := in.y, pc+1
	if in.lazy {
		first, second = second, first
	}
	m.choices = append(m.choices, choice{pc: second, pos: pos, last: pos, trail: len(m.trail)})
	return first
}

// loop matches one character repeatedly, and remembers all places where the loop could end.
func (m *machine) loop(in *instruction, pc, pos int) (int, bool) {
	n := 0
	for pos+n < len(m.text) && (in.most < 0 || n < in.most) && m.single(in.inner, in, m.text[pos+n]) {
		n++
	}
	m.steps += n / 16 * 4 // about as many as multiples of the check in run
	if n < in.least {
		return pos, false
	}
	if n == in.least {
		return pos + n, true
	}
	c := choice{pc: pc + 1, trail: len(m.trail)}
	if in.op == opFew {
		pos += in.least
		c.pos, c.last = pos+1, pos+n-in.least
		m.choices = append(m.choices, c)
		return pos, true
	}
	c.pos, c.last = pos+n-1, pos+in.least
	m.choices = append(m.choices, c)
	return pos + n, true
}

func (m *machine) repeated(in *instruction, pos int) (int, bool) {
	from, to := m.regs[2*in.x], m.regs[2*in.x+1]
	if from < 0 || to < 0 {
		return pos, true
	}
	size := to - from
	at := pos
	if in.backward {
		at = pos - size
	}
	if at < 0 || at+size > len(m.text) {
		return pos, false
	}
	m.steps += size / 64 * 64
	for i := range size {
		a, b := m.text[from+i], m.text[at+i]
		if a != b && (!m.re.fold || canonical(a) != canonical(b)) {
			return pos, false
		}
	}
	if in.backward {
		return at, true
	}
	return at + size, true
}

// look runs the program of a look-ahead or look-behind.
func (m *machine) look(in *instruction, pc, pos int) (bool, error) {
	trail := len(m.trail)
	_, ok, err := m.run(pc+1, pos)
	if err != nil {
		return false, err
	}
	if in.negative || !ok {
		m.undo(trail)
	}
	return ok != in.negative, nil
}

// assembler makes the program of the parsed expression.
type assembler struct {
	re  *regex
	err error
}

// mostInstructions bounds the size of one program.
const mostInstructions = 100_000

func (a *assembler) emit(in instruction) int {
	if len(a.re.program) >= mostInstructions {
		a.err = patternError("it is too large")
		return 0
	}
	a.re.program = append(a.re.program, in)
	return len(a.re.program) - 1
}

func (a *assembler) here() int { return len(a.re.program) }

func (a *assembler) register() int {
	a.re.registers++
	return a.re.registers - 1
}

func (a *assembler) node(n *pattern, backward bool) {
	if a.err != nil {
		return
	}
	switch n.kind {
	case patternChar:
		a.emit(instruction{op: opChar, unit: n.unit, backward: backward})
	case patternAny:
		a.emit(instruction{op: opAny, backward: backward})
	case patternClass:
		a.emit(instruction{op: opClass, class: n.class, backward: backward})
	case patternSequence:
		if backward {
			for _, part := range slices.Backward(n.parts) {
				a.node(part, backward)
			}
			return
		}
		for _, part := range n.parts {
			a.node(part, backward)
		}
	case patternChoice:
		a.choice(n.parts, backward)
	case patternGroup:
		first, second := 2*n.group, 2*n.group+1
		if backward {
			first, second = second, first
		}
		a.emit(instruction{op: opSave, x: first})
		a.node(n.parts[0], backward)
		a.emit(instruction{op: opSave, x: second})
	case patternBack:
		a.emit(instruction{op: opBack, x: n.group, backward: backward})
	case patternStart:
		a.emit(instruction{op: opStart})
	case patternEnd:
		a.emit(instruction{op: opEnd})
	case patternWord:
		a.emit(instruction{op: opWord, negative: n.negative})
	case patternLook:
		at := a.emit(instruction{op: opLook, negative: n.negative})
		a.node(n.parts[0], n.behind)
		a.emit(instruction{op: opAsserts})
		a.re.program[at].x = a.here()
	case patternRepeat:
		a.repeat(n, backward)
	}
}

func (a *assembler) choice(parts []*pattern, backward bool) {
	var jumps []int
	for i, part := range parts {
		if i == len(parts)-1 {
			a.node(part, backward)
			break
		}
		split := a.emit(instruction{op: opSplit})
		a.re.program[split].x = a.here()
		a.node(part, backward)
		jumps = append(jumps, a.emit(instruction{op: opJump}))
		a.re.program[split].y = a.here()
	}
	for _, at := range jumps {
		a.re.program[at].x = a.here()
	}
}

// repeat makes a loop. Groups inside are unset before each pass, and a pass that is not needed must not be empty.
func (a *assembler) repeat(n *pattern, backward bool) {
	body := n.parts[0]
	if n.most == 0 {
		return
	}
	single := map[patternKind]opcode{patternChar: opChar, patternAny: opAny, patternClass: opClass}
	if inner, is := single[body.kind]; is && !backward {
		op := opMany
		if n.lazy {
			op = opFew
		}
		a.emit(instruction{op: op, inner: inner, unit: body.unit, class: body.class, least: n.least, most: n.most})
		return
	}
	counter, place := a.register(), a.register()
	a.emit(instruction{op: opZero, x: counter})
	head := a.emit(instruction{op: opRepeat, x: counter, least: n.least, most: n.most, lazy: n.lazy})
	out := a.emit(instruction{op: opJump})
	a.re.program[head].y = a.here()
	a.emit(instruction{op: opSave, x: place})
	if n.firstGroup < n.lastGroup {
		a.emit(instruction{op: opReset, x: n.firstGroup, y: n.lastGroup})
	}
	a.node(body, backward)
	a.emit(instruction{op: opMoved, x: place, y: counter, least: n.least})
	a.emit(instruction{op: opNext, x: counter})
	a.emit(instruction{op: opJump, x: head})
	a.re.program[out].x = a.here()
}
