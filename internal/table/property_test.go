package table_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/table"
)

// TestApply: whatever is there and whatever is asked for, Apply changes neither the old item nor the request; what it makes of the
// item is an item that Parse lets through as it is, with the same key.
func TestApply(t *testing.T) {
	outcomes := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		op := rapid.SampledFrom([]table.Op{table.Get, table.Put, table.Update, table.Delete}).Draw(t, "op")
		request := drawRequest(t, op)
		var old *jsontree.Object
		if rapid.IntRange(0, 4).Draw(t, "none") > 0 {
			old = stored(t, drawItem(t))
		}
		r, err := table.Parse(op, request)
		if err != nil {
			outcomes["refused"]++
			if e, ok := errors.AsType[*table.Error](err); !ok || e.Message == "" || e.Name == table.Serialization {
				t.Fatalf("%s: %v", written(request), err)
			}
			return
		}
		before, asked := written(old), written(request)
		after, changed, answer, err := r.Apply(old)
		again, changedAgain, answerAgain, errAgain := r.Apply(old)
		switch {
		case written(old) != before:
			t.Fatalf("%s has changed the old item to %s", before, written(old))
		case written(request) != asked:
			t.Fatalf("%s has been changed to %s", asked, written(request))
		case written(again) != written(after) || written(answerAgain) != written(answer) || changed != changedAgain || (err == nil) != (errAgain == nil):
			t.Fatalf("%s, applied again, is %s, %s, %v", asked, written(again), written(answerAgain), errAgain)
		case !changed && after != old:
			t.Fatalf("unchanged, %s is %s", before, written(after))
		case (err == nil) == (answer == nil):
			t.Fatalf("%s: %s, %v", asked, written(answer), err)
		}
		if err != nil {
			outcomes["failed"]++
			if e, ok := errors.AsType[*table.Error](err); !ok || e.Name != table.Validation && e.Name != table.ConditionFailed || changed {
				t.Fatalf("%s: %v, %v", asked, err, changed)
			}
			return
		}
		outcomes["done"]++
		if after == nil {
			return
		}
		if got := stored(t, after); written(got) != written(after) {
			t.Fatalf("%s of %s is %s, which is stored as %s", asked, before, written(after), written(got))
		}
		if old != nil {
			a, _ := old.Get("id")
			if b, _ := after.Get("id"); !jsontree.Equal(a, b) && op != table.Put {
				t.Fatalf("%s of %s is %s", asked, before, written(after))
			}
		}
	})
	t.Logf("%v", outcomes)
	if outcomes["done"] == 0 || outcomes["failed"] == 0 {
		t.Errorf("of the requests there are %v", outcomes)
	}
}

// TestForeignItem: an item that was written by somebody else, and has no attribute values, is no reason to panic.
func TestForeignItem(t *testing.T) {
	const old = `{"id":1,"a":null,"b":{},"l":{"L":{}},"m":{"M":[1]},"s":{"SS":[1,null]},"n":{"N":"x"},"o":{"L":[1,null,{"N":"1"}]},"p":{"M":{"a":5}},"q":{"B":"?"},"r":{"S":1}}`
	for _, name := range []string{"id", "a", "b", "l", "m", "s", "n", "o", "p", "q", "r"} {
		for _, path := range []string{name, name + ".a", name + "[0]", name + "[1]", name + "[2]"} {
			for _, c := range []struct {
				op     table.Op
				member string
				source string
			}{
				{table.Get, "ProjectionExpression", path},
				{table.Delete, "ConditionExpression", "(" + path + " = :n OR size(" + path + ") > :n OR contains(" + path + ", :n) OR begins_with(" + path + ", x) OR " + path + " < :n OR r IN (" + path + ", x)) AND NOT :n = x"},
				{table.Update, "UpdateExpression", "SET z = " + path + " + :n"},
				{table.Update, "UpdateExpression", "SET z = if_not_exists(" + path + ", :n)"},
				{table.Update, "UpdateExpression", "SET z = list_append(o, o), y = :n REMOVE " + path},
				{table.Update, "UpdateExpression", "ADD " + path + " :n"},
				{table.Update, "UpdateExpression", "DELETE " + path + " :s"},
			} {
				request := jsontree.Of("TableName", "t", "Key", jsontree.Of("k", jsontree.Of("S", "1")), c.member, c.source)
				switch {
				case strings.Contains(c.source, ":n"):
					request.Set("ExpressionAttributeValues", tree(t, `{":n":{"N":"1"}}`))
				case strings.Contains(c.source, ":s"):
					request.Set("ExpressionAttributeValues", tree(t, `{":s":{"SS":["1"]}}`))
				}
				r, err := table.Parse(c.op, request)
				if err != nil {
					t.Fatalf("%s: %v", c.source, err)
				}
				item := tree(t, old)
				if _, _, _, err := r.Apply(item); written(item) != old {
					t.Errorf("%s: %v, %s", c.source, err, written(item))
				}
			}
		}
	}
}

