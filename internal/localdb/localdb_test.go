package localdb_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-dev/weir/internal/localdb"
)

// testDir is a folder that the server account can reach, which t.TempDir is
// not when root runs the tests.
func testDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weir-localdb-test-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func start(t *testing.T, config localdb.Config) *localdb.DB {
	t.Helper()
	config.Fast = true
	config.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	begin := time.Now()
	db, err := localdb.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(begin).Round(time.Millisecond))
	t.Cleanup(func() {
		// t.Context is over by now: Stop has to cope.
		if err := db.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return db
}

// ask connects, runs one statement in the simple protocol (all that PgBouncer
// and its console can take) and returns the first column's values.
func ask(ctx context.Context, url, statement string) (values []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	rows, err := conn.Query(ctx, statement)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		all, err := rows.Values()
		if err != nil {
			return nil, err
		}
		values = append(values, fmt.Sprint(all[0]))
	}
	return values, rows.Err()
}

func mustAsk(t *testing.T, url, statement string, want ...string) {
	t.Helper()
	got, err := ask(t.Context(), url, statement)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %q, want %q", statement, got, want)
	}
}

func TestDataSurvivesARestart(t *testing.T) {
	dir := testDir(t)
	db := start(t, localdb.Config{Dir: dir})
	mustAsk(t, db.PoolURL(), "create table kept (v text)")
	mustAsk(t, db.PoolURL(), "insert into kept values ('here')")
	mustAsk(t, db.DirectURL(), "select v from kept", "here")
	urls := []string{db.PoolURL(), db.DirectURL(), db.AdminURL()}
	if err := db.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Stop(t.Context()); err != nil {
		t.Fatalf("second Stop: %v", err)
	}
	if err := db.StartPostgres(t.Context()); !errors.Is(err, localdb.ErrStopped) {
		t.Fatalf("StartPostgres after Stop: %v", err)
	}

	db = start(t, localdb.Config{Dir: dir})
	mustAsk(t, db.PoolURL(), "select v from kept", "here")
	if again := []string{db.PoolURL(), db.DirectURL(), db.AdminURL()}; !slices.Equal(urls, again) {
		t.Errorf("ports and passwords are not remembered: %q, then %q", urls, again)
	}
}

