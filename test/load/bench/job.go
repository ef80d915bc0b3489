package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/weir-dev/weir/internal/catalog"
)

const (
	jobConns       = 256
	jobConcurrency = 64
	jobRate        = 200                   // jobs a second, open loop
	jobWork        = 50 * time.Millisecond // of the function, in the open loop
	jobInFlight    = 512                   // requests at once, before the open loop's schedule slips
	jobHeartbeat   = time.Hour             // longer than a job is kept running
	jobWait        = "Prefer: wait=29\r\n" // as long as the gateway holds a request
)

// job measures asynchronous requests: their submission beside that of a buffered write, how many are done from
// submission to result, and how much later than its function is done a client has the result.
func (b *bench) job(ctx context.Context) error {
	waiting := newOrderBook(jobConns, ordersPerConn, "/orders", jobWait)
	variants := []variant{
		{"job_ingest", []int{jobConns}, b.shippedGateway().start},
		{"job_submit", []int{jobConns}, startJobs},
	}
	for round := range b.rounds {
		b.say("job, round %d of %d", round+1, b.rounds)
		for _, v := range variants {
			if err := b.measure(ctx, v); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		slices.Reverse(variants)
		if err := b.jobsDone(ctx, waiting); err != nil {
			return err
		}
	}
	b.results.ratio("job_vs_ingest_256", "job_submit_per_s_256", "job_ingest_per_s_256")
	return b.longPoll(ctx)
}

// startJobs is the gateway and NATS with the route's requests as jobs, without a consumer of the queue.
func startJobs(ctx context.Context, b *bench) (*target, error) {
	dir := b.folder("nats")
	t, err := b.startJobStack(ctx, dir, "http://127.0.0.1:1")
	if t != nil {
		t.dir = dir
	}
	return t, err
}

// startJobStack starts NATS, realtime and the gateway.
func (b *bench) startJobStack(ctx context.Context, dir, function string) (*target, error) {
	server, url, err := b.startJobNATS(ctx, dir, function)
	if err != nil {
		return nil, err
	}
	realtime, push, err := b.startRealtime(ctx, url)
	if err != nil {
		return nil, err
	}
	gateway, addr, err := b.startJobGateway(ctx, url, push)
	if err != nil {
		return nil, err
	}
	return &target{
		addr: addr, nats: url,
		pids: map[string]int{"gateway": gateway.PID(), "nats": server.PID(), "realtime": realtime.PID()},
	}, nil
}

// startJobNATS starts NATS with a catalog whose routes make jobs.
func (b *bench) startJobNATS(ctx context.Context, dir, function string) (c *child, url string, err error) {
	if c, url, err = b.startNATS(ctx, dir); err != nil {
		return nil, "", err
	}
	cat, err := b.catalogOf(function) //nolint:contextcheck // reading YAML takes none
	if err != nil {
		return nil, "", err
	}
	makeJobs(cat)
	return c, url, provision(ctx, url, cat)
}

// startJobGateway starts a gateway in front of the realtime at push, and waits until it has the signing keys.
func (b *bench) startJobGateway(ctx context.Context, natsURL, push string) (c *child, addr string, err error) {
	if c, addr, err = b.startGateway(ctx, natsURL, "WEIR_REALTIME_URL=http://"+push); err != nil {
		return nil, "", err
	}
	return c, addr, c.until(ctx, func() bool {
		status, _ := get(ctx, http.MethodGet, "http://"+addr+"/weir/jobs/x", "", nil)
		return status == http.StatusNotFound
	})
}

// startWork starts all that jobs need, with a function that takes d.
func (b *bench) startWork(ctx context.Context, d time.Duration) (*target, error) {
	_, function, err := b.self(ctx, "work", "work", d.String())
	if err != nil {
		return nil, err
	}
	t, err := b.startJobStack(ctx, b.folder("nats"), "http://"+function)
	if err != nil {
		return nil, err
	}
	_, err = b.startDispatcher(t.nats)
	return t, err
}

// makeJobs turns the sample's buffered writes into jobs.
func makeJobs(cat *catalog.Catalog) {
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
	}
	for i := range cat.Mappings {
		cat.Mappings[i].MaxConcurrency, cat.Mappings[i].Heartbeat = jobConcurrency, jobHeartbeat
	}
}

