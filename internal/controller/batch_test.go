package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/weir-dev/weir/internal/clusterjob"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

// jobCluster is an API server, and a cache that lacks what has not the labels (cachedForJobs), or all.
type jobCluster struct {
	t          *testing.T
	live       client.WithWatch
	jobs       *clusterJobs
	stale      bool   // the cache has nothing
	afterwards func() // comes after the next Create, before it returns
}

func newJobCluster(t *testing.T, namespaces ...string) *jobCluster {
	c := &jobCluster{t: t, live: fake.NewClientBuilder().WithScheme(newScheme()).WithStatusSubresource(&batchv1.Job{}).Build()}
	kept := cachedForJobs()
	cached := interceptor.NewClient(c.live, interceptor.Funcs{
		Get: func(ctx context.Context, under client.WithWatch, k client.ObjectKey, into client.Object, opts ...client.GetOption) error {
			if err := under.Get(ctx, k, into, opts...); err != nil {
				return err
			}
			for kind, by := range kept {
				_, isJob := kind.(*batchv1.Job)
				if _, asked := into.(*batchv1.Job); isJob == asked && (c.stale || !by.Label.Matches(labels.Set(into.GetLabels()))) {
					return apierrors.NewNotFound(batchv1.Resource("jobs"), k.Name)
				}
			}
			return nil
		},
		Create: func(ctx context.Context, under client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			err := under.Create(ctx, o, opts...)
			if after := c.afterwards; after != nil {
				c.afterwards = nil
				after()
			}
			return err
		},
	})
	c.jobs = newClusterJobs(cached, c.live, Config{Namespaces: namespaces, Log: testkit.Log(t)})
	return c
}

// define puts a job definition; change makes it another.
func (c *jobCluster) define(name string, change func(*batchv1.CronJob)) {
	c.t.Helper()
	d := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{labelDefinition: "true"}}}
	d.Spec.JobTemplate = batchv1.JobTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"team": "a", labelManager: "Helm"}, Annotations: map[string]string{"note": "n"}},
		Spec: batchv1.JobSpec{BackoffLimit: new(int32(4)), Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			ServiceAccountName: "resizer",
			Containers: []corev1.Container{{
				Name: "main", Image: "resize:1", Command: []string{"resize"}, Args: []string{"--size", "Ref::size", "$(HOME)"},
				Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}, {Name: "D", Value: "$(B)"}},
			}},
		}}},
	}
	if change != nil {
		change(d)
	}
	if err := c.live.Create(c.t.Context(), d); err != nil {
		c.t.Fatal(err)
	}
}

// ask asks, and returns the answer, or the code and message of what is refused.
func (c *jobCluster) ask(what string, q any) (clusterjob.State, string) {
	c.t.Helper()
	body, err := json.Marshal(q)
	if err != nil {
		c.t.Fatal(err)
	}
	answer, err := c.jobs.answer(c.t.Context(), what, body)
	var s clusterjob.State
	if refused, ok := errors.AsType[*stream.RefusedError](err); ok {
		return s, refused.Code + " " + refused.Message
	}
	if err != nil {
		return s, "not now: " + err.Error()
	}
	if answer != nil {
		if err := json.Unmarshal(answer, &s); err != nil {
			c.t.Fatal(err)
		}
	}
	return s, ""
}

func (c *jobCluster) job(name string) *batchv1.Job {
	c.t.Helper()
	var job batchv1.Job
	if err := c.live.Get(c.t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, &job); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		c.t.Fatal(err)
	}
	return &job
}

func ref(name string) clusterjob.Ref {
	return clusterjob.Ref{Namespace: "shop", Name: name, Execution: "arn:weir:states::shop:execution:m:one"}
}

