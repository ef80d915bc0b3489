package jsonata

import (
	"encoding/base64"
	"math"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

func callString(c *Call, args []any) (any, error) {
	if text, is := argument(args, 0).(string); is {
		return text, nil
	}
	return c.s.stringify(args[0], scriptTruth(argument(args, 1)))
}

func callSubstring(_ *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	size := float64(characters(text))
	start, given := number(argument(args, 1))
	if !given {
		start = math.NaN()
	}
	if size+start < 0 {
		start = 0
	}
	end := size
	if length, limited := number(argument(args, 2)); limited {
		if length <= 0 {
			return "", nil
		}
		end = size + start + length
		if start >= 0 {
			end = start + length
		}
	}
	return cut(text, sliceIndex(start, size), sliceIndex(end, size)), nil
}

// sliceIndex is an argument of JavaScript's slice: counted from the end if it is negative.
func sliceIndex(f, size float64) int {
	f = math.Trunc(f)
	if math.IsNaN(f) {
		return 0
	}
	if f < 0 {
		f += size
	}
	return int(min(max(f, 0), size))
}

// beforeAndAfter cuts a text at the first place of another one.
func beforeAndAfter(args []any) (before, after string, err error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return "", "", err
	}
	by, is := argument(args, 1).(string)
	if !is {
		by = "undefined" // the name of what is not given, in JavaScript
	}
	before, after, found := strings.Cut(text, by)
	if !found {
		return text, text, nil
	}
	return before, after, nil
}

func callSubstringBefore(_ *Call, args []any) (any, error) {
	before, _, err := beforeAndAfter(args)
	return before, err
}

func callSubstringAfter(_ *Call, args []any) (any, error) {
	_, after, err := beforeAndAfter(args)
	return after, err
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func callLowercase(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	if isASCII(text) {
		return strings.ToLower(text), c.s.spell(len(text))
	}
	text = cases.Lower(language.Und).String(text)
	return text, c.s.spell(len(text))
}

func callUppercase(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	if isASCII(text) {
		return strings.ToUpper(text), c.s.spell(len(text))
	}
	text = cases.Upper(language.Und).String(text)
	return text, c.s.spell(len(text))
}

func callLength(_ *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	return float64(characters(text)), err
}

func callTrim(_ *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' })
	return strings.Join(words, " "), nil
}

func callPad(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	width, is := number(argument(args, 1))
	with, _ := argument(args, 2).(string)
	if with == "" {
		with = " "
	}
	missing := math.Abs(math.Trunc(width)) - float64(characters(text))
	if !is || !(missing > 0) {
		return text, nil
	}
	if missing > float64(c.s.limits.Bytes) {
		return nil, fail("D2015")
	}
	n := int(missing)
	if err := c.s.spell(n*len(with)/characters(with) + len(text)); err != nil {
		return nil, err
	}
	padding := cut(strings.Repeat(with, n/characters(with)+1), 0, n)
	if width > 0 {
		return joinText(text, padding), nil
	}
	return joinText(padding, text), nil
}

func callJoin(c *Call, args []any) (any, error) {
	items, err := listArgument(args)
	if err != nil {
		return nil, err
	}
	separator, _ := argument(args, 1).(string)
	var b strings.Builder
	broken := strings.Contains(separator, "\xed") // there may be halves of pairs, which meet
	for i, item := range items {
		text, _ := item.(string)
		if err := c.s.spell(len(text) + len(separator)); err != nil {
			return nil, err
		}
		broken = broken || strings.Contains(text, "\xed")
		if i > 0 {
			b.WriteString(separator)
		}
		b.WriteString(text)
	}
	if broken {
		return mended(b.String()), nil
	}
	return b.String(), nil
}

// mended makes one character of each two halves that are next to one another.
func mended(s string) string { return textOfUnits(units(s)) }

func callBase64Encode(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	var raw []byte // the low halves of the units, as in Node
	for _, u := range units(text) {
		raw = append(raw, byte(u))
	}
	return base64.StdEncoding.EncodeToString(raw), c.s.spell(2 * len(raw))
}

func callBase64Decode(c *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	var clean []byte // as Node reads it: both alphabets, and what is in none is skipped
	for i := range len(text) {
		switch b := text[i]; {
		case b == '-':
			clean = append(clean, '+')
		case b == '_':
			clean = append(clean, '/')
		case b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || b == '+' || b == '/':
			clean = append(clean, b)
		}
		if text[i] == '=' {
			break
		}
	}
	if len(clean)%4 == 1 {
		clean = clean[:len(clean)-1]
	}
	raw, err := base64.RawStdEncoding.DecodeString(string(clean))
	if err != nil {
		return nil, failArgument("T0410", text, 1)
	}
	var b strings.Builder
	for _, c := range raw {
		b.WriteRune(rune(c))
	}
	return b.String(), c.s.spell(b.Len())
}

const (
	unreserved = "-_.!~*'()"
	reserved   = ";/?:@&=+$,#"
)

func callEncodeURLComponent(c *Call, args []any) (any, error) { return c.encodeURL(args, unreserved) }

func callEncodeURL(c *Call, args []any) (any, error) { return c.encodeURL(args, unreserved+reserved) }

func (c *Call) encodeURL(args []any, keep string) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		ch := text[i]
		switch {
		case ch >= 'A' && ch <= 'Z' || ch >= 'a' && ch <= 'z' || ch >= '0' && ch <= '9' || strings.IndexByte(keep, ch) >= 0:
			b.WriteByte(ch)
		case isSurrogateAt(text[i:]):
			return nil, failArgument("D3140", text, 1)
		default:
			b.Write([]byte{'%', digits[ch>>4], digits[ch&15]})
		}
	}
	return b.String(), c.s.spell(b.Len())
}

func callDecodeURLComponent(c *Call, args []any) (any, error) { return c.decodeURL(args, "") }

func callDecodeURL(c *Call, args []any) (any, error) { return c.decodeURL(args, reserved) }

func (c *Call) decodeURL(args []any, keep string) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	var b, escaped []byte // escaped is a run of escapes, which must be UTF-8
	flush := func() bool {
		for len(escaped) > 0 {
			r, size := decode(string(escaped))
			if r == 0xfffd && size == 1 || r >= 0xd800 && r < 0xe000 {
				return false
			}
			b = append(b, escaped[:size]...)
			escaped = escaped[size:]
		}
		return true
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			if !flush() {
				return nil, failArgument("D3140", text, 1)
			}
			b = append(b, text[i])
			continue
		}
		if i+2 >= len(text) || !isHex(text[i+1]) || !isHex(text[i+2]) {
			return nil, failArgument("D3140", text, 1)
		}
		ch := unhex(text[i+1])<<4 | unhex(text[i+2])
		if ch < 0x80 && strings.IndexByte(keep, ch) >= 0 {
			if !flush() {
				return nil, failArgument("D3140", text, 1)
			}
			b = append(b, text[i:i+3]...)
		} else {
			escaped = append(escaped, ch)
		}
		i += 2
	}
	if !flush() {
		return nil, failArgument("D3140", text, 1)
	}
	return string(b), c.s.spell(len(b))
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
