package orderwriter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/weir-dev/weir/function"
)

// row is an order as the table holds it.
type row struct {
	id       uuid.UUID
	customer pgtype.Text
	sku      string
	quantity pgtype.Int4
	body     []byte // the whole order, JSON
	accepted time.Time
}

// newRow makes a row of an event, or returns why it can't, in an error that quotes nothing of the order. now stands in
// for a missing ce-time.
func newRow(e *function.Event, now time.Time) (row, error) {
	id, err := uuid.Parse(e.ID)
	if err != nil || len(e.ID) != 36 {
		return row{}, errors.New("id: not a UUID")
	}
	if !function.IsJSON(e.DataContentType) {
		return row{}, errors.New("content type: not JSON")
	}
	if len(e.Data) == 0 || e.Data[0] != '{' {
		return row{}, errors.New("not a JSON object")
	}
	if err := storable(e.Data); err != nil {
		return row{}, err
	}
	r := row{id: id, body: e.Data, accepted: e.Time}
	if err := r.read(e.Data); err != nil {
		return row{}, err
	}
	if r.sku == "" {
		return row{}, errors.New("sku: missing")
	}
	if r.accepted.IsZero() {
		r.accepted = now
	}
	return r, nil
}

// Why a member's value is refused.
var (
	errNotText    = errors.New("not a string")
	errNotInteger = errors.New("not an integer")
	errRange      = errors.New("out of range")
)

// read takes from an order what the table has columns for; the rest is the customer's. Of a duplicate member the last
// one counts, as for PostgreSQL's operators.
func (r *row) read(order []byte) error {
	var wrong error
	err := function.Members(order, func(name, value []byte) (err error) {
		switch string(name) {
		case "customer":
			r.customer, err = readText(value)
		case "sku":
			var sku pgtype.Text
			sku, err = readText(value)
			r.sku = sku.String
		case "quantity":
			r.quantity, err = readInteger(value)
		}
		if err != nil {
			wrong = fmt.Errorf("%s: %w", name, err)
		}
		return err
	})
	switch {
	case wrong != nil:
		return wrong
	case err != nil:
		return errors.New("not valid JSON")
	}
	return nil
}

// readText decodes a string; null is the same as absent.
func readText(value []byte) (v pgtype.Text, err error) {
	if string(value) == "null" {
		return v, nil
	}
	if err := json.Unmarshal(value, &v.String); err != nil {
		return v, errNotText // encoding/json's error quotes the order
	}
	v.Valid = true
	return v, nil
}

// readInteger decodes an integer of PostgreSQL's 4 bytes; null is the same as absent.
func readInteger(value []byte) (v pgtype.Int4, err error) {
	if string(value) == "null" {
		return v, nil
	}
	n, err := strconv.ParseInt(string(value), 10, 32)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return v, errRange
	case err != nil:
		return v, errNotInteger
	}
	return pgtype.Int4{Int32: int32(n), Valid: true}, nil
}

var errHalf = errors.New("holds half of a surrogate pair")

// storable refuses JSON that is valid and that PostgreSQL cannot hold, or would hold only until
// somebody reads it with an operator or casts it to jsonb: text that isn't UTF-8, the character
// U+0000, and halves of surrogate pairs.
func storable(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 || i+1 >= len(b) {
			return nil
		}
		b = b[i:]
		if b[1] != 'u' {
			b = b[2:]
			continue
		}
		switch r := hex4(b); {
		case r == 0:
			return errors.New("holds the character U+0000, which PostgreSQL doesn't store")
		case r >= 0xDC00 && r <= 0xDFFF:
			return errHalf
		case r >= 0xD800 && r <= 0xDBFF:
			if b = b[6:]; len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
				return errHalf
			}
			if low := hex4(b); low < 0xDC00 || low > 0xDFFF {
				return errHalf
			}
			fallthrough
		default:
			b = b[min(6, len(b)):]
		}
	}
}

// hex4 returns the number of the escape sequence \uXXXX at the start of b, -1 if it is cut short.
func hex4(b []byte) (r int) {
	if len(b) < 6 {
		return -1
	}
	for _, c := range b[2:6] {
		r <<= 4
		switch {
		case c >= '0' && c <= '9':
			r |= int(c - '0')
		case c >= 'a' && c <= 'f':
			r |= int(c - 'a' + 10)
		case c >= 'A' && c <= 'F':
			r |= int(c - 'A' + 10)
		default:
			return -1
		}
	}
	return r
}
