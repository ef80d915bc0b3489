package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
)

// Move takes all of Weir's streams from one NATS to another, which has none of them:
//
//  1. It closes the streams at the source, as CloseQueue does: no record comes in, no retry falls due, no lease is renewed. So
//     what it copies is all there will be. The source can be used again: a controller that works on it opens its streams.
//  2. It copies stream after stream (snapshot.go), without what is settled: a replica that gets a new volume may forget where
//     a restored consumer was. Each says at the target, in its metadata, that it is being restored, until it was compared with
//     the source; one that was restored in part is made anew.
//  3. The bucket of the catalog is the last: without it nobody takes records in.
//  4. It leaves a mark (AwaitMove), not before the leases at the source are over: that is LeaseTTL after they were closed. Only
//     after the mark a controller makes the stream of leases, which is not copied; without it nobody calls a function. So a
//     dispatcher of the source's has cut its calls before one of the target's makes any.
//
// Where it was interrupted it goes on when it is run again. docs/decisions/0024 says why it is so.
type Move struct {
	From, To *Conn
	// Name is by which AwaitMove knows it. It is one token.
	Name string
	// Replicas of the streams at the target.
	Replicas int
	// AsyncWait is how long NATS may take to sync what it stores asynchronously; zero means DefaultAsyncWait.
	AsyncWait time.Duration
	Log       *slog.Logger
}

const (
	// DefaultAsyncWait is a little more than NATS' own interval, two minutes.
	DefaultAsyncWait = 130 * time.Second

	movedStream, movedSubject = "WEIR_MOVED", "weir.moved."
	// Metadata of a stream: at the source that it was closed for a move, and what its MaxMsgSize was; at the target of which
	// closing it was made, and how far it is.
	movingKey      = "weir.dev/move"
	stateRestoring = "restoring"
	stateRestored  = "restored"

	moveTries = 4
	movePause = 3 * time.Second
	// compareTimeout bounds the wait until the replicas have all of a stream.
	compareTimeout = 10 * time.Minute
	awaitEvery     = time.Second
)

// ErrNotEmpty means that the target of a move holds streams of Weir's that are not this move's.
var ErrNotEmpty = errors.New("stream: the target of the move is in use")

// Moved is what a move has done.
type Moved struct {
	Streams  int       `json:"streams"`
	Messages uint64    `json:"messages"`
	Bytes    uint64    `json:"bytes"`
	At       time.Time `json:"at"`
}

// Run moves. It may be run again after an error, or a crash.
func (m Move) Run(ctx context.Context) (Moved, error) {
	if m.AsyncWait == 0 {
		m.AsyncWait = DefaultAsyncWait
	}
	streams, err := m.From.weirStreams(ctx)
	if err != nil {
		return Moved{}, fmt.Errorf("move: the source: %w", err)
	}
	if len(streams) == 0 {
		return Moved{}, errors.New("move: the source holds no streams of Weir: is it the right one? A folder or volume must be that of a single server")
	}
	done, ok, err := m.To.doneMove(ctx, m.Name)
	if err != nil {
		return done, fmt.Errorf("move: the target: %w", err)
	}
	if ok {
		return done, m.still(streams)
	}
	if err := m.mayBegin(ctx, streams); err != nil {
		return Moved{}, err
	}
	closed, err := m.close(ctx, streams)
	if err != nil {
		return Moved{}, err
	}
	// The catalog is the last, and what most depends on comes late.
	slices.SortFunc(streams, func(a, b *jetstream.StreamInfo) int { return strings.Compare(moveOrder(a), moveOrder(b)) })
	wait := LeaseTTL
	for _, info := range streams {
		if info.Config.Name == leaseStream {
			continue
		}
		state, err := m.stream(ctx, info)
		if err != nil {
			return Moved{}, fmt.Errorf("move: stream %s: %w", info.Config.Name, err)
		}
		done.Streams++
		done.Messages += state.Msgs
		done.Bytes += state.Bytes
		if m.config(info, "").PersistMode == jetstream.AsyncPersistMode {
			wait = max(wait, m.AsyncWait+time.Since(closed))
		}
	}
	m.Log.InfoContext(ctx, "all streams are moved; waiting until it is certain that nobody works at the source", "left", max(0, wait-time.Since(closed)).Round(time.Second).String())
	select {
	case <-time.After(wait - time.Since(closed)):
	case <-ctx.Done():
		return Moved{}, context.Cause(ctx)
	}
	done.At = m.To.Now()
	if err := m.To.markMoved(ctx, m.Name, m.Replicas, done); err != nil {
		return Moved{}, fmt.Errorf("move: %w", err)
	}
	return done, nil
}

