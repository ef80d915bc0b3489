package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
)

// JobEvents delivers the states of jobs as they are stored.
type JobEvents interface {
	NewJobWatch() *JobWatch
	Routed() bool
	Epoch(ctx context.Context, k catalog.Key, fresh bool) (string, error)
	FollowClient(ctx context.Context, client record.Client, queues []catalog.Key, after map[catalog.Key]Place, f func(catalog.Key, JobKey, JobState, Place) error) error
}

// JobWatcher receives what a JobWatch sees.
type JobWatcher interface {
	// Missed says that states may have been missed, and later ones will be seen.
	Missed()
	// Changed is called for each state that was stored, with its body only if that is small. Those of one job come in order,
	// except across a change of the stream's leader.
	Changed(k catalog.Key, id JobKey, s JobState)
}

// JobWatch receives the states of the jobs that it follows, which NATS republishes once they are stored: a subscription for
// each, of whose messages it gets no others.
type JobWatch struct {
	c        *Conn
	messages chan *nats.Msg
}

// JobSubscription is one job that a JobWatch follows.
type JobSubscription struct{ sub *nats.Subscription }

// NewJobWatch returns a watch that follows nothing yet. Run must run.
func (c *Conn) NewJobWatch() *JobWatch {
	return &JobWatch{c, make(chan *nats.Msg, maxJobEvents)}
}

// Follow subscribes to a job's states: whoever then looks it up by the same connection misses none. NATS being away only
// interrupts it. The error is the end of the connection.
func (w *JobWatch) Follow(k catalog.Key, id JobKey) (*JobSubscription, error) {
	sub, err := w.c.nc.ChanSubscribe(jobEventSubject(k, id.String()), w.messages)
	if err != nil {
		return nil, fmt.Errorf("job %s of queue %s: %w", id, k, err)
	}
	return &JobSubscription{sub}, nil
}

// Followed reports whether somebody follows the job's states at this moment, by a JobWatch.
func (c *Conn) Followed(ctx context.Context, k catalog.Key, id JobKey) (bool, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	_, err := c.nc.RequestWithContext(ctx, jobEventSubject(k, id.String()), nil)
	if errors.Is(err, nats.ErrNoResponders) {
		return false, nil
	}
	if err != nil {
		return false, c.apiError(ctx, err)
	}
	return true, nil
}

// Leave ends a subscription; nil is none. Some of its states may still come.
func (s *JobSubscription) Leave() {
	if s != nil {
		_ = s.sub.Unsubscribe() // it fails without a connection: then there is none
	}
}

// Run calls f until ctx ends.
func (w *JobWatch) Run(ctx context.Context, f JobWatcher) {
	full := false
	for w.c.WaitUp(ctx) == nil {
		live := w.c.Live()
		f.Missed() // between two connections
		for live.Err() == nil && ctx.Err() == nil {
			select {
			case m := <-w.messages:
				full = full || len(w.messages) >= maxJobEvents-1
				if m.Reply != "" { // it is no state: somebody asks whether we follow (Followed)
					_ = m.Respond(nil) // who asks asks again
					continue
				}
				if err := w.changed(m, f); err != nil {
					w.c.log.Warn("an unknown message among the states of jobs", "subject", m.Subject, "error", err)
				}
				if full && len(w.messages) == 0 {
					full = false
					f.Missed() // more came than there was room for, maybe
				}
			case <-live.Done():
			case <-ctx.Done():
			}
		}
	}
}

// changed tells f of the state that m is.
func (w *JobWatch) changed(m *nats.Msg, f JobWatcher) error {
	rest, isEvent := strings.CutPrefix(m.Subject, "weir.e.")
	ns, rest, hasName := strings.Cut(rest, ".")
	name, key, hasKey := strings.Cut(rest, ".")
	if !isEvent || !hasName || !hasKey {
		return errors.New("stream: no subject of a job's states")
	}
	id, err := parseJobKey(key)
	if err != nil {
		return err
	}
	s, err := toldState(m)
	if err != nil {
		return err
	}
	f.Changed(catalog.Key{Namespace: ns, Name: name}, id, s)
	return nil
}

// toldState is the state that NATS has republished as m.
func toldState(m *nats.Msg) (s JobState, err error) {
	s.Header = m.Header.Get(headerJobState)
	if s.Seq, err = versionOf(m.Header); err != nil {
		return s, err
	}
	s.Body, s.Whole, err = bodyOf(m.Header, m.Data)
	return s, err
}

// Routed reports whether messages pass between several servers: they are lost without a word when a connection between two
// of them breaks.
func (c *Conn) Routed() bool { return c.nc.ConnectedClusterName() != "" }

