package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
)

func compile(t testing.TB, source string) *Schema {
	t.Helper()
	s, err := Compile([]byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFindingsNameThePlace(t *testing.T) {
	s := compile(t, `{"type":"object","required":["sku"],"properties":{
		"sku":{"type":"string","minLength":1},"lines":{"type":"array","items":{"type":"object","properties":{"a/b":{"type":"integer"}}}}}}`)
	for text, want := range map[string][]string{
		`{"sku":"x","other":{"deep":[1,2]}}`: nil,
		`{}`:                                 {""},
		`{"sku":""}`:                         {"/sku"},
		`{"sku":"x","lines":[{"a/b":1},{"a/b":"no"}]}`:     {"/lines/1/a~1b"},
		`{"sku":1,"lines":[{"a/b":1.5}],"unknown":[[[]]]}`: {"/lines/0/a~1b", "/sku"},
		`[]`: {""},
	} {
		var got []string
		if err := s.Validate([]byte(text)); err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("%s: %v", text, err)
			}
			for _, f := range invalid.Findings {
				got = append(got, f.Pointer)
			}
			slices.Sort(got)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: findings at %q, want %q", text, got, want)
		}
	}
}

func TestWhatIsNoJSONIsRefused(t *testing.T) {
	s := compile(t, `{"type":"object","properties":{"a":{"type":"integer"}}}`)
	for _, text := range []string{
		``, `{`, `{}{}`, `{} x`, `{"a":}`, "{\"a\":\"\xff\"}", `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, "\v{}", "\u00a0{}", "{\"a\":1}\v",
		`{"a":01}`, `nul`, strings.Repeat("[", 20000),
	} {
		var syntax *SyntaxError
		if err := s.Validate([]byte(text)); !errors.As(err, &syntax) {
			t.Errorf("%.40q: got %v, want a SyntaxError", text, err)
		}
	}
}

func TestBadSchemasSayWhy(t *testing.T) {
	for source, want := range map[string]string{
		`[]`:                               "must be a JSON Schema object",
		`{"type":"no"}`:                    "must be a valid JSON Schema",
		`{"$ref":"https://example.com/a"}`: "not loaded",
		`{"$ref":"other.json"}`:            "not loaded",
		`{`:                                "must be a JSON Schema object",
	} {
		if _, err := Compile([]byte(source)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", source, err, want)
		}
	}
}

func TestFindingsAreBounded(t *testing.T) {
	s := compile(t, `{"type":"array","items":{"type":"string"}}`)
	var invalid *InvalidError
	if err := s.Validate([]byte("[" + strings.Repeat("1,", 1000) + "1]")); !errors.As(err, &invalid) || len(invalid.Findings) != MaxFindings {
		t.Errorf("got %v", err)
	}
}

// TestShortCutsChangeNoVerdict compares with the library on the text decoded whole.
func TestShortCutsChangeNoVerdict(t *testing.T) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	var genSchema func(depth int) *rapid.Generator[any]
	genSchema = func(depth int) *rapid.Generator[any] {
		return rapid.Custom(func(t *rapid.T) any {
			if rapid.IntRange(0, 9).Draw(t, "bool") == 0 {
				return rapid.Bool().Draw(t, "verdict")
			}
			s := map[string]any{}
			simple := []string{"type", "required", "properties", "additionalProperties", "minLength", "maxLength", "pattern", "minimum", "maximum", "title"}
			keywords := rapid.SliceOfDistinct(rapid.SampledFrom(simple), rapid.ID).Draw(t, "simple keywords")
			if rapid.Bool().Draw(t, "any keyword") {
				keywords = rapid.SliceOfDistinct(rapid.SampledFrom([]string{
					"type", "required", "properties", "additionalProperties", "items", "minProperties", "maxItems", "minLength",
					"minimum", "maximum", "maxLength", "pattern",
					"enum", "const", "not", "allOf", "patternProperties", "uniqueItems", "propertyNames", "title",
				}), rapid.ID).Draw(t, "keywords")
			}
			for _, k := range keywords {
				sub := func() any {
					if depth == 0 {
						return true
					}
					return genSchema(depth-1).Draw(t, "sub")
				}
				switch k {
				case "type":
					s[k] = rapid.SampledFrom([]string{"object", "array", "string", "number", "integer", "boolean", "null"}).Draw(t, k)
				case "required":
					s[k] = rapid.SliceOfNDistinct(name, 0, 2, rapid.ID).Draw(t, k)
				case "properties", "patternProperties":
					m := map[string]any{}
					for _, n := range rapid.SliceOfNDistinct(name, 0, 3, rapid.ID).Draw(t, k) {
						m[n] = sub()
					}
					s[k] = m
				case "items", "not", "propertyNames":
					s[k] = sub()
				case "pattern":
					s[k] = rapid.SampledFrom([]string{"x", "^x$", "^$", "é"}).Draw(t, k)
				case "additionalProperties":
					s[k] = rapid.Bool().Draw(t, k)
				case "minimum", "maximum":
					s[k] = rapid.IntRange(-2, 2).Draw(t, k)
				case "minProperties", "maxItems", "minLength", "maxLength":
					s[k] = rapid.IntRange(0, 3).Draw(t, k)
				case "enum":
					s[k] = []any{genValue(1).Draw(t, k), "x"}
				case "const":
					s[k] = genValue(1).Draw(t, k)
				case "allOf":
					s[k] = []any{sub()}
				case "uniqueItems":
					s[k] = true
				case "title":
					s[k] = "t"
				}
			}
			return s
		})
	}
	simple, accepted := 0, 0
	defer func() {
		if simple == 0 || accepted == 0 {
			t.Errorf("the short cut was tried %d times and taken %d times", simple, accepted)
		}
	}()
	rapid.Check(t, func(t *rapid.T) {
		doc := genSchema(2).Draw(t, "schema")
		if _, ok := doc.(map[string]any); !ok {
			t.Skip("a schema here is an object")
		}
		source, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Compile(source)
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		for range 5 {
			text, err := json.Marshal(genValue(3).Draw(t, "value"))
			if err != nil {
				t.Fatal(err)
			}
			whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			want := s.compiled.Validate(whole)
			if s.rule != nil {
				simple++
				if s.rule.accepts(text) {
					accepted++
				}
			}
			got := s.Validate(text)
			if (want == nil) != (got == nil) {
				t.Fatalf("schema %s\ntext %s\nprojected: %v\nwhole: %v", source, text, got, want)
			}
		}
	})
}

func genValue(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kind := rapid.IntRange(0, 6).Draw(t, "kind")
		if depth == 0 && kind > 4 {
			kind = 0
		}
		switch kind {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "b")
		case 2:
			return rapid.IntRange(-2, 2).Draw(t, "i")
		case 3:
			return rapid.Float64Range(-2, 2).Draw(t, "f")
		case 4:
			return rapid.SampledFrom([]string{"", "x", "xyz", "é"}).Draw(t, "s")
		case 5:
			return rapid.SliceOfN(genValue(depth-1), 0, 4).Draw(t, "array")
		default:
			return rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), genValue(depth-1), 0, 4).Draw(t, "object")
		}
	})
}

func FuzzValidate(f *testing.F) {
	s := compile(f, `{"type":"object","required":["sku"],"properties":{"sku":{"type":"string"},"n":{"type":"array","items":{"type":"integer"}}},"maxProperties":5}`)
	f.Add([]byte(`{"sku":"a","n":[1,2]}`))
	f.Add([]byte(`{"sku":1}`))
	simple := compile(f, `{"type":"object","required":["sku"],"properties":{"sku":{"type":"string","minLength":1,"pattern":"a"},"n":{"type":"integer","minimum":0}},"additionalProperties":false}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		if simple.rule == nil {
			t.Fatal("not simple")
		}
		if simple.rule.accepts(text) {
			whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
			if err == nil {
				err = simple.compiled.Validate(whole)
			}
			if err != nil {
				t.Fatalf("accepted by the short cut: %v", err)
			}
		}
		err := s.Validate(text)
		if _, ok := errors.AsType[*SyntaxError](err); ok {
			return
		}
		whole, werr := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if werr != nil {
			t.Fatalf("accepted as JSON, which the standard library refuses: %v", werr)
		}
		if (s.compiled.Validate(whole) == nil) != (err == nil) {
			t.Fatalf("projected: %v", err)
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	s := compile(b, `{"type":"object","required":["sku"],"properties":{"sku":{"type":"string","minLength":1,"maxLength":64},
		"quantity":{"type":"integer","minimum":1},"customer":{"type":"string","maxLength":128},"currency":{"type":"string","pattern":"^[A-Z]{3}$"}}}`)
	lines := make([]string, 8)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"sku":"A-%d","name":"enamelled kettle","quantity":%d,"priceCents":%d,"tags":["x","y"]}`, i, i+1, 100*i)
	}
	text := []byte(`{"sku":"SKU-1","quantity":3,"customer":"c-4711","currency":"EUR","lines":[` + strings.Join(lines, ",") + `],"address":{"city":"Springfield","zip":"12345"}}`)
	b.Run("shortcut", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Validate(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("projected", func(b *testing.B) {
		s := *s
		s.rule = nil
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Validate(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("whole", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
			if err == nil {
				err = s.compiled.Validate(v)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
