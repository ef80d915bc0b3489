package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/machinetest"
	"github.com/weir-dev/weir/internal/statelang"
)

func newSM() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sm",
		Short: "Validate, test, run and draw state machines before they are deployed",
		Long: `Validate, test, run and draw state machines before they are deployed. Nothing is called and nothing has to run for it.

A FILE is JSON or YAML: a definition in the Amazon States Language, a resource of the kind StateMachine, or what
aws stepfunctions describe-state-machine prints. - is standard input.`,
	}
	cmd.AddCommand(newSMValidate(), newSMTest(), newSMRun(), newSMCheck(), newSMGraph())
	return cmd
}

// machineFlags say which machine of a file is meant.
type machineFlags struct {
	kind string
	name string
}

func (m *machineFlags) flags(f *pflag.FlagSet) {
	m.kindFlag(f)
	f.StringVar(&m.name, "machine", "", "name of the StateMachine, if the file has several")
}

func (m *machineFlags) kindFlag(f *pflag.FlagSet) {
	f.StringVar(&m.kind, "type", string(statelang.Standard), "STANDARD or EXPRESS, of a machine whose file does not say it")
}

func (m *machineFlags) check() error {
	if kind := statelang.Type(m.kind); kind != statelang.Standard && kind != statelang.Express {
		return fmt.Errorf("--type is %q: it must be %s or %s", m.kind, statelang.Standard, statelang.Express)
	}
	return nil
}

// load reads the machine of a file. Its mistakes are an error with a line each.
func (m *machineFlags) load(cmd *cobra.Command, file string) (machinetest.Definition, error) {
	if err := m.check(); err != nil {
		return machinetest.Definition{}, err
	}
	text, err := readFile(cmd, file)
	if err != nil {
		return machinetest.Definition{}, err
	}
	found, problems := machinetest.ParseDefinitions(text, statelang.Type(m.kind))
	if len(problems) > 0 {
		return machinetest.Definition{}, problemsError(file, problems)
	}
	var names []string
	for _, d := range found {
		if d.Name == m.name || m.name == "" && len(found) == 1 {
			return d, nil
		}
		names = append(names, d.Name)
	}
	if m.name == "" {
		return machinetest.Definition{}, fmt.Errorf("%s has %d state machines: say which with --machine: %s", file, len(found), strings.Join(names, ", "))
	}
	return machinetest.Definition{}, fmt.Errorf("%s has no state machine %q: it has %s", file, m.name, strings.Join(names, ", "))
}

// readFile reads a file, or standard input.
func readFile(cmd *cobra.Command, file string) ([]byte, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, machinetest.MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return text, nil // who parses it says that it is too large
}

func problemsError(file string, problems []machinetest.Problem) error {
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = problemLine(file, p)
	}
	return errors.New(strings.Join(lines, "\n"))
}

func problemLine(file string, p machinetest.Problem) string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", file, p)
	}
	return fmt.Sprintf("%s:%d: %s", file, p.Line, p)
}

// jsonValue reads the value of a flag: JSON, or @ and the name of a file that has JSON or YAML.
func jsonValue(cmd *cobra.Command, flag, text string) (any, error) {
	file, isFile := strings.CutPrefix(text, "@")
	if !isFile {
		v, err := machinetest.ParseJSON([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("--%s is no JSON: %w; @FILE reads a file", flag, err)
		}
		return v, nil
	}
	content, err := readFile(cmd, file)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	documents, err := machinetest.ParseDocuments(content)
	switch {
	case err != nil:
		return nil, fmt.Errorf("--%s: %s: %w", flag, file, err)
	case len(documents) == 0:
		return nil, nil
	case len(documents) > 1:
		return nil, fmt.Errorf("--%s: %s has %d documents, and must have one", flag, file, len(documents))
	}
	return documents[0].Value, nil
}

// jsonObject is the same of an object; nil if the flag is not given.
func jsonObject(cmd *cobra.Command, flag, text string) (*jsontree.Object, error) {
	if text == "" {
		return nil, nil
	}
	v, err := jsonValue(cmd, flag, text)
	if err != nil {
		return nil, err
	}
	o, ok := v.(*jsontree.Object)
	if !ok {
		return nil, fmt.Errorf("--%s must be an object", flag)
	}
	return o, nil
}

// printJSON writes v with indents.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
