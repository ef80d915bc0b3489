package orchestrator

import (
	"context"
	"crypto/md5" //nolint:gosec // SQS answers with the body's MD5
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/taskapi"
)

// caller makes the calls of an integration.
type caller struct {
	call func(o *Orchestrator, ctx context.Context, id ID, e statelang.Effect) statelang.Event
	// await waits for the end of what call has started, for the patterns that do; nil if none does.
	await func(o *Orchestrator, ctx context.Context, id ID, e statelang.Effect) statelang.Event
	// end ends what call has started, when nobody waits for it any more; nil if it goes on.
	end func(o *Orchestrator, ctx context.Context, id ID, e statelang.Effect)
}

// callerOf returns the caller of each of integration.Actions.
func callerOf(service, action string) (caller, bool) {
	switch service + ":" + action {
	case "lambda:invoke":
		return caller{call: (*Orchestrator).lambda}, true
	case "sqs:sendMessage":
		return caller{call: (*Orchestrator).sendMessage}, true
	case "states:startExecution":
		return caller{call: (*Orchestrator).startChild, await: (*Orchestrator).awaitChild}, true
	case "batch:submitJob":
		return caller{call: (*Orchestrator).submitJob, await: (*Orchestrator).awaitJob, end: (*Orchestrator).terminateJob}, true
	case "jobs:waitForListener":
		return caller{call: (*Orchestrator).waitForListener}, true
	case "jobs:sendToListener":
		return caller{call: (*Orchestrator).sendToListener}, true
	case "http:invoke":
		return caller{call: (*Orchestrator).invokeHTTP}, true
	case "s3:getObject", "aws-sdk:s3:getObject":
		return caller{call: (*Orchestrator).getObject}, true
	case "s3:putObject", "aws-sdk:s3:putObject":
		return caller{call: (*Orchestrator).putObject}, true
	case "dynamodb:getItem", "dynamodb:putItem", "dynamodb:updateItem", "dynamodb:deleteItem",
		"aws-sdk:dynamodb:getItem", "aws-sdk:dynamodb:putItem", "aws-sdk:dynamodb:updateItem", "aws-sdk:dynamodb:deleteItem":
		return caller{call: (*Orchestrator).item}, true
	case "rds-data:executeStatement", "aws-sdk:rdsdata:executeStatement":
		return caller{call: (*Orchestrator).executeStatement}, true
	case "aws-sdk:sfn:startExecution":
		return caller{call: (*Orchestrator).startChild}, true
	case "aws-sdk:sfn:sendTaskSuccess", "aws-sdk:sfn:sendTaskFailure", "aws-sdk:sfn:sendTaskHeartbeat":
		return caller{call: (*Orchestrator).sendTask}, true
	}
	return caller{}, false
}

// sendMessage is arn:aws:states:::sqs:sendMessage: QueueUrl, which ends with the name of a Queue of the machine's namespace,
// and MessageBody. A message that is sent again, because nobody knows whether it was, is the same record.
func (o *Orchestrator) sendMessage(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	input, _ := e.Input.(*jsontree.Object)
	url, ok := textOf(input, "QueueUrl")
	if !ok || url == "" {
		return failed("SQS.SqsException", "sqs:sendMessage needs a QueueUrl: the name of a Queue, or a URL or an ARN that ends with it")
	}
	body, hasBody := valueOf(input, "MessageBody")
	if !hasBody {
		return failed("SQS.SqsException", "sqs:sendMessage needs a MessageBody")
	}
	queue := catalog.Key{Namespace: id.Machine.Namespace, Name: url[strings.LastIndexAny(url, "/:")+1:]}
	text, isText := body.(string)
	r := &record.Record{
		ID: callID(ctx, id, e.Call), Time: o.cfg.Conn.Now().UTC(), Source: "/" + id.ARN(), ContentType: "text/plain; charset=utf-8", Body: []byte(text),
	}
	if !isText {
		j, err := jsontree.Append(nil, body)
		if err != nil {
			return failed("SQS.SqsException", "the MessageBody is no JSON: "+err.Error())
		}
		r.ContentType, r.JSON, r.Body = "application/json", true, j
	} else if json.Valid(r.Body) {
		r.ContentType, r.JSON = "application/json", true
	}
	r.TraceParent, r.TraceState = o.carried(ctx)
	for range tries(ctx, firstBackoff, maxBackoff) {
		_, err := o.cfg.Conn.AppendOnce(ctx, queue, r)
		switch {
		case err == nil:
			sum := md5.Sum(r.Body) //nolint:gosec // as documented
			return statelang.Event{Kind: statelang.Succeeded, Output: jsontree.Of("MessageId", r.ID.String(), "MD5OfMessageBody", hex.EncodeToString(sum[:]))}
		case errors.Is(err, stream.ErrNoQueue), errors.Is(err, stream.ErrQueueClosed):
			return failed("SQS.QueueDoesNotExistException", fmt.Sprintf("The specified queue does not exist: %s", queue))
		case errors.Is(err, stream.ErrTooLargeForServer):
			return failed("SQS.SqsException", "One or more parameters are invalid. Reason: Message is too long.")
		}
		o.again(ctx, err.Error()) // a queue that is full, or NATS that is away, says "not now"
	}
	return statelang.Event{}
}

