// Package controller reconciles a cluster's resources with the data plane: it watches Weir's resources and the Knative
// Services, creates the queues' streams, publishes the catalog, and reports in each resource's status whether it works
// and, if not, how to fix it.
//
// There is one reconciliation for everything together, because everything ends in one catalog. It is level triggered:
// whatever changed, it reads all resources (from the client's cache) and brings the streams, the catalog and the
// statuses in line with them. The published catalog is the only memory: a resource that turns invalid stays in use in
// its last valid version, which is the published one.
//
// Invariants: a catalog that names a queue is published after the queue's streams were created, and a queue's streams
// are removed after a catalog was published in which it is closed; a claim is given up after a catalog was published without the
// resource; only the replica that holds the leader's lease
// reconciles, and publishing is a compare-and-swap, so that a former leader can't bring an old catalog back; records
// are dropped only on request (finalizer, [v1alpha1.DropRecordsAnnotation]); what another release serves is left alone.
//
// The files: controller.go (watches and process), reconcile.go (one reconciliation), claims.go (whose the resources are), queues.go
// (streams and deletion), status.go (conditions), review.go (resources that are to be
// taken), events.go, depth.go (what queues hold, in their statuses), batch.go (Kubernetes Jobs of tasks), uninstalled.go (what is said
// when a release is no more).
//
// It is the only importer of controller-runtime and client-go. It may import api/v1alpha1, catalog, clusterjob, depth, manifest and
// stream.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/depth"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

const (
	// The backoff after a failed reconciliation, doubled with each one in a row.
	retryMin, retryMax = 200 * time.Millisecond, 15 * time.Second
)

// Streams is what a controller does with NATS.
type Streams interface {
	stream.Link
	stream.Queues
	stream.Leases
	stream.Keys
	stream.Catalogs
	stream.Depths
	ServeAsks(k catalog.Key, f func(ctx context.Context, what string, body []byte) ([]byte, error)) (stop func(), err error)
	PurgeSettled(ctx context.Context, k catalog.Key) (floor uint64, err error)
	EnsureMachines(ctx context.Context, replicas int, maxBytes int64) error
}

// Config is what a controller needs. It finds the cluster as kubectl does: by the pod's service account, or
// KUBECONFIG.
type Config struct {
	Conn     Streams
	Replicas int // of streams: 1, 3 or 5
	// MachineBytes is what NATS may keep of executions of state machines; zero if there are none.
	MachineBytes int64
	// OrchestratorURL is where mappings start executions; empty if there are none.
	OrchestratorURL string
	// AllowedRoutes are those that namespaces may have; empty means all.
	AllowedRoutes manifest.AllowedRoutes
	// Objects expires the objects of jobs; nil if they are in NATS, where they expire by themselves.
	Objects Expirer
	// Webhook is where resources are reviewed before the cluster takes them; nil if they are not.
	Webhook *Webhook
	// Batch: the leader runs Kubernetes Jobs for tasks of state machines.
	Batch bool
	// Namespaces to watch; empty means the whole cluster.
	Namespaces []string
	// Release is the one that this controller belongs to. The leader's lease is in its namespace.
	Release Release
	// Telemetry makes its instruments; the zero value makes none.
	Telemetry telemetry.Providers
	Log       *slog.Logger
}

// Expirer removes the objects of a queue that are older than olderThan (blob.S3).
type Expirer interface {
	Expire(ctx context.Context, queue catalog.Key, olderThan time.Duration) (removed int, err error)
}

// Validate names the first field that is missing or wrong.
func (c *Config) Validate() error {
	switch {
	case c.Conn == nil:
		return errors.New("controller: Conn is missing")
	case !slices.Contains([]int{1, 3, 5}, c.Replicas):
		return fmt.Errorf("controller: Replicas is %d: a stream has 1, 3 or 5", c.Replicas)
	case c.Release.Namespace == "" || c.Release.Name == "" || c.Release.Class == "":
		return errors.New("controller: Release is missing: its Namespace, Name and Class")
	case c.Log == nil:
		return errors.New("controller: Log is missing")
	}
	return nil
}

