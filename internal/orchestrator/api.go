package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/problem"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
)

// Bounds of the API.
const (
	maxRequestBytes = statelang.MaxDefinitionBytes + 64<<10
	maxListed       = 1000
	apiTimeout      = 30 * time.Second
)

// API is the operator's API of state machines, at /state-machines/, /executions/, /tasks/ and /activities/. Whoever reaches it may do everything.
func (o *Orchestrator) API() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request) error{
		"PUT /state-machines/{name}":             o.putMachine,
		"GET /state-machines":                    o.listMachines,
		"GET /state-machines/{name}":             o.getMachine,
		"POST /state-machines/{name}/executions": o.startExecution,
		"GET /state-machines/{name}/executions":  o.listExecutions,
		"PUT /tables/{name}":                     o.putTable,
		"GET /executions/{id}":                   o.getExecution,
		"GET /executions/{id}/history":           o.getHistory,
		"POST /executions/{id}/stop":             o.stopExecution,
		"POST /executions/{id}/redrive":          o.redriveExecution,
		"PUT /activities/{name}":                 o.putActivity,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			deadline := time.Now().Add(apiTimeout)
			_ = rc.SetReadDeadline(deadline) // the server's own are those of probes
			_ = rc.SetWriteDeadline(deadline)
			ctx, cancel := context.WithDeadline(r.Context(), deadline)
			defer cancel()
			if err := serve(w, r.WithContext(ctx)); err != nil {
				refuse(w, err)
			}
		})
	}
	o.serveTasks(mux)
	return mux
}

// putMachine takes {definition, type}. The definition is an object, or a text that holds one.
func (o *Orchestrator) putMachine(w http.ResponseWriter, r *http.Request) error {
	k, err := taskapi.ParseMachine(r.PathValue("name"))
	if err != nil {
		return invalid(err)
	}
	if o.machines.resource(k) != nil {
		return &stream.RefusedError{Code: CodeResource, Message: fmt.Sprintf("state machine %s is a resource: change that", k)}
	}
	var put struct {
		Definition json.RawMessage `json:"definition"`
		Type       statelang.Type  `json:"type"`
	}
	if err := readBody(w, r, &put); err != nil {
		return err
	}
	if put.Definition == nil {
		return &stream.RefusedError{Code: taskapi.CodeInvalid, Message: "definition is missing: the body is {\"definition\": …, \"type\": …}, with the state machine, or a text that holds it, in definition"}
	}
	text := []byte(put.Definition)
	var inner string
	if json.Unmarshal(text, &inner) == nil {
		text = []byte(inner)
	}
	if put.Type == "" {
		put.Type = statelang.Standard
	}
	m, err := o.machines.parse(text, put.Type)
	if err != nil {
		return err
	}
	if len(m.text) > stream.MaxJobBytes {
		return &stream.RefusedError{Code: taskapi.CodeInvalid, Message: fmt.Sprintf("the definition has %d bytes: at most %d can be stored", len(m.text), stream.MaxJobBytes)}
	}
	stored := registered{Type: put.Type, Definition: m.text, Changed: o.cfg.Conn.Now().UTC()}
	body, err := marshal(ask{Question: taskapi.Question{Namespace: k.Namespace, Machine: k.Name}, Put: &stored})
	if err != nil {
		return err
	}
	if _, err := o.cfg.Conn.Ask(r.Context(), stream.MachinePartition(0), askPut, body); err != nil {
		return err
	}
	o.machines.remember(k, m)
	shown := map[string]any{"name": k.String(), "type": put.Type, "stateMachineArn": taskapi.MachineARN(k)}
	if w := o.warnings(k.Namespace, m.parsed); len(w) > 0 {
		shown["warnings"] = w
	}
	return write(w, http.StatusOK, shown)
}

func (o *Orchestrator) getMachine(w http.ResponseWriter, r *http.Request) error {
	k, err := taskapi.ParseMachine(r.PathValue("name"))
	if err != nil {
		return invalid(err)
	}
	m, err := o.machines.look(r.Context(), k)
	if err != nil {
		return err
	}
	shown := map[string]any{"name": k.String(), "type": m.Type, "stateMachineArn": taskapi.MachineARN(k), "definition": m.Definition}
	if !m.Changed.IsZero() {
		shown["changed"] = m.Changed
	}
	return write(w, http.StatusOK, shown)
}

