// Package chart_test holds charts/weir to what it promises: everything that it renders is read strictly into
// Kubernetes' own types, every pod has its security habits and its time to drain, a typo in the values is refused,
// and the configurations that it renders are given to a real NATS server and a real PgBouncer.
package chart_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"

	"github.com/weir-dev/weir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	chart     = "../../charts/weir"
	namespace = "weir-system"
	// kubeVersion is what helm is told; a helm without link flags takes the cluster for an ancient one.
	kubeVersion = "1.35.0"
)

// chartSeen has go test know what helm reads: it would take the results of a chart that has changed since for this one's.
var chartSeen = sync.OnceValue(func() error {
	return filepath.WalkDir(chart, func(_ string, _ fs.DirEntry, err error) error { return err })
})

// helm runs the pinned helm and returns what it prints, and an error with what it says on stderr.
func helm(t testing.TB, args ...string) (string, error) {
	t.Helper()
	path := os.Getenv("WEIR_HELM")
	if path == "" {
		path = testkit.Tool(t, "../..", "kube", "helm")
	}
	if err := chartSeen(); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECACHEDIR="+home, "KUBECONFIG="+filepath.Join(home, "none"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), errors.New(stderr.String() + stdout.String())
	}
	return stdout.String(), nil
}

// template is helm template with values in YAML.
func template(t testing.TB, values string, args ...string) (string, error) {
	t.Helper()
	return templateAs(t, "weir", namespace, values, args...)
}

// templateAs is template of another release.
func templateAs(t testing.TB, release, namespace, values string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return helm(t, append([]string{"template", release, chart, "--namespace", namespace, "--kube-version", kubeVersion, "--values", file}, args...)...)
}