func written(o *jsontree.Object) string {
	if o == nil {
		return ""
	}
	b, err := jsontree.Append(nil, o)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// stored is an item as putItem stores it.
func stored(t *rapid.T, item *jsontree.Object) *jsontree.Object {
	r, err := table.Parse(table.Put, jsontree.Of("TableName", "t", "Item", item))
	if err != nil {
		t.Fatalf("%s: %v", written(item), err)
	}
	after, _, _, err := r.Apply(nil)
	if err != nil {
		t.Fatal(err)
	}
	return after
}

func drawItem(t *rapid.T) *jsontree.Object {
	item := jsontree.Of("id", jsontree.Of("S", "1"))
	for _, name := range []string{"a", "b", "l", "m", "s", "n"} {
		if rapid.Bool().Draw(t, name) {
			item.Set(name, drawValue(t, 0))
		}
	}
	return item
}

func drawValue(t *rapid.T, depth int) *jsontree.Object {
	types := []string{"S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"}
	if depth > 2 {
		types = types[:8]
	}
	typ := rapid.SampledFrom(types).Draw(t, "type")
	numbers := rapid.SampledFrom([]string{"0", "1", "-1.50", "2e3", "12345678901234567890123456789012345678", "9e125", "1e-130"})
	switch typ {
	case "S":
		return jsontree.Of(typ, rapid.SampledFrom([]string{"", "x", "xyz", "größe"}).Draw(t, "S"))
	case "N":
		return jsontree.Of(typ, numbers.Draw(t, "N"))
	case "B":
		return jsontree.Of(typ, rapid.SampledFrom([]string{"", "YQ==", "eHl6"}).Draw(t, "B"))
	case "BOOL", "NULL":
		return jsontree.Of(typ, rapid.Bool().Draw(t, typ))
	case "SS":
		return jsontree.Of(typ, distinct(t, rapid.SampledFrom([]string{"x", "y", "z"})))
	case "NS":
		return jsontree.Of(typ, distinct(t, numbers))
	case "BS":
		return jsontree.Of(typ, distinct(t, rapid.SampledFrom([]string{"YQ==", "Yg==", "eHl6"})))
	case "L":
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			list = append(list, drawValue(t, depth+1))
		}
		return jsontree.Of(typ, list)
	default:
		m := jsontree.NewObject(0)
		for _, name := range []string{"a", "b", "l"} {
			if rapid.Bool().Draw(t, name) {
				m.Set(name, drawValue(t, depth+1))
			}
		}
		return jsontree.Of(typ, m)
	}
}

func distinct(t *rapid.T, of *rapid.Generator[string]) []any {
	var list []any
	for _, s := range rapid.SliceOfNDistinct(of, 1, 3, rapid.ID[string]).Draw(t, "set") {
		list = append(list, s)
	}
	return list
}

func drawRequest(t *rapid.T, op table.Op) *jsontree.Object {
	request := jsontree.Of("TableName", "t")
	values := jsontree.NewObject(0)
	value := func() string {
		name := rapid.SampledFrom([]string{":a", ":b", ":c"}).Draw(t, "value")
		if !values.Has(name) {
			values.Set(name, drawValue(t, 1))
		}
		return name
	}
	expression := func(member, source string) {
		if source != "" {
			request.Set(member, source)
		}
	}
	switch op {
	case table.Put:
		request.Set("Item", drawItem(t))
	default:
		request.Set("Key", jsontree.Of("id", jsontree.Of("S", "1")))
	}
	switch op {
	case table.Get:
		var paths []string
		for range rapid.IntRange(0, 3).Draw(t, "paths") {
			paths = append(paths, drawPath(t))
		}
		expression("ProjectionExpression", strings.Join(paths, ", "))
	case table.Update:
		expression("UpdateExpression", drawUpdate(t, value))
		request.Set("ReturnValues", rapid.SampledFrom([]string{"NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"}).Draw(t, "return"))
	default:
		request.Set("ReturnValues", rapid.SampledFrom([]string{"NONE", "ALL_OLD"}).Draw(t, "return"))
	}
	if op != table.Get && rapid.IntRange(0, 3).Draw(t, "conditional") == 0 {
		expression("ConditionExpression", drawCondition(t, value, 0))
	}
	if values.Len() > 0 {
		request.Set("ExpressionAttributeValues", values)
	}
	return request
}

func drawPath(t *rapid.T) string {
	p := rapid.SampledFrom([]string{"a", "b", "l", "m", "s", "n", "none"}).Draw(t, "path")
	for range rapid.IntRange(0, 2).Draw(t, "steps") {
		p += rapid.SampledFrom([]string{".a", ".l", "[0]", "[1]", "[7]"}).Draw(t, "step")
	}
	return p
}

