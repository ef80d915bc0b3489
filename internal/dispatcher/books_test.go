package dispatcher

import (
	"math/rand/v2"
	"testing"
)

// TestBooks holds the books to a list of the blocks, over random deliveries, settlements and purges.
func TestBooks(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		ta := newBooks()
		floor := rng.Uint64N(1000)
		ta.begin(floor)
		type held struct{ records, settled int }
		blocks, next, purged := map[uint64]*held{}, floor+1, floor
		for range 300 {
			switch rng.IntN(4) {
			case 0, 1:
				n := 1 + rng.IntN(3)
				blocks[next] = &held{records: n}
				ta.take(next, n)
				next++
			case 2:
				for seq := purged + 1; seq < next; seq++ {
					if b := blocks[seq]; rng.IntN(3) == 0 && b.settled < b.records {
						b.settled++
						ta.settle(1)
					}
				}
			case 3:
				for b := blocks[purged+1]; b != nil && b.settled == b.records; b = blocks[purged+1] {
					purged++
				}
				ta.purge(ta.session(), purged)
			}
			want := 0
			for seq := purged + 1; seq < next; seq++ {
				want += blocks[seq].settled
			}
			got := ta.state(0)
			// What is settled and could be purged is purged later.
			if got.Settled != int64(want) || got.Last != next-1 || got.Purged != purged || got.Unaccounted != 0 || !got.Exact {
				t.Fatalf("%+v, want %d settled after %d, last %d", got, want, purged, next-1)
			}
		}
		if len(ta.runs) > int(next-purged) {
			t.Fatal("runs are not merged")
		}
	}
}

// TestBooksMissNothing: blocks that vanish are counted, before they were delivered or by a gap; a block that is redelivered after
// its acknowledgement was lost is not.
func TestBooksMissNothing(t *testing.T) {
	t.Parallel()
	ta := newBooks()
	ta.begin(10)
	ta.take(11, 5)
	ta.take(14, 1) // 12 and 13 are missing
	if got := ta.state(0).Unaccounted; got != 2 {
		t.Errorf("%d are missing, want 2", got)
	}
	ta.settle(6)
	ta.take(11, 5) // again
	if got := ta.state(0).Settled; got != 1 {
		t.Errorf("%d are settled, want 1", got)
	}
	ta.settle(5)
	ta.purge(ta.session(), 20) // 15 to 20 were removed by hand
	if got := ta.state(0); got.Unaccounted != 8 || got.Settled != 0 || got.Last != 20 {
		t.Errorf("%+v", got)
	}
	former := ta.session()
	ta.begin(20)
	ta.purge(former, 25) // seen before the session began
	if got := ta.state(3); got.Purged != 20 || got.Unaccounted != 11 {
		t.Errorf("%+v", got)
	}
}

// TestBooksWithoutRoom: past the runs that are kept nothing is said to be exact, or settled, until all of that is purged.
func TestBooksWithoutRoom(t *testing.T) {
	t.Parallel()
	ta := newBooks()
	ta.room = 3
	ta.begin(0)
	for seq := range uint64(6) { // each another run: the last three find no room
		ta.take(seq+1, int(seq+1))
		ta.settle(int(seq + 1))
	}
	if got := ta.state(0); got.Exact || got.Settled != 0 {
		t.Errorf("%+v, want nothing to be known", got)
	}
	ta.purge(ta.session(), 4)
	if got := ta.state(0); got.Exact || got.Settled != 0 || got.Purged != 4 {
		t.Errorf("%+v, want nothing to be known but what is purged", got)
	}
	ta.take(7, 70)
	ta.take(8, 80)
	ta.settle(80)
	ta.purge(ta.session(), 6)
	if got := ta.state(0); !got.Exact || got.Settled != 80 || got.Unaccounted != 0 {
		t.Errorf("%+v, want 80 settled", got)
	}
	ta.settle(70)
	ta.purge(ta.session(), 8)
	if got := ta.state(0); !got.Exact || got.Settled != 0 {
		t.Errorf("%+v", got)
	}
	former := ta.session()
	ta.end()
	ta.purge(former, 9)
	if got := ta.state(0); got.Exact || got.Purged != 8 {
		t.Errorf("after the session's end: %+v", got)
	}
}
