package manifest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/statelang"
)

// defaultNamespace is the namespace of an object that names none.
const defaultNamespace = "default"

// Compile fills in defaults (in objs themselves), validates, and resolves all references into a
// catalog. Mistakes come as [Errors], all of them at once.
func Compile(objs *Objects, opts Options) (*Bundle, error) {
	bundle, errs := compile(objs, opts)
	if len(errs) > 0 {
		return nil, errs.sorted()
	}
	return bundle, nil
}

// compile returns Errors rather than an error, so that LoadDir can put the parser's before them.
func compile(objs *Objects, opts Options) (*Bundle, Errors) {
	c := &compiler{
		opts:     opts.withDefaults(),
		objs:     objs,
		services: map[catalog.Key]*knativeService{},
		queues:   map[catalog.Key]catalog.Queue{},
		machines: map[catalog.Key]catalog.Machine{},
		callers:  map[*knativeService][]caller{},
		notes:    map[Ref]string{},

		checkSchema: v1alpha1.CheckSchema, checkDefinition: v1alpha1.CheckDefinition,
	}
	// Objects come before those that refer to them.
	c.servicesAndQueues()
	c.stateMachines()
	c.apis()
	c.mappings()
	if len(c.errs) > 0 {
		return nil, c.errs
	}
	return c.bundle(), nil
}

func (c *compiler) servicesAndQueues() {
	ctx := knativeContext()
	for _, r := range c.objs.Services {
		c.service(ctx, r)
	}
	for _, r := range c.objs.Queues {
		c.queue(r)
	}
}

type compiler struct {
	opts Options
	objs *Objects
	errs Errors
	// findings are the same mistakes by object, for Reconcile and Lint, which go on without the invalid ones; else nil.
	findings map[Ref]Errors
	// admitted means that Knative has accepted the Services already: they come from a cluster.
	admitted bool
	// refused are the objects that can't be used for another reason than a mistake.
	refused map[Ref]Verdict
	// checkSchema returns what the author of a schema must change.
	checkSchema func([]byte) error
	// checkDefinition returns what the author of a definition must change.
	checkDefinition func([]byte, v1alpha1.StateMachineType) error
	// unusable are the queues and state machines that are invalid or refused, and have no earlier version.
	unusable []Ref

	services map[catalog.Key]*knativeService
	queues   map[catalog.Key]catalog.Queue
	machines map[catalog.Key]catalog.Machine
	out      catalog.Catalog

	before  published                    // what is in use; empty but for Reconcile
	called  []*knativeService            // by mappings, in their order
	callers map[*knativeService][]caller // of those
	notes   map[Ref]string               // on mappings that share a Service
}

// subject is the object that is being checked.
type subject struct {
	kind   string
	key    catalog.Key
	origin Origin
}

func (s *subject) ref() Ref { return Ref{Kind: s.kind, Key: s.key} }

func (s *subject) String() string { return strings.TrimSpace(s.kind + " " + s.key.Name) }

func (c *compiler) fail(s *subject, path, format string, args ...any) {
	if err := c.add(s, path, fmt.Sprintf(format, args...)); err != nil && c.findings != nil {
		c.findings[s.ref()] = append(c.findings[s.ref()], err)
	}
}

// add returns nil if what is wrong there is known already.
func (c *compiler) add(s *subject, path, msg string) *Error {
	if s.origin.reported(path) {
		return nil
	}
	err := s.mistake(path, msg)
	c.errs = append(c.errs, err)
	return err
}

func (c *compiler) invalid(s *subject, errs field.ErrorList) {
	for _, e := range errs {
		c.fail(s, e.Field, "%s", e.ErrorBody())
	}
}

// twice reports a duplicate: an object whose key is taken. It is no finding about the first one, which is used.
func (c *compiler) twice(s *subject, first *Origin) {
	if !s.origin.reported("metadata.name") {
		c.errs = append(c.errs, twice(s, first))
	}
}

func twice(s *subject, first *Origin) *Error {
	return s.mistake("metadata.name", fmt.Sprintf("is the name of another %s too%s: rename one or remove it", s.kind, at(first, "metadata.name")))
}

func (s *subject) mistake(path, msg string) *Error {
	return &Error{File: s.origin.File, Line: s.origin.line(path), Object: s.String(), Field: path, Msg: msg}
}