func TestTheServersAreConfiguredAsPromised(t *testing.T) {
	db := start(t, localdb.Config{PoolSize: 3})
	for setting, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
		"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "password_encryption": "scram-sha-256",
	} {
		mustAsk(t, db.SuperuserURL(), "show "+setting, want)
	}
	mustAsk(t, db.DirectURL(), "select rolsuper::text from pg_roles where rolname = current_user", "false")
	mustAsk(t, db.AdminURL(), "SHOW POOLS", "pgbouncer", "weir")

	wrong := strings.Replace(db.PoolURL(), "weir:", "weir:x", 1)
	if _, err := ask(t.Context(), wrong, "select 1"); err == nil {
		t.Error("PgBouncer takes a wrong password")
	}
	wrong = strings.Replace(db.DirectURL(), "weir:", "weir:x", 1)
	if _, err := ask(t.Context(), wrong, "select 1"); err == nil {
		t.Error("PostgreSQL takes a wrong password")
	}

	err := filepath.WalkDir(db.Home(), func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v: others can read it", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestThePoolIsTheCap(t *testing.T) {
	const poolSize, clients = 3, 12
	db := start(t, localdb.Config{PoolSize: poolSize})
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			if _, err := ask(t.Context(), db.PoolURL(), "select pg_sleep(0.1)"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	// All twelve were served, by as many sessions as the pool holds.
	mustAsk(t, db.SuperuserURL(), "select count(*) from pg_stat_activity where usename = 'weir'", fmt.Sprint(poolSize))
}

func TestTwoInstancesDoNotMeet(t *testing.T) {
	one, two := start(t, localdb.Config{}), start(t, localdb.Config{})
	mustAsk(t, one.PoolURL(), "create table only_in_one ()")
	mustAsk(t, two.PoolURL(), "select count(*) from pg_tables where tablename = 'only_in_one'", "0")
	mixed := strings.Replace(one.PoolURL(), portOf(t, one.PoolURL()), portOf(t, two.PoolURL()), 1)
	if _, err := ask(t.Context(), mixed, "select 1"); err == nil {
		t.Error("one's password opens the other")
	}
}

func portOf(t *testing.T, url string) string {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(":%d/", config.Port)
}

func TestAFolderHasOneInstance(t *testing.T) {
	dir := testDir(t)
	db := start(t, localdb.Config{Dir: dir})
	if _, err := localdb.Start(t.Context(), localdb.Config{Dir: dir}); !errors.Is(err, localdb.ErrInUse) {
		t.Errorf("second Start: %v", err)
	}
	if err := localdb.Remove(dir); !errors.Is(err, localdb.ErrInUse) {
		t.Errorf("Remove while it runs: %v", err)
	}
	mustAsk(t, db.PoolURL(), "select 1", "1")
	if err := db.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := localdb.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
	if err := localdb.Remove(dir); err != nil {
		t.Errorf("Remove of nothing: %v", err)
	}
}

func TestAForeignFolderIsLeftAlone(t *testing.T) {
	dir := testDir(t)
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := localdb.Start(t.Context(), localdb.Config{Dir: dir}); err == nil {
		t.Error("Start takes a folder with files of others")
	}
	if err := localdb.Remove(dir); err == nil {
		t.Error("Remove takes a folder with files of others")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestAFolderThatTheServersCannotReach(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has such folders")
	}
	dir := filepath.Join(testDir(t), "db") // its parent is root's, 0700
	db := start(t, localdb.Config{Dir: dir})
	if !strings.HasPrefix(db.Home(), "/var/lib/weir/") {
		t.Errorf("home is %s", db.Home())
	}
	mustAsk(t, db.PoolURL(), "select 1", "1")
	if err := db.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := localdb.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(db.Home()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
}

func TestAnUnfinishedInitialisationIsRedone(t *testing.T) {
	dir := testDir(t)
	half := filepath.Join(dir, "data.new")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{filepath.Join(half, "PG_VERSION"), filepath.Join(dir, "weir-localdb.lock")} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db := start(t, localdb.Config{Dir: dir})
	mustAsk(t, db.PoolURL(), "select 1", "1")
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data.new: %v", err)
	}
}

func TestStartIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// The first line of the log comes when initdb is about to run.
	log := slog.New(cancelHandler{slog.DiscardHandler, cancel})
	db, err := localdb.Start(ctx, localdb.Config{Dir: testDir(t), Fast: true, Log: log})
	if err == nil {
		_ = db.Stop(t.Context())
		t.Fatal("Start went on after its context was cancelled")
	}
}

// A context that is over is no answer to whether the folder can be reached:
// the data must not go elsewhere for it.
func TestStartIsCancelledBeforeItBegins(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var log strings.Builder
	dir := testDir(t)
	_, err := localdb.Start(ctx, localdb.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if !errors.Is(err, context.Canceled) || strings.Contains(log.String(), "elsewhere") {
		t.Errorf("got %v, log %s", err, log.String())
	}
}

type cancelHandler struct {
	slog.Handler
	cancel context.CancelFunc
}

func (h cancelHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h cancelHandler) Handle(context.Context, slog.Record) error {
	h.cancel()
	return nil
}

func TestPostgresIsKilled(t *testing.T) {
	db := start(t, localdb.Config{})
	mustAsk(t, db.PoolURL(), "create table kept (v text)")
	mustAsk(t, db.PoolURL(), "insert into kept values ('committed')")
	if err := syscall.Kill(db.PostgresPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-db.Lost():
		if !strings.Contains(err.Error(), "PostgreSQL") {
			t.Errorf("lost: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody said that PostgreSQL is gone")
	}
	if err := db.StartPostgres(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustAsk(t, db.DirectURL(), "select v from kept", "committed")
	eventually(t, "the pool recovers", func() error {
		_, err := ask(t.Context(), db.PoolURL(), "select v from kept")
		return err
	})
}

func TestPostgresIsAwayForAWhile(t *testing.T) {
	db := start(t, localdb.Config{})
	for range 2 {
		if err := db.StopPostgres(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if pid := db.PostgresPID(); pid != 0 {
		t.Errorf("process %d after StopPostgres", pid)
	}
	if _, err := ask(t.Context(), db.PoolURL(), "select 1"); err == nil {
		t.Error("an answer without a database")
	}
	if err := db.StopPgBouncer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.StartPgBouncer(t.Context()); err != nil {
		t.Fatalf("PgBouncer without PostgreSQL: %v", err)
	}
	for range 2 {
		if err := db.StartPostgres(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the pool recovers", func() error {
		_, err := ask(t.Context(), db.PoolURL(), "select 1")
		return err
	})
	select {
	case err := <-db.Lost():
		t.Errorf("a stop counted as a loss: %v", err)
	default:
	}
}

func TestPgBouncerIsAwayForAWhile(t *testing.T) {
	db := start(t, localdb.Config{})
	begin := time.Now()
	if err := db.StopPgBouncer(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped in %v", time.Since(begin).Round(time.Millisecond))
	if _, err := ask(t.Context(), db.PoolURL(), "select 1"); err == nil {
		t.Error("an answer without PgBouncer")
	}
	mustAsk(t, db.DirectURL(), "select 1", "1")
	if err := db.StartPgBouncer(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustAsk(t, db.PoolURL(), "select 1", "1")
}

func TestPgBouncerStopsWhileATransactionIsOpen(t *testing.T) {
	db := start(t, localdb.Config{})
	config, err := pgx.ParseConfig(db.PoolURL())
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	if err := db.StopPgBouncer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if pid := db.PgBouncerPID(); pid != 0 {
		t.Errorf("process %d after StopPgBouncer", pid)
	}
	if err := db.StartPgBouncer(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustAsk(t, db.PoolURL(), "select 1", "1")
}

// TestKilledStarter: servers end with the process that started them, and the
// data is there for the next one.
func TestKilledStarter(t *testing.T) {
	dir := testDir(t)
	for range 2 {
		victim := exec.CommandContext(t.Context(), os.Args[0])
		victim.Env = append(os.Environ(), victimDir+"="+dir)
		victim.Stderr = t.Output()
		out, err := victim.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		var postgres, pgbouncer int
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(line, "started %d %d", &postgres, &pgbouncer); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if err := victim.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = victim.Wait() // "signal: killed"

		// At once, without waiting for the servers' end: that is how it happens.
		db := start(t, localdb.Config{Dir: dir})
		mustAsk(t, db.PoolURL(), "select 1", "1")
		for _, pid := range []int{postgres, pgbouncer} {
			eventually(t, "the old servers are gone", func() error {
				// Not kill(pid, 0): a dead process whose new parent doesn't reap it has an id still.
				if line := localdb.CommandLine(pid); line != "" {
					return fmt.Errorf("process %d: %s", pid, line)
				}
				return nil
			})
		}
		if err := db.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATakenPort(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	_, err = localdb.Start(t.Context(), localdb.Config{PostgresPort: port, Fast: true})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(port)) {
		t.Errorf("PostgresPort is taken: %v", err)
	}
	_, err = localdb.Start(t.Context(), localdb.Config{PgBouncerPort: port, Fast: true})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(port)) {
		t.Errorf("PgBouncerPort is taken: %v", err)
	}
}

func TestConfigNamesItsMistakes(t *testing.T) {
	_, err := localdb.Start(t.Context(), localdb.Config{PoolSize: -1, MaxClientConn: -1, PostgresPort: 70000, PgBouncerPort: -1})
	for _, field := range []string{"PoolSize", "MaxClientConn", "PostgresPort", "PgBouncerPort"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not in: %v", field, err)
		}
	}
}

// TestStartStopStress: every start's goroutines, processes and files are gone
// after its stop, whatever the order of calls.
func TestStartStopStress(t *testing.T) {
	db := start(t, localdb.Config{})
	var group sync.WaitGroup
	for _, call := range []func(context.Context) error{
		db.StopPostgres, db.StartPostgres, db.StopPgBouncer, db.StartPgBouncer, db.StopPostgres, db.StartPgBouncer,
	} {
		group.Go(func() {
			if err := call(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if err := db.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(db.Home()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary folder after Stop: %v", err)
	}
}

// eventually asks until there is no error. What it asks about (a pool's retry,
// another process's end) sends no signal to wait on.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(20 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s: not within 20 s: %v", what, err)
		}
	}
}
