package stream

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
)

// The state of a job is the state of its key (states.go). What watchers need is in a header: NATS republishes only the
// headers of each stored message, however large the results are.
const (
	headerJobState = "Weir-Job"
	// MaxJobBytes bounds a state with its body: a message holds 1 MiB.
	MaxJobBytes = 768 << 10
)

// Jobs keeps the states of jobs. JobEvents delivers them.
type Jobs interface {
	AppendOnce(ctx context.Context, k catalog.Key, r *record.Record) (*record.Record, error)
	Job(ctx context.Context, k catalog.Key, id JobKey) (*JobState, error)
	PutJob(ctx context.Context, k catalog.Key, id JobKey, s JobState, last uint64) (uint64, error)
	PutJobLater(ctx context.Context, k catalog.Key, id JobKey, header func() string, last uint64) (uint64, error)
	SettleJob(ctx context.Context, k catalog.Key, id JobKey) error
	PutJobUntil(ctx context.Context, k catalog.Key, id JobKey, s JobState, last uint64, impatient bool) (uint64, error)
	Hasten(ctx context.Context, k catalog.Key, id record.ID) error
}

// JobKey names a job among those of its queue.
type JobKey struct {
	Client record.Client
	ID     record.ID
}

// KeyOf is the key of the job whose record is r.
func KeyOf(r *record.Record) JobKey { return JobKey{r.Client, r.ID} }

// String is the end of a subject: the client, "-" if there is none, and the id.
func (j JobKey) String() string { return clientToken(j.Client) + "." + j.ID.String() }

func clientToken(c record.Client) string {
	if c == (record.Client{}) {
		return "-"
	}
	return base64.RawURLEncoding.EncodeToString(c[:])
}

// parseJobKey reads what String wrote.
func parseJobKey(text string) (j JobKey, err error) {
	client, id, _ := strings.Cut(text, ".")
	if client != "-" {
		b, err := base64.RawURLEncoding.DecodeString(client)
		if err != nil || len(b) != len(j.Client) {
			return j, fmt.Errorf("stream: %q names no client", client)
		}
		copy(j.Client[:], b)
	}
	j.ID, err = record.ParseID(id)
	return j, err
}

func jobEventSubject(k catalog.Key, end string) string {
	return "weir.e." + k.Namespace + "." + k.Name + "." + end
}

// JobState is the state of one job as it is stored.
type JobState struct {
	Header string // what watchers see: printable, without line breaks
	Body   []byte
	Seq    uint64    // its version: higher is later; zero if not stored
	Stored time.Time // when, by the server's clock (Conn.Now); zero unless it was read by Job
	Whole  bool      // of one that a watcher is told: Body is all of it
}

// AppendOnce stores r in queue k unless the queue holds a record of this id already. It returns nil once r is durable,
// or the record that is there. It costs a write of its own, which Writer.Append shares with others. The errors are
// those of Append.
func (c *Conn) AppendOnce(ctx context.Context, k catalog.Key, r *record.Record) (*record.Record, error) {
	if err := c.Ready(); err != nil {
		return nil, err
	}
	block, err := record.Encode([]record.Record{*r}, record.DefaultCodec)
	if err != nil {
		return nil, err
	}
	subject := onceSubject(k, r.ID)
	for {
		err := c.publishOnce(ctx, k, r, &nats.Msg{Subject: subject, Data: block[0]})
		if !wrongSequence(err) {
			if err != nil {
				return nil, fmt.Errorf("write to queue %s: %w", k, err)
			}
			return nil, nil //nolint:nilnil // documented: r itself was stored
		}
		m, err := c.last(ctx, queueStream(k), subject)
		if errors.Is(err, errNoMessage) { // it was settled and purged in between, or is being written
			if err := Pause(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read from queue %s: %w", k, err)
		}
		rs, err := record.Decode(m.data)
		if err != nil || len(rs) != 1 {
			return nil, fmt.Errorf("read from queue %s: record %s: %d records, %w", k, r.ID, len(rs), err)
		}
		return &rs[0], nil
	}
}

// publishOnce writes m, which holds r alone, unless its subject holds a message. One that does is no outcome of a write.
func (c *Conn) publishOnce(ctx context.Context, k catalog.Key, r *record.Record, m *nats.Msg) error {
	var sampled sampledRecords
	sampled.add(r)
	start := time.Now()
	ctx, span := c.metrics.sending(ctx, k, 1, &sampled)
	err := c.publish(ctx, m, "", jetstream.WithExpectLastSequencePerSubject(0))
	if wrongSequence(err) {
		endSending(span, nil)
		return err
	}
	endSending(span, err)
	c.metrics.writtenAlone(k, time.Since(start), err)
	return err
}

// Job returns the state of job id, or ErrNoJob. With several replicas it may be stale by a moment.
func (c *Conn) Job(ctx context.Context, k catalog.Key, id JobKey) (*JobState, error) {
	if err := c.Ready(); err != nil {
		return nil, err
	}
	s, err := c.State(ctx, k, id.String())
	switch {
	case err != nil:
		return nil, err
	case s.Version == 0:
		return nil, ErrNoJob
	}
	return &JobState{Header: s.Header, Body: s.Body, Seq: s.Version, Stored: s.Stored}, nil
}

// stored is a message as it was read.
type stored struct {
	header nats.Header
	data   []byte
	seq    uint64
	stored time.Time // by the server's clock
}

// errNoMessage means that a subject holds none.
var errNoMessage = errors.New("stream: no message")

// last reads the newest message of a subject. The request names the subject, so that NATS' permissions can narrow it
// below the stream. With several replicas any of them may answer, and may be stale by a moment.
func (c *Conn) last(ctx context.Context, stream, subject string) (*stored, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	m, err := c.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"DIRECT.GET."+stream+"."+subject, nil)
	if err != nil { // without responders the stream has no leader, or was not made yet
		return nil, c.apiError(ctx, err)
	}
	switch status := m.Header.Get("Status"); status {
	case "":
		return storedOf(m)
	case "404":
		return nil, errNoMessage
	default:
		return nil, fmt.Errorf("%w: %s %s", ErrUnavailable, status, m.Header.Get("Description"))
	}
}

