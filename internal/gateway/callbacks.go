package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/job"
)

// maxReport bounds a report that is no result, in bytes.
const maxReport = 64 << 10

// callback takes what a function says of an attempt that it goes on with: POST /callbacks/{token}?status=running,
// succeeded or failed. What is answered with 204 is durable.
func (g *Gateway) callback(w http.ResponseWriter, req *http.Request) {
	t, ring := g.table.Load(), g.ring()
	if len(ring.Keys) == 0 {
		writeProblem(w, req, problemOfJob(job.ErrNoKeys))
		return
	}
	token, err := job.ParseToken(req.PathValue("token"), ring, t.jobs)
	if err != nil {
		writeProblem(w, req, problemOfJob(err))
		return
	}
	status := job.Status(req.URL.Query().Get("status"))
	if status == job.Succeeded && (req.ContentLength > job.MaxInlineBytes || req.ContentLength < 0) {
		g.largeResult(w, req, token, t.objects[token.Queue])
		return
	}
	limit := int64(maxReport)
	if status == job.Succeeded {
		limit = job.MaxInlineBytes
	}
	body, release, err := g.readReport(req, limit)
	if err != nil {
		writeProblem(w, req, problemOfBody(err, limit))
		return
	}
	defer release()
	conn := g.cfg.Conn
	switch status {
	case job.Running:
		var p *job.Progress
		if p, err = progress(body); err != nil {
			writeProblem(w, req, problem{Status: http.StatusBadRequest, Type: typeBadRequest, Title: "Bad progress", Detail: err.Error()})
			return
		}
		err = job.Alive(req.Context(), conn, token, p)
	case job.Succeeded:
		_, err = job.SucceedBy(req.Context(), conn, token, job.Result{ContentType: req.Header.Get("Content-Type")}, body, time.Now())
	case job.Failed:
		err = job.FailBy(req.Context(), conn, token, failure(body))
	default:
		writeProblem(w, req, problem{
			Status: http.StatusBadRequest, Type: typeBadRequest, Title: "Bad status",
			Detail: fmt.Sprintf("The query must say status=running, status=succeeded or status=failed, not %.40q.", string(status)),
		})
		return
	}
	reported(w, req, err)
}

// reported answers a report that was stored, or was not for err.
func reported(w http.ResponseWriter, req *http.Request, err error) {
	if err != nil {
		p := problemOfJob(err)
		if p.Type == typeUnavailable {
			p.Detail = "The report may or may not have been stored. Send it again."
		}
		writeProblem(w, req, p)
		return
	}
	w.Header().Set(headerRequestID, requestID(req.Header, newRequestID))
	w.WriteHeader(http.StatusNoContent)
}

// largeResult takes a result that may be too large to be kept with the state, or whose size isn't said.
func (g *Gateway) largeResult(w http.ResponseWriter, req *http.Request, token job.Token, limit int64) {
	if req.ContentLength > limit {
		writeProblem(w, req, problemOfJob(blob.ErrTooLarge))
		return
	}
	body, done, ok := g.receive(w, req, &g.reports)
	if !ok {
		return
	}
	defer done()
	ctx, result := req.Context(), job.Result{ContentType: req.Header.Get("Content-Type")}
	start, err := io.ReadAll(io.LimitReader(body, job.MaxInlineBytes+1))
	if err != nil {
		writeProblem(w, req, problemOfBody(err, limit))
		return
	}
	if len(start) > job.MaxInlineBytes {
		result, err = job.StoreResult(ctx, g.cfg.Objects, token.Queue, token.Record, result.ContentType, io.MultiReader(bytes.NewReader(start), body), limit)
		if start = nil; body.failed() != nil {
			writeProblem(w, req, problemOfBody(body.failed(), limit))
			return
		}
	}
	if err == nil {
		var stored job.Result
		stored, err = job.SucceedBy(ctx, g.cfg.Conn, token, result, start, time.Now())
		if errors.Is(err, job.ErrOver) || err == nil && stored.Object != result.Object {
			if err := job.Drop(ctx, g.cfg.Objects, token.Queue, result); err != nil {
				g.cfg.Log.Warn("a result that came too late stays until it expires", "object", result.Object, "error", err)
			}
		}
	}
	reported(w, req, err)
}

// readReport reads a body of at most limit bytes, which count among those of all requests.
func (g *Gateway) readReport(req *http.Request, limit int64) ([]byte, func(), error) {
	if req.ContentLength > limit {
		return nil, nil, errBodyTooLarge
	}
	if g.bodies.Add(limit) > maxBodiesBytes {
		g.bodies.Add(-limit)
		return nil, nil, errNoMemory
	}
	release := func() { g.bodies.Add(-limit) }
	body, err := io.ReadAll(io.LimitReader(req.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = errBodyTooLarge
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return body, release, nil
}

// progress reads {"percent": 40, "message": "…"}; an empty body is a sign of life alone.
func progress(body []byte) (*job.Progress, error) {
	if len(body) == 0 {
		return nil, nil //nolint:nilnil // documented
	}
	var p job.Progress
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, fmt.Errorf(`the body must be like {"percent": 40, "message": "…"}, or empty: %w`, err)
	}
	if p.Percent < 0 || p.Percent > 100 {
		return nil, errors.New("percent must be between 0 and 100")
	}
	p.Message = strings.TrimSpace(p.Message)
	return &p, nil
}

// failure reads a problem (RFC 9457), or takes the body as the text of why.
func failure(body []byte) job.Error {
	var p struct {
		Status        int
		Title, Detail string
	}
	if json.Unmarshal(body, &p) == nil && p.Title+p.Detail != "" {
		if p.Detail == "" {
			p.Detail = p.Title
		}
		return job.Error{Status: p.Status, Detail: strings.TrimSpace(p.Detail)}
	}
	if len(body) == 0 {
		return job.Error{Detail: "the function said that it failed"}
	}
	return job.Error{Detail: strings.TrimSpace(string(body))}
}
