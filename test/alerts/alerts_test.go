package alerts_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-dev/weir/internal/localdb"
	"github.com/weir-dev/weir/internal/localnats"
	"github.com/weir-dev/weir/internal/testkit"
	"github.com/weir-dev/weir/internal/testkit/processes"
)

// row is an alert and what makes it fire.
type row struct {
	alert  string
	labels map[string]string
	// cause makes it happen, and returns what mends it. nil: the row before has the same cause.
	cause func() (mend func())
	// also are other alerts of the same queue that the cause may make fire; that they do is tested with a cause of their own.
	also []string
	// lasts, unless it is empty, is why the test doesn't wait for its end.
	lasts string
}

// is reports whether an alert is the row's.
func (r *row) is(alert map[string]string) bool {
	return alert["alertname"] == r.alert && has(alert, r.labels)
}

func (r *row) name() string {
	if part := r.labels["weir_part"]; part != "" {
		return r.alert + " " + part
	}
	return r.alert
}

func ofQueue(name string) map[string]string {
	return map[string]string{"namespace": namespace, "weir_queue": "default/" + name}
}

func ofPart(queue, part string) map[string]string {
	labels := ofQueue(queue)
	labels["weir_part"] = part
	return labels
}

func ofPod(namespace, service, pod string) map[string]string {
	return map[string]string{"namespace": namespace, "job": "weir-" + service, "pod": pod}
}

