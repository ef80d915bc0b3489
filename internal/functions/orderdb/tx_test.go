package orderdb

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-dev/weir/internal/functions/dbtest"
)

// TestTransact: a transaction whose work fails changes nothing, whether PostgreSQL or the caller says so, and its connection is kept.
func TestTransact(t *testing.T) {
	for _, mode := range modes {
		t.Run("mode "+mode, func(t *testing.T) {
			address := modeURL(t, mode)
			direct := dbtest.Connect(t, dbtest.DBRunning(t).DirectURL())
			mustExec(t, direct, `DROP TABLE IF EXISTS numbers`)
			mustExec(t, direct, `CREATE TABLE numbers (n integer)`)
			db := open(t, address, func(c *Config) { c.MaxConns = 1 })
			enough := errors.New("enough")
			insert := func(sql string, read func(*pgconn.ResultReader) error) error {
				return db.Transact(t.Context(), func(ctx context.Context, tx *Tx) error {
					if _, err := tx.Query(ctx, `INSERT INTO numbers VALUES ($1)`, []Text{{Value: []byte("1")}}, nil); err != nil {
						return err
					}
					_, err := tx.Query(ctx, sql, nil, read)
					return err
				})
			}
			start := time.Now()
			if err := insert(`SELECT 1/0`, nil); err == nil || Unavailable(err) {
				t.Errorf("PostgreSQL's error became %v", err)
			}
			if err := insert(`SELECT repeat('x', 1000), generate_series(1, 100000000)`, func(r *pgconn.ResultReader) error {
				r.NextRow()
				return enough
			}); !errors.Is(err, enough) {
				t.Errorf("the caller's error became %v", err)
			}
			if err := insert(`SELECT 1; SELECT 2`, nil); err == nil {
				t.Error("two statements were run")
			}
			if d := time.Since(start); d > 4*time.Second {
				t.Errorf("after %v", d)
			}
			if n := dbtest.One[int](t, direct, `SELECT count(*)::int FROM numbers`); n != 0 {
				t.Errorf("%d rows of transactions that failed", n)
			}
			if err := insert(`SELECT set_config('app.user', 'ada', false)`, nil); err != nil {
				t.Error(err)
			}
			if n := dbtest.One[int](t, direct, `SELECT count(*)::int FROM numbers`); n != 1 {
				t.Errorf("%d rows of one transaction", n)
			}
			if n := db.pool.Stat().NewConnsCount(); n != 1 {
				t.Errorf("%d connections were opened", n)
			}
		})
	}
}

// TestMaxMessageBytes: a row that is too large is not taken into memory.
func TestMaxMessageBytes(t *testing.T) {
	db := open(t, dbtest.DB(t).PoolURL(), func(c *Config) { c.MaxMessageBytes = 64 << 10 })
	read := func(sql string) error {
		return db.Transact(t.Context(), func(ctx context.Context, tx *Tx) error {
			_, err := tx.Query(ctx, sql, nil, nil)
			return err
		})
	}
	if err := read(`SELECT repeat('x', 100000)`); err == nil {
		t.Error("a row of 100 kB came")
	}
	if err := read(`SELECT repeat('x', 10000)`); err != nil {
		t.Error(err)
	}
}
