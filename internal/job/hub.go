package job

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

// Hub notifies those who wait for a job of its changes of state. It gets the states of the jobs that somebody follows, each
// once, however many follow it.
type Hub struct {
	conn stream.JobEvents
	log  *slog.Logger
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	watch *stream.JobWatch // nil before the first Follow
	jobs  map[jobOf]*topic
}

// jobOf names a job.
type jobOf struct {
	queue catalog.Key
	key   stream.JobKey
}

// topic is a job that is followed.
type topic struct {
	sub       *stream.JobSubscription
	followers map[Follower]struct{}
}

// LookAgain is after how long a follower that has received nothing reads the state once more: the first read may have
// been answered by a replica of NATS that lagged behind a change that had been published before it.
const LookAgain = 250 * time.Millisecond

// Follower receives the states of a job that it follows. It must not block, nor call the hub.
type Follower interface {
	// Changed is called for a state that was stored, with its result only if that is small (State.Told). Those of one job come in order, except across a
	// change of the stream's leader. nil means that some may have been missed: the current one is to be looked up.
	Changed(s *State)
}

// NewHub returns a hub that follows nothing yet. Close ends it.
func NewHub(conn stream.JobEvents, log *slog.Logger) *Hub {
	ctx, stop := context.WithCancel(context.Background())
	return &Hub{conn: conn, log: log, ctx: ctx, stop: stop, jobs: map[jobOf]*topic{}}
}

// Close ends it, and waits for that. It is idempotent.
func (h *Hub) Close() {
	h.mu.Lock()
	h.stop()
	h.mu.Unlock()
	h.wg.Wait()
}

// Follow subscribes f to the job's states. One who looks the state up after Follow has returned misses nothing: f gets
// every later one. Leave ends it.
func (h *Hub) Follow(queue catalog.Key, key stream.JobKey, f Follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	j := jobOf{queue, key}
	t, ok := h.jobs[j]
	if !ok {
		t = &topic{followers: map[Follower]struct{}{}}
		h.jobs[j] = t
		if err := h.subscribe(j, t); err != nil { // the process is ending
			h.log.Debug("a job can't be followed", "error", err)
		}
	}
	t.followers[f] = struct{}{}
}

// subscribe begins to receive the states of t's job. The caller holds mu.
func (h *Hub) subscribe(j jobOf, t *topic) (err error) {
	if h.ctx.Err() != nil {
		return h.ctx.Err()
	}
	if h.watch == nil {
		h.watch = h.conn.NewJobWatch()
		h.wg.Go(func() { h.watch.Run(h.ctx, (*receiver)(h)) })
	}
	t.sub, err = h.watch.Follow(j.queue, j.key)
	return err
}

// Leave ends what Follow began: f is not called once it has returned. It is idempotent.
func (h *Hub) Leave(queue catalog.Key, key stream.JobKey, f Follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	j := jobOf{queue, key}
	t, ok := h.jobs[j]
	if !ok {
		return
	}
	if delete(t.followers, f); len(t.followers) == 0 {
		t.sub.Leave()
		delete(h.jobs, j)
	}
}

// Watch waits for one job to change, and keeps only the latest state.
type Watch struct {
	hub    *Hub
	queue  catalog.Key
	key    stream.JobKey
	signal chan struct{}
	latest atomic.Pointer[State]
}

// Watch begins to wait for the job, like Follow. Close ends it.
func (h *Hub) Watch(queue catalog.Key, key stream.JobKey) *Watch {
	w := &Watch{hub: h, queue: queue, key: key, signal: make(chan struct{}, 1)}
	h.Follow(queue, key, (*watcher)(w))
	return w
}

// Changed gets a value when the state may have changed since it was last looked up. Signals that nobody has taken
// coalesce.
func (w *Watch) Changed() <-chan struct{} { return w.signal }

// Latest is the state that was signalled last; nil when it has to be looked up.
func (w *Watch) Latest() *State { return w.latest.Load() }

// Close ends the watch. It is idempotent.
func (w *Watch) Close() { w.hub.Leave(w.queue, w.key, (*watcher)(w)) }

// watcher is a Watch as its hub sees it.
type watcher Watch

// Changed implements Follower.
func (w *watcher) Changed(s *State) {
	if former := w.latest.Load(); s != nil && former != nil && s.seq <= former.seq {
		return
	}
	w.latest.Store(s)
	select {
	case w.signal <- struct{}{}:
	default: // signalled already
	}
}

// receiver is a Hub as its stream.JobWatch sees it.
type receiver Hub

// Missed implements stream.JobWatcher: all look again.
func (r *receiver) Missed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.jobs {
		t.tell(nil)
	}
}

// Changed implements stream.JobWatcher.
func (r *receiver) Changed(queue catalog.Key, key stream.JobKey, s stream.JobState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.jobs[jobOf{queue, key}]
	if !ok { // nobody follows it any more
		return
	}
	state, err := told(s)
	if err != nil {
		r.log.Error("a job's state can't be read", "job", key.ID.String(), "error", err)
		state = nil // followers look it up
	}
	t.tell(state)
}

func (t *topic) tell(s *State) {
	for f := range t.followers {
		f.Changed(s)
	}
}

// Followers is how many follow the job.
func (h *Hub) Followers(queue catalog.Key, key stream.JobKey) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, ok := h.jobs[jobOf{queue, key}]; ok {
		return len(t.followers)
	}
	return 0
}
