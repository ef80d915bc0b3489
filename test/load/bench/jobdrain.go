package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// drainCalls are the calls at once that a commit's backlog is drained with: the one before with the figure's alone.
func drainCalls(w *weirJobs) []int {
	if w.as == "" {
		return []int{jobConcurrency, jobMost}
	}
	return []int{jobMost}
}

// fillJobs submits the jobs through the gateway while nothing dispatches, and stops everything: what is in w's folder then
// is the backlog that each round drains a copy of.
func (b *bench) fillJobs(ctx context.Context, w *weirJobs) error {
	defer b.stopChildren()
	w.full = b.folder("jobs")
	t, err := b.startJobStack(ctx, w.programs, w.full, "http://127.0.0.1:1", 0)
	if err != nil {
		return err
	}
	l := load{addr: t.addr, conns: maxConns, orders: b.orders, total: b.jobDrain}
	res, err := l.run(ctx)
	if err != nil {
		return err
	}
	b.say("the backlog holds %d jobs, submitted at %.0f/s", res.stored, res.perSecond())
	return nil
}

// drainJobs measures from the function's first call until the dispatcher has counted the last job's end, which it does
// when that is stored. A page of metrics is a small load; asking NATS for the states would tie figures to their layout.
func (b *bench) drainJobs(ctx context.Context, w *weirJobs, calls int) error {
	defer b.stopChildren()
	dir := b.folder("nats")
	if err := os.CopyFS(dir, os.DirFS(w.full)); err != nil {
		return err
	}
	server, url, err := b.startNATSOf(ctx, w.programs, dir)
	if err != nil {
		return err
	}
	_, function, err := b.self(ctx, "work", "work", "0s")
	if err != nil {
		return err
	}
	admin, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	dispatcher, err := b.startDispatcherOf(w.programs, url, "WEIR_HEALTH_LISTEN="+admin)
	if err != nil {
		return err
	}
	if err := dispatcher.answers(ctx, "http://"+admin+"/readyz"); err != nil { // it runs the catalog without mappings
		return err
	}
	name := "job_drain_" + w.as + "per_s_" + strconv.Itoa(calls)
	b.perf(name+"-dispatcher", 4*time.Second, dispatcher.PID())
	b.perf(name+"-nats", 4*time.Second, server.PID())
	others := b.watchOthers()
	if err := b.provisionBy(ctx, w.programs, url, "http://"+function, calls); err != nil {
		return err
	}
	if err := untilEnded(ctx, admin, b.jobDrain); err != nil {
		return err
	}
	end, crowd := time.Now(), b.crowd(others())
	first, err := firstCall(ctx, function)
	if err != nil {
		return err
	}
	perSecond := float64(b.jobDrain) / end.Sub(first).Seconds()
	b.results.add(name, perSecond)
	fmt.Printf("    %-26s %7.0f/s%s\n", name, perSecond, crowd)
	b.stopChildren()
	return os.RemoveAll(dir)
}

// untilEnded waits until the dispatcher's metrics say that so many jobs have succeeded.
func untilEnded(ctx context.Context, admin string, jobs int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainTimeout, errors.New("the jobs had not ended in time"))
	defer cancel()
	for ctx.Err() == nil {
		status, page := get(ctx, http.MethodGet, "http://"+admin+"/metrics", "", nil)
		if status == http.StatusOK {
			succeeded, others, err := endedJobs(page)
			if err != nil {
				return err
			}
			if others > 0 {
				return fmt.Errorf("%d jobs have not succeeded", others)
			}
			if succeeded >= jobs {
				return nil
			}
		}
		wait(ctx, 50*time.Millisecond)
	}
	return context.Cause(ctx)
}

// endedJobs reads weir.jobs.ended (docs/metrics.md) from a page of metrics.
func endedJobs(page string) (succeeded, others int, err error) {
	for l := range strings.Lines(page) {
		rest, ok := strings.CutPrefix(l, "weir_jobs_ended_total{")
		if !ok {
			continue
		}
		labels, value, _ := strings.Cut(rest, "} ")
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return 0, 0, fmt.Errorf("metrics: %q: %w", l, err)
		}
		if strings.Contains(labels, `weir_job_status="succeeded"`) {
			succeeded += int(n)
		} else {
			others += int(n)
		}
	}
	return succeeded, others, nil
}

// firstCall asks the function when it was called first.
func firstCall(ctx context.Context, function string) (time.Time, error) {
	_, text := get(ctx, http.MethodGet, "http://"+function, "", nil)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n == 0 {
		return time.Time{}, fmt.Errorf("the function was not called: %q", text)
	}
	return time.Unix(0, n), nil
}
