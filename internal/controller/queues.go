package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
)

// addFinalizers runs before the streams are created: a queue that has streams has its finalizer. One that can't get it is refused.
func (r *reconciler) addFinalizers(ctx context.Context, res *resources) error {
	var errs []error
	for i := range res.queues {
		q := &res.queues[i]
		if _, refused := res.refused[refTo(q)]; refused || !q.DeletionTimestamp.IsZero() || controllerutil.ContainsFinalizer(q, r.release.finalizer()) {
			continue
		}
		before := q.DeepCopy()
		controllerutil.AddFinalizer(q, r.release.finalizer())
		controllerutil.RemoveFinalizer(q, v1alpha1.SharedQueueFinalizer)
		// With the resource version: the list of finalizers is replaced as a whole, and another's must not be lost.
		err := r.client.Patch(ctx, q, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		if err == nil {
			continue
		}
		*q = *before
		if err = r.refuse(res, q, "its finalizer can't be added", err); client.IgnoreNotFound(err) != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ensureStreams creates or updates the streams of each queue that changed, was not checked for resyncEvery, or was
// last checked over another connection. It returns the queues that NATS refuses, which don't block the others.
func (r *reconciler) ensureStreams(ctx context.Context, queues []catalog.Queue) (map[manifest.Ref]manifest.Verdict, error) {
	if live := r.conn.Live(); live != r.live {
		r.live, r.leases = live, time.Time{}
		clear(r.ensured)
	}
	now := time.Now()
	if now.Sub(r.leases) >= resyncEvery {
		if err := r.conn.EnsureLeases(ctx, r.replicas); err != nil {
			return nil, err
		}
		if err := r.conn.EnsureKeys(ctx, r.replicas, now); err != nil {
			return nil, err
		}
		if err := r.ensureMachines(ctx); err != nil {
			return nil, err
		}
		r.leases = now
	}
	refusals := map[manifest.Ref]manifest.Verdict{}
	named := make(map[catalog.Key]bool, len(queues))
	for _, q := range queues {
		if q.Closed {
			continue // not named: a queue that is created again under this name must get its streams at once
		}
		named[q.Key] = true
		if e, ok := r.ensured[q.Key]; ok && e.spec == q && now.Sub(e.at) < resyncEvery {
			continue
		}
		made := q
		if r.objects != nil {
			made.Objects.MaxBytes = 0
		}
		err := r.conn.EnsureQueue(ctx, made, r.replicas)
		switch {
		case err == nil:
			r.ensured[q.Key] = ensuredQueue{q, now}
		case errors.Is(err, stream.ErrUnavailable) || ctx.Err() != nil:
			return nil, err
		default:
			delete(r.ensured, q.Key)
			r.log.Error("a queue's streams can't be made or changed", "queue", q.Key.String(), "error", err)
			refusals[manifest.QueueRef(q.Key)] = refusal(q, r.replicas, err)
		}
	}
	maps.DeleteFunc(r.ensured, func(k catalog.Key, _ ensuredQueue) bool { return !named[k] })
	return refusals, nil
}

// ensureMachines creates or updates the streams of executions. Queues don't wait for room for them.
func (r *reconciler) ensureMachines(ctx context.Context) error {
	if r.machineBytes == 0 {
		return nil
	}
	err := r.conn.EnsureMachines(ctx, r.replicas, r.machineBytes)
	if errors.Is(err, stream.ErrNoRoom) {
		r.log.ErrorContext(ctx, "there are no state machines: NATS has no room for their executions, for which it reserves orchestrator.maxBytes twice; lower it, or give NATS more storage",
			"maxBytes", r.machineBytes, "replicas", r.replicas, "error", err)
		return nil
	}
	return err
}

func refusal(q catalog.Queue, replicas int, err error) manifest.Verdict {
	if errors.Is(err, stream.ErrNoRoom) {
		results, too := "", ""
		if q.Jobs {
			results = fmt.Sprintf(", and results.maxBytes (%d bytes) and objects.maxBytes (%d bytes) for the outcomes of jobs", q.Results.MaxBytes, q.Objects.MaxBytes)
			too = ", spec.results.maxBytes or spec.objects.maxBytes"
		}
		return manifest.Verdict{Reason: reasonNoRoom, Message: fmt.Sprintf(
			"NATS can't take the queue with %d replica(s): it reserves maxBytes (%d bytes) for the records and as much for the dead letters%s. "+
				"Lower spec.maxBytes%s, or give NATS more storage (nats.jetstream in the chart's values) or servers. It said: %v", replicas, q.MaxBytes, results, too, err)}
	}
	return manifest.Verdict{Reason: reasonStreamRefused, Message: "NATS refused the queue's streams: " + err.Error()}
}

// deleteQueues continues the deletion of queues: the catalog in which they are closed is published, so nothing should
// write to them any more; closing the stream enforces it, so that an empty queue stays empty. waiting reports whether
// any queue is still to be deleted.
func (r *reconciler) deleteQueues(ctx context.Context, res *resources, out *manifest.Outcome) (waiting bool, err error) {
	var errs []error
	for i := range res.leaving {
		if q := &res.leaving[i]; !q.DeletionTimestamp.IsZero() { // its status is another's
			holds, err := r.deleteQueue(ctx, q)
			errs = append(errs, err)
			waiting = waiting || holds != nil
		}
	}
	for i := range res.queues {
		q := &res.queues[i]
		if q.DeletionTimestamp.IsZero() {
			continue
		}
		var holds *stream.Depth
		var err error
		if controllerutil.ContainsFinalizer(q, r.release.finalizer()) || r.tells(res, q) && controllerutil.ContainsFinalizer(q, v1alpha1.SharedQueueFinalizer) {
			holds, err = r.deleteQueue(ctx, q)
		}
		switch {
		case err != nil:
			errs = append(errs, err)
			out.Verdicts[refTo(q)] = manifest.Verdict{Reason: reasonDeleting, Message: "The queue is being deleted, which can't go on now; it is tried again. The reason: " + err.Error()}
		case holds != nil:
			waiting = true
			out.Verdicts[refTo(q)] = manifest.Verdict{Reason: reasonDeleting, Message: deletingMessage(q, holds)}
		case len(q.Finalizers) > 0:
			out.Verdicts[refTo(q)] = manifest.Verdict{Reason: reasonDeleting, Message: fmt.Sprintf(
				"The queue takes no more records, and release %s has none of it any more. It is deleted once the finalizers of others are removed: %s. "+
					"One that ends in .weir.dev/queue is of the release in its name, RELEASE.NAMESPACE, which may have records of it", r.release, strings.Join(q.Finalizers, ", "))}
		}
	}
	return waiting, errors.Join(errs...)
}

// deleteQueue returns the depth that keeps the queue from being deleted, nil once it is deleted.
func (r *reconciler) deleteQueue(ctx context.Context, q *v1alpha1.Queue) (*stream.Depth, error) {
	k := keyOf(q)
	drop := q.Annotations[v1alpha1.DropRecordsAnnotation] == "true"
	if !drop {
		if err := r.conn.CloseQueue(ctx, k); err != nil {
			return nil, err
		}
		status, err := r.conn.Status(ctx, k)
		switch {
		case errors.Is(err, stream.ErrNoQueue): // it never had streams, or an earlier try removed them
		case err != nil:
			return nil, err
		case !status.Empty() || status.Dead > 0:
			holds, err := r.conn.Depth(ctx, k)
			return &holds, err
		}
	}
	if r.objects != nil {
		if _, err := r.objects.Expire(ctx, k, 0); err != nil {
			return nil, fmt.Errorf("queue %s: its objects: %w", k, err)
		}
	}
	if err := r.conn.DeleteQueue(ctx, k); err != nil {
		return nil, err
	}
	r.log.Info("queue deleted", "queue", k.String(), "withRecords", drop)
	r.events.deleted(q, drop)
	before := q.DeepCopy()
	controllerutil.RemoveFinalizer(q, r.release.finalizer())
	if q.Status.ObservedBy == r.release.String() {
		controllerutil.RemoveFinalizer(q, v1alpha1.SharedQueueFinalizer)
	}
	err := r.client.Patch(ctx, q, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("queue %s: remove the finalizer: %w", k, err)
	}
	return nil, nil //nolint:nilnil // documented: it is deleted
}

// reportStrays logs and counts the queues whose streams are here and that no Queue has: it was deleted without its finalizer, or is another
// release's by now. They are kept, for there may be records in them.
func (r *reconciler) reportStrays(ctx context.Context, res *resources, out *manifest.Outcome) error {
	there, err := r.conn.QueueKeys(ctx)
	if err != nil {
		return err
	}
	strays := slices.DeleteFunc(there, func(k catalog.Key) bool {
		return slices.ContainsFunc(out.Catalog.Queues, func(q catalog.Queue) bool { return q.Key == k }) ||
			slices.ContainsFunc(res.queues, func(q v1alpha1.Queue) bool { return keyOf(&q) == k })
	})
	for _, k := range strays {
		if !slices.Contains(r.strays, k) {
			r.log.WarnContext(ctx, "no Queue of this release has these streams, and nobody drains them. With a Queue of this name and class, and a mapping, they are drained; such a Queue can be deleted with all that they hold, too",
				"queue", k.String(), "class", r.release.Class, "annotation", v1alpha1.DropRecordsAnnotation+"=true")
		}
	}
	r.strays = strays
	r.unclaimed.Record(ctx, int64(len(strays)))
	return nil
}

func deletingMessage(q *v1alpha1.Queue, d *stream.Depth) string {
	return fmt.Sprintf(
		"The queue takes no more records and is deleted once it is empty. Of its records "+
			"%d wait or are in flight, %d are to be tried again, and %d are dead letters. "+
			"Let its mapping drain it, and purge the dead letters when they are of no use any more (weir dlq purge -n %s %s --yes). "+
			"To delete it with all that it holds: kubectl -n %s annotate queues.weir.dev %s %s=true",
		d.Waiting, d.Retrying, d.Dead.Total(), q.Namespace, q.Name, q.Namespace, q.Name, v1alpha1.DropRecordsAnnotation)
}

func keyOf(o client.Object) catalog.Key {
	return catalog.Key{Namespace: o.GetNamespace(), Name: o.GetName()}
}
