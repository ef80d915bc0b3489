package controller

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestUninstalled: what the release has served says so, once its controller's Deployment is gone, in the namespaces that it had; what
// is another's is left as it is; a release of the same name takes all over.
func TestUninstalled(t *testing.T) {
	blue, green := shopQueue("blue"), shopQueue("green")
	green.Namespace, green.Spec.Class = "other", "green"
	controller := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"namespace": "weir", "name": "blue-controller"},
	}}
	c := newTestCluster(t, blue, shopMapping("blue"), shopAPI("blue", "blue"), green, controller)
	nats := testkit.NATS(t)
	r := c.release(nats, "blue", nil)
	r.mustPass()
	c.release(testkit.NATS(t), "green", func(cfg *Config) { cfg.Release.Class = "green" }).mustPass()
	all := []withStatus{shopQueue("blue"), shopMapping("blue"), shopAPI("blue", "blue")}
	was := map[string]string{}
	for _, o := range all {
		_, was[o.GetName()+refTo(o).Kind], _ = c.ready(o)
	}
	uninstalled := func(namespaces ...string) {
		t.Helper()
		if err := sayUninstalled(t.Context(), c.live, r.release, namespaces, "blue-controller", testkit.Log(t)); err != nil {
			t.Fatal(err)
		}
	}
	same := func(why string) {
		t.Helper()
		for _, o := range all {
			if _, reason, _ := c.ready(o); reason != was[o.GetName()+refTo(o).Kind] {
				t.Errorf("%s %T is %s", why, o, reason)
			}
		}
	}
	uninstalled()
	same("while the controller is there")
	if err := c.live.Delete(t.Context(), controller); err != nil {
		t.Fatal(err)
	}
	uninstalled("other")
	same("of a namespace that it didn't watch")

	c.refuse = func(o client.Object, _ string) error {
		if _, is := o.(*v1alpha1.Queue); is {
			return forbidden(o)
		}
		return nil
	}
	if err := sayUninstalled(t.Context(), c.live, r.release, nil, "blue-controller", testkit.Log(t)); err == nil {
		t.Error("a status that can't be written is no error")
	}
	c.wantReady(shopMapping("blue"), metav1.ConditionFalse, "Uninstalled")
	c.refuse = func(client.Object, string) error { return nil }
	uninstalled("shop")
	for _, o := range all {
		c.wantReady(o, metav1.ConditionFalse, "Uninstalled")
		if s := o.GetStatus(); s.ObservedBy != "weir/blue" || slices.ContainsFunc(s.Conditions, func(c metav1.Condition) bool { return c.Type == v1alpha1.ConditionDrained }) {
			t.Errorf("%+v", s)
		}
	}
	if _, reason, _ := c.ready(green); reason != "Ready" {
		t.Errorf("another release's is %s", reason)
	}

	c.release(nats, "blue", nil).mustPass()
	same("served again")
}
