package jsonata_test

import (
	"context"
	"fmt"

	"github.com/weir-dev/weir/internal/jsonata"
	"github.com/weir-dev/weir/internal/jsontree"
)

func Example() {
	e, err := jsonata.Compile(`{"total": $sum(items.(price * quantity)), "parts": $partition([1..3], 2), "vip": $states.input.vip}`, jsonata.WithoutEval())
	if err != nil {
		fmt.Println(err)
		return
	}
	partition, err := jsonata.NewFunction("partition", "<an:a<a>>", 2, func(_ *jsonata.Call, args []any) (any, error) {
		items, _ := args[0].([]any)
		size, _ := jsontree.Float(args[1])
		var parts []any
		for n := int(size); n > 0 && len(items) > 0; items = items[min(n, len(items)):] {
			parts = append(parts, items[:min(n, len(items)):min(n, len(items))])
		}
		return jsonata.Sequence(parts), nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	input, _ := jsontree.Parse([]byte(`{"items":[{"price":2.5,"quantity":4},{"price":1,"quantity":3}]}`))
	states, _ := jsontree.Parse([]byte(`{"input":{"vip":true}}`))
	value, ok, err := e.Eval(context.Background(), input, jsonata.Env{
		Scope: jsonata.Variables{"states": states, "partition": partition},
	})
	text, _ := jsontree.Append(nil, value)
	fmt.Println(string(text), ok, err)
	// Output: {"total":13,"parts":[[1,2],[3]],"vip":true} true <nil>
}
