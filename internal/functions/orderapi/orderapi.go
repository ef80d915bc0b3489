// Package orderapi is the sample function order-api, the synchronous one: it reads orders from
// PostgreSQL through PgBouncer. Its main is services/functions/order-api.
//
//	GET /orders/{id}       200 the order, 400 the id is no UUID, 404 no such order
//	GET /orders?limit=N    200 {"orders": […]}, newest first; N from 1 to 100, 20 by default; 400
//
// Both answer 503 with Retry-After while the database is unavailable. Errors are application/problem+json.
//
// Invariants: it only reads; every answer comes within CallTimeout, well below a gateway's 29 s.
//
// May import: package function, orderdb.
package orderapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/orderdb"
)

const (
	// StatementTimeout is enforced by the server. It is short: a client waits for the answer.
	StatementTimeout = 2 * time.Second
	// CallTimeout bounds the wait for a connection, the statement and its answer: 3 s for one of the instance's own, of
	// which it has fewer than calls, as long in PgBouncer's queue, and what orderdb.Config asks for.
	CallTimeout = 9 * time.Second

	// RetryAfter is what a client is told while the database is unavailable.
	RetryAfter = time.Second

	defaultLimit, maxLimit = 20, 100
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
	http.Handler

	db  *orderdb.DB
	log *slog.Logger
}

// New returns without having connected to the database.
func New(ctx context.Context, cfg Config) (*Function, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Database.Log, cfg.Database.Name = cfg.Log, "order-api"
	db, err := orderdb.Open(ctx, cfg.Database)
	if err != nil {
		return nil, fmt.Errorf("order-api: %w", err)
	}
	f := &Function{db: db, log: cfg.Log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders/{id}", f.get)
	mux.HandleFunc("GET /orders", f.list)
	mux.HandleFunc("/", notFound)
	f.Handler = mux
	return f, nil
}

// Close waits for the reads in flight and closes the connections. Calls that come later are
// answered with 503. It may be called more than once.
func (f *Function) Close() { f.db.Close() }

// Order is an order in an answer.
type Order struct {
	ID         uuid.UUID       `json:"id"`
	AcceptedAt time.Time       `json:"acceptedAt"` // the 202
	CreatedAt  time.Time       `json:"createdAt"`  // the row
	Order      json.RawMessage `json:"order"`      // as the client posted it, except for white space
}

type orderList struct {
	Orders []Order `json:"orders"`
}

func (f *Function) get(w http.ResponseWriter, r *http.Request) {
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil || len(r.PathValue("id")) != 36 {
		badRequest("An order's id is a UUID, such as 0192f3a0-6e1c-7cc0-8d5b-2f1b7f0b7a11.").Write(w)
		return
	}
	orders, err := f.read(r.Context(), `SELECT id, accepted_at, created_at, body FROM orders WHERE id = $1`, id.String())
	switch {
	case err != nil:
		f.refuse(w, r, err)
	case len(orders) == 0:
		function.Problem{
			Type: function.ProblemNotFound, Title: "No such order", Status: http.StatusNotFound,
			Detail: "There is no order with this id. An order that was accepted a moment ago may not be written yet: ask again.",
		}.Write(w)
	default:
		f.answer(w, r, orders[0])
	}
}

func (f *Function) list(w http.ResponseWriter, r *http.Request) {
	limit := defaultLimit
	if q := r.URL.Query(); q.Has("limit") {
		n, err := strconv.Atoi(q.Get("limit"))
		if err != nil || n < 1 || n > maxLimit {
			badRequest(fmt.Sprintf("limit is a number from 1 to %d; without it %d orders are listed.", maxLimit, defaultLimit)).Write(w)
			return
		}
		limit = n
	}
	orders, err := f.read(r.Context(), `SELECT id, accepted_at, created_at, body FROM orders ORDER BY accepted_at DESC, id DESC LIMIT $1`, limit)
	if err != nil {
		f.refuse(w, r, err)
		return
	}
	f.answer(w, r, orderList{Orders: orders})
}

func (f *Function) read(ctx context.Context, sql string, args ...any) ([]Order, error) {
	orders := []Order{}
	err := f.db.Query(ctx, func(rows pgx.Rows) error {
		var o Order
		var id [16]byte
		if err := rows.Scan(&id, &o.AcceptedAt, &o.CreatedAt, (*[]byte)(&o.Order)); err != nil {
			return err
		}
		o.ID, o.AcceptedAt, o.CreatedAt = id, o.AcceptedAt.UTC(), o.CreatedAt.UTC()
		orders = append(orders, o)
		return nil
	}, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading orders: %w", err)
	}
	return orders, nil
}

func (f *Function) answer(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		f.refuse(w, r, fmt.Errorf("encoding the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // an error means that the client is gone
}

func (f *Function) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if orderdb.Unavailable(err) {
		err = function.NotNow(function.WithDetail(err, "The database cannot be reached now; ask again."), RetryAfter)
	}
	p := function.ProblemOf(err)
	f.log.LogAttrs(context.WithoutCancel(r.Context()), slog.LevelWarn, "order-api refused a request",
		slog.Int("status", p.Status), slog.Any("error", err))
	p.Write(w)
}

func badRequest(detail string) function.Problem {
	return function.Problem{
		Type: function.ProblemBadRequest, Title: "Bad request", Status: http.StatusBadRequest, Detail: detail,
	}
}

func notFound(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		function.Problem{
			Type: function.ProblemMethod, Title: "Method not allowed", Status: http.StatusMethodNotAllowed,
			Detail: "This function only reads: GET /orders and GET /orders/{id}.",
		}.Write(w)
		return
	}
	function.Problem{
		Type: function.ProblemNotFound, Title: "No such path", Status: http.StatusNotFound,
		Detail: "There are /orders and /orders/{id}.",
	}.Write(w)
}
