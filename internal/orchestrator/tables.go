package orchestrator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/ledger"
	"github.com/weir-dev/weir/internal/statelang"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/table"
	"github.com/weir-dev/weir/internal/taskapi"
)

// Tables are states beside the executions: an item is a state, which the owner of its partition changes. So a call that is made
// again after a crash changes nothing twice: the item knows the calls that have changed it lately.

const (
	itemKind  = "i" // keys of items: i-NAMESPACE=TABLE.KEY
	tableKind = "t" // of tables, in partition 0: t.NAMESPACE=TABLE
	askTable  = "table"

	// CodeNoTable means that there is no table of the name.
	CodeNoTable = "TableDoesNotExist"
	// maxItemCalls is how many calls an item remembers, and maxItemAnswer how large an answer it does.
	maxItemCalls  = 16
	maxItemAnswer = 4 << 10
	// goneFor is how long it is remembered that a call has deleted an item.
	goneFor = 24 * time.Hour
)

// tableAsk is a call that is about an item.
type tableAsk struct {
	Op   table.Op `json:"op"`
	Key  string   `json:"key"`
	Call string   `json:"call"` // callID, and a hash of what is asked
}

// itemHeader and itemBody are how an item is stored.
type itemHeader struct {
	Gone bool `json:"g,omitempty"`
}

type itemBody struct {
	Item  json.RawMessage `json:"item,omitempty"`
	Calls []itemCall      `json:"calls"` // that have changed it, the latest first
}

type itemCall struct {
	Call   string          `json:"c"`
	Answer json.RawMessage `json:"a,omitempty"` // that it was given; none if that was large
}

// registeredTable is a table as it is stored.
type registeredTable struct {
	Key     string    `json:"key"` // HASH or HASH+RANGE: names of attributes
	Changed time.Time `json:"changed"`
}

func itemKey(k catalog.Key, key string) string { return itemKind + "-" + taskapi.Text(k) + "." + key }

func tableKey(k catalog.Key) string { return tableKind + "." + taskapi.Text(k) }

// item is arn:aws:states:::dynamodb:getItem, putItem, updateItem and deleteItem, and the same of AWS's SDK.
func (o *Orchestrator) item(ctx context.Context, id ID, e statelang.Effect) statelang.Event {
	refuse := func(err *table.Error) statelang.Event {
		return failed(itemError(e, err.Name), fmt.Sprintf("%s (Service: DynamoDb, Status Code: 400, Request ID: %s)", err.Message, callID(ctx, id, e.Call)))
	}
	input, _ := e.Input.(*jsontree.Object)
	if input == nil {
		input = &jsontree.Object{}
	}
	op := table.Op(e.Resource.Action)
	r, err := table.Parse(op, input)
	if bad, ok := errors.AsType[*table.Error](err); ok {
		return refuse(bad)
	}
	if err != nil {
		return failed(statelang.ErrRuntime, err.Error())
	}
	k := catalog.Key{Namespace: id.Machine.Namespace, Name: r.Table}
	request, err := jsontree.Append(nil, input)
	if err != nil {
		return failed(statelang.ErrRuntime, err.Error())
	}
	sum := sha256.Sum256(request)
	a := tableAsk{Op: op, Call: callID(ctx, id, e.Call).String() + "-" + hex.EncodeToString(sum[:8])}
	var text []byte
	for range tries(ctx, firstBackoff, maxBackoff) {
		var schema table.Schema
		if schema, err = o.schema(ctx, k); err == nil {
			if a.Key, err = r.Key(schema); err == nil {
				if text, err = marshal(ask{Question: taskapi.Question{Namespace: k.Namespace, Machine: k.Name}, Table: &a, Input: request}); err == nil {
					text, err = o.cfg.Conn.Ask(ctx, taskapi.PartitionOf(itemKey(k, a.Key)), askTable, text)
				}
			}
		}
		if bad, ok := errors.AsType[*table.Error](err); ok {
			return refuse(bad)
		}
		refused, isRefused := errors.AsType[*stream.RefusedError](err)
		switch {
		case err == nil:
			return itemAnswer(ctx, id, e, text)
		case isRefused && refused.Code == CodeNoTable:
			return refuse(table.NoTable())
		case errors.Is(err, stream.ErrTooLargeForServer):
			return refuse(&table.Error{Name: table.Validation, Message: "Item size has exceeded the maximum allowed size"})
		case isRefused && refused.Code != taskapi.CodeFull && refused.Code != taskapi.CodeBusy:
			return refuse(&table.Error{Name: refused.Code, Message: refused.Message})
		case errors.Is(err, errUnknown):
			return failed(statelang.ErrRuntime, err.Error())
		}
		o.again(ctx, err.Error())
	}
	return statelang.Event{}
}

