package dispatcher

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/batch"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// Bounds of what one mapping holds, whatever memory there is; past them it takes nothing more from the queue. Bytes are
// counted by block, because a block's records share its memory until the last of them is settled. At its end a session
// writes all of it back within giveBackTimeout.
const (
	maxHeldBytes  = 48 << 20
	maxHeldBlocks = 12288 // below the consumer's maxAckPending
	// maxWriting bounds the batch runs that call no function any more and write what became of it; past it there are no new
	// calls.
	maxWriting = 1024
	// maxWritingBytes bounds the results that those have in hand, in the same way.
	maxWritingBytes = 32 << 20
	// extendEvery keeps blocks in hand from being redelivered: a third of the consumer's ackWait.
	extendEvery = 20 * time.Second
	// giveBackTimeout bounds the writes at the end of a session.
	giveBackTimeout = 5 * time.Second
)

// session is the life of one reader. One goroutine, run, owns all its state; each batch run has a goroutine
// of its own that reports back.
type session struct {
	m      *mapping
	reader *stream.Reader
	states *states
	acc    *batch.Accumulator[*item]
	jobs   *batch.Accumulator[*item] // each is a batch of its own
	ids    map[record.ID]int         // of the jobs in hand: their records
	turn   bool                      // the next batch is taken from jobs first
	held   map[blockKey]*block
	size   int // bytes in held
	asked  []stream.Pull
	short  <-chan struct{} // closed once there is more memory; nil if none is missing
	busy   int             // batch runs in progress
	ends   chan *batchRun

	pulling atomic.Int32   // pulls whose memory is charged
	calling atomic.Int32   // batch runs that hold a call's place
	writing atomic.Int64   // bytes of results that others have in hand
	freed   chan struct{}  // capacity 1: one holds it no longer
	runs    chan *batchRun // to a goroutine that waits for another
	over    chan struct{}  // closed when there is none
	wg      sync.WaitGroup // of these goroutines and look-ups

	// Expiry (expiry.go).
	oldest   time.Time // no record that waits and can expire was accepted before this; zero if none waits
	old      []*item   // expired, waiting to be dead-lettered
	expiring bool      // some are being dead-lettered
}

type blockKey struct {
	retry bool
	seq   uint64
}

// block is a delivery whose records are not all settled.
type block struct {
	delivery *stream.Delivery // the newest, which is acknowledged; the session's alone
	since    time.Time        // its own, the same for all deliveries
	key      blockKey
	items    []*item
	left     int // unsettled records
	size     int
	memory   int64
	states   *prefetched // nil before its first job begins
}

// item is one record in hand.
type item struct {
	rec         *record.Record
	block       *block
	disposition disposition
	reason      stream.Reason // of a dead letter, once it is decided
}

// at is the record as it is stored again at now, by the server's clock: with its present age.
func (it *item) at(now time.Time) record.Record {
	r := *it.rec
	r.Age += max(0, now.Sub(it.block.since))
	return r
}

func newSession(m *mapping, reader *stream.Reader, states *states) *session {
	return &session{
		m: m, reader: reader, states: states, held: map[blockKey]*block{}, ends: make(chan *batchRun), freed: make(chan struct{}, 1), runs: make(chan *batchRun), over: make(chan struct{}),
		acc:  batch.NewAccumulator[*item](policy(m.spec())),
		jobs: batch.NewAccumulator[*item](batch.Policy{MaxItems: 1, MaxBytes: math.MaxInt}), ids: map[record.ID]int{},
	}
}

func policy(spec *catalog.Mapping) batch.Policy {
	return batch.Policy{MaxItems: spec.Batch.MaxRecords, MaxBytes: int(spec.Batch.MaxBytes), Window: spec.Batch.Window}
}

var (
	errIncomplete = errors.New("dispatcher: some records could not be settled")
	errNotOurs    = errors.New("dispatcher: the lease or the connection is gone")
)

