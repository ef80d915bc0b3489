package orderdb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/weir-dev/weir/internal/functions/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

var quiet = slog.New(slog.DiscardHandler)

// modes are what a pool may be capable of: "" is Debian's PgBouncer 1.18. Prepared statements
// through the same PgBouncer would break, so cache_statement goes straight to PostgreSQL.
var modes = []string{"", "exec", "simple_protocol", "cache_describe", "cache_statement"}

func modeURL(t testing.TB, mode string) string {
	db := dbtest.DB(t)
	switch mode {
	case "":
		return db.PoolURL()
	case "cache_statement":
		return dbtest.WithParam(t, db.DirectURL(), "default_query_exec_mode", mode)
	default:
		return dbtest.WithParam(t, db.PoolURL(), "default_query_exec_mode", mode)
	}
}

func open(t testing.TB, url string, change func(*Config)) *DB {
	t.Helper()
	cfg := Config{URLFile: dbtest.File(t, url), MaxConns: 2, StatementTimeout: 5 * time.Second, CallTimeout: 10 * time.Second, Log: quiet}
	if change != nil {
		change(&cfg)
	}
	db, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func ping(ctx context.Context, db *DB) error {
	return db.Query(ctx, func(pgx.Rows) error { return nil }, `SELECT 1`)
}

func TestConfigFromEnv(t *testing.T) {
	env := map[string]string{}
	getenv := func(k string) string { return env[k] }
	if _, err := ConfigFromEnv(getenv); err == nil || !strings.Contains(err.Error(), "DATABASE_URL_FILE") {
		t.Fatal(err)
	}
	env["DATABASE_URL_FILE"] = "/x"
	if cfg, err := ConfigFromEnv(getenv); err != nil || cfg.MaxConns != 4 || cfg.URLFile != "/x" {
		t.Fatal(cfg, err)
	}
	env["DATABASE_MAX_CONNS"] = "9"
	if cfg, err := ConfigFromEnv(getenv); err != nil || cfg.MaxConns != 9 {
		t.Fatal(cfg, err)
	}
	for _, s := range []string{"0", "-1", "x", "9999999999"} {
		env["DATABASE_MAX_CONNS"] = s
		if _, err := ConfigFromEnv(getenv); err == nil || !strings.Contains(err.Error(), "DATABASE_MAX_CONNS") {
			t.Fatal(s, err)
		}
	}
}

func TestOpenRefusesBadConfig(t *testing.T) {
	good := Config{URLFile: dbtest.File(t, "postgres://u:hunter2@127.0.0.1:1/d"), MaxConns: 1, StatementTimeout: time.Second, CallTimeout: 6 * time.Second, Log: quiet}
	for name, change := range map[string]func(*Config){
		"no file":         func(c *Config) { c.URLFile += "x" },
		"URLFile":         func(c *Config) { c.URLFile = "" },
		"MaxConns":        func(c *Config) { c.MaxConns = 0 },
		"StatementTime":   func(c *Config) { c.StatementTimeout = 0 },
		"CallTimeout":     func(c *Config) { c.CallTimeout-- },
		"QueueTimeout":    func(c *Config) { c.QueueTimeout = QueueTimeout + 1 },
		"QueueTimeout 0":  func(c *Config) { c.QueueTimeout = -1 },
		"not a URL":       func(c *Config) { c.URLFile = dbtest.File(t, "postgres://u:hunter2@%zz:x/d") },
		"unknown mode":    func(c *Config) { c.URLFile = dbtest.File(t, "postgres://u:hunter2@h/d?default_query_exec_mode=x") },
		"ambiguous value": func(c *Config) { c.URLFile = dbtest.File(t, "host = h password = hunter2 port") },
	} {
		cfg := good
		change(&cfg)
		db, err := Open(t.Context(), cfg)
		if err == nil {
			db.Close()
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error leaks the password: %v", name, err)
		}
	}
	db, err := Open(t.Context(), good) // nobody listens there: that is no reason to fail
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := ping(t.Context(), db); !Unavailable(err) {
		t.Fatalf("%v is not classed as unavailable", err)
	}
}

func TestExecModes(t *testing.T) {
	for mode, want := range map[string]pgx.QueryExecMode{
		"": pgx.QueryExecModeExec, "?default_query_exec_mode=exec": pgx.QueryExecModeExec,
		"?default_query_exec_mode=cache_statement": pgx.QueryExecModeCacheStatement,
		"?default_query_exec_mode=simple_protocol": pgx.QueryExecModeSimpleProtocol,
	} {
		cfg, err := parseURL("postgres://u:p@h/d" + mode)
		if err != nil || cfg.ConnConfig.DefaultQueryExecMode != want {
			t.Errorf("%q: %v %v, want %v", mode, cfg.ConnConfig.DefaultQueryExecMode, err, want)
		}
	}
	for _, mode := range modes {
		t.Run("mode "+mode, func(t *testing.T) {
			url := modeURL(t, mode)
			db := open(t, url, nil)
			direct := dbtest.Connect(t, dbtest.DB(t).DirectURL())
			mustExec(t, direct, `DROP TABLE IF EXISTS numbers`)
			mustExec(t, direct, `CREATE TABLE numbers (n integer PRIMARY KEY, s text)`)
			for want := range 2 { // again: by now a statement may be prepared
				n, err := db.Exec(t.Context(), `INSERT INTO numbers SELECT * FROM unnest($1::integer[], $2::text[]) ON CONFLICT DO NOTHING`,
					Param{OID: pgtype.Int4ArrayOID, Value: []int32{1, 2, 3}}, Param{OID: pgtype.TextArrayOID, Value: []pgtype.Text{{String: `"{é`, Valid: true}, {}, {Valid: true}}})
				if err != nil || n != int64(3*(1-want)) {
					t.Fatalf("%d rows, %v", n, err)
				}
			}
			for range 2 {
				var got []string
				err := db.Query(t.Context(), func(rows pgx.Rows) error {
					var n int
					var s *string
					if err := rows.Scan(&n, &s); err != nil {
						return err
					}
					if s != nil {
						got = append(got, fmt.Sprint(n, *s))
					}
					return nil
				}, `SELECT n, s FROM numbers WHERE n <= $1 ORDER BY n`, 3)
				if err != nil || fmt.Sprint(got) != `[1"{é 3]` {
					t.Fatalf("%v %v", got, err)
				}
			}
			stop := errors.New("enough")
			if err := db.Query(t.Context(), func(pgx.Rows) error { return stop }, `SELECT n FROM numbers`); !errors.Is(err, stop) {
				t.Fatal(err)
			}
			if _, err := db.Exec(t.Context(), `INSERT INTO numbers VALUES (1)`); err == nil || Unavailable(err) {
				t.Fatalf("a conflict: %v", err)
			} else if state, ok := DataRefused(err); !ok || state != "23505" {
				t.Fatalf("a conflict: %q %v", state, err)
			}
			if err := ping(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			if n := db.pool.Stat().NewConnsCount(); n != 1 {
				t.Fatalf("%d connections were opened: an error must not cost one", n)
			}
		})
	}
}

// The server ends a slow statement, the connection lives on, and the bound doesn't stay behind on
// PgBouncer's server connection for the next client.
func TestStatementTimeout(t *testing.T) {
	for _, mode := range modes {
		t.Run("mode "+mode, func(t *testing.T) {
			db := open(t, modeURL(t, mode), func(c *Config) { c.StatementTimeout = 100 * time.Millisecond })
			for name, run := range map[string]func() error{
				"exec":  func() error { _, err := db.Exec(t.Context(), `SELECT pg_sleep(20)`); return err },
				"query": func() error { return db.Query(t.Context(), func(pgx.Rows) error { return nil }, `SELECT pg_sleep(20)`) },
			} {
				start := time.Now()
				err := run()
				var pg *pgconn.PgError
				if !errors.As(err, &pg) || pg.Code != "57014" || !Unavailable(err) {
					t.Fatalf("%s: %v", name, err)
				}
				if d := time.Since(start); d > 4*time.Second {
					t.Fatalf("%s: after %v", name, d)
				}
			}
			if n := db.pool.Stat().NewConnsCount(); n != 1 {
				t.Fatalf("%d connections were opened", n)
			}
			for range dbtest.PoolSize {
				plain := dbtest.Connect(t, dbtest.WithParam(t, dbtest.DB(t).PoolURL(), "default_query_exec_mode", "exec"))
				if s := dbtest.One[string](t, plain, `SHOW statement_timeout`); s != "0" {
					t.Fatalf("statement_timeout %s stayed behind", s)
				}
			}
		})
	}
}

// A caller that goes away doesn't cut a statement in flight: PostgreSQL would go on with it beside
// whatever takes the connection's place in the pool.
func TestCallerGoesAway(t *testing.T) {
	srv := dbtest.DB(t)
	direct := dbtest.Connect(t, srv.DirectURL())
	mustExec(t, direct, `DROP TABLE IF EXISTS numbers`)
	mustExec(t, direct, `CREATE TABLE numbers (n integer PRIMARY KEY)`)
	tx, err := direct.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE numbers IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	db := open(t, srv.PoolURL(), func(c *Config) { c.MaxConns = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := db.Exec(ctx, `INSERT INTO numbers VALUES (1)`)
		done <- err
	}()
	watch := dbtest.Connect(t, srv.DirectURL())
	dbtest.Eventually(t, func() error {
		if dbtest.One[int](t, watch, `SELECT count(*)::int FROM pg_locks WHERE NOT granted AND relation = 'numbers'::regclass`) == 0 {
			return errors.New("the insert doesn't wait yet")
		}
		return nil
	})
	cancel()
	// One that is gone already doesn't even wait for a connection.
	if err := ping(ctx, db); !errors.Is(err, context.Canceled) || !Unavailable(err) {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatalf("ended with its caller: %v", err)
	default:
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := dbtest.One[int](t, watch, `SELECT count(*)::int FROM numbers`); n != 1 {
		t.Fatalf("%d rows", n)
	}
}

// A network that swallows packets: the deadline is the bound that the server cannot be.
func TestCallTimeout(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	db := open(t, "postgres://u:p@"+ln.Addr().String()+"/d?sslmode=disable", func(c *Config) {
		c.StatementTimeout, c.QueueTimeout, c.CallTimeout = 100*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond+Margin
	})
	start := time.Now()
	if err := ping(t.Context(), db); !Unavailable(err) || time.Since(start) > 4*time.Second {
		t.Fatalf("after %v: %v", time.Since(start), err)
	}
}

// Connections that were closed while they were idle fail no call: neither by PgBouncer's end, nor by PostgreSQL, which
// says why before it closes.
func TestStaleConnections(t *testing.T) {
	srv := dbtest.DB(t)
	super := dbtest.Connect(t, srv.SuperuserURL())
	for name, tt := range map[string]struct {
		url   string
		close func() error
	}{
		"PgBouncer": {srv.PoolURL(), func() error {
			return errors.Join(srv.StopPgBouncer(t.Context()), srv.StartPgBouncer(t.Context()))
		}},
		"PostgreSQL": {dbtest.WithParam(t, srv.DirectURL(), "application_name", "stale"), func() error {
			_, err := super.Exec(t.Context(), `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'stale'`)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			const conns = 2
			db := open(t, tt.url, func(c *Config) { c.MaxConns = conns })
			for range 3 {
				for _, conn := range acquire(t, db, conns) {
					conn.Release()
				}
				if err := tt.close(); err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for range conns {
					wg.Go(func() {
						if err := ping(t.Context(), db); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
			}
		})
	}
}

func acquire(t *testing.T, db *DB, n int) []*pgxpool.Conn {
	t.Helper()
	var conns []*pgxpool.Conn
	for range n {
		conn, err := db.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	return conns
}

func TestAlive(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS() // for its certificate
	defer srv.Close()
	for name, tt := range map[string]struct{ secure, read bool }{
		"plain": {}, "TLS": {secure: true}, "read in the background": {read: true},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			accepted := make(chan net.Conn, 1)
			go func() {
				conn, err := ln.Accept()
				if err != nil {
					close(accepted)
					return
				}
				if tt.secure {
					conn = tls.Server(conn, srv.TLS)
				}
				_, _ = conn.Write([]byte("x"))
				accepted <- conn
			}()
			client, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if tt.secure {
				client = tls.Client(client, &tls.Config{InsecureSkipVerify: true})
			}
			if _, err := client.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			server := <-accepted
			var wg sync.WaitGroup
			defer wg.Wait()
			if tt.read {
				wg.Go(func() { _, _ = client.Read(make([]byte, 1)) })
			}
			for range 2 {
				if !alive(client) {
					t.Error("an idle connection is dead")
				}
			}
			if err := server.Close(); err != nil {
				t.Fatal(err)
			}
			dbtest.Eventually(t, func() error {
				if alive(client) {
					return errors.New("a closed connection is alive")
				}
				return nil
			})
		})
	}
}

// A call waits in PgBouncer's queue once, however long its connection was idle: pgxpool would ping it after 1 s.
func TestFullPoolIsSeenAfterOneWait(t *testing.T) {
	srv := dbtest.DB(t)
	db := open(t, srv.PoolURL(), func(c *Config) { c.StatementTimeout, c.CallTimeout = 15*time.Second, 20*time.Second })
	if err := ping(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	idle := time.NewTimer(1100 * time.Millisecond)
	release := dbtest.FillPool(t)
	defer release()
	<-idle.C
	start := time.Now()
	err := ping(t.Context(), db)
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "08P01" || !Unavailable(err) {
		t.Errorf("a full pool: %v", err)
	}
	if d := time.Since(start); d >= 2*QueueTimeout {
		t.Errorf("a full pool is seen after %v", d)
	}
	if n := db.pool.Stat().NewConnsCount(); n != 1 {
		t.Errorf("%d connections were opened", n)
	}
}

// A call that waits for a connection of its own instance gives up while its statement would still have the time that
// PgBouncer's queue and the server may take.
func TestOwnPoolFull(t *testing.T) {
	db := open(t, dbtest.DB(t).PoolURL(), func(c *Config) { c.MaxConns = 1 })
	defer acquire(t, db, 1)[0].Release()
	start := time.Now()
	if err := ping(t.Context(), db); !errors.Is(err, context.DeadlineExceeded) || !Unavailable(err) {
		t.Error(err)
	}
	if d, most := time.Since(start), db.cfg.CallTimeout-QueueTimeout-db.cfg.StatementTimeout; d > most {
		t.Errorf("gave up after %v: later than %v the statement has too little", d, most)
	}
}

// The password changes, the connections are cut, the file follows: no restart. With the default TTL
// it is the refusal that makes the file read again.
func TestSecretRotation(t *testing.T) {
	for name, ttl := range map[string]time.Duration{"by age": 10 * time.Millisecond, "by refusal": 0} {
		t.Run(name, func(t *testing.T) {
			srv := dbtest.DB(t)
			super := dbtest.Connect(t, srv.SuperuserURL())
			mustExec(t, super, `DROP ROLE IF EXISTS rotated`)
			mustExec(t, super, `CREATE ROLE rotated LOGIN PASSWORD 'one'`)
			cfg, err := pgx.ParseConfig(srv.DirectURL())
			if err != nil {
				t.Fatal(err)
			}
			url := func(password string) string {
				return fmt.Sprintf("postgres://rotated:%s@%s:%d/%s?sslmode=disable", password, cfg.Host, cfg.Port, cfg.Database)
			}
			var file string
			db := open(t, url("one"), func(c *Config) { c.SecretTTL, file = ttl, c.URLFile })
			if err := ping(t.Context(), db); err != nil {
				t.Fatal(err)
			}
			mustExec(t, super, `ALTER ROLE rotated PASSWORD 'two'`)
			mustExec(t, super, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'rotated'`)
			dbtest.Eventually(t, func() error { // the first may be the broken connection's error
				err := ping(t.Context(), db)
				if err == nil || !Unavailable(err) {
					t.Fatalf("with the old password: %v", err)
				}
				var pg *pgconn.PgError
				if !errors.As(err, &pg) || pg.Code != "28P01" {
					return err
				}
				return nil
			})
			dbtest.Write(t, file, url("two"))
			dbtest.Eventually(t, func() error { return ping(t.Context(), db) })
		})
	}
}

func TestMigrateInstancesAtOnce(t *testing.T) {
	srv := dbtest.DB(t)
	file := dbtest.File(t, srv.DirectURL())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s := Migrate(t.Context(), file, quiet)
			defer s.Close()
			select {
			case <-s.Ready():
				if s.Err() != nil {
					t.Error(s.Err())
				}
			case <-time.After(30 * time.Second):
				t.Errorf("not ready after 30 s: %v", s.Err())
			}
		})
	}
	wg.Wait()
	conn := dbtest.Connect(t, srv.DirectURL())
	if n := dbtest.One[int](t, conn, `SELECT count(*)::int FROM orders_schema WHERE version_id = 1`); n != 1 {
		t.Fatalf("migration 1 is recorded %d times", n)
	}
	if n := dbtest.One[int](t, conn, `SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory'`); n != 0 {
		t.Fatalf("%d advisory locks are left", n)
	}
	// One more, later: nothing to do.
	s := Migrate(t.Context(), file, quiet)
	<-s.Ready()
	s.Close()
	s.Close()
}

func TestMigrateOutlastsOutage(t *testing.T) {
	srv := dbtest.DB(t)
	file := dbtest.File(t, srv.DirectURL())
	if err := srv.StopPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	given := Migrate(t.Context(), file, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	s := Migrate(ctx, file, quiet)
	defer s.Close()
	cancel() // New's context may end long before the function does
	dbtest.Eventually(t, func() error {
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), "connect") {
			return fmt.Errorf("says %w", err)
		}
		return nil
	})
	given.Close() // while the database is away
	if given.Err() == nil {
		t.Fatal("ready without a database")
	}
	if err := srv.StartPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-s.Ready()
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
}

func TestUnavailable(t *testing.T) {
	pg := func(code string) error { return fmt.Errorf("x: %w", &pgconn.PgError{Code: code}) }
	for _, code := range []string{"08000", "08006", "08P01", "57P01", "57P02", "57P03", "57014", "53000", "53300", "53100", "40001", "40P01", "28P01", "42P01", "42501", "42601", "42703", "25006", "26000", "3D000", "55P03"} {
		if !Unavailable(pg(code)) {
			t.Errorf("%s is not unavailable", code)
		}
	}
	for _, code := range []string{"22P02", "22021", "22003", "23502", "23505", "54001", "XX000"} {
		if Unavailable(pg(code)) {
			t.Errorf("%s is unavailable", code)
		}
		if _, ok := DataRefused(pg(code)); ok != (code[0] == '2' && code[1] < '4') {
			t.Errorf("%s: data refused is %v", code, ok)
		}
	}
	for _, err := range []error{
		context.DeadlineExceeded, io.ErrUnexpectedEOF, pgconn.ErrConnClosed, net.ErrClosed,
		unavailableError{errors.New("closed pool")},
		&net.OpError{Op: "read", Err: syscall.ECONNRESET},
	} {
		if !Unavailable(fmt.Errorf("x: %w", err)) {
			t.Errorf("%v is not unavailable", err)
		}
	}
	if Unavailable(nil) || Unavailable(errors.New("x")) {
		t.Error("what isn't known is not unavailable")
	}
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}
