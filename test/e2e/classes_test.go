package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// testClasses: two releases in one namespace, each with the resources of its class; and what happens to both when they are of one.
func testClasses(t *testing.T) {
	const second, calls = "weir2", 6 // slowwriter's containerConcurrency 2 × max-scale 3
	db := database(t)
	args := func(class string, more ...string) []string {
		return append([]string{
			"upgrade", "--install", second, "charts/weir", "--namespace", weirNamespace, "--wait", "--timeout", "5m",
			"--values", "deploy/k8s/kind/values.yaml", "--set", "image.registry=" + env.images, "--set", "image.tag=" + env.tag,
			"--set", "nats.image=" + env.nats, "--set", "controller.class=" + class,
			"--set", "crds.install=false,pgbouncer.enabled=false,orchestrator.replicas=0,nats.persistence.size=4Gi",
		}, more...)
	}
	refused := func(want, args []string) {
		t.Helper()
		_, err := env.tool(t.Context(), "", "helm", args...)
		if err == nil {
			t.Fatal("helm upgrade leaves resources without a word")
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("helm upgrade says %v, which lacks %q", err, part)
			}
		}
	}
	helm(t, args("second")...)
	t.Cleanup(func() { // the test's own context is over then
		if _, err := env.tool(context.Background(), "", "helm", "uninstall", second, "--namespace", weirNamespace, "--wait", "--timeout", "3m"); err != nil {
			t.Error(err)
		}
	})

	// The same as testdata/slow.yaml, at the same path, for the other release.
	slow, err := os.ReadFile("testdata/slow.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manifests := strings.NewReplacer("SLOWWRITER", env.image("slowwriter"), "slowwriter", "secondwriter", "{name: slow}", "{name: second}", "{maxBytes: 1Gi}", "{class: second, maxBytes: 1Gi}",
		"spec:\n  routes:", "spec:\n  class: second\n  routes:", "spec:\n  queue: slow", "spec:\n  class: second\n  queue: second").Replace(string(slow))
	applySlow(t, db)
	apply(t, manifests)
	for _, kind := range []string{"apis.weir.dev", "esm", "ksvc"} {
		name := "second"
		if kind == "ksvc" {
			name = "secondwriter"
		}
		deleteAfter(t, kind, name)
	}
	waitReady(t, "ksvc/secondwriter", "queues.weir.dev/second", "esm/second", "apis.weir.dev/second")
	for name, want := range map[string]string{"queues.weir.dev/slow": "weir", "esm/slow": "weir", "apis.weir.dev/slow": "weir", "queues.weir.dev/second": second, "esm/second": second, "apis.weir.dev/second": second} {
		if by := kubectl(t, "-n", sampleNamespace, "get", name, "-o", "jsonpath={.status.observedBy}"); by != weirNamespace+"/"+want {
			t.Errorf("%s is served by %q, not by %s", name, by, want)
		}
	}
	first, other := "http://"+forward(t, weirNamespace, "svc/weir-gateway", 80), "http://"+forward(t, weirNamespace, "svc/"+second+"-gateway", 80)
	if status, answer, _ := post(t, other+"/orders", `{}`); status != http.StatusNotFound {
		t.Errorf("the second release serves the first one's routes: %d %s", status, answer)
	}

	// Each has its own records and its own cap.
	begin := time.Now()
	const each = 1500
	sent := func(l *loader) {
		t.Helper()
		eventually(t, "all are sent", func() string {
			if r := l.report(); r.Sent < each {
				return r.String()
			}
			return ""
		})
	}
	own := startLoad(t, "classes", "/slow", 600, each, 32)
	others := startLoadTo(t, second+"-gateway", "classes-second", "/slow", 600, each, 32, 0)
	sent(own)
	sent(others)
	wantAll(t, db, "slow", "classes", own.stop())
	if r := others.stop(); r.Statuses["202"] != each {
		t.Errorf("of the second release: %s", r)
	}
	eventually(t, "all of the second release's orders are rows", func() string {
		if n := count(t, db, `SELECT count(DISTINCT customer) FROM orders WHERE sku = 'classes-second'`); n != each {
			return fmt.Sprintf("%d of %d", n, each)
		}
		return ""
	})
	for _, function := range []string{"slowwriter", "secondwriter"} {
		if most := count(t, db, strings.ReplaceAll(overlap, "started > $1", "started > $1 AND pod LIKE '"+function+"-%'"), begin); most > calls || most < calls-1 { // less would mean that the cap was not tried
			t.Errorf("%d calls of %s at once; the cap is %d", most, function, calls)
		}
	}

	// An upgrade that narrows the namespaces, or changes the class, is refused while it would leave something; and goes on from where
	// it was if it was meant.
	narrow := []string{"--set", "controller.watchNamespaces={" + weirNamespace + "}"}
	refused([]string{"controller.watchNamespaces leaves out", sampleNamespace, "controller.leaveNamespaces"}, args("second", narrow...))
	refused([]string{"controller.class is weir", "second", "controller.leaveClasses"}, args("weir"))
	helm(t, args("second", append(narrow, "--set", "controller.leaveNamespaces={"+sampleNamespace+"}")...)...)
	eventually(t, "its routes there are gone", func() string {
		if status, answer, _ := post(t, other+"/slow", `{}`); status != http.StatusNotFound {
			return fmt.Sprintf("%d %s", status, answer)
		}
		return ""
	})
	helm(t, args("second")...)
	eventually(t, "its routes are back", func() string {
		if status, answer, _ := post(t, other+"/slow", `{"sku":"classes-back","quantity":1,"customer":"ada"}`); status != http.StatusAccepted {
			return fmt.Sprintf("%d %s", status, answer)
		}
		return ""
	})

	// The second release takes the first one's class: it leaves alone what that serves, and lets go what it has served.
	helm(t, args("weir", "--set", "controller.leaveClasses={second}")...)
	for name, want := range map[string]string{"esm/second": " ", "queues.weir.dev/second": " ClassChanged"} {
		eventually(t, name+" is let go", func() string {
			if is := kubectl(t, "-n", sampleNamespace, "get", name, "-o", `jsonpath={.status.observedBy} {.status.conditions[?(@.type=="Ready")].reason}`); is != strings.TrimSpace(want) {
				return is
			}
			return ""
		})
	}
	eventually(t, "an event says that the resource is left alone", func() string {
		if said := kubectl(t, "-n", sampleNamespace, "get", "events", "--field-selector", "reason=LeftAlone", "-o", "jsonpath={.items[*].message}"); !strings.Contains(said, "release "+weirNamespace+"/weir does") {
			return said
		}
		return ""
	})
	begin = time.Now()
	again := startLoad(t, "classes-again", "/slow", 600, each, 32)

	// What it has served before is deleted, with what it still holds, from its own NATS while the first release runs.
	kubectl(t, "-n", sampleNamespace, "annotate", "queues.weir.dev", "second", "weir.dev/drop-records=true")
	kubectl(t, "-n", sampleNamespace, "delete", "queues.weir.dev", "second", "--timeout=60s")
	sent(again)
	wantAll(t, db, "slow", "classes-again", again.stop())
	if most := count(t, db, strings.ReplaceAll(overlap, "started > $1", "started > $1 AND pod LIKE 'slowwriter-%'"), begin); most > calls || most < 2 {
		t.Errorf("with two releases of a class %d calls at once; the cap is %d", most, calls)
	}
	if by := kubectl(t, "-n", sampleNamespace, "get", "queues.weir.dev", "slow", "-o", "jsonpath={.status.observedBy} {.metadata.finalizers}"); by != weirNamespace+`/weir ["weir.`+weirNamespace+`.weir.dev/queue"]` {
		t.Errorf("the queue is %s", by)
	}

	if status, answer, _ := post(t, first+"/slow", `{"sku":"classes-last","quantity":1,"customer":"ada"}`); status != http.StatusAccepted {
		t.Errorf("after the deletion of the second release's queue: %d %s", status, answer)
	}
}

