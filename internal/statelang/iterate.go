package statelang

import (
	"cmp"
	"fmt"
	"math"

	"github.com/weir-dev/weir/internal/items"
	"github.com/weir-dev/weir/internal/jsontree"
)

// Iterations of one map that run at the same time, if MaxConcurrency names no fewer (AWS: 40 and 10,000).
const (
	maxInlineAtOnce      = 40
	maxDistributedAtOnce = 1000
)

// toleratedExceeded is the cause of States.ExceedToleratedFailureThreshold, as AWS's.
const toleratedExceeded = "The specified tolerated failure threshold was exceeded"

// mapWork is what a Map state has under way.
type mapWork struct {
	input   any // of the state, after InputPath
	items   []any
	batched bool // items are batches already
	next    int  // the first that has not begun
	atOnce  int
	running int
	left    int
	failed  int
	// tolerated is how many may fail; -1: none, and the first failure is the map's own.
	tolerated int
	began     bool // MapStateStarted is told
}

// iterate begins a Map state.
func (r *Run) iterate(t *thread, input any) {
	m := t.state.iterate
	w := &mapWork{input: input}
	t.work = w
	if m.reader != nil {
		r.readItems(t, input)
		return
	}
	items := input
	e := r.env(t, input)
	if m.items != nil {
		var err error
		if items, err = m.items.eval(e); err != nil {
			r.fail(t, failureOf(err))
			return
		}
	}
	list, ok := items.([]any)
	if !ok {
		if q, isQuery := m.items.(*queryExpr); isQuery {
			r.fail(t, failureOf(queryError(
				"The JSONata expression '%s' specified for the field 'Items' returned an unexpected result type. Expected 'array', but was %s", q.text, kindOf(items))))
			return
		}
		text := fmt.Sprintf("Map state input must be an array but was: %s", shown(items))
		if t.state.Language == JSONata {
			r.fail(t, NewFailure(ErrQuery, text))
			return
		}
		r.fail(t, NewFailure(ErrRuntime, text))
		return
	}
	r.begin(t, list)
}

// readItems asks for the items of an ItemReader.
func (r *Run) readItems(t *thread, input any) {
	m := t.state.iterate
	e := r.env(t, input)
	effect := Effect{Kind: CallReader, State: t.state.Name, Resource: m.reader.resource}
	var err error
	if m.reader.arguments != nil {
		effect.Input, err = m.reader.arguments.eval(e)
	}
	config := m.reader.config.asPublic()
	if err == nil && m.reader.config.maxItems != nil {
		var n float64
		n, err = number(e, m.reader.config.maxItems, "MaxItems", 0, math.MaxInt32)
		config.MaxItems = int(n)
	}
	if err != nil {
		r.fail(t, failureOf(err))
		return
	}
	r.startMap(t)
	effect.Reader = &config
	t.waits = forItems
	effect.Call = r.wait(t)
	r.observe(t, Observation{Stage: StageCall, Call: effect.Call, Value: effect.Input})
	r.effect(effect)
}

// startMap tells that the map has begun.
func (r *Run) startMap(t *thread) {
	if t.work.began {
		return
	}
	t.work.began = true
	r.record(t, HistoryEvent{Type: "MapStateStarted"})
	if t.state.iterate.distributed {
		r.record(t, HistoryEvent{Type: "MapRunStarted"})
	}
}

// itemsRead is told what a reader has found.
func (r *Run) itemsRead(t *thread, v any) {
	list, ok := v.([]any)
	if !ok {
		failure := NewFailure(ErrItemReader, "Attempting to map over non-iterable node.")
		r.record(t, HistoryEvent{Type: "MapRunFailed", Failure: failure})
		r.fail(t, failure)
		return
	}
	r.begin(t, list)
}

// begin starts the first iterations.
func (r *Run) begin(t *thread, items []any) {
	m, w := t.state.iterate, t.work
	e := r.env(t, w.input)
	w.items, w.left, w.tolerated = items, len(items), -1
	w.atOnce = maxInlineAtOnce
	if m.distributed {
		w.atOnce = maxDistributedAtOnce
	}
	r.seen(t, StageItems, items)
	n, err := number(e, m.concurrency, "MaxConcurrency", 0, math.MaxInt32)
	if err == nil {
		r.seen(t, StageMaxConcurrency, n)
	}
	if err == nil && n > 0 {
		w.atOnce = min(w.atOnce, int(n))
	}
	if err == nil && m.batcher != nil {
		if w.items, err = r.batches(t, items); err == nil {
			w.batched, w.left = true, len(w.items)
			r.seen(t, StageItemBatcher, w.items)
		}
	}
	if err == nil {
		err = r.tolerate(t, e)
	}
	if err != nil {
		r.fail(t, failureOf(err))
		return
	}
	r.startMap(t)
	if t.held {
		return
	}
	t.results, t.kids = make([]any, len(w.items)), make([]*thread, len(w.items))
	r.more(t)
}

