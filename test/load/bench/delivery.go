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
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// jobLoop is how jobs are submitted at fixed times, and how their clients get the results.
type jobLoop struct {
	name, what string
	rate       int // jobs a second
	calls      int // of the function at once
	await      func(ctx context.Context, client *http.Client, url, location string) error
}

// pollResult waits for the result by a long poll: by several, if there is none for as long as one is held.
func pollResult(ctx context.Context, client *http.Client, url, location string) error {
	for {
		status, _, text, err := do(ctx, client, http.MethodGet, url+location+"/result", "", "wait=29")
		if err != nil || status != http.StatusAccepted {
			return expect("result", http.StatusOK, status, text, err)
		}
	}
}

// delivery is an open loop of clients that submit a job and await its result, with a function that takes jobWork.
func (b *bench) delivery(ctx context.Context, o jobLoop) error {
	defer b.stopChildren()
	t, err := b.startWork(ctx, b.own(), jobWork, o.calls)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: jobInFlight, MaxConnsPerHost: jobInFlight}}
	defer client.CloseIdleConnections()
	url := "http://" + t.addr
	warm := int(warmUp.Seconds()) * o.rate
	total := warm + int(b.latency.Seconds())*o.rate
	took := make([]time.Duration, total)
	errs := make([]error, total)
	ctx, cancel := context.WithTimeoutCause(ctx, b.latency+drainTimeout, errors.New("not all jobs had ended in time"))
	defer cancel()
	// At the high rate, which may be more than Weir can do, who is refused comes again, and has waited all the while.
	var refused atomic.Int64
	again := func(call func() error) error {
		for {
			err := call()
			if o.rate != jobHighRate || !errors.Is(err, errRefused) || ctx.Err() != nil {
				return err
			}
			refused.Add(1)
			wait(ctx, retryAfter)
		}
	}
	var ended atomic.Int64
	before, syncs := int64(0), func() (float64, error) { return 0, nil } // of jobHighRate alone
	others := b.watchOthers()
	start := time.Now().Add(100 * time.Millisecond)
	var wg sync.WaitGroup
	for n := range total {
		intended := start.Add(time.Duration(n) * time.Second / time.Duration(o.rate))
		wait(ctx, time.Until(intended))
		if n == warm && o.rate == jobHighRate {
			before, syncs = ended.Load(), b.watchSyncs(t.pids["nats"])
		}
		wg.Go(func() {
			var location string
			err := again(func() (err error) {
				location, err = submit(ctx, client, url)
				return err
			})
			if err == nil {
				err = again(func() error { return o.await(ctx, client, url, location) })
			}
			errs[n], took[n] = err, time.Since(intended)
			ended.Add(1)
		})
	}
	wg.Wait()
	synced, uncounted := syncs()
	crowd := b.crowd(others())
	failed := slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d jobs failed, one of them: %w", len(failed), total, failed[0])
	}
	h := hdrhistogram.New(1, maxLatency, 3)
	for _, d := range took[warm:] {
		if err := h.RecordValue(min(max(0, (d-jobWork).Microseconds()), maxLatency)); err != nil {
			return err
		}
	}
	p50, p99 := float64(h.ValueAtQuantile(50))/1000, float64(h.ValueAtQuantile(99))/1000
	b.results.add("job_"+o.name+"_p50_ms", p50)
	b.results.add("job_"+o.name+"_p99_ms", p99)
	fmt.Printf("    %s at %d jobs/s, beyond the function's %s: p50 %.1f ms  p99 %.1f ms%s\n", o.what, o.rate, jobWork, p50, p99, crowd)
	if o.rate != jobHighRate {
		return nil
	}
	b.results.add("job_1000_refused", float64(refused.Load()))
	if refused.Load() > 0 {
		b.say("%d REQUESTS WERE REFUSED", refused.Load())
	}
	if uncounted != nil {
		b.say("SYNCED WRITES ARE NOT COUNTED: %v", uncounted)
		return nil
	}
	perJob := synced / float64(ended.Load()-before)
	b.results.add("job_syncs_per_job", perJob)
	fmt.Printf("    synced writes of NATS: %.3f a job\n", perJob)
	return nil
}

// submit posts a job and returns its path.
func submit(ctx context.Context, client *http.Client, url string) (string, error) {
	status, location, text, err := do(ctx, client, http.MethodPost, url+"/orders", `{"sku":"book-42","quantity":1,"customer":"ada"}`, "")
	return location, expect("submission", http.StatusAccepted, status, text, err)
}

// errRefused is an answer that asks the client to come again.
var errRefused = errors.New("refused")

// expect returns an error if an answer is not the one that is wanted.
func expect(what string, want, status int, text string, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case status == want:
		return nil
	case status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests:
		return fmt.Errorf("%s: %w with %d: %s", what, errRefused, status, text)
	}
	return fmt.Errorf("%s: answered %d: %s", what, status, text)
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
