package machinetest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-dev/weir/internal/jsontree"
	"github.com/weir-dev/weir/internal/statelang"
)

// apiGroup is that of the StateMachine resource.
const apiGroup = "weir.dev/"

// Definition is a state machine in a file.
type Definition struct {
	Name    string // of the resource; empty if it has none
	Type    statelang.Type
	Machine *statelang.Machine // nil if there are problems

	document Document // of the definition alone
	above    int      // lines before the definition, if it is a text in the file
}

// Problem is a mistake in a file.
type Problem struct {
	Line    int    `json:"line,omitempty"` // 0 if it has none
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

// String is the problem for people, without the file's name.
func (p Problem) String() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Path + ": " + p.Message
}

// ParseDefinitions reads the state machines of a file: a definition as it is, what aws stepfunctions describe-state-machine
// prints, or resources of the kind StateMachine, with whatever else is in the file. kind is the machines' type where the file
// has none.
func ParseDefinitions(text []byte, kind statelang.Type) ([]Definition, []Problem) {
	documents, err := ParseDocuments(text)
	if err != nil {
		return nil, syntaxProblems(err)
	}
	var found []Definition
	var problems []Problem
	others := 0
	for _, d := range documents {
		o, ok := d.Value.(*jsontree.Object)
		if ok && isResource(o) {
			if name, _ := o.Get("kind"); name != "StateMachine" {
				others++
				continue
			}
		}
		def, wrong := parseDefinition(d, kind)
		slices.SortStableFunc(wrong, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
		found, problems = append(found, def), append(problems, wrong...)
	}
	if len(found) == 0 {
		message := "the file is empty: a state machine begins with StartAt and States"
		if others > 0 {
			message = "the file has no resource of the kind StateMachine"
		}
		problems = append(problems, Problem{Message: message})
	}
	return found, problems
}

func syntaxProblems(err error) []Problem {
	if syntax, ok := errors.AsType[*SyntaxError](err); ok {
		return []Problem{{Line: syntax.Line, Message: syntax.Message}}
	}
	return []Problem{{Message: err.Error()}}
}

func isResource(o *jsontree.Object) bool { return o.Has("apiVersion") && o.Has("kind") }

// parseDefinition reads the definition of one document.
func parseDefinition(d Document, kind statelang.Type) (Definition, []Problem) {
	def := Definition{Type: kind, document: d}
	prefix := "" // of the paths of problems
	var problems []Problem
	o, isObject := d.Value.(*jsontree.Object)
	switch {
	case isObject && isResource(o):
		prefix = "/spec/definition"
		if problem, ok := def.resource(d); !ok {
			return def, []Problem{problem}
		}
	case isObject && o.Has("definition") && !o.Has("States"):
		prefix = "/definition"
		def.described(d)
	}
	if text, isText := def.document.Value.(string); isText {
		if problem := def.unpack(text, prefix); problem != nil {
			return def, append(problems, *problem)
		}
		prefix = ""
	}
	text, err := jsontree.Append(nil, def.document.Value)
	if err != nil {
		return def, append(problems, Problem{Line: d.Line(""), Message: err.Error()})
	}
	def.Machine, err = statelang.Parse(text, statelang.Options{Type: def.Type})
	var wrong statelang.Problems
	switch {
	case errors.As(err, &wrong):
		for _, p := range wrong {
			problem := Problem{Path: p.Path, Message: p.Message}
			if line := def.document.Line(p.Path); line > 0 {
				problem.Line = line + def.above
			}
			if prefix != "" && p.Path != "" {
				problem.Path = prefix + p.Path
			}
			problems = append(problems, problem)
		}
	case err != nil:
		problems = append(problems, Problem{Message: err.Error()})
	}
	if len(problems) > 0 {
		def.Machine = nil
	}
	return def, problems
}

// resource finds the definition in a StateMachine; ok is false if there is none.
func (def *Definition) resource(d Document) (problem Problem, ok bool) {
	wrong := func(path, format string, args ...any) (Problem, bool) {
		return Problem{Line: d.Line(path), Path: path, Message: fmt.Sprintf(format, args...)}, false
	}
	version, _ := d.in("apiVersion")
	if text, _ := version.Value.(string); !strings.HasPrefix(text, apiGroup) {
		return wrong("/apiVersion", "is %s: it must be weir.dev/v1alpha1", show(version.Value))
	}
	if meta, ok := d.in("metadata"); ok {
		name, _ := meta.in("name")
		def.Name, _ = name.Value.(string)
	}
	spec, ok := d.in("spec")
	if !ok {
		return wrong("/spec", "is missing: it has type and definition")
	}
	if kind, ok := spec.in("type"); ok {
		text, isText := kind.Value.(string)
		if !isText {
			return wrong("/spec/type", "must be STANDARD or EXPRESS, not %s", show(kind.Value))
		}
		def.Type = statelang.Type(text)
	}
	text, isText := spec.in("definitionString")
	def.document, ok = spec.in("definition")
	switch {
	case ok && isText:
		return wrong("/spec/definitionString", "is there besides definition: keep one of the two")
	case isText:
		def.document = text
	case !ok:
		return wrong("/spec/definition", "is missing: the state machine, with StartAt and States; or definitionString, a text that holds its JSON")
	}
	return Problem{}, true
}

// described finds the definition in what AWS prints of a state machine.
func (def *Definition) described(d Document) {
	if name, ok := d.in("name"); ok {
		def.Name, _ = name.Value.(string)
	}
	if kind, ok := d.in("type"); ok {
		if text, isText := kind.Value.(string); isText {
			def.Type = statelang.Type(text)
		}
	}
	def.document, _ = d.in("definition")
}

// unpack reads a definition that is a text in the file: a JSON text, or a block of YAML.
func (def *Definition) unpack(text, prefix string) *Problem {
	line := def.document.Line("")
	block := def.document.place != nil && def.document.place.block
	documents, err := ParseDocuments([]byte(text))
	if err == nil && len(documents) != 1 {
		err = &SyntaxError{0, "must be one state machine"}
	}
	if err != nil {
		problem := syntaxProblems(err)[0]
		problem.Path = prefix
		if block && problem.Line > 0 {
			problem.Line += line
		} else {
			problem.Line = line
		}
		return &problem
	}
	def.document, def.above = documents[0], line
	if !block {
		def.document.place, def.above = &place{line: line}, 0
	}
	return nil
}
