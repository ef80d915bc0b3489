package controller

import (
	"context"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/manifest"
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
	was := map[manifest.Ref]string{}
	for _, o := range all {
		_, was[refTo(o)], _ = c.ready(o)
	}
	u := Uninstallation{Release: r.release, Deployment: "blue-controller", Log: testkit.Log(t)}
	uninstalled := func(namespaces ...string) {
		t.Helper()
		u.Namespaces = namespaces
		if err := u.run(t.Context(), c.live); err != nil {
			t.Fatal(err)
		}
	}
	same := func(why string) {
		t.Helper()
		for _, o := range all {
			if _, reason, _ := c.ready(o); reason != was[refTo(o)] {
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
	if err := u.run(t.Context(), noKinds{c.live}); err != nil {
		t.Error("without the definitions nothing is to be said:", err)
	}

	c.refuse = func(o client.Object, _ string) error {
		if _, is := o.(*v1alpha1.Queue); is {
			return forbidden(o)
		}
		return nil
	}
	if u.Namespaces = nil; u.run(t.Context(), c.live) == nil {
		t.Error("a status that can't be written is no error")
	}
	c.wantReady(shopMapping("blue"), metav1.ConditionFalse, "Uninstalled")

	// Somebody changes the queue between the look at it and the write.
	q := read(c, shopQueue("blue"))
	q.Status.Depth = &v1alpha1.QueueDepth{Records: 3, InFlight: 2, Owned: true}
	if err := c.live.Status().Update(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	c.refuse = func(o client.Object, _ string) error {
		c.refuse = func(client.Object, string) error { return nil }
		change(c, shopQueue("blue"), func(q *v1alpha1.Queue) { q.Labels = map[string]string{"new": "yes"} })
		return nil
	}
	if err := u.run(t.Context(), c.live); !apierrors.IsConflict(err) {
		t.Error("what was changed meanwhile is overwritten:", err)
	}
	uninstalled("shop")
	if d := read(c, shopQueue("blue")).Status.Depth; d.Records != 3 || d.InFlight != 0 || d.Owned {
		t.Errorf("%+v", d)
	}
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

	// It is uninstalled again, and the NATS of those that come after it is away.
	for _, by := range []Release{{Name: "blue"}, {Name: "red", TakeOver: []string{"weir/blue"}}} {
		uninstalled()
		away := testkit.NATS(t)
		next := c.release(away, by.Name, func(cfg *Config) { cfg.Release.TakeOver = by.TakeOver })
		live := next.conn.Live()
		away.Stop()
		<-live.Done()
		if next.pass() == nil {
			t.Error("without NATS all is in order")
		}
		c.wantReady(shopQueue("blue"), metav1.ConditionFalse, "NATSUnavailable")
	}
}

// noKinds is a cluster without Weir's kinds.
type noKinds struct{ client.Client }

func (noKinds) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return &meta.NoKindMatchError{GroupKind: v1alpha1.GroupVersion.WithKind("API").GroupKind()}
}
