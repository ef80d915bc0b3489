package items_test

import (
	"bufio"
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/items"
	"github.com/weir-dev/weir/internal/jsontree"
)

const recordedCases = "../../../shared/asl/cases.jsonl"

type recordedReader struct {
	ReaderConfig struct {
		InputType         string
		CSVHeaderLocation string
		CSVHeaders        []string
		MaxItems          any
	}
}

type recordedCase struct {
	ID         string
	Definition struct {
		States map[string]struct{ ItemReader *recordedReader }
	}
	Input    struct{ Bucket, Key string }
	S3       []struct{ Bucket, Key, Body string }
	Expected struct {
		Status, Error, Cause string
		Output               json.RawMessage
	}
}

// TestRecordedItems: executions of AWS whose Map reads an object have exactly the items that their iterations passed on.
func TestRecordedItems(t *testing.T) {
	f, err := os.Open(recordedCases)
	if err != nil {
		t.Skipf("NOT TESTED: the recorded cases are absent: %v", err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 64<<20)
	n := 0
	for in.Scan() {
		if !strings.Contains(in.Text(), `"ItemReader"`) {
			continue
		}
		var c recordedCase
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		for _, s := range c.Definition.States {
			if s.ItemReader != nil {
				c.run(t, s.ItemReader)
				n++
			}
		}
	}
	if err := in.Err(); err != nil || n != 12 {
		t.Errorf("%d cases instead of 12, %v", n, err)
	}
}

func (c *recordedCase) run(t *testing.T, r *recordedReader) {
	t.Helper()
	config := items.Config{InputType: r.ReaderConfig.InputType}
	if r.ReaderConfig.CSVHeaderLocation == "GIVEN" {
		config.Headers = r.ReaderConfig.CSVHeaders
	}
	switch most := r.ReaderConfig.MaxItems.(type) {
	case float64:
		config.MaxItems = int(most)
	case string: // a JSONata expression of one number
		config.MaxItems, _ = strconv.Atoi(regexp.MustCompile(`\d+`).FindString(most))
	}
	object := ""
	for _, o := range c.S3 {
		if o.Bucket == c.Input.Bucket && o.Key == c.Input.Key {
			object = o.Body
		}
	}
	if object == "" {
		t.Fatalf("%s: its object isn't there", c.ID)
	}
	got, err := read(strings.NewReader(object), config)
	if c.Expected.Status != "SUCCEEDED" {
		if c.Expected.Error != "States.ItemReaderFailed" || err == nil || err.Error() != c.Expected.Cause {
			t.Errorf("%s: %v instead of %s: %s", c.ID, err, c.Expected.Error, c.Expected.Cause)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", c.ID, err)
	}
	output, err := jsontree.Parse(c.Expected.Output)
	if err != nil {
		t.Fatal(err)
	}
	want := []any{}
	for _, v := range output.([]any) {
		if batch, ok := v.(*jsontree.Object); ok && batch.Has("BatchInput") {
			list, _ := batch.Get("Items")
			want = append(want, list.([]any)...)
			continue
		}
		want = append(want, v)
	}
	all, err := jsontree.Parse([]byte("[" + strings.Join(got, ",") + "]"))
	if err != nil {
		t.Fatal(err)
	}
	if !jsontree.Equal(all, want) {
		t.Errorf("%s: %q instead of %s", c.ID, got, text(want))
	}
}
