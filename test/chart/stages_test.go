package chart_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

// stageNames are the folders of services/ with a main of their own: what else names all stages is held to it.
func stageNames() []string {
	mains, _ := filepath.Glob("../../services/*/main.go") // it fails of a pattern that is none
	for i, main := range mains {
		mains[i] = filepath.Base(filepath.Dir(main))
	}
	return mains
}

// stage is what no rule says of a stage.
type stage struct {
	env     map[string]string // besides what TestEnvironment has for all
	objects bool              // it gets S3's credentials
	rights  rights
}

// rights are those of a user of NATS: subjects that it must not publish or subscribe to, and some that it may, to know
// that the check finds what is allowed.
type rights struct{ denied, deaf, allowed, hears []string }

const ordersStream, catalogStream = "WEIR_Q_default_orders", "KV_WEIR_CATALOG"

// ownStreams is for the controller and people only, offLimits for nobody.
var (
	ownStreams = []string{
		"$JS.API.STREAM.CREATE." + ordersStream, "$JS.API.STREAM.UPDATE." + ordersStream, "$JS.API.STREAM.DELETE." + ordersStream, "$JS.API.STREAM.RESTORE." + ordersStream,
		"$JS.API.STREAM.DELETE." + catalogStream, "$JS.API.STREAM.PURGE.KV_WEIR_KEYS", "$JS.API.STREAM.PURGE." + catalogStream, "$JS.API.STREAM.MSG.DELETE." + catalogStream, "$KV.WEIR_CATALOG.catalog",
		"$JS.API.META.LEADER.STEPDOWN", "$JS.API.STREAM.PEER.REMOVE." + ordersStream, "other", "$SYS.REQ.SERVER.PING",
	}
	offLimits = []string{"other", "$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.$G.CONNZ"}
)

