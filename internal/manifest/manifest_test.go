package manifest

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-dev/weir/internal/catalog"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// good is a file without mistakes; each case below breaks it in one place.
const good = `apiVersion: weir.dev/v1alpha1
kind: API
metadata: {name: shop}
spec:
  throttle: {rate: 100, burst: 50}
  routes:
  - name: create
    match: {method: POST, path: /orders}
    schema: {type: object}
    queue: {name: orders}
  - name: get
    match: {method: GET, path: "/orders/{id}"}
    function: {name: reader, timeout: 20s}
---
apiVersion: weir.dev/v1alpha1
kind: Queue
metadata: {name: orders}
spec: {maxAge: 24h}
---
apiVersion: weir.dev/v1alpha1
kind: EventSourceMapping
metadata: {name: orders}
spec:
  queue: orders
  function: {name: writer}
  timeout: 30s
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: writer}
spec:
  template:
    metadata:
      annotations: {autoscaling.knative.dev/max-scale: "5"}
    spec:
      containerConcurrency: 2
      timeoutSeconds: 30
      containers:
      - image: example.com/writer
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: reader}
spec:
  template:
    spec:
      containers:
      - image: example.com/reader
        env:
        - {name: A, value: b}
        - {name: S, valueFrom: {secretKeyRef: {name: sec, key: k}}}
`

func load(files map[string]string, opts Options) (*Bundle, error) {
	var objs Objects
	var errs Errors
	for _, name := range sortedKeys(files) {
		o, e := Parse(name, []byte(files[name]))
		objs.add(o)
		errs = append(errs, e...)
	}
	b, e := compile(&objs, opts)
	if errs = append(errs, e...); len(errs) > 0 {
		return nil, errs.sorted()
	}
	return b, nil
}

