package localdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// superuser is PostgreSQL's own; the user weir is an ordinary one, as in production, so that nothing comes to depend
// on more rights.
const superuser = "postgres"

// initialise makes the data folder, once. Everything is done in data.new;
// the rename is what makes it data.
func (db *DB) initialise(ctx context.Context) error {
	version, err := db.folder.dataVersion()
	if err != nil || version != "" {
		return err
	}
	db.config.Log.Info("making a data folder for PostgreSQL", "folder", db.folder.data())
	unfinished := db.folder.path("data.new")
	passwordFile := db.folder.path("superuser")
	if err := errors.Join(os.RemoveAll(unfinished), os.RemoveAll(db.folder.data())); err != nil {
		return fmt.Errorf("localdb: remove an unfinished data folder: %w", err)
	}
	args := []string{
		"--pgdata=" + unfinished, "--username=" + superuser, "--pwfile=" + passwordFile,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
	}
	if db.config.Fast {
		args = append(args, "--no-sync")
	}
	if err := db.folder.run(ctx, "", db.programs.initdb, args...); err != nil {
		return err
	}
	// Single-user mode: one statement a line, no server to start and stop.
	statements := fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'\nCREATE DATABASE %s OWNER %s\n",
		User, db.secrets.user, Database, User)
	if err := db.folder.run(ctx, statements, db.programs.postgres, "--single", "-c", "exit_on_error=on", "-D", unfinished, "postgres"); err != nil {
		return err
	}
	if err := os.Rename(unfinished, db.folder.data()); err != nil {
		return fmt.Errorf("localdb: put the data folder in place: %w", err)
	}
	return nil
}

// startPostgres starts PostgreSQL unless it runs, and waits until it answers. mayMove allows another port when the one
// it had is taken.
func (db *DB) startPostgres(ctx context.Context, mayMove bool) error {
	if !db.postgres.ended() {
		return nil
	}
	data := db.folder.data()
	found, err := db.folder.endLeftover(ctx, "PostgreSQL", filepath.Join(data, "postmaster.pid"), data, syscall.SIGINT, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	if found {
		db.config.Log.Warn("ended a PostgreSQL that an earlier run left over in this folder")
	}

	for attempt := 1; ; attempt++ {
		if mayMove {
			if db.ports.Postgres, err = choosePort(ctx, db.config.PostgresPort, db.ports.Postgres, db.ports.PgBouncer); err != nil {
				return err
			}
		}
		db.config.Log.Info("starting PostgreSQL", "port", db.ports.Postgres, "log", db.folder.path("postgres.log"))
		err := db.tryPostgres(ctx)
		var exit *exitError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &exit):
			return err
		case strings.Contains(exit.tail, "pre-existing shared memory block"):
			// Sessions of a postmaster that was killed notice within moments.
			if !pause(ctx, 100*time.Millisecond) {
				return err
			}
		case mayMove && db.config.PostgresPort == 0 && attempt < portAttempts && !portFree(ctx, db.ports.Postgres):
			// Another process took the port after it was chosen.
		default:
			return err
		}
	}
}

func (db *DB) tryPostgres(ctx context.Context) error {
	data := db.folder.data()
	if err := db.folder.write(filepath.Join(data, "postgresql.conf"), db.postgresConfig()); err != nil {
		return err
	}
	access := "# Written by Weir's localdb at each start.\nhost all all " + loopback + "/32 scram-sha-256\n"
	if err := db.folder.write(filepath.Join(data, "pg_hba.conf"), access); err != nil {
		return err
	}
	log, err := db.folder.openLog("postgres.log")
	if err != nil {
		return err
	}
	p, err := db.folder.start(ctx, command{
		name: "PostgreSQL", path: db.programs.postgres, args: []string{"-D", data},
		death: syscall.SIGINT, // fast shutdown: sessions are cut, a checkpoint is written
		lost:  db.reportLoss,
	}, log)
	if err != nil {
		return err
	}
	err = p.poll(ctx, func(ctx context.Context) error {
		return query(ctx, db.DirectURL(), pgx.QueryExecModeExec, "select 1")
	})
	if err != nil {
		return errors.Join(err, stopFailed(ctx, p))
	}
	p.wanted.Store(true)
	db.postgres = p
	return nil
}

// postgresConfig is the whole of postgresql.conf. What is not here has
// PostgreSQL's default; ALTER SYSTEM still overrides it.
func (db *DB) postgresConfig() string {
	sharedBuffers := "256MB"
	if db.config.Fast {
		sharedBuffers = "32MB"
	}
	lines := []string{
		"# Written by Weir's localdb at each start; use ALTER SYSTEM for changes of your own.",
		"listen_addresses = '" + loopback + "'",
		// No Unix socket: its path may hold 107 bytes only, and one way in is enough.
		"unix_socket_directories = ''",
		fmt.Sprintf("port = %d", db.ports.Postgres),
		fmt.Sprintf("max_connections = %d", db.config.PoolSize+directConnections),
		"password_encryption = scram-sha-256",
		"shared_buffers = " + sharedBuffers,
		// Explicit although they are the defaults: Weir's guarantees depend on them.
		"fsync = on",
		"synchronous_commit = on",
		"full_page_writes = on",
		"log_line_prefix = '%m [%p] '",
		"log_timezone = UTC",
		"timezone = UTC",
		"logging_collector = off",
	}
	return strings.Join(lines, "\n") + "\n"
}

func (db *DB) stopPostgres(ctx context.Context) error {
	p := db.postgres
	db.postgres = nil
	if p.ended() {
		return nil
	}
	db.config.Log.Info("stopping PostgreSQL")
	// Fast, then immediate shutdown. Smart shutdown would wait for clients.
	return p.stop(ctx, stopTimeout, syscall.SIGINT, syscall.SIGQUIT)
}

// stopFailed ends a server whose start failed.
func stopFailed(ctx context.Context, p *process) error {
	if p.ended() {
		return nil
	}
	return p.stop(context.WithoutCancel(ctx), stopTimeout, syscall.SIGINT, syscall.SIGQUIT)
}

// reportLoss never blocks: it runs on the goroutine that waits for a server.
func (db *DB) reportLoss(err error) {
	db.config.Log.Error("a database server is gone", "error", err)
	select {
	case db.lost <- err:
	default:
	}
}

// query connects, runs one statement and disconnects.
func query(ctx context.Context, url string, mode pgx.QueryExecMode, statement string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("localdb: parse the connection string: %w", err)
	}
	config.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	rows, err := conn.Query(ctx, statement)
	if err != nil {
		return err
	}
	rows.Close()
	return rows.Err()
}

// pause waits; false when ctx is over first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
