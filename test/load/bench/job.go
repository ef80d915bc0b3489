package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
)

const (
	jobConns       = 256
	jobConcurrency = 64
	jobMost        = 256                   // calls at once, where jobConcurrency would be the bound
	jobRate        = 200                   // jobs a second, open loop
	jobHighRate    = 1000                  // the same; 50 calls at once on average
	jobWork        = 50 * time.Millisecond // of the function, in the open loop
	jobInFlight    = 512                   // requests at once, before the open loop's schedule slips
	jobHeartbeat   = time.Hour             // longer than a job is kept running
	retryAfter     = time.Second           // as the gateway says when it refuses
	jobWait        = "Prefer: wait=29\r\n" // as long as the gateway holds a request
)

// job measures asynchronous requests: their submission beside that of a buffered write; how many are done from
// submission to result and how fast a backlog is, beside another commit and River; and how much later than its function is
// done a client has the result.
func (b *bench) job(ctx context.Context) error {
	waiting := newOrderBook(jobConns, ordersPerConn, "/orders", jobWait)
	variants := []variant{
		{"job_ingest", []int{jobConns}, b.shippedGateway().start},
		{"job_submit", []int{jobConns}, startJobs},
	}
	turns, err := b.jobTurns(ctx, waiting)
	if err != nil {
		return err
	}
	for round := range b.rounds {
		b.say("job, round %d of %d", round+1, b.rounds)
		for _, v := range variants {
			if err := b.measure(ctx, v); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		for _, t := range turns {
			if err := t.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
		slices.Reverse(variants)
		slices.Reverse(turns)
	}
	if err := b.stopDatabase(); err != nil { //nolint:contextcheck // it must stop when ctx is over, too
		return err
	}
	b.settle()
	b.jobRatios()
	for _, o := range []jobLoop{
		{"longpoll", "long poll", jobRate, jobConcurrency, pollResult},
		{"1000", "long poll", jobHighRate, jobMost, pollResult},
	} {
		if err := b.delivery(ctx, o); err != nil {
			return fmt.Errorf("%s at %d/s: %w", o.what, o.rate, err)
		}
	}
	return nil
}

// turn is a measurement that takes turns with others in each round.
type turn struct {
	name string
	run  func(context.Context) error
}

// weirJobs is a commit's Weir.
type weirJobs struct {
	programs
	as   string // in figures' names; empty: this checkout's
	full string // folder; a NATS with a backlog of jobs
}

// jobTurns makes the backlogs and returns what is measured with them, and all else that River or another commit does, too.
func (b *bench) jobTurns(ctx context.Context, orders *orderBook) (turns []turn, err error) {
	contestants := []*weirJobs{{programs: b.own()}}
	if b.jobBefore != "" {
		contestants = append(contestants, &weirJobs{programs: programs{b.jobBefore, filepath.Join(b.jobBefore, "bench")}, as: "before_"})
	}
	var drains []turn
	for _, w := range contestants {
		if err := b.fillJobs(ctx, w); err != nil {
			return nil, fmt.Errorf("fill %s: %w", w.full, err)
		}
		turns = append(turns, turn{"job_" + w.as + "per_s", func(ctx context.Context) error { return b.jobsDone(ctx, w, orders) }})
		for _, calls := range drainCalls(w) {
			drains = append(drains, turn{"job_drain_" + w.as + "per_s", func(ctx context.Context) error { return b.drainJobs(ctx, w, calls) }})
		}
	}
	r, err := b.startRiver(ctx)
	if err != nil {
		return nil, fmt.Errorf("river: %w", err)
	}
	if r != nil {
		turns = append(turns, turn{"river_per_s", func(ctx context.Context) error { return r.done(ctx, orders) }})
		for _, calls := range []int{jobConcurrency, jobMost} {
			drains = append(drains, turn{"river_drain_per_s", func(ctx context.Context) error { return r.drain(ctx, calls) }})
		}
	}
	b.results.add("job_drain_jobs", float64(b.jobDrain))
	return append(turns, drains...), nil
}

// jobRatios compares Weir's most calls at once with River's better number of workers.
func (b *bench) jobRatios() {
	r := b.results
	r.alias("job_drain_per_s", "job_drain_per_s_256")
	r.alias("job_drain_before_per_s", "job_drain_before_per_s_256")
	r.alias("river_drain_per_s", "river_drain_per_s_64", "river_drain_per_s_256")
	r.ratio("job_vs_ingest_256", "job_submit_per_s_256", "job_ingest_per_s_256")
	r.ratio("job_vs_before", "job_per_s", "job_before_per_s")
	r.ratio("job_drain_vs_before", "job_drain_per_s", "job_drain_before_per_s")
	r.ratio("job_vs_river", "job_per_s", "river_per_s")
	r.ratio("job_drain_vs_river", "job_drain_per_s", "river_drain_per_s")
}

// startJobs is the gateway and NATS with the route's requests as jobs, without a consumer of the queue.
func startJobs(ctx context.Context, b *bench) (*target, error) {
	dir := b.folder("nats")
	t, err := b.startJobStack(ctx, b.own(), dir, "http://127.0.0.1:1", jobConcurrency)
	if t != nil {
		t.dir = dir
	}
	return t, err
}

// startJobStack starts NATS, realtime and the gateway. calls are those of the function at once.
func (b *bench) startJobStack(ctx context.Context, p programs, dir, function string, calls int) (*target, error) {
	server, url, err := b.startJobNATS(ctx, p, dir, function, calls)
	if err != nil {
		return nil, err
	}
	realtime, push, err := b.startRealtime(ctx, p, url)
	if err != nil {
		return nil, err
	}
	gateway, addr, err := b.startJobGateway(ctx, p, url, push)
	if err != nil {
		return nil, err
	}
	return &target{
		addr: addr, nats: url,
		pids: map[string]int{"gateway": gateway.PID(), "nats": server.PID(), "realtime": realtime.PID()},
	}, nil
}

// startJobNATS starts NATS with a catalog whose routes make jobs.
func (b *bench) startJobNATS(ctx context.Context, p programs, dir, function string, calls int) (c *child, url string, err error) {
	if c, url, err = b.startNATSOf(ctx, p, dir); err != nil {
		return nil, "", err
	}
	return c, url, b.provisionBy(ctx, p, url, function, calls)
}

// provisionBy makes streams and catalog by a process of the commit that uses them: their layout is its own.
func (b *bench) provisionBy(ctx context.Context, p programs, url, function string, calls int) error {
	cmd := exec.CommandContext(ctx, p.bench, "provision", url, function, strconv.Itoa(calls))
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("provision: %w\n%s", err, out)
	}
	return nil
}

// provisionJobs is what that process does, in a checkout's root.
func provisionJobs(ctx context.Context, url, function string, calls int) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	cat, err := (&bench{config: config{root: root}}).catalogOf(function) //nolint:contextcheck // reading YAML takes none
	if err != nil {
		return err
	}
	makeJobs(cat, calls)
	if calls == 0 {
		cat = withoutMappings(cat)
	}
	return provision(ctx, url, cat)
}

