package orchestrator

// agenda is a heap of container/heap, the earliest first.
type agenda[T any] struct {
	all    []T
	moment func(T) int64 // Unix milliseconds
	moved  func(T, int)  // is told the place of one
}

// Len implements heap.Interface.
func (a *agenda[T]) Len() int { return len(a.all) }

// Less implements heap.Interface.
func (a *agenda[T]) Less(i, j int) bool { return a.moment(a.all[i]) < a.moment(a.all[j]) }

// Swap implements heap.Interface.
func (a *agenda[T]) Swap(i, j int) {
	a.all[i], a.all[j] = a.all[j], a.all[i]
	a.moved(a.all[i], i)
	a.moved(a.all[j], j)
}

// Push implements heap.Interface.
func (a *agenda[T]) Push(x any) {
	added := x.(T) //nolint:forcetypeassert // nothing else is pushed
	a.moved(added, len(a.all))
	a.all = append(a.all, added)
}

// Pop implements heap.Interface.
func (a *agenda[T]) Pop() any {
	last := a.all[len(a.all)-1]
	a.all = a.all[:len(a.all)-1]
	return last
}
