package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
)

const warmUp = time.Second

// variant is a way to answer POST /orders.
type variant struct {
	name  string // in the figures' names
	conns []int
	start func(context.Context, *bench) (*target, error)
}

// target is a variant that runs.
type target struct {
	addr   string
	orders *orderBook     // that are posted; nil means the run's, which have no attributes
	dir    string         // NATS's data; empty means none
	nats   string         // URL; of the job stack
	pids   map[string]int // whose CPU is counted
}

func (b *bench) ingestVariants() []variant {
	both, most := []int{64, 256}, []int{256}
	shipped := b.shippedGateway()
	with := func(change func(*gatewayService)) func(context.Context, *bench) (*target, error) {
		s := shipped
		change(&s)
		return s.start
	}
	variants := []variant{
		{"null", both, startNull},
		{"wait", most, startWait},
		{"publish_each", both, startPublishEach},
		{"ingest", both, shipped.start},
		{"ingest_attributes", most, with(func(s *gatewayService) { s.attributes = true })},
		{"ingest_zstd", most, with(func(s *gatewayService) { s.compression = "zstd" })},
		{"ingest_s2", most, with(func(s *gatewayService) { s.compression = "s2" })},
		{"ingest_none", most, with(func(s *gatewayService) { s.compression = "none" })},
		{"ingest_without", most, with(func(s *gatewayService) { s.telemetry = telemetryOff })},
		{"ingest_telemetry", most, with(func(s *gatewayService) { s.telemetry = telemetrySampled })},
		{"ingest_traced", most, with(func(s *gatewayService) { s.telemetry = telemetryFull })},
		{"ingest_traced_hangs", most, with(func(s *gatewayService) { s.telemetry = telemetryHangs })},
		{"ingest_traced_refused", most, with(func(s *gatewayService) { s.telemetry = telemetryRefused })},
		{"ingest_traced_away", most, with(func(s *gatewayService) { s.telemetry = telemetryAway })},
	}
	if b.before != "" {
		variants = append(variants, variant{"before", both, with(func(s *gatewayService) { s.program = b.before })})
	}
	if len(b.variants) == 0 {
		return variants
	}
	return slices.DeleteFunc(variants, func(v variant) bool { return !slices.Contains(b.variants, v.name) })
}

func startNull(ctx context.Context, b *bench) (*target, error) {
	c, addr, err := b.self(ctx, "null", "null")
	if err != nil {
		return nil, err
	}
	return &target{addr: addr, pids: map[string]int{"null": c.PID()}}, nil
}

func startWait(ctx context.Context, b *bench) (*target, error) {
	c, addr, err := b.self(ctx, "wait", "wait", b.folder("wait"))
	if err != nil {
		return nil, err
	}
	return &target{addr: addr, pids: map[string]int{"wait": c.PID()}}, nil
}

func startPublishEach(ctx context.Context, b *bench) (*target, error) {
	dir := b.folder("nats")
	server, url, err := b.startNATS(ctx, dir)
	if err != nil {
		return nil, err
	}
	c, addr, err := b.self(ctx, "publish-each", "publish-each", url)
	if err != nil {
		return nil, err
	}
	return &target{addr: addr, dir: dir, pids: map[string]int{"publish_each": c.PID(), "nats": server.PID()}}, nil
}

// asShipped is the gateway's default compression.
const asShipped = ""

// gatewayService is the gateway and NATS, each in its process, without a consumer of the queue.
type gatewayService struct {
	program     string // the gateway's
	compression string // asShipped, or another
	attributes  bool   // the route has three, and the orders say them
	telemetry   telemetryKind
}

func (b *bench) shippedGateway() gatewayService {
	return gatewayService{program: b.gatewayProgram(), compression: asShipped}
}

