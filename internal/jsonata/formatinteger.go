package jsonata

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

type integerStyle uint8

const (
	decimalStyle integerStyle = iota
	letterStyle
	romanStyle
	wordStyle
	sequenceStyle // any other, which the reference does not know
)

type letterCase uint8

const (
	lowerCase letterCase = iota
	upperCase
	titleCase
)

// integerFormat is what a picture of $formatInteger says (XPath and XQuery Functions 3.1, 4.6.1).
type integerFormat struct {
	style      integerStyle
	letters    letterCase
	ordinal    bool
	token      string // of a sequenceStyle
	zero       rune
	mandatory  int
	optional   int
	separators []integerSeparator // from the right
	regular    int                // their distance, if it and the character are always the same
	width      int                // of digits to read, 0 if there may be any number
}

type integerSeparator struct {
	position  int // digits right of it
	character rune
}

func parseIntegerPicture(picture string) (*integerFormat, error) {
	f := &integerFormat{}
	primary := picture
	if at := strings.LastIndexByte(picture, ';'); at >= 0 {
		primary = picture[:at]
		f.ordinal = strings.HasPrefix(picture[at+1:], "o")
	}
	switch primary {
	case "A":
		f.style, f.letters = letterStyle, upperCase
	case "a":
		f.style = letterStyle
	case "I":
		f.style, f.letters = romanStyle, upperCase
	case "i":
		f.style = romanStyle
	case "W":
		f.style, f.letters = wordStyle, upperCase
	case "Ww":
		f.style, f.letters = wordStyle, titleCase
	case "w":
		f.style = wordStyle
	default:
		return f, f.parseDigits(primary)
	}
	return f, nil
}

func (f *integerFormat) parseDigits(primary string) error {
	position := 0
	runes := []rune(primary)
	for _, r := range slices.Backward(runes) {
		zero, is := digitFamily(r)
		switch {
		case is:
			if f.mandatory > 0 && f.zero != zero {
				return fail("D3131")
			}
			f.zero = zero
			f.mandatory++
			position++
		case r == '#':
			f.optional++
			position++
		default:
			f.separators = append(f.separators, integerSeparator{position, r})
		}
	}
	if f.mandatory == 0 {
		*f = integerFormat{style: sequenceStyle, token: primary, ordinal: f.ordinal}
		return nil
	}
	positions := make([]int, len(f.separators))
	for i, s := range f.separators {
		if s.character != f.separators[0].character {
			return nil
		}
		positions[i] = s.position
	}
	f.regular = regularDistance(positions)
	return nil
}

// digitFamily is the zero of the decimal digits that r is one of.
func digitFamily(r rune) (zero rune, is bool) {
	for _, zero := range []rune{
		0x30, 0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0DE6, 0x0E50, 0x0ED0,
		0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900,
		0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
	} {
		if r >= zero && r <= zero+9 {
			return zero, true
		}
	}
	return 0, false
}

func callFormatInteger(c *Call, args []any) (any, error) {
	value, err := numberArgument(args, 0)
	if err != nil {
		return nil, err
	}
	picture, err := textArgument(args, 1)
	if err != nil {
		return nil, err
	}
	f, err := parseIntegerPicture(picture)
	if err != nil {
		return nil, err
	}
	text, err := c.integer(math.Floor(value), f)
	if err != nil {
		return nil, err
	}
	return text, c.s.spell(len(text))
}

func (c *Call) integer(value float64, f *integerFormat) (string, error) {
	negative := value < 0
	value = math.Abs(value)
	text := ""
	switch f.style {
	case letterStyle:
		text = lettersOf(value, f.letters)
	case romanStyle:
		if value > 1e6 { // a letter for each thousand
			if err := c.s.spell(int(min(value/1000, 1e15))); err != nil {
				return "", err
			}
		}
		text = romanOf(value)
		if f.letters == upperCase {
			text = strings.ToUpper(text)
		}
	case wordStyle:
		if math.IsInf(value, 0) || math.IsNaN(value) {
			return "", failValue("D1001", value)
		}
		text = wordsOf(value, false, f.ordinal)
		switch f.letters {
		case upperCase:
			text = strings.ToUpper(text)
		case lowerCase:
			text = strings.ToLower(text)
		}
	case sequenceStyle:
		return "", failValue("D3130", f.token)
	default:
		if f.mandatory > c.s.limits.Bytes {
			return "", fail("D2015")
		}
		if err := c.s.spell(f.mandatory); err != nil {
			return "", err
		}
		text = f.digits(value)
	}
	if negative {
		text = "-" + text
	}
	return text, nil
}

