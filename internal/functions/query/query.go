// Package query is the function query, for tasks of state machines: one statement of SQL, given and answered in the shape of
// ExecuteStatement of the Amazon RDS Data API as the SDK integration of Step Functions spells it, through PgBouncer. Its main is
// services/functions/query.
//
//	POST {"Sql": "SELECT sku FROM orders WHERE id = :id", "Parameters": [{"Name": "id", "TypeHint": "UUID", "Value": {"StringValue": "…"}}]}
//	  200 {"GeneratedFields": [], "NumberOfRecordsUpdated": 0, "Records": [[{"StringValue": "book-42"}]]}
//	  400 {"error": "RdsData.DatabaseErrorException", "cause": "…"}, and others of the Data API's names; 405
//	  409 {"error": "Weir.CallInProgress", …} while the same call is being made
//	503 with Retry-After while the database is unavailable
//
// The header ce-id is the call's id, a UUID.
//
// Invariants: a call that is made again with its id changes nothing again, for a week, and gets the answer that it had; a call that
// fails has changed nothing; memory doesn't grow with the result; no statement outlives its bound by much; nothing of a session
// outlives a call. Whoever may call it may run SQL as its role.
//
// May import: package function, orderdb.
package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/orderdb"
)

const (
	// StatementTimeout is the Data API's.
	StatementTimeout = 45 * time.Second
	// CallTimeout bounds the wait for a connection, the statement and its answer, below the Service's timeoutSeconds, 60.
	CallTimeout = 52 * time.Second

	// RetryAfter is what a caller is told while the database is unavailable.
	RetryAfter = time.Second
)

// Config of the function.
type Config struct {
	Database orderdb.Config
	Log      *slog.Logger // nil means slog.Default()
}

// ConfigFromEnv reads DATABASE_URL_FILE and DATABASE_MAX_CONNS.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	db, err := orderdb.ConfigFromEnv(getenv)
	if err != nil {
		return Config{}, err
	}
	db.StatementTimeout, db.CallTimeout, db.MaxMessageBytes = StatementTimeout, CallTimeout, maxRowBytes
	return Config{Database: db}, nil
}

// Function is the function.
type Function struct {
	db  *orderdb.DB
	log *slog.Logger
}

// New returns without having connected to the database.
func New(ctx context.Context, cfg Config) (*Function, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Database.Log, cfg.Database.Name = cfg.Log, "query"
	db, err := orderdb.Open(ctx, cfg.Database)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return &Function{db: db, log: cfg.Log}, nil
}

// Close waits for the statements in flight and closes the connections. Calls that come later are
// answered with 503. It may be called more than once.
func (f *Function) Close() { f.db.Close() }

// ServeHTTP answers one call.
func (f *Function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		function.Problem{
			Type: function.ProblemMethod, Title: "Method not allowed", Status: http.StatusMethodNotAllowed,
			Detail: `A statement is run with POST and {"Sql": "…"}.`,
		}.Write(w)
		return
	}
	c, err := parse(w, r)
	var body []byte
	if err == nil {
		body, err = f.make(r.Context(), c)
	}
	if err != nil {
		f.logFailure(r.Context(), refuse(w, err), err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) //nolint:gosec // it is JSON, as its Content-Type says; an error means that the caller is gone
}

// logFailure says what failed, without the values that the text of a database's error may quote.
func (f *Function) logFailure(ctx context.Context, status int, err error) {
	attrs := []slog.Attr{slog.Int("status", status)}
	said, isSaid := errors.AsType[*failure](err)
	pg, isPg := errors.AsType[*pgconn.PgError](err)
	switch {
	case isSaid:
		attrs = append(attrs, slog.String("error", said.Name))
	case isPg:
		attrs = append(attrs, slog.String("error", "SQLSTATE "+pg.Code))
	default:
		attrs = append(attrs, slog.Any("error", err))
	}
	f.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelWarn, "statement failed", attrs...)
}
