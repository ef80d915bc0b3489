// Package orderwriter is the sample function order-writer: a batch of orders in, one idempotent
// multi-row write to PostgreSQL through PgBouncer out. It is written as any user would write it,
// with package function and a pool; its main is services/functions/order-writer.
//
// Invariants: an order is a row under its event's id, so that a batch may be redelivered any number of times; a batch
// is one round trip; orders that cannot be rows are named and the others written; an unavailable database costs no
// order an attempt.
//
// May import: package function, orderdb.
package orderwriter

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/orderdb"
)

const (
	// StatementTimeout is enforced by the server and CallTimeout by the function. Both are well below the mapping's
	// timeout (60 s): an answer that says "not now" costs no attempt, a call that times out does.
	StatementTimeout = 15 * time.Second
	// CallTimeout bounds the wait for a connection, the statement and its answer.
	CallTimeout = 20 * time.Second

	// RetryAfter is what a batch is told while the database is unavailable.
	RetryAfter = time.Second
)

// Config of the function.
type Config struct {
	Database orderdb.Config
	// MigrateURLFile is a file with a connection string straight to PostgreSQL, for the schema's migrations. Empty
	// means that they run elsewhere.
	MigrateURLFile string
	Log            *slog.Logger // nil means slog.Default()
}

// ConfigFromEnv reads DATABASE_URL_FILE, DATABASE_MAX_CONNS and MIGRATE_DATABASE_URL_FILE.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	db, err := orderdb.ConfigFromEnv(getenv)
	if err != nil {
		return Config{}, err
	}
	db.StatementTimeout, db.CallTimeout = StatementTimeout, CallTimeout
	return Config{Database: db, MigrateURLFile: getenv("MIGRATE_DATABASE_URL_FILE")}, nil
}

// Function is the function: an http.Handler that takes CloudEvents.
type Function struct {
	http.Handler

	db      *orderdb.DB
	schema  *orderdb.Schema // nil if migrations run elsewhere
	written metric.Int64Counter
	log     *slog.Logger
}

// New returns without having connected to the database; until it is available, and its schema up to date, calls are
// answered with 503. The function works until Close, even if ctx ends.
func New(ctx context.Context, cfg Config) (*Function, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Database.Log, cfg.Database.Name = cfg.Log, "order-writer"
	written, err := otel.Meter("github.com/weir-dev/weir/internal/functions/orderwriter").Int64Counter("orders.written",
		metric.WithUnit("{order}"), metric.WithDescription("Orders that became rows, without those that were rows already."))
	if err != nil {
		return nil, fmt.Errorf("order-writer: %w", err)
	}
	db, err := orderdb.Open(ctx, cfg.Database)
	if err != nil {
		return nil, fmt.Errorf("order-writer: %w", err)
	}
	f := &Function{db: db, written: written, log: cfg.Log}
	f.Handler = function.Batch(f.write, function.Logger(cfg.Log))
	if cfg.MigrateURLFile != "" {
		f.schema = orderdb.Migrate(ctx, cfg.MigrateURLFile, cfg.Log)
	}
	return f, nil
}

// Close ends the migrations, waits for the statements in flight and closes the connections. Calls
// that come later are answered with 503. It may be called more than once.
func (f *Function) Close() {
	if f.schema != nil {
		f.schema.Close()
	}
	f.db.Close()
}

// insert is one round trip for a whole batch. ON CONFLICT covers duplicates of orders that were written before, and
// those within the batch.
const insert = `
INSERT INTO orders (id, customer, sku, quantity, body, accepted_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::json[], $6::timestamptz[])
ON CONFLICT (id) DO NOTHING`

// write implements function.BatchFunc.
func (f *Function) write(ctx context.Context, events []function.Event) (failed []function.Failure, err error) {
	if f.schema != nil {
		if err := f.schema.Err(); err != nil {
			return nil, function.NotNow(err, RetryAfter)
		}
	}
	rows, failed := f.rows(ctx, events)
	if len(rows) == 0 {
		return failed, nil
	}
	n, err := f.db.Exec(ctx, insert, columns(rows)...)
	if err != nil {
		return nil, classify(fmt.Errorf("writing %d orders: %w", len(rows), err))
	}
	f.written.Add(ctx, n)
	return failed, nil
}

// rows separates the events that cannot be rows. newRow's errors are ours and hold nothing of an order, so they go
// into the answer and the dead-letter queue.
func (f *Function) rows(ctx context.Context, events []function.Event) (rows []row, failed []function.Failure) {
	rows = make([]row, 0, len(events))
	now := time.Now()
	for i := range events {
		r, err := newRow(&events[i], now)
		if err != nil {
			failed = append(failed, function.Failure{ID: events[i].ID, Reason: err.Error()})
			f.log.LogAttrs(ctx, slog.LevelWarn, "order refused", slog.String("id", events[i].ID), slog.Any("error", err))
			continue
		}
		rows = append(rows, r)
	}
	// Two batches that hold the same orders, as after a redelivery, wait for each other's rows; in the same order they
	// cannot deadlock (40P01). Version 7 ids come almost sorted.
	slices.SortFunc(rows, func(a, b row) int { return slices.Compare(a.id[:], b.id[:]) })
	return rows, failed
}

// columns turns rows into the arrays that insert unnests.
func columns(rows []row) []orderdb.Param {
	n := len(rows)
	var (
		ids        = make([][16]byte, n)
		customers  = make([]pgtype.Text, n)
		skus       = make([]string, n)
		quantities = make([]pgtype.Int4, n)
		bodies     = make([][]byte, n)
		accepted   = make([]time.Time, n)
		texts      int
		bytes      int
	)
	for i := range rows {
		r := &rows[i]
		ids[i], customers[i], skus[i], quantities[i] = r.id, r.customer, r.sku, r.quantity
		bodies[i], accepted[i] = r.body, r.accepted
		texts += len(r.customer.String) + len(r.sku)
		bytes += len(r.body)
	}
	const header, element = 20, 8 // of an array and of each of its elements, in binary format
	return []orderdb.Param{
		{OID: pgtype.UUIDArrayOID, Value: ids, Size: header + n*(element+16)},
		{OID: pgtype.TextArrayOID, Value: customers, Size: header + n*element + texts},
		{OID: pgtype.TextArrayOID, Value: skus, Size: header + n*element + texts},
		{OID: pgtype.Int4ArrayOID, Value: quantities, Size: header + n*element},
		{OID: pgtype.JSONArrayOID, Value: bodies, Size: header + n*element + bytes},
		{OID: pgtype.TimestamptzArrayOID, Value: accepted, Size: header + n*(element+8)},
	}
}

// classify returns what an error of the database means for the batch.
func classify(err error) error {
	if orderdb.Unavailable(err) {
		return function.NotNow(err, RetryAfter)
	}
	if state, ok := orderdb.DataRefused(err); ok {
		return function.WithDetail(err, "The database refused an order of the batch (SQLSTATE "+state+").")
	}
	return err
}
