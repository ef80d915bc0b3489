package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
)

// Codes of what is refused, for programs, besides those of package taskapi.
const (
	CodeNoMachine  = "StateMachineDoesNotExist"
	CodeExists     = "ExecutionAlreadyExists"
	CodeResource   = "StateMachineIsResource"
	CodeDefinition = "InvalidDefinition"
	CodeEnded      = "ExecutionNotRunning"
	CodeNotFailed  = "ExecutionNotRedrivable"
	CodeUnreadable = "Unreadable"
)

// What a partition's owner is asked, besides what package taskapi asks.
const (
	askPut      = "put"
	askStart    = "start"
	askDescribe = "describe"
	askHistory  = "history"
	askStop     = "stop"
	askRedrive  = "redrive"
)

// ask is what the owner of a partition is asked for. Each uses some of the fields.
type ask struct {
	taskapi.Question
	Input    json.RawMessage  `json:"input,omitempty"`
	Put      *registered      `json:"put,omitempty"`
	PutTable *registeredTable `json:"putTable,omitempty"`
	Table    *tableAsk        `json:"table,omitempty"`
	After    int              `json:"after,omitempty"`
	Limit    int              `json:"limit,omitempty"`
	Reverse  bool             `json:"reverse,omitempty"`
	Callback string           `json:"callback,omitempty"` // of the job whose work the execution is
	// The trace context of a start.
	TraceParent string `json:"tp,omitempty"`
	TraceState  string `json:"ts,omitempty"`
}

// ask asks the owner of the execution's partition.
func (o *Orchestrator) ask(ctx context.Context, id ID, what string, a ask) ([]byte, error) {
	a.Namespace, a.Machine, a.Name = id.Machine.Namespace, id.Machine.Name, id.Name
	if what == askStart {
		a.TraceParent, a.TraceState = o.carried(ctx)
	}
	body, err := marshal(a)
	if err != nil {
		return nil, &stream.RefusedError{Code: taskapi.CodeInvalid, Message: err.Error()}
	}
	return o.cfg.Conn.Ask(ctx, id.Partition(), what, body)
}

// answer is the owner's side.
func (p *partition) answer(ctx context.Context, what string, body []byte) ([]byte, error) {
	answer, err := p.reply(ctx, what, body)
	p.o.metrics.answered(what, err) //nolint:contextcheck // a count belongs to no context
	if errors.Is(err, errUnknown) {
		return nil, &stream.RefusedError{Code: CodeUnreadable, Message: err.Error()}
	}
	return answer, err
}

func (p *partition) reply(ctx context.Context, what string, body []byte) ([]byte, error) {
	if !p.holds() || p.ctx.Err() != nil {
		return nil, stream.ErrLeaseLost
	}
	var a ask
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, fmt.Errorf("the question can't be read: %w", err)
	}
	k := catalog.Key{Namespace: a.Namespace, Name: a.Machine}
	id := ID{Machine: k, Name: a.Name}
	switch what {
	case askPut:
		switch {
		case a.Put != nil:
			return nil, p.put(ctx, registryKey(k), a.Put)
		case a.PutTable != nil:
			return nil, p.putTable(ctx, k, a.PutTable)
		}
		return nil, errors.New("nothing is put")
	case askTable:
		if a.Table == nil {
			return nil, errors.New("no item is named")
		}
		return p.changeItem(ctx, k, *a.Table, a.Input)
	case askStart:
		m, err := p.o.machines.named(ctx, k)
		if err != nil {
			return nil, err
		}
		input, err := jsontree.Parse(a.Input)
		if err != nil {
			return nil, &stream.RefusedError{Code: taskapi.CodeInvalid, Message: "the input is no JSON: " + err.Error()}
		}
		return nil, p.create(p.o.under(ctx, a.TraceParent, a.TraceState), id, m, input, a.Callback)
	case askDescribe:
		var d Description
		if err := p.look(ctx, id, func(x *execution) error {
			d = x.describe()
			return nil
		}); err != nil {
			return nil, err
		}
		return marshal(d)
	case askHistory:
		var h History
		if err := p.look(ctx, id, func(x *execution) (err error) {
			h, err = x.history(a.After, a.Limit, a.Reverse)
			return err
		}); err != nil {
			return nil, err
		}
		return marshal(h)
	case askStop:
		return nil, p.event(ctx, id, statelang.Event{Kind: statelang.Stopped, Failure: a.Failure.AsFailure()})
	case askRedrive:
		return nil, p.event(ctx, id, statelang.Event{Kind: statelang.Redriven})
	case taskapi.AskReport:
		return nil, p.report(ctx, id, a.Question)
	case taskapi.AskTake:
		t, err := p.take(ctx, k, a.Worker)
		if err != nil {
			return nil, err
		}
		return marshal(t)
	}
	return nil, fmt.Errorf("%q is unknown", what)
}

// Description is an execution as the API shows it.
type Description struct {
	ID           string           `json:"id"`
	ARN          string           `json:"executionArn"`
	StateMachine string           `json:"stateMachine"`
	Name         string           `json:"name"`
	Type         statelang.Type   `json:"type"`
	Status       statelang.Status `json:"status"`
	StartDate    time.Time        `json:"startDate"`
	StopDate     *time.Time       `json:"stopDate,omitempty"`
	Input        json.RawMessage  `json:"input"`
	Output       json.RawMessage  `json:"output,omitempty"`
	Error        *string          `json:"error,omitempty"`
	Cause        *string          `json:"cause,omitempty"`
	Events       int              `json:"events"`
}

func (x *execution) describe() Description {
	d := Description{
		ID: x.id.String(), ARN: x.id.ARN(), StateMachine: x.id.Machine.String(), Name: x.id.Name, Type: x.began.Type, StartDate: x.start.At, Input: x.began.Input,
	}
	d.outcome(x.run)
	return d
}

// outcome says how a run is.
func (d *Description) outcome(run *statelang.Run) {
	d.Status, d.Events = run.Status(), run.Events()
	if at := run.Ended(); !at.IsZero() {
		d.StopDate = &at
	}
	if d.Status == statelang.StatusSucceeded {
		d.Output, _ = jsontree.Append(nil, run.Output()) // it was a JSON value
	}
	if f := run.Failure(); f != nil {
		d.Error, d.Cause = f.Error, f.Cause
	}
}
