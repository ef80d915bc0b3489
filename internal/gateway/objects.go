package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
)

// headerInput names what was uploaded instead of a body.
const headerInput = "Weir-Input"

const (
	// uploadExpiry is how long an upload may begin, resultExpiry a download.
	uploadExpiry = time.Hour
	resultExpiry = 15 * time.Minute
	// maxTransfers bounds the objects that clients send and get through this process at a time, and as many results that
	// functions report: each holds some MiB.
	maxTransfers = 32
	// transferTimeout is how long the other side of a transfer may give or take nothing. Over all, after as long, it must
	// give or take minTransferRate.
	transferTimeout = 30 * time.Second
	minTransferRate = 16 << 10 // bytes a second
	maxUploadAsked  = 8 << 10  // bytes of the question
)

// upload is an input as a record has it.
type upload struct {
	*record.Input
	contentType string
}

// uploadQuestion is what a client that wants to upload says.
type uploadQuestion struct {
	Method      string `json:"method"` // of the route; default POST
	Path        string `json:"path"`   // of the route
	Size        int64  `json:"size"`   // bytes
	ContentType string `json:"contentType"`
}

// uploadAnswer says where to.
type uploadAnswer struct {
	ID      string            `json:"id"` // for headerInput
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Expires time.Time         `json:"expires"`
}

// upload gives a pre-signed URL for the input of a job that is to be submitted: POST /uploads. It stores nothing, and
// counts as a request of the route.
func (g *Gateway) upload(w http.ResponseWriter, req *http.Request) {
	ask := uploadQuestion{Method: http.MethodPost, Size: -1}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxUploadAsked))
	if err == nil {
		err = json.Unmarshal(body, &ask)
	}
	if err != nil {
		writeProblem(w, req, badUpload(`The body must be like {"path": "/reports", "size": 1048576, "contentType": "text/csv"}.`))
		return
	}
	route := g.table.Load().find(ask.Method, ask.Path)
	switch {
	case route == nil || route.spec.MaxUpload == 0:
		writeProblem(w, req, badUpload(fmt.Sprintf("%.100s %.200s is no route that takes uploads (job.maxUploadBytes).", ask.Method, ask.Path)))
		return
	case ask.Size < 0:
		writeProblem(w, req, badUpload("size must be given, in bytes."))
		return
	case ask.Size > route.spec.MaxUpload:
		writeProblem(w, req, problemOfUploadSize(route.spec.MaxUpload))
		return
	}
	if b, wait := route.throttle(time.Now()); b != nil {
		writeThrottled(w, req, b, wait)
		return
	}
	if route.writer == nil {
		writeProblem(w, req, problemQueueClosed())
		return
	}
	id := job.NewUploadID()
	p, err := g.cfg.Objects.PresignPut(req.Context(), route.queue, job.UploadKey(id), ask.ContentType, ask.Size, uploadExpiry)
	switch {
	case errors.Is(err, blob.ErrTooLarge):
		writeProblem(w, req, problemOfUploadSize(blob.MaxS3Upload))
		return
	case errors.Is(err, blob.ErrMediaType):
		writeProblem(w, req, badUpload(fmt.Sprintf("contentType must be at most %d printable ASCII characters.", blob.MaxContentType)))
		return
	case err != nil:
		g.objectProblem(w, req, err)
		return
	}
	answer := uploadAnswer{ID: id, Method: p.Method, URL: p.URL, Headers: map[string]string{}, Expires: p.Expires}
	for name := range p.Headers {
		answer.Headers[name] = p.Headers.Get(name)
	}
	text, err := json.Marshal(answer)
	if err != nil {
		text = []byte(`{}`) // plain values always marshal
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set(headerRequestID, requestID(req.Header, newRequestID))
	writeJSON(w, http.StatusCreated, string(text))
}

// find returns the route of a method and a path; nil: none.
func (t *table) find(method, path string) *route {
	probe, err := http.NewRequest(method, path, nil) //nolint:noctx // it is never sent
	if err != nil || probe.URL.Host != "" {
		return nil
	}
	h, _ := t.mux.Handler(probe)
	r, ok := h.(*route)
	if !ok {
		return nil
	}
	return r
}