// TestEachAlertFiresOnItsCause. First nothing fires while orders flow. Then all causes are made at the same time, each at a
// queue or pod of its own, and all alerts are waited for; whatever has fired by then must be a row's. At last all is mended.
func TestEachAlertFiresOnItsCause(t *testing.T) {
	rules := renderedRules(t)
	prom := startPrometheus(t, rules)
	s := newSystem(t, prom)
	collector := newCollector(t)
	controller := s.start(namespace, "controller", "controller-0", s.nats)
	s.startGateway("OTEL_EXPORTER_OTLP_ENDPOINT="+collector.url, "OTEL_METRIC_EXPORT_INTERVAL=500", "OTEL_BSP_SCHEDULE_DELAY=200",
		"OTEL_LOGS_EXPORTER=otlp", "OTEL_BLRP_SCHEDULE_DELAY=200")
	second := s.start(namespace, "gateway", "gateway-1", s.nats, "WEIR_LISTEN=127.0.0.1:0")
	dispatcher := s.start(namespace, "dispatcher", "dispatcher-0", s.nats)
	other := localnats.Config{Dir: t.TempDir(), Port: processes.FreePort(t), Token: localnats.NewToken()}
	otherServer := testkit.NATSIn(t, other)
	s.start("away", "gateway", "gateway-away", other, "WEIR_LISTEN=127.0.0.1:0")
	prom.add(target{namespace, "weir-pgbouncer", "pgbouncer-0", startPoolExporter(t)})

	// StageAway comes first, and alone: without the controller nothing is known of queues.
	stageAway := row{alert: "WeirStageAway", labels: map[string]string{"namespace": namespace, "job": "weir-controller"}}
	noLeader := row{alert: "WeirQueueNotRead", labels: map[string]string{"namespace": namespace, "weir_queue": ""}}
	rows := []row{
		{alert: "WeirOldestRecord", labels: ofQueue(stopped), cause: func() func() {
			s.functions[stopped].stop()
			s.orders(stopped, 100)
			return s.functions[stopped].start
		}},
		{alert: "WeirDrainsSlowly", labels: ofQueue(stopped)}, // it stays as it is
		{alert: "WeirCallsFail", labels: ofQueue(failing), cause: func() func() {
			s.functions[failing].does(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
			s.orders(failing, 100)
			return s.functions[failing].mend
		}},
		{alert: "WeirCapSaturated", labels: ofQueue(hanging), also: []string{"WeirOldestRecord"}, cause: func() func() {
			mend := s.functions[hanging].takes(time.Hour)
			s.orders(hanging, 10)
			return mend
		}},
		{alert: "WeirDrainsSlowly", labels: ofQueue(slow), also: []string{"WeirOldestRecord", "WeirCapSaturated"}, cause: func() func() {
			mend := s.functions[slow].takes(250 * time.Millisecond)
			s.orders(slow, 400)
			return mend
		}},
		{alert: "WeirDeadLetters", labels: ofQueue(poisoned), cause: func() func() {
			s.functions[poisoned].does(func(w http.ResponseWriter, r *http.Request) {
				order, _ := io.ReadAll(r.Body)
				if strings.HasPrefix(string(order), "poison") {
					w.WriteHeader(http.StatusUnprocessableEntity)
					return
				}
				w.WriteHeader(http.StatusNoContent)
			})
			stop := s.traffic(poisoned, 100*time.Millisecond, func(i int) string { return []string{"order", "poison"}[i%2] })
			return func() {
				stop()
				s.functions[poisoned].mend()
				within(t, "the last are settled", func() string {
					d, err := s.conn.Depth(t.Context(), key(poisoned))
					if err == nil && d.Waiting > 0 {
						return fmt.Sprintf("%d are left", d.Waiting)
					}
					return said(err)
				})
				if _, err := s.conn.PurgeDead(t.Context(), key(poisoned)); err != nil {
					t.Error(err)
				}
			}
		}},
		{alert: "WeirDeadLetterShare", labels: ofQueue(poisoned)},
		{alert: "WeirQueueFills", labels: ofPart(full, "waiting"), also: []string{"WeirOldestRecord"}, cause: func() func() {
			s.functions[full].stop()
			stop := s.traffic(full, 50*time.Millisecond, func(int) string { return large() })
			return func() {
				stop()
				s.functions[full].start()
			}
		}},
		// A full dead-letter queue brings the mapping to a stand, and then the queue fills too.
		{alert: "WeirQueueFills", labels: ofPart(buried, "dead"), also: []string{
			"WeirDeadLetters", "WeirDeadLetterShare", "WeirOldestRecord", "WeirCapSaturated", "WeirQueueFills",
		}, cause: func() func() {
			s.functions[buried].does(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusUnprocessableEntity)
			})
			stop := s.traffic(buried, 50*time.Millisecond, func(int) string { return large() })
			return func() {
				stop()
				s.functions[buried].mend()
				if _, err := s.conn.PurgeDead(t.Context(), key(buried)); err != nil {
					t.Error(err)
				}
			}
		}},
		{alert: "WeirGatewayRefuses", labels: map[string]string{"namespace": namespace}},
		{alert: "WeirQueueNotOwned", labels: ofQueue(unmapped), also: []string{"WeirOldestRecord"}, cause: func() func() {
			s.publish(s.catalog(unmapped))
			within(t, "the dispatcher knows that the mapping is gone", func() string {
				d, err := s.conn.Depth(t.Context(), key(unmapped))
				if err == nil && d.Owned {
					return "it has the queue"
				}
				return said(err)
			})
			s.orders(unmapped, 3)
			return func() { s.publish(s.catalog("")) }
		}},
		{alert: "WeirQueueNotRead", labels: ofQueue(removed), cause: func() func() { return s.remove(removed) }},
		{alert: "WeirConservationBroken", labels: ofQueue(robbed), also: []string{"WeirOldestRecord", "WeirCapSaturated"}, cause: func() func() {
			mend := s.functions[robbed].takes(time.Hour)
			s.orders(robbed, 20)
			s.rob(robbed)
			return mend
		}},
		{
			alert: "WeirLeaseLost", labels: ofQueue(leased), lasts: "it counts an hour",
			cause: func() func() { return s.thieve(leased) },
		},
		{alert: "WeirTargetDown", labels: ofPod(namespace, "gateway", "gateway-1"), cause: func() func() {
			second.Kill()
			return func() { second.again() }
		}},
		{alert: "WeirNATSAway", labels: ofPod("away", "gateway", "gateway-away"), cause: func() func() {
			otherServer.Stop()
			return func() { testkit.NATSIn(t, other) }
		}},
		{alert: "WeirNATSLazy", labels: map[string]string{"namespace": "lazy"}, cause: func() func() {
			lazy := s.start("lazy", "gateway", "gateway-lazy", s.nats, "WEIR_LISTEN=127.0.0.1:0", "WEIR_NATS_SYNC=2m")
			return func() {
				lazy.Kill()
				lazy.again("WEIR_NATS_SYNC=always")
			}
		}},
		{alert: "WeirTelemetryLost", labels: ofPod(namespace, "gateway", "gateway-0"), cause: func() func() {
			collector.refuses.Store(true)
			return func() {
				for _, of := range []string{"span", "metric_data_point", "log"} {
					s.prom.until(t, "each kind is lost", `otel_sdk_exporter_`+of+`_exported_total{pod="gateway-0",error_type!=""} > 0`)
				}
				collector.refuses.Store(false)
			}
		}},
		{
			alert: "WeirPoolWaits", labels: map[string]string{"namespace": namespace, "pod": "pgbouncer-0", "database": localdb.Database, "user": localdb.User},
			cause: func() func() { return useUpPool(t) },
		},
		{alert: "WeirPoolUsed", labels: map[string]string{"namespace": namespace, "pod": "pgbouncer-0", "database": localdb.Database, "user": localdb.User}},
	}
	if complete(t, rules, append(rows, stageAway, noLeader)); t.Failed() {
		return
	}
	s.works()
	s.traffic(normal, 50*time.Millisecond, func(i int) string { return fmt.Sprintf("order %d", i) })
	for _, q := range queues() {
		s.orders(q, 2)
	}
	s.quiet()
	if t.Failed() {
		return
	}
	t.Log("nothing fires while orders flow")

	prom.remove("controller-0")
	controller.Kill()
	prom.fires(t, stageAway)
	s.start(namespace, "controller", "controller-1", s.nats, asStandby+"=1")
	prom.ends(t, stageAway)
	prom.fires(t, noLeader)
	controller.again()
	prom.add(controller.target)
	prom.ends(t, noLeader)

	var mends []func()
	for _, r := range rows {
		if r.cause != nil {
			mends = append(mends, r.cause())
		}
	}
	for _, r := range rows {
		t.Run(r.name()+"/fires", func(t *testing.T) { prom.fires(t, r) })
	}
	if t.Failed() {
		return
	}
	fired, err := prom.fired()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range fired {
		if !expected(a, append(rows, stageAway, noLeader)) {
			t.Errorf("nobody has given a cause for %s", shown([]map[string]string{a}))
		}
	}
	for _, mend := range mends {
		mend()
	}
	for _, r := range rows {
		if r.lasts == "" {
			t.Run(r.name()+"/ends", func(t *testing.T) { prom.ends(t, r) })
		}
	}
	// The other cause of WeirQueueNotOwned, last as it befalls all queues.
	dispatcher.Kill()
	t.Run("WeirQueueNotOwned/fires without a dispatcher", func(t *testing.T) {
		prom.fires(t, row{alert: "WeirQueueNotOwned", labels: ofQueue(normal)})
	})
}

