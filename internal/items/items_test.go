package items_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/items"
	"github.com/weir-dev/weir/internal/jsontree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// read is all that is read, as JSON, and the error after it.
func read(r io.Reader, c items.Config) (list []string, err error) {
	list = []string{}
	for v, err := range items.Read(r, c) {
		if err != nil {
			return list, err
		}
		list = append(list, text(v))
	}
	return list, nil
}

func text(v any) string {
	b, err := jsontree.Append(nil, v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// readers give the same text in different pieces.
func readers(text []byte) map[string]io.Reader {
	return map[string]io.Reader{
		"at once":           bytes.NewReader(text),
		"byte by byte":      iotest.OneByteReader(bytes.NewReader(text)),
		"by halves":         iotest.HalfReader(bytes.NewReader(text)),
		"the end with data": iotest.DataErrReader(bytes.NewReader(text)),
		"sometimes nothing": &hesitant{r: iotest.OneByteReader(bytes.NewReader(text))},
	}
}

// hesitant gives nothing every other time.
type hesitant struct {
	r   io.Reader
	odd bool
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.odd = !h.odd; h.odd {
		return 0, nil
	}
	return h.r.Read(p)
}

type readCase struct {
	name, text string
	config     items.Config
	want       []string
	kind       error
	message    string // a part of the error's
}

func (c *readCase) run(t *testing.T) {
	t.Helper()
	for how, r := range readers([]byte(c.text)) {
		got, err := read(r, c.config)
		switch {
		case !slices.Equal(got, c.want):
			t.Errorf("%s, %s: %q, want %q", c.name, how, got, c.want)
		case c.kind == nil && err != nil, c.kind != nil && !errors.Is(err, c.kind), err != nil && !strings.Contains(err.Error(), c.message):
			t.Errorf("%s, %s: error %v, want %v: %s", c.name, how, err, c.kind, c.message)
		case err != nil && !items.Permanent(err):
			t.Errorf("%s, %s: %v isn't permanent", c.name, how, err)
		}
	}
}

func TestJSON(t *testing.T) {
	at := func(pointer string) items.Config { return items.Config{InputType: items.JSON, ItemsPointer: pointer} }
	inventory := `{"a": {"b~/": [1]}, "deep": [[0], {"list": [{"x": "]"}, 2]}], "deep": 1, "text": "x"} trash`
	for _, c := range []readCase{
		{name: "all kinds", text: " [1, -2.50 ,\"a\\\"]\",true,null,\r\n[[],[1]],{\"z\":1,\"a\":[{}]} ]\n", want: []string{
			`1`, `-2.50`, `"a\"]"`, `true`, `null`, `[[],[1]]`, `{"z":1,"a":[{}]}`,
		}},
		{name: "empty", text: "[ ]", want: []string{}},
		{name: "a byte order mark", text: "\ufeff[1]", want: []string{`1`}},
		{name: "at most two", text: `[1,2,3`, config: items.Config{MaxItems: 2}, want: []string{`1`, `2`}},
		{name: "of one name the last", text: `[{"a":1,"b":2,"a":3}]`, want: []string{`{"a":3,"b":2}`}},

		{name: "no array", text: ` {"Hello": "world"}`, want: []string{}, kind: items.ErrNotArray, message: items.NotIterable},
		{name: "a number", text: `1`, want: []string{}, kind: items.ErrNotArray, message: items.NotIterable},
		{name: "nothing", text: " \n", want: []string{}, kind: items.ErrSyntax, message: "at byte 2 of the object: the object is empty"},
		{name: "no JSON", text: "id,name", want: []string{}, kind: items.ErrSyntax, message: `'i' is no JSON`},
		{name: "cut in the array", text: `[1,`, want: []string{`1`}, kind: items.ErrSyntax, message: "item 1, at byte 3 of the object: the array ends early"},
		{name: "cut after an item", text: `[1`, want: []string{`1`}, kind: items.ErrSyntax, message: "ends early"},
		{name: "cut in an item", text: `[1,{"a":[`, want: []string{`1`}, kind: items.ErrSyntax, message: "item 1, at byte 3 of the object: the JSON ends early"},
		{name: "no comma", text: `[1 2]`, want: []string{`1`}, kind: items.ErrSyntax, message: "'2' comes after an item"},
		{name: "a comma too many", text: `[1,]`, want: []string{`1`}, kind: items.ErrSyntax, message: "no item comes after a comma"},
		{name: "a comma first", text: `[,1]`, want: []string{}, kind: items.ErrSyntax, message: "',' comes instead of a value"},
		{name: "another bracket", text: `[{"a":1]]`, want: []string{}, kind: items.ErrSyntax, message: "item 0, at byte 1 of the object: it is no JSON"},
		{name: "a word", text: `[tru]`, want: []string{}, kind: items.ErrSyntax, message: "is no JSON"},
		{name: "no UTF-8", text: "[1,\"\xff\"]", want: []string{`1`}, kind: items.ErrSyntax, message: "not UTF-8"},
		{name: "more after it", text: `[1] [2]`, want: []string{`1`}, kind: items.ErrSyntax, message: "at byte 4 of the object: '[' follows the end"},

		{name: "in an object", text: inventory, config: at("/a/b~0~1"), want: []string{`1`}},
		{name: "in an array, the first of two names", text: inventory, config: at("/deep/1/list"), want: []string{`{"x":"]"}`, `2`}},
		{name: "an object", text: inventory, config: at("/a"), want: []string{}, kind: items.ErrNotArray, message: items.NotIterable},
		{name: "no such name", text: inventory, config: at("/a/c/d"), want: []string{}, kind: items.ErrPointer, message: `no "/a/c"`},
		{name: "no such place", text: inventory, config: at("/deep/2"), want: []string{}, kind: items.ErrPointer, message: `no "/deep/2"`},
		{name: "no place", text: inventory, config: at("/deep/01"), want: []string{}, kind: items.ErrPointer, message: `no "/deep/01"`},
		{name: "in a text", text: inventory, config: at("/text/0"), want: []string{}, kind: items.ErrPointer, message: `no "/text/0"`},
		{name: "a name in Unicode", text: `{"caf\u00e9": [1]}`, config: at("/café"), want: []string{`1`}},
		{name: "an empty name", text: `{"": [1]}`, config: at("/"), want: []string{`1`}},
		{name: "cut before it", text: `{"a": "x`, config: at("/b"), want: []string{}, kind: items.ErrSyntax, message: "ends early"},
		{name: "no colon", text: `{"a" [1]}`, config: at("/a"), want: []string{}, kind: items.ErrSyntax, message: "instead of a colon"},
		{name: "a name that is none", text: `{1: [1]}`, config: at("/a"), want: []string{}, kind: items.ErrSyntax, message: "must be a text"},
	} {
		if c.want == nil {
			t.Fatal(c.name)
		}
		c.run(t)
	}
}

func TestJSONLines(t *testing.T) {
	c := items.Config{InputType: items.JSONL}
	for _, c := range []readCase{
		{name: "lines", text: "{\"a\": 1}\n[2]\n\"x\"", config: c, want: []string{`{"a":1}`, `[2]`, `"x"`}},
		{name: "ends of lines", text: "1\r\n\r\n \t\n2\n\n", config: c, want: []string{`1`, `2`}},
		{name: "empty", text: "", config: c, want: []string{}},
		{name: "a mark", text: "\ufeff1", config: c, want: []string{`1`}},
		{name: "two on a line", text: "1\n2 3\n", config: c, want: []string{`1`}, kind: items.ErrSyntax, message: "item 1, at byte 2 of the object: it is no JSON"},
		{name: "over two lines", text: "{\"a\":\n1}", config: c, want: []string{}, kind: items.ErrSyntax, message: "item 0, at byte 0"},
	} {
		c.run(t)
	}
}

// TestCSV has AWS's rules first, then what is our choice (rows).
func TestCSV(t *testing.T) {
	first := items.Config{InputType: items.CSV}
	given := func(names ...string) items.Config { return items.Config{InputType: items.CSV, Headers: names} }
	one := given("v")
	for _, c := range []readCase{
		{name: "numbers are texts", text: "id,n\n1,3.5\n", config: first, want: []string{`{"id":"1","n":"3.5"}`}},
		{name: "no newline at the end", text: "id,n\n1,2", config: first, want: []string{`{"id":"1","n":"2"}`}},
		{name: "missing and too many", text: "a,b\n1\n1,2,3\n,\n", config: first, want: []string{`{"a":"1","b":""}`, `{"a":"1","b":"2"}`, `{"a":"","b":""}`}},
		{name: "given names", text: "1,2\n3,4\n", config: given("x", "y"), want: []string{`{"x":"1","y":"2"}`, `{"x":"3","y":"4"}`}},
		{name: "a row of blanks", text: "a,b\n   \n", config: first, want: []string{`{"a":"   ","b":""}`}},
		{name: "quotation marks", text: "a,b\n\"x,\ny\",\"say \"\"hi\"\"\"\n", config: first, want: []string{`{"a":"x,\ny","b":"say \"hi\""}`}},
		{
			name:   "the user guide's example (How Step Functions parses input CSV files)",
			text:   "abc,123,\"This string contains commas, a double quotation marks (\"\"), and a newline (\n)\",{\"\"MyKey\"\":\"\"MyValue\"\"},\"[1,2,3]\"\n",
			config: given("MyLetters", "MyNumbers", "MyString", "MyObject", "MyArray"),
			want: []string{`{"MyLetters":"abc","MyNumbers":"123",` +
				`"MyString":"This string contains commas, a double quotation marks (\"), and a newline (\n)",` +
				`"MyObject":"{\"MyKey\":\"MyValue\"}","MyArray":"[1,2,3]"}`},
		},
		{name: "the user guide's backslashes", text: "path,size\nC:\\\\Program Files\\\\MyApp.exe,6534512\n", config: first, want: []string{
			`{"path":"C:\\Program Files\\MyApp.exe","size":"6534512"}`,
		}},
		{name: "backslashes", text: "a,b\nx\\,y,\\\"z\\n\\\n\"q\\\"\",\"\\\\\"", config: first, want: []string{`{"a":"x,y","b":"\"zn"}`, `{"a":"q\"","b":"\\"}`}},
		{name: "tabs", text: "a\tb\n 1 \t\"2\t\"", config: items.Config{InputType: items.CSV, Delimiter: '\t'}, want: []string{`{"a":" 1 ","b":"2\t"}`}},
		{name: "spaces", text: "a b c\n1 \"2 3\" \n", config: items.Config{InputType: items.CSV, Delimiter: ' '}, want: []string{`{"a":"1","b":"2 3","c":""}`}},
		{name: "semicolons", text: "a;b\n1,5;\\;", config: items.Config{InputType: items.CSV, Delimiter: ';'}, want: []string{`{"a":"1,5","b":";"}`}},
		{name: "bars", text: "a|b\n1,5|2", config: items.Config{InputType: items.CSV, Delimiter: '|'}, want: []string{`{"a":"1,5","b":"2"}`}},
		{name: "at most one", text: "a\n1\n\"", config: items.Config{InputType: items.CSV, MaxItems: 1}, want: []string{`{"a":"1"}`}},

		{name: "empty rows", text: "\n\na\n\n1\r\n\r\n2\n\n", config: first, want: []string{`{"a":"1"}`, `{"a":"2"}`}},
		{name: "an empty value alone", text: "a\n\"\"\n", config: first, want: []string{`{"a":""}`}},
		{name: "ends of lines of Windows", text: "a,b\r\n\"1\r\n2\",3\r\n4,5\r", config: first, want: []string{`{"a":"1\n2","b":"3"}`, `{"a":"4","b":"5"}`}},
		{name: "a mark", text: "\ufeffa,b\n1,2", config: first, want: []string{`{"a":"1","b":"2"}`}},
		{name: "blanks around quotation marks", text: "a,b\n \"1\"\t, \"2\" ", config: first, want: []string{`{"a":"1","b":"2"}`}},
		{name: "an inch", text: "12\" pipe\nnext", config: one, want: []string{`{"v":"12\" pipe"}`, `{"v":"next"}`}},
		{name: "more after it", text: "\"a\"b,c\n\"\"x\"\"", config: one, want: []string{`{"v":"a\"b"}`, `{"v":"\"x\""}`}},
		{name: "one name twice", text: "a,b,a\n1,2,3", config: first, want: []string{`{"a":"3","b":"2"}`}},
		{name: "no UTF-8", text: "a,b\n\xc3,\xa9\xff\n", config: first, want: []string{`{"a":"` + "\ufffd" + `","b":"` + "\ufffd" + `"}`}},
		{name: "a zero", text: "a\n\x00\\", config: first, want: []string{`{"a":"\u0000"}`}},
		{name: "only names", text: "a,b\n", config: first, want: []string{}},
		{name: "empty, names are given", text: "", config: one, want: []string{}},
		{name: "empty", text: "", config: first, want: []string{}, kind: items.ErrHeader, message: "no first row"},
		{name: "only newlines", text: "\n\r\n", config: first, want: []string{}, kind: items.ErrHeader, message: "no first row"},
		{name: "large names", text: strings.Repeat("a,", items.MaxHeaderBytes/2+1), config: first, want: []string{}, kind: items.ErrHeader, message: "10240"},
		{name: "never closed", text: "a\n1\n\"2\n3", config: first, want: []string{`{"a":"1"}`}, kind: items.ErrSyntax, message: "item 1, at byte 4 of the object: it ends within quotation marks"},
	} {
		c.run(t)
	}
}

// TestTooLarge: an item is as large as its JSON without blanks, and its text may be four times longer.
func TestTooLarge(t *testing.T) {
	small := items.Config{MaxItemBytes: 10}
	of := func(kind string) items.Config {
		c := small
		c.InputType = kind
		return c
	}
	tooLarge := "it has more than 10 bytes, or its text more than 40"
	spaced := "[\"a\"," + strings.Repeat(" ", 31) + "\"b\"]"
	for _, c := range []readCase{
		{name: "as large as may be", text: `["12345678","12345678"]`, config: small, want: []string{`"12345678"`, `"12345678"`}},
		{name: "too large", text: `[1, "123456789"]`, config: small, want: []string{`1`}, kind: items.ErrTooLarge, message: "item 1, at byte 4 of the object: " + tooLarge},
		{name: "blanks in it", text: `[` + spaced + `]`, config: small, want: []string{`["a","b"]`}},
		{name: "blanks around it", text: `[` + strings.Repeat(" ", 200_000) + `1]`, config: small, want: []string{`1`}},
		{name: "too many blanks", text: `[` + strings.Replace(spaced, " ", "  ", 1) + `]`, config: small, want: []string{}, kind: items.ErrTooLarge, message: tooLarge},
		{name: "far too large", text: `["` + strings.Repeat("x", 200_000) + `"]`, config: small, want: []string{}, kind: items.ErrTooLarge, message: "item 0, at byte 1"},
		{name: "and cut", text: `["` + strings.Repeat("x", 200_000), config: small, want: []string{}, kind: items.ErrTooLarge},
		{name: "a line", text: "1\n\"12345678\"\r\n\"123456789\"", config: of(items.JSONL), want: []string{`1`, `"12345678"`}, kind: items.ErrTooLarge, message: "item 2, at byte 14"},
		{name: "a far too large line", text: strings.Repeat("1", 200_000), config: of(items.JSONL), want: []string{}, kind: items.ErrTooLarge},
		{name: "a row", text: "a\nbc\nbcd\nbcde\n", config: of(items.CSV), want: []string{`{"a":"bc"}`}, kind: items.ErrTooLarge, message: "item 1, at byte 5"},
		{name: "a far too large row", text: "a\n\"" + strings.Repeat("\n", 200_000), config: of(items.CSV), want: []string{}, kind: items.ErrTooLarge},
		{
			name: "past large members", text: `{"x": "` + strings.Repeat("y", 200_000) + `", "items": [1]}`,
			config: items.Config{MaxItemBytes: 10, ItemsPointer: "/items"}, want: []string{`1`},
		},
	} {
		c.run(t)
	}

	c := items.Config{InputType: items.JSONL}
	if _, err := read(strings.NewReader(`"`+strings.Repeat("x", items.DefaultMaxItemBytes-2)+`"`), c); err != nil {
		t.Errorf("256 KiB: %v", err)
	}
	if _, err := read(strings.NewReader(`"`+strings.Repeat("x", items.DefaultMaxItemBytes-1)+`"`), c); !errors.Is(err, items.ErrTooLarge) {
		t.Errorf("more than 256 KiB: %v", err)
	}
	c.MaxItemBytes = items.MaxItemBytes
	if _, err := read(strings.NewReader(`"`+strings.Repeat("x", items.MaxItemBytes-2)+`"`), c); err != nil {
		t.Errorf("8 MiB: %v", err)
	}
}

func TestValidate(t *testing.T) {
	for want, c := range map[string]items.Config{
		`InputType is "PARQUET": it must be JSON, JSONL or CSV`:     {InputType: "PARQUET"},
		`ItemsPointer "a" must begin with /`:                        {ItemsPointer: "a"},
		`ItemsPointer "/a~2" has a ~`:                               {ItemsPointer: "/a~2"},
		`ItemsPointer is for JSON: leave it out with CSV`:           {InputType: items.CSV, ItemsPointer: "/a"},
		`CSVHeaders is empty`:                                       {Headers: []string{}},
		`CSVHeaders has more than 10240 bytes`:                      {Headers: []string{strings.Repeat("x", items.MaxHeaderBytes)}},
		`CSVDelimiter is '#'`:                                       {Delimiter: '#'},
		`MaxItems is -1`:                                            {MaxItems: -1},
		`MaxItemBytes is 8388609: it must be at most 8388608`:       {MaxItemBytes: items.MaxItemBytes + 1},
		`the object's compression is "br": it must be gzip or zstd`: {Coding: "br"},
	} {
		_, err := read(strings.NewReader("[]"), c)
		want = strings.TrimSuffix(want, " or zstd")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v instead of %s", err, want)
		}
		if items.Permanent(err) != (c.Coding != "") {
			t.Errorf("%v: permanent %v", err, items.Permanent(err))
		}
	}
	if err := (items.Config{MaxItems: items.MaxItems + 1}).Validate(); err != nil {
		t.Error(err)
	}
}

func compress(t *testing.T, name string, text io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	if name == "zstd" {
		w, err = zstd.NewWriter(&b)
	} else {
		w, err = gzip.NewWriterLevel(&b, gzip.BestSpeed)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCompressed(t *testing.T) {
	for _, name := range []string{"gzip", "zstd"} {
		c := items.Config{InputType: items.CSV, Coding: name}
		whole := compress(t, name, strings.NewReader("a,b\n1,2\n3,4\n"))
		for how, r := range readers(append(slices.Clone(whole), whole...)) { // two of them one after another are one, too
			if got, err := read(r, c); err != nil || len(got) != 5 || got[1] != `{"a":"3","b":"4"}` {
				t.Errorf("%s, %s: %q, %v", name, how, got, err)
			}
		}
		_, err := read(bytes.NewReader(whole[:len(whole)-3]), c)
		if !errors.Is(err, items.ErrSyntax) || !items.Permanent(err) || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s, cut: %v", name, err)
		}
		broken := errors.New("broken")
		_, err = read(io.MultiReader(bytes.NewReader(whole[:len(whole)-3]), iotest.ErrReader(broken)), c)
		if !errors.Is(err, broken) || items.Permanent(err) {
			t.Errorf("%s, broken: %v", name, err)
		}
		if _, err = read(strings.NewReader("a,b\n1,2\n"), c); !errors.Is(err, items.ErrSyntax) {
			t.Errorf("%s, not compressed: %v", name, err)
		}
		for _, err := range items.Read(bytes.NewReader(whole), c) {
			if err != nil {
				t.Error(err)
			}
			break // the decoder is closed: goleak
		}
	}
	for _, c := range []struct{ key, encoding, want string }{
		{"dir/x.jsonl.gz", "", "gzip"},
		{"x.csv.zstd", "", "zstd"},
		{"x.csv.ZST", "identity", "zstd"},
		{"x.csv", "", ""},
		{"x.csv", "GZIP", "gzip"},
		{"x.csv", "aws-chunked, x-gzip", "gzip"},
		{"x.csv.gz", "zstd", "zstd"},
		{"x.gz/y", "br", "br"},
	} {
		if got := items.Coding(c.key, c.encoding); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// TestReadFails: what the reader says comes through, after the items before it.
func TestReadFails(t *testing.T) {
	broken := errors.New("broken")
	for kind, text := range map[string]string{items.JSON: "[1,2,", items.JSONL: "1\n2\n3", items.CSV: "a\n1\n2\n\"3"} {
		got, err := read(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), items.Config{InputType: kind})
		if len(got) != 2 || !errors.Is(err, broken) || items.Permanent(err) || !strings.Contains(err.Error(), fmt.Sprintf("at byte %d of the object: ", len(text))) {
			t.Errorf("%s: %q, %v", kind, got, err)
		}
		_, err = read(io.MultiReader(strings.NewReader(text), silent{}), items.Config{InputType: kind})
		if !errors.Is(err, io.ErrNoProgress) || items.Permanent(err) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for _, coded := range []string{"", "gzip"} { // a connection that ends is not the end of the object
		c := items.Config{InputType: items.JSONL, Coding: coded}
		ends := iotest.ErrReader(fmt.Errorf("connection: %w", io.EOF))
		if _, err := read(ends, c); err == nil || items.Permanent(err) {
			t.Errorf("%q: %v", coded, err)
		}
		if _, err := read(io.MultiReader(strings.NewReader("1\n2"), ends), c); err == nil || coded == "" && items.Permanent(err) {
			t.Errorf("%q: %v", coded, err)
		}
	}
	var e *items.Error
	if _, err := read(strings.NewReader("1\n2\n!"), items.Config{InputType: items.JSONL}); !errors.As(err, &e) || e.Item != 2 || e.Offset != 4 {
		t.Errorf("%+v", e)
	}
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

func TestList(t *testing.T) {
	at := time.Unix(1668699881, 5e8)
	objects := []items.Object{
		{Key: "processData/images/n02085620_1073.jpg", Size: 34910, LastModified: at, ETag: `"05704fbdccb224cb01c59005bebbad28"`, StorageClass: "STANDARD"},
		{Key: "folder/", LastModified: at, ETag: "e", StorageClass: "GLACIER"},
		{Key: "x", LastModified: at},
	}
	list := func(err error) iter.Seq2[items.Object, error] {
		return func(yield func(items.Object, error) bool) {
			for _, o := range objects {
				if !yield(o, nil) {
					return
				}
			}
			if err != nil {
				yield(items.Object{}, err)
			}
		}
	}
	got := []string{}
	for v, err := range items.List(list(nil), 0) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, text(v))
	}
	want := []string{
		`{"Etag":"\"05704fbdccb224cb01c59005bebbad28\"","Key":"processData/images/n02085620_1073.jpg","LastModified":1668699881,"Size":34910,"StorageClass":"STANDARD"}`,
		`{"Etag":"\"e\"","Key":"folder/","LastModified":1668699881,"Size":0,"StorageClass":"GLACIER"}`,
		`{"Etag":"\"\"","Key":"x","LastModified":1668699881,"Size":0,"StorageClass":"STANDARD"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	n := 0
	for _, err := range items.List(list(errors.New("not asked for")), 2) {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("%d of at most 2", n)
	}
	broken := errors.New("broken")
	var last error
	for _, err := range items.List(list(broken), 0) {
		last = err
	}
	if !errors.Is(last, broken) || items.Permanent(last) {
		t.Error(last)
	}
}

func ExampleRead() {
	object := strings.NewReader("userId,movieId,rating\n1,307,3.5\n1,481,4\n")
	for v, err := range items.Read(object, items.Config{InputType: items.CSV}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(text(v))
	}
	// Output:
	// {"userId":"1","movieId":"307","rating":"3.5"}
	// {"userId":"1","movieId":"481","rating":"4"}
}
