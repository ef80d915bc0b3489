package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/depth"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
)

const (
	// resyncEvery is how often everything is checked again although nothing has changed: streams and consumers that
	// somebody removed by hand are created again.
	resyncEvery = time.Minute
	// deletingEvery is how often a queue that is being deleted is checked for being empty.
	deletingEvery = 2 * time.Second
	// maxOvertaken is how many reconciliations in a row are put off because others have just changed resources that were to be
	// claimed: they are tried again at once.
	maxOvertaken = 3
)

// reconciler runs one reconciliation after the other, never two at a time.
type reconciler struct {
	client   client.Client
	release  Release
	events   tellings
	conn     Streams
	replicas int
	// machineBytes is what NATS may keep of executions; they have no streams if it is zero.
	machineBytes int64
	objects      Expirer
	log          *slog.Logger
	depths       *depth.Watch
	calls        *depthReports
	unclaimed    metric.Int64Gauge // of strays

	live    context.Context              //nolint:containedctx // the connected period that the following fields are of
	leases  time.Time                    // when the stream of leases was last ensured
	ensured map[catalog.Key]ensuredQueue // queues whose streams were ensured
	memory  manifest.Memory
	left    map[manifest.Ref]string           // resources of the class that another release serves
	refused map[manifest.Ref]manifest.Verdict // resources that can't be claimed, as of the last reconciliation
	// overtaken are reconciliations in a row that were put off (maxOvertaken).
	overtaken int
	strays    []catalog.Key // queues with streams here that no Queue has
}

type ensuredQueue struct {
	spec catalog.Queue
	at   time.Time
}

func newReconciler(c client.Client, cfg Config, depths *depth.Watch, calls *depthReports, events tellings) (*reconciler, error) {
	unclaimed, err := cfg.Telemetry.Meter("github.com/weir-dev/weir/internal/controller").Int64Gauge("weir.streams.unclaimed", metric.WithUnit("{queue}"),
		metric.WithDescription("Queues whose streams are in NATS, and that no Queue of the release has."))
	if err != nil {
		return nil, fmt.Errorf("controller: %w", err)
	}
	return &reconciler{
		unclaimed: unclaimed,
		client:    c, release: cfg.Release, events: events, conn: cfg.Conn, depths: depths, calls: calls, replicas: cfg.Replicas, machineBytes: cfg.MachineBytes, objects: cfg.Objects, log: cfg.Log,
		ensured: map[catalog.Key]ensuredQueue{}, memory: manifest.Memory{OrchestratorURL: cfg.OrchestratorURL, AllowedRoutes: cfg.AllowedRoutes},
	}, nil
}

// resources are copies of everything in the cluster that matters here; once claimed, of what this release serves.
type resources struct {
	apis     []v1alpha1.API
	queues   []v1alpha1.Queue
	mappings []v1alpha1.EventSourceMapping
	machines []v1alpha1.StateMachine
	services []manifest.KnativeService
	leaving  []v1alpha1.Queue // that this release serves no more, and has streams of
	dropped  []withStatus     // that this release has claimed, and are of another class by now
	// elsewhere are those that it does not serve, and why.
	elsewhere map[manifest.Ref]string
	// drainedElsewhere are mappings among them, by the queue that they name.
	drainedElsewhere map[catalog.Key]string
	// refused are those that can't be claimed or given the finalizer, and why. Those of them that another has just changed, so that
	// the next try may do it, are in changed.
	refused map[manifest.Ref]manifest.Verdict
	changed map[manifest.Ref]bool
}

// Reconcile brings streams, catalog and statuses in line with the cluster's resources. What is wrong with one of them, or with
// the right to write it, holds up no other.
func (r *reconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	res, err := list(ctx, r.client)
	if err != nil {
		return reconcile.Result{}, err
	}
	former, err := r.former(ctx)
	if _, other := errors.AsType[*servedError](err); other { // what this release had in that NATS is its queues' no more
		r.depths.Use(nil)
		r.calls.use(nil)
		return reconcile.Result{}, errors.Join(err, r.reportFailure(ctx, res, err))
	}
	unclaimed := errors.Join(r.claim(ctx, res), r.addFinalizers(ctx, res))
	r.refused = res.refused
	if len(res.changed) > 0 && r.overtaken < maxOvertaken { // what names those would be told that they are not in use
		r.overtaken++
		return reconcile.Result{}, unclaimed
	}
	r.overtaken = 0
	var out *manifest.Outcome
	if err == nil {
		out, err = r.apply(ctx, res, former)
	}
	if err != nil {
		return reconcile.Result{}, errors.Join(unclaimed, err, r.reportFailure(ctx, res, err))
	}
	r.depths.Use(out.Catalog.Queues)
	r.calls.use(manifest.DrainedBy(out.Catalog))
	deleting, err := r.deleteQueues(ctx, res, out)
	result := reconcile.Result{RequeueAfter: resyncEvery}
	if len(res.refused) > len(res.changed) {
		result.RequeueAfter = retryMax
	}
	if deleting {
		result.RequeueAfter = deletingEvery
	}
	return result, errors.Join(unclaimed, err, r.report(ctx, res, out), r.letGo(ctx, res), r.reportStrays(ctx, res, out))
}

