package schema

import (
	"errors"
	"runtime"
	"strings"
	"testing"
)

// chain is a body nested deep levels under one name.
func chain(name string, deep int, leaf string) string {
	return strings.Repeat(`{"`+name+`":`, deep) + leaf + strings.Repeat("}", deep)
}

// Schemas whose checks cost more with each level of a body: the library would take seconds to years for them.
const (
	twice     = `{"anyOf":[{"properties":{"a":{"$ref":"#"}},"required":["a"]},{"properties":{"a":{"$ref":"#"}},"required":["b"]},{"type":"integer"}]}`
	thrice    = `{"allOf":[{"items":{"$ref":"#"}},{"items":{"$ref":"#"}},{"items":{"$ref":"#"}}]}`
	dynamic   = `{"$dynamicAnchor":"n","allOf":[{"additionalProperties":{"$dynamicRef":"#n"}},{"additionalProperties":{"$dynamicRef":"#n"}}]}`
	condition = `{"if":{"properties":{"a":{"$ref":"#"}}},"then":{"properties":{"a":{"$ref":"#"}}}}`
	dependent = `{"dependentSchemas":{"a":{"properties":{"a":{"$ref":"#"}}}},"properties":{"a":{"$ref":"#"}}}`
	contained = `{"contains":{"$ref":"#"},"items":{"$ref":"#"}}`
	// A tree costs what its size is: each value is held against one schema.
	tree = `{"type":"object","properties":{"left":{"$ref":"#"},"right":{"$ref":"#"},"v":{"type":"integer"}},"additionalProperties":false}`
	// An expression, by its operator.
	expression = `{"type":"object","required":["op"],"allOf":[
		{"if":{"properties":{"op":{"const":"add"}}},"then":{"properties":{"l":{"$ref":"#"},"r":{"$ref":"#"}}}},
		{"if":{"properties":{"op":{"const":"sub"}}},"then":{"properties":{"l":{"$ref":"#"},"r":{"$ref":"#"}}}},
		{"if":{"properties":{"op":{"const":"neg"}}},"then":{"properties":{"l":{"$ref":"#"}}}}]}`
)

// TestCostsAreBounded: what would take the library long is refused before it, what would not is checked.
func TestCostsAreBounded(t *testing.T) {
	nested := func(deep int) string { return strings.Repeat("[", deep) + strings.Repeat("]", deep) }
	for _, row := range []struct {
		schema, text string
		costly       bool
	}{
		{twice, chain("a", 4, "1"), false},
		{twice, chain("a", 60, "1"), true},
		{thrice, nested(5), false},
		{thrice, nested(60), true},
		{dynamic, chain("x", 4, "{}"), false},
		{dynamic, chain("x", 60, "{}"), true},
		{condition, chain("a", 3, "{}"), false},
		{condition, chain("a", 60, "{}"), true},
		{dependent, chain("a", 60, "{}"), true},
		{contained, nested(60), true},
		{tree, chain("left", 127, `{"v":1}`), false},
		{`{"$dynamicAnchor":"node","properties":{"c":{"$dynamicRef":"#node"}}}`, chain("c", 120, "{}"), false},
		{`{"$schema":"https://json-schema.org/draft/2019-09/schema","$recursiveAnchor":true,"properties":{"c":{"$recursiveRef":"#"}}}`, chain("c", 120, "{}"), false},
		// Long names against patterns, long numbers and composite values of enum, each held many times.
		{
			`{"anyOf":[{"patternProperties":{"^[a-z]+_id$":true},"additionalProperties":{"$ref":"#"}},{"patternProperties":{"^[a-z]+_id$":true},"additionalProperties":{"$ref":"#"},"required":["x"]}]}`,
			chain("a", 12, `{"`+strings.Repeat("b", 100_000)+`":1}`), true,
		},
		{`{"items":{"enum":[` + strings.Repeat("[1,2,3],", 60) + `0]}}`, "[" + strings.Repeat("[1,2,3,4,5,6,7,8,9],", 5000) + "0]", true},
		{expression, strings.Repeat(`{"op":"add","l":{"op":"neg"},"r":`, 100) + `{"op":"neg"}` + strings.Repeat("}", 100), false},
		{`{"type":"array","items":{"type":["integer","null"]},"uniqueItems":true}`, "[" + strings.Repeat("null,", 50_000) + "1]", false},
		{`{"oneOf":[{"$ref":"#"}]}`, `1`, false}, // a cycle in place is the library's to report
		{`{"if":{"$ref":"#"},"then":true}`, `{}`, true},
	} {
		s := compile(t, row.schema)
		var costly *CostError
		if err := s.Validate([]byte(row.text)); errors.As(err, &costly) != row.costly {
			t.Errorf("%s with %.40s…: %v; costly: want %t", row.schema, row.text, err, row.costly)
		}
	}
}