func (s gatewayService) start(ctx context.Context, b *bench) (*target, error) {
	dir := b.folder("nats")
	server, url, err := b.startNATS(ctx, dir)
	if err != nil {
		return nil, err
	}
	cat, err := b.catalogOf("http://127.0.0.1:1") //nolint:contextcheck // reading YAML takes none
	if err != nil {
		return nil, err
	}
	t := &target{dir: dir}
	if s.attributes {
		addAttributes(cat)
		t.orders = b.withAttributes()
	}
	if err := provision(ctx, url, withoutMappings(cat)); err != nil {
		return nil, err
	}
	t.pids = map[string]int{"nats": server.PID()}
	env, collector, err := b.telemetryEnv(ctx, s.telemetry)
	if err != nil {
		return nil, err
	}
	if collector != nil {
		t.pids["collector"] = collector.PID()
	}
	gateway, addr, err := b.startGatewayOf(ctx, s.program, url, s.compression, env...)
	if err != nil {
		return nil, err
	}
	t.addr, t.pids["gateway"] = addr, gateway.PID()
	return t, nil
}

// The query and the header that addAttributes asks for; the third value is in the body.
const (
	attributesTarget = "/orders?campaign=autumn-2026"
	attributesHeader = "X-Tenant: tenant-4711\r\n"
)

// addAttributes gives the route that the orders are posted to three attributes.
func addAttributes(cat *catalog.Catalog) {
	for i := range cat.APIs {
		for j := range cat.APIs[i].Routes {
			if r := &cat.APIs[i].Routes[j]; r.Method == http.MethodPost && r.Path == "/orders" {
				r.Attributes = []catalog.Attribute{
					{Name: "tenant", From: "header.X-Tenant", Required: true},
					{Name: "campaign", From: "query.campaign", Required: true},
					{Name: "country", From: "body:/shipTo/country", Required: true},
				}
			}
		}
	}
}

// withAttributes are the same orders with what addAttributes asks for.
func (b *bench) withAttributes() *orderBook {
	if b.described == nil {
		b.described = newOrderBook(maxConns, ordersPerConn, attributesTarget, attributesHeader)
	}
	return b.described
}