func list(ctx context.Context, c client.Reader) (*resources, error) {
	res, err := listKinds(ctx, c)
	if err != nil {
		return nil, err
	}
	var services manifest.KnativeServiceList
	if err := c.List(ctx, &services); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	res.services = services.Items
	return res, nil
}

// listKinds lists the resources of Weir's kinds.
func listKinds(ctx context.Context, c client.Reader, opts ...client.ListOption) (*resources, error) {
	var (
		apis     v1alpha1.APIList
		queues   v1alpha1.QueueList
		mappings v1alpha1.EventSourceMappingList
		machines v1alpha1.StateMachineList
	)
	for _, l := range []client.ObjectList{&apis, &queues, &mappings, &machines} {
		if err := c.List(ctx, l, opts...); err != nil { // copies of what the cache holds
			return nil, fmt.Errorf("list: %w", err)
		}
	}
	return &resources{
		apis: apis.Items, queues: queues.Items, mappings: mappings.Items, machines: machines.Items,
		refused: map[manifest.Ref]manifest.Verdict{}, changed: map[manifest.Ref]bool{},
	}, nil
}

// objects returns copies that may be defaulted: the resources themselves are patched later.
func (res *resources) objects() *manifest.Objects {
	objs := &manifest.Objects{Elsewhere: res.elsewhere, DrainedElsewhere: res.drainedElsewhere}
	for i := range res.apis {
		objs.APIs = append(objs.APIs, manifest.Resource[v1alpha1.API]{Object: res.apis[i].DeepCopy()})
	}
	for i := range res.queues {
		objs.Queues = append(objs.Queues, manifest.Resource[v1alpha1.Queue]{Object: res.queues[i].DeepCopy()})
	}
	for i := range res.mappings {
		objs.Mappings = append(objs.Mappings, manifest.Resource[v1alpha1.EventSourceMapping]{Object: res.mappings[i].DeepCopy()})
	}
	for i := range res.machines {
		objs.Machines = append(objs.Machines, manifest.Resource[v1alpha1.StateMachine]{Object: res.machines[i].DeepCopy()})
	}
	for i := range res.services {
		objs.Services = append(objs.Services, manifest.Resource[manifest.KnativeService]{Object: res.services[i].DeepCopy()})
	}
	return objs
}

// servedError means that the NATS serves another release.
type servedError struct{ release string }

// Error says what to do.
func (e *servedError) Error() string {
	return fmt.Sprintf("this NATS serves the release %s; give this one another NATS, or name %s in controller.takeOver if it is gone", e.release, e.release)
}

// owns reports whether the NATS with this catalog is the release's, or becomes it.
func (r Release) owns(former *stream.PublishedCatalog) bool {
	by := former.Release
	return by == "" || by == r.String() || slices.Contains(r.TakeOver, by)
}

// former is what is published, to be replaced by this release; a servedError if it is another's.
func (r *reconciler) former(ctx context.Context) (*stream.PublishedCatalog, error) {
	if err := r.conn.Ready(); err != nil {
		return nil, err
	}
	former, err := r.conn.Catalog(ctx)
	if err != nil {
		return nil, err
	}
	if !r.release.owns(former) {
		return nil, &servedError{former.Release}
	}
	former.Release = r.release.String()
	return former, nil
}

// apply creates the streams of all queues and then publishes the catalog that names them.
func (r *reconciler) apply(ctx context.Context, res *resources, former *stream.PublishedCatalog) (*manifest.Outcome, error) {
	refused := maps.Clone(res.refused)
	out := r.memory.Reconcile(res.objects(), former.Catalog, refused)
	refusals, err := r.ensureStreams(ctx, out.Catalog.Queues)
	if err != nil {
		return nil, err
	}
	if len(refusals) > 0 { // without the refused ones, or with their earlier versions
		maps.Copy(refused, refusals)
		out = r.memory.Reconcile(res.objects(), former.Catalog, refused)
	}
	for {
		err := r.conn.PublishCatalog(ctx, out.Catalog, r.replicas, former)
		if err == nil {
			return out, nil
		}
		large, ok := errors.AsType[*stream.EntriesTooLargeError](err)
		if !ok || !refuseLarge(refused, large) {
			return nil, err
		}
		out = r.memory.Reconcile(res.objects(), former.Catalog, refused)
	}
}

// refuseLarge adds the resources whose entries are too large to refused, and reports whether there are more of them now.
func refuseLarge(refused map[manifest.Ref]manifest.Verdict, large *stream.EntriesTooLargeError) (more bool) {
	for _, e := range large.Entries {
		owner := catalog.OwnerOf(e.Key)
		ref := manifest.RefOf(owner)
		if _, known := refused[ref]; known {
			continue
		}
		more = true
		refused[ref] = manifest.Verdict{Reason: reasonTooLarge, Message: fmt.Sprintf(
			"The change is not in use; what was there before goes on, but for paths that another API has by now. Its entry %s takes %d bytes, and a message of NATS holds %d here: "+
				"make its schema or its definition smaller, or raise NATS' max_payload.", e.Key, e.Bytes, large.Limit)}
	}
	return more
}
