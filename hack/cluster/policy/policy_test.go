// Package policy_test holds the chart's ValidatingAdmissionPolicy of the controller to what it promises, by the API server's own code.
package policy_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"
	"k8s.io/kubernetes/pkg/apis/admissionregistration/validation"
)

const (
	controller = "system:serviceaccount:weir-system:weir-controller"
	own        = "weir.weir-system.weir.dev/queue"
	shared     = "weir.dev/queue" // of all releases, before each had its own
	others     = "weir.other.weir.dev/queue"
)

// TestPolicy: the controller changes its own finalizer of a Queue, and no more of it.
func TestPolicy(t *testing.T) {
	validator := compiled(t, rendered(t))
	owner := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "1"}
	for _, c := range []struct {
		name        string
		before, now map[string]any
		by          string
		refused     string
	}{
		{name: "its finalizer comes", before: queue(nil), now: queue(with("finalizers", own))},
		{name: "its finalizer comes beside another", before: queue(with("finalizers", others)), now: queue(with("finalizers", others, own))},
		{name: "its finalizer goes, from before another", before: queue(with("finalizers", own, others)), now: queue(with("finalizers", others))},
		{name: "the last finalizer goes", before: queue(with("finalizers", own)), now: queue(nil)},
		{name: "its own in the place of the shared one", before: queue(with("finalizers", shared)), now: queue(with("finalizers", own))},
		{name: "nothing", before: queue(with("labels", "a")), now: queue(with("labels", "a"))},
		{name: "the shared finalizer comes", before: queue(nil), now: queue(with("finalizers", shared)), refused: "finalizer"},
		{name: "another's goes", before: queue(with("finalizers", own, others)), now: queue(with("finalizers", own)), refused: "finalizer"},
		{name: "another's comes", before: queue(nil), now: queue(with("finalizers", others)), refused: "finalizer"},
		{name: "a finalizer of the garbage collector comes", before: queue(nil), now: queue(with("finalizers", "foregroundDeletion")), refused: "finalizer"},
		{name: "a label", before: queue(nil), now: queue(with("labels", "a")), refused: "labels"},
		{name: "a label goes", before: queue(with("labels", "a")), now: queue(nil), refused: "labels"},
		{name: "an annotation", before: queue(nil), now: queue(with("annotations", "weir.dev/drop-records")), refused: "annotations"},
		{name: "an annotation goes", before: queue(with("annotations", "a")), now: queue(nil), refused: "annotations"},
		{name: "an owner", before: queue(nil), now: queue(map[string]any{"ownerReferences": []any{owner}}), refused: "owners"},
		{name: "an owner goes", before: queue(map[string]any{"ownerReferences": []any{owner}}), now: queue(nil), refused: "owners"},
		{name: "the spec", before: queue(nil), now: spec(queue(nil), "1s"), refused: "spec"},
		{name: "all of it by somebody else", before: queue(with("finalizers", own)), now: spec(queue(with("labels", "a")), "1s"), by: "jane"},
	} {
		gvk := schema.GroupVersionKind{Group: "weir.dev", Version: "v1alpha1", Kind: "Queue"}
		gvr := schema.GroupVersionResource{Group: "weir.dev", Version: "v1alpha1", Resource: "queues"}
		before, now := &unstructured.Unstructured{Object: c.before}, &unstructured.Unstructured{Object: c.now}
		if c.by == "" {
			c.by = controller
		}
		attributes := admission.NewAttributesRecord(now, before, gvk, "shop", "orders", gvr, "", admission.Update, nil, false, &user.DefaultInfo{Name: c.by})
		said := ""
		result := validator.Validate(context.Background(), gvr,
			&admission.VersionedAttributes{Attributes: attributes, VersionedObject: now, VersionedOldObject: before, VersionedKind: gvk}, nil, nil, celconfig.RuntimeCELCostBudget, nil)
		for _, d := range result.Decisions {
			if d.Evaluation == validating.EvalError {
				t.Errorf("%s: %s", c.name, d.Message)
			}
			if d.Action == validating.ActionDeny {
				said += d.Message
			}
		}
		if (said == "") != (c.refused == "") || !strings.Contains(said, c.refused) {
			t.Errorf("%s: refused by %q, want %q", c.name, said, c.refused)
		}
	}
}

// queue is one with this in its metadata.
func queue(metadata map[string]any) map[string]any {
	m := map[string]any{"name": "orders", "namespace": "shop"}
	for k, v := range metadata {
		m[k] = v
	}
	return map[string]any{"apiVersion": "weir.dev/v1alpha1", "kind": "Queue", "metadata": m, "spec": map[string]any{"maxAge": "24h"}}
}

func spec(queue map[string]any, maxAge string) map[string]any {
	queue["spec"] = map[string]any{"maxAge": maxAge}
	return queue
}

// with are finalizers, or labels or annotations.
func with(field string, values ...string) map[string]any {
	list, set := []any{}, map[string]any{}
	for _, v := range values {
		list, set[v] = append(list, v), "true"
	}
	if field == "finalizers" {
		return map[string]any{field: list}
	}
	return map[string]any{field: set}
}

// rendered is the policy as the chart has it.
func rendered(t *testing.T) *v1.ValidatingAdmissionPolicy {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(root, "bin/helm"), "template", "weir", filepath.Join(root, "charts/weir"), "--namespace", "weir-system",
		"--show-only", "templates/controller/rbac.yaml").Output()
	if err != nil {
		t.Fatalf("hack/tools/kube/install.sh builds helm: %v", err)
	}
	decoder := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	for text := range strings.SplitSeq(string(out), "\n---\n") {
		if !strings.Contains(text, "\nkind: ValidatingAdmissionPolicy\n") {
			continue
		}
		o, _, err := decoder.Decode([]byte(text), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return o.(*v1.ValidatingAdmissionPolicy)
	}
	t.Fatal("the chart has no policy")
	return nil
}

// compiled is what the API server makes of it, once it has let it in.
func compiled(t *testing.T, policy *v1.ValidatingAdmissionPolicy) validating.Validator {
	t.Helper()
	legacyscheme.Scheme.Default(policy)
	var internal admissionregistration.ValidatingAdmissionPolicy
	if err := legacyscheme.Scheme.Convert(policy, &internal, nil); err != nil {
		t.Fatal(err)
	}
	if errs := validation.ValidateValidatingAdmissionPolicy(&internal); len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	var variables []cel.NamedExpressionAccessor
	for _, v := range policy.Spec.Variables {
		variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	compiler.CompileAndStoreVariables(variables, cel.OptionalVariableDeclarations{}, environment.StoredExpressions)
	conditions := func(of ...cel.ExpressionAccessor) cel.ConditionEvaluator {
		return compiler.CompileCondition(of, cel.OptionalVariableDeclarations{}, environment.StoredExpressions)
	}
	var matches, validations, messages []cel.ExpressionAccessor
	for i := range policy.Spec.MatchConditions {
		matches = append(matches, (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[i]))
	}
	for _, v := range policy.Spec.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message})
		messages = append(messages, nil)
	}
	matcher := matchconditions.NewMatcher(conditions(matches...), policy.Spec.FailurePolicy, "policy", "validate", policy.Name)
	return validating.NewValidator(conditions(validations...), matcher, conditions(), conditions(messages...), policy.Spec.FailurePolicy)
}