// listMachines lists state machines by their names: resources, and those that were put, at most maxListed.
func (o *Orchestrator) listMachines(w http.ResponseWriter, r *http.Request) error {
	type listed struct {
		Name string         `json:"name"`
		Type statelang.Type `json:"type"`
		ARN  string         `json:"stateMachineArn"`
	}
	all := map[catalog.Key]listed{}
	add := func(k catalog.Key, kind statelang.Type) {
		all[k] = listed{k.String(), kind, taskapi.MachineARN(k)}
	}
	for k, m := range o.machines.listed() {
		add(k, statelang.Type(m.Type))
	}
	err := o.cfg.Conn.ScanStates(r.Context(), stream.MachinePartition(0), registryKind+".*", func(key string, s stream.StoredState) error {
		k, ok := taskapi.KeyOf(strings.TrimPrefix(key, registryKind+"."))
		if !ok || o.machines.resource(k) != nil || len(all) >= maxListed {
			return nil
		}
		var m registered
		if err := json.Unmarshal(s.Body, &m); err != nil {
			return nil //nolint:nilerr // GET of it says so
		}
		add(k, m.Type)
		return nil
	})
	if err != nil {
		return err
	}
	list := append([]listed{}, slices.Collect(maps.Values(all))...)
	slices.SortFunc(list, func(a, b listed) int { return strings.Compare(a.Name, b.Name) })
	return write(w, http.StatusOK, map[string]any{"stateMachines": list[:min(len(list), maxListed)]})
}

// startExecution takes {input, name}, both optional.
func (o *Orchestrator) startExecution(w http.ResponseWriter, r *http.Request) (err error) {
	k, err := taskapi.ParseMachine(r.PathValue("name"))
	if err != nil {
		return invalid(err)
	}
	var start struct {
		Input json.RawMessage `json:"input"`
		Name  string          `json:"name"`
	}
	var body map[string]json.RawMessage
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	for member, value := range body {
		into := map[string]any{"input": &start.Input, "name": &start.Name}[member]
		if into == nil { // an input of its own, most likely: it would be lost
			return &stream.RefusedError{Code: taskapi.CodeInvalid, Message: fmt.Sprintf("%q is no member here: the body is {\"input\": …, \"name\": …}, both optional; is it to be in input?", member)}
		}
		if err := json.Unmarshal(value, into); err != nil {
			return &stream.RefusedError{Code: taskapi.CodeInvalid, Message: fmt.Sprintf("%s is not as it must be: %v", member, err)}
		}
	}
	if start.Name == "" {
		if start.Name, err = newName(); err != nil {
			return err
		}
	}
	if err := taskapi.CheckName(start.Name); err != nil {
		return invalid(err)
	}
	if start.Input == nil {
		start.Input = json.RawMessage("{}")
	}
	if len(start.Input) > statelang.MaxDataBytes {
		return &stream.RefusedError{Code: taskapi.CodeInvalid, Message: fmt.Sprintf("the input has %d bytes: at most %d are allowed", len(start.Input), statelang.MaxDataBytes)}
	}
	id := ID{Machine: k, Name: start.Name}
	r, end := o.starting(r, id)
	defer func() { end(err) }()
	wait, _ := taskapi.PreferredWait(r.Header, maxWait)
	if wait > 0 {
		if m, err := o.machines.named(r.Context(), k); err != nil {
			return err
		} else if m.parsed.Type == statelang.Express {
			return o.startSync(w, r, id, m, start.Input, wait)
		}
	}
	if _, err := o.ask(r.Context(), id, askStart, ask{Input: start.Input}); err != nil {
		return err
	}
	w.Header().Set("Location", "/executions/"+id.String())
	if wait > 0 {
		return o.waitFor(w, r, id, wait)
	}
	return write(w, http.StatusCreated, map[string]any{"id": id.String(), "executionArn": id.ARN()})
}

// maxWait is how long a client may wait for an execution's end.
const maxWait = 25 * time.Second

