// Package taskapi is what workers and functions say of tasks of state machines, and ask for: reports with a task's token, and tasks
// of activities. The gateway serves it to them, and the orchestrator at its admin port; both ask the owner of the execution, which
// is in package orchestrator. So the names of executions, their tokens and the format of these questions are here too.
//
// Invariants: every token and address that is accepted was signed by Weir; what is answered with 200 is durable; a task of an
// activity is given to one worker, and to none that is known to have gone away; a worker that waits asks nobody while there is
// nothing to be given; nothing waits on once Drain was called.
//
// The data flows through the files in this order: api.go (HTTP), workers.go (those that wait), asks.go (to the owner). names.go and
// tokens.go are what they name.
//
// May import: catalog, record, sign, jsontree, statelang, problem, stream.
package taskapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/sign"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
)

// Bounds of requests.
const (
	// MaxReportBytes bounds the body of a report: an output of statelang.MaxDataBytes, and what is around it.
	MaxReportBytes = statelang.MaxDataBytes + 64<<10
	// MaxTakeBytes bounds the body of a worker that asks for a task.
	MaxTakeBytes = 4 << 10
	// MaxTakeWait is how long a worker may wait for a task, and defaultTakeWait how long one does that says nothing.
	MaxTakeWait     = 60 * time.Second
	defaultTakeWait = 30 * time.Second
	maxWorkerName   = 80 // characters
)

// Config is what the API needs.
type Config struct {
	Conn stream.Asks
	// Tasks is the path below which tasks are reported on, as clients find it, with a slash at its end.
	Tasks string
}

// API serves reports and workers.
type API struct {
	cfg     Config
	keys    atomic.Pointer[sign.Ring]
	workers *workers

	drain      context.Context // cancelled when the drain begins
	startDrain context.CancelFunc
}

// New returns an API that knows no keys before UseKeys.
func New(cfg Config) *API {
	a := &API{cfg: cfg, workers: newWorkers(cfg.Conn)}
	a.keys.Store(&sign.Ring{})
	a.drain, a.startDrain = context.WithCancel(context.Background())
	return a
}

// UseKeys makes ring the signing keys.
func (a *API) UseKeys(ring sign.Ring) { a.keys.Store(&ring) }

// Ring returns the signing keys, an empty ring before UseKeys.
func (a *API) Ring() sign.Ring { return *a.keys.Load() }

// Drain ends all waits at once: workers come again, to others. It doesn't block.
func (a *API) Drain() { a.startDrain() }

// Report serves reports on the task whose token is the path's {token}: body is the whole of the request's.
func (a *API) Report(kind Kind) func(w http.ResponseWriter, req *http.Request, body []byte) {
	return func(w http.ResponseWriter, req *http.Request, body []byte) {
		ring := a.Ring()
		if len(ring.Keys) == 0 {
			problemOf(errNoKeys).Write(w)
			return
		}
		t, ok := ParseToken(ring, req.PathValue("token"))
		if !ok {
			problemOf(&stream.RefusedError{Code: CodeToken}).Write(w)
			return
		}
		q, err := reportOf(kind, body)
		if err == nil {
			err = report(req.Context(), a.cfg.Conn, t, q)
		}
		if err != nil {
			problemOf(err).Write(w)
			return
		}
		write(w, struct{}{})
	}
}

// reportOf reads {"output": …} of a success, {"error": …, "cause": …} of a failure, both optional; a sign of life says nothing.
func reportOf(kind Kind, body []byte) (Question, error) {
	q := Question{Kind: kind}
	switch kind {
	case Succeeded:
		var said struct {
			Output json.RawMessage `json:"output"`
		}
		if err := Read(body, &said); err != nil {
			return q, err
		}
		if said.Output == nil {
			said.Output = json.RawMessage("null")
		}
		if len(said.Output) > statelang.MaxDataBytes {
			return q, &stream.RefusedError{Code: CodeTooLarge, Message: fmt.Sprintf("The output has %d bytes: at most %d are allowed.", len(said.Output), statelang.MaxDataBytes)}
		}
		q.Output = &said.Output
	case Failed:
		q.Failure = new(Failure)
		return q, Read(body, q.Failure)
	}
	return q, nil
}

// Read reads a body that is a JSON object; an empty one is an empty object. The error is a *stream.RefusedError.
func Read(body []byte, into any) error {
	if len(strings.TrimSpace(string(body))) == 0 {
		return nil
	}
	if _, err := jsontree.Parse(body); err != nil {
		return &stream.RefusedError{Code: CodeInvalid, Message: "the body is no JSON: " + err.Error()}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return &stream.RefusedError{Code: CodeInvalid, Message: "the body is not as it must be: " + err.Error()}
	}
	return nil
}

