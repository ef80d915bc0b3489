package manifest

import (
	"slices"

	"github.com/weir-dev/weir/internal/catalog"
)

// Review says what [Memory.Reconcile] would say of one of objs, in the same words, before it is in the cluster, or is there as it
// is in objs. Mistakes stay mistakes whatever else is added to the cluster; missing are objects that it names and are not there.
func (m *Memory) Review(objs *Objects, former *catalog.Catalog, ref Ref) (mistakes, missing []string) {
	before := newPublished(former)
	find := func(incomplete bool) (found []string) {
		objs.incomplete = incomplete
		r := newReconciler(objs, before, Options{OrchestratorURL: m.OrchestratorURL, AllowedRoutes: m.AllowedRoutes}.withDefaults())
		r.admitted = true
		r.checkSchema, r.checkDefinition = m.checkSchemas(), m.checkDefinitions()
		r.check()
		for _, err := range r.findings[ref].sorted() {
			found = append(found, sentences(Errors{err}))
		}
		return found
	}
	mistakes = find(true)
	missing = slices.DeleteFunc(find(false), func(s string) bool { return slices.Contains(mistakes, s) })
	return mistakes, missing
}
