package chart_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/weir-dev/weir/api/v1alpha1"
)

func securityHabits(t *testing.T, p pod) {
	t.Helper()
	no := func(what string) { t.Errorf("%s: %s", p.name, what) }
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	s := p.spec.SecurityContext
	switch {
	case s == nil || !is(s.RunAsNonRoot, true) || s.RunAsUser == nil || *s.RunAsUser == 0:
		no("may run as root")
	case s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
		no("has no seccomp profile")
	}
	asks := slices.Contains([]string{"controller", "uninstalled"}, p.meta.Labels["app.kubernetes.io/component"])
	if !is(p.spec.AutomountServiceAccountToken, asks) {
		no("automountServiceAccountToken must be said: true for who asks the API server, false for all others")
	}
	if p.spec.HostNetwork || p.spec.HostPID || p.spec.HostIPC || !is(p.spec.EnableServiceLinks, false) {
		no("shares namespaces with its node, or gets all Services as environment")
	}
	everywhere := p.meta.Labels["app.kubernetes.io/component"] == "emf" // on each node one
	if !p.ends() && (len(p.spec.TopologySpreadConstraints) == 0 && !everywhere || p.spec.TerminationGracePeriodSeconds == nil) {
		no("has no topology spread or no grace period")
	}
	for _, c := range p.spec.Containers {
		s := c.SecurityContext
		if s == nil || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) || !is(s.RunAsNonRoot, true) ||
			s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			no("container " + c.Name + " lacks a restriction")
		}
		switch exporter := c.Name == "exporter"; {
		case p.ends():
		case exporter && (c.StartupProbe != nil || c.ReadinessProbe != nil):
			no("its exporter decides whether it serves")
		case c.LivenessProbe == nil, !exporter && (c.StartupProbe == nil || c.ReadinessProbe == nil):
			no("container " + c.Name + " lacks a probe")
		}
		if c.ImagePullPolicy == "" || c.Image == "" || !strings.ContainsAny(c.Image, ":@m") {
			no("container " + c.Name + " has no image with a tag")
		}
	}
}

// graceLongerThanDrain holds that nothing is killed in the middle of its drain.
func graceLongerThanDrain(t *testing.T, docs []typed) {
	t.Helper()
	for _, p := range pods(docs) {
		var need time.Duration
		for _, c := range p.spec.Containers {
			if c.Lifecycle != nil && c.Lifecycle.PreStop.Sleep != nil {
				need += time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
			}
			if v := env(c, "WEIR_DRAIN_TIMEOUT"); v != "" {
				d, err := time.ParseDuration(v)
				if err != nil {
					t.Error(err)
				}
				need += d
			}
		}
		switch component := p.meta.Labels["app.kubernetes.io/component"]; {
		case component == "nats":
			need = natsLameDuck(t, docs)
		case p.ends():
			continue
		case component != "controller" && slices.Contains(stageNames(), component) && need < 10*time.Second:
			t.Errorf("%s has no time to drain", p.name)
		}
		if grace := time.Duration(*p.spec.TerminationGracePeriodSeconds) * time.Second; grace <= need {
			t.Errorf("%s is killed after %s, its pause and drain may take %s", p.name, grace, need)
		}
	}
}

func env(c corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// dataPlaneHasNoPermission holds that only the controller's account is in a binding, or the hook's that is there when it has gone, and
// that only it may have a token.
func dataPlaneHasNoPermission(t *testing.T, docs []typed) {
	t.Helper()
	controller := ""
	for _, p := range pods(docs) {
		if p.meta.Labels["app.kubernetes.io/component"] == "controller" {
			controller = p.spec.ServiceAccountName
		}
	}
	bound := func(b metav1.ObjectMeta, subjects []rbacv1.Subject) {
		account := controller
		if b.Annotations["helm.sh/hook"] == "post-delete" {
			account = strings.TrimSuffix(controller, "controller") + "uninstalled"
		}
		for _, s := range subjects {
			if s.Kind != rbacv1.ServiceAccountKind || s.Name != account || s.Namespace != namespace {
				t.Errorf("binding %s gives rights to %s %s/%s", b.Name, s.Kind, s.Namespace, s.Name)
			}
		}
	}
	for _, b := range all[rbacv1.RoleBinding](docs) {
		bound(b.ObjectMeta, b.Subjects)
	}
	for _, b := range all[rbacv1.ClusterRoleBinding](docs) {
		bound(b.ObjectMeta, b.Subjects)
	}
	for _, a := range all[corev1.ServiceAccount](docs) {
		if a.AutomountServiceAccountToken == nil || *a.AutomountServiceAccountToken {
			t.Errorf("ServiceAccount %s mounts its token by itself", a.Name)
		}
	}
	for _, r := range all[rbacv1.ClusterRole](docs) {
		rules(t, r.Name, r.Rules)
	}
	for _, r := range all[rbacv1.Role](docs) {
		rules(t, r.Name, r.Rules)
	}
}

func rules(t *testing.T, name string, rules []rbacv1.PolicyRule) {
	t.Helper()
	for _, r := range rules {
		for _, list := range [][]string{r.APIGroups, r.Resources, r.Verbs} {
			if slices.Contains(list, "*") {
				t.Errorf("role %s has a wildcard: %v", name, r)
			}
		}
		if slices.Contains(r.Resources, "secrets") || slices.Contains(r.Resources, "pods") {
			t.Errorf("role %s may touch secrets or pods", name)
		}
	}
}

// noPasswordOutsideSecrets holds that what is in a Secret stands nowhere else.
func noPasswordOutsideSecrets(t *testing.T, docs []typed) {
	t.Helper()
	for _, s := range all[corev1.Secret](docs) {
		for key, value := range s.Data {
			if key == "tls.crt" || key == "ca.crt" {
				continue
			}
			for _, d := range docs {
				if d.kind != "Secret" && (strings.Contains(d.text, string(value)) || strings.Contains(d.text, base64.StdEncoding.EncodeToString(value))) {
					t.Errorf("%s %s holds %s of Secret %s", d.kind, d.GetName(), key, s.Name)
				}
			}
		}
	}
}

// TestPolicyNamesTheFinalizer: the finalizers that the controller may change are those of its code. What the policy's expressions say is
// tested by the API server's own code, in hack/cluster/policy.
func TestPolicyNamesTheFinalizer(t *testing.T) {
	out, err := templateAs(t, "eu", "shop", ``)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := decode(out)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("[%q, %q]", v1alpha1.QueueFinalizer("shop", "eu"), v1alpha1.SharedQueueFinalizer)
	policy := all[admissionv1.ValidatingAdmissionPolicy](docs)[0]
	if v := policy.Spec.Variables[0]; v.Name != "own" || v.Expression != want {
		t.Errorf("the policy lets the controller change %s, which is %s; want %s", v.Name, v.Expression, want)
	}
}
