package jsonata

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
)

// FuzzEval: no text makes Compile or Eval panic, run for long, or return what jsontree cannot write.
func FuzzEval(f *testing.F) {
	for _, q := range randomQuestions(3, 300) {
		f.Add(q.Expr)
	}
	for _, text := range []string{"/(a|b)*c/", "$match('aaaa',/(a*)*b/)", "[1..10000000]", "$pad('x',1e9)", "($f:=function($x){$f([$x])};$f(1))", "((((", "$formatInteger(1e300,'I')"} {
		f.Add(text)
	}
	input, err := jsontree.Parse([]byte(documents()[0]))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Compile(text)
		if err != nil {
			if _, own := errors.AsType[*Error](err); !own {
				t.Fatalf("%v is no *Error", err)
			}
			return
		}
		_ = e.References()
		begin := time.Now()
		v, ok, err := e.Eval(context.Background(), input, Env{Limits: Limits{Steps: 200_000, Items: 200_000, Bytes: 1 << 20}})
		if took := time.Since(begin); took > 5*time.Second {
			t.Fatalf("it took %v", took)
		}
		if err == nil && ok {
			_ = jsontree.Size(v)
			_ = jsontree.Canonical(nil, v)
		}
	})
}
