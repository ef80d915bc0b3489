package batch

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestABatchIsCompleteAtTheFirstBound(t *testing.T) {
	start := time.Unix(0, 0)
	type add struct {
		size int
		at   time.Duration
	}
	for _, row := range []struct {
		name   string
		policy Policy
		adds   []add
		now    time.Duration
		want   int
	}{
		{"nothing", Policy{MaxItems: 2, MaxBytes: 10}, nil, 0, 0},
		{"no window: at once", Policy{MaxItems: 2, MaxBytes: 10}, []add{{1, 0}}, 0, 1},
		{"before the window", Policy{2, 10, time.Second}, []add{{1, 0}}, time.Second - 1, 0},
		{"at the window's end", Policy{2, 10, time.Second}, []add{{1, 0}}, time.Second, 1},
		{"count before the window", Policy{2, 10, time.Second}, []add{{1, 0}, {1, 0}, {1, 0}}, 0, 2},
		{"bytes before the window", Policy{5, 10, time.Second}, []add{{6, 0}, {6, 0}}, 0, 1},
		{"one large item", Policy{5, 10, time.Second}, []add{{60, 0}}, 0, 1},
		{"the window is the oldest item's", Policy{5, 10, time.Second}, []add{{1, 0}, {1, time.Second - 1}}, time.Second, 2},
	} {
		a := NewAccumulator[int](row.policy)
		for i, x := range row.adds {
			a.Add(i, x.size, start.Add(x.at))
		}
		if got := a.Take(start.Add(row.now)); len(got) != row.want {
			t.Errorf("%s: %d items, want %d", row.name, len(got), row.want)
		}
	}
}

// TestNothingIsLostOrReordered against a plain list.
func TestNothingIsLostOrReordered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{
			MaxItems: rapid.IntRange(1, 5).Draw(t, "items"), MaxBytes: rapid.IntRange(1, 20).Draw(t, "bytes"),
			Window: time.Duration(rapid.IntRange(0, 5).Draw(t, "window")),
		}
		a := NewAccumulator[int](p)
		now := time.Unix(0, 0)
		var sizes, held []int
		next, bytes := 0, 0
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "time")))
			if rapid.Bool().Draw(t, "add") {
				size := rapid.IntRange(0, 12).Draw(t, "size")
				a.Add(len(sizes), size, now)
				held, sizes, bytes = append(held, len(sizes)), append(sizes, size), bytes+size
			} else {
				got := a.Take(now)
				sum := 0
				for _, i := range got {
					if i != next {
						t.Fatalf("item %d came, want %d", i, next)
					}
					next++
					sum += sizes[i]
				}
				if len(got) > p.MaxItems || sum > p.MaxBytes && len(got) > 1 {
					t.Fatalf("%d items of %d bytes with %+v", len(got), sum, p)
				}
				held, bytes = held[len(got):], bytes-sum
			}
			if a.Len() != len(held) || a.Bytes() != bytes {
				t.Fatalf("holds %d items of %d bytes, want %d of %d", a.Len(), a.Bytes(), len(held), bytes)
			}
			at, ok := a.Due()
			if ok != (len(held) > 0) {
				t.Fatalf("due %t with %d items", ok, len(held))
			}
			if got := ok && !now.Before(at); got != (len(held) > 0 && (a.Full() || p.Window == 0 || !now.Before(at))) {
				t.Fatalf("due at %s", at)
			}
		}
	})
}

func TestRemoveKeepsTheOthersInOrder(t *testing.T) {
	now := time.Unix(0, 0)
	a := NewAccumulator[int](Policy{MaxItems: 2, MaxBytes: 100})
	for i := range 9 {
		a.Add(i, i, now)
	}
	a.Take(now) // 0 and 1
	if got := a.Remove(func(i int) bool { return i%3 == 0 }); !slices.Equal(got, []int{3, 6}) || a.Len() != 5 || a.Bytes() != 2+4+5+7+8 {
		t.Errorf("%v; %d of %d bytes are left", got, a.Len(), a.Bytes())
	}
	a.Add(9, 9, now)
	var rest []int
	for got := a.Take(now); got != nil; got = a.Take(now) {
		rest = append(rest, got...)
	}
	if !slices.Equal(rest, []int{2, 4, 5, 7, 8, 9}) || a.Len() != 0 || a.Bytes() != 0 {
		t.Errorf("%v; %d of %d bytes are left", rest, a.Len(), a.Bytes())
	}
}
