// Package report is the sample function report, the read-heavy one: a query over the orders that takes as long as the
// call says, and a result of any size. Its main is services/functions/report.
//
//	POST {"seconds": 2, "rows": 1000, "format": "csv"}
//	  200 the report, as text/csv with a header line or, with "json", as one array of objects
//	  400 the body can't be read, 405, 413, 422 a value out of range
//	  503 with Retry-After while the database is unavailable
//
// All three members are optional; these are the defaults, except for seconds, which is 0. With fewer orders than rows
// the orders repeat; without any order the report is empty. As the call of a job it reports progress once a second.
//
// Invariants: it only reads; memory doesn't grow with the result; a result that can't be finished is aborted, so
// nobody takes a part for the whole; no statement outlives its bound by much, and all of them together stay below the
// Service's timeoutSeconds.
//
// May import: package function, orderdb.
package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/orderdb"
)

const (
	// MaxSeconds and CallTimeout together are below the Service's timeoutSeconds, 60.
	MaxSeconds = 30
	// MaxRows is what StatementTimeout lets through on a laptop, some 500 MB; on a busy machine it ends the statement.
	MaxRows = 5_000_000

	// StatementTimeout bounds the query of the rows, and so the time that the caller has to read them.
	StatementTimeout = 22 * time.Second
	// CallTimeout bounds the wait for a connection, the statement and its answer.
	CallTimeout = 27 * time.Second

	// RetryAfter is what the dispatcher is told while the database is unavailable.
	RetryAfter = time.Second

	defaultRows     = 1000
	maxRequestBytes = 64 << 10

	// progressTimeout is short: progress must not hold up the report.
	progressTimeout = 2 * time.Second
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
	db.StatementTimeout, db.CallTimeout = StatementTimeout, CallTimeout
	return Config{Database: db}, nil
}

// Function is the function.
type Function struct {
	db     *orderdb.DB
	client *http.Client // for progress
	log    *slog.Logger
}

// New returns without having connected to the database.
func New(ctx context.Context, cfg Config) (*Function, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Database.Log, cfg.Database.Name = cfg.Log, "report"
	db, err := orderdb.Open(ctx, cfg.Database)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	// Not http.DefaultTransport: Close closes the connections.
	client := &http.Client{Transport: &http.Transport{IdleConnTimeout: time.Minute}, Timeout: progressTimeout}
	return &Function{db: db, client: client, log: cfg.Log}, nil
}

// Close waits for the statements in flight and closes the connections. Calls that come later are
// answered with 503. It may be called more than once.
func (f *Function) Close() {
	f.db.Close()
	f.client.CloseIdleConnections()
}

// ServeHTTP answers one call.
func (f *Function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, refusal := parse(w, r)
	if refusal != nil {
		refusal.Write(w)
		return
	}
	callback := function.CallbackOf(r.Header)
	if callback != nil {
		callback.Client = f.client
	}
	out := &tracked{w: w}
	err := f.wait(r.Context(), req.Seconds, callback)
	if err == nil {
		w.Header().Set("Content-Type", req.contentType())
		err = f.write(r.Context(), out, req)
	}
	if err == nil {
		return
	}
	if orderdb.Unavailable(err) {
		err = function.NotNow(function.WithDetail(err, "The database cannot be reached now, or not in time; ask again."), RetryAfter)
	}
	p := function.ProblemOf(err)
	f.log.LogAttrs(context.WithoutCancel(r.Context()), slog.LevelWarn, "report failed",
		slog.Int("status", p.Status), slog.Bool("broken_off", out.begun), slog.Any("error", err))
	if out.begun {
		panic(http.ErrAbortHandler) // the caller must not take the part that it has for the whole
	}
	p.Write(w)
}

// request is the body of a call.
type request struct {
	Seconds float64 `json:"seconds"`
	Rows    int64   `json:"rows"`
	Format  string  `json:"format"`
}

func (r request) contentType() string {
	if r.Format == "json" {
		return "application/json"
	}
	return "text/csv; charset=utf-8"
}

func parse(w http.ResponseWriter, r *http.Request) (request, *function.Problem) {
	req := request{Rows: defaultRows, Format: "csv"}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return req, &function.Problem{
			Type: function.ProblemMethod, Title: "Method not allowed", Status: http.StatusMethodNotAllowed,
			Detail: `Reports are asked for with POST and {"seconds": 2, "rows": 1000, "format": "csv"}.`,
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err = d.Decode(&req); err == nil && d.InputOffset() < int64(len(bytes.TrimRight(body, " \t\r\n"))) {
			err = errors.New("text after the end of the object")
		}
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return req, &function.Problem{
			Type: function.ProblemTooLarge, Title: "Body too large", Status: http.StatusRequestEntityTooLarge,
			Detail: fmt.Sprintf("A request for a report has at most %d bytes.", maxRequestBytes),
		}
	}
	if err != nil {
		return req, &function.Problem{
			Type: function.ProblemBadRequest, Title: "Bad request", Status: http.StatusBadRequest,
			Detail: fmt.Sprintf(`The body must be like {"seconds": 2, "rows": 1000, "format": "csv"}: %v`, err),
		}
	}
	detail := ""
	switch {
	case req.Seconds < 0 || req.Seconds > MaxSeconds:
		detail = fmt.Sprintf("seconds is a number from 0 to %d.", MaxSeconds)
	case req.Rows < 0 || req.Rows > MaxRows:
		detail = fmt.Sprintf("rows is a number from 0 to %d.", MaxRows)
	case req.Format != "csv" && req.Format != "json":
		detail = `format is "csv" or "json".`
	default:
		return req, nil
	}
	return req, &function.Problem{
		Type: function.ProblemPermanent, Title: "Out of range", Status: http.StatusUnprocessableEntity, Detail: detail,
	}
}

// wait keeps the database busy for that many seconds, in steps of at most one: orderdb doesn't cancel a statement when
// its caller goes away, so the end of ctx is noticed between two of them.
func (f *Function) wait(ctx context.Context, seconds float64, callback *function.Callback) error {
	steps := int(math.Ceil(seconds))
	for i := range steps {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("waiting: %w", err)
		}
		err := f.db.Query(ctx, func(pgx.Rows) error { return nil }, `SELECT pg_sleep($1::float8)`, seconds/float64(steps))
		if err != nil {
			return fmt.Errorf("waiting: %w", err)
		}
		done := float64(i+1) / float64(steps)
		err = callback.Progress(ctx, math.Round(100*done), fmt.Sprintf("%.3g of %g s", seconds*done, seconds))
		switch {
		case errors.Is(err, function.ErrAttemptOver):
			return err
		case err != nil: // lost progress must not fail the report
			f.log.LogAttrs(ctx, slog.LevelDebug, "progress not reported", slog.Any("error", err))
		}
	}
	return nil
}
