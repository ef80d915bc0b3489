package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/weir-dev/weir/internal/manifest"
)

func newLint() *cobra.Command {
	var l lint
	cmd := &cobra.Command{
		Use:   "lint FOLDER|-",
		Short: "Print all mistakes of resources before kubectl apply, in the words that their statuses would have",
		Long: `Print all mistakes of resources before kubectl apply, in the words that their statuses would have, each as
FILE:LINE: OBJECT: FIELD: what is wrong. Nothing has to run for it.

FOLDER holds the same YAML as weir local and a cluster get: the weir.dev resources and the Knative Services of the functions. - is
standard input, which takes what was rendered:

  helm template shop | weir lint -
  kustomize build overlays/production | weir lint - -n production

As kubectl apply, it reads the files of the folder itself, with -R those of all its subfolders too, and of a List (kind: List) each
item. Other kinds are left alone. It sees what it is given, and nothing of a cluster: a reference to a Service or a Queue that is only
there is a mistake, unless --partial says that what is missing is there already.

A queue that no mapping drains, and a task of a state machine that calls a function which is not given, are warnings; with --partial
there are none.

The exit code is 1 if there are mistakes, with --strict also if there are warnings; 2 if nothing could be looked at.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("name one folder of YAML, or - for standard input: weir lint FOLDER")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return l.run(cmd, args[0]) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := cmd.Flags()
	f.StringVarP(&l.opts.Namespace, "namespace", "n", "default", "namespace of objects that name none, as of kubectl apply")
	f.BoolVarP(&l.recursive, "recursive", "R", false, "read the subfolders of FOLDER too")
	f.BoolVar(&l.opts.Partial, "partial", false, "what is missing is in the cluster already: references to it are no mistakes")
	f.BoolVar(&l.strict, "strict", false, "warnings fail too")
	return cmd
}

type lint struct {
	opts      manifest.LintOptions
	recursive bool
	strict    bool
}

func (l *lint) run(cmd *cobra.Command, from string) error {
	objs, parsed, err := l.read(cmd, from)
	if err != nil {
		return usageError{err}
	}
	mistakes, warnings := manifest.Lint(objs, parsed, l.opts)
	if objs.Len() == 0 && len(mistakes) == 0 {
		warnings = append(warnings, &manifest.Error{File: from, Msg: "there is no resource of Weir here"})
	}
	out := cmd.OutOrStdout()
	var errs []error
	say := func(line string) {
		_, err := fmt.Fprintln(out, line)
		errs = append(errs, err)
	}
	for _, m := range mistakes {
		say(m.Error())
	}
	for _, w := range warnings {
		marked := *w
		marked.Msg = "warning: " + w.Msg
		say(marked.Error())
	}
	switch {
	case len(mistakes) > 0:
		errs = append(errs, mistaken(len(mistakes)))
	case l.strict && len(warnings) > 0:
		errs = append(errs, errors.New("there are warnings, which fail with --strict"))
	default:
		say(fmt.Sprintf("%s: no mistakes in %d resources", from, objs.Len()))
	}
	return errors.Join(errs...)
}

// read reads a folder, or standard input.
func (l *lint) read(cmd *cobra.Command, from string) (*manifest.Objects, manifest.Errors, error) {
	if from != "-" {
		objs, errs, err := manifest.ParseDir(from, l.recursive)
		if none, ok := errors.AsType[*manifest.NoFilesError](err); ok && none.Below != "" {
			err = fmt.Errorf("%w: weir lint -R %s reads them too", err, from)
		}
		return objs, errs, err
	}
	text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), manifest.MaxStreamBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading standard input: %w", err)
	}
	objs, errs := manifest.ParseStream("-", text)
	return objs, errs, nil
}