// jobsDone is a closed loop of requests that wait for their job's result, with a function that takes no time.
func (b *bench) jobsDone(ctx context.Context, orders *orderBook) error {
	defer b.stopChildren()
	t, err := b.startWork(ctx, 0)
	if err != nil {
		return err
	}
	l := load{addr: t.addr, conns: jobConns, orders: orders, warm: warmUp, window: b.window, want: http.StatusOK}
	res, err := l.run(ctx)
	if err != nil {
		return err
	}
	if res.accepted == 0 || len(res.statuses) > 1 {
		return fmt.Errorf("the answers were not all 200: %v", res.statuses)
	}
	b.results.add("job_per_s", res.perSecond())
	b.results.add("job_wait_p50_ms", res.ms(50))
	fmt.Printf("    submission to result: %.0f/s, p50 %.1f ms\n", res.perSecond(), res.ms(50))
	return nil
}

// longPoll measures clients that wait for the result by a long poll.
func (b *bench) longPoll(ctx context.Context) error {
	return b.delivery(ctx, "longpoll", "long poll", func(ctx context.Context, client *http.Client, url, location string) error {
		status, _, _, err := do(ctx, client, http.MethodGet, url+location+"/result", "", "wait=29")
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("result: %d, %w", status, err)
		}
		return nil
	})
}

// delivery is an open loop of clients that submit a job and await its result, with a function that takes jobWork.
func (b *bench) delivery(ctx context.Context, name, what string, await func(ctx context.Context, client *http.Client, url, location string) error) error {
	defer b.stopChildren()
	t, err := b.startWork(ctx, jobWork)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: jobInFlight, MaxConnsPerHost: jobInFlight}}
	defer client.CloseIdleConnections()
	url := "http://" + t.addr
	warm := int(warmUp.Seconds() * jobRate)
	total := warm + int(b.latency.Seconds()*jobRate)
	took := make([]time.Duration, total)
	errs := make([]error, total)
	others := b.watchOthers()
	start := time.Now().Add(100 * time.Millisecond)
	var wg sync.WaitGroup
	for n := range total {
		intended := start.Add(time.Duration(n) * time.Second / jobRate)
		wait(ctx, time.Until(intended))
		wg.Go(func() {
			location, err := submit(ctx, client, url)
			if err == nil {
				err = await(ctx, client, url, location)
			}
			errs[n], took[n] = err, time.Since(intended)
		})
	}
	wg.Wait()
	crowd := b.crowd(others())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	h := hdrhistogram.New(1, maxLatency, 3)
	for _, d := range took[warm:] {
		if err := h.RecordValue(max(0, (d - jobWork).Microseconds())); err != nil {
			return err
		}
	}
	p50, p99 := float64(h.ValueAtQuantile(50))/1000, float64(h.ValueAtQuantile(99))/1000
	b.results.add("job_"+name+"_p50_ms", p50)
	b.results.add("job_"+name+"_p99_ms", p99)
	fmt.Printf("    %s at %d jobs/s, beyond the function's %s: p50 %.1f ms  p99 %.1f ms%s\n", what, jobRate, jobWork, p50, p99, crowd)
	return nil
}

// submit posts a job and returns its path.
func submit(ctx context.Context, client *http.Client, url string) (string, error) {
	status, location, _, err := do(ctx, client, http.MethodPost, url+"/orders", `{"sku":"book-42","quantity":1,"customer":"ada"}`, "")
	if err != nil || status != http.StatusAccepted {
		return "", fmt.Errorf("submission: %d, %w", status, err)
	}
	return location, nil
}

// do reads an answer to its end.
func do(ctx context.Context, client *http.Client, method, url, body, prefer string) (status int, location, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", "", err
	}
	req.Header.Set("Content-Type", "application/json")
	if prefer != "" {
		req.Header.Set("Prefer", prefer)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", "", err
	}
	read, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("Operation-Location"), string(read), errors.Join(err, resp.Body.Close())
}
