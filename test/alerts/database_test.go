package alerts_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// poolPage serves what pgbouncer_exporter makes of PgBouncer's answers, as far as the alerts ask for it, by the names of
// docs/kubernetes.md: its module is not among those that can be had here. test/chart gives the chart's PgBouncer and its exporter's
// user to the real thing.
func poolPage(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, err := poolMetrics(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write([]byte(page))
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func poolMetrics(ctx context.Context) (string, error) {
	conn, err := admin(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var page strings.Builder
	pools, err := show(ctx, conn, "SHOW POOLS")
	if err != nil {
		return "", err
	}
	databases, err := show(ctx, conn, "SHOW DATABASES")
	if err != nil {
		return "", err
	}
	for _, m := range []struct{ name, of string }{{"client_maxwait_seconds", "maxwait"}, {"server_active_connections", "sv_active"}} {
		fmt.Fprintf(&page, "# TYPE pgbouncer_pools_%s gauge\n", m.name)
		for _, row := range pools {
			fmt.Fprintf(&page, "pgbouncer_pools_%s{database=%q,user=%q} %s\n", m.name, row["database"], row["user"], row[m.of])
		}
	}
	fmt.Fprintf(&page, "# TYPE pgbouncer_databases_pool_size gauge\n")
	for _, row := range databases {
		fmt.Fprintf(&page, "pgbouncer_databases_pool_size{name=%q,host=%q,port=%q,database=%q,force_user=%q,pool_mode=%q} %s\n",
			row["name"], row["host"], row["port"], row["database"], row["force_user"], row["pool_mode"], row["pool_size"])
	}
	return page.String(), nil
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

// show returns the rows of an answer, by column.
func show(ctx context.Context, conn *pgx.Conn, query string) (out []map[string]string, err error) {
	results, err := conn.PgConn().Exec(ctx, query).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		for _, values := range r.Rows {
			row := map[string]string{}
			for i, f := range r.FieldDescriptions {
				row[f.Name] = string(values[i])
			}
			out = append(out, row)
		}
	}
	if len(out) == 0 {
		err = errors.New(query + " says nothing")
	}
	return out, err
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
