package dispatcher

import (
	"crypto/rand"
	"sync"

	"github.com/weir-dev/weir/internal/stream"
)

// books counts the records of the blocks in the queue's stream that this process has settled, so that the queue's depth is
// known exactly (stream.Depth): a block stays in the stream until all before it are settled too, and is then removed with
// them. It also notices blocks that are missing. TestBooks guards it.
type books struct {
	epoch string
	room  int // maxRuns

	mu      sync.Mutex
	exact   bool
	nth     int   // session
	runs    []run // the blocks after purged that were delivered, in the order of their sequences
	purged  uint64
	last    uint64
	settled int64
	total   int64
	missing int64 // blocks that were passed over: kept over sessions

	// Of the blocks that found no room in runs: the last one, and the records of all of them.
	lostTo uint64
	lost   int64
}

// run is blocks of consecutive sequences with as many records each.
type run struct {
	first, blocks uint64
	records       int64 // of each block
}

// maxRuns bounds the runs that are kept; past it they aren't exact until the blocks that found no room are purged. A run is a
// block at worst, and so many are behind a call that takes an hour.
const maxRuns = 1 << 17

func newBooks() *books { return &books{epoch: rand.Text(), room: maxRuns} }

// begin starts a session: all blocks up to floor are settled and were removed; those after it are delivered, again or for
// the first time.
func (t *books) begin(floor uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.exact, t.runs, t.purged, t.last, t.settled = true, nil, floor, floor, 0
	t.lostTo, t.lost = 0, 0
	t.nth++
}

// session is the number of the session, for purge.
func (t *books) session() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.nth
}

// end ends a session: until the next one begins nothing is known.
func (t *books) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.exact, t.runs = false, nil
	t.nth++ // what was seen in it counts no more
}

// take counts a block of n records that was delivered. One that was settled here before, whose acknowledgement was lost,
// counts as unsettled again.
func (t *books) take(seq uint64, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq <= t.last {
		t.settled -= int64(n)
		return
	}
	t.missing += int64(seq - t.last - 1)
	t.last = seq
	if i := len(t.runs) - 1; i >= 0 && t.runs[i].records == int64(n) && t.runs[i].first+t.runs[i].blocks == seq {
		t.runs[i].blocks++
		return
	}
	if len(t.runs) >= t.room {
		t.exact, t.lostTo = false, seq
		t.lost += int64(n)
		return
	}
	t.runs = append(t.runs, run{seq, 1, int64(n)})
}

// settle counts n records of delivered blocks that are settled.
func (t *books) settle(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settled += int64(n)
	t.total += int64(n)
}

// purge counts the blocks up to floor, as was seen in the session nth, as removed.
func (t *books) purge(nth int, floor uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if nth != t.nth || floor <= t.purged {
		return
	}
	t.purged = floor
	if floor > t.last { // removed by somebody else, before they were delivered
		t.missing += int64(floor - t.last)
		t.last = floor
	}
	n := 0
	for ; n < len(t.runs) && t.runs[n].first <= floor; n++ {
		r := &t.runs[n]
		gone := min(r.blocks, floor-r.first+1)
		t.settled -= int64(gone) * r.records
		if r.first, r.blocks = r.first+gone, r.blocks-gone; r.blocks > 0 {
			break
		}
	}
	if t.runs = t.runs[n:]; len(t.runs) == 0 {
		t.runs = nil
	}
	if t.lostTo != 0 && floor >= t.lostTo { // all of these were settled, and are gone
		t.settled -= t.lost
		t.exact, t.lostTo, t.lost = true, 0, 0
	}
}

// state is what is told of them. unaccounted are records that the books of the mapping lack.
func (t *books) state(unaccounted int) stream.Tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	settled := t.settled
	if !t.exact { // it holds what is purged
		settled = 0
	}
	return stream.Tally{
		Exact: t.exact, Purged: t.purged, Last: t.last, Settled: settled, Total: t.total, Epoch: t.epoch,
		Unaccounted: t.missing + int64(unaccounted),
	}
}

// unaccounted is how many of the records that were taken the books lack: 0.
func (s Stats) unaccounted() int {
	return s.Taken - (s.Done + s.Retried + s.Dead + s.InHand + s.Returned)
}
