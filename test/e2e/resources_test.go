package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const (
	apiHead     = "apiVersion: weir.dev/v1alpha1\nkind: API\nmetadata: {name: wrong}\nspec:\n  routes:\n  - name: r\n"
	queueHead   = "apiVersion: weir.dev/v1alpha1\nkind: Queue\nmetadata: {name: wrong}\nspec: "
	mappingHead = "apiVersion: weir.dev/v1alpha1\nkind: EventSourceMapping\nmetadata: {name: wrong}\nspec: "
	machineHead = "apiVersion: weir.dev/v1alpha1\nkind: StateMachine\nmetadata: {name: wrong}\nspec: "
	goodQueue   = "    queue: {name: orders}\n"
)

// testRefusedResources: what the custom resource definitions refuse, the API server refuses with a helpful message.
func testRefusedResources(t *testing.T) {
	for name, c := range map[string]struct{ manifest, part string }{
		"neither queue nor function": {apiHead + "    match: {method: POST, path: /x}\n", "exactly one of queue, job and function"},
		"a path of jobs":             {apiHead + "    match: {method: GET, path: /weir/jobs/x}\n    function: {name: f}\n", "is Weir's own"},
		"a short memory":             {queueHead + "{maxAge: 2h, results: {maxAge: 1h}}", "results.maxAge must not be below maxAge"},
		"queue and function":         {apiHead + "    match: {method: POST, path: /x}\n" + goodQueue + "    function: {name: f}\n", "exactly one of queue, job and function"},
		"a buffered GET":             {apiHead + "    match: {method: GET, path: /x}\n" + goodQueue, "a buffered write or a job needs a method whose requests have a body"},
		"a schema for GET":           {apiHead + "    match: {method: GET, path: /x}\n    function: {name: f}\n    schema: {type: object}\n", "has no body to check"},
		"a method":                   {apiHead + "    match: {method: FETCH, path: /x}\n" + goodQueue, `Unsupported value: "FETCH"`},
		"a path":                     {apiHead + "    match: {method: POST, path: x}\n" + goodQueue, "spec.routes[0].match.path"},
		"a reserved path":            {apiHead + "    match: {method: POST, path: /weir/x}\n" + goodQueue, "is Weir's own"},
		"a rate of none":             {strings.Replace(apiHead, "spec:\n", "spec:\n  throttle: {rate: 0, burst: 1}\n", 1) + "    match: {method: POST, path: /x}\n" + goodQueue, "greater than 0"},
		"an empty bucket":            {apiHead + "    match: {method: POST, path: /x}\n" + goodQueue + "    throttle: {rate: 1, burst: 0}\n", "burst"},
		"a long timeout":             {apiHead + "    match: {method: GET, path: /x}\n    function: {name: f, timeout: 1h}\n", "must be between 100ms and 15m"},
		"name and url":               {apiHead + "    match: {method: GET, path: /x}\n    function: {name: f, url: \"http://x\"}\n", "exactly one of name"},
		"a relative url":             {apiHead + "    match: {method: GET, path: /x}\n    function: {url: x}\n", "absolute http or https URL"},
		"an unknown field":           {apiHead + "    match: {method: POST, path: /x}\n    queu: {name: orders}\n", `unknown field "spec.routes[0].queu"`},
		"two routes of one name": {
			apiHead + "    match: {method: POST, path: /x}\n" + goodQueue + "  - name: r\n    match: {method: POST, path: /y}\n" + goodQueue, "Duplicate value",
		},
		"a name with a dot":       {strings.Replace(queueHead, "wrong", "wrong.name", 1) + "{}", "DNS-1123 label"},
		"an ordering":             {queueHead + "{ordering: key}", "ordering"},
		"a short age":             {queueHead + "{maxAge: 1s}", "must be between 1m and 8760h"},
		"no duration":             {queueHead + "{maxAge: soon}", "spec.maxAge"},
		"an age in days":          {queueHead + "{maxAge: 4d}", `spec.maxAge: Invalid value: "4d": days and weeks are no units: write hours, such as 96h for 4d`},
		"a memory of a week":      {queueHead + "{results: {maxAge: 1 week}}", `spec.results.maxAge: Invalid value: "1 week": days and weeks are no units`},
		"dead letters for days":   {queueHead + "{deadLetter: {maxAge: 1d12h}}", `spec.deadLetter.maxAge: Invalid value: "1d12h": days and weeks are no units`},
		"a backoff of a day":      {mappingHead + "{queue: orders, function: {name: f}, retry: {maxBackoff: 1d}}", `spec.retry.maxBackoff: Invalid value: "1d": days and weeks are no units`},
		"a timeout of a day":      {apiHead + "    match: {method: GET, path: /x}\n    function: {name: f, timeout: 1d}\n", `spec.routes[0].function.timeout: Invalid value: "1d": days and weeks are no units`},
		"pages for a day":         {strings.Replace(apiHead, "spec:\n", "spec:\n  cors: {origins: [\"*\"], maxAge: 1d}\n", 1) + "    match: {method: POST, path: /x}\n" + goodQueue, `spec.cors.maxAge: Invalid value: "1d": days and weeks are no units`},
		"pages for too long":      {strings.Replace(apiHead, "spec:\n", "spec:\n  cors: {origins: [\"*\"], maxAge: 25h}\n", 1) + "    match: {method: POST, path: /x}\n" + goodQueue, "must be between 0s and 24h"},
		"a small queue":           {queueHead + "{maxBytes: 1Mi}", "must be a whole number of bytes between 8Mi and 64Ti"},
		"half a byte":             {queueHead + "{maxBytes: \"10000000.5\"}", "must be a whole number of bytes"},
		"a url without a cap":     {mappingHead + `{queue: orders, function: {url: "http://x"}}`, "maxConcurrency is missing"},
		"a cap of none":           {mappingHead + "{queue: orders, function: {name: f}, maxConcurrency: 0}", "maxConcurrency"},
		"a backoff the wrong way": {mappingHead + "{queue: orders, function: {name: f}, retry: {initialBackoff: 1m, maxBackoff: 1s}}", "maxBackoff must not be below initialBackoff"},
		"no attempt":              {mappingHead + "{queue: orders, function: {name: f}, retry: {maxAttempts: 0}}", "maxAttempts"},
		"no work for a mapping":   {mappingHead + "{queue: orders}", "exactly one of function and stateMachine"},
		"two works for a mapping": {mappingHead + "{queue: orders, function: {name: f}, stateMachine: {name: m}}", "exactly one of function and stateMachine"},
		"a job of two":            {apiHead + "    match: {method: POST, path: /x}\n    job: {queue: q, stateMachine: m}\n", "exactly one of queue and stateMachine"},
		"no definition":           {machineHead + "{type: EXPRESS}", "exactly one of definition and definitionString"},
		"a type of a machine":     {machineHead + "{type: fast, definition: {}}", `Unsupported value: "fast"`},
		"a wide window":           {mappingHead + "{queue: orders, function: {name: f}, batch: {window: 1h}}", "must be between 0s and 5m"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := env.tool(t.Context(), c.manifest, "kubectl", "-n", sampleNamespace, "apply", "--dry-run=server", "-f", "-")
			if err == nil || !strings.Contains(err.Error(), c.part) {
				t.Errorf("got %v\nwant %q", err, c.part)
			}
		})
	}
}

