package manifest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weir-dev/weir/api/v1alpha1"
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
	mistakes = slices.Concat(parsed, objs.twiceInClasses())
	for _, class := range objs.classes() {
		its := objs.ofClass(class)
		r := newReconciler(its, newPublished(new(catalog.Catalog)), Options{}.withDefaults())
		r.check()
		mistakes = append(mistakes, r.errs...)
		if !objs.incomplete {
			warnings = append(warnings, warn(its, r.bundle().Catalog)...)
		}
	}
	return mistakes.sorted(), warnings.sorted()
}

// twiceInClasses are objects that are there twice, in two classes: to a cluster they are one. Those of one class its compilation finds.
func (o *Objects) twiceInClasses() (mistakes Errors) {
	type one struct {
		class  string
		origin *Origin
	}
	first := map[Ref]one{}
	o.each(func(ref Ref, class string, origin *Origin) {
		was, known := first[ref]
		switch {
		case !known:
			first[ref] = one{class, origin}
		case was.class != class:
			mistakes = append(mistakes, twice(&subject{ref.Kind, ref.Key, *origin}, was.origin))
		}
	})
	return mistakes
}

// OtherClass says in Objects.Elsewhere why what is of class own has nothing to do with an object.
func OtherClass(of, own string) string {
	return fmt.Sprintf("is of class %s, and this one of class %s", of, own)
}

// classes are those of the objects; with none of Weir's kinds it is the default, for the Services.
func (o *Objects) classes() (all []string) {
	seen := map[string]bool{}
	o.each(func(_ Ref, class string, _ *Origin) { seen[class] = true })
	if len(seen) == 0 {
		return []string{v1alpha1.DefaultClass}
	}
	return slices.Sorted(maps.Keys(seen))
}

// ofClass are what a release that serves a class has to do with; the others of Weir's kinds are elsewhere.
func (o *Objects) ofClass(class string) *Objects {
	its := &Objects{
		APIs: only(o.APIs, func(a *v1alpha1.API) bool { return a.ClassOf() == class }), Queues: only(o.Queues, func(q *v1alpha1.Queue) bool { return q.ClassOf() == class }),
		Mappings: only(o.Mappings, func(m *v1alpha1.EventSourceMapping) bool { return m.ClassOf() == class }),
		Machines: only(o.Machines, func(m *v1alpha1.StateMachine) bool { return m.ClassOf() == class }),
		Services: slices.Clone(o.Services), Elsewhere: map[Ref]string{}, incomplete: o.incomplete,
	}
	o.each(func(ref Ref, of string, _ *Origin) {
		if of != class {
			its.Elsewhere[ref] = OtherClass(of, class)
		}
	})
	return its
}

func only[T any](list []Resource[T], yes func(*T) bool) (its []Resource[T]) {
	for _, r := range list {
		if yes(r.Object) {
			its = append(its, r)
		}
	}
	return its
}

// each calls f with the objects of Weir's kinds.
func (o *Objects) each(f func(ref Ref, class string, origin *Origin)) {
	key := func(m *metav1.ObjectMeta) catalog.Key {
		return catalog.Key{Namespace: cmp.Or(m.Namespace, defaultNamespace), Name: m.Name}
	}
	for _, r := range o.APIs {
		f(APIRef(key(&r.Object.ObjectMeta)), r.Object.ClassOf(), &r.Origin)
	}
	for _, r := range o.Queues {
		f(QueueRef(key(&r.Object.ObjectMeta)), r.Object.ClassOf(), &r.Origin)
	}
	for _, r := range o.Mappings {
		f(MappingRef(key(&r.Object.ObjectMeta)), r.Object.ClassOf(), &r.Origin)
	}
	for _, r := range o.Machines {
		f(MachineRef(key(&r.Object.ObjectMeta)), r.Object.ClassOf(), &r.Origin)
	}
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
