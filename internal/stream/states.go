package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
)

// The state of a key is one message, the last on its subject, made of the log of states. With one replica NATS acknowledges
// it before it is on the disk (persist_mode async): a server that ends loses the latest, and the owner of the queue makes
// them anew of the log. Until then nobody reads them: a message among them, statesToken, says for which server's life they
// are whole.
const (
	headerVersion = "Weir-Version"
	statesToken   = "whole.0"
	// statesAlways is for streams that lose nothing.
	statesAlways = "*"
)

// ErrRestoring means that the states of a queue are not whole yet after NATS was started anew.
var ErrRestoring = fmt.Errorf("%w: the states of jobs are being restored", ErrUnavailable)

// StoredState is the state of a key.
type StoredState struct {
	Header  string // what watchers see: printable, without line breaks
	Body    []byte
	Version uint64    // of the log: higher is later; zero if there is none
	Seq     uint64    // of its message; zero if there is none
	Stored  time.Time // when it was put, by the server's clock; zero unless it was looked up
}

// StatePut is a state to be put in the place of the one whose message is Last, zero if there is none.
type StatePut struct {
	Key string
	StoredState
}

// PendingState is a state that is being put.
type PendingState struct{ ack jetstream.PubAckFuture }

func statesStream(k catalog.Key) string { return "WEIR_S_" + k.Namespace + "_" + k.Name }

func stateSubject(k catalog.Key, key string) string {
	return "weir.s." + k.Namespace + "." + k.Name + "." + key
}

// PutState begins to put a state. Seq is that of the message to be replaced. It does not wait: Wait does.
func (c *Conn) PutState(k catalog.Key, p StatePut) (*PendingState, error) {
	if err := c.Ready(); err != nil {
		return nil, err
	}
	m := &nats.Msg{
		Subject: stateSubject(k, p.Key), Data: p.Body,
		Header: nats.Header{headerJobState: {p.Header}, headerVersion: {strconv.FormatUint(p.Version, 10)}},
	}
	ack, err := c.js.PublishMsgAsync(m, jetstream.WithExpectLastSequencePerSubject(p.Seq), jetstream.WithStallWait(commitTimeout))
	if err != nil {
		return nil, fmt.Errorf("state %s of queue %s: %w", p.Key, k, publishError(context.Background(), err))
	}
	return &PendingState{ack}, nil
}

