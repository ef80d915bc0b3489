package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/manifest"
)

// lintable are resources of all kinds without mistakes; each case below breaks them in one place.
const lintable = `apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: shop}
spec:
  throttle: {rate: 100, burst: 50}
  cors: {origins: ["https://shop.example"]}
  routes:
  - name: create
    match: {method: POST, path: /orders}
    schema: {type: object}
    queue: {name: orders}
  - name: get
    match: {method: GET, path: "/orders/{id}"}
    function: {name: reader, timeout: 20s}
  - name: report
    match: {method: POST, path: /reports}
    job: {stateMachine: report}
---
apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: store}
spec:
  routes:
  - name: list
    match: {method: GET, path: /stock}
    function: {url: "http://stock:8080/"}
  - name: count
    match: {method: POST, path: /counts}
    job: {queue: counts, maxUploadBytes: 1Mi}
---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: orders}
spec: {maxAge: 24h}
---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: counts}
spec: {maxBytes: 1Gi}
---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: reports}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: orders}
spec:
  queue: orders
  function: {name: writer}
  timeout: 30s
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: counts}
spec:
  queue: counts
  function: {url: "http://stock:8080/counts"}
  maxConcurrency: 3
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: reports}
spec:
  queue: reports
  stateMachine: {name: report}
---
apiVersion: weir.dev/v1alpha1
kind: StateMachine
metadata: {name: report}
spec:
  definition:
    StartAt: Work
    States:
      Work: {Type: Task, Resource: reader, Next: Done}
      Done: {Type: Succeed}
---
apiVersion: weir.dev/v1alpha1
kind: StateMachine
metadata: {name: quick}
spec:
  type: EXPRESS
  definitionString: '{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}'
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: writer}
spec:
  template:
    metadata:
      annotations: {autoscaling.knative.dev/max-scale: "5"}
    spec:
      containerConcurrency: 2
      timeoutSeconds: 30
      containers: [{image: example.com/writer}]
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: reader}
spec:
  template:
    spec:
      containers: [{image: example.com/reader}]
`

// runLint runs weir lint.
func runLint(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRoot()
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"lint"}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// broken writes lintable with one change into a folder.
func broken(t *testing.T, old, changed string) (dir, text string) {
	t.Helper()
	text = strings.Replace(lintable, old, changed, 1)
	if text == lintable {
		t.Fatalf("%q is not in the resources", old)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, text
}

// controllerSays are the statuses of the objects of text that the controller finds invalid, by kind and name.
func controllerSays(t *testing.T, text string) map[string][]string {
	t.Helper()
	objs, errs := manifest.Parse("a.yaml", []byte(text))
	if len(errs) > 0 {
		t.Fatalf("the API server would not take it: %v", errs)
	}
	asInCluster(objs.APIs)
	asInCluster(objs.Queues)
	asInCluster(objs.Mappings)
	asInCluster(objs.Machines)
	asInCluster(objs.Services)
	memory := manifest.Memory{OrchestratorURL: "http://weir-orchestrator"}
	says := map[string][]string{}
	for ref, v := range memory.Reconcile(objs, new(catalog.Catalog), nil).Verdicts {
		if v.Reason == manifest.Invalid {
			says[strings.TrimSpace(ref.Kind+" "+ref.Name)] = strings.Split(v.Message, "\n")
		}
	}
	return says
}

// asInCluster takes the files of objects from them.
func asInCluster[T any](rs []manifest.Resource[T]) {
	for i := range rs {
		rs[i].Origin = manifest.Origin{}
	}
}

var (
	lintLine = regexp.MustCompile(`^(\S+:\d+): ([A-Za-z]+(?: [^ :]+)?): (.+)$`)
	lintAt   = regexp.MustCompile(` \([^() ]+\.yaml:\d+\)`)
)

// lintSays are the lines of weir lint by kind and name, without the places of other objects in them.
func lintSays(t *testing.T, printed string) map[string][]string {
	t.Helper()
	says := map[string][]string{}
	for line := range strings.Lines(printed) {
		m := lintLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			t.Fatalf("%q has no file, line and object", line)
		}
		if !strings.HasPrefix(m[3], "warning: ") {
			says[m[2]] = append(says[m[2]], lintAt.ReplaceAllString(m[3], ""))
		}
	}
	return says
}

