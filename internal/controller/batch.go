package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/weir-dev/weir/internal/clusterjob"
	"github.com/weir-dev/weir/internal/stream"
)

// Labels and annotations of job definitions and of the Jobs that are made of them.
const (
	// labelDefinition is what a CronJob has that state machines of its namespace may run: whoever may write a machine could
	// otherwise run each with arguments of their own, as the service account that it has.
	labelDefinition = "weir.dev/job-definition"
	labelManager    = "app.kubernetes.io/managed-by"
	byWeir          = "weir" // labelManager's
	// Annotations: neither an ARN nor the name of a state is a label's value.
	annotationExecution = "weir.dev/execution"
	annotationState     = "weir.dev/state"
)

const (
	// jobTimeout is of one answer: those who ask have given up by then.
	jobTimeout = 10 * time.Second
	// defaultJobTTL is how long a Job is kept after its end if its definition doesn't say: an orchestrator that was away for a night
	// still finds how it ended. minJobTTL is the least that a definition may say.
	defaultJobTTL = 24 * time.Hour
	minJobTTL     = 5 * time.Minute
	// maxTerminated is how many of the last Jobs that were terminated are known by name.
	maxTerminated = 1024
	// serveAgain is the wait after the questions could not be subscribed to.
	serveAgain = time.Second
)

// clusterJobs runs Kubernetes Jobs for the orchestrators (package clusterjob). It remembers nothing that the cluster doesn't, but the
// last Jobs that were terminated: a question to run one may come after that, of an owner that was asleep.
type clusterJobs struct {
	client     client.Client // reads of the cache
	live       client.Reader // of the API server
	conn       Streams
	namespaces []string // that are watched; none are all
	log        *slog.Logger

	mu         sync.Mutex
	terminated []client.ObjectKey
}

func newClusterJobs(c client.Client, live client.Reader, cfg Config) *clusterJobs {
	return &clusterJobs{client: c, live: live, conn: cfg.Conn, namespaces: cfg.Namespaces, log: cfg.Log}
}

// cachedForJobs keeps the Jobs and CronJobs of others out of the cache.
func cachedForJobs() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&batchv1.Job{}:     {Label: labels.SelectorFromSet(labels.Set{labelManager: byWeir})},
		&batchv1.CronJob{}: {Label: labels.SelectorFromSet(labels.Set{labelDefinition: "true"})},
	}
}

// run answers until ctx ends.
func (j *clusterJobs) run(ctx context.Context) error {
	for j.conn.WaitUp(ctx) == nil {
		live := j.conn.Live()
		stop, err := j.conn.ServeAsks(stream.ClusterJobs(), j.answer)
		if err != nil {
			j.log.Warn("questions for Kubernetes Jobs are not heard; trying again", "error", err)
			select {
			case <-time.After(serveAgain):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case <-live.Done():
		case <-ctx.Done():
		}
		stop()
	}
	return nil
}

// answer answers a question. An error that is no RefusedError is "not now": it is asked again.
func (j *clusterJobs) answer(ctx context.Context, what string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	var q clusterjob.Job // its Ref is all of the other questions
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fmt.Errorf("the question can't be read: %w", err)
	}
	if len(j.namespaces) > 0 && !slices.Contains(j.namespaces, q.Namespace) {
		return nil, notServed("the controller does not watch the namespace %s (controller.watchNamespaces)", q.Namespace)
	}
	var err error
	var answer []byte
	switch what {
	case clusterjob.AskRun:
		err = j.submit(ctx, q)
	case clusterjob.AskDescribe:
		answer, err = j.describe(ctx, q.Ref)
	case clusterjob.AskTerminate:
		err = j.terminate(ctx, q.Ref)
	default:
		err = fmt.Errorf("%q is unknown", what)
	}
	if _, refused := errors.AsType[*stream.RefusedError](err); err != nil && !refused && ctx.Err() == nil {
		j.log.Info("a question for a Kubernetes Job has no answer now; it is asked again", "question", what, "namespace", q.Namespace, "job", q.Name, "error", err)
	}
	return answer, err
}

func notServed(format string, args ...any) error {
	return &stream.RefusedError{Code: clusterjob.CodeClient, Message: fmt.Sprintf(format, args...)}
}

