// Command report is the sample function of that name; see internal/functions/report.
package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/weir-dev/weir/function"
	"github.com/weir-dev/weir/internal/functions/report"
)

func main() {
	slog.SetDefault(slog.New(function.TraceLogs(slog.NewJSONHandler(os.Stderr, nil))))
	if err := run(context.Background()); err != nil {
		slog.Error("report ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cfg, err := report.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	f, err := report.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer f.Close()
	return function.Serve(ctx, os.Getenv, f)
}
