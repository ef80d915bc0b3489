package table_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/table"
)

func updating(expression, values, members string) string {
	if values != "" {
		members += `,"ExpressionAttributeValues":{` + values + `}`
	}
	return fmt.Sprintf(`{"TableName":"t","Key":{"id":{"S":"1"}},"UpdateExpression":%q%s}`, expression, members)
}

func TestUpdate(t *testing.T) {
	const (
		one  = `":v":{"N":"1"}`
		list = `":v":{"L":[{"S":"v"}]}`
		set  = `":v":{"SS":["b","c"]}`
	)
	for _, c := range []struct{ old, expression, values, want string }{
		// SET
		{`"a":{"S":"x"},"b":{"S":"y"}`, `SET a = :v`, one, `"a":{"N":"1"},"b":{"S":"y"}`},
		{``, `set a=:v , b = :v`, one, `"a":{"N":"1"},"b":{"N":"1"}`},
		{`"a":{"N":"2"}`, `SET a = :v, b = a`, one, `"a":{"N":"1"},"b":{"N":"2"}`},
		{`"a":{"N":"2"}`, `SET a = a + :v`, one, `"a":{"N":"3"}`},
		{`"a":{"N":"2"}`, `SET b = :v - a`, one, `"a":{"N":"2"},"b":{"N":"-1"}`},
		{`"a":{"N":"0.1"},"b":{"N":"0.2"}`, `SET c = ((a)+(b))`, "", `"a":{"N":"0.1"},"b":{"N":"0.2"},"c":{"N":"0.3"}`},
		{`"a":{"N":"2"}`, `SET a = (a - :v)`, one, `"a":{"N":"1"}`},
		{`"a":{"N":"10000000000000000000000"}`, `SET a = a - :v`, one, `"a":{"N":"9999999999999999999999"}`},
		{`"a":{"N":"2"}`, `SET a = if_not_exists(a, :v), b = if_not_exists(b, :v), c = if_not_exists(x, if_not_exists(a, :v))`, one, `"a":{"N":"2"},"b":{"N":"1"},"c":{"N":"2"}`},
		{`"a":{"N":"2"}`, `SET a = if_not_exists(a, :v) + :v, b = :v - if_not_exists(b, :v)`, one, `"a":{"N":"3"},"b":{"N":"0"}`},
		{``, `SET a = if_not_exists(a, id)`, "", `"a":{"S":"1"}`},
		{`"l":{"L":[{"S":"0"}]}`, `SET l = list_append(l, :v)`, list, `"l":{"L":[{"S":"0"},{"S":"v"}]}`},
		{`"l":{"L":[{"S":"0"}]}`, `SET l = list_append((:v), (l))`, list, `"l":{"L":[{"S":"v"},{"S":"0"}]}`},
		{``, `SET l = list_append(if_not_exists(l, :e), :v)`, `":e":{"L":[]},` + list, `"l":{"L":[{"S":"v"}]}`},
		{`"m":{"M":{"k":{"S":"k"}}}`, `SET m.a = :v, m.b = m.k`, one, `"m":{"M":{"k":{"S":"k"},"a":{"N":"1"},"b":{"S":"k"}}}`},
		{`"l":{"L":[{"S":"0"},{"S":"1"},{"M":{"x":{"S":"y"}}}]}`, `SET l[1] = :v, l[2].x = l[0]`, one, `"l":{"L":[{"S":"0"},{"N":"1"},{"M":{"x":{"S":"0"}}}]}`},
		{`"l":{"L":[{"S":"0"}]}`, `SET l[84] = :a, l[37] = :b, l[17] = :c, l[0] = :v`, `":a":{"S":"a"},":b":{"S":"b"},":c":{"S":"c"},` + one, `"l":{"L":[{"N":"1"},{"S":"c"},{"S":"b"},{"S":"a"}]}`},
		{`"l":{"L":[]}`, `SET l[0] = :v`, one, `"l":{"L":[{"N":"1"}]}`},
		{`"a":{"S":"x"}`, `SET a = a`, "", `"a":{"S":"x"}`},
		{`"S":{"N":"2"}`, "SET\n\tS=:v", one, `"S":{"N":"1"}`},
		// REMOVE
		{`"a":{"S":"x"},"b":{"S":"y"}`, `REMOVE a, none`, "", `"b":{"S":"y"}`},
		{`"m":{"M":{"a":{"S":"x"}}}`, `REMOVE m.a, m.none`, "", `"m":{"M":{}}`},
		{`"l":{"L":[{"S":"0"},{"S":"1"},{"S":"2"},{"S":"3"}]}`, `remove l[1], l[9], l[0]`, "", `"l":{"L":[{"S":"2"},{"S":"3"}]}`},
		{`"l":{"L":[{"S":"0"}]}`, `REMOVE l[0]`, "", `"l":{"L":[]}`},
		{`"l":{"L":[{"S":"0"},{"S":"1"},{"S":"2"},{"S":"3"}]}`, `REMOVE l[1] SET l[3] = :v, l[7] = :v`, one, `"l":{"L":[{"S":"0"},{"S":"2"},{"N":"1"},{"N":"1"}]}`},
		{`"a":{"S":"x"}`, `REMOVE a SET b = a`, "", `"b":{"S":"x"}`},
		{`"l":{"L":[{"L":[{"S":"0"},{"S":"1"}]},{"S":"1"}]}`, `REMOVE l[0][0], l[1]`, "", `"l":{"L":[{"L":[{"S":"1"}]}]}`},
		// ADD
		{`"a":{"N":"2.5"}`, `ADD a :v, b :v`, one, `"a":{"N":"3.5"},"b":{"N":"1"}`},
		{`"s":{"SS":["a","b"]}`, `ADD s :v`, set, `"s":{"SS":["a","b","c"]}`},
		{`"s":{"NS":["1","2"]}`, `ADD s :v`, `":v":{"NS":["2.0","3"]}`, `"s":{"NS":["1","2","3"]}`},
		{`"s":{"BS":["YQ=="]}`, `ADD s :v`, `":v":{"BS":["Yg==","YQ=="]}`, `"s":{"BS":["YQ==","Yg=="]}`},
		{``, `add s :v`, set, `"s":{"SS":["b","c"]}`},
		{`"m":{"M":{"l":{"L":[{"N":"1"}]}}}`, `ADD m.l[0] :v, m.x :v, m.l[5] :v`, one, `"m":{"M":{"l":{"L":[{"N":"2"},{"N":"1"}]},"x":{"N":"1"}}}`},
		// DELETE
		{`"s":{"SS":["a","b","c"]}`, `DELETE s :v, none :v`, set, `"s":{"SS":["a"]}`},
		{`"s":{"SS":["b","c"]},"a":{"S":"x"}`, `DELETE s :v`, set, `"a":{"S":"x"}`},
		{`"s":{"NS":["1","2"]}`, `DELETE s :v`, `":v":{"NS":["1.0"]}`, `"s":{"NS":["2"]}`},
		{`"l":{"L":[{"SS":["b"]},{"S":"1"}]}`, `DELETE l[0] :v`, set, `"l":{"L":[{"S":"1"}]}`},
		// All of them.
		{`"a":{"S":"x"},"s":{"SS":["a","b"]},"n":{"N":"1"}`, `ADD n :n DELETE s :v REMOVE a SET f = :n`, `":n":{"N":"5"},` + set, `"s":{"SS":["a"]},"n":{"N":"6"},"f":{"N":"5"}`},
		{
			`"b":{"M":{"a":{"N":"1"},"b":{"N":"2"},"c":{"N":"3"}}},"c":{"L":[{"N":"1"},{"N":"3"}]}`,
			`set b.c=((c[1])+(b.a)),b.a = id,c[1] = id, c[4] = b.a - b.b, c[2] = b.c add c[8] :b, c[6] :a`,
			`":a":{"N":"2"},":b":{"SS":["a"]}`,
			`"b":{"M":{"a":{"S":"1"},"b":{"N":"2"},"c":{"N":"4"}}},"c":{"L":[{"N":"1"},{"S":"1"},{"N":"3"},{"N":"-1"},{"N":"2"},{"SS":["a"]}]}`,
		},
	} {
		item := func(members string) string { return strings.TrimSuffix(`{"id":{"S":"1"},`+members, ",") + `}` }
		old := item(c.old)
		if c.old == "" {
			old = ""
		}
		after, changed, answer, err := apply(t, table.Update, updating(c.expression, c.values, ""), old)
		if got := text(t, after); err != nil || got != item(c.want) || changed != (c.old != c.want) || text(t, answer) != `{}` {
			t.Errorf("%s of %s:\n got %s, %v, %v\nwant %s", c.expression, old, got, changed, err, item(c.want))
		}
	}
}