const (
	// maxJobEvents is how many states may wait for a watcher. When there are more, Missed is called.
	maxJobEvents = 4096
	// clientHeartbeat is the consumer's idle heartbeat, by which a lost message is noticed although none follows. After
	// two missing ones the consumer is created anew.
	clientHeartbeat = 5 * time.Second
	// clientGone is how long a consumer outlives its subscription.
	clientGone = 15 * time.Second
	// maxClientStates bounds the states that wait in memory. What is dropped past it is delivered again, all of it; to
	// make that rare, the server sends no more than clientRate, some thousand states a second.
	maxClientStates = 2048
	clientRate      = 8 << 20 // bits a second
	// restoringLook is how often it is looked whether states are whole again.
	restoringLook = 250 * time.Millisecond
	// maxCreating bounds the consumers that are being created at a time, when all clients come back at once.
	maxCreating = 32
)

// FollowClient calls f with the current state of each of the client's jobs in the queues, and then with every later one,
// until ctx ends, f fails or NATS is away. Those of a queue come in the order of their sequences, from the first one past
// its place in after; states that were replaced meanwhile are left out. They have a body only if it is small. A place of another epoch, or
// past the stream's last state, counts as the beginning; f gets the place of each state.
//
// It is a consumer for each queue, like nats.go's ordered consumer: in the memory of one server, created anew at its
// position when messages are missing. Unlike that one it needs no permission but to create consumers of the states of
// jobs: that to pull, or to delete, would be one over any consumer of any queue. It expires by itself.
func (c *Conn) FollowClient(ctx context.Context, client record.Client, queues []catalog.Key, after map[catalog.Key]Place, f func(catalog.Key, JobKey, JobState, Place) error) error {
	if client == (record.Client{}) {
		return errors.New("stream: the client to follow is missing")
	}
	if err := c.Ready(); err != nil {
		return err
	}
	ctx, cancel := c.whileUp(ctx)
	defer cancel()
	w := &clientWatch{conn: c, client: client, queues: make([]clientQueue, len(queues)), messages: make(chan *nats.Msg, maxClientStates)}
	for i, k := range queues {
		w.queues[i] = clientQueue{key: k, at: after[k]}
	}
	defer w.close()
	wait := clientHeartbeat
	for looked := (time.Time{}); ; {
		if time.Since(looked) >= wait && len(w.messages) == 0 { // else the silence may be our own backlog
			looked = time.Now()
			if err := w.consumeSilent(ctx); err != nil {
				return err
			}
			if wait = clientHeartbeat; slices.ContainsFunc(w.queues, func(q clientQueue) bool { return q.restoring }) {
				wait = restoringLook
			}
		}
		m, err := w.next(ctx, wait)
		if err == nil && m != nil {
			err = w.receive(ctx, m, f)
		}
		if err != nil {
			return err
		}
	}
}

// clientWatch is one FollowClient.
type clientWatch struct {
	conn     *Conn
	client   record.Client
	queues   []clientQueue
	messages chan *nats.Msg
}

// clientQueue is the position in one queue's states.
type clientQueue struct {
	key   catalog.Key
	at    Place
	sub   *nats.Subscription // of the current consumer; nil before the first
	count uint64             // of its messages that have come
	heard time.Time          // when it was last heard from; zero if there is none

	restoring bool // there is none while NATS' states are not whole
}

func (w *clientWatch) close() {
	for _, q := range w.queues {
		if q.sub != nil {
			_ = q.sub.Unsubscribe() // without it the consumer expires
		}
	}
}

// consumeSilent creates the consumers that don't exist, or have sent nothing for too long.
func (w *clientWatch) consumeSilent(ctx context.Context) error {
	for i := range w.queues {
		if q := &w.queues[i]; time.Since(q.heard) > 2*clientHeartbeat+clientHeartbeat/2 {
			if err := w.renew(ctx, q); err != nil {
				return err
			}
		}
	}
	return nil
}