// itemError is an error's name, which DynamoDB's own integration and the SDK's spell differently.
func itemError(e statelang.Effect, name string) string {
	if strings.HasPrefix(e.Resource.Service, "aws-sdk:") {
		if name == table.Validation {
			return "DynamoDb.DynamoDbException"
		}
		return "DynamoDb." + name
	}
	if name == table.Validation {
		return "DynamoDB.AmazonDynamoDBException"
	}
	return "DynamoDB." + name
}

func itemAnswer(ctx context.Context, id ID, e statelang.Effect, text []byte) statelang.Event {
	if len(text) > statelang.MaxDataBytes {
		return tooLarge(e.State)
	}
	v, err := jsontree.Parse(text)
	answer, ok := v.(*jsontree.Object)
	if err != nil || !ok {
		return failed(statelang.ErrRuntime, "the answer of the table can't be read")
	}
	if !strings.HasPrefix(e.Resource.Service, "aws-sdk:") {
		none := &jsontree.Object{}
		answer.Set("SdkHttpMetadata", jsontree.Of("AllHttpHeaders", none, "HttpHeaders", none, "HttpStatusCode", json.Number("200")))
		answer.Set("SdkResponseMetadata", jsontree.Of("RequestId", callID(ctx, id, e.Call).String()))
	}
	return statelang.Event{Kind: statelang.Succeeded, Output: answer}
}

// schema is a table's; a *stream.RefusedError if there is none.
func (o *Orchestrator) schema(ctx context.Context, k catalog.Key) (s table.Schema, err error) {
	state, err := o.cfg.Conn.State(ctx, stream.MachinePartition(0), tableKey(k))
	if err != nil {
		return s, err
	}
	var r registeredTable
	if state.Header == "" {
		return s, &stream.RefusedError{Code: CodeNoTable, Message: fmt.Sprintf("there is no table %s", k)}
	}
	if err := json.Unmarshal(state.Body, &r); err != nil {
		return s, fmt.Errorf("%w: table %s: %w", errUnknown, k, err)
	}
	_, s, err = table.ParseSchema(k.Name + "=" + r.Key)
	return s, err
}

// changeItem is the owner's side of a call.
func (p *partition) changeItem(ctx context.Context, k catalog.Key, a tableAsk, input json.RawMessage) ([]byte, error) {
	v, err := jsontree.Parse(input)
	request, ok := v.(*jsontree.Object)
	if err != nil || !ok {
		return nil, fmt.Errorf("the request can't be read: %w", err)
	}
	r, err := table.Parse(a.Op, request)
	if err != nil {
		return nil, err
	}
	key := itemKey(k, a.Key)
	cell, err := p.owner.Hold(ctx, key)
	if err != nil {
		return nil, p.failed(err)
	}
	defer p.owner.Release(cell)
	answer, pending, err := p.applyItem(ctx, cell, key, a, r)
	if bad, ok := errors.AsType[*table.Error](err); ok {
		return nil, &stream.RefusedError{Code: bad.Name, Message: bad.Message}
	}
	if err != nil || pending == nil {
		return answer, p.failed(err)
	}
	done := make(chan error, 1)
	p.wg.Go(func() { done <- pending.Wait() })
	return answer, p.await(ctx, done)
}

