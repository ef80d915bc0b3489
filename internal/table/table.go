// Package table holds the rules of a store of items that speaks DynamoDB's getItem, putItem, updateItem and deleteItem: what a
// request may say, which key it is about, and what it makes of the item that is there. Whoever stores the items reads one by
// its key, calls Apply, and writes the result if nobody was faster (compare-and-set); this package does no I/O.
//
// Items and values are DynamoDB's attribute values in JSON, as {"N": "1"}. Those that Parse let through are canonical: numbers
// in plain decimal notation without zeros that say nothing, base64 with padding.
//
// Invariants: a Request never changes, and Apply changes neither it nor the old item, so that it may be repeated with another
// old item; what it returns shares parts with both and is not to be changed. An expression is checked as a whole before an item
// is looked at. Two keys have the same text (Key) only if DynamoDB takes them for the same.
//
// The data flows through the files in this order: request.go (Parse), with value.go and number.go (attribute values),
// expression.go, path.go, condition.go and update.go (the languages); key.go; apply.go.
//
// May import: package jsontree.
package table

import (
	"fmt"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
)

// Op is an action of DynamoDB, as it is in a state's resource.
type Op string

// The actions.
const (
	Get    Op = "getItem"
	Put    Op = "putItem"
	Update Op = "updateItem"
	Delete Op = "deleteItem"
)

// Names of errors, as DynamoDB has them.
const (
	// Validation is what a request, or an item as it would become, is refused for. AWS's SDKs have no exception of this name:
	// Step Functions calls it DynamoDB.AmazonDynamoDBException, and DynamoDb.DynamoDbException where the resource is aws-sdk's.
	Validation = "ValidationException"
	// ConditionFailed means that the item is not as ConditionExpression wants it.
	ConditionFailed = "ConditionalCheckFailedException"
	// NotFound means that there is no such table.
	NotFound = "ResourceNotFoundException"
	// Serialization means that the request has not the form of its action: a member that it doesn't know, or of another type.
	// Step Functions finds that before it calls DynamoDB, and calls it States.Runtime.
	Serialization = "SerializationException"
)

// Error is why a request fails. Its message is DynamoDB's where that is known.
type Error struct{ Name, Message string }

func (e *Error) Error() string { return e.Name + ": " + e.Message }

// NoTable is the failure of a request whose table is not there.
func NoTable() *Error { return &Error{NotFound, "Requested resource not found"} }

func invalid(format string, args ...any) error {
	return &Error{Validation, fmt.Sprintf(format, args...)}
}

// invalidParameter begins many of DynamoDB's messages.
const invalidParameter = "One or more parameter values were invalid: "

// Schema names the attributes of a table's key: its partition key and, if it has one, its sort key.
type Schema struct{ Hash, Range string }

// ParseSchema reads a setting such as "orders=id" or "orders=customer+order": a table's name and the attributes of its key.
func ParseSchema(text string) (table string, s Schema, err error) {
	table, key, ok := strings.Cut(text, "=")
	if !ok {
		return "", Schema{}, fmt.Errorf("%q is no table: NAME=PARTITION_KEY or NAME=PARTITION_KEY+SORT_KEY", text)
	}
	if why := tableNameProblem(table); why != "" {
		return "", Schema{}, fmt.Errorf("%q: the name of a table has up to %d of a-z, A-Z, 0-9, _, . and -", text, maxTableName)
	}
	s.Hash, s.Range, ok = strings.Cut(key, "+")
	switch {
	case s.Hash == "", ok && s.Range == "", strings.ContainsRune(s.Range, '+'):
		return "", Schema{}, fmt.Errorf("%q: the key has one attribute, or two with a + between them", text)
	case s.Hash == s.Range:
		return "", Schema{}, fmt.Errorf("%q: the two attributes of the key are the same", text)
	case max(len(s.Hash), len(s.Range)) > maxKeyName:
		return "", Schema{}, fmt.Errorf("%q: the name of an attribute of a key has up to %d bytes", text, maxKeyName)
	}
	return table, s, nil
}

// String is the schema as ParseSchema reads it behind the =.
func (s Schema) String() string {
	if s.Range == "" {
		return s.Hash
	}
	return s.Hash + "+" + s.Range
}

// names are the attributes of the key.
func (s Schema) names() []string {
	if s.Range == "" {
		return []string{s.Hash}
	}
	return []string{s.Hash, s.Range}
}

// DynamoDB's limits.
const (
	maxTableName  = 255
	maxKeyName    = 255
	maxHashKey    = 2048 // bytes of the partition key's value
	maxRangeKey   = 1024
	maxItem       = 400 << 10
	maxNesting    = 32 // of an attribute's value, and of a document path
	maxExpression = 4096
	maxInOperands = 100
	maxDigits     = 38
	maxNumber     = 125 // the power of ten of a number's first digit
	minNumber     = -130
	maxIndex      = 1<<31 - 1
)

func tableNameProblem(name string) string {
	switch {
	case name == "":
		return "Value '' at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 1"
	case len(name) > maxTableName:
		return fmt.Sprintf("Value '%s' at 'tableName' failed to satisfy constraint: Member must have length less than or equal to %d", name, maxTableName)
	}
	for i := range len(name) {
		if c := name[i]; !isNamePart(c) && c != '.' && c != '-' {
			return fmt.Sprintf("Value '%s' at 'tableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+", name)
		}
	}
	return ""
}

// object is v if it is a JSON object, and nil otherwise.
func object(v any) *jsontree.Object {
	o, _ := v.(*jsontree.Object)
	return o
}
