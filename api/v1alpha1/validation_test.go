package v1alpha1

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// The mistakes themselves are tested word by word where users meet them: internal/manifest, TestMistakes.

const minimal = `
metadata: {name: shop}
spec:
  routes:
  - name: create
    match: {method: POST, path: /orders}
    queue: {name: orders}
  - name: get
    match: {method: GET, path: "/orders/{id}"}
    function: {name: order-api}
`

func TestAPIDefaults(t *testing.T) {
	var a API
	if err := yaml.UnmarshalStrict([]byte(minimal), &a); err != nil {
		t.Fatal(err)
	}
	a.Default()
	if errs := a.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	if a.Spec.Throttle != nil || a.Spec.Routes[0].Throttle != nil {
		t.Error("a throttle that nobody asked for")
	}
	if got := a.Spec.Routes[0].MaxBodyBytes.Value(); got != 262144 {
		t.Errorf("maxBodyBytes %d", got)
	}
	if got := a.Spec.Routes[1].Function.Timeout.Duration; got != 29*time.Second {
		t.Errorf("timeout %s", got)
	}
	idempotent(t, &a, a.DeepCopy(), func(x *API) { x.Default() })
}

func TestQueueDefaults(t *testing.T) {
	q := Queue{ObjectMeta: metav1.ObjectMeta{Name: "orders"}}
	q.Default()
	if errs := q.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	s := q.Spec
	if s.Ordering != OrderingNone || s.MaxAge.Duration != 96*time.Hour || s.MaxBytes.String() != "10Gi" || s.DeadLetter.MaxAge.Duration != 336*time.Hour {
		t.Errorf("got %+v", s)
	}
	idempotent(t, &q, q.DeepCopy(), func(x *Queue) { x.Default() })
}

func TestEventSourceMappingDefaults(t *testing.T) {
	m := EventSourceMapping{ObjectMeta: metav1.ObjectMeta{Name: "orders"}}
	m.Spec.Queue, m.Spec.Function = "orders", &FunctionReference{Name: "order-writer"}
	m.Default()
	if errs := m.Validate(); len(errs) > 0 {
		t.Fatal(errs)
	}
	s := m.Spec
	if *s.Batch.MaxRecords != 100 || s.Batch.MaxBytes.String() != "4Mi" || s.Batch.Window.Duration != 0 ||
		s.Timeout.Duration != time.Minute || s.BisectOnError || s.MaxConcurrency != nil {
		t.Errorf("got %+v", s)
	}
	if r := s.Retry; *r.MaxAttempts != 5 || r.InitialBackoff.Duration != time.Second || r.MaxBackoff.Duration != 5*time.Minute || r.MaxAge.Duration != 6*time.Hour {
		t.Errorf("got %+v", r)
	}
	idempotent(t, &m, m.DeepCopy(), func(x *EventSourceMapping) { x.Default() })
}

func idempotent[T any](t *testing.T, once, twice *T, def func(*T)) {
	t.Helper()
	def(twice)
	if !reflect.DeepEqual(once, twice) {
		t.Errorf("Default is not idempotent:\n%+v\n%+v", once, twice)
	}
}

// TestSchemaRoundTrips: what a user wrote under schema is what the API server stores and the gateway gets.
func TestSchemaRoundTrips(t *testing.T) {
	const schema = `{"$defs":{"n":{"minimum":1}},"properties":{"a":{"$ref":"#/$defs/n"}},"type":"object"}`
	var r Route
	if err := json.Unmarshal([]byte(`{"schema":`+schema+`}`), &r); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(r.Schema)
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != schema {
		t.Errorf("got %s", out)
	}
}

func TestSchemes(t *testing.T) {
	s := runtime.NewScheme()
	if err := AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"API", "APIList", "Queue", "QueueList", "EventSourceMapping", "EventSourceMappingList"} {
		if _, err := s.New(GroupVersion.WithKind(kind)); err != nil {
			t.Error(err)
		}
	}
}

func TestValidateBytes(t *testing.T) {
	for in, ok := range map[string]bool{
		"1": true, "1Ki": true, "0.5Ki": true, "1k": true, "1024": true,
		"1025": false, "0": false, "-1": false, "500m": false, "1e30": false, "0.3Ki": false,
	} {
		q := resource.MustParse(in)
		if errs := validateBytes(&q, 1, 1024, nil); (len(errs) == 0) != ok {
			t.Errorf("%s: %v", in, errs)
		}
	}
}

func TestCheckPattern(t *testing.T) {
	for path, ok := range map[string]bool{
		"/": true, "/orders": true, "/orders/": true, "/orders/{id}": true, "/{rest...}": true, "/a/{$}": true, "/healthz": true, "/jobs/{id}": true, "/weirdo": true,
		"": false, "orders": false, "*": false, "GET /a": false, "/a b": false, "/{a}/{a}": false, "/{": false, "/a/../b": false,
		"/{rest...}/x": false, "/weir": false, "/weir/": false, "/weir/{x}": false,
	} {
		if err := checkPattern(path); (err == nil) != ok {
			t.Errorf("%q: %v", path, err)
		}
	}
}
