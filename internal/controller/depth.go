package controller

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/depth"
)

// Bounds of what the depths of queues cost the API server.
const (
	depthEvery = 30 * time.Second // of one queue
	// depthGap is between two writes of any queues: those of a thousand busy ones come every 100 s.
	depthGap = 100 * time.Millisecond
)

// depthReports writes the depths of queues into their statuses.
type depthReports struct {
	client client.Client
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	written time.Time
}

func newDepthReports(c client.Client, log *slog.Logger) *depthReports {
	return &depthReports{client: c, log: log, now: time.Now}
}

// report writes r into the status of queue k, if it has changed and another write is due.
func (d *depthReports) report(ctx context.Context, k catalog.Key, r depth.Reading) {
	var q v1alpha1.Queue
	if err := d.client.Get(ctx, client.ObjectKey{Namespace: k.Namespace, Name: k.Name}, &q); err != nil { // of the cache
		return // it is being deleted
	}
	is := &v1alpha1.QueueDepth{
		Records: r.Waiting, Uncertainty: r.Uncertainty, Retrying: r.Retrying, Dead: r.Dead.Total(),
		Bytes:     int64(r.WaitingBytes + r.RetryingBytes + r.DeadBytes),
		OldestAge: metav1.Duration{Duration: r.Oldest.Truncate(time.Second)}, Owned: r.Owned, ObservedAt: metav1.NewTime(r.At.Truncate(time.Second)),
	}
	if was := q.Status.Depth; was != nil {
		since := was.ObservedAt
		same := *was
		same.ObservedAt = is.ObservedAt
		if same == *is || r.At.Sub(since.Time) < depthEvery {
			return
		}
	}
	if !d.turn() {
		return // with the next reading
	}
	before := q.DeepCopy()
	q.Status.Depth = is
	if err := client.IgnoreNotFound(d.client.Status().Patch(ctx, &q, client.MergeFrom(before))); err != nil && ctx.Err() == nil {
		d.log.Info("a queue's depth could not be written into its status; trying again", "queue", k.String(), "error", fmt.Errorf("patch: %w", err))
	}
}

// turn reports whether a write is due, and counts it.
func (d *depthReports) turn() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	if now.Sub(d.written) < depthGap {
		return false
	}
	d.written = now
	return true
}
