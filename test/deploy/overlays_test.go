package deploy_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"knative.dev/pkg/apis"
	"knative.dev/serving/pkg/apis/autoscaling"
	"knative.dev/serving/pkg/apis/config"
	servingv1 "knative.dev/serving/pkg/apis/serving/v1"

	"github.com/weir-dev/weir/api/v1alpha1"
	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/manifest"
)

// An overlay is what people apply.
type overlay struct {
	dir, namespace string
	database       bool // with a PostgreSQL and its Secrets
	tag            string
}

func overlays() []overlay {
	return []overlay{
		{"deploy/k8s/overlays/kind", "default", true, "dev"},
		{"deploy/k8s/overlays/production", "shop", false, "0.1.0"},
	}
}

func TestOverlays(t *testing.T) {
	for _, o := range overlays() {
		t.Run(filepath.Base(o.dir), func(t *testing.T) {
			documents := build(t, o.dir)
			objects := decode(t, documents)
			for _, obj := range objects {
				m, err := meta.Accessor(obj)
				if err != nil {
					t.Fatal(err)
				}
				if m.GetNamespace() != o.namespace {
					t.Errorf("%T %s is in namespace %q, want %s", obj, m.GetName(), m.GetNamespace(), o.namespace)
				}
			}
			services := of[*servingv1.Service](objects)
			if len(services) != 4 || len(of[*v1alpha1.API](objects)) != 1 || len(of[*v1alpha1.Queue](objects)) != 4 ||
				len(of[*v1alpha1.EventSourceMapping](objects)) != 4 || len(of[*v1alpha1.StateMachine](objects)) != 2 {
				t.Fatalf("%d objects, %d of them Knative Services: something of the sample is missing", len(objects), len(services))
			}
			for _, svc := range services {
				checkService(t, svc)
				if image := svc.Spec.Template.Spec.Containers[0].Image; image != "ghcr.io/weir-dev/weir/"+svc.Name+":"+o.tag {
					t.Errorf("%s has image %s, want tag %s", svc.Name, image, o.tag)
				}
			}
			if n := len(of[*corev1.Secret](objects)) + len(of[*appsv1.StatefulSet](objects)); (n > 0) != o.database {
				t.Errorf("%d Secrets and StatefulSets, but a database belongs here: %v", n, o.database)
			}
			compiles(t, documents, o.namespace)
		})
	}
}

// checkService holds what every function in a cluster must say, after Knative's own webhook.
func checkService(t *testing.T, svc *servingv1.Service) {
	t.Helper()
	spec := svc.Spec.Template.Spec // before Knative's defaults: it must be said, not left to the cluster
	if spec.ContainerConcurrency == nil || *spec.ContainerConcurrency == 0 || spec.TimeoutSeconds == nil {
		t.Errorf("%s: containerConcurrency or timeoutSeconds is missing", svc.Name)
	}
	for _, a := range []string{autoscaling.MinScaleAnnotationKey, autoscaling.MaxScaleAnnotationKey} {
		if _, err := strconv.Atoi(svc.Spec.Template.Annotations[a]); err != nil {
			t.Errorf("%s: annotation %s: %v", svc.Name, a, err)
		}
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Errorf("%s: it gets a service account token that it has no use for", svc.Name)
	}
	for _, c := range spec.Containers {
		if c.ReadinessProbe == nil || c.LivenessProbe == nil {
			t.Errorf("%s: a probe is missing", svc.Name)
		}
		checkResources(t, svc.Name, &c)
		checkSecurity(t, svc.Name, c.SecurityContext)
		if s := c.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil {
			t.Errorf("%s: securityContext: runAsNonRoot or seccompProfile is missing", svc.Name)
		}
	}
	ctx := apis.WithinCreate(config.ToContext(context.Background(), config.FromContextOrDefaults(context.Background())))
	svc = svc.DeepCopy()
	svc.SetDefaults(ctx)
	if err := svc.Validate(ctx); err != nil { // warnings too
		t.Errorf("%s: Knative says: %v", svc.Name, err)
	}
}

func checkResources(t *testing.T, name string, c *corev1.Container) {
	t.Helper()
	for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if q := c.Resources.Requests[r]; q.Sign() <= 0 {
			t.Errorf("%s requests no %s", name, r)
		}
	}
	if q := c.Resources.Limits.Memory(); q.Sign() <= 0 {
		t.Errorf("%s has no memory limit", name)
	}
}

func checkSecurity(t *testing.T, name string, s *corev1.SecurityContext) {
	t.Helper()
	if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil ||
		!*s.ReadOnlyRootFilesystem || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("%s: securityContext is %+v", name, s)
	}
}

// compiles gives the documents to Weir's compiler, which checks references, timeouts and schemas.
func compiles(t *testing.T, documents []byte, namespace string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "overlay.yaml"), documents, 0o600); err != nil {
		t.Fatal(err)
	}
	bundle, err := manifest.LoadDir(dir, manifest.Options{
		FunctionURL: func(k catalog.Key) string { return "http://" + k.Name + "." + k.Namespace + ".svc.cluster.local" },
	})
	if err != nil {
		t.Fatal(err)
	}
	c := bundle.Catalog
	if len(c.APIs) != 1 || len(c.Queues) != 4 || len(c.Mappings) != 4 || len(c.Machines) != 2 || c.APIs[0].Namespace != namespace {
		t.Errorf("the catalog has %d APIs, %d queues, %d mappings, namespace %s", len(c.APIs), len(c.Queues), len(c.Mappings), c.APIs[0].Namespace)
	}
}

