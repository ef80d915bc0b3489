package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
)

// Reasons of the condition Ready, besides manifest's.
const (
	reasonReady           manifest.Reason = "Ready"
	reasonDeleting        manifest.Reason = "Deleting"        // a queue that still holds records
	reasonNoRoom          manifest.Reason = "NoRoom"          // NATS lacks the storage or the servers
	reasonStreamRefused   manifest.Reason = "StreamRefused"   // NATS refuses the streams for another reason
	reasonNATSUnavailable manifest.Reason = "NATSUnavailable" // the change is not in use yet
	reasonTooLarge        manifest.Reason = "TooLarge"        // the change is not in use: it doesn't fit into a message of NATS
	reasonNotPublished    manifest.Reason = "NotPublished"    // the change is not in use yet, for another reason
)

// maxMessage bounds a condition's message (metav1.Condition).
const maxMessage = 32768

// withStatus is any of Weir's kinds.
type withStatus interface {
	client.Object
	GetStatus() *v1alpha1.Status
}

// report writes the statuses that changed.
func (r *reconciler) report(ctx context.Context, res *resources, out *manifest.Outcome) error {
	var errs []error
	for i := range res.apis {
		a := &res.apis[i]
		errs = append(errs, r.setReady(ctx, a, a.DeepCopy(), out.Verdicts[manifest.APIRef(keyOf(a))], fmt.Sprintf("%d route(s) are served", len(a.Spec.Routes))))
	}
	for i := range res.queues {
		q := &res.queues[i]
		errs = append(errs, r.setReady(ctx, q, q.DeepCopy(), out.Verdicts[manifest.QueueRef(keyOf(q))], "Records are taken"))
	}
	for i := range res.mappings {
		m := &res.mappings[i]
		before := m.DeepCopy()
		m.Status.MaxConcurrency, m.Status.FunctionURL = 0, ""
		used := slices.IndexFunc(out.Catalog.Mappings, func(c catalog.Mapping) bool { return c.Key == keyOf(m) })
		if used >= 0 {
			m.Status.MaxConcurrency, m.Status.FunctionURL = int32(out.Catalog.Mappings[used].MaxConcurrency), out.Catalog.Mappings[used].Function.URL
		}
		errs = append(errs, r.setReady(ctx, m, before, out.Verdicts[manifest.MappingRef(keyOf(m))],
			fmt.Sprintf("At most %d calls at once to %s", m.Status.MaxConcurrency, m.Status.FunctionURL)))
	}
	for i := range res.machines {
		m := &res.machines[i]
		before := m.DeepCopy()
		m.Status.StateMachineARN = ""
		if slices.ContainsFunc(out.Catalog.Machines, func(c catalog.Machine) bool { return c.Key == keyOf(m) }) {
			m.Status.StateMachineARN = taskapi.MachineARN(keyOf(m))
		}
		errs = append(errs, r.setReady(ctx, m, before, out.Verdicts[manifest.MachineRef(keyOf(m))], "Executions can be started"))
	}
	return errors.Join(errs...)
}

// setReady patches o's status if it changed; a zero verdict is Ready.
func (r *reconciler) setReady(ctx context.Context, o, before withStatus, v manifest.Verdict, good string) error {
	condition := metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, ObservedGeneration: o.GetGeneration(),
		Reason: string(v.Reason), Message: v.Message,
	}
	if v == (manifest.Verdict{}) {
		condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, string(reasonReady), good
	}
	if len(condition.Message) > maxMessage {
		condition.Message = strings.ToValidUTF8(condition.Message[:maxMessage], "")
	}
	s := o.GetStatus()
	s.ObservedGeneration = o.GetGeneration()
	meta.SetStatusCondition(&s.Conditions, condition)
	if equality.Semantic.DeepEqual(o, before) {
		return nil
	}
	// A Queue whose finalizer was just removed is gone.
	if err := client.IgnoreNotFound(r.client.Status().Patch(ctx, o, client.MergeFrom(before))); err != nil {
		return fmt.Errorf("status of %s/%s: %w", o.GetNamespace(), o.GetName(), err)
	}
	return nil
}

// reportFailure sets the status of the resources whose change is not in use yet, and leaves the others as they are.
func (r *reconciler) reportFailure(ctx context.Context, res *resources, cause error) error {
	v := manifest.Verdict{Reason: reasonNotPublished, Message: "The change is not in use yet; it is tried again. The reason: " + cause.Error()}
	switch {
	case errors.Is(cause, stream.ErrCatalogChanged), ctx.Err() != nil:
		return nil //nolint:nilerr // tried again at once, or by another leader
	case errors.Is(cause, stream.ErrUnavailable):
		v = manifest.Verdict{Reason: reasonNATSUnavailable, Message: "NATS can't be reached; the change comes into use when it is back. " + cause.Error()}
	}
	var objs []withStatus
	for i := range res.apis {
		objs = append(objs, &res.apis[i])
	}
	for i := range res.queues {
		objs = append(objs, &res.queues[i])
	}
	for i := range res.mappings {
		objs = append(objs, &res.mappings[i])
	}
	for i := range res.machines {
		objs = append(objs, &res.machines[i])
	}
	var errs []error
	for _, o := range objs {
		ready := meta.FindStatusCondition(o.GetStatus().Conditions, v1alpha1.ConditionReady)
		if ready != nil && ready.ObservedGeneration == o.GetGeneration() && ready.Reason != string(v.Reason) {
			continue // its status still holds
		}
		errs = append(errs, r.setReady(ctx, o, o.DeepCopyObject().(withStatus), v, ""))
	}
	return errors.Join(errs...)
}