func (f *integerFormat) digits(value float64) string {
	text := []rune(numberText(value))
	if missing := f.mandatory - len(text); missing > 0 {
		text = append([]rune(strings.Repeat("0", missing)), text...)
	}
	if f.zero != '0' {
		for i := range text {
			text[i] += f.zero - '0'
		}
	}
	insert := func(at int, r rune) {
		if at < 0 { // JavaScript's substr counts from the end
			at = max(at+len(text), 0)
		}
		text = slices.Insert(text, min(at, len(text)), r)
	}
	if f.regular > 0 {
		for i := (len(text) - 1) / f.regular; i > 0; i-- {
			insert(len(text)-i*f.regular, f.separators[0].character)
		}
	} else {
		for _, s := range slices.Backward(f.separators) {
			at := len(text) - s.position
			if at < 0 { // substr(0, negative) is empty, substr(negative) counts from the end
				text = append([]rune{s.character}, text[max(at+len(text), 0):]...)
				continue
			}
			insert(at, s.character)
		}
	}
	out := string(text)
	if f.ordinal {
		out += ordinalSuffix(text)
	}
	return out
}

func ordinalSuffix(text []rune) string {
	last := len(text) - 1
	if last >= 1 && text[last-1] == '1' {
		return "th"
	}
	switch text[last] {
	case '1':
		return "st"
	case '2':
		return "nd"
	case '3':
		return "rd"
	}
	return "th"
}

func lettersOf(value float64, c letterCase) string {
	if math.IsInf(value, 0) || math.IsNaN(value) {
		return ""
	}
	first := 'a'
	if c == upperCase {
		first = 'A'
	}
	var text []rune
	for value > 0 {
		text = append(text, first+rune(math.Mod(value-1, 26)))
		value = math.Floor((value - 1) / 26)
	}
	slices.Reverse(text)
	return string(text)
}

func lettersValue(text string, c letterCase) float64 {
	first := 'a'
	if c == upperCase {
		first = 'A'
	}
	value := 0.0
	letters := units(text)
	for i, u := range slices.Backward(letters) {
		value += float64(rune(u)-first+1) * math.Pow(26, float64(len(letters)-1-i))
	}
	return value
}

func romanOf(value float64) string {
	numerals := []struct {
		value float64
		text  string
	}{
		{1000, "m"},
		{900, "cm"},
		{500, "d"},
		{400, "cd"},
		{100, "c"},
		{90, "xc"},
		{50, "l"},
		{40, "xl"},
		{10, "x"},
		{9, "ix"},
		{5, "v"},
		{4, "iv"},
		{1, "i"},
	}
	var b strings.Builder
	for _, n := range numerals {
		for value >= n.value {
			b.WriteString(n.text)
			value -= n.value
		}
	}
	return b.String()
}

func romanValue(text string) float64 {
	values := map[byte]float64{'M': 1000, 'D': 500, 'C': 100, 'L': 50, 'X': 10, 'V': 5, 'I': 1}
	sum, most := 0.0, 1.0
	for i := len(text) - 1; i >= 0; i-- {
		v, ok := values[text[i]]
		if !ok {
			return math.NaN()
		}
		if v < most {
			sum -= v
		} else {
			most = v
			sum += v
		}
	}
	return sum
}

func smallNumbers() []string {
	return strings.Fields("Zero One Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve Thirteen Fourteen Fifteen Sixteen " +
		"Seventeen Eighteen Nineteen")
}

func smallOrdinals() []string {
	return strings.Fields("Zeroth First Second Third Fourth Fifth Sixth Seventh Eighth Ninth Tenth Eleventh Twelfth Thirteenth " +
		"Fourteenth Fifteenth Sixteenth Seventeenth Eighteenth Nineteenth")
}

func decades() []string {
	return strings.Fields("Twenty Thirty Forty Fifty Sixty Seventy Eighty Ninety Hundred")
}

func magnitudes() []string { return strings.Fields("Thousand Million Billion Trillion") }

// wordsOf writes a number in English; after something else if follows.
func wordsOf(n float64, follows, ordinal bool) string {
	before := func(s string) string {
		if follows {
			return s
		}
		return ""
	}
	switch {
	case n < 20:
		words := smallNumbers()
		if ordinal {
			words = smallOrdinals()
		}
		return before(" and ") + words[int(n)]
	case n < 100:
		word := before(" and ") + decades()[int(n)/10-2]
		if rest := math.Mod(n, 10); rest > 0 {
			return word + "-" + wordsOf(rest, false, ordinal)
		}
		if ordinal {
			return word[:len(word)-1] + "ieth"
		}
		return word
	}
	words, rest := "", 0.0
	if n < 1000 {
		rest = math.Mod(n, 100)
		words = before(", ") + smallNumbers()[int(n)/100] + " Hundred"
	} else {
		magnitude := min(magnitudeOf(n), len(magnitudes()))
		factor := math.Pow10(3 * magnitude)
		many := math.Floor(n / factor)
		rest = n - float64(many*factor) // converted, so that no processor puts both together
		words = before(", ") + wordsOf(many, false, false) + " " + magnitudes()[magnitude-1]
	}
	if rest > 0 {
		return words + wordsOf(rest, true, ordinal)
	}
	if ordinal {
		return words + "th"
	}
	return words
}

