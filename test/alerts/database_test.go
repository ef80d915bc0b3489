package alerts_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// startPoolExporter starts pgbouncer_exporter for the real PgBouncer and returns the address of its page.
func startPoolExporter(t *testing.T) (address string) {
	t.Helper()
	address = fmt.Sprintf("127.0.0.1:%d", processes.FreePort(t))
	processes.Start(t, "pgbouncer_exporter", testkit.Tool(t, "../..", "exporters", "pgbouncer_exporter"), nil,
		"--web.listen-address="+address, "--pgBouncer.connectionString="+parts.db.AdminURL())
	return address
}

// admin connects to PgBouncer's console, which knows the simple protocol only.
func admin(ctx context.Context) (*pgx.Conn, error) { return simple(ctx, parts.db.AdminURL()) }

func simple(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(ctx, config)
}

// useUpPool opens transactions that keep every connection of the pool, and one that waits for its turn, until done.
func useUpPool(t *testing.T) (done func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	console, err := admin(ctx)
	if err == nil { // localdb's own is three seconds, which is less than the alert waits; 0 is none
		_, err = console.Exec(ctx, "SET query_wait_timeout = 0")
	}
	if err == nil {
		err = console.Close(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range poolSize + 1 {
		wg.Go(func() {
			conn, err := simple(ctx, parts.db.PoolURL())
			if err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			defer conn.Close(context.WithoutCancel(ctx))
			if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			<-ctx.Done()
		})
	}
	done = func() { cancel(); wg.Wait() }
	t.Cleanup(done)
	return done
}
