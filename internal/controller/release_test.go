package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// TestOneThatCanNotBeClaimed: it is left out, in its former version if there is one, and all others come into use.
func TestOneThatCanNotBeClaimed(t *testing.T) {
	for name, sub := range map[string]string{"the status": "status", "the finalizer": ""} {
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, shopQueue("new"), shopQueue("other"), shopAPI("orders", "other"))
			c.refuse = func(o client.Object, of string) error {
				if _, is := o.(*v1alpha1.Queue); is && o.GetName() == "new" && of == sub {
					return forbidden(o)
				}
				return nil
			}
			r := c.release(testkit.NATS(t), "blue", nil)
			for range 2 {
				if r.mustPass(); r.again != retryMax {
					t.Errorf("it is tried again after %s", r.again)
				}
			}
			if r.queue("other") == nil || len(r.published().APIs) != 1 {
				t.Errorf("the others are not in use: %+v", r.published())
			}
			c.wantReady(shopQueue("other"), metav1.ConditionTrue, "Ready")
			if r.queue("new") != nil || r.hasStreams("new") {
				t.Error("it is in use without the claim or the finalizer")
			}
			if sub == "" {
				c.wantReady(shopQueue("new"), metav1.ConditionFalse, "NotClaimed")
			}
			told := slices.DeleteFunc(r.toldEvents(), func(e string) bool { return !strings.HasPrefix(e, "Warning NotClaimed ") })
			if len(told) == 0 || len(told) > 2 { // of the claim, and of the status where it can be written
				t.Errorf("events are %q", told)
			}
			c.refuse = func(client.Object, string) error { return nil }
			r.mustPass()
			if c.wantReady(shopQueue("new"), metav1.ConditionTrue, "Ready"); r.queue("new") == nil || !r.hasStreams("new") {
				t.Error("it doesn't come into use once it can be claimed")
			}
		})
	}
}

// TestAPublishedQueueThatCanNotBeClaimed: one of an earlier version, without a claim and this release's finalizer, stays in use as it was.
func TestAPublishedQueueThatCanNotBeClaimed(t *testing.T) {
	for name, sub := range map[string]string{"the status": "status", "the finalizer": ""} {
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, shopQueue("orders"), shopMapping("orders"), shopAPI("orders", "orders"))
			nats := testkit.NATS(t)
			c.release(nats, "blue", nil).mustPass()
			change(c, shopQueue("orders"), func(q *v1alpha1.Queue) {
				q.Finalizers, q.Spec.MaxAge = []string{v1alpha1.SharedQueueFinalizer}, &metav1.Duration{Duration: 1 << 46}
			})
			q := read(c, shopQueue("orders"))
			q.Status = v1alpha1.QueueStatus{}
			if err := c.live.Status().Update(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			c.refuse = func(o client.Object, of string) error {
				if _, is := o.(*v1alpha1.Queue); is && of == sub {
					return forbidden(o)
				}
				return nil
			}
			r := c.release(nats, "blue", nil)
			was := *r.queue("orders")
			if r.mustPass(); r.again != retryMax {
				t.Errorf("it is tried again after %s", r.again)
			}
			if is := r.queue("orders"); is == nil || *is != was || !r.hasStreams("orders") {
				t.Errorf("the queue is %+v, want %+v", is, was)
			}
			if cat := r.published(); len(cat.Mappings) != 1 || len(cat.APIs) != 1 {
				t.Errorf("what refers to it is gone: %+v", cat)
			}
			c.wantReady(shopMapping("orders"), metav1.ConditionTrue, "Ready")
		})
	}
}

