package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/machinetest"
	"github.com/weir-dev/weir/internal/statelang"
)

// validated is what --json prints of a file.
type validated struct {
	File     string                `json:"file"`
	Valid    bool                  `json:"valid"`
	Problems []machinetest.Problem `json:"problems"`
}

func newSMValidate() *cobra.Command {
	var m machineFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Print all mistakes of state machines, with their lines",
		Long: `Print all mistakes of state machines, each as FILE:LINE: PATH: what is wrong. The exit code is 1 if there are any.

A FILE is JSON or YAML: a definition, resources of the kind StateMachine, or what aws stepfunctions describe-state-machine
prints. - is standard input.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := m.check(); err != nil {
				return err
			}
			list := make([]validated, 0, len(args))
			wrong := 0
			for _, file := range args {
				text, err := readFile(cmd, file)
				if err != nil {
					return err
				}
				_, problems := machinetest.ParseDefinitions(text, statelang.Type(m.kind))
				list = append(list, validated{file, len(problems) == 0, append([]machinetest.Problem{}, problems...)})
				wrong += len(problems)
			}
			if err := printValidated(cmd, list, asJSON); err != nil {
				return err
			}
			return mistaken(wrong)
		},
	}
	m.kindFlag(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// mistaken is an error if there are mistakes.
func mistaken(n int) error {
	switch n {
	case 0:
		return nil
	case 1:
		return errors.New("there is a mistake")
	}
	return fmt.Errorf("there are %d mistakes", n)
}

func printValidated(cmd *cobra.Command, list []validated, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), list)
	}
	for _, v := range list {
		if v.Valid {
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: no mistakes\n", v.File); err != nil {
				return err
			}
		}
		for _, p := range v.Problems {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), problemLine(v.File, p)); err != nil {
				return err
			}
		}
	}
	return nil
}
