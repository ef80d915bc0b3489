package manifest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weir-dev/weir/internal/catalog"
)

const clusterService = `---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: writer, namespace: default}
spec:
  template:
    metadata: {annotations: {autoscaling.knative.dev/max-scale: "3"}}
    spec:
      containerConcurrency: 2
      timeoutSeconds: 60
      containers: [{image: example.com/writer}]
status:
  address: {url: http://writer.default.svc.cluster.local}
  conditions: [{type: Ready, status: "True"}]
`

const clusterQueue = `---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: orders, namespace: default}
`

const clusterMapping = `---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: orders, namespace: default}
spec: {queue: orders, function: {name: writer}}
`

// clusterAPI is an API of the given age in seconds with one route to the queue orders.
func clusterAPI(name string, age int, path string) string {
	return fmt.Sprintf(`---
apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: %s, namespace: default, creationTimestamp: %q}
spec:
  routes:
  - name: create
    match: {method: POST, path: %q}
    queue: {name: orders}
`, name, time.Unix(1_800_000_000-int64(age), 0).UTC().Format(time.RFC3339), path)
}

// clusterObjects are those of the documents, as a cluster has them: no files, no lines.
func clusterObjects(t *testing.T, docs ...string) *Objects {
	t.Helper()
	objs, errs := Parse("test.yaml", []byte(strings.Join(docs, "")))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for i := range objs.APIs {
		objs.APIs[i].Origin = Origin{}
	}
	for i := range objs.Queues {
		objs.Queues[i].Origin = Origin{}
	}
	for i := range objs.Mappings {
		objs.Mappings[i].Origin = Origin{}
	}
	for i := range objs.Services {
		objs.Services[i].Origin = Origin{}
	}
	return objs
}

func inDefault(name string) catalog.Key { return catalog.Key{Namespace: "default", Name: name} }

func wantVerdict(t *testing.T, out *Outcome, ref Ref, reason Reason, part string) {
	t.Helper()
	v := out.Verdicts[ref]
	if v.Reason != reason || !strings.Contains(v.Message, part) {
		t.Errorf("%v: got %q: %q\nwant %q with %q", ref, v.Reason, v.Message, reason, part)
	}
}

func paths(cat *catalog.Catalog) []string {
	var all []string
	for _, a := range cat.APIs {
		for _, r := range a.Routes {
			all = append(all, a.Name+r.Path)
		}
	}
	return all
}

func TestReconcileGood(t *testing.T) {
	out := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterMapping, clusterAPI("shop", 0, "/orders")), &catalog.Catalog{}, nil)
	if len(out.Verdicts) > 0 {
		t.Errorf("verdicts: %v", out.Verdicts)
	}
	if m := out.Catalog.Mappings; len(m) != 1 || m[0].MaxConcurrency != 6 || m[0].Function.URL != "http://writer.default.svc.cluster.local" {
		t.Errorf("mappings: %+v", m)
	}
	if got := paths(out.Catalog); !slices.Equal(got, []string{"shop/orders"}) {
		t.Errorf("routes: %v", got)
	}
}

// TestReconcileBadOnesDontHoldUpOthers: a mapping to nothing is explained, everything else works.
func TestReconcileBadOnesDontHoldUpOthers(t *testing.T) {
	stray := strings.NewReplacer("name: orders, n", "name: stray, n", "queue: orders", "queue: order").Replace(clusterMapping)
	out := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterMapping, stray, clusterAPI("shop", 0, "/orders")), &catalog.Catalog{}, nil)
	wantVerdict(t, out, MappingRef(inDefault("stray")), Invalid, `spec.queue: there is no Queue "order" in namespace default; did you mean "orders"?`)
	if len(out.Verdicts) != 1 || len(out.Catalog.Mappings) != 1 || len(out.Catalog.APIs) != 1 {
		t.Errorf("got %v and %+v", out.Verdicts, out.Catalog)
	}
}

