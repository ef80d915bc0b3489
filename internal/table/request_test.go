package table_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/table"
)

func TestParse(t *testing.T) {
	for name, want := range map[string]string{
		"orders": "orders", "t": "t", "a.B-c_1": "a.B-c_1", "arn:aws:dynamodb:us-east-1:111111111111:table/orders": "orders",
	} {
		r, err := table.Parse(table.Get, tree(t, `{"TableName":"`+name+`","Key":{"id":{"S":"1"}},"ProjectionExpression":null,"AttributesToGet":null}`))
		if err != nil || r.Table != want || r.Op != table.Get {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if _, err := table.Parse(table.Get, nil); err == nil {
		t.Error("without members: no error")
	}
}

func TestRequestMistakes(t *testing.T) {
	const (
		key    = `"TableName":"t","Key":{"id":{"S":"1"}}`
		item   = `"TableName":"t","Item":{"id":{"S":"1"}}`
		null   = `Value null at 'tableName' failed to satisfy constraint: Member must not be null`
		values = `ReturnValues can only be ALL_OLD or NONE`
	)
	for _, c := range []struct{ op, members, want string }{
		{"query", key, `SerializationException: query is no action here: getItem, putItem, updateItem and deleteItem are`},
		// The members' form.
		{"getItem", key + `,"Projection":"a"`, `SerializationException: The field 'Projection' is not supported by getItem`},
		{"getItem", key + `,"ConditionExpression":"a"`, `SerializationException: The field 'ConditionExpression' is not supported by getItem`},
		{"getItem", key + `,"ConsistentRead":"true"`, `SerializationException: The value for the field 'ConsistentRead' must be a BOOLEAN`},
		{"putItem", key, `SerializationException: The field 'Key' is not supported by putItem`},
		{"updateItem", item, `SerializationException: The field 'Item' is not supported by updateItem`},
		{"putItem", item + `,"ConditionExpression":1`, `SerializationException: The value for the field 'ConditionExpression' must be a STRING`},
		{"deleteItem", `"TableName":"t","Key":[]`, `SerializationException: The value for the field 'Key' must be an OBJECT`},
		// Constraints.
		{"putItem", `"Item":{}`, `1 validation error detected: ` + null},
		{"putItem", `"TableName":"t","Item":null`, `1 validation error detected: Value null at 'item' failed to satisfy constraint: Member must not be null`},
		{"getItem", ``, `2 validation errors detected: ` + null + `; Value null at 'key' failed to satisfy constraint: Member must not be null`},
		{"getItem", `"TableName":"","Key":{}`, `1 validation error detected: Value '' at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 1`},
		{"getItem", `"TableName":"a b","Key":{}`, `1 validation error detected: Value 'a b' at 'tableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+`},
		{"getItem", `"TableName":"` + repeated('a', 256) + `","Key":{}`, `1 validation error detected: Value '` + repeated('a', 256) + `' at 'tableName' failed to satisfy constraint: Member must have length less than or equal to 255`},
		{
			"updateItem", key + `,"ReturnConsumedCapacity":"hi","ReturnValues":"hi","ReturnItemCollectionMetrics":"hi","ReturnValuesOnConditionCheckFailure":"hi"`,
			`4 validation errors detected: Value 'hi' at 'returnConsumedCapacity' failed to satisfy constraint: Member must satisfy enum value set: [INDEXES, TOTAL, NONE]` +
				`; Value 'hi' at 'returnValues' failed to satisfy constraint: Member must satisfy enum value set: [ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW]` +
				`; Value 'hi' at 'returnItemCollectionMetrics' failed to satisfy constraint: Member must satisfy enum value set: [SIZE, NONE]` +
				`; Value 'hi' at 'returnValuesOnConditionCheckFailure' failed to satisfy constraint: Member must satisfy enum value set: [ALL_OLD, NONE]`,
		},
		{"putItem", item + `,"ReturnValues":"ALL_NEW"`, values},
		{"deleteItem", key + `,"ReturnValues":"UPDATED_OLD"`, values},
		// What there was before expressions.
		{"updateItem", key + `,"AttributeUpdates":{}`, `AttributeUpdates is of DynamoDB's time before expressions, and is not served: use UpdateExpression or ConditionExpression`},
		{"putItem", item + `,"Expected":{}`, `Expected is of DynamoDB's time before expressions, and is not served: use ConditionExpression`},
		{"deleteItem", key + `,"ConditionalOperator":"AND"`, `ConditionalOperator is of DynamoDB's time before expressions, and is not served: use ConditionExpression`},
		{"getItem", key + `,"AttributesToGet":["a"]`, `AttributesToGet is of DynamoDB's time before expressions, and is not served: use ProjectionExpression`},
		{
			"updateItem", key + `,"UpdateExpression":"","ConditionExpression":"","Expected":{},"AttributeUpdates":{}`,
			`Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {AttributeUpdates, Expected} Expression parameters: {UpdateExpression, ConditionExpression}`,
		},
		// What stands for names and values.
		{"getItem", key + `,"ExpressionAttributeNames":{"#a":"a"}`, `ExpressionAttributeNames can only be specified when using expressions`},
		{"putItem", item + `,"ExpressionAttributeValues":{":a":{"S":"a"}}`, `ExpressionAttributeValues can only be specified when using expressions: ConditionExpression is null`},
		{"updateItem", key + `,"ExpressionAttributeValues":{":a":{"S":"a"}}`, `ExpressionAttributeValues can only be specified when using expressions: UpdateExpression and ConditionExpression are null`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeNames":{}`, `ExpressionAttributeNames must not be empty`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeValues":{}`, `ExpressionAttributeValues must not be empty`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeNames":{"a":"a"}`, `ExpressionAttributeNames contains invalid key: Syntax error; key: "a"`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeNames":{"#":"a"}`, `ExpressionAttributeNames contains invalid key: Syntax error; key: "#"`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeNames":{"#a-b":"a"}`, `ExpressionAttributeNames contains invalid key: Syntax error; key: "#a-b"`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeNames":{":a":"a"}`, `ExpressionAttributeNames contains invalid key: Syntax error; key: ":a"`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeNames":{"#a":1}`, `SerializationException: The value for the field '#a' must be a STRING`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeNames":{"#a":""}`, `ExpressionAttributeNames contains invalid value: the name of an attribute is not empty for key #a`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeValues":{" :a":{"S":"a"}}`, `ExpressionAttributeValues contains invalid key: Syntax error; key: " :a"`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeValues":{":a":{"N":"x"}}`, `ExpressionAttributeValues contains invalid value: The parameter cannot be converted to a numeric value: x for key :a`},
		{"updateItem", key + `,"UpdateExpression":"","ExpressionAttributeValues":{":a":{"N":1}}`, `SerializationException: The value for the field 'N' must be a STRING`},
		{"updateItem", key + `,"UpdateExpression":"REMOVE a","ExpressionAttributeNames":{"#b":"b","#a":"a"}`, `Value provided in ExpressionAttributeNames unused in expressions: keys: {#a, #b}`},
		{"updateItem", key + `,"UpdateExpression":"REMOVE a","ConditionExpression":"a = :a","ExpressionAttributeValues":{":a":{"S":"a"},":c":{"S":"c"}}`, `Value provided in ExpressionAttributeValues unused in expressions: keys: {:c}`},
		// UpdateExpression is read first.
		{"updateItem", key + `,"UpdateExpression":"","ConditionExpression":""`, `Invalid UpdateExpression: The expression can not be empty;`},
		{"updateItem", key + `,"UpdateExpression":"REMOVE a","ConditionExpression":""`, `Invalid ConditionExpression: The expression can not be empty;`},
		// The key stays.
		{"updateItem", key + `,"UpdateExpression":"REMOVE a SET b = id, id = b"`, `One or more parameter values were invalid: Cannot update attribute id. This attribute is part of the key`},
		{"updateItem", key + `,"UpdateExpression":"REMOVE #id.b","ExpressionAttributeNames":{"#id":"id"}`, `One or more parameter values were invalid: Cannot update attribute id. This attribute is part of the key`},
		// Projections.
		{"getItem", key + `,"ProjectionExpression":""`, `Invalid ProjectionExpression: The expression can not be empty;`},
		{"getItem", key + `,"ProjectionExpression":"!!! INVALID !!!"`, `Invalid ProjectionExpression: Syntax error; token: "!", near: "!!"`},
		{"getItem", key + `,"ProjectionExpression":"a b"`, `Invalid ProjectionExpression: Syntax error; token: "b", near: "a b"`},
		{"getItem", key + `,"ProjectionExpression":"a,"`, `Invalid ProjectionExpression: Syntax error; token: "<EOF>", near: ","`},
		{"getItem", key + `,"ProjectionExpression":"l[a]"`, `Invalid ProjectionExpression: Syntax error; token: "a", near: "[a]"`},
		{"getItem", key + `,"ProjectionExpression":"#none"`, `Invalid ProjectionExpression: An expression attribute name used in the document path is not defined; attribute name: #none`},
		{"getItem", key + `,"ProjectionExpression":"#a, a.b","ExpressionAttributeNames":{"#a":"a"}`, `Invalid ProjectionExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a, b]`},
		{"getItem", key + `,"ProjectionExpression":"a.b, a[1]"`, `Invalid ProjectionExpression: Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [a, b], path two: [a, [1]]`},
	} {
		_, err := table.Parse(table.Op(c.op), tree(t, `{`+c.members+`}`))
		wantError(t, c.op+" "+c.members, err, c.want)
	}
}

func TestValueMistakes(t *testing.T) {
	const (
		empty     = `Supplied AttributeValue is empty, must contain exactly one of the supported datatypes`
		several   = `Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes`
		parameter = `One or more parameter values were invalid: `
		overflow  = `Number overflow. Attempting to store a number with magnitude larger than supported range`
		underflow = `Number underflow. Attempting to store a number with magnitude smaller than supported range`
		precise   = `Attempting to store more than 38 significant digits in a Number`
		form      = `SerializationException: The value for the field `
	)
	for value, want := range map[string]string{
		`{}`:                empty,
		`{"a":""}`:          empty,
		`{"S":null}`:        empty,
		`{"M":{"a":{}}}`:    empty,
		`{"L":[{"a":{}}]}`:  empty,
		`{"S":"a","N":"1"}`: several,
		`{"S":"a","N":""}`:  `The parameter cannot be converted to a numeric value`,
		`{"N":"b"}`:         `The parameter cannot be converted to a numeric value: b`,
		`{"NS":["1","b"]}`:  `The parameter cannot be converted to a numeric value: b`,
		`{"NS":["1",""]}`:   `The parameter cannot be converted to a numeric value`,
		`{"N":"NaN"}`:       `The parameter cannot be converted to a numeric value: NaN`,
		`{"N":" 1"}`:        `The parameter cannot be converted to a numeric value:  1`,
		`{"N":"123456789012345678901234567890123456789"}`: precise,
		`{"N":"1e126"}`:           overflow,
		`{"N":"-1e999999999999"}`: overflow,
		`{"N":"1e-131"}`:          underflow,
		`{"SS":[]}`:               parameter + `An string set  may not be empty`,
		`{"NS":[]}`:               parameter + `An number set  may not be empty`,
		`{"BS":[]}`:               parameter + `Binary sets should not be empty`,
		`{"SS":["a",""]}`:         parameter + `An string set may not have a empty string as a member`,
		`{"BS":["aaaa",""]}`:      parameter + `Binary sets may not contain null or empty values`,
		`{"SS":["a","a"]}`:        parameter + `Input collection [a, a] contains duplicates.`,
		`{"NS":["1","1.0"]}`:      `Input collection contains duplicates`,
		`{"BS":["Yg==","Yg=="]}`:  parameter + `Input collection [Yg==, Yg==]of type BS contains duplicates.`,
		`"a"`:                     `SerializationException: an attribute's value is an object of its type and its content, such as {"S": "text"}`,
		`{"S":1}`:                 form + `'S' must be a STRING`,
		`{"N":1}`:                 form + `'N' must be a STRING`,
		`{"B":1}`:                 form + `'B' must be a STRING`,
		`{"BOOL":"true"}`:         form + `'BOOL' must be a BOOLEAN`,
		`{"NULL":1}`:              form + `'NULL' must be a BOOLEAN`,
		`{"M":[]}`:                form + `'M' must be an OBJECT`,
		`{"L":{}}`:                form + `'L' must be a LIST`,
		`{"SS":"a"}`:              form + `'SS' must be a LIST`,
		`{"SS":[1]}`:              form + `'SS' must be a STRING`,
		`{"NS":[1]}`:              form + `'NS' must be a STRING`,
		`{"BS":[1]}`:              form + `'BS' must be a STRING`,
	} {
		_, err := table.Parse(table.Put, tree(t, `{"TableName":"t","Item":{"id":`+value+`}}`))
		wantError(t, value, err, want)
		_, err = table.Parse(table.Get, tree(t, `{"TableName":"t","Key":{"id":`+value+`}}`))
		wantError(t, value, err, want)
	}
	_, err := table.Parse(table.Put, tree(t, `{"TableName":"t","Item":{"id":{"B":"a"}}}`))
	if e, ok := errors.AsType[*table.Error](err); !ok || e.Name != table.Serialization || !strings.Contains(e.Message, "'B' must be base64") {
		t.Error(err)
	}
}
