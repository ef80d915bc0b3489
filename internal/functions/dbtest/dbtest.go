// Package dbtest is for the tests of the sample functions: one real PostgreSQL behind one real
// PgBouncer for all tests of a package, which therefore don't run in parallel.
//
// May import: anything; only tests import it.
package dbtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/localdb"
)

// PoolSize is how many connections PgBouncer opens to PostgreSQL at most.
const PoolSize = 6

var shared *localdb.DB //nolint:gochecknoglobals // TestMain has no other way to hand it to the tests

// Main is for TestMain: it runs the tests with a database and fails if anything is left running.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx := context.Background()
	db, err := localdb.Start(ctx, localdb.Config{PoolSize: PoolSize, Fast: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the database:", err)
		return 1
	}
	shared = db
	code := m.Run()
	if err := db.Stop(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "stopping the database:", err)
		code = 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// DB returns the database, running, and empty of what the functions keep there. When the test has
// ended both servers run again.
func DB(t testing.TB) *localdb.DB {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.Background()
		if err := shared.StartPostgres(ctx); err != nil {
			t.Error(err)
		}
		if err := shared.StartPgBouncer(ctx); err != nil {
			t.Error(err)
		}
	})
	conn := Connect(t, shared.DirectURL())
	if _, err := conn.Exec(t.Context(), `DROP TABLE IF EXISTS orders, orders_schema CASCADE`); err != nil {
		t.Fatal(err)
	}
	return shared
}

// DBRunning returns the database as the test left it.
func DBRunning(testing.TB) *localdb.DB { return shared }

// Connect opens a connection for the test's length.
func Connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// FillPool takes all of PgBouncer's server connections until release is called.
func FillPool(t testing.TB) (release func()) {
	t.Helper()
	open := make([]pgx.Tx, 0, PoolSize)
	for range PoolSize {
		tx, err := Connect(t, WithParam(t, shared.PoolURL(), "default_query_exec_mode", "exec")).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, tx)
	}
	return func() {
		t.Helper()
		for _, tx := range open {
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// ServerPIDs returns the processes of PostgreSQL that PgBouncer is connected to.
func ServerPIDs(t testing.TB) []int32 {
	t.Helper()
	// The console knows no extended protocol.
	conn := Connect(t, WithParam(t, shared.AdminURL(), "default_query_exec_mode", "simple_protocol"))
	rows, err := conn.Query(t.Context(), "SHOW SERVERS")
	if err != nil {
		t.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (int32, error) {
		server, err := pgx.RowToMap(row)
		if err != nil {
			return 0, err
		}
		pid, ok := server["remote_pid"].(int32)
		if !ok {
			return 0, fmt.Errorf("remote_pid is %v", server["remote_pid"])
		}
		return pid, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

// One returns the only value of a query.
func One[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// File returns the path of a file with text in it.
func File(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "url")
	Write(t, path, text)
	return path
}

// Write replaces a file as the kubelet does: at once.
func Write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// WithParam adds a parameter to a connection string.
func WithParam(t testing.TB, s, name, value string) string {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// Eventually calls try until it returns nil, for half a minute at most.
func Eventually(t testing.TB, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within 30 s: %v", err)
		case <-tick.C:
		}
	}
}
