package chart_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/weir-dev/weir/api/v1alpha1"
)

// builtIn are the kinds that the chart renders or looks up, and that each cluster has.
var builtIn = map[string][]metav1.APIResource{
	"v1": {
		{Name: "secrets", Kind: "Secret", Namespaced: true},
		{Name: "configmaps", Kind: "ConfigMap", Namespaced: true},
		{Name: "services", Kind: "Service", Namespaced: true},
		{Name: "serviceaccounts", Kind: "ServiceAccount", Namespaced: true},
		{Name: "persistentvolumeclaims", Kind: "PersistentVolumeClaim", Namespaced: true},
	},
	"apps/v1":              {{Name: "statefulsets", Kind: "StatefulSet", Namespaced: true}, {Name: "deployments", Kind: "Deployment", Namespaced: true}},
	"policy/v1":            {{Name: "poddisruptionbudgets", Kind: "PodDisruptionBudget", Namespaced: true}},
	"networking.k8s.io/v1": {{Name: "networkpolicies", Kind: "NetworkPolicy", Namespaced: true}},
	"rbac.authorization.k8s.io/v1": {
		{Name: "roles", Kind: "Role", Namespaced: true},
		{Name: "rolebindings", Kind: "RoleBinding", Namespaced: true},
		{Name: "clusterroles", Kind: "ClusterRole"},
		{Name: "clusterrolebindings", Kind: "ClusterRoleBinding"},
	},
	"admissionregistration.k8s.io/v1": {
		{Name: "validatingadmissionpolicies", Kind: "ValidatingAdmissionPolicy"}, {Name: "validatingadmissionpolicybindings", Kind: "ValidatingAdmissionPolicyBinding"},
	},
	"apiextensions.k8s.io/v1": {{Name: "customresourcedefinitions", Kind: "CustomResourceDefinition"}},
}

// weirs are Weir's kinds, which a cluster has with the definitions.
var weirs = []metav1.APIResource{
	{Name: "apis", Kind: "API", Namespaced: true},
	{Name: "queues", Kind: "Queue", Namespaced: true},
	{Name: "eventsourcemappings", Kind: "EventSourceMapping", Namespaced: true},
	{Name: "statemachines", Kind: "StateMachine", Namespaced: true},
}

// stub is a cluster as far as the chart asks for it.
type stub struct {
	// objects are answered by their path.
	objects map[string]any
	// definitions: it has Weir's kinds.
	definitions bool
	// resources are of Weir's kinds.
	resources []object
	// lists are the namespaces in which the installer may list them; nil: all, and the whole cluster.
	lists []string
}

// object is one of Weir's.
type object struct{ kind, namespace, name, class, by string }

// apiServer answers what the chart looks up: these objects, by their path.
func apiServer(t *testing.T, objects map[string]any) string {
	t.Helper()
	return serve(t, stub{objects: objects})
}