// Wait returns the sequence of the state's message once it is stored: not before that its key's earlier ones are. On
// ErrJobChanged and ErrQueueFull it was not stored.
func (p *PendingState) Wait(ctx context.Context) (uint64, error) {
	select {
	case ack := <-p.ack.Ok():
		return ack.Sequence, nil
	case err := <-p.ack.Err():
		if wrongSequence(err) {
			return 0, ErrJobChanged
		}
		return 0, publishError(ctx, err)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// LoadState reads the state of a key; its version is zero if there is none. It does not ask whether the states are whole:
// that is the owner's to know. With several replicas it may be stale by a moment.
func (c *Conn) LoadState(ctx context.Context, k catalog.Key, key string) (StoredState, error) {
	if err := c.Ready(); err != nil {
		return StoredState{}, err
	}
	m, err := c.last(ctx, statesStream(k), stateSubject(k, key))
	switch {
	case errors.Is(err, errNoMessage):
		return StoredState{}, nil
	case err != nil:
		return StoredState{}, fmt.Errorf("state %s of queue %s: %w", key, k, err)
	}
	version, err := versionOf(m.header)
	if err != nil {
		return StoredState{}, fmt.Errorf("state %s of queue %s: its version: %w", key, k, err)
	}
	return StoredState{Header: m.header.Get(headerJobState), Body: m.data, Version: version, Seq: m.seq, Stored: m.stored}, nil
}

func versionOf(h nats.Header) (uint64, error) { return strconv.ParseUint(h.Get(headerVersion), 10, 64) }

// State is LoadState for who is not the owner: ErrRestoring means that the states are not whole now.
func (c *Conn) State(ctx context.Context, k catalog.Key, key string) (StoredState, error) {
	for {
		server, err := c.wholeStates(ctx, k)
		if err != nil {
			return StoredState{}, err
		}
		s, err := c.LoadState(ctx, k, key)
		if err != nil || c.nc.ConnectedServerId() == server {
			return s, err
		}
		// Another server has answered, maybe.
	}
}

// whole caches for which server's life the states of a queue were found whole.
type whole struct {
	mu    sync.Mutex
	known map[catalog.Key]string
}

func (w *whole) is(k catalog.Key, server string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.known[k]
	return ok && (at == server || at == statesAlways)
}

func (w *whole) set(k catalog.Key, server string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known == nil || len(w.known) >= maxEpochs {
		w.known = map[catalog.Key]string{}
	}
	w.known[k] = server
}

// wholeStates returns the server for whose life the states are whole.
func (c *Conn) wholeStates(ctx context.Context, k catalog.Key) (server string, err error) {
	server = c.nc.ConnectedServerId()
	if c.whole.is(k, server) {
		return server, nil
	}
	m, err := c.last(ctx, statesStream(k), stateSubject(k, statesToken))
	switch {
	case errors.Is(err, errNoMessage):
		return "", fmt.Errorf("queue %s: %w", k, ErrRestoring)
	case err != nil:
		return "", fmt.Errorf("queue %s: %w", k, err)
	}
	if at := string(m.data); at == server || at == statesAlways {
		c.whole.set(k, at)
		return server, nil
	}
	return "", fmt.Errorf("queue %s: %w", k, ErrRestoring)
}

// StatesWhole reports whether nothing of the states of queue k has to be restored.
func (c *Conn) StatesWhole(ctx context.Context, k catalog.Key) (bool, error) {
	bctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	st, err := c.js.Stream(bctx, statesStream(k))
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return false, fmt.Errorf("%w: %s keeps no states", ErrNoQueue, k)
	case err != nil:
		return false, fmt.Errorf("states of queue %s: %w", k, c.apiError(bctx, err))
	case st.CachedInfo().Config.PersistMode != jetstream.AsyncPersistMode:
		return true, nil
	}
	_, err = c.wholeStates(ctx, k)
	if errors.Is(err, ErrRestoring) {
		return false, nil
	}
	return err == nil, err
}

// confirmNew is ConfirmStates for a queue whose states never changed: it needs no owner for that.
func (c *Conn) confirmNew(ctx context.Context, k catalog.Key) error {
	server := c.nc.ConnectedServerId()
	end, err := c.LedgerEnd(ctx, k)
	if err != nil || end.Last >= end.First { // its last block is never purged
		return err
	}
	return c.confirmStates(ctx, k, server)
}

// ConfirmStates stores that the states of queue k are whole for as long as this server lives. anew says that some had been
// lost: who follows a client's jobs begins anew.
func (c *Conn) ConfirmStates(ctx context.Context, k catalog.Key, anew bool) error {
	server := c.nc.ConnectedServerId()
	if anew {
		if err := c.publish(ctx, lasting(stateSubject(k, epochToken), newEpoch()), ""); err != nil {
			return fmt.Errorf("states of queue %s: epoch: %w", k, err)
		}
	}
	return c.confirmStates(ctx, k, server)
}

func (c *Conn) confirmStates(ctx context.Context, k catalog.Key, server string) error {
	at := statesAlways
	bctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	st, err := c.js.Stream(bctx, statesStream(k))
	if err != nil {
		return fmt.Errorf("states of queue %s: %w", k, c.apiError(bctx, err))
	}
	if st.CachedInfo().Config.PersistMode == jetstream.AsyncPersistMode && c.nc.ConnectedClusterName() == "" {
		at = server
	}
	if err := c.publish(ctx, lasting(stateSubject(k, statesToken), at), ""); err != nil {
		return fmt.Errorf("states of queue %s: %w", k, err)
	}
	c.whole.set(k, at)
	return nil
}

// lasting is a message among the states that the stream's MaxAge spares.
func lasting(subject, text string) *nats.Msg {
	return &nats.Msg{Subject: subject, Data: []byte(text), Header: nats.Header{jetstream.MsgTTLHeader: {epochNever}}}
}

// maxFirstBlock bounds the sequence of a log's first block.
const maxFirstBlock = 1 << 40

// maxLedgerBytes bounds a log. It holds the changes of some minutes (package ledger).
const maxLedgerBytes = 256 << 20

// ledgerConfigs are the streams of a queue's states.
func (c *Conn) ledgerConfigs(q catalog.Queue, base jetstream.StreamConfig) []jetstream.StreamConfig {
	states := base
	states.Name, states.Subjects = statesStream(q.Key), []string{stateSubject(q.Key, "*.*")}
	states.Retention, states.Discard = jetstream.LimitsPolicy, jetstream.DiscardNew
	states.MaxBytes, states.MaxAge, states.MaxMsgsPerSubject, states.MaxConsumers = q.Results.MaxBytes, q.Results.MaxAge, 1, maxFollowers
	states.AllowMsgTTL = true // for the epoch's
	states.RePublish = &jetstream.RePublish{Source: stateSubject(q.Key, ">"), Destination: jobEventSubject(q.Key, ">"), HeadersOnly: true}
	if base.Replicas == 1 && c.nc.ConnectedClusterName() == "" {
		// A server that is alone: who reads the states knows by its id that it was started anew.
		states.PersistMode = jetstream.AsyncPersistMode
	}
	log := base
	log.Name, log.Subjects = ledgerStream(q.Key), []string{ledgerSubject(q.Key)}
	log.Retention, log.Discard, log.MaxBytes = jetstream.LimitsPolicy, jetstream.DiscardNew, min(maxLedgerBytes, q.Results.MaxBytes)
	// The owner of a log that is deleted and made again must not find the same end.
	log.FirstSeq = 1 + rand.Uint64N(maxFirstBlock)
	return []jetstream.StreamConfig{states, log} // the log last: with it they have an owner
}
