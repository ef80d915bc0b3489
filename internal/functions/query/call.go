package query

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/weir-dev/weir/internal/functions/orderdb"
)

const (
	maxRequestBytes = 1 << 20  // a task's payload has at most 256 KiB, as JSON that escapes less
	maxSQLBytes     = 64 << 10 // as the Data API
	maxParameters   = 1000
)

// request is ExecuteStatement's, as the SDK integration of Step Functions spells it.
type request struct {
	ResourceArn, SecretArn string // it has come to this function, which has a role of its own
	Database               string
	SQL                    string `json:"Sql"`
	Parameters             []parameter
	IncludeResultMetadata  bool
	FormatRecordsAs        string
	ResultSetOptions       struct{ DecimalReturnType, LongReturnType string }
	Schema, TransactionID  string
	ContinueAfterTimeout   bool
}

type parameter struct {
	Name, TypeHint string
	Value          value
}

// value is a parameter's: one of them.
type value struct {
	IsNull       *bool
	BooleanValue *bool
	LongValue    *int64
	DoubleValue  *float64
	StringValue  *string
	BlobValue    *[]byte
	ArrayValue   *struct {
		BooleanValues []bool
		LongValues    []int64
		DoubleValues  []float64
		StringValues  []string
		ArrayValues   json.RawMessage
	}
}

// call is a request that can be made.
type call struct {
	id      uuid.UUID // the same when it is made again
	request request
	scanned
	params []orderdb.Text
}

// parse reads a call. An error is for its caller.
func parse(w http.ResponseWriter, r *http.Request) (*call, error) {
	c := &call{}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err = d.Decode(&c.request); err == nil && d.InputOffset() < int64(len(bytes.TrimRight(body, " \t\r\n"))) {
			err = errors.New("text after the end of the object")
		}
	}
	if err != nil {
		return nil, badRequest("the request is not ExecuteStatement's: %v", err)
	}
	if c.id, err = uuid.Parse(r.Header.Get("Ce-Id")); err != nil {
		return nil, badRequest("ce-id must be the call's id, a UUID, by which it is made once: Weir sends it")
	}
	if err := c.request.check(); err != nil {
		return nil, err
	}
	if c.scanned, err = scan(c.request.SQL); err != nil {
		return nil, badRequest("Sql: %v", err)
	}
	if !slices.Contains(statements(), c.first) {
		return nil, badRequest("a statement can't begin with %.20q: it is a call of its own, in a transaction of its own, and may begin with %s",
			c.first, strings.Join(statements(), ", "))
	}
	return c, c.bind()
}

// statements are the words that statements may begin with. Not among them are those that end the transaction or that are about a
// session, which a call has none of.
func statements() []string {
	return []string{
		"SELECT", "VALUES", "TABLE", "WITH", "(", "SHOW", "EXPLAIN", "INSERT", "UPDATE", "DELETE", "MERGE", "CALL", "DO", "CREATE", "ALTER",
		"DROP", "TRUNCATE", "COMMENT", "GRANT", "REVOKE", "REFRESH", "ANALYZE", "NOTIFY",
	}
}

// check refuses what is not supported: nothing that is asked for is left out without a word.
func (q *request) check() error {
	options := q.ResultSetOptions
	switch {
	case q.SQL == "":
		return badRequest("Sql is missing")
	case len(q.SQL) > maxSQLBytes:
		return badRequest("Sql has %d bytes, of at most %d", len(q.SQL), maxSQLBytes)
	case len(q.Parameters) > maxParameters:
		return badRequest("there are %d Parameters, of at most %d", len(q.Parameters), maxParameters)
	case q.TransactionID != "":
		return badRequest("TransactionId is not supported: each call is a transaction of its own")
	case q.Schema != "":
		return badRequest("Schema is not supported: write schema.table in Sql")
	case q.ContinueAfterTimeout:
		return badRequest("ContinueAfterTimeout is not supported: a statement ends after %v", StatementTimeout)
	case !slices.Contains([]string{"", "NONE", "JSON"}, q.FormatRecordsAs):
		return badRequest("FormatRecordsAs is NONE or JSON, not %.20q", q.FormatRecordsAs)
	case !slices.Contains([]string{"", "STRING", "DOUBLE_OR_LONG"}, options.DecimalReturnType):
		return badRequest("DecimalReturnType is STRING or DOUBLE_OR_LONG, not %.20q", options.DecimalReturnType)
	case !slices.Contains([]string{"", "STRING", "LONG"}, options.LongReturnType):
		return badRequest("LongReturnType is STRING or LONG, not %.20q", options.LongReturnType)
	}
	return nil
}