// storedOf is the message that m says is stored.
func storedOf(m *nats.Msg) (*stored, error) {
	seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: a message without a sequence: %w", ErrUnavailable, err)
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return nil, fmt.Errorf("%w: a message without a time: %w", ErrUnavailable, err)
	}
	return &stored{m.Header, m.Data, seq, at}, nil
}

// CheckJob refuses a state that is too large.
func CheckJob(id JobKey, s JobState) error {
	if n := len(s.Header) + len(s.Body); n > MaxJobBytes {
		return fmt.Errorf("job %s: a state of %d bytes; at most %d", id, n, MaxJobBytes)
	}
	return nil
}

// PutJob asks the owner of the queue to replace the state of version last, zero if none, by s, and returns the new one's
// version once it is durable and can be looked up, or ErrJobChanged. On ErrUnavailable, and when ctx ends, it is unknown
// whether it was stored.
func (c *Conn) PutJob(ctx context.Context, k catalog.Key, id JobKey, s JobState, last uint64) (uint64, error) {
	if err := CheckJob(id, s); err != nil {
		return 0, err
	}
	if err := c.Ready(); err != nil {
		return 0, err
	}
	seq, err := c.askOwner(ctx, k, StateChange{Key: id.String(), Last: last, Header: s.Header, Body: s.Body})
	if err != nil && !errors.Is(err, ErrJobChanged) {
		return 0, fmt.Errorf("job %s of queue %s: %w", id, k, err)
	}
	return seq, err
}

// PutJobLater is PutJob of a state without a body: only the owner itself goes on before it is durable, or even made.
func (c *Conn) PutJobLater(ctx context.Context, k catalog.Key, id JobKey, header func() string, last uint64) (uint64, error) {
	return c.PutJobUntil(ctx, k, id, JobState{Header: header()}, last, true)
}

// SettleJob asks the owner of the queue, and returns once the newest state that it knows of the job can be looked up.
func (c *Conn) SettleJob(ctx context.Context, k catalog.Key, id JobKey) error {
	if err := c.Ready(); err != nil {
		return err
	}
	if _, err := c.askOwner(ctx, k, StateChange{Key: id.String(), Settle: true}); err != nil {
		return fmt.Errorf("job %s of queue %s: %w", id, k, err)
	}
	return nil
}

// PutJobUntil repeats PutJob until s is durable, the state has changed, ctx ends or the connection is lost; if impatient,
// also until it gets ErrQueueFull or ErrNoQueue. A state that was stored and whose ack was lost counts as durable, not
// as changed.
func (c *Conn) PutJobUntil(ctx context.Context, k catalog.Key, id JobKey, s JobState, last uint64, impatient bool) (uint64, error) {
	var seq uint64
	tried := false
	again := held(unconfirmed)
	if impatient {
		again = held(unanswered)
	}
	err := c.until(ctx, stateSubject(k, id.String()), again, func() (err error) {
		seq, err = c.PutJob(ctx, k, id, s, last)
		if errors.Is(err, ErrJobChanged) && tried {
			if there, rerr := c.Job(ctx, k, id); rerr == nil && there.Header == s.Header && bytes.Equal(there.Body, s.Body) {
				seq, err = there.Seq, nil
			}
		}
		tried = true
		return err
	})
	return seq, err
}

// wrongSequence reports whether a compare-and-set failed: nothing was stored.
func wrongSequence(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || beingWritten(err)
}

// beingWritten reports whether a compare-and-set was refused because, with several replicas, another write to the
// subject, maybe an earlier one of our own, is in flight.
func beingWritten(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// MaxLooks is how often to look, with a Pause between, before believing that something isn't there: a replica may not
// know yet what was stored a moment ago.
const MaxLooks = 3

// Pause waits, for at most 50 ms, before another look at what somebody else is changing: a retry at once after a failed
// compare-and-set would be a busy loop.
func Pause(ctx context.Context) error {
	select {
	case <-time.After(40*time.Millisecond + rand.N(10*time.Millisecond)): // jitter, so that two rivals don't collide again
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Hasten makes a record that DelayJob has rescheduled due at once. It is no error if there is none.
func (c *Conn) Hasten(ctx context.Context, k catalog.Key, id record.ID) error {
	for looks := 1; ; looks++ {
		err := c.hasten(ctx, k, id)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errNoMessage):
			if looks == MaxLooks {
				return nil
			}
		case !wrongSequence(err) || looks == MaxLooks: // it has become due by itself, or was rescheduled anew
			return fmt.Errorf("hasten record %s of queue %s: %w", id, k, err)
		}
		if err := Pause(ctx); err != nil {
			return err
		}
	}
}

func (c *Conn) hasten(ctx context.Context, k catalog.Key, id record.ID) error {
	m, err := c.last(ctx, retryStream(k), atSubject(k, id.String()))
	if err != nil {
		return err
	}
	err = c.publish(ctx, scheduled(k, id.String(), AtOnce(waitsSince(m.header, m.stored)), m.data), "", jetstream.WithExpectLastSequencePerSubject(m.seq))
	if errors.Is(err, ErrTooLargeForServer) {
		return nil // stored when the server took larger messages: it becomes due by itself
	}
	if wrongSequence(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err) // if it stays so, the caller may retry
	}
	return err
}
