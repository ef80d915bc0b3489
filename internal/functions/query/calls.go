package query

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/weir-dev/weir/internal/functions/orderdb"
)

// Whoever runs a state machine may make a call again, after a crash, with the same id. So a statement that wrote and the note of its
// answer are one transaction, and a call that has a note is answered with it.
const (
	table = "weir_calls"
	// keepNotes is how much later a call may be made again.
	keepNotes = "7 days"

	createTable = `CREATE TABLE IF NOT EXISTS ` + table + ` (id uuid PRIMARY KEY, answer text NOT NULL, at timestamptz NOT NULL DEFAULT now())`
	createIndex = `CREATE INDEX IF NOT EXISTS ` + table + `_at ON ` + table + ` (at)`

	// begin has all values come as this package reads them, and no other attempt at the same call at the same time: that one's
	// note is not to be seen yet.
	begin = `SELECT pg_try_advisory_xact_lock($1), pg_is_in_recovery(), set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true),
set_config('bytea_output', 'hex', true), set_config('extra_float_digits', '1', true)`
	find = `SELECT answer FROM ` + table + ` WHERE id = $1`
	// wrote: a transaction that changes something has an id, one that only reads has none.
	wrote = `SELECT pg_current_xact_id_if_assigned() IS NOT NULL`
	// note adds a note and removes some old ones, more than one, so that there are never more than of that time.
	note = `WITH old AS (
  DELETE FROM ` + table + ` WHERE id IN (SELECT id FROM ` + table + ` WHERE at < now() - interval '` + keepNotes + `' ORDER BY at LIMIT 10 FOR UPDATE SKIP LOCKED)
) INSERT INTO ` + table + ` (id, answer) VALUES ($1, $2)`
)

var (
	errNoTable = errors.New("the table " + table + " is missing")
	errBusy    = errors.New("the same call is being made already")
	errStandby = errors.New("the database is a standby, which takes no writes")
)

// make makes a call, and returns its answer.
func (f *Function) make(ctx context.Context, c *call) ([]byte, error) {
	body, err := f.once(ctx, c)
	if !errors.Is(err, errNoTable) {
		return body, err
	}
	err = f.db.Transact(ctx, func(ctx context.Context, tx *orderdb.Tx) error {
		_, err := tx.Query(ctx, createTable, nil, nil)
		if err == nil {
			_, err = tx.Query(ctx, createIndex, nil, nil)
		}
		return err
	})
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && !made(err) && (strings.HasPrefix(pg.Code, "42") || strings.HasPrefix(pg.Code, "3F")) { // rights, or no schema
		return nil, &failure{"RdsData.DatabaseErrorException", fmt.Sprintf(
			"the table %s, in which calls are noted, is missing, and this role may not make it (%s). Whoever may does: %s; %s; GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO ROLE",
			table, pg.Message, createTable, createIndex, table)}
	}
	if err != nil && !made(err) {
		return nil, err
	}
	return f.once(ctx, c)
}

// made reports that another has made the table at the same time.
func made(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "23505" || pg.Code == "42P07") // unique_violation of the catalog, duplicate_table
}

// once makes a call that was not made before, or else says what it was answered with.
func (f *Function) once(ctx context.Context, c *call) (body []byte, err error) {
	standby := false
	err = f.db.Transact(ctx, func(ctx context.Context, tx *orderdb.Tx) error {
		if want := c.request.Database; want != "" && want != tx.Database() {
			return &failure{"RdsData.DatabaseNotFoundException", fmt.Sprintf("this function's database is %q, not %.64q", tx.Database(), want)}
		}
		id := orderdb.Text{OID: pgtype.UUIDOID, Value: []byte(c.id.String())}
		lock := strconv.FormatInt(int64(binary.BigEndian.Uint64(c.id[8:])), 10)
		state, err := row(ctx, tx, begin, orderdb.Text{OID: pgtype.Int8OID, Value: []byte(lock)})
		if err != nil {
			return err
		}
		if state[0] != "t" {
			return errBusy
		}
		standby = state[1] == "t"
		noted, err := row(ctx, tx, find, id)
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42P01" { // undefined_table
			return errNoTable
		}
		if err != nil {
			return err
		}
		if noted != nil {
			body = []byte(noted[0])
			return nil
		}
		r := newRecords(tx.Types(), &c.request)
		tag, err := tx.Query(ctx, c.sql, c.params, r.read)
		if err != nil {
			return err
		}
		if body, err = r.finish(&c.request, tag); err != nil {
			return err
		}
		changed, err := row(ctx, tx, wrote)
		if err == nil && changed[0] == "t" {
			_, err = tx.Query(ctx, note, []orderdb.Text{id, {OID: pgtype.TextOID, Value: body}}, nil)
		}
		return err
	})
	if err != nil {
		return nil, sorted(err, c, standby)
	}
	return body, nil
}

// row is the only row of a query; nil if there is none.
func row(ctx context.Context, tx *orderdb.Tx, sql string, params ...orderdb.Text) (values []string, err error) {
	_, err = tx.Query(ctx, sql, params, func(result *pgconn.ResultReader) error {
		for result.NextRow() {
			values = nil
			for _, v := range result.Values() {
				values = append(values, string(v))
			}
		}
		return nil
	})
	return values, err
}
