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

// review answers the API server's question whether a resource is to be taken: not one that has mistakes by itself or beside the
// others, for which its status would say Invalid. What it names and is not there is only a warning, as it may be the next to come.
//
// Every replica answers, from its caches. What it can't know, such as whether NATS has room, the status says later.
type review struct {
	client  client.Reader
	release Release
	conn    stream.Catalogs
	log     *slog.Logger

	mu     sync.Mutex // reviews are one after the other
	memory manifest.Memory
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
	res, err := list(ctx, v.client)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	res.put(o)
	holders, ours := v.release.held(res.all())
	if ok, _ := v.release.serves(o, holders, ours); !ok {
		return admission.Allowed("")
	}
	res.keep(func(o withStatus) bool {
		ok, other := v.release.serves(o, holders, ours)
		if !ok {
			res.leave(o, v.release.elsewhere(o, other))
		}
		return ok
	})
	asked, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	former, err := v.conn.Catalog(asked)
	if err != nil {
		v.log.WarnContext(ctx, "a resource was taken without a review: what is published can't be read", "kind", req.Kind.Kind, "namespace", req.Namespace, "resource", req.Name, "error", err)
		return admission.Allowed("").WithWarnings("Weir could not review it, as NATS can't be reached: its status will say whether it is valid")
	}
	published := former.Catalog
	if !v.release.owns(former) {
		published = new(catalog.Catalog) // of another release: the status says what that means
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	mistakes, missing := v.memory.Review(res.objects(), published, refTo(o))
	if len(mistakes) > 0 {
		return admission.Denied(strings.Join(append(mistakes, missing...), "\n"))
	}
	return admission.Allowed("").WithWarnings(missing...)
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
