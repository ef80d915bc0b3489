package stream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
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
	headerBody    = "Weir-Body"
	headerSize    = "Nats-Msg-Size"    // of what NATS republishes without its data
	headerLeft    = "Nats-Num-Pending" // at the end of several messages
	statesToken   = "whole.0"
	// statesAlways is for streams that lose nothing.
	statesAlways = "*"
)

// ErrRestoring means that the states of a queue are not whole yet after NATS was started anew.
var ErrRestoring = fmt.Errorf("%w: the states of jobs are being restored", ErrUnavailable)

// errNeverConfirmed is ErrRestoring where no message says that the states were whole before.
var errNeverConfirmed = fmt.Errorf("%w for the first time", ErrRestoring)

// StoredState is the state of a key.
type StoredState struct {
	Header  string // what watchers see: printable, without line breaks
	Body    []byte
	TTL     time.Duration // of one that is put: it is gone so long after; for ever if zero
	Version uint64        // of the log: higher is later; zero if there is none
	Seq     uint64        // of its message; zero if there is none
	Stored  time.Time     // when it was put, by the server's clock; zero unless it was looked up
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

func (p *StatePut) message(k catalog.Key) *nats.Msg {
	m := &nats.Msg{
		Subject: stateSubject(k, p.Key),
		Header:  nats.Header{headerJobState: {p.Header}, headerVersion: {strconv.FormatUint(p.Version, 10)}},
	}
	if p.TTL > 0 {
		m.Header.Set(jetstream.MsgTTLHeader, p.TTL.String())
	}
	return withBody(m, p.Body)
}

// PutStates puts states as the messages that follow the one with the sequence last, if that is the last of all: each is
// stored only if those before it are, so the answer to one tells of all. With ErrJobChanged some of the first
// may be stored, with any other error all may be.
func (c *Conn) PutStates(ctx context.Context, k catalog.Key, puts []StatePut, last uint64) error {
	if err := c.Ready(); err != nil {
		return err
	}
	for i := range puts {
		m := puts[i].message(k)
		m.Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(last+uint64(i), 10))
		if i == len(puts)-1 {
			err := c.publish(ctx, m, "")
			if wrongSequence(err) {
				return ErrJobChanged
			}
			return err
		}
		if err := c.nc.PublishMsg(m); err != nil {
			return fmt.Errorf("states of queue %s: %w", k, publishError(ctx, err))
		}
	}
	return nil
}

// PutState begins to put a state. Seq is that of the message to be replaced. It does not wait: Wait does.
func (c *Conn) PutState(k catalog.Key, p StatePut) (*PendingState, error) {
	if err := c.Ready(); err != nil {
		return nil, err
	}
	ack, err := c.js.PublishMsgAsync(p.message(k), jetstream.WithExpectLastSequencePerSubject(p.Seq), jetstream.WithStallWait(commitTimeout))
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
	s, err := stateOf(m)
	if err != nil {
		return StoredState{}, fmt.Errorf("state %s of queue %s: %w", key, k, err)
	}
	return s, nil
}

// stateOf is the state that a message is.
func stateOf(m *stored) (StoredState, error) {
	version, err := versionOf(m.header)
	if err != nil {
		return StoredState{}, fmt.Errorf("its version: %w", err)
	}
	body, _, err := bodyOf(m.header, m.data)
	if err != nil {
		return StoredState{}, fmt.Errorf("its body: %w", err)
	}
	return StoredState{Header: m.header.Get(headerJobState), Body: body, Version: version, Seq: m.seq, Stored: m.stored}, nil
}

// maxTold bounds a body that is stored in a header, so that watchers are told it.
const maxTold = 1 << 10

// withBody puts the body of a state into its message.
func withBody(m *nats.Msg, body []byte) *nats.Msg {
	if n := len(body); n > 0 && n <= maxTold {
		m.Header.Set(headerBody, base64.StdEncoding.EncodeToString(body))
	} else {
		m.Data = body
	}
	return m
}

// bodyOf is the body of a state, of whose message NATS has republished the headers, or all; known is false if there is one
// that was not told.
func bodyOf(h nats.Header, data []byte) (body []byte, known bool, err error) {
	if told := h.Get(headerBody); told != "" {
		body, err = base64.StdEncoding.DecodeString(told)
		return body, err == nil, err
	}
	size := h.Get(headerSize)
	return data, len(data) > 0 || size == "" || size == "0", nil
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
	mu     sync.Mutex
	known  map[catalog.Key]string
	broken map[catalog.Key]time.Time // when they were found not whole
}

// broke reports whether the states of a queue were found not whole just now: many may ask at a time.
func (w *whole) broke(k catalog.Key) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.broken[k]
	return ok && time.Since(at) < restoringLook/2
}

func (w *whole) breaks(k catalog.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil || len(w.broken) >= maxEpochs {
		w.broken = map[catalog.Key]time.Time{}
	}
	w.broken[k] = time.Now()
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
	delete(w.broken, k)
}