func (c *compiler) service(ctx context.Context, r Resource[servingv1.Service]) {
	svc := r.Object
	if svc.Namespace == "" {
		svc.Namespace = defaultNamespace
	}
	s := &subject{kindService, catalog.Key{Namespace: svc.Namespace, Name: svc.Name}, r.Origin}
	svc.SetDefaults(ctx)
	var problems []problem
	if !c.admitted {
		problems = checkService(ctx, svc)
	}
	for _, p := range problems {
		c.fail(s, p.path, "%s", p.msg)
	}
	if first, ok := c.services[s.key]; ok {
		c.twice(s, &first.origin)
		return
	}
	ks := describeService(s.key, svc)
	ks.origin, ks.refused = r.Origin, len(problems) > 0
	c.services[s.key] = ks
}

// objectSlack is how much longer objects are kept than outcomes: a result is stored before its outcome is, an input
// before its job is submitted.
const objectSlack = 24 * time.Hour

func (c *compiler) queue(r Resource[v1alpha1.Queue]) {
	q := r.Object
	if q.Namespace == "" {
		q.Namespace = defaultNamespace
	}
	q.Default()
	s := &subject{kindQueue, catalog.Key{Namespace: q.Namespace, Name: q.Name}, r.Origin}
	c.invalid(s, q.Validate())
	if _, ok := c.queues[s.key]; ok {
		for _, other := range c.objs.Queues {
			if other.Object.Name == q.Name && other.Object.Namespace == q.Namespace {
				c.twice(s, &other.Origin)
				return
			}
		}
	}
	c.queues[s.key] = catalog.Queue{
		Key:              s.key,
		Ordering:         string(q.Spec.Ordering),
		MaxAge:           q.Spec.MaxAge.Duration,
		MaxBytes:         q.Spec.MaxBytes.Value(),
		DeadLetterMaxAge: q.Spec.DeadLetter.MaxAge.Duration,
		Results:          catalog.Results{MaxAge: q.Spec.Results.MaxAge.Duration, MaxBytes: q.Spec.Results.MaxBytes.Value()},
		Objects:          catalog.Objects{MaxAge: q.Spec.Results.MaxAge.Duration + objectSlack, MaxBytes: q.Spec.Objects.MaxBytes.Value()},
		Closed:           q.DeletionTimestamp != nil,
	}
}

func (c *compiler) stateMachines() {
	origins := map[catalog.Key]*Origin{}
	for _, r := range c.objs.Machines {
		m := r.Object
		if m.Namespace == "" {
			m.Namespace = defaultNamespace
		}
		m.Default()
		s := &subject{kindMachine, catalog.Key{Namespace: m.Namespace, Name: m.Name}, r.Origin}
		c.invalid(s, m.ValidateWith(c.checkDefinition))
		if first, ok := origins[s.key]; ok {
			c.twice(s, first)
			continue
		}
		origins[s.key] = &s.origin
		c.machines[s.key] = catalog.Machine{Key: s.key, Type: string(m.Spec.Type), Definition: m.Spec.DefinitionText()}
	}
}

func (c *compiler) apis() {
	seen := map[catalog.Key]*Origin{}
	table := newRouteTable()
	for _, k := range c.kept(kindAPI) {
		for _, r := range c.before.apis[k].Routes {
			_ = table.add(r.Method, r.Host, r.Path, fmt.Sprintf("route %s of %s %s", r.Name, kindAPI, k)) // the published ones don't collide
		}
	}
	for _, r := range c.objs.APIs {
		a := r.Object
		if a.Namespace == "" {
			a.Namespace = defaultNamespace
		}
		a.Default()
		s := &subject{kindAPI, catalog.Key{Namespace: a.Namespace, Name: a.Name}, r.Origin}
		c.invalid(s, a.ValidateWith(c.checkSchema))
		if first, ok := seen[s.key]; ok {
			// Its routes would collide with the duplicate's: one message is enough.
			c.twice(s, first)
			continue
		}
		seen[s.key] = &s.origin
		api := catalog.API{Key: s.key, Throttle: throttle(a.Spec.Throttle), CORS: cors(&a.Spec)}
		for i := range a.Spec.Routes {
			api.Routes = append(api.Routes, c.route(s, routePath(i), &a.Spec.Routes[i]))
		}
		c.out.APIs = append(c.out.APIs, api)
		c.collisions(s, a, table)
	}
}

