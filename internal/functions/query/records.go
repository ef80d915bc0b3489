package query

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// MaxAnswerBytes bounds an answer: a state's result can't be larger.
	MaxAnswerBytes = 256 << 10
	// maxRowBytes bounds a row, before it is in memory.
	maxRowBytes = 1 << 20
)

// answer is ExecuteStatement's, as the SDK integration of Step Functions spells it.
type answer struct {
	ColumnMetadata         []column         `json:",omitempty"`
	FormattedRecords       *string          `json:",omitempty"`
	GeneratedFields        []string         // none: of PostgreSQL they are what RETURNING says
	NumberOfRecordsUpdated int64            // by INSERT, UPDATE, DELETE and MERGE
	Records                *json.RawMessage `json:",omitempty"` // of a statement that returns rows
}

type column struct{ Label, Name, TypeName string }

// records collect what a statement returns.
type records struct {
	types          *pgtype.Map
	asJSON         bool
	decimals, long string
	columns        []column
	rows           bytes.Buffer // a JSON array, as far as it is read
}

func newRecords(types *pgtype.Map, q *request) *records {
	r := &records{types: types, asJSON: q.FormatRecordsAs == "JSON"}
	r.decimals, r.long = q.returns()
	return r
}

// read takes the rows as they come; an error ends them.
func (r *records) read(result *pgconn.ResultReader) error {
	var oids []uint32
	var names [][]byte // as JSON
	for _, f := range result.FieldDescriptions() {
		c := column{Label: f.Name, Name: f.Name}
		if t, ok := r.types.TypeForOID(f.DataTypeOID); ok {
			c.TypeName = t.Name
		}
		if r.asJSON && slices.ContainsFunc(r.columns, func(other column) bool { return other.Label == c.Label }) {
			return unsupported("two columns are named %.64q: give one another name, with AS", c.Label)
		}
		r.columns, oids, names = append(r.columns, c), append(oids, f.DataTypeOID), append(names, text(c.Label))
	}
	r.rows.WriteByte('[')
	for row := 0; result.NextRow(); row++ {
		if row > 0 {
			r.rows.WriteByte(',')
		}
		if err := r.row(oids, names, result.Values()); err != nil {
			return err
		}
	}
	r.rows.WriteByte(']')
	return nil
}

func (r *records) row(oids []uint32, names, values [][]byte) error {
	begin, end := byte('['), byte(']')
	if r.asJSON {
		begin, end = '{', '}'
	}
	r.rows.WriteByte(begin)
	for i, v := range values {
		kind, data, err := r.field(oids[i], v)
		if err != nil {
			return unsupported("column %.64q: %v", r.columns[i].Label, err)
		}
		if i > 0 {
			r.rows.WriteByte(',')
		}
		switch {
		case !r.asJSON:
			fmt.Fprintf(&r.rows, `{"%s":%s}`, kind, data)
		case kind == "IsNull":
			fmt.Fprintf(&r.rows, `%s:null`, names[i])
		default:
			fmt.Fprintf(&r.rows, `%s:%s`, names[i], data)
		}
		if r.rows.Len() > MaxAnswerBytes {
			return tooLarge()
		}
	}
	r.rows.WriteByte(end)
	return nil
}

// field is a value as the Data API shows it: the member's name, and its value as JSON.
func (r *records) field(oid uint32, v []byte) (kind string, data []byte, err error) {
	if v == nil {
		return "IsNull", []byte("true"), nil
	}
	switch oid {
	case pgtype.BoolOID:
		return "BooleanValue", strconv.AppendBool(nil, string(v) == "t"), nil
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		if r.long == "STRING" {
			return "StringValue", text(string(v)), nil
		}
		return "LongValue", v, nil
	case pgtype.Float4OID, pgtype.Float8OID:
		return "DoubleValue", number(v), nil
	case pgtype.NumericOID:
		if r.decimals == "STRING" {
			return "StringValue", text(string(v)), nil
		}
		if _, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return "LongValue", v, nil
		}
		return "DoubleValue", number(v), nil
	case pgtype.ByteaOID:
		blob, err := hex.DecodeString(strings.TrimPrefix(string(v), `\x`))
		return "BlobValue", text(base64.StdEncoding.EncodeToString(blob)), err
	case pgtype.TimestamptzOID: // the session's zone is UTC
		return "StringValue", text(strings.TrimSuffix(string(v), "+00")), nil
	}
	if t, ok := r.types.TypeForOID(oid); ok {
		if codec, isArray := t.Codec.(*pgtype.ArrayCodec); isArray {
			return r.array(oid, codec.ElementType.OID, v)
		}
	}
	return "StringValue", text(string(v)), nil
}

// array is an array of one dimension, as a list of its kind.
func (r *records) array(oid, element uint32, v []byte) (kind string, data []byte, err error) {
	if bytes.HasPrefix(v, []byte("{{")) || bytes.HasPrefix(v, []byte("[")) {
		return "", nil, fmt.Errorf("arrays of several dimensions, or that don't begin at 1, are not supported: cast it to text")
	}
	var list any
	switch element {
	case pgtype.BoolOID:
		kind, list = "BooleanValues", &[]bool{}
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		kind, list = "LongValues", &[]int64{}
	case pgtype.Float4OID, pgtype.Float8OID:
		kind, list = "DoubleValues", &[]float64{}
	default:
		kind, list = "StringValues", &[]string{}
	}
	if err := r.types.Scan(oid, pgtype.TextFormatCode, v, list); err != nil {
		return "", nil, fmt.Errorf("an array of %s with a NULL, or another that is not supported: cast it to text", kind)
	}
	if data, err = marshal(list); err != nil {
		return "", nil, fmt.Errorf("an array with a number that JSON has not: cast it to text")
	}
	if !r.asJSON {
		data = fmt.Appendf(nil, `{"%s":%s}`, kind, data)
	}
	return "ArrayValue", data, nil
}

// finish is the answer.
func (r *records) finish(q *request, tag pgconn.CommandTag) ([]byte, error) {
	a := answer{GeneratedFields: []string{}}
	if !tag.Select() {
		a.NumberOfRecordsUpdated = tag.RowsAffected()
	}
	if len(r.columns) > 0 {
		rows := r.rows.Bytes()
		if r.asJSON {
			a.FormattedRecords = new(string(rows))
		} else {
			a.Records = new(json.RawMessage(rows))
		}
		if q.IncludeResultMetadata {
			a.ColumnMetadata = r.columns
		}
	}
	body, err := marshal(a)
	if err == nil && len(body) > MaxAnswerBytes {
		err = tooLarge()
	}
	return body, err
}

func tooLarge() error {
	return unsupported("Database response exceeded size limit: the result has more than %d bytes, or a row more than %d; nothing was changed", MaxAnswerBytes, maxRowBytes)
}

// number is a number's text as JSON, which has no NaN and no infinity: AWS has texts in their place.
func number(v []byte) []byte {
	if n, err := strconv.ParseFloat(string(v), 64); err == nil && (math.IsNaN(n) || math.IsInf(n, 0)) {
		return text(string(v))
	}
	return v
}

// text is a text as JSON.
func text(s string) []byte {
	data, _ := marshal(s) // a text always marshals
	return data
}

// marshal is json.Marshal without escapes for HTML.
func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}
