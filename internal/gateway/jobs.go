package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/job"
)

// What the gateway answers about jobs is below these; API routes can't have them (v1alpha1.Reserved).
const (
	jobsPath      = job.Path
	callbacksPath = "/callbacks/"
	objectsPath   = blob.TokenPath
	uploadsPath   = "/uploads"
	feedsPath     = job.FeedsPath
	newFeedPath   = "/feeds"
)

// headerFeed names the feed that a job is to be told to.
const headerFeed = "Weir-Feed"

// reserved is v1alpha1.Reserved without its import, of all but the probes. TestReserved holds the one to the other.
func reserved(path string) bool {
	return strings.HasPrefix(path, jobsPath) || strings.HasPrefix(path, callbacksPath) || strings.HasPrefix(path, objectsPath) ||
		strings.HasPrefix(path, feedsPath) || path == uploadsPath || path == newFeedPath
}

// pollAfter is what clients are told to wait before they ask again, in seconds.
const pollAfter = "1"

func (g *Gateway) ownMux() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(j *jobRequest, w http.ResponseWriter, req *http.Request)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
			t, text := g.table.Load(), req.PathValue("id")
			w.Header().Set(headerRequestID, requestID(req.Header, newRequestID))
			w.Header().Set("Cache-Control", "private, no-cache") // whoever keeps it asks before it uses it
			ring := g.ring()
			if len(ring.Keys) == 0 {
				writeProblem(w, req, problemOfJob(job.ErrNoKeys))
				return
			}
			id, err := job.ParseID(text, ring, t.jobs)
			if err != nil {
				writeProblem(w, req, problemOfJob(err))
				return
			}
			f(&jobRequest{g: g, id: id, text: text, maxAge: t.maxAges[id.Queue]}, w, req)
		})
	}
	handle("GET /jobs/{id}", (*jobRequest).get)
	handle("DELETE /jobs/{id}", (*jobRequest).cancel)
	handle("GET /jobs/{id}/result", (*jobRequest).result)
	mux.HandleFunc("POST "+callbacksPath+"{token}", g.callback)
	mux.HandleFunc("POST "+uploadsPath, g.upload)
	mux.HandleFunc("POST "+newFeedPath, g.newFeed)
	mux.HandleFunc("GET "+objectsPath+"{token}", g.getObject)
	mux.HandleFunc("PUT "+objectsPath+"{token}", g.putObject)
	if g.cfg.Realtime != nil {
		pass := g.realtime(g.cfg.Realtime)
		for _, path := range []string{jobsPath, jobsPath + "{id}/", feedsPath + "{id}/"} {
			mux.HandleFunc("GET "+path+"events", pass)
			mux.HandleFunc("GET "+path+"socket", pass)
		}
	}
	return mux
}

// newFeed gives a feed: POST /feeds. It stores nothing.
func (g *Gateway) newFeed(w http.ResponseWriter, req *http.Request) {
	text, err := job.NewFeed().Text(g.ring(), time.Now())
	if err != nil {
		writeProblem(w, req, problemOfJob(err))
		return
	}
	self := feedsPath + text
	h := w.Header()
	h.Set("Location", self)
	h.Set("Cache-Control", "no-store")
	h.Set(headerRequestID, requestID(req.Header, newRequestID))
	writeJSON(w, http.StatusCreated, `{"id":"`+text+`","links":{"events":"`+self+`/events","socket":"`+self+`/socket"}}`)
}

// jobRequest is a request about one job.
type jobRequest struct {
	g      *Gateway
	id     job.ID
	text   string        // of id
	maxAge time.Duration // of its queue
}

// get answers with the state. With Prefer: wait it waits for another one than the client knows by If-None-Match, or
// than there is.
func (j *jobRequest) get(w http.ResponseWriter, req *http.Request) {
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
	j.writeState(w, http.StatusOK, state, result)
}

// result answers with the result, or says why there is none.
func (j *jobRequest) result(w http.ResponseWriter, req *http.Request) {
	state, body, ok := j.look(w, req, false)
	if !ok {
		return
	}
	if !state.Status.Final() {
		j.writeState(w, http.StatusAccepted, state, nil)
		return
	}
	h := w.Header()
	h.Set("Etag", etag(state))
	if state.Status == job.Succeeded && known(req, state) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	j.writeResult(w, req, state, body)
}

