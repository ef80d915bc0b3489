package jsonata

import (
	"context"
	"testing"

	"github.com/weir-dev/weir/internal/jsontree"
)

func BenchmarkEval(b *testing.B) {
	input, err := jsontree.Parse([]byte(`{"items":[{"price":10.5,"quantity":3},{"price":5,"quantity":20}],"customer":{"vip":true,"name":"Ann"},"order":{"id":"o-1"}}`))
	if err != nil {
		b.Fatal(err)
	}
	states, err := jsontree.Parse([]byte(`{"input":{"order":{"id":"o-1","total":20}}}`))
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{
		"small":  `$sum(items.(price*quantity)) > 100 and customer.vip`,
		"path":   `$states.input.order.id`,
		"object": `{"id": order.id, "name": $uppercase(customer.name), "total": $sum(items.price)}`,
		"map":    `$map(items, function($i){$i.price * 2})`,
		"filter": `items[price > 6].quantity`,
		"regex":  `$contains(customer.name, /^a/i)`,
	} {
		b.Run(name, func(b *testing.B) {
			e, err := Compile(text)
			if err != nil {
				b.Fatal(err)
			}
			env := Env{Scope: Variables{"states": states}}
			b.ReportAllocs()
			for b.Loop() {
				if _, ok, err := e.Eval(context.Background(), input, env); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Compile(`$sum(items.(price*quantity)) > 100 and customer.vip`); err != nil {
			b.Fatal(err)
		}
	}
}