// cors returns nil if the API has none.
func cors(spec *v1alpha1.APISpec) *catalog.CORS {
	c := spec.CORS
	if c == nil {
		return nil
	}
	out := &catalog.CORS{Origins: c.Origins, Methods: c.Methods, Headers: c.Headers, Expose: c.ExposeHeaders, Credentials: c.Credentials, MaxAge: c.MaxAge.Duration}
	if len(out.Methods) == 0 {
		for i := range spec.Routes {
			out.Methods = append(out.Methods, spec.Routes[i].Match.Method)
		}
		slices.Sort(out.Methods)
		out.Methods = slices.Compact(out.Methods)
	}
	return out
}

func routePath(i int) string { return fmt.Sprintf("spec.routes[%d]", i) }

// collisions claims the paths of a. In a cluster an invalid API claims none: it is not going to be served, and must
// not block one that is.
func (c *compiler) collisions(s *subject, a *v1alpha1.API, table *routeTable) {
	if c.excluded(s) {
		return
	}
	before := len(table.routes)
	for i := range a.Spec.Routes {
		c.collision(s, routePath(i), &a.Spec.Routes[i], table)
	}
	if c.excluded(s) {
		table.forget(before)
	}
}

// kept are the objects of a kind that are refused for another reason than a mistake. What is published of them goes on, and keeps
// what it has claimed, whoever else is valid.
func (c *compiler) kept(kind string) (all []catalog.Key) {
	for ref := range c.refused {
		if ref.Kind == kind {
			all = append(all, ref.Key)
		}
	}
	slices.SortFunc(all, func(a, b catalog.Key) int { return cmp.Compare(a.String(), b.String()) })
	return all
}

// excluded reports whether the other objects are compiled as if s were not there.
func (c *compiler) excluded(s *subject) bool {
	return c.findings != nil && c.faulty(s.ref())
}

// faulty reports whether an object can't be used as it is.
func (c *compiler) faulty(ref Ref) bool {
	_, refused := c.refused[ref]
	return refused || len(c.findings[ref]) > 0
}

func (c *compiler) collision(s *subject, path string, r *v1alpha1.Route, table *routeTable) {
	m := &r.Match
	if v1alpha1.Reserved(m.Path) {
		return // Validate has reported it
	}
	api := s.String()
	if c.findings != nil { // in a cluster APIs of all namespaces share one table
		api = kindAPI + " " + s.key.String()
	}
	where := fmt.Sprintf("route %s of %s%s", r.Name, api, at(&s.origin, path))
	if refusal := c.opts.AllowedRoutes.refusal(s.key.Namespace, m.Host, m.Path); refusal != "" {
		c.fail(s, path+".match", "%s", refusal)
		return
	}
	if collision := table.add(m.Method, m.Host, m.Path, where); collision != "" {
		c.fail(s, path+".match", "%s %s; change the method, the host or the path of one", m.Pattern(), collision)
	}
}

func (c *compiler) route(s *subject, path string, r *v1alpha1.Route) catalog.Route {
	out := catalog.Route{
		Name:         r.Name,
		Method:       r.Match.Method,
		Host:         r.Match.Host,
		Path:         r.Match.Path,
		Throttle:     throttle(r.Throttle),
		MaxBodyBytes: r.MaxBodyBytes.Value(),
		ContentTypes: r.ContentTypes,
		MaxDepth:     int(*r.MaxDepth),
	}
	if r.Schema != nil {
		out.Schema = json.RawMessage(r.Schema.Raw)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Attributes)) {
		out.Attributes = append(out.Attributes, catalog.Attribute{Name: name, From: string(r.Attributes[name]), Required: slices.Contains(r.Required, name)})
	}
	if r.Queue != nil {
		key := catalog.Key{Namespace: s.key.Namespace, Name: r.Queue.Name}
		c.needQueue(s, path+".queue.name", key)
		out.Queue = &catalog.QueueTarget{Queue: key}
	}
	if r.Job != nil {
		key := c.jobQueue(s, path+".job", r.Job)
		out.Job = &catalog.QueueTarget{Queue: key}
		if most := c.queues[key].Objects.MaxObject(); r.Job.MaxUploadBytes != nil {
			if out.MaxUpload = r.Job.MaxUploadBytes.Value(); most > 0 && out.MaxUpload > most {
				c.fail(s, path+".job.maxUploadBytes", "%d bytes are more than half of objects.maxBytes of queue %s, which is %d: lower it, or raise that", out.MaxUpload, key.Name, most)
			}
		}
	}
	if r.Function != nil {
		fn, svc := c.function(s, path+".function", &r.Function.FunctionReference)
		c.checkTimeout(s, path+".function.timeout", r.Function.Timeout.Duration, svc)
		out.Function = &catalog.FunctionTarget{Function: fn, Timeout: r.Function.Timeout.Duration}
	}
	return out
}

