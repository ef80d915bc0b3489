package manifest

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
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
	// KnativeService is Knative's own type, for watching it in a cluster.
	KnativeService = servingv1.Service
	// KnativeServiceList is a list of them.
	KnativeServiceList = servingv1.ServiceList
)

// KnativeGroupVersion is the group and version of KnativeService.
func KnativeGroupVersion() schema.GroupVersion { return servingv1.SchemeGroupVersion }

// AddKnativeToScheme registers Knative's types in a scheme.
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

// MachineRef names a StateMachine.
func MachineRef(k catalog.Key) Ref { return Ref{kindMachine, k} }

// RefOf names the object that owns entries of the catalog.
func RefOf(o catalog.Owner) Ref {
	return Ref{map[string]string{"api": kindAPI, "queue": kindQueue, "mapping": kindMapping, "machine": kindMachine}[o.Kind], o.Key}
}

// Reason says in one word why an object is not ready. Reasons are part of the API: people select by them.
type Reason string

// The reasons that Reconcile finds.
const (
	// Invalid: the object has mistakes. The last valid version of it, if there was one, goes on working.
	Invalid Reason = "Invalid"
	// QueueDeleting: records for the queue are refused, because it is being deleted.
	QueueDeleting Reason = "QueueDeleting"
	// FunctionNotReady: the object is in use, but its Knative Service can't be called now.
	FunctionNotReady Reason = "FunctionNotReady"
)

// Verdict is why an object is not ready, with the fix.
type Verdict struct {
	Reason  Reason
	Message string
}

// Outcome is the result of a reconciliation.
type Outcome struct {
	Catalog  *catalog.Catalog
	Verdicts map[Ref]Verdict // of the objects that are not ready
	Drains   map[Ref]Drain   // of the queues in use, and of the APIs in use that fill queues
	Notes    map[Ref]string  // on mappings whose Service others call too
}

// Memory keeps the results of checks of schemas and definitions from one reconciliation to the next, so that an unchanged one is
// not compiled again. The zero value is empty. It is not safe for concurrent use.
type Memory struct {
	// By hash, of the objects last seen.
	schemas, definitions map[[sha256.Size]byte]error
	// OrchestratorURL is Options', but for its default: empty means that nobody runs state machines.
	OrchestratorURL string
	// AllowedRoutes is Options'.
	AllowedRoutes AllowedRoutes
}

// Reconcile compiles a cluster's objects. Unlike [Compile] it always returns a catalog: an invalid object does not
// block the others, and if former, the published catalog, has an earlier version of it, that one stays in use, as far
// as it doesn't conflict with the rest. refused are objects that can't be used for another reason than a mistake in
// them; they are treated likewise.
//
// Of two conflicting objects the one wins whose claim is published already, whatever is applied later by whom; of two
// new ones the older.
//
// It fills in defaults in objs themselves.
func (m *Memory) Reconcile(objs *Objects, former *catalog.Catalog, refused map[Ref]Verdict) *Outcome {
	before := newPublished(former)
	services := make(map[catalog.Key]*servingv1.Service, len(objs.Services))
	for _, r := range objs.Services {
		services[catalog.Key{Namespace: r.Object.Namespace, Name: r.Object.Name}] = r.Object
	}
	r := newReconciler(objs, before, Options{FunctionURL: func(k catalog.Key) string { return address(services[k], k) }, OrchestratorURL: m.OrchestratorURL, AllowedRoutes: m.AllowedRoutes})
	r.admitted, r.refused, r.live = true, refused, services
	r.checkSchema, r.checkDefinition = m.checkSchemas(), m.checkDefinitions()
	r.check()
	r.mendAPIs()
	r.mendMappings()
	r.judge()
	return &Outcome{Catalog: r.bundle().Catalog, Verdicts: r.verdicts, Drains: r.drains(), Notes: r.notes}
}

// reconciler is a compiler that replaces invalid objects with their earlier versions.
type reconciler struct {
	compiler

	live     map[catalog.Key]*servingv1.Service
	verdicts map[Ref]Verdict
}

