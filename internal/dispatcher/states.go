package dispatcher

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/ledger"
	"github.com/weir-dev/weir/internal/stream"
)

// states are those of a queue's jobs, which the holder of the queue's lease owns.
type states struct {
	conn  Streams
	queue catalog.Key
	log   *slog.Logger
	holds func() bool // whether the lease holds by the clock

	ended atomic.Value // <-chan struct{}: of owner; nothing before open

	mu    sync.Mutex    // held while it is opened, which may take long
	owner *ledger.Owner // nil before open
	jobs  *ledger.Jobs
	stop  func()    // ends what others ask for
	since time.Time // when functions' reports began to be stored, by the server's clock; constant once open has returned
}

// open makes this process their owner, if it isn't. A queue whose jobs have no route has none: stream.ErrNoQueue.
func (s *states) open(ctx context.Context) (*ledger.Jobs, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != nil {
		return s.jobs, nil
	}
	owner, err := ledger.Open(ctx, s.conn, s.queue, s.log)
	if err != nil {
		return nil, err
	}
	jobs := owner.Jobs(s.conn)
	stop, err := jobs.Serve(s.holds)
	if err != nil {
		owner.Close(ctx)
		return nil, err
	}
	s.owner, s.jobs, s.stop, s.since = owner, jobs, stop, s.conn.Now()
	s.ended.Store(owner.Done())
	return s.jobs, nil
}

// prefetched are the states of the jobs of one block, which were looked up together.
type prefetched struct {
	done    chan struct{} // closed once they were, or can't be
	release func()        // once done is closed
}

// prefetch looks them up. wg is told of its goroutine.
func (s *states) prefetch(ctx context.Context, wg *sync.WaitGroup, jobs []stream.JobKey) *prefetched {
	p := &prefetched{done: make(chan struct{}), release: func() {}}
	wg.Go(func() {
		defer close(p.done)
		if owned, err := s.open(ctx); err == nil { // else each begins with the error
			p.release = owned.Prefetch(ctx, jobs)
		}
	})
	return p
}

// lost is closed when another has become the owner, or the connection is gone; nil before open.
func (s *states) lost() <-chan struct{} {
	ended, _ := s.ended.Load().(<-chan struct{})
	return ended
}

// close writes what waits, and ends.
func (s *states) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner == nil {
		return
	}
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), giveBackTimeout)
	defer cancel()
	s.owner.Close(ctx)
	s.owner = nil
}

// openStates opens the states of the mapping's queue for a session.
func (m *mapping) openStates() (*states, error) {
	s := &states{conn: m.cfg.Conn, queue: m.queue, log: m.log, holds: m.holds}
	if _, err := s.open(m.ctx); err != nil && !errors.Is(err, stream.ErrNoQueue) {
		return nil, err
	}
	return s, nil
}
