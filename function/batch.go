package function

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"
)

// DefaultMaxBodyBytes bounds the body of a call unless [MaxBodyBytes] says otherwise.
const DefaultMaxBodyBytes = 16 << 20

// BatchFunc processes the events of one call. It returns the events that failed, if the others are
// done; or an error if none is. With an error failed is ignored.
type BatchFunc func(ctx context.Context, events []Event) (failed []Failure, err error)

// Failure names an event of the batch that failed alone: a counted attempt for its record.
type Failure struct {
	ID string // the event's

	// Reason says why, for people: it is sent as it is, and is in the dead-letter queue once the
	// attempts are used up. Optional; it is cut to [MaxReasonBytes]. So don't put an error's text
	// here that may hold secrets, such as a connection string.
	Reason string
}

// Bounds of the reasons in one answer.
const (
	// MaxReasonBytes is where a [Failure]'s reason is cut, at a whole character.
	MaxReasonBytes = 256
	// maxReasonsBytes bounds the reasons of one answer together, as JSON; past it failures are named
	// without one. The dispatcher takes 1 MiB, and an answer that is longer fails the whole batch: the
	// largest batch with every record named must fit (TestReasonsAreBounded).
	maxReasonsBytes = 256 << 10
)

// Option changes a handler of [Batch].
type Option func(*batchHandler)

// MaxBodyBytes bounds a call's body; a larger one is answered with 413.
func MaxBodyBytes(n int64) Option { return func(h *batchHandler) { h.maxBody = n } }

// Logger is where errors are logged in full, since answers don't carry them. Default: slog.Default().
func Logger(log *slog.Logger) Option { return func(h *batchHandler) { h.log = log } }

// Batch makes an http.Handler of fn. It takes a POST of a CloudEvents JSON batch, of one event in
// the JSON format or of one event in binary mode, and answers as the package comment says.
//
// A single event that fn names as failed is answered with 500, not 200 with batchItemFailures: it
// means the same to Weir's dispatcher and also to senders that know nothing of batches, such as a
// Knative trigger.
func Batch(fn BatchFunc, options ...Option) http.Handler {
	h := &batchHandler{fn: fn, maxBody: DefaultMaxBodyBytes, log: slog.Default()}
	for _, o := range options {
		o(h)
	}
	return h
}

type batchHandler struct {
	fn      BatchFunc
	maxBody int64
	log     *slog.Logger
}

func (h *batchHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	events, single, err := h.read(w, r)
	if err != nil {
		if p := ProblemOf(err); p.Status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		h.refuse(w, r, err, len(events))
		return
	}
	if len(events) == 0 {
		w.WriteHeader(http.StatusOK)
		return
	}
	observeEvents(r.Context(), events)
	failed, err := h.fn(r.Context(), events)
	if err == nil {
		err = checkFailed(failed, events)
	}
	if err == nil && single && len(failed) > 0 {
		err = singleFailed(failed[0])
	}
	if err != nil {
		h.refuse(w, r, err, len(events))
		return
	}
	if len(failed) == 0 {
		w.WriteHeader(http.StatusOK)
		return
	}
	writeFailures(w, failed)
}

// read returns the call's events; single is true unless they came as a batch.
func (h *batchHandler) read(w http.ResponseWriter, r *http.Request) (events []Event, single bool, err error) {
	if r.Method != http.MethodPost {
		return nil, false, problemError{Problem{
			Type: ProblemMethod, Title: "Method not allowed", Status: http.StatusMethodNotAllowed,
			Detail: "A function call is a POST of CloudEvents.",
		}}
	}
	media, err := mediaType(r.Header)
	if err != nil {
		return nil, false, err
	}
	body, err := h.body(w, r)
	if err != nil {
		return nil, false, err
	}
	if media == contentTypeBatch {
		if events, err = ParseBatch(body); err != nil {
			return nil, false, badRequest(err)
		}
		return events, false, nil
	}
	var e Event
	if media == contentTypeEvent {
		e, err = parseStructured(body)
	} else {
		e, err = parseBinary(r.Header, body)
	}
	if err != nil {
		return nil, true, badRequest(err)
	}
	return []Event{e}, true, nil
}