// TestGood holds the good file's meaning, so that a mistake above is the only one.
func TestGood(t *testing.T) {
	b, err := load(map[string]string{"a.yaml": good}, Options{
		FunctionURL: func(k catalog.Key) string { return "http://127.0.0.1/" + k.String() },
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/good.golden.json", b)
}

// TestProtocol: a function given by url is called by HTTP/2 only if its protocol says so.
func TestProtocol(t *testing.T) {
	for protocol, want := range map[string]bool{"": false, ", protocol: http1": false, ", protocol: h2c": true} {
		text := strings.NewReplacer(
			"{name: reader, timeout: 20s}", `{url: "http://x:8080/r"`+protocol+"}",
			"{name: writer}\n  timeout", `{url: "HTTP://y"`+protocol+"}\n  maxConcurrency: 3\n  timeout",
		).Replace(good)
		b, err := load(map[string]string{"a.yaml": text}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		route, mapping := b.Catalog.APIs[0].Routes[1].Function.Function, b.Catalog.Mappings[0].Function
		if route != (catalog.Function{Name: "x:8080", URL: "http://x:8080/r", H2C: want}) || mapping != (catalog.Function{Name: "y", URL: "HTTP://y", H2C: want}) {
			t.Errorf("%q: %+v, %+v", protocol, route, mapping)
		}
	}
}

// TestContentTypes: the gateway gets a route's as they are written.
func TestContentTypes(t *testing.T) {
	text := strings.Replace(good, "    queue: {name: orders}", "    contentTypes: [Application/JSON, text/*, \"application/*+json\"]\n    queue: {name: orders}", 1)
	b, err := load(map[string]string{"a.yaml": text}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	routes := b.Catalog.APIs[0].Routes
	if got := strings.Join(routes[0].ContentTypes, " "); got != "Application/JSON text/* application/*+json" || routes[1].ContentTypes != nil {
		t.Errorf("%v", routes)
	}
}

// TestOrdersSample holds the meaning of the sample that users start from.
func TestOrdersSample(t *testing.T) {
	b, err := LoadDir("../../deploy/k8s/orders", Options{})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/orders.golden.json", b)
	if got := b.Catalog.Mappings[0].MaxConcurrency; got != 10 {
		t.Errorf("maxConcurrency %d, want 2 × 5 of order-writer", got)
	}
}

func golden(t *testing.T, path string, b *Bundle) {
	t.Helper()
	got, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs (go test -update writes it); got\n%s", path, got)
	}
}

// TestManyMistakes: a folder's mistakes are reported all at once, those of the syntax beside those of the meaning.
func TestManyMistakes(t *testing.T) {
	_, err := LoadDir("testdata/many-mistakes", Options{})
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("got %v, want Errors", err)
	}
	const path = "testdata/many-mistakes.golden"
	got := err.Error() + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, e := range errs {
		if e.File == "" || e.Line == 0 {
			t.Errorf("no file and line: %v", e)
		}
	}
}

func TestLoadDir(t *testing.T) {
	write := func(t *testing.T, dir, name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("left alone", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "good.yml", good)
		write(t, dir, "kustomization.yaml", "resources: [good.yml]\n")
		write(t, dir, "README.md", "not: [yaml")
		write(t, dir, "cluster.yaml", strings.Join([]string{
			"# nothing but a comment",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {any: thing}",
			"apiVersion: v1\nkind: Service\nmetadata: {name: a}",
			"apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}",
			"apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: a}",
			"",
		}, "\n---\n"))
		if err := os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700); err != nil {
			t.Fatal(err)
		}
		b, err := LoadDir(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Catalog.APIs) != 1 || len(b.Services) != 2 {
			t.Errorf("got %+v", b)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		if _, err := LoadDir(filepath.Join(t.TempDir(), "none"), Options{}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("empty folder", func(t *testing.T) {
		if _, err := LoadDir(t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "no *.yaml file") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("large file", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "a.yaml", strings.Repeat("#", MaxFileBytes+1))
		_, err := LoadDir(dir, Options{})
		if want := "a.yaml: is larger than 4 MiB: split it"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
	t.Run("many documents", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, "a.yaml", strings.Repeat("a: b\n---\n", MaxDocuments+1))
		_, err := LoadDir(dir, Options{})
		if want := "a.yaml: has 1001 documents; at most 1000 are read from one: split it"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

// TestObjectsOfACluster: Compile needs no files, and its messages then name none.
func TestObjectsOfACluster(t *testing.T) {
	objs, errs := Parse("a.yaml", []byte(good))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	objs.APIs[0].Origin, objs.Mappings[0].Origin = Origin{}, Origin{}
	objs.Queues = nil
	_, err := Compile(objs, Options{})
	const want = `API shop: spec.routes[0].queue.name: there is no Queue "orders" in namespace default; add it, or name another
EventSourceMapping orders: spec.queue: there is no Queue "orders" in namespace default; add it, or name another`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// TestService: what the local runner learns of a Knative Service.
func TestService(t *testing.T) {
	legacy := strings.Replace(good, "autoscaling.knative.dev/max-scale", "autoscaling.knative.dev/maxScale", 1)
	legacy = strings.Replace(legacy, "- image: example.com/writer", "- image: example.com/writer\n        ports: [{name: h2c, containerPort: 8080}]", 1)
	b, err := load(map[string]string{"a.yaml": legacy}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s := b.Services[1]; !s.H2C || s.MaxScale != 5 || s.ContainerConcurrency != 2 || s.Timeout != 30*time.Second {
		t.Errorf("got %+v", s)
	}
	if s := b.Services[0]; s.H2C || s.MaxScale != 0 || s.ContainerConcurrency != 0 || s.Timeout != 300*time.Second {
		t.Errorf("got %+v, want Knative's defaults", s)
	}
}

// TestQuantityBomb: a small file must not keep the loader busy for minutes.
func TestQuantityBomb(t *testing.T) {
	for in, ok := range map[string]bool{
		"1": true, "1Ei": true, "1E": true, "1e3": true, "1e-3": true,
		"1e-99999999": false, "1e999999999": false, "1E-99999999999999999999999999": false, strings.Repeat("9", 100): false,
	} {
		if got := cheapQuantity(in); got != ok {
			t.Errorf("%q: %v", in, got)
		}
	}
	_, err := load(map[string]string{"a.yaml": strings.Replace(good, "rate: 100", `rate: "1e-99999999"`, 1)}, Options{})
	const want = `a.yaml:5: API shop: spec.throttle.rate: must be a number, if you like with a suffix: 262144, "256Ki", "4Mi", not "1e-99999999"`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
