package items_test

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/weir-dev/weir/internal/items"
	"github.com/weir-dev/weir/internal/jsontree"
)

var update = flag.Bool("update", false, "write the golden files")

func parsed(t *testing.T, text string) any {
	t.Helper()
	v, err := jsontree.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// results are those of the user guide's example ("ResultWriter (Map)"), one with an output that is no array, and those of the
// other statuses.
func results(t *testing.T) []*items.Result {
	t.Helper()
	const machine = "arn:aws:states:us-east-1:111111111111:stateMachine:orderProcessing/getOrders"
	result := func(name string, s items.Status, start string) *items.Result {
		at, err := time.Parse(time.RFC3339, start)
		if err != nil {
			t.Fatal(err)
		}
		return &items.Result{
			ExecutionARN: strings.Replace(machine, ":stateMachine:", ":execution:", 1) + ":" + name, StateMachineARN: machine,
			Name: name, Status: s, Input: parsed(t, `{"id": 1.0}`), Start: at, Stop: at.Add(64 * time.Millisecond),
		}
	}
	first := result("da4e9fc7-abab-3b27-9a77-a277e463b709", items.Succeeded, "2025-02-04T01:49:50.099Z")
	first.Output = parsed(t, `[{"customer_id":"145538","order_id":"100000"},{"customer_id":"898037","order_id":"100001"}]`)
	second := result("f43a56f7-d21e-3fe9-a40c-9b9b8d0adf5a", items.Succeeded, "2025-02-04T01:49:50.1Z")
	second.Output = parsed(t, `[{"customer_id":"169881","order_id":"100005"}]`)
	third := result("no-array", items.Succeeded, "2025-02-04T02:49:51+01:00")
	third.Output, third.RedriveCount = parsed(t, `{"text":"<é>"}`), 1
	failed := result("failed", items.Failed, "2025-02-04T01:49:50Z")
	failed.Error, failed.Cause = new("States.Runtime"), new("An error occurred while executing the state 'X'")
	timedOut := result("timed-out", items.TimedOut, "2025-02-04T01:49:50Z")
	pending := &items.Result{Status: items.Pending, Input: parsed(t, `{"id":2}`)}
	return []*items.Result{first, second, third, failed, timedOut, pending}
}

func all(list []*items.Result) iter.Seq2[*items.Result, error] {
	return func(yield func(*items.Result, error) bool) {
		for _, r := range list {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func TestWriteFile(t *testing.T) {
	list := results(t)
	for _, transformation := range []string{"", items.None, items.Compact, items.Flatten} {
		for _, outputType := range []string{"", items.JSON, items.JSONL} {
			var b bytes.Buffer
			n, err := items.WriteFile(&b, all(list), items.WriterConfig{Transformation: transformation, OutputType: outputType})
			if err != nil || n != int64(b.Len()) {
				t.Fatal(n, err)
			}
			// The defaults have the files of NONE and JSON.
			name := strings.ToLower(cmp.Or(transformation, items.None) + "." + cmp.Or(outputType, items.JSON))
			golden(t, name, b.Bytes())
			back, err := read(&b, items.Config{InputType: outputType})
			if err != nil || len(back) < len(list) {
				t.Errorf("%s: %d items, %v", name, len(back), err)
			}
		}
	}
}

// golden compares with a file, which has a newline at its end in any case.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got = append(slices.Clone(bytes.TrimSuffix(got, []byte{'\n'})), '\n')
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it); got\n%s", path, got)
	}
}

func TestNoResults(t *testing.T) {
	for outputType, want := range map[string]string{items.JSON: "[]", items.JSONL: ""} {
		var b bytes.Buffer
		n, err := items.WriteFile(&b, all(nil), items.WriterConfig{OutputType: outputType})
		if err != nil || b.String() != want || n != int64(len(want)) {
			t.Errorf("%s: %q, %d, %v", outputType, b.String(), n, err)
		}
	}
}

// TestSplit: results go into the next file when one is large.
func TestSplit(t *testing.T) {
	next, stop := iter.Pull2(all(results(t)))
	defer stop()
	var files []string
	for r, err, ok := next(); ok; {
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		e := items.NewEncoder(&b, items.WriterConfig{Transformation: items.Compact})
		for ok && e.Size() < 100 {
			if err := e.Encode(r); err != nil {
				t.Fatal(err)
			}
			r, err, ok = next()
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if e.Size() != int64(b.Len()) || e.Encode(results(t)[0]) == nil || e.Close() == nil {
			t.Errorf("%d bytes, not %d; or not closed", b.Len(), e.Size())
		}
		files = append(files, b.String())
	}
	if len(files) != 4 {
		t.Errorf("%d files: %q", len(files), files)
	}
	for _, f := range files {
		if list, ok := parsed(t, f).([]any); !ok || len(list) == 0 {
			t.Error(f)
		}
	}
}

func TestWriteErrors(t *testing.T) {
	broken := errors.New("broken")
	fails := func(yield func(*items.Result, error) bool) { yield(nil, broken) }
	if _, err := items.WriteFile(&bytes.Buffer{}, fails, items.WriterConfig{}); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err := items.WriteFile(failing{broken}, all(results(t)), items.WriterConfig{}); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err := items.WriteFile(iotest.TruncateWriter(failing{}, 0), all(results(t)), items.WriterConfig{}); err != nil {
		t.Error(err)
	}
	noJSON := []*items.Result{{Status: items.Succeeded, Input: parsed(t, "1"), Output: math.Inf(1)}}
	for _, transformation := range []string{items.None, items.Compact} {
		if _, err := items.WriteFile(&bytes.Buffer{}, all(noJSON), items.WriterConfig{Transformation: transformation}); err == nil {
			t.Error("an infinite number was written")
		}
	}
	for want, c := range map[string]items.WriterConfig{`Transformation is "X"`: {Transformation: "X"}, `OutputType is "CSV"`: {OutputType: items.CSV}} {
		if _, err := items.WriteFile(&bytes.Buffer{}, all(results(t)), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v instead of %s", err, want)
		}
	}
}

type failing struct{ err error }

func (f failing) Write(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return len(p), nil
}

func TestManifest(t *testing.T) {
	const run = "arn:aws:states:us-east-2:111111111111:mapRun:csvProcess/Map:ad9b5f27-090b-3ac6-9beb-243cd77144a7"
	folder := items.Folder("csvProcessJobs", run)
	m := items.Manifest{
		Bucket: "amzn-s3-demo-destination-bucket", MapRunARN: run,
		Succeeded: []items.File{{Key: folder + items.FileName(items.Succeeded, 0, items.JSON), Size: 2161}, {Key: folder + items.FileName(items.Succeeded, 1, ""), Size: 5}},
		Failed:    []items.File{{Key: folder + items.FileName(items.TimedOut, 0, items.JSONL), Size: 7}},
	}
	golden(t, "manifest.json", []byte(text(m.Document())))
	want := `{"MapRunArn":"` + run + `","ResultWriterDetails":{"Bucket":"amzn-s3-demo-destination-bucket",` +
		`"Key":"csvProcessJobs/ad9b5f27-090b-3ac6-9beb-243cd77144a7/manifest.json"}}`
	if got := text(m.Output("csvProcessJobs")); got != want {
		t.Errorf("%s instead of %s", got, want)
	}
	for prefix, want := range map[string]string{"": "1/", "a": "a/1/", "a/b/": "a/b/1/"} {
		if got := items.Folder(prefix, "arn:x:1"); got != want {
			t.Errorf("%q: %s", prefix, got)
		}
	}
	if got := items.FileName(items.Pending, 2, items.JSON); got != "PENDING_2.json" {
		t.Error(got)
	}
	if got := items.FileName(items.Aborted, 0, items.JSON); got != "FAILED_0.json" {
		t.Error(got)
	}
}

// TestEntries: with only a WriterConfig the entries are a state's output.
func TestEntries(t *testing.T) {
	list := results(t)
	var got []any
	for _, r := range list[:3] {
		got = append(got, r.Entries(items.Flatten)...)
	}
	want := `[{"customer_id":"145538","order_id":"100000"},{"customer_id":"898037","order_id":"100001"},` +
		`{"customer_id":"169881","order_id":"100005"},{"text":"<é>"}]`
	if text(got) != want {
		t.Errorf("%s instead of %s", text(got), want)
	}
}
