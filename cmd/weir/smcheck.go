package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/machinetest"
)

// maxTestFiles bounds the test files of one call.
const maxTestFiles = 10_000

// checkFlags are those of weir sm check.
type checkFlags struct {
	junit   string
	least   float64
	history bool
	all     bool
	asJSON  bool
}

func newSMCheck() *cobra.Command {
	var c checkFlags
	cmd := &cobra.Command{
		Use:   "check FILE|FOLDER...",
		Short: "Run test files of state machines, and say what they cover",
		Long: `Run test files of state machines: each case is an execution against mocks, and what is expected of it. The exit code is 1
if one is not as expected. In a folder, and those in it, the test files are *.smtest.yaml, *.smtest.yml and *.smtest.json.

  machine: order.json         # from the folder of this file
  cases:
  - name: a card that is declined
    input: {id: 7}
    mocks:
      Pay: {error: Payment.Declined}
    expect: {status: FAILED, error: Payment.Declined, path: [Pay, Refused]}

Coverage is of the states and of all ways on from them: each Next, rule, Default, retrier and catcher.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := testFiles(args)
			if err != nil {
				return err
			}
			var reports []machinetest.Report
			for _, file := range files {
				r, err := checkFile(cmd, file)
				if err != nil {
					return err
				}
				reports = append(reports, r)
			}
			return c.tell(cmd, reports)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.junit, "junit", "", "also write JUnit XML to this file")
	f.Float64Var(&c.least, "coverage-min", 0, "percent of states and transitions that each file must cover")
	f.BoolVar(&c.history, "history", false, "print the history of what is not as expected")
	f.BoolVar(&c.all, "coverage-all", false, "print how often each state and transition was come through")
	f.BoolVar(&c.asJSON, "json", false, "print JSON")
	return cmd
}

// testFiles are the files that are named, and those in the folders that are.
func testFiles(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, arg)
			continue
		}
		before := len(files)
		err = filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && isTestFile(path) {
				files = append(files, path)
			}
			if len(files) > maxTestFiles {
				return fmt.Errorf("there are more than %d test files in %s", maxTestFiles, arg)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(files) == before {
			return nil, fmt.Errorf("there are no *.smtest.yaml, *.smtest.yml or *.smtest.json in %s", arg)
		}
	}
	return files, nil
}

func isTestFile(path string) bool {
	return slices.ContainsFunc([]string{".smtest.yaml", ".smtest.yml", ".smtest.json"}, func(end string) bool { return strings.HasSuffix(path, end) })
}

// checkFile runs one test file. Mistakes in it, or in its machine, are a report.
func checkFile(cmd *cobra.Command, file string) (machinetest.Report, error) {
	text, err := readFile(cmd, file)
	if err != nil {
		return machinetest.Report{}, err
	}
	s, problems := machinetest.ParseSuite(text)
	if len(problems) > 0 {
		return machinetest.Report{File: file, Problems: problems}, nil
	}
	m := machineFlags{kind: string(s.Type), name: s.Name}
	if m.kind == "" {
		m.kind = "STANDARD"
	}
	path := s.Machine
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(file), path)
	}
	d, err := m.load(cmd, path)
	if err != nil {
		return machinetest.Report{File: file, Machine: s.Machine, Problems: []machinetest.Problem{s.Problem("/machine", err.Error())}}, nil
	}
	return machinetest.Check(file, s, d), nil
}

// tell prints the reports, and is an error if not all is as expected.
func (c *checkFlags) tell(cmd *cobra.Command, reports []machinetest.Report) error {
	out := cmd.OutOrStdout()
	var wrong, low []string
	failed, all, files := 0, 0, 0
	for i := range reports {
		r := &reports[i]
		all += len(r.Cases)
		failed += r.Failed()
		if len(r.Problems) > 0 || len(r.Unused) > 0 {
			files++
		}
		if len(r.Problems) == 0 && r.Coverage.Percent() < c.least {
			low = append(low, fmt.Sprintf("%s covers %.1f %%, less than %v %%", r.File, r.Coverage.Percent(), c.least))
		}
		if c.asJSON {
			continue
		}
		if err := r.Print(out, c.history); err != nil {
			return err
		}
		if len(r.Problems) == 0 {
			if err := r.Coverage.Print(out, c.all); err != nil {
				return err
			}
		}
	}
	if c.asJSON {
		if err := printJSON(out, reports); err != nil {
			return err
		}
	}
	if c.junit != "" {
		if err := writeJUnit(c.junit, reports); err != nil {
			return err
		}
	}
	if failed > 0 {
		wrong = append(wrong, fmt.Sprintf("%d of %d cases failed", failed, all))
	}
	if files > 0 {
		wrong = append(wrong, fmt.Sprintf("%d of %d files have mistakes", files, len(reports)))
	}
	if wrong = append(wrong, low...); len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

func writeJUnit(file string, reports []machinetest.Report) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(machinetest.WriteJUnit(f, reports), f.Close())
}
