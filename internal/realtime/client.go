package realtime

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// clientFeed is what is to be told one client of all its jobs: of each the present state, then every later one, each
// once, in the order of their storing in each queue. It comes from NATS in this order, so how far it has come is one
// place a queue.
type clientFeed struct {
	s      *Server
	client record.Client
	queues []catalog.Key
	wake   func() // something waits
	after  job.Position

	stop  context.CancelFunc
	done  chan struct{} // what brings the states has ended
	count sync.Once     // out of the server's feeds

	mu      sync.Mutex
	pending []clientState
	err     error
	room    chan struct{} // capacity 1: there is room in pending again

	told job.Position // only the goroutine that takes uses it
}

// errManyFeeds means that maxFeeds are open.
var errManyFeeds = errors.New("realtime: too many feeds")

type clientState struct {
	id    job.ID
	state *job.State
	at    stream.Place
}

// newClientFeed is that of a feed's text, from position on. It brings nothing before start, and counts as one of the
// server's until close. It returns job.ErrNoFeed or errManyFeeds.
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

// start begins to bring states, until ctx ends or close.
func (f *clientFeed) start(ctx context.Context) {
	ctx, f.stop = context.WithCancel(ctx)
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		err := job.FollowClient(ctx, f.s.cfg.Conn, f.client, f.queues, f.after, func(id job.ID, s *job.State, at stream.Place) error {
			return f.add(ctx, clientState{id, s, at})
		})
		if ctx.Err() != nil { // it is closed, by whoever says why
			return
		}
		f.mu.Lock()
		f.err = err
		f.mu.Unlock()
		f.wake()
	}()
}

// add waits while maxPending states wait: what is replaced meanwhile in NATS is left out.
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
	var body []byte
	if jobapi.Shows(p.state) {
		at, b, err := job.Get(ctx, f.s.cfg.Conn, p.id, f.s.queues.Load().maxAges[p.id.Queue], time.Now())
		if err == nil && at.Version() == p.state.Version() { // else the client asks for the result itself
			body = b
		}
	}
	f.told[p.id.Queue] = p.at
	d := jobapi.NewDocument(text, p.state, body)
	d.Position = f.position()
	return told{any: true, doc: &d}, nil
}

// ended implements updates: there may always be another job.
func (f *clientFeed) ended() bool { return false }

// position implements updates.
func (f *clientFeed) position() string { return f.told.String() }

// lookAgain implements updates: whatever NATS stores comes.
func (f *clientFeed) lookAgain() {}

// stale implements updates: there are other queues with jobs now.
func (f *clientFeed) stale() bool { return !slices.Equal(f.queues, f.s.queues.Load().jobs) }

// close implements updates.
func (f *clientFeed) close() {
	f.stop()
	if f.done != nil {
		<-f.done
	}
	f.count.Do(func() { f.s.feeds.Add(-1) })
}
