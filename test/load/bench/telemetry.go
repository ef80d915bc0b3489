package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// telemetryKind is how much of its work a service tells about.
type telemetryKind int

const (
	telemetryAsShipped telemetryKind = iota // metrics on a page
	telemetryOff
	telemetrySampled // metrics pushed, too, each second; one trace of a hundred
	telemetryFull    // the same, and every trace
	telemetryHangs   // telemetryFull, to a collector that never answers
	telemetryRefused // to one that answers 503
	telemetryAway    // to one that is not there
)

// telemetryEnv is a service's environment for it, and the collector; nil if there is none.
func (b *bench) telemetryEnv(ctx context.Context, kind telemetryKind) (env []string, collector *child, err error) {
	var addr string
	share, how := "1", "takes"
	switch kind {
	case telemetryAsShipped:
		return nil, nil, nil
	case telemetryOff:
		return []string{"OTEL_SDK_DISABLED=true"}, nil, nil
	case telemetryAway:
		if addr, err = freeAddress(ctx); err != nil {
			return nil, nil, err
		}
	case telemetrySampled:
		share = "0.01"
	case telemetryHangs:
		how = "hangs"
	case telemetryRefused:
		how = "refuses"
	case telemetryFull:
	}
	if addr == "" {
		if collector, addr, err = b.self(ctx, "collector", "collector", how); err != nil {
			return nil, nil, err
		}
	}
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + addr, "OTEL_METRIC_EXPORT_INTERVAL=1000",
		"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=" + share,
	}, collector, nil
}

// collector returns the handler of a collector that takes and drops all, hangs, or refuses.
func collector(how string) (http.HandlerFunc, error) {
	switch how {
	case "takes", "hangs", "refuses":
	default:
		return nil, fmt.Errorf("a collector that %q is unknown", how)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		switch {
		case how == "hangs":
			<-r.Context().Done()
		case how == "refuses", err != nil:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.Header()["Content-Type"] = []string{"application/x-protobuf"} // of an empty answer: all was taken
		}
	}, nil
}

const (
	manyQueues = 1000
	manyAPIs   = 10
	manyRoutes = 1000 // of each
	manyScrape = 3
	manyAtOnce = 16
)

// manySeries measures what the metrics of many queues and routes cost: the memory of `weir local`, which is gateway,
// dispatcher and the depths in one, after each route had a request and the page was read, with and without telemetry.
func (b *bench) manySeries(ctx context.Context) error {
	dir := b.folder("many")
	if err := writeMany(dir); err != nil {
		return err
	}
	for round := range b.rounds {
		b.say("memory of %d queues and %d routes, round %d of %d", manyQueues, manyAPIs*manyRoutes, round+1, b.rounds)
		kinds := []telemetryKind{telemetryOff, telemetryAsShipped}
		if round%2 == 1 {
			slices.Reverse(kinds)
		}
		for _, kind := range kinds {
			name := "many_memory_mib"
			if kind == telemetryOff {
				name = "many_memory_without_mib"
			}
			if err := b.many(ctx, dir, name, kind); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	r := b.results
	r.add("telemetry_memory_mib", r.median("many_memory_mib")-r.median("many_memory_without_mib"))
	r.add("telemetry_memory_peak_mib", r.median("many_memory_peak_mib")-r.median("many_memory_peak_without_mib"))
	return nil
}

func (b *bench) many(ctx context.Context, resources, name string, kind telemetryKind) error {
	defer b.stopChildren()
	_, sink, err := b.self(ctx, "null", "null")
	if err != nil {
		return err
	}
	env, _, err := b.telemetryEnv(ctx, kind)
	if err != nil {
		return err
	}
	data := b.folder("nats")
	c, addr, admin, err := b.startLocal(ctx, manyTimeout, resources, env, "--data", data, "--function", "sink=http://"+sink)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := postToMany(ctx, addr); err != nil {
		return err
	}
	took, bytes := time.Since(start), 0
	if kind != telemetryOff {
		for range manyScrape {
			if bytes, err = scrape(ctx, "http://"+admin+"/metrics"); err != nil {
				return err
			}
		}
	}
	wait(ctx, settle)
	full, err := residentMemory(c.PID())
	if err != nil {
		return err
	}
	peak, err := peakMemory(c.PID())
	if err != nil {
		return err
	}
	b.results.add(name, full)
	b.results.add(strings.Replace(name, "memory", "memory_peak", 1), peak)
	fmt.Printf("    %-24s %4.0f MiB, at most %.0f MiB; requests took %.1f s, the page has %.1f MiB\n", name, full, peak, took.Seconds(), float64(bytes)/(1<<20))
	b.stopChildren()
	return os.RemoveAll(data)
}

const manyTimeout = 5 * time.Minute // a thousand streams are created first

// writeMany writes the YAML of the queues, each with a mapping to one function, and of routes that write to them: of one
// kind a file, since a file may have 1,000 of them.
func writeMany(dir string) error {
	var queues, mappings, apis bytes.Buffer
	for q := range manyQueues {
		fmt.Fprintf(&queues, "---\napiVersion: weir.dev/v1alpha1\nkind: Queue\nmetadata: {name: q-%d}\nspec: {maxBytes: 64Mi}\n", q)
		fmt.Fprintf(&mappings, "---\napiVersion: weir.dev/v1alpha1\nkind: EventSourceMapping\nmetadata: {name: q-%[1]d}\nspec: {queue: q-%[1]d, function: {name: sink}, maxConcurrency: 2}\n", q)
	}
	for a := range manyAPIs {
		fmt.Fprintf(&apis, "---\napiVersion: weir.dev/v1alpha1\nkind: API\nmetadata: {name: api-%d}\nspec:\n  routes:\n", a)
		for r := range manyRoutes {
			fmt.Fprintf(&apis, "  - {name: route-%d, match: {method: POST, path: %q}, queue: {name: q-%d}}\n", r, manyPath(a, r), (a*manyRoutes+r)%manyQueues)
		}
	}
	const function = `apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: sink}
spec: {template: {metadata: {annotations: {autoscaling.knative.dev/max-scale: "1000"}}, spec: {containerConcurrency: 10, timeoutSeconds: 60, containers: [{image: sink}]}}}
`
	err := os.MkdirAll(dir, 0o755)
	for name, text := range map[string][]byte{"queues": queues.Bytes(), "mappings": mappings.Bytes(), "apis": apis.Bytes(), "function": []byte(function)} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".yaml"), text, 0o600)
		}
	}
	return err
}

func manyPath(api, route int) string { return fmt.Sprintf("/api-%d/things-%d", api, route) }

// postToMany makes one request to each route.
func postToMany(ctx context.Context, addr string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: manyAtOnce}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range manyAtOnce {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < manyAPIs*manyRoutes && ctx.Err() == nil; n = next.Add(1) - 1 {
				if err := postOnce(ctx, client, "http://"+addr+manyPath(int(n)/manyRoutes, int(n)%manyRoutes)); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func postOnce(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"sku":"a"}`))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return err
}

// scrape reads a page as Prometheus does, and returns its size.
func scrape(ctx context.Context, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return int(n), err
}
