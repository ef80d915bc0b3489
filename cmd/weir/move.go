package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/app/move"
	"github.com/weir-dev/weir/internal/localnats"
)

func newNATS() *cobra.Command {
	cmd := &cobra.Command{Use: "nats", Short: "Move all that Weir has in NATS to another NATS"}
	cmd.AddCommand(moveNATS())
	return cmd
}

func moveNATS() *cobra.Command {
	var cfg move.Config
	cmd := &cobra.Command{
		Use: "move --from FOLDER|URL --to URL", Short: "Move all streams to an empty NATS", Args: cobra.NoArgs,
		Long: `Move all streams of Weir to a NATS that has none: records, retries, dead letters, states of jobs, executions, objects, the
catalog and the signing keys, with their order. --from is a URL, or the data folder of a single server that was stopped.

The streams that are moved are closed: where services still use them, records get 503. What is moved comes into use when all
is there, not before 15 s have passed: a controller at the new NATS with WEIR_AWAIT_MOVE=NAME waits for it, and the other services for the
controller. An interrupted move goes on when it is started again. The old NATS keeps all that it had; a controller at it
opens the streams again. In a cluster the chart does it: nats.moveFrom, see docs/kubernetes.md.`,
		Example: `  weir nats move --from /var/lib/nats --to nats://nats-new:4222 --replicas 3
  weir nats move --from nats://nats-old:4222 --to tls://nats-new:4222 --to-user operator --to-password-file password --to-ca ca.crt`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			if folder := cfg.From.URL; folder != "" && !strings.Contains(folder, "://") {
				if _, err := os.Stat(folder); err != nil {
					return fmt.Errorf("--from is neither a URL nor a folder: %w", err)
				}
				old, err := localnats.Start(localnats.Config{Dir: folder})
				if err != nil {
					return err
				}
				defer old.Stop()
				cfg.From.URL = old.URL()
			}
			done, err := move.Run(cmd.Context(), cfg, os.Getenv, log)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d streams are moved, with %d messages of %d bytes\n", done.Streams, done.Messages, done.Bytes)
			return err
		},
	}
	cfg.Flags(cmd.Flags())
	cmd.Flags().Lookup("from").Usage = "URL of the NATS that the streams are moved from, or the data folder of a server that was stopped"
	return cmd
}