// TestReconcileKeepsTheLastValidVersion of each kind, through any number of reconciliations.
func TestReconcileKeepsTheLastValidVersion(t *testing.T) {
	good := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterMapping, clusterAPI("shop", 0, "/orders")), &catalog.Catalog{}, nil).Catalog
	bad := clusterObjects(t, clusterService, clusterQueue, clusterMapping, clusterAPI("shop", 0, "/{"))
	bad.Queues[0].Object.Spec.MaxAge = &metav1.Duration{Duration: time.Second}
	bad.Mappings[0].Object.Spec.Timeout = &metav1.Duration{Duration: 2 * time.Minute}
	out := new(Memory).Reconcile(bad, good, nil)
	wantVerdict(t, out, APIRef(inDefault("shop")), Invalid, "spec.routes[0].match.path: ")
	wantVerdict(t, out, QueueRef(inDefault("orders")), Invalid, "spec.maxAge: ")
	wantVerdict(t, out, MappingRef(inDefault("orders")), Invalid, "spec.timeout: 2m is longer than timeoutSeconds of Service writer, 1m: Knative would end the call first; set it to at most 1m")
	if out.Catalog.Revision() != good.Revision() {
		t.Errorf("got %+v\nwant %+v", out.Catalog, good)
	}
}

// TestReconcileLeavesOutWhatWasNeverValid, and what refers to it says so.
func TestReconcileLeavesOutWhatWasNeverValid(t *testing.T) {
	objs := clusterObjects(t, clusterService, clusterQueue, clusterMapping, clusterAPI("shop", 0, "/orders"))
	objs.Queues[0].Object.Spec.MaxAge = &metav1.Duration{Duration: time.Second}
	out := new(Memory).Reconcile(objs, &catalog.Catalog{}, nil)
	const part = `Queue "orders" is not in use: its own status says why`
	wantVerdict(t, out, APIRef(inDefault("shop")), Invalid, part)
	wantVerdict(t, out, MappingRef(inDefault("orders")), Invalid, part)
	if c := out.Catalog; len(c.APIs)+len(c.Queues)+len(c.Mappings) != 0 {
		t.Errorf("got %+v", c)
	}
}

// TestReconcileTheOlderWins: of two APIs with one route, and of two mappings of one queue, whatever their order.
func TestReconcileTheOlderWins(t *testing.T) {
	second := strings.Replace(clusterMapping, "name: orders, n", "name: zweite, n", 1)
	for _, reverse := range []bool{false, true} {
		objs := clusterObjects(t, clusterService, clusterQueue, clusterMapping, second, clusterAPI("young", 1, "/orders"), clusterAPI("old", 60, "/orders"))
		if reverse {
			slices.Reverse(objs.APIs)
			slices.Reverse(objs.Mappings)
		}
		out := new(Memory).Reconcile(objs, &catalog.Catalog{}, nil)
		wantVerdict(t, out, APIRef(inDefault("young")), Invalid, "POST /orders has the method and path of route create of API default/old; change")
		wantVerdict(t, out, MappingRef(inDefault("zweite")), Invalid, "queue orders is already drained by EventSourceMapping orders")
		if got := paths(out.Catalog); !slices.Equal(got, []string{"old/orders"}) || len(out.Catalog.Mappings) != 1 {
			t.Errorf("got %v and %+v", got, out.Catalog.Mappings)
		}
	}
}

// TestReconcileEarlierVersionGivesWay: a path or queue that an invalid object held once is free for a valid one.
func TestReconcileEarlierVersionGivesWay(t *testing.T) {
	good := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterAPI("shop", 60, "/orders")), &catalog.Catalog{}, nil).Catalog
	out := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterAPI("shop", 60, "/{"), clusterAPI("other", 0, "/orders")), good, nil)
	if got := paths(out.Catalog); !slices.Equal(got, []string{"other/orders"}) {
		t.Errorf("routes: %v", got)
	}
	wantVerdict(t, out, APIRef(inDefault("shop")), Invalid, "spec.routes[0].match.path")
}

func TestReconcileQueueGoesAway(t *testing.T) {
	all := []string{clusterService, clusterQueue, clusterMapping, clusterAPI("shop", 0, "/orders")}
	good := new(Memory).Reconcile(clusterObjects(t, all...), &catalog.Catalog{}, nil).Catalog

	deleting := clusterObjects(t, all...)
	deleting.Queues[0].Object.DeletionTimestamp = &metav1.Time{Time: time.Unix(1_800_000_000, 0)}
	out := new(Memory).Reconcile(deleting, good, nil)
	wantVerdict(t, out, APIRef(inDefault("shop")), QueueDeleting, "Queue orders is being deleted: route create answers 503")
	if !out.Catalog.Queues[0].Closed || len(out.Catalog.Mappings) != 1 || len(out.Catalog.APIs) != 1 {
		t.Errorf("a queue that is deleted is closed, drained on, and known to the gateway: %+v", out.Catalog)
	}

	out = new(Memory).Reconcile(clusterObjects(t, clusterService, clusterMapping, clusterAPI("shop", 0, "/orders")), out.Catalog, nil)
	if c := out.Catalog; len(c.APIs) != 1 || len(c.Queues)+len(c.Mappings) != 0 {
		t.Errorf("without the queue nothing of it is left but the route, which answers 503: %+v", c)
	}
	wantVerdict(t, out, APIRef(inDefault("shop")), Invalid, `there is no Queue "orders"`)
}

