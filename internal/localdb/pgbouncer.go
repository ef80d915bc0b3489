package localdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// startPgBouncer starts PgBouncer unless it runs, and waits until its console answers; PostgreSQL may be unavailable
// meanwhile.
func (db *DB) startPgBouncer(ctx context.Context, mayMove bool) error {
	if !db.pgbouncer.ended() {
		return nil
	}
	ini := db.folder.path("pgbouncer.ini")
	found, err := db.folder.endLeftover(ctx, "PgBouncer", db.folder.path("pgbouncer.pid"), ini, syscall.SIGINT)
	if err != nil {
		return err
	}
	if found {
		db.config.Log.Warn("ended a PgBouncer that an earlier run left over in this folder")
	}

	for attempt := 1; ; attempt++ {
		if mayMove {
			if db.ports.PgBouncer, err = choosePort(ctx, db.config.PgBouncerPort, db.ports.PgBouncer, db.ports.Postgres); err != nil {
				return err
			}
		}
		db.config.Log.Info("starting PgBouncer", "port", db.ports.PgBouncer, "pool", db.config.PoolSize, "log", db.folder.path("pgbouncer.log"))
		err := db.tryPgBouncer(ctx, ini)
		var exit *exitError
		if errors.As(err, &exit) && mayMove && db.config.PgBouncerPort == 0 && attempt < portAttempts && !portFree(ctx, db.ports.PgBouncer) {
			continue // another process took the port after it was chosen
		}
		return err
	}
}

func (db *DB) tryPgBouncer(ctx context.Context, ini string) error {
	// Plain text: PgBouncer needs the password itself to log in to PostgreSQL.
	if err := db.folder.write(db.folder.path("userlist.txt"), fmt.Sprintf("%q %q\n", User, db.secrets.user)); err != nil {
		return err
	}
	if err := db.folder.write(ini, db.pgbouncerConfig()); err != nil {
		return err
	}
	log, err := db.folder.openLog("pgbouncer.log")
	if err != nil {
		return err
	}
	p, err := db.folder.start(ctx, command{
		name: "PgBouncer", path: db.programs.pgbouncer, args: []string{ini},
		death: syscall.SIGKILL, // it has no state
		lost:  db.reportLoss,
	}, log)
	if err != nil {
		return err
	}
	err = db.folder.write(db.folder.path("pgbouncer.pid"), strconv.Itoa(p.child.PID())+"\n")
	if err == nil {
		err = p.poll(ctx, func(ctx context.Context) error {
			// The console knows no extended protocol.
			return query(ctx, db.AdminURL(), pgx.QueryExecModeSimpleProtocol, "SHOW VERSION")
		})
	}
	if err != nil {
		return errors.Join(err, stopFailed(ctx, p))
	}
	p.wanted.Store(true)
	db.pgbouncer = p
	return nil
}

// pgbouncerConfig holds what PgBouncer 1.18 (Debian 12) and newer know.
func (db *DB) pgbouncerConfig() string {
	lines := []string{
		"; Written by Weir's localdb at each start.",
		"[databases]",
		fmt.Sprintf("%s = host=%s port=%d dbname=%s", Database, loopback, db.ports.Postgres, Database),
		"[pgbouncer]",
		"listen_addr = " + loopback,
		fmt.Sprintf("listen_port = %d", db.ports.PgBouncer),
		"unix_socket_dir =",
		"auth_type = scram-sha-256",
		"auth_file = " + db.folder.path("userlist.txt"),
		"admin_users = " + User,
		"pool_mode = transaction",
		fmt.Sprintf("default_pool_size = %d", db.config.PoolSize),
		// The pool's size is the cap, however many users and databases there are.
		fmt.Sprintf("max_db_connections = %d", db.config.PoolSize),
		"reserve_pool_size = 0",
		fmt.Sprintf("max_client_conn = %d", db.config.MaxClientConn),
		// Several drivers send it at every start; it changes floats' text only.
		"ignore_startup_parameters = extra_float_digits",
		// An outage must be noticed soon, and its end as well.
		"server_connect_timeout = 3",
		"server_login_retry = 1",
		fmt.Sprintf("query_wait_timeout = %d", QueryWaitSeconds),
		// A line for each connection would drown the rest.
		"log_connections = 0",
		"log_disconnections = 0",
	}
	return strings.Join(lines, "\n") + "\n"
}

func (db *DB) stopPgBouncer(ctx context.Context) error {
	p := db.pgbouncer
	db.pgbouncer = nil
	if p.ended() {
		return nil
	}
	db.config.Log.Info("stopping PgBouncer")
	// SIGINT lets transactions finish, in every version; SIGTERM does not mean
	// the same before and after 1.23. Clients that keep their transactions open
	// are cut by the kill, which loses nothing: PgBouncer keeps nothing.
	err := p.stop(ctx, pgbouncerGrace, syscall.SIGINT)
	if _, killed := errors.AsType[*killedError](err); killed {
		err = nil
	}
	return errors.Join(err, os.Remove(db.folder.path("pgbouncer.pid")))
}

// pingPool asks PostgreSQL through PgBouncer: passwords and connections work.
func (db *DB) pingPool(ctx context.Context) error {
	err := db.pgbouncer.poll(ctx, func(ctx context.Context) error {
		return query(ctx, db.PoolURL(), pgx.QueryExecModeExec, "select 1")
	})
	if err != nil {
		return fmt.Errorf("localdb: ask PostgreSQL through PgBouncer: %w", err)
	}
	return nil
}