func TestClusterJobIsMadeOfItsDefinition(t *testing.T) {
	c := newJobCluster(t)
	c.define("resize", nil)
	if _, refused := c.ask(clusterjob.AskRun, clusterjob.Job{
		Ref: ref("a"), State: "Resize it", Definition: "resize", Arguments: []string{"$(TOKEN)", "--size=Ref::size"}, Parameters: map[string]string{"size": "$(TOKEN)"},
		Environment: []clusterjob.Variable{{Name: "B", Value: "$(A)"}, {Name: "C", Value: "3"}}, CPU: "0.5", Memory: "64Mi", Attempts: 3, TimeoutSeconds: 60,
		Labels: map[string]string{"project": "b"},
	}); refused != "" {
		t.Fatal(refused)
	}
	for _, tag := range []string{"team", labelManager, "kueue.x-k8s.io/queue-name"} {
		if _, refused := c.ask(clusterjob.AskRun, clusterjob.Job{Ref: ref("tagged"), Definition: "resize", Parameters: map[string]string{"size": "1"}, Labels: map[string]string{tag: "x"}}); !strings.Contains(refused, "Tags: the label "+tag) {
			t.Errorf("%s: %q", tag, refused)
		}
	}
	job := c.job("a")
	if job == nil {
		t.Fatal("there is no Job")
	}
	if l := job.Labels; l["project"] != "b" || l["team"] != "a" || l[labelManager] != byWeir || job.Annotations["note"] != "n" ||
		job.Annotations[annotationExecution] != ref("a").Execution || job.Annotations[annotationState] != "Resize it" || len(job.OwnerReferences) != 0 {
		t.Errorf("it is %+v", job.ObjectMeta)
	}
	if *job.Spec.BackoffLimit != 2 || *job.Spec.ActiveDeadlineSeconds != 60 || *job.Spec.TTLSecondsAfterFinished != 24*60*60 {
		t.Errorf("backoffLimit %d, activeDeadlineSeconds %d, ttlSecondsAfterFinished %d", *job.Spec.BackoffLimit, *job.Spec.ActiveDeadlineSeconds, *job.Spec.TTLSecondsAfterFinished)
	}
	if job.Spec.Template.Spec.ServiceAccountName != "resizer" {
		t.Error("the rest of the template is not there")
	}
	main := job.Spec.Template.Spec.Containers[0]
	if !slices.Equal(main.Command, []string{"resize"}) || !slices.Equal(main.Args, []string{"$$(TOKEN)", "--size=$$(TOKEN)"}) {
		t.Errorf("it runs %q %q", main.Command, main.Args)
	}
	if !slices.Equal(main.Env, []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$$(A)"}, {Name: "D", Value: "$(B)"}, {Name: "C", Value: "3"}}) {
		t.Errorf("its environment is %v", main.Env)
	}
	for _, list := range []corev1.ResourceList{main.Resources.Requests, main.Resources.Limits} {
		if !list.Cpu().Equal(resource.MustParse("500m")) || !list.Memory().Equal(resource.MustParse("64Mi")) {
			t.Errorf("its resources are %v", main.Resources)
		}
	}

	// Without any of it, it is as the template says.
	if _, refused := c.ask(clusterjob.AskRun, clusterjob.Job{Ref: ref("b"), Definition: "resize", Parameters: map[string]string{"size": "64", "other": "x"}}); refused != "" {
		t.Fatal(refused)
	}
	job = c.job("b")
	if main := job.Spec.Template.Spec.Containers[0]; !slices.Equal(main.Args, []string{"--size", "64", "$(HOME)"}) || *job.Spec.BackoffLimit != 4 || job.Spec.ActiveDeadlineSeconds != nil || job.Labels["team"] != "a" {
		t.Errorf("it is %+v", job)
	}
}

func TestClusterJobsThatAreRefused(t *testing.T) {
	c := newJobCluster(t, "shop")
	c.define("resize", nil)
	c.define("private", func(d *batchv1.CronJob) { d.Labels = nil })
	c.define("short", func(d *batchv1.CronJob) { d.Spec.JobTemplate.Spec.TTLSecondsAfterFinished = new(int32(10)) })
	if err := c.live.Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "theirs"}}); err != nil {
		t.Fatal(err)
	}
	size := map[string]string{"size": "1"}
	for _, row := range []struct {
		q    clusterjob.Job
		want string
	}{
		{clusterjob.Job{Ref: ref("x"), Definition: "none"}, "there is no job definition none in the namespace shop"},
		{clusterjob.Job{Ref: ref("x"), Definition: "private"}, `weir.dev/job-definition: "true"`},
		{clusterjob.Job{Ref: ref("x"), Definition: "short"}, "ttlSecondsAfterFinished must be 300"},
		{clusterjob.Job{Ref: ref("x"), Definition: "resize"}, "Ref::size in the command has no value"},
		{clusterjob.Job{Ref: ref("x"), Definition: "resize", Parameters: size, CPU: "much"}, `"much" is no amount of cpu`},
		{clusterjob.Job{Ref: ref("theirs"), Definition: "resize", Parameters: size}, "not of this execution"},
		{clusterjob.Job{Ref: clusterjob.Ref{Namespace: "other", Name: "x"}, Definition: "resize"}, "controller.watchNamespaces"},
	} {
		if _, refused := c.ask(clusterjob.AskRun, row.q); !strings.HasPrefix(refused, clusterjob.CodeClient) || !strings.Contains(refused, row.want) {
			t.Errorf("%+v: %q, want %q", row.q, refused, row.want)
		}
	}
	if c.job("x") != nil {
		t.Error("a Job was made all the same")
	}
	if _, refused := c.ask(clusterjob.AskTerminate, ref("theirs")); refused != "" || c.job("theirs") == nil {
		t.Errorf("somebody else's Job was deleted; %s", refused)
	}
	if _, refused := c.ask("report", ref("x")); !strings.HasPrefix(refused, "not now") {
		t.Error("what is no question for a Job:", refused)
	}
	for code, notNow := range map[int32]bool{http.StatusForbidden: false, http.StatusUnprocessableEntity: false, http.StatusTooManyRequests: true, http.StatusConflict: true, http.StatusInternalServerError: true} {
		_, refused := errors.AsType[*stream.RefusedError](refusedBy(&apierrors.StatusError{ErrStatus: metav1.Status{Code: code}}, "create"))
		if refused == notNow {
			t.Errorf("%d is refused: %v", code, refused)
		}
	}
}