// jobOfUpload is job for a request whose input was uploaded before.
func (r *route) jobOfUpload(w http.ResponseWriter, req *http.Request, id string, now time.Time) {
	if r.spec.MaxUpload == 0 {
		writeProblem(w, req, badUpload("This route takes no uploads (job.maxUploadBytes): send a body without "+headerInput+"."))
		return
	}
	if n, err := io.ReadFull(req.Body, make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		writeProblem(w, req, badUpload("A request with "+headerInput+" has no body: what was uploaded is it."))
		return
	}
	input, contentType, err := job.Uploaded(req.Context(), r.g.cfg.Objects, r.queue, id, now)
	switch {
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrKey):
		writeProblem(w, req, problem{
			Status: http.StatusNotFound, Type: typeNoUpload, Title: "No such upload",
			Detail: "Nothing was uploaded under this id for this route, or it has expired. Nothing was stored.",
		})
	case err != nil:
		r.g.objectProblem(w, req, err)
	case input.Size > r.spec.MaxUpload: // the route was another when it was uploaded
		writeProblem(w, req, problemOfUploadSize(r.spec.MaxUpload))
	default:
		r.job(w, req, nil, &upload{input, contentType}, now)
	}
}

func badUpload(detail string) problem {
	return problem{Status: http.StatusBadRequest, Type: typeBadRequest, Title: "Bad upload", Detail: detail}
}

func problemOfUploadSize(limit int64) problem {
	return problem{
		Status: http.StatusRequestEntityTooLarge, Type: typeTooLarge, Title: "Upload too large",
		Detail: fmt.Sprintf("This route takes at most %d bytes (job.maxUploadBytes).", limit),
	}
}

// redirect leads to a result that is an object.
func (j *jobRequest) redirect(w http.ResponseWriter, req *http.Request, r *job.Result) {
	p, err := j.g.cfg.Objects.PresignGet(req.Context(), j.id.Queue, r.Object, resultExpiry)
	if err != nil {
		j.g.objectProblem(w, req, err)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store") // the address is good for a while only
	h.Set("Location", p.URL)
	w.WriteHeader(http.StatusSeeOther)
}

// getObject serves what a pre-signed URL of a store in NATS names.
func (g *Gateway) getObject(w http.ResponseWriter, req *http.Request) {
	permit, ok := g.permit(w, req)
	if !ok {
		return
	}
	done, ok := g.transfer(w, req, &g.transfers)
	if !ok {
		return
	}
	defer done()
	o, err := g.cfg.Objects.Open(req.Context(), permit.Queue, permit.Key)
	if err != nil {
		g.objectProblem(w, req, err)
		return
	}
	defer func() { _ = o.Close() }()
	if err := o.Write(&sender{w, http.NewResponseController(w), pace{start: time.Now()}}, req); err != nil {
		g.cfg.Log.Info("an object was not sent to its end", "queue", permit.Queue.String(), "object", permit.Key, "error", err)
		panic(http.ErrAbortHandler) // the client must not take the part that it has for the whole
	}
}

// putObject stores the body as what a pre-signed URL of a store in NATS names.
func (g *Gateway) putObject(w http.ResponseWriter, req *http.Request) {
	permit, ok := g.permit(w, req)
	if !ok {
		return
	}
	body, done, ok := g.receive(w, req, &g.transfers)
	if !ok {
		return
	}
	defer done()
	info, err := g.cfg.Objects.Put(req.Context(), permit.Queue, permit.Key, permit.ContentType, body, permit.Size)
	switch {
	case body.failed() != nil:
		writeProblem(w, req, problemOfBody(body.failed(), permit.Size))
	case err != nil:
		g.objectProblem(w, req, err)
	default:
		w.Header().Set("Etag", `"`+info.ETag+`"`)
		w.WriteHeader(http.StatusOK)
	}
}

// permit reads the URL. ok is false when it permits no such request, which is answered then.
func (g *Gateway) permit(w http.ResponseWriter, req *http.Request) (permit blob.Permit, ok bool) {
	w.Header().Set(headerRequestID, requestID(req.Header, newRequestID))
	ring := g.ring()
	if len(ring.Keys) == 0 {
		writeProblem(w, req, problemOfJob(job.ErrNoKeys))
		return permit, false
	}
	permit, err := blob.ParseToken(req.PathValue("token"), ring, time.Now())
	if err == nil {
		err = permit.Check(req)
	}
	if err == nil {
		if _, there := g.table.Load().maxAges[permit.Queue]; !there {
			err = blob.ErrNoToken // the queue was deleted
		}
	}
	if err != nil {
		g.objectProblem(w, req, err)
	}
	return permit, err == nil
}

// transfer counts another one in among those in flight, or answers that there can't be one now. Run waits for it. The
// caller calls done.
func (g *Gateway) transfer(w http.ResponseWriter, req *http.Request, inFlight *atomic.Int64) (done func(), ok bool) {
	if inFlight.Add(1) > maxTransfers {
		inFlight.Add(-1)
		writeProblem(w, req, problem{
			Status: http.StatusServiceUnavailable, Type: typeUnavailable, Title: "Too many transfers at once", retryAfter: 1,
			Detail: "Nothing was stored. Try again.",
		})
		return nil, false
	}
	g.wg.Add(1)
	return func() {
		inFlight.Add(-1)
		g.wg.Done()
	}, true
}

// receive prepares to read a large body, as long as it keeps pace. ok is false when it can't be, which is answered then;
// else the caller calls done.
func (g *Gateway) receive(w http.ResponseWriter, req *http.Request, inFlight *atomic.Int64) (body *receiver, done func(), ok bool) {
	if done, ok = g.transfer(w, req, inFlight); !ok {
		return nil, nil, false
	}
	return &receiver{r: req.Body, rc: http.NewResponseController(w), pace: pace{start: time.Now()}}, done, true
}

// pace is how a transfer goes.
type pace struct {
	start time.Time
	bytes int64
}

// deadline is when the other side has given or taken too little.
func (p *pace) deadline() time.Time {
	now := time.Now()
	still := now.Add(transferTimeout)
	over := p.start.Add(transferTimeout + time.Duration(float64(p.bytes)/minTransferRate*float64(time.Second)))
	if over.Before(still) {
		return over
	}
	return still
}

// receiver reads the body of a request, and remembers why that failed.
type receiver struct {
	r    io.Reader
	rc   *http.ResponseController
	pace pace
	err  error // io.EOF too: no deadline is set after the end
}

func (r *receiver) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if err := r.rc.SetReadDeadline(r.pace.deadline()); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	r.pace.bytes += int64(n)
	r.err = err
	return n, err
}

