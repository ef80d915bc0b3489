package main

import "github.com/spf13/cobra"

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "weir",
		Short:         "A durable buffer, concurrency caps and asynchronous answers in front of systems that can't take surges",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newLocal(), newQueue(), newDLQ(), newTrace(), newEMF(), newSM(), newNATS())
	return root
}
