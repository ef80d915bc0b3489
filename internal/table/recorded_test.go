package table_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/table"
)

// shared is where recorded executions of AWS are, if they are.
const shared = "../../../shared/asl"

type recordedCase struct {
	ID         string
	Definition struct {
		StartAt string
		States  map[string]struct {
			Type, Resource, Next string
			End                  bool
		}
	}
	Mocks map[string][]struct {
		Request, Result json.RawMessage
		Error, Cause    *string
	}
}

// TestRecorded replays the calls of recorded executions in their order, each case on a table of its own.
func TestRecorded(t *testing.T) {
	f, err := os.Open(filepath.Join(shared, "cases.jsonl"))
	if err != nil {
		t.Skipf("NOT TESTED: the recorded cases are absent: %v", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	cases, calls := 0, 0
	for lines.Scan() {
		if !strings.Contains(lines.Text(), "dynamodb:") {
			continue
		}
		var c recordedCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if n := c.replay(t); n > 0 {
			cases++
			calls += n
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if cases < 9 || calls < 17 {
		t.Errorf("%d calls of %d cases were found", calls, cases)
	}
	t.Logf("%d calls of %d cases", calls, cases)
}

func (c *recordedCase) replay(t *testing.T) (calls int) {
	schema := table.Schema{Hash: "id"}
	items := map[string]*jsontree.Object{}
	for name := c.Definition.StartAt; name != ""; name = c.Definition.States[name].Next {
		state := c.Definition.States[name]
		_, action, ok := strings.Cut(state.Resource, "dynamodb:")
		if !ok || action == "query" { // not served
			continue
		}
		sdk := strings.Contains(state.Resource, "aws-sdk:")
		for _, m := range c.Mocks[name] {
			calls++
			// The recording has no table's name, but something in its place.
			request := strings.ReplaceAll(string(m.Request), "<test-table>", "test-table")
			r, err := table.Parse(table.Op(action), tree(t, request))
			var answer *jsontree.Object
			if err == nil {
				if m.Error != nil && strings.HasSuffix(*m.Error, table.NotFound) { // what this package leaves to its caller
					err = table.NoTable()
				} else {
					answer, err = call(r, schema, items)
				}
			}
			if m.Error != nil {
				want := strings.TrimSuffix(*m.Cause, " (Service: DynamoDb, Status Code: 400, Request ID: <request_id>)")
				name := strings.TrimPrefix(*m.Error, "DynamoDb.")
				if name == "DynamoDbException" {
					name = table.Validation
				}
				wantError(t, c.ID, err, strings.TrimPrefix(name+": "+want, table.Validation+": "))
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", c.ID, err)
				continue
			}
			want := tree(t, string(m.Result))
			if !sdk { // the integration's own addition
				want.Delete("SdkHttpMetadata")
				want.Delete("SdkResponseMetadata")
			}
			if !jsontree.Equal(answer, want) {
				t.Errorf("%s, %s: %s, not %s", c.ID, name, text(t, answer), text(t, want))
			}
		}
	}
	return calls
}

// call is what the owner of a table does with a request.
func call(r *table.Request, schema table.Schema, items map[string]*jsontree.Object) (*jsontree.Object, error) {
	key, err := r.Key(schema)
	if err != nil {
		return nil, err
	}
	after, changed, answer, err := r.Apply(items[key])
	switch {
	case err != nil:
		return nil, err
	case changed && after == nil:
		delete(items, key)
	case changed:
		items[key] = after
	}
	return answer, nil
}
