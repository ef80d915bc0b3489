package report

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// bufferBytes of a result are buffered: an error before they are full still gets an error answer.
const bufferBytes = 32 << 10

// query repeats the orders as often as it takes, oldest first. LATERAL keeps the order: each lap walks the index
// again. Without orders there is no lap. The series is in the select list because as a table it would be materialized.
const query = `
SELECT o.id, o.sku, o.quantity, o.customer, o.accepted_at
FROM (SELECT generate_series(1, $1::bigint) AS n WHERE EXISTS (SELECT FROM orders)) AS lap
CROSS JOIN LATERAL (
  SELECT id, sku, quantity, customer, accepted_at FROM orders WHERE lap.n > 0 ORDER BY accepted_at, id LIMIT $1::bigint
) AS o
LIMIT $1::bigint`

// row of a report.
type row struct {
	Row        int64     `json:"row"` // from 1
	ID         uuid.UUID `json:"id"`
	SKU        string    `json:"sku"`
	Quantity   *int32    `json:"quantity"`
	Customer   *string   `json:"customer"`
	AcceptedAt time.Time `json:"acceptedAt"`
}

// write streams the rows. An error of the query may come after a part has been sent.
func (f *Function) write(ctx context.Context, w io.Writer, req request) error {
	buffer := bufio.NewWriterSize(w, bufferBytes)
	var enc encoder = &csvEncoder{w: csv.NewWriter(buffer)}
	if req.Format == "json" {
		enc = &jsonEncoder{w: buffer}
	}
	if err := enc.begin(); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	var r row
	err := f.db.Query(ctx, func(rows pgx.Rows) error {
		var id [16]byte
		if err := rows.Scan(&id, &r.SKU, &r.Quantity, &r.Customer, &r.AcceptedAt); err != nil {
			return err
		}
		r.Row, r.ID, r.AcceptedAt = r.Row+1, id, r.AcceptedAt.UTC()
		return errors.Join(enc.row(&r), ctx.Err())
	}, query, req.Rows)
	if err != nil {
		return fmt.Errorf("reading orders: %w", err)
	}
	if err := errors.Join(enc.end(), buffer.Flush()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// encoder writes one format.
type encoder interface {
	begin() error
	row(r *row) error
	end() error
}

type csvEncoder struct {
	w      *csv.Writer
	fields [6]string
}

func (e *csvEncoder) begin() error {
	return e.w.Write([]string{"row", "id", "sku", "quantity", "customer", "acceptedAt"})
}

func (e *csvEncoder) row(r *row) error {
	e.fields = [...]string{strconv.FormatInt(r.Row, 10), r.ID.String(), r.SKU, "", "", r.AcceptedAt.Format(time.RFC3339Nano)}
	if r.Quantity != nil {
		e.fields[3] = strconv.Itoa(int(*r.Quantity))
	}
	if r.Customer != nil {
		e.fields[4] = *r.Customer
	}
	return e.w.Write(e.fields[:])
}

func (e *csvEncoder) end() error {
	e.w.Flush()
	return e.w.Error()
}

type jsonEncoder struct {
	w    *bufio.Writer
	rows bool
}

func (e *jsonEncoder) begin() error { return e.w.WriteByte('[') }

func (e *jsonEncoder) row(r *row) error {
	object, err := json.Marshal(r)
	if err != nil {
		return err
	}
	separator := ",\n"
	if !e.rows {
		e.rows, separator = true, "\n"
	}
	_, err = e.w.WriteString(separator)
	if err == nil {
		_, err = e.w.Write(object)
	}
	return err
}

func (e *jsonEncoder) end() error {
	_, err := e.w.WriteString("\n]\n")
	return err
}

// tracked knows whether a part of the answer has been sent.
type tracked struct {
	w     http.ResponseWriter
	begun bool
}

func (t *tracked) Write(p []byte) (int, error) {
	t.begun = true
	return t.w.Write(p)
}
