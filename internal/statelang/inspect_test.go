package statelang_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// testedStates is a machine with a state of each kind that a test has something to say of.
const testedStates = `{"StartAt": "Pass", "States": {
	"Pass": {"Type": "Pass", "InputPath": "$.a", "Parameters": {"b.$": "$.b"}, "ResultPath": "$.c", "OutputPath": "$.c", "Assign": {"x.$": "$.b"}, "Next": "Result"},
	"Result": {"Type": "Pass", "Result": 1, "ResultPath": "$.r", "Next": "Task"},
	"Task": {"Type": "Task", "Resource": "f", "Parameters": {"v.$": "$v", "n.$": "$$.State.RetryCount"}, "ResultSelector": {"s.$": "$.r"}, "TimeoutSeconds": 3,
		"Retry": [{"ErrorEquals": ["A"], "MaxAttempts": 0}, {"ErrorEquals": ["B"], "IntervalSeconds": 3, "BackoffRate": 2, "MaxAttempts": 2, "JitterStrategy": "FULL", "MaxDelaySeconds": 5}],
		"Catch": [{"ErrorEquals": ["C"], "Next": "Wait"}, {"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Choice"}], "Next": "Wait"},
	"Wait": {"Type": "Wait", "SecondsPath": "$.seconds", "Next": "Choice"},
	"Choice": {"Type": "Choice", "Choices": [
		{"Variable": "$.n", "NumericGreaterThan": 3, "Next": "Parallel"},
		{"Not": {"Or": [{"Variable": "$.n", "IsPresent": false}, {"Variable": "$.n", "NumericEqualsPath": "$.m"}]}, "Next": "Map"}], "Default": "Query"},
	"Parallel": {"Type": "Parallel", "Branches": [{"StartAt": "In", "States": {"In": {"Type": "Task", "Resource": "g", "End": true}}}], "ResultSelector": {"first.$": "$[0]"}, "End": true},
	"Map": {"Type": "Map", "ItemsPath": "$.list", "ItemSelector": {"i.$": "$$.Map.Item.Index"}, "ToleratedFailureCount": 1, "ItemProcessor": {"StartAt": "In", "States": {"In": {"Type": "Pass", "Parameters": {"item.$": "$$.Map.Item.Value"}, "End": true}}},
		"Catch": [{"ErrorEquals": ["States.ExceedToleratedFailureThreshold"], "Next": "Query"}], "End": true},
	"Query": {"Type": "Task", "QueryLanguage": "JSONata", "Resource": "h", "Arguments": {"a": "{% $states.input.a & $states.context.Execution.Name %}"}, "Assign": {"y": "{% $states.result %}"}, "Output": "{% $states.result + 1 %}", "Next": "Read"},
	"Read": {"Type": "Map", "ItemReader": {"Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"}, "Parameters": {"Bucket": "b", "Key": "k"}},
		"ItemBatcher": {"MaxItemsPerBatch": 2}, "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, "StartAt": "One", "States": {"One": {"Type": "Succeed"}}}, "Next": "Fail"},
	"Fail": {"Type": "Fail", "ErrorPath": "$.e", "Cause": "c"}}}`

