package chart_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// from says whether a peer of the rules for the port is a pod with these labels, in a namespace with those.
func from(t *testing.T, policy *networkingv1.NetworkPolicy, port int, namespace, pod labels.Set) bool {
	t.Helper()
	is := func(s *metav1.LabelSelector, of labels.Set) bool {
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return selector.Matches(of)
	}
	for _, rule := range policy.Spec.Ingress {
		if rule.Ports[0].Port.IntValue() != port {
			continue
		}
		if len(rule.From) == 0 {
			return true
		}
		for _, p := range rule.From {
			if p.NamespaceSelector != nil && is(p.NamespaceSelector, namespace) && (p.PodSelector == nil || is(p.PodSelector, pod)) {
				return true
			}
		}
	}
	return false
}

// TestFunctionsReport: a function reaches the address that it is told to report to, whoever else may call the gateway.
func TestFunctionsReport(t *testing.T) {
	shop, ingress := labels.Set{"kubernetes.io/metadata.name": "shop"}, labels.Set{"kubernetes.io/metadata.name": "ingress"}
	function, other := labels.Set{"serving.knative.dev/service": "report"}, labels.Set{"app": "other"}
	const only = `gatewayFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}]`
	for _, c := range []struct {
		values                       string
		function, other, fromIngress bool
	}{
		{``, true, true, true},
		{`networkPolicy: {` + only + `}`, true, false, true},
		{`networkPolicy: {` + only + `, functionsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}]}`, true, true, true},
		{`networkPolicy: {` + only + `, functionsFrom: []}`, false, false, true},
	} {
		docs := render(t, c.values)
		policy := get[networkingv1.NetworkPolicy](t, docs, "weir-gateway")
		// That is where callbacks lead to.
		url := env(get[appsv1.Deployment](t, docs, "weir-dispatcher").Spec.Template.Spec.Containers[0], "WEIR_CALLBACK_URL")
		service := get[corev1.Service](t, docs, "weir-gateway")
		if !strings.HasPrefix(url, "http://"+service.Name+".") || service.Spec.Ports[0].TargetPort.String() != "http" {
			t.Errorf("functions report to %s", url)
		}
		if got := from(t, policy, 8080, shop, function); got != c.function {
			t.Errorf("%q: a function may report: %t", c.values, got)
		}
		if got := from(t, policy, 8080, shop, other); got != c.other {
			t.Errorf("%q: another pod of its namespace may call: %t", c.values, got)
		}
		if got := from(t, policy, 8080, ingress, other); got != c.fromIngress {
			t.Errorf("%q: the ingress may call: %t", c.values, got)
		}
	}
}

// TestNamesAreLookedUpAtTheClustersDNS: no policy lets anything out to port 53 of any address, unless it is told to.
func TestNamesAreLookedUpAtTheClustersDNS(t *testing.T) {
	rules := func(values string) (out []networkingv1.NetworkPolicyEgressRule) {
		for _, p := range all[networkingv1.NetworkPolicy](render(t, values)) {
			for _, rule := range p.Spec.Egress {
				if len(rule.Ports) > 0 && (rule.Ports[0].Port.IntValue() == 53 || rule.Ports[0].Port.IntValue() == 5353) {
					out = append(out, rule)
				}
			}
		}
		return out
	}
	const on = "emf: {enabled: true, exportTo: [{namespaceSelector: {}}]}\n" + pgbouncerOn
	of := rules(on)
	if len(of) != len(stageNames())-1+3 { // all but the controller, whose egress is open; NATS, PgBouncer, emf
		t.Errorf("%d policies have a rule for DNS", len(of))
	}
	for _, rule := range of {
		if len(rule.To) != 2 || rule.To[0].PodSelector.MatchLabels["k8s-app"] != "kube-dns" ||
			rule.To[0].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != "kube-system" || rule.To[1].IPBlock.CIDR != "169.254.20.10/32" {
			t.Errorf("names are looked up at %v", rule.To)
		}
	}
	for _, rule := range rules(on + `networkPolicy: {dnsPorts: [5353], dnsTo: [{namespaceSelector: {matchLabels: {a: b}}}]}`) {
		if len(rule.To) != 1 || rule.To[0].NamespaceSelector.MatchLabels["a"] != "b" || len(rule.Ports) != 2 {
			t.Errorf("names are looked up at %v, ports %v", rule.To, rule.Ports)
		}
	}
	for _, rule := range rules(on + `networkPolicy: {dnsTo: []}`) {
		if len(rule.To) != 0 {
			t.Errorf("names are looked up at %v", rule.To)
		}
	}
}