// wholeStates returns the server for whose life the states are whole.
func (c *Conn) wholeStates(ctx context.Context, k catalog.Key) (server string, err error) {
	server = c.nc.ConnectedServerId()
	if c.whole.is(k, server) {
		return server, nil
	}
	if c.whole.broke(k) {
		return "", fmt.Errorf("queue %s: %w", k, ErrRestoring)
	}
	m, err := c.last(ctx, statesStream(k), stateSubject(k, statesToken))
	switch {
	case errors.Is(err, errNoMessage):
		c.whole.breaks(k)
		return "", fmt.Errorf("queue %s: %w", k, errNeverConfirmed)
	case err != nil:
		return "", fmt.Errorf("queue %s: %w", k, err)
	}
	if at := string(m.data); at == server || at == statesAlways {
		c.whole.set(k, at)
		return server, nil
	}
	c.whole.breaks(k)
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
	}
	_, err = c.wholeStates(ctx, k)
	switch {
	case !errors.Is(err, ErrRestoring):
		return err == nil, err
	case st.CachedInfo().Config.PersistMode != jetstream.AsyncPersistMode && errors.Is(err, errNeverConfirmed): // nothing is lost, and nobody has said so yet
		return true, c.confirmStates(ctx, k, statesAlways)
	}
	return false, nil // or moved from a server that may have lost some
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

// RenewStates begins a new epoch of the states of queue k, before some that were lost are put again under other sequences: who
// follows a client's jobs begins anew.
func (c *Conn) RenewStates(ctx context.Context, k catalog.Key) error {
	if err := c.publish(ctx, lasting(stateSubject(k, epochToken), newEpoch()), ""); err != nil {
		return fmt.Errorf("states of queue %s: epoch: %w", k, err)
	}
	return nil
}

// ConfirmStates stores that the states of queue k are whole for as long as this server lives. With ErrRestoring those of the
// version before have to be moved first.
func (c *Conn) ConfirmStates(ctx context.Context, k catalog.Key) error {
	server := c.nc.ConnectedServerId()
	moved, err := c.formerStatesMoved(ctx, k)
	switch {
	case err != nil:
		return err
	case !moved:
		return fmt.Errorf("queue %s: %w: those of the version before have to be moved again", k, ErrRestoring)
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

const (
	// maxLoading is how many states are asked for in one request: the server answers no more than 1,024.
	maxLoading = 512
	// maxAnswerBytes is after how many bytes the answer with several messages ends.
	maxAnswerBytes = 4 << 20
)

// LoadStates is LoadState for many keys. Keys that it has no answer for are missing in what it returns: they are to be looked
// up one by one.
func (c *Conn) LoadStates(ctx context.Context, k catalog.Key, keys []string) (map[string]StoredState, error) {
	found := make(map[string]StoredState, len(keys))
	for some := range slices.Chunk(keys, maxLoading) {
		if err := c.loadStates(ctx, k, some, found); err != nil {
			return found, fmt.Errorf("states of queue %s: %w", k, err)
		}
	}
	return found, nil
}

// loadStates adds states to found; with nothing in it for keys that have none.
func (c *Conn) loadStates(ctx context.Context, k catalog.Key, keys []string, found map[string]StoredState) error {
	request := struct {
		Subjects []string `json:"multi_last"`
		Bytes    int      `json:"max_bytes"`
	}{Bytes: maxAnswerBytes}
	for _, key := range keys {
		request.Subjects = append(request.Subjects, stateSubject(k, key))
	}
	left, err := c.several(ctx, statesStream(k), request, len(keys), func(m *stored) error {
		key := strings.TrimPrefix(m.header.Get(jetstream.SubjectHeader), stateSubject(k, ""))
		s, err := stateOf(m)
		if err != nil {
			return fmt.Errorf("state %s: %w", key, err)
		}
		found[key] = s
		return nil
	})
	if err != nil || left > 0 { // it has ended early, by its bytes
		return err
	}
	for _, key := range keys { // all were answered: these have none
		if _, ok := found[key]; !ok {
			found[key] = StoredState{}
		}
	}
	return nil
}

// several makes a direct get of at most so many messages, and calls f with each. It returns how many more there are.
// errNoMessage means that there is none, or one is gone.
func (c *Conn) several(ctx context.Context, stream string, request any, most int, f func(*stored) error) (left uint64, err error) {
	if err := c.Ready(); err != nil {
		return 0, err
	}
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return 0, err
	}
	answers := make(chan *nats.Msg, most+1)
	sub, err := c.nc.ChanSubscribe(c.nc.NewInbox(), answers)
	if err != nil {
		return 0, c.apiError(ctx, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := c.nc.PublishRequest(jetstream.DefaultAPIPrefix+"DIRECT.GET."+stream, sub.Subject, body); err != nil {
		return 0, c.apiError(ctx, err)
	}
	for {
		select {
		case m := <-answers:
			switch status, why := m.Header.Get("Status"), m.Header.Get("Description"); {
			case status == "":
				s, err := storedOf(m)
				if err == nil {
					err = f(s)
				}
				if err != nil {
					return 0, err
				}
			case status == "204":
				return strconv.ParseUint(m.Header.Get(headerLeft), 10, 64)
			case status == "404" && why == "No Results":
				return 0, nil
			case status == "404":
				return 0, errNoMessage
			default:
				return 0, fmt.Errorf("%w: %s %s", ErrUnavailable, status, why)
			}
		case <-ctx.Done():
			return 0, c.apiError(ctx, context.Cause(ctx))
		}
	}
}
