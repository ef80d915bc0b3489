package localdb

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Names in every instance.
const (
	User     = "weir" // owns Database; no superuser
	Database = "weir"
)

// QueryWaitSeconds is PgBouncer's query_wait_timeout. A client must wait longer for its answer, by its statement's
// timeout and more: PgBouncer closes a server connection when it is the turn of a client that gave up in its queue.
const QueryWaitSeconds = 3

const (
	defaultPoolSize      = 10
	defaultMaxClientConn = 500

	// Connections PostgreSQL takes beyond PgBouncer's pool: migrations and
	// tests that connect directly.
	directConnections = 40

	// startTimeout bounds a start, crash recovery included.
	startTimeout = 60 * time.Second
	// stopTimeout bounds each step of a stop: asked kindly, asked firmly, killed.
	stopTimeout = 20 * time.Second
	// pollInterval is the pause between two checks of a server that is starting.
	pollInterval = 20 * time.Millisecond
	// connectTimeout bounds one attempt to connect while waiting for a start.
	connectTimeout = 2 * time.Second
	// pgbouncerGrace is how long PgBouncer may wait for running transactions at a stop.
	pgbouncerGrace = 2 * time.Second
	// maxLogBytes: a server's log larger than this is set aside, once, at its start.
	maxLogBytes = 16 << 20
)

// ErrInUse is returned by Start and Remove when another DB, in this process
// or another, holds the folder.
var ErrInUse = errors.New("localdb: the folder is in use by a running instance")

// ErrStopped is returned by calls on a DB after Stop.
var ErrStopped = errors.New("localdb: stopped")

// MissingError is returned by Start when a program is not installed.
type MissingError struct {
	Program  string   // "postgres and initdb", "pgbouncer"
	Searched []string // the places looked at, in order
	Install  string   // what to do about it
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("localdb: %s not found (looked in %v): %s", e.Program, e.Searched, e.Install)
}

// Config says where and how the two servers run.
type Config struct {
	// Dir holds data, logs and passwords. It is created; it must be empty or a folder that Start made before. Empty
	// means a temporary folder, which Stop removes.
	//
	// When root starts the servers and the user "postgres" cannot get to Dir
	// (below /root, or in a t.TempDir), the files are in a folder below
	// /var/lib/weir named after Dir; DB.Home and the log tell. Remove finds both.
	Dir string

	// Log gets each step of starting and stopping; nil if disabled.
	Log *slog.Logger

	PoolSize      int // PgBouncer's server connections at most; default 10
	MaxClientConn int // PgBouncer's client connections at most; default 500

	// Ports on 127.0.0.1. Zero means the port of the last start in Dir if it is free, else a free one.
	PostgresPort  int
	PgBouncerPort int

	// Fast starts sooner and takes less memory, for tests: small buffers, no
	// sync of the empty data folder. Commits are synced as ever.
	Fast bool
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.PoolSize == 0 {
		c.PoolSize = defaultPoolSize
	}
	if c.MaxClientConn == 0 {
		c.MaxClientConn = defaultMaxClientConn
	}
	return c
}

// Validate reports every field that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.PoolSize < 0 || c.PoolSize > 1000 {
		errs = append(errs, fmt.Errorf("localdb: PoolSize is %d; use 1 to 1000, or 0 for %d", c.PoolSize, defaultPoolSize))
	}
	if c.MaxClientConn < 0 {
		errs = append(errs, fmt.Errorf("localdb: MaxClientConn is %d; use a positive number, or 0 for %d", c.MaxClientConn, defaultMaxClientConn))
	}
	for _, port := range []struct {
		name  string
		value int
	}{{"PostgresPort", c.PostgresPort}, {"PgBouncerPort", c.PgBouncerPort}} {
		if port.value < 0 || port.value > 65535 {
			errs = append(errs, fmt.Errorf("localdb: %s is %d; use 1 to 65535, or 0 for a free port", port.name, port.value))
		}
	}
	if c.PostgresPort != 0 && c.PostgresPort == c.PgBouncerPort {
		errs = append(errs, fmt.Errorf("localdb: PostgresPort and PgBouncerPort are both %d; they must differ", c.PostgresPort))
	}
	return errors.Join(errs...)
}