func moveOrder(info *jetstream.StreamInfo) string {
	if name := info.Config.Name; name != "KV_"+catalogBucket {
		return name
	}
	return "~" // behind all letters
}

// weirStreams are the streams that a move moves, and that of the leases.
func (c *Conn) weirStreams(ctx context.Context) ([]*jetstream.StreamInfo, error) {
	var listed []string
	actx, cancel := c.bound(ctx, silence)
	defer cancel()
	names := c.js.StreamNames(actx)
	for name := range names.Name() {
		if name == movedStream || !strings.HasPrefix(name, "WEIR_") && !strings.HasPrefix(name, "KV_WEIR_") {
			continue
		}
		listed = append(listed, name)
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("list the streams: %w", c.apiError(actx, err))
	}
	var out []*jetstream.StreamInfo
	for _, name := range listed {
		// A cluster says nothing of one that was being restored until it gives that up, and then lists one that it doesn't find.
		var info *jetstream.StreamInfo
		err := again(ctx, func() (err error) { info, err = c.info(ctx, name); return err }, func(err error) bool { return errors.Is(err, ErrNoQueue) })
		if errors.Is(err, ErrNoQueue) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", name, err)
		}
		out = append(out, info)
	}
	return out, nil
}

// again calls f until it succeeds, its error is final, or it has failed too often.
func again(ctx context.Context, f func() error, final func(error) bool) error {
	for try := 1; ; try++ {
		err := f()
		if err == nil || try == moveTries || final(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(movePause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// info asks about a stream; ErrNoQueue means that there is none.
func (c *Conn) info(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	return c.streamInfo(ctx, name, "")
}

// closing is what a stream's metadata at the source say: under which name it was closed, and what its MaxMsgSize was.
func closing(cfg jetstream.StreamConfig) (id string, size int32, ok bool) {
	id, text, _ := strings.Cut(cfg.Metadata[movingKey], " ")
	n, err := strconv.ParseInt(text, 10, 32)
	return id, int32(n), err == nil && cfg.MaxMsgSize == closedMsgSize
}

// close closes all streams, and returns when.
func (m Move) close(ctx context.Context, streams []*jetstream.StreamInfo) (time.Time, error) {
	for i, info := range streams {
		if _, _, ok := closing(info.Config); ok {
			continue
		}
		cfg := info.Config
		cfg.Metadata = maps.Clone(cfg.Metadata)
		if cfg.Metadata == nil {
			cfg.Metadata = map[string]string{}
		}
		cfg.Metadata[movingKey] = uuid.NewString() + " " + strconv.Itoa(int(cfg.MaxMsgSize))
		cfg.MaxMsgSize = closedMsgSize
		if err := m.From.update(ctx, cfg); err != nil {
			return time.Time{}, fmt.Errorf("move: close stream %s at the source: %w", cfg.Name, err)
		}
		var err error
		if streams[i], err = m.From.info(ctx, cfg.Name); err != nil {
			return time.Time{}, fmt.Errorf("move: stream %s at the source: %w", cfg.Name, err)
		}
	}
	return time.Now(), nil
}

func (c *Conn) update(ctx context.Context, cfg jetstream.StreamConfig) error {
	ctx, cancel := c.bound(ctx, silence)
	defer cancel()
	if _, err := c.js.UpdateStream(ctx, cfg); err != nil {
		return c.apiError(ctx, err)
	}
	return nil
}

// still reports whether the source is as it was when it was moved.
func (m Move) still(streams []*jetstream.StreamInfo) error {
	for _, info := range streams {
		if _, _, ok := closing(info.Config); !ok {
			return fmt.Errorf("move %s is done, but the source was used since: what its stream %s has got is not at the target: move to an empty NATS", m.Name, info.Config.Name)
		}
	}
	return nil
}

// mayBegin reports whether the target holds nothing but what an earlier run has brought.
func (m Move) mayBegin(ctx context.Context, streams []*jetstream.StreamInfo) error {
	there, err := m.To.weirStreams(ctx)
	if err != nil {
		return fmt.Errorf("move: the target: %w", err)
	}
	for _, t := range there {
		brought := t.Config.Metadata[movingKey] != "" && slices.ContainsFunc(streams, func(s *jetstream.StreamInfo) bool { return s.Config.Name == t.Config.Name })
		if !brought {
			return fmt.Errorf("%w: it holds the stream %s: move to a NATS without any of Weir's", ErrNotEmpty, t.Config.Name)
		}
	}
	return nil
}

// config is that of a stream at the target, as the metadata say how far it is; with empty ones it is as it stays.
func (m Move) config(info *jetstream.StreamInfo, state string) jetstream.StreamConfig {
	id, size, _ := closing(info.Config)
	cfg := info.Config
	cfg.MaxMsgSize, cfg.Replicas = size, m.Replicas
	if m.Replicas > 1 {
		cfg.PersistMode = jetstream.DefaultPersistMode // NATS has no other with replicas
	}
	cfg.Metadata = maps.Clone(cfg.Metadata)
	delete(cfg.Metadata, movingKey)
	if state != "" {
		cfg.Metadata[movingKey] = id + " " + state
	}
	return cfg
}

// stream moves one, and returns what was moved.
func (m Move) stream(ctx context.Context, info *jetstream.StreamInfo) (state jetstream.StreamState, err error) {
	name, want := info.Config.Name, m.config(info, stateRestored)
	final := func(err error) bool {
		if !errors.Is(err, ErrNoRoom) {
			m.Log.WarnContext(ctx, "a stream was not moved", "stream", name, "error", err)
		}
		return errors.Is(err, ErrNoRoom)
	}
	err = again(ctx, func() error {
		there, err := m.To.info(ctx, name)
		if err == nil && there.Config.Metadata[movingKey] == want.Metadata[movingKey] {
			state = there.State
			return nil
		}
		// What is there of it has never taken a write: without the catalog and the leases nobody writes.
		if err := m.To.deleteStream(ctx, name); err != nil {
			return err
		}
		began := time.Now()
		was, err := m.copy(ctx, info)
		if err != nil {
			return err
		}
		if err := m.compare(ctx, info, was); err != nil {
			return err
		}
		// Open, as large as it was, only now: a message larger than MaxMsgSize, as a closed queue has many, can't be restored.
		if err := m.To.update(ctx, want); err != nil {
			return err
		}
		state = was.state
		m.Log.InfoContext(ctx, "a stream is moved", "stream", name, "messages", state.Msgs, "bytes", state.Bytes, "took", time.Since(began).Round(time.Millisecond).String())
		return nil
	}, final)
	return state, err
}

func (c *Conn) deleteStream(ctx context.Context, name string) error {
	ctx, cancel := c.bound(ctx, silence)
	defer cancel()
	if err := c.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("remove what was restored of it: %w", c.apiError(ctx, err))
	}
	return nil
}

// copied is what the source said of a stream when it was copied.
type copied struct {
	state    jetstream.StreamState
	consumer *jetstream.ConsumerInfo // nil if it has none
}

// copy copies a stream.
func (m Move) copy(ctx context.Context, info *jetstream.StreamInfo) (was copied, err error) {
	if was.consumer, err = m.From.consumer(ctx, info.Config.Name); err != nil {
		return was, err
	}
	if was.consumer != nil && was.consumer.Config.FilterSubject == "" { // a queue's own
		if _, err := m.From.purgeSettled(ctx, info.Config.Name); err != nil {
			return was, fmt.Errorf("remove what is settled: %w", err)
		}
	}
	s, err := m.From.snapshot(ctx, info.Config.Name, was.consumer != nil)
	if err != nil {
		return was, err
	}
	was.state = s.State
	cfg := m.config(info, stateRestoring)
	cfg.MaxMsgSize = -1
	err = m.To.restore(ctx, cfg, s)
	return was, errors.Join(err, s.Close())
}

// consumer is the dispatcher's of a stream; nil if it has none. Others are of who watches, and are not moved.
func (c *Conn) consumer(ctx context.Context, name string) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	consumer, err := c.js.Consumer(ctx, name, consumerName)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, nil //nolint:nilnil // as it says
	case err != nil:
		return nil, fmt.Errorf("its consumer: %w", c.apiError(ctx, err))
	}
	return consumer.CachedInfo(), nil
}

// compare waits until the target, with all its replicas, has what the source has.
func (m Move) compare(ctx context.Context, info *jetstream.StreamInfo, was copied) error {
	name := info.Config.Name
	source, err := m.From.info(ctx, name)
	if err != nil {
		return err
	}
	if source.State.LastSeq != was.state.LastSeq {
		return fmt.Errorf("it grew at the source from %d to %d while it was copied", was.state.LastSeq, source.State.LastSeq)
	}
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	for {
		why := m.differs(ctx, info.Config, was.state)
		if why == nil && was.consumer != nil {
			why = m.forgets(ctx, name, was.consumer)
		}
		if why == nil || errors.Is(why, errDiffers) {
			return why
		}
		select {
		case <-time.After(awaitEvery / 10):
		case <-ctx.Done():
			return fmt.Errorf("the target does not get ready: %w", why)
		}
	}
}

// forgets is nil if a consumer at the target has all that is not settled, and not all from the beginning.
func (m Move) forgets(ctx context.Context, name string, was *jetstream.ConsumerInfo) error {
	is, err := m.To.consumer(ctx, name)
	switch {
	case err != nil:
		return err
	case is == nil:
		return errors.New("it has no consumer yet")
	case was.Config.FilterSubject == "" && is.AckFloor.Stream < was.AckFloor.Stream:
		return fmt.Errorf("its consumer is at %d of %d", is.AckFloor.Stream, was.AckFloor.Stream)
	}
	if want, has := was.NumPending+uint64(was.NumAckPending), is.NumPending+uint64(is.NumAckPending); has < want {
		return fmt.Errorf("its consumer has %d messages of %d", has, want)
	}
	return nil
}

var errDiffers = errors.New("the target has not what the source has")

// differs is nil if a stream at the target has what the source said. What NATS removes by itself may be gone, and schedules
// of retries go on there.
func (m Move) differs(ctx context.Context, cfg jetstream.StreamConfig, want jetstream.StreamState) error {
	there, err := m.To.info(ctx, cfg.Name)
	if err != nil {
		return err
	}
	got := there.State
	ages := cfg.MaxAge > 0 || cfg.AllowMsgTTL
	switch {
	case got.LastSeq < want.LastSeq, got.LastSeq > want.LastSeq && !cfg.AllowMsgSchedules && !ages, got.FirstSeq < want.FirstSeq,
		got.Msgs != want.Msgs && !ages:
		return fmt.Errorf("%w: %d messages, %d to %d, of %d, %d to %d", errDiffers, got.Msgs, got.FirstSeq, got.LastSeq, want.Msgs, want.FirstSeq, want.LastSeq)
	case m.Replicas == 1:
		return nil
	case there.Cluster == nil || len(there.Cluster.Replicas) != m.Replicas-1:
		return errors.New("it has not all its replicas")
	}
	for _, r := range there.Cluster.Replicas {
		if !r.Current {
			return fmt.Errorf("replica %s lags behind", r.Name)
		}
	}
	return nil
}

// markMoved leaves the mark of a move that is done.
func (c *Conn) markMoved(ctx context.Context, name string, replicas int, done Moved) error {
	ctx, cancel := c.bound(ctx, silence)
	defer cancel()
	_, err := c.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: movedStream, Subjects: []string{movedSubject + "*"}, Storage: jetstream.FileStorage, Replicas: replicas, MaxMsgsPerSubject: 1,
	})
	if err != nil {
		return fmt.Errorf("stream %s: %w", movedStream, c.apiError(ctx, err))
	}
	data, err := json.Marshal(done)
	if err != nil {
		return err
	}
	if _, err := c.js.Publish(ctx, movedSubject+name, data); err != nil {
		return fmt.Errorf("mark the move as done: %w", publishError(ctx, err))
	}
	return nil
}

// doneMove reports whether a move to here is done.
func (c *Conn) doneMove(ctx context.Context, name string) (done Moved, ok bool, err error) {
	ctx, cancel := c.bound(ctx, apiTimeout)
	defer cancel()
	st, err := c.js.Stream(ctx, movedStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return done, false, nil
	}
	if err != nil {
		return done, false, c.apiError(ctx, err)
	}
	mark, err := st.GetLastMsgForSubject(ctx, movedSubject+name)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return done, false, nil
	}
	if err != nil {
		return done, false, c.apiError(ctx, err)
	}
	return done, true, json.Unmarshal(mark.Data, &done)
}

// AwaitMove waits until a move to here is done.
func (c *Conn) AwaitMove(ctx context.Context, name string) error {
	c.log.InfoContext(ctx, "waiting until the streams were moved here", "move", name)
	for {
		done, ok, err := c.doneMove(ctx, name)
		if ok && err == nil {
			c.log.InfoContext(ctx, "the streams were moved here", "move", name, "streams", done.Streams, "messages", done.Messages)
			return nil
		}
		if err != nil {
			c.log.DebugContext(ctx, "whether the streams were moved here is not known", "move", name, "error", err)
		}
		select {
		case <-time.After(awaitEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
