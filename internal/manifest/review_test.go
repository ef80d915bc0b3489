package manifest

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weir-dev/weir/internal/catalog"
)

// TestReview: what is wrong by itself, and a route that another has, is a mistake; what doesn't fit with other objects as they are now
// is a doubt; and what is in use stays so.
func TestReview(t *testing.T) {
	old := clusterAPI("old", 60, "/orders")
	former := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterMapping, old), new(catalog.Catalog), nil).Catalog
	if len(former.APIs) != 1 || len(former.Mappings) != 1 {
		t.Fatalf("%+v", former)
	}
	for name, c := range map[string]struct {
		objects          []string
		of               Ref
		mistakes, doubts string
	}{
		"a route that another has":   {[]string{clusterQueue, old, clusterAPI("new", 0, "/orders")}, APIRef(inDefault("new")), "spec.routes[0].match: POST /orders has the method and path of route create of API default/old", ""},
		"the one that has it":        {[]string{clusterQueue, old, clusterAPI("older", 90, "/orders")}, APIRef(inDefault("old")), "", ""},
		"a route of its own":         {[]string{clusterQueue, old, clusterAPI("new", 0, "/new")}, APIRef(inDefault("new")), "", ""},
		"a queue that is not there":  {[]string{old, clusterAPI("new", 0, "/new")}, APIRef(inDefault("new")), "", `there is no Queue "orders" in namespace default`},
		"both":                       {[]string{old, clusterAPI("new", 0, "/orders")}, APIRef(inDefault("new")), "has the method and path", "there is no Queue"},
		"a queue that has a mapping": {[]string{clusterService, clusterQueue, clusterMapping, strings.Replace(clusterMapping, "name: orders, n", "name: new, n", 1)}, MappingRef(inDefault("new")), "", "queue orders is already drained by EventSourceMapping orders"},
		"a cap above the Service's":  {[]string{clusterService, clusterQueue, strings.Replace(clusterMapping, "{queue: orders,", "{queue: orders, maxConcurrency: 1000,", 1)}, MappingRef(inDefault("orders")), "", "1000 calls are more than Service"},
		"a cap of none":              {[]string{clusterService, clusterQueue, strings.Replace(clusterMapping, "{queue: orders,", "{queue: orders, maxConcurrency: 0,", 1)}, MappingRef(inDefault("orders")), "spec.maxConcurrency", ""},
		"no orchestrator":            {[]string{clusterQueue, strings.Replace(clusterMapping, "function: {name: writer}", "stateMachine: {name: m}", 1)}, MappingRef(inDefault("orders")), "nobody runs state machines here", "there is no StateMachine"},
		"a mapping before its queue": {[]string{clusterMapping}, MappingRef(inDefault("orders")), "", "there is no Queue"},
	} {
		objs := clusterObjects(t, c.objects...)
		for i := range objs.Mappings {
			objs.Mappings[i].Object.CreationTimestamp = metav1.NewTime(time.Now())
		}
		mistakes, doubts := new(Memory).Review(objs, former, c.of)
		if got := strings.Join(mistakes, "|"); (c.mistakes == "") != (got == "") || !strings.Contains(got, c.mistakes) {
			t.Errorf("%s: mistakes %q, want %q", name, got, c.mistakes)
		}
		if got := strings.Join(doubts, "|"); (c.doubts == "") != (got == "") || !strings.Contains(got, c.doubts) {
			t.Errorf("%s: doubts %q, want %q", name, got, c.doubts)
		}
	}
}

// TestReviewSaysWhatTheStatusSays of what it is about.
func TestReviewSaysWhatTheStatusSays(t *testing.T) {
	objects := []string{clusterService, clusterQueue, clusterMapping, clusterAPI("old", 60, "/orders"), clusterAPI("new", 0, "/orders")}
	ref := APIRef(inDefault("new"))
	mistakes, doubts := new(Memory).Review(clusterObjects(t, objects...), new(catalog.Catalog), ref)
	verdict := new(Memory).Reconcile(clusterObjects(t, objects...), new(catalog.Catalog), nil).Verdicts[ref]
	if got := strings.Join(slices.Concat(mistakes, doubts), "\n"); got == "" || got != verdict.Message {
		t.Errorf("the review says %q, the status %q", got, verdict.Message)
	}
}