// applyItem makes the change; pending is nil if nothing is written.
func (p *partition) applyItem(ctx context.Context, cell *ledger.Cell, key string, a tableAsk, r *table.Request) (answer []byte, pending *ledger.Pending, err error) {
	select {
	case p.items <- struct{}{}:
		defer func() { <-p.items }()
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	stored, err := p.valueOf(ctx, cell, key)
	if err != nil {
		return nil, nil, err
	}
	var h itemHeader
	var b itemBody
	var old *jsontree.Object
	if stored.Header != "" {
		if err := errors.Join(json.Unmarshal([]byte(stored.Header), &h), json.Unmarshal(stored.Body, &b)); err != nil {
			return nil, nil, fmt.Errorf("%w: item %s: %w", errUnknown, key, err)
		}
		i := slices.IndexFunc(b.Calls, func(c itemCall) bool { return c.Call == a.Call })
		if i >= 0 { // made again: it has been done
			settled := p.owner.Settled(cell)
			if answer = b.Calls[i].Answer; answer == nil {
				answer = []byte("{}")
			}
			return answer, &settled, nil
		}
		if !h.Gone {
			v, err := jsontree.Parse(b.Item)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: item %s: %w", errUnknown, key, err)
			}
			old, _ = v.(*jsontree.Object)
		}
	}
	after, changed, made, err := r.Apply(old)
	if err != nil {
		return nil, nil, err
	}
	if answer, err = jsontree.Append(nil, made); err != nil {
		return nil, nil, err
	}
	if !changed {
		settled := p.owner.Settled(cell) // what was read is durable before it is told
		return answer, &settled, nil
	}
	if p.owner.Room() != nil {
		return nil, nil, ledger.ErrFull
	}
	value := ledger.Value{}
	h = itemHeader{Gone: after == nil}
	done := itemCall{Call: a.Call}
	if len(answer) <= maxItemAnswer {
		done.Answer = answer
	}
	b = itemBody{Calls: append([]itemCall{done}, b.Calls[:min(len(b.Calls), maxItemCalls-1)]...)}
	if after == nil {
		value.TTL = goneFor
	} else if b.Item, err = jsontree.Append(nil, after); err != nil {
		return nil, nil, err
	}
	header, err := marshal(h)
	if err != nil {
		return nil, nil, err
	}
	if value.Body, err = marshal(b); err != nil {
		return nil, nil, err
	}
	value.Header = string(header)
	if len(value.Header)+len(value.Body) > p.o.cfg.Conn.Room(stream.MaxJobBytes) {
		return nil, nil, &table.Error{Name: table.Validation, Message: "Item size has exceeded the maximum allowed size"}
	}
	change := p.owner.Change(cell, func(ledger.Value) (ledger.Value, error) { return value, nil })
	return answer, &change, nil
}

// putTable takes {key}: the name of the attribute that is the key, or HASH+RANGE.
func (o *Orchestrator) putTable(w http.ResponseWriter, r *http.Request) error {
	k, err := taskapi.ParseMachine(r.PathValue("name"))
	if err != nil {
		return invalid(err)
	}
	var put struct {
		Key string `json:"key"`
	}
	if err := readBody(w, r, &put); err != nil {
		return err
	}
	if _, _, err := table.ParseSchema(k.Name + "=" + put.Key); err != nil {
		return invalid(err)
	}
	stored := registeredTable{Key: put.Key, Changed: o.cfg.Conn.Now().UTC()}
	body, err := marshal(ask{Question: taskapi.Question{Namespace: k.Namespace, Machine: k.Name}, PutTable: &stored})
	if err != nil {
		return err
	}
	if _, err := o.cfg.Conn.Ask(r.Context(), stream.MachinePartition(0), askPut, body); err != nil {
		return err
	}
	return write(w, http.StatusOK, map[string]any{"name": k.String(), "key": put.Key})
}

// putTable stores a table, as the owner of partition 0. Its key can't change.
func (p *partition) putTable(ctx context.Context, k catalog.Key, r *registeredTable) error {
	return p.putIf(ctx, tableKey(k), r, func(before []byte) error {
		var there registeredTable
		if err := json.Unmarshal(before, &there); err != nil {
			return fmt.Errorf("%w: table %s: %w", errUnknown, k, err)
		}
		if there.Key != r.Key {
			return &stream.RefusedError{Code: CodeExists, Message: fmt.Sprintf("table %s has the key %s, which can't change", k, there.Key)}
		}
		return nil
	})
}
