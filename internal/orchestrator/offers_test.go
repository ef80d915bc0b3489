package orchestrator

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/weir-dev/weir/internal/catalog"
)

// TestOffers holds them against a plain list, over random changes.
func TestOffers(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		o := newOffers()
		type key struct {
			execution string
			activity  catalog.Key
		}
		plain := map[key]untaken{}
		since := int64(0)
		for range 200 {
			activity := catalog.Key{Namespace: "n", Name: fmt.Sprint("a", r.IntN(3))}
			if r.IntN(2) == 0 {
				f, ok := o.claim(activity)
				oldest := int64(0)
				for k, u := range plain {
					if k.activity == activity && (oldest == 0 || u.since < oldest) {
						oldest = u.since
					}
				}
				if ok != (oldest != 0) || ok && f.since != oldest {
					t.Fatalf("seed %d: claimed %+v, %t; the oldest is of %d", seed, f, ok, oldest)
				}
				if ok {
					k := key{f.execution, activity}
					if u := plain[k]; u.tasks == 1 {
						delete(plain, k)
					} else {
						plain[k] = untaken{u.tasks - 1, u.since}
					}
				}
				continue
			}
			execution := fmt.Sprint("x", r.IntN(5))
			all := map[catalog.Key]untaken{}
			for n := range 3 {
				if r.IntN(2) == 0 {
					since++
					all[catalog.Key{Namespace: "n", Name: fmt.Sprint("a", n)}] = untaken{1 + r.IntN(3), since}
				}
			}
			more := o.set(execution, all)
			for n := range 3 {
				a := catalog.Key{Namespace: "n", Name: fmt.Sprint("a", n)}
				k := key{execution, a}
				if want := max(all[a].tasks-plain[k].tasks, 0); more[a] != want {
					t.Fatalf("seed %d: %d more of %s, want %d", seed, more[a], a, want)
				}
				delete(plain, k)
				if u, ok := all[a]; ok {
					plain[k] = u
				}
			}
			for n := range 3 {
				a, tasks := catalog.Key{Namespace: "n", Name: fmt.Sprint("a", n)}, 0
				for k, u := range plain {
					if k.activity == a {
						tasks += u.tasks
					}
				}
				if o.count(a) != tasks {
					t.Fatalf("seed %d: %d tasks of %s, want %d", seed, o.count(a), a, tasks)
				}
			}
		}
		for n := range 5 {
			o.set(fmt.Sprint("x", n), nil)
		}
		if len(o.queues) != 0 || len(o.by) != 0 {
			t.Fatalf("seed %d: %d queues and %d executions are left", seed, len(o.queues), len(o.by))
		}
	}
}
