package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/machinetest"
	"github.com/weir-dev/weir/internal/statelang"
)

func newSMRun() *cobra.Command {
	var m machineFlags
	var mocks, input, start, expect string
	var history, asJSON bool
	var steps int
	cmd := &cobra.Command{
		Use:   "run FILE --mocks FILE",
		Short: "Run a state machine against mocks on a simulated clock",
		Long: `Run a state machine against mocks on a simulated clock, where waits cost nothing, and print its history as a tree: when
each state was entered, what failed and was retried, what was assigned, and where it led.

The file of mocks has the answers of the states that call something, each one of result, error (with cause), timeout or hang:

  Pay:
    - error: Payment.Busy
    - result: {ok: true}
      after: 2s
  Ship: {result: {}}          # without a list: for each call

The exit code is 1 if the execution does not succeed, or does not end with the status that --expect names.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			status := statelang.Status(expect)
			switch status {
			case statelang.StatusSucceeded, statelang.StatusFailed, statelang.StatusTimedOut:
			default:
				return fmt.Errorf("--expect is %q: it must be SUCCEEDED, FAILED or TIMED_OUT", expect)
			}
			d, err := m.load(cmd, args[0])
			if err != nil {
				return err
			}
			c := machinetest.Config{Machine: d.Machine, Name: d.Name, Steps: steps}
			if c.Input, err = jsonValue(cmd, "input", input); err != nil {
				return err
			}
			if start != "" {
				if c.Start, err = time.Parse(time.RFC3339, start); err != nil {
					return fmt.Errorf("--start is %q: it must be a time such as 2026-11-29T12:00:00Z", start)
				}
			}
			if c.Mocks, err = loadMocks(cmd, mocks, d.Machine); err != nil {
				return err
			}
			o := machinetest.Simulate(c)
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), o.JSON())
			} else {
				err = o.PrintTree(cmd.OutOrStdout(), history)
			}
			if err != nil {
				return err
			}
			return judgeRun(o, status, mocks)
		},
	}
	f := cmd.Flags()
	m.flags(f)
	f.StringVar(&mocks, "mocks", "", "file with the answers to what the machine calls")
	f.StringVar(&input, "input", "{}", "the execution's input: JSON, or @FILE")
	f.StringVar(&start, "start", "", "when it begins on the simulated clock; default: 2026-01-01T00:00:00Z")
	f.StringVar(&expect, "expect", string(statelang.StatusSucceeded), "SUCCEEDED, FAILED or TIMED_OUT: the exit code is 1 if it ends otherwise")
	f.BoolVar(&history, "history", false, "also what goes into each state and comes out of it")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.IntVar(&steps, "max-steps", machinetest.DefaultSteps, "end it after so many events")
	return cmd
}

func loadMocks(cmd *cobra.Command, file string, m *statelang.Machine) (machinetest.Mocks, error) {
	if file == "" {
		return machinetest.Mocks{}, nil
	}
	text, err := readFile(cmd, file)
	if err != nil {
		return machinetest.Mocks{}, err
	}
	mocks, problems := machinetest.ParseMocks(text)
	if len(problems) == 0 {
		problems = mocks.Unknown(m)
	}
	if len(problems) > 0 {
		return machinetest.Mocks{}, problemsError(file, problems)
	}
	return mocks, nil
}

// judgeRun is an error if a run is not as expected.
func judgeRun(o *machinetest.Outcome, status statelang.Status, mocks string) error {
	switch {
	case o.Err != nil:
		return o.Err
	case o.Status != status && o.Status != statelang.StatusSucceeded:
		return errors.New(o.Ending())
	case o.Status != status:
		return fmt.Errorf("it is %s, and expected was %s", o.Status, status)
	}
	if left := o.Unused(); len(left) > 0 {
		return problemsError(mocks, left)
	}
	return nil
}
