package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	waitingSample = 2000  // jobs that are looked up
	waitingLooks  = 20000 // look-ups
	waitingConns  = 16    // clients that look up at once
)

// waiting measures what many stored outcomes cost: memory, look-ups, and the time until each part answers again after it was
// stopped and started.
func (b *bench) waiting(ctx context.Context) error {
	_, function, err := b.self(ctx, "work", "work", "0s")
	if err != nil {
		return err
	}
	dir, natsAddr := b.folder("nats"), ""
	if natsAddr, err = freeAddress(ctx); err != nil {
		return err
	}
	port := natsAddr[strings.LastIndexByte(natsAddr, ':')+1:]
	nats, url, err := b.self(ctx, "nats", "nats", dir, port)
	if err != nil {
		return err
	}
	if err := b.provisionBy(ctx, b.own(), url, "http://"+function, jobMost); err != nil {
		return err
	}
	admin, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	startDispatcher := func() (*child, error) { return b.startDispatcherOf(b.own(), url, "WEIR_HEALTH_LISTEN="+admin) }
	dispatcher, err := startDispatcher()
	if err != nil {
		return err
	}
	gateway, addr, err := b.startJobGateway(ctx, b.own(), url, "127.0.0.1:1")
	if err != nil {
		return err
	}
	jobs, err := sampleJobs(ctx, "http://"+addr)
	if err != nil {
		return err
	}
	l := load{addr: addr, conns: maxConns, orders: b.orders, total: b.jobWaiting}
	res, err := l.run(ctx)
	if err != nil {
		return err
	}
	total := res.stored + len(jobs)
	if err := untilEnded(ctx, admin, total); err != nil {
		return err
	}
	b.results.add("job_waiting_outcomes", float64(total))
	for name, c := range map[string]*child{"gateway": gateway, "dispatcher": dispatcher, "nats": nats} {
		mib, err := residentMemory(c.PID())
		peak, perr := peakMemory(c.PID())
		if err := errors.Join(err, perr); err != nil {
			return err
		}
		b.results.add("job_waiting_"+name+"_mib", mib)
		b.results.add("job_waiting_"+name+"_peak_mib", peak)
		fmt.Printf("    %-10s %5.0f MiB, at most %.0f\n", name, mib, peak)
	}
	if err := b.lookUps(ctx, "http://"+addr, jobs); err != nil {
		return err
	}

	// Each is stopped, and started again; a gateway or a dispatcher at another address.
	answers := func(addr string) func() bool {
		return func() bool {
			status, _ := get(ctx, http.MethodGet, "http://"+addr+jobs[0], "", nil)
			return status == http.StatusOK
		}
	}
	done := func() bool {
		status, _, _, err := do(ctx, http.DefaultClient, http.MethodPost, "http://"+addr+"/orders", `{"sku":"book-42","quantity":1,"customer":"ada"}`, "wait=29")
		return err == nil && status == http.StatusOK
	}
	again := func(name string, start func() error, ready func() bool) error {
		begin := time.Now()
		if err := start(); err != nil {
			return err
		}
		for deadline := begin.Add(readyTimeout); !ready(); {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s does not answer after its start", name)
			}
			wait(ctx, 5*time.Millisecond)
		}
		ms := float64(time.Since(begin).Milliseconds())
		b.results.add("job_waiting_"+name+"_start_ms", ms)
		fmt.Printf("    %-10s answers %.0f ms after its start\n", name, ms)
		return nil
	}
	gateway.stop()
	if err := again("gateway", func() (err error) { _, addr, err = b.startJobGateway(ctx, b.own(), url, "127.0.0.1:1"); return err }, func() bool { return answers(addr)() }); err != nil {
		return err
	}
	dispatcher.stop()
	if err := again("dispatcher", func() (err error) { _, err = startDispatcher(); return err }, done); err != nil {
		return err
	}
	nats.stop()
	startNATS := func() (err error) { _, _, err = b.self(ctx, "nats", "nats", dir, port); return err }
	if err := again("nats", startNATS, answers(addr)); err != nil {
		return err
	}
	b.stopChildren()
	return os.RemoveAll(dir)
}

// sampleJobs submits jobs, and returns their paths.
func sampleJobs(ctx context.Context, url string) (paths []string, err error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	for range waitingSample {
		path, err := submit(ctx, client, url)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// lookUps measures how long a look-up takes, with some clients that look up one after the other.
func (b *bench) lookUps(ctx context.Context, url string, jobs []string) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: waitingConns}}
	defer client.CloseIdleConnections()
	h := hdrhistogram.New(1, maxLatency, 3)
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	for n := range waitingConns {
		wg.Go(func() {
			for i := n; i < waitingLooks; i += waitingConns {
				begin := time.Now()
				err := lookUp(ctx, client, url+jobs[i%len(jobs)])
				took := time.Since(begin)
				mu.Lock()
				_ = h.RecordValue(min(took.Microseconds(), maxLatency))
				failed = errors.Join(failed, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return failed
	}
	p50, p99 := float64(h.ValueAtQuantile(50))/1000, float64(h.ValueAtQuantile(99))/1000
	b.results.add("job_waiting_look_p50_ms", p50)
	b.results.add("job_waiting_look_p99_ms", p99)
	fmt.Printf("    a look-up, by %d clients: p50 %.2f ms  p99 %.2f ms\n", waitingConns, p50, p99)
	return nil
}

func lookUp(ctx context.Context, client *http.Client, url string) error {
	status, _, text, err := do(ctx, client, http.MethodGet, url, "", "")
	if err == nil && (status != http.StatusOK || !strings.Contains(text, `"succeeded"`)) {
		err = fmt.Errorf("look up %s: %d %s", url, status, text)
	}
	return err
}
