package controller

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/depth"
	"github.com/weir-dev/weir/internal/stream"
)

// Bounds of what the depths of queues cost the API server.
const (
	depthEvery = 30 * time.Second // of one queue
	// depthGap is between two writes of any queues: those of a thousand busy ones come every 100 s.
	depthGap = 100 * time.Millisecond
	// depthTimeout is of one write: the other queues wait for it.
	depthTimeout = 10 * time.Second
)

// depthReports writes the depths of queues into their statuses. The readings of all queues come in a burst, so what is due
// waits for its write; whoever reads doesn't.
type depthReports struct {
	client client.Client
	log    *slog.Logger

	mu  sync.Mutex
	due map[catalog.Key]depth.Reading // the last one of each queue
	// order has the keys of due, the one that has waited longest first. It isn't the one with the oldest status: a status
	// that can't be written would always be that.
	order []catalog.Key
	fresh chan struct{} // capacity 1: something is due
	// drained are the mappings by their queues.
	drained map[catalog.Key]catalog.Key
}

func newDepthReports(c client.Client, log *slog.Logger) *depthReports {
	return &depthReports{client: c, log: log, due: map[catalog.Key]depth.Reading{}, fresh: make(chan struct{}, 1)}
}

// use has the calls of these mappings, by their queues, written into their statuses.
func (d *depthReports) use(drained map[catalog.Key]catalog.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drained = drained
}

// report has r written into the status of queue k, if that is due. It doesn't wait: it holds one of the watch's slots.
func (d *depthReports) report(ctx context.Context, k catalog.Key, r depth.Reading) {
	_, is := d.changed(ctx, k, r)
	d.mu.Lock()
	defer d.mu.Unlock()
	_, waits := d.due[k]
	if is == nil && !waits {
		return
	}
	d.due[k] = r // also if it is what it was: then what waits is outdated
	if waits {
		return
	}
	d.order = append(d.order, k)
	select {
	case d.fresh <- struct{}{}:
	default:
	}
}

// changed returns queue k and the depth that its status should have by r; nil if it has that, or a late one.
func (d *depthReports) changed(ctx context.Context, k catalog.Key, r depth.Reading) (*v1alpha1.Queue, *v1alpha1.QueueDepth) {
	var q v1alpha1.Queue
	if err := d.client.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: k.Name}, &q); err != nil { // of the cache
		return nil, nil // it is being deleted
	}
	is := &v1alpha1.QueueDepth{
		Records: r.Waiting, Uncertainty: r.Uncertainty, Retrying: r.Retrying, Dead: r.Dead.Total(),
		Bytes:     int64(r.WaitingBytes + r.RetryingBytes + r.DeadBytes),
		InFlight:  inFlight(r.Work),
		OldestAge: metav1.Duration{Duration: r.Oldest.Truncate(time.Second)}, Owned: r.Owned, ObservedAt: metav1.NewTime(r.At.Truncate(time.Second)),
	}
	if was := q.Status.Depth; was != nil {
		since := was.ObservedAt
		same := *was
		same.ObservedAt = is.ObservedAt
		if same == *is || r.At.Sub(since.Time) < depthEvery {
			return nil, nil
		}
	}
	return &q, is
}

// run writes what is due, one each depthGap, until ctx ends.
func (d *depthReports) run(ctx context.Context) error {
	for {
		select {
		case <-d.fresh:
		case <-ctx.Done():
			return nil
		}
		for k, r, ok := d.next(); ok && ctx.Err() == nil; k, r, ok = d.next() {
			gap := time.After(depthGap) // a slow write is none on top
			if !d.write(ctx, k, r) {
				continue
			}
			select {
			case <-gap:
			case <-ctx.Done():
			}
		}
	}
}

// next takes what has waited longest.
func (d *depthReports) next() (k catalog.Key, r depth.Reading, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.order) == 0 {
		return k, r, false
	}
	k, d.order = d.order[0], d.order[1:]
	r = d.due[k]
	delete(d.due, k)
	return k, r, true
}

// write reports whether it has asked the API server. What could not be written comes again with the next reading.
func (d *depthReports) write(ctx context.Context, k catalog.Key, r depth.Reading) bool {
	q, is := d.changed(ctx, k, r) // while it waited it may have gone, or become what it was
	if is == nil {
		return false
	}
	before := q.DeepCopy()
	q.Status.Depth = is
	bounded, cancel := context.WithTimeout(ctx, depthTimeout)
	defer cancel()
	if err := client.IgnoreNotFound(d.client.Status().Patch(bounded, q, client.MergeFrom(before))); err != nil && ctx.Err() == nil {
		d.log.Info("a queue's depth could not be written into its status; trying again", "queue", k.String(), "error", fmt.Errorf("patch: %w", err))
	}
	d.writeCalls(bounded, k, r.Work)
	return true
}

func inFlight(w *stream.Work) int64 {
	if w == nil {
		return 0
	}
	return int64(w.Records)
}

// writeCalls writes how many calls are in flight into the status of the mapping of queue k, if it changed.
func (d *depthReports) writeCalls(ctx context.Context, k catalog.Key, w *stream.Work) {
	d.mu.Lock()
	mapping, ok := d.drained[k]
	d.mu.Unlock()
	var m v1alpha1.EventSourceMapping
	if !ok || d.client.Get(ctx, client.ObjectKey{Namespace: mapping.Namespace, Name: mapping.Name}, &m) != nil { // of the cache
		return
	}
	calls := int32(0)
	if w != nil {
		calls = int32(min(w.Calls, math.MaxInt32))
	}
	if m.Status.Calls == calls {
		return
	}
	before := m.DeepCopy()
	m.Status.Calls = calls
	if err := client.IgnoreNotFound(d.client.Status().Patch(ctx, &m, client.MergeFrom(before))); err != nil && ctx.Err() == nil {
		d.log.Info("a mapping's calls could not be written into its status; trying again", "mapping", mapping.String(), "error", fmt.Errorf("patch: %w", err))
	}
}