// run works until the reader ends, the intake is stopped or work is over, and returns after the last
// batch run has. What is not settled then is redelivered to the next session.
func (s *session) run(work context.Context) error {
	// Batch runs wait for the limiter only while there is intake: on a drain they give their records back.
	intake, stop := context.WithCancelCause(s.m.ctx)
	defer stop(nil)
	extend := time.NewTicker(extendEvery)
	defer extend.Stop()
	window := time.NewTimer(0)
	defer window.Stop()
	expiry := time.NewTicker(expireEvery)
	defer expiry.Stop()
	// Each is set to nil, which blocks for ever, once it has been seen.
	intakeEnded, readerEnded, workEnded, idle := intake.Done(), s.reader.Done(), work.Done(), s.reader.Idle()
	for intakeEnded != nil || s.busy > 0 || idle != nil {
		if intake.Err() == nil {
			s.short = nil
			s.expire(work) // first: no call for expired records
			s.beginPulls()
			s.startBatchRuns(intake, work, window)
			s.m.tally.short(s.short != nil)
		}
		select {
		case p := <-s.reader.Pulls():
			s.asked = append(s.asked, p) // the top of the loop then answers, as soon as it may
		case <-s.short: // the top of the loop then tries again
			s.short = nil
		case d := <-s.reader.Deliveries(): // on a drain too: what was pulled is given back in order
			s.take(d)
		case e := <-s.ends:
			s.busy--
			s.expiring = s.expiring && !e.expiry
			if !s.settle(e) {
				stop(errIncomplete) // they are redelivered to the next session
			}
		case <-s.freed: // the top of the loop then makes the next call
		case <-s.m.changed: // the top of the loop then goes by the new policy and limit
			s.acc.SetPolicy(policy(s.m.spec()))
		case <-window.C:
		case <-expiry.C:
		case <-extend.C:
			for _, b := range s.held {
				_ = b.delivery.InProgress() // at worst the block is redelivered
			}
		case <-readerEnded:
			readerEnded = nil
			stop(s.reader.Err())
		case <-s.lostStates(intake):
			stop(errNotOurs)
		case <-workEnded:
			workEnded = nil
			stop(context.Cause(work))
		case <-intakeEnded:
			intakeEnded = nil
			s.reader.Stop()
		case <-idle:
			idle = nil
		}
	}
	s.m.tally.short(false)
	s.giveBack()
	for _, b := range s.held {
		s.drop(b)
	}
	close(s.over)
	s.wg.Wait()
	return context.Cause(intake)
}

// lostStates is closed when another owns the states of the queue's jobs; nil once the intake has ended.
func (s *session) lostStates(intake context.Context) <-chan struct{} {
	if intake.Err() != nil {
		return nil
	}
	return s.states.lost()
}

// beginPulls lets the reader pull as far as there is room. The lease is checked against the clock as well: a process that
// hung and goes on must not take blocks from the next owner, which would wait for ackWait then.
func (s *session) beginPulls() {
	if s.size < maxHeldBytes && len(s.held) < maxHeldBlocks && s.m.holds() {
		s.asked = slices.DeleteFunc(s.asked, s.begin)
	}
}

// begin begins a pull if there is memory for it. One that waits for blocks to come is charged with nothing, so that a mapping
// without work takes none; it brings stream.BlockBytes or so.
func (s *session) begin(p stream.Pull) bool {
	m := s.m.memory
	if p.Backlog == 0 {
		if len(s.held) > 0 {
			if freed := m.take(0); freed != nil {
				s.short = freed
				return false
			}
		}
		p.Begin(stream.MaxPull, nil)
		return true
	}
	n, freed := m.takeUpTo(p.Backlog, stream.BlockBytes)
	if n == 0 {
		if len(s.held) > 0 || s.pulling.Load() > 0 {
			s.short = freed
			return false
		}
		n = 1
		m.add(stream.BlockBytes)
	}
	s.pulling.Add(1)
	ended := func() {
		s.pulling.Add(-1)
		m.add(-int64(n) * stream.BlockBytes)
	}
	if !p.Begin(n, ended) {
		ended()
	}
	return true
}