// jobQueue is the queue that a route's jobs are stored in.
func (c *compiler) jobQueue(s *subject, path string, job *v1alpha1.RouteJob) catalog.Key {
	key := catalog.Key{Namespace: s.key.Namespace, Name: job.Queue}
	if job.StateMachine == "" {
		c.needQueue(s, path+".queue", key)
		return key
	}
	machine := catalog.Key{Namespace: s.key.Namespace, Name: job.StateMachine}
	c.needMachine(s, path+".stateMachine", machine)
	starts := slices.IndexFunc(c.objs.Mappings, func(r Resource[v1alpha1.EventSourceMapping]) bool { return startsMachine(r.Object, machine) })
	if starts < 0 {
		if !c.objs.incomplete {
			c.fail(s, path+".stateMachine", "no EventSourceMapping has stateMachine %q: add one, with the Queue in which jobs wait until their execution has begun", machine.Name)
		}
		return key
	}
	if slices.ContainsFunc(c.objs.Mappings[starts+1:], func(r Resource[v1alpha1.EventSourceMapping]) bool { return startsMachine(r.Object, machine) }) {
		c.fail(s, path+".stateMachine", "several EventSourceMappings have stateMachine %q: say with queue which one's is meant", machine.Name)
		return key
	}
	key.Name = c.objs.Mappings[starts].Object.Spec.Queue
	c.needQueue(s, path+".stateMachine", key)
	return key
}

// startsMachine reports whether m starts executions of machine.
func startsMachine(m *v1alpha1.EventSourceMapping, machine catalog.Key) bool {
	return m.Spec.StateMachine != nil && m.Spec.StateMachine.Name == machine.Name && cmp.Or(m.Namespace, defaultNamespace) == machine.Namespace
}

func (c *compiler) mappings() {
	seen := map[catalog.Key]*Origin{}
	drained := map[catalog.Key]*subject{}
	for _, k := range c.kept(kindMapping) {
		if earlier, ok := c.earlier(k); ok {
			drained[earlier.Queue] = &subject{kind: kindMapping, key: k}
		}
	}
	for _, r := range c.objs.Mappings {
		m := r.Object
		if m.Namespace == "" {
			m.Namespace = defaultNamespace
		}
		m.Default()
		s := &subject{kindMapping, catalog.Key{Namespace: m.Namespace, Name: m.Name}, r.Origin}
		c.invalid(s, m.Validate())
		if first, ok := seen[s.key]; ok {
			c.twice(s, first)
			continue
		}
		seen[s.key] = &s.origin

		queue, mine := catalog.Key{Namespace: m.Namespace, Name: m.Spec.Queue}, false
		c.needQueue(s, "spec.queue", queue)
		if first, ok := drained[queue]; ok && m.Spec.Queue != "" && first.key != s.key {
			c.fail(s, "spec.queue", "queue %s is already drained by %s%s: one mapping drains a queue; remove one, or give it a queue of its own",
				queue.Name, first, at(&first.origin, "spec.queue"))
		} else {
			mine = true
		}
		c.out.Mappings = append(c.out.Mappings, c.mapping(s, m, queue))
		if mine && !c.excluded(s) { // as in collisions
			drained[queue] = s
		}
	}
	c.share()
}

func (c *compiler) mapping(s *subject, m *v1alpha1.EventSourceMapping, queue catalog.Key) catalog.Mapping {
	spec := &m.Spec
	var fn catalog.Function
	var svc *knativeService
	var machine *catalog.Key
	heartbeat := spec.Heartbeat.Duration
	switch {
	case spec.Function != nil:
		fn, svc = c.function(s, "spec.function", spec.Function)
	case spec.StateMachine != nil:
		machine = &catalog.Key{Namespace: m.Namespace, Name: spec.StateMachine.Name}
		fn = c.orchestrator(s, *machine)
		heartbeat = maxExecution // the orchestrator says when an execution has ended, and nothing before
	}
	c.checkTimeout(s, "spec.timeout", spec.Timeout.Duration, svc)
	return catalog.Mapping{
		Key:      s.key,
		Queue:    queue,
		Function: fn,
		Machine:  machine,
		Batch: catalog.Batch{
			MaxRecords: int(*spec.Batch.MaxRecords),
			MaxBytes:   spec.Batch.MaxBytes.Value(),
			Window:     spec.Batch.Window.Duration,
		},
		MaxConcurrency: c.maxConcurrency(s, spec, svc),
		Timeout:        spec.Timeout.Duration,
		Heartbeat:      heartbeat,
		Retry: catalog.Retry{
			MaxAttempts:    int(*spec.Retry.MaxAttempts),
			InitialBackoff: spec.Retry.InitialBackoff.Duration,
			MaxBackoff:     spec.Retry.MaxBackoff.Duration,
			MaxAge:         spec.Retry.MaxAge.Duration,
			Permanent:      statuses(spec.Retry.PermanentStatuses),
		},
		BisectOnError:  spec.BisectOnError,
		MaxResultBytes: c.queues[queue].Objects.MaxObject(),
	}
}

