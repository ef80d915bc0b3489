package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"knative.dev/pkg/apis"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
)

type (
	// KnativeService is Knative's own type, for those who watch it in a cluster.
	KnativeService = servingv1.Service
	// KnativeServiceList is a list of them.
	KnativeServiceList = servingv1.ServiceList
)

// KnativeGroupVersion is that of KnativeService.
func KnativeGroupVersion() schema.GroupVersion { return servingv1.SchemeGroupVersion }

// AddKnativeToScheme makes a scheme know Knative's types.
func AddKnativeToScheme(s *runtime.Scheme) error { return servingv1.AddToScheme(s) }

// Ref names an object of one of Weir's kinds.
type Ref struct {
	Kind string
	catalog.Key
}

// APIRef names an API.
func APIRef(k catalog.Key) Ref { return Ref{kindAPI, k} }

// QueueRef names a Queue.
func QueueRef(k catalog.Key) Ref { return Ref{kindQueue, k} }

// MappingRef names an EventSourceMapping.
func MappingRef(k catalog.Key) Ref { return Ref{kindMapping, k} }

// Reason says in one word why an object is not ready. Reasons are part of the API: people select by them.
type Reason string

// The reasons that Reconcile finds.
const (
	// Invalid: the object has mistakes. The last valid version of it, if there was one, goes on working.
	Invalid Reason = "Invalid"
	// QueueDeleting: records for the queue are refused, because it is being deleted.
	QueueDeleting Reason = "QueueDeleting"
	// FunctionNotReady: the object is in use, but its Knative Service can't be called at present.
	FunctionNotReady Reason = "FunctionNotReady"
)

// Verdict is why an object is not ready, in words that say the fix.
type Verdict struct {
	Reason  Reason
	Message string
}

// Outcome is what a cluster's objects mean, as far as they mean anything.
type Outcome struct {
	Catalog  *catalog.Catalog
	Verdicts map[Ref]Verdict // of the objects that are not ready
}

// Reconcile compiles a cluster's objects. Unlike [Compile] it always gives a catalog: an object with mistakes does
// not hold up the others, and where former, the catalog that is published now, has an earlier version of it, that
// one stays in use, as far as it gets on with the rest. refused are queues that can't be had for another reason than
// their own text; they are treated likewise.
//
// Of two objects that exclude each other the one wins whose claim is published already, whatever is applied later by
// whom; of two newcomers the older one.
//
// It fills in defaults in objs themselves.
func Reconcile(objs *Objects, former *catalog.Catalog, refused map[catalog.Key]Verdict) *Outcome {
	slices.SortStableFunc(objs.APIs, func(a, b Resource[v1alpha1.API]) int {
		return cmp.Or(newClaims(a.Object, former)-newClaims(b.Object, former), olderFirst(a, b))
	})
	slices.SortStableFunc(objs.Mappings, func(a, b Resource[v1alpha1.EventSourceMapping]) int {
		return cmp.Or(newClaim(a.Object, former)-newClaim(b.Object, former), olderFirst(a, b))
	})
	services := make(map[catalog.Key]*servingv1.Service, len(objs.Services))
	for _, r := range objs.Services {
		services[catalog.Key{Namespace: r.Object.Namespace, Name: r.Object.Name}] = r.Object
	}
	opts := Options{FunctionURL: func(k catalog.Key) string { return address(services[k], k) }}
	r := &reconciler{
		compiler: compiler{
			opts: opts.withDefaults(), objs: objs, admitted: true, findings: map[Ref]Errors{},
			services: map[catalog.Key]*knativeService{}, queues: map[catalog.Key]catalog.Queue{},
		},
		former: former, refused: refused, live: services, verdicts: map[Ref]Verdict{},
	}
	r.servicesAndQueues()
	r.mendQueues()
	r.apis()
	r.mappings()
	r.mendAPIs()
	r.mendMappings()
	r.judge()
	return &Outcome{Catalog: r.bundle().Catalog, Verdicts: r.verdicts}
}

