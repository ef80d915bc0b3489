package localdb

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// DB is a running PostgreSQL and PgBouncer. Its methods may be called from
// several goroutines; starts and stops take turns.
type DB struct {
	config   Config
	programs programs
	folder   *folder
	secrets  secrets
	ports    ports
	lost     chan error

	mu        sync.Mutex // serialises starts and stops, and guards what follows
	postgres  *process   // nil when stopped on purpose
	pgbouncer *process
	stopped   bool
}

// Start starts both servers and returns when a query through PgBouncer has
// been answered. ctx bounds the start only; the servers run until Stop.
//
// Errors: ErrInUse, *MissingError, and others that carry the last lines of
// the server's log.
func Start(ctx context.Context, config Config) (*DB, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("localdb: not ready after %v", startTimeout))
	defer cancel()

	folder, err := openFolder(ctx, config)
	if err != nil {
		return nil, err
	}
	db := &DB{config: config, folder: folder, lost: make(chan error, 2)}
	if err := db.start(ctx); err != nil {
		// The start's context may be over; the stop has its own bounds.
		return nil, errors.Join(err, db.Stop(context.WithoutCancel(ctx)))
	}
	return db, nil
}

func (db *DB) start(ctx context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()

	var err error
	if db.programs, err = findPrograms(ctx, db.folder); err != nil {
		return err
	}
	if db.secrets, err = db.folder.loadSecrets(); err != nil {
		return err
	}
	db.ports = db.folder.loadPorts()
	if err := db.initialise(ctx); err != nil {
		return err
	}
	if err := db.startPostgres(ctx, true); err != nil {
		return err
	}
	if err := db.startPgBouncer(ctx, true); err != nil {
		return err
	}
	if err := db.folder.savePorts(db.ports); err != nil {
		return err
	}
	return db.pingPool(ctx)
}

// PoolURL is the connection string through PgBouncer, in transaction mode:
// clients must not rely on prepared statements or on session state.
func (db *DB) PoolURL() string { return db.url(db.ports.PgBouncer, User, db.secrets.user, Database) }

// DirectURL is the connection string to PostgreSQL itself.
func (db *DB) DirectURL() string { return db.url(db.ports.Postgres, User, db.secrets.user, Database) }

// AdminURL is the connection string to PgBouncer's console (SHOW POOLS). The
// console knows the simple query protocol only (pgx.QueryExecModeSimpleProtocol).
func (db *DB) AdminURL() string {
	return db.url(db.ports.PgBouncer, User, db.secrets.user, "pgbouncer")
}

// SuperuserURL is the connection string to PostgreSQL itself as its superuser.
func (db *DB) SuperuserURL() string {
	return db.url(db.ports.Postgres, superuser, db.secrets.superuser, Database)
}

func (db *DB) url(port int, user, password, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(user, password),
		Host:     loopback + ":" + strconv.Itoa(port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable", // psql and libpq would ask for TLS first: a round trip
	}
	return u.String()
}

// Home is the folder that holds data and logs: Config.Dir, or the one that
// stands in for it.
func (db *DB) Home() string { return db.folder.home }

// Lost receives an error when a server ends that nobody stopped. It is never
// closed; at most two errors wait in it, more are dropped (each is logged).
func (db *DB) Lost() <-chan error { return db.lost }

// PostgresPID is the process id of PostgreSQL's postmaster, 0 when stopped.
func (db *DB) PostgresPID() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.postgres.pid()
}

// PgBouncerPID is the process id of PgBouncer, 0 when stopped.
func (db *DB) PgBouncerPID() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.pgbouncer.pid()
}

// StartPostgres starts PostgreSQL again, on the same port, after StopPostgres
// or after it was killed. It returns when PostgreSQL answers; nothing happens
// when it runs.
func (db *DB) StartPostgres(ctx context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.stopped {
		return ErrStopped
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return db.startPostgres(ctx, false)
}

// StopPostgres ends PostgreSQL: sessions are cut, transactions in flight are
// rolled back. Nothing happens when it does not run.
func (db *DB) StopPostgres(ctx context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.stopPostgres(ctx)
}

// StartPgBouncer starts PgBouncer again, on the same port, whether or not
// PostgreSQL runs.
func (db *DB) StartPgBouncer(ctx context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.stopped {
		return ErrStopped
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return db.startPgBouncer(ctx, false)
}

// StopPgBouncer ends PgBouncer: running transactions may finish for two
// seconds, then clients are cut.
func (db *DB) StopPgBouncer(ctx context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.stopPgBouncer(ctx)
}

// Stop ends both servers, PgBouncer first, and releases the folder. It always
// ends them, even when ctx is over: then without waiting for a checkpoint.
// An error says that PostgreSQL had to be killed. Calling
// it again does nothing.
func (db *DB) Stop(ctx context.Context) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.stopped {
		return nil
	}
	db.stopped = true
	err := errors.Join(db.stopPgBouncer(ctx), db.stopPostgres(ctx))
	return errors.Join(err, db.folder.close())
}

// Remove removes what Start left in dir, and the folder that stands in for
// it. It refuses with ErrInUse while an instance runs there, and refuses a
// folder that Start did not make.
func Remove(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("localdb: remove %s: %w", dir, err)
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(standIn(dir))
	}
	lock, err := claim(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := errors.Join(os.RemoveAll(standIn(dir)), os.RemoveAll(dir)); err != nil {
		return fmt.Errorf("localdb: remove %s: %w", dir, err)
	}
	return nil
}
