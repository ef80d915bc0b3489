package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/schema"
)

// Schemas that refer to themselves: one that holds each value of a body once, and one that does twice at each level.
const (
	tree  = `{"type":"object","properties":{"left":{"$ref":"#"},"right":{"$ref":"#"},"v":{"type":"integer"}},"additionalProperties":false}`
	twice = `{"anyOf":[{"properties":{"a":{"$ref":"#"}},"required":["a"]},{"properties":{"a":{"$ref":"#"}},"required":["b"]},{"type":"integer"}]}`
)

// nastyBodies are bodies below all bounds that cost a check as much as they can, each with its schema.
func nastyBodies() map[string][2]string {
	const size, digits = 64 << 10, 400
	fill := func(item string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(item+",", size/(len(item)+1)), ",") + "]"
	}
	chain := func(name string, deep int, leaf string) string {
		return strings.Repeat(`{"`+name+`":`, deep) + leaf + strings.Repeat("}", deep)
	}
	return map[string][2]string{
		"numbers":      {`{"items":{"minimum":0,"maximum":10,"multipleOf":0.01}}`, fill("1e400")},
		"long_numbers": {`{"items":{"minimum":0,"multipleOf":0.01}}`, fill(strings.Repeat("7", digits))},
		"fractions":    {`{"items":{"minimum":0,"multipleOf":0.01}}`, fill("1e-400")},
		"integers":     {`{"items":{"type":"integer"}}`, fill("1.0e399")},
		"enum":         {`{"items":{"enum":[1,2,3,4,5]}}`, fill("5.0")},
		"unique":       {`{"uniqueItems":true,"items":{"uniqueItems":true}}`, fill("[" + strings.TrimSuffix(strings.Repeat("1e400,", 19), ",") + "]")},
		"unique_many":  {`{"uniqueItems":true}`, fill("[1]")},
		"any_of":       {`{"items":{"anyOf":[{"type":"string"},{"const":2},{"required":["a"]},{"minimum":5}]}}`, fill(`{}`)},
		"one_of": {
			`{"items":{"oneOf":[{"properties":{"k":{"const":"a"},"v":{"type":"string"}}},{"properties":{"k":{"const":"b"},"v":{"type":"string"}}}]}}`,
			fill(`{"k":"c","v":1}`),
		},
		"tree":        {tree, chain("left", 120, `{"right":`+chain("left", 5, `{}`)+"}")},
		"unevaluated": {`{"items":{"allOf":[{"properties":{"a":true}},{"properties":{"b":true}}],"unevaluatedProperties":false}}`, fill(`{"a":1,"b":2,"c":3}`)},
		"patterns":    {`{"items":{"pattern":"^(a|b|ab)*c$"}}`, fill(`"` + strings.Repeat("ab", 100) + `"`)},
		"names":       {`{"propertyNames":{"pattern":"^(a|b|ab)*$"},"patternProperties":{"x$":{},"y$":{}}}`, `{"a":` + fill("0") + `}`},
		"budget":      {twice, chain("a", 9, "1")},
		"over_budget": {twice, chain("a", 100, "1")},
	}
}

// schema measures what the check of a body costs at worst, a KiB of it, over a corpus of nasty ones. It is the median of
// the rounds, in this process: it is all CPU.
func (b *bench) schema(ctx context.Context) error {
	const least = 200 * time.Millisecond
	for range b.rounds {
		worst := 0.0
		for name, c := range nastyBodies() {
			s, err := schema.Compile([]byte(c[0]))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			text := []byte(c[1])
			if err := schema.CheckBounds(text, schema.DefaultMaxDepth); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			n, start := 0, time.Now()
			for time.Since(start) < least {
				_ = s.Validate(text) // whether it is valid doesn't matter
				n++
				if err := context.Cause(ctx); err != nil {
					return err
				}
			}
			cost := float64(time.Since(start).Microseconds()) / float64(n) / (float64(len(text)) / 1024)
			b.results.add("schema_us_per_kib_"+name, cost)
			worst = max(worst, cost)
		}
		b.results.add("schema_worst_us_per_kib", worst)
	}
	return nil
}
