package orderdb

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// unavailableError marks that no connection could be acquired, for whatever reason: the pool is closed or exhausted,
// the address refuses, the password is being rotated.
type unavailableError struct{ err error }

func (e unavailableError) Error() string { return e.err.Error() }
func (e unavailableError) Unwrap() error { return e.err }

// Unavailable reports whether err means that the database cannot be used now and no record is to blame. The statement
// may have been executed all the same, when the connection broke before the answer came: a write that is repeated must
// be idempotent.
func Unavailable(err error) bool {
	if err == nil {
		return false
	}
	if _, ok := errors.AsType[unavailableError](err); ok {
		return true
	}
	// Before PgError: a failed connection attempt wraps the server's answer.
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return unavailableState(pg.Code)
	}
	var network net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), pgconn.Timeout(err),
		errors.Is(err, pgconn.ErrConnClosed), errors.Is(err, net.ErrClosed),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.As(err, &network):
		return true
	}
	return false
}

// unavailableState sorts SQLSTATEs (PostgreSQL documentation, appendix A).
func unavailableState(code string) bool {
	switch code {
	case "57014", // query_canceled: statement_timeout, or an operator
		"57P01", // admin_shutdown
		"57P02", // crash_shutdown
		"57P03", // cannot_connect_now: starting up
		"57P05", // idle_session_timeout
		"55P03", // lock_not_available
		"57P04", // database_dropped
		"25006", // read_only_sql_transaction: a standby, in the middle of a failover
		"26000": // invalid_sql_statement_name: a pool without prepared statements
		return true
	}
	for _, class := range []string{
		"08", // connection exceptions, and all of PgBouncer's own errors (08P01: "server login has been failing", query_wait_timeout, …)
		"28", // authorisation: a password that is being rotated
		"3D", // invalid_catalog_name: the database isn't there (yet)
		"3F", // invalid_schema_name
		"42", // the statement against the schema: not migrated yet, a grant revoked. No order can cause it, the text is constant
		"40", // serialization_failure, deadlock_detected
		"53", // insufficient resources: too_many_connections, disk_full
		"58", // system errors: I/O
	} {
		if strings.HasPrefix(code, class) {
			return true
		}
	}
	return false
}

// DataRefused reports whether the database refused the data (SQLSTATE classes 22 and 23), and the SQLSTATE. Its
// message must not reach a caller: it may quote the data.
func DataRefused(err error) (sqlstate string, ok bool) {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23")) {
		return pg.Code, true
	}
	return "", false
}
