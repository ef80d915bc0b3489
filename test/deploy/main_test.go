// Package deploy_test holds deploy/k8s, skaffold.yaml, .ko.yaml and hack/kind-up.sh: the overlays are built
// by kubectl, decoded into the real types, validated by Knative's code and compiled by Weir's; and what is
// said in more than one place is the same in all of them. No cluster and no network is needed.
package deploy_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// root is the checkout.
const root = "../.."

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// kubectl returns the program to use.
func kubectl(t *testing.T) string {
	t.Helper()
	if program := os.Getenv("WEIR_KUBECTL"); program != "" {
		return program
	}
	return testkit.Tool(t, root, "kube", "kubectl")
}

// build returns what kubectl apply -k dir would apply.
func build(t *testing.T, dir string) []byte {
	t.Helper()
	cmd := exec.Command(kubectl(t), "kustomize", filepath.Join(root, dir))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 { // a warning is of something deprecated
		t.Fatalf("kubectl kustomize %s: %v\n%s", dir, err, stderr.String())
	}
	return out
}

// decode decodes documents strictly: an unknown or doubled field is an error, as is a kind that is not ours,
// Knative's or Kubernetes' own.
func decode(t *testing.T, documents []byte) []runtime.Object {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1alpha1.AddToScheme, servingv1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(s, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	for r := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(documents))); ; {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		obj, _, err := decoder.Decode(doc, nil, nil)
		if err != nil {
			t.Errorf("%v, in\n%s", err, doc)
			continue
		}
		objects = append(objects, obj)
	}
}

// of returns the objects of one type.
func of[T runtime.Object](objects []runtime.Object) []T {
	var out []T
	for _, o := range objects {
		if x, ok := o.(T); ok {
			out = append(out, x)
		}
	}
	return out
}
