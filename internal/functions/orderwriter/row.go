package orderwriter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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

// newRow makes a row of an event, or says why there cannot be one. now stands in for a ce-time that
// is missing.
func newRow(e *function.Event, now time.Time) (row, error) {
	id, err := uuid.Parse(e.ID)
	if err != nil || len(e.ID) != 36 {
		return row{}, errors.New("its id is not a UUID")
	}
	if !function.IsJSON(e.DataContentType) {
		return row{}, fmt.Errorf("its content type %.60q is not JSON", e.DataContentType)
	}
	if len(e.Data) == 0 || e.Data[0] != '{' {
		return row{}, errors.New("it is not a JSON object")
	}
	if err := storable(e.Data); err != nil {
		return row{}, err
	}
	r := row{id: id, body: e.Data, accepted: e.Time}
	if err := r.read(e.Data); err != nil {
		return row{}, err
	}
	if r.sku == "" {
		return row{}, errors.New("it has no sku")
	}
	if r.accepted.IsZero() {
		r.accepted = now
	}
	return r, nil
}

var errType = errors.New("the wrong type, or out of range")

// read takes from an order what the table has columns for; the rest is its customer's business. A
// repeated member counts as it does for PostgreSQL's operators: the last one.
func (r *row) read(order []byte) error {
	var wrong string
	err := function.Members(order, func(name, value []byte) (err error) {
		switch string(name) {
		case "customer":
			err = read(value, &r.customer.String, &r.customer.Valid)
		case "sku":
			var present bool
			err = read(value, &r.sku, &present)
		case "quantity":
			err = read(value, &r.quantity.Int32, &r.quantity.Valid)
		}
		if err != nil {
			wrong = string(name)
		}
		return err
	})
	switch {
	case errors.Is(err, errType):
		return fmt.Errorf("its %s is of %w", wrong, err)
	case err != nil:
		return fmt.Errorf("it is not valid JSON: %w", err)
	}
	return nil
}

// read decodes a member's value; null is the same as absent.
func read[T string | int32](value []byte, to *T, present *bool) error {
	var v T
	*to, *present = v, false
	if string(value) == "null" {
		return nil
	}
	if err := json.Unmarshal(value, &v); err != nil {
		return errType // encoding/json's error quotes the order
	}
	*to, *present = v, true
	return nil
}

// storable refuses JSON that is valid and that PostgreSQL cannot hold, or would hold only until
// somebody reads it with an operator or casts it to jsonb: text that isn't UTF-8, the character
// U+0000, and halves of surrogate pairs.
func storable(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("it is not UTF-8")
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
			return errors.New("it holds the character U+0000, which PostgreSQL doesn't store")
		case r >= 0xDC00 && r <= 0xDFFF:
			return errors.New("it holds half of a surrogate pair")
		case r >= 0xD800 && r <= 0xDBFF:
			if b = b[6:]; len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
				return errors.New("it holds half of a surrogate pair")
			}
			if low := hex4(b); low < 0xDC00 || low > 0xDFFF {
				return errors.New("it holds half of a surrogate pair")
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
