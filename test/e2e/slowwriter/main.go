// Command slowwriter is a slow order-writer, which writes each of its calls into the table calls: when it began and
// ended, and in which pod. That goes straight to PostgreSQL, so that PgBouncer's pool has only the orders.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/orderwriter"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "slowwriter:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	delay, err := time.ParseDuration(os.Getenv("DELAY"))
	if err != nil {
		return fmt.Errorf("DELAY: %w", err)
	}
	cfg, err := orderwriter.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	f, err := orderwriter.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer f.Close()
	url, err := os.ReadFile(cfg.MigrateURLFile)
	if err != nil {
		return err
	}
	db, err := pgxpool.New(ctx, strings.TrimSpace(string(url)))
	if err != nil {
		return err
	}
	defer db.Close()
	pod, _ := os.Hostname()
	return function.Serve(ctx, os.Getenv, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
		}
		f.ServeHTTP(w, r)
		// Before the answer is complete: a call that the caller counts as over has been recorded.
		_, err := db.Exec(context.WithoutCancel(r.Context()), `INSERT INTO calls VALUES ($1, $2, $3)`, pod, started, time.Now())
		if err != nil {
			fmt.Fprintln(os.Stderr, "slowwriter: a call was not written down:", err)
		}
	}))
}
