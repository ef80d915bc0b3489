package main

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/app/emf"
)

func newEMF() *cobra.Command {
	var cfg emf.Config
	cmd := &cobra.Command{
		Use:   "emf",
		Short: "Turn lines in CloudWatch's embedded metric format into OpenTelemetry metrics",
		Long: `Turn lines in CloudWatch's embedded metric format into OpenTelemetry metrics.

It passes standard input on to standard output as it is, and ends with it, after a last export:

  node function.mjs | OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 weir emf
  node function.mjs | weir emf --listen 127.0.0.1:9464

OpenTelemetry's variables say where metrics are pushed to. With --listen and none of them they are only served.

With --pods it follows the logs of a node's pods, as the chart's collector does (emf.enabled).`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cfg.Complete(args); err != nil {
				return err
			}
			signal.Ignore(syscall.SIGPIPE) // when who reads the output goes, what has come is still exported
			return emf.Run(cmd.Context(), cfg, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cfg.Flags(cmd.Flags())
	return cmd
}