// mediaType returns the content type without its parameters, and refuses what cannot be events.
func mediaType(h http.Header) (string, error) {
	contentType := h.Get("Content-Type")
	if contentType == contentTypeBatch {
		return contentType, nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	isEvents := strings.HasPrefix(media, "application/cloudevents")
	charset := strings.ToLower(params["charset"])
	switch {
	case isEvents && (err != nil || media != contentTypeBatch && media != contentTypeEvent):
	case isEvents && charset != "" && charset != "utf-8":
	case !isEvents && h.Get("Ce-Specversion") == "":
	default:
		return media, nil
	}
	return "", problemError{Problem{
		Type: ProblemMediaType, Title: "Not CloudEvents", Status: http.StatusUnsupportedMediaType,
		Detail: "Send " + contentTypeBatch + ", " + contentTypeEvent + " (UTF-8), or one event in binary mode with ce-* headers.",
	}}
}

func (h *batchHandler) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	const trusted = 1 << 20 // a Content-Length is believed up to here before bytes have come
	var buf bytes.Buffer
	if n := min(r.ContentLength, h.maxBody, trusted); n > 0 {
		buf.Grow(int(n) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, h.maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, problemError{Problem{
			Type: ProblemTooLarge, Title: "Body too large", Status: http.StatusRequestEntityTooLarge,
			Detail: fmt.Sprintf("The function takes %d bytes at most; lower the mapping's batch.maxBytes.", h.maxBody),
		}}
	case err != nil:
		return nil, problemError{Problem{
			Type: ProblemBadRequest, Title: "Body cut short", Status: http.StatusBadRequest,
			Detail: "The body ended before its end.",
		}}
	}
	return buf.Bytes(), nil
}

func badRequest(err error) error {
	return problemError{Problem{
		Type: ProblemBadRequest, Title: "Malformed events", Status: http.StatusBadRequest, Detail: err.Error(),
	}}
}

// refuse answers err and logs it, but for what happens all the time while a backend is away.
func (h *batchHandler) refuse(w http.ResponseWriter, r *http.Request, err error, events int) {
	p := ProblemOf(err)
	level := slog.LevelError
	if p.Status != http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	h.log.LogAttrs(context.WithoutCancel(r.Context()), level, "function call refused",
		slog.Int("status", p.Status), slog.Int("events", events), slog.Any("error", err))
	trace.SpanFromContext(r.Context()).RecordError(err)
	p.Write(w)
}

// checkFailed makes an id that isn't in the batch an error: if it were sent, the record that failed
// would be settled as done.
func checkFailed(failed []Failure, events []Event) error {
	if len(failed) == 0 {
		return nil
	}
	known := make(map[string]struct{}, len(events))
	for i := range events {
		known[events[i].ID] = struct{}{}
	}
	for i := range failed {
		if _, ok := known[failed[i].ID]; !ok {
			return fmt.Errorf("the function named %q as failed, which is not among the batch's %d events", failed[i].ID, len(events))
		}
	}
	return nil
}

func singleFailed(f Failure) error {
	err := errors.New("the event failed")
	if reason := f.reason(); reason != "" {
		return WithDetail(err, reason)
	}
	return WithDetail(err, "The function could not process the event; its log says why.")
}

// reason is f's reason as it is sent.
func (f *Failure) reason() string {
	s := strings.ToValidUTF8(f.Reason, "\uFFFD")
	if len(s) <= MaxReasonBytes {
		return s
	}
	end := MaxReasonBytes
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// batchResponse is AWS's shape of a partial batch response ("Reporting batch item failures"), and a
// reason for each, which is Weir's.
type batchResponse struct {
	BatchItemFailures []batchItemFailure `json:"batchItemFailures"`
}

type batchItemFailure struct {
	ItemIdentifier string          `json:"itemIdentifier"`
	Reason         json.RawMessage `json:"reason,omitempty"`
}

func writeFailures(w http.ResponseWriter, failed []Failure) {
	res := batchResponse{BatchItemFailures: make([]batchItemFailure, 0, len(failed))}
	left := maxReasonsBytes
	for i := range failed {
		item := batchItemFailure{ItemIdentifier: failed[i].ID}
		if reason := failed[i].reason(); reason != "" {
			if text := mustMarshal(reason); len(text) <= left {
				item.Reason = text
				left -= len(text)
			}
		}
		res.BatchItemFailures = append(res.BatchItemFailures, item)
	}
	body := mustMarshal(res)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = io.Copy(w, bytes.NewReader(body)) // the caller has gone: nobody is left to tell
}

// mustMarshal is for strings and plain structs of them, which always marshal.
func mustMarshal(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("function: plain structs always marshal: %v", err))
	}
	return body
}