// startSync runs an EXPRESS execution in this request. Its end is the answer.
func (o *Orchestrator) startSync(w http.ResponseWriter, r *http.Request, id ID, m *machine, text json.RawMessage, wait time.Duration) error {
	input, err := jsontree.Parse(text)
	if err != nil {
		return invalid(err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	began := o.cfg.Conn.Now().UTC()
	ended := o.metrics.of(id.Machine).synchronous() //nolint:contextcheck // a count belongs to no context
	run, err := o.runExpress(ctx, id, m, input)
	ended(run, err)
	if errors.Is(err, context.DeadlineExceeded) {
		problem.Problem{
			Type: problem.Timeout, Title: "The execution took too long", Status: http.StatusGatewayTimeout,
			Detail: fmt.Sprintf("It did not end within %v, and was given up. Start it without Prefer: wait, or make it a STANDARD one.", wait),
		}.Write(w)
		return nil
	}
	if err != nil {
		return err
	}
	d := Description{ID: id.String(), ARN: id.ARN(), StateMachine: id.Machine.String(), Name: id.Name, Type: statelang.Express, StartDate: began, Input: text}
	d.outcome(run)
	return write(w, http.StatusOK, d)
}

// waitFor answers with how an execution is, once it has ended or the client has waited enough.
func (o *Orchestrator) waitFor(w http.ResponseWriter, r *http.Request, id ID, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for pauseFor := firstLook; ; pauseFor = min(2*pauseFor, maxLook) {
		body, err := o.ask(r.Context(), id, askDescribe, ask{})
		if err != nil {
			return err
		}
		var d Description
		if err := json.Unmarshal(body, &d); err != nil {
			return err
		}
		if d.Status != statelang.StatusRunning || !time.Now().Add(pauseFor).Before(deadline) {
			return write(w, http.StatusOK, json.RawMessage(body))
		}
		pause(r.Context(), pauseFor)
	}
}

func (o *Orchestrator) getExecution(w http.ResponseWriter, r *http.Request) error {
	id, err := taskapi.ParseID(r.PathValue("id"))
	if err != nil {
		return invalid(err)
	}
	body, err := o.ask(r.Context(), id, askDescribe, ask{})
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, json.RawMessage(body))
}

func (o *Orchestrator) getHistory(w http.ResponseWriter, r *http.Request) error {
	id, err := taskapi.ParseID(r.PathValue("id"))
	if err != nil {
		return invalid(err)
	}
	q := r.URL.Query()
	after, err := count(q.Get("after"), 0)
	if err != nil {
		return err
	}
	limit, err := count(q.Get("limit"), maxPage)
	if err != nil {
		return err
	}
	body, err := o.ask(r.Context(), id, askHistory, ask{After: after, Limit: limit, Reverse: q.Get("reverse") == "true"})
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, json.RawMessage(body))
}

func count(text string, otherwise int) (int, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, &stream.RefusedError{Code: taskapi.CodeInvalid, Message: fmt.Sprintf("%q is no count", text)}
	}
	return n, nil
}

func (o *Orchestrator) stopExecution(w http.ResponseWriter, r *http.Request) error {
	return o.change(w, r, askStop)
}

func (o *Orchestrator) redriveExecution(w http.ResponseWriter, r *http.Request) error {
	return o.change(w, r, askRedrive)
}

func (o *Orchestrator) change(w http.ResponseWriter, r *http.Request, what string) error {
	id, err := taskapi.ParseID(r.PathValue("id"))
	if err != nil {
		return invalid(err)
	}
	var f taskapi.Failure
	if err := readBody(w, r, &f); err != nil {
		return err
	}
	if _, err := o.ask(r.Context(), id, what, ask{Question: taskapi.Question{Failure: &f}}); err != nil {
		return err
	}
	return write(w, http.StatusOK, map[string]any{"id": id.String()})
}

