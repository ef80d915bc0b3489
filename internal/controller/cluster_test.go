package controller

import (
	"context"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/depth"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// testCluster is an API server with Weir's kinds. Releases work with it, each with its NATS.
type testCluster struct {
	t    *testing.T
	live client.WithWatch
	// refuse is asked before each patch; subresource is empty or status.
	refuse func(o client.Object, subresource string) error
}

func newTestCluster(t *testing.T, objects ...client.Object) *testCluster {
	c := &testCluster{t: t, refuse: func(client.Object, string) error { return nil }}
	under := fake.NewClientBuilder().WithScheme(newScheme()).
		WithStatusSubresource(&v1alpha1.API{}, &v1alpha1.Queue{}, &v1alpha1.EventSourceMapping{}, &v1alpha1.StateMachine{}).
		WithObjects(objects...).Build()
	c.live = interceptor.NewClient(under, interceptor.Funcs{
		Patch: func(ctx context.Context, under client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if err := c.refuse(o, ""); err != nil {
				return err
			}
			return under.Patch(ctx, o, p, opts...)
		},
		SubResourcePatch: func(ctx context.Context, under client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			if err := c.refuse(o, sub); err != nil {
				return err
			}
			return under.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	})
	return c
}

// testRelease is a release's controller, one reconciliation at a time.
type testRelease struct {
	again time.Duration // after which it reconciles again, as the last one said
	*reconciler
	t    *testing.T
	conn *stream.Conn
	told *events.FakeRecorder
}

// release is one in the namespace weir that serves class weir, unless change makes it another.
func (c *testCluster) release(nats *localnats.Server, name string, change func(*Config)) *testRelease {
	c.t.Helper()
	conn := testkit.Conn(c.t, nats)
	cfg := Config{Conn: conn, Replicas: 1, Release: Release{Namespace: "weir", Name: name, Class: "weir"}, Log: testkit.Log(c.t)}
	if change != nil {
		change(&cfg)
	}
	watch, err := depth.New(conn, telemetry.Providers{}, cfg.Log, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	told := events.NewFakeRecorder(1000)
	r, err := newReconciler(c.live, cfg, watch, newDepthReports(c.live, cfg.Log), tellings{told})
	if err != nil {
		c.t.Fatal(err)
	}
	return &testRelease{t: c.t, conn: conn, told: told, reconciler: r}
}

// pass reconciles once.
func (r *testRelease) pass() error {
	r.t.Helper()
	result, err := r.Reconcile(r.t.Context(), reconcile.Request{})
	r.again = result.RequeueAfter
	return err
}

// mustPass reconciles once, without an error.
func (r *testRelease) mustPass() {
	r.t.Helper()
	if err := r.pass(); err != nil {
		r.t.Fatal(err)
	}
}

// listed is what it sees.
func (r *testRelease) listed() *resources {
	r.t.Helper()
	res, err := list(r.t.Context(), r.client)
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// published is the catalog in its NATS.
func (r *testRelease) published() *catalog.Catalog {
	r.t.Helper()
	p, err := r.conn.Catalog(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return p.Catalog
}

// queue is that of the published catalog; nil if it has none.
func (r *testRelease) queue(name string) *catalog.Queue {
	r.t.Helper()
	cat := r.published()
	for i := range cat.Queues {
		if cat.Queues[i].Key == shopKey(name) {
			return &cat.Queues[i]
		}
	}
	return nil
}

// hasStreams reports whether queue name has streams in its NATS.
func (r *testRelease) hasStreams(name string) bool {
	r.t.Helper()
	keys, err := r.conn.QueueKeys(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.Contains(keys, shopKey(name))
}

// toldEvents are what was told since the last call.
func (r *testRelease) toldEvents() (all []string) {
	for {
		select {
		case e := <-r.told.Events:
			all = append(all, e)
		default:
			return all
		}
	}
}

func shopKey(name string) catalog.Key { return catalog.Key{Namespace: "shop", Name: name} }

func shopMeta(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }

func shopQueue(name string) *v1alpha1.Queue {
	return &v1alpha1.Queue{ObjectMeta: shopMeta(name)}
}

func shopMapping(name string) *v1alpha1.EventSourceMapping {
	return &v1alpha1.EventSourceMapping{ObjectMeta: shopMeta(name), Spec: v1alpha1.EventSourceMappingSpec{
		Queue: name, Function: &v1alpha1.FunctionReference{URL: "http://function.shop.example"}, MaxConcurrency: new(int32(2)),
	}}
}

func shopAPI(name, queue string) *v1alpha1.API {
	return &v1alpha1.API{ObjectMeta: shopMeta(name), Spec: v1alpha1.APISpec{Routes: []v1alpha1.Route{{
		Name: "create", Match: v1alpha1.RouteMatch{Method: "POST", Path: "/" + name}, Queue: &v1alpha1.RouteQueue{Name: queue},
	}}}}
}

// read is o as the API server has it.
func read[T client.Object](c *testCluster, o T) T {
	c.t.Helper()
	if err := c.live.Get(c.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		c.t.Fatal(err)
	}
	return o
}

// ready is the condition Ready of o, as the API server has it: its status, reason and message; empty if there is none.
func (c *testCluster) ready(o withStatus) (status metav1.ConditionStatus, reason, message string) {
	c.t.Helper()
	if cond := meta.FindStatusCondition(read(c, o).GetStatus().Conditions, v1alpha1.ConditionReady); cond != nil {
		return cond.Status, cond.Reason, cond.Message
	}
	return "", "", ""
}

func (c *testCluster) wantReady(o withStatus, status metav1.ConditionStatus, reason string) (message string) {
	c.t.Helper()
	s, because, message := c.ready(o)
	if s != status || because != reason {
		c.t.Errorf("%T %s is Ready=%s %s, want %s %s: %s", o, o.GetName(), s, because, status, reason, message)
	}
	return message
}

// change changes what the API server has.
func change[T client.Object](c *testCluster, o T, f func(T)) {
	c.t.Helper()
	f(read(c, o))
	if err := c.live.Update(c.t.Context(), o); err != nil {
		c.t.Fatal(err)
	}
}

func forbidden(o client.Object) error {
	return apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("queues").GroupResource(), o.GetName(), nil)
}
