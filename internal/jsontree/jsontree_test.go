package jsontree_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/jsontree"
)

func TestParseAppend(t *testing.T) {
	for _, text := range []string{
		`null`, `true`, `0`, `-0.0`, `1.0`, `1e400`, `9007199254740993`, `"a\"b\\\n\u0001é😀/<>&"`, `[]`, `{}`, `[1,[2,{}],null]`,
		`{"z":1,"a":{"10":1,"9":2},"":null}`,
	} {
		v, err := jsontree.Parse([]byte(" " + text + "\n"))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := jsontree.Append(nil, v); err != nil || string(got) != text {
			t.Errorf("%s is written as %s, %v", text, got, err)
		}
	}
	for _, text := range []string{``, ` `, `{`, `[1,]`, `{"a":1,}`, `01`, `nul`, `"a`, `1 2`, `{"a" 1}`, "\"\xff\"", `[1}`, `{1:2}`, `NaN`} {
		if v, err := jsontree.Parse([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, v)
		}
	}
	if v, err := jsontree.Parse([]byte(`"\ud800"`)); err != nil || v != "\ufffd" {
		t.Errorf("half a pair: %q, %v", v, err)
	}
	v, err := jsontree.Parse([]byte(`{"a":1,"b":2,"a":3}`))
	if got, _ := jsontree.Append(nil, v); err != nil || string(got) != `{"a":3,"b":2}` {
		t.Errorf("of two members: %s, %v", got, err)
	}
	if _, err := jsontree.ParseUnique([]byte(`{"b":{"a":1,"a":3}}`)); err == nil || !strings.Contains(err.Error(), `"a" within "/b"`) {
		t.Errorf("of two members: %v", err)
	}
	if _, err := jsontree.Append(nil, []any{math.Inf(1)}); err == nil {
		t.Error("an infinite number was written")
	}
	if _, err := jsontree.Append(nil, 1); err == nil {
		t.Error("an int was written")
	}
}

func TestAppendFloat(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0", math.Copysign(0, -1): "0", 1: "1", -1.5: "-1.5", math.Nextafter(0.3, 1): "0.30000000000000004", 1e21: "1e+21", 1e20: "100000000000000000000",
		1e-6: "0.000001", 1e-7: "1e-7", 1.5e-10: "1.5e-10", math.MaxFloat64: "1.7976931348623157e+308", 5e-324: "5e-324",
	} {
		if got := string(jsontree.AppendFloat(nil, f)); got != want {
			t.Errorf("%v is written as %s, not %s", f, got, want)
		}
	}
}

func TestObject(t *testing.T) {
	o := jsontree.NewObject(0)
	for i := range 100 {
		o.Set(fmt.Sprint(99-i), i)
	}
	o.Set("50", "changed")
	c := o.Clone()
	for i := range 90 {
		o.Delete(fmt.Sprint(99 - i))
	}
	o.Delete("none")
	if v, ok := c.Get("50"); !ok || v != "changed" || c.Len() != 100 {
		t.Errorf("the copy has %v, %v", v, c.Len())
	}
	if k, v := c.At(49); k != "50" || v != "changed" {
		t.Errorf("at its place are %v, %v", k, v)
	}
	var keys []string
	for k := range o.All() {
		keys = append(keys, k)
	}
	if got := strings.Join(keys, ""); got != "9876543210" || o.Has("50") || !o.Has("9") {
		t.Errorf("what is left is %q", got)
	}
}

func TestEqual(t *testing.T) {
	n := func(s string) any { return json.Number(s) }
	for _, c := range []struct {
		a, b any
		want bool
	}{
		{n("1"), n("1.0"), true},
		{n("1"), 1.0, true},
		{n("9007199254740993"), n("9007199254740992"), false},
		{n("0"), n("-0"), true},
		{n("1"), "1", false},
		{nil, nil, true},
		{nil, false, false},
		{[]any{n("1")}, []any{n("1e0")}, true},
		{[]any{}, []any{nil}, false},
		{jsontree.Of("a", nil, "b", true), jsontree.Of("b", true, "a", nil), true},
		{jsontree.Of("a", nil), jsontree.Of("b", nil), false},
		{jsontree.Of(), []any{}, false},
	} {
		if got := jsontree.Equal(c.a, c.b); got != c.want {
			t.Errorf("%v and %v: %v", c.a, c.b, got)
		}
		if got := jsontree.Equal(c.b, c.a); got != c.want {
			t.Errorf("%v and %v: %v", c.b, c.a, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.50,"x",null,true,{}],"b":{"c":"\u00e9"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := jsontree.Parse(text)
		if err != nil {
			return
		}
		if !json.Valid(text) {
			t.Errorf("%q was read, and is no JSON", text)
		}
		again, err := jsontree.Append(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		other, err := jsontree.Parse(again)
		if err != nil || !jsontree.Equal(v, other) {
			t.Errorf("%q, %q: %v", text, again, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := []byte(`{"id":"a1","customer":{"name":"Ada","vip":true},"items":[{"sku":"book-42","quantity":1,"price":19.9},{"sku":"pen","quantity":3,"price":0.5}],"total":21.4}`)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := jsontree.Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
