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

// Reasons of conditions and events, besides manifest's.
const (
	reasonReady           manifest.Reason = "Ready"
	reasonDrained         manifest.Reason = "Drained"
	reasonDeleting        manifest.Reason = "Deleting"        // a queue that still holds records
	reasonNoRoom          manifest.Reason = "NoRoom"          // NATS lacks the storage or the servers
	reasonStreamRefused   manifest.Reason = "StreamRefused"   // NATS refuses the streams for another reason
	reasonNATSUnavailable manifest.Reason = "NATSUnavailable" // the change is not in use yet
	reasonClassChanged    manifest.Reason = "ClassChanged"    // the release that served a queue serves another class by now
	reasonLeftAlone       manifest.Reason = "LeftAlone"       // another release of the class serves the namespace; of an event too
	reasonNotClaimed      manifest.Reason = "NotClaimed"      // the change is not in use yet: the API server lets this release not claim the resource
	reasonTooLarge        manifest.Reason = "TooLarge"        // the change is not in use: it doesn't fit into a message of NATS
	reasonNotPublished    manifest.Reason = "NotPublished"    // the change is not in use yet, for another reason
	reasonUninstalled     manifest.Reason = "Uninstalled"     // the release that served it is
	reasonDeleted         manifest.Reason = "Deleted"         // of an event alone: a queue is
)

// maxMessage bounds a condition's message (metav1.Condition).
const maxMessage = 32768

// withStatus is any of Weir's kinds.
type withStatus interface {
	client.Object
	GetStatus() *v1alpha1.Status
	ClassOf() string
}

// report writes the statuses that changed.
func (r *reconciler) report(ctx context.Context, res *resources, out *manifest.Outcome) error {
	var errs []error
	for i := range res.apis {
		a := &res.apis[i]
		if !r.tells(res, a) {
			continue
		}
		before := a.DeepCopy()
		a.Status.Routes = 0
		if used := slices.IndexFunc(out.Catalog.APIs, func(c catalog.API) bool { return c.Key == keyOf(a) }); used >= 0 {
			a.Status.Routes = int32(len(out.Catalog.APIs[used].Routes))
		}
		r.setDrained(a, refTo(a), out)
		errs = append(errs, r.setReady(ctx, a, before, out.Verdicts[refTo(a)], fmt.Sprintf("%d route(s) are served", a.Status.Routes)))
	}
	for i := range res.queues {
		q := &res.queues[i]
		if !r.tells(res, q) {
			continue
		}
		before := q.DeepCopy()
		r.setDrained(q, refTo(q), out)
		errs = append(errs, r.setReady(ctx, q, before, out.Verdicts[refTo(q)], "Records are taken"))
	}
	for i := range res.mappings {
		m := &res.mappings[i]
		if !r.tells(res, m) {
			continue
		}
		before := m.DeepCopy()
		used := slices.IndexFunc(out.Catalog.Mappings, func(c catalog.Mapping) bool { return c.Key == keyOf(m) })
		if used < 0 {
			notInUse(m)
		} else {
			m.Status.MaxConcurrency, m.Status.FunctionURL = int32(out.Catalog.Mappings[used].MaxConcurrency), out.Catalog.Mappings[used].Function.URL
		}
		ref, good := refTo(m), fmt.Sprintf("At most %d calls at once to %s", m.Status.MaxConcurrency, m.Status.FunctionURL)
		if note := out.Notes[ref]; note != "" {
			good += "; " + note
		}
		errs = append(errs, r.setReady(ctx, m, before, out.Verdicts[ref], good))
	}
	for i := range res.machines {
		m := &res.machines[i]
		if !r.tells(res, m) {
			continue
		}
		before := m.DeepCopy()
		m.Status.StateMachineARN = ""
		if slices.ContainsFunc(out.Catalog.Machines, func(c catalog.Machine) bool { return c.Key == keyOf(m) }) {
			m.Status.StateMachineARN = taskapi.MachineARN(keyOf(m))
		}
		errs = append(errs, r.setReady(ctx, m, before, out.Verdicts[refTo(m)], "Executions can be started"))
	}
	return errors.Join(errs...)
}

// setDrained sets the condition Drained of o, which is written with Ready; o has none if it has to do with no queue.
func (r *reconciler) setDrained(o withStatus, ref manifest.Ref, out *manifest.Outcome) {
	d, ok := out.Drains[ref]
	if !ok {
		meta.RemoveStatusCondition(&o.GetStatus().Conditions, v1alpha1.ConditionDrained)
		return
	}
	r.setCondition(o, v1alpha1.ConditionDrained, reasonDrained, d.Verdict, d.By)
}