// TestStates: one state at a time, with all that is made of its data.
func TestStates(t *testing.T) {
	m := parse(t, testedStates)
	result := func(text string) *statelang.StateMock { return &statelang.StateMock{Result: value(t, text)} }
	fails := func(name string) *statelang.StateMock {
		return &statelang.StateMock{Failure: statelang.NewFailure(name, "why")}
	}
	for _, c := range []struct {
		what  string
		input string
		test  statelang.StateTest
		want  string // status, output or error, next state, inspection
	}{
		{
			"all paths of a Pass", `{"a":{"b":1}}`,
			statelang.StateTest{State: "Pass"},
			`SUCCEEDED {"b":1} → Result {"input":{"a":{"b":1}},"afterInputPath":{"b":1},"afterParameters":{"b":1},"afterResultSelector":{"b":1},"afterResultPath":{"a":{"b":1},"c":{"b":1}},"variables":{"x":1}}`,
		},
		{
			"a Pass with a Result", `{}`,
			statelang.StateTest{State: "Result"},
			`SUCCEEDED {"r":1} → Task {"input":{},"afterInputPath":{},"result":1,"afterResultSelector":1,"afterResultPath":{"r":1}}`,
		},
		{"a path that finds nothing", `{}`, statelang.StateTest{State: "Pass"}, `FAILED States.Runtime {"input":{}}`},
		{
			"a Task that succeeds", `{}`,
			statelang.StateTest{State: "Task", Mock: result(`{"r":2}`), Variables: members(t, `{"v":7}`), RetryCount: 1},
			`SUCCEEDED {"s":2} → Wait {"input":{},"afterInputPath":{},"afterParameters":{"v":7,"n":1},"result":{"r":2},"afterResultSelector":{"s":2},"afterResultPath":{"s":2},"variables":{"v":7}}`,
		},
		{
			"a retrier, without its jitter", `{}`,
			statelang.StateTest{State: "Task", Mock: fails("B"), Variables: members(t, `{"v":7}`), RetryCount: 1},
			`RETRIABLE B {"input":{},"afterInputPath":{},"afterParameters":{"v":7,"n":1},"errorDetails":{"retryIndex":1,"retryBackoffIntervalSeconds":5},"variables":{"v":7}}`,
		},
		{
			"a retrier that is at its end", `{}`,
			statelang.StateTest{State: "Task", Mock: fails("B"), Variables: members(t, `{"v":7}`), RetryCount: 2},
			`CAUGHT_ERROR {"error":{"Error":"B","Cause":"why"}} → Choice {"input":{},"afterInputPath":{},"afterParameters":{"v":7,"n":2},"errorDetails":{"catchIndex":1},"variables":{"v":7}}`,
		},
		{"what is made before a Task fails, and is not caught", `{}`, statelang.StateTest{State: "Task", Mock: result(`1`)}, `FAILED States.Runtime {"input":{},"afterInputPath":{}}`},
		{"a Wait", `{"seconds":10}`, statelang.StateTest{State: "Wait"}, `SUCCEEDED {"seconds":10} → Choice {"input":{"seconds":10},"afterInputPath":{"seconds":10}}`},
		{"a rule", `{"n":1,"m":2}`, statelang.StateTest{State: "Choice"}, `SUCCEEDED {"n":1,"m":2} → Map {"input":{"n":1,"m":2},"afterInputPath":{"n":1,"m":2}}`},
		{"a Default", `{"n":1,"m":1}`, statelang.StateTest{State: "Choice"}, `SUCCEEDED {"n":1,"m":1} → Query {"input":{"n":1,"m":1},"afterInputPath":{"n":1,"m":1}}`},
		{
			"a Parallel", `5`,
			statelang.StateTest{State: "Parallel", Mock: result(`[3]`)},
			`SUCCEEDED {"first":3} {"input":5,"afterInputPath":5,"afterParameters":5,"result":[3],"afterResultSelector":{"first":3},"afterResultPath":{"first":3}}`,
		},
		{"a Parallel whose branch fails", `5`, statelang.StateTest{State: "Parallel", Mock: fails("E"), ErrorCausedBy: "In"}, `FAILED E {"input":5,"afterInputPath":5,"afterParameters":5}`},
		{
			"a Map", `{"list":["a","b"]}`,
			statelang.StateTest{State: "Map", Mock: result(`[]`), MapFailures: 1},
			`SUCCEEDED [] {"input":{"list":["a","b"]},"afterInputPath":{"list":["a","b"]},"afterItemsPath":["a","b"],"maxConcurrency":0,"toleratedFailureCount":1,"afterItemSelector":[{"i":0},{"i":1}],"result":[],"afterResultSelector":[],"afterResultPath":[]}`,
		},
		{
			"a Map with too many failures", `{"list":[]}`,
			statelang.StateTest{State: "Map", Mock: result(`[]`), MapFailures: 2},
			`CAUGHT_ERROR {"Error":"States.ExceedToleratedFailureThreshold","Cause":"The specified tolerated failure threshold was exceeded"} → Query {"input":{"list":[]},"afterInputPath":{"list":[]},"afterItemsPath":[],"maxConcurrency":0,"toleratedFailureCount":1,"errorDetails":{"catchIndex":0}}`,
		},
		{"a Map over what is no list", `{"list":1}`, statelang.StateTest{State: "Map", Mock: result(`[]`)}, `FAILED States.Runtime {"input":{"list":1},"afterInputPath":{"list":1}}`},
		{
			"a state inside of a Map", `{}`,
			statelang.StateTest{State: "/States/Map/ItemProcessor/States/In", HasItem: true, MapItem: "it", MapIndex: 4},
			`SUCCEEDED {"item":"it"} {"input":{},"afterInputPath":{},"afterParameters":{"item":"it"},"afterResultSelector":{"item":"it"},"afterResultPath":{"item":"it"}}`,
		},
		{
			"JSONata, with a context", `{"a":"x"}`,
			statelang.StateTest{State: "Query", Mock: result(`4`), Context: members(t, `{"Execution":{"Name":"-e"}}`)},
			`SUCCEEDED 5 → Read {"input":{"a":"x"},"afterArguments":{"a":"x-e"},"result":4,"variables":{"y":4}}`,
		},
		{
			"an ItemReader with batches", `{}`,
			statelang.StateTest{State: "Read", Mock: result(`[]`), ItemReaderData: []byte("a,b\n1,2\n3,4\n5,6\n")},
			`SUCCEEDED [] → Fail {"input":{},"afterInputPath":{},"afterItemsPath":[{"a":"1","b":"2"},{"a":"3","b":"4"},{"a":"5","b":"6"}],"maxConcurrency":0,"afterItemBatcher":[{"Items":[{"a":"1","b":"2"},{"a":"3","b":"4"}]},{"Items":[{"a":"5","b":"6"}]}],"result":[],"afterResultSelector":[],"afterResultPath":[]}`,
		},
		{"an ItemReader that is not asked", `{}`, statelang.StateTest{State: "Read", Mock: fails("E")}, `FAILED E {"input":{},"afterInputPath":{}}`},
		{"a Fail", `{"e":"E"}`, statelang.StateTest{State: "Fail"}, `FAILED E {"input":{"e":"E"},"afterInputPath":{"e":"E"}}`},
	} {
		c.test.Input, c.test.At = value(t, c.input), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		r, err := statelang.Test(m, c.test)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		got := string(r.Status)
		if r.Status == statelang.TestSucceeded || r.Status == statelang.TestCaught {
			got += " " + text(r.Output)
		} else {
			got += " " + r.Failure.Name()
		}
		if r.Next != "" {
			got += " → " + r.Next
		}
		if got += " " + text(r.Inspection); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.what, got, c.want)
		}
	}
}

