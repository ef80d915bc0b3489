package v1alpha1

import (
	"errors"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/weir-dev/weir/internal/integration"
	"github.com/weir-dev/weir/internal/statelang"
)

// Default fills in what the user left out. It is idempotent.
func (m *StateMachine) Default() {
	m.Spec.Class = m.ClassOf()
	if m.Spec.Type == "" {
		m.Spec.Type = StandardMachine
	}
}

// DefinitionText is the definition as JSON; empty if there is none.
func (s *StateMachineSpec) DefinitionText() []byte {
	if s.Definition != nil {
		return s.Definition.Raw
	}
	return []byte(s.DefinitionString)
}

// CheckDefinition returns all mistakes of a definition, as statelang.Problems.
func CheckDefinition(text []byte, kind StateMachineType) error {
	_, err := statelang.Parse(text, statelang.Options{Type: statelang.Type(kind), Supports: integration.Supports})
	return err
}

// Validate returns every mistake in m, with its field and the fix. It expects a defaulted StateMachine.
func (m *StateMachine) Validate() field.ErrorList { return m.ValidateWith(CheckDefinition) }

// ValidateWith is Validate with a check that may know a definition's result already.
func (m *StateMachine) ValidateWith(check func([]byte, StateMachineType) error) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateMeta(&m.ObjectMeta)
	kind := spec.Child("type")
	if m.Spec.Type != StandardMachine && m.Spec.Type != ExpressMachine {
		return append(errs, field.NotSupported(kind, m.Spec.Type, []StateMachineType{StandardMachine, ExpressMachine}))
	}
	at := spec.Child("definition")
	switch {
	case m.Spec.Definition == nil && m.Spec.DefinitionString == "":
		return append(errs, field.Required(at, "write it in the Amazon States Language, or give definitionString, a text that holds its JSON"))
	case m.Spec.Definition != nil && m.Spec.DefinitionString != "":
		return append(errs, field.Forbidden(spec.Child("definitionString"), "definition is set too: keep one of the two"))
	case m.Spec.Definition == nil:
		at = spec.Child("definitionString")
	}
	return append(errs, definitionErrors(check(m.Spec.DefinitionText(), m.Spec.Type), at)...)
}

func definitionErrors(err error, at *field.Path) field.ErrorList {
	problems, ok := errors.AsType[statelang.Problems](err)
	if !ok {
		return nil // there is no other error
	}
	var errs field.ErrorList
	for _, p := range problems {
		errs = append(errs, field.Invalid(within(at, p.Path), field.OmitValueType{}, p.Message))
	}
	return errs
}

// within is the field at a JSON Pointer below at.
func within(at *field.Path, pointer string) *field.Path {
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if n, err := strconv.Atoi(part); err == nil {
			at = at.Index(n)
		} else if part != "" {
			at = at.Child(part)
		}
	}
	return at
}
