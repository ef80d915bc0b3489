package stream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/stream"
	"github.com/weir-dev/weir/internal/testkit"
)

func key(name string) catalog.Key { return catalog.Key{Namespace: "default", Name: name} }

// routes is a catalog of apis × n routes, each with a schema of so many bytes.
func routes(apis, n, schema int) *catalog.Catalog {
	c := &catalog.Catalog{Queues: []catalog.Queue{{Key: key("orders")}}}
	for a := range apis {
		api := catalog.API{Key: key(fmt.Sprint("api-", a))}
		for i := range n {
			api.Routes = append(api.Routes, catalog.Route{
				Name: fmt.Sprint("r-", i), Method: "POST", Path: fmt.Sprintf("/%d/%d", a, i), MaxBodyBytes: 1,
				Schema: json.RawMessage(`{"title":"` + string(bytes.Repeat([]byte{'x'}, schema)) + `"}`), Queue: &catalog.QueueTarget{Queue: key("orders")},
			})
		}
		c.APIs = append(c.APIs, api)
	}
	return c
}

// bucket is the bucket of the catalog, as another client sees it.
func bucket(t *testing.T, s *localnats.Server) jetstream.KeyValue {
	t.Helper()
	kv, err := testkit.JetStream(t, s).KeyValue(t.Context(), "WEIR_CATALOG")
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func messages(t *testing.T, kv jetstream.KeyValue) uint64 {
	t.Helper()
	s, err := kv.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.(*jetstream.KeyValueBucketStatus).StreamInfo().State.LastSeq
}

// putSet writes entries as another version's controller may have, and a head that names them.
func putSet(t *testing.T, kv jetstream.KeyValue, entries map[string][]byte) {
	t.Helper()
	builder := catalog.NewBuilder()
	for k, v := range entries {
		_ = builder.Set(k, v) // what can't be read counts all the same
		if _, err := kv.Put(t.Context(), k, v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kv.Put(t.Context(), "head", []byte(`{"revision":"`+builder.Revision()+`"}`)); err != nil {
		t.Fatal(err)
	}
}

// publish publishes in place of whatever is there.
func publish(t *testing.T, c *stream.Conn, cat *catalog.Catalog) {
	t.Helper()
	if err := c.PublishCatalog(t.Context(), cat, 1, nil); err != nil {
		t.Fatal(err)
	}
}

// watch returns the catalogs that a watcher is given.
func watch(t *testing.T, c *stream.Conn) <-chan *catalog.Catalog {
	t.Helper()
	got := make(chan *catalog.Catalog, 16)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.WatchCatalog(ctx, func(cat *catalog.Catalog) { got <- cat }) }()
	t.Cleanup(func() { cancel(); <-done })
	return got
}

// TestCatalogChangesByEntries: however large it is, a change writes what changed, and readers see sets that are whole.
func TestCatalogChangesByEntries(t *testing.T) {
	srv := testkit.NATS(t)
	c := testkit.Conn(t, srv)
	cat := routes(10, 200, 2<<10) // 4 MiB
	publish(t, c, cat)
	got := watch(t, testkit.Conn(t, srv))
	if first := <-got; first.Revision() != cat.Revision() || len(first.APIs) != 10 || len(first.APIs[3].Routes) != 200 || first.APIs[3].Routes[7].Schema == nil {
		t.Fatalf("the catalog is another: %s, want %s", first.Revision(), cat.Revision())
	}
	kv := bucket(t, srv)
	for _, step := range []struct {
		what   string
		change func()
		writes uint64
	}{
		{"a route", func() { cat.APIs[3].Routes[7].MaxBodyBytes = 7 }, 2},
		{"a new queue", func() { cat.Queues = append(cat.Queues, catalog.Queue{Key: key("more")}) }, 2},
		{"an API that goes", func() { cat.APIs = cat.APIs[:9] }, 202},
		{"nothing", func() {}, 0},
	} {
		what, before := step.what, messages(t, kv)
		step.change()
		former, err := c.Catalog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.PublishCatalog(t.Context(), cat, 1, former); err != nil {
			t.Fatal(err)
		}
		if n := messages(t, kv) - before; n != step.writes {
			t.Errorf("%s: %d messages were written, want %d", what, n, step.writes)
		}
		if what == "nothing" {
			continue
		}
		if next := <-got; next.Revision() != cat.Revision() {
			t.Errorf("%s: a reader has %s, want %s", what, next.Revision(), cat.Revision())
		}
	}
	if again, err := c.Catalog(t.Context()); err != nil || again.Catalog.Revision() != cat.Revision() {
		t.Errorf("it reads as another: %v", err)
	}
}

// TestHalfACatalogIsNotUsed: a publisher that dies after its first writes changes nothing that is in use, and the next one
// completes it.
func TestHalfACatalogIsNotUsed(t *testing.T) {
	srv := testkit.NATS(t)
	c := testkit.Conn(t, srv)
	cat := routes(1, 3, 10)
	publish(t, c, cat)
	kv := bucket(t, srv)
	// The head of a set that is to be, and no more.
	cat.APIs[0].Routes[1].MaxBodyBytes = 100
	if _, err := kv.Put(t.Context(), "head", []byte(`{"revision":"`+cat.Revision()+`"}`)); err != nil {
		t.Fatal(err)
	}
	got := watch(t, testkit.Conn(t, srv))
	former, err := c.Catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) > 0 {
		t.Error("half a catalog is in use")
	}
	if err := c.PublishCatalog(t.Context(), cat, 1, former); err != nil {
		t.Fatal(err)
	}
	if next := <-got; next.Revision() != cat.Revision() || next.APIs[0].Routes[1].MaxBodyBytes != 100 {
		t.Errorf("it is %+v", next)
	}
}

// TestWhatCanNotBeReadFailsAlone: entries of a later version, and garbage, leave the others working.
func TestWhatCanNotBeReadFailsAlone(t *testing.T) {
	srv := testkit.NATS(t)
	c := testkit.Conn(t, srv)
	cat := routes(1, 3, 10)
	publish(t, c, cat)
	kv := bucket(t, srv)
	entries, err := cat.Entries()
	if err != nil {
		t.Fatal(err)
	}
	entries["statemachine.default.x"] = []byte(`{"format":1,"spec":{}}`)
	entries["route.default.api-0.r-1"] = []byte(`{"format":9,"spec":{"name":"r-1"}}`)
	entries["route.default.api-0.r-2"] = []byte(`{"format":1,"spec":{"name":"r-2","method":"POST","path":"/x","maxBodyBytes":1,"stateMachine":{"name":"x"},"later":true}}`)
	entries["queue.default.broken"] = []byte(`what?`)
	putSet(t, kv, entries)
	got := <-watch(t, testkit.Conn(t, srv))
	if len(got.Queues) != 1 || len(got.APIs) != 1 || len(got.APIs[0].Routes) != 2 {
		t.Fatalf("%+v", got)
	}
	if r := got.APIs[0].Routes[1]; r.Name != "r-2" || r.Queue != nil || r.Job != nil || r.Function != nil {
		t.Errorf("a route of a later version reads as %+v", r)
	}
}

// TestFormerVersionsOutliveAConnection: the former version of an entry that can't be read stays in use across an outage of
// NATS, and an entry that was deleted meanwhile is gone.
func TestFormerVersionsOutliveAConnection(t *testing.T) {
	cfg := localnats.Config{Dir: t.TempDir(), Token: "secret"}
	srv := testkit.NATSIn(t, cfg)
	cfg.Port = srv.Port()
	c, reader := testkit.Conn(t, srv), testkit.Conn(t, srv)
	cat := routes(1, 3, 10)
	publish(t, c, cat)
	got := watch(t, reader)
	<-got
	kv := bucket(t, srv)
	put := func(change func(entries map[string][]byte)) {
		t.Helper()
		entries, err := cat.Entries()
		if err != nil {
			t.Fatal(err)
		}
		change(entries)
		putSet(t, kv, entries)
	}
	later := func(entries map[string][]byte) { entries["route.default.api-0.r-1"] = []byte(`{"format":9,"spec":{}}`) }
	put(later)
	if next := <-got; len(next.APIs[0].Routes) != 3 {
		t.Fatalf("%d routes are left", len(next.APIs[0].Routes))
	}
	live := reader.Live()
	srv.Stop()
	<-live.Done()
	srv = testkit.NATSIn(t, cfg)
	kv = bucket(t, srv)
	if err := kv.Delete(t.Context(), "route.default.api-0.r-0"); err != nil {
		t.Fatal(err)
	}
	cat.APIs[0].Routes = cat.APIs[0].Routes[1:]
	put(later)
	next := <-got
	if routes := next.APIs[0].Routes; len(routes) != 2 || routes[0].Name != "r-1" || routes[0].Path != "/0/1" {
		t.Errorf("routes are %+v", routes)
	}
}

// TestABucketMadeAnew: what is in use stays while NATS has lost the catalog, and the next one that is published, smaller
// than the lost one, is used at once.
func TestABucketMadeAnew(t *testing.T) {
	cfg := localnats.Config{Dir: t.TempDir(), Token: "secret"}
	srv := testkit.NATSIn(t, cfg)
	cfg.Port = srv.Port()
	reader := testkit.Conn(t, srv)
	cat := routes(1, 3, 10)
	publish(t, testkit.Conn(t, srv), cat)
	got := watch(t, reader)
	<-got
	live := reader.Live()
	srv.Stop()
	<-live.Done()
	cfg.Dir = t.TempDir()
	srv = testkit.NATSIn(t, cfg)
	js := testkit.JetStream(t, srv)
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "WEIR_CATALOG", History: 1, LimitMarkerTTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "it is watched", func() bool {
		s, err := js.Stream(t.Context(), "KV_WEIR_CATALOG")
		return err == nil && s.CachedInfo().State.Consumers == 1
	})
	cat.APIs[0].Routes = cat.APIs[0].Routes[:1]
	publish(t, testkit.Conn(t, srv), cat)
	if next := <-got; next.Revision() != cat.Revision() || len(next.APIs[0].Routes) != 1 {
		t.Errorf("it is %+v", next)
	}
}