// cancel gives the job its final state, if it has none.
func (j *jobRequest) cancel(w http.ResponseWriter, req *http.Request) {
	state, err := job.Cancel(req.Context(), j.g.cfg.Conn, j.id, j.maxAge, time.Now())
	switch {
	case errors.Is(err, job.ErrFinal) && state.Status == job.Cancelled, err == nil:
		w.Header().Set("Etag", etag(state))
		j.writeState(w, http.StatusOK, state, nil)
	case errors.Is(err, job.ErrFinal):
		writeProblem(w, req, problem{
			Status: http.StatusConflict, Type: typeJobEnded, Title: "The job has ended",
			Detail: "It can't be cancelled any more: it is " + string(state.Status) + ".",
		})
	default:
		p := problemOfJob(err)
		p.Detail = "The job may or may not have been cancelled. Try again."
		writeProblem(w, req, p)
	}
}

// look reads the state and waits as the client prefers: for any change, or for the end. ok is false when it can't,
// which is answered then.
func (j *jobRequest) look(w http.ResponseWriter, req *http.Request, anyChange bool) (*job.State, []byte, bool) {
	prefer := readPreferences(req.Header)
	prefer.async = false // there is nothing to respond to but at once
	var watch *job.Watch
	if prefer.wait > 0 {
		prefer.applied(w.Header())
		watch = j.g.hub.Watch(j.id.Queue, j.id.Record)
		defer watch.Close()
	}
	state, body, err := job.Get(req.Context(), j.g.cfg.Conn, j.id, j.maxAge, time.Now())
	if err == nil && watch != nil && !state.Status.Final() && (!anyChange || req.Header.Get("If-None-Match") == "" || known(req, state)) {
		first := state.Version()
		state, body, err = j.await(req.Context(), watch, state, prefer.wait, func(s *job.State) bool {
			return s.Status.Final() || anyChange && s.Version() != first
		})
	}
	if err != nil {
		p := problemOfJob(err)
		if p.Status == http.StatusServiceUnavailable {
			p.Detail = "The job's state can't be read now. Try again."
		}
		writeProblem(w, req, p)
		return nil, nil, false
	}
	return state, body, true
}

// await looks at the state whenever it may have changed, until it is enough or the wait is over; a gateway that drains
// lets nobody wait.
func (j *jobRequest) await(ctx context.Context, watch *job.Watch, state *job.State, wait time.Duration, enough func(*job.State) bool) (*job.State, []byte, error) {
	timer, again := time.NewTimer(wait), time.NewTimer(job.LookAgain)
	defer timer.Stop()
	defer again.Stop()
	var body []byte
	for !enough(state) {
		select {
		case <-watch.Changed():
		case <-again.C:
		case <-timer.C:
			return state, body, nil
		case <-j.g.drain.Done():
			return state, body, nil
		case <-ctx.Done():
			return state, body, context.Cause(ctx)
		}
		s, b, err := job.Get(ctx, j.g.cfg.Conn, j.id, j.maxAge, time.Now())
		if err != nil {
			return state, body, err
		}
		state, body = s, b
	}
	if body == nil && state.Status == job.Succeeded { // it had ended before the wait
		s, b, err := job.Get(ctx, j.g.cfg.Conn, j.id, j.maxAge, time.Now())
		if err != nil {
			return state, body, err
		}
		return s, b, nil
	}
	return state, body, nil
}

func (j *jobRequest) writeState(w http.ResponseWriter, status int, s *job.State, result []byte) {
	h := w.Header()
	if !s.Status.Final() {
		h.Set("Retry-After", pollAfter)
	}
	h["Content-Type"] = jsonContentType
	body, err := json.Marshal(job.NewDocument(j.text, s, result))
	if err != nil {
		body = []byte(`{}`) // plain values always marshal
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// writeResult answers for a job that has ended.
func (j *jobRequest) writeResult(w http.ResponseWriter, req *http.Request, s *job.State, body []byte) {
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
		writeProblem(w, req, problemOfFailure(s))
	case job.Cancelled:
		writeProblem(w, req, problem{
			Status: http.StatusConflict, Type: typeJobCancelled, Title: "The job was cancelled", Detail: "It has no result. Submit the request anew.",
		})
	default:
		writeProblem(w, req, problem{
			Status: http.StatusGone, Type: typeJobExpired, Title: "The job has expired",
			Detail: "Its result is kept no longer, or it never came to be done. Raise results.maxAge of its queue to keep results for longer.",
		})
	}
}

func problemOfFailure(s *job.State) problem {
	p := job.ProblemOf(s)
	return problem{Status: p.Status, Type: p.Type, Title: p.Title, Detail: p.Detail}
}

func etag(s *job.State) string { return `"` + job.Version(s) + `"` }

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