// TestAConflictIsNoVerdict: what another has changed meanwhile is tried again at once, before anything is said of it or of what
// names it; but if that goes on, it holds up no other.
func TestAConflictIsNoVerdict(t *testing.T) {
	for name, sub := range map[string]string{"the status": "status", "the finalizer": ""} {
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, shopQueue("new"), shopQueue("other"), shopAPI("orders", "new"))
			conflicts := 0
			c.refuse = func(o client.Object, of string) error {
				if o.GetName() != "new" || of != sub || conflicts == 0 {
					return nil
				}
				conflicts--
				return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("queues").GroupResource(), o.GetName(), nil)
			}
			r := c.release(testkit.NATS(t), "blue", nil)
			conflicts = maxOvertaken + 1
			for range maxOvertaken {
				if err := r.pass(); !apierrors.IsConflict(err) {
					t.Errorf("it is not tried again: %v", err)
				}
				if status, reason, _ := c.ready(shopAPI("orders", "new")); status != "" {
					t.Errorf("what names it says %s %s", status, reason)
				}
			}
			if err := r.pass(); !apierrors.IsConflict(err) || r.queue("other") == nil || r.queue("new") != nil {
				t.Errorf("%v; in use are %+v", err, r.published().Queues)
			}
			if status, reason, _ := c.ready(shopQueue("new")); status != "" {
				t.Errorf("its status says %s %s", status, reason)
			}
			r.mustPass()
			c.wantReady(shopQueue("new"), metav1.ConditionTrue, "Ready")
			c.wantReady(shopAPI("orders", "new"), metav1.ConditionTrue, "Ready")
		})
	}
}

