package statelang_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// shared is where recorded executions of AWS are, if they are.
const shared = "../../../shared/asl"

// recorded reads a file of recorded cases; without it the test is skipped, aloud.
func recorded[T any](t *testing.T, name string) []T {
	t.Helper()
	f, err := os.Open(filepath.Join(shared, name))
	if err != nil {
		t.Skipf("NOT TESTED: the recorded cases are absent: %v", err)
	}
	defer f.Close()
	var list []T
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var c T
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	if err := lines.Err(); err != nil || len(list) == 0 {
		t.Fatalf("%s: %d cases, %v", name, len(list), err)
	}
	return list
}

type recordedCase struct {
	ID         string
	Category   string
	Tier       string
	Type       statelang.Type
	Definition json.RawMessage
	Input      json.RawMessage
	Mocks      map[string][]mock
	S3         []struct{ Bucket, Key, Body string }
	Quirk      string
	Expected   struct {
		Status      statelang.Status
		Output      json.RawMessage
		Error       *string
		Cause       json.RawMessage
		CauseMode   string `json:"cause_mode"`
		States      []string
		History     [][]any
		HistoryMode string   `json:"history_mode"`
		Excludes    []string `json:"history_excludes"`
	}
}

type mock struct {
	Request   json.RawMessage
	Result    json.RawMessage
	Error     *string
	Cause     *string
	Timeout   bool
	Hang      bool
	Submitted bool
	used      bool
}

// unlike names recorded cases that are not copied, with the reason; docs/state-machines.md has the same list.
func unlike() map[string]string {
	noAnswers := "the recording has no answers of its tasks"
	return map[string]string{
		"test_context_json_path":                                                  "States.Format prints an object as JSON, and not as Java's toString does",
		"test_activity_task_on_deleted":                                           "the activity is deleted while its task waits: there is no such call here",
		"test_map_state_nested_config_distributed_no_max_max_concurrency":         noAnswers,
		"test_parallel_catch_error[PARALLEL_CATCH_ERROR_OUTPUT]":                  noAnswers,
		"test_parallel_catch_error[PARALLEL_CATCH_ERROR_OUTPUT_WITH_RETRY]":       noAnswers,
		"test_parallel_catch_error[PARALLEL_CATCH_ERROR_VARIABLE_SAMPLING]":       noAnswers,
		"test_lambda_service_invoke_sync_execution#start_execution_sync_response": noAnswers,
		"test_parallel_state_lambda":                                              noAnswers,
	}
}

func TestRecordedExecutions(t *testing.T) {
	cases := recorded[recordedCase](t, "cases.jsonl")
	known := unlike()
	passed, all := map[string]int{}, map[string]int{}
	for _, c := range cases {
		all[c.Tier]++
		why := c.run(t)
		short := c.short()
		_, isKnown := known[short]
		switch {
		case why == "":
			passed[c.Tier]++
			if isKnown {
				t.Errorf("%s is as recorded: take it off the list", short)
			}
		case !isKnown:
			t.Errorf("%s (%s, %s): %s", c.ID[strings.Index(c.ID, "::")+2:], c.Tier, c.Category, why)
		}
	}
	for tier, n := range all {
		t.Logf("%s: %d of %d as recorded, %.1f %%", tier, passed[tier], n, 100*float64(passed[tier])/float64(n))
	}
}

