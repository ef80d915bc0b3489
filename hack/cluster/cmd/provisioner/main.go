// Provisioner makes PersistentVolumes for the throw-away cluster: a folder below -root for each claim of its storage
// class, as a local volume, so that the kubelet gives it to a pod's fsGroup. It removes the folder when the claim is
// gone and the class says Delete. It runs beside the kubelet, in the same mount namespace: the folders are the node's.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "`file` with the cluster's address and credentials")
	root := flag.String("root", "", "`folder` that holds the volumes")
	node := flag.String("node", "", "`name` of the node whose folder it is")
	flag.Parse()
	if *root == "" || *node == "" {
		log.Fatal("-root and -node are needed: the folder of the volumes, and the node it is on")
	}
	if err := run(*kubeconfig, *root, *node); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

func run(kubeconfig, root, node string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, time.Minute)
	claims := factory.Core().V1().PersistentVolumeClaims()
	volumes := factory.Core().V1().PersistentVolumes()
	classes := factory.Storage().V1().StorageClasses()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[item](
		50*time.Millisecond, 5*time.Second))
	defer queue.ShutDown()
	for kind, informer := range map[kind]cache.SharedIndexInformer{claim: claims.Informer(), volume: volumes.Informer()} {
		enqueue := func(object any) {
			if key, err := cache.MetaNamespaceKeyFunc(object); err == nil {
				queue.Add(item{kind: kind, key: key})
			}
		}
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    enqueue,
			UpdateFunc: func(_, object any) { enqueue(object) },
		}); err != nil {
			return err
		}
	}
	p := &provisioner{
		client: client, claims: claims.Lister(), volumes: volumes.Lister(), classes: classes.Lister(), root: root, node: node,
	}
	classes.Informer() // asked for before the start, or the factory would not run it
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	for kind, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			log.Printf("the cache of %s did not fill", kind)
			return ctx.Err()
		}
	}
	log.Printf("volumes of class provisioner %s are made in %s", provisionerName, root)
	context.AfterFunc(ctx, queue.ShutDown)
	for {
		work, ended := queue.Get()
		if ended {
			return ctx.Err()
		}
		if err := p.reconcile(ctx, work); err != nil {
			log.Printf("%s: %v", work.key, err)
			queue.AddRateLimited(work)
		} else {
			queue.Forget(work)
		}
		queue.Done(work)
	}
}
