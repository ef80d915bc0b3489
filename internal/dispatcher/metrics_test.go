package dispatcher_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/job"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/telemetry"
	"github.com/weir-dev/weir/internal/testkit"
)

// collector collects what is measured with its providers.
type collector struct {
	telemetry.Providers
	t      *testing.T
	reader *sdkmetric.ManualReader
}

func collect(t *testing.T) *collector {
	t.Helper()
	c := &collector{t: t, reader: sdkmetric.NewManualReader()}
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(c.reader))
	t.Cleanup(func() { _ = meters.Shutdown(context.Background()) })
	c.Meters = meters
	return c
}

// now is testkit.Series.
func (c *collector) now() map[string]float64 {
	c.t.Helper()
	return testkit.Series(c.t, c.reader)
}

// of is the sum of the series whose name is name, of one queue.
func of(all map[string]float64, name, queue string) (sum float64) {
	for k, v := range all {
		if strings.HasPrefix(k, name+"{") && strings.Contains(k, queue) {
			sum += v
		}
	}
	return sum
}

// TestMetricsOfKnownTraffic has each outcome once, and each number of docs/metrics.md that follows from it.
func TestMetricsOfKnownTraffic(t *testing.T) {
	var throttled, failed atomic.Bool
	script := func(c call) answer {
		switch c.bodies[0] {
		case "poison":
			return answer{failed: []string{"poison"}}
		case "later":
			if !throttled.Swap(true) {
				return answer{status: 429}
			}
		case "once":
			if !failed.Swap(true) {
				return answer{status: 500}
			}
		case "broken":
			return answer{status: 500}
		case "wrong":
			return answer{status: 400}
		}
		return answer{}
	}
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), script, nil)
	c := collect(t)
	w.tel = c.Providers
	d, stop := w.start("a", time.Second)
	settled := 0
	for _, body := range []string{"good", "poison", "later", "once", "broken", "wrong"} {
		w.put(body)
		settled++
		testkit.Eventually(t, body+" is settled", func() bool {
			s, _ := d.Stats(w.spec.Key)
			return s.InHand == 0 && s.Done+s.Dead == settled
		})
	}
	q := w.queue.Key.String()
	one := func(name string, attributes ...string) string {
		slices.Sort(attributes)
		return name + "{" + strings.Join(attributes, ",") + "}"
	}
	ofQueue := func(name string, attributes ...string) string {
		return one(name, append(attributes, "weir.queue="+q)...)
	}
	called := func(outcome string, more ...string) string {
		return one("http.client.request.duration", append(more, "faas.invoked_name=default/f", "http.request.method=POST", "weir.outcome="+outcome)...)
	}
	want := map[string]float64{
		one("messaging.client.consumed.messages", "messaging.system=weir", "messaging.operation.name=receive", "messaging.destination.name="+q): 11,
		ofQueue("weir.mapping.settled", "weir.disposition=done"):                                                                                3,
		ofQueue("weir.mapping.settled", "weir.disposition=retried"):                                                                             5,
		ofQueue("weir.mapping.settled", "weir.disposition=dead"):                                                                                3,
		ofQueue("weir.mapping.settled", "weir.disposition=returned"):                                                                            0,
		ofQueue("weir.mapping.dead", "weir.reason=refused"):                                                                                     1,
		ofQueue("weir.mapping.dead", "weir.reason=exhausted"):                                                                                   2,
		ofQueue("weir.mapping.dead", "weir.reason=too_old"):                                                                                     0,
		ofQueue("weir.mapping.dead", "weir.reason=expired"):                                                                                     0,
		ofQueue("weir.mapping.held"):                                                                                                            0,
		ofQueue("weir.mapping.memory"):                                                                                                          0,
		ofQueue("weir.mapping.memory.wait"):                                                                                                     0,
		ofQueue("weir.mapping.throttled"):                                                                                                       1,
		ofQueue("weir.mapping.in_flight"):                                                                                                       0,
		ofQueue("weir.mapping.cap"):                                                                                                             4,
		ofQueue("weir.mapping.batch.size"):                                                                                                      12,
		ofQueue("weir.mapping.batch.size.sum"):                                                                                                  12,
		ofQueue("weir.mapping.wait"):                                                                                                            11,
		ofQueue("weir.mapping.lease", "weir.change=taken"):                                                                                      1,
		ofQueue("weir.mapping.lease", "weir.change=handed_over"):                                                                                0,
		ofQueue("weir.mapping.lease", "weir.change=released"):                                                                                   0,
		ofQueue("weir.mapping.lease", "weir.change=lost"):                                                                                       0,
		called("done", "http.response.status_code=200"):                                                                                         3,
		called("partial", "http.response.status_code=200"):                                                                                      3,
		called("not_now", "http.response.status_code=429", "error.type=429"):                                                                    1,
		called("failed", "http.response.status_code=500", "error.type=500"):                                                                     4,
		called("refused", "http.response.status_code=400", "error.type=400"):                                                                    1,
	}
	got := c.now()
	for k, v := range want {
		if there, ok := got[k]; !ok || there != v {
			t.Errorf("%s: %v, %t, want %v", k, there, ok, v)
		}
		delete(got, k)
	}
	if limit := ofQueue("weir.mapping.limit"); got[limit] < 1 || got[limit] > 4 {
		t.Errorf("limit %v", got[limit])
	} else {
		delete(got, limit)
	}
	for k := range got {
		if !strings.Contains(k, ".sum{") {
			t.Errorf("besides, there is %s: %v", k, got[k])
		}
	}
	stop()
	got = c.now()
	if got[ofQueue("weir.mapping.lease", "weir.change=released")] != 1 || got[ofQueue("weir.mapping.settled", "weir.disposition=done")] != 3 {
		t.Errorf("after its end, for the last export: %v", got)
	}
	if _, there := got[ofQueue("weir.mapping.cap")]; there {
		t.Error("a cap without a lease")
	}
}