// TestLintSaysWhatTheControllerSays breaks the resources in one place a case: weir lint prints for each object what its status
// would say, in the same words, and for no other.
func TestLintSaysWhatTheControllerSays(t *testing.T) {
	const another = "---\napiVersion: weir.dev/v1alpha1\nkind: EventSourceMapping\nmetadata: {name: again}\nspec: {queue: orders, function: {name: writer}, timeout: 5s}\n---\n"
	const service = "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: writer}"
	cases := map[string]struct{ old, changed, part string }{
		// Names.
		"no name":           {"metadata: {name: shop}", "metadata: {}", "metadata.name: Required value"},
		"name with a dot":   {"metadata: {name: shop}", "metadata: {name: my.shop}", "DNS-1123"},
		"another namespace": {"metadata: {name: orders}\nspec: {maxAge", "metadata: {name: orders, namespace: other}\nspec: {maxAge", "there is no Queue"},

		// APIs.
		"no routes":                        {"routes:\n  - name: list\n    match: {method: GET, path: /stock}\n    function: {url: \"http://stock:8080/\"}\n  - name: count\n    match: {method: POST, path: /counts}\n    job: {queue: counts, maxUploadBytes: 1Mi}\n", "routes: []\n", "add at least one route"},
		"rate of zero":                     {"rate: 100", "rate: 0", "greater than 0 requests a second"},
		"burst of zero":                    {"burst: 50", "burst: 0", "a bucket of none"},
		"origin with a path":               {"https://shop.example", "https://shop.example/", "must be a scheme, a host"},
		"route twice":                      {"- name: get", "- name: create", "Duplicate value"},
		"unknown method":                   {"method: GET, path: /stock", "method: FETCH, path: /stock", "Unsupported value"},
		"relative path":                    {"path: /orders}", "path: orders}", "must start with '/'"},
		"path pattern":                     {"/orders/{id}", "/orders/{id", "bad wildcard segment"},
		"reserved path":                    {"path: /orders}", "path: /weir/x}", "is Weir's own"},
		"no target":                        {"    queue: {name: orders}\n", "", "say where the requests go"},
		"two targets":                      {"    queue: {name: orders}\n", "    queue: {name: orders}\n    function: {name: reader}\n", "keep one of queue, job and function"},
		"buffered GET":                     {"method: POST, path: /orders", "method: GET, path: /orders", "has no body to check"},
		"schema that is none":              {"schema: {type: object}", "schema: {type: thing}", "must be a valid JSON Schema"},
		"schema of elsewhere":              {"schema: {type: object}", "schema: {$ref: \"https://example.com/s.json\"}", "are not loaded"},
		"body that fits in no message":     {"    queue: {name: orders}\n", "    queue: {name: orders}\n    maxBodyBytes: 1Mi\n", "between 1 and 768Ki"},
		"attribute that names nothing":     {"    queue: {name: orders}\n", "    queue: {name: orders}\n    attributes: {customer: body.sku}\n", "must be path.NAME"},
		"media type twice":                 {"    queue: {name: orders}\n", "    queue: {name: orders}\n    contentTypes: [application/json, Application/JSON]\n", "Duplicate value"},
		"function by neither name nor url": {"function: {name: reader, timeout: 20s}", "function: {timeout: 20s}", "say name"},
		"function by a bad url":            {"http://stock:8080/\"", "ftp://stock\"", "must be an absolute http or https URL"},
		"upload that is too large":         {"maxUploadBytes: 1Mi", "maxUploadBytes: 3Gi", "more than half of objects.maxBytes"},
		"route timeout beyond Knative's":   {"timeout: 20s", "timeout: 6m", "longer than timeoutSeconds of Service reader, 5m"},

		// Routes that collide.
		"same path in one API":  {"path: \"/orders/{id}\"", "path: \"/orders/{id}\"}\n    function: {name: reader}\n  - name: again\n    match: {method: GET, path: \"/orders/{id}\"", "has the method and path of route get of API default/shop"},
		"same path in two APIs": {"path: /stock", "path: \"/orders/{id}\"", "has the method and path of route get of API default/shop"},
		"paths that overlap":    {"path: /stock", "path: \"/{what}/7\"", "collides with route get of API default/shop"},

		// References.
		"no such queue of a route":     {"    queue: {name: orders}", "    queue: {name: oders}", `did you mean "orders"?`},
		"no such queue of a job":       {"job: {queue: counts", "job: {queue: tallies", `there is no Queue "tallies"`},
		"no such queue of a mapping":   {"  queue: orders\n", "  queue: deliveries\n", `there is no Queue "deliveries"`},
		"no such function of a route":  {"{name: reader, timeout", "{name: raeder, timeout", `did you mean "reader"?`},
		"no such function of mapping":  {"function: {name: writer}\n  timeout", "function: {name: accounting}\n  timeout", `there is no Knative Service "accounting"`},
		"no such machine of a mapping": {"  stateMachine: {name: report}", "  stateMachine: {name: reports}", `there is no StateMachine "reports"`},
		"machine that nobody starts":   {"job: {stateMachine: report}", "job: {stateMachine: quick}", `no EventSourceMapping has stateMachine "quick"`},
		"queue that is invalid":        {"spec: {maxAge: 24h}", "spec: {maxAge: 10s}", `Queue "orders" is not in use`},
		"machine that is invalid":      {"Resource: reader, Next: Done", "Resource: reader, Next: Dun", `StateMachine "report" is not in use`},

		// Queues.
		"short maxAge":               {"spec: {maxAge: 24h}", "spec: {maxAge: 30s}", "between 1m and 8760h"},
		"small queue":                {"maxBytes: 1Gi", "maxBytes: 1Ki", "between 8Mi and 64Ti"},
		"ordered queue":              {"spec: {maxAge: 24h}", "spec: {ordering: key}", "not supported yet"},
		"dead letters for no time":   {"spec: {maxAge: 24h}", "spec: {deadLetter: {maxAge: 0s}}", "spec.deadLetter.maxAge"},
		"results shorter than queue": {"spec: {maxAge: 24h}", "spec: {maxAge: 24h, results: {maxAge: 1h}}", "must not be below maxAge"},
		"small objects":              {"maxBytes: 1Gi", "objects: {maxBytes: 1Mi}", "spec.objects.maxBytes"},

		// Mappings.
		"two mappings of one queue":       {service, another + strings.TrimPrefix(service, "---\n"), "is already drained by EventSourceMapping again"},
		"cap wider than the Service":      {"  timeout: 30s\n", "  timeout: 30s\n  maxConcurrency: 11\n", "more than Service writer takes at once"},
		"cap of zero":                     {"maxConcurrency: 3", "maxConcurrency: 0", "between 1 and"},
		"no cap for a url":                {"  maxConcurrency: 3\n", "", "has no Service to take the cap from"},
		"no containerConcurrency":         {"      containerConcurrency: 2\n", "", "has no containerConcurrency"},
		"no max-scale":                    {"{autoscaling.knative.dev/max-scale: \"5\"}", "{}", "max-scale to take it from"},
		"mapping's timeout beyond theirs": {"  timeout: 30s\n", "  timeout: 31s\n", "longer than timeoutSeconds of Service writer, 30s"},
		"batch of none":                   {"  timeout: 30s\n", "  timeout: 30s\n  batch: {maxRecords: 0, window: 1h}\n", "spec.batch.maxRecords"},
		"no attempts":                     {"  timeout: 30s\n", "  timeout: 30s\n  retry: {maxAttempts: 0}\n", "spec.retry.maxAttempts"},
		"backoff upside down":             {"  timeout: 30s\n", "  timeout: 30s\n  retry: {initialBackoff: 10m}\n", "must not be below initialBackoff"},
		"function and machine":            {"  stateMachine: {name: report}", "  function: {name: writer}\n  stateMachine: {name: report}", "keep one of the two"},
		"neither function nor machine":    {"  stateMachine: {name: report}\n", "", "say where the records go"},

		// State machines.
		"state that is not there":      {"Next: Done", "Next: Dun", `names "Dun"`},
		"field that a state has not":   {`"Type": "Succeed"`, `"Type": "Succeed", "Comments": ""`, "is no field of a Succeed state"},
		"integration that nobody has":  {"Resource: reader", "Resource: 'arn:aws:states:::glue:startJobRun'", "is not served"},
		"no definition":                {"  definitionString: '{\"StartAt\": \"A\", \"States\": {\"A\": {\"Type\": \"Succeed\"}}}'\n", "", "write it in the Amazon States Language"},
		"two definitions":              {"  type: EXPRESS\n", "  definition: {}\n", "keep one of the two"},
		"no such type of machine":      {"type: EXPRESS", "type: express", "Unsupported value"},
		"definition that is no JSON":   {`'{"StartAt": "A"`, `'{"StartAt": "A",`, "spec.definitionString"},
		"upload for a state machine":   {"job: {stateMachine: report}", "job: {stateMachine: report, maxUploadBytes: 1Mi}", "an execution's input is the request's body"},
		"job for a machine and queue":  {"job: {stateMachine: report}", "job: {stateMachine: report, queue: reports}", "keep one of the two"},
		"several mistakes of one file": {"spec: {maxAge: 24h}", "spec: {maxAge: 10s, maxBytes: 1Ki, ordering: key}", "not supported yet"},
	}
	if len(cases) < 34 {
		t.Errorf("only %d kinds of mistakes", len(cases))
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir, text := broken(t, c.old, c.changed)
			want := controllerSays(t, text)
			printed, err := runLint(t, "", dir)
			if err == nil || exitCode(err) != 1 {
				t.Errorf("the exit code is %d: %v", exitCode(err), err)
			}
			got := lintSays(t, printed)
			for _, says := range []map[string][]string{want, got} {
				for object := range says {
					slices.Sort(says[object])
				}
			}
			if len(want) == 0 || !maps.EqualFunc(got, want, slices.Equal) {
				t.Errorf("weir lint says\n%v\nthe controller\n%v", got, want)
			}
			if !strings.Contains(lintAt.ReplaceAllString(printed, ""), c.part) {
				t.Errorf("it does not say %q:\n%s", c.part, printed)
			}
		})
	}
}

