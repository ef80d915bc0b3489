package throttle

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	start := time.Unix(0, 0)
	b := New(10, 2, start)
	for i, row := range []struct {
		at   time.Duration
		ok   bool
		wait time.Duration
	}{
		{0, true, 0},
		{0, true, 0},
		{0, false, 100 * time.Millisecond},
		{50 * time.Millisecond, false, 50 * time.Millisecond},
		{100 * time.Millisecond, true, 0},
		{100 * time.Millisecond, false, 100 * time.Millisecond},
		{90 * time.Millisecond, false, 100 * time.Millisecond}, // a clock that steps back takes nothing away
		{time.Hour, true, 0},                                   // never more than the burst
		{time.Hour, true, 0},
		{time.Hour, false, 100 * time.Millisecond},
	} {
		ok, wait := b.Take(start.Add(row.at))
		if ok != row.ok || wait.Round(time.Microsecond) != row.wait {
			t.Errorf("take %d at %s: %t, wait %s; want %t, %s", i, row.at, ok, wait, row.ok, row.wait)
		}
	}
	b.Return()
	if ok, _ := b.Take(start.Add(time.Hour)); !ok {
		t.Error("a returned token can't be taken")
	}
}

// TestAChangedBucketIsAsFull: tokens are carried over as a fraction, so changes to and fro give none.
func TestAChangedBucketIsAsFull(t *testing.T) {
	now := time.Unix(0, 0)
	left := func(b *Bucket) (n int) {
		for ok, _ := b.Take(now); ok; ok, _ = b.Take(now) {
			n++
		}
		return n
	}
	b := New(1, 100, now)
	for range 50 {
		b.Take(now)
	}
	if n := left(b.Changed(1, 10, now)); n != 5 {
		t.Errorf("half of a burst of 10 are %d", n)
	}
	for range 10 {
		b = b.Changed(1, 1000, now).Changed(7, 100, now)
	}
	if n := left(b); n != 50 {
		t.Errorf("%d tokens are left of 50 after changes to and fro", n)
	}
	if n := left(b.Changed(1, 1000, now)); n != 0 {
		t.Errorf("an empty bucket changed has %d", n)
	}
	// What came in at the former rate is counted; then the new rate holds.
	b = New(2, 10, now)
	left(b)
	now = now.Add(time.Second)
	b = b.Changed(4, 10, now)
	now = now.Add(time.Second)
	if n := left(b); n != 6 {
		t.Errorf("2 and 4 tokens make %d", n)
	}
}

func TestManyTakersGetTheBurstOnly(t *testing.T) {
	now := time.Unix(0, 0)
	b := New(1, 100, now)
	var got atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if ok, _ := b.Take(now); ok {
					got.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got.Load() != 100 {
		t.Errorf("%d tokens were taken of 100", got.Load())
	}
}