// TestUpdateOfNothing: an update makes the item, unless it only removes.
func TestUpdateOfNothing(t *testing.T) {
	for expression, want := range map[string]string{
		``:                       `{"id":{"S":"1"}}`,
		`REMOVE a`:               ``,
		`REMOVE a.b, c[0]`:       ``,
		`DELETE s :v`:            ``,
		`SET s = :v REMOVE a`:    `{"id":{"S":"1"},"s":{"SS":["b"]}}`,
		`DELETE s :v SET a = id`: `{"id":{"S":"1"},"a":{"S":"1"}}`,
		`ADD s :v`:               `{"id":{"S":"1"},"s":{"SS":["b"]}}`,
	} {
		values := ""
		if strings.Contains(expression, ":v") {
			values = `":v":{"SS":["b"]}`
		}
		request := updating(expression, values, "")
		if expression == "" {
			request = `{"TableName":"t","Key":{"id":{"S":"1"}}}`
		}
		after, changed, answer, err := apply(t, table.Update, request, "")
		if err != nil || text(t, after) != want || changed != (want != "") || text(t, answer) != `{}` {
			t.Errorf("%s: %s, %v, %v", expression, text(t, after), changed, err)
		}
	}
}

func TestReturnValues(t *testing.T) {
	const old = `{"id":{"S":"1"},"a":{"M":{"b":{"S":"dog"},"c":{"L":[{"N":"1"},{"N":"2"},{"N":"3"}]}}},"d":{"S":"cat"}}`
	for _, c := range []struct{ expression, values, old, updatedOld, updatedNew string }{
		{`SET d = :v, e = :v`, `":v":{"S":"x"}`, old, `{"d":{"S":"cat"}}`, `{"d":{"S":"x"},"e":{"S":"x"}}`},
		{`SET d = :v`, `":v":{"S":"x"}`, "", ``, `{"d":{"S":"x"}}`},
		{`REMOVE d`, "", old, `{"d":{"S":"cat"}}`, ``},
		{`REMOVE none`, "", old, ``, ``},
		{`REMOVE none`, "", "", ``, ``},
		{`SET a.b = :v`, `":v":{"S":"x"}`, old, `{"a":{"M":{"b":{"S":"dog"}}}}`, `{"a":{"M":{"b":{"S":"x"}}}}`},
		{`SET a.c[1] = :v, a.b = :v`, `":v":{"S":"x"}`, old, `{"a":{"M":{"c":{"L":[{"N":"2"}]},"b":{"S":"dog"}}}}`, `{"a":{"M":{"c":{"L":[{"S":"x"}]},"b":{"S":"x"}}}}`},
		{`REMOVE a.c[1], a.c[3]`, "", old, `{"a":{"M":{"c":{"L":[{"N":"2"}]}}}}`, `{"a":{"M":{"c":{"L":[{"N":"3"}]}}}}`}, // as by AWS: what has moved up
		{`SET a.x = :v`, `":v":{"S":"x"}`, old, ``, `{"a":{"M":{"x":{"S":"x"}}}}`},
		{`SET a.c[100] = :v`, `":v":{"S":"x"}`, old, ``, ``}, // as by AWS: it is at [3] now
	} {
		for mode, want := range map[string]string{"UPDATED_OLD": c.updatedOld, "UPDATED_NEW": c.updatedNew, "ALL_OLD": c.old, "ALL_NEW": "", "NONE": ""} {
			after, _, answer, err := apply(t, table.Update, updating(c.expression, c.values, fmt.Sprintf(`,"ReturnValues":%q`, mode)), c.old)
			if mode == "ALL_NEW" {
				want = text(t, after)
			}
			if want != "" {
				want = `"Attributes":` + want
			}
			if got := text(t, answer); err != nil || got != `{`+want+`}` {
				t.Errorf("%s with %s of %s: %s, %v", c.expression, mode, c.old, got, err)
			}
		}
	}
	_, _, answer, err := apply(t, table.Update, `{"TableName":"t","Key":{"id":{"S":"1"}},"ReturnValues":"UPDATED_NEW"}`, old)
	if err != nil || text(t, answer) != `{}` {
		t.Errorf("without an expression: %s, %v", text(t, answer), err)
	}
}

