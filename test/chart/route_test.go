package chart_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/weir-dev/weir/internal/ownpath"
)

// matches says whether one of the rule's matches is for a request.
func (r routeRule) matches(t *testing.T, method, path string) bool {
	t.Helper()
	for _, m := range r.Matches {
		if m.Method != "" && m.Method != method {
			continue
		}
		ok := false
		switch m.Path.Type {
		case "Exact":
			ok = path == m.Path.Value
		case "PathPrefix":
			ok = strings.HasPrefix(path+"/", strings.TrimSuffix(m.Path.Value, "/")+"/")
		case "RegularExpression":
			ok = regexp.MustCompile(m.Path.Value).MatchString(path)
		default:
			t.Fatalf("a match by %s", m.Path.Type)
		}
		if ok {
			return true
		}
	}
	return false
}

// TestRoute holds that listeners get to realtime when they are to, and nothing else does.
func TestRoute(t *testing.T) {
	if n := len(all[httpRoute](render(t, ``))); n != 0 {
		t.Error(n, "HTTPRoutes though they are off")
	}
	listeners := []string{
		ownpath.Jobs + "events", ownpath.Jobs + "socket", ownpath.Jobs + "a.b-c/events", ownpath.Jobs + "a/socket",
		ownpath.Feeds + "a/events", ownpath.Feeds + "a/socket",
	}
	others := []string{
		"/", "/orders", "/orders/weir/jobs/events", "/weir", ownpath.Jobs, ownpath.Jobs + "a", ownpath.Jobs + "a/result", ownpath.Jobs + "a/b/events",
		ownpath.Jobs + "events/", ownpath.NewFeed, ownpath.Feeds + "events", ownpath.Uploads, ownpath.Objects + "events", ownpath.Callbacks + "socket",
	}
	for name, to := range map[string]string{"route": "weir-gateway", "route to realtime": "weir-realtime"} {
		docs := render(t, matrix[name])
		route := get[httpRoute](t, docs, "weir")
		for _, r := range route.Spec.Rules {
			if len(r.BackendRefs) != 1 || get[corev1.Service](t, docs, r.BackendRefs[0].Name).Spec.Ports[0].Port != r.BackendRefs[0].Port {
				t.Errorf("%s: no Service has the port of %v", name, r.BackendRefs)
			}
			if want := map[string]string{"route": "", "route to realtime": "0s"}[name]; r.Timeouts.Request != want {
				t.Errorf("%s: a timeout of %q", name, r.Timeouts.Request)
			}
		}
		// In their order: the last is for all.
		backend := func(method, path string) string {
			for _, r := range route.Spec.Rules {
				if r.matches(t, method, path) {
					return r.BackendRefs[0].Name
				}
			}
			return ""
		}
		for _, path := range listeners {
			if got := backend(http.MethodGet, path); got != to {
				t.Errorf("%s: GET %s goes to %q", name, path, got)
			}
			if got := backend(http.MethodOptions, path); got != "weir-gateway" {
				t.Errorf("%s: OPTIONS %s goes to %q", name, path, got)
			}
		}
		for _, path := range others {
			if got := backend(http.MethodGet, path); got != "weir-gateway" {
				t.Errorf("%s: GET %s goes to %q", name, path, got)
			}
		}
	}

	// Who may call the gateway may call realtime, and so may the gateway; functions, who call the gateway too, may not.
	from := func(values string) []networkingv1.NetworkPolicyPeer {
		return get[networkingv1.NetworkPolicy](t, render(t, values), "weir-realtime").Spec.Ingress[0].From
	}
	if peers := from(matrix["route"]); len(peers) != 1 {
		t.Errorf("listeners go through the gateway, and realtime lets in %v", peers)
	}
	if peers := from(matrix["route to realtime"]); len(peers) != 0 {
		t.Errorf("all may listen, and realtime lets in %v", peers)
	}
	peers := from(matrix["route to realtime"] + "\nnetworkPolicy: {gatewayFrom: [{namespaceSelector: {matchLabels: {a: b}}}]}")
	if len(peers) != 2 || peers[0].NamespaceSelector == nil || peers[1].PodSelector.MatchLabels["app.kubernetes.io/component"] != "gateway" {
		t.Errorf("realtime lets in %v", peers)
	}
}