func serve(t *testing.T, c stub) string {
	t.Helper()
	kinds := maps.Clone(builtIn)
	if c.definitions {
		kinds[v1alpha1.GroupVersion.String()] = weirs
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, answer := c.answer(r.URL.Path, kinds)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func (c stub) answer(path string, kinds map[string][]metav1.APIResource) (status int, answer any) {
	refusal := func(code int, reason metav1.StatusReason, message string) (int, any) {
		return code, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message}
	}
	if o, ok := c.objects[path]; ok {
		return http.StatusOK, o
	}
	switch path {
	case "/version":
		return http.StatusOK, version.Info{Major: "1", Minor: "35", GitVersion: "v" + kubeVersion}
	case "/api":
		return http.StatusOK, metav1.APIVersions{Versions: []string{"v1"}}
	case "/apis":
		var groups metav1.APIGroupList
		for text := range kinds {
			if gv, err := schema.ParseGroupVersion(text); err == nil && gv.Group != "" {
				v := metav1.GroupVersionForDiscovery{GroupVersion: text, Version: gv.Version}
				groups.Groups = append(groups.Groups, metav1.APIGroup{Name: gv.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
			}
		}
		return http.StatusOK, groups
	}
	for gv, of := range kinds {
		if path == "/apis/"+gv || path == "/api/"+gv {
			return http.StatusOK, metav1.APIResourceList{GroupVersion: gv, APIResources: of}
		}
	}
	rest, ok := strings.CutPrefix(path, "/apis/"+v1alpha1.GroupVersion.String()+"/")
	if !ok || !c.definitions {
		return refusal(http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
	}
	in := ""
	if below, ok := strings.CutPrefix(rest, "namespaces/"); ok {
		in, rest, _ = strings.Cut(below, "/")
	}
	if c.lists != nil && !slices.Contains(c.lists, in) {
		return refusal(http.StatusForbidden, metav1.StatusReasonForbidden, rest+` is forbidden: User "installer" cannot list resource`)
	}
	items := []any{}
	for _, o := range c.resources {
		for _, k := range weirs {
			if k.Kind == o.kind && k.Name == rest && (in == "" || in == o.namespace) {
				items = append(items, map[string]any{
					"apiVersion": v1alpha1.GroupVersion.String(), "kind": o.kind, "metadata": map[string]any{"namespace": o.namespace, "name": o.name},
					"spec": map[string]any{"class": o.class}, "status": map[string]any{"observedBy": o.by},
				})
			}
		}
	}
	return http.StatusOK, map[string]any{"apiVersion": v1alpha1.GroupVersion.String(), "kind": "List", "metadata": map[string]any{}, "items": items}
}

// over renders the chart over what a cluster has.
func over(t *testing.T, server, values string) error {
	t.Helper()
	_, err := template(t, values, "--dry-run=server", "--kube-apiserver", server)
	return err
}

// install is what helm install would do in a cluster, and say: it knows what kinds there are, as template does not.
func install(t *testing.T, c stub, values string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return helm(t, "install", "weir", chart, "--namespace", namespace, "--values", file, "--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", serve(t, c))
}

const me = namespace + "/weir"

// TestFirstInstall: of the namespaces that it watches, a release is installed where there are no definitions yet, and by somebody
// who has no rights in others.
func TestFirstInstall(t *testing.T) {
	const watch = `controller: {watchNamespaces: [shop], lookUp: %s}`
	alone := stub{definitions: true, lists: []string{"shop"}, resources: []object{{"Queue", "shop", "orders", "weir", "a/other"}}}
	for _, c := range []struct {
		name, lookUp string
		in           stub
		forbidden    bool
		says         string
	}{
		{"without definitions", "all", stub{}, false, ""},
		{"without resources", "all", stub{definitions: true}, false, ""},
		{"without rights in others", "all", alone, true, ""},
		{"without rights in others, which are not looked into", "watched", alone, false, "Queue shop/orders (a/other)"},
		{"without any rights", "none", stub{definitions: true, lists: []string{}}, false, ""},
	} {
		out, err := install(t, c.in, fmt.Sprintf(watch, c.lookUp))
		switch {
		case c.forbidden && (err == nil || !strings.Contains(err.Error(), "is forbidden") || !strings.Contains(err.Error(), "weir.lookUp")):
			t.Errorf("%s: %v", c.name, err)
		case !c.forbidden && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case !strings.Contains(out, c.says):
			t.Errorf("%s: the notes don't say %q:\n%s", c.name, c.says, out)
		}
	}
	if _, err := install(t, alone, `controller: {lookUp: watched}`); err == nil || !strings.Contains(err.Error(), "is forbidden") {
		t.Errorf("all are watched, and not looked into: %v", err)
	}
}

// TestWithoutRightsInTheCluster: what the README shows for that makes nothing that is the cluster's.
func TestWithoutRightsInTheCluster(t *testing.T) {
	page, err := os.ReadFile(chart + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "**Without rights in the cluster**")
	_, rest, _ = strings.Cut(rest, "```yaml\n")
	values, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the README shows no values for it")
	}
	for _, d := range render(t, values) {
		if d.GetNamespace() == "" {
			t.Errorf("%s %s is the cluster's", d.kind, d.GetName())
		}
	}
	c := stub{definitions: true, lists: []string{"shop"}}
	if _, err := install(t, c, values); err != nil {
		t.Error(err)
	}
}

// TestLeft: an upgrade that would leave what the release serves is refused, and names it, of each kind.
func TestLeft(t *testing.T) {
	many := stub{definitions: true}
	for i := range 13 {
		many.resources = append(many.resources, object{"Queue", "shop", fmt.Sprint("q", i), "weir", me})
	}
	mine := func(kind string) stub {
		return stub{definitions: true, resources: []object{{kind, "shop", "orders", "weir", me}, {kind, "billing", "theirs", "weir", "a/other"}}}
	}
	serves := func(class string) stub {
		c := mine("Queue")
		d := get[appsv1.Deployment](t, render(t, "controller: {class: "+class+"}"), "weir-controller")
		d.Annotations = map[string]string{"meta.helm.sh/release-name": "weir", "meta.helm.sh/release-namespace": namespace}
		c.objects = map[string]any{"/apis/apps/v1/namespaces/" + namespace + "/deployments/weir-controller": d}
		return c
	}
	type row struct {
		values string
		in     stub
		says   string
	}
	rows := []row{
		{``, mine("Queue"), ""},
		{`controller: {watchNamespaces: [shop]}`, mine("Queue"), ""},
		{`controller: {watchNamespaces: [other], leaveNamespaces: [shop]}`, mine("Queue"), ""},
		{`controller: {watchNamespaces: [other]}`, many, "Queue shop/q9 and 3 more"},
		{`controller: {class: eu, leaveClasses: [weir]}`, mine("Queue"), ""},
		{`controller: {class: eu}`, serves("weir"), "controller.class is eu, and this release serves resources of another class: Queue shop/orders (weir)"},
		// Its class is as it was: the resource got another one, and that is not the release's doing.
		{`controller: {class: eu}`, serves("eu"), ""},
	}
	for _, k := range weirs {
		rows = append(rows,
			row{`controller: {watchNamespaces: [other]}`, mine(k.Kind), "controller.watchNamespaces leaves out what this release serves: " + k.Kind + " shop/orders. "},
			row{`controller: {class: eu}`, mine(k.Kind), "serves resources of another class: " + k.Kind + " shop/orders (weir). "})
	}
	for _, c := range rows {
		_, err := install(t, c.in, c.values)
		if c.says == "" && err != nil {
			t.Errorf("%q: %v", c.values, err)
		}
		if c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%q is not refused by %q: %v", c.values, c.says, err)
		}
	}
}

// TestNotesOfTheCluster: they name what nobody serves, what this release serves no more and what another one serves, and not all of it.
func TestNotesOfTheCluster(t *testing.T) {
	c := stub{definitions: true}
	for _, k := range weirs {
		c.resources = append(c.resources,
			object{k.Kind, "unseen", "a", "weir", ""}, object{k.Kind, "left", "b", "weir", me}, object{k.Kind, "shop", "c", "weir", "a/other"},
			// Of these there is nothing to say.
			object{k.Kind, "shop", "silent", "weir", me}, object{k.Kind, "unseen", "silent", "eu", ""}, object{k.Kind, "shop", "silent", "weir", "a/gone"},
			object{k.Kind, "unseen", "silent", "weir", "a/other"}, object{k.Kind, "shop", "silent", "weir", ""})
	}
	for i := range 20 {
		c.resources = append(c.resources, object{"API", "unseen", fmt.Sprint("more", i), "weir", ""})
	}
	out, err := install(t, c, `controller: {watchNamespaces: [shop], leaveNamespaces: [left], takeOver: [a/gone]}`)
	if err != nil {
		t.Fatal(err)
	}
	_, notes, _ := strings.Cut(out, "\nNOTES:\n")
	for _, k := range weirs {
		for _, says := range []string{k.Kind + " left/b", k.Kind + " shop/c (a/other)"} {
			if !strings.Contains(notes, says) {
				t.Errorf("the notes don't name %s", says)
			}
		}
	}
	if !strings.Contains(notes, "API unseen/a, ") || !strings.Contains(notes, " and 14 more.") || strings.Contains(notes, "more15") || strings.Contains(notes, "silent") {
		t.Error(notes)
	}
}

// TestObservedIsSeen: whether anybody serves a resource any more is among what kubectl shows without being asked for more.
func TestObservedIsSeen(t *testing.T) {
	crds := all[apiextensionsv1.CustomResourceDefinition](render(t, ``))
	if len(crds) != len(weirs) {
		t.Errorf("%d definitions", len(crds))
	}
	for _, crd := range crds {
		for _, v := range crd.Spec.Versions {
			if !slices.ContainsFunc(v.AdditionalPrinterColumns, func(c apiextensionsv1.CustomResourceColumnDefinition) bool {
				return c.JSONPath == ".status.observedAt" && c.Priority == 0
			}) {
				t.Errorf("kubectl get %s doesn't show when it was observed", crd.Spec.Names.Plural)
			}
		}
	}
}