// ingest measures the variants one after the other, in alternating order.
func (b *bench) ingest(ctx context.Context) error {
	variants := b.ingestVariants()
	for round := range b.rounds {
		b.say("ingest, round %d of %d", round+1, b.rounds)
		for _, v := range variants {
			if err := b.measure(ctx, v); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		slices.Reverse(variants)
	}
	r := b.results
	b.settle()
	for _, conns := range []string{"256", "64"} {
		r.ratio("ingest_vs_null_"+conns, "ingest_per_s_"+conns, "null_per_s_"+conns)
		r.ratio("ingest_vs_publish_each_"+conns, "ingest_per_s_"+conns, "publish_each_per_s_"+conns)
	}
	r.ratio("gateway_cpu_vs_null_256", "cpu_us_per_request_gateway_256", "cpu_us_per_request_null_256")
	r.ratio("gateway_cpu_vs_wait_256", "cpu_us_per_request_gateway_256", "cpu_us_per_request_wait_256")
	r.ratio("ingest_attributes_vs_ingest_256", "ingest_attributes_per_s_256", "ingest_per_s_256")
	r.ratio("ingest_telemetry_vs_without_256", "ingest_telemetry_per_s_256", "ingest_without_per_s_256")
	r.ratio("ingest_traced_vs_without_256", "ingest_traced_per_s_256", "ingest_without_per_s_256")
	for _, trouble := range []string{"hangs", "refused", "away"} {
		r.ratio("ingest_traced_"+trouble+"_vs_traced_256", "ingest_traced_"+trouble+"_per_s_256", "ingest_traced_per_s_256")
	}
	if b.before != "" {
		r.ratio("ingest_vs_before_256", "ingest_per_s_256", "before_per_s_256")
		r.ratio("before_cpu_vs_null_256", "cpu_us_per_request_before_gateway_256", "cpu_us_per_request_null_256")
	}
	for _, name := range []string{"ingest", "ingest_zstd", "ingest_s2"} {
		r.ratio(name+"_vs_none_256", name+"_per_s_256", "ingest_none_per_s_256")
	}
	return nil
}

// settle lets doubtful values count where there are no others, and says so.
func (b *bench) settle() {
	if n := b.results.settle(); n > 0 {
		b.say("other processes took the CPU during every round of %d values: they are doubtful", n)
	}
}

// measure starts a variant afresh, so that none is affected by what an earlier one left, and runs its loads.
func (b *bench) measure(ctx context.Context, v variant) error {
	defer b.stopChildren()
	t, err := v.start(ctx, b)
	if err != nil {
		return err
	}
	for _, conns := range v.conns {
		if err := b.measureLoad(ctx, v.name, t, conns); err != nil {
			return err
		}
	}
	b.stopChildren()
	if t.dir == "" {
		return nil
	}
	return os.RemoveAll(t.dir)
}

// attempts is how often a measurement is made while other processes disturb it; the least disturbed one counts.
const attempts = 3

// sample is one measurement.
type sample struct {
	*loadResult
	cpu      map[string]time.Duration // in the window
	bytes    float64                  // on disk per 202
	othersIn float64                  // share of the CPU
}

func (b *bench) measureLoad(ctx context.Context, name string, t *target, conns int) error {
	var res *sample
	for range attempts {
		s, err := b.sample(ctx, name, t, conns)
		if err != nil {
			return err
		}
		if res == nil || s.othersIn < res.othersIn {
			res = s
		}
		if res.othersIn < othersShare {
			break
		}
	}
	suffix, add := fmt.Sprintf("_%d", conns), b.results.add
	if res.othersIn >= othersShare {
		add = b.results.addDoubtful
	}
	add(name+"_per_s"+suffix, res.perSecond())
	add(name+"_p50_ms"+suffix, res.ms(50))
	add(name+"_p99_ms"+suffix, res.ms(99))
	for process, d := range res.cpu {
		if name != "ingest" && name != process {
			process = name + "_" + process
		}
		add("cpu_us_per_request_"+process+suffix, float64(d.Microseconds())/float64(res.accepted))
	}
	if conns == maxConns && t.dir != "" {
		add(name+"_bytes_per_record", res.bytes)
	}
	if pid := t.pids["gateway"]; pid != 0 {
		peak, err := peakMemory(pid)
		if err != nil {
			return err
		}
		add(name+"_gateway_peak_mib", peak)
	}
	fmt.Printf("    %-21s %3d connections: %7.0f/s  p50 %6.2f ms  p99 %6.2f ms  %4.0f bytes an order%s\n",
		name, conns, res.perSecond(), res.ms(50), res.ms(99), res.bytes, b.crowd(res.othersIn))
	return nil
}

func (b *bench) sample(ctx context.Context, name string, t *target, conns int) (*sample, error) {
	before, err := t.stored()
	if err != nil {
		return nil, err
	}
	s := &sample{cpu: map[string]time.Duration{}}
	var others func() float64
	l := load{addr: t.addr, conns: conns, orders: cmp.Or(t.orders, b.orders), warm: warmUp, window: b.window}
	l.onWindow = func(begin bool) {
		sign := time.Duration(1)
		if begin {
			sign, others = -1, b.watchOthers()
		} else {
			s.othersIn = others()
		}
		for process, pid := range t.pids {
			s.cpu[process] += sign * cpuTime(pid)
			if begin {
				b.perf(fmt.Sprintf("%s-%s-%d", name, process, conns), b.window, pid)
			}
		}
		s.cpu["client"] += sign * ownCPU()
	}
	if s.loadResult, err = l.run(ctx); err != nil {
		return nil, err
	}
	if s.accepted == 0 || len(s.statuses) > 1 {
		return nil, fmt.Errorf("the answers were not all 202: %v", s.statuses)
	}
	after, err := t.stored()
	s.bytes = float64(after-before) / float64(s.loadResult.stored)
	return s, err
}

// stored is what NATS has on disk.
func (t *target) stored() (int64, error) {
	if t.dir == "" {
		return 0, nil
	}
	return folderBytes(t.dir)
}

// ownCPU is the user and system time of this process, the load generator.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
