package jsonpath

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/weir-dev/weir/internal/jsontree"
)

func parseDoc(t testing.TB, text string) any {
	t.Helper()
	v, err := jsontree.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func asText(t testing.TB, v any) string {
	t.Helper()
	b, err := jsontree.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustParse(t testing.TB, path string) *Path {
	t.Helper()
	p, err := Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	shop = `{"store":{"book":[
		{"category":"reference","author":"Rees","price":8.95,"tags":["a","b"]},
		{"category":"fiction","author":"Waugh","price":12.99,"tags":[]},
		{"category":"fiction","author":"Melville","isbn":"0-553","price":8.99},
		{"category":"fiction","author":"Tolkien","isbn":"0-395","price":22.99,"sold":null}],
		"bicycle":{"price":19.95,"color":"red"}},"limit":10,"wanted":["Waugh","Rees"]}`
	order7 = `{"z":1,"a":2,"m":{"y":3,"b":4},"list":[5,6,7,8]}`
)

// TestFind: documents, paths and what they give; an error begins with "!".
func TestFind(t *testing.T) {
	for _, c := range []struct{ doc, path, want string }{
		// The root and definite steps.
		{`5`, `$`, `5`},
		{order7, `$.m.y`, `3`},
		{order7, `$['m']["y"]`, `3`},
		{order7, `$.['m'].y`, `3`},
		{order7, `$[ 'm' ]`, `{"y":3,"b":4}`},
		{order7, `$.list[0]`, `5`},
		{order7, `$.list[-1]`, `8`},
		{order7, `$.list[ 1 ]`, `6`},
		{`{"n":null}`, `$.n`, `null`},
		{`{"n":1.50}`, `$.n`, `1.50`},
		{`{"delivery-partner":"DHL"}`, `$.delivery-partner`, `"DHL"`},
		{`{"größe":{"日本":1}}`, `$.größe.日本`, `1`},
		{`{"@type":1,"a:b":2,"what?":3,"it's":4,"1":5,"":6,"$":7}`, `$.@type`, `1`},
		{`{"@type":1,"a:b":2,"what?":3,"it's":4,"1":5,"":6,"$":7}`, `$.a:b`, `2`},
		{`{"@type":1,"a:b":2,"what?":3,"it's":4,"1":5,"":6,"$":7}`, `$.what?`, `3`},
		{`{"@type":1,"a:b":2,"what?":3,"it's":4,"1":5,"":6,"$":7}`, `$.it's`, `4`},
		{`{"@type":1,"a:b":2,"what?":3,"it's":4,"1":5,"":6,"$":7}`, `$.1`, `5`},
		{`{"@type":1,"a:b":2,"what?":3,"it's":4,"1":5,"":6,"$":7}`, `$['']`, `6`},
		{`{"@type":1,"a:b":2,"what?":3,"it's":4,"1":5,"":6,"$":7}`, `$.$`, `7`},
		{`{"Test name":1,"a.b":2,"x, y)]":3}`, `$['Test name']`, `1`},
		{`{"Test name":1,"a.b":2,"x, y)]":3}`, `$['a.b']`, `2`},
		{`{"Test name":1,"a.b":2,"x, y)]":3}`, `$["x, y)]"]`, `3`},
		{`{"it's":1,"a\\b":2,"q\"":3,"é\t":4,"😀":5}`, `$['it\'s']`, `1`},
		{`{"it's":1,"a\\b":2,"q\"":3,"é\t":4,"😀":5}`, `$['a\\b']`, `2`},
		{`{"it's":1,"a\\b":2,"q\"":3,"é\t":4,"😀":5}`, `$["q\""]`, `3`},
		{`{"it's":1,"a\\b":2,"q\"":3,"é\t":4,"😀":5}`, `$['\u00e9\t']`, `4`},
		{`{"it's":1,"a\\b":2,"q\"":3,"é\t":4,"😀":5}`, `$['\ud83d\ude00']`, `5`},
		// Nothing there.
		{order7, `$.q`, `!no such path $.q: the object has no member "q"`},
		{order7, `$.m.y.c`, `!no such path $.m.y.c: a number has no members`},
		{order7, `$.m.q.c`, `!no such path $.m.q.c: at $.m.q, the object has no member "q"`},
		{order7, `$.list[4]`, `!no such path $.list[4]: the array has 4 elements`},
		{order7, `$.list[-5]`, `!no such path $.list[-5]: the array has 4 elements`},
		{order7, `$.m[0].c`, `!no such path $.m[0].c: at $.m[0], an object has no elements`},
		{order7, `$.list.x`, `!no such path $.list.x: an array has no members`},
		{`null`, `$.a`, `!no such path $.a: null has no members`},
		// Several.
		{order7, `$['z','q',"m"]`, `[1,{"y":3,"b":4}]`},
		{order7, `$.list[0,2,-1,9]`, `[5,7,8]`},
		{order7, `$.list[1:3]`, `[6,7]`},
		{order7, `$.list[1:]`, `[6,7,8]`},
		{order7, `$.list[:1]`, `[5]`},
		{order7, `$.list[-2:]`, `[7,8]`},
		{order7, `$.list[:-1]`, `[5,6,7]`},
		{order7, `$.list[ 1 : -1 ]`, `[6,7]`},
		{order7, `$.list[-9:2]`, `[5,6]`},
		{order7, `$.list[3:1]`, `[]`},
		{order7, `$.list[9:]`, `[]`},
		{order7, `$.list[1:99]`, `[6,7,8]`},
		{order7, `$.m.*`, `[3,4]`},
		{order7, `$.*`, `[1,2,{"y":3,"b":4},[5,6,7,8]]`},
		{order7, `$[*].b`, `[4]`},
		{order7, `$.list.*`, `[5,6,7,8]`},
		{order7, `$.z[*]`, `[]`},
		{order7, `$.q[*].r`, `[]`},
		{order7, `$.q.r[1:2]`, `[]`},
		{order7, `$.z['a','b']`, `[]`},
		{order7, `$.m[0,1]`, `[]`},
		// Everything below.
		{shop, `$..author`, `["Rees","Waugh","Melville","Tolkien"]`},
		{shop, `$.store..price`, `[8.95,12.99,8.99,22.99,19.95]`},
		{shop, `$..book[2].author`, `["Melville"]`},
		{shop, `$..['color','limit']`, `[10,"red"]`},
		{`[[1,[2]],[3]]`, `$..[0]`, `[[1,[2]],1,2,3]`},
		{`[[1,[2]],[3]]`, `$..[-1:]`, `[[3],[2],2,3]`},
		{`{"a":{"a":{"a":1}}}`, `$..a`, `[{"a":{"a":1}},{"a":1},1]`},
		{`{"a":{"a":{"a":1}}}`, `$..a..a`, `[{"a":1},1,1]`},
		{`{"a":[{"b":1}],"c":2}`, `$..*`, `[[{"b":1}],2,{"b":1},1]`},
		{`{"a":[{"b":1},{"b":2}],"b":3,"c":[4]}`, `$..[?(@.b)].b`, `[3,1,2]`},
		{`{"a":[1,2,[3]],"n":9}`, `$..[?(@ > 1)]`, `[2,3]`},
		{`5`, `$..a`, `[]`},
		// Functions.
		{order7, `$.list.length()`, `4`},
		{order7, `$.list.size()`, `4`},
		{order7, `$.length()`, `4`},
		{order7, `$.z.length()`, `null`},
		{`"größe"`, `$.length()`, `5`},
		{order7, `$.list.sum()`, `26`},
		{order7, `$.list.avg()`, `6.5`},
		{order7, `$.list.min()`, `5`},
		{order7, `$.list.max()`, `8`},
		{`[2,4,4,4,5,5,7,9,"x"]`, `$.stddev()`, `2`},
		{`[9007199254740993,9007199254740992]`, `$.max()`, `9007199254740993`},
		{order7, `$.sum($.z, $.list, 3)`, `30`},
		{order7, `$.m.keys()`, `["y","b"]`},
		{order7, `$.list.first()`, `5`},
		{order7, `$.list.last()`, `8`},
		{order7, `$.list.index(-2)`, `7`},
		{order7, `$.list.index( $.z )`, `6`},
		{order7, `$.list.append(9, {"a": [true, 'b']})`, `[5,6,7,8,9,{"a":[true,"b"]}]`},
		{`{"a":["x",1,"y"],"b":"z"}`, `$.a.concat($.b, '-', 7)`, `"xyz-7"`},
		{`{"a":["x",1,"y"],"b":"z"}`, `$.concat($.b, $.a)`, `"zx1y"`},
		{shop, `$.store.book[*].price.sum()`, `53.92`},
		{shop, `$..price.max()`, `22.99`},
		{shop, `$..nothing.length()`, `0`},
		{order7, `$.q.length()`, `!no such path $.q.length(): at $.q, the object has no member "q"`},
		{`[]`, `$.first()`, `!no such path $.first(): the function first() has nothing to return`},
		{order7, `$.list.index(4)`, `!no such path $.list.index(4): the function index() has nothing to return`},
		{order7, `$.list.index(0.5)`, `!$.list.index(0.5): jsonpath: the function can't be applied: the argument of index() is no whole number`},
		{order7, `$.z.last()`, `!$.z.last(): jsonpath: the function can't be applied: last() is for an array, not for a number`},
		{`["a"]`, `$.sum()`, `!$.sum(): jsonpath: the function can't be applied: sum() needs numbers`},
		{`[1e308,1e308]`, `$.sum()`, `!$.sum(): jsonpath: the function can't be applied: the result of sum() is too large`},
		{order7, `$.sum($.q)`, `!$.sum($.q): jsonpath: the function can't be applied: argument 1 of sum() is not there`},
	} {
		p, err := Parse(c.path)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		doc := parseDoc(t, c.doc)
		before := asText(t, doc)
		got, err := p.Find(doc)
		text := ""
		if err != nil {
			text = "!" + err.Error()
			if strings.Contains(text, "no such path") != errors.Is(err, ErrNotFound) || strings.Contains(text, "applied") != errors.Is(err, ErrFunction) {
				t.Errorf("%s: the error %v is of the wrong kind", c.path, err)
			}
		} else {
			text = asText(t, got)
		}
		if text != c.want {
			t.Errorf("%s in %s:\n got %s\nwant %s", c.path, c.doc, text, c.want)
		}
		if after := asText(t, doc); after != before {
			t.Errorf("%s changed the document into %s", c.path, after)
		}
	}
}

// TestRecorded: what Step Functions was recorded giving (the cases test_json_path_array_…, test_state_pass_regex_json_path_base
// and test_escape_sequence_parsing of the recorded executions).
func TestRecorded(t *testing.T) {
	items := `{"items":[{"k":0},{"k":1},{"k":2}],"item":{"items":[{"itemValue":0},{"itemValue":1},{"itemValue":2}]}}`
	for _, c := range []struct{ doc, path, want string }{
		{`{}`, `$.item.items[1:5].itemValue`, `[]`},
		{`{}`, `$.item.items[1:5]`, `[]`},
		{`{}`, `$.item.items[1:]`, `[]`},
		{`{}`, `$.item.items[:1]`, `[]`},
		{`{}`, `$.items[*].itemValue`, `[]`},
		{`{}`, `$.items[*]`, `[]`},
		{`{}`, `$.items[:1].itemValue`, `[]`},
		{items, `$.item.items[1:5].itemValue`, `[1,2]`},
		{items, `$.items[2]`, `{"k":2}`},
		{items, `$.items[10]`, ``},
		{items, `$.no_such_jsonpath`, ``},
		{`{"users":[{"year":1997,"status":0},{"year":1998,"status":1}]}`, `$.users[?(@.status == 0)]`, `[{"year":1997,"status":0}]`},
		{`[["from-bucket-item-0"]]`, `$[0]`, `["from-bucket-item-0"]`},
		{`{"Test\\\"\"Name\"":"Value\"\\"}`, `$['Test\""Name"']`, `"Value\"\\"`},
	} {
		got, err := mustParse(t, c.path).Find(parseDoc(t, c.doc))
		if c.want == "" {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s in %s: %v, %v", c.path, c.doc, got, err)
			}
			continue
		}
		if err != nil || asText(t, got) != c.want {
			t.Errorf("%s in %s: %v, %v; want %s", c.path, c.doc, got, err, c.want)
		}
	}
}

// TestRecordedPaths: every path in the recorded definitions can be parsed, but for those in JSONata.
func TestRecordedPaths(t *testing.T) {
	f, err := os.Open("../../../shared/asl/cases.jsonl")
	if err != nil {
		t.Skipf("THE RECORDED CASES ARE NOT HERE: %v", err)
	}
	defer func() { _ = f.Close() }()
	paths := map[string]bool{}
	var collect func(v any)
	collect = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, m := range v {
				if s, ok := m.(string); ok && (strings.HasSuffix(k, ".$") || strings.HasSuffix(k, "Path") || k == "Variable") && strings.HasPrefix(s, "$") {
					paths[s] = true
				}
				collect(m)
			}
		case []any:
			for _, m := range v {
				collect(m)
			}
		}
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var c struct{ Definition any }
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		collect(c.Definition)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	for path := range paths {
		if _, err := Parse(path); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d paths", len(paths))
}

func TestBounds(t *testing.T) {
	list := make([]any, 4000)
	for i := range list {
		list[i] = false
	}
	for _, path := range []string{ // within the bounds
		`$[` + strings.Repeat("0,", 2000) + `0]`,
		`$[?(@ == 1 || @ in [1, 2, 3])]`,
		`$[*]`,
	} {
		if _, err := mustParse(t, path).Find(list); err != nil {
			t.Errorf("%.40s…: %v", path, err)
		}
	}
	for _, path := range []string{ // the square of the list
		`$[?($[?(@ == true)])]`,
		`$[?($ == $)]`,
		`$[?(true in $)]`,
		`$[?($ subsetof $)]`,
		`$[?($.append(1) == 2)]`,
		`$[?($ =~ /x/)]`,
	} {
		t.Run(path, func(t *testing.T) {
			if _, err := mustParse(t, path).Find(list); !errors.Is(err, ErrTooMuch) {
				t.Error(err)
			}
		})
	}
	long := []any{strings.Repeat("x", MaxVisits)}
	for range 20 {
		long = append(long, long[0])
	}
	if _, err := mustParse(t, `$[?(@ =~ /y.*/)]`).Find(long); !errors.Is(err, ErrTooMuch) {
		t.Errorf("too much text: %v", err)
	}
	deep := nestedArrays(MaxDepth + 10)
	if _, err := mustParse(t, `$..a`).Find(deep); !errors.Is(err, ErrTooMuch) {
		t.Errorf("a document that is too deep: %v", err)
	}
	if _, err := mustParse(t, `$..*..*..*`).Find(nestedArrays(1000)); !errors.Is(err, ErrTooMuch) {
		t.Errorf("too many results: %v", err)
	}
	if _, err := mustParse(t, `$[*]`).Find(make([]any, MaxResults+1)); !errors.Is(err, ErrTooMuch) || !strings.Contains(err.Error(), "found") {
		t.Errorf("one result too many: %v", err)
	}
	if _, err := mustParse(t, `$[?($[?($[?(@.x)])])]`).Find(list); !errors.Is(err, ErrTooMuch) {
		t.Errorf("too much to look at: %v", err)
	}
	for _, path := range []string{
		`$` + strings.Repeat(`.a`, MaxSteps+1),
		`$[?(` + strings.Repeat(`(`, MaxNesting) + `@`,
		`$` + strings.Repeat(`[?(@`, MaxNesting),
		`$[?(@ in ` + strings.Repeat(`[`, MaxNesting),
		strings.Repeat(`$.sum(`, MaxNesting+1),
	} {
		if _, err := Parse(path); err == nil || !strings.Contains(err.Error(), "deeper") && !strings.Contains(err.Error(), "at most") {
			t.Errorf("%.40s…: %v", path, err)
		}
	}
}

func nestedArrays(n int) any {
	var v any = []any{}
	for range n {
		v = []any{v}
	}
	return v
}

// TestConcurrent: one Path, many goroutines; run with -race.
func TestConcurrent(t *testing.T) {
	doc := parseDoc(t, shop)
	p := mustParse(t, `$..book[?(@.price < $.limit && @.author =~ /m.*/i)].author`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if v, err := p.Find(doc); err != nil || len(v.([]any)) != 1 {
					t.Errorf("%v, %v", v, err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkFind(b *testing.B) {
	doc := parseDoc(b, `{"x":1,"a":{"y":2,"b":[{"c":3}]},"users":[{"s":0},{"s":1},{"s":0},{"s":1},{"s":0}]}`)
	for _, path := range []string{`$`, `$.a.b[0].c`, `$.users[*].s`, `$.users[?(@.s == 0)]`, `$..s`} {
		p := mustParse(b, path)
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Find(doc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(`$.a.b[0].c`); err != nil {
			b.Fatal(err)
		}
	}
}