// startChild is arn:aws:states:::states:startExecution, and the same of AWS's SDK: StateMachineArn, Input, Name. Without a name
// the call's number is in it, so that a start that is made again is the same.
func (o *Orchestrator) startChild(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	child, input, f := childOf(ctx, id, e)
	if f != nil {
		return statelang.Event{Kind: statelang.Failed, Failure: f}
	}
	_, err := o.insist(ctx, child, askStart, ask{Input: input})
	if refused, isRefused := errors.AsType[*stream.RefusedError](err); isRefused {
		return failed(servicePrefix(e)+strings.TrimSuffix(refused.Code, "Exception")+"Exception", refused.Message)
	}
	if err != nil {
		return statelang.Event{}
	}
	return statelang.Event{Kind: statelang.Succeeded, Output: jsontree.Of("ExecutionArn", child.ARN(), "StartDate", json.Number(fmt.Sprint(o.cfg.Conn.Now().UnixMilli())))}
}

// servicePrefix begins the names of errors of Step Functions, which its own integration and the SDK's spell differently.
func servicePrefix(e statelang.Effect) string {
	if strings.HasPrefix(e.Resource.Service, "aws-sdk:") {
		return "Sfn."
	}
	return "StepFunctions."
}

// childOf is the nested execution that a call is about, and its input.
func childOf(ctx context.Context, id ID, e statelang.Effect) (child ID, text json.RawMessage, f *statelang.Failure) {
	input, _ := e.Input.(*jsontree.Object)
	arn, ok := textOf(input, "StateMachineArn")
	k, err := taskapi.ParseMachine(arn)
	if !ok || err != nil {
		return child, nil, statelang.NewFailure(servicePrefix(e)+"InvalidArnException", fmt.Sprintf("Invalid Arn: 'StateMachineArn' must name a state machine: %q", arn))
	}
	if !strings.Contains(arn, "/") && !strings.HasPrefix(arn, "arn:"+taskapi.ARNPartition+":") {
		k.Namespace = id.Machine.Namespace
	}
	name, ok := textOf(input, "Name")
	if !ok || name == "" {
		name = callID(ctx, id, e.Call).String()
	}
	if err := taskapi.CheckName(name); err != nil {
		return child, nil, statelang.NewFailure(servicePrefix(e)+"InvalidNameException", err.Error())
	}
	if text, err = childInput(input); err != nil {
		return child, nil, statelang.NewFailure(servicePrefix(e)+"InvalidExecutionInputException", err.Error())
	}
	return ID{Machine: k, Name: name}, text, nil
}

// childInput is the input of a nested execution: none, or null, is an empty object; a text holds JSON.
func childInput(input *jsontree.Object) (json.RawMessage, error) {
	v, _ := input.Get("Input")
	if v == nil {
		return json.RawMessage("{}"), nil
	}
	if text, ok := v.(string); ok {
		if _, err := jsontree.Parse([]byte(text)); err != nil {
			return nil, fmt.Errorf("Invalid State Machine Execution Input: %w", err) //nolint:staticcheck // AWS's text
		}
		return json.RawMessage(text), nil
	}
	return jsontree.Append(nil, v)
}

// insist asks until the owner answers, whoever it is; only a refusal is final.
func (o *Orchestrator) insist(ctx context.Context, id ID, what string, a ask) ([]byte, error) {
	ctx = afresh(ctx)
	for range tries(ctx, firstBackoff, maxBackoff) {
		body, err := o.ask(ctx, id, what, a)
		refused, isRefused := errors.AsType[*stream.RefusedError](err)
		if errors.Is(err, stream.ErrTooLargeForServer) {
			return nil, &stream.RefusedError{Code: taskapi.CodeInvalid, Message: "it is larger than NATS takes"}
		}
		if err == nil || isRefused && refused.Code != taskapi.CodeBusy && refused.Code != taskapi.CodeFull {
			return body, err
		}
		o.again(ctx, err.Error())
	}
	return nil, context.Cause(ctx)
}

// Waits before the end of a nested execution is looked for again.
const (
	firstLook = 5 * time.Millisecond
	maxLook   = time.Second
)

