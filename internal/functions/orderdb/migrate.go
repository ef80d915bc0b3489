package orderdb

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/weir-dev/weir/internal/secret"
)

const (
	versionTable = "orders_schema" // not goose's default: the database is the user's and may have that one
	// migrationLock is the advisory lock that one instance holds while it migrates.
	migrationLock = 0x77656972_6f7264 // "weirord"

	lockProbeSeconds, lockProbes = 1, 30
	migrateTimeout               = 5 * time.Minute // of one try; an index on a large table takes its time
	firstBackoff, maxBackoff     = 250 * time.Millisecond, 10 * time.Second
)

//go:embed migrations/*.sql
var migrations embed.FS

// Schema brings the database's schema up to date in the background and knows when it is.
type Schema struct {
	ready  chan struct{}
	done   chan struct{}
	cancel context.CancelFunc
	last   atomic.Pointer[string] // the last error's text, so that the log has each once
}

// Migrate starts the migrations and returns at once. urlFile is a file with a connection string straight to
// PostgreSQL: goose holds a session's advisory lock while it works, so that any number of instances may start at the
// same time, and behind PgBouncer a session belongs to no client. It tries until it succeeds or Close is called.
// tries until it succeeds or Close is called.
func Migrate(ctx context.Context, urlFile string, log *slog.Logger) *Schema {
	if log == nil {
		log = slog.Default()
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Schema{ready: make(chan struct{}), done: make(chan struct{}), cancel: cancel}
	url := secret.New(secret.File(urlFile), secret.Config{Name: "migration connection string", TTL: time.Second, Log: log})
	go func() {
		defer close(s.done)
		s.run(ctx, url, log)
	}()
	return s
}

// Ready is closed when the schema is up to date.
func (s *Schema) Ready() <-chan struct{} { return s.ready }

// Err returns nil once the schema is up to date, and before that what is in the way.
func (s *Schema) Err() error {
	select {
	case <-s.ready:
		return nil
	default:
	}
	if last := s.last.Load(); last != nil {
		return fmt.Errorf("the schema is not up to date yet: %s", *last)
	}
	return errors.New("the schema is not up to date yet")
}

// Close ends the migrations and waits for them. It may be called more than once.
func (s *Schema) Close() {
	s.cancel()
	<-s.done
}

func (s *Schema) run(ctx context.Context, url *secret.Cache, log *slog.Logger) {
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		err := migrateOnce(ctx, url, log)
		if err == nil {
			close(s.ready)
			return
		}
		if ctx.Err() != nil {
			return
		}
		text := err.Error()
		if last := s.last.Swap(&text); last == nil || *last != text {
			log.Warn("schema migration failed; it will be tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff/2 + rand.N(backoff/2)):
		}
	}
}

// migrateOnce creates everything for each try: goose's locker counts its tries over its lifetime.
func migrateOnce(ctx context.Context, url *secret.Cache, log *slog.Logger) (err error) {
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	v, err := url.Get(ctx)
	if err != nil {
		return err
	}
	cfg, err := parseURL(v.Text())
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*cfg.ConnConfig)
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(2) // one works, one is goose's slack

	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock), lock.WithLockTimeout(lockProbeSeconds, lockProbes))
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, folder,
		goose.WithSessionLocker(locker), goose.WithTableName(versionTable),
		goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	// Without the lock: of twenty instances that start, nineteen have nothing to wait for.
	pending, err := provider.HasPending(ctx)
	if err != nil || !pending {
		return err
	}
	applied, err := provider.Up(ctx)
	if err != nil {
		return err
	}
	for _, m := range applied {
		log.Info("schema migration applied", "version", m.Source.Version, "duration", m.Duration)
	}
	return nil
}