var stages = map[string]stage{
	"gateway": {
		env: map[string]string{
			"WEIR_LISTEN": ":8080", "WEIR_DRAIN_TIMEOUT": "35s", "WEIR_COMPRESSION": "s2", "WEIR_NATS_SYNC": "always", "WEIR_ACCESS_LOG": "off",
			"WEIR_REALTIME_URL": "http://weir-realtime.weir-system", "GOMEMLIMIT": "912680550",
		},
		objects: true,
		rights: rights{
			denied: append([]string{
				"weir.a.sm-.9.start", "weir.a.sm-.9.put", "weir.a.sm-.batch.run", "weir.a.sm-.batch.describe", "weir.a.sm-.batch.terminate",
				"weir.r.default.orders.due", "weir.e.default.orders.1", "weir.l.default.orders", "weir.s.default.orders.c.1", "weir.h.sm-.1.a=b", "weir.l.sm-.1", "weir.s.sm-.1.x-a=b.c", "$KV.WEIR_KEYS.signing", "$JS.API.STREAM.MSG.GET.KV_WEIR_KEYS",
				"$JS.API.DIRECT.GET." + ordersStream + ".weir.d.default.orders", "weir.d.default.orders", "weir.lease.mapping.default.orders",
				"$JS.API.STREAM.PURGE." + ordersStream, "$JS.API.STREAM.INFO." + ordersStream, "$JS.API.STREAM.MSG.GET." + ordersStream, "$JS.API.STREAM.MSG.DELETE." + ordersStream,
				"$JS.API.STREAM.SNAPSHOT." + ordersStream, "$JS.API.DIRECT.GET." + ordersStream, "$JS.API.DIRECT.GET." + ordersStream + ".weir.q.default.orders",
				"$JS.API.CONSUMER.CREATE." + ordersStream, "$JS.API.CONSUMER.CREATE." + ordersStream + ".x", "$JS.API.CONSUMER.DURABLE.CREATE." + ordersStream + ".x",
				"$JS.API.CONSUMER.DELETE." + ordersStream + ".dispatcher", "$JS.API.CONSUMER.RESET." + ordersStream + ".dispatcher",
				"$JS.API.CONSUMER.MSG.NEXT." + ordersStream + ".dispatcher", "$JS.API.CONSUMER.PAUSE." + ordersStream + ".dispatcher", "$JS.API.STREAM.LIST",
				"$JS.API.STREAM.NAMES", "$JS.ACK." + ordersStream + ".dispatcher.1.1.1.1.0", "_INBOX.anybody.1",
			}, ownStreams...),
			deaf:    []string{">", "weir.>", "weir.q.>", "weir.c.>", "weir.a.sm-.1.report", "weir.lease.>", "$KV.>", "$JS.>", "$JS.API.>", "$SYS.>", "_INBOX.>", "_INBOX_dispatcher.>"},
			allowed: []string{"weir.q.default.nobody", "weir.c.default.nobody", "weir.r.default.nobody.at.1", "weir.a.sm-.9.report", "weir.a.sm-.9.take", "$JS.API.DIRECT.GET.WEIR_S_a_b.weir.s.a.b.1", "weir.o.default.nobody.m.1", "$JS.API.DIRECT.GET.WEIR_O_a_b.weir.o.a.b.m.1"},
			hears:   []string{"_INBOX_gateway.a.>", "weir.e.a.b.*", "weir.h.sm-.*.a=b"},
		},
	},
	"dispatcher": {
		env: map[string]string{
			"WEIR_DRAIN_TIMEOUT": "25s", "WEIR_COMPRESSION": "s2", "WEIR_CALLBACK_URL": "http://weir-gateway.weir-system:80", "GOMEMLIMIT": "684510412",
		},
		objects: true,
		rights: rights{
			denied: append([]string{
				"_INBOX.anybody.1", "weir.q.default.orders", "weir.e.default.orders.1", "$KV.WEIR_KEYS.signing", "$JS.API.STREAM.PURGE.WEIR_LEASES", "$JS.API.STREAM.MSG.GET." + ordersStream,
				"$JS.API.STREAM.MSG.DELETE.WEIR_LEASES", "$JS.API.CONSUMER.CREATE.WEIR_LEASES.x", "$JS.API.CONSUMER.DELETE.WEIR_LEASES.x", "$JS.API.STREAM.MSG.DELETE." + ordersStream, "$JS.API.CONSUMER.CREATE." + ordersStream + ".x", "$JS.API.CONSUMER.DELETE." + ordersStream + ".dispatcher",
			}, ownStreams...),
			deaf:    []string{">", "weir.>", "weir.q.>", "weir.e.a.b.c.1", "$KV.>", "$JS.>", "$SYS.>", "_INBOX.>", "_INBOX_controller.>"},
			allowed: []string{"weir.d.default.nobody", "weir.l.default.nobody", "weir.s.default.nobody.c.1", "$JS.API.DIRECT.GET.WEIR_S_a_b", "weir.o.default.nobody.m.1", "$JS.API.STREAM.INFO." + ordersStream},
			hears:   []string{"_INBOX_dispatcher.a.>", "weir.c.a.b"},
		},
	},
	"orchestrator": {
		env:     map[string]string{"WEIR_LISTEN": ":8080", "WEIR_EGRESS_ALLOW": "", "WEIR_DRAIN_TIMEOUT": "25s", "GOMEMLIMIT": "684510412"},
		objects: true,
		rights: rights{
			denied: append([]string{
				"_INBOX.anybody.1", "weir.r.default.orders.due", "weir.d.default.orders", "weir.l.default.orders", "weir.s.default.orders.c.1",
				"weir.lease.queue.default.orders", "weir.lease.member.x", "$KV.WEIR_KEYS.signing", "$JS.API.STREAM.INFO." + ordersStream, "$JS.API.STREAM.PURGE." + ordersStream, "$JS.API.STREAM.PURGE.WEIR_LEASES",
				"$JS.API.DIRECT.GET." + ordersStream, "$JS.API.DIRECT.GET.WEIR_S_a_b", "$JS.API.STREAM.MSG.GET." + ordersStream,
				"$JS.API.STREAM.MSG.DELETE.WEIR_S_sm-_0", "$JS.API.CONSUMER.CREATE." + ordersStream + ".x", "$JS.API.CONSUMER.CREATE.WEIR_S_sm-_0.x", "$JS.API.CONSUMER.MSG.NEXT." + ordersStream + ".dispatcher",
			}, ownStreams...),
			deaf:    []string{">", "weir.>", "weir.q.>", "weir.s.>", "weir.c.>", "weir.e.a.b.*", "$KV.>", "$JS.>", "$SYS.>", "_INBOX.>", "_INBOX_gateway.>"},
			allowed: []string{"weir.e.default.nobody.-.1", "weir.o.default.nobody.m.1", "$JS.API.DIRECT.GET.WEIR_O_a_b.weir.o.a.b.m.1", "weir.q.default.nobody", "weir.c.default.nobody", "weir.r.default.nobody.at.1", "$JS.API.DIRECT.GET.WEIR_S_a_b.weir.s.a.b.1", "weir.l.sm-.9", "weir.s.sm-.9.x-a=b.c", "weir.a.sm-.9.start", "weir.a.sm-.batch.run", "weir.h.sm-.9.a=b", "weir.lease.machines.queue.sm-.9", "$JS.API.DIRECT.GET.WEIR_S_sm-_7", "$JS.API.STREAM.PURGE.WEIR_L_sm-_7"},
			hears:   []string{"_INBOX_orchestrator.a.>", "weir.a.sm-.1.*", "weir.h.sm-.*.a=b"},
		},
	},
	"realtime": {
		env: map[string]string{
			"WEIR_LISTEN": ":8080", "WEIR_DRAIN_TIMEOUT": "20s", "GOMEMLIMIT": "912680550",
		},
		rights: rights{
			denied: append([]string{
				"_INBOX.anybody.1", "weir.q.default.orders", "weir.r.default.orders.at.1", "weir.d.default.orders", "weir.l.default.orders", "weir.s.default.orders.c.1", "weir.c.default.orders", "weir.o.default.orders.m.1", "$JS.API.DIRECT.GET.WEIR_O_a_b.weir.o.a.b.m.1",
				"weir.e.default.orders.1", "weir.lease.x", "$KV.WEIR_KEYS.signing", "$JS.API.STREAM.INFO." + ordersStream, "$JS.API.STREAM.PURGE." + ordersStream,
				"$JS.API.DIRECT.GET." + ordersStream + ".weir.q.default.orders.1", "$JS.API.STREAM.MSG.GET." + ordersStream, "$JS.API.CONSUMER.CREATE." + ordersStream + ".x",
				"$JS.API.CONSUMER.CREATE." + ordersStream + ".x.weir.q.default.orders", "$JS.API.CONSUMER.CREATE." + ordersStream + ".dispatcher.weir.s.a.b.c.*", "$JS.API.CONSUMER.DELETE.WEIR_S_a_b.x", "$JS.API.CONSUMER.MSG.NEXT." + ordersStream + ".dispatcher",
			}, ownStreams...),
			deaf:    []string{">", "weir.>", "weir.q.>", "weir.s.>", "weir.c.>", "$KV.>", "$JS.>", "$SYS.>", "_INBOX.>", "_INBOX_gateway.>"},
			allowed: []string{"$JS.API.DIRECT.GET.WEIR_S_a_b.weir.s.a.b.1", "$JS.API.STREAM.INFO.KV_WEIR_KEYS", "$JS.API.CONSUMER.CREATE.WEIR_S_a_b.x.weir.s.a.b.c.*"},
			hears:   []string{"_INBOX_realtime.a.>", "weir.e.a.b.*"},
		},
	},
	"controller": {
		env: map[string]string{
			"WEIR_STREAM_REPLICAS": "1", "WEIR_EXECUTIONS_MAX_BYTES": "1Gi", "WEIR_NAMESPACES": "", "WEIR_ORCHESTRATOR_URL": "http://weir-orchestrator.weir-system",
			"WEIR_RELEASE": "weir-system/weir", "WEIR_CLASS": "weir", "WEIR_TAKE_OVER": "", "GOMEMLIMIT": "342255206",
		},
		objects: true,
		rights: rights{
			denied:  offLimits,
			deaf:    []string{">", "other", "$SYS.>", "_INBOX_operator.>"},
			allowed: []string{"weir.x", "$JS.API.STREAM.INFO." + ordersStream},
			hears:   []string{"$JS.EVENT.>", "_INBOX_controller.a.>"},
		},
	},
}

