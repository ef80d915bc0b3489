package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// Types of problems: stable, for programs (docs/contracts.md lists them).
const (
	typeBase        = "https://weir.dev/problems/"
	typeBadRequest  = typeBase + "bad-request"
	typeSchema      = typeBase + "schema"
	typeNoRoute     = typeBase + "no-route"
	typeMethod      = typeBase + "method-not-allowed"
	typeTooLarge    = typeBase + "body-too-large"
	typeMediaType   = typeBase + "unsupported-media-type"
	typeThrottled   = typeBase + "throttled"
	typeQueueFull   = typeBase + "queue-full"
	typeQueueClosed = typeBase + "queue-closed"
	typeUnavailable = typeBase + "unavailable"
	typeBadGateway  = typeBase + "bad-gateway"
	typeTimeout     = typeBase + "function-timeout"
	typeInternal    = typeBase + "internal"
	typeKeyReused   = typeBase + "idempotency-key-reused"

	typeNoJob        = typeBase + "no-job"
	typeJobCancelled = typeBase + "job-cancelled"
	typeJobExpired   = typeBase + "job-expired"
	typeJobEnded     = typeBase + "job-ended"
	typeNoCallback   = typeBase + "no-callback"
	typeAttemptOver  = typeBase + "attempt-over"
	typeNoFeed       = typeBase + "no-feed"
	typeNoUpload     = typeBase + "no-upload"
	typeNoObject     = typeBase + "no-object"
	typeURLExpired   = typeBase + "url-expired"
	typeObjectGone   = typeBase + "object-gone"
	typeObjectsFull  = typeBase + "objects-full"
)

// problem is the body of every error (RFC 9457).
type problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"` // says what to do
	RequestID string       `json:"requestId,omitempty"`
	Errors    []fieldError `json:"errors,omitempty"`

	retryAfter int    // seconds; 0: no header
	allow      string // methods; empty: no header
}

// fieldError is one finding of the schema validation.
type fieldError struct {
	Pointer string `json:"pointer"` // JSON Pointer (RFC 6901) into the body
	Detail  string `json:"detail"`
}

var jsonContentType = []string{"application/json"} //nolint:gochecknoglobals // shared so that a 202 allocates less; never written to

func writeProblem(w http.ResponseWriter, req *http.Request, p problem) {
	p.RequestID = requestID(req.Header, newRequestID)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set(headerRequestID, p.RequestID)
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte(`{}`) // plain strings always marshal
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}

func writeJSON(w http.ResponseWriter, status int, body string) {
	w.Header()["Content-Type"] = jsonContentType
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body + "\n"))
}

// writeThrottled answers 429 with Retry-After and the fields of draft-ietf-httpapi-ratelimit-headers.
func writeThrottled(w http.ResponseWriter, req *http.Request, b *bucket, wait time.Duration) {
	seconds := max(1, int(math.Ceil(wait.Seconds())))
	h := w.Header()
	h.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=1", b.name, int(math.Ceil(b.spec.Rate))))
	h.Set("RateLimit", fmt.Sprintf("%q;r=0;t=%d", b.name, seconds))
	writeProblem(w, req, problem{
		Status: http.StatusTooManyRequests, Type: typeThrottled, Title: "Too many requests", retryAfter: seconds,
		Detail: fmt.Sprintf("%s allows %g requests a second and %d at once. Wait as long as Retry-After says.", b.name, b.spec.Rate, b.spec.Burst),
	})
}

func problemStarting() problem {
	return problem{
		Status: http.StatusServiceUnavailable, Type: typeUnavailable, Title: "Starting", retryAfter: 1,
		Detail: "This gateway has no catalog yet. Try again.",
	}
}

func problemTooLarge(limit int64) problem {
	return problem{
		Status: http.StatusRequestEntityTooLarge, Type: typeTooLarge, Title: "Body too large",
		Detail: fmt.Sprintf("This route takes at most %d bytes (maxBodyBytes).", limit),
	}
}