// reconciler is a compiler that puts earlier versions in the place of what has mistakes.
type reconciler struct {
	compiler

	former   *catalog.Catalog
	refused  map[catalog.Key]Verdict
	live     map[catalog.Key]*servingv1.Service
	verdicts map[Ref]Verdict
}

// mendQueues runs before anything refers to the queues. A queue that was never valid is left out, and what refers
// to it is told so.
func (r *reconciler) mendQueues() {
	for k, q := range r.queues {
		if _, refused := r.refused[k]; !refused && len(r.findings[QueueRef(k)]) == 0 {
			continue
		}
		i := slices.IndexFunc(r.former.Queues, func(f catalog.Queue) bool { return f.Key == k })
		if i < 0 {
			delete(r.queues, k)
			r.unusable = append(r.unusable, k)
			continue
		}
		earlier := r.former.Queues[i]
		earlier.Closed = q.Closed
		r.queues[k] = earlier
	}
}

// mendAPIs keeps of an earlier version the routes that still have their queue and collide with no valid one.
func (r *reconciler) mendAPIs() {
	table := newRouteTable()
	var good []catalog.API
	var bad []catalog.Key
	for _, a := range r.out.APIs {
		if len(r.findings[APIRef(a.Key)]) > 0 {
			bad = append(bad, a.Key)
			continue
		}
		for _, route := range a.Routes {
			_ = table.add(route.Method, route.Path, "") // valid ones don't collide
		}
		good = append(good, a)
	}
	for _, k := range bad {
		i := slices.IndexFunc(r.former.APIs, func(f catalog.API) bool { return f.Key == k })
		if i < 0 {
			continue
		}
		earlier := r.former.APIs[i]
		earlier.Routes = slices.DeleteFunc(slices.Clone(earlier.Routes), func(route catalog.Route) bool {
			for _, target := range []*catalog.QueueTarget{route.Queue, route.Job} {
				if target == nil {
					continue
				}
				if _, ok := r.queues[target.Queue]; !ok {
					return true
				}
			}
			return table.add(route.Method, route.Path, "") != ""
		})
		if len(earlier.Routes) > 0 {
			good = append(good, earlier)
		}
	}
	r.out.APIs = good
}

// mendMappings keeps an earlier version whose queue is there and drained by no other.
func (r *reconciler) mendMappings() {
	var good []catalog.Mapping
	var bad []catalog.Key
	drained := map[catalog.Key]bool{}
	for _, m := range r.out.Mappings {
		if len(r.findings[MappingRef(m.Key)]) > 0 {
			bad = append(bad, m.Key)
			continue
		}
		drained[m.Queue] = true
		good = append(good, m)
	}
	for _, k := range bad {
		i := slices.IndexFunc(r.former.Mappings, func(f catalog.Mapping) bool { return f.Key == k })
		if i < 0 {
			continue
		}
		earlier := r.former.Mappings[i]
		if _, ok := r.queues[earlier.Queue]; ok && !drained[earlier.Queue] {
			drained[earlier.Queue] = true
			good = append(good, earlier)
		}
	}
	r.out.Mappings = good
}

// judge says of each object that is not ready why.
func (r *reconciler) judge() {
	for k, v := range r.refused {
		r.verdicts[QueueRef(k)] = v
	}
	for ref, errs := range r.findings {
		r.verdicts[ref] = Verdict{Invalid, sentences(errs.sorted())}
	}
	for _, o := range r.objs.APIs {
		ref := APIRef(catalog.Key{Namespace: o.Object.Namespace, Name: o.Object.Name})
		for i := range o.Object.Spec.Routes {
			route := &o.Object.Spec.Routes[i]
			switch {
			case route.Queue != nil:
				r.judgeQueue(ref, route.Queue.Name, fmt.Sprintf("route %s answers 503", route.Name))
			case route.Job != nil:
				r.judgeQueue(ref, route.Job.Queue, fmt.Sprintf("route %s answers 503", route.Name))
			case route.Function != nil:
				r.judgeFunction(ref, route.Function.Name, "route "+route.Name+": ")
			}
		}
	}
	for _, o := range r.objs.Mappings {
		ref := MappingRef(catalog.Key{Namespace: o.Object.Namespace, Name: o.Object.Name})
		r.judgeFunction(ref, o.Object.Spec.Function.Name, "")
	}
}

