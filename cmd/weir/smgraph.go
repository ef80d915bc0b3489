package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/machinegraph"
)

func newSMGraph() *cobra.Command {
	var m machineFlags
	var out string
	cmd := &cobra.Command{
		Use:   "graph FILE [-o FILE.svg]",
		Short: "Draw a state machine as SVG",
		Long: `Draw a state machine as SVG: its states from above to below, the machines in Parallel and Map states inside of them, the
conditions of Choice rules on their ways, and dashed ways for catchers. Without -o it goes to standard output.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := m.load(cmd, args[0])
			if err != nil {
				return err
			}
			svg, err := machinegraph.SVG(d.Machine)
			if err != nil {
				return err
			}
			if out == "" {
				_, err = cmd.OutOrStdout().Write(svg)
				return err
			}
			if err := os.WriteFile(out, svg, 0o644); err != nil { //nolint:gosec // a picture that anybody may read
				return fmt.Errorf("writing the picture: %w", err)
			}
			return nil
		},
	}
	m.flags(cmd.Flags())
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write to")
	return cmd
}
