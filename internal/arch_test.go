// Package internal_test holds the layout: which package may import which, and what each binary links.
package internal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/weir-dev/weir/"

// ranks of the packages (docs/architecture.md). A package imports only packages of lower rank; so the
// stages never import each other. A package that is not listed here fails the test.
var ranks = map[string]int{
	"internal/record": 0, "internal/batch": 0, "internal/throttle": 0, "internal/catalog": 0, "internal/sign": 0, "internal/filelock": 0,
	"internal/childproc": 0, "internal/ownpath": 0, "internal/mediatype": 0, "internal/telemetry": 0, "internal/coding": 0, "internal/pace": 0,
	"internal/emf": 0, "internal/jsontree": 0, "internal/clusterjob": 0, "internal/spelling": 0,
	"internal/egress":   0,
	"internal/jsonpath": 1, "internal/jsonata": 1, "internal/table": 1, "internal/items": 1,
	"internal/statelang":   2,
	"internal/integration": 3,
	"internal/machinetest": 3, "internal/machinegraph": 3,
	"function":           1, // public: for people who write functions
	"internal/lifecycle": 1, "internal/secret": 1, "internal/localnats": 1, "internal/localdb": 1, "internal/tracelog": 1, "internal/emf/podlogs": 1,
	"internal/schema": 2, "internal/value": 2, "internal/problem": 2, "internal/stream": 2, "internal/invoke": 2,
	"internal/blob": 3, "internal/depth": 3, "internal/ledger": 3, "internal/sharing": 3, "internal/taskapi": 3,
	"internal/manifest":          5,
	"api/v1alpha1":               4,
	"internal/job":               4,
	"internal/functions/orderdb": 4,
	"internal/jobapi":            5,
	"internal/gateway":           6, "internal/dispatcher": 6, "internal/controller": 6, "internal/realtime": 6,
	"internal/orchestrator":          6,
	"internal/functions/orderwriter": 6, "internal/functions/orderapi": 6, "internal/functions/report": 6, "internal/functions/query": 6,
	"internal/app":         7,
	"internal/app/objects": 8, "internal/app/realtime": 8, "internal/app/emf": 8, "internal/app/move": 8,
	"internal/app/orchestrator": 9, "internal/app/gateway": 9, "internal/app/dispatcher": 9, "internal/app/controller": 9,
	"internal/app/local": 10,
	"services/gateway":   11, "services/dispatcher": 11, "services/controller": 11, "services/realtime": 11, "services/orchestrator": 11, "cmd/weir": 11,
	"services/functions/order-writer": 11, "services/functions/order-api": 11, "services/functions/report": 11, "services/functions/query": 11,
	"services/collectors/emf": 11,
	"hack/run":                11, "hack/images": 11, "hack/fields": 11,
}

// forTests may be imported by tests only, and may import anything below the stages.
var forTests = []string{"internal/testkit", "internal/testkit/processes", "internal/functions/dbtest", "test/"}

// owners of outside systems: nobody else imports them.
var owners = map[string][]string{
	"github.com/nats-io/nats.go":            {"internal/stream"},
	"github.com/nats-io/nats-server":        {"internal/localnats"},
	"github.com/minio/minio-go":             {"internal/blob"},
	"github.com/exaring/otelpgx":            {"internal/functions/orderdb"},
	"github.com/jackc/pgx":                  {"internal/functions/orderdb", "internal/functions/orderwriter", "internal/functions/orderapi", "internal/functions/report", "internal/functions/query", "internal/localdb"},
	"knative.dev/serving":                   {"internal/manifest", "internal/app/local"},
	"sigs.k8s.io/controller-runtime":        {"internal/controller"},
	"k8s.io/client-go":                      {"internal/controller"},
	"github.com/rs/cors":                    {"internal/gateway"},
	"github.com/coder/websocket":            {"internal/realtime"},
	"github.com/santhosh-tekuri/jsonschema": {"internal/schema"},
	"go.opentelemetry.io/otel/sdk":          {"internal/telemetry", "internal/tracelog", "internal/app/emf"},
	"go.opentelemetry.io/otel/exporters":    {"internal/telemetry", "internal/app/emf"},
	"go.opentelemetry.io/contrib":           {"internal/telemetry", "internal/app/emf"},
	"github.com/prometheus":                 {"internal/telemetry", "internal/controller", "internal/emf", "internal/app/emf"},
}

// The binaries must not link what is heavy or dangerous in them; the data plane has no Kubernetes client.
var (
	dataPlane = []string{"k8s.io/", "knative.dev/", "sigs.k8s.io/", "github.com/nats-io/nats-server", "github.com/jackc/pgx"}
	function  = []string{"k8s.io/", "knative.dev/", "sigs.k8s.io/", "github.com/nats-io/"}
	forbidden = map[string][]string{
		"services/gateway": dataPlane, "services/dispatcher": dataPlane, "services/realtime": dataPlane, "services/orchestrator": dataPlane,
		"services/collectors/emf":         {"k8s.io/", "knative.dev/", "sigs.k8s.io/", "github.com/nats-io/", "github.com/jackc/pgx"},
		"services/controller":             {"github.com/nats-io/nats-server", "github.com/jackc/pgx"},
		"services/functions/order-writer": function, "services/functions/order-api": function, "services/functions/report": function,
		"services/functions/query": function,
	}
)

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, args...)...)
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestArchRanks(t *testing.T) {
	pkgs := list(t, "./...")
	if len(pkgs) < 20 {
		t.Fatalf("only %d packages were found", len(pkgs))
	}
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module)
		if isForTests(name) || name == "internal" {
			continue
		}
		rank, known := ranks[name]
		if !known {
			t.Errorf("%s has no rank: give it one here and in docs/architecture.md", name)
			continue
		}
		for _, i := range p.Imports {
			if other, ours := strings.CutPrefix(i, module); ours {
				if isForTests(other) {
					t.Errorf("%s imports %s, which is for tests", name, other)
				} else if ranks[other] >= rank {
					t.Errorf("%s (rank %d) imports %s (rank %d)", name, rank, other, ranks[other])
				}
				continue
			}
			for outside, by := range owners {
				if (i == outside || strings.HasPrefix(i, outside+"/")) && !slices.Contains(by, name) {
					t.Errorf("%s imports %s; only %v may", name, i, by)
				}
			}
		}
	}
}

func TestArchBinariesLinkOnlyWhatTheyRun(t *testing.T) {
	for service, forbidden := range forbidden {
		pkgs := list(t, "./"+service)
		if len(pkgs) != 1 || len(pkgs[0].Deps) < 50 {
			t.Fatalf("%s: %d packages", service, len(pkgs))
		}
		for _, d := range pkgs[0].Deps {
			for _, f := range forbidden {
				if strings.HasPrefix(d, f) {
					t.Errorf("%s links %s", service, d)
				}
			}
		}
	}
}

func isForTests(name string) bool {
	return slices.ContainsFunc(forTests, func(p string) bool {
		return name == strings.TrimSuffix(p, "/") || strings.HasSuffix(p, "/") && strings.HasPrefix(name, p)
	})
}
