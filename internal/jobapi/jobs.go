package jobapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// pollAfter is what clients are told to wait before they ask again, in seconds.
const pollAfter = "1"

// job makes a handler of f for the job that the path names.
func (a *API) job(f func(j *Request, w http.ResponseWriter, req *http.Request)) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, req *http.Request, _ []byte) {
		w.Header().Set("Cache-Control", "private, no-cache") // a cache must revalidate before it reuses the answer
		ring, text, q := a.Ring(), req.PathValue("id"), a.queues.Load()
		id, err := job.ID{}, job.ErrNoKeys
		if len(ring.Keys) > 0 {
			id, err = job.ParseID(text, ring, q.keys)
		}
		if err != nil {
			problemOf(err, "").Write(w)
			return
		}
		about(req.Context(), id.Queue, id.Record)
		f(a.About(id, text, q.maxAges[id.Queue]), w, req)
	}
}

// About returns a request about the job of an id; text is the id as clients have it.
func (a *API) About(id job.ID, text string, maxAge time.Duration) *Request {
	return &Request{a: a, id: id, text: text, maxAge: maxAge}
}

// Request is a request about one job.
type Request struct {
	a      *API
	id     job.ID
	text   string        // of id
	maxAge time.Duration // of its queue
}

// get answers with the state. With Prefer: wait it waits for another state than the client's (If-None-Match), or
// without that than the current one.
func (j *Request) get(w http.ResponseWriter, req *http.Request) {
	state, result, ok := j.look(w, req, true)
	if !ok {
		return
	}
	h := w.Header()
	h.Set("Etag", etag(state))
	if known(req, state) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	j.WriteState(w, http.StatusOK, state, result)
}

// result answers with the result, or says why there is none.
func (j *Request) result(w http.ResponseWriter, req *http.Request) {
	state, body, ok := j.look(w, req, false)
	if !ok {
		return
	}
	if !state.Status.Final() {
		j.WriteState(w, http.StatusAccepted, state, nil)
		return
	}
	h := w.Header()
	h.Set("Etag", etag(state))
	if state.Status == job.Succeeded && known(req, state) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	j.WriteResult(w, req, state, body)
}

// cancel gives the job its final state, if it has none.
func (j *Request) cancel(w http.ResponseWriter, req *http.Request) {
	state, err := job.Cancel(context.WithoutCancel(req.Context()), j.a.cfg.Conn, j.id, j.maxAge, time.Now())
	switch {
	case errors.Is(err, job.ErrFinal) && state.Status == job.Cancelled, err == nil:
		w.Header().Set("Etag", etag(state))
		j.WriteState(w, http.StatusOK, state, nil)
	case errors.Is(err, job.ErrFinal):
		problem.Problem{
			Status: http.StatusConflict, Type: problem.JobEnded, Title: "The job has ended",
			Detail: "It can't be cancelled any more: it is " + string(state.Status) + ".",
		}.Write(w)
	default:
		problemOf(err, "The job may or may not have been cancelled. Try again.").Write(w)
	}
}

// look reads the state and waits as the client prefers: for any change, or for the end. ok is false when it can't;
// then it has answered.
func (j *Request) look(w http.ResponseWriter, req *http.Request, anyChange bool) (*job.State, []byte, bool) {
	prefer := ReadPreferences(req.Header)
	prefer.async = false // respond-async has no meaning here
	var watch *job.Watch
	if prefer.Wait > 0 {
		prefer.Applied(w.Header())
		watch = j.a.hub.Watch(j.id.Queue, j.id.Key())
		defer watch.Close()
	}
	state, body, err := job.Get(context.WithoutCancel(req.Context()), j.a.cfg.Conn, j.id, j.maxAge, time.Now())
	if err == nil && watch != nil && !state.Status.Final() && (!anyChange || req.Header.Get("If-None-Match") == "" || known(req, state)) {
		first := state.Version()
		state, body, err = j.Await(req.Context(), watch, state, prefer.Wait, func(s *job.State) bool {
			return s.Status.Final() || anyChange && s.Version() != first
		})
	}
	if err != nil {
		problemOf(err, "The job's state can't be read now. Try again.").Write(w)
		return nil, nil, false
	}
	return state, body, true
}

