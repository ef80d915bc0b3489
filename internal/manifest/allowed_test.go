package manifest

import (
	"slices"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/catalog"
)

func TestAllowedRoutes(t *testing.T) {
	rules, err := ParseAllowedRoutes(`[
		{"namespaces": ["shop"], "hosts": ["shop.example", "*.shop.example"]},
		{"namespaces": ["stock", "supply"], "paths": ["/stock", "/parts/new/"]},
		{"namespaces": ["*"], "hosts": ["open.example"], "paths": ["/pages"]}]`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		namespace, host, path string
		allowed               bool
	}{
		{"shop", "shop.example", "/{rest...}", true},
		{"shop", "a.b.shop.example", "/x", true},
		{"shop", "ashop.example", "/x", false},
		{"shop", "", "/x", false}, // it would be on hosts of others
		{"shop", "open.example", "/pages/{id}", true},
		{"shop", "open.example", "/page", false},
		{"stock", "", "/stock", true},
		{"stock", "", "/stock/", true},
		{"stock", "", "/stock/{id}/{rest...}", true},
		{"stock", "", "/%73tock/{id}", true}, // it matches the same paths
		{"stock", "any.example", "/parts/new", true},
		{"stock", "", "/parts", false},
		{"stock", "", "/parts/{what}", false}, // also /parts/old
		{"stock", "", "/stockings", false},
		{"stock", "", "/{rest...}", false},
		{"stock", "", "/", false},
		{"supply", "", "/stock", true},
		{"other", "", "/stock", false},
	} {
		if got := rules.refusal(c.namespace, c.host, c.path); (got == "") != c.allowed {
			t.Errorf("%s: %s%s: %q", c.namespace, c.host, c.path, got)
		}
	}
	if got := rules.refusal("stock", "", "/{rest...}"); got != "/{rest...} on every host: the release's controller.allowedRoutes allows the namespace stock only "+
		"below /stock and /parts/new/, or below /pages on the host open.example" {
		t.Error(got)
	}
	if got := rules[:1].refusal("other", "a.example", "/x"); got != "/x on a.example: the release's controller.allowedRoutes allows the namespace other no routes" {
		t.Error(got)
	}
	if got := AllowedRoutes(nil).refusal("any", "", "/{rest...}"); got != "" {
		t.Error(got)
	}
}

func TestAllowedRoutesThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "a JSON array", `[] []`: "more behind it", `[{"namespaces": ["a"], "path": ["/x"]}]`: `unknown field "path"`,
		`[{"hosts": ["a.example"]}]`:                                    "rule 0: namespaces: say whom it is for",
		`[{"namespaces": ["a"], "hosts": ["A.example"]}]`:               `hosts: "A.example": must be in lower case`,
		`[{"namespaces": ["a"], "hosts": ["*"]}]`:                       `hosts: "*": must be one host`,
		`[{"namespaces": ["a"]}, {"namespaces": ["a"], "paths":["x"]}]`: `rule 1: paths: "x": must begin with '/'`,
		`[{"namespaces": ["a"], "paths":["/x/{id}"]}]`:                  "have no wildcard",
	} {
		if _, err := ParseAllowedRoutes(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestReconcileARouteThatIsNoLongerAllowed is served no more, though the last valid version of an API goes on working otherwise; and
// it blocks nobody who may have it.
func TestReconcileARouteThatIsNoLongerAllowed(t *testing.T) {
	greedy, own := clusterAPI("greedy", 60, "/{rest...}"), clusterAPI("own", 1, "/orders")
	former := new(Memory).Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterMapping, greedy), new(catalog.Catalog), nil).Catalog
	if got := paths(former); !slices.Equal(got, []string{"greedy/{rest...}"}) {
		t.Fatal(got)
	}
	m := &Memory{AllowedRoutes: AllowedRoutes{{Namespaces: []string{"default"}, Paths: []string{"/orders"}}}}
	out := m.Reconcile(clusterObjects(t, clusterService, clusterQueue, clusterMapping, greedy, own), former, nil)
	wantVerdict(t, out, APIRef(inDefault("greedy")), Invalid, "spec.routes[0].match: /{rest...} on every host: the release's controller.allowedRoutes allows the namespace default only below /orders")
	if got := paths(out.Catalog); !slices.Equal(got, []string{"own/orders"}) {
		t.Errorf("served: %v", got)
	}
}