// maxConcurrency is the mapping's own, or containerConcurrency × max-scale of its Service: as many calls
// as the Service takes at once. More than that would only be throttled there.
func (c *compiler) maxConcurrency(s *subject, spec *v1alpha1.EventSourceMappingSpec, svc *knativeService) int {
	const path = "spec.maxConcurrency"
	var capacity int64
	if svc != nil {
		capacity = svc.capacity()
	}
	if capacity > 0 && !svc.refused {
		c.calls(svc, s, spec.MaxConcurrency != nil)
	}
	if spec.MaxConcurrency != nil {
		if n := int64(*spec.MaxConcurrency); capacity > 0 && n > capacity {
			c.fail(s, path, "%d calls are more than %s takes at once, containerConcurrency %d × max-scale %d = %d: set it to at most %d, leave it out, or raise max-scale",
				n, svc.where("spec.template"), svc.ContainerConcurrency, svc.MaxScale, capacity, capacity)
		}
		return int(*spec.MaxConcurrency)
	}
	switch {
	case spec.Function == nil:
		return defaultStarts
	case spec.Function.URL != "":
		c.fail(s, path, "is missing: a function given by url has no Service to take the cap from; say how many calls may run at once, such as maxConcurrency: 10")
	case svc == nil || svc.refused: // reported already; what the Service would say is unknown
	case svc.ContainerConcurrency == 0:
		c.fail(s, path, "is missing, and %s has no containerConcurrency to take it from: set one of them", svc.where("spec.template.spec"))
	case svc.MaxScale == 0:
		c.fail(s, path, "is missing, and %s has no annotation autoscaling.knative.dev/max-scale to take it from: set one of them",
			svc.where("spec.template"))
	case capacity > maxDerivedConcurrency:
		c.fail(s, path, "is missing, and containerConcurrency %d × max-scale %d of %s is more than %d: say how many calls may run at once",
			svc.ContainerConcurrency, svc.MaxScale, svc.where("spec.template"), maxDerivedConcurrency)
	}
	return int(capacity)
}

const (
	// defaultStarts is how many executions a mapping starts at once.
	defaultStarts = 100
	// maxExecution is longer than an execution can run.
	maxExecution = statelang.MaxExecutionAge + 24*time.Hour
)

// orchestrator is where executions of a machine are started, as by a function.
func (c *compiler) orchestrator(s *subject, machine catalog.Key) catalog.Function {
	c.needMachine(s, "spec.stateMachine.name", machine)
	if c.opts.OrchestratorURL == "" {
		c.fail(s, "spec.stateMachine", "nobody runs state machines here: orchestrator.replicas or orchestrator.maxBytes is 0 in the chart's values")
	}
	return catalog.Function{Name: machine.Name, URL: catalog.StartURL(c.opts.OrchestratorURL, machine)}
}

// maxDerivedConcurrency bounds a derived cap: a larger one was not meant as a cap.
const maxDerivedConcurrency = 100_000

// function resolves a reference; svc is nil for a url and for a Service that doesn't exist.
func (c *compiler) function(s *subject, path string, f *v1alpha1.FunctionReference) (catalog.Function, *knativeService) {
	if f.URL != "" {
		fn := catalog.Function{Name: f.URL, URL: f.URL, H2C: f.Protocol == v1alpha1.ProtocolH2C}
		if u, err := url.Parse(f.URL); err == nil && u.Host != "" {
			fn.Name = u.Host
		}
		return fn, nil
	}
	key := catalog.Key{Namespace: s.key.Namespace, Name: f.Name}
	svc, ok := c.services[key]
	if !ok {
		c.missing(s, path+".name", "Knative Service", key, sameNamespace(c.services, key))
	}
	return catalog.Function{Name: f.Name, URL: c.opts.FunctionURL(key)}, svc
}

