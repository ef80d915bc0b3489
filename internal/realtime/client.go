package realtime

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// clientFeed has the states to send to one client of all its jobs: of each job the current state, then every later
// one, each once, in the order in which each queue stored them. NATS delivers them in this order, so the client's
// cursor is one place a queue.
type clientFeed struct {
	s      *Server
	client record.Client
	queues []catalog.Key
	wake   func() // called when a state is pending
	after  job.Position

	stop  context.CancelFunc
	done  chan struct{} // closed when delivery has ended
	count sync.Once     // counts it out of the server's feeds, once

	mu      sync.Mutex
	pending []clientState
	err     error
	room    chan struct{} // capacity 1: signals room in pending

	told job.Position // the cursor; used only by the goroutine that calls next
}

// errManyFeeds means that maxFeeds are open.
var errManyFeeds = errors.New("realtime: too many feeds")

type clientState struct {
	id    job.ID
	state *job.State
	at    stream.Place
}

// newClientFeed returns the feed of the id text, from position on. It delivers nothing before start, and counts as one
// of the server's until close. It returns job.ErrNoFeed or errManyFeeds.
func (s *Server) newClientFeed(text, position string, wake func()) (*clientFeed, error) {
	feed, err := job.ParseFeed(text, *s.keys.Load())
	if err != nil {
		return nil, err
	}
	if s.feeds.Add(1) > maxFeeds {
		s.feeds.Add(-1)
		return nil, errManyFeeds
	}
	queues := s.queues.Load().jobs
	after := job.ParsePosition(position, queues)
	return &clientFeed{
		s: s, client: feed.Client(), queues: queues, wake: wake, after: after,
		stop: func() {}, room: make(chan struct{}, 1), told: maps.Clone(after),
	}, nil
}

// start begins delivery, until ctx ends or close is called.
func (f *clientFeed) start(ctx context.Context) {
	ctx, f.stop = context.WithCancel(ctx)
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		err := job.FollowClient(ctx, f.s.cfg.Conn, f.client, f.queues, f.after, func(id job.ID, s *job.State, at stream.Place) error {
			return f.add(ctx, clientState{id, s, at})
		})
		if ctx.Err() != nil { // it is closed; the closer reports why
			return
		}
		f.mu.Lock()
		f.err = err
		f.mu.Unlock()
		f.wake()
	}()
}

// add blocks while maxPending states are pending: states that NATS replaces with later ones meanwhile are left out.
func (f *clientFeed) add(ctx context.Context, s clientState) error {
	for {
		f.mu.Lock()
		if len(f.pending) < maxPending {
			f.pending = append(f.pending, s)
			f.mu.Unlock()
			f.wake()
			return nil
		}
		f.mu.Unlock()
		select {
		case <-f.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// now implements updates: a small result has to be read.
func (f *clientFeed) now() (told, error) { return told{}, errWait }

// next implements updates.
func (f *clientFeed) next(ctx context.Context) (told, error) {
	f.mu.Lock()
	if len(f.pending) == 0 {
		defer f.mu.Unlock()
		return told{}, f.err
	}
	p := f.pending[0]
	if f.pending = f.pending[1:]; len(f.pending) == 0 {
		f.pending = nil
	}
	f.mu.Unlock()
	select {
	case f.room <- struct{}{}:
	default:
	}
	text, err := p.id.Text(*f.s.keys.Load())
	if err != nil {
		return told{}, err
	}
	f.told[p.id.Queue] = p.at
	d := f.s.document(ctx, text, p.id, f.s.queues.Load().maxAges[p.id.Queue], p.state)
	d.Position = f.position()
	doc, err := shownOnce(d)
	return told{any: true, doc: doc, at: d.Position}, err
}

// ended implements updates: there may always be another job.
func (f *clientFeed) ended() bool { return false }

// position is the cursor.
func (f *clientFeed) position() string { return f.told.String() }

// lookAgain implements updates: NATS delivers every stored state, so none can be missed.
func (f *clientFeed) lookAgain() {}

// stale implements updates: the queues with jobs have changed.
func (f *clientFeed) stale() bool { return !slices.Equal(f.queues, f.s.queues.Load().jobs) }

// close implements updates.
func (f *clientFeed) close() {
	f.stop()
	if f.done != nil {
		<-f.done
	}
	f.count.Do(func() { f.s.feeds.Add(-1) })
}
