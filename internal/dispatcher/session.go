package dispatcher

import (
	"context"
	"time"

	"github.com/weir-dev/weir/internal/batch"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// Bounds of what one mapping holds in memory; past them it takes nothing more from the queue. Bytes are
// counted by block, because a block's records share its memory until the last of them is settled.
const (
	maxHeldBytes  = 48 << 20
	maxHeldBlocks = 12288 // below the consumer's maxAckPending
	// extendEvery keeps blocks in hand from being delivered again: a third of the stream's ackWait.
	extendEvery = 20 * time.Second
)

// session is the time between opening a source and its end. One goroutine, run, owns all its state;
// each batch has a goroutine of its own, an episode, that reports back.
type session struct {
	m    *mapping
	src  *stream.Source
	acc  *batch.Accumulator[*item]
	held map[blockKey]*block
	size int // bytes in held
	busy int // episodes that run
	ends chan *episode
}

type blockKey struct {
	retry bool
	seq   uint64
}

// block is a delivery whose records are not all settled.
type block struct {
	delivery *stream.Delivery
	key      blockKey
	items    []*item
	left     int // records that are not settled
	size     int
}

// item is one record in hand.
type item struct {
	rec   *record.Record
	block *block
	fate  fate
}

func newSession(m *mapping, src *stream.Source) *session {
	return &session{
		m: m, src: src, held: map[blockKey]*block{}, ends: make(chan *episode),
		acc: batch.NewAccumulator[*item](batch.Policy{
			MaxItems: m.spec.Batch.MaxRecords, MaxBytes: int(m.spec.Batch.MaxBytes), Window: m.spec.Batch.Window,
		}),
	}
}

// run works until the source ends, the intake is stopped or work is over, and returns after the last
// episode has. What is not settled then is delivered again to the next session.
func (s *session) run(work context.Context) error {
	// Episodes wait for the limiter only while there is intake: on a drain they give their records back.
	intake, stop := context.WithCancelCause(s.m.ctx)
	defer stop(nil)
	extend := time.NewTicker(extendEvery)
	defer extend.Stop()
	window := time.NewTimer(0)
	defer window.Stop()
	ended, workEnded := s.src.Done(), work.Done()
	for intake.Err() == nil || s.busy > 0 {
		if intake.Err() == nil {
			s.startEpisodes(intake, work, window)
		}
		select {
		case d := <-s.deliveries(intake):
			s.take(d)
		case e := <-s.ends:
			s.busy--
			s.settle(e)
		case <-window.C:
		case <-extend.C:
			for _, b := range s.held {
				_ = b.delivery.InProgress() // at worst the block comes twice
			}
		case <-ended:
			ended = nil
			stop(s.src.Err())
		case <-workEnded:
			workEnded = nil
			stop(context.Cause(work))
		case <-doneOnce(intake, s.busy):
			// The loop's condition decides.
		}
	}
	s.giveBack(work)
	return context.Cause(intake)
}

// giveBack ends the hold on what is left. A block of which nothing is settled is simply delivered again.
// Of one that is settled in part, the rest is written back as a block of its own, so that an orderly stop
// delivers nothing twice; when that fails, the whole block comes again.
func (s *session) giveBack(work context.Context) {
	var rest []*item
	var blocks []*block
	d := Stats{}
	for _, b := range s.held {
		if b.left == len(b.items) || work.Err() != nil || s.src.Err() != nil {
			d.Returned += b.left
			continue
		}
		blocks = append(blocks, b)
		for _, it := range b.items {
			if it.fate != done && it.fate != retried && it.fate != dead {
				rest = append(rest, it)
			}
		}
	}
	if len(rest) > 0 {
		if err := s.m.cfg.Conn.Delay(work, s.m.spec.Queue, time.Now(), records(rest)); err != nil {
			s.m.log.Warn("blocks that are settled in part will be delivered again whole", "error", err)
			d.Returned += len(rest)
		} else {
			d.Retried += len(rest)
			for _, b := range blocks {
				s.ack(b)
			}
		}
	}
	d.InHand = -(d.Returned + d.Retried)
	s.m.add(d)
}

// doneOnce wakes the loop when the intake ends while nothing runs; while episodes run, their ends do.
func doneOnce(intake context.Context, busy int) <-chan struct{} {
	if busy > 0 && intake.Err() != nil {
		return nil
	}
	return intake.Done()
}

// deliveries is nil, which blocks for ever, when nothing more may be taken.
func (s *session) deliveries(intake context.Context) <-chan *stream.Delivery {
	if intake.Err() != nil || s.size >= maxHeldBytes || len(s.held) >= maxHeldBlocks {
		return nil
	}
	return s.src.Deliveries()
}

func (s *session) take(d *stream.Delivery) {
	k := blockKey{d.Retry, d.Seq}
	if b, ok := s.held[k]; ok {
		b.delivery = d // came again while in hand: the newer delivery is the one to acknowledge
		return
	}
	b := &block{delivery: d, key: k, items: make([]*item, 0, len(d.Records)), left: len(d.Records)}
	now := time.Now()
	for i := range d.Records {
		r := &d.Records[i]
		b.size += r.Size()
		it := &item{rec: r, block: b}
		b.items = append(b.items, it)
		s.acc.Add(it, len(r.Body), now)
	}
	if b.left == 0 {
		_ = d.Ack() // an empty block; at worst it comes again
		return
	}
	s.held[k] = b
	s.size += b.size
	s.m.add(Stats{Taken: b.left, InHand: b.left})
}

// startEpisodes starts one for each batch that is due, as far as the function takes calls, and sets the
// timer for the next.
func (s *session) startEpisodes(intake, work context.Context, window *time.Timer) {
	for {
		if limit, _, _ := s.m.limiter.State(); s.busy >= limit {
			return // an episode's end brings the loop back here
		}
		items := s.acc.Take(time.Now())
		if items == nil {
			break
		}
		s.busy++
		e := &episode{m: s.m, items: items}
		go func() {
			e.run(intake, work)
			s.ends <- e
		}()
	}
	if at, ok := s.acc.Due(); ok {
		window.Reset(time.Until(at))
	}
}

// settle acknowledges the blocks whose last record was settled by e.
func (s *session) settle(e *episode) {
	var d Stats
	for _, it := range e.items {
		switch it.fate {
		case done:
			d.Done++
		case retried:
			d.Retried++
		case dead:
			d.Dead++
		default:
			continue // given back: its block stays unacknowledged
		}
		b := it.block
		if b.left--; b.left == 0 {
			s.ack(b)
		}
	}
	d.InHand = -(d.Done + d.Retried + d.Dead)
	s.m.add(d)
}

func (s *session) ack(b *block) {
	if err := b.delivery.Ack(); err != nil {
		s.m.log.Debug("an acknowledgement was not sent; the block comes again", "error", err)
	}
	delete(s.held, b.key)
	s.size -= b.size
}
