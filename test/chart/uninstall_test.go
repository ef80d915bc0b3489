package chart_test

import (
	"reflect"
	"slices"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// TestUninstallHook: what is there after helm uninstall, and goes when it is done, may list the resources and write their statuses,
// where the controller could, and see whether that is gone; its Job knows the release and the Deployment.
func TestUninstallHook(t *testing.T) {
	see := rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, ResourceNames: []string{"weir-controller"}, Verbs: []string{"get"}}
	say := []rbacv1.PolicyRule{
		{APIGroups: []string{"weir.dev"}, Resources: []string{"apis", "queues", "eventsourcemappings", "statemachines"}, Verbs: []string{"list"}},
		{APIGroups: []string{"weir.dev"}, Resources: []string{"apis/status", "queues/status", "eventsourcemappings/status", "statemachines/status"}, Verbs: []string{"patch"}},
	}
	hooks := func(values string) (docs []typed, kinds []string) {
		for _, d := range render(t, values) {
			a := d.GetAnnotations()
			ours := d.GetLabels()["app.kubernetes.io/component"] == "uninstalled"
			if ours != (a["helm.sh/hook"] == "post-delete") || ours && a["helm.sh/hook-delete-policy"] != "before-hook-creation,hook-succeeded,hook-failed" {
				t.Errorf("%s %s: %v", d.kind, d.GetName(), a)
			}
			if ours {
				docs, kinds = append(docs, d), append(kinds, d.kind+" "+d.GetNamespace()+" "+a["helm.sh/hook-weight"])
			}
		}
		slices.Sort(kinds)
		return docs, kinds
	}
	for _, row := range []struct {
		values, namespaces string
		kinds              []string
	}{
		{`{}`, "", []string{
			"ClusterRole  -3", "ClusterRoleBinding  -1", "Job weir-system ", "Role weir-system -2", "RoleBinding weir-system -1", "ServiceAccount weir-system -2",
		}},
		{`controller: {watchNamespaces: [shop, b]}`, "shop,b", []string{
			"Job weir-system ", "Role b -3", "Role shop -3", "Role weir-system -2", "RoleBinding b -1", "RoleBinding shop -1", "RoleBinding weir-system -1",
			"ServiceAccount weir-system -2",
		}},
		{`controller: {uninstallHook: false}`, "", nil},
	} {
		docs, kinds := hooks(row.values)
		if !slices.Equal(kinds, row.kinds) {
			t.Errorf("%s: %q", row.values, kinds)
		}
		for _, r := range all[rbacv1.ClusterRole](docs) {
			if !reflect.DeepEqual(r.Rules, say) {
				t.Errorf("%v", r.Rules)
			}
		}
		for _, r := range all[rbacv1.Role](docs) {
			if r.Namespace == namespace && !reflect.DeepEqual(r.Rules, []rbacv1.PolicyRule{see}) || r.Namespace != namespace && !reflect.DeepEqual(r.Rules, say) {
				t.Errorf("in %s: %v", r.Namespace, r.Rules)
			}
		}
		for _, j := range all[batchv1.Job](docs) {
			c := j.Spec.Template.Spec.Containers[0]
			if !slices.Equal(c.Args, []string{"uninstalled", "weir-controller"}) || env(c, "WEIR_RELEASE") != "weir-system/weir" || env(c, "WEIR_NAMESPACES") != row.namespaces {
				t.Errorf("%v %v", c.Args, c.Env)
			}
		}
	}
}
