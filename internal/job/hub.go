package job

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// Hub notifies those who wait for a job of its changes of state. It reads the states of a queue's jobs once and fans
// them out, however many wait.
type Hub struct {
	conn stream.JobEvents
	log  *slog.Logger

	mu     sync.Mutex
	ended  bool
	queues map[catalog.Key]*queueWatch
	wg     sync.WaitGroup
}

// queueWatch follows the states of one queue's jobs.
type queueWatch struct {
	hub   *Hub
	stop  context.CancelFunc // nil if the queue isn't watched
	waits map[record.ID]map[Follower]struct{}
}

// LookAgain is after how long a follower that has received nothing reads the state once more: the first read may have
// been answered by a replica of NATS that lagged behind a change that had been published before it.
const LookAgain = 250 * time.Millisecond

// Follower receives the states of a job that it follows. It must not block, nor call the hub.
type Follower interface {
	// Changed is called for a state that was stored, without its result. Those of one job come in order, except across a
	// change of the stream's leader. nil means that some may have been missed: the current one is to be looked up.
	Changed(s *State)
}

// NewHub returns a hub that follows nothing before Use.
func NewHub(conn stream.JobEvents, log *slog.Logger) *Hub {
	return &Hub{conn: conn, log: log, queues: map[catalog.Key]*queueWatch{}}
}

// Use makes queues the ones whose jobs are followed.
func (h *Hub) Use(queues []catalog.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return
	}
	wanted := make(map[catalog.Key]bool, len(queues))
	for _, k := range queues {
		wanted[k] = true
		f := h.watchOf(k)
		if f.stop != nil {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		f.stop = cancel
		h.wg.Go(func() { h.conn.WatchJobs(ctx, k, f) })
	}
	for k, f := range h.queues {
		if !wanted[k] && f.stop != nil {
			f.stop()
			f.stop = nil
			f.retire(k)
		}
	}
}

// watchOf returns the watch of queue k. The caller holds mu.
func (h *Hub) watchOf(k catalog.Key) *queueWatch {
	f, ok := h.queues[k]
	if !ok {
		f = &queueWatch{hub: h, waits: map[record.ID]map[Follower]struct{}{}}
		h.queues[k] = f
	}
	return f
}

func (f *queueWatch) retire(k catalog.Key) {
	if f.stop == nil && len(f.waits) == 0 {
		delete(f.hub.queues, k)
	}
}

// Close stops following and waits for it to end. It is idempotent.
func (h *Hub) Close() {
	h.mu.Lock()
	h.ended = true
	for _, f := range h.queues {
		if f.stop != nil {
			f.stop()
		}
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// Follow subscribes f to the job's states. One who looks the state up after Follow has returned misses nothing: f gets
// every later one. Leave ends it.
func (h *Hub) Follow(queue catalog.Key, id record.ID, f Follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	waits := h.watchOf(queue).waits
	if waits[id] == nil {
		waits[id] = map[Follower]struct{}{}
	}
	waits[id][f] = struct{}{}
}

// Leave ends what Follow began: f is not called once it has returned. It is idempotent.
func (h *Hub) Leave(queue catalog.Key, id record.ID, f Follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	there, ok := h.queues[queue]
	if !ok {
		return
	}
	if delete(there.waits[id], f); len(there.waits[id]) == 0 {
		delete(there.waits, id)
	}
	there.retire(queue)
}

// Watch waits for one job to change, and keeps only the latest state.
type Watch struct {
	hub    *Hub
	queue  catalog.Key
	id     record.ID
	signal chan struct{}
	latest atomic.Pointer[State]
}

// Watch begins to wait for the job, like Follow. Close ends it.
func (h *Hub) Watch(queue catalog.Key, id record.ID) *Watch {
	w := &Watch{hub: h, queue: queue, id: id, signal: make(chan struct{}, 1)}
	h.Follow(queue, id, (*watcher)(w))
	return w
}

// Changed gets a value when the state may have changed since it was last looked up. Signals that nobody has taken
// coalesce.
func (w *Watch) Changed() <-chan struct{} { return w.signal }

// Latest is the state that was signalled last, without its result; nil when it has to be looked up.
func (w *Watch) Latest() *State { return w.latest.Load() }

// Close ends the watch. It is idempotent.
func (w *Watch) Close() { w.hub.Leave(w.queue, w.id, (*watcher)(w)) }

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

// Started implements stream.JobWatcher: what happened before may have been missed, so all look again.
func (f *queueWatch) Started() {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	for _, followers := range f.waits {
		tell(followers, nil)
	}
}

// Changed implements stream.JobWatcher.
func (f *queueWatch) Changed(id stream.JobKey, s stream.JobState) {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	followers := f.waits[id.ID]
	if len(followers) == 0 {
		return
	}
	state, err := decode(s.Header, s.Seq)
	if err != nil {
		f.hub.log.Error("a job's state can't be read", "job", id.ID.String(), "error", err)
		state = nil // followers look it up
	}
	tell(followers, state)
}

func tell(followers map[Follower]struct{}, s *State) {
	for f := range followers {
		f.Changed(s)
	}
}

// Followers is how many follow the job.
func (h *Hub) Followers(queue catalog.Key, id record.ID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f, ok := h.queues[queue]; ok {
		return len(f.waits[id])
	}
	return 0
}
