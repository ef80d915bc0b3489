// Command emf is `weir emf` by itself, for an image that holds nothing else; see internal/app/emf.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/weir-dev/weir/internal/app/emf"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGPIPE) // when who reads the output goes, what has come is still exported
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, pflag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "weir emf:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var cfg emf.Config
	flags := pflag.NewFlagSet("emf", pflag.ContinueOnError)
	cfg.Flags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := cfg.Complete(flags.Args()); err != nil {
		return err
	}
	return emf.Run(ctx, cfg, os.Stdin, os.Stdout, os.Stderr)
}
