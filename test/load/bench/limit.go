package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/weir-dev/weir/internal/catalog"
	"github.com/weir-dev/weir/internal/record"
	"github.com/weir-dev/weir/internal/stream"
)

// The limit stage: a dispatcher of many mappings, one of them busy with large bodies.
const (
	limitMappings = 20
	limitBody     = 240_000
	limitMiB      = 128  // of the container
	limitShare    = 0.85 // of it that is GOMEMLIMIT, as in the chart
	limitTakes    = "50ms"
	limitCalls    = 10
)

// limitVariant is what a dispatcher may take.
type limitVariant struct {
	name string
	env  []string
}

// limit measures how fast the busy mapping's queue becomes empty under the container's limit and without one, in turns.
func (b *bench) limit(ctx context.Context) error {
	full := b.folder("full")
	_, function, err := b.self(ctx, "sink", "sink", limitTakes)
	if err != nil {
		return err
	}
	cat := limitCatalog("http://" + function)
	if err := b.fillLimit(ctx, full, cat); err != nil {
		return fmt.Errorf("fill the queue: %w", err)
	}
	goLimit := float64(limitMiB << 20)
	variants := []limitVariant{
		{"limit", []string{"GOMEMLIMIT=" + strconv.FormatInt(int64(limitShare*goLimit), 10)}},
		{"limit_without", []string{"GOMEMLIMIT=off", "WEIR_MEMORY=1TiB"}},
	}
	for round := range b.rounds {
		b.say("limit, round %d of %d", round+1, b.rounds)
		for _, v := range variants {
			if err := b.drainLimit(ctx, v, full, cat); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		slices.Reverse(variants)
	}
	b.results.ratio("limit_vs_without", "limit_per_s", "limit_without_per_s")
	b.results.add("limit_records", float64(b.limitRecords))
	return os.RemoveAll(full)
}

// limitCatalog has the mappings of a function at url.
func limitCatalog(url string) *catalog.Catalog {
	cat := &catalog.Catalog{}
	for i := range limitMappings {
		k := catalog.Key{Namespace: "default", Name: "limit-" + strconv.Itoa(i)}
		cat.Queues = append(cat.Queues, catalog.Queue{Key: k, MaxAge: time.Hour, MaxBytes: 16 << 30, DeadLetterMaxAge: time.Hour})
		cat.Mappings = append(cat.Mappings, catalog.Mapping{
			Key: k, Queue: k, Function: catalog.Function{Name: "sink", URL: url},
			Batch: catalog.Batch{MaxRecords: 100, MaxBytes: 4 << 20}, MaxConcurrency: limitCalls, Timeout: time.Minute,
			Retry: catalog.Retry{MaxAttempts: 3, InitialBackoff: time.Second, MaxBackoff: time.Second, MaxAge: time.Hour},
		})
	}
	return cat
}

// fillLimit stores the busy queue's records, which no codec makes smaller, in folder.
func (b *bench) fillLimit(ctx context.Context, folder string, cat *catalog.Catalog) (err error) {
	server, url, err := b.startNATS(ctx, folder)
	if err != nil {
		return err
	}
	defer server.stop()
	if err := provision(ctx, url, withoutMappings(cat)); err != nil {
		return err
	}
	conn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close()
	w := conn.NewWriter(cat.Queues[0].Key, record.DefaultCodec)
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { w.Run(running) })
	rng := rand.New(rand.NewPCG(2019, 335))
	body := make([]byte, limitBody)
	var pending []stream.Pending
	for n := range b.limitRecords {
		scribble(rng, body)
		id, err := record.NewID()
		if err != nil {
			return err
		}
		p, err := w.Add(&record.Record{ID: id, Time: time.Now(), Source: "bench", ContentType: "application/json", JSON: true, Body: body}) //nolint:contextcheck // it waits for nothing
		if err != nil {
			return err
		}
		if pending = append(pending, p); len(pending) < 32 && n < b.limitRecords-1 {
			continue
		}
		for _, p := range pending {
			if err := p.Wait(); err != nil {
				return err
			}
		}
		pending = pending[:0]
	}
	return nil
}

// scribble makes p a JSON string of 64 letters that look random.
func scribble(rng *rand.Rand, p []byte) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i, bits := 0, uint64(0); i < len(p); i, bits = i+1, bits>>6 {
		if i%10 == 0 {
			bits = rng.Uint64()
		}
		p[i] = letters[bits&63]
	}
	p[0], p[len(p)-1] = '"', '"'
}

func (b *bench) drainLimit(ctx context.Context, v limitVariant, full string, cat *catalog.Catalog) error {
	dir := b.folder("nats")
	if err := os.CopyFS(dir, os.DirFS(full)); err != nil {
		return err
	}
	server, url, err := b.startNATS(ctx, dir)
	if err != nil {
		return err
	}
	defer server.stop()
	conn, err := connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close()
	d, err := b.startDispatcher(url, v.env...)
	if err != nil {
		return err
	}
	defer d.stop()
	wait(ctx, time.Second) // it is up, and runs the catalog without mappings
	others := b.watchOthers()
	start, cpu := time.Now(), cpuTime(d.PID())
	if err := conn.PublishCatalog(ctx, cat, 1, nil); err != nil {
		return err
	}
	if err := untilEmpty(ctx, conn, cat.Queues[0].Key); err != nil {
		if d.Ended() {
			err = errors.Join(err, d.failure("ended"))
		}
		return err
	}
	perSecond := float64(b.limitRecords) / time.Since(start).Seconds()
	crowd := b.crowd(others())
	us := float64((cpuTime(d.PID()) - cpu).Microseconds()) / float64(b.limitRecords)
	peak, err := peakMemory(d.PID())
	if err != nil {
		return err
	}
	b.results.add(v.name+"_per_s", perSecond)
	b.results.add(v.name+"_peak_mib", peak)
	b.results.add("cpu_us_per_record_"+v.name, us)
	fmt.Printf("    %-15s %7.0f/s; peak %.0f MiB; CPU of the dispatcher %.0f µs a record%s\n", v.name, perSecond, peak, us, crowd)
	d.stop()
	server.stop()
	return os.RemoveAll(dir)
}
