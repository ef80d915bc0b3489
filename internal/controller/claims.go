package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/manifest"
)

// observedEvery is how often status.observedAt is written although nothing has changed.
const observedEvery = 10 * time.Minute

// Release names one of the installations of Weir that may share a cluster.
type Release struct {
	Namespace, Name string
	// Class is of the resources that it serves.
	Class string
	// TakeOver are the releases, as NAMESPACE/NAME, whose resources it takes: they are gone, or serve another class by now.
	TakeOver []string
}

// String is status.observedBy.
func (r Release) String() string { return r.Namespace + "/" + r.Name }

// lease is the name of the leader's lease.
func (r Release) lease() string { return r.Name + "-weir-controller" }

func (r Release) finalizer() string { return v1alpha1.QueueFinalizer(r.Namespace, r.Name) }

// serves reports whether a resource is this release's, or may become it. holders are the releases, other than this one, that
// serve resources of the class in a namespace; ours are the namespaces where this one does.
//
// All resources of a class in one namespace go to one release: of two that have begun at once, each keeps what it has, and the
// rest is the one's whose name is the smaller.
func (r Release) serves(o withStatus, holders map[string]string, ours map[string]bool) (ok bool, other string) {
	switch by := o.GetStatus().ObservedBy; {
	case o.ClassOf() != r.Class:
		return false, ""
	case by == r.String():
		return true, ""
	case by != "" && !slices.Contains(r.TakeOver, by):
		return false, by
	}
	holder := holders[o.GetNamespace()]
	if holder == "" || ours[o.GetNamespace()] && r.String() < holder {
		return true, ""
	}
	return false, holder
}

// held says which releases serve resources of the class, by namespace.
func (r Release) held(all []withStatus) (holders map[string]string, ours map[string]bool) {
	holders, ours = map[string]string{}, map[string]bool{}
	for _, o := range all {
		by, ns := o.GetStatus().ObservedBy, o.GetNamespace()
		switch {
		case by == "" || o.ClassOf() != r.Class || slices.Contains(r.TakeOver, by):
		case by == r.String():
			ours[ns] = true
		case holders[ns] == "" || by < holders[ns]:
			holders[ns] = by
		}
	}
	return holders, ours
}

// elsewhere says of a resource that this release does not serve why that is so; other is the release that does, if it is for that.
func (r Release) elsewhere(o withStatus, other string) string {
	if other != "" {
		return "is served by another release, " + other
	}
	return manifest.OtherClass(o.ClassOf(), r.Class)
}

// claim takes the resources of the class that nobody serves, and leaves in res only those that this release serves. A claim is
// written before anything is done about the resource, over the version that was read: of two releases one gets it. One that can't
// be claimed is refused, and holds up no other.
func (r *reconciler) claim(ctx context.Context, res *resources) error {
	var errs []error
	left := map[manifest.Ref]string{}
	keep := func(o withStatus, ok bool, other string) bool {
		if !ok && other == "" && o.GetStatus().ObservedBy == r.release.String() {
			res.dropped = append(res.dropped, o.DeepCopyObject().(withStatus))
		}
		if other != "" {
			ref := refTo(o)
			was, known := r.left[ref]
			if known && (was != other || !saysLeftAlone(o)) { // at once it might be in the way of the other's claim
				errs = append(errs, r.tellLeftAlone(ctx, o, other))
			}
			if left[ref] = other; was != other {
				r.events.leftAlone(o, r.release, other)
				r.log.Warn("another release serves this resource; it is left alone. Give one of them another class, or name the other release in controller.takeOver if it is gone",
					"kind", ref.Kind, "resource", ref.Key.String(), "class", r.release.Class, "release", other)
			}
		}
		if !ok || o.GetStatus().ObservedBy == r.release.String() {
			return ok
		}
		before, was := o.DeepCopyObject().(client.Object), *o.GetStatus()
		now := metav1.Now()
		o.GetStatus().ObservedBy, o.GetStatus().ObservedAt = r.release.String(), &now
		if ready := meta.FindStatusCondition(was.Conditions, v1alpha1.ConditionReady); ready != nil && nobodys(ready) {
			meta.RemoveStatusCondition(&o.GetStatus().Conditions, v1alpha1.ConditionReady)
		}
		err := r.client.Status().Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		if apierrors.IsNotFound(err) {
			return false
		}
		if err != nil {
			*o.GetStatus() = was
			errs = append(errs, r.refuse(res, o, "its status can't be written", err))
		}
		return true
	}
	res.divide(r.release, func(o withStatus, serves bool, other string) bool {
		ok := keep(o, serves, other)
		if q, isQueue := o.(*v1alpha1.Queue); isQueue && !ok && controllerutil.ContainsFinalizer(q, r.release.finalizer()) {
			res.leaving = append(res.leaving, *q)
		}
		return ok
	})
	r.left = left
	return errors.Join(errs...)
}

