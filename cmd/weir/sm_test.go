package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/machinetest"
)

const smDoc = "../../docs/testing-state-machines.md"

// TestSMDocumented runs the commands of docs/testing-state-machines.md on its files, and compares what they print.
func TestSMDocumented(t *testing.T) {
	text, err := os.ReadFile(smDoc)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	type block struct{ mark, lang, text string }
	var blocks []block
	var open *block
	mark := ""
	for line := range strings.Lines(string(text)) {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case open != nil && isFence:
			blocks = append(blocks, *open)
			open, mark = nil, ""
		case open != nil:
			open.text += line
		case isFence:
			open = &block{mark: mark, lang: strings.TrimSpace(fence)}
		case strings.HasPrefix(line, "<!--"):
			mark = strings.Trim(line, "<!-> \n")
		}
	}
	ran := 0
	for i, b := range blocks {
		if file, ok := strings.CutPrefix(b.mark, "file: "); ok {
			if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if b.lang != "sh" {
			continue
		}
		want := ""
		if i+1 < len(blocks) && blocks[i+1].lang == "text" {
			want = blocks[i+1].text
		}
		if got := shellLine(t, strings.TrimSpace(b.text)); got != want {
			t.Errorf("%sdocumented as\n%s\nprinted\n%s", b.text, want, got)
		}
		ran++
	}
	if ran < 8 {
		t.Errorf("only %d commands were run", ran)
	}
	if _, err := os.Stat("order.svg"); err != nil {
		t.Error(err)
	}
}

// shellLine runs a documented line: bin/weir with arguments, and perhaps || echo "exit code $?".
func shellLine(t *testing.T, line string) string {
	t.Helper()
	command, onError, fails := strings.Cut(line, " || ")
	words := shellWords(command)
	if words[0] != "bin/weir" {
		t.Fatalf("%s does not begin with bin/weir", line)
	}
	out, err := weir(t.Context(), words[1:]...)
	if err != nil {
		out += "weir: " + err.Error() + "\n"
	}
	switch {
	case err != nil && fails:
		out += strings.Replace(strings.Trim(strings.TrimPrefix(onError, "echo "), `"`), "$?", "1", 1) + "\n"
	case err != nil:
		t.Errorf("%s: %v", line, err)
	case fails:
		t.Errorf("%s: it did not fail", line)
	}
	return out
}

// shellWords splits a line at blanks that are in no single quotes.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	quoted := false
	for _, c := range line + " " {
		switch {
		case c == '\'':
			quoted = !quoted
		case c == ' ' && !quoted:
			if word.Len() > 0 {
				words = append(words, word.String())
				word.Reset()
			}
		default:
			word.WriteRune(c)
		}
	}
	return words
}