// TakeAt serves a worker that asks for a task at an activity's address, the path's {address}.
func (a *API) TakeAt(w http.ResponseWriter, req *http.Request, body []byte) {
	ring := a.Ring()
	if len(ring.Keys) == 0 {
		problemOf(errNoKeys).Write(w)
		return
	}
	activity, ok := ParseAddress(ring, req.PathValue("address"))
	if !ok {
		problemOf(&stream.RefusedError{Code: CodeActivity}).Write(w)
		return
	}
	a.Take(w, req, activity, body)
}

// task is a task as a worker gets it.
type task struct {
	Token string          `json:"taskToken"`
	Input json.RawMessage `json:"input"`
	Links links           `json:"links"`
}

type links struct {
	Success   string `json:"success"`
	Failure   string `json:"failure"`
	Heartbeat string `json:"heartbeat"`
}

// Take serves a worker that asks for a task of an activity: {"workerName": …}, optional. It waits for one as long as the worker
// wants to (Prefer: wait), and answers 204 if there is none.
func (a *API) Take(w http.ResponseWriter, req *http.Request, activity catalog.Key, body []byte) {
	var said struct {
		Worker string `json:"workerName"`
	}
	err := Read(body, &said)
	if n := utf8.RuneCountInString(said.Worker); err == nil && n > maxWorkerName {
		err = &stream.RefusedError{Code: CodeInvalid, Message: fmt.Sprintf("workerName has %d characters: at most %d are allowed", n, maxWorkerName)}
	}
	if err != nil {
		problemOf(err).Write(w)
		return
	}
	wait, asked := PreferredWait(req.Header, MaxTakeWait)
	if !asked {
		wait = defaultTakeWait
	}
	until, cancel := context.WithTimeout(a.drain, wait)
	defer cancel()
	t, err := a.workers.take(req.Context(), until, activity, said.Worker)
	switch {
	case err != nil:
		problemOf(err).Write(w)
	case t.Token == "":
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
	default:
		at := a.cfg.Tasks + t.Token + "/"
		write(w, task{t.Token, t.Input, links{at + "success", at + "failure", at + "heartbeat"}})
	}
}

// PreferredWait is how long a client wants to wait, at most so long: Prefer: wait=SECONDS (RFC 7240). asked is false if it doesn't
// say so.
func PreferredWait(h http.Header, most time.Duration) (wait time.Duration, asked bool) {
	for _, p := range strings.FieldsFunc(strings.Join(h.Values("Prefer"), ","), func(r rune) bool { return r == ',' || r == ';' }) {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
		if strings.EqualFold(name, "wait") && err == nil {
			return min(time.Duration(n)*time.Second, most), true
		}
	}
	return 0, false
}

func write(w http.ResponseWriter, v any) {
	body, err := jsontree.Marshal(v)
	if err != nil { // never: it holds JSON values
		problemOf(err).Write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(body, '\n')) // an error means that the client is gone
}

var errNoKeys = errors.New("taskapi: no signing keys have come yet")

// problemOf is why nothing was done.
func problemOf(err error) problem.Problem {
	refused, isRefused := errors.AsType[*stream.RefusedError](err)
	switch {
	case errors.Is(err, errNoKeys):
		return problem.NotNow("Starting", "There are no signing keys here yet. Try again.", time.Second)
	case isRefused && refused.Code == CodeToken:
		return problem.Problem{Status: http.StatusNotFound, Type: problem.NoTask, Title: "No such task", Detail: "This task token was never given."}
	case isRefused && refused.Code == CodeActivity:
		return problem.Problem{
			Status: http.StatusNotFound, Type: problem.NoActivity, Title: "No such activity",
			Detail: "This address of an activity was never given, or long ago. PUT /activities/NAME at the admin port gives one.",
		}
	case isRefused && (refused.Code == CodeOver || refused.Code == CodeNoExecution):
		return problem.Problem{
			Status: http.StatusConflict, Type: problem.TaskOver, Title: "The task is over",
			Detail: "It has ended, has timed out, or its execution has ended. Stop working at it.",
		}
	case isRefused && (refused.Code == CodeBusy || refused.Code == CodeFull):
		return problem.NotNow("Not now", refused.Message, time.Second)
	case isRefused && refused.Code == CodeTooLarge, errors.Is(err, stream.ErrTooLargeForServer):
		return problem.Problem{Status: http.StatusRequestEntityTooLarge, Type: problem.TooLarge, Title: "Too large", Detail: err.Error()}
	case isRefused && refused.Code == CodeInvalid:
		return problem.Problem{Status: http.StatusBadRequest, Type: problem.BadRequest, Title: "Invalid request", Detail: refused.Message}
	case isRefused:
		return problem.Problem{Status: http.StatusInternalServerError, Type: problem.Internal, Title: refused.Code, Detail: refused.Message}
	}
	return problem.NotNow("Executions are not available", "The execution has no owner now, or NATS is away: try again. "+err.Error(), time.Second)
}
