package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/jobapi"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
)

// headerInput names the upload that stands in for a body.
const headerInput = "Weir-Input"

const (
	// uploadExpiry is how long after signing an upload may begin.
	uploadExpiry   = time.Hour
	maxUploadAsked = 8 << 10 // bytes of an uploadQuestion
)

// upload is an uploaded input as its record refers to it.
type upload struct {
	*record.Input
	contentType string
}

// uploadQuestion is what a client says to get an upload URL.
type uploadQuestion struct {
	Method      string `json:"method"` // of the route; default POST
	Path        string `json:"path"`   // of the route
	Size        int64  `json:"size"`   // bytes
	ContentType string `json:"contentType"`
}

// uploadAnswer is the pre-signed request to upload with.
type uploadAnswer struct {
	ID      string            `json:"id"` // for headerInput
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Expires time.Time         `json:"expires"`
}

// upload answers with a pre-signed URL for the input of a job to be submitted. It stores nothing, and is throttled as
// a request of the route.
func (g *Gateway) upload(w http.ResponseWriter, req *http.Request, body []byte) {
	answer, p := g.presignUpload(w, req, body)
	if p != nil {
		p.Write(w)
		return
	}
	text, err := json.Marshal(answer)
	if err != nil {
		text = []byte(`{}`) // plain values always marshal
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h["Content-Type"] = jsonContentType
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(append(text, '\n'))
}

func (g *Gateway) presignUpload(w http.ResponseWriter, req *http.Request, body []byte) (*uploadAnswer, *problem.Problem) {
	ask := uploadQuestion{Method: http.MethodPost, Size: -1}
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, badUpload(`The body must be like {"path": "/reports", "size": 1048576, "contentType": "text/csv"}.`)
	}
	route := g.table.Load().find(ask.Method, req.Host, ask.Path)
	switch {
	case route != nil && route.kind == toNothing:
		return nil, new(problemNotServed(route.unserved))
	case route == nil || route.spec.MaxUpload == 0:
		return nil, badUpload(fmt.Sprintf("%.100s %.200s is no route that takes uploads (job.maxUploadBytes).", ask.Method, ask.Path))
	case ask.Size < 0:
		return nil, badUpload("size must be given, in bytes.")
	case ask.Size > route.spec.MaxUpload:
		return nil, problemOfUploadSize(route.spec.MaxUpload)
	}
	if !route.takes(ask.ContentType) {
		return nil, route.refuseMedia(w.Header())
	}
	if p := route.take(w.Header(), time.Now()); p != nil { //nolint:contextcheck // metrics need none
		return nil, p
	}
	if route.writer == nil {
		return nil, new(problemQueueClosed())
	}
	id := job.NewUploadID()
	p, err := g.cfg.Objects.PresignPut(req.Context(), route.queue, job.UploadKey(id), ask.ContentType, ask.Size, uploadExpiry)
	switch {
	case errors.Is(err, blob.ErrTooLarge):
		return nil, problemOfUploadSize(blob.MaxS3Upload)
	case errors.Is(err, blob.ErrMediaType):
		return nil, badUpload(fmt.Sprintf("contentType must be at most %d printable ASCII characters.", blob.MaxContentType))
	case err != nil:
		return nil, new(jobapi.ProblemOfObject(req.Context(), err, g.cfg.Log, req.Pattern))
	}
	answer := &uploadAnswer{ID: id, Method: p.Method, URL: p.URL, Headers: map[string]string{}, Expires: p.Expires}
	for name := range p.Headers {
		answer.Headers[name] = p.Headers.Get(name)
	}
	return answer, nil
}

// find returns the route of a method and a path, nil if there is none.
func (t *table) find(method, host, path string) *route {
	probe, err := http.NewRequest(method, path, nil) //nolint:noctx // it is never sent
	if err != nil || probe.URL.Host != "" {
		return nil
	}
	probe.Host = host
	r, _, _ := t.match(probe)
	return r
}

// uploaded reports whether the request is a job whose input was uploaded before.
func (x *exchange) uploaded() bool {
	return x.kind == toQueue && x.spec.Job != nil && x.req.Header.Get(headerInput) != ""
}

// jobOfUpload is job for such a request.
func (x *exchange) jobOfUpload() *problem.Problem {
	if x.spec.MaxUpload == 0 {
		return badUpload("This route takes no uploads (job.maxUploadBytes): send a body without " + headerInput + ".")
	}
	if n, err := io.ReadFull(x.req.Body, make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return badUpload("A request with " + headerInput + " must have no body: the upload is its body.")
	}
	input, contentType, err := job.Uploaded(x.ctx(), x.g.cfg.Objects, x.queue, x.req.Header.Get(headerInput), x.now)
	switch {
	case errors.Is(err, blob.ErrNotFound), errors.Is(err, blob.ErrKey):
		return &problem.Problem{
			Status: http.StatusNotFound, Type: problem.NoUpload, Title: "No such upload",
			Detail: "Nothing was uploaded under this id for this route, or it has expired. Nothing was stored.",
		}
	case err != nil:
		return new(jobapi.ProblemOfObject(x.ctx(), err, x.g.cfg.Log, x.source))
	case input.Size > x.spec.MaxUpload: // the route's limit was higher when it was uploaded
		return problemOfUploadSize(x.spec.MaxUpload)
	}
	if !x.takes(contentType) { // the route took it when it was uploaded
		return x.refuseMedia(x.w.Header())
	}
	return x.job(&upload{input, contentType})
}

func badUpload(detail string) *problem.Problem { return new(jobapi.BadUpload(detail)) }

func problemOfUploadSize(limit int64) *problem.Problem {
	return &problem.Problem{
		Status: http.StatusRequestEntityTooLarge, Type: problem.TooLarge, Title: "Upload too large",
		Detail: fmt.Sprintf("This route takes at most %d bytes (job.maxUploadBytes).", limit),
	}
}