// files writes files into a new folder, and returns it.
func files(t *testing.T, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range contents {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// printed is what a command prints, with the error after it, and dir taken out.
func printed(ctx context.Context, dir string, args ...string) string {
	out, err := weir(ctx, args...)
	if err != nil {
		out += "error: " + err.Error()
	}
	return strings.ReplaceAll(strings.TrimSpace(out), dir+"/", "")
}

const task = `{"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "f", "End": true}}}`

func TestSMValidate(t *testing.T) {
	dir := files(t, map[string]string{
		"good.json":    task,
		"bad.json":     "{\n \"StartAt\": \"A\",\n \"States\": {\n  \"A\": {\"Type\": \"Pass\",\n   \"Next\": \"Nowhere/else\"}\n }\n}\n",
		"syntax.json":  "{\n \"StartAt\": \"A\",\n \"States\": {},\n}",
		"syntax.yaml":  "StartAt: A\nStates:\n  A: {Type: Pass, End: true\n",
		"twice.yaml":   "StartAt: A\nStates:\n  A: {Type: Succeed}\nStartAt: B\n",
		"express.json": `{"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken", "End": true}}}`,
		"several.yaml": "apiVersion: v1\nkind: ConfigMap\n---\napiVersion: weir.dev/v1alpha1\nkind: StateMachine\nmetadata: {name: one}\nspec:\n  definition: |\n    StartAt: A\n    States:\n      A: {Type: Pas}\n---\n" +
			"apiVersion: weir.dev/v1alpha1\nkind: StateMachine\nmetadata: {name: two}\nspec: {type: Fast, definition: {StartAt: A, States: {A: {Type: Succeed}}}}\n",
		"aws.json":   `{"name": "m", "type": "STANDARD", "definition": "{\"StartAt\": \"A\",\n \"States\": {\"A\": {\"Type\": \"Succeed\"}}}"}`,
		"text.yaml":  "apiVersion: weir.dev/v1alpha1\nkind: StateMachine\nmetadata: {name: one}\nspec:\n  definitionString: |\n    {\"StartAt\": \"A\",\n     \"States\": {\"A\": {\"Type\": \"Pas\"}}}\n",
		"both.yaml":  "apiVersion: weir.dev/v1alpha1\nkind: StateMachine\nmetadata: {name: one}\nspec: {definition: {}, definitionString: \"{}\"}\n",
		"none.yaml":  "apiVersion: v1\nkind: ConfigMap\n",
		"empty.yaml": "# nothing\n",
		"yaml.yaml":  "StartAt: Yes\nStates:\n  Yes: &a\n    Type: Pass\n    Next: No\n  No: {<<: *a, Next: Off}\n  Off: {Type: Wait, Seconds: 1_000, End: true}\n",
	})
	for _, c := range []struct{ args, want string }{
		{"good.json", "good.json: no mistakes"},
		{"bad.json", `bad.json:5: /States/A/Next: names "Nowhere/else", which is no state here` + "\nerror: there is a mistake"},
		{"syntax.json", "syntax.json:3: invalid character ',' at start of value\nerror: there is a mistake"},
		{"syntax.yaml", "syntax.yaml:2: did not find expected ',' or '}'\nerror: there is a mistake"},
		{"twice.yaml", `twice.yaml:4: the name "StartAt" is there twice in one object` + "\nerror: there is a mistake"},
		{"express.json", "express.json: no mistakes"},
		{"express.json --type EXPRESS", "express.json:1: /States/A/Resource: an EXPRESS state machine does not wait for .waitForTaskToken\nerror: there is a mistake"},
		{"several.yaml", `several.yaml:11: /States/A/Type: is "Pas": Pass, Task, Choice, Wait, Succeed, Fail, Parallel or Map` +
			"\nseveral.yaml:16: the type is \"Fast\": it must be STANDARD or EXPRESS\nerror: there are 2 mistakes"},
		{"aws.json yaml.yaml", "aws.json: no mistakes\nyaml.yaml: no mistakes"},
		{"text.yaml", `text.yaml:7: /States/A/Type: is "Pas": Pass, Task, Choice, Wait, Succeed, Fail, Parallel or Map` + "\nerror: there is a mistake"},
		{"both.yaml", "both.yaml:4: /spec/definitionString: is there besides definition: keep one of the two\nerror: there is a mistake"},
		{"none.yaml", "none.yaml: the file has no resource of the kind StateMachine\nerror: there is a mistake"},
		{"empty.yaml", "empty.yaml: the file is empty: a state machine begins with StartAt and States\nerror: there is a mistake"},
		{"good.json --type FAST", `error: --type is "FAST": it must be STANDARD or EXPRESS`},
	} {
		args := []string{"sm", "validate"}
		for arg := range strings.FieldsSeq(c.args) {
			if strings.Contains(arg, ".") {
				arg = filepath.Join(dir, arg)
			}
			args = append(args, arg)
		}
		if got := printed(t.Context(), dir, args...); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.args, got, c.want)
		}
	}
	var list []validated
	out, err := weir(t.Context(), "sm", "validate", "--json", filepath.Join(dir, "bad.json"), filepath.Join(dir, "good.json"))
	if err == nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 2 || list[0].Valid || list[0].Problems[0].Line != 5 || !list[1].Valid {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSMValidateStandardInput(t *testing.T) {
	var out bytes.Buffer
	cmd := newRoot()
	cmd.SetIn(strings.NewReader(task))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs([]string{"sm", "validate", "-"})
	if err := cmd.ExecuteContext(t.Context()); err != nil || out.String() != "-: no mistakes\n" {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestSMTest(t *testing.T) {
	dir := files(t, map[string]string{
		"m.json": `{"StartAt": "M", "States": {"M": {"Type": "Map", "ItemsPath": "$.list", "ItemSelector": {"n.$": "$$.Map.Item.Value"}, "MaxConcurrency": 2,
			"ItemProcessor": {"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "f", "Parameters": {"i.$": "$$.Map.Item.Index", "v.$": "$v"}, "End": true}}},
			"ResultPath": "$.done", "Next": "T"}, "T": {"Type": "Pass", "End": true}}}`,
		"result.yaml": "- 1\n- 2\n",
	})
	m := filepath.Join(dir, "m.json")
	for _, c := range []struct {
		args []string
		want string
	}{
		{
			[]string{"--state", "M", "--input", `{"list": ["a", "b"]}`, "--mock", "result=@" + filepath.Join(dir, "result.yaml"), "--inspect", "debug"},
			`status               SUCCEEDED
output               {"list":["a","b"],"done":[1,2]}
nextState            T

input                {"list":["a","b"]}
afterInputPath       {"list":["a","b"]}
afterItemsPath       ["a","b"]
maxConcurrency       2
afterItemSelector    [{"n":"a"},{"n":"b"}]
result               [1,2]
afterResultSelector  [1,2]
afterResultPath      {"list":["a","b"],"done":[1,2]}`,
		},
		{
			[]string{"--state", "/States/M/ItemProcessor/States/T", "--map-index", "3", "--variables", `{"v": true}`, "--mock", "error=E", "--inspect", "debug"},
			`status               FAILED
error                E

input                {}
afterInputPath       {}
afterParameters      {"i":3,"v":true}
variables            {"v":true}`,
		},
		{
			[]string{"--state", "/States/T", "--json", "--inspect", "debug"},
			`{
  "output": "{}",
  "inspectionData": {
    "input": "{}",
    "afterInputPath": "{}",
    "afterParameters": "{}",
    "afterResultSelector": "{}",
    "afterResultPath": "{}"
  },
  "status": "SUCCEEDED"
}`,
		},
		{[]string{"--state", "T"}, `error: 2 states are named "T": give the path of one, /States/M/ItemProcessor/States/T or /States/T`},
		{[]string{"--state", "N"}, `error: there is no state "N"`},
		{[]string{"--state", "M"}, `error: the Map state "M": it needs a mock: the result, or the error, of what is in it`},
		{[]string{"--state", "/States/T", "--mock", "result=1"}, `error: the Pass state "T": it takes no mock`},
		{[]string{"--state", "M", "--mock", "result=1"}, `error: the Map state "M": the mock's result must be an array, of what each branch or iteration gives, and is a number`},
		{[]string{"--state", "M", "--mock", "answer=1"}, `error: --mock is "answer=1": it must be result=JSON, result=@FILE or error=NAME:CAUSE`},
		{[]string{"--state", "M", "--input", "{"}, `error: --input is no JSON: line 1: it ends in the middle of a JSON value; @FILE reads a file`},
		{[]string{"--state", "M", "--inspect", "all"}, `error: --inspect is "all": it must be info, debug or trace`},
		{nil, `error: --state is missing: the name of the state to test`},
	} {
		if got := printed(t.Context(), dir, append([]string{"sm", "test", m}, c.args...)...); got != c.want {
			t.Errorf("%q:\n%s\nwant\n%s", c.args, got, c.want)
		}
	}
}

func TestSMRun(t *testing.T) {
	dir := files(t, map[string]string{
		"task.json": task,
		"loop.json": `{"StartAt": "A", "States": {"A": {"Type": "Wait", "Seconds": 1, "Next": "B"}, "B": {"Type": "Choice", "Choices": [{"Variable": "$.x", "IsPresent": true, "Next": "C"}], "Default": "A"}, "C": {"Type": "Succeed"}}}`,
		"ok.yaml":   "A: {result: {ok: true}}\n",
		"err.yaml":  "A: [{error: E, cause: why}]\n",
		"bad.yaml":  "A:\n- result: 1\n  error: E\n- {}\n- {result: 1, aftr: 3s}\nB: {result: 1}\n",
		"none.yaml": "B: {result: 1}\n",
		"two.yaml":  "A: [{result: 1}, {result: 2}]\n",
	})
	for _, c := range []struct{ args, want string }{
		{"task.json --mocks ok.yaml", "0s  A (Task)\nSUCCEEDED with {\"ok\":true} after 0s"},
		{"task.json --mocks ok.yaml --expect FAILED", "0s  A (Task)\nSUCCEEDED with {\"ok\":true} after 0s\nerror: it is SUCCEEDED, and expected was FAILED"},
		{"task.json --mocks err.yaml", "0s  A (Task)\n       0s    ✗ E: why\nFAILED with E: why after 0s\nerror: FAILED with E: why"},
		{"task.json --mocks err.yaml --expect FAILED", "0s  A (Task)\n       0s    ✗ E: why\nFAILED with E: why after 0s"},
		{"task.json", "0s  A (Task)\nstopped after 0s\nerror: the state \"A\" was called, and has no mock: give one such as  A: {result: …}  (or error, timeout, hang); it was sent {}"},
		{"task.json --mocks two.yaml", "0s  A (Task)\nSUCCEEDED with 1 after 0s\nerror: two.yaml:1: /A[1]: the answer was never used: the state \"A\" was called once"},
		{"task.json --mocks bad.yaml", "error: bad.yaml:2: /A[0]: an answer is one of result, error (with cause), timeout, hang, or object for an ItemReader; it has result and error\n" +
			"bad.yaml:4: /A[1]: an answer is one of result, error (with cause), timeout, hang, or object for an ItemReader; it has none\n" +
			"bad.yaml:5: /A[2]/aftr: is no field of an answer: those are result, object, error, cause, timeout, hang, after, when, request, times"},
		{"task.json --mocks none.yaml", `error: none.yaml:1: /B: the machine has no state "B"`},
	} {
		args := []string{"sm", "run"}
		for arg := range strings.FieldsSeq(c.args) {
			if strings.Contains(arg, ".") {
				arg = filepath.Join(dir, arg)
			}
			args = append(args, arg)
		}
		if got := printed(t.Context(), dir, args...); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.args, got, c.want)
		}
	}
	got := printed(t.Context(), dir, "sm", "run", filepath.Join(dir, "loop.json"), "--max-steps", "1000")
	if n := strings.Count(got, "\n"); n > 1000 || !strings.Contains(got, "… 1601 states more …") {
		t.Errorf("%d lines, without a word of those that are left out", n)
	}
	if want := "error: the execution has not ended after 1000 steps: does it go in circles? it came through … → B → A → B → A → B → A"; !strings.HasSuffix(got, want) {
		t.Errorf("%.300s … %s", got, got[max(0, len(got)-300):])
	}
}

func TestSMCheck(t *testing.T) {
	dir := files(t, map[string]string{
		"m/task.json":         task,
		"m/good.smtest.yaml":  "machine: task.json\ncases:\n- {name: it succeeds, mocks: {A: {result: 1}}, expect: {output: 1}}\n",
		"m/bad.smtest.json":   "{\"machine\": \"task.json\", \"cases\": [\n {\"name\": \"a & b\", \"mocks\": {\"A\": {\"error\": \"E\"}}, \"expect\": {\"output\": 1}}]}",
		"m/other.yaml":        "not a test\n",
		"x/none.txt":          "",
		"y/wrong.smtest.yaml": "machine: none.json\ncases:\n- {name: a, expect: {}}\n",
	})
	junit := filepath.Join(dir, "junit.xml")
	got := printed(t.Context(), dir, "sm", "check", filepath.Join(dir, "m"), "--junit", junit, "--coverage-min", "100")
	want := `FAIL m/bad.smtest.json: a & b (0s)
     m/bad.smtest.json:2: the status is FAILED with E, not SUCCEEDED
coverage: 50.0 %, 1 of 1 states and 0 of 1 transitions
  never: /States/A/End
ok   m/good.smtest.yaml: it succeeds (0s)
coverage: 100.0 %, 1 of 1 states and 1 of 1 transitions
error: 1 of 2 cases failed; m/bad.smtest.json covers 50.0 %, less than 100 %`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	text, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	var suites struct {
		Suites []struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Cases    []struct {
				Name    string `xml:"name,attr"`
				Failure *struct {
					Message string `xml:"message,attr"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &suites); err != nil || len(suites.Suites) != 2 {
		t.Fatalf("%v\n%s", err, text)
	}
	if s := suites.Suites[0]; s.Tests != 1 || s.Failures != 1 || s.Cases[0].Name != "a & b" || s.Cases[0].Failure.Message != "the status is FAILED with E, not SUCCEEDED" {
		t.Errorf("%+v", s)
	}
	if got := printed(t.Context(), dir, "sm", "check", filepath.Join(dir, "x")); !strings.HasPrefix(got, "error: there are no *.smtest.yaml") {
		t.Error(got)
	}
	if got := printed(t.Context(), dir, "sm", "check", filepath.Join(dir, "y")); got != "y/wrong.smtest.yaml:1: /machine: open y/none.json: no such file or directory\nerror: 1 of 1 files have mistakes" {
		t.Error(got)
	}
	var reports []machinetest.Report
	out, err := weir(t.Context(), "sm", "check", filepath.Join(dir, "m"), "--json")
	if err == nil || json.Unmarshal([]byte(out), &reports) != nil || len(reports) != 2 || reports[0].Cases[0].Passed || len(reports[1].Coverage.Items) != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}