func problemQueueClosed() problem {
	return problem{
		Status: http.StatusServiceUnavailable, Type: typeQueueClosed, Title: "The queue is being deleted", retryAfter: 5,
		Detail: "Nothing was stored: the queue takes no more records. Try again if it is to be made anew; else remove the route.",
	}
}

// problemOf says what a failed write to a queue means.
func problemOf(err error) problem {
	p := problem{Status: http.StatusServiceUnavailable, Type: typeUnavailable, Title: "Not stored", retryAfter: 1}
	switch {
	case errors.Is(err, stream.ErrQueueFull):
		p.Type, p.Title, p.retryAfter = typeQueueFull, "The queue is full", 5
		p.Detail = "Nothing was stored. Try again when the queue has drained, or raise its maxBytes."
	case errors.Is(err, stream.ErrQueueClosed):
		return problemQueueClosed()
	case errors.Is(err, stream.ErrBusy):
		p.Title, p.Detail = "Too many writes are waiting", "Nothing was stored. Try again."
	case errors.Is(err, stream.ErrClosed):
		p.Title, p.Detail = "This gateway is stopping", "Nothing was stored. Try again: another one takes it."
	case errors.Is(err, stream.ErrNoQueue):
		p.Title, p.Detail = "The queue does not exist yet", "Nothing was stored. Try again; if it stays so, the queue's stream was not made."
	case errors.Is(err, stream.ErrTooLargeForServer):
		p = problem{Status: http.StatusRequestEntityTooLarge, Type: typeTooLarge, Title: "Too large for NATS"}
		p.Detail = "Nothing was stored: NATS takes no message as large as this (max_payload of its server). Send less, or raise max_payload; Weir needs 1 MiB for all that its routes may allow."
	case errors.Is(err, record.ErrTooLarge):
		return problemTooLarge(record.MaxRecordBytes)
	case errors.Is(err, context.Canceled) && !errors.Is(err, stream.ErrUnavailable): // a lost connection to NATS cancels too
		p.Title, p.Detail = "The client went away", "The request may have been stored."
	default:
		p.Title = "Storage is not available"
		p.Detail = "The request may or may not have been stored. Try again with the same Idempotency-Key: it has effect once."
	}
	return p
}

// problemOfBody says what a failed read of the body means.
func problemOfBody(err error, limit int64) problem {
	switch {
	case errors.Is(err, errBodyTooLarge):
		return problemTooLarge(limit)
	case errors.Is(err, errNoMemory):
		return problem{Status: http.StatusServiceUnavailable, Type: typeUnavailable, Title: "Too many requests at once", Detail: "Nothing was stored. Try again.", retryAfter: 1}
	default:
		return problem{Status: http.StatusBadRequest, Type: typeBadRequest, Title: "The body can't be read", Detail: "It ended early, came too slowly, or is malformed."}
	}
}

// noRoute asks the mux's own handler whether other methods would match.
func noRoute(h http.Handler, req *http.Request) problem {
	probe := &headerProbe{header: http.Header{}}
	h.ServeHTTP(probe, req)
	if probe.status == http.StatusMethodNotAllowed {
		return problem{
			Status: http.StatusMethodNotAllowed, Type: typeMethod, Title: "Method not allowed", allow: probe.header.Get("Allow"),
			Detail: fmt.Sprintf("This path takes %s.", probe.header.Get("Allow")),
		}
	}
	return problem{Status: http.StatusNotFound, Type: typeNoRoute, Title: "No route", Detail: "No route of any API matches this path."}
}

// headerProbe records what a handler answers and drops the body.
type headerProbe struct {
	header http.Header
	status int
}

func (p *headerProbe) Header() http.Header         { return p.header }
func (p *headerProbe) Write(b []byte) (int, error) { return len(b), nil }
func (p *headerProbe) WriteHeader(status int)      { p.status = status }
