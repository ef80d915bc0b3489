// Command order-api is the sample function of that name; see internal/functions/orderapi.
package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/orderapi"
)

func main() {
	slog.SetDefault(slog.New(function.TraceLogs(slog.NewJSONHandler(os.Stderr, nil))))
	if err := run(context.Background()); err != nil {
		slog.Error("order-api ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cfg, err := orderapi.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	f, err := orderapi.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer f.Close()
	return function.Serve(ctx, os.Getenv, f)
}
