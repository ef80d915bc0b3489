package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A stream goes from one server to another by JetStream's snapshot and restore (nats-server, jetstream_api.go: streamSnapshot,
// processStreamRestore): messages with their sequences, times and headers, and the states of consumers. Both servers give up
// on a peer that is silent for five seconds, and one that syncs each message may store no more than some hundred in that
// time. So what a chunk of the snapshot unpacks to is sent on in small blocks, and the source is told to go on meanwhile.
const (
	// snapshotChunk and snapshotWindow are what the source sends at a time, and ahead of what is acknowledged, packed.
	snapshotChunk, snapshotWindow = 8 << 10, 1 << 20
	// snapshotPatience is how long after the last acknowledgement the source is sent one that nothing was done for yet, so that
	// it doesn't give up. maxAhead bounds them, and what is in memory with them: past it the target is too slow.
	snapshotPatience = 2 * time.Second
	maxAhead         = 32 << 20 / snapshotChunk
	// restoreBlock is how much of a stream, unpacked, the target has to store within its five seconds: some hundred messages,
	// if they are small.
	restoreBlock = 32 << 10
	// silence is how long a server that has something to send or to answer may be silent.
	silence = 30 * time.Second
	// restoreTimeout bounds what the target does after the last chunk.
	restoreTimeout = 10 * time.Minute
)

// snapshot is a stream as its server sends it, an io.Reader. Whoever reads must Close.
type snapshot struct {
	Config jetstream.StreamConfig
	State  jetstream.StreamState

	c      *Conn
	ctx    context.Context //nolint:containedctx // of the reading
	sub    *nats.Subscription
	chunks chan *nats.Msg
	rest   []byte // of the last chunk
	end    error  // what the next Read returns; nil until the last chunk was read

	stop chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	reply string    // where acknowledgements go; empty before the first chunk
	last  time.Time // when one was sent
	ahead int       // of them, for chunks that were not read yet
}

// snapshot begins one of a stream.
func (c *Conn) snapshot(ctx context.Context, name string, consumers bool) (*snapshot, error) {
	s := &snapshot{c: c, ctx: ctx, chunks: make(chan *nats.Msg, snapshotWindow/snapshotChunk+maxAhead+2), stop: make(chan struct{}), last: time.Now()}
	inbox := c.nc.NewInbox()
	var err error
	if s.sub, err = c.nc.ChanSubscribe(inbox, s.chunks); err != nil {
		return nil, c.apiError(ctx, err)
	}
	request, err := json.Marshal(struct {
		Deliver     string `json:"deliver_subject"`
		NoConsumers bool   `json:"no_consumers"`
		Chunk       int    `json:"chunk_size"`
		Window      int    `json:"window_size"`
	}{inbox, !consumers, snapshotChunk, snapshotWindow})
	var answer struct {
		Error  *jetstream.APIError     `json:"error"`
		Config *jetstream.StreamConfig `json:"config"`
		State  *jetstream.StreamState  `json:"state"`
	}
	if err == nil {
		actx, cancel := c.bound(ctx, silence)
		err = c.ask(actx, "STREAM.SNAPSHOT."+name, request, &answer)
		cancel()
	}
	switch {
	case err != nil:
	case answer.Error != nil:
		err = answer.Error
	case answer.Config == nil || answer.State == nil:
		err = errors.New("its server answers without a configuration")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("snapshot: %w", err), s.sub.Unsubscribe())
	}
	s.Config, s.State = *answer.Config, *answer.State
	s.wg.Go(s.encourage)
	return s, nil
}

// Read returns what has come, and acknowledges it.
func (s *snapshot) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.end != nil {
			return 0, s.end
		}
		if err := s.next(); err != nil {
			s.end = err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// next takes a chunk. io.EOF means that the one before was the last.
func (s *snapshot) next() error {
	timeout := time.NewTimer(silence)
	defer timeout.Stop()
	select {
	case m := <-s.chunks:
		if status := m.Header.Get("Status"); len(m.Data) == 0 && (status == "" || status == "204") {
			return io.EOF
		} else if len(m.Data) == 0 {
			return fmt.Errorf("snapshot: the server gave up: %s %s", status, m.Header.Get("Description"))
		}
		s.rest = m.Data
		return s.acknowledge(m.Reply)
	case <-timeout.C:
		return fmt.Errorf("snapshot: %w: nothing came for %s", ErrUnavailable, silence)
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

func (s *snapshot) acknowledge(reply string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reply == "" { // the last chunk wants none
		return nil
	}
	s.reply = reply
	if s.ahead > 0 {
		s.ahead--
		return nil
	}
	s.last = time.Now()
	return s.c.nc.Publish(reply, nil)
}

// encourage keeps the source from giving up while the target works.
func (s *snapshot) encourage() {
	tick := time.NewTicker(snapshotPatience / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.stop:
			return
		}
		s.mu.Lock()
		if s.reply != "" && len(s.chunks) > 0 && s.ahead < maxAhead && time.Since(s.last) >= snapshotPatience {
			s.last = time.Now()
			s.ahead++
			_ = s.c.nc.Publish(s.reply, nil) // without a connection the reader notices
		}
		s.mu.Unlock()
	}
}

// Close ends the snapshot, whether or not it was read.
func (s *snapshot) Close() error {
	close(s.stop)
	s.wg.Wait()
	return s.sub.Unsubscribe()
}

// restore makes a stream of a snapshot, with another configuration.
func (c *Conn) restore(ctx context.Context, cfg jetstream.StreamConfig, s *snapshot) error {
	request, err := json.Marshal(struct {
		Config jetstream.StreamConfig `json:"config"`
		State  jetstream.StreamState  `json:"state"`
	}{cfg, s.State})
	if err != nil {
		return err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Deliver string              `json:"deliver_subject"`
	}
	actx, cancel := c.bound(ctx, silence)
	err = c.ask(actx, "STREAM.RESTORE."+cfg.Name, request, &answer)
	cancel()
	if err == nil && answer.Error != nil {
		err = c.apiError(ctx, answer.Error)
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	to := restoring{c: c, ctx: ctx, subject: answer.Deliver}
	packer := s2.NewWriter(to, s2.WriterBlockSize(restoreBlock), s2.WriterConcurrency(1))
	if _, err := io.Copy(packer, s2.NewReader(s)); err != nil {
		return err
	}
	if err := packer.Close(); err != nil {
		return err
	}
	return to.send(nil, restoreTimeout)
}

// restoring writes chunks, each of which the target has stored, or nearly so, when Write returns.
type restoring struct {
	c       *Conn
	ctx     context.Context //nolint:containedctx // an io.Writer
	subject string
}

func (r restoring) Write(p []byte) (int, error) {
	if len(p) == 0 { // the target would take it for the end
		return 0, nil
	}
	return len(p), r.send(p, silence)
}

func (r restoring) send(chunk []byte, timeout time.Duration) error {
	ctx, cancel := r.c.bound(r.ctx, timeout)
	defer cancel()
	m, err := r.c.nc.RequestWithContext(ctx, r.subject, chunk)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return errors.New("restore: the target has given it up; its log says why")
	case err != nil:
		return fmt.Errorf("restore: %w", r.c.apiError(ctx, err))
	case len(m.Data) == 0:
		return nil
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if answer.Error != nil {
		return fmt.Errorf("restore: %w", r.c.apiError(ctx, answer.Error))
	}
	return nil
}
