package jsonpath

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/jsontree"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		path                string
		root                Root
		definite, reference bool
	}{
		{`$`, Root{}, true, true},
		{`$.a[0]['b'][-1]`, Root{}, true, true},
		{`$$`, Root{Kind: Context}, true, true},
		{`$$.Execution.Id`, Root{Kind: Context}, true, true},
		{`$$['Map'].Item`, Root{Kind: Context}, true, true},
		{`$total.net`, Root{Kind: Variable, Name: "total"}, true, true},
		{`$größe_2[0]`, Root{Kind: Variable, Name: "größe_2"}, true, true},
		{`$items[*]`, Root{Kind: Variable, Name: "items"}, false, false},
		{`$.a.*`, Root{}, false, false},
		{`$..a`, Root{}, false, false},
		{`$['a','b']`, Root{}, false, false},
		{`$[0,1]`, Root{}, false, false},
		{`$[0:1]`, Root{}, false, false},
		{`$[?(@.a)]`, Root{}, false, false},
		{`$.a.length()`, Root{}, true, false},
		{`$..a.length()`, Root{}, true, false},
	} {
		p, err := Parse(c.path)
		if err != nil {
			t.Error(err)
			continue
		}
		if p.Root() != c.root || p.Definite() != c.definite || p.Reference() != c.reference || p.String() != c.path {
			t.Errorf("%s: %+v, definite %t, reference %t, %s", c.path, p.Root(), p.Definite(), p.Reference(), p)
		}
	}
}

// TestParseErrors: what is wrong, and at which character.
func TestParseErrors(t *testing.T) {
	for path, want := range map[string]string{
		``:                       `at character 1: a path begins with '$'`,
		`a.b`:                    `at character 1: a path begins with '$'`,
		` $.a`:                   `at character 1: a path begins with '$'`,
		`$.`:                     `at character 3: a name or '*' is missing`,
		`$..`:                    `at character 4: a name or '*' is missing`,
		`$...a`:                  `at character 4: a name or '*' is missing`,
		`$.a.`:                   `at character 5: a name or '*' is missing`,
		`$.größe name`:           `at character 8: a blank is only possible within brackets`,
		`$.a b`:                  `at character 4: a blank`,
		`$. a`:                   `at character 3: a name`,
		`$.a*`:                   `at character 4: '*' is not possible here`,
		`$.a]`:                   `at character 4: ']' is not possible here`,
		`$.a,b`:                  `at character 4: ',' is not possible here`,
		`$1`:                     `at character 2: '1' is not possible here`,
		`$$a`:                    `at character 3: 'a' is not possible here`,
		`$a-b`:                   `at character 3: '-' is not possible here`,
		`$['a'](`:                `at character 7: only a function has parentheses`,
		`$[`:                     `at character 2: the '[' has no ']'`,
		`$['a'`:                  `at character 2: the '[' has no ']'`,
		`$['a`:                   `at character 3: the quote ' is not closed`,
		`$['a\'`:                 `at character 3: the quote ' is not closed`,
		`$['\u12']`:              `at character 5: \u has four`,
		`$['a',]`:                `at character 7: a name in quotes is missing`,
		`$['a',0]`:               `at character 7: a name in quotes is missing`,
		`$[0,'a']`:               `at character 5: an index is missing`,
		`$['a' 'b']`:             `at character 7: a ']' is missing`,
		`$[]`:                    `at character 3: in brackets there are`,
		`$[a]`:                   `at character 3: in brackets there are`,
		`$[(@.length-1)]`:        `at character 3: in brackets there are`,
		`$[-]`:                   `at character 3: an index is missing`,
		`$[1.5]`:                 `at character 4: a ']' is missing`,
		`$[99999999999]`:         `at character 3: the index is too large`,
		`$[0,]`:                  `at character 5: an index is missing`,
		`$[:]`:                   `at character 3: a slice has a start or an end`,
		`$[0:5:2]`:               `at character 6: a slice has no step`,
		`$[?@.a]`:                `at character 4: a filter is written [?(…)]`,
		`$[?(@.a]`:               `at character 8: an operator, '&&', '||' or ')' is missing`,
		`$[?(@.a)`:               `at character 2: the '[' has no ']'`,
		`$[?(@.a`:                `at character 4: the '(' has no ')'`,
		`$[?()]`:                 `at character 5: a path or a literal is missing`,
		`$[?(1)]`:                `at character 5: a comparison is missing`,
		`$[?(@.a ==)]`:           `at character 11: a path or a literal`,
		`$[?(@.a = 1)]`:          `at character 9: an operator, `,
		`$[?(@.a like 1)]`:       `at character 9: an operator, `,
		`$[?(@.a =~ 'x')]`:       `at character 12: after =~`,
		`$[?(@.a =~ /x)]`:        `at character 12: the regular expression has no '/'`,
		`$[?(@.a =~ /(/)]`:       `at character 12: the regular expression is wrong`,
		`$[?(@.a =~ /a)|(b/)]`:   `at character 12: the regular expression is wrong`,
		`$[?(@.a == /x/)]`:       `at character 12: a path or a literal`,
		`$[?(@.a == 01)]`:        `at character 12: that is no JSON number`,
		`$[?(@.a in ['x' 'y'])]`: `at character 17: a ',' or ']' is missing`,
		`$[?(@.a in ['x')]`:      `at character 16: a ',' or ']' is missing`,
		`$[?(@.a == {"a" 1})]`:   `at character 17: a ':' is missing`,
		`$[?(!@.a == 1)]`:        `at character 5: a comparison that '!' negates`,
		`$[?(@.a && )]`:          `at character 12: a path or a literal`,
		`$[?(@.a == $$.x)]`:      `at character 12: within a path there are`,
		`$[?(@.a == $x)]`:        `at character 12: within a path there are`,
		`$.a.sum().b`:            `at character 10: a function is possible at the end`,
		`$.a.nope()`:             `at character 5: there is no function "nope"`,
		`$..length()`:            `at character 2: a function follows a single '.'`,
		`$.a.length(1)`:          `at character 5: the function length has no arguments`,
		`$.a.index()`:            `at character 5: the function index needs an argument`,
		`$.sum(@.a)`:             `at character 7: '@' is possible in filters only`,
		`$.sum(1`:                `at character 6: the '(' has no ')'`,
	} {
		_, err := Parse(path)
		var se *SyntaxError
		if !errors.As(err, &se) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", path, err, want)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	for _, c := range []struct{ text, path, rest string }{
		{`$.a`, `$.a`, ``},
		{`$.a['x, y)'])`, `$.a['x, y)']`, `)`},
		{`$.a, $.b)`, `$.a`, `, $.b)`},
		{`$)`, `$`, `)`},
		{`$$.Execution.Name, $x)`, `$$.Execution.Name`, `, $x)`},
		{`$x ,1`, `$x`, ` ,1`},
		{`$[?(@.a == ')' && @.b in ['x', 'y'])].c, 1)`, `$[?(@.a == ')' && @.b in ['x', 'y'])].c`, `, 1)`},
		{`$.sum($.a, $.b), 2`, `$.sum($.a, $.b)`, `, 2`},
		{`$.a[ 0 ]	)`, `$.a[ 0 ]`, `	)`},
	} {
		p, rest, err := ParsePrefix(c.text)
		if err != nil || p.String() != c.path || rest != c.rest {
			t.Errorf("%s: %v, %q, %v", c.text, p, rest, err)
		}
	}
	for _, text := range []string{``, `'a'`, `$.a(`, `$.a]`, `$.a[`, "$\x00", `$.a*`} {
		if p, rest, err := ParsePrefix(text); err == nil {
			t.Errorf("%q: %v, %q", text, p, rest)
		}
	}
}

