package jsonata

import (
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// numberText is a number as JavaScript writes it.
func numberText(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	var b [32]byte
	return string(jsontree.AppendFloat(b[:0], f))
}

// rounded15 is a number with the 15 significant digits that $string gives to fractions.
func rounded15(f float64) float64 {
	if f == math.Trunc(f) {
		return f
	}
	// Ties are rounded away from zero by JavaScript's toPrecision; the digits of a float64 are exact, so one can look.
	digits, exponent := exactDigits(math.Abs(f))
	if len(digits) <= 15 {
		return f
	}
	kept, carry := digits[:15], digits[15] >= '5'
	n, _ := strconv.ParseInt(kept, 10, 64) // 15 digits fit
	if carry {
		n++
	}
	r, _ := strconv.ParseFloat(strconv.FormatInt(n, 10)+"e"+strconv.Itoa(exponent-15), 64)
	return math.Copysign(r, f)
}

// exactDigits are all decimal digits of a positive number, as 0.digits × 10^exponent.
func exactDigits(f float64) (digits string, exponent int) {
	text := strconv.FormatFloat(f, 'e', 40, 64) // more than enough digits for a comparison with a half at the 16th
	mantissa, exp, _ := strings.Cut(text, "e")
	e, _ := strconv.Atoi(exp)
	return mantissa[:1] + strings.TrimRight(mantissa[2:], "0"), e + 1
}

// fixed is JavaScript's toFixed of a number that is not negative: ties are rounded up, by the exact value.
func fixed(f float64, places int) string {
	if f >= 1e21 || math.IsNaN(f) || math.IsInf(f, 0) {
		return numberText(f)
	}
	exact := new(big.Float).SetFloat64(f) // exact: FormatFloat rounds ties to even
	scaled := new(big.Float).SetPrec(2000).Mul(exact, new(big.Float).SetPrec(2000).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(places)), nil)))
	n, _ := scaled.Add(scaled, big.NewFloat(0.5)).Int(nil)
	text := n.String()
	if places == 0 {
		return text
	}
	if len(text) <= places {
		text = strings.Repeat("0", places+1-len(text)) + text
	}
	return text[:len(text)-places] + "." + text[len(text)-places:]
}

// inBase is an integer's text in a base.
func inBase(f float64, base int) string {
	if base == 10 || math.IsNaN(f) || math.IsInf(f, 0) {
		return numberText(f)
	}
	n, _ := new(big.Float).SetFloat64(f).Int(nil)
	return integerInBase(n, base, math.Abs(f))
}

// integerInBase writes large integers as V8 does: digits below the precision of a float64 are zeros.
func integerInBase(n *big.Int, base int, size float64) string {
	if size < 1<<53 {
		return n.Text(base)
	}
	negative := n.Sign() < 0
	// V8 divides while the number's exponent is beyond its 53 bits, and writes a zero for each such division.
	zeros, value := 0, size
	for exponentOf(value) > 0 {
		value /= float64(base)
		zeros++
	}
	m, _ := new(big.Float).SetFloat64(math.Floor(value)).Int(nil)
	text := m.Text(base) + strings.Repeat("0", zeros)
	if negative {
		text = "-" + text
	}
	return text
}

// exponentOf is the power of two by which the 53 bits of a number's mantissa are multiplied.
func exponentOf(f float64) int {
	_, e := math.Frexp(f)
	return e - 53
}

// toNumber is $number of a text; ok is false if it is none.
func toNumber(text string) (f float64, ok bool) {
	if isDecimal(text) {
		f, _ := strconv.ParseFloat(text, 64)
		if !math.IsInf(f, 0) {
			return f, true
		}
	}
	if !looksLikeBase(text) {
		return 0, false
	}
	text = strings.Trim(text, " \t\n\v\f\r\u00a0\u2028\u2029\ufeff")
	if len(text) < 3 || text[0] != '0' {
		return math.NaN(), true
	}
	base := map[byte]int{'x': 16, 'X': 16, 'o': 8, 'O': 8, 'b': 2, 'B': 2}[text[1]]
	if base == 0 || strings.ContainsAny(text[2:], "+-_") {
		return math.NaN(), true
	}
	n, ok := new(big.Int).SetString(text[2:], base)
	if !ok {
		return math.NaN(), true
	}
	f, _ = new(big.Float).SetInt(n).Float64()
	return f, true
}

// isDecimal reports whether a text is a number with digits before and, if there is a point, after it.
func isDecimal(text string) bool {
	text = strings.TrimPrefix(text, "-")
	digits := func() bool {
		n := 0
		for n < len(text) && text[n] >= '0' && text[n] <= '9' {
			n++
		}
		text = text[n:]
		return n > 0
	}
	if !digits() {
		return false
	}
	if strings.HasPrefix(text, ".") {
		text = text[1:]
		if !digits() {
			return false
		}
	}
	if text != "" && (text[0] == 'e' || text[0] == 'E') {
		text = text[1:]
		if text != "" && (text[0] == '+' || text[0] == '-') {
			text = text[1:]
		}
		if !digits() {
			return false
		}
	}
	return text == ""
}

// looksLikeBase is the reference's test for numbers of other bases: it begins like one of base 16, has one of base 8 in it, or
// ends like one of base 2. What passes and is none is NaN.
func looksLikeBase(text string) bool {
	prefixed := func(i int, letter, most byte) bool {
		return i+2 < len(text) && text[i] == '0' && text[i+1]|0x20 == letter && text[i+2] >= '0' && text[i+2] <= most
	}
	if len(text) > 2 && text[0] == '0' && text[1]|0x20 == 'x' && isHex(text[2]) {
		return true
	}
	for i := range len(text) {
		if prefixed(i, 'o', '7') {
			return true
		}
		if prefixed(i, 'b', '1') && strings.Trim(text[i+2:], "01") == "" {
			return true
		}
	}
	return false
}

// roundEven is $round: half to even, at a decimal place.
func roundEven(f, precision float64) float64 {
	if precision != 0 {
		f = shift(f, precision)
	}
	r := math.Floor(f + 0.5) // JavaScript's Math.round
	if f+0.5 != r && f == math.Trunc(f) || math.IsInf(f, 0) {
		r = f
	}
	if f == 0.49999999999999994 || math.Abs(f) > 1<<52 {
		r = math.Floor(f)
	}
	if math.Abs(r-f) == 0.5 && math.Abs(math.Mod(r, 2)) == 1 {
		r--
	}
	if precision != 0 {
		r = shift(r, -precision)
	}
	if r == 0 {
		return 0 // not minus zero
	}
	return r
}

// shift multiplies by a power of ten, by the number's text: without the errors of a multiplication.
func shift(f, places float64) float64 {
	mantissa, exp, _ := strings.Cut(numberText(f), "e")
	e, _ := strconv.ParseFloat(exp, 64) // zero if there is none
	power := numberText(e + places)
	if _, err := strconv.Atoi(power); err != nil || !isDecimal(mantissa) {
		return math.NaN() // a fraction of a place
	}
	r, _ := strconv.ParseFloat(mantissa+"e"+power, 64)
	return r
}
