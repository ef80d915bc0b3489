package jsonata

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
)

// value evaluates an expression that has a result, and gives its JSON text.
func value(t *testing.T, text, input string, env Env, opts ...Option) string {
	t.Helper()
	v, ok, err := evaluate(t, text, input, env, opts...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if !ok {
		return "nothing"
	}
	out, err := jsontree.Append(nil, v)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return string(out)
}

func evaluate(t *testing.T, text, input string, env Env, opts ...Option) (any, bool, error) {
	t.Helper()
	in, err := jsontree.Parse([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	e, err := Compile(text, opts...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e.Eval(context.Background(), in, env)
}

// code is the code of the error of compiling or evaluating.
func code(t *testing.T, text string, env Env) string {
	t.Helper()
	e, err := Compile(text)
	if err == nil {
		_, _, err = e.Eval(context.Background(), nil, env)
	}
	var own *Error
	if err != nil && !errors.As(err, &own) {
		t.Fatalf("%s: %v is no *Error", text, err)
	}
	if own == nil {
		return ""
	}
	return own.Code
}

func TestEval(t *testing.T) {
	const doc = `{"a":{"b":[{"c":1},{"c":[2]}]},"one":[5],"2":"x","1":"y","big":123456789012345678901,"list":[3,1,2]}`
	for _, c := range []struct{ expr, want string }{
		{`a.b.c`, `[1,2]`},
		{`a.b[0].c`, `1`},
		{`a.b[0].c[]`, `[1]`},
		{`one`, `[5]`},
		{`one[0]`, `5`},
		{`missing`, `nothing`},
		{`[missing]`, `[]`},
		{`null`, `null`},
		{`big`, `123456789012345680000`},
		{`$keys($)`, `["1","2","a","one","big","list"]`},
		{`list^(>$)`, `[3,2,1]`},
		{`$sort(list)`, `[1,2,3]`},
		{`list#$i[$i>0]`, `[1,2]`},
		{`a.b.c.{"v":$,"n":$count(%.%.b)}`, `[{"v":1,"n":2},{"v":2,"n":2}]`},
		{`$ ~> |a.b|{"d":1},"c"| ~> $lookup("a")`, `{"b":[{"d":1},{"d":1}]}`},
		{`$string(0.1+0.2)`, `"0.3"`},
		{`0.1+0.2`, `0.30000000000000004`},
		{`($f := function($n,$s){$n=0 ? $s : $f($n-1,$s+$n)}; $f(100000,0))`, `5000050000`},
		{`{"f": $sum, "n": [$sum]}`, `{"n":[null]}`},
		{`$match("ab12", /([a-z]+)(\d+)/).groups`, `["ab","12"]`},
		{`missing ?? "d"`, `"d"`},
		{`0 ?: "e"`, `"e"`},
		{`"\ud83d"`, `"�"`},
		{`"\ud83d" & "\ude00"`, `"😀"`},
		{`$now() = $now()`, `true`},
	} {
		if got := value(t, c.expr, doc, Env{}); got != c.want {
			t.Errorf("%s gives %s, not %s", c.expr, got, c.want)
		}
	}
}

func TestInputIsShared(t *testing.T) {
	in, err := jsontree.Parse([]byte(`{"a":{"n":1,"s":[1,2,"x"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	before := string(jsontree.Canonical(nil, in))
	e, err := Compile(`{"t": $ ~> |a|{"n":2},"s"|, "u": |$$|{"z":1}|($), "a": a, "r": $append(a.s, 1), "s": $sort([a.s[[0..1]]])}`)
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := e.Eval(context.Background(), in, Env{})
	if err != nil {
		t.Fatal(err)
	}
	if after := string(jsontree.Canonical(nil, in)); after != before {
		t.Errorf("the input was changed: %s", after)
	}
	result, _ := v.(*jsontree.Object)
	mine, _ := result.Get("a")
	root, _ := in.(*jsontree.Object)
	if theirs, _ := root.Get("a"); mine != theirs {
		t.Error("an unchanged part of the input was copied")
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		expr, code string
		position   int
		token      string
	}{
		{`1 + "a"`, "T2002", 3, "+"},
		{`"é" + 1`, "T2001", 5, "+"},
		{`$substring(1)`, "T0411", 11, "substring"},
		{`sum(1)`, "T1005", 4, "sum"},
		{`(1`, "S0203", 2, ""},
		{`1 ! 2`, "S0204", 3, "!"},
		{`$error("x")`, "D3137", 7, "error"},
		{`/(/`, "S0302", 3, ""},
		{`/a{2,1}/`, "S0303", 8, "a{2,1}"},
		{`$sum`, "T1009", 0, ""},
	} {
		e, err := Compile(c.expr)
		if err == nil {
			_, _, err = e.Eval(context.Background(), nil, Env{})
		}
		var own *Error
		if !errors.As(err, &own) {
			t.Errorf("%s: no error", c.expr)
			continue
		}
		if own.Code != c.code || own.Position != c.position || own.Token != c.token {
			t.Errorf("%s: %s at %d, token %q; not %s at %d, %q", c.expr, own.Code, own.Position, own.Token, c.code, c.position, c.token)
		}
		if own.Message == "" || !strings.Contains(own.Error(), own.Code) {
			t.Errorf("%s: %v", c.expr, own)
		}
	}
}

func TestLimits(t *testing.T) {
	small := Limits{Steps: 100_000, Items: 10_000, Bytes: 10_000}
	for _, c := range []struct{ expr, code string }{
		{`($f := function(){1 + $f()}; $f())`, "D1011"},
		{`($f := function(){$f()}; $f())`, "D1012"},
		{`[1..20000]`, "D2015"},
		{`[1..10000001]`, "D2014"},
		{`$pad("x", 1e9)`, "D2015"},
		{`$pad("x", 1/0)`, "D2015"},
		{`$reduce([1..100], function($a){$a & $a}, "x")`, "D3050"},
		{`$reduce([1..100], function($a,$b){$a & $a}, "x")`, "D2015"},
		{`$reduce([1..100], function($a,$b){[$a, $a]}, 1) ~> $string`, "D2015"},
		{`$match($pad("a", 60), /(a+)+b/)`, ""},
		{`$match("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", /^(a+)+$/)`, "D1012"},
		{`$replace($pad("", 5000, "a"), "a", "bbbbbbbb")`, "D2015"},
		{`$join($map([1..2000], function(){"abcdefgh"}))`, "D2015"},
		{`$formatInteger(1e15, "I")`, "D2015"},
		{`$fromMillis(0, "[Y,100000-100000]")`, "D2015"},
		{`($f := function($x,$n){$n=0 ? $x : $f({"a":$x},$n-1)}; $string($f(1, 30000)))`, "D1012"},
	} {
		begin := time.Now()
		got := code(t, c.expr, Env{Limits: small})
		if got != c.code && (c.code != "" || got != "D1012") {
			t.Errorf("%s: %q, not %q", c.expr, got, c.code)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s took %v", c.expr, took)
		}
	}
	if got := code(t, `($f := function($x,$n){$n=0 ? $x : $f({"a":$x},$n-1)}; $f(1, 30000) = 1)`, Env{}); got != "" {
		t.Errorf("deep data: %s", got)
	}
	if got := code(t, `($f := function($x,$n){$n=0 ? $x : $f({"a":$x},$n-1)}; $f(1, 30000))`, Env{}); got != "D1011" {
		t.Errorf("a result that nests too deeply: %q", got)
	}
	if got := code(t, strings.Repeat("(", 5000), Env{}); got != "D1011" {
		t.Errorf("a text that nests too deeply: %q", got)
	}
}

func TestContext(t *testing.T) {
	e, err := Compile(`($f := function(){$f()}; $f())`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	if _, _, err := e.Eval(ctx, nil, Env{}); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}

func TestVariables(t *testing.T) {
	env := Env{Scope: Variables{"x": "v", "nil": nil, "none": Nothing{}, "list": []any{1.0}}}
	for _, c := range []struct{ expr, want string }{
		{`$x`, `"v"`},
		{`$nil`, `null`},
		{`$none`, `nothing`},
		{`$exists($none)`, `false`},
		{`$list`, `[1]`},
		{`$list[0]`, `1`},
		{`($x := 1; $x)`, `1`},
		{`$unknown`, `nothing`},
	} {
		if got := value(t, c.expr, `{}`, env); got != c.want {
			t.Errorf("%s gives %s, not %s", c.expr, got, c.want)
		}
	}
}

func TestWithoutEval(t *testing.T) {
	if got := value(t, `$eval("1+1")`, `{}`, Env{}); got != `2` {
		t.Error(got)
	}
	if _, _, err := evaluate(t, `$eval("1+1")`, `{}`, Env{}, WithoutEval()); err == nil {
		t.Error("$eval can be called")
	}
}

func TestDeterministic(t *testing.T) {
	const text = `[$random(), $shuffle([1..20]), $millis(), $now()]`
	env := Env{Now: time.UnixMilli(fixedNow)}
	if a, b := value(t, text, `{}`, env), value(t, text, `{}`, env); a != b {
		t.Errorf("%s, and then %s", a, b)
	}
}

func TestNewFunction(t *testing.T) {
	repeat, err := NewFunction("range", "<nn:a>", 2, func(_ *Call, args []any) (any, error) {
		from, _ := jsontree.Float(args[0])
		to, _ := jsontree.Float(args[1])
		var items []any
		for f := from; f <= to; f++ {
			items = append(items, f)
		}
		return Sequence(items), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	fails, err := NewFunction("fails", "", 0, func(*Call, []any) (any, error) { return nil, broken })
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := NewFunction("kinds", "<x?x?:s>", 1, func(_ *Call, args []any) (any, error) {
		return fmt.Sprintf("%d %T", len(args), args[0]), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewFunction("bad", "<s<n>>", 1, nil); err == nil {
		t.Error("a wrong signature is accepted")
	}
	env := Env{Scope: Variables{"range": repeat, "fails": fails, "kinds": kinds}}
	for _, c := range []struct{ expr, want string }{
		{`$range(1,3)`, `[1,2,3]`},
		{`$range(1,1)`, `1`},
		{`$range(2,1)`, `nothing`},
		{`1 ~> $range(2)`, `[1,2]`},
		{`$map([1,2], $range(?, 2))`, `[[1,2],[2]]`}, // as with the reference's own functions
		{`[1,2].$range($, 2)`, `[1,2,2]`},
		{`$kinds([1..2])`, `"2 []interface {}"`},
		{`$kinds($map([1,2],$string))`, `"2 []interface {}"`},
		{`$kinds({})`, `"2 *jsontree.Object"`},
		{`$kinds(1)`, `"2 float64"`},
		{`$kinds(missing)`, `"2 jsonata.Nothing"`},
		{`$kinds($sum)`, `"2 *jsonata.Function"`},
	} {
		if got := value(t, c.expr, `{}`, env); got != c.want {
			t.Errorf("%s gives %s, not %s", c.expr, got, c.want)
		}
	}
	if _, _, err := evaluate(t, `$fails()`, `{}`, env); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if got := code(t, `$range("a",1)`, env); got != "T0410" {
		t.Error(got)
	}
}

func TestReferences(t *testing.T) {
	e, err := Compile(`$states.input.a[0].b + ($x := $foo; $x) & $map($$.l, function($v){$v.c & $y}) & $uppercase($states.context.State) & $.z@$f.$f.q`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Reference{
		{"states", 7, []string{"input", "a"}, false},
		{"foo", 34, nil, false},
		{"map", 46, nil, true},
		{"$", 49, []string{"l"}, false},
		{"y", 75, nil, false},
		{"uppercase", 90, nil, true},
		{"states", 98, []string{"context", "State"}, false},
	}
	if got := e.References(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v\nnot %v", got, want)
	}
}

func TestConcurrent(t *testing.T) {
	e, err := Compile(`$sum($map(list, function($x){$x * $count($$.list)})) & $match("ab", /b/).match & $formatNumber(1, "0.0")`)
	if err != nil {
		t.Fatal(err)
	}
	in, err := jsontree.Parse([]byte(`{"list":[1,2,3]}`))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				if v, _, err := e.Eval(context.Background(), in, Env{}); err != nil || v != "18b1.0" {
					t.Errorf("%v, %v", v, err)
					return
				}
			}
		})
	}
	group.Wait()
}