// Metrics are what controller-runtime and client-go count.
func Metrics() prometheus.Gatherer { return metrics.Registry }

// Run watches and reconciles until ctx is cancelled. It calls ready when the caches are synced, whether or not this
// replica leads.
func Run(ctx context.Context, cfg Config, ready func()) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	log := logr.FromSlogHandler(cfg.Log.Handler())
	ctrl.SetLogger(log)
	klog.SetLogger(log)
	access, err := clusterAccess()
	if err != nil {
		return err
	}
	options := manager.Options{
		Scheme:                  newScheme(),
		Logger:                  log,
		Cache:                   cacheOptions(cfg),
		Metrics:                 server.Options{BindAddress: "0"}, // package app has the page,
		HealthProbeBindAddress:  "0",                              // package app has the probes
		LeaderElection:          true,
		LeaderElectionID:        cfg.Release.lease(),
		LeaderElectionNamespace: cfg.Release.Namespace,
		// The process ends when Run returns, so the next leader need not wait for the lease to expire.
		LeaderElectionReleaseOnCancel: true,
	}
	if cfg.Webhook != nil {
		options.WebhookServer = cfg.Webhook.server()
	}
	mgr, err := ctrl.NewManager(access, options)
	if err != nil {
		return fmt.Errorf("connect to the cluster: %w", err)
	}
	if cfg.Webhook != nil {
		mgr.GetWebhookServer().Register(reviewPath, &admission.Webhook{Handler: newReview(mgr.GetClient(), cfg)})
	}
	if err := errors.Join(needKinds(mgr.GetRESTMapper()), watch(mgr, cfg)); err != nil {
		return err
	}
	if err := mgr.Add(whenSynced(mgr.GetCache(), ready)); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func clusterAccess() (*rest.Config, error) {
	c, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("no way to the cluster: %w: run in a pod with a service account, or set KUBECONFIG", err)
	}
	return c, nil
}

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(v1alpha1.AddToScheme(s))
	utilruntime.Must(batchv1.AddToScheme(s))
	utilruntime.Must(manifest.AddKnativeToScheme(s))
	return s
}

func cacheOptions(cfg Config) cache.Options {
	opts := cache.Options{DefaultTransform: cache.TransformStripManagedFields()}
	if cfg.Batch {
		opts.ByObject = cachedForJobs()
	}
	for _, ns := range cfg.Namespaces {
		if opts.DefaultNamespaces == nil {
			opts.DefaultNamespaces = map[string]cache.Config{}
		}
		opts.DefaultNamespaces[ns] = cache.Config{}
	}
	return opts
}

// needKinds fails at the start if a kind is missing, where a watch would wait for ever.
func needKinds(mapper meta.RESTMapper) error {
	weir := v1alpha1.GroupVersion
	for kind, fix := range map[string]string{
		"API": "", "Queue": "", "EventSourceMapping": "", "StateMachine": "",
		"Service": "Knative Serving is not installed in this cluster: see https://knative.dev/docs/install",
	} {
		gvk := weir.WithKind(kind)
		if fix != "" {
			gvk = manifest.KnativeGroupVersion().WithKind(kind)
		} else {
			fix = "the custom resource definitions are missing: install the chart with crds.install=true"
		}
		_, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if meta.IsNoMatchError(err) {
			return fmt.Errorf("the cluster has no %s %s: %s", gvk.GroupVersion(), kind, fix)
		}
		if err != nil {
			return fmt.Errorf("ask the cluster for %s %s: %w", gvk.GroupVersion(), kind, err)
		}
	}
	return nil
}

func whenSynced(c cache.Cache, ready func()) manager.Runnable {
	return everyReplica(func(ctx context.Context) error {
		if c.WaitForCacheSync(ctx) {
			ready()
		}
		<-ctx.Done()
		return nil
	})
}

// everyReplica is a runnable that doesn't wait for leadership.
type everyReplica func(context.Context) error

// Start runs it.
func (f everyReplica) Start(ctx context.Context) error { return f(ctx) }