// giveBack gives up the unsettled records. They are written back as blocks of their own, so that everything that
// was delivered is acknowledged and an orderly stop causes no duplicates: the next reader begins at the ack floor.
// When that can't be done, because the connection or the lease is gone, they are redelivered, and with them the
// blocks above the ack floor that were settled.
func (s *session) giveBack() {
	var rest []*item
	for _, b := range s.held {
		for _, it := range b.items {
			if !it.disposition.settled() {
				rest = append(rest, it)
			}
		}
	}
	if len(rest) == 0 {
		return
	}
	d := Stats{InHand: -len(rest)}
	err := errNotOurs
	// A job whose state says expired and whose dead letter isn't stored yet must be redelivered as it is: as a retry it
	// would be taken for one that has ended.
	expired := slices.ContainsFunc(rest, func(it *item) bool { return it.rec.Job && it.disposition == old })
	if s.m.holds() && s.reader.Live() && !expired {
		// Not work's context: it has usually ended, which cut the calls and left these records.
		ctx, cancel := context.WithTimeout(context.Background(), giveBackTimeout)
		err = s.putBack(ctx, rest)
		cancel()
	}
	if err != nil {
		s.m.log.Warn("unsettled records will be delivered again", "records", len(rest), "error", err)
		d.Returned = len(rest)
		// A process that hung may have pulled, when it went on, before it saw that there is another owner: who gets a block
		// that is in hand or settled drops it.
		for _, b := range s.held {
			_ = b.delivery.GiveUp() // without a connection they wait for the next reader, or ackWait
		}
	} else {
		d.Retried = len(rest)
		for _, b := range s.held {
			if !b.key.retry {
				s.m.books.settle(b.left)
			}
			s.ack(b)
		}
	}
	s.m.add(d)
}

// putBack reschedules records to be due at once. When a job's attempt has failed here, the record of the next attempt
// may be durable although that was not confirmed: it is replaced, so that no two copies wait. Records of other jobs
// must replace nothing: they may be stale copies, and the one that waits the record of a later attempt.
func (s *session) putBack(ctx context.Context, rest []*item) error {
	conn, queue := s.m.cfg.Conn, s.m.queue
	now := conn.Now()
	var others []*item
	for _, it := range rest {
		if !it.rec.Job || it.disposition == unsettled || it.disposition == old {
			others = append(others, it)
		} else if err := conn.DelayJob(ctx, queue, stream.AtOnce(now), it.at(now)); err != nil {
			return err
		}
	}
	return conn.Delay(ctx, queue, stream.AtOnce(now), records(others, now))
}

func (s *session) take(d *stream.Delivery) {
	k := blockKey{d.Retry, d.Seq}
	if b, ok := s.held[k]; ok {
		b.delivery = d // redelivered while in hand: the newer delivery is the one to acknowledge
		return
	}
	if !d.Retry {
		s.m.books.take(d.Seq, max(d.Moved, len(d.Records)))
	}
	if d.Moved > 0 {
		if !d.Retry {
			s.m.books.settle(d.Moved)
		}
		_ = d.Ack() // at worst it is redelivered
		return
	}
	b := &block{delivery: d, since: d.Since, key: k, items: make([]*item, 0, len(d.Records)), left: len(d.Records)}
	now := time.Now()
	for i := range d.Records {
		r := &d.Records[i]
		b.size += r.Size()
		b.memory += memoryOf(r)
		it := &item{rec: r, block: b}
		b.items = append(b.items, it)
		s.notice(it)
		switch {
		case !r.Job:
			s.acc.Add(it, len(r.Body), now)
		case s.ids[r.ID] > 0 && !d.Retry:
			// A duplicate, of a client that repeated its request: the one in hand stands for both. A retry is no
			// duplicate: the one in hand was rescheduled and just isn't settled yet. TestJobsAndKills guards it.
			it.disposition = done
			b.left--
		default:
			s.ids[r.ID]++
			s.jobs.Add(it, len(r.Body), now)
		}
	}
	if !d.Retry {
		s.m.books.settle(len(d.Records) - b.left)
	}
	s.m.add(Stats{Taken: len(d.Records), Done: len(d.Records) - b.left, InHand: b.left})
	if b.left == 0 {
		_ = d.Ack() // at worst it is redelivered
		return
	}
	s.held[k] = b
	s.size += b.size
	s.m.memory.add(b.memory)
}

// prefetch has the states of a block's jobs looked up when the first of them begins.
func (s *session) prefetch(b *block) {
	if b.states != nil {
		return
	}
	var jobs []stream.JobKey
	for _, it := range b.items {
		if it.rec.Job {
			jobs = append(jobs, stream.KeyOf(it.rec))
		}
	}
	b.states = s.states.prefetch(s.m.ctx, &s.wg, jobs)
}

// release gives the states of a block's jobs back.
func (s *session) release(b *block) {
	if p := b.states; p != nil {
		b.states = nil
		s.wg.Go(func() {
			<-p.done
			p.release()
		})
	}
}

