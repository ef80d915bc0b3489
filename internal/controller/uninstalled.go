package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weir-dev/weir/api/v1alpha1"
)

// Uninstallation is of a release whose controller is gone.
type Uninstallation struct {
	Release    Release
	Namespaces []string // that it watched; none: all
	// Deployment is its controller's, in its namespace: while that is there nothing is uninstalled.
	Deployment string
	Log        *slog.Logger
}

// Run says in the status of each resource that the release has served that nobody does so any more. It may be run again after an error.
func (u Uninstallation) Run(ctx context.Context) error {
	access, err := clusterAccess()
	if err != nil {
		return err
	}
	c, err := client.New(access, client.Options{Scheme: newScheme()})
	if err != nil {
		return fmt.Errorf("connect to the cluster: %w", err)
	}
	return u.run(ctx, c)
}

func (u Uninstallation) run(ctx context.Context, c client.Client) error {
	installed, err := exists(ctx, c, client.ObjectKey{Namespace: u.Release.Namespace, Name: u.Deployment})
	if err != nil {
		return err
	}
	if installed {
		u.Log.WarnContext(ctx, "the release is installed: no status is changed", "release", u.Release.String(), "deployment", u.Deployment)
		return nil
	}
	namespaces := u.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	said := 0
	var errs []error
	for _, ns := range namespaces {
		res, err := listKinds(ctx, c, client.InNamespace(ns))
		if meta.IsNoMatchError(err) {
			u.Log.InfoContext(ctx, "the custom resource definitions are gone, and all resources with them")
			return nil
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, o := range res.all() {
			if o.GetStatus().ObservedBy != u.Release.String() {
				continue
			}
			if err := u.say(ctx, c, o); err != nil {
				errs = append(errs, fmt.Errorf("status of %s/%s: %w", o.GetNamespace(), o.GetName(), err))
				continue
			}
			said++
		}
	}
	u.Log.InfoContext(ctx, "the statuses say that the release is uninstalled", "release", u.Release.String(), "resources", said)
	return errors.Join(errs...)
}

// say writes o's status over the version that was read: o may be another release's by now.
func (u Uninstallation) say(ctx context.Context, c client.Client, o withStatus) error {
	before := o.DeepCopyObject().(client.Object)
	notInUse(o)
	if q, is := o.(*v1alpha1.Queue); is && q.Status.Depth != nil {
		q.Status.Depth.InFlight, q.Status.Depth.Owned = 0, false
	}
	meta.SetStatusCondition(&o.GetStatus().Conditions, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: string(reasonUninstalled), ObservedGeneration: o.GetGeneration(),
		Message: fmt.Sprintf("Release %s, which served this resource, is uninstalled, and nobody else serves it. What its NATS holds is in the volumes of that one. "+
			"Install a release of the same name in the same namespace to go on; or name this one in controller.takeOver of another, which begins with empty queues", u.Release),
	})
	return client.IgnoreNotFound(c.Status().Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})))
}

// exists reports whether a Deployment is there, and is not being deleted.
func exists(ctx context.Context, c client.Client, k client.ObjectKey) (bool, error) {
	d := &metav1.PartialObjectMetadata{}
	d.SetGroupVersionKind(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"})
	if err := c.Get(ctx, k, d); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return false, nil
		}
		return false, fmt.Errorf("look for the Deployment %s: %w", k, err)
	}
	return d.DeletionTimestamp.IsZero(), nil
}