// others are the sections of all stages but some, each like the one with the anchor.
func others(anchor string, but ...string) string {
	var out strings.Builder
	for _, name := range stageNames() {
		if !slices.Contains(but, name) {
			fmt.Fprintf(&out, "%s: *%s\n", name, anchor)
		}
	}
	return out.String()
}

// TestStages holds that a stage is wherever a stage must be, and that nothing there is of a stage that is no more.
func TestStages(t *testing.T) {
	names := stageNames()
	same := func(where string, got []string) {
		t.Helper()
		slices.Sort(got)
		if !slices.Equal(got, names) {
			t.Errorf("services/ has the stages %v, CONTRIBUTING.md has what each needs; %s has %v", names, where, got)
		}
	}
	same("the table in this file", slices.Collect(maps.Keys(stages)))

	docs := render(t, "")
	var deployed, credited []string
	for _, d := range all[appsv1.Deployment](docs) {
		deployed = append(deployed, d.Labels["app.kubernetes.io/component"])
	}
	same("charts/weir/templates/stages/_stages.tpl", deployed)
	for _, name := range names {
		if lookup[corev1.ServiceAccount](docs, "weir-"+name) == nil || lookup[policyv1.PodDisruptionBudget](docs, "weir-"+name) == nil ||
			lookup[networkingv1.NetworkPolicy](docs, "weir-"+name) == nil {
			t.Errorf("%s lacks a ServiceAccount, a PodDisruptionBudget or a NetworkPolicy", name)
		}
	}
	for key := range get[corev1.Secret](t, docs, "weir-nats-auth").Data {
		if name := strings.TrimSuffix(key, "-password"); name != "operator" && name != "cluster" {
			credited = append(credited, name)
		}
	}
	same("the Secret of NATS' passwords", credited)
	rights, err := filepath.Glob(chart + "/files/nats/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range rights {
		rights[i] = strings.TrimSuffix(filepath.Base(file), ".conf")
	}
	same("charts/weir/files/nats", slices.DeleteFunc(rights, func(s string) bool { return s == "operator" }))
	_, err = template(t, "nats: {enabled: false, url: \"nats://other:4222\"}")
	for _, name := range names {
		if err == nil || !strings.Contains(err.Error(), name+"-password") {
			t.Errorf("who has a NATS of one's own is not told of the key %s-password: %v", name, err)
		}
	}

	var values struct {
		NATS struct {
			Auth struct{ Usernames map[string]string }
		}
	}
	parse(t, chart+"/values.yaml", &values)
	delete(values.NATS.Auth.Usernames, "operator")
	same("nats.auth.usernames in charts/weir/values.yaml", slices.Collect(maps.Keys(values.NATS.Auth.Usernames)))

	var kind map[string]struct{ Replicas int }
	parse(t, "../../deploy/k8s/kind/values.yaml", &kind)
	for _, name := range names {
		if kind[name].Replicas != 1 {
			t.Errorf("deploy/k8s/kind/values.yaml leaves %s more pods than one", name)
		}
	}

	var skaffold struct {
		Build struct {
			Artifacts []struct{ Image string }
		}
		Deploy struct {
			Helm struct {
				Releases []struct{ SetValueTemplates map[string]string }
			}
		}
	}
	parse(t, "../../skaffold.yaml", &skaffold)
	var ko struct {
		Builds []struct{ ID, Main string }
	}
	parse(t, "../../.ko.yaml", &ko)
	var built, set, koBuilt []string
	for _, a := range skaffold.Build.Artifacts {
		if name := filepath.Base(a.Image); !slices.Contains(functions(), name) && name != "emf" {
			built = append(built, name)
		}
	}
	for key := range skaffold.Deploy.Helm.Releases[0].SetValueTemplates {
		set = append(set, strings.TrimSuffix(key, ".image"))
	}
	for _, b := range ko.Builds {
		if filepath.Dir(b.Main) == "services" {
			koBuilt = append(koBuilt, b.ID)
		}
	}
	same("build.artifacts in skaffold.yaml", built)
	set = slices.DeleteFunc(set, func(s string) bool { return s == "emf" })
	same("setValueTemplates in skaffold.yaml", set)
	same(".ko.yaml", koBuilt)
}

// functions are the samples' functions, whose images are made as those of the stages.
func functions() []string {
	mains, _ := filepath.Glob("../../services/functions/*/main.go") // see stageNames
	for i, main := range mains {
		mains[i] = filepath.Base(filepath.Dir(main))
	}
	return mains
}

// parse reads a YAML file into v, which need not know all of it.
func parse(t *testing.T, file string, v any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