// TestPostgres holds the development database to the Pod Security Standard "restricted", and to being found.
func TestPostgres(t *testing.T) {
	objects := decode(t, build(t, "deploy/k8s/postgres"))
	sets, services := of[*appsv1.StatefulSet](objects), of[*corev1.Service](objects)
	if len(sets) != 1 || len(services) != 1 {
		t.Fatalf("%d StatefulSets, %d Services", len(sets), len(services))
	}
	pod := sets[0].Spec.Template
	if s := pod.Spec.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 ||
		s.FSGroup == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's securityContext is %+v", s)
	}
	c := &pod.Spec.Containers[0]
	checkResources(t, c.Name, c)
	checkSecurity(t, c.Name, c.SecurityContext)
	if c.StartupProbe == nil || c.ReadinessProbe == nil || c.LivenessProbe == nil {
		t.Error("a probe is missing")
	}
	for k, v := range services[0].Spec.Selector {
		if pod.Labels[k] != v || sets[0].Spec.Selector.MatchLabels[k] != v {
			t.Errorf("the Service selects %s=%s, the pods have %v", k, v, pod.Labels)
		}
	}
	if claims := sets[0].Spec.VolumeClaimTemplates; len(claims) != 1 || claims[0].Name != c.VolumeMounts[0].Name {
		t.Errorf("the data is in no volume of its own: %v", claims)
	}
	if env := envOf(c); !strings.HasPrefix(env["PGDATA"], c.VolumeMounts[0].MountPath+"/") {
		t.Errorf("PGDATA is %q, which is not below the volume at %s", env["PGDATA"], c.VolumeMounts[0].MountPath)
	}
}

func envOf(c *corev1.Container) map[string]string {
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
	}
	return env
}

func secret(t *testing.T, objects []runtime.Object, name string) map[string]string {
	t.Helper()
	for _, s := range of[*corev1.Secret](objects) {
		if s.Name == name {
			out := map[string]string{}
			for k, v := range s.Data {
				out[k] = string(v)
			}
			return out
		}
	}
	t.Fatalf("there is no Secret %s", name)
	return nil
}

// TestOneDatabase follows the address from the functions' Secret through the chart's PgBouncer, as the values
// for kind set it up, to PostgreSQL: one user, one password, one database, and enough connections.
func TestOneDatabase(t *testing.T) {
	objects := decode(t, build(t, "deploy/k8s/overlays/kind"))
	postgres, orders := secret(t, objects, "postgres"), secret(t, objects, "orders-database")
	user, password, database := postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"], postgres["POSTGRES_DB"]
	for key, host := range map[string]string{"url": "weir-pgbouncer.weir-system.svc:6432", "direct-url": "postgres.default.svc:5432"} {
		u, err := url.Parse(orders[key])
		if err != nil {
			t.Fatal(err)
		}
		p, _ := u.User.Password()
		if u.Host != host || u.User.Username() != user || p != password || u.Path != "/"+database {
			t.Errorf("%s is %s, PostgreSQL has %s:%s@…/%s and the host should be %s", key, u, user, password, database, host)
		}
	}
	var values struct {
		PgBouncer struct {
			Enabled          bool
			Replicas         int
			DefaultPoolSize  int
			MaxDBConnections int `json:"maxDbConnections"`
			Databases        []struct {
				Name, Host, DBName string
				Port               int
			}
			Auth struct {
				Users []struct{ Name, Password string }
			}
		} `json:"pgbouncer"`
	}
	parse(t, "deploy/k8s/kind/values.yaml", &values)
	p := values.PgBouncer
	if !p.Enabled || len(p.Databases) != 1 || len(p.Auth.Users) != 1 {
		t.Fatalf("values for kind: %+v", p)
	}
	if d := p.Databases[0]; d.Name != database || d.DBName != database || d.Host+":"+strconv.Itoa(d.Port) != "postgres.default.svc:5432" {
		t.Errorf("PgBouncer's database is %+v, want %s", d, database)
	}
	if u := p.Auth.Users[0]; u.Name != user || u.Password != password {
		t.Errorf("PgBouncer's user is %+v, want %s with the password of the Secret postgres", u, user)
	}
	if least := p.Replicas * min(p.DefaultPoolSize, p.MaxDBConnections); least < writers(t, objects) {
		t.Errorf("PgBouncer gives %d connections, order-writer may make %d calls at once", least, writers(t, objects))
	}
}

// writers are the calls of order-writer that may run at once.
func writers(t *testing.T, objects []runtime.Object) int {
	t.Helper()
	for _, svc := range of[*servingv1.Service](objects) {
		if svc.Name == "order-writer" {
			n, err := strconv.Atoi(svc.Spec.Template.Annotations[autoscaling.MaxScaleAnnotationKey])
			if err != nil {
				t.Fatal(err)
			}
			return n * int(*svc.Spec.Template.Spec.ContainerConcurrency)
		}
	}
	t.Fatal("there is no order-writer")
	return 0
}

// TestProductionIsPinned: the overlay runs the release that the chart runs.
func TestProductionIsPinned(t *testing.T) {
	var chart struct{ AppVersion string }
	parse(t, "charts/weir/Chart.yaml", &chart)
	for _, o := range overlays() {
		if !o.database && o.tag != chart.AppVersion {
			t.Errorf("%s has tag %s, the chart %s: change newTag and this test together with the chart's appVersion", o.dir, o.tag, chart.AppVersion)
		}
	}
	if !strings.Contains(string(read(t, "deploy/k8s/overlays/production/kustomization.yaml")), "Secret orders-database") {
		t.Error("the overlay doesn't say that the Secret orders-database must exist")
	}
}