func drawUpdate(t *rapid.T, value func() string) string {
	operand := func() string {
		if rapid.Bool().Draw(t, "literal") {
			return value()
		}
		return drawPath(t)
	}
	var sections []string
	for _, section := range []string{"SET ", "REMOVE ", "ADD ", "DELETE "} {
		var list []string
		for range rapid.IntRange(0, 2).Draw(t, section) {
			change := drawPath(t)
			switch section {
			case "SET ":
				change += " = " + rapid.SampledFrom([]func() string{
					operand,
					func() string { return operand() + " + " + operand() },
					func() string { return "if_not_exists(" + drawPath(t) + ", " + operand() + ") - " + operand() },
					func() string { return "list_append(" + operand() + ", " + operand() + ")" },
				}).Draw(t, "operand")()
			case "ADD ", "DELETE ":
				change += " " + value()
			}
			list = append(list, change)
		}
		if list != nil {
			sections = append(sections, section+strings.Join(list, ", "))
		}
	}
	return strings.Join(sections, " ")
}

func drawCondition(t *rapid.T, value func() string, depth int) string {
	kinds := 6
	if depth < 3 {
		kinds = 9
	}
	switch rapid.IntRange(0, kinds).Draw(t, "condition") {
	case 0:
		return "attribute_exists(" + drawPath(t) + ")"
	case 1:
		return "attribute_not_exists(" + drawPath(t) + ")"
	case 2:
		return drawPath(t) + rapid.SampledFrom([]string{" = ", " <> "}).Draw(t, "comparator") + value()
	case 3:
		return "contains(" + drawPath(t) + ", " + value() + ")"
	case 4:
		return "size(" + drawPath(t) + ") >= size(" + drawPath(t) + ")"
	case 5:
		return drawPath(t) + " IN (" + value() + ", " + drawPath(t) + ")"
	case 6:
		return drawPath(t) + " BETWEEN " + drawPath(t) + " AND " + drawPath(t)
	case 7:
		return "(" + drawCondition(t, value, depth+1) + " AND " + drawCondition(t, value, depth+1) + ")"
	case 8:
		return drawCondition(t, value, depth+1) + " OR " + drawCondition(t, value, depth+1)
	default:
		return "NOT " + drawCondition(t, value, depth+1)
	}
}

// FuzzExpressions: whatever is given for an expression, it is refused with a reason, or applied; nothing panics.
func FuzzExpressions(f *testing.F) {
	f.Add("SET a = b + :v, l[3].x = if_not_exists(m.#n, :v) REMOVE s ADD n :v DELETE ss :s", "a < :v AND (NOT begins_with(#n, :s) OR size(l) IN (:v, n))", "a, m.#n, l[0][1]")
	f.Add("set a=((b)-(c))", "((a)) = :v", "#n.#n")
	f.Add("REMOVE l[0], l[1]", "a between :v and :v or contains(l, :s)", "l[1], l[0]")
	f.Add("SET a = list_append(l, l)", "attribute_type(a, :s)", "é")
	const item = `{"id":{"S":"1"},"a":{"N":"1"},"b":{"N":"2"},"s":{"S":"x"},"l":{"L":[{"S":"0"},{"L":[{"N":"1"}]}]},"m":{"M":{"n":{"N":"3"},"#n":{"S":"y"}}},"ss":{"SS":["x"]}}`
	f.Fuzz(func(t *testing.T, update, condition, projection string) {
		parameters := func(expression string, withValues bool) string {
			p := references("ExpressionAttributeNames", expression, map[string]string{"#n": "n"})
			if withValues {
				p += references("ExpressionAttributeValues", expression, map[string]string{":v": `{"N":"5"}`, ":s": `{"SS":["x","y"]}`})
			}
			return p
		}
		for _, c := range []struct {
			op      table.Op
			members *jsontree.Object
			more    string
		}{
			{table.Update, jsontree.Of("UpdateExpression", update), parameters(update, true)},
			{table.Delete, jsontree.Of("ConditionExpression", condition), parameters(condition, true)},
			{table.Get, jsontree.Of("ProjectionExpression", projection), parameters(projection, false)},
		} {
			request := tree(t, `{"TableName":"t","Key":{"id":{"S":"1"}}`+c.more+`}`)
			request.Set(c.members.At(0))
			r, err := table.Parse(c.op, request)
			if err != nil {
				if e, ok := errors.AsType[*table.Error](err); !ok || e.Message == "" {
					t.Fatalf("refused without a reason: %v", err)
				}
				continue
			}
			for _, text := range []string{"", item} {
				old := tree(t, text)
				if _, _, _, err := r.Apply(old); err != nil {
					if _, ok := errors.AsType[*table.Error](err); !ok {
						t.Fatal(err)
					}
				}
				if written(old) != written(tree(t, text)) {
					t.Fatalf("the old item is now %s", written(old))
				}
			}
		}
	})
}
