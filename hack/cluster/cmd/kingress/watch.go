package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
	"knative.dev/networking/pkg/apis/networking"
	"knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/networking/pkg/client/clientset/versioned"
	"knative.dev/networking/pkg/client/informers/externalversions"
)

const (
	class       = "kingress.ingress.networking.knative.dev"
	ownService  = "kingress.knative-serving.svc.cluster.local"
	resync      = 10 * time.Minute
	retryPeriod = 500 * time.Millisecond
)

// watch keeps the routes in line with the cluster's ingresses and reports each ingress ready, until ctx is cancelled.
// It calls started once, after the first table.
func watch(ctx context.Context, client versioned.Interface, routes *routes, started func()) error {
	factory := externalversions.NewSharedInformerFactory(client, resync)
	ingresses := factory.Networking().V1alpha1().Ingresses()
	// One token: any number of changes during a round cause one more round.
	dirty := make(chan struct{}, 1)
	changed := func() {
		select {
		case dirty <- struct{}{}:
		default:
		}
	}
	if _, err := ingresses.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { changed() },
		UpdateFunc: func(_, _ any) { changed() },
		DeleteFunc: func(any) { changed() },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), ingresses.Informer().HasSynced) {
		return ctx.Err()
	}
	retry := time.NewTimer(0) // the first round
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-dirty:
		case <-retry.C:
		}
		all, err := ingresses.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		ours := ofOurClass(all)
		routes.set(ours)
		if started != nil {
			started()
			started = nil
		}
		// After the table: Ready means that a request would pass.
		if err := reportReady(ctx, client, ours); err != nil {
			log.Printf("%v; again in %s", err, retryPeriod)
			retry.Reset(retryPeriod)
		}
	}
}

func ofOurClass(all []*v1alpha1.Ingress) []*v1alpha1.Ingress {
	var ours []*v1alpha1.Ingress
	for _, ingress := range all {
		if ingress.Annotations[networking.IngressClassAnnotationKey] == class && ingress.DeletionTimestamp == nil {
			ours = append(ours, ingress)
		}
	}
	return ours
}

// reportReady writes the status of those that don't have it yet for their current generation.
func reportReady(ctx context.Context, client versioned.Interface, ingresses []*v1alpha1.Ingress) error {
	var errs []error
	here := []v1alpha1.LoadBalancerIngressStatus{{DomainInternal: ownService}}
	for _, ingress := range ingresses {
		if ingress.Status.ObservedGeneration == ingress.Generation && ingress.IsReady() {
			continue
		}
		ingress = ingress.DeepCopy() // the informer's own must not be changed
		ingress.Status.InitializeConditions()
		ingress.Status.MarkNetworkConfigured()
		ingress.Status.MarkLoadBalancerReady(here, here)
		ingress.Status.ObservedGeneration = ingress.Generation
		_, err := client.NetworkingV1alpha1().Ingresses(ingress.Namespace).UpdateStatus(ctx, ingress, metav1.UpdateOptions{})
		switch {
		case err == nil:
			log.Printf("%s/%s generation %d is ready", ingress.Namespace, ingress.Name, ingress.Generation)
		case apierrors.IsNotFound(err): // deleted meanwhile
		default:
			errs = append(errs, fmt.Errorf("status of %s/%s: %w", ingress.Namespace, ingress.Name, err))
		}
	}
	return errors.Join(errs...)
}