// FuzzParse: no text makes a panic, what was parsed is parsed again to the same, and can be used.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`$`, `$$.a`, `$v[0]`, `$.a.b[0].c`, `$['a\'b',"c"]`, `$[1:-1]..*`, `$.a[-2:].b.length()`, `$.sum($.a, 1, [2, {"a": 'b'}])`,
		`$..[?(@.a == 1 && @.b != 'x' || !(@.c) && @ in [1,"\u00e9",null])].d`, `$[?(@.a =~ /x\/.*/i)]`, `$[?($.x size 3 || @.length() > 2)]`,
		`$.a, $.b)`, `$[?(@.a empty true)]['x','y']`, `$.a[0,1][?(@.b anyof $.c)]`,
	} {
		f.Add(text)
	}
	doc, err := jsontree.Parse([]byte(shop))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, rest, err := ParsePrefix(text); err == nil {
			if p.String()+rest != text {
				t.Fatalf("%q: %q and %q", text, p, rest)
			}
			if q, err := Parse(p.String()); err != nil || !reflect.DeepEqual(p, q) {
				t.Fatalf("%q alone: %v", p, err)
			}
		}
		p, err := Parse(text)
		if err != nil {
			if _, ok := errors.AsType[*SyntaxError](err); !ok {
				t.Fatalf("%q: %T", text, err)
			}
			return
		}
		q, err := Parse(p.String())
		if err != nil || !reflect.DeepEqual(p, q) {
			t.Fatalf("%q again: %v", text, err)
		}
		v, err := p.Find(doc)
		if err == nil {
			if _, list := v.([]any); !list && !p.Definite() {
				t.Fatalf("%q is indefinite and gave %v", text, v)
			}
			if _, err := jsontree.Append(nil, v); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
		_, _ = p.Set(doc, "value")
	})
}