// listExecutions lists the executions of a machine, the latest first: ?status= and ?limit=.
func (o *Orchestrator) listExecutions(w http.ResponseWriter, r *http.Request) error {
	k, err := taskapi.ParseMachine(r.PathValue("name"))
	if err != nil {
		return invalid(err)
	}
	q := r.URL.Query()
	limit, err := count(q.Get("limit"), maxListed)
	if err != nil {
		return err
	}
	type listed struct {
		ID        string           `json:"id"`
		Status    statelang.Status `json:"status"`
		StartDate time.Time        `json:"startDate"`
		StopDate  *time.Time       `json:"stopDate,omitempty"`
		Error     string           `json:"error,omitempty"`
	}
	list := []listed{}
	for n := range stream.MachinePartitions {
		err := o.cfg.Conn.ScanStates(r.Context(), stream.MachinePartition(n), taskapi.KeysOf(k), func(key string, s stream.StoredState) error {
			id, ok := taskapi.IDOf(key)
			if !ok {
				return nil
			}
			sum, err := decodeSummary(s.Header)
			if err != nil || q.Get("status") != "" && string(sum.Status) != q.Get("status") {
				return nil //nolint:nilerr // its owner has reported it
			}
			e := listed{ID: id.String(), Status: sum.Status, StartDate: time.UnixMilli(sum.Began).UTC(), Error: sum.Error}
			if sum.Ended != 0 {
				at := time.UnixMilli(sum.Ended).UTC()
				e.StopDate = &at
			}
			if list = append(list, e); len(list) > 2*maxListed {
				list = latest(list, maxListed, func(e listed) time.Time { return e.StartDate })
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	list = latest(list, min(limit, maxListed), func(e listed) time.Time { return e.StartDate })
	return write(w, http.StatusOK, map[string]any{"executions": list})
}

func latest[T any](list []T, most int, at func(T) time.Time) []T {
	slices.SortStableFunc(list, func(a, b T) int { return at(b).Compare(at(a)) })
	return list[:min(len(list), most)]
}

// readBody reads a JSON object; none is an empty one.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	if err != nil {
		return &stream.RefusedError{Code: taskapi.CodeInvalid, Message: fmt.Sprintf("the body can't be read, or has more than %d bytes", maxRequestBytes)}
	}
	return taskapi.Read(text, into)
}

func write(w http.ResponseWriter, status int, v any) error {
	body, err := marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) //nolint:gosec // it is JSON, and says so; an error means that the client is gone
	return nil
}

func invalid(err error) error {
	return &stream.RefusedError{Code: taskapi.CodeInvalid, Message: err.Error()}
}

// refuse answers with a problem.
func refuse(w http.ResponseWriter, err error) {
	p := problem.Problem{Type: problem.BadRequest, Title: "Invalid request", Status: http.StatusBadRequest, Detail: err.Error()}
	var problems statelang.Problems
	var refused *stream.RefusedError
	switch {
	case errors.As(err, &problems):
		p.Title = "Invalid definition"
		for _, one := range problems {
			p.Errors = append(p.Errors, problem.Field{Pointer: one.Path, Detail: one.Message})
		}
	case errors.As(err, &refused):
		p.Title, p.Detail = refused.Code, refused.Message
		switch refused.Code {
		case CodeNoMachine, taskapi.CodeNoExecution:
			p.Type, p.Status = problem.NotFound, http.StatusNotFound
		case CodeExists, CodeResource, CodeEnded, CodeNotFailed:
			p.Type, p.Status = problem.Conflict, http.StatusConflict
		case CodeUnreadable:
			p.Type, p.Status = problem.Internal, http.StatusInternalServerError
		case taskapi.CodeFull, taskapi.CodeBusy:
			p = problem.NotNow(refused.Code, refused.Message, time.Second)
		}
	case errors.Is(err, stream.ErrTooLargeForServer):
		p.Type, p.Title, p.Status = problem.TooLarge, "Too large", http.StatusRequestEntityTooLarge
	case errors.Is(err, stream.ErrUnavailable), errors.Is(err, stream.ErrLeaseLost), errors.Is(err, context.DeadlineExceeded):
		p = problem.NotNow("Executions are not available", "Their partition has no owner now, or NATS is away: try again. "+err.Error(), time.Second)
	default:
		p.Type, p.Title, p.Status = problem.Internal, "Internal error", http.StatusInternalServerError
	}
	p.Write(w)
}
