// Package batch forms batches by count, bytes and age. It is pure: the caller passes the time and owns
// the goroutine.
//
// Invariants: items leave in the order in which they came; a batch holds at least one item, at most
// Policy.MaxItems, and at most Policy.MaxBytes unless its first item alone is larger.
//
// May import: the standard library only.
package batch

import "time"

// Policy bounds a batch. A batch is complete at the first bound that is met.
type Policy struct {
	MaxItems int
	MaxBytes int
	Window   time.Duration // how long the oldest item waits for others; zero means not at all
}

// Accumulator is a first-in first-out buffer that gives out batches. It is not safe for concurrent use
// and does not bound itself: the caller stops adding when Bytes is at its limit.
type Accumulator[T any] struct {
	policy Policy
	items  []entry[T] // items[:head] have left
	head   int
	bytes  int
}

type entry[T any] struct {
	item T
	size int
	at   time.Time
}

// NewAccumulator returns an empty accumulator.
func NewAccumulator[T any](p Policy) *Accumulator[T] { return &Accumulator[T]{policy: p} }

// SetPolicy makes p the policy of what is held and of what comes.
func (a *Accumulator[T]) SetPolicy(p Policy) { a.policy = p }

// Add appends an item of size bytes that arrived at now.
func (a *Accumulator[T]) Add(item T, size int, now time.Time) {
	a.items = append(a.items, entry[T]{item, size, now})
	a.bytes += size
}

// Len is the number of items held.
func (a *Accumulator[T]) Len() int { return len(a.items) - a.head }

// Bytes is the sum of the sizes of the items held.
func (a *Accumulator[T]) Bytes() int { return a.bytes }

// Full reports whether the next batch is complete by count or bytes.
func (a *Accumulator[T]) Full() bool {
	return a.Len() >= a.policy.MaxItems || a.bytes >= a.policy.MaxBytes
}

// Due returns when the next batch may be taken: the zero time when it is full (at once), ok false when
// there is nothing.
func (a *Accumulator[T]) Due() (at time.Time, ok bool) {
	if a.Len() == 0 {
		return time.Time{}, false
	}
	if a.Full() {
		return time.Time{}, true
	}
	return a.items[a.head].at.Add(a.policy.Window), true
}

// Take removes and returns the next batch, or nil when none is due at now. The slice is the caller's.
func (a *Accumulator[T]) Take(now time.Time) []T {
	if at, ok := a.Due(); !ok || now.Before(at) {
		return nil
	}
	rest, n, bytes := a.items[a.head:], 0, 0
	for n < len(rest) && n < a.policy.MaxItems && (n == 0 || bytes+rest[n].size <= a.policy.MaxBytes) {
		bytes += rest[n].size
		n++
	}
	out := make([]T, n)
	for i := range out {
		out[i] = rest[i].item
	}
	clear(rest[:n]) // drop the references
	a.head += n
	a.bytes -= bytes
	if a.head > len(a.items)/2 { // each item is moved at most once on average
		kept := copy(a.items, a.items[a.head:])
		clear(a.items[kept:])
		a.items, a.head = a.items[:kept], 0
	}
	return out
}

// Remove takes out and returns the unwanted items, in the order in which they came; the others keep their order.
func (a *Accumulator[T]) Remove(unwanted func(T) bool) []T {
	var out []T
	kept := a.items[:0]
	for _, e := range a.items[a.head:] {
		if unwanted(e.item) {
			out = append(out, e.item)
			a.bytes -= e.size
		} else {
			kept = append(kept, e)
		}
	}
	clear(a.items[len(kept):])
	a.items, a.head = kept, 0
	return out
}
