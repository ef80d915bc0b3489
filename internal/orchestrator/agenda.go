package orchestrator

// dated is what an agenda holds: it has a moment, and is told its place.
type dated interface {
	moment() int64 // Unix milliseconds
	moved(place int)
}

// agenda is a heap of container/heap, the earliest first.
type agenda[T dated] []T

// Len implements heap.Interface.
func (a *agenda[T]) Len() int { return len(*a) }

// Less implements heap.Interface.
func (a *agenda[T]) Less(i, j int) bool { return (*a)[i].moment() < (*a)[j].moment() }

// Swap implements heap.Interface.
func (a *agenda[T]) Swap(i, j int) {
	all := *a
	all[i], all[j] = all[j], all[i]
	all[i].moved(i)
	all[j].moved(j)
}

// Push implements heap.Interface.
func (a *agenda[T]) Push(x any) {
	added := x.(T) //nolint:forcetypeassert // nothing else is pushed
	added.moved(len(*a))
	*a = append(*a, added)
}

// Pop implements heap.Interface.
func (a *agenda[T]) Pop() any {
	all := *a
	last := all[len(all)-1]
	*a = all[:len(all)-1]
	return last
}
