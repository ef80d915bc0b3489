package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/weir-dev/weir/api/v1alpha1"
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
// written before anything is done about the resource, over the version that was read: of two releases one gets it.
func (r *reconciler) claim(ctx context.Context, res *resources) error {
	holders, ours := r.release.held(res.all())
	var errs []error
	left := map[manifest.Ref]string{}
	res.elsewhere = map[manifest.Ref]string{}
	keep := func(o withStatus) bool {
		ok, other := r.release.serves(o, holders, ours)
		if !ok {
			res.elsewhere[refTo(o)] = r.release.elsewhere(o, other)
		}
		if other != "" {
			ref := refTo(o)
			if left[ref] = other; r.left[ref] != other {
				r.events.leftAlone(o, r.release, other)
				r.log.Warn("another release serves this resource; it is left alone. Give one of them another class, or name the other release in controller.takeOver if it is gone",
					"kind", ref.Kind, "resource", ref.Key.String(), "class", r.release.Class, "release", other)
			}
		}
		if !ok || o.GetStatus().ObservedBy == r.release.String() {
			return ok
		}
		before := o.DeepCopyObject().(client.Object)
		now := metav1.Now()
		o.GetStatus().ObservedBy, o.GetStatus().ObservedAt = r.release.String(), &now
		err := r.client.Status().Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		if client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("claim %s/%s: %w", o.GetNamespace(), o.GetName(), err))
		}
		return err == nil
	}
	res.keep(func(o withStatus) bool {
		ok := keep(o)
		if q, isQueue := o.(*v1alpha1.Queue); isQueue && !ok && controllerutil.ContainsFinalizer(q, r.release.finalizer()) {
			res.leaving = append(res.leaving, *q)
		}
		return ok
	})
	r.left = left
	return errors.Join(errs...)
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
