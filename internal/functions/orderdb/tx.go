package orderdb

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// Tx is a transaction that Transact has begun.
type Tx struct {
	db   *DB
	conn *pgx.Conn
}

// Transact calls work within a transaction, and commits it unless work fails. Each of its statements is bounded as one of
// Exec is, and all of them together by CallTimeout. What a statement sets, locks or opens for its session ends with the transaction:
// PgBouncer gives the session to others.
func (db *DB) Transact(ctx context.Context, work func(context.Context, *Tx) error) error {
	return db.within(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := simple(ctx, conn, "BEGIN; SET LOCAL statement_timeout = "+db.timeout); err != nil {
			return err
		}
		err := work(ctx, &Tx{db, conn})
		if err == nil {
			err = simple(ctx, conn, leave+"SET LOCAL statement_timeout = "+db.timeout+"; COMMIT")
		}
		if conn.PgConn().TxStatus() != 'I' && !conn.IsClosed() {
			_ = simple(ctx, conn, "ROLLBACK; "+unlock) // if that fails within closes the connection
		}
		return err
	})
}

const (
	// unlock gives back what a rollback doesn't: locks of the session. All else that a session is given is undone by it.
	unlock = "SELECT pg_advisory_unlock_all()"
	// leave is what DISCARD ALL does, which runs in no transaction: after the transaction the session may be another client's.
	leave = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; UNLISTEN *; CLOSE ALL; " + unlock + "; DISCARD TEMP; "
)

// simple runs constant statements in one round trip.
func simple(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// Text is a statement's parameter in PostgreSQL's text notation.
type Text struct {
	OID   uint32 // 0 leaves the type to PostgreSQL
	Value []byte // nil is NULL
}

// Query runs one statement, prepares nothing, and calls read with its result, whose values are texts. PostgreSQL refuses several
// statements. An error of read ends the statement, on the server too, and is returned. Traces have the statement's first word alone:
// it may be a caller's, with values in it.
func (tx *Tx) Query(ctx context.Context, sql string, params []Text, read func(*pgconn.ResultReader) error) (tag pgconn.CommandTag, err error) {
	ctx = tx.db.tracer.TraceQueryStart(ctx, tx.conn, pgx.TraceQueryStartData{SQL: firstWord(sql)})
	defer func() { tx.db.tracer.TraceQueryEnd(ctx, tx.conn, pgx.TraceQueryEndData{CommandTag: tag, Err: err}) }()
	values, oids := make([][]byte, len(params)), make([]uint32, len(params))
	for i, p := range params {
		values[i], oids[i] = p.Value, p.OID
	}
	result := tx.conn.PgConn().ExecParams(ctx, sql, values, oids, nil, nil)
	if read != nil {
		if err = read(result); err != nil {
			_ = tx.conn.PgConn().CancelRequest(ctx) // without it Close reads the rest of the rows
		}
	}
	tag, closeErr := result.Close()
	if err == nil {
		err = closeErr
	}
	return tag, err
}

func firstWord(sql string) string {
	words := strings.Fields(sql[:min(len(sql), 64)])
	if len(words) == 0 || strings.Trim(words[0], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "" {
		return ""
	}
	return words[0]
}

// Database is the database's name, as PgBouncer knows it.
func (tx *Tx) Database() string { return tx.conn.Config().Database }

// Types know how values are written. They are the connection's, so they must not be used after the transaction.
func (tx *Tx) Types() *pgtype.Map { return tx.conn.TypeMap() }