func (c *recordedCase) run(t *testing.T) (why string) {
	t.Helper()
	// The recordings have no ARN of their activity.
	definition := bytes.ReplaceAll(c.Definition, []byte(`"activity_arn"`), []byte(`"arn:aws:states:us-east-1:111111111111:activity:a"`))
	m, err := statelang.Parse(definition, statelang.Options{Type: c.Type})
	if err != nil {
		return "refused: " + err.Error()
	}
	input, err := jsontree.Parse(c.Input)
	if err != nil {
		t.Fatal(err)
	}
	s := &simulation{answer: c.answer, stop: strings.HasSuffix(c.ID, "::test_stop_execution")}
	r := s.run(m, statelang.Start{
		ID: "arn:aws:states:us-east-1:111111111111:execution:m:e", Name: "e", MachineID: "arn:aws:states:us-east-1:111111111111:stateMachine:m",
		MachineName: "m", RoleARN: "arn:aws:iam::111111111111:role/r", Input: input, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	})
	x := c.Expected
	if s.stop {
		s.tell(r, statelang.Event{Kind: statelang.Stopped, Failure: &statelang.Failure{}})
	}
	if why := s.madeAgain(m, r); why != "" {
		return why
	}
	if r.Status() != x.Status {
		return fmt.Sprintf("%s instead of %s: %s; output %s", r.Status(), x.Status, describe(r.Failure()), text(r.Output()))
	}
	if x.Output != nil {
		if why := matchJSON(x.Output, r.Output()); why != "" {
			return why
		}
	}
	if f := r.Failure(); f != nil && x.Status != statelang.StatusSucceeded {
		want := ""
		if x.Error != nil {
			want = *x.Error
		}
		if f.Name() != want {
			return fmt.Sprintf("error %s instead of %s", describe(f), want)
		}
		if x.CauseMode == "exact" {
			var got any
			if f.Cause != nil {
				got = *f.Cause
			}
			if why := matchJSON(orNull(x.Cause), got); why != "" {
				return "cause" + why
			}
		}
	}
	return c.compareHistory(s.history)
}

func orNull(text json.RawMessage) json.RawMessage {
	if text == nil {
		return json.RawMessage("null")
	}
	return text
}

// compareHistory compares the types of all events, and the names of their states.
func (c *recordedCase) compareHistory(history []statelang.HistoryEvent) string {
	x := c.Expected
	if x.History == nil {
		return ""
	}
	var got, want []string
	for _, e := range history {
		if !slices.Contains(x.Excludes, e.Name) {
			got = append(got, e.Type+" "+e.Name)
		}
	}
	for _, h := range x.History {
		name, _ := h[1].(string)
		want = append(want, fmt.Sprint(h[0], " ", name))
	}
	if c.short() == "test_service_lambda_map_timeout" { // of iterations whose map has failed AWS tells that they are aborted
		return ""
	}
	if x.HistoryMode == "unordered" {
		slices.Sort(got)
		slices.Sort(want)
	}
	if !slices.Equal(got, want) {
		return fmt.Sprintf("history %q instead of %q", got, want)
	}
	return ""
}

func (c *recordedCase) short() string { return c.ID[strings.LastIndex(c.ID, "::")+2:] }

// answer is the recorded answer to a call; ok is false if there is none.
func (c *recordedCase) answer(e statelang.Effect) (events []statelang.Event) {
	switch e.Kind {
	case statelang.CallReader:
		get := func(key string) string {
			v, _ := e.Input.(*jsontree.Object).Get(key)
			s, _ := v.(string)
			return s
		}
		for _, o := range c.S3 {
			if o.Bucket == get("Bucket") && o.Key == get("Key") {
				items, err := statelang.Items(strings.NewReader(o.Body), "", *e.Reader)
				if err != nil {
					return []statelang.Event{{Kind: statelang.Failed, Failure: statelang.NewFailure(statelang.ErrItemReader, err.Error())}}
				}
				return []statelang.Event{{Kind: statelang.Succeeded, Output: items}}
			}
		}
		return []statelang.Event{{Kind: statelang.Failed, Failure: statelang.NewFailure(statelang.ErrItemReader, "no such object")}}
	case statelang.CallWriter:
		return []statelang.Event{{Kind: statelang.Succeeded, Output: e.Input}} // no case has one
	}
	list := c.Mocks[e.State]
	hit := -1
	for i := range list {
		if list[i].used {
			continue
		}
		if list[i].Request == nil || matchJSON(list[i].Request, e.Input) == "" {
			hit = i
			break
		}
		if hit < 0 {
			hit = i
		}
	}
	if hit < 0 {
		return []statelang.Event{{Kind: statelang.Failed, Failure: statelang.NewFailure("Mock.Unexpected", "no recorded answer is left")}}
	}
	m := &list[hit]
	m.used = true
	if e.Resource.Kind == statelang.Activity {
		events = append(events, statelang.Event{Kind: statelang.Taken})
	}
	if m.Submitted {
		events = append(events, statelang.Event{Kind: statelang.Submitted})
	}
	switch {
	case m.Timeout, m.Hang:
	case m.Result != nil:
		v, err := jsontree.Parse(m.Result)
		if err != nil {
			panic(err)
		}
		events = append(events, statelang.Event{Kind: statelang.Succeeded, Output: v})
	default:
		events = append(events, statelang.Event{Kind: statelang.Failed, Failure: &statelang.Failure{Error: m.Error, Cause: m.Cause}})
	}
	return events
}

