package orchestrator

import (
	"container/heap"
	"slices"

	"github.com/weir-dev/weir/internal/catalog"
)

// offers are the tasks of a partition's activities that no worker has. Those of an execution are one for each activity. How many
// there are may be wrong for a moment, while some are being taken: whoever finds none goes on to the next.
type offers struct {
	queues map[catalog.Key]*queue
	by     map[string][]*offer // execution
}

// queue is an activity's offers, the oldest first.
type queue struct {
	heap  agenda[*offer]
	tasks int // of all
}

type offer struct {
	execution string // its key
	activity  catalog.Key
	untaken
	place int
}

func newOffers() offers {
	return offers{queues: map[catalog.Key]*queue{}, by: map[string][]*offer{}}
}

// set replaces an execution's offers, and returns how many tasks each activity has more than before.
func (o *offers) set(execution string, all map[catalog.Key]untaken) (more map[catalog.Key]int) {
	had := map[catalog.Key]int{}
	for _, f := range slices.Clone(o.by[execution]) {
		had[f.activity] = f.tasks
		if u := all[f.activity]; u.tasks == 0 || u.since != f.since {
			o.add(*f, -f.tasks)
		}
	}
	for activity, u := range all {
		n := 0
		if f := o.find(execution, activity); f != nil {
			n = f.tasks
		}
		o.add(offer{execution: execution, activity: activity, untaken: u}, u.tasks-n)
		if u.tasks > had[activity] {
			if more == nil {
				more = map[catalog.Key]int{}
			}
			more[activity] = u.tasks - had[activity]
		}
	}
	return more
}

func (o *offers) find(execution string, activity catalog.Key) *offer {
	for _, f := range o.by[execution] {
		if f.activity == activity {
			return f
		}
	}
	return nil
}

// add changes how many tasks an offer has, by n; none is no offer.
func (o *offers) add(of offer, n int) {
	q, f := o.queues[of.activity], o.find(of.execution, of.activity)
	if f == nil && n <= 0 {
		return
	}
	if q == nil {
		q = &queue{heap: agenda[*offer]{moment: func(f *offer) int64 { return f.since }, moved: func(f *offer, place int) { f.place = place }}}
		o.queues[of.activity] = q
	}
	if f == nil {
		f = &offer{execution: of.execution, activity: of.activity, untaken: untaken{since: of.since}}
		o.by[f.execution] = append(o.by[f.execution], f)
		heap.Push(&q.heap, f)
	}
	f.tasks += n
	q.tasks += n
	if f.tasks > 0 {
		return
	}
	heap.Remove(&q.heap, f.place)
	if len(q.heap.all) == 0 {
		delete(o.queues, f.activity)
	}
	rest := slices.DeleteFunc(o.by[f.execution], func(other *offer) bool { return other == f })
	if o.by[f.execution] = rest; len(rest) == 0 {
		delete(o.by, f.execution)
	}
}

// claim takes a task out of an activity's oldest offer, and returns that; ok is false if there is none.
func (o *offers) claim(activity catalog.Key) (f offer, ok bool) {
	q := o.queues[activity]
	if q == nil {
		return offer{}, false
	}
	f = *q.heap.all[0]
	o.add(f, -1)
	return f, true
}

// count is how many tasks an activity has.
func (o *offers) count(activity catalog.Key) int {
	if q := o.queues[activity]; q != nil {
		return q.tasks
	}
	return 0
}