// TestClusterJobToItsEnd: a Job that is asked for again is the same, whatever became of its definition and whether or not the cache
// has it yet.
func TestClusterJobToItsEnd(t *testing.T) {
	c := newJobCluster(t)
	c.define("resize", nil)
	q := clusterjob.Job{Ref: ref("a"), Definition: "resize", Parameters: map[string]string{"size": "1"}}
	run := func() {
		t.Helper()
		if _, refused := c.ask(clusterjob.AskRun, q); refused != "" {
			t.Fatal(refused)
		}
	}
	run()
	run()
	c.stale = true
	run()
	if s, refused := c.ask(clusterjob.AskDescribe, q.Ref); s.Status != clusterjob.Running || s.Image != "resize:1" {
		t.Errorf("a Job that the cache has not yet: %+v %s", s, refused)
	}
	if err := c.live.Delete(t.Context(), &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "resize"}}); err != nil {
		t.Fatal(err)
	}
	run()
	c.stale = false

	at := metav1.Now().Rfc3339Copy()
	end := func(name string, kind batchv1.JobConditionType) {
		t.Helper()
		job := c.job(name)
		job.Status = batchv1.JobStatus{StartTime: &at, Conditions: []batchv1.JobCondition{
			{Type: batchv1.JobFailureTarget, Status: corev1.ConditionTrue},
			{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: at, Reason: "BackoffLimitExceeded", Message: "it failed"},
		}}
		if err := c.live.Status().Update(t.Context(), job); err != nil {
			t.Fatal(err)
		}
	}
	end("a", batchv1.JobFailed)
	want := clusterjob.State{Status: clusterjob.Failed, Reason: "BackoffLimitExceeded: it failed", Image: "resize:1", Started: at.UnixMilli(), Stopped: at.UnixMilli()}
	s, refused := c.ask(clusterjob.AskDescribe, q.Ref)
	want.Created = s.Created
	if s != want {
		t.Errorf("%+v %s, want %+v", s, refused, want)
	}
	end("a", batchv1.JobComplete)
	if s, _ := c.ask(clusterjob.AskDescribe, q.Ref); s.Status != clusterjob.Succeeded || s.Reason != "" {
		t.Errorf("%+v", s)
	}
	if _, refused := c.ask(clusterjob.AskTerminate, q.Ref); refused != "" || c.job("a") == nil {
		t.Errorf("a Job that has ended was deleted, with its logs; %s", refused)
	}
	if err := c.live.Delete(t.Context(), c.job("a")); err != nil {
		t.Fatal(err)
	}
	if _, refused := c.ask(clusterjob.AskDescribe, q.Ref); !strings.HasPrefix(refused, clusterjob.CodeGone) {
		t.Error("a Job that is gone:", refused)
	}
}

// TestClusterJobIsNotMadeOnceTerminated: neither by a question that came late, of an owner that was asleep, nor by one that was being
// answered.
func TestClusterJobIsNotMadeOnceTerminated(t *testing.T) {
	c := newJobCluster(t)
	c.define("resize", nil)
	q := clusterjob.Job{Ref: ref("a"), Definition: "resize", Parameters: map[string]string{"size": "1"}}
	terminate := func() {
		if _, refused := c.ask(clusterjob.AskTerminate, q.Ref); refused != "" {
			t.Error(refused)
		}
	}
	c.afterwards = terminate
	if _, refused := c.ask(clusterjob.AskRun, q); refused != "" || c.job("a") != nil {
		t.Errorf("the Job %v was made in the end; %s", c.job("a"), refused)
	}
	if _, refused := c.ask(clusterjob.AskRun, q); !strings.HasPrefix(refused, clusterjob.CodeTerminated) || c.job("a") != nil {
		t.Error("the late question:", refused)
	}
	for n := range maxTerminated + 10 {
		q.Name = fmt.Sprint(n)
		terminate()
	}
	if n := len(c.jobs.terminated); n != maxTerminated || !c.jobs.wasTerminated(q.Ref) || c.jobs.wasTerminated(ref("a")) {
		t.Errorf("%d are known, want the last %d", n, maxTerminated)
	}
}

// TestClusterJobsAreAsked: by NATS, and what the gateway may ask for does nothing.
func TestClusterJobsAreAsked(t *testing.T) {
	server := testkit.NATS(t)
	c := newJobCluster(t)
	c.define("resize", nil)
	c.jobs.conn = testkit.Conn(t, server)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.jobs.run(ctx) }()
	asker := testkit.Conn(t, server)
	body, err := json.Marshal(clusterjob.Job{Ref: ref("a"), Definition: "resize", Parameters: map[string]string{"size": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the Job is made", func() bool {
		_, err := asker.Ask(t.Context(), stream.ClusterJobs(), clusterjob.AskRun, body)
		return err == nil
	})
	if c.job("a") == nil {
		t.Error("there is no Job")
	}
	for _, what := range []string{"report", "take"} {
		if _, err := asker.Ask(t.Context(), stream.ClusterJobs(), what, body); !errors.Is(err, stream.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := asker.Ask(t.Context(), stream.ClusterJobs(), clusterjob.AskRun, body); !errors.Is(err, stream.ErrUnavailable) {
		t.Error("after its end:", err)
	}
}
