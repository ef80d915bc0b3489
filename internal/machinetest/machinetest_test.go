package machinetest_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/machinetest"
	"github.com/weir-dev/weir/internal/statelang"
)

var update = flag.Bool("update", false, "write the golden files")

// machine reads a machine that is right.
func machine(t testing.TB, definition string) *statelang.Machine {
	t.Helper()
	found, problems := machinetest.ParseDefinitions([]byte(definition), statelang.Standard)
	if len(problems) > 0 || len(found) != 1 {
		t.Fatal(problems)
	}
	return found[0].Machine
}

func mocks(t testing.TB, text string) machinetest.Mocks {
	t.Helper()
	if text == "" {
		return machinetest.Mocks{}
	}
	m, problems := machinetest.ParseMocks([]byte(text))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return m
}

func value(t testing.TB, text string) any {
	t.Helper()
	v, err := jsontree.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func lines(problems []machinetest.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "%d: %s\n", p.Line, p)
	}
	return strings.TrimSpace(b.String())
}

// TestLines: the line of each field, in JSON and in YAML.
func TestLines(t *testing.T) {
	for name, text := range map[string]string{
		"JSON": "{\n\"a\": {\n\"b/c[0]\": [1,\n{\"d\": 2}],\n\"e\":\n3}}",
		"YAML": "a: &x\n\n  'b/c[0]':\n  - {1: 1,\n     d: 2}\n  e: 3\nf: *x\ng:\n  <<: *x\n  h: 1\n",
	} {
		found, err := machinetest.ParseDocuments([]byte(text))
		if err != nil || len(found) != 1 {
			t.Fatal(name, err)
		}
		want := map[string]int{"": 1, "/a": 2, "/a/b/c[0]": 3, "/a/b/c[0][1]/d": 4, "/a/e": 5, "/a/none": 2, "/none": 1}
		if name == "YAML" {
			want = map[string]int{"": 1, "/a": 1, "/a/b/c[0]": 3, "/a/b/c[0][0]/d": 5, "/a/e": 6, "/f": 7, "/f/e": 6, "/g/e": 6, "/g/h": 10}
		}
		for path, line := range want {
			if got := found[0].Line(path); got != line {
				t.Errorf("%s: %q is in line %d, not %d", name, path, got, line)
			}
		}
	}
}

