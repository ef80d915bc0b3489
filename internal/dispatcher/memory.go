package dispatcher

import (
	"math"
	"sync"

	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// The memory of a process that grows with its work is one budget, in bytes, which its mappings share. Charged to it are
//
//	a block in hand     its records as they are decoded, and what their calls' bodies take, until its last record is settled
//	a pull              stream.BlockBytes for each block that it may bring, until it has ended
//	a call              callBytes
//	a result            its bytes, until it is written
//	an object, a large  transferBytes; how many there may be at a time follows from the budget, too (transfers)
//	answer
//
// The one place that waits for memory before it takes a block is the pull, and what a block needs until it is settled is
// charged with it: so what is in hand can always go on. What is there already is charged even where that goes past the
// limit, and then nobody takes more. A mapping that has nothing in hand may always pull a block, and one without a call in
// flight always make one, whatever others hold.
const (
	// DefaultMemory is the budget of a process without a limit to its memory.
	DefaultMemory = 256 << 20
	// MinMemory is the least: a block with its call's body, and some calls.
	MinMemory = 4 << 20
	// memoryShare of the limit is the budget: beside it are the process itself, garbage that isn't collected yet, and what
	// is charged past the limit.
	memoryShare = 0.5
	// greed is how many times what is free a mapping may hold: one alone takes four fifths, two take four ninths each. So
	// some is always free for one that begins, and those whose functions hang don't take the rest.
	greed = 4
	// recordBytes is what a record takes besides its text.
	recordBytes = 512
	// callBytes is what a call takes besides its body: its connection's buffers, and an answer up to invoke.SmallAnswer.
	callBytes = 128 << 10
	// transferBytes is what an input that passes takes, and a large answer. How much a result takes, the store says.
	transferBytes = stream.ObjectBytes
)

// MemoryFor is the budget of a process whose memory limit, or share of one, is so many bytes (GOMEMLIMIT,
// debug.SetMemoryLimit).
func MemoryFor(limit int64) int64 {
	if limit > math.MaxInt64/8 { // there is none
		return DefaultMemory
	}
	return max(MinMemory, int64(memoryShare*float64(limit)))
}

// memory is the budget of a process.
type memory struct {
	limit int64

	mu    sync.Mutex
	used  int64
	freed chan struct{} // closed when some is given back; nil if nobody waits for that
}

// share is what one mapping holds of it.
type share struct {
	of   *memory
	held int64 // guarded by of.mu
}

// take charges n bytes if the mapping may hold as many more: then it returns nil. Else freed is closed once something is
// given back.
func (s *share) take(n int64) (freed <-chan struct{}) {
	k, freed := s.takeUpTo(1, n)
	if k == 1 {
		return nil
	}
	return freed
}

// takeUpTo charges each bytes for as many of n as the mapping may hold.
func (s *share) takeUpTo(n int, each int64) (k int, freed <-chan struct{}) {
	m := s.of
	m.mu.Lock()
	defer m.mu.Unlock()
	if more := greed*(m.limit-m.used) - s.held; more >= 0 {
		k = int(min(int64(n), more/max(1, each*(1+greed))))
	}
	if k > 0 {
		m.used += int64(k) * each
		s.held += int64(k) * each
		return k, nil
	}
	if m.freed == nil {
		m.freed = make(chan struct{})
	}
	return 0, m.freed
}

// add charges n bytes that are there, past the limit too. Less than zero are given back.
func (s *share) add(n int64) {
	m := s.of
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used += n
	s.held += n
	if n < 0 && m.freed != nil {
		close(m.freed)
		m.freed = nil
	}
}

// holds is how many bytes the mapping holds.
func (s *share) holds() int64 {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.held
}

// memoryOf is what a record in hand takes until it is settled. A job's body is sent from where it is; that of a batch is
// made for the call, with text that is no JSON in base64.
func memoryOf(r *record.Record) int64 {
	n := int64(recordBytes + r.Size())
	if r.Job {
		return n
	}
	n += int64(r.Size())
	if !r.JSON {
		n += int64(len(r.Body) / 3)
	}
	return n
}