func TestCheckBounds(t *testing.T) {
	long := strings.Repeat("9", maxNumberDigits)
	for text, want := range map[string]string{
		`{"a":[{"b":[1]}]}`:                 "",
		`[[[[1]]]]`:                         "",
		`[[[[[1]]]]]`:                       "nested more than 4 deep",
		`[[[]],[[]],[[]]]`:                  "", // levels count, not brackets
		`"[[[[[[[["`:                        "",
		`["\"[[[[[[", 1]`:                   "",
		`["\\", [[[[1]]]]]`:                 "nested",
		long:                                "",
		long + "0":                          "more than 400 digits",
		`[-0.` + long + `]`:                 "more than 400 digits",
		`"` + long + `0"`:                   "",
		`{"a":1e400}`:                       "",
		`{"a":-1.5E-400}`:                   "",
		`{"a":1e401}`:                       "exponent",
		`{"a":1E+0000401}`:                  "exponent",
		`{"a":1E+0000400}`:                  "",
		`{"a":5e-99999999999999999999}`:     "exponent",
		`{"id":"1e999999","n":3}`:           "",
		`no JSON at all [[[[[[`:             "nested",
		`"no end [[[[[[`:                    "",
		strings.Repeat(`{"a":"x"},`, 10000): "",
	} {
		err := CheckBounds([]byte(text), 4)
		if got := ""; err != nil {
			got = err.Error()
			if want == "" || !strings.Contains(got, want) {
				t.Errorf("%.40s: %q, want %q", text, got, want)
			}
		} else if want != "" {
			t.Errorf("%.40s: passes, want %q", text, want)
		}
	}
}

// TestReasonsTakeLittleMemory: a body that is wrong at every place is told so without a reason for each.
func TestReasonsTakeLittleMemory(t *testing.T) {
	s := compile(t, `{"type":"array","items":{"$ref":"#"}}`)
	text := []byte(strings.Repeat("[", 120) + strings.TrimSuffix(strings.Repeat("0,", 120_000), ",") + strings.Repeat("]", 120))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var invalid *InvalidError
	if err := s.Validate(text); !errors.As(err, &invalid) || len(invalid.Findings) != 1 {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 150<<20 { // all of it, freed or not; with reasons some 500 MiB at once
		t.Errorf("the check allocated %d MiB", took>>20)
	}
}

// TestSchemasAreBounded: the schema itself is read by the same parsers.
func TestSchemasAreBounded(t *testing.T) {
	for _, source := range []string{
		`{"maximum":1e401}`,
		`{"$dynamicAnchor":"n","$defs":{"x":{"$id":"weir:///x","$dynamicAnchor":"n"}},"properties":{"a":{"$dynamicRef":"#n"}}}`,
		`{"const":` + strings.Repeat("[", schemaDepth) + strings.Repeat("]", schemaDepth) + `}`,
	} {
		if _, err := Compile([]byte(source)); err == nil {
			t.Errorf("%.40s: compiles", source)
		}
	}
}

// TestFindingsAreShort: a body can't make its answer longer than itself.
func TestFindingsAreShort(t *testing.T) {
	s := compile(t, `{"additionalProperties":{"allOf":[{"pattern":"^a"},{"pattern":"^b"},{"pattern":"^c"},{"const":1}]}}`)
	name := strings.Repeat("é", 50_000)
	var invalid *InvalidError
	if err := s.Validate([]byte(`{"` + name + `":"` + name + `"}`)); !errors.As(err, &invalid) {
		t.Fatal(err)
	}
	for _, f := range invalid.Findings {
		if len(f.Pointer) > maxFindingBytes+3 || len(f.Detail) > maxFindingBytes+3 {
			t.Errorf("a finding of %d and %d bytes", len(f.Pointer), len(f.Detail))
		}
	}
}

func BenchmarkCheckBounds(b *testing.B) {
	for name, text := range map[string]string{
		"1k":  `{"sku":"` + strings.Repeat("a-123", 200) + `"}`,
		"256": `{"sku":"a-123","quantity":1,"customer":"` + strings.Repeat("x", 200) + `","at":"2026-01-01T00:00:00Z"}`,
		"64k": strings.Repeat(`{"sku":"a-123","quantity":1,"price":12.50},`, 1500),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			body := []byte(text)
			for b.Loop() {
				_ = CheckBounds(body, DefaultMaxDepth)
			}
		})
	}
}
