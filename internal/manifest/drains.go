package manifest

import (
	"fmt"
	"strings"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
)

// Why nobody takes the records out of a queue.
const (
	// NoMapping: no EventSourceMapping names it.
	NoMapping Reason = "NoMapping"
	// MappingNotInUse: the one that does is invalid, and was never valid.
	MappingNotInUse Reason = "MappingNotInUse"
)

// Drain says whether somebody takes records out of a queue: By whom, or why not.
type Drain struct {
	By      string
	Verdict // zero if somebody does
}

// DrainedBy are the mappings in use, by their queue.
func DrainedBy(cat *catalog.Catalog) map[catalog.Key]catalog.Key {
	by := make(map[catalog.Key]catalog.Key, len(cat.Mappings))
	for i := range cat.Mappings {
		by[cat.Mappings[i].Queue] = cat.Mappings[i].Key
	}
	return by
}

// drains judges the queues in use, and the APIs in use that fill queues.
func (r *reconciler) drains() map[Ref]Drain {
	by := DrainedBy(&r.out)
	idle := map[catalog.Key]string{} // a mapping that names the queue, and is not in use
	for _, o := range r.objs.Mappings {
		idle[catalog.Key{Namespace: o.Object.Namespace, Name: o.Object.Spec.Queue}] = o.Object.Name
	}
	all := map[Ref]Drain{}
	for k, q := range r.queues {
		d := Drain{}
		switch mapping, drained := by[k]; {
		case drained:
			d.By = fmt.Sprintf("EventSourceMapping %s takes the records out", mapping.Name)
		case idle[k] != "":
			d.Verdict = Verdict{MappingNotInUse, fmt.Sprintf("EventSourceMapping %s is not in use: its own status says why. %s", idle[k], untilThen(q))}
		case r.objs.DrainedElsewhere[k] != "":
			name := r.objs.DrainedElsewhere[k]
			d.Verdict = Verdict{NoMapping, fmt.Sprintf("EventSourceMapping %s has spec.queue: %s, but %s. %s", name, k.Name, r.objs.Elsewhere[MappingRef(catalog.Key{Namespace: k.Namespace, Name: name})], untilThen(q))}
		default:
			d.Verdict = Verdict{NoMapping, fmt.Sprintf("No EventSourceMapping has spec.queue: %s; add one. %s", k.Name, untilThen(q))}
		}
		all[QueueRef(k)] = d
	}
	for i := range r.out.APIs {
		a := &r.out.APIs[i]
		var fills bool
		var first Reason
		var lines []string
		for j := range a.Routes {
			q := a.Routes[j].Fills()
			if q == nil {
				continue
			}
			fills = true
			if d := all[QueueRef(*q)]; d.Verdict != (Verdict{}) {
				if first == "" {
					first = d.Reason
				}
				lines = append(lines, fmt.Sprintf("Route %s fills Queue %s, which nobody drains. %s", a.Routes[j].Name, q.Name, d.Message))
			}
		}
		if fills {
			d := Drain{By: "The queues that its routes fill are drained"}
			if len(lines) > 0 {
				d = Drain{Verdict: Verdict{first, strings.Join(lines, "\n")}}
			}
			all[APIRef(a.Key)] = d
		}
	}
	return all
}

func untilThen(q catalog.Queue) string {
	return fmt.Sprintf("Records are taken in meanwhile, and are dead letters once they are older than %s", v1alpha1.FormatDuration(q.MaxAge))
}
