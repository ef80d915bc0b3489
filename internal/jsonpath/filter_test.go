package jsonpath

import (
	"strings"
	"testing"
)

// TestFilter: which of the items of a document, by their "n", a filter lets through.
func TestFilter(t *testing.T) {
	const doc = `{"items":[
		{"n":"1","a":1,"s":"x","list":["S","M"],"o":{"p":1}},
		{"n":"2","a":1.0,"s":"","list":[],"o":{}},
		{"n":"3","a":"1","s":"xyz","list":["L"],"flag":true},
		{"n":"4","a":null,"s":"Xy","flag":false},
		{"n":"5","b":12345678901234567890,"list":[1,2,2],"s":"größe"},
		{"n":"6","a":-0.5,"list":"SM","my-key":1}],
		"sizes":["S","M"],"one":1,"big":9007199254740993}`
	for filter, want := range map[string]string{
		// Existence: null and false are there.
		`@.a`:                      `12346`,
		`!@.a`:                     `5`,
		`! @.a`:                    `5`,
		`!!@.a`:                    `12346`,
		`!(@.a)`:                   `5`,
		`@['my-key']`:              `6`,
		`@.my-key`:                 `6`,
		`@.o.p`:                    `1`,
		`@.list[1]`:                `15`,
		`@.list[*]`:                `135`,
		`@..p`:                     `1`,
		`$.one`:                    `123456`,
		`$.two`:                    ``,
		`@`:                        `123456`,
		`@.list[?(@ == 'M')]`:      `1`,
		`@.list[?(@ == $.one)]`:    `5`,
		`@.list.length()`:          `12356`,
		`@.list.length() > 1`:      `156`,
		`@.list.index(2) == 2`:     `5`,
		`@.list.sum() == 5`:        `5`,
		`@.o.keys() == ['p']`:      `1`,
		`@.n.concat(@.s) == ''`:    `2`,
		`@.list.append(@.n) == []`: ``,
		// Equality: numbers by value, never equal to strings; what is not there equals nothing.
		`@.a == 1`:                    `12`,
		`@.a==1.0`:                    `12`,
		`1 == @.a`:                    `12`,
		`@.a == 1e0`:                  `12`,
		`@.a == $.one`:                `12`,
		`@.a === 1`:                   `12`,
		`@.a == '1'`:                  `3`,
		`@.a == "1"`:                  `3`,
		`@.a != 1`:                    `3456`,
		`@.a !== 1`:                   `3456`,
		`@.a == null`:                 `4`,
		`@.a != null`:                 `12356`,
		`@.flag == true`:              `3`,
		`@.flag==false`:               `4`,
		`@.list == ['S', "M"]`:        `1`,
		`@.o == {'p': 1.0}`:           `1`,
		`@.o == {"p": 1, 'q': []}`:    ``,
		`@.o == {"q": 1}`:             ``,
		`@.list == ['S', 'L']`:        ``,
		`@.o == {}`:                   `2`,
		`@.b == 12345678901234567890`: `5`,
		`@.s == 'gr\u00f6\u00dfe'`:    `5`,
		`@.x == @.y`:                  ``,
		`@.x != @.y`:                  `123456`,
		`@.a == @.a`:                  `12346`,
		`$.big == 9007199254740992`:   ``,
		`$.big > 9007199254740992`:    `123456`,
		`$.big >= 9007199254740993.0`: `123456`,
		// Order: numbers with numbers, strings with strings.
		`@.a < 1`:                 `6`,
		`@.a <= 1`:                `126`,
		`@.a>0`:                   `12`,
		`@.a >= -0.5`:             `126`,
		`@.s > 'x'`:               `3`,
		`@.s >= 'x'`:              `13`,
		`@.s < 'a'`:               `24`,
		`@.a < '2'`:               `3`,
		`@.flag < true`:           ``,
		`@.b > 12345678901234567`: `5`,
		// Logic: && before ||.
		`@.a == 1 && @.s == 'x'`:                   `1`,
		`@.a==1&&@.s=='x'`:                         `1`,
		`@.s == 'xyz' || @.a == 1 && @.s == 'x'`:   `13`,
		`(@.s == 'xyz' || @.a == 1) && @.n != '2'`: `13`,
		`!(@.a == 1)`:                              `3456`,
		`!(@.a == 1 || @.flag)`:                    `56`,
		`@.a == 1 && @.b != 'x' || !(@.s)`:         `126`,
		`@.a&&!@.flag`:                             `126`,
		`((@.a == 1))`:                             `12`,
		// Regular expressions match the whole text.
		`@.s =~ /x/`:       `1`,
		`@.s =~ /x.*/`:     `13`,
		`@.s =~ /x.*/i`:    `134`,
		`@.s =~ /x|xyz/`:   `13`,
		`@.s =~ /\Qx/`:     `1`,
		`@.a =~ /1/`:       `13`,
		`@.flag =~ /t.*/`:  `3`,
		`@.list =~ /[SL]/`: `13`,
		`@.x =~ /.*/`:      ``,
		`@.o =~ /.*/`:      ``,
		`@.s =~ /gr..e/`:   `5`,
		`@.s =~ /X./su`:    `4`,
		`@.s =~ /^X.$/ims`: `4`,
		`@.s =~ /\//`:      ``,
		// Sets.
		`@.s in ['x', 'xyz']`:           `13`,
		`@.a in [1]`:                    `12`,
		`@.a in [null, '1']`:            `34`,
		`@.list[0] in $.sizes`:          `1`,
		`@.s in 'x'`:                    ``,
		`@.s nin ['x', 'xyz']`:          `2456`,
		`@.a nin [1]`:                   `3456`,
		`@.list subsetof ['S','M','L']`: `123`,
		`@.list subsetof $.sizes`:       `12`,
		`@.list anyof ['M', 2]`:         `15`,
		`@.list noneof ['M', 2]`:        `23`,
		`@.list ALL [2, 1]`:             `5`,
		`@.list contains 'M'`:           `16`,
		`@.list contains 2.0`:           `5`,
		`@.s contains 'y'`:              `34`,
		`@.s contains 1`:                ``,
		`@.list size 2`:                 `16`,
		`@.s size 5`:                    `5`,
		`@.o size 0`:                    ``,
		`@.list empty true`:             `2`,
		`@.list empty false`:            `1356`,
		`@.o empty true`:                `2`,
		`@.s empty true`:                `2`,
		`@.a empty true`:                ``,
	} {
		path := `$.items[?(` + filter + `)].n`
		p, err := Parse(path)
		if err != nil {
			t.Error(err)
			continue
		}
		v, err := p.Find(parseDoc(t, doc))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		var got strings.Builder
		for _, n := range v.([]any) {
			got.WriteString(n.(string))
		}
		if got.String() != want {
			t.Errorf("%s: %s, want %s", path, got.String(), want)
		}
	}
	// An object is tested itself, other values by nothing; blanks are possible around all.
	for path, want := range map[string]string{
		`$.o[?(@.a == 1)].b`:             `[2]`,
		`$.o[?(@.a == 2)]`:               `[]`,
		`$.n[?(@ == 1)]`:                 `[]`,
		`$.l[ ? ( @ >= 2 ) ]`:            `[2,3]`,
		`$.l[?(@ in $.l[?(@ > 2)])]`:     `[3]`,
		`$.l[?(@ == $.l.max())]`:         `[3]`,
		`$.l[?(@ != 2)].length()`:        `2`,
		`$[?(@.o.a == 1)].o[?(@.b)].b`:   `[2]`,
		`$.q[?(@.o.a == 1)].o[?(@.b)].b`: `[]`,
	} {
		v, err := mustParse(t, path).Find(parseDoc(t, `{"o":{"a":1,"b":2},"n":1,"l":[1,2,3]}`))
		if err != nil || asText(t, v) != want {
			t.Errorf("%s: %v, %v; want %s", path, v, err, want)
		}
	}
}
