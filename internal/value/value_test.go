package value_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/value"
)

const body = ` {"sku": "b\u006fok", "n": 1.50, "big": 9007199254740993, "yes": true, "none": null, "empty": "",
	"deep": {"list": ["a", {"k/e~y": "x"}, 7]}, "twice": 1, "twice": 2} `

func TestExpressions(t *testing.T) {
	var got string
	var ok bool
	var err error
	mux := http.NewServeMux()
	var text string
	serve := func(_ http.ResponseWriter, r *http.Request) {
		e, perr := value.Parse(text)
		if perr != nil {
			t.Fatalf("%s: %v", text, perr)
		}
		got, ok, err = e.Of(r, []byte(body))
		if e.String() != text {
			t.Errorf("%s is written as %s", text, e)
		}
	}
	mux.HandleFunc("PUT /customers/{id}/{rest...}", serve)
	req := httptest.NewRequest(http.MethodPut, "/customers/a%2Fb/?x=1&lang=de%20at&lang=en&semi=a;b&bad=%zz&flag&p=a+b&=v", nil)
	req.Header.Set("X-Tenant", "t1")
	req.Header.Add("Accept", "a")
	req.Header.Add("Accept", "b")
	req.Header.Set("X-Empty", "")
	for expression, want := range map[string]string{
		"path.id": "a/b", "query.lang": "de at", "query.semi": "a;b", "query.bad": "%zz", "query.flag": "", "query.p": "a b",
		"header.x-tenant": "t1", "header.Accept": "a, b", "header.X-Empty": "",
		"body:/sku": "book", "body:/n": "1.50", "body:/big": "9007199254740993", "body:/yes": "true", "body:/empty": "",
		"body:/deep/list/0": "a", "body:/deep/list/1/k~1e~0y": "x", "body:/deep/list/2": "7",
	} {
		text = expression
		mux.ServeHTTP(httptest.NewRecorder(), req)
		if got != want || !ok || err != nil {
			t.Errorf("%s is %q, %t, %v; want %q", expression, got, ok, err, want)
		}
	}
	for _, expression := range []string{
		"path.other", "path.rest", "query.none", "query.LANG", "header.None", "body:/none", "body:/deep", "body:/deep/list", "body:/x", "body:/sku/x",
		"body:/deep/list/3", "body:/deep/list/00", "body:/deep/list/-", "body:/deep/list/1e0", "body:", "body:/",
	} {
		text = expression
		mux.ServeHTTP(httptest.NewRecorder(), req)
		if ok || err != nil {
			t.Errorf("%s is %q, %v; want none", expression, got, err)
		}
	}
	text = "body:/twice"
	if mux.ServeHTTP(httptest.NewRecorder(), req); err == nil {
		t.Errorf("a member that is there twice is %q", got)
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{
		"", "path", "path.", "query.", "header.", "header.a b", "header.Host", "body", "body:x", "body:/a~", "body:/a~2", "cookie.x", "Path.id", "/customer",
		"query." + strings.Repeat("x", value.MaxLength),
	} {
		if e, err := value.Parse(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, e)
		}
	}
	e, err := value.Parse("path.id")
	if name, ok := e.Wildcard(); err != nil || name != "id" || !ok || e.NeedsBody() {
		t.Error(name, ok, err)
	}
	e, err = value.Parse("body:/a")
	if _, ok := e.Wildcard(); err != nil || ok || !e.NeedsBody() {
		t.Error(ok, err)
	}
	for _, text := range []string{`"x"`, `1`, `true`, ` "x" `} {
		e, err := value.Parse("body:")
		if err != nil {
			t.Fatal(err)
		}
		if v, ok, err := e.Of(nil, []byte(text)); v != strings.Trim(text, `" `) || !ok || err != nil {
			t.Errorf("body: of %s is %q, %v", text, v, err)
		}
	}
}

// FuzzBody holds body: against encoding/json, which decodes the whole.
func FuzzBody(f *testing.F) {
	f.Add(body, "/sku")
	f.Add(body, "/deep/list/1/k~1e~0y")
	f.Add(`[[1], {"a": "\ud83d\ude00"}]`, "/1/a")
	f.Add(`"x"`, "")
	f.Fuzz(func(t *testing.T, text, pointer string) {
		e, err := value.Parse("body:" + pointer)
		if err != nil {
			return
		}
		got, ok, err := e.Of(nil, []byte(text))
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var whole any
		if derr := d.Decode(&whole); derr != nil || d.More() || !json.Valid([]byte(text)) {
			return // what isn't JSON may have a value as far as it was read
		}
		if err != nil || !utf8.ValidString(text) {
			return // a member that is there twice
		}
		want, there := reference(whole, pointer)
		if ok != there || got != want {
			t.Errorf("%q at %q: %q, %t; want %q, %t", text, pointer, got, ok, want, there)
		}
	})
}

func reference(v any, pointer string) (string, bool) {
	if pointer != "" {
		for token := range strings.SplitSeq(pointer[1:], "/") {
			token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
			switch x := v.(type) {
			case map[string]any:
				v = x[token]
			case []any:
				i, err := strconv.Atoi(token)
				if err != nil || i < 0 || i >= len(x) || strconv.Itoa(i) != token {
					return "", false
				}
				v = x[i]
			default:
				return "", false
			}
		}
	}
	switch x := v.(type) {
	case string:
		return x, true
	case json.Number:
		return x.String(), true
	case bool:
		return strconv.FormatBool(x), true
	}
	return "", false
}
