package manifest

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weir-dev/weir/internal/catalog"
)

// TestReview: what is wrong beside the others is a mistake, what is only not there yet is missing, and what is in use stays so.
func TestReview(t *testing.T) {
	old := clusterAPI("old", 60, "/orders")
	former := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterMapping, old), new(catalog.Catalog), nil).Catalog
	if len(former.APIs) != 1 || len(former.Mappings) != 1 {
		t.Fatalf("%+v", former)
	}
	for name, c := range map[string]struct {
		objects           []string
		of                Ref
		mistakes, missing string
	}{
		"a route that another has":   {[]string{clusterQueue, old, clusterAPI("new", 0, "/orders")}, APIRef(inDefault("new")), "spec.routes[0].match: POST /orders has the method and path of route create of API default/old", ""},
		"the one that has it":        {[]string{clusterQueue, old, clusterAPI("older", 90, "/orders")}, APIRef(inDefault("old")), "", ""},
		"a route of its own":         {[]string{clusterQueue, old, clusterAPI("new", 0, "/new")}, APIRef(inDefault("new")), "", ""},
		"a queue that is not there":  {[]string{old, clusterAPI("new", 0, "/new")}, APIRef(inDefault("new")), "", `there is no Queue "orders" in namespace default`},
		"both":                       {[]string{old, clusterAPI("new", 0, "/orders")}, APIRef(inDefault("new")), "has the method and path", "there is no Queue"},
		"a queue that has a mapping": {[]string{clusterService, clusterQueue, clusterMapping, strings.Replace(clusterMapping, "name: orders, n", "name: new, n", 1)}, MappingRef(inDefault("new")), "queue orders is already drained by EventSourceMapping orders", ""},
		"a mapping before its queue": {[]string{clusterMapping}, MappingRef(inDefault("orders")), "", "there is no Queue"},
	} {
		objs := clusterObjects(t, c.objects...)
		for i := range objs.Mappings {
			objs.Mappings[i].Object.CreationTimestamp = metav1.NewTime(time.Now())
		}
		mistakes, missing := new(Memory).Review(objs, former, c.of)
		if got := strings.Join(mistakes, "|"); (c.mistakes == "") != (got == "") || !strings.Contains(got, c.mistakes) {
			t.Errorf("%s: mistakes %q, want %q", name, got, c.mistakes)
		}
		if got := strings.Join(missing, "|"); (c.missing == "") != (got == "") || !strings.Contains(got, c.missing) {
			t.Errorf("%s: missing %q, want %q", name, got, c.missing)
		}
	}
}

// TestReviewSaysWhatTheStatusSays of what it is about.
func TestReviewSaysWhatTheStatusSays(t *testing.T) {
	objects := []string{clusterService, clusterQueue, clusterMapping, clusterAPI("old", 60, "/orders"), clusterAPI("new", 0, "/orders")}
	ref := APIRef(inDefault("new"))
	mistakes, missing := new(Memory).Review(clusterObjects(t, objects...), new(catalog.Catalog), ref)
	verdict := new(Memory).Reconcile(clusterObjects(t, objects...), new(catalog.Catalog), nil).Verdicts[ref]
	if got := strings.Join(slices.Concat(mistakes, missing), "\n"); got == "" || got != verdict.Message {
		t.Errorf("the review says %q, the status %q", got, verdict.Message)
	}
}