// NeedLeaderElection is false.
func (f everyReplica) NeedLeaderElection() bool { return false }

// watch sets up the one reconciliation: whatever changes, the same request is queued, once.
func watch(mgr manager.Manager, cfg Config) error {
	everything := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: "everything"}}}
	})
	// Our own writes to a status change neither generation nor annotations, but for a claim that is given up.
	theirs := builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, predicate.Funcs{UpdateFunc: claimGivenUp}))
	up := make(chan event.GenericEvent)
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error { return announce(ctx, cfg.Conn, up) })); err != nil {
		return err
	}
	if cfg.Objects != nil {
		if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error { return expire(ctx, cfg) })); err != nil {
			return err
		}
	}
	if cfg.Batch {
		if err := mgr.Add(manager.RunnableFunc(newClusterJobs(mgr.GetClient(), mgr.GetAPIReader(), cfg).run)); err != nil { // of the leader alone
			return err
		}
	}
	told := newDepthReports(mgr.GetClient(), cfg.Log)
	depths, err := depth.New(cfg.Conn, cfg.Telemetry, cfg.Log, told.report)
	if err != nil {
		return err
	}
	for _, run := range []manager.RunnableFunc{depths.Run, told.run} { // of the leader alone
		if err := mgr.Add(run); err != nil {
			return err
		}
	}
	r, err := newReconciler(mgr.GetClient(), cfg, depths, told, tellings{mgr.GetEventRecorder("weir-controller")})
	if err != nil {
		return err
	}
	return builder.ControllerManagedBy(mgr).Named("weir").
		Watches(&v1alpha1.API{}, everything, theirs).
		Watches(&v1alpha1.Queue{}, everything, theirs).
		Watches(&v1alpha1.EventSourceMapping{}, everything, theirs).
		Watches(&v1alpha1.StateMachine{}, everything, theirs).
		Watches(&manifest.KnativeService{}, everything).
		WatchesRawSource(source.Channel(up, everything)).
		WithOptions(ctrlcontroller.Options{
			MaxConcurrentReconciles: 1,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryMin, retryMax),
		}).
		Complete(r)
}

// claimGivenUp reports whether the release that served a resource does so no more: another one may.
func claimGivenUp(e event.UpdateEvent) bool {
	was, ok := e.ObjectOld.(withStatus)
	is, too := e.ObjectNew.(withStatus)
	return ok && too && was.GetStatus().ObservedBy != "" && is.GetStatus().ObservedBy == ""
}

// announce sends an event at the start of each connected period: NATS may have lost everything when it is back.
func announce(ctx context.Context, conn stream.Link, up chan<- event.GenericEvent) error {
	for conn.WaitUp(ctx) == nil {
		live := conn.Live()
		select {
		case up <- event.GenericEvent{Object: &v1alpha1.Queue{}}:
		case <-ctx.Done():
			return nil
		}
		select {
		case <-live.Done():
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// expireEvery is how often S3 is searched for expired objects.
const expireEvery = 10 * time.Minute

// expire removes expired objects until ctx ends.
func expire(ctx context.Context, cfg Config) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		if err := expireAll(ctx, cfg); err != nil && ctx.Err() == nil {
			cfg.Log.Warn("expired objects could not be removed; trying again", "in", expireEvery, "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func expireAll(ctx context.Context, cfg Config) error {
	published, err := cfg.Conn.Catalog(ctx)
	if err != nil || published.None() {
		return err
	}
	var errs []error
	for _, q := range published.Catalog.Queues {
		if q.Objects.MaxAge <= 0 { // published by an earlier version, without this field
			continue
		}
		n, err := cfg.Objects.Expire(ctx, q.Key, q.Objects.MaxAge)
		if err != nil {
			errs = append(errs, fmt.Errorf("queue %s: %w", q.Key, err))
		}
		if n > 0 {
			cfg.Log.Info("objects have expired", "queue", q.Key.String(), "objects", n)
		}
	}
	return errors.Join(errs...)
}
