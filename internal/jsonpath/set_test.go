package jsonpath

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/weir-dev/weir/internal/jsontree"
)

func TestSet(t *testing.T) {
	for _, c := range []struct{ doc, path, want string }{
		{`{"a":1}`, `$`, `"v"`},
		{`{"a":1,"b":2}`, `$.a`, `{"a":"v","b":2}`},
		{`{"a":1}`, `$.b`, `{"a":1,"b":"v"}`},
		{`{"a":1}`, `$.b.c['d e']`, `{"a":1,"b":{"c":{"d e":"v"}}}`},
		{`{"a":[1,{"b":2}]}`, `$.a[1].b`, `{"a":[1,{"b":"v"}]}`},
		{`{"a":[1,{"b":2}]}`, `$.a[1].c`, `{"a":[1,{"b":2,"c":"v"}]}`},
		{`{"a":[1,2]}`, `$.a[-1]`, `{"a":[1,"v"]}`},
		{`[[0],1]`, `$[0][0]`, `[["v"],1]`},
		{`{"a":[1]}`, `$.a[1]`, `!jsonpath: no such place: $.a[1]: the array has 1 elements`},
		{`{"a":[1]}`, `$.a.b`, `!jsonpath: no such place: $.a.b: an array has no members`},
		{`{"a":null}`, `$.a.b.c`, `!jsonpath: no such place: $.a.b: null has no members`},
		{`"text"`, `$.a`, `!jsonpath: no such place: $.a: a string has no members`},
		{`{}`, `$.a[0]`, `!jsonpath: no such place: $.a[0]: there is no array`},
		{`{}`, `$.a[0].b`, `!jsonpath: no such place: $.a[0]: there is no array`},
		{`{"a":{}}`, `$.a[0]`, `!jsonpath: no such place: $.a[0]: an object has no elements`},
		{`{}`, `$.*`, `!jsonpath: not a reference path: $.*`},
		{`{}`, `$.length()`, `!jsonpath: not a reference path: $.length()`},
	} {
		doc := parseDoc(t, c.doc)
		v, err := mustParse(t, c.path).Set(doc, "v")
		got := ""
		if err != nil {
			got = "!" + err.Error()
			if !errors.Is(err, ErrNoPlace) && !errors.Is(err, ErrNotReference) {
				t.Errorf("%s: %v", c.path, err)
			}
		} else {
			got = asText(t, v)
		}
		if got != c.want {
			t.Errorf("%s in %s: %s, want %s", c.path, c.doc, got, c.want)
		}
		if after := asText(t, doc); after != c.doc {
			t.Errorf("%s changed %s into %s", c.path, c.doc, after)
		}
	}
}

// TestSetThenFind: what was set is found, the root is as it was, and all else is shared or equal.
func TestSetThenFind(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	set := 0
	for range 3000 {
		root := randomValue(r, 4)
		before := asText(t, root)
		path := "$"
		for range r.IntN(5) {
			if r.IntN(3) == 0 {
				path += fmt.Sprintf("[%d]", r.IntN(4)-1)
			} else {
				path += "." + string(rune('a'+r.IntN(4)))
			}
		}
		p, value := mustParse(t, path), randomValue(r, 2)
		made, err := p.Set(root, value)
		if after := asText(t, root); after != before {
			t.Fatalf("%s changed %s into %s", path, before, after)
		}
		if err != nil {
			continue
		}
		set++
		if got, err := p.Find(made); err != nil || asText(t, got) != asText(t, value) {
			t.Fatalf("%s in %s: %v, %v", path, before, got, err)
		}
		old, err := p.Find(root)
		if err != nil {
			continue
		}
		if back, err := p.Set(made, old); err != nil || asText(t, back) != before {
			t.Fatalf("%s in %s and back: %s, %v", path, before, asText(t, back), err)
		}
	}
	if set < 1000 {
		t.Errorf("only %d paths could be set", set)
	}
}

func randomValue(r *rand.Rand, depth int) any {
	switch n := r.IntN(10); {
	case depth > 0 && n < 5:
		o := jsontree.NewObject(4)
		for range r.IntN(5) {
			o.Set(string(rune('a'+r.IntN(4))), randomValue(r, depth-1))
		}
		return o
	case depth > 0 && n < 8:
		list := []any{}
		for range r.IntN(4) {
			list = append(list, randomValue(r, depth-1))
		}
		return list
	}
	return []any{nil, true, "text", 1.5}[r.IntN(4)]
}
