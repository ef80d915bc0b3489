package dispatcher

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestMemoryFor(t *testing.T) {
	for _, row := range []struct{ limit, want int64 }{
		{math.MaxInt64, DefaultMemory},
		{math.MaxInt64 / 2, DefaultMemory}, // half of none
		{114085068, 57042534},              // a container of 128Mi
		{1 << 20, MinMemory},
	} {
		if got := MemoryFor(row.limit); got != row.want {
			t.Errorf("%d: %d, want %d", row.limit, got, row.want)
		}
	}
}

// TestShares: a mapping alone takes four fifths, and what it leaves is for the next, which takes four fifths of that.
func TestShares(t *testing.T) {
	m := &memory{limit: 1000}
	all := func(s *share) (n int) {
		for s.take(1) == nil {
			n++
		}
		return n
	}
	a, b, c := &share{of: m}, &share{of: m}, &share{of: m}
	if n := all(a); n != 800 {
		t.Errorf("the first takes %d", n)
	}
	if n := all(b); n != 160 {
		t.Errorf("the second takes %d", n)
	}
	if k, _ := c.takeUpTo(5, 10); k != 3 {
		t.Errorf("the third takes %d times 10", k)
	}
	b.add(100) // past the limit: it is there
	freed := b.take(0)
	if freed == nil {
		t.Error("it may have more, past the limit")
	}
	select {
	case <-freed:
		t.Error("freed before anything was")
	default:
	}
	a.add(-800)
	<-freed
	if b.take(0) != nil || b.holds() != 260 || a.holds() != 0 {
		t.Errorf("%d and %d are held", a.holds(), b.holds())
	}
}

// TestMemoryAddsUp: what is taken is never past the limit, is the sum of the shares, and some is left for who has none.
func TestMemoryAddsUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &memory{limit: 1 << 20}
		shares := make([]*share, rapid.IntRange(1, 5).Draw(t, "mappings"))
		for i := range shares {
			shares[i] = &share{of: m}
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			s := rapid.SampledFrom(shares).Draw(t, "mapping")
			if rapid.Bool().Draw(t, "gives") {
				s.add(-rapid.Int64Range(0, s.held).Draw(t, "bytes"))
			} else {
				n, each := rapid.IntRange(1, 16).Draw(t, "n"), rapid.Int64Range(0, 1<<17).Draw(t, "each")
				before := s.held
				k, freed := s.takeUpTo(n, each)
				if k > n || s.held != before+int64(k)*each || (k == 0) != (freed != nil) {
					t.Fatalf("%d of %d were taken, %d are held, before %d", k, n, s.held, before)
				}
				if k > 0 && s.held > greed*(m.limit-m.used) {
					t.Fatalf("%d are held, %d free", s.held, m.limit-m.used)
				}
			}
			var sum int64
			for _, s := range shares {
				sum += s.held
			}
			if sum != m.used || m.used > m.limit {
				t.Fatalf("%d are used, %d held, of %d", m.used, sum, m.limit)
			}
		}
	})
}