// magnitudeOf is by how many groups of three digits a number is larger than one below a thousand.
func magnitudeOf(n float64) int {
	_, exponent, _ := strings.Cut(strconv.FormatFloat(n, 'e', -1, 64), "e")
	e, _ := strconv.Atoi(exponent)
	return e / 3
}

// wordList are the words that numbers are of, each with what it is worth.
func wordList() (words []string, values map[string]float64) {
	values = map[string]float64{}
	add := func(word string, value float64) {
		word = strings.ToLower(word)
		if _, ok := values[word]; !ok {
			words = append(words, word)
		}
		values[word] = value
	}
	for i, w := range smallNumbers() {
		add(w, float64(i))
	}
	for i, w := range smallOrdinals() {
		add(w, float64(i))
	}
	for i, w := range decades() {
		add(w, float64(10*(i+2)))
		add(w[:len(w)-1]+"ieth", float64(10*(i+2)))
	}
	add("hundredth", 100)
	for i, w := range magnitudes() {
		add(w, math.Pow10(3*(i+1)))
		add(w+"th", math.Pow10(3*(i+1)))
	}
	return words, values
}

func wordsValue(text string) float64 {
	_, values := wordList()
	sums := []float64{0}
	for _, word := range splitWords(text) {
		v, ok := values[word]
		last := len(sums) - 1
		switch {
		case !ok:
			sums[last] = math.NaN()
		case v < 100:
			if sums[last] >= 1000 {
				sums = append(sums, v)
			} else {
				sums[last] += v
			}
		default:
			sums[last] *= v
		}
	}
	total := 0.0
	for _, s := range sums {
		total += s
	}
	return total
}

// splitWords splits at commas with a blank, at the word and, at blanks, hyphens and backslashes.
func splitWords(text string) (words []string) {
	blank := func(i int) bool { return i < len(text) && strings.IndexByte(" \t\n\v\f\r", text[i]) >= 0 }
	from := 0
	for i := 0; i < len(text); {
		size := 0
		switch {
		case text[i] == ',' && blank(i+1):
			size = 2
		case blank(i) && strings.HasPrefix(text[i+1:], "and") && blank(i+4):
			size = 5
		case blank(i) || text[i] == '\\' || text[i] == '-':
			size = 1
		}
		if size == 0 {
			i++
			continue
		}
		words = append(words, text[from:i])
		i += size
		from = i
	}
	return append(words, text[from:])
}

func callParseInteger(_ *Call, args []any) (any, error) {
	text, err := textArgument(args, 0)
	if err != nil {
		return nil, err
	}
	picture, err := textArgument(args, 1)
	if err != nil {
		return nil, err
	}
	f, err := parseIntegerPicture(picture)
	if err != nil {
		return nil, err
	}
	if f.style == sequenceStyle {
		return nil, failValue("D3130", f.token)
	}
	return f.parse(text), nil
}

// parse reads an integer; NaN if the text is none.
func (f *integerFormat) parse(text string) float64 {
	switch f.style {
	case letterStyle:
		return lettersValue(text, f.letters)
	case romanStyle:
		if f.letters != upperCase {
			text = strings.ToUpper(text)
		}
		return romanValue(text)
	case wordStyle:
		return wordsValue(strings.ToLower(text))
	}
	if f.ordinal {
		text = text[:max(len(text)-2, 0)]
	}
	if f.regular > 0 {
		text = strings.ReplaceAll(text, ",", "")
	} else {
		for _, s := range f.separators {
			text = strings.ReplaceAll(text, string(s.character), "")
		}
	}
	if f.zero != '0' {
		digits := []rune(text)
		for i := range digits {
			digits[i] += '0' - f.zero
		}
		text = string(digits)
	}
	return scriptInt(text)
}

// scriptInt is JavaScript's parseInt: the number that a text begins with.
func scriptInt(text string) float64 {
	text = strings.TrimLeft(text, " \t\n\v\f\r\u00a0\u2028\u2029\ufeff")
	sign := 1.0
	if text != "" && (text[0] == '-' || text[0] == '+') {
		if text[0] == '-' {
			sign = -1
		}
		text = text[1:]
	}
	if len(text) > 2 && text[0] == '0' && text[1]|0x20 == 'x' && isHex(text[2]) {
		n := 2
		for n < len(text) && isHex(text[n]) {
			n++
		}
		f, _ := strconv.ParseFloat(text[:n]+"p0", 64)
		return sign * f
	}
	n := 0
	for n < len(text) && text[n] >= '0' && text[n] <= '9' {
		n++
	}
	if n == 0 {
		return math.NaN()
	}
	f, _ := strconv.ParseFloat(text[:n], 64)
	return sign * f
}
