package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/stream"
)

// listFlags say which resources are listed, as with kubectl get, and how.
type listFlags struct {
	namespace string
	all       bool
	output    string
	json      bool
}

func (l *listFlags) add(f *pflag.FlagSet) {
	f.StringVarP(&l.namespace, "namespace", "n", "default", "namespace to list")
	f.BoolVarP(&l.all, "all-namespaces", "A", false, "list all namespaces")
	f.StringVarP(&l.output, "output", "o", "table", "table, or json: one JSON object a line")
	f.BoolVar(&l.json, "json", false, "the same as --output json")
}

func (l *listFlags) check() error {
	switch l.output {
	case "table":
	case "json":
		l.json = true
	default:
		return fmt.Errorf("--output is %q: it must be table or json", l.output)
	}
	return nil
}

// wants reports whether k is to be listed; names has the one that is asked for, or none.
func (l *listFlags) wants(k catalog.Key, names []string) bool {
	return (l.all || k.Namespace == l.namespace) && (len(names) == 0 || k.Name == names[0])
}

// none is the error if nothing was found.
func (l *listFlags) none(kind string, names []string) error {
	what := "no " + kind
	if len(names) > 0 {
		what += " " + names[0]
	}
	if l.all {
		return errors.New("there is " + what)
	}
	return fmt.Errorf("there is %s in namespace %s; --all-namespaces lists those of all", what, l.namespace)
}

// printRows prints rows as JSON, or as a table.
func printRows[T any](w io.Writer, asJSON bool, rows []T, head string, line func(T) string) error {
	if asJSON {
		enc := json.NewEncoder(w)
		for _, r := range rows {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, err := fmt.Fprintln(tab, head)
	errs := []error{err}
	for _, r := range rows {
		_, err := fmt.Fprintln(tab, line(r))
		errs = append(errs, err)
	}
	return errors.Join(append(errs, tab.Flush())...)
}

// owner is how a table says whether a dispatcher works on a queue.
func owner(owned bool) string {
	if owned {
		return "yes"
	}
	return "none"
}

// number is how a table says what may be unknown.
func number(n *int) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

// working are the numbers of a queue's owner: 0 if it has none, nil if it doesn't say.
func working(w *stream.Work, owned bool) (records, calls, limit *int) {
	switch {
	case w != nil:
		return &w.Records, &w.Calls, &w.Limit
	case !owned:
		return new(int), new(int), nil
	}
	return nil, nil, nil
}