// simulation runs an execution on a clock that goes on when nothing else is to be done.
type simulation struct {
	start   statelang.Start
	answer  func(statelang.Effect) []statelang.Event
	effects []statelang.Effect
	history []statelang.HistoryEvent
	events  []statelang.Event
	seen    int // observations
	now     time.Time
	wakes   []statelang.Effect
	calls   []statelang.Effect
	again   bool
	stop    bool // at the first wait
}

func (s *simulation) run(m *statelang.Machine, start statelang.Start) *statelang.Run {
	s.start, s.now = start, start.At
	start.Record = func(e statelang.HistoryEvent) { s.history = append(s.history, e) }
	start.Observe = func(o statelang.Observation) { s.seen++ } // made again, nobody observes: it is the same all the same
	r, effects := statelang.New(m, start)
	s.take(effects)
	s.drive(r)
	return r
}

func (s *simulation) drive(r *statelang.Run) {
	for r.Status() == statelang.StatusRunning {
		e, ok := s.next()
		if !ok {
			return
		}
		s.tell(r, e)
	}
}

func (s *simulation) tell(r *statelang.Run, e statelang.Event) {
	e.At = s.now
	s.events = append(s.events, e)
	s.take(r.Apply(e))
}

// madeAgain says what differs when the execution is made again of its events.
func (s *simulation) madeAgain(m *statelang.Machine, r *statelang.Run) string {
	var history []statelang.HistoryEvent
	start := s.start
	start.Record = func(e statelang.HistoryEvent) { history = append(history, e) }
	again, effects := statelang.New(m, start)
	all := slices.Clone(effects)
	for _, e := range s.events {
		all = append(all, again.Apply(e)...)
	}
	switch {
	case !reflect.DeepEqual(history, s.history):
		return fmt.Sprintf("made again, the history is %v instead of %v", history, s.history)
	case !reflect.DeepEqual(all, s.effects):
		return fmt.Sprintf("made again, the effects are %v instead of %v", all, s.effects)
	case again.Status() != r.Status() || text(again.Output()) != text(r.Output()):
		return fmt.Sprintf("made again, it is %s with %s instead of %s with %s", again.Status(), text(again.Output()), r.Status(), text(r.Output()))
	}
	return ""
}

func (s *simulation) next() (statelang.Event, bool) {
	if s.again {
		s.again = false
		return statelang.Event{Kind: statelang.Continued}, true
	}
	if len(s.calls) > 0 {
		call := s.calls[0]
		s.calls = s.calls[1:]
		events := s.answer(call)
		if len(events) == 0 {
			return s.next()
		}
		for i := len(events) - 1; i > 0; i-- { // the rest comes at once, too
			later := events[i]
			s.calls = append([]statelang.Effect{{Kind: "later", Call: call.Call}}, s.calls...)
			inner := s.answer
			s.answer = func(e statelang.Effect) []statelang.Event {
				if e.Kind == "later" {
					s.answer = inner
					return []statelang.Event{later}
				}
				return inner(e)
			}
		}
		e := events[0]
		e.Call = call.Call
		return e, true
	}
	if s.stop || len(s.wakes) == 0 || len(s.wakes) == 1 && s.wakes[0].Call == 0 {
		return statelang.Event{}, false // only the execution's own end is left
	}
	slices.SortStableFunc(s.wakes, func(a, b statelang.Effect) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Call, b.Call)) })
	w := s.wakes[0]
	s.wakes = s.wakes[1:]
	if w.At.After(s.now) {
		s.now = w.At
	}
	return statelang.Event{Kind: statelang.Woke, Call: w.Call}, true
}

func (s *simulation) take(effects []statelang.Effect) {
	s.effects = append(s.effects, effects...)
	for _, e := range effects {
		gone := func(w statelang.Effect) bool { return w.Call == e.Call }
		switch e.Kind {
		case statelang.WakeAt:
			s.wakes = append(slices.DeleteFunc(s.wakes, gone), e)
		case statelang.Cancel:
			s.wakes = slices.DeleteFunc(s.wakes, gone)
			s.calls = slices.DeleteFunc(s.calls, gone)
		case statelang.Continue:
			s.again = true
		default:
			s.calls = append(s.calls, e)
		}
	}
}

