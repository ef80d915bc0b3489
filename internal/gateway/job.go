package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/sign"
)

// job stores the request as a job and answers 202 with its address once it is durable. A client that prefers to wait
// gets the result itself, if it is there in time. input is what was uploaded instead of a body; nil: nothing.
func (r *route) job(w http.ResponseWriter, req *http.Request, body []byte, input *upload, now time.Time) {
	ring := r.g.ring()
	if len(ring.Keys) == 0 {
		writeProblem(w, req, problemOfJob(job.ErrNoKeys))
		return
	}
	rec := record.Record{Job: true}
	if text := req.Header.Get(headerFeed); text != "" {
		feed, err := job.ParseFeed(text, ring)
		if err != nil {
			writeProblem(w, req, problemOfJob(err))
			return
		}
		rec.Client = feed.Client()
	}
	keyed, ok := r.fill(&rec, w, req, body, now)
	if !ok {
		return
	}
	if input != nil {
		rec.Input, rec.ContentType = input.Input, input.contentType
	}
	prefer := readPreferences(req.Header)
	var watch *job.Watch
	if prefer.wait > 0 {
		watch = r.g.hub.Watch(r.queue, rec.ID) // before anything can happen
		defer watch.Close()
	}
	id := job.NewID(r.queue, &rec, now)
	state := &job.State{Status: job.Queued, Created: id.Created}
	var err error
	if keyed {
		id, state, err = r.submitOnce(req.Context(), &rec)
	} else {
		err = r.append(req.Context(), &rec)
	}
	if err != nil {
		writeProblem(w, req, problemOfJob(err))
		return
	}
	text, err := id.Text(ring)
	if err != nil {
		writeProblem(w, req, problemOfJob(err))
		return
	}
	h := w.Header()
	h.Set("Location", jobsPath+text)
	h.Set(headerRequestID, requestID(req.Header, rec.ID.String))
	prefer.applied(h)
	j := &jobRequest{g: r.g, id: id, text: text, maxAge: r.maxAge}
	var result []byte
	if watch != nil {
		state, result, err = j.await(req.Context(), watch, state, prefer.wait, func(s *job.State) bool { return s.Status.Final() })
		if err == nil && state.Status.Final() {
			j.writeResult(w, req, state, result)
			return
		}
		// That the state can't be read takes nothing back: the request is stored.
	}
	j.writeState(w, http.StatusAccepted, state, nil)
}

// errKeyReused means that the idempotency key is another request's.
var errKeyReused = errors.New("gateway: the idempotency key was used for another request")

// submitOnce is for requests with an idempotency key: the same one gives the same job.
func (r *route) submitOnce(ctx context.Context, rec *record.Record) (job.ID, *job.State, error) {
	id, fingerprint, fresh, err := job.Submit(ctx, r.g.cfg.Conn, r.queue, rec)
	if err != nil {
		return id, nil, err
	}
	if fingerprint != job.Fingerprint(rec) {
		return id, nil, errKeyReused
	}
	state := &job.State{Status: job.Queued, Created: id.Created}
	if !fresh {
		if state, _, err = job.Get(ctx, r.g.cfg.Conn, id, r.maxAge, rec.Time); err != nil {
			return id, nil, err
		}
	}
	return id, state, nil
}

// ring returns the signing keys; none before they have come.
func (g *Gateway) ring() sign.Ring {
	if ring := g.keys.Load(); ring != nil {
		return *ring
	}
	return sign.Ring{}
}

// problemOfJob says what a failed submission or look-up of a job means.
func problemOfJob(err error) problem {
	switch {
	case errors.Is(err, job.ErrNoKeys):
		return problem{
			Status: http.StatusServiceUnavailable, Type: typeUnavailable, Title: "Starting", retryAfter: 1,
			Detail: "This gateway has no signing keys yet. Try again.",
		}
	case errors.Is(err, job.ErrNoID):
		return problem{Status: http.StatusNotFound, Type: typeNoJob, Title: "No such job", Detail: "No job was ever given this id, or its queue was deleted."}
	case errors.Is(err, job.ErrNoFeed):
		return problem{Status: http.StatusNotFound, Type: typeNoFeed, Title: "No such feed", Detail: "No feed was ever given this id. POST /feeds gives one."}
	case errors.Is(err, job.ErrNoToken):
		return problem{Status: http.StatusNotFound, Type: typeNoCallback, Title: "No such callback", Detail: "No attempt at a job was ever given this address, or its queue was deleted."}
	case errors.Is(err, blob.ErrFull):
		return problem{
			Status: http.StatusServiceUnavailable, Type: typeObjectsFull, Title: "No room for objects", retryAfter: 5,
			Detail: "Nothing was stored. Try again when objects have expired, or raise objects.maxBytes of the queue.",
		}
	case errors.Is(err, blob.ErrTooLarge):
		return problem{
			Status: http.StatusRequestEntityTooLarge, Type: typeTooLarge, Title: "Body too large", Detail: "It is larger than half of objects.maxBytes of the queue.",
		}
	case errors.Is(err, job.ErrOver):
		return problem{
			Status: http.StatusConflict, Type: typeAttemptOver, Title: "The attempt is over",
			Detail: "The job has ended or was cancelled, or another attempt is made because this one was silent for too long. Stop working at it.",
		}
	case errors.Is(err, errKeyReused):
		return problem{
			Status: http.StatusUnprocessableEntity, Type: typeKeyReused, Title: "The idempotency key is in use",
			Detail: "Another request came with this Idempotency-Key. Give each request a key of its own.",
		}
	}
	return problemOf(err)
}