// tolerate reads how many iterations may fail: the least that is named.
func (r *Run) tolerate(t *thread, e *env) error {
	m, w := t.state.iterate, t.work
	if m.tolerated != nil {
		n, err := number(e, m.tolerated, "ToleratedFailureCount", 0, math.MaxInt32)
		if err != nil {
			return err
		}
		w.tolerated = int(n)
		r.seen(t, StageToleratedCount, n)
	}
	if m.percentage != nil {
		share, err := number(e, m.percentage, "ToleratedFailurePercentage", 0, 100)
		if err != nil {
			return err
		}
		r.seen(t, StageToleratedShare, share)
		n := int(share * float64(len(w.items)) / 100)
		if w.tolerated < 0 || n < w.tolerated {
			w.tolerated = n
		}
	}
	return nil
}

// number evaluates a number; 0 if there is none.
func number(e *env, x expr, field string, least, most float64) (float64, error) {
	if x == nil {
		return 0, nil
	}
	v, err := x.eval(e)
	if err != nil {
		return 0, err
	}
	n, ok := jsontree.Float(v)
	if !ok || n < least || n > most {
		return 0, wrongValue(x, "The %s field refers to value %s which is not a number from %v to %v", field, shown(v), least, most)
	}
	return n, nil
}

// more starts iterations while there is room, and ends the map after the last.
func (r *Run) more(t *thread) {
	m, w := t.state.iterate, t.work
	for w.next < len(w.items) && w.running < w.atOnce {
		i := w.next
		kid := &thread{
			machine: m.processor, parent: t, slot: i, scope: &scope{outer: t.scope}, item: &mapItem{i, w.items[i]}, lastEvent: t.lastEvent,
			hidden: t.hidden,
		}
		if m.distributed {
			kid.scope.outer, kid.hidden = nil, true
		}
		input := w.items[i]
		if m.selector != nil && !w.batched {
			var err error
			if input, err = r.selected(t, kid.item); err != nil {
				r.fail(t, failureOf(err))
				return
			}
		}
		t.kids[i] = kid
		w.next++
		w.running++
		if !m.distributed {
			r.record(kid, HistoryEvent{Type: "MapIterationStarted", Name: t.state.Name, Index: i})
		}
		r.goTo(kid, m.processor.Start, input)
	}
	if w.left == 0 {
		r.mapped(t)
	}
}

// selected is what ItemSelector makes of an item.
func (r *Run) selected(t *thread, item *mapItem) (any, error) {
	before := t.item
	t.item = item // the selector sees it in the context
	defer func() { t.item = before }()
	v, err := t.state.iterate.selector.eval(r.env(t, t.work.input))
	if err == nil {
		r.observe(t, Observation{Stage: StageItemSelector, Index: item.index, Value: v})
	}
	return v, err
}

// iterated is told how an iteration ended.
func (r *Run) iterated(t, kid *thread, output any, failure *Failure) {
	w := t.work
	w.running--
	w.left--
	t.kids[kid.slot] = nil
	what := "MapIterationSucceeded"
	if failure == nil {
		t.results[kid.slot] = output
	} else {
		what = "MapIterationFailed"
		t.results[kid.slot] = failedIteration{failure}
	}
	if !t.state.iterate.distributed {
		r.record(kid, HistoryEvent{Type: what, Name: t.state.Name, Index: kid.slot, Failure: failure})
		t.lastEvent = kid.lastEvent
	}
	r.more(t)
}

// failedIteration stands for the output of an iteration that failed and was tolerated.
type failedIteration struct{ failure *Failure }