func newReconciler(objs *Objects, former published, opts Options) *reconciler {
	sortOnce(objs.APIs, func(r Resource[v1alpha1.API]) int { return former.newClaims(r.Object) })
	sortOnce(objs.Mappings, func(r Resource[v1alpha1.EventSourceMapping]) int { return former.newClaim(r.Object) })
	return &reconciler{
		compiler: compiler{
			opts: opts, objs: objs, findings: map[Ref]Errors{},
			services: map[catalog.Key]*knativeService{}, queues: map[catalog.Key]catalog.Queue{}, machines: map[catalog.Key]catalog.Machine{},
			callers: map[*knativeService][]caller{}, notes: map[Ref]string{}, before: former,
			checkSchema: v1alpha1.CheckSchema, checkDefinition: v1alpha1.CheckDefinition,
		},
		verdicts: map[Ref]Verdict{},
	}
}

// check finds the mistakes of all objects.
func (r *reconciler) check() {
	r.servicesAndQueues()
	r.mendQueues()
	r.stateMachines()
	r.mendMachines()
	r.apis()
	r.mappings()
}

// mendQueues runs before references to queues are resolved. A queue that was never valid is left out, and objects that
// refer to it are not ready for that reason.
func (r *reconciler) mendQueues() {
	for k, q := range r.queues {
		if !r.faulty(QueueRef(k)) {
			continue
		}
		earlier, ok := r.before.queues[k]
		if !ok {
			delete(r.queues, k)
			r.unusable = append(r.unusable, QueueRef(k))
			continue
		}
		earlier.Closed = q.Closed
		r.queues[k] = earlier
	}
}

// mendMachines does the same for state machines.
func (r *reconciler) mendMachines() {
	for k := range r.machines {
		if !r.faulty(MachineRef(k)) {
			continue
		}
		earlier, ok := r.before.machines[k]
		if !ok {
			delete(r.machines, k)
			r.unusable = append(r.unusable, MachineRef(k))
			continue
		}
		r.machines[k] = earlier
	}
}

// mendAPIs keeps of an earlier version the routes that are still allowed and collide with no valid one. One whose queue is gone answers 503: its clients
// try again, while a 404 would tell them not to.
func (r *reconciler) mendAPIs() {
	var good, bad []catalog.API
	for _, a := range r.out.APIs {
		if !r.faulty(APIRef(a.Key)) {
			good = append(good, a)
		} else if earlier, ok := r.before.apis[a.Key]; ok {
			bad = append(bad, earlier)
		}
	}
	if len(bad) == 0 {
		r.out.APIs = good
		return
	}
	table := newRouteTable()
	for _, a := range good {
		for _, route := range a.Routes {
			_ = table.add(route.Method, route.Host, route.Path, "") // valid ones don't collide
		}
	}
	for _, earlier := range bad {
		earlier.Routes = slices.DeleteFunc(slices.Clone(earlier.Routes), func(route catalog.Route) bool {
			return r.opts.AllowedRoutes.refusal(earlier.Namespace, route.Host, route.Path) != "" || table.add(route.Method, route.Host, route.Path, "") != ""
		})
		if len(earlier.Routes) > 0 {
			good = append(good, earlier)
		}
	}
	r.out.APIs = good
}

// mendMappings keeps an earlier version whose queue exists and is drained by no other mapping.
func (r *reconciler) mendMappings() {
	var good []catalog.Mapping
	var bad []catalog.Key
	drained := map[catalog.Key]bool{}
	for _, m := range r.out.Mappings {
		if r.faulty(MappingRef(m.Key)) {
			bad = append(bad, m.Key)
			continue
		}
		drained[m.Queue] = true
		good = append(good, m)
	}
	for _, k := range bad {
		earlier, there := r.before.mappings[k]
		if !there {
			continue
		}
		if _, ok := r.queues[earlier.Queue]; ok && !drained[earlier.Queue] {
			drained[earlier.Queue] = true
			good = append(good, earlier)
		}
	}
	r.out.Mappings = good
}

// judge sets the verdict of each object that is not ready.
func (r *reconciler) judge() {
	maps.Copy(r.verdicts, r.refused)
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
			case route.Job != nil && route.Job.Queue != "":
				r.judgeQueue(ref, route.Job.Queue, fmt.Sprintf("route %s answers 503", route.Name))
			case route.Function != nil:
				r.judgeFunction(ref, route.Function.Name, "route "+route.Name+": ")
			}
		}
	}
	for _, o := range r.objs.Mappings {
		ref := MappingRef(catalog.Key{Namespace: o.Object.Namespace, Name: o.Object.Name})
		if f := o.Object.Spec.Function; f != nil {
			r.judgeFunction(ref, f.Name, "")
		}
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
	case svc.Status.Address == nil && c != nil && c.Message != "":
		return strings.TrimSpace(c.Reason + ": " + c.Message)
	case svc.Status.Address == nil || svc.Status.Address.URL == nil:
		return "it has no address yet; see `kubectl describe ksvc " + svc.Name + "`"
	}
	return ""
}