// TestLintSaysWhatNeverReachesTheController: what the API server, or Knative, would refuse is told too, in the words of weir local.
func TestLintSaysWhatNeverReachesTheController(t *testing.T) {
	for name, c := range map[string]struct{ old, changed, want string }{
		"unknown field":        {"    queue: {name: orders}", "    queue: {name: orders}\n    throtle: {rate: 1, burst: 1}", `a.yaml:12: API shop: spec.routes[0].throtle: unknown field; did you mean "throttle"?`},
		"unit that is none":    {"spec: {maxAge: 24h}", "spec: {maxAge: 4d}", `a.yaml:34: Queue orders: spec.maxAge: must be a duration with its unit, such as "500ms", "30s" or "5m", not "4d"; write "96h"`},
		"no unit":              {"timeout: 20s", "timeout: 20", `a.yaml:14: API shop: spec.routes[1].function.timeout: must be a duration with its unit, such as "500ms", "30s" or "5m", not 20`},
		"unit of a size":       {"maxBytes: 1Gi", "maxBytes: 1GB", `a.yaml:39: Queue counts: spec.maxBytes: must be a number, if you like with a suffix: 262144, "256Ki", "4Mi", not "1GB"`},
		"text for a number":    {"burst: 50", "burst: many", `a.yaml:5: API shop: spec.throttle.burst: must be a whole number, not "many"`},
		"key twice":            {"  queue: counts\n", "  queue: counts\n  queue: counts\n", `a.yaml:58: key "queue" is given twice: remove one`},
		"unknown kind":         {"kind: Queue\n", "kind: Queu\n", `a.yaml:32: Queu orders: kind: unknown kind "Queu" in weir.dev/v1alpha1; there are API, Queue, EventSourceMapping, StateMachine; did you mean "Queue"?`},
		"unknown version":      {"apiVersion: weir.dev/v1alpha1\nkind: Queue", "apiVersion: weir.dev/v1\nkind: Queue", `a.yaml:31: Queue orders: apiVersion: unknown version "weir.dev/v1"; write weir.dev/v1alpha1`},
		"not YAML":             {"metadata: {name: counts}\nspec: {max", "metadata: {name: counts\nspec: {max", `a.yaml:38: is not valid YAML: did not find expected ',' or '}'`},
		"truth of YAML 1.1":    {"schema: {type: object}", "schema: {properties: {y: {}}}", `a.yaml:10: API shop: spec.routes[0].schema.properties.y: y without quotes is true or false, as kubectl reads it too: write "y"`},
		"twice in one folder":  {"metadata: {name: quick}", "metadata: {name: report}", `a.yaml:80: StateMachine report: metadata.name: is the name of another StateMachine too (a.yaml:70): rename one or remove it`},
		"Knative: no image":    {"{image: example.com/reader}", "{name: x}", `a.yaml:103: Service reader: spec.template.spec.containers[0].image: Knative refuses it: missing field(s)`},
		"Knative: wrong place": {"metadata: {name: writer}", "metadata: {name: writer, annotations: {autoscaling.knative.dev/max-scale: \"1\"}}", `a.yaml:87: Service writer: metadata.annotations: Knative refuses it: invalid key name "autoscaling.knative.dev/max-scale": autoscaling annotations must be put under "spec.template.metadata.annotations" to work`},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := broken(t, c.old, c.changed)
			printed, err := runLint(t, "", dir)
			if got := strings.ReplaceAll(printed, dir+"/", ""); err == nil || got != c.want+"\n" {
				t.Errorf("%v\n%swant\n%s", err, got, c.want)
			}
			if _, err := manifest.LoadDir(dir, manifest.Options{}); err == nil || err.Error() != c.want {
				t.Errorf("weir local says\n%v", err)
			}
		})
	}
}

