package table_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/table"
)

func tree(t testing.TB, text string) *jsontree.Object {
	t.Helper()
	if text == "" {
		return nil
	}
	v, err := jsontree.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	o, ok := v.(*jsontree.Object)
	if !ok {
		t.Fatalf("%s is no object", text)
	}
	return o
}

func text(t testing.TB, o *jsontree.Object) string {
	t.Helper()
	if o == nil {
		return ""
	}
	b, err := jsontree.Append(nil, o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// apply parses a request and applies it to the old item, which must not change.
func apply(t testing.TB, op table.Op, request, old string) (after *jsontree.Object, changed bool, answer *jsontree.Object, err error) {
	t.Helper()
	r, err := table.Parse(op, tree(t, request))
	if err != nil {
		return nil, false, nil, err
	}
	item := tree(t, old)
	before := text(t, item)
	after, changed, answer, err = r.Apply(item)
	if now := text(t, item); now != before {
		t.Errorf("%s has changed the old item %s to %s", request, before, now)
	}
	if !changed && after != item {
		t.Errorf("%s: unchanged, and another item", request)
	}
	again, _, answerAgain, errAgain := r.Apply(item)
	if text(t, again) != text(t, after) || text(t, answerAgain) != text(t, answer) || (errAgain == nil) != (err == nil) {
		t.Errorf("%s: applied again, it is %s, %s, %v", request, text(t, again), text(t, answerAgain), errAgain)
	}
	return after, changed, answer, err
}

// wantError checks an error's name and message; the name is left out for a ValidationException.
func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	e, ok := errors.AsType[*table.Error](err)
	if !ok {
		t.Errorf("%s: %v, not %s", what, err, want)
		return
	}
	if got := strings.TrimPrefix(e.Error(), table.Validation+": "); got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

func TestParseSchema(t *testing.T) {
	for setting, want := range map[string]table.Schema{
		"orders=id":             {Hash: "id"},
		"orders=customer+order": {Hash: "customer", Range: "order"},
		"a.B_1-x=größe":         {Hash: "größe"},
		"o=a=b":                 {Hash: "a=b"},
	} {
		name, s, err := table.ParseSchema(setting)
		if err != nil || s != want {
			t.Errorf("%s is %+v, %v", setting, s, err)
		}
		if got := name + "=" + s.String(); got != setting {
			t.Errorf("%s is written as %s", setting, got)
		}
	}
	for setting, want := range map[string]string{
		"":                                  "is no table",
		"orders":                            "is no table",
		"=id":                               "the name of a table",
		"or ders=id":                        "the name of a table",
		strings.Repeat("x", 256) + "=id":    "the name of a table",
		"orders=":                           "the key has one attribute",
		"orders=a+":                         "the key has one attribute",
		"orders=+a":                         "the key has one attribute",
		"orders=a+b+c":                      "the key has one attribute",
		"orders=a+a":                        "the same",
		"orders=a+" + repeated('x', 256):    "up to 255 bytes",
		"orders=" + repeated('x', 256) + "": "up to 255 bytes",
	} {
		if _, s, err := table.ParseSchema(setting); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %+v, %v, not %s", setting, s, err, want)
		}
	}
}

func repeated(c byte, n int) string { return strings.Repeat(string(c), n) }

func TestGet(t *testing.T) {
	const item = `{"id":{"S":"1"},"m":{"M":{"a":{"N":"1"},"b":{"N":"2"},"deep":{"L":[{"M":{"x":{"S":"y"},"z":{"NULL":true}}}]}}},"l":{"L":[{"S":"0"},{"S":"1"},{"S":"2"}]},"a.b":{"S":"dotted"}}`
	for _, c := range []struct{ members, want string }{
		{``, item},
		{`,"ConsistentRead":true,"ReturnConsumedCapacity":"TOTAL"`, item},
		{`,"ProjectionExpression":"id"`, `{"id":{"S":"1"}}`},
		{`,"ProjectionExpression":" m.b ,\n id, none"`, `{"m":{"M":{"b":{"N":"2"}}},"id":{"S":"1"}}`},
		{`,"ProjectionExpression":"m.a, m.b"`, `{"m":{"M":{"a":{"N":"1"},"b":{"N":"2"}}}}`},
		{`,"ProjectionExpression":"m.none"`, `{}`},
		{`,"ProjectionExpression":"l[2], l[0], l[9]"`, `{"l":{"L":[{"S":"0"},{"S":"2"}]}}`},
		{`,"ProjectionExpression":"l[9]"`, `{}`},
		{`,"ProjectionExpression":"l.a, m[0], id.x"`, `{}`},
		{`,"ProjectionExpression":"#d, m.deep[0].#x","ExpressionAttributeNames":{"#d":"a.b","#x":"x"}`, `{"a.b":{"S":"dotted"},"m":{"M":{"deep":{"L":[{"M":{"x":{"S":"y"}}}]}}}}`},
	} {
		request := `{"TableName":"t","Key":{"id":{"S":"1"}}` + c.members + `}`
		after, changed, answer, err := apply(t, table.Get, request, item)
		if err != nil || changed || text(t, after) != item || text(t, answer) != `{"Item":`+c.want+`}` {
			t.Errorf("%s: %v, %v, %s", request, err, changed, text(t, answer))
		}
		_, changed, answer, err = apply(t, table.Get, request, "")
		if err != nil || changed || text(t, answer) != `{}` {
			t.Errorf("%s of nothing: %v, %v, %s", request, err, changed, text(t, answer))
		}
	}
}

func TestPutAndDelete(t *testing.T) {
	const old, item = `{"id":{"S":"1"},"a":{"N":"1"}}`, `{"id":{"S":"1"},"b":{"N":"20"}}`
	for _, c := range []struct{ op, members, old, after, answer string }{
		{"putItem", ``, "", item, `{}`},
		{"putItem", ``, old, item, `{}`},
		{"putItem", `,"ReturnValues":"ALL_OLD"`, "", item, `{}`},
		{"putItem", `,"ReturnValues":"ALL_OLD"`, old, item, `{"Attributes":` + old + `}`},
		{"putItem", `,"ReturnValues":"NONE","ReturnItemCollectionMetrics":"SIZE"`, old, item, `{}`},
		{"putItem", `,"ConditionExpression":"attribute_not_exists(id)","ReturnValuesOnConditionCheckFailure":"ALL_OLD"`, "", item, `{}`},
		{"putItem", ``, item, item, `{}`},
		{"deleteItem", ``, "", "", `{}`},
		{"deleteItem", ``, old, "", `{}`},
		{"deleteItem", `,"ReturnValues":"ALL_OLD"`, old, "", `{"Attributes":` + old + `}`},
		{"deleteItem", `,"ReturnValues":"ALL_OLD"`, "", "", `{}`},
		{"deleteItem", `,"ConditionExpression":"a = :a","ExpressionAttributeValues":{":a":{"N":"1.0"}}`, old, "", `{}`},
	} {
		request := `{"TableName":"t","Key":{"id":{"S":"1"}}` + c.members + `}`
		if c.op == "putItem" {
			request = `{"TableName":"t","Item":{"id":{"S":"1"},"b":{"N":"2e1"}}` + c.members + `}`
		}
		after, changed, answer, err := apply(t, table.Op(c.op), request, c.old)
		if err != nil || text(t, after) != c.after || changed != (c.old != c.after) || text(t, answer) != c.answer {
			t.Errorf("%s of %s: %v, %v, %s, %s", request, c.old, err, changed, text(t, after), text(t, answer))
		}
	}
	for _, op := range []table.Op{table.Put, table.Update, table.Delete} {
		request := `{"TableName":"t","Key":{"id":{"S":"1"}},"ConditionExpression":"attribute_exists(b)"}`
		if op == table.Put {
			request = strings.Replace(request, "Key", "Item", 1)
		}
		for _, old := range []string{"", old} {
			after, changed, answer, err := apply(t, op, request, old)
			wantError(t, string(op), err, "ConditionalCheckFailedException: The conditional request failed")
			if changed || answer != nil || text(t, after) != old {
				t.Errorf("%s: %v, %s, %s", op, changed, text(t, after), text(t, answer))
			}
		}
	}
}

// TestStored: what is put is stored in canonical form.
func TestStored(t *testing.T) {
	for value, want := range map[string]string{
		`{"N":"0042.1200"}`:                   `{"N":"42.12"}`,
		`{"N":"+1.5E2"}`:                      `{"N":"150"}`,
		`{"N":"-0"}`:                          `{"N":"0"}`,
		`{"NULL":false}`:                      `{"NULL":true}`,
		`{"S":"","N":null}`:                   `{"S":""}`,
		`{"B":""}`:                            `{"B":""}`,
		`{"BOOL":false}`:                      `{"BOOL":false}`,
		`{"NS":["1.0","-2"]}`:                 `{"NS":["1","-2"]}`,
		`{"SS":["b","a"]}`:                    `{"SS":["b","a"]}`,
		`{"BS":["YQ==","Yg=="]}`:              `{"BS":["YQ==","Yg=="]}`,
		`{"L":[]}`:                            `{"L":[]}`,
		`{"M":{}}`:                            `{"M":{}}`,
		`{"M":{"l":{"L":[{"N":"1e0"}]}}}`:     `{"M":{"l":{"L":[{"N":"1"}]}}}`,
		`{"other":1,"S":"ignored as by AWS"}`: `{"S":"ignored as by AWS"}`,
	} {
		after, _, _, err := apply(t, table.Put, `{"TableName":"t","Item":{"id":{"S":"1"},"v":`+value+`}}`, "")
		if got := text(t, after); err != nil || got != `{"id":{"S":"1"},"v":`+want+`}` {
			t.Errorf("%s: %s, %v", value, got, err)
		}
	}
}

func TestItemSize(t *testing.T) {
	put := func(padding int, more string) error {
		_, err := table.Parse(table.Put, tree(t, `{"TableName":"t","Item":{"id":{"S":"1"},"p":{"S":"`+repeated('x', padding)+`"}`+more+`}}`))
		return err
	}
	const rest = 409_600 - 3 - 1
	for _, c := range []struct {
		more string
		size int
	}{
		{``, 0},
		{`,"é":{"S":"é"}`, 4},
		{`,"n":{"N":"0"}`, 2},
		{`,"n":{"N":"3.14159"}`, 6},
		{`,"n":{"BOOL":true}`, 2},
		{`,"n":{"NULL":true}`, 2},
		{`,"n":{"B":"YWJj"}`, 4},
		{`,"n":{"SS":["a","bcd"]}`, 5},
		{`,"n":{"NS":["1","-12"]}`, 6},
		{`,"n":{"BS":["YWJj","YQ=="]}`, 5},
		{`,"n":{"L":[{"S":"ab"},{"N":"1"}]}`, 1 + 3 + 2 + 2 + 2},
		{`,"n":{"M":{"key":{"S":"ab"}}}`, 1 + 3 + 1 + 3 + 2},
	} {
		if err := put(rest-c.size, c.more); err != nil {
			t.Errorf("%s: %v", c.more, err)
		}
		wantError(t, c.more, put(rest-c.size+1, c.more), "Item size has exceeded the maximum allowed size")
	}
	old := `{"id":{"S":"1"},"p":{"S":"` + repeated('x', rest) + `"}}`
	_, _, _, err := apply(t, table.Update, `{"TableName":"t","Key":{"id":{"S":"1"}},"UpdateExpression":"SET a = :a","ExpressionAttributeValues":{":a":{"S":""}}}`, old)
	wantError(t, "update", err, "Item size to update has exceeded the maximum allowed size")
}

func TestNesting(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"L":[`, n) + `{"S":"x"}` + strings.Repeat(`]}`, n) }
	const tooDeep = "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
	if _, _, _, err := apply(t, table.Put, `{"TableName":"t","Item":{"id":{"S":"1"},"a":`+deep(31)+`}}`, ""); err != nil {
		t.Error(err)
	}
	_, _, _, err := apply(t, table.Put, `{"TableName":"t","Item":{"id":{"S":"1"},"a":`+deep(32)+`}}`, "")
	wantError(t, "put", err, tooDeep)
	update := func(n int) error {
		_, _, _, err := apply(t, table.Update, `{"TableName":"t","Key":{"id":{"S":"1"}},"UpdateExpression":"SET m.b = :v","ExpressionAttributeValues":{":v":`+deep(n)+`}}`,
			`{"id":{"S":"1"},"m":{"M":{}}}`)
		return err
	}
	if err := update(30); err != nil {
		t.Error(err)
	}
	wantError(t, "update", update(31), tooDeep)
}

func TestNoTable(t *testing.T) {
	if got := table.NoTable().Error(); got != "ResourceNotFoundException: Requested resource not found" {
		t.Error(got)
	}
}