// iterationFailed reports whether the map goes on after an iteration's failure; otherwise it returns the map's own.
func (r *Run) iterationFailed(t, kid *thread, failure *Failure) (*Failure, bool) {
	w, m := t.work, t.state.iterate
	w.failed++
	if w.failed <= w.tolerated {
		r.observe(t, Observation{Stage: StageIterationFailed, Index: kid.slot, Failure: failure})
		r.stop(kid)
		r.abort(kid)
		r.iterated(t, kid, nil, failure)
		return nil, true
	}
	if !m.distributed {
		r.record(kid, HistoryEvent{Type: "MapIterationFailed", Name: t.state.Name, Index: kid.slot, Failure: failure})
		t.lastEvent = kid.lastEvent
		return failure, false
	}
	failure = NewFailure(ErrTolerated, toleratedExceeded+": the last failure was "+failure.Name()+".")
	r.record(t, HistoryEvent{Type: "MapRunFailed", Failure: failure})
	return failure, false
}

// mapped ends a map whose iterations have all ended.
func (r *Run) mapped(t *thread) {
	m, w := t.state.iterate, t.work
	results := make([]any, 0, len(t.results))
	written := make([]MapResult, len(t.results))
	for i, v := range t.results {
		written[i].Input = w.items[i]
		if f, failed := v.(failedIteration); failed {
			written[i].Failure = f.failure
			continue
		}
		written[i].Output = v
		results = append(results, v)
	}
	t.kids, t.results = nil, nil
	switch {
	case m.writer != nil && m.writer.resource.Text == "": // its WriterConfig alone: the output is transformed
		results = transformed(written, m.writer.config)
	case m.writer != nil:
		effect := Effect{Kind: CallWriter, State: t.state.Name, Resource: m.writer.resource, Writer: &m.writer.config, Results: written}
		if m.writer.arguments != nil {
			var err error
			if effect.Input, err = m.writer.arguments.eval(r.env(t, w.input)); err != nil {
				r.fail(t, failureOf(err))
				return
			}
		}
		t.waits = forWriter
		effect.Call = r.wait(t)
		r.observe(t, Observation{Stage: StageCall, Call: effect.Call, Value: effect.Input})
		r.effect(effect)
		return
	}
	r.endMap(t, results)
}

// transformed is the output of a map whose ResultWriter writes nothing.
func transformed(results []MapResult, c items.WriterConfig) []any {
	out := []any{}
	for _, m := range results {
		result := m.AsItem()
		out = append(out, result.Entries(cmp.Or(c.Transformation, items.Compact))...)
	}
	return out
}

// AsItem is the result as it is written.
func (m *MapResult) AsItem() items.Result {
	if m.Failure != nil {
		return items.Result{Status: items.Failed, Input: m.Input, Error: m.Failure.Error, Cause: m.Failure.Cause}
	}
	return items.Result{Status: items.Succeeded, Input: m.Input, Output: m.Output}
}

func (r *Run) endMap(t *thread, result any) {
	if t.state.iterate.distributed {
		r.record(t, HistoryEvent{Type: "MapRunSucceeded"})
	}
	r.record(t, HistoryEvent{Type: "MapStateSucceeded"})
	r.seen(t, StageResult, result)
	r.complete(t, t.work.input, result)
}

// batches puts items together for the iterations.
func (r *Run) batches(t *thread, items []any) ([]any, error) {
	m := t.state.iterate
	e := r.env(t, t.work.input)
	most, err := number(e, m.batcher.items, "MaxItemsPerBatch", 1, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	bytes, err := number(e, m.batcher.bytes, "MaxInputBytesPerBatch", 1, MaxDataBytes)
	if err != nil {
		return nil, err
	}
	var shared any
	if m.batcher.input != nil {
		if shared, err = m.batcher.input.eval(e); err != nil {
			return nil, err
		}
	}
	frame := jsontree.Size(jsontree.Of("BatchInput", shared, "Items", []any{}))
	var made []any
	var batch []any
	size := frame
	flush := func() {
		if len(batch) == 0 {
			return
		}
		o := jsontree.NewObject(2)
		if m.batcher.input != nil {
			o.Set("BatchInput", shared)
		}
		o.Set("Items", batch)
		made, batch, size = append(made, o), nil, frame
	}
	for i, item := range items {
		if m.selector != nil {
			if item, err = r.selected(t, &mapItem{i, item}); err != nil {
				return nil, err
			}
		}
		n := jsontree.Size(item) + 1
		if most > 0 && len(batch) >= int(most) || bytes > 0 && len(batch) > 0 && size+n > int(bytes) {
			flush()
		}
		batch = append(batch, item)
		size += n
	}
	flush()
	if made == nil {
		made = []any{}
	}
	return made, nil
}
