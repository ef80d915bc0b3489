package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/integration"
	"github.com/weir-dev/weir/internal/statelang"
)

// LintOptions of a [Lint].
type LintOptions struct {
	// Namespace is that of objects that name none. Default: default.
	Namespace string
	// Partial means that what is missing is in the cluster already: references to it are no mistakes.
	Partial bool
}

// Lint says of objs what the controller would say if the cluster had nothing else, in the words of [Memory.Reconcile] and with
// files and lines; and what Knative would refuse. Parsed are the mistakes that [Parse] has found. Warnings are of what is no
// mistake, but hardly meant; there are none if something may be elsewhere.
//
// It does not know what only the cluster knows, such as NATS' room. TestLintSaysWhatTheControllerSays holds the words.
func Lint(objs *Objects, parsed Errors, opts LintOptions) (mistakes, warnings Errors) {
	objs.incomplete = objs.incomplete || opts.Partial
	if opts.Namespace != "" {
		objs.setNamespace(opts.Namespace)
	}
	r := newReconciler(objs, newPublished(new(catalog.Catalog)), Options{}.withDefaults())
	r.check()
	if !objs.incomplete {
		warnings = warn(objs, r.bundle().Catalog)
	}
	return slices.Concat(parsed, r.errs).sorted(), warnings.sorted()
}

// Undrained are the queues that no mapping drains.
func Undrained(cat *catalog.Catalog) []catalog.Key {
	drained := DrainedBy(cat)
	var out []catalog.Key
	for _, q := range cat.Queues {
		if _, ok := drained[q.Key]; !ok {
			out = append(out, q.Key)
		}
	}
	return out
}

// warn returns the warnings of objs, of which cat was made. Invalid queues and machines are not in it, but invalid mappings are:
// their own mistakes say enough.
func warn(objs *Objects, cat *catalog.Catalog) (warnings Errors) {
	undrained := Undrained(cat)
	for _, r := range objs.Queues {
		if slices.Contains(undrained, catalog.Key{Namespace: r.Object.Namespace, Name: r.Object.Name}) {
			warnings = append(warnings, &Error{
				File: r.Origin.File, Line: r.Origin.line("metadata.name"), Object: kindQueue + " " + r.Object.Name,
				Msg: "no EventSourceMapping drains this queue: what comes into it waits, and expires",
			})
		}
	}
	functions := map[catalog.Key]bool{}
	for _, r := range objs.Services {
		functions[catalog.Key{Namespace: r.Object.Namespace, Name: r.Object.Name}] = true
	}
	for _, r := range objs.Machines {
		spec := &r.Object.Spec
		machine, err := statelang.Parse(spec.DefinitionText(), statelang.Options{Type: statelang.Type(spec.Type), Supports: integration.Supports})
		if err != nil {
			continue // a mistake
		}
		field := "spec.definition"
		if spec.Definition == nil {
			field = "spec.definitionString"
		}
		for s := range machine.All() {
			if name := integration.FunctionOf(s); name != "" && !functions[catalog.Key{Namespace: r.Object.Namespace, Name: name}] {
				path := field + strings.ReplaceAll(s.Path(), "/", ".")
				warnings = append(warnings, &Error{
					File: r.Origin.File, Line: r.Origin.line(path), Object: kindMachine + " " + r.Object.Name, Field: path,
					Msg: fmt.Sprintf("there is no function %q in the namespace %s", name, r.Object.Namespace),
				})
			}
		}
	}
	return warnings
}