// TestLintOfAStream: what helm or kustomize have rendered is read from standard input, and other kinds in it are left alone.
func TestLintOfAStream(t *testing.T) {
	const others = "# Source: shop/templates/other.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {x: a, x: b}}\n---\n" +
		"apiVersion: v1\nkind: Service\nmetadata: {name: writer}\n---\n# nothing\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: orders}\nspec: {replicas: many}\n---\n"
	if out, err := runLint(t, others+lintable, "-"); err != nil || out != "-: no mistakes in 12 resources\n" {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := runLint(t, others+strings.Replace(lintable, "maxAge: 24h", "maxAge: 4d", 1), "-")
	if err == nil || !strings.HasPrefix(out, "-:50: Queue orders: spec.maxAge: ") || err.Error() != "there is a mistake" {
		t.Errorf("%v\n%s", err, out)
	}
	// Without a namespace they are in that of kubectl apply.
	named := strings.Replace(lintable, "kind: Queue\nmetadata: {name: orders}", "kind: Queue\nmetadata: {name: orders, namespace: shop}", 1)
	if out, err := runLint(t, named, "-"); err == nil || strings.Count(out, `there is no Queue "orders" in namespace default`) != 2 {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := runLint(t, named, "-", "-n", "shop"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestLintOfSubfolders: they are read with -R, as by kubectl, and without it the message says where there is something to read.
func TestLintOfSubfolders(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "base", "queues")
	if err := os.MkdirAll(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(sub, "a.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(lintable, "maxAge: 24h", "maxAge: 4d", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runLint(t, "", dir)
	if want := "no *.yaml file in " + dir + ": give the folder that holds your resources; its subfolders are not read, and one has " + file + ": weir lint -R " + dir + " reads them too"; exitCode(err) != 2 || err.Error() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
	for _, flag := range []string{"-R", "--recursive"} {
		if out, err := runLint(t, "", dir, flag); exitCode(err) != 1 || !strings.HasPrefix(out, file+":34: Queue orders: spec.maxAge: ") || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: %v\n%s", flag, err, out)
		}
	}
	if err := os.WriteFile(file, []byte(lintable), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := runLint(t, "", "-R", dir); err != nil || out != dir+": no mistakes in 12 resources\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestLintOfAList: what kubectl get -o yaml prints of several resources is one List; its items are told apart as documents are.
func TestLintOfAList(t *testing.T) {
	list := "apiVersion: v1\nkind: List\nitems:\n"
	for doc := range strings.SplitSeq(strings.Replace(lintable, "maxAge: 24h", "maxAge: 10s", 1), "---\n") {
		list += "- " + strings.ReplaceAll(strings.TrimSpace(doc), "\n", "\n  ") + "\n"
	}
	out, err := runLint(t, list, "-")
	if err == nil || strings.Count(out, "\n") != 3 || !strings.Contains(out, "-:35: Queue orders: spec.maxAge: Invalid value: \"10s\": must be between 1m and 8760h\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := runLint(t, strings.Replace(list, "maxAge: 10s", "maxAge: 24h", 1), "-"); err != nil || out != "-: no mistakes in 12 resources\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestLintWarns of what is no mistake: only --strict makes it one.
func TestLintWarns(t *testing.T) {
	const few = `apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: orders}
---
apiVersion: weir.dev/v1alpha1
kind: StateMachine
metadata: {name: report}
spec:
  definition:
    StartAt: All
    States:
      All:
        Type: Parallel
        Branches:
        - StartAt: Work
          States:
            Work: {Type: Task, Resource: worker, End: true}
        - StartAt: Tell
          States:
            Tell:
              Type: Task
              Resource: arn:aws:states:::lambda:invoke
              Parameters: {FunctionName: teller}
              End: true
        End: true
`
	const warnings = `-:3: Queue orders: warning: no EventSourceMapping drains this queue: what comes into it waits, and expires
-:17: StateMachine report: spec.definition.States.All.Branches[0].States.Work: warning: there is no function "worker" in the namespace default
-:20: StateMachine report: spec.definition.States.All.Branches[1].States.Tell: warning: there is no function "teller" in the namespace default
`
	if out, err := runLint(t, few, "-"); err != nil || out != warnings+"-: no mistakes in 2 resources\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := runLint(t, few, "-", "--strict"); exitCode(err) != 1 || err == nil || out != warnings {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := runLint(t, few, "-", "--strict", "--partial"); err != nil || out != "-: no mistakes in 2 resources\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := runLint(t, "apiVersion: v1\nkind: ConfigMap\n", "-"); err != nil || !strings.HasPrefix(out, "-: warning: there is no resource of Weir here\n") {
		t.Errorf("%v\n%s", err, out)
	}
	// A mapping with a mistake drains its queue all the same.
	dir, _ := broken(t, "  timeout: 30s\n", "  timeout: 31s\n")
	if out, err := runLint(t, "", dir); err == nil || strings.Contains(out, "warning") || strings.Count(out, "\n") != 1 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestLintOfAPart: with --partial what is missing is there already, and only that.
func TestLintOfAPart(t *testing.T) {
	const api = `apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: shop}
spec:
  routes:
  - {name: create, match: {method: POST, path: /orders}, queue: {name: orders}}
  - {name: get, match: {method: GET, path: "/orders/{id}"}, function: {name: reader, timeout: 20s}}
  - {name: report, match: {method: POST, path: /reports}, job: {stateMachine: report}}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: orders}
spec: {queue: orders, function: {name: writer}}
`
	if out, err := runLint(t, api, "-"); err == nil || err.Error() != "there are 6 mistakes" || strings.Count(out, "\n") != 6 {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := runLint(t, api, "-", "--partial"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := runLint(t, strings.Replace(api, "timeout: 20s", "timeout: 0s", 1), "-", "--partial"); err == nil || !strings.HasPrefix(out, "-:7: API shop: spec.routes[1].function.timeout: ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestLintUsage: 2 is of a call that looked at nothing.
func TestLintUsage(t *testing.T) {
	empty := t.TempDir()
	for _, args := range [][]string{{}, {"a", "b"}, {"--stric", empty}, {empty}, {filepath.Join(empty, "none")}} {
		if out, err := runLint(t, "", args...); err == nil || exitCode(err) != 2 {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

// TestLintOfClasses: what a release of another class serves is not there for one, as the controller has it, and takes no routes from
// it.
func TestLintOfClasses(t *testing.T) {
	out, err := runLint(t, strings.Replace(lintable, "spec: {maxAge: 24h}", "spec: {class: eu, maxAge: 24h}", 1), "-")
	const is = `Queue "orders" is of class eu, and this one of class weir`
	if err == nil || strings.Count(out, is) != 2 || strings.Count(out, "\n") != 3 || !strings.Contains(out, "API shop: spec.routes[0].queue.name: "+is) || !strings.Contains(out, "spec.queue: "+is) ||
		!strings.Contains(out, "Queue orders: warning: no EventSourceMapping drains this queue") {
		t.Errorf("%v\n%s", err, out)
	}
	twice := "apiVersion: weir.dev/v1alpha1\nkind: API\nmetadata: {name: a}\nspec:\n  routes:\n  - {name: r, match: {method: GET, path: /x}, function: {url: \"http://x.example\"}}\n"
	second := strings.NewReplacer("name: a}", "name: b}", "spec:\n", "spec:\n  class: eu\n").Replace(twice)
	if out, err := runLint(t, twice+"---\n"+second, "-"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	const one = "apiVersion: weir.dev/v1alpha1\nkind: EventSourceMapping\nmetadata: {name: m}\nspec: {class: CLASS, queue: q, function: {url: \"http://x.example\"}, maxConcurrency: 1}\n---\n"
	if out, err := runLint(t, strings.Replace(one, "CLASS", "a", 1)+strings.Replace(one, "CLASS", "b", 1), "--partial", "-"); err == nil || !strings.Contains(out, "-:8: EventSourceMapping m: metadata.name: is the name of another EventSourceMapping too (-:3): rename one or remove it") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := runLint(t, twice+"---\n"+strings.Replace(second, "  class: eu\n", "", 1), "-"); err == nil || !strings.Contains(out, "GET /x has the method and path of route r of API default/a") {
		t.Errorf("%v\n%s", err, out)
	}
}