func TestUpdateMistakes(t *testing.T) {
	values := map[string]string{
		":S": `{"S":"a"}`, ":N": `{"N":"1"}`, ":B": `{"B":"YQ=="}`, ":BOOL": `{"BOOL":true}`, ":NULL": `{"NULL":true}`, ":SS": `{"SS":["a"]}`, ":NS": `{"NS":["1"]}`,
		":BS": `{"BS":["YQ=="]}`, ":M": `{"M":{}}`, ":L": `{"L":[]}`, ":big": `{"N":"9e125"}`, ":small": `{"N":"-1.1e-130"}`,
	}
	parameters := func(expression string) string {
		return references("ExpressionAttributeNames", expression, map[string]string{"#b": "b", "#i": "[3]"}) + references("ExpressionAttributeValues", expression, values)
	}
	for expression, want := range map[string]string{
		``:                                `The expression can not be empty;`,
		`INVALID SYNTAX HERE`:             `Syntax error; token: "INVALID", near: "INVALID SYNTAX"`,
		`SET`:                             `Syntax error; token: "<EOF>", near: "SET"`,
		`SET a`:                           `Syntax error; token: "<EOF>", near: "a"`,
		`SET _123 = :N`:                   `Syntax error; token: "_", near: "SET _123"`,
		`SET a b`:                         `Syntax error; token: "b", near: "a b"`,
		`SET a = set`:                     `Syntax error; token: "set", near: "= set"`,
		`SET :N = a`:                      `Syntax error; token: ":N", near: "SET :N ="`,
		`SET a = b / c`:                   `Syntax error; token: "/", near: "b / c"`,
		`SET a = b + c + d`:               `Syntax error; token: "+", near: "c + d"`,
		`SET a = (b + c) + d`:             `Syntax error; token: "+", near: ") + d"`,
		`SET a = b + (c + d)`:             `Syntax error; token: "(", near: "+ (c"`,
		`SET a = (b.c).d + e`:             `Syntax error; token: ".", near: ").d"`,
		`SET a = (b`:                      `Syntax error; token: "<EOF>", near: "b"`,
		`SET (a = b)`:                     `Syntax error; token: "(", near: "SET (a"`,
		`SET a[1] = 1`:                    `Syntax error; token: "1", near: "= 1"`,
		`SET a = if_not_exists(a, 0)`:     `Syntax error; token: "0", near: ", 0)"`,
		`SET a = if_not_exists(a, :N+:N)`: `Syntax error; token: "+", near: ":N+:N"`,
		`SET a = :N, `:                    `Syntax error; token: "<EOF>", near: ","`,
		`SET a = :N b = :N`:               `Syntax error; token: "b", near: ":N b ="`,
		`SET f(a, b) = a`:                 `Syntax error; token: "(", near: "f(a"`,
		`REMOVE a = b`:                    `Syntax error; token: "=", near: "a = b"`,
		`REMOVE :N`:                       `Syntax error; token: ":N", near: "REMOVE :N"`,
		`ADD a`:                           `Syntax error; token: "<EOF>", near: "a"`,
		`ADD a b`:                         `Syntax error; token: "b", near: "a b"`,
		`DELETE a = :SS`:                  `Syntax error; token: "=", near: "a = :SS"`,
		`SET #c = f(:c) SET c = d`:        `Invalid function name; function: f`,
		`SET a = LIST_APPEND(:L, :L)`:     `Invalid function name; function: LIST_APPEND`,
		`SET a = #c SET c = :c`:           `The "SET" section can only be used once in an update expression;`,
		`ADD a :N REMOVE #c add b :N`:     `The "ADD" section can only be used once in an update expression;`,
		`SET a = size(b)`:                 `The function is not allowed to be used this way in an expression; function: size`,
		`SET #c = if_not_exists(:c)`:      `An expression attribute name used in the document path is not defined; attribute name: #c`,
		`SET #b = if_not_exists(:c)`:      `An expression attribute value used in expression is not defined; attribute value: :c`,
		`SET b = :N, #b = :N`:             `Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [b], path two: [b]`,
		`SET a.b[1] = :N REMOVE a`:        `Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a, b, [1]], path two: [a]`,
		`REMOVE a.b, a[0], c, c`:          `Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [c], path two: [c]`,
		`REMOVE c[3].#i, c.#i[3]`:         `Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [c, [3], [3]], path two: [c, [3], [3]]`,
		`ADD a :S`:                        `Incorrect operand type for operator or function; operator: ADD, operand type: STRING`,
		`ADD a :B`:                        `Incorrect operand type for operator or function; operator: ADD, operand type: BINARY`,
		`ADD a :BOOL`:                     `Incorrect operand type for operator or function; operator: ADD, operand type: BOOLEAN`,
		`ADD a :NULL`:                     `Incorrect operand type for operator or function; operator: ADD, operand type: NULL`,
		`ADD a :M`:                        `Incorrect operand type for operator or function; operator: ADD, operand type: MAP`,
		`ADD a :L`:                        `Incorrect operand type for operator or function; operator: ADD, operand type: LIST`,
		`DELETE a :N`:                     `Incorrect operand type for operator or function; operator: DELETE, operand type: NUMBER`,
		`SET a = if_not_exists(c)`:        `Incorrect number of operands for operator or function; operator or function: if_not_exists, number of operands: 1`,
		`SET a = list_append(a, b, c)`:    `Incorrect number of operands for operator or function; operator or function: list_append, number of operands: 3`,
		`SET a = if_not_exists(:N, c)`:    `Operator or function requires a document path; operator or function: if_not_exists`,
		`SET a = if_not_exists(if_not_exists(a, b), c)`: `Operator or function requires a document path; operator or function: if_not_exists`,
		`SET a = list_append(list_append(:L, :L), :L)`:  `The function is not allowed to be used this way in an expression; function: list_append`,
		`SET a = list_append(:S, a)`:                    `Incorrect operand type for operator or function; operator or function: list_append, operand type: S`,
		`SET a = a + :S`:                                `Incorrect operand type for operator or function; operator or function: +, operand type: S`,
		`SET a = :SS - a`:                               `Incorrect operand type for operator or function; operator or function: -, operand type: SS`,
	} {
		_, err := table.Parse(table.Update, tree(t, updating(expression, "", parameters(expression))))
		wantError(t, expression, err, "Invalid UpdateExpression: "+want)
	}
	for expression, want := range map[string]string{
		`SET c = none`:                                    `The provided expression refers to an attribute that does not exist in the item`,
		`SET c = list_append(none, :L)`:                   `The provided expression refers to an attribute that does not exist in the item`,
		`SET c = :N + none`:                               `The provided expression refers to an attribute that does not exist in the item`,
		`SET c = if_not_exists(none, none)`:               `The provided expression refers to an attribute that does not exist in the item`,
		`SET c = s + :N`:                                  `An operand in the update expression has an incorrect data type`,
		`SET c = :N - l`:                                  `An operand in the update expression has an incorrect data type`,
		`SET c = list_append(s, if_not_exists(none, :L))`: `An operand in the update expression has an incorrect data type`,
		`ADD s :N`:                                        `An operand in the update expression has an incorrect data type`,
		`ADD ss :NS`:                                      `An operand in the update expression has an incorrect data type`,
		`DELETE ss :NS`:                                   `An operand in the update expression has an incorrect data type`,
		`DELETE s :SS`:                                    `An operand in the update expression has an incorrect data type`,
		`SET s.a = :N`:                                    `The document path provided in the update expression is invalid for update`,
		`SET s[0] = :N`:                                   `The document path provided in the update expression is invalid for update`,
		`SET none.a = :N`:                                 `The document path provided in the update expression is invalid for update`,
		`SET none[0] = :N`:                                `The document path provided in the update expression is invalid for update`,
		`SET m[0] = :N`:                                   `The document path provided in the update expression is invalid for update`,
		`SET l.a = :N`:                                    `The document path provided in the update expression is invalid for update`,
		`SET l[9].a = :N`:                                 `The document path provided in the update expression is invalid for update`,
		`REMOVE none.a`:                                   `The document path provided in the update expression is invalid for update`,
		`REMOVE m.a.b`:                                    `The document path provided in the update expression is invalid for update`,
		`DELETE none.a :SS`:                               `The document path provided in the update expression is invalid for update`,
		`ADD m[1] :N`:                                     `The document path provided in the update expression is invalid for update`,
		`SET n = n + :big`:                                `Number overflow. Attempting to store a number with magnitude larger than supported range`,
		`SET c = :big + :big`:                             `Number overflow. Attempting to store a number with magnitude larger than supported range`,
		`ADD small :small`:                                `Number underflow. Attempting to store a number with magnitude smaller than supported range`,
	} {
		_, _, _, err := apply(t, table.Update, updating(expression, "", parameters(expression)),
			`{"id":{"S":"1"},"s":{"S":"x"},"l":{"L":[{"S":"0"}]},"m":{"M":{}},"ss":{"SS":["a"]},"n":{"N":"1"},"small":{"N":"1e-130"}}`)
		wantError(t, expression, err, want)
	}
}
