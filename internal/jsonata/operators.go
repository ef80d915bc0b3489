package jsonata

import "math"

func (s *state) binary(n *node, input any, f *frame) (any, error) {
	left, err := s.eval(n.left, input, f)
	if err != nil {
		return nil, err
	}
	if n.text == "and" || n.text == "or" {
		v, err := s.logic(n, left, input, f)
		return v, always(err, n.pos, n.text)
	}
	right, err := s.eval(n.right, input, f)
	if err != nil {
		return nil, err
	}
	v, err := s.operate(n.text, left, right)
	if err != nil {
		return nil, always(err, n.pos, n.text)
	}
	return v, nil
}

func (s *state) logic(n *node, left, input any, f *frame) (any, error) {
	is, err := s.truth(left)
	if err != nil {
		return nil, err
	}
	if is == (n.text == "or") {
		return is, nil
	}
	right, err := s.eval(n.right, input, f)
	if err != nil {
		return nil, err
	}
	is, err = s.truth(right)
	return is, err
}

func (s *state) operate(op string, left, right any) (any, error) {
	switch op {
	case "+", "-", "*", "/", "%":
		return arithmetic(op[0], left, right)
	case "=", "!=":
		if isNothing(left) || isNothing(right) {
			return false, nil
		}
		is, err := s.equal(left, right, 0)
		return is == (op == "="), err
	case "<", "<=", ">", ">=":
		return compare(op, left, right)
	case "&":
		return s.concatenate(left, right)
	case "..":
		return s.rangeOf(left, right)
	case "in":
		return s.contained(left, right)
	}
	return Nothing{}, nil
}

func arithmetic(op byte, left, right any) (any, error) {
	x, is, err := numeric(left)
	if err != nil {
		return nil, err
	}
	if !is && !isNothing(left) {
		return nil, failValue("T2001", left)
	}
	y, is, err := numeric(right)
	if err != nil {
		return nil, err
	}
	if !is && !isNothing(right) {
		return nil, failValue("T2002", right)
	}
	if isNothing(left) || isNothing(right) {
		return Nothing{}, nil
	}
	switch op {
	case '+':
		return x + y, nil
	case '-':
		return x - y, nil
	case '*':
		return x * y, nil
	case '/':
		return x / y, nil
	default:
		return math.Mod(x, y), nil
	}
}

func compare(op string, left, right any) (any, error) {
	ordinal := func(c byte) bool { return c == 'm' || c == 's' || c == 'n' }
	l, r := symbol(left), symbol(right)
	if !ordinal(l) || !ordinal(r) {
		v := right
		if l != 's' && l != 'n' {
			v = left
		}
		return nil, failValue("T2010", v)
	}
	if l == 'm' || r == 'm' {
		return Nothing{}, nil
	}
	if l != r {
		return nil, failValue("T2009", left)
	}
	order, comparable := orderOf(left, right)
	if !comparable {
		return false, nil
	}
	switch op {
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">":
		return order > 0, nil
	default:
		return order >= 0, nil
	}
}

// orderOf compares two strings or two numbers; a NaN cannot be compared.
func orderOf(left, right any) (order int, comparable bool) {
	if a, is := left.(string); is {
		b, _ := right.(string)
		return compareUTF16(a, b), true
	}
	x, _ := number(left)
	y, _ := number(right)
	switch {
	case x < y:
		return -1, true
	case x > y:
		return 1, true
	}
	return 0, x == y
}

func (s *state) concatenate(left, right any) (any, error) {
	a, err := s.textOf(left)
	if err != nil {
		return nil, err
	}
	b, err := s.textOf(right)
	if err != nil {
		return nil, err
	}
	if err := s.spell(len(a) + len(b)); err != nil {
		return nil, err
	}
	return joinText(a, b), nil
}

// textOf is $string, and empty for nothing.
func (s *state) textOf(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case Nothing:
		return "", nil
	}
	return s.stringify(v, false)
}

// mostRange is how many items a range may have in the reference.
const mostRange = 1e7

func (s *state) rangeOf(left, right any) (any, error) {
	x, is := number(left)
	if !isNothing(left) && (!is || x != math.Trunc(x) || math.IsInf(x, 0)) {
		return nil, failValue("T2003", left)
	}
	y, is := number(right)
	if !isNothing(right) && (!is || y != math.Trunc(y) || math.IsInf(y, 0)) {
		return nil, failValue("T2004", right)
	}
	if isNothing(left) || isNothing(right) || x > y {
		return Nothing{}, nil
	}
	size := y - x + 1
	if size > mostRange {
		return nil, failValue("D2014", size)
	}
	if err := s.grow(int(size)); err != nil {
		return nil, err
	}
	items := make([]any, int(size))
	for i := range items {
		items[i] = x + float64(i)
	}
	return &array{items: items, sequence: true}, nil
}

func (s *state) contained(left, right any) (any, error) {
	if isNothing(left) || isNothing(right) {
		return false, nil
	}
	items, is := elements(right)
	if !is {
		return same(left, right), nil
	}
	for _, item := range items {
		if same(item, left) {
			return true, nil
		}
	}
	return false, s.work(len(items))
}