// saysLeftAlone reports whether o's status says that it is left alone, whoever has written it, or better is not made to.
func saysLeftAlone(o withStatus) bool {
	s := o.GetStatus()
	ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
	return s.ObservedBy != "" || ready != nil && (ready.Reason == string(reasonClassChanged) || ready.Reason == string(reasonLeftAlone) && ready.ObservedGeneration == o.GetGeneration())
}

// tellLeftAlone says in the status of what nobody has claimed why this release doesn't, either. It takes no claim. The words are the
// same, whichever release writes them: two would write in turns otherwise.
func (r *reconciler) tellLeftAlone(ctx context.Context, o withStatus, other string) error {
	if o.GetStatus().ObservedBy != "" {
		return nil
	}
	told := o.DeepCopyObject().(withStatus)
	s := told.GetStatus()
	s.ObservedGeneration = o.GetGeneration()
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: string(reasonLeftAlone), ObservedGeneration: o.GetGeneration(),
		Message: fmt.Sprintf("Release %s serves the class %s in this namespace, and has not claimed this resource yet. Other releases of the class leave it alone. "+
			"See whether that one runs and watches the namespace; if it is gone, name it in controller.takeOver of another", other, o.ClassOf()),
	})
	err := r.client.Status().Patch(ctx, told, client.MergeFromWithOptions(o, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // it may be claimed by now
		return nil
	}
	if err != nil {
		return fmt.Errorf("status of %s/%s, which is left alone: %w", o.GetNamespace(), o.GetName(), err)
	}
	return nil
}

// refuse keeps o from coming into use, as the API server doesn't let this release claim it; what was published of it before stays.
// An error is only that somebody else has just changed it. All else is said once, and tried again every retryMax.
func (r *reconciler) refuse(res *resources, o withStatus, what string, err error) error {
	ref := refTo(o)
	v := manifest.Verdict{Reason: reasonNotClaimed, Message: fmt.Sprintf(
		"The change is not in use; what was there before goes on. Release %s can't claim the resource: %s. See which rule of the cluster forbids it; it is tried again. The API server says: %v", r.release, what, err)}
	res.refused[ref] = v
	err = fmt.Errorf("claim %s %s: %s: %w", ref.Kind, ref.Key, what, err)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) { // somebody has just changed or deleted it: the next try sees that
		res.changed[ref] = true
		return err
	}
	if _, known := r.refused[ref]; !known {
		r.events.tell(o, corev1.EventTypeWarning, v.Reason, actionServe, v.Message)
		r.log.Warn("a resource can't be claimed; what was published of it before stays in use. It is tried again", "kind", ref.Kind, "resource", ref.Key.String(), "error", err)
	}
	return nil
}

// letGo gives up the claims of resources that are of another class by now, so that a release of that one takes them. It comes after
// the catalog without them is published: no two releases serve a resource at a time, but for what the old one has in flight.
func (r *reconciler) letGo(ctx context.Context, res *resources) error {
	var errs []error
	for _, o := range res.dropped {
		before := o.DeepCopyObject().(client.Object)
		notInUse(o)
		s := o.GetStatus()
		s.ObservedBy, s.ObservedAt, s.ObservedGeneration, s.Conditions = "", nil, 0, nil
		if q, is := o.(*v1alpha1.Queue); is { // its records stay where they are
			s.ObservedGeneration = q.Generation
			r.setCondition(q, v1alpha1.ConditionReady, reasonReady, r.classChanged(q), "")
		}
		err := r.client.Status().Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		if client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("give up the claim of %s/%s: %w", o.GetNamespace(), o.GetName(), err))
			continue
		}
		ref := refTo(o)
		r.log.Info("a resource is of another class by now; its claim is given up", "kind", ref.Kind, "resource", ref.Key.String(), "class", o.ClassOf(), "servedClass", r.release.Class)
	}
	return errors.Join(errs...)
}

