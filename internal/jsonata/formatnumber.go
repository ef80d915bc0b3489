package jsonata

import (
	"math"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// decimalFormat are the signs of $formatNumber's pictures (XPath and XQuery Functions 3.1, 4.7.2).
type decimalFormat struct {
	decimal, grouping, exponent, minus, percent, perMille, zero, digit, separator string
	digits                                                                        []rune // from zero on
}

func newDecimalFormat(options any) (*decimalFormat, error) {
	f := &decimalFormat{decimal: ".", grouping: ",", exponent: "e", minus: "-", percent: "%", perMille: "‰", zero: "0", digit: "#", separator: ";"}
	fields := map[string]*string{
		"decimal-separator": &f.decimal, "grouping-separator": &f.grouping, "exponent-separator": &f.exponent, "minus-sign": &f.minus,
		"percent": &f.percent, "per-mille": &f.perMille, "zero-digit": &f.zero, "digit": &f.digit, "pattern-separator": &f.separator,
	}
	if o, is := options.(*jsontree.Object); is {
		for name, field := range fields {
			v, ok := o.Get(name)
			if !ok {
				continue
			}
			text, is := v.(string)
			if !is || text == "" {
				return nil, failArgument("T0410", v, 3)
			}
			*field = text
		}
	}
	zero, _ := decode(f.zero)
	for i := range rune(10) {
		f.digits = append(f.digits, zero+i)
	}
	return f, nil
}

func (f *decimalFormat) isDigit(r rune) bool { return slices.Contains(f.digits, r) }

func (f *decimalFormat) isOptional(r rune) bool { return string(r) == f.digit }

func (f *decimalFormat) isActive(r rune) bool {
	text := string(r)
	return f.isDigit(r) || text == f.decimal || text == f.exponent || text == f.grouping || text == f.digit || text == f.separator
}

// count counts the digits that must be there, or also those that may.
func (f *decimalFormat) count(part []rune, optional bool) int {
	n := 0
	for _, r := range part {
		if f.isDigit(r) || optional && f.isOptional(r) {
			n++
		}
	}
	return n
}

// subPicture is one of the two parts of a picture, for positive and for negative numbers.
type subPicture struct {
	text, prefix, suffix, active, mantissa, integer, fraction, exponent []rune
	scientific                                                          bool

	groups, fractionGroups                           []int // digits right of, and left of, the grouping separators
	regular                                          int   // the distance of the groups, if it is always the same
	scale, leastInteger, leastFraction, mostFraction int
	leastExponent                                    int
}

func runeIndex(text []rune, sub string, from int) int {
	s := []rune(sub)
	for i := max(from, 0); i+len(s) <= len(text); i++ {
		if slices.Equal(text[i:i+len(s)], s) {
			return i
		}
	}
	return -1
}

func lastRuneIndex(text []rune, sub string) int {
	last := -1
	for i := runeIndex(text, sub, 0); i >= 0; i = runeIndex(text, sub, i+1) {
		last = i
	}
	return last
}

func (f *decimalFormat) split(text string) *subPicture {
	p := &subPicture{text: []rune(text)}
	border := func(r rune) bool { return f.isActive(r) && string(r) != f.exponent }
	first := slices.IndexFunc(p.text, border)
	last := len(p.text) - 1
	for last >= 0 && !border(p.text[last]) {
		last--
	}
	if first >= 0 {
		p.prefix, p.suffix = p.text[:first], p.text[last+1:]
	}
	p.active = p.text[len(p.prefix) : len(p.text)-len(p.suffix)]
	p.mantissa = p.active
	if at := runeIndex(p.text, f.exponent, len(p.prefix)); at >= 0 && at <= len(p.text)-len(p.suffix) {
		p.scientific = true
		p.mantissa = p.active[:min(at, len(p.active))]
		p.exponent = p.active[min(at+1, len(p.active)):]
	}
	if at := runeIndex(p.mantissa, f.decimal, 0); at >= 0 {
		p.integer, p.fraction = p.mantissa[:at], p.mantissa[at+1:]
	} else {
		p.integer, p.fraction = p.mantissa, p.suffix
	}
	return p
}

// validate finds what is wrong with a picture (4.7.3); of several mistakes the last counts.
func (f *decimalFormat) validate(p *subPicture) error {
	code := ""
	check := func(bad bool, c string) {
		if bad {
			code = c
		}
	}
	several := func(sign string) bool { return runeIndex(p.text, sign, 0) != lastRuneIndex(p.text, sign) }
	has := func(sign string) bool { return runeIndex(p.text, sign, 0) >= 0 }
	check(several(f.decimal), "D3081")
	check(several(f.percent), "D3082")
	check(several(f.perMille), "D3083")
	check(has(f.percent) && has(f.perMille), "D3084")
	check(f.count(p.mantissa, true) == 0, "D3085")
	check(slices.ContainsFunc(p.active, func(r rune) bool { return !f.isActive(r) }), "D3086")
	if at := runeIndex(p.text, f.decimal, 0); at >= 0 {
		check(at > 0 && string(p.text[at-1]) == f.grouping || at+1 < len(p.text) && string(p.text[at+1]) == f.grouping, "D3087")
	} else {
		check(len(p.integer) > 0 && string(p.integer[len(p.integer)-1]) == f.grouping, "D3088")
	}
	check(has(f.grouping+f.grouping), "D3089")
	if at := runeIndex(p.integer, f.digit, 0); at >= 0 {
		check(f.count(p.integer[:at], false) > 0, "D3090")
	}
	if at := lastRuneIndex(p.fraction, f.digit); at >= 0 {
		check(f.count(p.fraction[at:], false) > 0, "D3091")
	}
	check(p.scientific && len(p.exponent) > 0 && (has(f.percent) || has(f.perMille)), "D3092")
	check(p.scientific && (len(p.exponent) == 0 || f.count(p.exponent, false) < len(p.exponent)), "D3093")
	if code != "" {
		return failValue(code, string(p.text))
	}
	return nil
}

// analyse counts the digits and groups of a picture (4.7.4).
func (f *decimalFormat) analyse(p *subPicture) {
	p.groups = f.grouped(p, p.integer, false)
	p.fractionGroups = f.grouped(p, p.fraction, true)
	p.regular = regularDistance(p.groups)
	p.leastInteger = f.count(p.integer, false)
	p.scale = p.leastInteger
	p.leastFraction = f.count(p.fraction, false)
	p.mostFraction = f.count(p.fraction, true)
	if p.leastInteger == 0 && p.mostFraction == 0 {
		if p.scientific {
			p.leastFraction, p.mostFraction = 1, 1
		} else {
			p.leastInteger = 1
		}
	}
	if p.scientific && p.leastInteger == 0 && runeIndex(p.integer, f.digit, 0) >= 0 {
		p.leastInteger = 1
	}
	if p.leastInteger == 0 && p.leastFraction == 0 {
		p.leastFraction = 1
	}
	if p.scientific {
		p.leastExponent = f.count(p.exponent, false)
	}
}

// grouped counts the digits on one side of each separator. As in the reference the separators after the first are looked for
// in the integer part, for the fraction, too.
func (f *decimalFormat) grouped(p *subPicture, part []rune, left bool) (groups []int) {
	for at := runeIndex(part, f.grouping, 0); at >= 0; at = runeIndex(p.integer, f.grouping, at+1) {
		side := part[min(at, len(part)):]
		if left {
			side = part[:min(at, len(part))]
		}
		groups = append(groups, f.count(side, true))
	}
	return groups
}

// regularDistance is the distance of positions that are multiples of it without a gap, otherwise 0.
func regularDistance(positions []int) int {
	if len(positions) == 0 {
		return 0
	}
	factor := positions[0]
	for _, p := range positions[1:] {
		for a := p; a != 0; {
			factor, a = a, factor%a
		}
	}
	for i := range positions {
		if !slices.Contains(positions, (i+1)*factor) {
			return 0
		}
	}
	return factor
}

func callFormatNumber(c *Call, args []any) (any, error) {
	value, err := numberArgument(args, 0)
	if err != nil {
		return nil, err
	}
	picture, err := textArgument(args, 1)
	if err != nil {
		return nil, err
	}
	f, err := newDecimalFormat(argument(args, 2))
	if err != nil {
		return nil, err
	}
	if err := c.s.spell(4 * len(picture)); err != nil {
		return nil, err
	}
	texts := strings.Split(picture, f.separator)
	if len(texts) > 2 {
		return nil, failValue("D3080", picture)
	}
	var parts []*subPicture
	for _, text := range texts {
		parts = append(parts, f.split(text))
	}
	for _, p := range parts {
		if err := f.validate(p); err != nil {
			return nil, err
		}
		f.analyse(p)
	}
	if len(parts) == 1 {
		negative := *parts[0]
		negative.prefix = []rune(f.minus + string(negative.prefix))
		parts = append(parts, &negative)
	}
	p := parts[1]
	if value >= 0 {
		p = parts[0]
	}
	if p.mostFraction > 100 {
		return nil, failArgument("T0410", picture, 2)
	}
	return f.format(value, p), nil
}

func (f *decimalFormat) format(value float64, p *subPicture) string {
	switch {
	case runeIndex(p.text, f.percent, 0) >= 0:
		value *= 100
	case runeIndex(p.text, f.perMille, 0) >= 0:
		value *= 1000
	}
	exponent := 0
	if p.leastExponent > 0 && value != 0 && !math.IsInf(value, 0) {
		most, least := math.Pow10(p.scale), math.Pow10(p.scale-1)
		for ; math.Abs(value) < least; exponent-- {
			value *= 10
		}
		for ; math.Abs(value) > most; exponent++ {
			value /= 10
		}
	}
	text := f.digitsOf(roundEven(value, float64(p.mostFraction)), p.mostFraction)
	decimal := []rune(f.decimal)
	if at := slices.Index(text, '.'); at >= 0 {
		text = slices.Concat(text[:at], decimal, text[at+1:])
	} else {
		text = append(text, decimal...)
	}
	zero := []rune(f.zero)
	for len(zero) == 1 && len(text) > 0 && text[0] == zero[0] {
		text = text[1:]
	}
	for len(zero) == 1 && len(text) > 0 && text[len(text)-1] == zero[0] {
		text = text[:len(text)-1]
	}
	at := runeIndex(text, f.decimal, 0)
	pad := func(n int) []rune { return []rune(strings.Repeat(f.zero, max(n, 0))) }
	right := p.leastFraction - (len(text) - at - 1)
	text = slices.Concat(pad(p.leastInteger-at), text, pad(right))
	text = f.group(text, p)
	at = runeIndex(text, f.decimal, 0)
	if runeIndex(p.text, f.decimal, 0) < 0 || at == len(text)-1 {
		text = text[:max(len(text)-1, 0)]
	}
	out := string(p.prefix) + string(text)
	if p.leastExponent > 0 {
		sign := ""
		if exponent < 0 {
			sign = f.minus
		}
		digits := f.digitsOf(float64(exponent), 0)
		out += f.exponent + sign + string(pad(p.leastExponent-len(digits))) + string(digits)
	}
	return out + string(p.suffix)
}

// digitsOf is a number without its sign, in the format's digits.
func (f *decimalFormat) digitsOf(value float64, places int) []rune {
	text := []rune(fixed(math.Abs(value), places))
	if f.zero != "0" {
		for i, r := range text {
			if r >= '0' && r <= '9' {
				text[i] = f.digits[r-'0']
			}
		}
	}
	return text
}

func (f *decimalFormat) group(text []rune, p *subPicture) []rune {
	insert := func(at int) {
		if at < 0 { // JavaScript's slice counts from the end
			at = max(at+len(text), 0)
		}
		at = min(at, len(text))
		text = slices.Concat(text[:at], []rune(f.grouping), text[at:])
	}
	at := runeIndex(text, f.decimal, 0)
	if p.regular > 0 {
		for group := 1; group <= (at-1)/p.regular; group++ {
			insert(at - group*p.regular)
		}
	} else {
		for _, n := range p.groups {
			insert(at - n)
			at++
		}
	}
	at = runeIndex(text, f.decimal, 0)
	for _, n := range p.fractionGroups {
		insert(n + at + 1)
	}
	return text
}