func (c *compiler) needQueue(s *subject, path string, key catalog.Key) {
	if slices.Contains(c.unusable, QueueRef(key)) {
		c.fail(s, path, "Queue %q is not in use: its own status says why", key.Name)
	} else if _, ok := c.queues[key]; !ok {
		c.missing(s, path, "Queue", key, sameNamespace(c.queues, key))
	}
}

func (c *compiler) needMachine(s *subject, path string, key catalog.Key) {
	if slices.Contains(c.unusable, MachineRef(key)) {
		c.fail(s, path, "StateMachine %q is not in use: its own status says why", key.Name)
	} else if _, ok := c.machines[key]; !ok {
		c.missing(s, path, "StateMachine", key, sameNamespace(c.machines, key))
	}
}

// missing reports a dangling reference, unless it is empty (Validate says so) or the object may be elsewhere.
func (c *compiler) missing(s *subject, path, kind string, key catalog.Key, known []string) {
	if key.Name == "" || c.objs.incomplete {
		return
	}
	if why := c.objs.Elsewhere[Ref{kind, key}]; why != "" {
		c.fail(s, path, "%s %q %s", kind, key.Name, why)
		return
	}
	hint := didYouMean(key.Name, known)
	if hint == "" {
		hint = "; add it, or name another"
	}
	c.fail(s, path, "there is no %s %q in namespace %s%s", kind, key.Name, key.Namespace, hint)
}

func (c *compiler) checkTimeout(s *subject, path string, timeout time.Duration, svc *knativeService) {
	if svc == nil {
		return
	}
	if l, ok := svc.shortest(); ok && timeout > l.value {
		c.fail(s, path, "%s is longer than %s of %s, %s: Knative would end the call first; set it to at most %s, or raise %s",
			v1alpha1.FormatDuration(timeout), l.field, svc.where("spec.template.spec."+l.field), v1alpha1.FormatDuration(l.value), v1alpha1.FormatDuration(l.value), l.field)
	}
}

func (c *compiler) bundle() *Bundle {
	jobs := map[catalog.Key]bool{}
	for _, a := range c.out.APIs {
		for _, r := range a.Routes {
			if r.Job != nil {
				jobs[r.Job.Queue] = true
			}
		}
	}
	for _, k := range sortedByKey(c.queues) {
		q := c.queues[k]
		q.Jobs = jobs[k] // not taken from an earlier version
		c.out.Queues = append(c.out.Queues, q)
	}
	for _, k := range sortedByKey(c.machines) {
		c.out.Machines = append(c.out.Machines, c.machines[k])
	}
	slices.SortFunc(c.out.APIs, func(a, b catalog.API) int { return compareKeys(a.Key, b.Key) })
	slices.SortFunc(c.out.Mappings, func(a, b catalog.Mapping) int { return compareKeys(a.Key, b.Key) })
	b := &Bundle{Catalog: &c.out}
	machines := map[string]bool{}
	for k := range c.machines {
		machines[k.Namespace] = true
	}
	for _, k := range sortedByKey(c.services) {
		svc := c.services[k]
		b.Services = append(b.Services, svc.Service)
		if n := svc.capacity(); n > 0 && machines[k.Namespace] {
			c.out.Services = append(c.out.Services, catalog.Service{Key: k, MaxConcurrency: int(n)})
		}
	}
	return b
}

// statuses returns nil for an empty list: then the defaults apply.
func statuses(list []int32) []int {
	var out []int
	for _, s := range list {
		out = append(out, int(s))
	}
	slices.Sort(out)
	return out
}

func throttle(t *v1alpha1.Throttle) *catalog.Throttle {
	if t == nil {
		return nil
	}
	return &catalog.Throttle{Rate: t.Rate.AsApproximateFloat64(), Burst: int(t.Burst)}
}

func sameNamespace[V any](m map[catalog.Key]V, key catalog.Key) []string {
	var names []string
	for k := range m {
		if k.Namespace == key.Namespace {
			names = append(names, k.Name)
		}
	}
	return names
}

func sortedByKey[V any](m map[catalog.Key]V) []catalog.Key {
	keys := make([]catalog.Key, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

func compareKeys(a, b catalog.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
