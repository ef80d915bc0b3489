package function

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// NotNow wraps err to say: this cannot be taken now, and no record is to blame (the database is
// away, a pool is exhausted). The answer is 503 with Retry-After, at least a second; the dispatcher
// waits and counts no attempt.
func NotNow(err error, retryAfter time.Duration) error {
	return &outcomeError{outcome: outcomeNotNow, err: orUnknown(err), retryAfter: retryAfter}
}

// Permanent wraps err to say: sending this again will not help. The answer is 422; a single record
// is dead-lettered, a batch is bisected down to the culprit.
func Permanent(err error) error {
	return &outcomeError{outcome: outcomePermanent, err: orUnknown(err)}
}

// WithDetail wraps err with a text for the caller: it becomes the detail of the problem document,
// and with it the reason in the dead-letter queue. Without it the answer says nothing of err, whose
// text may hold secrets, such as a connection string.
func WithDetail(err error, detail string) error {
	return &detailError{err: orUnknown(err), detail: detail}
}

func orUnknown(err error) error {
	if err == nil {
		return errors.New("unknown error")
	}
	return err
}

type outcome int

const (
	outcomeNotNow outcome = iota + 1
	outcomePermanent
)

type outcomeError struct {
	outcome    outcome
	err        error
	retryAfter time.Duration
}

func (e *outcomeError) Error() string { return e.err.Error() }
func (e *outcomeError) Unwrap() error { return e.err }

type detailError struct {
	err    error
	detail string
}

func (e *detailError) Error() string { return e.err.Error() }
func (e *detailError) Unwrap() error { return e.err }

// Problem is an error answer: application/problem+json (RFC 9457).
type Problem struct {
	Type   string `json:"type"` // stable; see the Problem… constants
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"` // what to do about it

	RetryAfter time.Duration `json:"-"` // sent as Retry-After in whole seconds, rounded up; zero means not sent
}

// Types of the problems that this package answers with. What the gateway also answers has the same
// type there (docs/contracts.md).
const (
	ProblemNotNow        = "https://weir.dev/problems/not-now"                // 503
	ProblemPermanent     = "https://weir.dev/problems/permanent"              // 422
	ProblemFunctionError = "https://weir.dev/problems/function-error"         // 500
	ProblemBadRequest    = "https://weir.dev/problems/bad-request"            // 400
	ProblemNotFound      = "https://weir.dev/problems/not-found"              // 404
	ProblemMethod        = "https://weir.dev/problems/method-not-allowed"     // 405
	ProblemTooLarge      = "https://weir.dev/problems/body-too-large"         // 413
	ProblemMediaType     = "https://weir.dev/problems/unsupported-media-type" // 415
)

// problemError is an error whose answer is known where it arises.
type problemError struct{ Problem }

func (e problemError) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Title, e.Detail) }

// Write answers with p.
func (p Problem) Write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("function: plain structs always marshal: %v", err))
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((p.RetryAfter+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the caller has gone: nobody is left to tell
}

// ProblemOf returns the answer that stands for err, by the table in the package comment. err must
// not be nil.
func ProblemOf(err error) Problem {
	p := Problem{
		Type:   ProblemFunctionError,
		Title:  "The function failed",
		Status: http.StatusInternalServerError,
		Detail: "The function could not process the request; its log says why.",
	}
	var out *outcomeError
	var own problemError
	switch {
	case errors.As(err, &own):
		return own.Problem
	case !errors.As(err, &out):
	case out.outcome == outcomeNotNow:
		p = Problem{
			Type:       ProblemNotNow,
			Title:      "Not now",
			Status:     http.StatusServiceUnavailable,
			Detail:     "The function cannot take the request now; send it again after the time in Retry-After.",
			RetryAfter: max(out.retryAfter, time.Second),
		}
	case out.outcome == outcomePermanent:
		p = Problem{
			Type:   ProblemPermanent,
			Title:  "The function refuses this for good",
			Status: http.StatusUnprocessableEntity,
			Detail: "Sending the same again will not help; the function's log says why.",
		}
	}
	if d, ok := errors.AsType[*detailError](err); ok {
		p.Detail = d.detail
	}
	return p
}