// testExplainedResources: mistakes that depend on other objects are explained in the status.
func testExplainedResources(t *testing.T) {
	for name, c := range map[string]struct{ kind, manifest, part string }{
		"a missing queue":   {"esm", mappingHead + "{queue: order, function: {name: order-writer}}", `there is no Queue "order" in namespace default; did you mean "orders"?`},
		"a missing Service": {"esm", mappingHead + "{queue: unused, function: {name: order-writre}}", `there is no Knative Service "order-writre" in namespace default; did you mean "order-writer"?`},
		"a long timeout":    {"esm", mappingHead + "{queue: unused, function: {name: order-writer}, timeout: 5m}", "5m is longer than timeoutSeconds of Service order-writer, 1m: Knative would end the call first; set it to at most 1m"},
		"a high cap":        {"esm", mappingHead + "{queue: unused, function: {name: order-writer}, maxConcurrency: 11}", "11 calls are more than Service order-writer takes at once, containerConcurrency 2 × max-scale 5 = 10"},
		"a drained queue":   {"esm", mappingHead + "{queue: orders, function: {name: order-writer}}", "queue orders is already drained by EventSourceMapping orders"},
		"a bad schema":      {"apis.weir.dev", apiHead + "    match: {method: POST, path: /x}\n" + goodQueue + "    schema: {type: objekt}\n", "spec.routes[0].schema"},
		"a taken route":     {"apis.weir.dev", apiHead + "    match: {method: POST, path: /orders}\n" + goodQueue, "POST /orders has the method and path of route create-order of API default/shop"},
		"a large body":      {"apis.weir.dev", apiHead + "    match: {method: POST, path: /x}\n" + goodQueue + "    maxBodyBytes: 1Mi\n", "send larger bodies to a function"},
		"a rate of none":    {"apis.weir.dev", apiHead + "    match: {method: POST, path: /x}\n" + goodQueue + "    throttle: {rate: 0, burst: 1}\n", "spec.routes[0].throttle.rate: "},
		"a bad definition":  {"statemachines.weir.dev", machineHead + "{definition: {StartAt: A, States: {A: {Type: Pass, Next: B}}}}", `spec.definition.States.A.Next: Invalid value: names "B", which is no state here`},
		"a missing machine": {"esm", mappingHead + "{queue: unused, stateMachine: {name: restok}}", `there is no StateMachine "restok" in namespace default; did you mean "restock"?`},
		"too large a queue": {"queues.weir.dev", queueHead + "{maxBytes: 64Ti}", "Lower spec.maxBytes, or give NATS more storage"},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, "apiVersion: weir.dev/v1alpha1\nkind: Queue\nmetadata: {name: unused}\nspec: {maxBytes: 8Mi}\n")
			apply(t, c.manifest)
			deleteAfter(t, c.kind, "wrong")
			eventually(t, "the status explains it", func() string {
				if r := get[resource](t, "-n", sampleNamespace, c.kind, "wrong").ready(); r.Status != "False" || !strings.Contains(r.Message, c.part) {
					return fmt.Sprintf("%+v", r)
				}
				return ""
			})
			waitReady(t, "apis.weir.dev/shop", "esm/orders", "queues.weir.dev/orders") // nothing else is affected
		})
	}
	kubectl(t, "-n", sampleNamespace, "delete", "queues.weir.dev", "unused", "--timeout=60s")
}

