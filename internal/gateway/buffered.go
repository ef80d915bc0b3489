package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

// appender stores a copy of a record and returns nil once it is durable: a stream.Writer, or in tests one
// that fails.
type appender interface {
	Append(ctx context.Context, r *record.Record) error
}

// buffered stores the request as a record and answers 202 once it is durable.
func (r *route) buffered(w http.ResponseWriter, req *http.Request, body []byte, now time.Time) {
	var rec record.Record
	if _, ok := r.fill(&rec, w, req, body, now); !ok {
		return
	}
	if err := r.append(req.Context(), &rec); err != nil {
		writeProblem(w, req, problemOf(err))
		return
	}
	id := rec.ID.String()
	h := w.Header()
	h["Content-Type"] = jsonContentType
	h[headerRequestID] = []string{requestID(req.Header, func() string { return id })}
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write([]byte(`{"id":"` + id + "\"}\n")) // a client that is gone has its record all the same
}

// fill makes the request a record. ok is false when it can't, which is answered then.
func (r *route) fill(rec *record.Record, w http.ResponseWriter, req *http.Request, body []byte, now time.Time) (keyed, ok bool) {
	rec.Time, rec.Source, rec.ContentType, rec.JSON, rec.Body = now, r.source, req.Header.Get("Content-Type"), r.schema != nil, body
	if r.schema != nil && rec.ContentType == "" {
		rec.ContentType = "application/json"
	}
	if p := r.describe(rec, req); p != nil {
		writeProblem(w, req, *p)
		return false, false
	}
	var err error
	key, ok := idempotencyKey(req.Header)
	if !ok {
		writeProblem(w, req, problem{
			Status: http.StatusBadRequest, Type: typeBadRequest, Title: "Bad idempotency key",
			Detail: "Idempotency-Key must be one string of 1 to 255 printable characters.",
		})
		return false, false
	} else if key != "" {
		scope := r.source
		if rec.Client != (record.Client{}) { // clients don't meet under one key
			scope += "#" + string(rec.Client[:])
		}
		rec.ID = record.IDFromKey(scope, key)
	} else if rec.ID, err = record.NewID(); err != nil {
		r.g.cfg.Log.Error("no id could be made: the system has no randomness", "route", r.source, "error", err)
		writeProblem(w, req, problem{Status: http.StatusInternalServerError, Type: typeInternal, Title: "Internal error", Detail: "Nothing was stored. Try again; the gateway's log says more."})
		return false, false
	}
	if tp := req.Header.Get("Traceparent"); tp != "" && telemetry.ValidTraceParent(tp) {
		rec.TraceParent = tp
		if ts := req.Header.Get("Tracestate"); len(ts) <= telemetry.MaxTraceState {
			rec.TraceState = ts
		}
	}
	return key != "", true
}

// append stores rec in the route's queue, in a group with others'.
func (r *route) append(ctx context.Context, rec *record.Record) error {
	err := r.writer.Append(ctx, rec)
	if errors.Is(err, stream.ErrClosed) {
		err = r.g.appendLate(ctx, r.queue, rec)
	}
	return err
}

// appendLate stores a record whose request had been matched when a new catalog took the last route to its queue
// away, and with it the queue's writer. TestCatalogChangesUnderLoad guards it.
func (g *Gateway) appendLate(ctx context.Context, queue catalog.Key, rec *record.Record) error {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return stream.ErrClosed
	}
	w := g.writer(queue) //nolint:contextcheck // it writes for all that are late, not for this request alone
	w.late++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		w.late--
		g.retire()
	}()
	return w.Append(ctx, rec)
}

// idempotencyKey reads the Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header): a
// structured-field string, its quotes optional. ok is false when it is there but unusable.
func idempotencyKey(h http.Header) (key string, ok bool) {
	values := h["Idempotency-Key"]
	if len(values) == 0 {
		return "", true
	}
	key = strings.TrimSpace(values[0])
	if n := len(key); n >= 2 && key[0] == '"' && key[n-1] == '"' {
		key = key[1 : n-1]
	}
	if len(values) > 1 || key == "" || len(key) > 255 {
		return "", false
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] >= 0x7f {
			return "", false
		}
	}
	return key, true
}