// testDrained: a queue that nobody drains says so, in its status and its API's and as an event.
func testDrained(t *testing.T) {
	apply(t, "apiVersion: weir.dev/v1alpha1\nkind: Queue\nmetadata: {name: still}\nspec: {maxBytes: 8Mi}\n---\n"+
		strings.ReplaceAll(apiHead, "wrong", "still")+"    match: {method: POST, path: /still}\n    queue: {name: still}\n")
	deleteAfter(t, "queues.weir.dev", "still")
	deleteAfter(t, "apis.weir.dev", "still")
	waitReady(t, "queues.weir.dev/still", "apis.weir.dev/still")
	is := func(want, part string) {
		t.Helper()
		for _, name := range []string{"queues.weir.dev/still", "apis.weir.dev/still"} {
			eventually(t, name+" says Drained="+want, func() string {
				for _, c := range get[resource](t, "-n", sampleNamespace, name).Status.Conditions {
					if c.Type == "Drained" && c.Status == want && strings.Contains(c.Reason+" "+c.Message, part) {
						return ""
					}
				}
				return fmt.Sprintf("%+v", get[resource](t, "-n", sampleNamespace, name).Status.Conditions)
			})
		}
	}
	is("False", "NoMapping")
	eventually(t, "there is an event", func() string {
		return map[bool]string{true: "", false: "none"}[strings.Contains(kubectl(t, "-n", sampleNamespace, "get", "events", "--field-selector", "reason=NoMapping,involvedObject.name=still", "-o", "name"), "event")]
	})
	apply(t, strings.ReplaceAll(mappingHead, "wrong", "still")+"{queue: still, function: {name: order-writer}, maxConcurrency: 1}")
	deleteAfter(t, "esm", "still")
	is("True", "rained")
}
