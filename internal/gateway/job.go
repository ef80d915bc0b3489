package gateway

import (
	"context"
	"errors"
	"net/http"

	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/ownpath"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
)

// headerFeed names the feed that gets the job's states.
const headerFeed = "Weir-Feed"

// job stores the request as a job and answers 202 with its address once it is durable. A client that prefers to wait
// gets the result itself, if the job ends in time. input is the upload that stands in for a body; nil if none.
func (x *exchange) job(input *upload) *problem.Problem {
	ring := x.g.jobs.Ring()
	if len(ring.Keys) == 0 {
		return new(problemOf(job.ErrNoKeys))
	}
	rec := record.Record{Job: true}
	if text := x.req.Header.Get(headerFeed); text != "" {
		feed, err := job.ParseFeed(text, ring)
		if err != nil {
			return new(problemOf(err))
		}
		rec.Client = feed.Client()
	}
	keyed, p := x.fill(&rec)
	if p != nil {
		return p
	}
	x.seen.id = rec.ID.String()
	if input != nil {
		rec.Input, rec.ContentType = input.Input, input.contentType
	}
	prefer := jobapi.ReadPreferences(x.req.Header)
	var watch *job.Watch
	if prefer.Wait > 0 {
		watch = x.g.jobs.Watch(x.queue, &rec) // before the job can change
		defer watch.Close()
	}
	id := job.NewID(x.queue, &rec, x.now)
	state := &job.State{Status: job.Queued, Created: id.Created}
	var err error
	if keyed {
		id, state, err = x.submitOnce(&rec)
	} else {
		if err = x.append(&rec); err == nil {
			x.g.metrics.submit(x.writer, x.queue)
		}
	}
	if err != nil {
		return new(problemOf(err))
	}
	rec.Body = nil
	x.release() // a request that waits holds no memory for its body
	text, err := id.Text(ring)
	if err != nil {
		return new(problemOf(err))
	}
	h := x.w.Header()
	// Pollers that know no more than a status follow Location until it answers other than 202; others ask for the status
	// at Operation-Location.
	h.Set("Operation-Location", x.g.cfg.Base.Of(ownpath.Jobs+text))
	h.Set("Location", x.g.cfg.Base.Of(ownpath.Jobs+text+"/result"))
	if h.Get(problem.HeaderRequestID) == "" {
		h.Set(problem.HeaderRequestID, rec.ID.String())
	}
	prefer.Applied(h)
	about := x.g.jobs.About(id, text, x.maxAge)
	if watch != nil {
		var result []byte
		state, result, err = about.Await(x.ctx(), watch, state, prefer.Wait, func(s *job.State) bool { return s.Status.Final() })
		if err == nil && state.Status.Final() {
			about.WriteResult(x.w, x.req, state, result)
			return nil
		}
		// Not an error of the request: it is stored, only its state can't be read.
	}
	about.WriteState(x.w, http.StatusAccepted, state, nil)
	return nil
}

// errKeyReused means that the idempotency key was used for another request.
var errKeyReused = errors.New("gateway: the idempotency key was used for another request")

// submitOnce submits a request with an idempotency key: a duplicate gets the job of the first one.
func (x *exchange) submitOnce(rec *record.Record) (job.ID, *job.State, error) {
	conn, ctx := x.g.cfg.Conn, context.WithoutCancel(x.ctx()) // a client may have closed its side, and read on
	id, fingerprint, fresh, err := job.Submit(ctx, conn, x.queue, rec)
	if err != nil {
		return id, nil, err
	}
	if fingerprint != job.Fingerprint(rec) {
		return id, nil, errKeyReused
	}
	state := &job.State{Status: job.Queued, Created: id.Created}
	if fresh {
		x.g.metrics.submit(x.writer, x.queue)
	} else {
		if state, _, err = job.Get(ctx, conn, id, x.maxAge, rec.Time); err != nil {
			return id, nil, err
		}
	}
	return id, state, nil
}
