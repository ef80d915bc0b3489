package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/telemetry"
)

var jsonContentType = []string{"application/json"} //nolint:gochecknoglobals // shared so that a 202 allocates less; never written to

// buffered stores the request as a record and answers 202 once it is durable.
func (x *exchange) buffered() *problem.Problem {
	var rec record.Record
	if _, p := x.fill(&rec); p != nil {
		return p
	}
	if err := x.append(&rec); err != nil {
		return new(problemOf(err))
	}
	id := rec.ID.String()
	h := x.w.Header()
	h["Content-Type"] = jsonContentType
	if len(h[problem.HeaderRequestID]) == 0 {
		h[problem.HeaderRequestID] = []string{id}
	}
	x.w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(x.w, `{"id":"`+id+"\"}\n") // the record is stored even if the client is gone
	return nil
}

// fill makes a record of the request, or returns why it can't.
func (x *exchange) fill(rec *record.Record) (keyed bool, p *problem.Problem) {
	header := x.req.Header
	rec.Time, rec.Source, rec.ContentType, rec.JSON, rec.Body = x.now, x.source, header.Get("Content-Type"), x.schema != nil, x.body
	if x.schema != nil && rec.ContentType == "" {
		rec.ContentType = "application/json"
	}
	if p := x.describe(rec, x.req); p != nil {
		return false, p
	}
	var err error
	key, ok := idempotencyKey(header)
	if !ok {
		return false, &problem.Problem{
			Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "Bad idempotency key",
			Detail: "Idempotency-Key must be one string of 1 to 255 printable characters.",
		}
	} else if key != "" {
		scope := x.source
		if rec.Client != (record.Client{}) { // the same key of two clients is no duplicate
			scope += "#" + string(rec.Client[:])
		}
		rec.ID = record.IDFromKey(scope, key)
	} else if rec.ID, err = record.NewID(); err != nil {
		x.g.cfg.Log.Error("no id could be made: the system has no randomness", "route", x.source, "error", err)
		return false, &problem.Problem{Status: http.StatusInternalServerError, Type: problem.Internal, Title: "Internal error", Detail: "Nothing was stored. Try again; the gateway's log says more."}
	}
	if tp := header.Get("Traceparent"); tp != "" && telemetry.ValidTraceParent(tp) {
		rec.TraceParent = tp
		if ts := header.Get("Tracestate"); len(ts) <= telemetry.MaxTraceState {
			rec.TraceState = ts
		}
	}
	return key != "", nil
}

// append stores rec in the route's queue, in a group with others. A request that waits for its group no longer holds
// its body's memory: the next request reads its own into memory that is still in the CPU's cache. It relies on Add's
// copy: TestBodyMayBeUsedAgainOnceItsRecordWasAdded guards it.
func (x *exchange) append(rec *record.Record) error {
	pending, err := x.writer.Add(rec)
	if errors.Is(err, stream.ErrClosed) {
		return x.g.appendLate(x.ctx(), x.queue, rec)
	}
	if err != nil {
		return err
	}
	rec.Body = nil
	x.release()
	return pending.Wait(x.ctx())
}

// appendLate stores a record whose request was matched before a new catalog removed the last route to its queue, and
// with it the queue's writer. TestCatalogChangesUnderLoad guards it.
func (g *Gateway) appendLate(ctx context.Context, queue catalog.Key, rec *record.Record) error {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return stream.ErrClosed
	}
	w := g.writer(queue) //nolint:contextcheck // it writes for all late requests, not for this one alone
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
