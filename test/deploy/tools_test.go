package deploy_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// parse reads a YAML file into v, which need not know all of it.
func parse(t *testing.T, path string, v any) {
	t.Helper()
	if err := yaml.Unmarshal(read(t, path), v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// mains are the product's programs that run in a cluster, below services/.
func mains(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(root, "services"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "main.go" {
			rel, err := filepath.Rel(root, filepath.Dir(p))
			out = append(out, "./"+filepath.ToSlash(rel))
			return err
		}
		return err
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("mains below services/: %v, %v", out, err)
	}
	slices.Sort(out)
	return out
}

// skaffold is what of skaffold.yaml refers to other files. That Skaffold can read all of it is
// hack/verify-skaffold.sh's business.
type skaffold struct {
	APIVersion string
	Build      struct {
		Artifacts []struct {
			Image string
			Ko    struct {
				Main         string
				Dependencies struct{ Paths, Ignore []string }
			}
		}
	}
	Deploy struct {
		Helm struct {
			Releases []struct {
				Name, ChartPath, Namespace string
				SetValueTemplates          map[string]string
			}
		}
	}
	PortForward []struct {
		ResourceName, Namespace string
		Port, LocalPort         int
	}
	Profiles []struct {
		Name      string
		Manifests struct{ Kustomize struct{ Paths []string } }
		Patches   []struct{ Value []string }
	}
}

func TestSkaffold(t *testing.T) {
	var s skaffold
	parse(t, "skaffold.yaml", &s)
	var built []string
	for _, a := range s.Build.Artifacts {
		built = append(built, a.Ko.Main)
		if path.Base(a.Image) != path.Base(a.Ko.Main) {
			t.Errorf("image %s is made of %s", a.Image, a.Ko.Main)
		}
		for _, p := range a.Ko.Dependencies.Paths {
			if !matches(t, p) {
				t.Errorf("%s depends on %s, and there is no such file", a.Image, p)
			}
		}
	}
	slices.Sort(built)
	if want := mains(t); !slices.Equal(built, want) {
		t.Errorf("skaffold.yaml builds %v, below services/ are %v", built, want)
	}
	if len(s.Deploy.Helm.Releases) != 1 {
		t.Fatalf("%d releases", len(s.Deploy.Helm.Releases))
	}
	r := s.Deploy.Helm.Releases[0]
	exists(t, r.ChartPath+"/Chart.yaml")
	var values map[string]any
	parse(t, r.ChartPath+"/values.yaml", &values)
	for key, template := range r.SetValueTemplates {
		name, field, _ := strings.Cut(key, ".")
		service, ok := values[name].(map[string]any)
		if _, has := service[field]; !ok || !has {
			t.Errorf("%s is no value of the chart", key)
		}
		if want := "{{.IMAGE_FULLY_QUALIFIED_ghcr_io_weir_dev_weir_" + name + "}}"; template != want {
			t.Errorf("%s is %s, want %s", key, template, want)
		}
	}
	for _, p := range s.PortForward {
		if p.ResourceName != "weir-gateway" || p.Namespace != r.Namespace || p.Port != 80 || p.LocalPort != 8080 {
			t.Errorf("port-forward %+v", p)
		}
	}
	var names []string
	for _, p := range s.Profiles {
		names = append(names, p.Name)
		for _, dir := range p.Manifests.Kustomize.Paths {
			exists(t, dir+"/kustomization.yaml")
		}
		for _, patch := range p.Patches {
			for _, file := range patch.Value {
				exists(t, file)
			}
		}
	}
	if !slices.Equal(names, []string{"kind", "remote"}) {
		t.Errorf("profiles %v", names)
	}
}

func exists(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, path)); err != nil {
		t.Errorf("skaffold.yaml names a file that is not there: %v", err)
	}
}

// matches says whether a file fits a pattern of Skaffold's, such as internal/**/*.go.
func matches(t *testing.T, pattern string) bool {
	t.Helper()
	dir, name, deep := strings.Cut(pattern, "/**/")
	if !deep {
		_, err := os.Stat(filepath.Join(root, pattern))
		return err == nil
	}
	found := false
	err := filepath.WalkDir(filepath.Join(root, dir), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ok, err := path.Match(name, d.Name()); ok || err != nil {
			found = found || ok
			return err
		}
		return nil
	})
	return err == nil && found
}

func TestKo(t *testing.T) {
	var ko struct {
		DefaultBaseImage string
		Builds           []struct {
			ID, Main            string
			Env, Flags, Ldflags []string
		}
	}
	parse(t, ".ko.yaml", &ko)
	var built []string
	for _, b := range ko.Builds {
		built = append(built, b.Main)
		if b.ID != path.Base(b.Main) || !slices.Contains(b.Flags, "-trimpath") || !slices.Contains(b.Env, "CGO_ENABLED=0") || len(b.Ldflags) == 0 {
			t.Errorf("build %+v", b)
		}
	}
	slices.Sort(built)
	if want := mains(t); !slices.Equal(built, want) {
		t.Errorf(".ko.yaml builds %v, below services/ are %v", built, want)
	}
	if !strings.HasSuffix(ko.DefaultBaseImage, ":nonroot") {
		t.Errorf("base image %s runs as root", ko.DefaultBaseImage)
	}
}

// moduleVersion is the minor and patch version that go.mod requires of a module whose major is 0.
func moduleVersion(t *testing.T, module string) (minor, patch int) {
	t.Helper()
	m := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(module) + ` v0\.(\d+)\.(\d+)`).FindSubmatch(read(t, "go.mod"))
	if m == nil {
		t.Fatalf("go.mod requires no %s v0", module)
	}
	minor, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	if patch, err = strconv.Atoi(string(m[2])); err != nil {
		t.Fatal(err)
	}
	return minor, patch
}

// TestKindVersions holds the versions of the kind cluster to the libraries that Weir is built with. Knative's
// release v1.N is the modules' v0.(N+27); Kubernetes' v1.N is the modules' v0.N.
func TestKindVersions(t *testing.T) {
	script := string(read(t, "hack/kind-up.sh"))
	minor, patch := moduleVersion(t, "knative.dev/serving")
	if want := fmt.Sprintf("SERVING_VERSION=v1.%d.%d\n", minor-27, patch); !strings.Contains(script, want) {
		t.Errorf("hack/kind-up.sh must say %s as go.mod has knative.dev/serving v0.%d.%d", strings.TrimSpace(want), minor, patch)
	}
	// Kourier is released with the same minor version; its patches are its own.
	if want := fmt.Sprintf("KOURIER_VERSION=v1.%d.", minor-27); !strings.Contains(script, want) {
		t.Errorf("hack/kind-up.sh must say %s…", want)
	}
	var cluster struct{ Nodes []struct{ Image string } }
	parse(t, "deploy/k8s/kind/cluster.yaml", &cluster)
	minor, _ = moduleVersion(t, "k8s.io/api")
	want := regexp.MustCompile(fmt.Sprintf(`^kindest/node:v1\.%d\.\d+@sha256:[0-9a-f]{64}$`, minor))
	for _, n := range cluster.Nodes {
		if !want.MatchString(n.Image) {
			t.Errorf("the node's image is %s, want Kubernetes 1.%d, as k8s.io/api in go.mod, pinned by digest", n.Image, minor)
		}
	}
	if len(cluster.Nodes) == 0 || !strings.Contains(script, "deploy/k8s/kind/cluster.yaml") {
		t.Error("hack/kind-up.sh doesn't use deploy/k8s/kind/cluster.yaml, or that has no node")
	}
}
