package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

// Ledgers keeps, for each queue, the log of the changes of states that package ledger writes, and one message for the
// present state of each key that it makes of it (states.go).
type Ledgers interface {
	Clock
	ServeChanges(k catalog.Key, f func(ctx context.Context, change StateChange) (uint64, error)) (stop func(), err error)
	LedgerEnd(ctx context.Context, k catalog.Key) (LedgerEnd, error)
	AppendLedger(ctx context.Context, k catalog.Key, block []byte, last uint64) (uint64, error)
	ReadLedger(ctx context.Context, k catalog.Key, from, to uint64, f func(LedgerBlock) error) error
	PurgeLedger(ctx context.Context, k catalog.Key, below uint64) error
	LoadState(ctx context.Context, k catalog.Key, key string) (StoredState, error)
	LoadStates(ctx context.Context, k catalog.Key, keys []string) (map[string]StoredState, error)
	PutState(k catalog.Key, p StatePut) (*PendingState, error)
	PutStates(ctx context.Context, k catalog.Key, puts []StatePut, last uint64) error
	StatesWhole(ctx context.Context, k catalog.Key) (bool, error)
	RenewStates(ctx context.Context, k catalog.Key) error
	ConfirmStates(ctx context.Context, k catalog.Key) error
}

// LedgerEnd is which blocks a log holds: First to Last. It is empty if Last is below First.
type LedgerEnd struct{ First, Last uint64 }

// LedgerBlock is a block of a log.
type LedgerBlock struct {
	Seq    uint64
	Data   []byte
	Stored time.Time // by the server's clock
}

// ErrLedgerMoved means that the log has another last block than the one that was expected: nothing was stored, unless by an
// earlier try of the same write whose answer was lost.
var ErrLedgerMoved = errors.New("stream: the log of states has another end")

// ErrNoBlock means that a log holds no block of this sequence.
var ErrNoBlock = errors.New("stream: no such block in the log of states")

func ledgerStream(k catalog.Key) string  { return "WEIR_L_" + k.Namespace + "_" + k.Name }
func ledgerSubject(k catalog.Key) string { return "weir.l." + k.Namespace + "." + k.Name }

// LedgerEnd returns which blocks queue k's log holds. On ErrNoQueue there is no log.
func (c *Conn) LedgerEnd(ctx context.Context, k catalog.Key) (LedgerEnd, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	st, err := c.js.Stream(ctx, ledgerStream(k))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return LedgerEnd{}, fmt.Errorf("%w: %s has no log of states", ErrNoQueue, k)
	}
	if err != nil {
		return LedgerEnd{}, fmt.Errorf("log of states of queue %s: %w", k, c.apiError(ctx, err))
	}
	s := st.CachedInfo().State
	return LedgerEnd{s.FirstSeq, s.LastSeq}, nil
}

// AppendLedger appends a block behind block last, and returns its sequence once it is durable. On ErrLedgerMoved and
// ErrQueueFull nothing was stored; on ErrUnavailable, and when ctx ends, that is unknown.
func (c *Conn) AppendLedger(ctx context.Context, k catalog.Key, block []byte, last uint64) (uint64, error) {
	if err := c.Ready(); err != nil {
		return 0, err
	}
	ctx, cancel := c.bound(ctx, commitTimeout)
	defer cancel()
	ack, err := c.js.PublishMsg(ctx, &nats.Msg{Subject: ledgerSubject(k), Data: block}, jetstream.WithExpectLastSequence(last))
	switch {
	case err == nil:
		return ack.Sequence, nil
	case wrongSequence(err):
		return 0, ErrLedgerMoved
	}
	return 0, fmt.Errorf("log of states of queue %s: %w", k, publishError(ctx, err))
}

// ReadLedger calls f with each block of queue k's log from sequence from on to to, which the log must hold. It tries until
// all were read, f fails, ctx ends or NATS is away. ErrNoBlock means that some were purged meanwhile.
func (c *Conn) ReadLedger(ctx context.Context, k catalog.Key, from, to uint64, f func(LedgerBlock) error) error {
	ctx, cancel := c.whileUp(ctx)
	defer cancel()
	for from <= to {
		next, err := c.readLedger(ctx, k, from, to, f)
		if err != nil {
			return fmt.Errorf("log of states of queue %s: %w", k, err)
		}
		from = next
	}
	return nil
}

// readLedger reads what one request is answered with, and returns the sequence to go on with.
func (c *Conn) readLedger(ctx context.Context, k catalog.Key, from, to uint64, f func(LedgerBlock) error) (next uint64, err error) {
	request := struct {
		Seq   uint64 `json:"seq"`
		Batch uint64 `json:"batch"`
		Bytes int    `json:"max_bytes"`
	}{from, min(to-from+1, maxLedgerBlocks), maxAnswerBytes}
	var blocks []LedgerBlock
	_, err = c.several(ctx, ledgerStream(k), request, maxLedgerBlocks, func(m *stored) error {
		if m.seq != from+uint64(len(blocks)) {
			return ErrNoBlock
		}
		blocks = append(blocks, LedgerBlock{Seq: m.seq, Data: m.data, Stored: m.stored})
		return nil
	})
	if errors.Is(err, errNoMessage) { // a replica that lags
		return from, Pause(ctx)
	}
	if err != nil {
		return from, err
	}
	for _, b := range blocks {
		if err := f(b); err != nil {
			return from, err
		}
		from++
	}
	return from, nil
}

// maxLedgerBlocks is how many blocks of a log are asked for in one request.
const maxLedgerBlocks = 64

// PurgeLedger removes the blocks before sequence below.
func (c *Conn) PurgeLedger(ctx context.Context, k catalog.Key, below uint64) error {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	st, err := c.js.Stream(ctx, ledgerStream(k))
	if err == nil {
		err = st.Purge(ctx, jetstream.WithPurgeSequence(below))
	}
	if err != nil {
		return fmt.Errorf("log of states of queue %s: %w", k, c.apiError(ctx, err))
	}
	return nil
}