// TestMetricsOfRecordsThatAreTooOld: why they died, and how long they had waited.
func TestMetricsOfRecordsThatAreTooOld(t *testing.T) {
	conn := testkit.Conn(t, testkit.NATS(t))
	c := collect(t)
	w := newWorld(t, conn, func(call) answer { return answer{status: 500} }, func(m *catalog.Mapping) { m.Retry.MaxAge = time.Nanosecond })
	away := newWorld(t, conn, func(call) answer { return answer{status: 503} }, nil)
	w.tel, away.tel = c.Providers, c.Providers
	w.put("a")
	w.start("a", time.Second)
	away.put("b", "c")
	d, _ := away.start("b", time.Second)
	away.with(d, time.Second, away.spec)
	testkit.Eventually(t, "all are dead", func() bool {
		all := c.now()
		return of(all, "weir.mapping.dead", w.queue.Key.String()+"}") == 0 && // none without a reason
			all["weir.mapping.dead{weir.queue="+w.queue.Key.String()+",weir.reason=too_old}"] == 1 &&
			all["weir.mapping.dead{weir.queue="+away.queue.Key.String()+",weir.reason=expired}"] == 2
	})
	if n := of(c.now(), "weir.mapping.dead", ""); n != 3 {
		t.Errorf("%v dead letters in all", n)
	}
}

// TestMetricsAtTheCap: calls in flight are at the cap, and the others wait in hand.
func TestMetricsAtTheCap(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(call) answer { <-release; return answer{} },
		func(m *catalog.Mapping) { m.MaxConcurrency, m.Batch.MaxRecords = 2, 1 })
	c := collect(t)
	w.tel = c.Providers
	w.start("a", time.Second)
	w.putEach(5)
	ofQueue := func(all map[string]float64, name string) float64 {
		return all[name+"{weir.queue="+w.queue.Key.String()+"}"]
	}
	testkit.Eventually(t, "two calls are in flight, and all is in hand", func() bool {
		all := c.now()
		return ofQueue(all, "weir.mapping.in_flight") == 2 && ofQueue(all, "weir.mapping.cap") == 2 &&
			ofQueue(all, "weir.mapping.limit") == 2 && ofQueue(all, "weir.mapping.held") == 5
	})
	close(release)
	testkit.Eventually(t, "none is", func() bool {
		all := c.now()
		return ofQueue(all, "weir.mapping.in_flight") == 0 && ofQueue(all, "weir.mapping.held") == 0 && ofQueue(all, "weir.mapping.batch.size") == 5
	})
}

