package manifest

import (
	"strings"
	"testing"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
)

const machines = `apiVersion: weir.dev/v1alpha1
kind: StateMachine
metadata: {name: report}
spec:
  definition:
    StartAt: Work
    States:
      Work: {Type: Task, Resource: worker, Next: Tell}
      Tell: {Type: Pass, Result: {z: 1, a: 2}, End: true}
---
apiVersion: weir.dev/v1alpha1
kind: StateMachine
metadata: {name: quick}
spec:
  type: EXPRESS
  definitionString: '{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}'
---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: reports}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: reports}
spec:
  queue: reports
  stateMachine: {name: report}
---
apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: shop}
spec:
  routes:
  - name: create
    match: {method: POST, path: /reports}
    job: {stateMachine: report}
`

func TestMachines(t *testing.T) {
	bundle, err := load(map[string]string{"a.yaml": machines}, Options{OrchestratorURL: "http://orchestrator/"})
	if err != nil {
		t.Fatal(err)
	}
	cat := bundle.Catalog
	reports := catalog.Key{Namespace: "default", Name: "reports"}
	if m := cat.Mappings[0]; m.Function.URL != "http://orchestrator/starts/default/report" || *m.Machine != (catalog.Key{Namespace: "default", Name: "report"}) ||
		m.MaxConcurrency != defaultStarts || m.Heartbeat != maxExecution {
		t.Errorf("the mapping is %+v", m)
	}
	if job := cat.APIs[0].Routes[0].Job; job == nil || job.Queue != reports || !cat.Queues[0].Jobs {
		t.Errorf("jobs go to %v, a queue of jobs: %t", job, cat.Queues[0].Jobs)
	}
	if len(cat.Machines) != 2 || cat.Machines[0].Name != "quick" || cat.Machines[0].Type != "EXPRESS" || cat.Machines[1].Type != "STANDARD" {
		t.Errorf("the machines are %+v", cat.Machines)
	}
	entries, err := cat.Entries()
	if err != nil {
		t.Fatal(err)
	}
	b := catalog.NewBuilder()
	for key, value := range entries {
		if err := b.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.Catalog(); len(got.Machines) != 2 || got.Machines[1].Key.Name != "report" || got.Revision() != cat.Revision() {
		t.Errorf("published, the machines are %+v", got.Machines)
	}
}

// TestMachineMistakes breaks the folder above in one place a case, as TestMistakes.
func TestMachineMistakes(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"a state that is not there": {
			"Next: Tell", "Next: Told",
			`a.yaml:8: StateMachine report: spec.definition.States.Work.Next: Invalid value: names "Told", which is no state here
a.yaml:9: StateMachine report: spec.definition.States.Tell: Invalid value: is never reached: no other state leads to it`,
		},
		"a misspelled field in a text": {
			`"Type": "Succeed"`, `"Type": "Succeed", "Comments": ""`,
			`a.yaml:16: StateMachine quick: spec.definitionString.States.A.Comments: Invalid value: is no field of a Succeed state in JSONPath`,
		},
		"an integration that is not served": {
			"Resource: worker", "Resource: 'arn:aws:states:::glue:startJobRun'",
			`a.yaml:8: StateMachine report: spec.definition.States.Work.Resource: Invalid value: arn:aws:states:::glue:startJobRun is not served: a function by its name, its ARN or its URL, or an integration that docs/state-machines.md lists`,
		},
		"no definition": {
			"  definitionString: '{\"StartAt\": \"A\", \"States\": {\"A\": {\"Type\": \"Succeed\"}}}'\n", "",
			`a.yaml:14: StateMachine quick: spec.definition: Required value: write it in the Amazon States Language, or give definitionString, a text that holds its JSON`,
		},
		"two definitions": {
			"  type: EXPRESS\n", "  definition: {}\n",
			`a.yaml:16: StateMachine quick: spec.definitionString: Forbidden: definition is set too: keep one of the two`,
		},
		"no such type": {
			"type: EXPRESS", "type: express",
			`a.yaml:15: StateMachine quick: spec.type: Unsupported value: "express": supported values: "STANDARD", "EXPRESS"`,
		},
		"YAML 1.1's truth": {
			"Result: {z: 1, a: 2}", "Result: {y: 1, a: 2}",
			`a.yaml:9: StateMachine report: spec.definition.States.Tell.Result.y: y without quotes is true or false, as kubectl reads it too: write "y"`,
		},
		"a mapping to no machine": {
			"stateMachine: {name: report}\n---", "stateMachine: {name: reports}\n---",
			`a.yaml:27: EventSourceMapping reports: spec.stateMachine.name: there is no StateMachine "reports" in namespace default; did you mean "report"?
a.yaml:36: API shop: spec.routes[0].job.stateMachine: no EventSourceMapping has stateMachine "report": add one, with the Queue in which jobs wait until their execution has begun`,
		},
		"a mapping to both": {
			"stateMachine: {name: report}\n---", "stateMachine: {name: report}\n  function: {url: 'http://a'}\n---",
			`a.yaml:25: EventSourceMapping reports: spec.maxConcurrency: is missing: a function given by url has no Service to take the cap from; say how many calls may run at once, such as maxConcurrency: 10
a.yaml:27: EventSourceMapping reports: spec.stateMachine: Forbidden: function is set too: keep one of the two`,
		},
		"a mapping to nothing": {
			"  stateMachine: {name: report}\n---", "---",
			`a.yaml:25: EventSourceMapping reports: spec.function: Required value: say where the records go: function, or stateMachine
a.yaml:35: API shop: spec.routes[0].job.stateMachine: no EventSourceMapping has stateMachine "report": add one, with the Queue in which jobs wait until their execution has begun`,
		},
		"a route to a machine and a queue": {
			"job: {stateMachine: report}", "job: {stateMachine: report, queue: reports}",
			`a.yaml:36: API shop: spec.routes[0].job.stateMachine: Forbidden: queue is set too: keep one of the two`,
		},
		"uploads": {
			"job: {stateMachine: report}", "job: {stateMachine: report, maxUploadBytes: 1Mi}",
			`a.yaml:36: API shop: spec.routes[0].job.maxUploadBytes: Forbidden: an execution's input is the request's body: remove it`,
		},
		"twice": {
			"metadata: {name: quick}", "metadata: {name: report}",
			`a.yaml:13: StateMachine report: metadata.name: is the name of another StateMachine too (a.yaml:3): rename one or remove it`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(machines, c.old) {
				t.Fatal("the folder has no", c.old)
			}
			_, err := load(map[string]string{"a.yaml": strings.Replace(machines, c.old, c.new, 1)}, Options{OrchestratorURL: "http://orchestrator"})
			if err == nil || err.Error() != c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

// TestMachinesOfACluster: an invalid version does not replace the valid one before it, and blocks nothing else.
func TestMachinesOfACluster(t *testing.T) {
	objects := func(text string) *Objects {
		objs, errs := Parse("", []byte(text))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		return objs
	}
	m := &Memory{OrchestratorURL: "http://orchestrator"}
	first := m.Reconcile(objects(machines), &catalog.Catalog{}, nil)
	if len(first.Verdicts) > 0 || len(first.Catalog.Machines) != 2 {
		t.Fatalf("%+v", first)
	}
	report := catalog.Key{Namespace: "default", Name: "report"}
	broken := strings.Replace(machines, "Next: Tell", "Next: Told", 1)
	second := m.Reconcile(objects(broken), first.Catalog, nil)
	if v := second.Verdicts[MachineRef(report)]; v.Reason != Invalid || !strings.Contains(v.Message, `names "Told"`) || len(second.Verdicts) != 1 {
		t.Errorf("the verdicts are %+v", second.Verdicts)
	}
	if second.Catalog.Revision() != first.Catalog.Revision() {
		t.Error("the valid version is not in use any more")
	}
	// One that never was valid is named by those that need it.
	fresh := m.Reconcile(objects(broken), &catalog.Catalog{}, nil)
	for _, ref := range []Ref{MachineRef(report), MappingRef(catalog.Key{Namespace: "default", Name: "reports"}), APIRef(catalog.Key{Namespace: "default", Name: "shop"})} {
		if v := fresh.Verdicts[ref]; v.Reason != Invalid {
			t.Errorf("%v: %+v", ref, v)
		}
	}
	v := new(Memory).Reconcile(objects(machines), &catalog.Catalog{}, nil).Verdicts[MappingRef(catalog.Key{Namespace: "default", Name: "reports"})]
	if v.Reason != Invalid || !strings.Contains(v.Message, "nobody runs state machines here") {
		t.Errorf("without an orchestrator: %+v", v)
	}
	if len(fresh.Catalog.Machines) != 1 || len(fresh.Catalog.Queues) != 1 {
		t.Errorf("the catalog is %+v", fresh.Catalog)
	}
}

func TestOneDefinitionIsCheckedOnce(t *testing.T) {
	m := new(Memory)
	text := []byte(`{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}`)
	check := m.checkDefinitions()
	for _, kind := range []v1alpha1.StateMachineType{v1alpha1.StandardMachine, v1alpha1.ExpressMachine, v1alpha1.StandardMachine} {
		if err := check(text, kind); err != nil {
			t.Error(err)
		}
	}
	if len(m.definitions) != 2 {
		t.Errorf("%d are remembered", len(m.definitions))
	}
}