// refusedBy is an error of the API server, refused if it says no to what it was asked and not that it can't do it now.
func refusedBy(err error, doing string) error {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if ok {
		code := status.ErrStatus.Code
		if code >= 400 && code < 500 && !slices.Contains([]int32{http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests}, code) {
			return notServed("%s: %s", doing, status.ErrStatus.Message)
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// get reads an object of the cache, or else of the API server: it may be newer than the cache is, or lack the label.
func (j *clusterJobs) get(ctx context.Context, k client.ObjectKey, into client.Object) error {
	err := j.client.Get(ctx, k, into)
	if apierrors.IsNotFound(err) {
		err = j.live.Get(ctx, k, into)
	}
	return err
}

// job reads the execution's Job. Nil is none: somebody else's is none either.
func (j *clusterJobs) job(ctx context.Context, ref clusterjob.Ref) (*batchv1.Job, error) {
	var job batchv1.Job
	err := j.get(ctx, refKey(ref), &job)
	if apierrors.IsNotFound(err) || err == nil && (job.Labels[labelManager] != byWeir || job.Annotations[annotationExecution] != ref.Execution) {
		return nil, nil //nolint:nilnil // as documented
	}
	if err != nil {
		return nil, refusedBy(err, "read the Job "+ref.Name)
	}
	return &job, nil
}

func refKey(ref clusterjob.Ref) client.ObjectKey {
	return client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}
}

// submit creates a Job, unless it is there already.
func (j *clusterJobs) submit(ctx context.Context, q clusterjob.Job) error {
	if j.wasTerminated(q.Ref) {
		return &stream.RefusedError{Code: clusterjob.CodeTerminated, Message: fmt.Sprintf("the Job %s was terminated", q.Name)}
	}
	job, err := j.made(ctx, q)
	if err == nil {
		err = j.client.Create(ctx, job)
	}
	if err != nil {
		there, lookErr := j.job(ctx, q.Ref) // made before the definition changed, or in the call before this one
		switch {
		case there != nil:
			return nil
		case lookErr != nil:
			return lookErr
		case apierrors.IsAlreadyExists(err):
			return notServed("there is a Job %s in the namespace %s already, which is not of this execution", q.Name, q.Namespace)
		}
		return refusedBy(err, "create the Job "+q.Name)
	}
	if j.wasTerminated(q.Ref) { // meanwhile
		return j.terminate(ctx, q.Ref)
	}
	return nil
}

// made is the Job of a question, which is not created yet.
func (j *clusterJobs) made(ctx context.Context, q clusterjob.Job) (*batchv1.Job, error) {
	var definition batchv1.CronJob
	err := j.get(ctx, client.ObjectKey{Namespace: q.Namespace, Name: q.Definition}, &definition)
	switch {
	case apierrors.IsNotFound(err):
		return nil, notServed("there is no job definition %s in the namespace %s: it is a CronJob of that name with the label %s: \"true\"", q.Definition, q.Namespace, labelDefinition)
	case err != nil:
		return nil, refusedBy(err, "read the CronJob "+q.Definition)
	case definition.Labels[labelDefinition] != "true":
		return nil, notServed("the CronJob %s of the namespace %s is no job definition: the label %s: \"true\" lets state machines run it, with arguments and variables of their own",
			q.Definition, q.Namespace, labelDefinition)
	}
	return jobOf(&definition, q)
}

// jobOf makes a Job of a definition, as kubectl create job --from does. But it has no owner: the CronJob's controller would take it for
// one of its own, and remove it by its history limits before its end was read.
func jobOf(definition *batchv1.CronJob, q clusterjob.Job) (*batchv1.Job, error) {
	template := definition.Spec.JobTemplate.DeepCopy()
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: q.Namespace, Name: q.Name, Labels: map[string]string{}, Annotations: map[string]string{}},
		Spec:       template.Spec,
	}
	for name := range q.Labels {
		if _, there := template.Labels[name]; there || strings.Contains(name, "/") {
			return nil, notServed("Tags: the label %s is for others to set: a tag has a name without / that the job definition %s has not", name, definition.Name)
		}
	}
	maps.Copy(job.Labels, template.Labels)
	maps.Copy(job.Labels, q.Labels)
	job.Labels[labelManager] = byWeir
	maps.Copy(job.Annotations, template.Annotations)
	job.Annotations[annotationExecution], job.Annotations[annotationState] = q.Execution, q.State

	switch ttl := job.Spec.TTLSecondsAfterFinished; {
	case ttl == nil:
		job.Spec.TTLSecondsAfterFinished = new(int32(defaultJobTTL / time.Second))
	case *ttl < int32(minJobTTL/time.Second):
		return nil, notServed("the job definition %s removes Jobs %d s after their end: its ttlSecondsAfterFinished must be %.0f at least, or how they ended may be gone before it is read",
			definition.Name, *ttl, minJobTTL.Seconds())
	}
	if q.Attempts > 0 {
		job.Spec.BackoffLimit = new(q.Attempts - 1)
	}
	if q.TimeoutSeconds > 0 {
		job.Spec.ActiveDeadlineSeconds = &q.TimeoutSeconds
	}
	if len(job.Spec.Template.Spec.Containers) == 0 {
		return nil, notServed("the job definition %s has no container", definition.Name)
	}
	return job, override(&job.Spec.Template.Spec.Containers[0], q)
}

