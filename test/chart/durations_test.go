package chart_test

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weir-dev/weir/api/v1alpha1"
)

// TestDurationsAreRefused: of every duration that a user may write the definition refuses what the controller could not read, for
// a single such object would keep it from reading any of its kind; and it says that days are no unit. What the API server says then
// is in test/e2e (testRefusedResources).
func TestDurationsAreRefused(t *testing.T) {
	types := map[string]reflect.Type{
		"API": reflect.TypeFor[v1alpha1.APISpec](), "Queue": reflect.TypeFor[v1alpha1.QueueSpec](),
		"EventSourceMapping": reflect.TypeFor[v1alpha1.EventSourceMappingSpec](), "StateMachine": reflect.TypeFor[v1alpha1.StateMachineSpec](),
	}
	found := 0
	for _, crd := range all[apiextensionsv1.CustomResourceDefinition](render(t, ``)) {
		spec := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
		durations(types[crd.Spec.Names.Kind], &spec, crd.Spec.Names.Kind+" spec", func(path string, s *apiextensionsv1.JSONSchemaProps) {
			found++
			pattern, err := regexp.Compile(s.Pattern)
			if err != nil || s.Pattern == "" || pattern.MatchString("4d") || !pattern.MatchString("1h30m") {
				t.Errorf("%s: pattern %q: %v", path, s.Pattern, err)
			}
			says := func(part string) bool {
				return slices.ContainsFunc(s.XValidations, func(r apiextensionsv1.ValidationRule) bool { return strings.Contains(r.Message, part) })
			}
			if !says("days and weeks are no units") || !says("must be between") {
				t.Errorf("%s: %v", path, s.XValidations)
			}
		})
	}
	if found < 11 {
		t.Errorf("only %d durations", found)
	}
}

// durations calls f with each field below typ that is a duration.
func durations(typ reflect.Type, s *apiextensionsv1.JSONSchemaProps, path string, f func(path string, s *apiextensionsv1.JSONSchemaProps)) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch {
	case typ == reflect.TypeFor[metav1.Duration]():
		f(path, s)
	case typ.Kind() == reflect.Slice && s.Items != nil:
		durations(typ.Elem(), s.Items.Schema, path+"[]", f)
	case typ.Kind() == reflect.Struct:
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if inner, ok := s.Properties[name]; ok {
				durations(field.Type, &inner, path+"."+name, f)
			} else if field.Anonymous {
				durations(field.Type, s, path, f)
			}
		}
	}
}