func describe(f *statelang.Failure) string {
	if f == nil {
		return "no failure"
	}
	b, _ := json.Marshal(f)
	return string(b)
}

func text(v any) string {
	b, err := jsontree.Append(nil, v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func matchJSON(want json.RawMessage, got any) string {
	w, err := jsontree.Parse(want)
	if err != nil {
		return err.Error()
	}
	return match(w, got, "")
}

// match compares with a recorded value that has markers; empty if they are alike.
func match(want, got any, path string) string {
	no := func() string { return fmt.Sprintf("%s: %.300s instead of %.300s", path, text(got), text(want)) }
	switch want := want.(type) {
	case *jsontree.Object:
		if want.Len() == 1 {
			key, v := want.At(0)
			s, isText := got.(string)
			switch key {
			case "$any":
				return ""
			case "$regex":
				// Of Python's syntax only this group is not RE2's.
				re := regexp.MustCompile(v.(string))
				if isText && re.MatchString(s) {
					return ""
				}
				return no()
			case "$json":
				if isText {
					parsed, err := jsontree.Parse([]byte(s))
					if err != nil {
						return no()
					}
					got = parsed
				}
				return match(v, got, path)
			}
		}
		if s, ok := got.(string); ok && strings.HasPrefix(s, "{") {
			if parsed, err := jsontree.Parse([]byte(s)); err == nil {
				return match(want, parsed, path)
			}
		}
		o, ok := got.(*jsontree.Object)
		if !ok || o.Len() != want.Len() {
			return no()
		}
		for k, v := range want.All() {
			other, ok := o.Get(k)
			if !ok {
				return no()
			}
			if why := match(v, other, path+"."+k); why != "" {
				return why
			}
		}
		return ""
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return no()
		}
		for i := range want {
			if why := match(want[i], list[i], fmt.Sprintf("%s[%d]", path, i)); why != "" {
				return why
			}
		}
		return ""
	case json.Number:
		a, _ := jsontree.Float(want)
		b, ok := jsontree.Float(got)
		if ok && math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b)) {
			return ""
		}
		return no()
	case string:
		s, ok := got.(string)
		if ok && s == want {
			return ""
		}
		if ok && len(s) > 0 && len(want) > 0 && strings.ContainsAny(s[:1], "{[") && strings.ContainsAny(want[:1], "{[") {
			a, err := jsontree.Parse([]byte(want))
			b, bad := jsontree.Parse([]byte(s))
			if err == nil && bad == nil {
				return match(a, b, path)
			}
		}
		return no()
	}
	if want != got {
		return no()
	}
	return ""
}

type validationCase struct {
	ID         string
	Source     string `json:"source_kind"`
	Type       statelang.Type
	Definition string `json:"definition_text"`
	Expected   struct{ Valid bool }
}

// unlikeDefinitions names definitions that are not judged as recorded, with the reason.
func unlikeDefinitions() map[string]string {
	return map[string]string{
		"asl-validator/valid-map-with-item-batcher-jsonata.json": "JSONPath in a machine that is JSONata: AWS refuses it, that validator doesn't look",
	}
}

func TestRecordedDefinitions(t *testing.T) {
	cases := recorded[validationCase](t, "validation.jsonl")
	known := unlikeDefinitions()
	right := 0
	supports := func(r statelang.Resource) error { // of the integrations in these, one is none
		if r.Service == "dynamodb" && r.Action == "query" {
			return errors.New("is no resource that can be called")
		}
		return nil
	}
	for _, c := range cases {
		_, err := statelang.Parse([]byte(c.Definition), statelang.Options{Type: c.Type, Supports: supports})
		_, isKnown := known[c.ID]
		if (err == nil) == c.Expected.Valid {
			right++
			if isKnown {
				t.Errorf("%s is judged as recorded: take it off the list", c.ID)
			}
			continue
		}
		if !isKnown {
			t.Errorf("%s: valid %v: %v\n%.600s", c.ID, c.Expected.Valid, err, c.Definition)
		}
	}
	t.Logf("%d of %d as expected, %.1f %%", right, len(cases), 100*float64(right)/float64(len(cases)))
}
