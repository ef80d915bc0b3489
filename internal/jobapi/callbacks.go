package jobapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/blob"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/problem"
)

// maxReportBytes bounds a report other than a result.
const maxReportBytes = 64 << 10

// maxReport bounds a report that is read whole: a larger result, or one of unknown size, goes to the object store.
func maxReport(req *http.Request) int64 {
	switch {
	case statusOf(req) != job.Succeeded:
		return maxReportBytes
	case req.ContentLength > job.MaxInlineBytes || req.ContentLength < 0:
		return Stream
	}
	return job.MaxInlineBytes
}

func statusOf(req *http.Request) job.Status { return job.Status(req.URL.Query().Get("status")) }

// callback takes a function's report about an attempt that it goes on with after its answer: ?status=running,
// succeeded or failed. What is answered with 204 is durable.
func (a *API) callback(w http.ResponseWriter, req *http.Request, body []byte) {
	ring, q := a.Ring(), a.queues.Load()
	attempt, err := job.Callback{}, job.ErrNoKeys
	if len(ring.Keys) > 0 {
		attempt, err = job.ParseCallback(req.PathValue("callback"), ring, q.keys)
	}
	if err != nil {
		problemOf(err, "").Write(w)
		return
	}
	ctx := req.Context()
	about(ctx, attempt.Queue, attempt.Record)
	switch status := statusOf(req); {
	case status == job.Running:
		p, perr := progress(body)
		if perr != nil {
			problem.Problem{Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "Bad progress", Detail: perr.Error()}.Write(w)
			return
		}
		err = job.Alive(ctx, a.cfg.Conn, attempt, p)
	case status == job.Succeeded && maxReport(req) == Stream:
		a.largeResult(w, req, attempt, q.objects[attempt.Queue])
		return
	case status == job.Succeeded:
		_, err = job.SucceedBy(ctx, a.cfg.Conn, attempt, job.Result{ContentType: req.Header.Get("Content-Type")}, body, time.Now())
	case status == job.Failed:
		err = job.FailBy(ctx, a.cfg.Conn, attempt, failure(body))
	default:
		problem.Problem{
			Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "Bad status",
			Detail: fmt.Sprintf("The query must say status=running, status=succeeded or status=failed, not %.40q.", string(status)),
		}.Write(w)
		return
	}
	reported(w, err)
}

// reported answers a report that was stored, or could not be for err.
func reported(w http.ResponseWriter, err error) {
	if err != nil {
		problemOf(err, "The report may or may not have been stored. Send it again.").Write(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// largeResult takes a result that may be too large to be kept with the state, or whose size is unknown.
func (a *API) largeResult(w http.ResponseWriter, req *http.Request, attempt job.Callback, limit int64) {
	if req.ContentLength > limit {
		problemOf(blob.ErrTooLarge, "").Write(w)
		return
	}
	body, done, ok := a.receive(w, req, &a.reports)
	if !ok {
		return
	}
	defer done()
	ctx, result := req.Context(), job.Result{ContentType: req.Header.Get("Content-Type")}
	start, err := io.ReadAll(io.LimitReader(body, job.MaxInlineBytes+1))
	if err != nil {
		BadBody().Write(w)
		return
	}
	if len(start) > job.MaxInlineBytes {
		result, err = job.StoreResult(ctx, a.cfg.Objects, attempt.Queue, attempt.Record, result.ContentType, io.MultiReader(bytes.NewReader(start), body), limit)
		if start = nil; body.failed() != nil {
			BadBody().Write(w)
			return
		}
	}
	if err == nil {
		var stored job.Result
		stored, err = job.SucceedBy(ctx, a.cfg.Conn, attempt, result, start, time.Now())
		if errors.Is(err, job.ErrOver) || err == nil && stored.Object != result.Object {
			if err := job.Drop(ctx, a.cfg.Objects, attempt.Queue, result); err != nil {
				a.cfg.Log.WarnContext(ctx, "a result that came too late stays until it expires", "object", result.Object, "error", err)
			}
		}
	}
	reported(w, err)
}

// progress reads {"percent": 40, "message": "…"}; an empty body is a heartbeat alone, with nil progress.
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

// failure reads a problem (RFC 9457), or takes the body as the reason.
func failure(body []byte) job.Error {
	var p struct {
		Status              int
		Type, Title, Detail string
	}
	if json.Unmarshal(body, &p) == nil && p.Title+p.Detail != "" {
		return job.Error{Status: p.Status, Type: p.Type, Title: p.Title, Detail: strings.TrimSpace(cmp.Or(p.Detail, p.Title))}
	}
	if len(body) == 0 {
		return job.Error{Detail: "the function said that it failed"}
	}
	return job.Error{Detail: strings.TrimSpace(string(body))}
}
