// Package orderdb is how the sample functions reach their database: a pool of connections to
// PgBouncer in transaction mode, the schema's migrations, and an answer to the one question that an
// error poses to a function: is the database unavailable, or is it the records?
//
// Invariants:
//   - Nothing here blocks or fails at start because the database is unavailable.
//   - Nothing relies on the state of a session: behind PgBouncer two statements may reach two server
//     connections.
//   - A statement is bounded by statement_timeout, on the server, sent along with it in one round
//     trip. A context's deadline would close the connection and leave the server working, which is
//     one connection more than the pool allows. So would a call that gives up in PgBouncer's queue:
//     when it is its turn, PgBouncer has a server connection for nobody, and closes it. The deadline
//     is there all the same, after query_wait_timeout and statement_timeout, for a network or a
//     PgBouncer that doesn't answer.
//   - Nothing is asked of PgBouncer before the statement: a call waits in its queue once.
//   - A caller that goes away doesn't end a statement in flight, for the same reason. One that takes rows
//     ends it by an error of its scan: the server is asked to stop, and the connection is kept.
//   - The connection string is read from a file, kept, and read again for new connections.
//   - A span has a statement's text, with its placeholders, and none of its values.
//
// May import: pgx, otelpgx, goose, internal/secret, internal/telemetry.
package orderdb
