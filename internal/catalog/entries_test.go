package catalog_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
)

func sample() *catalog.Catalog {
	key := func(name string) catalog.Key { return catalog.Key{Namespace: "default", Name: name} }
	return &catalog.Catalog{
		Queues:   []catalog.Queue{{Key: key("a"), MaxAge: time.Hour}, {Key: key("b")}},
		Machines: []catalog.Machine{{Key: key("flow"), Type: "EXPRESS", Definition: json.RawMessage(`{"StartAt":"A"}`)}},
		Services: []catalog.Service{{Key: key("f"), MaxConcurrency: 4}},
		Mappings: []catalog.Mapping{{Key: key("m"), Queue: key("a"), MaxConcurrency: 3}},
		APIs: []catalog.API{{Key: key("shop"), Throttle: &catalog.Throttle{Rate: 1.5, Burst: 2}, Routes: []catalog.Route{
			{Name: "one", Method: "POST", Path: "/1", Schema: json.RawMessage(`{ "type": "object" }`), Queue: &catalog.QueueTarget{Queue: key("a")}},
			{Name: "two", Method: "GET", Path: "/2", Function: &catalog.FunctionTarget{Timeout: time.Second}},
		}}},
	}
}

func build(t *testing.T, c *catalog.Catalog) *catalog.Builder {
	t.Helper()
	entries, err := c.Entries()
	if err != nil {
		t.Fatal(err)
	}
	b := catalog.NewBuilder()
	for k, v := range entries {
		if err := b.Set(k, v); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestEntriesMakeTheSameCatalog(t *testing.T) {
	want := sample()
	entries, err := want.Entries()
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"queue.default.a", "queue.default.b", "machine.default.flow", "service.default.f", "mapping.default.m", "api.default.shop", "route.default.shop.one", "route.default.shop.two"}
	if got := slices.SortedFunc(maps.Keys(entries), catalog.CompareKeys); !slices.Equal(got, keys) {
		t.Errorf("the entries are %v, want %v", got, keys)
	}
	got := build(t, want).Catalog()
	if got.Revision() != want.Revision() {
		t.Errorf("revision %s, want %s", got.Revision(), want.Revision())
	}
	want.APIs[0].Routes[0].Schema = json.RawMessage(`{"type":"object"}`)
	if !reflect.DeepEqual(got.Machines, want.Machines) || !reflect.DeepEqual(got.Services, want.Services) {
		t.Errorf("got %+v and %+v, want %+v and %+v", got.Machines, got.Services, want.Machines, want.Services)
	}
	if !reflect.DeepEqual(got.Queues, want.Queues) || !reflect.DeepEqual(got.Mappings, want.Mappings) || !reflect.DeepEqual(got.APIs, want.APIs) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestDiff: a diff, applied, turns one set into the other, whatever was added and removed, and leaves out what is the
// same.
func TestDiff(t *testing.T) {
	b := build(t, sample())
	for what, step := range map[string]struct {
		change  func(c *catalog.Catalog)
		changed []string
		gone    []string
	}{
		"nothing, but for blanks in a schema": {func(*catalog.Catalog) {}, nil, nil},
		"another order":                       {func(c *catalog.Catalog) { slices.Reverse(c.Queues); slices.Reverse(c.APIs[0].Routes) }, nil, nil},
		"a route":                             {func(c *catalog.Catalog) { c.APIs[0].Routes[1].Path = "/3" }, []string{"route.default.shop.two"}, nil},
		"an API's throttle":                   {func(c *catalog.Catalog) { c.APIs[0].Throttle = nil }, []string{"api.default.shop"}, nil},
		"what a Service takes":                {func(c *catalog.Catalog) { c.Services[0].MaxConcurrency = 5 }, []string{"service.default.f"}, nil},
		"what goes": {
			func(c *catalog.Catalog) { c.Services, c.Mappings, c.APIs[0].Routes = nil, nil, c.APIs[0].Routes[:1] }, nil,
			[]string{"mapping.default.m", "route.default.shop.two", "service.default.f"},
		},
	} {
		next := sample()
		step.change(next)
		d, err := b.Diff(next)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(d.Changed)); !slices.Equal(got, step.changed) {
			t.Errorf("%s: changed %v, want %v", what, got, step.changed)
		}
		if slices.Sort(d.Gone); !slices.Equal(d.Gone, step.gone) {
			t.Errorf("%s: gone %v, want %v", what, d.Gone, step.gone)
		}
		applied := build(t, sample())
		for k, v := range d.Changed {
			if err := applied.Set(k, v); err != nil {
				t.Fatal(err)
			}
		}
		for _, k := range d.Gone {
			applied.Delete(k)
		}
		if applied.Revision() != d.Revision || d.Revision != next.Revision() || applied.Catalog().Revision() != next.Revision() {
			t.Errorf("%s: revisions %s, %s, %s", what, applied.Revision(), d.Revision, next.Revision())
		}
	}
}

// TestAnEntryHasTheLowestFormatThatDoes: what an older reader must not ignore has a higher one, and nothing else.
func TestAnEntryHasTheLowestFormatThatDoes(t *testing.T) {
	c := sample()
	formats := func() (out map[string]int) {
		entries, err := c.Entries()
		if err != nil {
			t.Fatal(err)
		}
		out = map[string]int{}
		for key, value := range entries {
			var e struct{ Format int }
			if err := json.Unmarshal(value, &e); err != nil {
				t.Fatal(err)
			}
			if e.Format != 1 {
				out[key] = e.Format
			}
		}
		return out
	}
	if got := formats(); len(got) != 0 {
		t.Errorf("formats other than 1: %v", got)
	}
	c.Mappings[0].Function.H2C, c.APIs[0].Routes[1].Function.Function.H2C = true, true
	if got, want := formats(), (map[string]int{"mapping.default.m": 2, "route.default.shop.two": 2}); !maps.Equal(got, want) {
		t.Errorf("formats %v, want %v", got, want)
	}
	c.APIs[0].Routes[1].Host = "shop.example"
	if got, want := formats(), (map[string]int{"mapping.default.m": 2, "route.default.shop.two": 3}); !maps.Equal(got, want) {
		t.Errorf("formats %v, want %v", got, want)
	}
	if got := build(t, c).Catalog(); got.APIs[0].Routes[1].Host != "shop.example" || !got.Mappings[0].Function.H2C || !got.APIs[0].Routes[1].Function.Function.H2C {
		t.Errorf("read as %+v", got)
	}
}

func TestAnEntryThatCanNotBeReadKeepsItsFormerVersion(t *testing.T) {
	b := build(t, sample())
	before := b.Revision()
	for _, bad := range []string{``, `{`, `{"format":99,"spec":{}}`, `{"format":1,"spec":[]}`} {
		if err := b.Set("queue.default.a", []byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
		if c := b.Catalog(); c.Queues[0].MaxAge != time.Hour || b.Revision() == before {
			t.Errorf("after %q: %+v, revision %s", bad, c.Queues, b.Revision())
		}
	}
	later := []byte(`{"format":99,"spec":{"name":"new","method":"PUT","path":"/new","maxBodyBytes":"1Mi","target":7}}`)
	if err := b.Set("route.default.shop.new", later); err == nil {
		t.Error("a route of a later format is taken")
	}
	if r := b.Catalog().APIs[0].Routes[0]; !reflect.DeepEqual(r, catalog.Route{Name: "new", Method: "PUT", Path: "/new"}) {
		t.Errorf("it is %+v: it can't be told from one that is not there", r)
	}
	moved := []byte(`{"format":99,"spec":{"name":"new","method":"PUT","path":"/moved"}}`)
	if err := b.Set("route.default.shop.new", moved); err == nil || b.Catalog().APIs[0].Routes[0].Path != "/moved" {
		t.Errorf("when it moves it is %+v, %v", b.Catalog().APIs[0].Routes[0], err)
	}
	if err := b.Set("route.default.shop.one", moved); err == nil || b.Catalog().APIs[0].Routes[1].Path != "/1" {
		t.Errorf("a route that was known is %+v, %v", b.Catalog().APIs[0].Routes[1], err)
	}
	if err := b.Set("later.default.x", []byte("anything")); err != nil {
		t.Error(err)
	}
}
