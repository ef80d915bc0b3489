package orchestrator

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// Bounds of a page of a history.
const (
	maxPage      = 1000
	maxPageBytes = 256 << 10 // and an event: an answer must fit into a message of NATS
)

// HistoryEvent is an event of a history as the API shows it.
type HistoryEvent struct {
	ID       int             `json:"id"`
	Previous int             `json:"previousEventId"`
	Type     string          `json:"type"`
	At       time.Time       `json:"timestamp"`
	Name     string          `json:"name,omitempty"`
	Index    *int            `json:"index,omitempty"` // of a map's iteration
	Resource string          `json:"resource,omitempty"`
	Input    json.RawMessage `json:"input,omitempty"`
	Output   json.RawMessage `json:"output,omitempty"`
	Error    *string         `json:"error,omitempty"`
	Cause    *string         `json:"cause,omitempty"`
	Worker   string          `json:"workerName,omitempty"`
}

// History is a page of a history.
type History struct {
	Events []HistoryEvent `json:"events"`
	Next   string         `json:"next,omitempty"` // the next page's after; empty on the last
}

// history makes the execution again, and tells what happens.
func (x *execution) history(after, limit int, reverse bool) (History, error) {
	var all []statelang.HistoryEvent
	body, err := x.p.sealedLines(x.p.ctx, x.id, x.sealed)
	if err != nil {
		return History{}, err
	}
	_, events, err := decode(append(body, x.lines...))
	if err != nil {
		return History{}, err
	}
	m, err := x.p.definition(x.p.ctx, x.began.Definition, x.began.Type)
	if err != nil {
		return History{}, err
	}
	start := x.start
	start.Record = func(e statelang.HistoryEvent) { all = append(all, e) }
	run, _ := statelang.New(m, start)
	for _, e := range events {
		run.Apply(e)
	}
	if reverse {
		slices.Reverse(all)
	}
	h := History{Events: []HistoryEvent{}}
	size := 0
	for _, e := range all[min(max(after, 0), len(all)):] {
		shown := shownEvent(e)
		size += len(shown.Input) + len(shown.Output) + lengthOf(shown.Cause) + lengthOf(shown.Error) + 200
		if len(h.Events) >= min(max(limit, 1), maxPage) || size > maxPageBytes && len(h.Events) > 0 {
			h.Next = strconv.Itoa(after + len(h.Events))
			break
		}
		h.Events = append(h.Events, shown)
	}
	return h, nil
}

func lengthOf(s *string) int {
	if s == nil {
		return 0
	}
	return 2 * len(*s) // some is escaped
}

func shownEvent(e statelang.HistoryEvent) HistoryEvent {
	s := HistoryEvent{ID: int(e.ID), Previous: int(e.Previous), Type: e.Type, At: e.At, Name: e.Name, Resource: e.Resource.Text, Worker: e.Worker}
	if e.Input != nil {
		s.Input, _ = jsontree.Append(nil, e.Input) // JSON values
	}
	if e.Output != nil {
		s.Output, _ = jsontree.Append(nil, e.Output)
	}
	if e.Failure != nil {
		s.Error, s.Cause = e.Failure.Error, e.Failure.Cause
	}
	switch e.Type {
	case "MapIterationStarted", "MapIterationSucceeded", "MapIterationFailed", "MapIterationAborted":
		s.Index = &e.Index
	}
	return s
}
