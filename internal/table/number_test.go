package table

import (
	"math/big"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		text, want string
		size       int
	}{
		{"0", "0", 1},
		{"-0", "0", 1},
		{"0e1000", "0", 1},
		{"0.000e-99999999999999999999", "0", 1},
		{"1", "1", 2},
		{"+3", "3", 2},
		{"12", "12", 2},
		{"123", "123", 3},
		{"1234", "1234", 3},
		{"12345678901234567890123456789012345678", "12345678901234567890123456789012345678", 20},
		{"0042", "42", 2},
		{"100", "100", 2},
		{"1010", "1010", 3},
		{"0.0000001", "0.0000001", 2},
		{"1.5", "1.5", 3},
		{"15", "15", 2},
		{"1.200", "1.2", 3},
		{"1.234", "1.234", 4},
		{"3.14159", "3.14159", 5},
		{"123456", "123456", 4},
		{"100.5", "100.5", 4},
		{".15", "0.15", 2},
		{"2.", "2", 2},
		{"-42", "-42", 3},
		{"-17.4E+3", "-17400", 4},
		{"1.5e-2", "0.015", 2},
		{"000001e00002", "100", 2},
		{"1E125", "1" + strings.Repeat("0", 125), 2},
		{"1E-130", "0." + strings.Repeat("0", 129) + "1", 2},
		{"0009.99999999999999999999999999999999999990000e125", strings.Repeat("9", 38) + strings.Repeat("0", 88), 20},
	} {
		d, err := parseNumber(c.text)
		if err != nil || d.String() != c.want || d.size() != c.size {
			t.Errorf("%s is %s of %d bytes, %v", c.text, d, d.size(), err)
		}
	}
	for text, want := range map[string]string{
		"": notNumeric, "-": notNumeric, ".": notNumeric, "e1": notNumeric, "1e": notNumeric, "1e+": notNumeric, "1e1.5": notNumeric, "1.2.3": notNumeric, "--1": notNumeric,
		"0x10": notNumeric, "1 ": notNumeric, "1_000": notNumeric, "Infinity": notNumeric, "١": notNumeric,
		"10e125": overflow, "-1e99999999999999999999": overflow, "0.9e-130": underflow, "1e-99999999999999999999": underflow,
		"1.23456789012345678901234567890123456789": tooPrecise,
	} {
		if d, err := parseNumber(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %s, %v", text, d, err)
		}
	}
}

func TestPlus(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"1", "2", "3"},
		{"0", "0", "0"},
		{"0.1", "0.2", "0.3"},
		{"5", "-5", "0"},
		{"-5", "3.5", "-1.5"},
		{"99", "1", "100"},
		{"1e37", "1", "10000000000000000000000000000000000001"},
		{"1e38", "1", overflow}, // as DynamoDB calls it
		{"1e125", "1e-130", overflow},
		{"9e125", "1e125", overflow},
		{"-9e125", "-9e125", overflow},
		{"1.5e-130", "-1.4e-130", underflow},
		{"1e125", "-1e125", "0"},
	} {
		for _, swapped := range []bool{false, true} {
			a, _ := parseNumber(c.a)
			b, _ := parseNumber(c.b)
			if swapped {
				a, b = b, a
			}
			got, err := a.plus(b)
			switch {
			case err != nil && strings.Contains(err.Error(), c.want):
			case err != nil || got.String() != c.want:
				t.Errorf("%s + %s is %s, %v, not %s", c.a, c.b, got, err, c.want)
			}
		}
	}
}

// FuzzNumber compares with big.Rat: what a text is worth, its canonical text, order and sum.
func FuzzNumber(f *testing.F) {
	f.Add("1.0", "1e0")
	f.Add("-0.50", ".5e+2")
	f.Add("9.9e125", "1e-130")
	f.Add("12345678901234567890123456789012345678", "-0")
	f.Fuzz(func(t *testing.T, x, y string) {
		a, err := parseNumber(x)
		b, bad := parseNumber(y)
		if err != nil || bad != nil || len(x) > 300 || len(y) > 300 || strings.ContainsAny(x+y, "_/xXpPbBoO") {
			return
		}
		p, q := rat(t, x), rat(t, y)
		canonical, err := parseNumber(a.String())
		if err != nil || canonical != a || rat(t, a.String()).Cmp(p) != 0 {
			t.Fatalf("%q is written as %s, which is %+v, %v, not %+v", x, a, canonical, err, a)
		}
		if got, want := a.compare(b), p.Cmp(q); got != want {
			t.Fatalf("%q and %q: %d, not %d", x, y, got, want)
		}
		if (a.String() == b.String()) != (p.Cmp(q) == 0) {
			t.Fatalf("%q and %q are written as %s and %s", x, y, a, b)
		}
		if sum, err := a.plus(b); err == nil && rat(t, sum.String()).Cmp(new(big.Rat).Add(p, q)) != 0 {
			t.Fatalf("%q + %q is %s", x, y, sum)
		}
	})
}

func rat(t *testing.T, text string) *big.Rat {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if strings.Trim(mantissa, "+-0.") == "" {
		return new(big.Rat) // its exponent may be any
	}
	if exponent != "" {
		text = mantissa + "e" + exponent
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("%q is no number of package big", text)
	}
	return r
}