// TestConservation: at every moment of a run with all outcomes, what was consumed is settled or held; and no counter ever
// falls, over the end of a mapping and the next one of its queue.
func TestConservation(t *testing.T) {
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(call) answer {
		return answer{status: []int{200, 200, 200, 429, 500, 400}[rand.N(6)]}
	}, func(m *catalog.Mapping) { m.Batch.MaxRecords = 3 })
	c := collect(t)
	w.tel = c.Providers
	d, stop := w.start("a", time.Second)
	q := w.queue.Key.String()
	former := map[string]float64{}
	check := func() {
		t.Helper()
		all := c.now()
		if consumed, rest := of(all, "messaging.client.consumed.messages", q), of(all, "weir.mapping.settled", q)+of(all, "weir.mapping.held", q); consumed != rest {
			t.Errorf("%v were consumed, %v are settled or held", consumed, rest)
		}
		died, dead := all["weir.mapping.settled{weir.disposition=dead,weir.queue="+q+"}"], of(all, "weir.mapping.dead", q)
		if died != dead {
			t.Errorf("%v are dead, %v for a reason", died, dead)
		}
		for k, v := range former {
			if counter := !strings.Contains(k, "held") && !strings.Contains(k, "memory{") && !strings.Contains(k, "limit") && !strings.Contains(k, "in_flight") && !strings.Contains(k, ".cap"); counter && all[k] < v {
				t.Errorf("%s fell from %v to %v", k, v, all[k])
			}
		}
		former = all
	}
	stopped := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			check()
			select {
			case <-stopped:
				return
			default:
			}
		}
	})
	const n = 60
	w.putEach(n / 3)
	w.queue.MaxAge = time.Hour
	w.with(d, time.Hour) // the mapping goes, its queue stays
	w.putEach(n / 3)
	w.with(d, time.Hour, w.spec)
	w.putEach(n / 3)
	ended := func() bool {
		all := c.now()
		return all["weir.mapping.settled{weir.disposition=done,weir.queue="+q+"}"]+of(all, "weir.mapping.dead", q) == n && of(all, "weir.mapping.held", q) == 0
	}
	testkit.Eventually(t, "all is done or dead", ended)
	close(stopped)
	wg.Wait()
	check()
	stop()
	check()
}

// TestMetricsGoWithTheirQueue: nothing is left of a queue that is in the catalog no more.
func TestMetricsGoWithTheirQueue(t *testing.T) {
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(call) answer { return answer{} }, nil)
	c := collect(t)
	w.tel = c.Providers
	d, _ := w.start("a", time.Second)
	w.put("a")
	q := w.queue.Key.String()
	taken := func() bool { return of(c.now(), "messaging.client.consumed.messages", q) == 1 }
	testkit.Eventually(t, "it is counted", taken)
	w.with(d, time.Hour)
	testkit.Eventually(t, "the mapping is gone", func() bool {
		_, there := c.now()["weir.mapping.cap{weir.queue="+q+"}"]
		return !there
	})
	if !taken() {
		t.Error("a queue that has lost its mapping has lost its counters")
	}
	testkit.Eventually(t, "its counters are gone too", func() bool {
		d.Use(&catalog.Catalog{}) // the first may find it draining
		all := c.now()
		return !slices.ContainsFunc(slices.Collect(maps.Keys(all)), func(k string) bool {
			return strings.HasPrefix(k, "messaging.") || strings.HasPrefix(k, "weir.mapping.settled")
		})
	})
}

// TestMetricsOfAHandoff: who hands a queue over keeps its counters, and has no gauges of it any more.
func TestMetricsOfAHandoff(t *testing.T) {
	t.Parallel() // it waits for leases
	c := newCluster(t, 2, func(call) answer { return answer{} }, nil)
	first, second := collect(t), collect(t)
	c.tel = first.Providers
	c.start("a", time.Second)
	c.waitSpread(2)
	c.tel = second.Providers
	c.start("b", time.Second)
	c.waitSpread(1, 1)
	testkit.Eventually(t, "the handoff is counted", func() bool {
		all := first.now()
		n := 0.0
		for k, v := range all {
			if strings.HasPrefix(k, "weir.mapping.lease{weir.change=handed_over") {
				n += v
			}
		}
		return n == 1 && of(all, "weir.mapping.cap", "") == 4 && of(second.now(), "weir.mapping.cap", "") == 4
	})
}