// failed is why reading failed; nil: it didn't.
func (r *receiver) failed() error {
	if errors.Is(r.err, io.EOF) {
		return nil
	}
	return r.err
}

// sender writes an answer, as long as the client keeps pace.
type sender struct {
	http.ResponseWriter
	rc   *http.ResponseController
	pace pace
}

func (s *sender) Write(p []byte) (int, error) {
	if err := s.rc.SetWriteDeadline(s.pace.deadline()); err != nil {
		return 0, err
	}
	n, err := s.ResponseWriter.Write(p)
	s.pace.bytes += int64(n)
	return n, err
}

// objectProblem answers what an error of the store means.
func (g *Gateway) objectProblem(w http.ResponseWriter, req *http.Request, err error) {
	switch {
	case errors.Is(err, blob.ErrLength), errors.Is(err, blob.ErrContentType):
		writeProblem(w, req, badUpload("Content-Length and Content-Type must be those that /uploads has given with the URL."))
	case errors.Is(err, blob.ErrNoToken), errors.Is(err, blob.ErrMethod):
		writeProblem(w, req, problem{Status: http.StatusNotFound, Type: typeNoObject, Title: "No such object", Detail: "This address was never given, for this method, or its queue was deleted."})
	case errors.Is(err, blob.ErrExpired):
		writeProblem(w, req, problem{Status: http.StatusForbidden, Type: typeURLExpired, Title: "The address has expired", Detail: "Ask for another one where you got it: the job's result, or /uploads."})
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrGone):
		writeProblem(w, req, problem{Status: http.StatusGone, Type: typeObjectGone, Title: "The object is gone", Detail: "It has expired. Raise results.maxAge of its queue to keep objects for longer."})
	case errors.Is(err, blob.ErrNoKeys):
		writeProblem(w, req, problemOfJob(job.ErrNoKeys))
	case errors.Is(err, blob.ErrFull), errors.Is(err, blob.ErrTooLarge):
		writeProblem(w, req, problemOfJob(err))
	default:
		g.cfg.Log.Warn("objects can't be had", "path", req.Pattern, "error", err)
		writeProblem(w, req, problem{
			Status: http.StatusServiceUnavailable, Type: typeUnavailable, Title: "Objects are not available", retryAfter: 1,
			Detail: "Try again; the gateway's log says more.",
		})
	}
}