// address is where svc is reached from within the cluster: by its status, or else by Knative's convention.
func address(svc *servingv1.Service, k catalog.Key) string {
	if svc != nil && svc.Status.Address != nil && svc.Status.Address.URL != nil {
		return svc.Status.Address.URL.String()
	}
	return catalog.ServiceURL(k)
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

// published is a catalog by key.
type published struct {
	apis     map[catalog.Key]catalog.API
	claims   map[catalog.Key]map[string]bool // of each API: the patterns of its routes
	queues   map[catalog.Key]catalog.Queue
	machines map[catalog.Key]catalog.Machine
	mappings map[catalog.Key]catalog.Mapping
}

func newPublished(cat *catalog.Catalog) published {
	p := published{
		apis: make(map[catalog.Key]catalog.API, len(cat.APIs)), claims: make(map[catalog.Key]map[string]bool, len(cat.APIs)),
		queues: make(map[catalog.Key]catalog.Queue, len(cat.Queues)), machines: make(map[catalog.Key]catalog.Machine, len(cat.Machines)), mappings: make(map[catalog.Key]catalog.Mapping, len(cat.Mappings)),
	}
	for _, a := range cat.APIs {
		claims := make(map[string]bool, len(a.Routes))
		for i := range a.Routes {
			claims[a.Routes[i].Pattern()] = true
		}
		p.apis[a.Key], p.claims[a.Key] = a, claims
	}
	for _, q := range cat.Queues {
		p.queues[q.Key] = q
	}
	for _, m := range cat.Machines {
		p.machines[m.Key] = m
	}
	for _, m := range cat.Mappings {
		p.mappings[m.Key] = m
	}
	return p
}

// newClaims is 0 for an API that claims no other paths than its published version does, else 1.
func (p *published) newClaims(a *v1alpha1.API) int {
	claims, ok := p.claims[catalog.Key{Namespace: a.Namespace, Name: a.Name}]
	if !ok {
		return 1
	}
	for i := range a.Spec.Routes {
		if !claims[a.Spec.Routes[i].Match.Pattern()] {
			return 1
		}
	}
	return 0
}

// newClaim is 0 for a mapping that drains the queue that its published version does, else 1.
func (p *published) newClaim(m *v1alpha1.EventSourceMapping) int {
	if f, ok := p.mappings[catalog.Key{Namespace: m.Namespace, Name: m.Name}]; ok && f.Queue.Name == m.Spec.Queue {
		return 0
	}
	return 1
}

// checkSchemas returns a check of schemas that reuses the results of the previous one, and keeps its own.
func (m *Memory) checkSchemas() func([]byte) error {
	before := m.schemas
	m.schemas = make(map[[sha256.Size]byte]error, len(before))
	return func(source []byte) error {
		return remembered(before, m.schemas, sha256.Sum256(source), func() error { return v1alpha1.CheckSchema(source) })
	}
}

// checkDefinitions does the same for definitions.
func (m *Memory) checkDefinitions() func([]byte, v1alpha1.StateMachineType) error {
	before := m.definitions
	m.definitions = make(map[[sha256.Size]byte]error, len(before))
	return func(text []byte, kind v1alpha1.StateMachineType) error {
		sum := sha256.Sum256(append([]byte(kind), text...))
		return remembered(before, m.definitions, sum, func() error { return v1alpha1.CheckDefinition(text, kind) })
	}
}

func remembered(before, now map[[sha256.Size]byte]error, sum [sha256.Size]byte, check func() error) error {
	err, known := now[sum]
	if !known {
		if err, known = before[sum]; !known {
			err = check()
		}
		now[sum] = err
	}
	return err
}

// sortOnce sorts by rank, which is computed once for each, then olderFirst.
func sortOnce[T any, P interface {
	*T
	metav1.Object
}](rs []Resource[T], rank func(Resource[T]) int) {
	ranks := make(map[*T]int, len(rs))
	for _, r := range rs {
		ranks[r.Object] = rank(r)
	}
	slices.SortStableFunc(rs, func(a, b Resource[T]) int {
		return cmp.Or(ranks[a.Object]-ranks[b.Object], olderFirst[T, P](a, b))
	})
}

// olderFirst orders objects of one kind by age, then by name, for those created in the same second or without a clock.
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