// TestYAMLValues: what YAML says is what JSON says; what JSON can't hold is refused.
func TestYAMLValues(t *testing.T) {
	for text, want := range map[string]string{
		"a: [1, 1.50, 1e3, 0x10, 1_000, .5, -0, 12345678901234567890]": `{"a":[1,1.50,1e3,16,1000,0.5,-0,12345678901234567890]}`,
		"[yes, No, on, true, FALSE, ~, null, '']":                      `["yes","No","on",true,false,null,null,""]`,
		"- 2026-01-02\n- 2026-01-02T03:04:05Z\n- 0o7":                  `["2026-01-02","2026-01-02T03:04:05Z",7]`,
		"1: a\ntrue: b\n~: c":                                          `{"1":"a","true":"b","~":"c"}`,
		"{a: 1, \"b\": 2}":                                             `{"a":1,"b":2}`,
		"a: |\n  x\n  y\n":                                             `{"a":"x\ny\n"}`,
		"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n":                      `{"a":{"x":1,"y":2},"b":{"y":3,"x":1}}`,
	} {
		found, err := machinetest.ParseDocuments([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, _ := jsontree.Append(nil, found[0].Value); string(got) != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	bomb := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := byte('b'); c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	for text, want := range map[string]string{
		".inf":                           "line 1: .inf is no number of JSON",
		"a: 1\n? [b]\n: 2\n":             "line 2: the name of a member must be a text",
		"a: 1\nb:\n  <<: 3\n":            "line 3: << merges objects only",
		strings.Repeat("[", 2000) + "1":  "in each other",
		"x: " + strings.Repeat("[", 600): "",
		bomb:                             "with those that aliases repeat",
		strings.Repeat(" ", machinetest.MaxFileBytes+1): "at most 8388608 are allowed",
		"{\"a\": 1} x": "something follows",
	} {
		if _, err := machinetest.ParseDocuments([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v; want %s", text, err, want)
		}
	}
}

// simulated are runs, by what is shown of them.
const simulated = `{"StartAt": "Get", "States": {
	"Get": {"Type": "Task", "Resource": "get", "TimeoutSeconds": 10, "Retry": [{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 5, "MaxAttempts": 1}, {"ErrorEquals": ["E"], "MaxAttempts": 1}],
		"Catch": [{"ErrorEquals": ["E"], "Next": "Pass"}], "Assign": {"got.$": "$.n"}, "Next": "Each"},
	"Each": {"Type": "Map", "ItemsPath": "$.list", "MaxConcurrency": 1, "ItemProcessor": {"StartAt": "Do", "States": {"Do": {"Type": "Task", "Resource": "do", "End": true}}},
		"Retry": [{"ErrorEquals": ["Again"], "IntervalSeconds": 60}], "ResultPath": "$.done", "Next": "Pass"},
	"Pass": {"Type": "Pass", "End": true}}}`

// TestSimulate: the clock, the order of answers, and what a run says that can't go on.
func TestSimulate(t *testing.T) {
	for _, c := range []struct {
		what, mocks string
		takes       time.Duration
		path        string
		err         string
	}{
		{"answers that take their time", "Get: {result: {n: 1, list: [1, 2]}, after: 3s}\nDo: {result: 1, after: 0.5}\n", 4 * time.Second, "Get Each Do Do Pass", ""},
		{"a timeout, and a second attempt", "Get: [{timeout: true}, {result: {n: 1, list: []}}]\n", 15 * time.Second, "Get Each Pass", ""},
		{"an answer that comes too late", "Get: [{result: 1, after: 11s}, {result: {n: 1, list: []}, after: 9s}]\n", 24 * time.Second, "Get Each Pass", ""},
		{"an error, retried and caught", "Get: {error: E}\n", time.Second, "Get Pass", ""},
		{"a Map that is tried once more", "Get: {result: {n: 1, list: [1, 2]}}\nDo:\n- {when: 2, error: Again}\n- {result: x, times: any}\n", time.Minute, "Get Each Do Do Do Do Pass", ""},
		{"no mock", "Get: {result: {n: 1, list: [7]}}\n", 0, "Get Each Do", `the state "Do" was called, and has no mock: give one such as  Do: {result: …}  (or error, timeout, hang); it was sent 7`},
		{"too few answers", "Get: {result: {n: 1, list: [1, 2, 3]}}\nDo: [{result: 1}, {result: 2}]\n", 0, "Get Each Do Do Do", `call 3 of the state "Do" has no answer: all 2 are used; add one, or give the last  times: any`},
		{"no answer that fits", "Get: {result: {n: 1, list: [1]}}\nDo: [{when: 2, result: 1}]\n", 0, "Get Each Do", `call 1 of the state "Do" has no answer: no when of those that are left fits what was sent, 1`},
		{"by its path", "Get: {result: {n: 1, list: [1]}}\n/States/Each/ItemProcessor/States/Do: {result: 1}\n", 0, "Get Each Do Pass", ""},
	} {
		o := machinetest.Simulate(machinetest.Config{Machine: machine(t, simulated), Input: value(t, `{}`), Mocks: mocks(t, c.mocks)})
		err := ""
		if o.Err != nil {
			err = o.Err.Error()
		}
		if o.Takes() != c.takes || strings.Join(o.Path, " ") != c.path || err != c.err {
			t.Errorf("%s: %q in %v: %s\nwant %q in %v: %s", c.what, o.Path, o.Takes(), err, c.path, c.takes, c.err)
		}
		if err == "" && len(o.Unused()) > 0 {
			t.Errorf("%s: %s", c.what, lines(o.Unused()))
		}
	}
}

// TestBounds: nothing goes on for ever.
func TestBounds(t *testing.T) {
	wait := machine(t, `{"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "f", "End": true}}}`)
	o := machinetest.Simulate(machinetest.Config{Machine: wait, Mocks: mocks(t, "A: {hang: true}")})
	if o.Err != nil || o.Status != statelang.StatusFailed || o.Takes() != statelang.MaxExecutionAge {
		t.Errorf("who is never answered: %s in %v: %v", o.Ending(), o.Takes(), o.Err)
	}
	found, problems := machinetest.ParseDefinitions([]byte(`{"StartAt": "A", "States": {"A": {"Type": "Pass", "Next": "B"}, "B": {"Type": "Choice", "Choices": [{"Variable": "$.x", "IsPresent": true, "Next": "C"}], "Default": "A"}, "C": {"Type": "Succeed"}}}`), statelang.Express)
	if problems != nil {
		t.Fatal(problems)
	}
	o = machinetest.Simulate(machinetest.Config{Machine: found[0].Machine, Input: &jsontree.Object{}})
	if o.Err == nil || !strings.Contains(o.Err.Error(), "does it go in circles? it came through … → A → B → A → B → A → B") {
		t.Errorf("an endless loop without a wait: %v", o.Err)
	}
}

const suiteMachine = `{"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "f", "Retry": [{"ErrorEquals": ["Busy"]}], "Catch": [{"ErrorEquals": ["Bad"], "Next": "C"}], "Next": "B"}, "B": {"Type": "Wait", "Seconds": 60, "End": true}, "C": {"Type": "Fail", "Error": "E", "Cause": "{\"a\":1}"}}}`

// TestCheck: a test file whose cases are right, and one in which nothing is.
func TestCheck(t *testing.T) {
	for _, name := range []string{"right", "wrong", "mistaken"} {
		text, err := os.ReadFile("testdata/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		s, problems := machinetest.ParseSuite(text)
		if problems == nil {
			found, _ := machinetest.ParseDefinitions([]byte(suiteMachine), statelang.Standard)
			r := machinetest.Check(name+".yaml", s, found[0])
			if err := r.Print(&got, name == "right"); err != nil {
				t.Fatal(err)
			}
			if err := r.Coverage.Print(&got, true); err != nil {
				t.Fatal(err)
			}
			if name == "right" && r.Failed() > 0 || name == "wrong" && r.Failed() != len(r.Cases) {
				t.Errorf("%s: %d of %d failed", name, r.Failed(), len(r.Cases))
			}
		}
		fmt.Fprintln(&got, lines(problems))
		golden(t, "testdata/"+name+".txt", got.Bytes())
	}
}

// TestTree: the history of a run as a tree.
func TestTree(t *testing.T) {
	o := machinetest.Simulate(machinetest.Config{
		Machine: machine(t, `{"StartAt": "A", "States": {"A": {"Type": "Pass", "Assign": {"v.$": "$.n"}, "Next": "P"},
			"P": {"Type": "Parallel", "Branches": [
				{"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 90000, "Next": "X"}, "X": {"Type": "Pass", "End": true}}},
				{"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "t", "Next": "M"}, "M": {"Type": "Map", "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, "StartAt": "I", "States": {"I": {"Type": "Task", "Resource": "i", "End": true}}}, "ToleratedFailureCount": 1, "End": true}}}],
				"Retry": [{"ErrorEquals": ["E"], "IntervalSeconds": 2}], "Next": "C"},
			"C": {"Type": "Choice", "Choices": [{"Variable": "$[1][0]", "StringMatches": "i*", "Next": "S"}]}, "S": {"Type": "Succeed"}}}`),
		Input: value(t, `{"n": [1]}`),
		Mocks: mocks(t, "T: [{error: E, cause: c, after: 250ms}, {result: [1, 2]}]\nI: [{result: i}, {error: F}]\n"),
	})
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	var got bytes.Buffer
	if err := o.PrintTree(&got, true); err != nil {
		t.Fatal(err)
	}
	json, err := jsontree.Append(nil, o.JSON())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/tree.txt", append(append(got.Bytes(), json...), '\n'))
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what is there now (-update writes it):\n%s", path, got)
	}
}

// FuzzSuite: whatever is given as a test file, it is refused with reasons, or its cases end.
func FuzzSuite(f *testing.F) {
	for _, name := range []string{"right", "wrong", "mistaken"} {
		text, err := os.ReadFile("testdata/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"machine": "m", "cases": [{"name": "c", "input": [1], "mocks": {"A": {"hang": true}}, "expect": {"output": {"$subset": {"a": {"$regex": "x"}}}}}]}`))
	found, problems := machinetest.ParseDefinitions([]byte(suiteMachine), statelang.Standard)
	if len(problems) > 0 {
		f.Fatal(problems)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, problems := machinetest.ParseSuite(text)
		if s == nil && len(problems) == 0 || s != nil && len(problems) > 0 {
			t.Fatalf("%v with %d problems", s, len(problems))
		}
		for _, p := range problems {
			if p.Message == "" || p.Line < 0 || p.Line > len(text)+1 {
				t.Errorf("%+v", p)
			}
		}
		if s == nil {
			return
		}
		r := machinetest.Check("f", s, found[0])
		if len(r.Problems) == 0 && len(r.Cases) != len(s.Cases) {
			t.Errorf("%d of %d cases", len(r.Cases), len(s.Cases))
		}
		if err := machinetest.WriteJUnit(&bytes.Buffer{}, []machinetest.Report{r}); err != nil {
			t.Error(err)
		}
	})
}

// FuzzDefinitions: files of definitions are read or refused; what is read runs.
func FuzzDefinitions(f *testing.F) {
	f.Add([]byte(suiteMachine))
	f.Add([]byte("apiVersion: weir.dev/v1alpha1\nkind: StateMachine\nmetadata: {name: a}\nspec:\n  definition: |\n    StartAt: A\n    States: {A: {Type: Succeed}}\n"))
	f.Add([]byte(`{"definition": "{\"StartAt\": \"A\"}", "type": "EXPRESS"}`))
	f.Add([]byte("a: &a [*a]\nb: {<<: [{c: 1}, *a]}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		found, problems := machinetest.ParseDefinitions(text, statelang.Standard)
		if len(problems) > 0 {
			return
		}
		for _, d := range found {
			o := machinetest.Simulate(machinetest.Config{Machine: d.Machine, Steps: 200})
			if o.Err == nil && o.Status == statelang.StatusRunning {
				t.Error("it neither ends nor says why not")
			}
		}
	})
}
