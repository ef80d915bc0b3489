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
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
)

const (
	// MaxFileBytes bounds one YAML file.
	MaxFileBytes = 4 << 20
	// MaxFiles bounds a folder, with its subfolders if they are read.
	MaxFiles = 1000
	// MaxDocuments bounds the documents of one file, and the items of its lists.
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
	objs, errs, err := parseDir(dir, "", false)
	if err != nil {
		return nil, err
	}
	bundle, e := compile(objs, opts)
	if errs = append(errs, e...); len(errs) > 0 {
		return nil, errs.sorted()
	}
	return bundle, nil
}

// ParseDir is [Parse] for the same files of dir; with recursive for those of all its subfolders too, as kubectl apply -R has it.
// In its mistakes they have paths that begin with dir.
func ParseDir(dir string, recursive bool) (*Objects, Errors, error) {
	return parseDir(dir, dir, recursive)
}

func parseDir(dir, prefix string, recursive bool) (*Objects, Errors, error) {
	files, err := filesToRead(dir, recursive)
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

// NoFilesError is of a folder that has no file to read.
type NoFilesError struct {
	Dir   string
	Below string // a file in one of its subfolders, which were not read; empty if they have none either
}

func (e *NoFilesError) Error() string {
	msg := fmt.Sprintf("no *.yaml file in %s: give the folder that holds your resources", e.Dir)
	if e.Below != "" {
		msg += fmt.Sprintf("; its subfolders are not read, and one has %s", e.Below)
	}
	return msg
}

// filesToRead are the paths in dir of the files, in lexical order.
func filesToRead(dir string, recursive bool) ([]string, error) {
	files, err := yamlFiles(dir, recursive, MaxFiles+1)
	if err != nil {
		return nil, err
	}
	switch n := len(files); {
	case n == 0:
		none := &NoFilesError{Dir: dir}
		// A subfolder that can't be read is no reason to say anything else.
		if below, _ := yamlFiles(dir, true, 1); len(below) > 0 {
			none.Below = filepath.Join(dir, below[0])
		}
		return nil, none
	case n > MaxFiles:
		return nil, fmt.Errorf("%s has more than %d YAML files, and no more are read: put several resources into one file, separated by ---", dir, MaxFiles)
	}
	return files, nil
}

// yamlFiles are the first files of dir, most at most. A link to a folder is not followed, as in kubectl: it could lead back.
func yamlFiles(dir string, recursive bool, most int) (files []string, err error) {
	err = fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("reading the resources' folder %s: %w", dir, err)
		case e.IsDir() && path != "." && !recursive:
			return fs.SkipDir
		case e.IsDir() || !isManifest(e.Name()):
			return nil
		}
		if files = append(files, filepath.FromSlash(path)); len(files) == most {
			return fs.SkipAll
		}
		return nil
	})
	return files, err
}

func isManifest(name string) bool {
	ext := filepath.Ext(name)
	return (ext == ".yaml" || ext == ".yml") && !slices.Contains([]string{"kustomization.yaml", "kustomization.yml"}, name)
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