// startJobGateway starts a gateway in front of the realtime at push, and waits until it has the signing keys.
func (b *bench) startJobGateway(ctx context.Context, p programs, natsURL, push string) (c *child, addr string, err error) {
	if c, addr, err = b.startGatewayOf(ctx, p.path("gateway"), natsURL, asShipped, "WEIR_REALTIME_URL=http://"+push); err != nil {
		return nil, "", err
	}
	return c, addr, c.until(ctx, func() bool {
		status, _ := get(ctx, http.MethodGet, "http://"+addr+"/weir/jobs/x", "", nil)
		return status == http.StatusNotFound
	})
}

// startWork starts all that jobs need, with a function that takes d.
func (b *bench) startWork(ctx context.Context, p programs, d time.Duration, calls int) (*target, error) {
	_, function, err := b.self(ctx, "work", "work", d.String())
	if err != nil {
		return nil, err
	}
	t, err := b.startJobStack(ctx, p, b.folder("nats"), "http://"+function, calls)
	if err != nil {
		return nil, err
	}
	dispatcher, err := b.startDispatcherOf(p, t.nats, "WEIR_HEALTH_LISTEN=off")
	if err != nil {
		return nil, err
	}
	t.pids["dispatcher"] = dispatcher.PID()
	return t, nil
}

// makeJobs turns the sample's buffered writes into jobs.
func makeJobs(cat *catalog.Catalog, calls int) {
	for i := range cat.APIs {
		for j := range cat.APIs[i].Routes {
			r := &cat.APIs[i].Routes[j]
			if r.Queue != nil { // the report is a job already
				r.Job, r.Queue = r.Queue, nil
			}
		}
	}
	for i := range cat.Queues {
		cat.Queues[i].Jobs = true
		cat.Queues[i].Results.MaxBytes = 8 << 30 // a million outcomes
	}
	for i := range cat.Mappings {
		cat.Mappings[i].MaxConcurrency, cat.Mappings[i].Heartbeat = calls, jobHeartbeat
	}
}

// jobsDone is a closed loop of requests that wait for their job's result, with a function that takes no time.
func (b *bench) jobsDone(ctx context.Context, w *weirJobs, orders *orderBook) error {
	defer b.stopChildren()
	t, err := b.startWork(ctx, w.programs, 0, jobConcurrency)
	if err != nil {
		return err
	}
	return b.closedLoop(ctx, "job_"+w.as, t, orders)
}

// closedLoop posts orders and waits for their results, over jobConns connections. The least disturbed of its attempts counts.
func (b *bench) closedLoop(ctx context.Context, prefix string, t *target, orders *orderBook) error {
	var res *loadResult
	least := 1.0
	for range attempts {
		r, others, err := b.tryClosedLoop(ctx, prefix, t, orders)
		if err != nil {
			return err
		}
		if res == nil || others < least {
			res, least = r, others
		}
		if least < othersShare {
			break
		}
	}
	b.results.add(prefix+"per_s", res.perSecond())
	b.results.add(prefix+"wait_p50_ms", res.ms(50))
	fmt.Printf("    %-26s %7.0f/s  p50 %.1f ms%s\n", prefix+"per_s", res.perSecond(), res.ms(50), b.crowd(least))
	return nil
}

func (b *bench) tryClosedLoop(ctx context.Context, prefix string, t *target, orders *orderBook) (res *loadResult, othersIn float64, err error) {
	var others func() float64
	l := load{addr: t.addr, conns: jobConns, orders: orders, warm: warmUp, window: b.window, want: http.StatusOK}
	l.onWindow = func(begin bool) {
		if !begin {
			othersIn = others()
			return
		}
		others = b.watchOthers()
		for process, pid := range t.pids {
			b.perf(prefix+process, b.window, pid)
		}
	}
	if res, err = l.run(ctx); err != nil {
		return nil, 0, err
	}
	if res.accepted == 0 || len(res.statuses) > 1 {
		return nil, 0, fmt.Errorf("the answers were not all 200: %v", res.statuses)
	}
	return res, othersIn, nil
}