// startBatchRuns starts one for each batch that is due, up to the limiter's limit, and sets the timer for the next.
func (s *session) startBatchRuns(intake, work context.Context, window *time.Timer) {
	for {
		calls := int(s.calling.Load())
		if limit, _, _ := s.m.limiter.State(); calls >= limit || s.busy-calls >= maxWriting || s.writing.Load() >= maxWritingBytes {
			return // a call's or a batch run's end brings the loop back here
		}
		due, ok := s.due(time.Now())
		if !ok {
			break
		}
		if calls == 0 {
			s.m.memory.add(callBytes)
		} else if freed := s.m.memory.take(callBytes); freed != nil {
			s.short = freed
			return
		}
		items := s.next(due)
		if items[0].rec.Job {
			s.prefetch(items[0].block)
		}
		s.busy++
		s.calling.Add(1)
		e := &batchRun{m: s.m, states: s.states, items: items}
		select {
		case s.runs <- e:
		default:
			s.wg.Go(func() { s.work(intake, work, e) })
		}
	}
	if at, ok := s.acc.Due(); ok {
		window.Reset(time.Until(at))
	}
}

// due returns the time for which next has a batch, if one may be called now. One that waits for its window goes before that,
// as it is, when there is no memory for more records and nothing of the mapping's is under way that would free some.
func (s *session) due(now time.Time) (at time.Time, ok bool) {
	if s.jobs.Len() > 0 {
		return now, true
	}
	at, ok = s.acc.Due()
	switch {
	case !ok:
		return at, false
	case !at.After(now):
		return now, true
	}
	return at, s.short != nil && s.busy == 0 && s.pulling.Load() == 0
}

// workIdle is how long a goroutine waits for another batch run.
const workIdle = time.Second

// work does one batch run after another, as a new goroutine would have to grow its stack for each.
func (s *session) work(intake, work context.Context, e *batchRun) {
	idle := time.NewTimer(workIdle)
	defer idle.Stop()
	for {
		store := e.call(intake, work)
		// While dead letters can't be stored, a function that fails them is called no more often than it may be at once.
		if e.deadly() {
			store()
			s.free()
		} else {
			s.writing.Add(int64(e.result))
			s.m.memory.add(int64(e.result))
			s.free()
			store()
			s.writing.Add(-int64(e.result))
			s.m.memory.add(-int64(e.result))
		}
		s.ends <- e
		idle.Reset(workIdle)
		select {
		case e = <-s.runs:
		case <-idle.C:
			return
		case <-s.over:
			return
		}
	}
}

// free frees a call's place.
func (s *session) free() {
	s.calling.Add(-1)
	s.m.memory.add(-callBytes)
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// next alternates between jobs and batches of other records.
func (s *session) next(now time.Time) []*item {
	first, second := s.acc, s.jobs
	if s.turn {
		first, second = second, first
	}
	s.turn = !s.turn
	if items := first.Take(now); items != nil {
		return items
	}
	return second.Take(now)
}

// settle acknowledges the blocks whose last record was settled by e. It reports whether all of e's records
// are settled.
func (s *session) settle(e *batchRun) bool {
	var d Stats
	complete, fresh := true, 0
	for _, it := range e.items {
		if it.rec.Job {
			if s.ids[it.rec.ID]--; s.ids[it.rec.ID] == 0 {
				delete(s.ids, it.rec.ID)
			}
		}
		switch it.disposition {
		case done:
			d.Done++
		case retried:
			d.Retried++
		case dead:
			d.Dead++
		default:
			complete = false // its block stays unacknowledged
			continue
		}
		b := it.block
		if !b.key.retry {
			fresh++
		}
		if b.left--; b.left == 0 {
			s.ack(b)
		}
	}
	s.m.books.settle(fresh)
	d.InHand = -(d.Done + d.Retried + d.Dead)
	s.m.add(d, deaths(e.items)...)
	return complete
}

func (s *session) ack(b *block) {
	if err := b.delivery.Ack(); err != nil {
		s.m.log.Debug("an acknowledgement was not sent; the block will be delivered again", "error", err)
	}
	s.drop(b)
}

// drop forgets a block.
func (s *session) drop(b *block) {
	delete(s.held, b.key)
	s.size -= b.size
	s.m.memory.add(-b.memory)
	s.release(b)
}