// Await takes the state that it is told, or reads it whenever it may have changed, until it is enough, the wait is over, the
// drain begins or ctx ends: net/http ends it too when a client has sent all and closes its side, but reads on.
func (j *Request) Await(ctx context.Context, watch *job.Watch, state *job.State, wait time.Duration, enough func(*job.State) bool) (*job.State, []byte, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var again <-chan time.Time
	if j.a.cfg.Conn.Routed() {
		again = time.After(job.LookAgain)
	}
	gone := ctx.Done()
	ctx = context.WithoutCancel(ctx) // each look has a bound of its own
	var body []byte
	whole, version := false, state.Version()
wait:
	for !enough(state) {
		select {
		case <-watch.Changed():
			if told := watch.Latest(); told != nil && told.Version() > version {
				version = told.Version()
				if body, whole = told.Told(); whole || !told.Status.Final() {
					state = told
					continue
				}
			}
		case <-again:
		case <-timer.C:
			break wait
		case <-j.a.drain.Done():
			break wait
		case <-gone:
			break wait
		}
		s, b, err := j.since(ctx, version)
		switch {
		case errors.Is(err, errLags) && state.Version() >= version: // what it was told is newer
			again = time.After(job.LookAgain)
			continue
		case err != nil:
			return state, body, err
		}
		state, body, whole, version = s, b, true, s.Version()
	}
	if !whole && state.Status == job.Succeeded { // it had ended before the wait
		s, b, err := j.since(ctx, version)
		if err != nil {
			return state, body, err
		}
		return s, b, nil
	}
	return state, body, nil
}

var errLags = fmt.Errorf("%w: a replica has only an older state of the job", stream.ErrUnavailable)

// since reads a state that is no older than version, which was told.
func (j *Request) since(ctx context.Context, version uint64) (*job.State, []byte, error) {
	s, body, err := job.GetSince(ctx, j.a.cfg.Conn, j.id, j.maxAge, version)
	if err == nil && s.Version() < version && s.Status != job.Expired {
		err = errLags
	}
	return s, body, err
}

// WriteState answers with the state.
func (j *Request) WriteState(w http.ResponseWriter, status int, s *job.State, result []byte) {
	h := w.Header()
	if !s.Status.Final() {
		h.Set("Retry-After", pollAfter)
	}
	body, err := json.Marshal(NewDocument(j.a.cfg.Base, j.text, s, result))
	if err != nil {
		body = []byte(`{}`) // plain values always marshal
	}
	writeJSON(w, status, body)
}

// WriteResult answers for a job that has ended.
func (j *Request) WriteResult(w http.ResponseWriter, req *http.Request, s *job.State, body []byte) {
	switch s.Status {
	case job.Succeeded:
		h := w.Header()
		if s.Result.Object != "" {
			j.redirect(w, req, s.Result)
			return
		}
		contentType := s.Result.ContentType
		if contentType == "" {
			contentType = blob.DefaultContentType
		}
		h.Set("Content-Type", contentType)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(body) //nolint:gosec // the function's own answer, as of a synchronous route
	case job.Failed:
		LatestProblem(s).Write(w)
	case job.Cancelled:
		problem.Problem{
			Status: http.StatusConflict, Type: problem.JobCancelled, Title: "The job was cancelled", Detail: "It has no result. Submit the request anew.",
		}.Write(w)
	default:
		problem.Problem{
			Status: http.StatusGone, Type: problem.JobExpired, Title: "The job has expired",
			Detail: "Its result is kept no longer, or it never came to be done. Raise results.maxAge of its queue to keep results for longer.",
		}.Write(w)
	}
}

func etag(s *job.State) string { return `"` + Version(s) + `"` }

// known reports whether the client has this state (RFC 9110, section 13.1.2).
func known(req *http.Request, s *job.State) bool {
	for _, line := range req.Header.Values("If-None-Match") {
		for tag := range strings.SplitSeq(line, ",") {
			if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == etag(s) || tag == "*" {
				return true
			}
		}
	}
	return false
}

// Watch begins to watch a job for changes, before it is stored.
func (a *API) Watch(queue catalog.Key, r *record.Record) *job.Watch {
	return a.hub.Watch(queue, stream.KeyOf(r))
}