// TestTwoReleasesWithOneNATS: the first to publish has it; the other says so in the statuses, and touches nothing there.
func TestTwoReleasesWithOneNATS(t *testing.T) {
	nats := testkit.NATS(t)
	c := newTestCluster(t, shopQueue("orders"), shopMapping("orders"))
	blue := c.release(nats, "blue", nil)
	blue.mustPass()
	fast := shopQueue("fast")
	fast.Spec.Class = "fast"
	mapping := shopMapping("fast")
	mapping.Spec.Class = "fast"
	for _, o := range []client.Object{fast, mapping} {
		if err := c.live.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	// It served them before it was given this NATS.
	other := testkit.NATS(t)
	ofFast := func(cfg *Config) { cfg.Release.Class = "fast" }
	c.release(other, "green", ofFast).mustPass()
	c.wantReady(mapping, metav1.ConditionTrue, "Ready")
	green := c.release(nats, "green", ofFast)
	for range 2 {
		if err := green.pass(); err == nil {
			t.Error("it is not tried again")
		}
		blue.mustPass()
	}
	if green.queue("fast") != nil || green.hasStreams("fast") || blue.queue("orders") == nil {
		t.Errorf("the catalog is %+v", blue.published())
	}
	c.wantReady(shopQueue("orders"), metav1.ConditionTrue, "Ready")
	for _, o := range []withStatus{fast, mapping} {
		if message := c.wantReady(o, metav1.ConditionFalse, "NotPublished"); !strings.Contains(message, "weir/blue") || !strings.Contains(message, "controller.takeOver") {
			t.Errorf("the message doesn't say what to do: %s", message)
		}
	}
	if s := mapping.Status; s.MaxConcurrency != 0 || s.FunctionURL != "" || meta.FindStatusCondition(read(c, fast).Status.Conditions, v1alpha1.ConditionDrained) != nil {
		t.Errorf("the statuses say it is in use: %+v %+v", s, fast.Status)
	}
	// The first is gone.
	green = c.release(nats, "green", func(cfg *Config) { ofFast(cfg); cfg.Release.TakeOver = []string{"weir/blue"} })
	green.mustPass()
	if c.wantReady(fast, metav1.ConditionTrue, "Ready"); green.queue("fast") == nil {
		t.Errorf("it is not taken over: %+v", green.published())
	}
	if err := blue.pass(); err == nil {
		t.Error("the former release takes it back")
	}
}

// TestANATSThatNobodyHasNamed: what an earlier version has published is taken over.
func TestANATSThatNobodyHasNamed(t *testing.T) {
	nats := testkit.NATS(t)
	conn := testkit.Conn(t, nats)
	if err := conn.PublishCatalog(t.Context(), &catalog.Catalog{}, 1, nil); err != nil {
		t.Fatal(err)
	}
	c := newTestCluster(t)
	c.release(nats, "blue", nil).mustPass()
	if p, err := conn.Catalog(t.Context()); err != nil || p.Release != "weir/blue" {
		t.Errorf("it is %q's, %v", p.Release, err)
	}
}

// TestAnotherClass: what gets another class goes from the release of the former one to that of the new one, and is never of both.
func TestAnotherClass(t *testing.T) {
	machine := &v1alpha1.StateMachine{ObjectMeta: shopMeta("steps"), Spec: v1alpha1.StateMachineSpec{
		Definition: &runtime.RawExtension{Raw: []byte(`{"StartAt":"End","States":{"End":{"Type":"Succeed"}}}`)},
	}}
	fast := shopQueue("orders-fast")
	fast.Spec.Class = "fast"
	c := newTestCluster(t, shopQueue("orders"), fast, shopMapping("orders"), shopAPI("orders", "orders"), machine)
	orchestrated := func(class string) func(*Config) {
		return func(cfg *Config) { cfg.Release.Class, cfg.OrchestratorURL = class, "http://orchestrator.example" }
	}
	blue := c.release(testkit.NATS(t), "blue", orchestrated("weir"))
	green := c.release(testkit.NATS(t), "green", orchestrated("fast"))
	blue.mustPass()
	green.mustPass()
	moving := []withStatus{shopMapping("orders"), shopAPI("orders", "orders"), machine}
	for _, o := range moving {
		c.wantReady(o, metav1.ConditionTrue, "Ready")
	}
	change(c, shopMapping("orders"), func(m *v1alpha1.EventSourceMapping) { m.Spec.Class, m.Spec.Queue = "fast", "orders-fast" })
	change(c, shopAPI("orders", ""), func(a *v1alpha1.API) { a.Spec.Class, a.Spec.Routes[0].Queue.Name = "fast", "orders-fast" })
	change(c, machine, func(m *v1alpha1.StateMachine) { m.Spec.Class = "fast" })
	green.mustPass()
	if cat := green.published(); len(cat.Mappings)+len(cat.APIs)+len(cat.Machines) > 0 {
		t.Errorf("the new release serves what the former one has claimed: %+v", cat)
	}
	c.refuse = func(o client.Object, sub string) error {
		if cat := blue.published(); sub == "status" && o.(withStatus).GetStatus().ObservedBy == "" && len(cat.Mappings)+len(cat.APIs)+len(cat.Machines) > 0 {
			t.Errorf("the claim is given up before the catalog without it is published: %+v", cat)
		}
		return nil
	}
	blue.mustPass()
	for _, o := range moving {
		if s := read(c, o).GetStatus(); s.ObservedBy != "" || s.ObservedAt != nil || len(s.Conditions) > 0 {
			t.Errorf("%T says %+v", o, s)
		}
	}
	if s := read(c, shopMapping("orders")).Status; s.MaxConcurrency != 0 || s.FunctionURL != "" {
		t.Errorf("the mapping says %+v", s)
	}
	c.refuse = func(client.Object, string) error { return nil }
	green.mustPass()
	blue.mustPass()
	for _, o := range moving {
		if c.wantReady(o, metav1.ConditionTrue, "Ready"); o.GetStatus().ObservedBy != "weir/green" {
			t.Errorf("%T is %s's", o, o.GetStatus().ObservedBy)
		}
	}
	if cat := green.published(); len(cat.Mappings) != 1 || len(cat.APIs) != 1 || len(cat.Machines) != 1 {
		t.Errorf("in use are %+v", cat)
	}
}

// TestAReleaseOfAnotherClass: a release that gets another class gives up its queues and keeps their streams, and the queues say so. With its
// former class it goes on with them.
func TestAReleaseOfAnotherClass(t *testing.T) {
	nats := testkit.NATS(t)
	c := newTestCluster(t, shopQueue("orders"), shopMapping("orders"))
	c.release(nats, "blue", nil).mustPass()
	r := c.release(nats, "blue", func(cfg *Config) { cfg.Release.Class = "fast" })
	for range 2 {
		r.mustPass()
	}
	if r.queue("orders") != nil || !r.hasStreams("orders") {
		t.Errorf("it is in use, or its streams are gone: %+v", r.published())
	}
	q := shopQueue("orders")
	message := c.wantReady(q, metav1.ConditionFalse, "ClassChanged")
	if q.Status.ObservedBy != "" || q.Status.ObservedAt != nil || len(q.Status.Conditions) != 1 || !slices.Contains(q.Finalizers, r.release.finalizer()) {
		t.Errorf("it is claimed, or not kept: %+v", q)
	}
	for _, want := range []string{"weir/blue", "class fast", "class weir", "controller.class"} {
		if !strings.Contains(message, want) {
			t.Errorf("the message lacks %q: %s", want, message)
		}
	}
	r = c.release(nats, "blue", nil)
	r.mustPass()
	if c.wantReady(q, metav1.ConditionTrue, "Ready"); r.queue("orders") == nil {
		t.Error("it is not in use again")
	}
}

// TestGivenUpClaimsWake: the release of the new class looks at once, and no other write of a status wakes anybody.
func TestGivenUpClaimsWake(t *testing.T) {
	for _, c := range []struct {
		was, is string
		want    bool
	}{{"weir/blue", "", true}, {"", "", false}, {"", "weir/blue", false}, {"weir/blue", "weir/green", false}} {
		if got := claimGivenUp(event.UpdateEvent{ObjectOld: claimed("shop", "weir", c.was), ObjectNew: claimed("shop", "weir", c.is)}); got != c.want {
			t.Errorf("from %q to %q: %t", c.was, c.is, got)
		}
	}
}

// TestOthersFinalizers: a queue that is gone here and kept by others says so, from the first moment on.
func TestOthersFinalizers(t *testing.T) {
	q := shopQueue("orders")
	q.Finalizers = []string{v1alpha1.QueueFinalizer("old", "former"), "backup.example.com/keep"}
	c := newTestCluster(t, q)
	r := c.release(testkit.NATS(t), "blue", nil)
	r.mustPass()
	if err := c.live.Delete(t.Context(), shopQueue("orders")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.mustPass()
		message := c.wantReady(q, metav1.ConditionFalse, "Deleting")
		for _, f := range []string{"former.old.weir.dev/queue", "backup.example.com/keep"} {
			if !strings.Contains(message, f) {
				t.Errorf("the message lacks %s: %s", f, message)
			}
		}
		if slices.Contains(q.Finalizers, r.release.finalizer()) || r.hasStreams("orders") {
			t.Errorf("it is not gone here: %v", q.Finalizers)
		}
	}
}

// TestStatusesStayObserved: while NATS is away, a status that still holds says every ten minutes that somebody looks, and no more.
func TestStatusesStayObserved(t *testing.T) {
	nats := testkit.NATS(t)
	c := newTestCluster(t, shopQueue("orders"), shopMapping("orders"))
	r := c.release(nats, "blue", nil)
	r.mustPass()
	live := r.conn.Live()
	nats.Stop()
	<-live.Done()
	at := func(ago time.Duration) *metav1.Time {
		return &metav1.Time{Time: time.Now().Add(-ago).Truncate(time.Second)}
	}
	for _, k := range []struct {
		ago   time.Duration
		fresh bool
	}{{observedEvery - time.Minute, false}, {observedEvery + time.Minute, true}} {
		was := at(k.ago)
		q := read(c, shopQueue("orders"))
		q.Status.ObservedAt = was
		if err := c.live.Status().Update(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if err := r.pass(); !errors.Is(err, stream.ErrUnavailable) {
			t.Fatal(err)
		}
		is := read(c, shopQueue("orders"))
		if is.Status.ObservedAt.Equal(was) == k.fresh {
			t.Errorf("after %s it is of %s", k.ago, is.Status.ObservedAt)
		}
		if !equality.Semantic.DeepEqual(is.Status.Conditions, q.Status.Conditions) {
			t.Errorf("its conditions are %+v, want %+v", is.Status.Conditions, q.Status.Conditions)
		}
	}
}

// TestNoCallsWithoutUse: a mapping that leaves use has no calls.
func TestNoCallsWithoutUse(t *testing.T) {
	c := newTestCluster(t, shopQueue("orders"), shopMapping("orders"))
	r := c.release(testkit.NATS(t), "blue", nil)
	r.mustPass()
	m := read(c, shopMapping("orders"))
	m.Status.Calls = 2
	if err := c.live.Status().Update(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	r.mustPass()
	if n := read(c, m).Status.Calls; n != 2 {
		t.Errorf("it has %d calls, and is in use with 2", n)
	}
	change(c, shopMapping("orders"), func(m *v1alpha1.EventSourceMapping) { m.Spec.Queue = "none" })
	change(c, shopQueue("orders"), func(q *v1alpha1.Queue) { q.Finalizers = nil })
	if err := c.live.Delete(t.Context(), shopQueue("orders")); err != nil {
		t.Fatal(err)
	}
	r.mustPass()
	if s := read(c, m).Status; s.Calls != 0 || s.MaxConcurrency != 0 {
		t.Errorf("not in use it says %+v", s)
	}
}

// TestLeftAloneSaysSo: what no release has claimed says why, in words that no two releases write in turns, until it is taken. What
// another has claimed is not written.
func TestLeftAloneSaysSo(t *testing.T) {
	theirs := claimed("shop", "", "old/former")
	c := newTestCluster(t, theirs, shopQueue("new"))
	nats := testkit.NATS(t)
	blue, green := c.release(nats, "blue", nil), c.release(nats, "green", func(cfg *Config) { cfg.Release.Namespace = "another" })
	writes := 0
	c.refuse = func(o client.Object, _ string) error {
		if writes++; o.GetName() != "new" {
			t.Errorf("%s is written, which another has claimed", o.GetName())
		}
		return nil
	}
	blue.mustPass() // the one that serves the namespace may be about to claim it
	if writes > 0 {
		t.Errorf("%d writes at once", writes)
	}
	blue.mustPass()
	q := shopQueue("new")
	if message := c.wantReady(q, metav1.ConditionFalse, "LeftAlone"); !strings.Contains(message, "old/former") || q.Status.ObservedBy != "" {
		t.Errorf("it says %q, and is claimed by %q", message, q.Status.ObservedBy)
	}
	for range 3 {
		blue.mustPass()
		if err := green.claim(t.Context(), green.listed()); err != nil {
			t.Fatal(err)
		}
	}
	if writes != 1 {
		t.Errorf("%d writes of what is known", writes)
	}
	if told := blue.toldEvents(); len(told) != 2 {
		t.Errorf("events are %q", told)
	}
	// The release is gone. While NATS is away, what was said before doesn't hold.
	c.refuse = func(client.Object, string) error { return nil }
	blue = c.release(nats, "blue", func(cfg *Config) { cfg.Release.TakeOver = []string{"old/former"} })
	live := blue.conn.Live()
	nats.Stop()
	<-live.Done()
	if err := blue.pass(); !errors.Is(err, stream.ErrUnavailable) {
		t.Error(err)
	}
	c.wantReady(q, metav1.ConditionFalse, "NATSUnavailable")
}

// TestUnclaimedStreamsAreCounted: those that no Queue of the release has, from the first reconciliation on and until one has them.
func TestUnclaimedStreamsAreCounted(t *testing.T) {
	nats := testkit.NATS(t)
	c := newTestCluster(t, shopQueue("orders"))
	reader := sdkmetric.NewManualReader()
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	t.Cleanup(func() { _ = meters.Shutdown(context.Background()) })
	r := c.release(nats, "blue", func(cfg *Config) { cfg.Telemetry.Meters = meters })
	want := func(n float64) {
		t.Helper()
		r.mustPass()
		all := testkit.Series(t, reader)
		if got, there := all["weir.streams.unclaimed{}"]; !there || got != n {
			t.Errorf("there are %v, want %g", all, n)
		}
	}
	want(0)
	change(c, shopQueue("orders"), func(q *v1alpha1.Queue) { q.Finalizers = nil })
	if err := c.live.Delete(t.Context(), shopQueue("orders")); err != nil {
		t.Fatal(err)
	}
	want(1)
	want(1)
	if err := c.live.Create(t.Context(), shopQueue("orders")); err != nil {
		t.Fatal(err)
	}
	want(0)
}
