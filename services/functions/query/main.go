// Command query is the function of that name; see internal/functions/query.
package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/query"
)

func main() {
	slog.SetDefault(slog.New(function.TraceLogs(slog.NewJSONHandler(os.Stderr, nil))))
	if err := run(context.Background()); err != nil {
		slog.Error("query ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cfg, err := query.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	f, err := query.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer f.Close()
	return function.Serve(ctx, os.Getenv, f)
}
