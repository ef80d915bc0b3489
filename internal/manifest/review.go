package manifest

import (
	"slices"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
)

// Review says what [Memory.Reconcile] would say of one of objs, in the same words, before it is in the cluster, or is there as it
// is in objs. Mistakes are its own, or those of its routes beside the others'. Doubts are what doesn't fit with other objects as they
// are now: they may be the next to change, as manifests come in any order.
func (m *Memory) Review(objs *Objects, former *catalog.Catalog, ref Ref) (mistakes, doubts []string) {
	before := newPublished(former)
	checkSchema, checkDefinition := m.checkSchemas(), m.checkDefinitions()
	find := func(objs *Objects) (found []string) {
		r := newReconciler(objs, before, Options{FunctionURL: catalog.ServiceURL, OrchestratorURL: m.OrchestratorURL, AllowedRoutes: m.AllowedRoutes})
		r.admitted = true
		r.checkSchema, r.checkDefinition = checkSchema, checkDefinition
		r.check()
		for _, err := range r.findings[ref].sorted() {
			found = append(found, sentences(Errors{err}))
		}
		return found
	}
	doubts = find(objs)
	mistakes = find(objs.alone(ref))
	return mistakes, slices.DeleteFunc(doubts, func(s string) bool { return slices.Contains(mistakes, s) })
}

// alone are an object and, if it is an API, the others; what else it names may be there.
func (o *Objects) alone(ref Ref) *Objects {
	its := &Objects{incomplete: true}
	switch ref.Kind {
	case kindAPI:
		its.APIs = slices.Clone(o.APIs)
	case kindQueue:
		its.Queues = only(o.Queues, func(q *v1alpha1.Queue) bool { return q.Name == ref.Name && q.Namespace == ref.Namespace })
	case kindMapping:
		its.Mappings = only(o.Mappings, func(m *v1alpha1.EventSourceMapping) bool { return m.Name == ref.Name && m.Namespace == ref.Namespace })
	case kindMachine:
		its.Machines = only(o.Machines, func(m *v1alpha1.StateMachine) bool { return m.Name == ref.Name && m.Namespace == ref.Namespace })
	}
	return its
}