// TestEntriesTooLarge: all of them are named and nothing is written, so that whoever publishes can do without them.
func TestEntriesTooLarge(t *testing.T) {
	srv := testkit.NATS(t)
	c := testkit.Conn(t, srv)
	cat := routes(1, 1, 10)
	publish(t, c, cat)
	kv := bucket(t, srv)
	before := messages(t, kv)
	err := c.PublishCatalog(t.Context(), routes(2, 2, 2<<20), 1, nil)
	large, ok := errors.AsType[*stream.EntriesTooLargeError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	var keys []string
	for _, e := range large.Entries {
		if keys = append(keys, e.Key); e.Bytes < 2<<20 || large.Limit > 1<<20 {
			t.Errorf("%+v, of %d", e, large.Limit)
		}
	}
	if want := []string{"route.default.api-0.r-0", "route.default.api-0.r-1", "route.default.api-1.r-0", "route.default.api-1.r-1"}; !slices.Equal(keys, want) {
		t.Errorf("too large are %v, want %v", keys, want)
	}
	if n := messages(t, kv); n != before {
		t.Errorf("%d messages were written", n-before)
	}
	// A schema's text takes as many bytes as its author sees, whatever is in it.
	cat.APIs[0].Routes[0].Schema = json.RawMessage(`{"title":"` + strings.Repeat("<&>", 300<<10) + `"}`)
	if err := c.PublishCatalog(t.Context(), cat, 1, nil); err != nil {
		t.Errorf("a schema of 900 KiB: %v", err)
	}
}

// TestALaterVersionsEntriesStay: a controller that doesn't know a kind of entry publishes beside it and leaves it there.
func TestALaterVersionsEntriesStay(t *testing.T) {
	srv := testkit.NATS(t)
	c := testkit.Conn(t, srv)
	cat := routes(1, 1, 10)
	publish(t, c, cat)
	kv := bucket(t, srv)
	if _, err := kv.Put(t.Context(), "statemachine.default.x", []byte(`{"format":1,"spec":{}}`)); err != nil {
		t.Fatal(err)
	}
	cat.APIs[0].Routes[0].MaxBodyBytes = 77
	publish(t, c, cat)
	if _, err := kv.Get(t.Context(), "statemachine.default.x"); err != nil {
		t.Errorf("it is gone: %v", err)
	}
	if got := <-watch(t, testkit.Conn(t, srv)); got.APIs[0].Routes[0].MaxBodyBytes != 77 {
		t.Errorf("readers have %+v", got)
	}
	before := messages(t, kv)
	if err := c.PublishCatalog(t.Context(), cat, 1, nil); err != nil || messages(t, kv) != before {
		t.Errorf("the same again writes %d messages, %v", messages(t, kv)-before, err)
	}
}

// TestTheHeadSaysWhose: the release that publishes is read by the next one; a reader that doesn't know of it has the same catalog, and
// who sets none leaves it.
func TestTheHeadSaysWhose(t *testing.T) {
	srv := testkit.NATS(t)
	c := testkit.Conn(t, srv)
	cat := routes(1, 1, 10)
	publish(t, c, cat)
	kv := bucket(t, srv)
	read := func() *stream.PublishedCatalog {
		t.Helper()
		p, err := c.Catalog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := read()
	if p.Release != "" {
		t.Errorf("it is %s's, and nobody has said so", p.Release)
	}
	p.Release = "weir/blue"
	before := messages(t, kv)
	if err := c.PublishCatalog(t.Context(), cat, 1, p); err != nil || messages(t, kv) != before+1 {
		t.Errorf("the same catalog, now somebody's, takes %d messages: %v", messages(t, kv)-before, err)
	}
	cat.APIs[0].Routes[0].MaxBodyBytes = 77
	publish(t, c, cat)
	if p := read(); p.Release != "weir/blue" || p.Catalog.APIs[0].Routes[0].MaxBodyBytes != 77 {
		t.Errorf("it is %q's: %+v", p.Release, p.Catalog.APIs)
	}
	e, err := kv.Get(t.Context(), "head")
	if err != nil {
		t.Fatal(err)
	}
	var former struct { // the head of earlier versions
		Revision string `json:"revision"`
	}
	if err := json.Unmarshal(e.Value(), &former); err != nil || former.Revision != cat.Revision() {
		t.Errorf("an earlier version reads %+v, %v", former, err)
	}
	before = messages(t, kv)
	p = read()
	if err := c.PublishCatalog(t.Context(), cat, 1, p); err != nil || messages(t, kv) != before {
		t.Errorf("the same again writes %d messages, %v", messages(t, kv)-before, err)
	}
}