// override has a container run as the question says.
func override(c *corev1.Container, q clusterjob.Job) error {
	if len(q.Arguments) > 0 {
		c.Args = slices.Clone(q.Arguments)
		for i, text := range c.Args {
			c.Args[i] = escaped(text)
		}
	}
	for _, texts := range [][]string{c.Command, c.Args} {
		if err := substitute(texts, q.Parameters); err != nil {
			return err
		}
	}
	for _, v := range q.Environment {
		given := corev1.EnvVar{Name: v.Name, Value: escaped(v.Value)}
		if i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == v.Name }); i >= 0 {
			c.Env[i] = given // in its place: those after it may refer to it
		} else {
			c.Env = append(c.Env, given)
		}
	}
	for name, text := range map[corev1.ResourceName]string{corev1.ResourceCPU: q.CPU, corev1.ResourceMemory: q.Memory} {
		if text == "" {
			continue
		}
		amount, err := resource.ParseQuantity(text)
		if err != nil {
			return notServed("ContainerOverrides.ResourceRequirements: %q is no amount of %s", text, name)
		}
		for _, list := range []*corev1.ResourceList{&c.Resources.Requests, &c.Resources.Limits} {
			if *list == nil {
				*list = corev1.ResourceList{}
			}
			(*list)[name] = amount
		}
	}
	return nil
}

var placeholder = regexp.MustCompile(`Ref::[A-Za-z0-9_-]+`)

// substitute replaces AWS's placeholders, Ref::NAME.
func substitute(texts []string, parameters map[string]string) (err error) {
	for i := range texts {
		texts[i] = placeholder.ReplaceAllStringFunc(texts[i], func(found string) string {
			v, ok := parameters[strings.TrimPrefix(found, "Ref::")]
			if !ok {
				err = notServed("%s in the command has no value: Parameters gives it one", found)
			}
			return escaped(v)
		})
	}
	return err
}

// escaped keeps Kubernetes from putting variables of the container, which may be secret, in the place of $(NAME).
func escaped(text string) string { return strings.ReplaceAll(text, "$", "$$") }

// describe is how a Job is.
func (j *clusterJobs) describe(ctx context.Context, ref clusterjob.Ref) ([]byte, error) {
	job, err := j.job(ctx, ref)
	if err != nil {
		return nil, err
	}
	if job == nil {
		return nil, &stream.RefusedError{Code: clusterjob.CodeGone, Message: fmt.Sprintf(
			"the Job %s of the namespace %s is not there any more: somebody has deleted it, or it had ended longer ago than its ttlSecondsAfterFinished", ref.Name, ref.Namespace)}
	}
	return json.Marshal(stateOf(job))
}

func stateOf(job *batchv1.Job) clusterjob.State {
	s := clusterjob.State{Status: clusterjob.Running, Created: job.CreationTimestamp.UnixMilli()}
	if c := job.Spec.Template.Spec.Containers; len(c) > 0 {
		s.Image = c[0].Image
	}
	if at := job.Status.StartTime; at != nil {
		s.Started = at.UnixMilli()
	}
	for _, c := range job.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete:
			s.Status, s.Stopped = clusterjob.Succeeded, c.LastTransitionTime.UnixMilli()
		case batchv1.JobFailed:
			s.Status, s.Stopped, s.Reason = clusterjob.Failed, c.LastTransitionTime.UnixMilli(), c.Reason
			if c.Message != "" {
				s.Reason += ": " + c.Message
			}
		}
	}
	return s
}

// terminate deletes a Job that has not ended, and its pods.
func (j *clusterJobs) terminate(ctx context.Context, ref clusterjob.Ref) error {
	j.mu.Lock()
	if !slices.Contains(j.terminated, refKey(ref)) {
		j.terminated = append(j.terminated[max(0, len(j.terminated)-maxTerminated+1):], refKey(ref))
	}
	j.mu.Unlock()
	job, err := j.job(ctx, ref)
	if err != nil || job == nil || stateOf(job).Status != clusterjob.Running {
		return err
	}
	err = j.client.Delete(ctx, job, client.PropagationPolicy(metav1.DeletePropagationBackground), client.Preconditions{UID: &job.UID})
	if err = client.IgnoreNotFound(err); err != nil {
		return refusedBy(err, "delete the Job "+ref.Name)
	}
	return nil
}

func (j *clusterJobs) wasTerminated(ref clusterjob.Ref) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Contains(j.terminated, refKey(ref))
}