// TestStateTestsRefused: a test that can't be made says why.
func TestStateTestsRefused(t *testing.T) {
	m := parse(t, testedStates)
	list := &statelang.StateMock{Result: []any{}}
	for _, c := range []struct {
		test statelang.StateTest
		want string
	}{
		{statelang.StateTest{State: "Parall"}, `there is no state "Parall": is Parallel meant?`},
		{statelang.StateTest{State: "In"}, `2 states are named "In": give the path of one, /States/Parallel/Branches[0]/States/In or /States/Map/ItemProcessor/States/In`},
		{statelang.StateTest{State: "Task"}, "needs a mock"},
		{statelang.StateTest{State: "Wait", Mock: list}, "takes no mock"},
		{statelang.StateTest{State: "Map", Mock: &statelang.StateMock{Result: "x"}}, "must be an array"},
		{statelang.StateTest{State: "Task", Mock: list, MapFailures: 1}, "for a Map only"},
		{statelang.StateTest{State: "Map", Mock: list, ItemReaderData: []byte("x")}, "for a Map that has one"},
		{statelang.StateTest{State: "Map", Mock: list, ErrorCausedBy: "Task"}, `no state "Task" in it`},
		{statelang.StateTest{State: "Map", Mock: list, RetryCount: -1}, "negative"},
	} {
		if _, err := statelang.Test(m, c.test); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v; want %s", c.test, err, c.want)
		}
	}
}

// TestTransitions: all ways on from a state, with what they are for.
func TestTransitions(t *testing.T) {
	m := parse(t, testedStates)
	var got []string
	for s := range m.All() {
		for _, w := range s.Transitions() {
			to := "the end"
			if w.To != nil {
				to = w.To.Name
			}
			got = append(got, fmt.Sprintf("%s %s → %s: %s", s.Name, w.Way, to, w.Label))
		}
	}
	for _, want := range []string{
		"Pass Next → Result: ", "Task Retry[1] → Task: B", "Task Catch[1] → Choice: States.ALL", "Choice Choices[0] → Parallel: $.n > 3",
		"Choice Choices[1] → Map: not ($.n is not present or $.n = $.m)", "Choice Default → Query: ", "Parallel End → the end: ", "In End → the end: ",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not there", want)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(got, "\n"))
	}
}

func value(t testing.TB, text string) any {
	t.Helper()
	v, err := jsontree.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func members(t testing.TB, text string) *jsontree.Object {
	t.Helper()
	o, ok := value(t, text).(*jsontree.Object)
	if !ok {
		t.Fatalf("%s is no object", text)
	}
	return o
}
