package orderdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/weir-dev/weir/internal/secret"
)

// DB is a pool of connections. It connects when it is first used.
type DB struct {
	pool    *pgxpool.Pool
	url     *secret.Cache
	timeout string // statement_timeout in milliseconds
	cfg     Config
	tracer  *otelpgx.Tracer
	unwatch func() // ends the metrics of the pool
}

// Open reads the connection string and returns without connecting. An error means that the
// configuration is wrong, not that the database is away.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	db := &DB{
		url: secret.New(secret.File(cfg.URLFile), secret.Config{
			Name: "database connection string", TTL: cfg.SecretTTL, Log: cfg.Log,
		}),
		timeout: strconv.FormatInt(cfg.StatementTimeout.Milliseconds(), 10),
		cfg:     cfg,
		tracer:  newTracer(cfg.Telemetry),
	}
	url, err := db.url.Get(ctx)
	if err != nil {
		return nil, err
	}
	poolCfg, err := parseURL(url.Text())
	if err != nil {
		return nil, err
	}
	poolCfg.MaxConns = cfg.MaxConns
	poolCfg.MinConns = 0 // lazy: a function that starts beside its database must not depend on it
	poolCfg.MaxConnLifetime = maxConnLifetime
	poolCfg.MaxConnLifetimeJitter = maxConnLifetime / 10
	poolCfg.MaxConnIdleTime = maxConnIdleTime
	poolCfg.BeforeConnect = db.refreshURL
	poolCfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	poolCfg.PrepareConn = prepareConn
	poolCfg.ConnConfig.Tracer = traced(db.tracer)
	poolCfg.ConnConfig.MaxProtocolMessageBodyLen = cfg.MaxMessageBytes
	// The pool's context is only for what it opens ahead of need, which is nothing.
	db.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), poolCfg)
	if err != nil {
		return nil, fmt.Errorf("making the pool: %w", err)
	}
	if db.unwatch, err = watchPool(db.pool, cfg.Name, cfg.Telemetry); err != nil {
		db.pool.Close()
		return nil, fmt.Errorf("metrics of the pool: %w", err)
	}
	return db, nil
}

// Close waits for the statements in flight, which are bounded, and closes the connections.
func (db *DB) Close() {
	db.unwatch()
	db.pool.Close()
}

// refreshURL gives a new connection the current connection string.
func (db *DB) refreshURL(ctx context.Context, cfg *pgx.ConnConfig) error {
	url, err := db.url.Get(ctx)
	if err != nil {
		return err
	}
	fresh, err := parseURL(url.Text())
	if err != nil {
		return err
	}
	fresh.ConnConfig.Tracer, fresh.ConnConfig.MaxProtocolMessageBodyLen = cfg.Tracer, cfg.MaxProtocolMessageBodyLen
	*cfg = *fresh.ConnConfig
	return nil
}

// within calls work with a connection and a context of its own: a caller that goes away ends the wait for a
// connection, but not a statement in flight. However long the first took, the second has what PgBouncer's queue and the
// server may take.
func (db *DB) within(ctx context.Context, work func(context.Context, *pgx.Conn) error) error {
	deadline := time.Now().Add(db.cfg.CallTimeout)
	waiting, cancel := context.WithTimeout(ctx, db.cfg.acquireTimeout())
	defer cancel()
	conn, err := db.pool.Acquire(waiting)
	if err != nil {
		if _, refused := errors.AsType[*pgconn.ConnectError](err); refused {
			db.url.Expire() // perhaps it was rotated
		}
		return fmt.Errorf("connecting: %w", unavailableError{err})
	}
	defer conn.Release() // a connection that is broken or inside a transaction is closed here
	working, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	return work(working, conn.Conn())
}

// Param is a statement's parameter: a value and the type that the statement gives it.
type Param struct {
	OID   uint32 // such as pgtype.UUIDArrayOID
	Value any
	Size  int // about how many bytes the value takes; saves copying
}

// Exec runs one statement and returns how many rows it changed: one round trip, in a transaction of
// its own, bounded. The parameters are sent in PostgreSQL's binary format with the unnamed
// statement, whatever the query exec mode: pgx's exec mode would send arrays as text, every quote
// of every order escaped here and unescaped there.
func (db *DB) Exec(ctx context.Context, sql string, params ...Param) (int64, error) {
	var changed int64
	err := db.within(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		var tag pgconn.CommandTag
		ctx = db.tracer.TraceQueryStart(ctx, conn, pgx.TraceQueryStartData{SQL: sql})
		defer func() { db.tracer.TraceQueryEnd(ctx, conn, pgx.TraceQueryEndData{CommandTag: tag, Err: err}) }()
		batch := &pgconn.Batch{}
		batch.ExecParams(setTimeout, [][]byte{[]byte(db.timeout)}, nil, nil, nil)
		values, oids, formats, err := encode(conn.TypeMap(), params)
		if err != nil {
			return err
		}
		batch.ExecParams(sql, values, oids, formats, nil)
		results, err := conn.PgConn().ExecBatch(ctx, batch).ReadAll()
		if err != nil {
			return err
		}
		tag = results[len(results)-1].CommandTag
		changed = tag.RowsAffected()
		return nil
	})
	return changed, err
}

// setTimeout lasts until the end of the transaction, which is the end of the round trip. It is a
// function, not SET LOCAL, because that wants a BEGIN, and BEGIN a COMMIT.
const setTimeout = "SELECT set_config('statement_timeout', $1, true)"

func encode(types *pgtype.Map, params []Param) (values [][]byte, oids []uint32, formats []int16, err error) {
	for i, p := range params {
		v, err := types.Encode(p.OID, pgtype.BinaryFormatCode, p.Value, make([]byte, 0, p.Size))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("encoding $%d: %w", i+1, err)
		}
		values, oids, formats = append(values, v), append(oids, p.OID), append(formats, pgtype.BinaryFormatCode)
	}
	return values, oids, formats, nil
}

// Query runs one statement and calls scan for each row as it comes: one round trip, bounded. An error of
// scan ends it, on the server too, and is returned.
func (db *DB) Query(ctx context.Context, scan func(pgx.Rows) error, sql string, args ...any) error {
	return db.within(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		var tag pgconn.CommandTag
		ctx = db.tracer.TraceQueryStart(ctx, conn, pgx.TraceQueryStartData{SQL: sql})
		defer func() { db.tracer.TraceQueryEnd(ctx, conn, pgx.TraceQueryEndData{CommandTag: tag, Err: err}) }()
		batch := &pgx.Batch{}
		batch.Queue(setTimeout, db.timeout)
		batch.Queue(sql, args...)
		results := conn.SendBatch(ctx, batch)
		tag, err = readRows(results, func(rows pgx.Rows) error {
			err := scan(rows)
			if err != nil {
				_ = conn.PgConn().CancelRequest(ctx) // without it closing the rows reads the rest of them
			}
			return err
		})
		if closeErr := results.Close(); err == nil {
			err = closeErr
		}
		return err
	})
}

func readRows(results pgx.BatchResults, scan func(pgx.Rows) error) (pgconn.CommandTag, error) {
	if _, err := results.Exec(); err != nil {
		return pgconn.CommandTag{}, err
	}
	rows, err := results.Query()
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return pgconn.CommandTag{}, err
		}
	}
	return rows.CommandTag(), rows.Err()
}
