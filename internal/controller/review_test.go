package controller

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestReviewOfResources: what the API server is answered, by what there is in the cluster and in NATS.
func TestReviewOfResources(t *testing.T) {
	dangling := shopMapping("orders")
	dangling.Name, dangling.Spec.Queue = "dangling", "nowhere"
	c := newTestCluster(t, shopQueue("orders"), shopMapping("orders"), shopAPI("orders", "orders"), dangling)
	nats := testkit.NATS(t)
	r := c.release(nats, "blue", nil)
	r.mustPass()
	cfg := Config{Conn: r.conn, Release: r.release, Log: testkit.Log(t)}
	ask := func(ctx context.Context, o, old client.Object) (allowed bool, said string) {
		t.Helper()
		raw := func(o client.Object) (out runtime.RawExtension) {
			var err error
			if out.Raw, err = json.Marshal(o); err != nil {
				t.Fatal(err)
			}
			return out
		}
		req := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Operation: admissionv1.Create, Object: raw(o), Kind: metav1.GroupVersionKind{Kind: refTo(o.(withStatus)).Kind}}}
		if old != nil {
			req.Operation, req.OldObject = admissionv1.Update, raw(old)
		}
		resp := newReview(c.live, cfg).Handle(ctx, req)
		said = strings.Join(resp.Warnings, "|")
		if resp.Result != nil {
			said += resp.Result.Message
		}
		return resp.Allowed, said
	}
	of := func(class string, o client.Object) client.Object {
		switch o := o.(type) {
		case *v1alpha1.API:
			o.Spec.Class = class
		case *v1alpha1.EventSourceMapping:
			o.Spec.Class = class
		}
		return o
	}
	taken := shopAPI("second", "orders")
	taken.Spec.Routes[0].Match.Path = "/orders"
	labelled := dangling.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	changed := dangling.DeepCopy()
	changed.Spec.MaxConcurrency = new(int32(7))
	wrong := dangling.DeepCopy()
	wrong.Spec.MaxConcurrency = new(int32(0))
	going := wrong.DeepCopy()
	going.DeletionTimestamp = new(metav1.Now())
	for name, q := range map[string]struct {
		o, old  client.Object
		allowed bool
		said    string
	}{
		"a resource of its own":       {shopAPI("new", "orders"), nil, true, ""},
		"a route of another":          {taken, nil, false, "spec.routes[0].match: POST /orders has the method and path of route create of API shop/orders"},
		"the same, of another class":  {of("fast", taken.DeepCopy()), nil, true, ""},
		"a queue that is not there":   {shopAPI("new", "later"), nil, true, `spec.routes[0].queue.name: there is no Queue "later" in namespace shop`},
		"a queue that is drained":     {func() client.Object { m := shopMapping("orders"); m.Name = "again"; return m }(), nil, true, "queue orders is already drained by EventSourceMapping orders"},
		"one in use, as it is":        {shopAPI("orders", "orders"), shopAPI("orders", "orders"), true, ""},
		"one in use, changed":         {shopAPI("orders", "later"), shopAPI("orders", "orders"), true, `there is no Queue "later"`},
		"a label of an invalid one":   {labelled, dangling, true, ""},
		"an invalid one, changed":     {changed, dangling, true, `there is no Queue "nowhere"`},
		"a mistake":                   {wrong, dangling, false, "spec.maxConcurrency"},
		"a mistake of one that goes":  {going, dangling, true, ""},
		"a mistake of another class'": {of("fast", wrong.DeepCopy()), nil, true, ""},
	} {
		allowed, said := ask(t.Context(), q.o, q.old)
		if allowed != q.allowed || (q.said == "") != (said == "") || !strings.Contains(said, q.said) {
			t.Errorf("%s: allowed %t, said %q; want %t, %q", name, allowed, said, q.allowed, q.said)
		}
	}
	if allowed, said := newReview(c.live, cfg).Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, Kind: metav1.GroupVersionKind{Kind: "Queue"}, Object: runtime.RawExtension{Raw: []byte(`{"spec": []}`)},
	}}).Allowed, "what is no Queue is taken"; allowed {
		t.Error(said)
	}

	// Another release of the class serves the namespace.
	cfg.Release.Name = "green"
	if allowed, said := ask(t.Context(), taken, nil); !allowed || said != "" {
		t.Errorf("a resource that another release is to serve: %t %s", allowed, said)
	}
	cfg.Release.Name = "blue"
	nats.Stop()
	if allowed, said := ask(t.Context(), taken, nil); !allowed || !strings.Contains(said, "Weir could not review it") {
		t.Errorf("without NATS: %t %s", allowed, said)
	}
}