// bind finds the values of the names in Sql.
func (c *call) bind() error {
	given := map[string]orderdb.Text{}
	for _, p := range c.request.Parameters {
		text, err := p.text()
		if err != nil {
			return badRequest("parameter %.64q: %v", p.Name, err)
		}
		if _, twice := given[p.Name]; twice {
			return badRequest("parameter %.64q is given twice", p.Name)
		}
		if !slices.Contains(c.names, p.Name) {
			return badRequest("parameter %.64q is not in Sql", p.Name)
		}
		given[p.Name] = text
	}
	for _, name := range c.names {
		text, ok := given[name]
		if !ok {
			return badRequest("Sql has :%.64s, and there is no parameter of that name (a colon that is none has a space behind it)", name)
		}
		c.params = append(c.params, text)
	}
	return nil
}

// text is the parameter as it is sent. Its type is the value's or the hint's, as in the Data API; Sql casts it to others.
func (p parameter) text() (orderdb.Text, error) {
	hints := map[string]uint32{
		"": pgtype.TextOID, "DATE": pgtype.DateOID, "DECIMAL": pgtype.NumericOID, "JSON": pgtype.JSONOID, "TIME": pgtype.TimeOID,
		"TIMESTAMP": pgtype.TimestampOID, "UUID": pgtype.UUIDOID,
	}
	hint, known := hints[p.TypeHint]
	if !known {
		return orderdb.Text{}, fmt.Errorf("TypeHint is DATE, DECIMAL, JSON, TIME, TIMESTAMP or UUID, not %.20q", p.TypeHint)
	}
	var all []orderdb.Text
	one := func(oid uint32, text string) { all = append(all, orderdb.Text{OID: oid, Value: []byte(text)}) }
	v := p.Value
	if v.IsNull != nil && *v.IsNull {
		if p.TypeHint == "" {
			hint = 0
		}
		all = append(all, orderdb.Text{OID: hint})
	}
	if v.StringValue != nil {
		if strings.ContainsRune(*v.StringValue, 0) {
			return orderdb.Text{}, errors.New("PostgreSQL has no texts with a zero byte")
		}
		one(hint, *v.StringValue)
	} else if p.TypeHint != "" && len(all) == 0 {
		return orderdb.Text{}, errors.New("TypeHint belongs to a StringValue")
	}
	if v.BooleanValue != nil {
		one(pgtype.BoolOID, strconv.FormatBool(*v.BooleanValue))
	}
	if v.LongValue != nil {
		one(pgtype.Int8OID, strconv.FormatInt(*v.LongValue, 10))
	}
	if v.DoubleValue != nil {
		one(pgtype.Float8OID, strconv.FormatFloat(*v.DoubleValue, 'g', -1, 64))
	}
	if v.BlobValue != nil {
		one(pgtype.ByteaOID, `\x`+hex.EncodeToString(*v.BlobValue))
	}
	if a := v.ArrayValue; a != nil {
		switch {
		case a.ArrayValues != nil:
			return orderdb.Text{}, errors.New("arrays of arrays are not supported")
		case a.BooleanValues != nil:
			one(pgtype.BoolArrayOID, array(a.BooleanValues, strconv.FormatBool))
		case a.LongValues != nil:
			one(pgtype.Int8ArrayOID, array(a.LongValues, func(n int64) string { return strconv.FormatInt(n, 10) }))
		case a.DoubleValues != nil:
			one(pgtype.Float8ArrayOID, array(a.DoubleValues, func(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }))
		case a.StringValues != nil:
			one(pgtype.TextArrayOID, array(a.StringValues, func(s string) string {
				return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
			}))
		}
	}
	if len(all) != 1 {
		return orderdb.Text{}, fmt.Errorf("it has %d values: Value is one of IsNull (true), BooleanValue, LongValue, DoubleValue, StringValue, BlobValue and ArrayValue", len(all))
	}
	return all[0], nil
}

// array is an array's text.
func array[T any](values []T, text func(T) string) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = text(v)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// returns are how numbers are returned. As JSON they are numbers, unless it is said otherwise.
func (q *request) returns() (decimals, longs string) {
	decimals = "STRING"
	if q.FormatRecordsAs == "JSON" {
		decimals = "DOUBLE_OR_LONG"
	}
	return cmp.Or(q.ResultSetOptions.DecimalReturnType, decimals), cmp.Or(q.ResultSetOptions.LongReturnType, "LONG")
}