// setReady sets the condition Ready and writes o's status.
func (r *reconciler) setReady(ctx context.Context, o, before withStatus, v manifest.Verdict, good string) error {
	r.setCondition(o, v1alpha1.ConditionReady, reasonReady, v, good)
	o.GetStatus().ObservedGeneration = o.GetGeneration()
	return r.writeStatus(ctx, o, before)
}

// writeStatus patches o's status if it changed, or was not written for observedEvery.
func (r *reconciler) writeStatus(ctx context.Context, o, before withStatus) error {
	s := o.GetStatus()
	now := metav1.Now()
	if s.ObservedAt != nil && now.Sub(s.ObservedAt.Time) < observedEvery && equality.Semantic.DeepEqual(o, before) {
		return nil
	}
	s.ObservedBy, s.ObservedAt = r.release.String(), &now
	// A Queue whose finalizer was just removed is gone.
	if err := client.IgnoreNotFound(r.client.Status().Patch(ctx, o, client.MergeFrom(before))); err != nil {
		return fmt.Errorf("status of %s/%s: %w", o.GetNamespace(), o.GetName(), err)
	}
	return nil
}

// setCondition sets a condition of o; a zero verdict is good. What was not so before is an event.
func (r *reconciler) setCondition(o withStatus, kind string, goodReason manifest.Reason, v manifest.Verdict, good string) {
	condition := metav1.Condition{
		Type: kind, Status: metav1.ConditionFalse, ObservedGeneration: o.GetGeneration(), Reason: string(v.Reason), Message: cut(v.Message, maxMessage),
	}
	if v == (manifest.Verdict{}) {
		condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, string(goodReason), cut(good, maxMessage)
	}
	was := meta.FindStatusCondition(o.GetStatus().Conditions, kind)
	if was == nil && condition.Status == metav1.ConditionFalse || was != nil && (was.Status != condition.Status || was.Reason != condition.Reason) {
		r.events.changed(o, condition)
	}
	meta.SetStatusCondition(&o.GetStatus().Conditions, condition)
}

// nobodys reports whether the condition Ready says that nobody serves the resource: no longer once a release has claimed it, or is back.
func nobodys(ready *metav1.Condition) bool {
	return slices.Contains([]manifest.Reason{reasonClassChanged, reasonLeftAlone, reasonUninstalled}, manifest.Reason(ready.Reason))
}

// notInUse takes out of o's status what is so only while o is in use, but for Ready.
func notInUse(o withStatus) {
	meta.RemoveStatusCondition(&o.GetStatus().Conditions, v1alpha1.ConditionDrained)
	switch o := o.(type) {
	case *v1alpha1.API:
		o.Status.Routes = 0
	case *v1alpha1.EventSourceMapping:
		o.Status.MaxConcurrency, o.Status.Calls, o.Status.FunctionURL = 0, 0, ""
	case *v1alpha1.StateMachine:
		o.Status.StateMachineARN = ""
	}
}

// cut returns at most so many bytes of text.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

// reportFailure sets the status of the resources whose change is not in use yet. The others keep theirs, as of now. If the NATS
// serves another release, nothing of this one is in use.
func (r *reconciler) reportFailure(ctx context.Context, res *resources, cause error) error {
	v := manifest.Verdict{Reason: reasonNotPublished, Message: "The change is not in use yet; it is tried again. The reason: " + cause.Error()}
	switch {
	case errors.Is(cause, stream.ErrCatalogChanged), ctx.Err() != nil:
		return nil //nolint:nilerr // tried again at once, or by another leader
	case errors.Is(cause, stream.ErrUnavailable):
		v = manifest.Verdict{Reason: reasonNATSUnavailable, Message: "NATS can't be reached; the change comes into use when it is back. " + cause.Error()}
	}
	_, none := errors.AsType[*servedError](cause)
	var errs []error
	for _, o := range res.all() {
		if !r.tells(res, o) {
			continue
		}
		before := o.DeepCopyObject().(withStatus)
		ready := meta.FindStatusCondition(o.GetStatus().Conditions, v1alpha1.ConditionReady)
		if !none && ready != nil && !nobodys(ready) && ready.ObservedGeneration == o.GetGeneration() && ready.Reason != string(v.Reason) {
			errs = append(errs, r.writeStatus(ctx, o, before)) // it still holds
			continue
		}
		if none {
			notInUse(o)
		}
		errs = append(errs, r.setReady(ctx, o, before, v, ""))
	}
	return errors.Join(errs...)
}
