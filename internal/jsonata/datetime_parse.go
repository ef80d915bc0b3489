package jsonata

import (
	"math"
	"strconv"
	"strings"
)

func callToMillis(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	if picture, is := argument(args, 1).(string); is {
		return c.parseTime(text, picture)
	}
	return parseISO(text)
}

// parseISO reads what the reference accepts of ISO 8601; a time without an offset is UTC, and one that does not exist is NaN.
func parseISO(text string) (any, error) {
	rest := text
	number := func(digits int) (float64, bool) {
		if len(rest) < digits {
			return 0, false
		}
		n, err := strconv.ParseUint(rest[:digits], 10, 32)
		if err == nil {
			rest = rest[digits:]
		}
		return float64(n), err == nil
	}
	bad := func() (any, error) { return nil, failArgument("D3110", text, 1) }
	year, ok := number(4)
	if !ok {
		return bad()
	}
	month, day := 1.0, 1.0
	dateFields := 1
	after := func(sign, most byte) bool {
		return len(rest) >= 3 && rest[0] == sign && rest[1] >= '0' && rest[1] <= most && rest[2] >= '0' && rest[2] <= '9'
	}
	take := func() float64 {
		rest = rest[1:]
		n, _ := number(2)
		return n
	}
	// Each part is optional by itself, and an hour's offset looks like a day: the longest reading that fits is right.
	offsetNext := func() bool { _, _, ok := zoneOffset(rest); return ok }
	if after('-', '1') && (!offsetNext() || len(rest) <= 3 || rest[3] == '-') {
		month = take()
		dateFields++
	}
	if after('-', '3') && !offsetNext() {
		day = take()
		dateFields++
	}
	var hour, minute, second, fraction float64
	timed := false
	if after('T', '2') {
		hour, timed = take(), true
		if !after(':', '5') {
			return bad()
		}
		minute = take()
		if !after(':', '5') {
			return bad()
		}
		second = take()
	}
	fractional := len(rest) > 1 && rest[0] == '.' && rest[1] >= '0' && rest[1] <= '9'
	if fractional {
		n := 1
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		digits := (rest[1:n] + "000")[:3]
		fraction, _ = strconv.ParseFloat(digits, 64)
		rest = rest[n:]
	}
	offset, zoned, ok := zoneOffset(rest)
	if !ok {
		return bad()
	}
	switch {
	case fractional && !timed, zoned && !timed && dateFields < 3, month < 1 || month > 12 || day < 1 || day > 31:
		return math.NaN(), nil
	case hour > 24 || hour == 24 && (minute > 0 || second > 0 || fraction > 0):
		return math.NaN(), nil
	}
	if year < 100 { // unlike Date.UTC, Date.parse means them
		return utc(year+400, month-1, day, hour, minute, second, fraction) - 146097*dayMillis - offset*60_000, nil
	}
	return utc(year, month-1, day, hour, minute, second, fraction) - offset*60_000, nil
}

// zoneOffset reads an offset that is all of the text, in minutes; it may be missing.
func zoneOffset(text string) (minutes float64, given, ok bool) {
	switch {
	case text == "":
		return 0, false, true
	case text == "Z":
		return 0, true, true
	case text[0] != '+' && text[0] != '-':
		return 0, false, false
	}
	digits := strings.Replace(text[1:], ":", "", 1)
	if len(digits) != 4 || len(text) == 6 && text[3] != ':' {
		return 0, false, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false, false
		}
	}
	if digits[0] > '2' || digits[2] > '5' {
		return 0, false, false
	}
	h, _ := strconv.ParseFloat(digits[:2], 64)
	m, _ := strconv.ParseFloat(digits[2:], 64)
	minutes = h*60 + m
	if text[0] == '-' {
		minutes = -minutes
	}
	return minutes, true, true
}

