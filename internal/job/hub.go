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

// Hub tells those who wait for a job that its state has changed. One hub reads the states of a queue's jobs once,
// however many wait.
type Hub struct {
	conn stream.JobEvents
	log  *slog.Logger

	mu     sync.Mutex
	ended  bool
	queues map[catalog.Key]*queueWatch
	wg     sync.WaitGroup
}

// queueWatch is the states of one queue's jobs.
type queueWatch struct {
	hub   *Hub
	stop  context.CancelFunc // nil: nobody follows it
	waits map[record.ID]map[Follower]struct{}
}

// LookAgain is when whoever has been told nothing looks at the state once more: a replica of NATS may have answered the
// first look that did not know yet of a change that had been published before it.
const LookAgain = 250 * time.Millisecond

// Follower is told of the states of a job that it follows. It must not block, nor ask the hub for anything.
type Follower interface {
	// Changed is a state that was stored, without its result; of one job they come in order but for a change of the
	// stream's leader. nil says that some may have been missed: the present one is to be looked up.
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

// watchOf returns that of queue k. The caller holds mu.
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

// Follow begins to tell f of the job's states. Whoever looks its state up after Follow has returned misses nothing: f
// is told of every later one. Leave ends it.
func (h *Hub) Follow(queue catalog.Key, id record.ID, f Follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	waits := h.watchOf(queue).waits
	if waits[id] == nil {
		waits[id] = map[Follower]struct{}{}
	}
	waits[id][f] = struct{}{}
}

// Leave ends what Follow began: f is told of nothing once it has returned. It is idempotent.
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

// Watch waits for one job to change, and cares for the latest state alone.
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

// Changed gets a value when the state may be another than the one that was looked up before. Signals that nobody has
// taken are one.
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
	default: // it has not looked yet
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
		state = nil // whoever follows looks
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