// classChanged is what a Queue says that this release has served and whose class it serves no more.
func (r *reconciler) classChanged(q *v1alpha1.Queue) manifest.Verdict {
	return manifest.Verdict{Reason: reasonClassChanged, Message: fmt.Sprintf(
		"Release %s, which served the queue, serves class %s by now, and the queue is of class %s. What it holds stays in the NATS of that release, where nobody drains it. "+
			"Set controller.class of that release to %s again to have it drained; or let another release serve class %s, which begins with an empty queue. "+
			"To delete what it holds: kubectl -n %s annotate queues.weir.dev %s %s=true, and delete it",
		r.release, r.release.Class, q.ClassOf(), q.ClassOf(), q.ClassOf(), q.Namespace, q.Name, v1alpha1.DropRecordsAnnotation)}
}

// tells reports whether o's status may be written.
func (r *reconciler) tells(res *resources, o withStatus) bool {
	return o.GetStatus().ObservedBy == r.release.String() && !res.changed[refTo(o)]
}

func refTo(o withStatus) manifest.Ref {
	switch o.(type) {
	case *v1alpha1.API:
		return manifest.APIRef(keyOf(o))
	case *v1alpha1.Queue:
		return manifest.QueueRef(keyOf(o))
	case *v1alpha1.EventSourceMapping:
		return manifest.MappingRef(keyOf(o))
	default:
		return manifest.MachineRef(keyOf(o))
	}
}

// divide leaves in res what keep says yes to. It is told whether the release serves a resource or may become the one that does, and
// if not for another's sake, which that is; what it doesn't serve is elsewhere.
func (res *resources) divide(r Release, keep func(o withStatus, serves bool, other string) bool) {
	holders, ours := r.held(res.all())
	res.keep(func(o withStatus) bool {
		ok, other := r.serves(o, holders, ours)
		if !ok {
			res.leave(o, r.elsewhere(o, other))
		}
		return keep(o, ok, other)
	})
}

// leave notes that this release does not serve o, and why.
func (res *resources) leave(o withStatus, why string) {
	if res.elsewhere == nil {
		res.elsewhere, res.drainedElsewhere = map[manifest.Ref]string{}, map[catalog.Key]string{}
	}
	res.elsewhere[refTo(o)] = why
	if m, ok := o.(*v1alpha1.EventSourceMapping); ok {
		res.drainedElsewhere[catalog.Key{Namespace: m.Namespace, Name: m.Spec.Queue}] = m.Name
	}
}

// keep leaves in res only the resources that yes says yes to.
func (res *resources) keep(yes func(withStatus) bool) {
	res.apis = kept(res.apis, func(a *v1alpha1.API) bool { return yes(a) })
	res.queues = kept(res.queues, func(q *v1alpha1.Queue) bool { return yes(q) })
	res.mappings = kept(res.mappings, func(m *v1alpha1.EventSourceMapping) bool { return yes(m) })
	res.machines = kept(res.machines, func(m *v1alpha1.StateMachine) bool { return yes(m) })
}

// kept are those of list that keep says yes to, in place.
func kept[T any](list []T, keep func(*T) bool) []T {
	n := 0
	for i := range list {
		if keep(&list[i]) {
			list[n] = list[i]
			n++
		}
	}
	return list[:n]
}

// all are the resources of Weir's kinds.
func (res *resources) all() []withStatus {
	var all []withStatus
	for i := range res.apis {
		all = append(all, &res.apis[i])
	}
	for i := range res.queues {
		all = append(all, &res.queues[i])
	}
	for i := range res.mappings {
		all = append(all, &res.mappings[i])
	}
	for i := range res.machines {
		all = append(all, &res.machines[i])
	}
	return all
}