// awaitChild returns how a nested execution ended. With .sync:2 its input and output are JSON, else texts that hold it.
func (o *Orchestrator) awaitChild(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	child, _, f := childOf(ctx, id, e)
	if f != nil {
		return statelang.Event{Kind: statelang.Failed, Failure: f}
	}
	asJSON := e.Resource.Pattern == statelang.RunToEnd2
	var d Description
	for range tries(ctx, firstLook, maxLook) {
		body, err := o.insist(ctx, child, askDescribe, ask{})
		if refused, isRefused := errors.AsType[*stream.RefusedError](err); isRefused {
			return failed("StepFunctions."+strings.TrimSuffix(refused.Code, "Exception")+"Exception", refused.Message)
		}
		if err != nil {
			return statelang.Event{}
		}
		if err := json.Unmarshal(body, &d); err != nil {
			return failed(statelang.ErrRuntime, "the nested execution can't be read: "+err.Error())
		}
		if d.Status != statelang.StatusRunning {
			break
		}
	}
	if d.Status == statelang.StatusRunning { // it was cut
		return statelang.Event{}
	}
	shown := jsontree.Of("ExecutionArn", child.ARN())
	data := func(name string, text json.RawMessage) {
		if text == nil {
			return
		}
		shown.Set(name, string(text))
		if v, err := jsontree.Parse(text); err == nil && asJSON {
			shown.Set(name, v)
		}
		shown.Set(name+"Details", jsontree.Of("Included", true))
	}
	if d.Cause != nil {
		shown.Set("Cause", *d.Cause)
	}
	if d.Error != nil {
		shown.Set("Error", *d.Error)
	}
	data("Input", d.Input)
	shown.Set("Name", child.Name)
	data("Output", d.Output)
	shown.Set("StartDate", json.Number(fmt.Sprint(d.StartDate.UnixMilli())))
	shown.Set("StateMachineArn", taskapi.MachineARN(child.Machine))
	shown.Set("Status", string(d.Status))
	if d.StopDate != nil {
		shown.Set("StopDate", json.Number(fmt.Sprint(d.StopDate.UnixMilli())))
	}
	if d.Status == statelang.StatusSucceeded {
		return statelang.Event{Kind: statelang.Succeeded, Output: shown}
	}
	cause, _ := jsontree.Append(nil, shown) // JSON values
	return failed(statelang.ErrTaskFailed, string(cause))
}

// sendTask is sendTaskSuccess, sendTaskFailure and sendTaskHeartbeat of AWS's SDK: TaskToken, and Output, or Error and Cause.
func (o *Orchestrator) sendTask(ctx context.Context, _ ID, e statelang.Effect) statelang.Event {
	input, _ := e.Input.(*jsontree.Object)
	token, _ := textOf(input, "TaskToken")
	task, ok := taskapi.ParseToken(o.tasks.Ring(), token)
	if !ok {
		return failed("Sfn.InvalidTokenException", "Invalid Token: 'Invalid token'")
	}
	q := taskapi.Question{}.About(task)
	switch e.Resource.Action {
	case "sendTaskSuccess":
		q.Kind = taskapi.Succeeded
		v, _ := valueOf(input, "Output")
		if text, isText := v.(string); isText {
			parsed, err := jsontree.Parse([]byte(text))
			if err != nil {
				return failed("Sfn.InvalidOutputException", "Invalid Output: 'Syntax Error: Invalid JSON'")
			}
			v = parsed
		}
		text, err := jsontree.Append(nil, v)
		if err != nil || len(text) > statelang.MaxDataBytes {
			return failed("Sfn.InvalidOutputException", "Invalid Output: it is no JSON, or too large")
		}
		output := json.RawMessage(text)
		q.Output = &output
	case "sendTaskFailure":
		q.Kind = taskapi.Failed
		q.Failure = &taskapi.Failure{Error: textIn(input, "Error"), Cause: textIn(input, "Cause")}
	default:
		q.Kind = taskapi.Alive
	}
	_, err := o.insist(ctx, task.ID, taskapi.AskReport, ask{Question: q})
	refused, isRefused := errors.AsType[*stream.RefusedError](err)
	switch {
	case isRefused && refused.Code == taskapi.CodeOver:
		return failed("Sfn.TaskTimedOutException", "Task Timed Out: 'Provided task does not exist anymore'")
	case isRefused:
		return failed("Sfn.InvalidOutputException", refused.Message)
	case err != nil:
		return statelang.Event{}
	}
	return statelang.Event{Kind: statelang.Succeeded, Output: &jsontree.Object{}}
}

func valueOf(o *jsontree.Object, key string) (any, bool) {
	if o == nil {
		return nil, false
	}
	return o.Get(key)
}

func textOf(o *jsontree.Object, key string) (string, bool) {
	v, _ := valueOf(o, key)
	text, ok := v.(string)
	return text, ok
}