// TestMetricsOfJobs: each ends once, however it ends.
func TestMetricsOfJobs(t *testing.T) {
	hold := make(chan struct{})
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(c call) answer {
		switch c.bodies[0] {
		case "bad":
			return answer{status: 500}
		case "held":
			<-hold
		}
		return answer{text: "done"}
	}, func(m *catalog.Mapping) { m.Retry.MaxAttempts = 2 })
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release) // before the function's server closes
	w.takesJobs(16 << 20)
	c := collect(t)
	w.tel = c.Providers
	w.putJob("good")
	w.putJob("bad")
	early, late := w.putJob("cancelled"), w.putJob("held")
	cancel := func(id record.ID) {
		t.Helper()
		r := &record.Record{ID: id, Time: time.Now()}
		if _, err := job.Cancel(t.Context(), w.conn, job.NewID(w.queue.Key, r, r.Time), time.Hour, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	leave := testkit.OwnStates(t, w.conn, w.queue.Key)
	cancel(early)
	leave()
	d, _ := w.start("a", time.Second)
	w.with(d, time.Hour, w.spec) // with the queue: its jobs are watched
	testkit.Eventually(t, "the held one is called", func() bool {
		return slices.ContainsFunc(w.seen(), func(c call) bool { return c.bodies[0] == "held" })
	})
	cancel(late)
	q := ",weir.queue=" + w.queue.Key.String() + "}"
	ended := map[string]float64{"succeeded": 1, "failed": 1, "cancelled": 2, "expired": 0}
	testkit.Eventually(t, "all have ended", func() bool {
		all := c.now()
		for status, n := range ended {
			if got, there := all["weir.jobs.ended{weir.job.status="+status+q]; !there || got != n {
				return false
			}
		}
		return of(all, "weir.jobs.attempts", "") == 4
	})
	release()
	w.settled()
	if n := of(c.now(), "weir.jobs.ended", ""); n != 4 {
		t.Errorf("%v jobs have ended", n)
	}
	cut := "http.client.request.duration{error.type=cancelled,faas.invoked_name=default/f,http.request.method=POST}"
	if n := c.now()[cut]; n != 1 {
		t.Errorf("%v calls were cut; there is %v", n, c.now())
	}
}

// TestColdStartIsCounted: a function that had no instance.
func TestColdStartIsCounted(t *testing.T) {
	w := newWorld(t, testkit.Conn(t, testkit.NATS(t)), func(call) answer { return answer{} }, nil)
	here := w.spec.Function.URL
	c := collect(t)
	w.tel = c.Providers
	w.spec.Function.URL = "http://127.0.0.1:1"
	d, _ := w.start("a", time.Second)
	w.put("a")
	testkit.Eventually(t, "nobody is there", func() bool { s, _ := d.Stats(w.spec.Key); return s.Throttled > 0 })
	w.use(d, func(m *catalog.Mapping) { m.Function.URL = here }) // another function: what is known of the former is forgotten
	testkit.Eventually(t, "it is done", func() bool { s, _ := d.Stats(w.spec.Key); return s.Done == 1 })
	if n := of(c.now(), "faas.coldstarts", ""); n != 0 {
		t.Errorf("%v cold starts of a function that was always there", n)
	}
	if of(c.now(), "http.client.request.duration", "error.type=no_connection") == 0 {
		t.Errorf("%v", c.now())
	}
	// The same function comes back at its address.
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	w.use(d, func(m *catalog.Mapping) { m.Function.URL = "http://" + address })
	s, _ := d.Stats(w.spec.Key)
	w.put("b")
	testkit.Eventually(t, "it is away", func() bool { now, _ := d.Stats(w.spec.Key); return now.Throttled > s.Throttled })
	if l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", address); err != nil {
		t.Skip("somebody else has taken the port: ", err)
	}
	fn := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() { defer close(served); _ = fn.Serve(l) }()
	defer func() { _ = fn.Close(); <-served }()
	testkit.Eventually(t, "its first answer is counted", func() bool { return of(c.now(), "faas.coldstarts", "faas.invoked_name=default/f") == 1 })
	w.put("c")
	testkit.Eventually(t, "it goes on", func() bool { s, _ := d.Stats(w.spec.Key); return s.Done == 3 })
	if n := of(c.now(), "faas.coldstarts", ""); n != 1 {
		t.Errorf("%v cold starts", n)
	}
}