// renew creates the consumer of a queue anew, at its position.
func (w *clientWatch) renew(ctx context.Context, q *clientQueue) error {
	err := w.conn.inEpoch(ctx, q.key, &q.at, func() error { return w.consume(ctx, q) })
	if q.restoring = errors.Is(err, ErrRestoring); q.restoring {
		q.heard = time.Time{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("queue %s: follow a client's jobs: %w", q.key, err)
	}
	return nil
}

// consume is renew without the queue in its errors.
func (w *clientWatch) consume(ctx context.Context, q *clientQueue) error {
	if q.sub != nil {
		_ = q.sub.Unsubscribe()
	}
	// A subject for each consumer: the server counts only a subscription to exactly this subject as interest.
	sub, err := w.conn.nc.ChanSubscribe(w.conn.nc.NewInbox(), w.messages)
	if err != nil {
		return w.conn.apiError(ctx, err)
	}
	q.sub, q.count = sub, 0
	select {
	case w.conn.creating <- struct{}{}:
		defer func() { <-w.conn.creating }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// Those before a restart of NATS may have been told already. Later ones are whole while the connection lasts, and so
	// does ctx.
	if _, err := w.conn.wholeStates(ctx, q.key); err != nil && !errors.Is(err, nats.ErrNoResponders) {
		return err
	}
	if err := w.rewind(ctx, q); err != nil {
		return err
	}
	q.heard = time.Now()
	err = w.conn.createConsumer(ctx, statesStream(q.key), jetstream.ConsumerConfig{
		DeliverSubject: sub.Subject, FilterSubject: stateSubject(q.key, clientToken(w.client)+".*"),
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: q.at.Seq + 1,
		AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true, MemoryStorage: true, Replicas: 1,
		IdleHeartbeat: clientHeartbeat, InactiveThreshold: clientGone, RateLimit: clientRate,
	})
	if errors.Is(err, ErrNoQueue) { // it has no jobs yet, or was deleted: the next look is in clientHeartbeat
		q.heard = q.heard.Add(-3 * clientHeartbeat / 2)
		return nil
	}
	return err
}

// createConsumer creates an ephemeral push consumer. The request names its filter, so that NATS' permissions can narrow it.
// ErrNoQueue means that there is no such stream.
func (c *Conn) createConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) error {
	cfg.Name = uuid.NewString()
	data, err := json.Marshal(struct {
		Stream string                   `json:"stream_name"`
		Config jetstream.ConsumerConfig `json:"config"`
		Action string                   `json:"action"`
	}{stream, cfg, "create"})
	if err != nil {
		return err
	}
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	m, err := c.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"CONSUMER.CREATE."+stream+"."+cfg.Name+"."+cfg.FilterSubject, data)
	if err != nil {
		return c.apiError(ctx, err)
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return err
	}
	switch {
	case answer.Error == nil:
		return nil
	case answer.Error.ErrorCode == jetstream.JSErrCodeStreamNotFound:
		return fmt.Errorf("%w: %w", ErrNoQueue, answer.Error)
	}
	return c.apiError(ctx, answer.Error)
}

// rewind starts over in a stream that ends before the place, as one does that was restored from a backup: the server
// would deliver nothing until it has grown past the place. A replica may not know the end yet.
func (w *clientWatch) rewind(ctx context.Context, q *clientQueue) error {
	for looks := 1; q.at.Seq > 0; looks++ {
		newest, err := w.conn.last(ctx, statesStream(q.key), stateSubject(q.key, "*.*"))
		switch {
		case errors.Is(err, errNoMessage): // all have aged out, or there were none yet: nothing would come twice
			q.at.Seq = 0
		case err != nil:
			return err
		case newest.seq >= q.at.Seq:
			return nil
		case looks == MaxLooks:
			q.at.Seq = 0
		default:
			if err := Pause(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// next waits for a message; nil after the wait without any.
func (w *clientWatch) next(ctx context.Context, wait time.Duration) (*nats.Msg, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case m := <-w.messages:
		return m, nil
	case <-timer.C:
		return nil, nil //nolint:nilnil // documented
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// receive takes a state, or a heartbeat, of one of the current consumers.
func (w *clientWatch) receive(ctx context.Context, m *nats.Msg, f func(catalog.Key, JobKey, JobState, Place) error) error {
	i := slices.IndexFunc(w.queues, func(q clientQueue) bool { return q.sub == m.Sub })
	if i < 0 {
		return nil // of a former consumer
	}
	q := &w.queues[i]
	alive := m.Subject == q.sub.Subject // else it is a state, under its own subject
	var last, seq uint64
	if alive {
		n, err := strconv.ParseUint(m.Header.Get("Nats-Last-Consumer"), 10, 64)
		if err != nil {
			return nil //nolint:nilerr // none of the server's
		}
		last = n
	} else {
		meta, err := m.Metadata()
		if err != nil {
			return nil //nolint:nilerr // none of the server's
		}
		last, seq = meta.Sequence.Consumer, meta.Sequence.Stream
	}
	q.heard = time.Now()
	expected := q.count
	if !alive {
		expected++
	}
	if last != expected { // something is missing
		return w.renew(ctx, q)
	}
	if alive {
		return nil
	}
	q.count, q.at.Seq = expected, seq
	id, err := parseJobKey(strings.TrimPrefix(m.Subject, stateSubject(q.key, "")))
	if err != nil {
		w.conn.log.Warn("an unknown message among the states of jobs", "subject", m.Subject)
		return nil //nolint:nilerr // the others go on
	}
	s, err := toldState(m)
	if err != nil {
		w.conn.log.Warn("an unknown message among the states of jobs", "subject", m.Subject)
		return nil //nolint:nilerr // the others go on
	}
	return f(q.key, id, s, q.at)
}
