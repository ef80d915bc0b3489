package e2e_test

import (
	"strings"
	"testing"
)

// testReview: the webhook refuses what is invalid by itself, or has another's route, in the words of the status, warns of what doesn't
// fit with others, and leaves alone what has no new spec. It stays in use for the parts that follow, one of them without NATS.
func testReview(t *testing.T) {
	// A mapping that is invalid already.
	apply(t, strings.ReplaceAll(mappingHead, "wrong", "dangling")+"{queue: nowhere, function: {name: order-writer}}")
	deleteAfter(t, "esm", "dangling")

	helm(t, append(chartArgs("charts/weir"), "--set", "controller.webhook.enabled=true,controller.webhook.failurePolicy=Fail",
		"--set", "controller.allowedRoutes[0].namespaces={default},controller.allowedRoutes[1].namespaces={other}")...)
	in := func(namespace, manifest string, flags ...string) error {
		_, err := env.tool(t.Context(), manifest, "kubectl", append([]string{"-n", namespace, "apply", "-f", "-", "--warnings-as-errors"}, flags...)...)
		return err
	}
	fine := apiHead + "    match: {method: POST, path: /reviewed}\n" + goodQueue
	eventually(t, "the webhook answers", func() string {
		if err := in(sampleNamespace, fine, "--dry-run=server"); err != nil {
			return err.Error()
		}
		return ""
	})
	for name, c := range map[string]struct{ namespace, manifest, want string }{
		"a taken route":        {sampleNamespace, apiHead + "    match: {method: POST, path: /orders}\n" + goodQueue, `admission webhook "review.weir.dev" denied the request: spec.routes[0].match: POST /orders has the method and path of route create-order of API default/shop`},
		"a route with a host":  {sampleNamespace, apiHead + "    match: {method: POST, host: shop.example, path: /orders}\n" + goodQueue, ""},
		"a route not allowed":  {weirNamespace, apiHead + "    match: {method: POST, path: /x}\n    function: {url: \"http://x.example\"}\n", "allows the namespace " + weirNamespace + " no routes"},
		"a high cap":           {sampleNamespace, mappingHead + "{queue: unused, function: {name: order-writer}, maxConcurrency: 11}", "Warning: spec.maxConcurrency: 11 calls are more than Service order-writer takes at once"},
		"a bad schema":         {sampleNamespace, apiHead + "    match: {method: POST, path: /x}\n" + goodQueue + "    schema: {type: objekt}\n", "spec.routes[0].schema"},
		"a missing queue":      {sampleNamespace, apiHead + "    match: {method: POST, path: /x}\n    queue: {name: later}\n", `Warning: spec.routes[0].queue.name: there is no Queue "later" in namespace default`},
		"a bad definition":     {sampleNamespace, machineHead + "{definition: {StartAt: A, States: {A: {Type: Pass, Next: B}}}}", `names "B", which is no state here`},
		"a queue of its own":   {sampleNamespace, queueHead + "{maxBytes: 8Mi}", ""},
		"another class' route": {sampleNamespace, strings.Replace(apiHead, "spec:\n", "spec:\n  class: third\n", 1) + "    match: {method: POST, path: /orders}\n" + goodQueue, ""},
	} {
		err := in(c.namespace, c.manifest, "--dry-run=server")
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	kubectl(t, "-n", sampleNamespace, "label", "esm", "dangling", "seen=yes", "--warnings-as-errors")
	if _, err := env.kubectl(t.Context(), "-n", sampleNamespace, "patch", "esm", "dangling", "--type=merge", "-p", `{"spec":{"batch":{"maxRecords":7}}}`, "--warnings-as-errors"); err == nil || !strings.Contains(err.Error(), `there is no Queue "nowhere"`) {
		t.Errorf("a change of a mapping without its queue: %v", err)
	}
	eventually(t, "it is Invalid", func() string {
		if c := get[resource](t, "-n", sampleNamespace, "esm", "dangling").ready(); c.Reason != "Invalid" {
			return c.Reason + ": " + c.Message
		}
		return ""
	})
}
