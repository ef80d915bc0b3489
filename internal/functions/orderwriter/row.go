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

// order is what the table has columns for; the rest of an order is its customer's business.
type order struct {
	Customer *string `json:"customer"`
	SKU      *string `json:"sku"`
	Quantity *int32  `json:"quantity"`
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
	var o order
	if err := json.Unmarshal(e.Data, &o); err != nil {
		return row{}, describe(err)
	}
	if o.SKU == nil || *o.SKU == "" {
		return row{}, errors.New("it has no sku")
	}
	r := row{id: id, sku: *o.SKU, body: e.Data, accepted: e.Time}
	if o.Customer != nil {
		r.customer = pgtype.Text{String: *o.Customer, Valid: true}
	}
	if o.Quantity != nil {
		r.quantity = pgtype.Int4{Int32: *o.Quantity, Valid: true}
	}
	if r.accepted.IsZero() {
		r.accepted = now
	}
	return r, nil
}

// describe drops the order's content from a decoding error.
func describe(err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) && wrongType.Field != "" {
		return fmt.Errorf("its %s has the wrong type, or is out of range", wrongType.Field)
	}
	return errors.New("it is not valid JSON")
}

// storable refuses JSON that encoding/json accepts and jsonb doesn't: text that isn't UTF-8, the
// character U+0000, and halves of surrogate pairs.
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
