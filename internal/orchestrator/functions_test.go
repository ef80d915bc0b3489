package orchestrator_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/orchestrator"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestSlowFunction: a function gets as many calls at once as it takes, in turn, and one that is slow is in no other's way.
func TestSlowFunction(t *testing.T) {
	const calls, atOnce = 30, 2
	w := newWorld(t)
	release := make(chan struct{})
	var now, most atomic.Int32
	w.answers(func(function string, _ []byte) (int, string) {
		if function == "slow" {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-release
			now.Add(-1)
		}
		return http.StatusOK, `{}`
	})
	cat := &catalog.Catalog{
		Services: []catalog.Service{{Key: catalog.Key{Namespace: "default", Name: "slow"}, MaxConcurrency: atOnce}},
		Mappings: []catalog.Mapping{{Function: catalog.Function{URL: w.functions.URL + "/slow"}, MaxConcurrency: atOnce + 1}},
	}
	r := w.startKnowing("a", cat, func(*orchestrator.Config) {})
	for _, name := range []string{"slow", "quick"} {
		r.put(name, fmt.Sprintf(`{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": %q, "End": true}}}`, name))
	}
	var ids []string
	for n := range calls {
		ids = append(ids, r.begin("slow", fmt.Sprint(n), `{}`))
	}
	testkit.Eventually(t, "the slow function is called", func() bool { return now.Load() == atOnce })
	if got := r.end(r.begin("quick", "x", `{}`)); got != `{}` {
		t.Error(got)
	}
	close(release)
	for _, id := range ids {
		if got := r.end(id); got != `{}` {
			t.Error(id, got)
		}
	}
	if most.Load() != atOnce || w.called("slow") != calls {
		t.Errorf("%d calls, %d at once", w.called("slow"), most.Load())
	}
}
