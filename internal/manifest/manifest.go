// Package manifest turns a user's resources into the data plane's catalog: Weir's own kinds and the
// Knative Services of the functions, from a folder of YAML files (weir local) or from a cluster.
//
// The work has two halves. [Parse] reads bytes into objects and knows about files and lines. [Compile]
// fills defaults, validates, resolves references and checks what depends on more than one object; it
// knows nothing of files beyond the [Origin] that each object carries for its messages. [Memory.Reconcile] does
// the same for a cluster's objects, where an invalid one must not block the others. [Lint] says of files what it would say.
//
// Invariants: a folder's mistakes are reported all at once ([Errors]), each with file, line, field and the fix;
// Compile returns a catalog only when there are none; no field is silently ignored (unknown fields and wrong types are
// mistakes); input is bounded and never makes the package panic (FuzzParse).
//
// It is the only importer of knative.dev/serving and knative.dev/pkg: Knative's own code decides what a valid Service
// is. It may import api/v1alpha1, catalog, spelling, statelang and integration.
package manifest

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
)

const (
	// MaxFileBytes bounds one YAML file.
	MaxFileBytes = 4 << 20
	// MaxFiles bounds a folder.
	MaxFiles = 1000
	// MaxDocuments bounds the documents of one file.
	MaxDocuments = 1000
	// MaxStreamBytes bounds what was rendered into one stream: of a chart as large as any.
	MaxStreamBytes = 16 << 20
	// MaxStreamDocuments bounds its documents.
	MaxStreamDocuments = 10_000
)

// Options of a compilation.
type Options struct {
	// FunctionURL gives the URL at which a Knative Service answers.
	// Default: http://NAME.NAMESPACE.svc.cluster.local
	FunctionURL func(catalog.Key) string
	// OrchestratorURL is where mappings start executions of state machines. Default: http://weir-orchestrator.weir-system
	OrchestratorURL string
	// AllowedRoutes are those that namespaces may have. Default: all.
	AllowedRoutes AllowedRoutes
}

func (o Options) withDefaults() Options {
	if o.FunctionURL == nil {
		o.FunctionURL = catalog.ServiceURL
	}
	if o.OrchestratorURL == "" {
		o.OrchestratorURL = "http://weir-orchestrator.weir-system"
	}
	return o
}

// Bundle is the result of compiling a set of resources.
type Bundle struct {
	Catalog  *catalog.Catalog
	Services []Service // sorted by key
}

// Service is what the local runner needs to know of a Knative Service.
type Service struct {
	catalog.Key
	Image string
	// Env has the container's variables with a value or a secret's key. Those from config maps and pod
	// fields mean nothing outside a cluster and are left out.
	Env                  []EnvVar
	SecretMounts         []SecretMount
	ContainerConcurrency int           // concurrent calls of one instance; 0 means unlimited
	MaxScale             int           // instances; 0 means unlimited
	Timeout              time.Duration // of one call
	H2C                  bool          `json:",omitempty"` // the container speaks HTTP/2 by prior knowledge: its port is named h2c
}

// capacity is how many calls it takes at once; 0 means unlimited.
func (s *Service) capacity() int64 { return int64(s.ContainerConcurrency) * int64(s.MaxScale) }

// EnvVar is a Value, or the key SecretKey of the Secret SecretName.
type EnvVar struct {
	Name       string
	Value      string
	SecretName string
	SecretKey  string
}

// SecretMount is a folder of the container in which each file is a key of the Secret.
type SecretMount struct {
	Path       string
	SecretName string
}

// LoadDir reads the *.yaml and *.yml files of dir (not of its subfolders) except kustomization.yaml and
// compiles them. Mistakes in the files come as [Errors]; other errors are those of reading the folder.
func LoadDir(dir string, opts Options) (*Bundle, error) {
	objs, errs, err := parseDir(dir, "")
	if err != nil {
		return nil, err
	}
	bundle, e := compile(objs, opts)
	if errs = append(errs, e...); len(errs) > 0 {
		return nil, errs.sorted()
	}
	return bundle, nil
}

// ParseDir is [Parse] for the same files of dir. In its mistakes they have paths that begin with dir.
func ParseDir(dir string) (*Objects, Errors, error) { return parseDir(dir, dir) }

func parseDir(dir, prefix string) (*Objects, Errors, error) {
	files, err := yamlFiles(dir)
	if err != nil {
		return nil, nil, err
	}
	objs := new(Objects)
	var errs Errors
	for _, name := range files {
		data, err := readFile(filepath.Join(dir, name))
		if err != nil {
			return nil, nil, err
		}
		o, e := Parse(filepath.Join(prefix, name), data)
		objs.add(o)
		errs = append(errs, e...)
	}
	return objs, errs, nil
}

func yamlFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the resources' folder: %w", err)
	}
	var files []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || (ext != ".yaml" && ext != ".yml") || slices.Contains([]string{"kustomization.yaml", "kustomization.yml"}, e.Name()) {
			continue
		}
		files = append(files, e.Name())
	}
	switch n := len(files); {
	case n == 0:
		return nil, fmt.Errorf("no *.yaml file in %s: give the folder that holds your resources (its subfolders are not read)", dir)
	case n > MaxFiles:
		return nil, fmt.Errorf("%s has %d YAML files; at most %d are read: put several resources into one file, separated by ---", dir, n, MaxFiles)
	}
	return files, nil
}

// readFile reads one byte more than the limit, so that Parse can report a file that is too large.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the resources' folder: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return data, nil
}