// podMonitor, prometheusRule, httpRoute and certificate are what is used of the types of the Prometheus operator, the Gateway API and
// cert-manager.
type (
	podMonitor struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			Selector          metav1.LabelSelector `json:"selector"`
			NamespaceSelector struct {
				MatchNames []string `json:"matchNames"`
			} `json:"namespaceSelector"`
			PodMetricsEndpoints []struct {
				Port        string       `json:"port"`
				Path        string       `json:"path"`
				Interval    string       `json:"interval"`
				Relabelings []relabeling `json:"relabelings"`
			} `json:"podMetricsEndpoints"`
		} `json:"spec"`
	}
	relabeling struct {
		SourceLabels []string `json:"sourceLabels"`
		Regex        string   `json:"regex"`
		TargetLabel  string   `json:"targetLabel"`
		Replacement  string   `json:"replacement"`
		Action       string   `json:"action"`
	}
	prometheusRule struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              ruleFile `json:"spec"`
	}
	ruleFile struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []struct {
				Alert       string            `json:"alert"`
				Expr        string            `json:"expr"`
				For         string            `json:"for,omitempty"`
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"rules"`
		} `json:"groups"`
	}
	httpRoute struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			ParentRefs []map[string]any `json:"parentRefs"`
			Hostnames  []string         `json:"hostnames"`
			Rules      []routeRule      `json:"rules"`
		} `json:"spec"`
	}
	routeRule struct {
		Matches []struct {
			Method string `json:"method"`
			Path   struct {
				Type  string `json:"type"`
				Value string `json:"value"`
			} `json:"path"`
		} `json:"matches"`
		BackendRefs []struct {
			Name string `json:"name"`
			Port int32  `json:"port"`
		} `json:"backendRefs"`
		Timeouts struct {
			Request string `json:"request"`
		} `json:"timeouts"`
	}
	certificate struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			SecretName  string            `json:"secretName"`
			Duration    metav1.Duration   `json:"duration"`
			RenewBefore metav1.Duration   `json:"renewBefore"`
			IssuerRef   map[string]string `json:"issuerRef"`
			CommonName  string            `json:"commonName"`
			DNSNames    []string          `json:"dnsNames"`
			IPAddresses []string          `json:"ipAddresses"`
			Usages      []string          `json:"usages"`
			PrivateKey  struct {
				Algorithm      string `json:"algorithm"`
				Size           int    `json:"size"`
				RotationPolicy string `json:"rotationPolicy"`
			} `json:"privateKey"`
		} `json:"spec"`
	}
)

// typed is a document as its Go type, with its kind.
type typed struct {
	metav1.Object
	kind  string
	value any
	text  string
}

// render renders the chart and decodes all of it.
func render(t testing.TB, values string, args ...string) []typed {
	t.Helper()
	out, err := template(t, values, args...)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := decode(out)
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

// strictDecoder knows the kinds that the chart renders, but for those of others' custom resources.
var strictDecoder = sync.OnceValues(func() (runtime.Decoder, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		admissionv1.AddToScheme, appsv1.AddToScheme, autoscalingv2.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme,
		policyv1.AddToScheme, rbacv1.AddToScheme, apiextensionsv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer(), nil
})

// decoded are the documents that were read before, by their text: most are the same in each of a thousand renderings.
var decoded sync.Map

// decode reads every document strictly: a field that its type doesn't have, or one that is there twice, is an error.
func decode(rendered string) ([]typed, error) {
	decoder, err := strictDecoder()
	if err != nil {
		return nil, err
	}
	var out []typed
	for text := range strings.SplitSeq("\n"+rendered, "\n---\n") {
		if known, ok := decoded.Load(text); ok {
			d := known.(typed)
			d.value = d.value.(runtime.Object).DeepCopyObject()
			d.Object = d.value.(metav1.Object)
			out = append(out, d)
			continue
		}
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(text), &meta); err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, text)
		}
		if meta.Kind == "" {
			continue // comments only
		}
		d := typed{kind: meta.Kind, text: text}
		switch meta.APIVersion {
		case "monitoring.coreos.com/v1":
			d.value = new(podMonitor)
			if meta.Kind == "PrometheusRule" {
				d.value = new(prometheusRule)
			}
		case "gateway.networking.k8s.io/v1":
			d.value = new(httpRoute)
		case "cert-manager.io/v1":
			d.value = new(certificate)
		default:
			o, _, err := decoder.Decode([]byte(text), nil, nil)
			if err != nil {
				return nil, fmt.Errorf("%s: %w in\n%s", meta.Kind, err, text)
			}
			d.value = o
		}
		if _, known := d.value.(runtime.Object); !known {
			if err := yaml.UnmarshalStrict([]byte(text), d.value); err != nil {
				return nil, fmt.Errorf("%s: %w in\n%s", meta.Kind, err, text)
			}
		}
		d.Object = d.value.(metav1.Object)
		if o, ok := d.value.(runtime.Object); ok {
			kept := d
			kept.value = o.DeepCopyObject()
			decoded.Store(text, kept)
		}
		out = append(out, d)
	}
	if len(out) == 0 {
		return nil, errors.New("nothing was rendered")
	}
	return out, nil
}

// all returns the documents of one type.
func all[T any](docs []typed) []*T {
	var out []*T
	for _, d := range docs {
		if v, ok := d.value.(*T); ok {
			out = append(out, v)
		}
	}
	return out
}

// lookup returns the document of one type and name, or nil.
func lookup[T any](docs []typed, name string) *T {
	for _, d := range docs {
		if v, ok := d.value.(*T); ok && d.GetName() == name {
			return v
		}
	}
	return nil
}

// get is lookup of what must be there.
func get[T any](t testing.TB, docs []typed, name string) *T {
	t.Helper()
	v := lookup[T](docs, name)
	if v == nil {
		t.Fatalf("no %T %s was rendered", v, name)
	}
	return v
}

// pod is a pod or a template of pods.
type pod struct {
	name string
	meta metav1.ObjectMeta
	spec corev1.PodSpec
}

// ends reports whether it runs to an end: a test, a Job.
func (p pod) ends() bool {
	return p.spec.RestartPolicy != "" && p.spec.RestartPolicy != corev1.RestartPolicyAlways
}

func pods(docs []typed) []pod {
	var out []pod
	for _, d := range docs {
		switch v := d.value.(type) {
		case *appsv1.Deployment:
			out = append(out, pod{v.Name, v.Spec.Template.ObjectMeta, v.Spec.Template.Spec})
		case *appsv1.StatefulSet:
			out = append(out, pod{v.Name, v.Spec.Template.ObjectMeta, v.Spec.Template.Spec})
		case *appsv1.DaemonSet:
			out = append(out, pod{v.Name, v.Spec.Template.ObjectMeta, v.Spec.Template.Spec})
		case *batchv1.Job:
			out = append(out, pod{v.Name, v.Spec.Template.ObjectMeta, v.Spec.Template.Spec})
		case *corev1.Pod:
			out = append(out, pod{v.Name, v.ObjectMeta, v.Spec})
		}
	}
	return out
}