// testDefaults: what the API server fills in is what the code fills in (api/v1alpha1, TestQueueDefaults and others).
func testDefaults(t *testing.T) {
	for manifest, want := range map[string]string{
		queueHead + "{}": `{"class":"weir","deadLetter":{"maxAge":"336h"},"maxAge":"96h","maxBytes":"10Gi","objects":{"maxBytes":"4Gi"},"ordering":"none","results":{"maxBytes":"4Gi"}}`,
		mappingHead + "{queue: orders, function: {name: f}}": `{"batch":{"maxBytes":"4Mi","maxRecords":100,"window":"0s"},"class":"weir","function":{"name":"f"},"heartbeat":"60s","queue":"orders",` +
			`"retry":{"initialBackoff":"1s","maxAge":"6h","maxAttempts":5,"maxBackoff":"5m"},"timeout":"60s"}`,
		apiHead + "    match: {method: GET, path: /x}\n    function: {name: f}\n": `{"class":"weir","routes":[{"function":{"name":"f","timeout":"29s"},"match":{"method":"GET","path":"/x"},"maxBodyBytes":"256Ki","maxDepth":128,"name":"r"}]}`,
	} {
		out, err := env.tool(t.Context(), manifest, "kubectl", "-n", sampleNamespace, "create", "--dry-run=server", "-o", "jsonpath={.spec}", "-f", "-")
		if err != nil || out != want {
			t.Errorf("got %s, %v\nwant %s", out, err, want)
		}
	}
}

// testDeleteQueue: the status of a queue with records says why it waits; with the annotation it is deleted with them.
func testDeleteQueue(t *testing.T) {
	gateway := "http://" + forward(t, weirNamespace, "svc/weir-gateway", 80)
	apply(t, "apiVersion: weir.dev/v1alpha1\nkind: Queue\nmetadata: {name: kept}\nspec: {maxBytes: 8Mi}\n---\n"+
		strings.ReplaceAll(apiHead, "wrong", "kept")+"    match: {method: POST, path: /kept}\n    queue: {name: kept}\n")
	deleteAfter(t, "apis.weir.dev", "kept")
	waitReady(t, "queues.weir.dev/kept", "apis.weir.dev/kept")
	answers := func(want int, part string) func() string {
		return func() string {
			if status, answer, _ := post(t, gateway+"/kept", `{}`); status != want || !strings.Contains(answer, part) {
				return fmt.Sprintf("%d %s", status, answer)
			}
			return ""
		}
	}
	eventually(t, "the route takes an order", answers(http.StatusAccepted, "id"))

	kubectl(t, "-n", sampleNamespace, "delete", "--wait=false", "queues.weir.dev", "kept")
	eventually(t, "the status says what is in the way", func() string {
		if r := get[resource](t, "-n", sampleNamespace, "queues.weir.dev", "kept").ready(); r.Reason != "Deleting" || !strings.Contains(r.Message, "annotate queues.weir.dev kept weir.dev/drop-records=true") {
			return fmt.Sprintf("%+v", r)
		}
		return ""
	})
	eventually(t, "no record is taken any more", answers(http.StatusServiceUnavailable, "queue-closed"))
	kubectl(t, "-n", sampleNamespace, "annotate", "queues.weir.dev", "kept", "weir.dev/drop-records=true")
	kubectl(t, "-n", sampleNamespace, "wait", "--for=delete", "queues.weir.dev/kept", "--timeout=60s")
	eventually(t, "the API says what it lacks", func() string {
		if r := get[resource](t, "-n", sampleNamespace, "apis.weir.dev", "kept").ready(); !strings.Contains(r.Message, `there is no Queue "kept"`) {
			return fmt.Sprintf("%+v", r)
		}
		return ""
	})
}
