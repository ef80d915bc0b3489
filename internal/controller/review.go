package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/manifest"
	"github.com/weir-dev/weir/internal/stream"
)

const (
	reviewPath = "/review"
	// reviewTimeout is of the question what is published: the API server waits for some seconds for the answer.
	reviewTimeout = 2 * time.Second
	// reviewedAtMost is how old that may be: many resources come at once.
	reviewedAtMost = time.Second
	// reviewAgainAfter is how much later mistakes are looked for again: a cache follows the API server.
	reviewAgainAfter = 300 * time.Millisecond
)

// Webhook is where the API server asks before it takes a resource.
type Webhook struct {
	Host string // empty: every address
	Port int
	// Certs is a folder with tls.crt and tls.key. They are read again when they change.
	Certs string
}

func (w *Webhook) server() webhook.Server {
	return webhook.NewServer(webhook.Options{Host: w.Host, Port: w.Port, CertDir: w.Certs})
}

// review answers the API server's question whether a resource is to be taken: not one that has mistakes by itself, or a route that
// is another's or not allowed, for which its status would say Invalid. What doesn't fit with other resources as they are is only a
// warning, as those may be the next to come or to change.
//
// Every replica answers, from its caches. What it can't know, such as whether NATS has room, the status says later. Where it can't
// review, it says so and takes the resource: only the API server's failurePolicy is to be in anybody's way.
type review struct {
	client  client.Reader
	release Release
	conn    stream.Catalogs
	log     *slog.Logger

	mu     sync.Mutex // reviews are one after the other
	memory manifest.Memory
	former *stream.PublishedCatalog // as of at
	at     time.Time
}

func newReview(c client.Reader, cfg Config) *review {
	return &review{
		client: c, release: cfg.Release, conn: cfg.Conn, log: cfg.Log,
		memory: manifest.Memory{OrchestratorURL: cfg.OrchestratorURL, AllowedRoutes: cfg.AllowedRoutes},
	}
}

// Handle implements admission.Handler.
func (v *review) Handle(ctx context.Context, req admission.Request) admission.Response {
	o, spec, err := decoded(req.Kind.Kind, req.Object.Raw)
	switch {
	case err != nil:
		return admission.Errored(http.StatusBadRequest, err)
	case !o.GetDeletionTimestamp().IsZero():
		return admission.Allowed("")
	}
	if req.Operation == admissionv1.Update {
		_, wasSpec, err := decoded(req.Kind.Kind, req.OldObject.Raw)
		if err != nil {
			return admission.Errored(http.StatusBadRequest, err)
		}
		if equality.Semantic.DeepEqual(spec, wasSpec) {
			return admission.Allowed("") // one that is invalid already can still get labels, or lose a finalizer
		}
	}
	mistakes, doubts, err := v.find(ctx, o)
	if err == nil && len(mistakes) > 0 { // the cache may not have yet what has just made room for it
		select {
		case <-time.After(reviewAgainAfter):
		case <-ctx.Done():
		}
		mistakes, doubts, err = v.find(ctx, o)
	}
	switch {
	case err != nil:
		v.log.WarnContext(ctx, "a resource was taken without a review", "kind", req.Kind.Kind, "namespace", req.Namespace, "resource", req.Name, "error", err)
		return admission.Allowed("").WithWarnings("Weir could not review it: its status will say whether it is valid. The reason: " + err.Error())
	case len(mistakes) > 0:
		return admission.Denied(strings.Join(append(mistakes, doubts...), "\n"))
	}
	return admission.Allowed("").WithWarnings(doubts...)
}

// find reviews o beside what there is. There is nothing to say of what another release serves.
func (v *review) find(ctx context.Context, o withStatus) (mistakes, doubts []string, err error) {
	res, err := list(ctx, v.client)
	if err != nil {
		return nil, nil, err
	}
	res.put(o)
	res.divide(v.release, func(_ withStatus, serves bool, _ string) bool { return serves })
	if _, not := res.elsewhere[refTo(o)]; not {
		return nil, nil, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.former == nil || time.Since(v.at) > reviewedAtMost {
		asked, cancel := context.WithTimeout(ctx, reviewTimeout)
		defer cancel()
		if v.former, err = v.conn.Catalog(asked); err != nil {
			v.former = nil
			return nil, nil, err
		}
		v.at = time.Now()
	}
	published := v.former.Catalog
	if !v.release.owns(v.former) {
		published = new(catalog.Catalog) // of another release: the status says what that means
	}
	mistakes, doubts = v.memory.Review(res.objects(), published, refTo(o))
	return mistakes, doubts, nil
}

// decoded returns a resource as the API server sends it, and its spec.
func decoded(kind string, raw []byte) (o withStatus, spec any, err error) {
	switch kind {
	case "API":
		a := new(v1alpha1.API)
		o, spec = a, &a.Spec
	case "Queue":
		q := new(v1alpha1.Queue)
		o, spec = q, &q.Spec
	case "EventSourceMapping":
		m := new(v1alpha1.EventSourceMapping)
		o, spec = m, &m.Spec
	case "StateMachine":
		m := new(v1alpha1.StateMachine)
		o, spec = m, &m.Spec
	default:
		return nil, nil, fmt.Errorf("%s is none of Weir's kinds", kind)
	}
	if err := json.Unmarshal(raw, o); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", kind, err)
	}
	return o, spec, nil
}

// put puts o in the place of what there is of its name, or beside the others.
func (res *resources) put(o withStatus) {
	switch o := o.(type) {
	case *v1alpha1.API:
		res.apis = append(kept(res.apis, func(a *v1alpha1.API) bool { return keyOf(a) != keyOf(o) }), *o)
	case *v1alpha1.Queue:
		res.queues = append(kept(res.queues, func(q *v1alpha1.Queue) bool { return keyOf(q) != keyOf(o) }), *o)
	case *v1alpha1.EventSourceMapping:
		res.mappings = append(kept(res.mappings, func(m *v1alpha1.EventSourceMapping) bool { return keyOf(m) != keyOf(o) }), *o)
	case *v1alpha1.StateMachine:
		res.machines = append(kept(res.machines, func(m *v1alpha1.StateMachine) bool { return keyOf(m) != keyOf(o) }), *o)
	}
}
