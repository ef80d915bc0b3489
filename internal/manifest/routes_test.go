package manifest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
)

// TestTheRouteTableAgreesWithServeMux on which patterns collide, whatever was removed before.
func TestTheRouteTableAgreesWithServeMux(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	segments := []string{"a", "b", "{x}", "{y}", "%61", "a%2Fb", "c"}
	ends := []string{"", "", "", "/", "/{$}", "/{rest...}"}
	hosts := []string{"", "", "", "shop.example", "stock.example"}
	pattern := func() (method, host, path string) {
		var b strings.Builder
		for range rng.IntN(4) {
			b.WriteString("/" + segments[rng.IntN(len(segments))])
		}
		path = b.String() + ends[rng.IntN(len(ends))]
		if path == "" || rng.IntN(50) == 0 {
			path = []string{"/", "/{", "/{x}{y}", "/{x}/{x}"}[rng.IntN(4)]
		}
		return []string{"GET", "HEAD", "POST"}[rng.IntN(3)], hosts[rng.IntN(len(hosts))], path
	}
	for range 300 {
		table := newRouteTable()
		var taken []string // in order
		rebuild := func() *http.ServeMux {
			mux := http.NewServeMux()
			for _, p := range taken {
				_ = register(mux, p)
			}
			return mux
		}
		mux := rebuild()
		for range 40 {
			if len(taken) > 0 && rng.IntN(10) == 0 {
				n := rng.IntN(len(taken))
				taken = taken[:n]
				table.forget(n)
				mux = rebuild()
			}
			method, host, path := pattern()
			says := register(mux, method+" "+host+path)
			malformed := register(http.NewServeMux(), method+" "+host+path) != ""
			collision := table.add(method, host, path, "somewhere")
			if malformed && collision != "" || !malformed && (says != "") != (collision != "") {
				t.Fatalf("seed %d: %s %s%s after %q: ServeMux says %q, the table %q", seed, method, host, path, taken, says, collision)
			}
			if says == "" {
				taken = append(taken, method+" "+host+path)
			}
		}
	}
}

// TestOneSchemaIsCompiledOnce, as long as an object has it.
func TestOneSchemaIsCompiledOnce(t *testing.T) {
	m := new(Memory)
	check := m.checkSchemas()
	for _, source := range []string{`{}`, `[]`, `{}`} {
		if err := check([]byte(source)); (err == nil) != (source == `{}`) {
			t.Errorf("%s: %v", source, err)
		}
	}
	if len(m.schemas) != 2 {
		t.Errorf("%d are remembered", len(m.schemas))
	}
	for sum := range m.schemas { // what is remembered is not checked again
		m.schemas[sum] = nil
	}
	check = m.checkSchemas()
	if check([]byte(`[]`)) != nil {
		t.Error("what was found before is found again")
	}
	if len(m.schemas) != 1 {
		t.Errorf("%d are remembered of which one is there", len(m.schemas))
	}
}

// tenThousand are ten APIs of a thousand routes each, with a schema of about 2 KiB.
func tenThousand(shape string) *Objects {
	queue := &v1alpha1.Queue{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orders"}}
	objs := &Objects{Queues: []Resource[v1alpha1.Queue]{{Object: queue}}}
	for i := range 10 {
		a := &v1alpha1.API{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("api", i)}}
		for j := range 1000 {
			var props []string
			for k := range 24 {
				props = append(props, fmt.Sprintf(`"field%d-%d":{"type":"string","maxLength":100,"description":"what it is for"}`, j, k))
			}
			a.Spec.Routes = append(a.Spec.Routes, v1alpha1.Route{
				Name: fmt.Sprint("r", j), Match: v1alpha1.RouteMatch{Method: "POST", Path: fmt.Sprintf(shape, i, j)},
				Queue:  &v1alpha1.RouteQueue{Name: "orders"},
				Schema: &runtime.RawExtension{Raw: fmt.Appendf(nil, `{"title":"%d-%d","type":"object","properties":{%s}}`, i, j, strings.Join(props, ","))},
			})
		}
		objs.APIs = append(objs.APIs, Resource[v1alpha1.API]{Object: a})
	}
	return objs
}

// BenchmarkReconcile reconciles ten thousand routes, after a first time.
func BenchmarkReconcile(b *testing.B) {
	for _, shape := range []string{"/a%d/r%d", "/a%d/r%d/{rest...}", "/{tenant}/a%d/r%d", "/same/r%[2]d"} {
		b.Run(strings.NewReplacer("/", "_", "%", "").Replace(shape), func(b *testing.B) {
			objs, m := tenThousand(shape), new(Memory)
			out := m.Reconcile(objs, &catalog.Catalog{}, nil)
			for b.Loop() {
				out = m.Reconcile(objs, out.Catalog, nil)
			}
			b.ReportMetric(float64(len(out.Verdicts)), "verdicts")
		})
	}
}