// note keeps the first verdict of an object.
func (r *reconciler) note(ref Ref, reason Reason, format string, args ...any) {
	if _, ok := r.verdicts[ref]; !ok {
		r.verdicts[ref] = Verdict{reason, fmt.Sprintf(format, args...)}
	}
}

func (r *reconciler) judgeQueue(ref Ref, name, effect string) {
	if q, ok := r.queues[catalog.Key{Namespace: ref.Namespace, Name: name}]; ok && q.Closed {
		r.note(ref, QueueDeleting, "Queue %s is being deleted: %s; point the route to another queue, or remove it", name, effect)
	}
}

func (r *reconciler) judgeFunction(ref Ref, name, prefix string) {
	if svc, ok := r.live[catalog.Key{Namespace: ref.Namespace, Name: name}]; ok {
		if why := notReady(svc); why != "" {
			r.note(ref, FunctionNotReady, "%sKnative Service %s is not ready: %s", prefix, name, why)
		}
	}
}

// notReady says why svc can't be called. A Service that can be called while its next revision comes up is ready.
func notReady(svc *servingv1.Service) string {
	c := svc.Status.GetCondition(apis.ConditionReady)
	switch {
	case c != nil && c.Status == corev1.ConditionFalse:
		return strings.TrimSpace(c.Reason + ": " + c.Message)
	case svc.Status.Address == nil || svc.Status.Address.URL == nil:
		return "it has no address yet; see `kubectl describe ksvc " + svc.Name + "`"
	}
	return ""
}

// address is where svc says that it is reached from within the cluster; "" leaves it to Knative's convention.
func address(svc *servingv1.Service, k catalog.Key) string {
	if svc != nil && svc.Status.Address != nil && svc.Status.Address.URL != nil {
		return svc.Status.Address.URL.String()
	}
	return serviceURL(k)
}

func sentences(errs Errors) string {
	lines := make([]string, len(errs))
	for i, e := range errs {
		plain := *e
		plain.Object = "" // the status is the object's own
		lines[i] = plain.Error()
	}
	return strings.Join(lines, "\n")
}

// newClaims is 0 for an API that claims no other paths than its published version does, else 1.
func newClaims(a *v1alpha1.API, former *catalog.Catalog) int {
	i := slices.IndexFunc(former.APIs, func(f catalog.API) bool { return f.Namespace == a.Namespace && f.Name == a.Name })
	if i < 0 {
		return 1
	}
	for j := range a.Spec.Routes {
		m := &a.Spec.Routes[j].Match
		if !slices.ContainsFunc(former.APIs[i].Routes, func(f catalog.Route) bool { return f.Method == m.Method && f.Path == m.Path }) {
			return 1
		}
	}
	return 0
}

// newClaim is 0 for a mapping that drains the queue that its published version does, else 1.
func newClaim(m *v1alpha1.EventSourceMapping, former *catalog.Catalog) int {
	if slices.ContainsFunc(former.Mappings, func(f catalog.Mapping) bool {
		return f.Namespace == m.Namespace && f.Name == m.Name && f.Queue.Name == m.Spec.Queue
	}) {
		return 0
	}
	return 1
}

// olderFirst orders objects of one kind by age, then by name: two of one second, or of a test without a clock.
func olderFirst[T any, P interface {
	*T
	metav1.Object
}](a, b Resource[T]) int {
	x, y := P(a.Object), P(b.Object)
	return cmp.Or(
		x.GetCreationTimestamp().Time.Compare(y.GetCreationTimestamp().Time),
		cmp.Compare(x.GetNamespace(), y.GetNamespace()), cmp.Compare(x.GetName(), y.GetName()),
	)
}
