// Command order-writer is the sample function of that name; see internal/functions/orderwriter.
package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/orderwriter"
)

func main() {
	slog.SetDefault(slog.New(function.TraceLogs(slog.NewJSONHandler(os.Stderr, nil))))
	if err := run(context.Background()); err != nil {
		slog.Error("order-writer ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cfg, err := orderwriter.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	f, err := orderwriter.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer f.Close()
	return function.Serve(ctx, os.Getenv, f)
}
