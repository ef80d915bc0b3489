package job

import (
	"context"
	"log/slog"
	"sync"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// Hub tells those who wait for a job that its state has changed. One hub reads the states of a queue's jobs once,
// however many wait.
type Hub struct {
	conn *stream.Conn
	log  *slog.Logger

	mu     sync.Mutex
	ended  bool
	queues map[catalog.Key]*feed
	wg     sync.WaitGroup
}

// feed is the states of one queue's jobs.
type feed struct {
	hub   *Hub
	stop  context.CancelFunc // nil: nobody follows it
	waits map[record.ID]map[*Watch]struct{}
}

// NewHub returns a hub that follows nothing before Use.
func NewHub(conn *stream.Conn, log *slog.Logger) *Hub {
	return &Hub{conn: conn, log: log, queues: map[catalog.Key]*feed{}}
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
		f := h.feed(k)
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

// feed returns that of queue k. The caller holds mu.
func (h *Hub) feed(k catalog.Key) *feed {
	f, ok := h.queues[k]
	if !ok {
		f = &feed{hub: h, waits: map[record.ID]map[*Watch]struct{}{}}
		h.queues[k] = f
	}
	return f
}

func (f *feed) retire(k catalog.Key) {
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

// Watch waits for one job.
type Watch struct {
	hub    *Hub
	queue  catalog.Key
	id     record.ID
	signal chan struct{}
	latest *State // guarded by hub.mu
}

// Watch begins to wait for the job. Whoever looks its state up after Watch has returned misses nothing: a later state
// is signalled. Close ends it.
func (h *Hub) Watch(queue catalog.Key, id record.ID) *Watch {
	w := &Watch{hub: h, queue: queue, id: id, signal: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.feed(queue)
	if f.waits[id] == nil {
		f.waits[id] = map[*Watch]struct{}{}
	}
	f.waits[id][w] = struct{}{}
	return w
}

// Changed gets a value when the state may be another than the one that was looked up before. Signals that nobody has
// taken are one.
func (w *Watch) Changed() <-chan struct{} { return w.signal }

// Latest is the state that was signalled last, without its result; nil when it has to be looked up.
func (w *Watch) Latest() *State {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	return w.latest
}

// Close ends the watch. It is idempotent.
func (w *Watch) Close() {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	f, ok := w.hub.queues[w.queue]
	if !ok {
		return
	}
	if delete(f.waits[w.id], w); len(f.waits[w.id]) == 0 {
		delete(f.waits, w.id)
	}
	f.retire(w.queue)
}

// Started implements stream.JobWatcher: what happened before may have been missed, so all look again.
func (f *feed) Started() {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	for _, ws := range f.waits {
		wake(ws, nil)
	}
}

// Changed implements stream.JobWatcher.
func (f *feed) Changed(id record.ID, s stream.JobState) {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	ws := f.waits[id]
	if len(ws) == 0 {
		return
	}
	state, err := decode(s.Header, s.Seq)
	if err != nil {
		f.hub.log.Error("a job's state can't be read", "job", id.String(), "error", err)
		state = nil // whoever waits looks
	}
	wake(ws, state)
}

func wake(ws map[*Watch]struct{}, latest *State) {
	for w := range ws {
		if latest != nil && w.latest != nil && latest.seq <= w.latest.seq {
			continue
		}
		w.latest = latest
		select {
		case w.signal <- struct{}{}:
		default: // it has not looked yet
		}
	}
}