// large is an order that no compression makes smaller.
func large() string {
	random := make([]byte, 150<<10)
	_, _ = rand.Read(random)
	return base64.StdEncoding.EncodeToString(random)
}

// complete checks that each alert has a row, and each row its alert.
func complete(t *testing.T, rules rules, rows []row) {
	t.Helper()
	alerts := map[string]bool{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			alerts[r.Alert] = true
			if !slices.ContainsFunc(rows, func(x row) bool { return x.alert == r.Alert }) {
				t.Errorf("%s has no row: make its cause happen", r.Alert)
			}
		}
	}
	for _, r := range rows {
		if !alerts[r.alert] {
			t.Errorf("%s is no alert of the chart", r.alert)
		}
	}
}

// expected reports whether a row may have made the alert fire.
func expected(alert map[string]string, rows []row) bool {
	for _, r := range rows {
		name := alert["alertname"]
		if r.is(alert) {
			return true
		}
		if slices.Contains(r.also, name) && alert["namespace"] == r.labels["namespace"] && alert["weir_queue"] == r.labels["weir_queue"] {
			return true
		}
	}
	return false
}

// works waits until all of it does. The controller's look at the queues is not as fast as the rules: one that had found an
// order before there was a dispatcher would say so for ten seconds, which is ten minutes of theirs.
func (s *system) works() {
	s.t.Helper()
	const pages = 6
	s.prom.until(s.t, "all pods are read", fmt.Sprintf(`count(up == 1) == %d`, pages))
	s.prom.until(s.t, "the collector gets metrics, and no error", `sum(rate(otel_sdk_exporter_metric_data_point_exported_total{error_type=""}[5s])) > 0`)
	s.prom.until(s.t, "each queue was looked at", fmt.Sprintf(`count(weir_queue_owned_ratio == 1) == %d`, len(queues())))
}

// quiet waits until orders have flown for longer than any alert waits; and nothing has fired.
func (s *system) quiet() {
	s.t.Helper()
	// Twice the longest wait, twenty minutes of the rules.
	s.prom.until(s.t, "orders have flown for a while",
		fmt.Sprintf(`weir_mapping_settled_total{weir_queue="default/%s",weir_disposition="done"} > 20 * 40`, normal))
	fired, err := s.prom.fired()
	if err != nil || len(fired) > 0 {
		s.t.Errorf("without a cause: %s %v", shown(fired), err)
	}
}

// fires waits until the row's alert has fired: a queue that drains may be through when its turn to be looked at comes.
func (p *prometheus) fires(t *testing.T, r row) {
	t.Helper()
	within(t, r.alert+" fires", func() string {
		fired, err := p.fired()
		if err != nil {
			return err.Error()
		}
		if slices.ContainsFunc(fired, r.is) {
			return ""
		}
		return "there fired\n" + shown(fired)
	})
}

// ends waits until it doesn't.
func (p *prometheus) ends(t *testing.T, r row) {
	t.Helper()
	within(t, r.alert+" ends", func() string {
		firing, err := p.firing()
		if err != nil {
			return err.Error()
		}
		if i := slices.IndexFunc(firing, r.is); i >= 0 {
			return "it fires: " + shown(firing[i:i+1])
		}
		return ""
	})
}

// collector is a back-end of OTLP, which may refuse what it gets.
type collector struct {
	url     string
	refuses atomic.Bool
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if c.refuses.Load() {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}
