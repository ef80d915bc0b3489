package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/machinetest"
	"github.com/weir-dev/weir/internal/statelang"
)

// stateFlags are what weir sm test is told of a test.
type stateFlags struct {
	machine    machineFlags
	state      string
	input      string
	context    string
	variables  string
	mock       string
	inspect    string
	mapItem    string
	readerData string
	causedBy   string
	retries    int
	mapIndex   int
	failures   int
	asJSON     bool
}

func newSMTest() *cobra.Command {
	var s stateFlags
	cmd := &cobra.Command{
		Use:   "test FILE --state NAME",
		Short: "Test one state, with mocks of what it calls",
		Long: `Test one state as AWS's TestState does: what each path, selector and Assign makes of the data, and how the state is left.

  weir sm test order.json --state Pay --input '{"id":7}' --mock result='{"ok":true}' --inspect debug
  weir sm test order.json --state Pay --mock error=Payment.Declined:'no money' --retry-count 2

A Task, Parallel or Map needs a mock: the result, or the error, of what it calls or of what is in it. A state that is inside of
a Parallel or Map is named as all are; if several have the name, by its path, such as /States/All/Branches[0]/States/Pay.

The status is SUCCEEDED, FAILED, RETRIABLE (a retrier tries it once more) or CAUGHT_ERROR (a catcher goes on). The exit code is
0 for all of them: it is 1 if the test can't be made.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := s.machine.load(cmd, args[0])
			if err != nil {
				return err
			}
			test, err := s.test(cmd)
			if err != nil {
				return err
			}
			r, err := statelang.Test(d.Machine, test)
			if err != nil {
				return err
			}
			if s.asJSON {
				return printJSON(cmd.OutOrStdout(), machinetest.StateJSON(r, s.inspect != "info"))
			}
			return s.print(cmd.OutOrStdout(), r)
		},
	}
	f := cmd.Flags()
	s.machine.flags(f)
	f.StringVar(&s.state, "state", "", "name or path of the state")
	f.StringVar(&s.input, "input", "{}", "its input: JSON, or @FILE")
	f.StringVar(&s.context, "context", "", "members of the context object: JSON, or @FILE")
	f.StringVar(&s.variables, "variables", "", "the variables that are assigned: JSON, or @FILE")
	f.StringVar(&s.mock, "mock", "", "result=JSON, result=@FILE, or error=NAME:CAUSE")
	f.IntVar(&s.retries, "retry-count", 0, "how many retries there were of the retrier that matches")
	f.IntVar(&s.mapIndex, "map-index", 0, "place of the item that a state inside of a Map works on")
	f.StringVar(&s.mapItem, "map-item", "", "that item: JSON, or @FILE; by default the input")
	f.IntVar(&s.failures, "map-failures", 0, "how many iterations of the Map have failed")
	f.StringVar(&s.readerData, "item-reader-data", "", "what the Map's ItemReader finds: a text, or @FILE")
	f.StringVar(&s.causedBy, "error-caused-by", "", "the state inside of the Parallel or Map that the mock's error comes from")
	f.StringVar(&s.inspect, "inspect", "info", "info, debug (what was made of the data), or trace (in the order in which it was made)")
	f.BoolVar(&s.asJSON, "json", false, "print JSON as AWS's TestState does")
	return cmd
}

// test makes the test that the flags tell of.
func (s *stateFlags) test(cmd *cobra.Command) (x statelang.StateTest, err error) {
	switch {
	case s.state == "":
		return x, errors.New("--state is missing: the name of the state to test")
	case s.inspect != "info" && s.inspect != "debug" && s.inspect != "trace":
		return x, fmt.Errorf("--inspect is %q: it must be info, debug or trace", s.inspect)
	}
	x = statelang.StateTest{
		State: s.state, At: time.Now().UTC(), RetryCount: s.retries, MapIndex: s.mapIndex, MapFailures: s.failures, ErrorCausedBy: s.causedBy,
	}
	if x.Input, err = jsonValue(cmd, "input", s.input); err != nil {
		return x, err
	}
	if x.Context, err = jsonObject(cmd, "context", s.context); err != nil {
		return x, err
	}
	if x.Variables, err = jsonObject(cmd, "variables", s.variables); err != nil {
		return x, err
	}
	if s.mapItem != "" {
		x.HasItem = true
		if x.MapItem, err = jsonValue(cmd, "map-item", s.mapItem); err != nil {
			return x, err
		}
	}
	if s.readerData != "" {
		x.ItemReaderData = []byte(s.readerData)
		if file, isFile := strings.CutPrefix(s.readerData, "@"); isFile {
			if x.ItemReaderData, err = readFile(cmd, file); err != nil {
				return x, fmt.Errorf("--item-reader-data: %w", err)
			}
		}
	}
	if s.mock != "" {
		x.Mock, err = s.mocked(cmd)
	}
	return x, err
}

func (s *stateFlags) mocked(cmd *cobra.Command) (*statelang.StateMock, error) {
	kind, value, _ := strings.Cut(s.mock, "=")
	switch {
	case kind == "result" && value != "":
		v, err := jsonValue(cmd, "mock", value)
		return &statelang.StateMock{Result: v}, err
	case kind == "error" && value != "":
		name, cause, hasCause := cutError(value)
		f := &statelang.Failure{Error: &name}
		if hasCause {
			f.Cause = &cause
		}
		return &statelang.StateMock{Failure: f}, nil
	}
	return nil, fmt.Errorf("--mock is %q: it must be result=JSON, result=@FILE or error=NAME:CAUSE", s.mock)
}

// cutError splits NAME:CAUSE.
func cutError(text string) (name, cause string, hasCause bool) { return strings.Cut(text, ":") }

// print writes the result for people.
func (s *stateFlags) print(w io.Writer, r statelang.StateResult) error {
	line := func(name, value string) error {
		text := strings.TrimRight(fmt.Sprintf("%-20s %s", name, value), " ")
		_, err := fmt.Fprintln(w, text)
		return err
	}
	if err := line("status", string(r.Status)); err != nil {
		return err
	}
	for _, row := range machinetest.StateLines(r, s.inspect) {
		if err := line(row.Name, row.Value); err != nil {
			return err
		}
	}
	return nil
}
