package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weir-dev/weir/api/v1alpha1"
)

// Uninstalled says in the status of each resource that a release has served in the namespaces (none: all) that nobody does so any
// more. deployment is that release's controller, in its namespace: while that is there nothing is uninstalled, and nothing said. It
// may be run again after an error.
func Uninstalled(ctx context.Context, release Release, namespaces []string, deployment string, log *slog.Logger) error {
	restConfig, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("no way to the cluster: %w: run in a pod with a service account, or set KUBECONFIG", err)
	}
	c, err := client.New(restConfig, client.Options{Scheme: newScheme()})
	if err != nil {
		return fmt.Errorf("connect to the cluster: %w", err)
	}
	return sayUninstalled(ctx, c, release, namespaces, deployment, log)
}

func sayUninstalled(ctx context.Context, c client.Client, release Release, namespaces []string, deployment string, log *slog.Logger) error {
	installed, err := exists(ctx, c, client.ObjectKey{Namespace: release.Namespace, Name: deployment})
	if err != nil {
		return err
	}
	if installed {
		log.WarnContext(ctx, "the release is installed: no status is changed", "release", release.String(), "deployment", deployment)
		return nil
	}
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	said := 0
	var errs []error
	for _, ns := range namespaces {
		res, err := listKinds(ctx, c, client.InNamespace(ns))
		if meta.IsNoMatchError(err) {
			log.InfoContext(ctx, "the custom resource definitions are gone, and all resources with them")
			return nil
		}
		if err != nil {
			return err
		}
		for _, o := range res.all() {
			if o.GetStatus().ObservedBy != release.String() {
				continue
			}
			before := o.DeepCopyObject().(client.Object)
			notInUse(o)
			now, s := metav1.Now(), o.GetStatus()
			s.ObservedAt = &now
			meta.SetStatusCondition(&s.Conditions, metav1.Condition{
				Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: string(reasonUninstalled), ObservedGeneration: o.GetGeneration(),
				Message: fmt.Sprintf("Release %s, which served this resource, is uninstalled, and nobody else serves it. What its NATS holds is in the volumes of that one. "+
					"Install a release of the same name in the same namespace to go on; or name this one in controller.takeOver of another, which begins with empty queues", release),
			})
			if err := c.Status().Patch(ctx, o, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
				errs = append(errs, fmt.Errorf("status of %s/%s: %w", o.GetNamespace(), o.GetName(), err))
				continue
			}
			said++
		}
	}
	log.InfoContext(ctx, "the statuses say that the release is uninstalled", "release", release.String(), "resources", said)
	return errors.Join(errs...)
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