// pattern is the regular expression of what a part of a picture reads.
func (p *picturePart) pattern() (string, error) {
	switch {
	case p.component == 0:
		var b strings.Builder
		for _, r := range p.literal {
			if strings.ContainsRune(`.*+?^${}()|[]\`, r) {
				b.WriteByte('\\')
			}
			b.WriteRune(r)
		}
		return b.String(), nil
	case p.component == 'Z' || p.component == 'z':
		pattern := "[-+][0-9]+"
		if p.component == 'z' {
			pattern = "GMT" + pattern
		}
		if s, ok := p.zoneSeparator(); ok {
			pattern += s + "[0-9]+"
		}
		return pattern, nil
	case p.component == 'f':
		return "[0-9]+", nil
	case p.format != nil:
		return p.format.pattern()
	case p.component == 'M', p.component == 'x', p.component == 'F', p.component == 'P':
		return "[a-zA-Z]+", nil
	}
	return "", failValue("D3133", string(rune(p.component)))
}

func (p *picturePart) zoneSeparator() (string, bool) {
	if p.format.regular > 0 {
		return string(p.format.separators[0].character), true
	}
	return "", false
}

func (f *integerFormat) pattern() (string, error) {
	switch f.style {
	case letterStyle:
		if f.letters == upperCase {
			return "[A-Z]+", nil
		}
		return "[a-z]+", nil
	case romanStyle:
		if f.letters == upperCase {
			return "[MDCLXVI]+", nil
		}
		return "[mdclxvi]+", nil
	case wordStyle:
		words, _ := wordList()
		return "(?:" + strings.Join(words, "|") + `|and|[\-, ])+`, nil
	case sequenceStyle:
		return "", failValue("D3130", f.token)
	}
	pattern := "[0-9]"
	if f.width > 0 {
		pattern += "{" + strconv.Itoa(f.width) + "}"
	} else {
		pattern += "+"
	}
	if f.ordinal {
		pattern += "(?:th|st|nd|rd)"
	}
	return pattern, nil
}

// value is what the text of a part means; ok is false if it is nothing.
func (p *picturePart) value(text string) (value float64, ok bool) {
	switch {
	case p.component == 'Z' || p.component == 'z':
		return p.zoneValue(text), true
	case p.component == 'f':
		f, _ := strconv.ParseFloat("0."+text[:min(3, len(text))], 64)
		return f * 1000, true
	case p.format != nil:
		return p.format.parse(text), true
	}
	if p.component == 'P' {
		switch text {
		case "am", "AM":
			return 0, true
		case "pm", "PM":
			return 1, true
		}
		return 0, false
	}
	names := monthNames()
	if p.component == 'F' {
		names = dayNames()
	}
	for i, name := range names {
		if p.widest > 0 && float64(len(name)) > p.widest {
			name = name[:int(p.widest)]
		}
		if name == text { // a later one of the same name counts, as in the reference
			value, ok = float64(i+1), true
		}
	}
	return value, ok
}

// zoneValue is an offset in minutes. As in the reference, the minutes of a negative one are added.
func (p *picturePart) zoneValue(text string) float64 {
	if p.component == 'z' {
		text = text[min(3, len(text)):]
	}
	if s, ok := p.zoneSeparator(); ok {
		hours, minutes, _ := strings.Cut(text, s)
		return scriptInt(hours)*60 + scriptInt(minutes)
	}
	if len(text) <= 3 {
		return scriptInt(text) * 60
	}
	return scriptInt(text[:3])*60 + scriptInt(text[3:])
}

// parseTime reads a time by a picture. What is missing on the left is taken from now, on the right it is zero; in between
// nothing may be missing.
func (c *Call) parseTime(text, picture string) (any, error) {
	parts, err := parseTimePicture(picture)
	if err != nil {
		return nil, err
	}
	var pattern strings.Builder
	pattern.WriteByte('^')
	for _, p := range parts {
		own, err := p.pattern()
		if err != nil {
			return nil, err
		}
		pattern.WriteString("(" + own + ")")
	}
	if err := c.s.work(pattern.Len()); err != nil {
		return nil, err
	}
	re, err := compileRegex(pattern.String()+"$", "i")
	if err != nil {
		return nil, failArgument("T0410", picture, 2)
	}
	f, err := c.s.exec(re, units(text), 0)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return Nothing{}, nil
	}
	given := map[byte]float64{}
	markers := 0
	for i, p := range parts {
		if p.component == 0 {
			continue
		}
		markers++
		own, _ := f.groups[i].(string)
		if v, ok := p.value(own); ok {
			given[p.component] = v
		} else {
			delete(given, p.component)
		}
	}
	if markers == 0 {
		return Nothing{}, nil
	}
	return assemble(given, civilOf(float64(c.s.env.Now.UnixMilli())))
}

// assemble makes a time of components.
func assemble(given map[byte]float64, now civil) (any, error) {
	// The components that are there and not zero, as bits, show which way a date or time is written: all of them belong to it.
	mask := func(letters string) (bits int) {
		for i := range len(letters) {
			bits <<= 1
			if v, ok := given[letters[i]]; ok && v != 0 && !math.IsNaN(v) {
				bits++
			}
		}
		return bits
	}
	written := func(bits, way int) bool { return bits != 0 && bits&^way == 0 }
	date, time := mask("YXMxWwdD"), mask("PHhmsf")
	ofMonth := written(date, 0b10100001)
	ofYear := !ofMonth && written(date, 0b10000010)
	monthWeek := written(date, 0b01010100)
	yearWeek := !monthWeek && written(date, 0b01001000)
	half := !written(time, 0b010111) && written(time, 0b101111)
	letters := "YMD"
	switch {
	case ofYear:
		letters = "YD" // not d, as in the reference
	case monthWeek:
		letters = "XxwF"
	case yearWeek:
		letters = "XWF"
	}
	if half {
		letters += "Phmsf"
	} else {
		letters += "Hmsf"
	}
	started, ended := false, false
	for i := range len(letters) {
		l := letters[i]
		if _, ok := given[l]; ok {
			if started = true; ended {
				return nil, fail("D3136")
			}
			continue
		}
		if started {
			given[l], ended = 0, true
			if l == 'M' || l == 'D' || l == 'd' {
				given[l] = 1
			}
			continue
		}
		if v, ok := now.component(l); ok {
			given[l] = v
		}
	}
	if monthWeek || yearWeek {
		return nil, fail("D3136")
	}
	given['M'] = max(given['M'], 1) - 1
	if ofYear {
		day := civilOf(dateUTC(given['Y'], 0, 1) + (given['d']-1)*dayMillis)
		given['M'], given['D'] = day.month, day.day
	}
	if half {
		given['H'] = given['h']
		if given['h'] == 12 {
			given['H'] = 0
		}
		if given['P'] == 1 {
			given['H'] += 12
		}
	}
	millis := utc(given['Y'], given['M'], given['D'], given['H'], given['m'], given['s'], given['f'])
	zone := given['Z']
	if zone == 0 || math.IsNaN(zone) {
		zone = given['z']
	}
	if zone != 0 && !math.IsNaN(zone) {
		millis -= zone * 60_000
	}
	return millis, nil
}
