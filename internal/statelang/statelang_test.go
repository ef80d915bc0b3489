package statelang_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// parse reads a definition that is right.
func parse(t testing.TB, definition string) *statelang.Machine {
	t.Helper()
	m, err := statelang.Parse([]byte(definition), statelang.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// run runs a definition, with answers to its calls.
func run(t testing.TB, definition, input string, answer func(statelang.Effect) []statelang.Event) (*simulation, *statelang.Run) {
	t.Helper()
	v, err := jsontree.Parse([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	s := &simulation{answer: answer}
	return s, s.run(parse(t, definition), statelang.Start{ID: "e", Name: "e", Input: v, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
}

// outcome is how an execution ended, in a line.
func outcome(r *statelang.Run) string {
	if r.Status() == statelang.StatusSucceeded {
		return text(r.Output())
	}
	return fmt.Sprintf("%s %s", r.Status(), r.Failure().Name())
}

func succeed(output string) []statelang.Event {
	v, err := jsontree.Parse([]byte(output))
	if err != nil {
		panic(err)
	}
	return []statelang.Event{{Kind: statelang.Succeeded, Output: v}}
}

func failWith(name string) []statelang.Event {
	return []statelang.Event{{Kind: statelang.Failed, Failure: statelang.NewFailure(name, "why")}}
}

// TestProblems: all mistakes are told at once, with their paths.
func TestProblems(t *testing.T) {
	_, err := statelang.Parse([]byte(`{
		"StartAt": "A", "Timeout": 3, "States": {
			"A": {"Type": "Task", "Resource": "arn:aws:states:::sqs", "Nxt": "B", "TimeoutSeconds": 0, "Retry": [{"ErrorEquals": ["States.Timout"], "BackoffRate": 0.5}]},
			"B": {"Type": "Choice", "Choices": [{"Variable": "$.x[", "StringEquals": 3, "Next": "Nowhere"}]},
			"C": {"Type": "Pass", "Parameters": {"a.$": "no path", "b": [{"c.$": "States.Format('{}')"}]}, "Result": 1, "End": true, "Next": "A"}
		}}`), statelang.Options{})
	var problems statelang.Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.String())
	}
	for _, want := range []string{
		`/Timeout: is no field of a state machine`,
		`/States/A/Resource: "arn:aws:states:::sqs" names no action`,
		`/States/A/Nxt: is no field of a Task state in JSONPath: is Next meant?`,
		`/States/A/TimeoutSeconds: must be a whole number from 1 to 99999999, not 0`,
		`/States/A/Retry[0]/ErrorEquals[0]: "States.Timout" is no error of the language: is States.Timeout meant?`,
		`/States/A/Retry[0]/BackoffRate: must be a number of 1 or more, not 0.5`,
		`/States/A: leads nowhere`,
		`/States/B/Choices[0]/Variable: "$.x[" is no JSONPath`,
		`/States/B/Choices[0]/StringEquals: must be a text, not 3`,
		`/States/B/Choices[0]/Next: names "Nowhere", which is no state here`,
		`/States/C: has both Next and End`,
		`/States/C/Parameters/a.$: "no path" is neither a JSONPath`,
		`/States/C/Parameters/b[0]/c.$: "States.Format('{}')" is no call of an intrinsic function: States.Format has 1 places {} and 0 values`,
		`/States/B: is never reached`,
	} {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("nobody says %s", want)
		}
	}
	if len(got) > 16 {
		t.Errorf("%d problems", len(got))
	}
	if t.Failed() {
		t.Log("\n" + strings.Join(got, "\n"))
	}
}

func TestRetries(t *testing.T) {
	const task = `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "f", "Retry": [
		{"ErrorEquals": ["A", "B"], "IntervalSeconds": 2, "MaxAttempts": 3, "BackoffRate": 3, "MaxDelaySeconds": 10},
		{"ErrorEquals": ["States.TaskFailed"], "MaxAttempts": 1},
		{"ErrorEquals": ["States.ALL"], "MaxAttempts": 0}],
		"Catch": [{"ErrorEquals": ["C"], "Next": "Caught", "ResultPath": "$.error"}], "End": true},
		"Caught": {"Type": "Succeed"}}}`
	for _, c := range []struct {
		errors string // of the attempts, and then a success
		want   string
		takes  time.Duration
	}{
		{"", `"done"`, 0},
		{"A", `"done"`, 2 * time.Second},
		{"A B A", `"done"`, (2 + 6 + 10) * time.Second},
		{"A A A A", "FAILED A", 18 * time.Second},
		{"A C A C", `{"in":1,"error":{"Error":"C","Cause":"why"}}`, (2 + 1 + 6) * time.Second},
		{"States.Timeout", "FAILED States.Timeout", 0},
		{"States.Runtime", "FAILED States.Runtime", 0},
	} {
		left := strings.Fields(c.errors)
		s, r := run(t, task, `{"in":1}`, func(statelang.Effect) []statelang.Event {
			if len(left) == 0 {
				return succeed(`"done"`)
			}
			name := left[0]
			left = left[1:]
			return failWith(name)
		})
		if got := outcome(r); got != c.want || s.now.Sub(s.start.At) != c.takes {
			t.Errorf("after %q: %s in %v; want %s in %v", c.errors, got, s.now.Sub(s.start.At), c.want, c.takes)
		}
	}
}

// TestActivities: the timeout of an activity's task counts from when it was scheduled, its heartbeat from when a worker has it.
func TestActivities(t *testing.T) {
	const task = `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "arn:aws:states:us-east-1:1:activity:a", "TimeoutSeconds": 25, "HeartbeatSeconds": 10,
		"Catch": [{"ErrorEquals": ["States.HeartbeatTimeout"], "Next": "Silent"}, {"ErrorEquals": ["States.ALL"], "Next": "Slow"}], "End": true},
		"Silent": {"Type": "Pass", "Result": "silent", "End": true}, "Slow": {"Type": "Pass", "Result": "slow", "End": true}}}`
	taken, beat := statelang.Event{Kind: statelang.Taken, Worker: "w"}, statelang.Event{Kind: statelang.Beat}
	for _, c := range []struct {
		events  []statelang.Event
		want    string
		takes   time.Duration
		history string
	}{
		{nil, `"slow"`, 25 * time.Second, "Scheduled TimedOut"},
		{[]statelang.Event{beat}, `"slow"`, 25 * time.Second, "Scheduled TimedOut"},
		{[]statelang.Event{taken, taken, beat}, `"silent"`, 10 * time.Second, "Scheduled Started(w) TimedOut"},
		{append([]statelang.Event{taken}, succeed(`1`)...), `1`, 0, "Scheduled Started(w) Succeeded"},
		{append([]statelang.Event{taken}, failWith("No")...), `"slow"`, 0, "Scheduled Started(w) Failed"},
		{succeed(`1`), `1`, 0, "Scheduled Succeeded"},
	} {
		s, r := run(t, task, `{}`, func(statelang.Effect) []statelang.Event { return c.events })
		var history []string
		for _, e := range s.history {
			if what, ok := strings.CutPrefix(e.Type, "Activity"); ok && e.Worker != "" {
				history = append(history, what+"("+e.Worker+")")
			} else if ok {
				history = append(history, what)
			}
		}
		if got := outcome(r); got != c.want || s.now.Sub(s.start.At) != c.takes || strings.Join(history, " ") != c.history {
			t.Errorf("%v: %s in %v, %s; want %s in %v, %s", c.events, got, s.now.Sub(s.start.At), history, c.want, c.takes, c.history)
		}
	}
}

// TestTimeouts: a task that is silent fails by its heartbeat, one that is slow by its timeout; signs of life put off only the
// former.
func TestTimeouts(t *testing.T) {
	const task = `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
		"Parameters": {"token.$": "$$.Task.Token"}, "TimeoutSeconds": 25, "HeartbeatSeconds": 10,
		"Catch": [{"ErrorEquals": ["States.HeartbeatTimeout"], "Next": "Silent"}, {"ErrorEquals": ["States.ALL"], "Next": "Slow"}], "End": true},
		"Silent": {"Type": "Pass", "Result": "silent", "End": true}, "Slow": {"Type": "Pass", "Result": "slow", "End": true}}}`
	for _, c := range []struct {
		beats int // 6 s from one to the next
		want  string
		takes time.Duration
	}{
		{0, `"silent"`, 10 * time.Second},
		{1, `"silent"`, 16 * time.Second},
		{3, `"slow"`, 25 * time.Second},
	} {
		start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		r, effects := statelang.New(parse(t, task), statelang.Start{ID: "e", Input: nil, At: start, Token: func(uint32) string { return "secret" }})
		call := effects[1]
		if call.Token != "secret" || text(call.Input) != `{"token":"secret"}` {
			t.Fatalf("%+v", call)
		}
		wake := effects[2].At
		now := start
		for n := range c.beats {
			now = start.Add(time.Duration(n+1) * 6 * time.Second)
			for _, e := range r.Apply(statelang.Event{Kind: statelang.Beat, Call: call.Call, At: now}) {
				wake = e.At
			}
		}
		for r.Status() == statelang.StatusRunning {
			now = wake
			for _, e := range r.Apply(statelang.Event{Kind: statelang.Woke, Call: call.Call, At: now}) {
				if e.Kind == statelang.WakeAt {
					wake = e.At
				}
			}
		}
		if got := outcome(r); got != c.want || now.Sub(start) != c.takes {
			t.Errorf("%d beats: %s after %v; want %s after %v", c.beats, got, now.Sub(start), c.want, c.takes)
		}
	}
}

func TestChoices(t *testing.T) {
	for _, c := range []struct {
		rule, input string
		want        string
	}{
		{`"StringMatches": "log-*.txt"`, `"log-1.txt"`, "yes"},
		{`"StringMatches": "a\\*b*"`, `"a*bc"`, "yes"},
		{`"StringMatches": "a\\*b*"`, `"axbc"`, "no"},
		{`"StringMatches": "ab*ba"`, `"aba"`, "no"},
		{`"NumericEquals": 9007199254740993`, `9007199254740992`, "no"},
		{`"NumericEquals": 1.0`, `1`, "yes"},
		{`"NumericEquals": 1`, `"1"`, "no"},
		{`"TimestampLessThan": "2026-01-01T00:00:00+01:00"`, `"2025-12-31T22:59:59.999Z"`, "yes"},
		{`"TimestampLessThan": "2026-01-01T00:00:00Z"`, `"yesterday"`, "no"},
		{`"StringLessThan": "b"`, `"B"`, "yes"},
		{`"IsNull": true`, `null`, "yes"},
		{`"IsTimestamp": false`, `"2026-01-01 00:00:00Z"`, "yes"},
		{`"BooleanEquals": false`, `false`, "yes"},
	} {
		_, r := run(t, `{"StartAt": "C", "States": {"C": {"Type": "Choice", "Choices": [{"Variable": "$.v", `+c.rule+`, "Next": "Yes"}], "Default": "No"},
			"Yes": {"Type": "Pass", "Result": "yes", "End": true}, "No": {"Type": "Pass", "Result": "no", "End": true}}}`, `{"v":`+c.input+`}`, nil)
		if got := outcome(r); got != `"`+c.want+`"` {
			t.Errorf("%s of %s: %s", c.rule, c.input, got)
		}
	}
	_, r := run(t, `{"StartAt": "C", "States": {"C": {"Type": "Choice", "Choices": [{"Variable": "$.v", "IsNull": true, "Next": "Yes"}]}, "Yes": {"Type": "Succeed"}}}`, `{}`, nil)
	if got := outcome(r); got != "FAILED States.Runtime" {
		t.Errorf("of what is absent: %s", got)
	}
	_, r = run(t, `{"StartAt": "C", "States": {"C": {"Type": "Choice", "Choices": [{"Variable": "$.v", "IsPresent": true, "Next": "Yes"}]}, "Yes": {"Type": "Succeed"}}}`, `{}`, nil)
	if got := outcome(r); got != "FAILED States.NoChoiceMatched" {
		t.Errorf("without a rule that holds: %s", got)
	}
}

func TestIntrinsics(t *testing.T) {
	for call, want := range map[string]string{
		`States.Format('{} of {}: \\{\\}, \\'\\\\', $.n, $.list)`:          `"3 of [1,2,2,\"x\"]: {}, '\\"`,
		`States.Format($.t, 'a\\{')`:                                       `"<a{>"`,
		`States.StringToJson($.json)`:                                      `{"a":1.50}`,
		`States.JsonToString($.o)`:                                         `"{\"z\":1,\"a\":[true]}"`,
		`States.Array(1, 'two', null, true, States.Array(), $.n)`:          `[1,"two",null,true,[],3]`,
		`States.ArrayPartition($.list, 3)`:                                 `[[1,2,2],["x"]]`,
		`States.ArrayContains($.list, 'x')`:                                `true`,
		`States.ArrayRange(5, -1, -3)`:                                     `[5,2,-1]`,
		`States.ArrayGetItem($.list, 3)`:                                   `"x"`,
		`States.ArrayLength($.list)`:                                       `4`,
		`States.ArrayUnique($.list)`:                                       `[1,2,"x"]`,
		`States.Base64Decode(States.Base64Encode('é'))`:                    `"é"`,
		`States.Hash('a', 'SHA-256')`:                                      `"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"`,
		`States.JsonMerge($.o, $.p, false)`:                                `{"z":2,"a":[true],"b":null}`,
		`States.MathAdd($.n, -5)`:                                          `-2`,
		`States.MathAdd(1.5, 1)`:                                           `3`,
		`States.StringSplit('a,b;,c', ',;')`:                               `["a","b","c"]`,
		`States.ArrayLength(States.StringSplit(States.UUID(), '-'))`:       `5`,
		`States.ArrayGetItem($.list, 4)`:                                   "FAILED States.IntrinsicFailure",
		`States.JsonMerge($.o, $.p, true)`:                                 "FAILED States.IntrinsicFailure",
		`States.ArrayRange(0, 1000, 1)`:                                    "FAILED States.IntrinsicFailure",
		`States.MathAdd(9223372036854775807, 1)`:                           "FAILED States.IntrinsicFailure",
		`States.StringToJson('{')`:                                         "", // refused: a single brace stands for nothing
		`States.MathAdd(1)`:                                                "",
		`States.NoSuch(1)`:                                                 "",
		`States.Format('{}', $.a`:                                          "",
		`States.Format('{}' $.a)`:                                          "",
		`States.Array('a) `:                                                "",
		`States.Array(1,)`:                                                 "",
		`States.Array(` + strings.Repeat("States.Array(", 10) + `1)))))))`: "",
	} {
		definition := `{"StartAt": "P", "States": {"P": {"Type": "Pass", "Parameters": {"v.$": "` + call + `"}, "OutputPath": "$.v", "End": true}}}`
		if want == "" && call != `States.StringToJson('{')` {
			if _, err := statelang.Parse([]byte(definition), statelang.Options{}); err == nil {
				t.Errorf("%s was taken", call)
			}
			continue
		}
		if want == "" {
			want = "FAILED States.IntrinsicFailure"
		}
		_, r := run(t, definition, `{"n":3,"list":[1,2,2,"x"],"t":"<{}>","json":"{\"a\": 1.50}","o":{"z":1,"a":[true]},"p":{"z":2,"b":null}}`, nil)
		if got := outcome(r); got != want {
			t.Errorf("%s: %s; want %s", call, got, want)
		}
	}
}

// TestScopes: branches see the variables around them, and nobody sees theirs.
func TestScopes(t *testing.T) {
	_, r := run(t, `{"StartAt": "A", "States": {
		"A": {"Type": "Pass", "Assign": {"x": 1, "y": 2}, "Next": "P"},
		"P": {"Type": "Parallel", "Branches": [
			{"StartAt": "B", "States": {"B": {"Type": "Pass", "Assign": {"x": 10, "z": 3}, "Next": "C"},
				"C": {"Type": "Pass", "Parameters": {"x.$": "$x", "y.$": "$y", "z.$": "$z"}, "End": true}}},
			{"StartAt": "D", "States": {"D": {"Type": "Wait", "Seconds": 1, "Next": "E"}, "E": {"Type": "Pass", "Parameters": {"x.$": "$x"}, "End": true}}}],
			"ResultPath": "$.r", "Assign": {"y": 4}, "Next": "F"},
		"F": {"Type": "Pass", "Parameters": {"r.$": "$.r", "x.$": "$x", "y.$": "$y"}, "End": true}}}`, `{}`, nil)
	if got := outcome(r); got != `{"r":[{"x":10,"y":2,"z":3},{"x":1}],"x":1,"y":4}` {
		t.Error(got)
	}
	_, r = run(t, `{"StartAt": "A", "States": {"A": {"Type": "Pass", "Parameters": {"v.$": "$nobody"}, "End": true}}}`, `{}`, nil)
	if got := outcome(r); got != "FAILED States.Runtime" || !strings.Contains(*r.Failure().Cause, "$nobody") {
		t.Error(got)
	}
}

// TestLimits: too much data fails with the error that names it, an endless loop ends.
func TestLimits(t *testing.T) {
	big := `"` + strings.Repeat("x", statelang.MaxDataBytes-2) + `"`
	_, r := run(t, `{"StartAt": "P", "States": {"P": {"Type": "Pass", "End": true}}}`, big, nil)
	if r.Status() != statelang.StatusSucceeded {
		t.Errorf("as much as may be: %s", outcome(r))
	}
	_, r = run(t, `{"StartAt": "P", "States": {"P": {"Type": "Pass", "Parameters": {"a.$": "$"}, "End": true}}}`, big, nil)
	if got := outcome(r); got != "FAILED States.DataLimitExceeded" {
		t.Errorf("a byte more: %s", got)
	}
	_, r = run(t, `{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "f", "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "All"}], "End": true}, "All": {"Type": "Succeed"}}}`,
		`{}`, func(statelang.Effect) []statelang.Event { return succeed(`[` + big + `]`) })
	if got := outcome(r); got != "FAILED States.DataLimitExceeded" {
		t.Errorf("States.ALL does not catch it: %s", got)
	}
	_, r = run(t, `{"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Choice", "Choices": [{"Variable": "$.x", "IsPresent": true, "Next": "C"}], "Default": "A"}, "C": {"Type": "Succeed"}}}`, `{}`, nil)
	if got := outcome(r); got != "FAILED States.Runtime" || r.Events() > statelang.MaxEvents {
		t.Errorf("an endless loop: %s after %d events", got, r.Events())
	}
	_, r = run(t, `{"TimeoutSeconds": 5, "StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 6, "End": true}}}`, `{}`, nil)
	if r.Status() != statelang.StatusTimedOut || r.Failure().Name() != statelang.ErrTimeout {
		t.Errorf("past its time: %s", outcome(r))
	}
}