func TestReconcileFunctionNotReady(t *testing.T) {
	for name, c := range map[string]struct {
		status string
		part   string
	}{
		"failed":     {`conditions: [{type: Ready, status: "False", reason: RevisionMissing, message: "no image"}]`, "Knative Service writer is not ready: RevisionMissing: no image"},
		"no address": {`conditions: [{type: Ready, status: Unknown}]`, "Knative Service writer is not ready: it has no address yet"},
		"rolling out": {`address: {url: http://writer.default.svc.cluster.local}
  conditions: [{type: Ready, status: Unknown}]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			head, _, _ := strings.Cut(clusterService, "status:")
			out := new(Memory).Reconcile(clusterObjects(t, head+"status:\n  "+c.status+"\n", clusterQueue, clusterMapping), &catalog.Catalog{}, nil)
			if len(out.Catalog.Mappings) != 1 {
				t.Errorf("the mapping is in use all the same: %+v", out.Catalog)
			}
			if c.part == "" {
				if len(out.Verdicts) != 0 {
					t.Errorf("got %v", out.Verdicts)
				}
				return
			}
			wantVerdict(t, out, MappingRef(inDefault("orders")), FunctionNotReady, c.part)
		})
	}
}

// TestReconcileTrustsTheCluster: what Knative's webhook has let through isn't refused for what a fresh installation
// of it would refuse (here a field behind a feature flag).
func TestReconcileTrustsTheCluster(t *testing.T) {
	flagged := strings.Replace(clusterService, "      timeoutSeconds: 60\n", "      timeoutSeconds: 60\n      nodeSelector: {disk: ssd}\n", 1)
	if flagged == clusterService {
		t.Fatal("the service has changed")
	}
	if _, err := Compile(clusterObjects(t, flagged, clusterQueue, clusterMapping), Options{}); err == nil {
		t.Error("a file with it is refused")
	}
	if out := new(Memory).Reconcile(clusterObjects(t, flagged, clusterQueue, clusterMapping), &catalog.Catalog{}, nil); len(out.Verdicts) > 0 {
		t.Errorf("got %v", out.Verdicts)
	}
}

// TestReconcileIsStable: the same objects give the same catalog and the same words each time; otherwise statuses
// would be written for ever.
func TestReconcileIsStable(t *testing.T) {
	docs := []string{clusterService, clusterQueue, clusterMapping, clusterAPI("a", 1, "/orders"), clusterAPI("b", 1, "/{x}"), clusterAPI("c", 1, "/{y}")}
	first := new(Memory).Reconcile(clusterObjects(t, docs...), &catalog.Catalog{}, nil)
	for range 50 {
		again := new(Memory).Reconcile(clusterObjects(t, docs...), first.Catalog, nil)
		if again.Catalog.Revision() != first.Catalog.Revision() || fmt.Sprint(again.Verdicts) != fmt.Sprint(first.Verdicts) {
			t.Fatalf("first %v\nthen %v", first.Verdicts, again.Verdicts)
		}
	}
}

// TestReconcileWhatIsInvalidClaimsNothing: an older object with a mistake doesn't keep a newer one from a path or a
// queue.
func TestReconcileWhatIsInvalidClaimsNothing(t *testing.T) {
	wrongAPI := strings.Replace(clusterAPI("old", 60, "/orders"), "queue: {name: orders}", "queue: {name: order}", 1)
	twoRoutes := clusterAPI("older", 90, "/first") + "  - {name: bad, match: {method: POST, path: /second}, queue: {name: nothing}}\n"
	wrongMapping := strings.NewReplacer("name: orders, n", "name: a-first, n", "name: writer", "name: writre").Replace(clusterMapping)
	out := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, wrongMapping, clusterMapping, wrongAPI, twoRoutes,
		clusterAPI("young", 1, "/orders"), clusterAPI("younger", 0, "/first")), &catalog.Catalog{}, nil)
	if got := paths(out.Catalog); !slices.Equal(got, []string{"young/orders", "younger/first"}) {
		t.Errorf("routes: %v", got)
	}
	if m := out.Catalog.Mappings; len(m) != 1 || m[0].Name != "orders" {
		t.Errorf("mappings: %+v", m)
	}
	for _, ref := range []Ref{APIRef(inDefault("old")), APIRef(inDefault("older")), MappingRef(inDefault("a-first"))} {
		if out.Verdicts[ref].Reason != Invalid {
			t.Errorf("%v: %+v", ref, out.Verdicts[ref])
		}
	}
	if len(out.Verdicts) != 3 {
		t.Errorf("got %v", out.Verdicts)
	}
}

// TestReconcileACollisionIsTakenBackWhole: an API that collides with its second route has not taken its first.
func TestReconcileACollisionIsTakenBackWhole(t *testing.T) {
	collides := clusterAPI("second", 30, "/free") + "  - {name: taken, match: {method: POST, path: /orders}, queue: {name: orders}}\n"
	out := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterAPI("first", 60, "/orders"), collides, clusterAPI("third", 0, "/free")), &catalog.Catalog{}, nil)
	if got := paths(out.Catalog); !slices.Equal(got, []string{"first/orders", "third/free"}) {
		t.Errorf("routes: %v", got)
	}
}

// TestReconcileWhatIsServedWins: an older API, or mapping, that later claims what another already has gets nothing.
func TestReconcileWhatIsServedWins(t *testing.T) {
	second := strings.NewReplacer("name: orders, n", "name: a-thief, n").Replace(clusterMapping)
	good := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterMapping, clusterAPI("old", 60, "/mine"), clusterAPI("young", 1, "/orders")), &catalog.Catalog{}, nil).Catalog
	thief := clusterAPI("old", 60, "/mine") + "  - {name: more, match: {method: POST, path: /orders}, queue: {name: orders}}\n"
	out := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, second, clusterMapping, thief, clusterAPI("young", 1, "/orders")), good, nil)
	wantVerdict(t, out, APIRef(inDefault("old")), Invalid, "has the method and path of route create of API default/young")
	wantVerdict(t, out, MappingRef(inDefault("a-thief")), Invalid, "already drained by EventSourceMapping orders")
	if out.Catalog.Revision() != good.Revision() {
		t.Errorf("got %+v\nwant %+v", out.Catalog, good)
	}
}

// TestReconcileRefusedQueue: a queue that NATS refuses is left out, or stays what it was; what needs it says so.
func TestReconcileRefusedQueue(t *testing.T) {
	docs := []string{clusterService, clusterQueue, clusterMapping, clusterAPI("shop", 0, "/orders")}
	refused := map[Ref]Verdict{QueueRef(inDefault("orders")): {Reason: "NoRoom", Message: "no room"}}
	out := new(Memory).Reconcile(clusterObjects(t, docs...), &catalog.Catalog{}, refused)
	wantVerdict(t, out, QueueRef(inDefault("orders")), "NoRoom", "no room")
	wantVerdict(t, out, APIRef(inDefault("shop")), Invalid, `Queue "orders" is not in use: its own status says why`)
	wantVerdict(t, out, MappingRef(inDefault("orders")), Invalid, `Queue "orders" is not in use`)
	if c := out.Catalog; len(c.APIs)+len(c.Queues)+len(c.Mappings) != 0 {
		t.Errorf("got %+v", c)
	}

	good := new(Memory).Reconcile(clusterObjects(t, docs...), &catalog.Catalog{}, nil).Catalog
	larger := clusterObjects(t, docs...)
	larger.Queues[0].Object.Spec.MaxAge = &metav1.Duration{Duration: 200 * time.Hour}
	out = new(Memory).Reconcile(larger, good, refused)
	wantVerdict(t, out, QueueRef(inDefault("orders")), "NoRoom", "no room")
	if len(out.Verdicts) != 1 || out.Catalog.Revision() != good.Revision() {
		t.Errorf("got %v and %+v", out.Verdicts, out.Catalog)
	}
}

// TestReconcileRefusedAPI: an API, or a mapping, that can't be published stays what it was, or is left out; nothing else is
// touched.
func TestReconcileRefusedAPI(t *testing.T) {
	docs := []string{clusterService, clusterQueue, clusterMapping, clusterAPI("shop", 60, "/orders"), clusterAPI("other", 0, "/other")}
	refused := map[Ref]Verdict{
		APIRef(inDefault("shop")): {Reason: "TooLarge", Message: "too large"}, MappingRef(inDefault("orders")): {Reason: "TooLarge", Message: "too large"},
	}
	first := new(Memory).Reconcile(clusterObjects(t, docs...), &catalog.Catalog{}, refused)
	if c := first.Catalog; len(c.APIs) != 1 || c.APIs[0].Name != "other" || len(c.Mappings) != 0 || len(c.Queues) != 1 {
		t.Errorf("got %+v", c)
	}
	good := new(Memory).Reconcile(clusterObjects(t, docs...), &catalog.Catalog{}, nil).Catalog
	docs[3] = clusterAPI("shop", 60, "/changed")
	out := new(Memory).Reconcile(clusterObjects(t, docs...), good, refused)
	wantVerdict(t, out, APIRef(inDefault("shop")), "TooLarge", "too large")
	wantVerdict(t, out, MappingRef(inDefault("orders")), "TooLarge", "too large")
	if len(out.Verdicts) != 2 || out.Catalog.Revision() != good.Revision() {
		t.Errorf("got %v and %+v", out.Verdicts, out.Catalog)
	}
}

// TestReconcileRefusedKeepsItsClaims: what is refused for another reason than a mistake goes on in its published version, though
// there is a valid one that would have its route, or its queue.
func TestReconcileRefusedKeepsItsClaims(t *testing.T) {
	second := strings.Replace(clusterMapping, "name: orders, n", "name: zweite, n", 1)
	former := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterMapping, clusterAPI("shop", 1, "/orders")), &catalog.Catalog{}, nil).Catalog
	objs := clusterObjects(t, clusterService, clusterQueue, clusterMapping, second, clusterAPI("shop", 1, "/orders"), clusterAPI("older", 60, "/orders"))
	out := new(Memory).Reconcile(objs, former, map[Ref]Verdict{
		APIRef(inDefault("shop")): {Reason: "NotClaimed", Message: "no"}, MappingRef(inDefault("orders")): {Reason: "NotClaimed", Message: "no"},
	})
	wantVerdict(t, out, APIRef(inDefault("older")), Invalid, "POST /orders has the method and path of route create of API default/shop")
	wantVerdict(t, out, MappingRef(inDefault("zweite")), Invalid, "queue orders is already drained by EventSourceMapping orders")
	wantVerdict(t, out, APIRef(inDefault("shop")), "NotClaimed", "no")
	wantVerdict(t, out, MappingRef(inDefault("orders")), "NotClaimed", "no")
	if out.Catalog.Revision() != former.Revision() {
		t.Errorf("in use are %v and %+v", paths(out.Catalog), out.Catalog.Mappings)
	}
}

// TestDrains: a queue says who takes its records out, or why nobody does, and so does an API that fills it.
func TestDrains(t *testing.T) {
	api, queue := APIRef(inDefault("shop")), QueueRef(inDefault("orders"))
	want := func(out *Outcome, reason Reason, part string) {
		t.Helper()
		if d := out.Drains[queue]; d.Reason != reason || !strings.Contains(d.By+d.Message, part) {
			t.Errorf("the queue: %+v, want %q with %q", d, reason, part)
		}
		if d := out.Drains[api]; d.Reason != reason || reason != "" && !strings.Contains(d.Message, "Route create fills Queue orders, which nobody drains. "+part) {
			t.Errorf("the API: %+v, want %q with %q", d, reason, part)
		}
	}
	shop := clusterAPI("shop", 0, "/orders")
	good := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterMapping, shop), &catalog.Catalog{}, nil)
	want(good, "", "EventSourceMapping orders takes the records out")
	want(new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, shop), good.Catalog, nil), NoMapping,
		"No EventSourceMapping has spec.queue: orders; add one. Records are taken in meanwhile, and are dead letters once they are older than 96h")
	others := clusterObjects(t, clusterService, clusterQueue, shop)
	others.Elsewhere = map[Ref]string{MappingRef(inDefault("drain")): OtherClass("eu", "weir")}
	others.DrainedElsewhere = map[catalog.Key]string{inDefault("orders"): "drain"}
	want(new(Memory).Reconcile(others, good.Catalog, nil), NoMapping, "EventSourceMapping drain has spec.queue: orders, but is of class eu, and this one of class weir. Records are taken in")
	wrong := strings.ReplaceAll(clusterMapping, "writer", "writre")
	want(new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, wrong, shop), &catalog.Catalog{}, nil), MappingNotInUse, "EventSourceMapping orders is not in use")
	want(new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, wrong, shop), good.Catalog, nil), "", "EventSourceMapping orders takes the records out")
	if out := new(Memory).Reconcile(clusterObjects(t, clusterQueue, "---\napiVersion: weir.dev/v1alpha1\nkind: API\nmetadata: {name: reads, namespace: default}\nspec: {routes: [{name: r, match: {method: GET, path: /r}, function: {url: \"http://x\"}}]}\n"), &catalog.Catalog{}, nil); len(out.Drains) != 1 {
		t.Errorf("%+v: an API that fills no queue says nothing", out.Drains)
	}
}

// TestSharedService: mappings of one Service together call it with no more than it takes, six, and each says so.
func TestSharedService(t *testing.T) {
	mapping := func(name, more string, age int) string {
		return fmt.Sprintf(`---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: %[1]s, namespace: default}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: %[1]s, namespace: default, creationTimestamp: %[3]q}
spec: {queue: %[1]s, function: {name: writer}%[2]s}
`, name, more, time.Unix(1_800_000_000-int64(age), 0).UTC().Format(time.RFC3339))
	}
	caps := func(out *Outcome) (all string) {
		for _, m := range out.Catalog.Mappings {
			all += fmt.Sprintf("%s=%d ", m.Name, m.MaxConcurrency)
		}
		return strings.TrimSpace(all)
	}
	route := "---\napiVersion: weir.dev/v1alpha1\nkind: API\nmetadata: {name: shop, namespace: default}\nspec: {routes: [{name: read, match: {method: GET, path: /r}, function: {name: writer}}]}\n"
	for name, c := range map[string]struct {
		docs    []string
		caps    string
		note    string // of a
		refused string // of b
	}{
		"alone":            {docs: []string{mapping("a", "", 2)}, caps: "a=6"},
		"two":              {docs: []string{mapping("a", "", 2), mapping("b", "", 1)}, caps: "a=3 b=3", note: "Service writer takes 6, and is called by EventSourceMapping a, EventSourceMapping b"},
		"four":             {docs: []string{mapping("a", "", 4), mapping("b", "", 3), mapping("c", "", 2), mapping("d", "", 1)}, caps: "a=2 b=2 c=1 d=1", note: "takes 6"},
		"one with its own": {docs: []string{mapping("a", ", maxConcurrency: 5", 2), mapping("b", "", 1)}, caps: "a=5 b=1", note: "takes 6"},
		"a route":          {docs: []string{mapping("a", "", 2), route}, caps: "a=3", note: "called by EventSourceMapping a, route read of API shop"},
		"two of their own": {
			docs: []string{mapping("a", ", maxConcurrency: 4", 2), mapping("b", ", maxConcurrency: 3", 1)}, caps: "a=4",
			refused: "spec.maxConcurrency: 3 calls and the 4 of EventSourceMapping a are more than Service writer takes at once, 6: lower one of them, or raise max-scale",
		},
		"nothing is left": {
			docs: []string{mapping("a", ", maxConcurrency: 6", 2), mapping("b", "", 1)}, caps: "a=6",
			refused: "spec.maxConcurrency: is missing, and nothing is left of what Service writer takes at once, 6: EventSourceMapping a has it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			out := new(Memory).Reconcile(clusterObjects(t, append(c.docs, clusterService)...), &catalog.Catalog{}, nil)
			if got := caps(out); got != c.caps {
				t.Errorf("got %s, want %s", got, c.caps)
			}
			if note := out.Notes[MappingRef(inDefault("a"))]; !strings.Contains(note, c.note) || (note == "") != (c.note == "") && c.refused == "" {
				t.Errorf("a: %q, want %q", note, c.note)
			}
			if v := out.Verdicts[MappingRef(inDefault("b"))].Message; !strings.Contains(v, c.refused) || (v == "") != (c.refused == "") {
				t.Errorf("b: %q, want %q", v, c.refused)
			}
		})
	}
	// One that is faulty now goes on as it was, and the others have what that leaves.
	before := new(Memory).Reconcile(clusterObjects(t, clusterService, mapping("a", ", maxConcurrency: 4", 2)), &catalog.Catalog{}, nil)
	out := new(Memory).Reconcile(clusterObjects(t, clusterService, mapping("a", ", maxConcurrency: 4, timeout: 3m", 2), mapping("b", "", 1)), before.Catalog, nil)
	if got := caps(out); got != "a=4 b=2" && got != "b=2 a=4" {
		t.Errorf("got %s", got)
	}
}
