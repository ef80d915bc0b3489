package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

var jsonContentType = []string{"application/json"} //nolint:gochecknoglobals // shared so that a 202 allocates less; never written to

// buffered stores the request as a record and answers 202 once it is durable.
func (x *exchange) buffered() *problem.Problem {
	var rec record.Record
	if _, p := x.fill(&rec); p != nil {
		return p
	}
	id := rec.ID.String()
	x.seen.id = id
	if err := x.append(&rec); err != nil {
		return new(problemOf(err))
	}
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
	if p := checkContentType(header); p != nil {
		return false, p
	}
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
		x.g.cfg.Log.ErrorContext(x.ctx(), "no id could be made: the system has no randomness", "route", x.source, "error", err)
		return false, &problem.Problem{Status: http.StatusInternalServerError, Type: problem.Internal, Title: "Internal error", Detail: "Nothing was stored. Try again; the gateway's log says more."}
	}
	x.keepTrace(rec)
	return key != "", nil
}

// append stores rec in the route's queue, in a group with others. A request that waits for its group no longer holds
// its body's memory: the next request reads its own into memory that is still in the CPU's cache. It relies on Add's
// copy: TestBodyMayBeUsedAgainOnceItsRecordWasAdded guards it.
func (x *exchange) append(rec *record.Record) error {
	pending, err := x.writer.Add(rec)
	if errors.Is(err, stream.ErrClosed) {
		return x.g.appendLate(context.WithoutCancel(x.ctx()), x.queue, rec)
	}
	if err != nil {
		return err
	}
	rec.Body = nil
	x.release()
	return pending.Wait() // also for a client that has closed its side: it may read on
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

// idempotencyKey reads the Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header): a structured-field string
// (RFC 9651) without parameters, whose quotes are optional. ok is false when it is there but unusable, as where it could
// be read as another key or as two.
func idempotencyKey(h http.Header) (key string, ok bool) {
	values := h["Idempotency-Key"]
	if len(values) == 0 {
		return "", true
	}
	key = strings.TrimSpace(values[0])
	if strings.HasPrefix(key, `"`) {
		key, ok = unquote(key)
	} else {
		ok = !strings.ContainsAny(key, `",;\`)
	}
	if !ok || len(values) > 1 || key == "" || len(key) > 255 {
		return "", false
	}
	return key, isASCII(key)
}

// unquote reads a structured-field string that is all of text.
func unquote(text string) (s string, ok bool) {
	out := make([]byte, 0, len(text))
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return string(out), i == len(text)-1
		case c == '\\' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\'):
			i++
			out = append(out, text[i])
		case c == '\\':
			return "", false
		default:
			out = append(out, c)
		}
	}
	return "", false
}

// maxContentType bounds a Content-Type that is stored: functions get it in a header.
const maxContentType = 256

// checkContentType refuses what no function could be told: CloudEvents asks for a media type (RFC 2046).
func checkContentType(h http.Header) *problem.Problem {
	ct := h.Get("Content-Type")
	if ct == "" || ct == "application/json" {
		return nil
	}
	_, _, err := mime.ParseMediaType(ct)
	if err == nil && len(ct) <= maxContentType && len(h["Content-Type"]) == 1 && isASCII(ct) {
		return nil
	}
	return &problem.Problem{
		Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "Bad Content-Type",
		Detail: fmt.Sprintf("Content-Type must be one media type of at most %d characters, such as application/json. Nothing was stored.", maxContentType),
	}
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
