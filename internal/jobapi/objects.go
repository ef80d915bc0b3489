package jobapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/problem"
)

// resultExpiry is how long after signing a download may begin.
const resultExpiry = 15 * time.Minute

// redirect redirects to a result that is an object.
func (j *Request) redirect(w http.ResponseWriter, req *http.Request, r *job.Result) {
	p, err := j.a.cfg.Objects.PresignGet(req.Context(), j.id.Queue, r.Object, resultExpiry)
	if err != nil {
		j.a.objectProblem(w, req, err)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store") // the address expires
	h.Set("Location", p.URL)
	w.WriteHeader(http.StatusSeeOther)
}

// getObject serves the object of a pre-signed URL, for a store in NATS.
func (a *API) getObject(w http.ResponseWriter, req *http.Request, _ []byte) {
	permit, ok := a.permit(w, req)
	if !ok {
		return
	}
	done, ok := a.transfer(w, &a.transfers)
	if !ok {
		return
	}
	defer done()
	// Its pace bounds it; net/http ends the request's context also when a client has closed its side, and reads on.
	o, err := a.cfg.Objects.Open(context.WithoutCancel(req.Context()), permit.Queue, permit.Key)
	if err != nil {
		a.objectProblem(w, req, err)
		return
	}
	defer func() { _ = o.Close() }()
	if err := o.Write(&sender{w, http.NewResponseController(w), newPace()}, req); err != nil {
		a.cfg.Log.InfoContext(req.Context(), "an object was not sent to its end", "queue", permit.Queue.String(), "object", permit.Key, "error", err)
		panic(http.ErrAbortHandler) // the client must not take the part that it has for the whole
	}
}

// putObject stores the body as the object of a pre-signed URL, for a store in NATS.
func (a *API) putObject(w http.ResponseWriter, req *http.Request, _ []byte) {
	permit, ok := a.permit(w, req)
	if !ok {
		return
	}
	body, done, ok := a.receive(w, req, &a.transfers)
	if !ok {
		return
	}
	defer done()
	info, err := a.cfg.Objects.Put(context.WithoutCancel(req.Context()), permit.Queue, permit.Key, permit.ContentType, body, permit.Size)
	switch {
	case body.failed() != nil:
		BadBody().Write(w)
	case err != nil:
		a.objectProblem(w, req, err)
	default:
		w.Header().Set("Etag", `"`+info.ETag+`"`)
		w.WriteHeader(http.StatusOK)
	}
}

// permit checks the URL. ok is false when it doesn't permit the request; then it has answered.
func (a *API) permit(w http.ResponseWriter, req *http.Request) (permit blob.Permit, ok bool) {
	ring := a.Ring()
	if len(ring.Keys) == 0 {
		problemOf(job.ErrNoKeys, "").Write(w)
		return permit, false
	}
	permit, err := blob.ParsePermit(req.PathValue("permit"), ring, time.Now())
	if err == nil {
		err = permit.Check(req)
	}
	if err == nil {
		if _, there := a.queues.Load().maxAges[permit.Queue]; !there {
			err = blob.ErrNoPermit // the queue was deleted
		}
	}
	if err != nil {
		a.objectProblem(w, req, err)
	}
	return permit, err == nil
}

// objectProblem answers with the problem of an error of the store.
func (a *API) objectProblem(w http.ResponseWriter, req *http.Request, err error) {
	ProblemOfObject(req.Context(), err, a.cfg.Log, req.Pattern).Write(w)
}

// ProblemOfObject maps an error of the store to a problem. An unknown error is logged with about and the trace of ctx.
func ProblemOfObject(ctx context.Context, err error, log *slog.Logger, about string) problem.Problem {
	switch {
	case errors.Is(err, blob.ErrLength), errors.Is(err, blob.ErrContentType):
		return BadUpload("Content-Length and Content-Type must be those that were given with the URL.")
	case errors.Is(err, blob.ErrNoPermit), errors.Is(err, blob.ErrMethod):
		return problem.Problem{Status: http.StatusNotFound, Type: problem.NoObject, Title: "No such object", Detail: "This address was never given, for this method, or its queue was deleted."}
	case errors.Is(err, blob.ErrExpired):
		return problem.Problem{Status: http.StatusForbidden, Type: problem.URLExpired, Title: "The address has expired", Detail: "Ask for another one where you got it: at the job's result, or where uploads are asked for."}
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrGone):
		return problem.Problem{Status: http.StatusGone, Type: problem.ObjectGone, Title: "The object is gone", Detail: "It has expired. Raise results.maxAge of its queue to keep objects for longer."}
	case errors.Is(err, blob.ErrNoKeys):
		err = job.ErrNoKeys
	}
	if p, ok := ProblemOf(err); ok {
		return p
	}
	log.WarnContext(ctx, "objects can't be had", "path", about, "error", err)
	return problem.NotNow("Objects are not available", "Try again; the gateway's log says more.", time.Second)
}

// BadUpload is the problem of an upload that is refused.
func BadUpload(detail string) problem.Problem {
	return problem.Problem{Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "Bad upload", Detail: detail}
}
