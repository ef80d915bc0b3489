package orchestrator

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"time"
	"unicode/utf8"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/integration"
	"github.com/weir-dev/weir/internal/invoke"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/statelang"
)

// Waits before something that said "not now" is asked again, doubled each time. Functions have a gate each, which waits.
const (
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

// Names of errors that functions fail with (user guide, "Handling errors").
const (
	errUnknownFunction = "Lambda.ResourceNotFoundException"
	errFunctionFailed  = "Lambda.Unknown"
)

const (
	// longTried is how long a call may be tried before the log says so, and sayAgain how often it does, of all calls.
	longTried = 10 * time.Second
	sayAgain  = 10 * time.Second
)

type tryingKey struct{}

// trying is a call that is made until it is taken.
type trying struct {
	id    ID
	e     statelang.Effect
	since time.Time
}

// afresh is ctx for something that a call waits for and asks again: before the first failure nothing was tried for long.
func afresh(ctx context.Context) context.Context {
	t, ok := ctx.Value(tryingKey{}).(trying)
	if !ok {
		return ctx
	}
	t.since = time.Now()
	return context.WithValue(ctx, tryingKey{}, t)
}

// again notes that ctx's call must be made once more, and tells the log if that goes on for long.
func (o *Orchestrator) again(ctx context.Context, why string) {
	t, ok := ctx.Value(tryingKey{}).(trying)
	last, now := o.said.Load(), time.Now()
	if !ok || ctx.Err() != nil || now.Sub(t.since) < longTried || now.UnixNano()-last < int64(sayAgain) || !o.said.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	o.cfg.Log.WarnContext(ctx, "a task is tried again and again, and others may be",
		"execution", t.id.String(), "state", t.e.State, "resource", resourceOf(t.e), "for", now.Sub(t.since).Round(time.Second), "reason", why)
}

// perform makes a call of a state, and yields what becomes of it; if it was submitted before, only what follows. Nothing is
// yielded any more once ctx has ended.
func (o *Orchestrator) perform(ctx context.Context, id ID, e statelang.Effect, submitted bool) iter.Seq[statelang.Event] {
	return func(yield func(statelang.Event) bool) {
		ctx := context.WithValue(ctx, tryingKey{}, trying{id, e, time.Now()})
		if !submitted {
			event := o.called(ctx, id, e)
			if event.Kind == "" { // it was cut
				return
			}
			if event.Kind == statelang.Succeeded && e.Resource.Pattern != statelang.RequestResponse {
				event.Kind = statelang.Submitted
			}
			if !yield(event) || event.Kind != statelang.Submitted {
				return
			}
		}
		known, ok := callerOf(e.Resource.Service, e.Resource.Action)
		if e.Resource.Pattern == statelang.WaitForTaskToken || !ok || known.await == nil {
			return
		}
		if event := known.await(o, ctx, id, e); event.Kind != "" {
			yield(event)
		}
	}
}

func (o *Orchestrator) called(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	switch e.Kind {
	case statelang.CallReader:
		return o.readItems(ctx, id, e)
	case statelang.CallWriter:
		return o.writeResults(ctx, id, e)
	}
	switch r := e.Resource; r.Kind {
	case statelang.URL:
		return o.function(ctx, id, e, catalog.Function{Name: r.Text, URL: r.Text}, e.Input)
	case statelang.Function:
		f, ok := o.cfg.Function(id.Machine.Namespace, r.Name)
		if !ok {
			return failed(errUnknownFunction, fmt.Sprintf("there is no function %q in the namespace %s", r.Name, id.Machine.Namespace))
		}
		return o.function(ctx, id, e, f, e.Input)
	}
	if known, ok := callerOf(e.Resource.Service, e.Resource.Action); ok {
		return known.call(o, ctx, id, e)
	}
	return failed(statelang.ErrRuntime, fmt.Sprintf("the resource %s is not served here", e.Resource.Text))
}

// tooLarge is a result of more than statelang.MaxDataBytes.
func tooLarge(state string) statelang.Event {
	return failed(statelang.ErrDataLimit, fmt.Sprintf("The state/task '%s' returned a result with a size exceeding the maximum number of bytes service limit.", state))
}

func failed(name, cause string) statelang.Event {
	return statelang.Event{Kind: statelang.Failed, Failure: statelang.NewFailure(name, cause)}
}

// lambda is arn:aws:states:::lambda:invoke: FunctionName and Payload. A text is sent as it is, an absent payload as {}.
func (o *Orchestrator) lambda(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	input, _ := e.Input.(*jsontree.Object)
	if input == nil {
		return failed(statelang.ErrRuntime, "lambda:invoke needs FunctionName and Payload")
	}
	v, _ := input.Get("FunctionName")
	name, isText := v.(string)
	name = integration.NameAfter(":function:", name)
	if !isText || name == "" {
		return failed(statelang.ErrRuntime, "lambda:invoke needs a FunctionName")
	}
	f, ok := o.cfg.Function(id.Machine.Namespace, name)
	if !ok {
		return failed(errUnknownFunction, fmt.Sprintf("Function not found: %s", name))
	}
	payload, _ := input.Get("Payload")
	if payload == nil {
		payload = &jsontree.Object{}
	}
	if text, isText := payload.(string); isText {
		parsed, err := jsontree.Parse([]byte(text))
		if err != nil {
			return failed("Lambda.InvalidRequestContentException", "the Payload is a text that is no JSON: "+err.Error())
		}
		payload = parsed
	}
	event := o.function(ctx, id, e, f, payload)
	if event.Kind == statelang.Succeeded {
		event.Output = jsontree.Of("ExecutedVersion", "$LATEST", "Payload", event.Output, "StatusCode", json.Number("200"))
	}
	return event
}

// warnings say which tasks of a machine call a function that is not there, as far as the definition tells.
func (o *Orchestrator) warnings(namespace string, m *statelang.Machine) (all []string) {
	for s := range m.All() {
		name := integration.FunctionOf(s)
		if _, ok := o.cfg.Function(namespace, name); name != "" && !ok {
			all = append(all, fmt.Sprintf("%s: there is no function %q in the namespace %s", s.Path(), name, namespace))
		}
	}
	return all
}

// Warnings say the same of all machines of a catalog.
func (o *Orchestrator) Warnings(cat *catalog.Catalog) (all []string) {
	for i := range cat.Machines {
		k := cat.Machines[i].Key
		m, err := o.machines.parse(cat.Machines[i].Definition, statelang.Type(cat.Machines[i].Type))
		if err != nil {
			continue // who starts it is told
		}
		for _, w := range o.warnings(k.Namespace, m.parsed) {
			all = append(all, k.String()+" "+w)
		}
	}
	return all
}

// function calls a function with a payload. One that says "not now" is asked until it takes it, or the task is over.
func (o *Orchestrator) function(ctx context.Context, id ID, e statelang.Effect, f catalog.Function, payload any) statelang.Event {
	body, err := jsontree.Append(nil, payload)
	if err != nil {
		return failed(statelang.ErrRuntime, "the payload is no JSON: "+err.Error())
	}
	q := invoke.Question{
		Function: invoke.FunctionName(id.Machine.Namespace, f), URL: f.URL, H2C: f.H2C, Limit: statelang.MaxDataBytes,
		Timeout: cmp.Or(e.Timeout, statelang.MaxExecutionAge),
		Record: &record.Record{
			ID: callID(ctx, id, e.Call), Time: o.cfg.Conn.Now().UTC(), Source: "/" + id.ARN(), ContentType: "application/json", JSON: true, Job: true, Body: body,
		},
	}
	q.Record.TraceParent, q.Record.TraceState = o.carried(ctx)
	asking := o.asking(ctx, id, e)
	defer asking.end()
	gate := o.functions.enter(f.URL)
	defer o.functions.leave(gate)
	for {
		if gate.acquire(ctx) != nil {
			return statelang.Event{}
		}
		select {
		case o.calls <- struct{}{}:
		case <-ctx.Done():
			gate.limiter.Cancel()
			return statelang.Event{}
		}
		outcome, answer := o.cfg.Caller.Ask(ctx, q)
		<-o.calls
		if ctx.Err() != nil { // it was cut, which says nothing of the function
			gate.limiter.Cancel()
		} else {
			pause := outcome.RetryAfter
			outcome.RetryAfter = min(pause, maxBackoff) // of all calls; this one alone may have to wait longer
			outcome = gate.limiter.Release(outcome)
			outcome.RetryAfter = pause
		}
		o.cfg.Caller.Measure(ctx, outcome, ctx.Err() != nil)
		switch {
		case ctx.Err() != nil:
			return statelang.Event{}
		case outcome.Class == invoke.Done:
			return resultOf(e.State, answer.Body)
		case outcome.Class == invoke.NotNow:
			asking.notNow(outcome) //nolint:contextcheck // a count belongs to no context
			o.again(ctx, outcome.Reason)
			if outcome.RetryAfter > maxBackoff { // of this call: the others need not wait so long
				pause(ctx, outcome.RetryAfter)
			}
		default:
			return statelang.Event{Kind: statelang.Failed, Failure: failureOf(outcome)}
		}
	}
}

func resultOf(state string, body []byte) statelang.Event {
	switch {
	case len(body) > statelang.MaxDataBytes:
		return tooLarge(state)
	case len(body) == 0:
		return statelang.Event{Kind: statelang.Succeeded}
	}
	v, err := jsontree.Parse(body)
	if err != nil && !utf8.Valid(body) {
		return failed(statelang.ErrRuntime, "the function's answer is neither JSON nor text")
	}
	if err != nil {
		v = string(body)
	}
	return statelang.Event{Kind: statelang.Succeeded, Output: v}
}

// failureOf is what a function's answer says of its failure: {"error", "cause"}, or {"errorType", …} as Lambda's runtimes
// have it, or else its status.
func failureOf(o invoke.Outcome) *statelang.Failure {
	if o.TimedOut {
		return statelang.NewFailure(statelang.ErrTimeout, "")
	}
	if v, err := jsontree.Parse(o.Said); err == nil {
		if said, ok := v.(*jsontree.Object); ok {
			if text, isText := textOf(said, "error"); said.Has("error") && (said.Has("cause") || isText && text != "" && said.Len() == 1) {
				return &statelang.Failure{Error: textIn(said, "error"), Cause: textIn(said, "cause")}
			}
			if name := textIn(said, "errorType"); name != nil {
				cause := string(o.Said)
				return &statelang.Failure{Error: name, Cause: &cause}
			}
		}
	}
	return statelang.NewFailure(errFunctionFailed, o.Reason)
}

func textIn(o *jsontree.Object, key string) *string {
	v, _ := o.Get(key)
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return &v
	}
	text, err := jsontree.Append(nil, v)
	if err != nil {
		return nil
	}
	s := string(text)
	return &s
}

// callID is the id of a call's event: the same whenever it is made, so that a function can tell that it has seen it, and another
// than that of an execution that had the name before.
func callID(ctx context.Context, id ID, call uint32) (made record.ID) {
	text := binary.BigEndian.AppendUint64([]byte(id.ARN()), uint64(workOf(ctx).began))
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(text, call))
	copy(made[:], sum[:])
	made[6], made[8] = made[6]&0x0f|0x80, made[8]&0x3f|0x80 // a UUID of version 8 (RFC 9562)
	return made
}
