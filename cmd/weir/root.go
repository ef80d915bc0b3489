package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "weir",
		Short:         "A durable buffer, concurrency caps and asynchronous answers in front of systems that can't take surges",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newLocal(), newLint(), newQueue(), newMapping(), newDLQ(), newTrace(), newEMF(), newSM(), newNATS())
	return root
}

// usageError is of a command that could not do its work, where 1 would say that it has, and with which result.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func exitCode(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	return 1
}
